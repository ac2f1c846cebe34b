"""What the owner of a file hears of it before anybody else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcore.data.check import Findings, look
from fedcore.data.draft import draft
from fedcore.data.files import inspect
from fedcore.data.layout import Category, Day, Layout, Missing, Number
from fedcore.data.schema import Schema
from fedcore.errors import DataError

LABEL = Category(name="died", categories=("no", "yes"))
AGE = Number(name="age", low=0, high=120, missing=Missing.DROP)


def findings(tmp_path: Path, text: str, *columns: Number | Category, cap: int | None = None) -> Findings:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    schema = Schema.of(Layout(columns=columns, label=LABEL))
    return look(inspect(path, schema), schema, cap)


def test_rows_classes_rules_and_faults_are_told(tmp_path: Path) -> None:
    found = findings(tmp_path, "age,died,note\n30,no,a\n,yes,b\nold,yes,c\n50,yes,d\n", AGE)
    assert found.facts == ("1 x no, 1 x yes", "1 features", "not used: note")
    told = found.to_json()
    assert (told["rows"], told["usable"], told["dropped"]) == (4, 2, {"age": 1})
    assert [(fault["lines"], fault["values"]) for fault in told["faults"]] == [([4], ("old",))]
    json.dumps(told)


@pytest.mark.parametrize(
    ("ages", "columns", "cap", "note"),
    [
        ("30 40 50 60 70 80 90 20 25 35", [AGE], 9, "10 rows count as 9, plan.weight_cap"),
        ("30 30 30 30 30 30 30 30 30 30", [AGE], None, "age is the same in all rows"),
        (
            "1 2 3 4 5 60 70 80 90 99",
            [AGE],
            None,
            "age alone tells the label: is it known before the outcome?",
        ),
        (
            "30 40 50 60 70 80 90 20 25 35",
            [Number(name="age", low=0, high=1e6)],
            None,
            "age varies by 22.9 within the bounds 0..1e+06: narrower bounds are seen better",
        ),
    ],
)
def test_what_will_surprise_is_told(
    tmp_path: Path, ages: str, columns: list[Number], cap: int | None, note: str
) -> None:
    values = ages.split()
    text = "age,died\n" + "".join(f"{age},{'no' if i < 5 else 'yes'}\n" for i, age in enumerate(values))
    assert any(one.startswith(note) for one in findings(tmp_path, text, *columns, cap=cap).warnings)


def test_ordinary_rows_surprise_nobody(tmp_path: Path) -> None:
    text = "age,died\n" + "".join(f"{20 + 7 * (i % 9)},{'no' if i % 3 else 'yes'}\n" for i in range(30))
    assert findings(tmp_path, text, AGE, cap=1000).warnings == ()


def test_a_draft_says_what_it_cannot_tell_and_rounds_bounds_outward(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["who;age;sex;price;day;text;code;died"]
    lines += [
        f"P{i};{20 + i if i % 7 else ''};{'FM'[i % 2]};1,{i:03d};{1 + i % 28:02d}.{1 + i % 12:02d}.2024;"
        f"note {i};{i % 9 + 1 if i % 8 else '-'};{'no' if i % 3 else 'yes'}"
        for i in range(60)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    text = draft(path, "died", "who")
    assert "# age: some are missing: refuse, drop, mean, constant\n" in text
    assert "# Numbers were taken to have a decimal comma: see [file]." in text
    assert "# text: left out, for it is no number, day or one of few texts that 5 persons share" in text
    assert "# day: read as %d.%m.%Y" in text
    (tmp_path / "schema.toml").write_text(text, encoding="utf-8")
    layout = Layout.load(tmp_path / "schema.toml")
    assert [column.name for column in layout.columns] == ["age", "sex", "price", "day", "code"]
    age, sex, price, day, _ = layout.columns
    assert (age, layout.id) == (Number(name="age", low=0, high=80, missing=Missing.MEAN), "who")
    assert sex == Category(name="sex", categories=("F", "M"))
    assert price == Number(name="price", low=0, high=2)
    assert day == Day(name="day", date="%d.%m.%Y", low="2024-01-01", high="2025-12-31")
    assert layout.classes == ("no", "yes")
    assert (layout.notation.delimiter, layout.notation.decimal) == (";", ",")
    assert inspect(path, Schema.of(layout)).complete().features.shape[0] == 60


def test_texts_that_few_persons_share_are_in_no_draft_however_many_rows_have_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cities = ["north"] * 8 + ["south"] * 8 + ["Smallville"]
    lines = "".join(f"{one},{i % 2}\n" for i, one in enumerate(cities))
    path.write_text(f"city,died\n{lines}", encoding="utf-8")
    text = draft(path, "died")
    assert "Smallville" not in text
    assert "# city: rare texts are not listed" in text
    rows = "".join(f"P{i % 10},Name{i % 10},{'ab'[i % 2]},{i % 2}\n" for i in range(60))
    path.write_text(f"who,name,ward,died\n{rows}", encoding="utf-8")
    assert "Name0" in draft(path, "died")  # each row is taken for a person
    assert "Name0" not in draft(path, "died", "who")


def test_a_draft_with_odd_names_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = "".join(f"{'FM'[i % 2] if i % 5 else ''},{i},{i % 2}\n" for i in range(40))
    path.write_text(f'"sex\n(m/f)","a ""b""",died\n{rows}', encoding="utf-8")
    (tmp_path / "schema.toml").write_text(draft(path, "died"), encoding="utf-8")
    layout = Layout.load(tmp_path / "schema.toml")
    assert [column.name for column in layout.columns] == ["sex\n(m/f)", 'a "b"']


