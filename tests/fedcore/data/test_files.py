"""Tables as CSV, Parquet and NumPy files: exact both ways; what is wrong is named, never quoted."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data import read_table, write_table
from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.errors import DataError, OutOfBoundsError
from tests.lazy import Lazy

pa: Any = Lazy("pyarrow")
parquet: Any = Lazy("pyarrow.parquet")

SCHEMA = Schema((Column("age", 0.0, 100.0), Column("dose", -5.0, 5.0)), ("no", "yes, often"))
BINARY = Schema(SCHEMA.columns, ("0", "1"))
SUFFIXES = ("csv", "parquet", "npz")
GOOD = Table(np.array([[1.0, -0.0], [2.5, 0.1]]), np.array([1, 0]))
Columns = Mapping[str, list[object]]


def save(path: Path, columns: Columns) -> Path:
    """Write columns as the suffix says, checked by nobody."""
    match path.suffix:
        case ".parquet":
            parquet.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), path)
        case ".npz":
            np.savez(path, **{k: np.array(v) for k, v in columns.items()})  # type: ignore[arg-type]
        case _:
            lines = [
                ",".join(columns),
                *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
            ]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-5, 5), st.integers(0, 1)), min_size=1, max_size=20))
def test_a_table_survives_its_file_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list[tuple[float, float, int]]
) -> None:
    table = Table(np.array([row[:2] for row in rows], np.float64), np.array([row[2] for row in rows]))
    path = tmp_path_factory.mktemp("rows") / f"rows.{suffix}"
    write_table(table, path, SCHEMA, "answer")
    again = read_table(path, SCHEMA, "answer")
    assert again.features.tobytes() == table.features.tobytes()  # the sign of zero, too
    assert again.labels.tolist() == table.labels.tolist()
    assert (again.features.dtype.name, again.labels.dtype.name) == ("float64", "int64")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "names", [("file", "features"), ("a/b.npy", "ä ö"), ("labels", "kwds"), ("x.1", "x")]
)
def test_any_column_name_survives(tmp_path: Path, suffix: str, names: tuple[str, str]) -> None:
    schema = Schema(tuple(Column(name, -5, 5) for name in names), ("no", "yes"))
    write_table(GOOD, tmp_path / f"rows.{suffix}", schema, "answer")
    assert (
        read_table(tmp_path / f"rows.{suffix}", schema, "answer").features.tolist() == GOOD.features.tolist()
    )


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_equal_tables_make_equal_files(tmp_path: Path, suffix: str) -> None:
    one, other = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    write_table(GOOD, one, SCHEMA, "answer")
    write_table(GOOD, other, SCHEMA, "answer")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "PARQUET", "npz"])
def test_columns_are_taken_by_name_and_others_are_left_alone(tmp_path: Path, suffix: str) -> None:
    columns: Columns = {"dose": [1.5, -2], "patient": ["Ann", "Bob"], "answer": [1, 0], "age": [30, 40]}
    path = save(tmp_path / f"rows.{suffix.lower()}", columns).rename(tmp_path / f"rows.{suffix}")
    table = read_table(path, BINARY, "answer")
    assert table.features.tolist() == [[30.0, 1.5], [40.0, -2.0]]
    assert table.labels.tolist() == [1, 0]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"age": [1], "answer": ["no"]}, DataError, "column dose is missing"),
        ({"age": [1], "dose": [1]}, DataError, "column answer is missing"),
        ({"age": [], "dose": [], "answer": []}, DataError, "has no rows|row 1, column age: must be a number"),
        (
            {"age": [1, 1], "dose": ["1", "many"], "answer": ["no", "no"]},
            DataError,
            "column dose: must be a n",
        ),
        (
            {"age": [1, 2], "dose": [1, 2], "answer": ["no", "maybe"]},
            DataError,
            "row 2, column answer: must be",
        ),
        (
            {"age": [1.0, 2.0], "dose": [1.0, NAN], "answer": ["no", "no"]},
            DataError,
            "row 2, column dose: is missing, must be a number",
        ),
        (
            {"age": [1.0, INF], "dose": [1.0, 1.0], "answer": ["no", "no"]},
            DataError,
            "row 2, column age: .*finite",
        ),
        (
            {"age": [1, 2], "dose": [1, 6], "answer": ["no", "no"]},
            OutOfBoundsError,
            r"row 2, column dose: .*\[-5, 5\]",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, suffix: str, columns: Columns, error: type[DataError], message: str
) -> None:
    with pytest.raises(error, match=rf"site-3\.{suffix}.*({message})"):
        read_table(save(tmp_path / f"site-3.{suffix}", columns), SCHEMA, "answer")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_offending_value_is_not_quoted(tmp_path: Path, suffix: str) -> None:
    secrets: tuple[Columns, ...] = (
        {"age": [1], "dose": ["secret"], "answer": ["no"]},
        {"age": [1], "dose": [1], "answer": ["secret"]},
        {"age": [4711.5], "dose": [1], "answer": ["no"]},
    )
    for columns in secrets:
        with pytest.raises(DataError) as caught:
            read_table(save(tmp_path / f"rows.{suffix}", columns), SCHEMA, "answer")
        assert "secret" not in str(caught.value)
        assert "4711" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_missing_or_something_else_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"site-3.{suffix}"
    with pytest.raises(DataError, match=rf"site-3\.{suffix}"):
        read_table(path, SCHEMA, "answer")
    path.write_bytes(b"\xff\xfe, no table")
    with pytest.raises(DataError, match=rf"site-3\.{suffix}"):
        read_table(path, SCHEMA, "answer")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=rf"site-3\.{suffix}"):
        read_table(path, SCHEMA, "answer")
    with pytest.raises(DataError, match=rf"site-3\.{suffix}"):
        write_table(GOOD, path, SCHEMA, "answer")


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    write_table(GOOD, path, SCHEMA, "answer")
    whole = path.read_bytes()
    refused = 0
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="rows"):
            read_table(path, SCHEMA, "answer")
        refused += 1
    assert refused > 50


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_a_file_that_is_damaged_anywhere_is_refused_or_read_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    write_table(GOOD, path, SCHEMA, "answer")
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            table = read_table(path, SCHEMA, "answer")
        except DataError as error:
            refused += path.name in str(error)
        else:
            assert table.features.tobytes() == GOOD.features.tobytes()
            assert table.labels.tolist() == GOOD.labels.tolist()
    assert refused > 100


def test_an_unknown_suffix_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    for act in (
        lambda path: read_table(path, SCHEMA, "a"),
        lambda path: write_table(GOOD, path, SCHEMA, "a"),
    ):
        with pytest.raises(DataError, match=r"rows\.xls: must end in one of \.csv, \.parquet, \.npz"):
            act(tmp_path / "rows.xls")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("table", "label", "message"),
    [
        (Table(np.array([[1.0, 9.0]]), np.array([0])), "answer", "row 1, column dose: must be in"),
        (Table(np.array([[1.0, NAN]]), np.array([0])), "answer", "row 1, column dose: must be finite"),
        (
            Table(np.array([[1.0, 1.0]]), np.array([2])),
            "answer",
            r"row 1, column answer: must be in 0 \.\. 1",
        ),
        (Table(np.array([[1.0, 1.0]]), np.array([-1])), "answer", "row 1, column answer"),
        (Table(np.zeros((0, 2)), np.zeros(0, np.int64)), "answer", "has no rows"),
        (Table(np.zeros((2, 2)), np.array([0])), "answer", r"features must be .*shape is \(2, 2\)"),
        (GOOD, "dose", "column dose cannot be a feature and the label"),
    ],
)
def test_a_table_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, suffix: str, table: Table, label: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_table(table, tmp_path / f"rows.{suffix}", SCHEMA, label)
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "rows.parquet"
    message = (
        r"rows\.parquet: Parquet needs the extra \[parquet\], in a checkout: pip install '\.\[parquet\]'"
    )
    with pytest.raises(DataError, match=message):
        read_table(path, SCHEMA, "answer")
    with pytest.raises(DataError, match=message):
        write_table(GOOD, path, SCHEMA, "answer")


def test_parquet_knows_missing_values_doubled_columns_and_categories(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.parquet", {"age": [1, None], "dose": [1, 2], "answer": ["no", "no"]})
    with pytest.raises(DataError, match="row 2, column age: is missing, must be a number"):
        read_table(path, SCHEMA, "answer")
    save(path, {"age": [1, 2], "dose": [1, 2], "answer": ["no", None]})
    with pytest.raises(DataError, match="row 2, column answer: is missing, must be one of"):
        read_table(path, SCHEMA, "answer")
    arrays = [pa.array([1.0])] * 3 + [pa.array(["no"])]
    parquet.write_table(pa.Table.from_arrays(arrays, names=["age", "dose", "age", "answer"]), path)
    with pytest.raises(DataError, match="column age is there twice"):
        read_table(path, SCHEMA, "answer")
    coded = pa.array(["no", "yes, often"]).dictionary_encode()
    chunked = pa.chunked_array([[True], [False]])
    parquet.write_table(pa.table({"age": chunked, "dose": [1, 2], "answer": coded}), path)
    table = read_table(path, SCHEMA, "answer")
    assert (table.features.tolist(), table.labels.tolist()) == ([[1, 1], [0, 2]], [0, 1])


def test_an_archive_can_hold_the_features_as_one_matrix(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    for answers in (np.array([1, 0], np.uint8), np.array(["yes, often", "no"])):
        np.savez(path, features=GOOD.features.astype(np.float32), labels=answers)
        table = read_table(path, SCHEMA, "answer")
        assert table.features.tolist() == GOOD.features.astype(np.float32).tolist()
        assert table.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.zeros((2, 2))}, "column labels is missing"),
        ({"features": np.zeros((2, 3)), "labels": np.zeros(2, int)}, "features: must have 2 columns, has 3"),
        (
            {"features": np.zeros(2), "labels": np.zeros(2, int)},
            r"features: must be numbers of 2 dimensions, are float64 \(2,\)",
        ),
        (
            {"features": np.zeros((2, 2)), "labels": np.zeros(3, int)},
            r"labels: must be \(2,\), shape is \(3,\)",
        ),
        (
            {"features": np.zeros((2, 2)), "labels": np.zeros((2, 1), int)},
            r"labels: must be \(2,\), shape is \(2, 1\)",
        ),
        (
            {"features": np.zeros((2, 2)), "labels": np.array([0, 2])},
            r"row 2, column labels: must be in 0 \.\. 1",
        ),
        ({"features": np.zeros((2, 2)), "labels": np.zeros(2)}, "row 1, column answer: must be one of"),
        ({"features": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "has no rows"),
        ({"features": np.full((1, 2), "x"), "labels": np.zeros(1, int)}, "features: must be numbers"),
        ({"features": np.full((1, 2), 1j), "labels": np.zeros(1, int)}, "features: must be numbers"),
        (
            {"age": np.zeros(2), "dose": np.zeros(1), "answer": np.array(["no", "no"])},
            "column dose has 1 rows, age 2",
        ),
        (
            {"age": np.zeros((1, 1)), "dose": np.zeros(1), "answer": np.array(["no"])},
            r"column age: must be \(rows",
        ),
        (
            {"age": np.zeros(1), "dose": np.zeros(1), "answer": np.array([["no"]])},
            r"column answer: must be \(rows",
        ),
        (
            {"age": np.array([None]), "dose": np.zeros(1), "answer": np.array(["no"])},
            "not a NumPy archive of plain",
        ),
    ],
)
def test_arrays_that_are_no_table_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]], message: str
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"rows\.npz.*{message}"):
        read_table(tmp_path / "rows.npz", SCHEMA, "answer")


def test_an_archive_with_an_array_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    write_table(GOOD, path, SCHEMA, "answer")
    with zipfile.ZipFile(path) as archive:
        age = archive.read("age.npy")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("age.npy", age)
    with pytest.raises(DataError, match="column age is there twice"):
        read_table(path, SCHEMA, "answer")
