"""Messy tables: what is read is what an independent reader finds, or the fault is named with its line."""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fedcore.data.files import inspect, read_table
from fedcore.data.layout import Category, Day, Layout, Missing, Notation, Number, Outside
from fedcore.data.reading import Reading
from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError, OutOfBoundsError

LABEL = Category(name="died", categories=("no", "yes"))


def schema(*columns: Number | Day | Category, label: Category | Number = LABEL, **more: object) -> Schema:
    return Schema.of(Layout(columns=columns, label=label, **more))  # type: ignore[arg-type]


AGE = Number(name="age", low=0, high=120)


def read(tmp_path: Path, text: str | bytes, wanted: Schema) -> Reading:
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return inspect(path, wanted)


def rules(age: Number) -> Schema:
    return schema(age)


@pytest.mark.parametrize(
    ("missing", "ages", "dropped", "filled"),
    [
        (Missing.DROP, [30, 50], {"age": 2}, {}),
        (Missing.MEAN, [30, np.nan, np.nan, 50], {}, {"age": 2}),
        (Missing.CONSTANT, [30, 7, 7, 50], {}, {"age": 2}),
    ],
)
def test_a_missing_number_is_treated_by_its_rule_and_counted(
    tmp_path: Path, missing: Missing, ages: list[float], dropped: dict[str, int], filled: dict[str, int]
) -> None:
    column = Number(
        name="age", low=0, high=120, missing=missing, constant=7 if missing is Missing.CONSTANT else None
    )
    found = read(tmp_path, "age,died\n30,no\n,no\n NA ,yes\n50,no\n", schema(column))
    assert np.array_equal(found.table.features[:, 0], ages, equal_nan=True)
    assert (found.rows, dict(found.dropped), dict(found.filled)) == (4, dropped, filled)
    assert not found.faults


def test_a_missing_number_without_a_rule_is_a_fault_with_all_its_lines(tmp_path: Path) -> None:
    found = read(tmp_path, "age,died\n30,no\n,no\nNA,yes\n50,no\n", schema(AGE))
    (fault,) = found.faults
    assert (list(fault.rows), list(fault.lines), fault.column) == ([2, 3], [3, 4], "age")
    assert str(fault) == (
        f"{tmp_path / 'rows.csv'}, line 3, row 2, column age: is missing, must be a number, in 2 rows; "
        'give it, or agree on missing = "drop" or another rule for the column'
    )
    with pytest.raises(DataError, match="line 3, row 2"):
        found.complete()
    assert found.table.features[:, 0].tolist() == [30, 50]  # of what is fine


@pytest.mark.parametrize(
    ("outside", "ages", "counts"),
    [
        (Outside.DROP, [30.0], ({"age": 2}, {}, {})),
        (Outside.CLIP, [30.0, 120.0, 0.0], ({}, {}, {"age": 2})),
        (Outside.MISSING, [30.0, 7.0, 7.0], ({}, {"age": 2}, {})),
    ],
)
def test_a_number_outside_of_its_bounds_is_treated_by_its_rule_and_counted(
    tmp_path: Path, outside: Outside, ages: list[float], counts: tuple[dict[str, int], ...]
) -> None:
    column = Number(name="age", low=0, high=120, outside=outside, missing=Missing.CONSTANT, constant=7)
    found = read(tmp_path, "age,died\n30,no\n50000,no\n-1,yes\n", schema(column))
    assert found.table.features[:, 0].tolist() == ages
    assert (dict(found.dropped), dict(found.filled), dict(found.clipped)) == counts


def test_a_number_outside_of_its_bounds_without_a_rule_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(OutOfBoundsError, match=r"line 3, row 2, column age: must be in \[0, 120\]"):
        read(tmp_path, "age,died\n30,no\n50000,no\n", schema(AGE)).complete()


