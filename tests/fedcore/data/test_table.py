"""Rows as CSV files: exact both ways, and what is wrong with a file is said with file, row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data import read_table, write_table
from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError, OutOfBoundsError

SCHEMA = Schema((Column("age", 0.0, 100.0), Column("dose", -5.0, 5.0)), ("no", "yes, often"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(-5, 5), st.integers(0, 1)),
        min_size=1,
        max_size=20,
    )
)
def test_a_table_survives_its_file_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, float, int]]
) -> None:
    table = Table(
        np.array([row[:2] for row in rows], np.float64), np.array([row[2] for row in rows], np.int64)
    )
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write_table(table, path, SCHEMA, "answer")
    again = read_table(path, SCHEMA, "answer")
    assert again.features.tobytes() == table.features.tobytes()  # the sign of zero, too
    assert np.array_equal(again.labels, table.labels)
    assert (again.features.dtype.name, again.labels.dtype.name) == ("float64", "int64")


def test_columns_are_taken_by_name_and_others_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "dose,patient,answer,age\n1.5,Ann,no,30\n-2,Bob,no,40\n")
    table = read_table(path, SCHEMA, "answer")
    assert table.features.tolist() == [[30.0, 1.5], [40.0, -2.0]]
    assert table.labels.tolist() == [0, 0]
    assert len(table) == 2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataError, "is empty, the first line must name the columns"),
        ("age,dose,answer\n", DataError, "has no rows"),
        ("age,answer\n1,no\n", DataError, "column dose is missing"),
        ("age,dose\n1,2\n", DataError, "column answer is missing"),
        ("age,dose,answer\n1,2,no\n1,many,no\n", DataError, "row 2, column dose: must be a number"),
        ("age,dose,answer\n,2,no\n", DataError, "row 1, column age: is missing, must be a number"),
        ("age,dose,answer\n1\n", DataError, "line 2: has fewer fields than the header, 1 for 3"),
        ("age,dose,answer\n1,2,no\n1,2,maybe\n", DataError, "row 2, column answer: must be one of .*'no'"),
        ("age,dose,answer\n1,2\n", DataError, "line 2: has fewer fields than the header, 2 for 3"),
        (
            "age,dose,answer\n1,2,no\n1,nan,no\n",
            DataError,
            "row 2, column dose: is missing, must be a number",
        ),
        ("age,dose,answer\ninf,1,no\n", DataError, "row 1, column age: must be finite"),
        ("age,dose,answer\n1,5.01,no\n", OutOfBoundsError, r"row 1, column dose: must be in \[-5, 5\]"),
        ("age,dose,answer\n1,1,no\n1,1,no\n-1,1,no\n", OutOfBoundsError, "row 3, column age: must be in"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, text: str, error: type[DataError], message: str
) -> None:
    with pytest.raises(error, match=rf"site-3\.csv.*{message}"):
        read_table(write(tmp_path / "site-3.csv", text), SCHEMA, "answer")


def test_an_offending_value_is_not_quoted(tmp_path: Path) -> None:
    for text in ("1,secret,no", "1,2,secret", "1,4711.5,no"):
        with pytest.raises(DataError) as caught:
            read_table(write(tmp_path / "rows.csv", f"age,dose,answer\n{text}\n"), SCHEMA, "answer")
        assert "secret" not in str(caught.value)
        assert "4711" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"age,dose,answer\n\xff\xfe,1,no\n")
    with pytest.raises(DataError, match="rows.csv"):
        read_table(path, SCHEMA, "answer")


def test_a_quote_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'age,dose,answer\n1,2,"no\n' + "1,2,no\n" * 30_000)
    with pytest.raises(DataError, match="rows.csv"):
        read_table(path, SCHEMA, "answer")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing.csv"):
        read_table(tmp_path / "missing.csv", SCHEMA, "answer")
    with pytest.raises(DataError, match=tmp_path.name):
        read_table(tmp_path, SCHEMA, "answer")


def test_taking_and_joining_rows_keeps_features_with_their_labels() -> None:
    table = Table(np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1]))
    even, odd = table.take(np.array([0, 2])), table.take(np.array([1, 3]))
    assert (even.labels.tolist(), odd.labels.tolist()) == ([0, 0], [1, 1])
    joined = join_tables([even, odd])
    assert joined.features.tolist() == [[0, 1], [4, 5], [2, 3], [6, 7]]
    assert joined.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, the first line must name the columns"),
        ("age;dose;answer\n1;2;no\n", "columns must be separated by commas"),
        ("age\tdose\tanswer\n1\t2\tno\n", "columns must be separated by commas"),
    ],
)
def test_a_file_that_is_no_table_of_commas_is_refused_as_such(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=f"rows.csv: {message}"):
        read_table(write(tmp_path / "rows.csv", text), SCHEMA, "answer")


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "gone.csv", SCHEMA, "answer")
    assert str(caught.value) == f"{tmp_path / 'gone.csv'}: No such file or directory"