@pytest.mark.parametrize(
    ("labels", "kind", "note"),
    [
        ([str(i % 3) for i in range(30)], ("0", "1", "2"), "# y: if it is a number, give low and high"),
        ([str(i % 12) for i in range(30)], tuple(map(str, range(12))), "# y: if it is a number"),
        ([str(i) for i in range(30)], (), ""),
        (["no", "yes", ""] * 10, ("no", "yes"), "# y: some are missing: these rows are dropped"),
    ],
)
def test_a_label_is_classes_or_a_number(
    tmp_path: Path, labels: list[str], kind: tuple[str, ...], note: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "".join(f"{i},{y}\n" for i, y in enumerate(labels)), encoding="utf-8")
    text = draft(path, "y")
    assert note in text
    (tmp_path / "schema.toml").write_text(text, encoding="utf-8")
    assert Layout.load(tmp_path / "schema.toml").classes == kind


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("", "y", "is empty"),
        ("a,b\n", "a", "has no rows"),
        ("a,b\n1,2\n", "y", "has no column y, it has a, b"),
        ("y,b\nno,text\nyes,text\n", "y", "no column beside y is a number, a day or one of few texts"),
        ("y,b\nno,1\nno,2\n", "y", "column y is no label: all rows have the same"),
        ('y,b\n"no\n', "y", "has no rows"),
    ],
)
def test_a_file_without_columns_or_rows_has_no_draft(
    tmp_path: Path, text: str, label: str, message: str
) -> None:
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        draft(tmp_path / "rows.csv", label)


def test_a_number_without_end_makes_no_bounds(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n1e400,0\n2,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column beside y"):
        draft(tmp_path / "rows.csv", "y")


def test_rows_without_labels_are_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("age\n" + "30\n40\n" * 10, encoding="utf-8")
    schema = Schema.of(Layout(columns=(AGE,), label=LABEL))
    found = look(inspect(path, schema, answers=False), schema, answers=False)
    assert (found.facts[0], found.warnings) == ("without labels", ())


def test_a_column_without_any_value_is_told(tmp_path: Path) -> None:
    column = Number(name="age", low=0, high=120, missing=Missing.MEAN)
    text = "age,died\n" + "".join(f",{'no' if i % 2 else 'yes'}\n" for i in range(12))
    assert findings(tmp_path, text, column).warnings == ("age has no value in any row",)