def test_categories_become_features_and_spellings_are_agreed_on(tmp_path: Path) -> None:
    sex = Category(name="sex", categories=("F", "M"), also={"male": "M"})
    stage = Category(name="stage", categories=("1", "2", "3"), missing=Missing.CATEGORY)
    found = read(tmp_path, "sex,stage,died\nF,1,no\nmale,3,yes\nM,,no\nF, 2 ,no\n", schema(sex, stage))
    assert found.table.features.tolist() == [
        [0, 1, 0, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1],
        [0, 0, 1, 0, 0],
    ]
    assert found.filled == {"stage": 1}
    found = read(tmp_path, "sex,stage,died\nf,1,no\n", schema(sex, stage))
    assert "must be one of 'F', 'M'; correct it, or agree on the spelling" in str(found.faults[0])
    assert "'f'" not in str(found.faults[0])
    assert found.faults[0].values == ("f",)


def test_a_category_without_a_value_has_the_mean_in_all_its_features(tmp_path: Path) -> None:
    stage = Category(name="stage", categories=("1", "2", "3"), missing=Missing.MEAN)
    found = read(tmp_path, "stage,died\n1,no\n,yes\n", schema(stage))
    assert np.isnan(found.table.features[1]).all()
    assert schema(stage).filled.tolist() == [0, 1, 2]


def test_days_are_read_in_their_form(tmp_path: Path) -> None:
    day = Day(name="day", date="%d.%m.%Y", low="2020-01-01", high="2020-12-31")
    found = read(tmp_path, "day,died\n01.02.2020,no\n31.12.2020,no\n", schema(day))
    wanted = [(dt.date(2020, *at) - dt.date(1970, 1, 1)).days for at in ((2, 1), (12, 31))]
    assert found.table.features[:, 0].tolist() == wanted
    found = read(tmp_path, "day,died\n2020-02-01,no\n01.02.2021,no\n", schema(day))
    assert ["must be a date as %d.%m.%Y" in str(found.faults[0]), found.faults[1].bounds] == [True, True]


def test_persons_are_told_apart_by_the_id_which_is_no_feature(tmp_path: Path) -> None:
    found = read(tmp_path, "age,who,died\n1,b,no\n2,a,no\n3,b,yes\n", schema(AGE, id="who"))
    assert found.table.features.shape == (3, 1)
    assert found.table.persons is not None
    one, two, three = found.table.persons
    assert one == three != two
    found = read(tmp_path, "age,who,died\n1,,no\n", schema(AGE, id="who"))
    assert "column who: is missing: it tells whose row it is" in str(found.faults[0])


def test_a_label_that_is_a_number(tmp_path: Path) -> None:
    days = Number(name="days", low=0, high=365, missing=Missing.DROP)
    found = read(tmp_path, "age,days\n30,12.5\n40,\n", schema(AGE, label=days))
    assert found.table.labels.tolist() == [12.5]
    assert found.dropped == {"days": 1}


@pytest.mark.parametrize(
    ("text", "notation", "message"),
    [
        ("age;died\n30;no\n", Notation(), 'separated by commas, or agree on delimiter = ";" in [file]'),
        ("age\tdied\n30\tno\n", Notation(), 'agree on delimiter = "\\t" in [file] for tabulators'),
        (
            "age,died\n30,no\n",
            Notation(delimiter=";"),
            'by semicolons, or agree on delimiter = ","',
        ),
        ("age,died\n30,5,no\n", Notation(), "line 2: has more fields than the header, 3 for 2"),
        ("age,died\n30\n", Notation(), "line 2: has fewer fields than the header, 1 for 2"),
        (
            "age,died\n1.234,no\n",
            Notation(decimal=","),
            'on decimal = "." or thousands = "." in [file]',
        ),
        ('age,died\n"1,234",no\n', Notation(), 'agree on decimal = "," or thousands = "," in [file]'),
        ("age,died\n1 234,no\n", Notation(), "agree on thousands in [file], the mark between"),
        ("age,died\nabout 30,no\n", Notation(), "or agree on texts that are no value"),
        (
            "age,died\nold,no\n",
            Notation(),
            "must be a number; correct it, or agree on texts that",
        ),
        ('age,died\n"30,no\n40,no\n50",yes\n', Notation(), "line 2: a quote opens here and closes on line 4"),
        ('age,died\n30,"no\n', Notation(), "line 2: unexpected end of data; a quote within"),
        ('age,died\n30,"n"o\n', Notation(), "line 2: ',' expected after '\"'"),
        ("\n\n", Notation(), "is empty, the first line must name the columns"),
        ("died\nno\n", Notation(), "column age is missing"),
        ("age,age,died\n1,2,no\n", Notation(), "column age is there twice"),
        (
            b"age,died\n30,no\n\xe4,no\n",
            Notation(),
            "line 3: is no utf-8 text; agree on encoding =",
        ),
        ("age,died\n1e999,no\n", Notation(), "column age: must be finite"),
        ("age,died\n30,maybe\n", Notation(), "column died: must be one of 'no', 'yes'"),
    ],
)
def test_what_a_file_says_in_another_way_is_a_fault_with_its_line_and_the_cure(
    tmp_path: Path, text: str | bytes, notation: Notation, message: str
) -> None:
    try:
        found = read(tmp_path, text, schema(AGE, notation=notation))
    except DataError as error:
        assert message in str(error)  # noqa: PT017
    else:
        assert message in str(found.faults[0])
        with pytest.raises(DataError):
            found.complete()


