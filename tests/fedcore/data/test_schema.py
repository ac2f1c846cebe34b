"""Public bounds: read and written exactly, and every bad line or value is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedcore.data.schema import Column, Schema
from fedcore.errors import DataError, OutOfBoundsError

CLASSES = ("no", "yes")
SCHEMA = Schema((Column("age", 0.0, 120.0), Column("dose, mg", -0.1, 1 / 3)), CLASSES)


def test_a_schema_survives_its_file(tmp_path: Path) -> None:
    SCHEMA.dump(tmp_path / "schema.csv")
    assert Schema.load(tmp_path / "schema.csv", CLASSES) == SCHEMA


def test_bounds_are_in_the_order_of_the_columns() -> None:
    assert SCHEMA.low.tolist() == [0.0, -0.1]
    assert SCHEMA.high.tolist() == [120.0, 1 / 3]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, 1.0),
        (2.0, 1.0),
        (float("nan"), 1.0),
        (0.0, float("nan")),
        (-float("inf"), 0.0),
        (0.0, float("inf")),
    ],
)
def test_bounds_that_bound_nothing_are_refused(low: float, high: float) -> None:
    with pytest.raises(DataError, match=f"schema, column age: low < high, both finite, are {low}, {high}"):
        Column("age", low, high)


def test_columns_must_be_there_and_distinct() -> None:
    with pytest.raises(DataError, match="schema: needs columns, each once"):
        Schema((), CLASSES)
    with pytest.raises(DataError, match="schema: needs columns, each once"):
        Schema((Column("a", 0, 1), Column("a", 0, 2)), CLASSES)


@pytest.mark.parametrize("classes", [(), ("no",), ("no", "no"), ("a", "b", "a")])
def test_classes_must_be_two_or_more_and_distinct(classes: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="schema: needs two classes or more, each once"):
        Schema(SCHEMA.columns, classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"column,low\nage,0\n", "high"),
        (b"name,low,high\nage,0,1\n", "column"),
        (b"column,low,high\nage,0\n", "not a schema"),
        (b"column,low,high\nage,zero,1\n", "zero"),
        (b"column,low,high\nage,5,1\n", "column age: low < high, both finite, are 5.0, 1.0"),
        (b"column,low,high\nage,nan,1\n", "column age: low < high"),
        (b"column,low,high\n\xff\xfe,0,1\n", "not a schema"),
    ],
)
def test_a_file_that_is_no_schema_is_refused_by_name(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "bounds.csv"
    path.write_bytes(text)
    with pytest.raises(DataError, match=f"bounds.csv: .*{message}"):
        Schema.load(path, CLASSES)


@pytest.mark.parametrize("text", ["", "column,low,high\n"])
def test_a_file_without_columns_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bounds.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="bounds.csv: .*no rows below the first line"):
        Schema.load(path, CLASSES)


def test_a_field_longer_than_the_reader_allows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bounds.csv"
    path.write_text('column,low,high\n"' + "x" * 200_000, encoding="utf-8")
    with pytest.raises(DataError, match="bounds.csv"):
        Schema.load(path, CLASSES)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing.csv"):
        Schema.load(tmp_path / "missing.csv", CLASSES)


def test_the_bounds_themselves_are_within_bounds() -> None:
    SCHEMA.check(np.array([SCHEMA.low, SCHEMA.high]), "here")
    SCHEMA.check(np.zeros((0, 2)), "here")


@pytest.mark.parametrize(
    ("value", "error", "rule"),
    [
        (120.1, OutOfBoundsError, r"in \[0, 120\]"),
        (-1e-9, OutOfBoundsError, r"in \[0, 120\]"),
        (np.nan, DataError, "finite"),
        (np.inf, DataError, "finite"),
    ],
)
def test_a_value_out_of_bounds_names_source_row_and_column_not_the_value(
    value: float, error: type[DataError], rule: str
) -> None:
    features = np.zeros((4, 2))
    features[2, 0] = value
    with pytest.raises(error, match=f"^site-1.csv, row 3, column age: must be {rule}$") as caught:
        SCHEMA.check(features, "site-1.csv")
    assert isinstance(caught.value, OutOfBoundsError) == np.isfinite(value)


def test_the_first_bad_row_is_named() -> None:
    features = np.zeros((4, 2))
    features[1:, 1] = 7.0
    with pytest.raises(OutOfBoundsError, match="row 2, column dose, mg"):
        SCHEMA.check(features, "x")
