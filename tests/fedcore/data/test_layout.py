from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.data.layout import Category, Day, Layout, Missing, Notation, Number, Outside
from fedcore.data.schema import Column, Schema
from fedcore.errors import DataError, SettingError
from fedcore.settings import to_json

TEXT = """
id = "patient"

[label]
name = "outcome"
classes = ["alive", "dead"]
also = { "0" = "alive", "1" = "dead" }
missing = "drop"

[[column]]
name = "age"
low = 0
high = 120
unit = "years"
missing = "mean"

[[column]]
name = "sex"
categories = ["F", "M"]
also = { "female" = "F", "male" = "M" }

[[column]]
name = "stage"
categories = ["I", "II", "III"]
missing = "category"

[[column]]
name = "admitted"
date = "%d.%m.%Y"
low = "2000-01-01"
high = "2029-12-31"
outside = "clip"

[file]
delimiter = ";"
decimal = ","
thousands = "."
encoding = "latin-1"
missing = ["", "-"]
"""


def load(tmp_path: Path, text: str) -> Layout:
    path = tmp_path / "schema.toml"
    path.write_text(text, encoding="utf-8")
    return Layout.load(path)


def test_a_file_says_columns_label_id_and_notation(tmp_path: Path) -> None:
    layout = load(tmp_path, TEXT)
    age, sex, stage, admitted = layout.columns
    assert age == Number(name="age", low=0, high=120, unit="years", missing=Missing.MEAN)
    assert sex == Category(name="sex", categories=("F", "M"), also={"female": "F", "male": "M"})
    assert stage == Category(name="stage", categories=("I", "II", "III"), missing=Missing.CATEGORY)
    assert admitted == Day(
        name="admitted", date="%d.%m.%Y", low="2000-01-01", high="2029-12-31", outside=Outside.CLIP
    )
    assert layout.label.name == "outcome"
    assert layout.classes == ("alive", "dead")
    assert layout.id == "patient"
    assert layout.notation == Notation(
        delimiter=";", decimal=",", thousands=".", encoding="latin-1", missing=("", "-")
    )


def test_features_are_numbers_days_and_a_feature_for_each_category_but_the_first_of_two(
    tmp_path: Path,
) -> None:
    schema = Schema.of(load(tmp_path, TEXT))
    first, last = 10957.0, 21914.0  # 2000-01-01 and 2029-12-31 after 1970-01-01
    assert schema.columns == (
        Column("age", 0, 120),
        Column("sex=M", 0, 1),
        *(Column(f"stage={name}", 0, 1) for name in ("I", "II", "III", "(missing)")),
        Column("admitted", first, last),
    )
    assert schema.classes == ("alive", "dead")
    assert schema.filled.tolist() == [0]


def test_a_label_may_be_a_number(tmp_path: Path) -> None:
    number = '[label]\nname = "days"\nlow = 0\nhigh = 365\n[[column]]\nname = "age"\nlow = 0\nhigh = 120\n'
    schema = Schema.of(load(tmp_path, number))
    assert schema.classes == ()
    assert schema.target == Column("days", 0, 365)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    layout = load(tmp_path, TEXT)
    assert load(tmp_path, layout.dump()) == layout
    schema = Schema.of(layout)
    schema.dump(tmp_path / "again.toml")
    assert Schema.load(tmp_path / "again.toml") == schema
    with pytest.raises(DataError, match=r"again\.csv: the layout needs a file that ends in \.toml"):
        schema.dump(tmp_path / "again.csv")


NAMES = st.text(min_size=1, max_size=5).filter(lambda text: text == text.strip() and text.isprintable())