def test_all_faults_are_told_and_what_no_rule_names_is_told_too(tmp_path: Path) -> None:
    text = "age,note,died\n30,x,no\nold,y,no\n130,z,no\n40,,maybe\n,,no\n"
    found = read(tmp_path, text, schema(AGE))
    assert sorted((fault.column, *fault.lines) for fault in found.faults) == [
        ("age", 3),
        ("age", 4),
        ("age", 6),
        ("died", 5),
    ]
    assert found.unused == ("note",)
    assert found.table.features[:, 0].tolist() == [30]
    with pytest.raises(DataError, match="; 3 more faults: fedcore check lists them$"):
        found.complete()


def test_the_mark_of_excel_blank_lines_and_the_mark_of_utf_8_are_no_rows(tmp_path: Path) -> None:
    found = read(tmp_path, b"\xef\xbb\xbf\r\n\r\nage,died\r\n\r\n30,no\r\n,\r\n40,yes\r\n", schema(AGE))
    assert found.rows == 2
    found = read(tmp_path, "sep=;\nage;died\n30;no\n", schema(AGE, notation=Notation(delimiter=";")))
    assert found.complete().features.tolist() == [[30.0]]


def test_a_text_of_several_lines_in_a_column_that_is_not_used_is_left_alone(tmp_path: Path) -> None:
    found = read(tmp_path, 'age,note,died\n30,"a\nb",no\n40,c,yes\n', schema(AGE))
    assert found.complete().features[:, 0].tolist() == [30, 40]
    found = read(tmp_path, 'age,note,died\n30,"a\nb",no\nold,c,yes\n', schema(AGE))
    assert list(found.faults[0].lines) == [4]


