"""What the owner of a file hears of it before anybody else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcore.data.check import Findings, look
from fedcore.data.draft import draft
from fedcore.data.files import inspect
from fedcore.data.layout import Category, Layout, Missing, Number
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
    lines = ["who;age;sex;price;text;died"]
    lines += [
        f"P{i % 4};{20 + i if i % 7 else ''};{'FM'[i % 2]};1,{i:03d};note {i};{'no' if i % 3 else 'yes'}"
        for i in range(60)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    text = draft(path, "died", "who")
    assert "# age: 9 of 60 values are missing" in text
    assert "# price: left out: write [file] decimal or thousands first, it has commas" in text
    assert "# text: left out: neither numbers nor few texts" in text
    (tmp_path / "schema.toml").write_text(text, encoding="utf-8")
    layout = Layout.load(tmp_path / "schema.toml")
    age, sex = layout.columns
    assert (age, layout.id) == (Number(name="age", low=0, high=80, missing=Missing.MEAN), "who")
    assert sex == Category(name="sex", categories=("F", "M"))
    assert layout.classes == ("no", "yes")
    assert inspect(path, Schema.of(layout)).complete().features.shape == (60, 2)


def test_rare_texts_are_in_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cities = ["north"] * 8 + ["south"] * 8 + ["Smallville"]
    path.write_text(
        "city,died\n" + "".join(f"{one},{i % 2}\n" for i, one in enumerate(cities)), encoding="utf-8"
    )
    text = draft(path, "died")
    assert "Smallville" not in text
    assert "# city: 1 rare texts are not listed" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,2\n", "has no column died"),
        ("died,b\nno,text\n", "no column, or no label"),
    ],
)
def test_a_file_without_columns_or_rows_has_no_draft(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    label = "a" if "died" not in text and "b\n1" not in text else "died"
    with pytest.raises(DataError, match=message):
        draft(tmp_path / "rows.csv", label)