@given(st.lists(NAMES, min_size=3, max_size=6, unique=True), st.data())
def test_any_names_are_written_and_read_back(names: list[str], data: st.DataObject) -> None:
    label, *others = names
    columns: list[Any] = []
    for name in others:
        match data.draw(st.integers(0, 2)):
            case 0:
                low = data.draw(st.floats(-1e6, 1e6))
                columns.append(Number(name=name, low=low, high=low + 1, missing=Missing.MEAN))
            case 1:
                words = data.draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
                columns.append(Category(name=name, categories=tuple(words)))
            case _:
                columns.append(Day(name=name, date="%Y/%m/%d", low="1990-01-01", high="2030-01-01"))
    try:
        layout = Layout(columns=tuple(columns), label=Category(name=label, categories=("0", "1")))
    except SettingError as error:
        assert "features" in str(error)  # noqa: PT017 - two columns may make one name
        return
    import tomllib

    assert Layout.parse(tomllib.loads(layout.dump())) == layout
    assert to_json(Layout.parse(tomllib.loads(layout.dump()))) == to_json(layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("low = 0\n", "low = 200\n"), "column age.low: must be below high, 120, both finite, is 200"),
        (("high = 120", 'high = "old"'), "column age.high: must be a number, is 'old'"),
        (('missing = "mean"', 'missing = "guess"'), "column age.missing: must be one of refuse, drop, mean"),
        (('missing = "mean"', 'missing = "category"'), "column age.missing: must be one of"),
        (('missing = "mean"', 'missing = "constant"'), "column age.constant: must be given with missing"),
        (('missing = "mean"', "constant = 7"), "column age.constant: must be given with missing"),
        (
            ('missing = "mean"', 'missing = "constant"\nconstant = 130'),
            "column age.constant: must be in 0..120, is 130",
        ),
        (('["F", "M"]', '["F"]'), "column sex.categories: must be two or more, each once, is ['F']"),
        (('"male" = "M"', '"male" = "X"'), "column sex.also.male: must be another spelling of a category"),
        (("%d.%m.%Y", "day"), "column admitted.date: must be a form of whole dates, such as"),
        (("2029-12-31", "2029-13-31"), "column admitted.high: must be a day, YYYY-MM-DD, is '2029-13-31'"),
        (('name = "sex"', 'name = "age"'), "columns: must be each once, and neither label nor id, is 'age'"),
        (
            ('name = "sex"', 'name = "outcome"'),
            "columns: must be each once, and neither label nor id, is 'outcome'",
        ),
        (('name = "sex"', 'name = "patient"'), "neither label nor id, is 'patient'"),
        (('missing = "drop"', 'missing = "mean"'), "label.missing: must be refuse or drop"),
        (('decimal = ","', 'decimal = ";"'), "file.decimal: must be a point or a comma"),
        (('thousands = "."', 'thousands = ","'), "file.thousands: must be a point, a comma, a space"),
        (('delimiter = ";"', 'delimiter = ";;"'), "file.delimiter: must be one character"),
        (('encoding = "latin-1"', 'encoding = "latin-99"'), "file.encoding: must be one that Python knows"),
        (('unit = "years"', 'units = "years"'), "column age.units: is not known"),
        (('id = "patient"', "id = 7"), "id: must be a text, is 7"),
        (('id = "patient"', "ids = 7"), "ids: is not known, the file has column, label, id, file"),
    ],
)
def test_what_is_wrong_is_named_by_its_column_and_key(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert TEXT.count(change[0]) == 1
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load(tmp_path, TEXT.replace(*change))
    assert str(caught.value).startswith(str(tmp_path / "schema.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[label]\nname = "y"\nclasses = ["a", "b"]\n', "column: must be given"),
        ('[[column]]\nname = "x"\nlow = 0\nhigh = 1\n', "label: must be given"),
        ('column = 3\n[label]\nname = "y"\nclasses = ["a", "b"]\n', "column: must be tables"),
        (
            '[[column]]\nlow = 0\nhigh = 1\n[label]\nname = "y"\nclasses = ["a", "b"]\n',
            "column[1].name: is missing",
        ),
        ('[[column]]\nname = "x"\n[label]\nname = "y"\nclasses = ["a", "b"]\n', "column x.low: is missing"),
        ("not toml", "not a schema"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load(tmp_path, text)


NUMBERS = [
    (
        Notation(),
        {"1": 1, "-2.5": -2.5, "+.5": 0.5, "1.": 1, "1e3": 1000, "1.234": 1.234, "1,234": None, "1_0": None},
    ),
    (Notation(decimal=","), {"1,5": 1.5, "1.5": None, "1,234": 1.234, "1.234,5": None}),
    (
        Notation(thousands=","),
        {"1,234": 1234, "1,234.5": 1234.5, "12,34": None, "1234": 1234, "1,2345": None},
    ),
    (
        Notation(decimal=",", thousands="."),
        {"1.234": 1234, "1.234,5": 1234.5, "1,234": 1.234, "1.23": None, "1.234.567": 1234567},
    ),
    (Notation(thousands=" "), {"12 345": 12345, "1 2": None}),
    (Notation(thousands="'"), {"12'345.5": 12345.5}),
    (
        Notation(),
        {"inf": None, "nan": None, "0x10": None, "": None, "1 0": None, "--1": None, "1e": None, "٣": None},
    ),
]


@pytest.mark.parametrize(("notation", "texts"), NUMBERS)
def test_a_number_is_what_the_notation_says_and_never_a_guess(
    notation: Notation, texts: dict[str, float | None]
) -> None:
    assert {text: notation.number(text) for text in texts} == texts


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_that_python_writes_is_read_as_it_is(value: float) -> None:
    assert Notation().number(repr(value)) == value
    assert Notation(decimal=",").number(repr(value).replace(".", ",")) == value


def test_the_label_cannot_be_a_feature() -> None:
    schema = Schema((Column("age", 0, 120), Column("dead", 0, 1)), ("0", "1"))
    with pytest.raises(DataError, match="column dead cannot be a feature and the label"):
        schema.layout_with("dead")


def test_files_of_features_keep_the_rule_for_what_all_sites_fill(tmp_path: Path) -> None:
    schema = Schema.of(load(tmp_path, TEXT)).of_features("outcome")
    assert schema.columns == Schema.of(load(tmp_path, TEXT)).columns
    assert schema.filled.tolist() == [0]
    schema.dump(tmp_path / "features.toml")
    assert Schema.load(tmp_path / "features.toml") == schema
    assert np.isfinite(schema.low).all()