def test_parquet_and_archives_obey_the_same_rules(tmp_path: Path) -> None:
    wanted = schema(
        Number(name="age", low=0, high=120, missing=Missing.MEAN),
        Category(name="ward", categories=("1", "2"), missing=Missing.DROP),
        Day(name="day", date="%d.%m.%Y", low="2020-01-01", high="2020-12-31"),
        id="who",
    )
    day = dt.date(2020, 2, 1)
    table = pa.table(
        {
            "age": pa.array([30.0, None, 50.0]),
            "ward": pa.array([1, 2, None]),
            "day": pa.array([day, day, day]),
            "who": pa.array([7, 8, 9]),
            "died": pa.array(["no", "yes", "no"]),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    np.savez(
        tmp_path / "rows.npz",
        age=[30.0, np.nan, 50.0],
        ward=[1.0, 2.0, np.nan],
        day=np.array(["2020-02-01"] * 3, "datetime64[s]"),
        who=[7, 8, 9],
        died=["no", "yes", "no"],
    )
    number = float((day - dt.date(1970, 1, 1)).days)
    for suffix in ("parquet", "npz"):
        found = inspect(tmp_path / f"rows.{suffix}", wanted)
        assert not found.faults
        assert np.array_equal(found.table.features, [[30, 0, number], [np.nan, 1, number]], equal_nan=True)
        assert (found.dropped, found.filled) == ({"ward": 1}, {"age": 1})
        assert found.table.labels.tolist() == [0, 1]


# --- any dialect, read back by an independent reader


@st.composite
def messy(draw: st.DrawFn) -> tuple[Notation, str, list[tuple[float | None, str]]]:
    """A notation, a text in it, and its rows."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","]))
    thousands = draw(st.sampled_from([one for one in ("", ".", ",", " ", "'") if one != decimal]))
    notation = Notation(delimiter=delimiter, decimal=decimal, thousands=thousands, missing=("", "n/a"))
    rows = draw(
        st.lists(
            st.tuples(
                st.one_of(st.none(), st.floats(-1e7, 1e7), st.integers(-(10**7), 10**7).map(float)),
                st.sampled_from(["no", "yes"]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    out = io.StringIO(newline="")
    writer = csv.writer(
        out,
        delimiter=delimiter,
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerow(["died", "note", "x"])
    for value, answer in rows:
        text = draw(st.sampled_from(["", "n/a", " "])) if value is None else written(value, notation)
        writer.writerow([answer, draw(st.sampled_from(["", "a b", 'said "so"', "one\ntwo"])), text])
    blank = draw(st.sampled_from(["", "\n", "\r\n\n"]))
    return notation, blank + out.getvalue(), rows


def written(value: float, notation: Notation) -> str:
    """In groups where the notation has them; python's own grouping is the independent one."""
    text = repr(value)
    if "e" in text or not notation.thousands:
        return text.replace(".", notation.decimal)
    whole, _, rest = text.partition(".")
    grouped = f"{int(whole):,}" if int(whole) else whole
    return grouped.replace(",", notation.thousands) + (notation.decimal + rest if rest else "")


@settings(max_examples=300)
@given(messy())
def test_any_dialect_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Notation, str, list[tuple[float | None, str]]]
) -> None:
    notation, text, rows = drawn
    column = Number(name="x", low=-1e7, high=1e7, missing=Missing.MEAN)
    path = tmp_path_factory.mktemp("messy") / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = inspect(path, schema(column, notation=notation))
    assert not found.faults
    wanted = [np.nan if value is None else value for value, _ in rows]
    assert np.array_equal(found.table.features[:, 0], wanted, equal_nan=True)
    assert found.table.labels.tolist() == [("no", "yes").index(answer) for _, answer in rows]


@given(messy(), st.randoms(use_true_random=False))
def test_in_another_dialect_than_agreed_nothing_is_read_in_silence_as_something_else(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[Notation, str, list[tuple[float | None, str]]],
    rng: random.Random,
) -> None:
    """What is read all the same is read by rule: each value in it is one in the agreed notation."""
    notation, text, rows = drawn
    other = Notation(
        delimiter=rng.choice([",", ";", "\t", "|"]), decimal=rng.choice([".", ","]), missing=("", "n/a")
    )
    path = tmp_path_factory.mktemp("messy") / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    column = Number(name="x", low=-1e7, high=1e7, missing=Missing.MEAN)
    try:
        table = read_table(path, schema(column, notation=other))
    except DataError as error:
        assert "rows.csv" in str(error)  # noqa: PT017
        return
    assert other.delimiter == notation.delimiter
    assert len(table) == len(rows)
    for value, (wrote, _) in zip(table.features[:, 0], rows, strict=True):
        if wrote is not None:
            assert value == other.number(written(wrote, notation))


def test_typed_values_are_what_they_are_however_texts_are_written(tmp_path: Path) -> None:
    """Decimals, days and booleans of a typed file never go by way of the notation of text files."""
    wanted = schema(
        Number(name="x", low=-10, high=10),
        Number(name="on", low=0, high=1, missing=Missing.MEAN),
        Day(name="day", date="%d.%m.%y", low="1900-01-01", high="2060-12-31"),
        Category(name="sure", categories=("0", "1")),
        notation=Notation(decimal=",", thousands="."),
    )
    days = [dt.date(1950, 3, 1), dt.date(1950, 3, 2)]
    table = pa.table(
        {
            "x": pa.array([Decimal("1.5"), Decimal("-1.125")], pa.decimal128(10, 3)),
            "on": pa.array([True, None]),
            "day": pa.array(days, pa.date32()).cast(pa.timestamp("ns")),
            "sure": pa.array([True, False]),
            "died": ["no", "yes"],
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    number = float((days[0] - dt.date(1970, 1, 1)).days)
    assert number < 0
    found = inspect(tmp_path / "rows.parquet", wanted)
    assert not found.faults
    assert np.array_equal(
        found.table.features, [[1.5, 1, number, 1], [-1.125, np.nan, number + 1, 0]], equal_nan=True
    )
    np.savez(
        tmp_path / "rows.npz",
        x=[1.5, -1.125],
        on=[1.0, np.nan],
        day=np.array(days, "datetime64[ns]"),
        sure=[True, False],
        died=["no", "yes"],
    )
    assert np.array_equal(
        inspect(tmp_path / "rows.npz", wanted).table.features, found.table.features, equal_nan=True
    )


def test_ids_that_are_no_number_are_missing_ids_and_nobody(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", age=[1.0, 2.0, 3.0], who=[1.0, np.nan, np.nan], died=["no"] * 3)
    found = inspect(tmp_path / "rows.npz", schema(AGE, id="who", notation=Notation(missing=("", "NA"))))
    assert [list(fault.rows) for fault in found.faults] == [[2, 3]]


def test_a_matrix_is_of_numbers_alone_and_needs_no_labels_where_none_are_asked(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", features=np.array([[1.0], [0.0]]))
    assert inspect(tmp_path / "rows.npz", schema(AGE), answers=False).table.features.tolist() == [[1], [0]]
    for wanted in (schema(Category(name="age", categories=("1", "0"))), schema(AGE, id="who")):
        with pytest.raises(DataError, match="a matrix has numbers alone"):
            inspect(tmp_path / "rows.npz", wanted, answers=False)


def test_all_columns_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column age is missing, likewise died; the file writes it in other"):
        read(tmp_path, "Age,Died\n1,no\n", schema(AGE))


def test_rows_without_any_text_and_rows_of_other_lengths_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "age,died\n30,no\n,\n40\n50,yes\n", schema(AGE))
    assert (found.rows, found.blank, len(found.table)) == (3, 1, 2)
    assert "1 rows without any text left out" in list(found.rules())


def test_utf_8_under_any_of_its_names_has_a_mark(tmp_path: Path) -> None:
    for name in ("utf-8", "utf_8", "UTF8", "U8"):
        found = read(
            tmp_path, b"\xef\xbb\xbfage,died\n30,no\n", schema(AGE, notation=Notation(encoding=name))
        )
        assert found.complete().features.tolist() == [[30.0]]


@pytest.mark.parametrize("persons", [[0, 1], [0, 1, -1, 2]])
def test_persons_are_one_for_each_row(persons: list[int]) -> None:
    with pytest.raises(DataError, match="persons: must be 4 integers from 0"):
        Table(np.zeros((4, 1)), np.zeros(4), np.array(persons))


def test_tables_with_and_without_ids_are_not_joined() -> None:
    one, other = (Table(np.zeros((2, 1)), np.zeros(2), ids) for ids in (np.array([0, 0]), None))
    with pytest.raises(DataError, match="persons: must be given in all tables"):
        join_tables([one, other])
    joined = join_tables([one, one])
    assert joined.persons is not None
    assert joined.persons.tolist() == [0, 0, 1, 1]


def test_what_is_filled_is_counted_in_the_rows_that_are_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,y\n,1,0\n,,1\n5,9,0\n", encoding="utf-8")
    layout = Layout.parse(
        {
            "column": [
                {"name": "a", "low": 0, "high": 9, "missing": "mean"},
                {"name": "b", "low": 0, "high": 5, "missing": "drop", "outside": "clip"},
            ],
            "label": {"name": "y", "classes": ["0", "1"]},
        }
    )
    found = inspect(path, Schema.of(layout))
    assert (found.dropped, found.filled, found.clipped) == ({"b": 1}, {"a": 1}, {"b": 1})
