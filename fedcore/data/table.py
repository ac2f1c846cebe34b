"""One site's rows, and CSV files of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.errors import DataError


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one site: features (rows, columns) float64, labels (rows,) as indices of the classes."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return these rows."""
        return Table(self.features[rows], self.labels[rows])


def load_table(path: Path, schema: Schema, label: str) -> Table:
    """Read a CSV file with a header. Raises DataError, OutOfBoundsError; both name column and row."""
    classes = {name: i for i, name in enumerate(schema.classes)}
    features, labels = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_header(list(reader.fieldnames or ()), schema, label, path)
            for number, row in enumerate(reader, 1):
                if None in row:
                    raise DataError(f"{path}, row {number}: has more fields than the header")
                for column in schema.columns:
                    try:
                        features.append(_number(row[column.name]))
                    except (TypeError, ValueError):
                        raise DataError(
                            f"{path}, row {number}, column {column.name}: must be a number"
                        ) from None
                if row[label] not in classes:
                    raise DataError(f"{path}, row {number}, column {label}: must be one of {list(classes)}")
                labels.append(classes[row[label]])
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    if not labels:
        raise DataError(f"{path}: has no rows")
    table = Table(np.array(features).reshape(len(labels), len(schema.columns)), np.array(labels, np.int64))
    schema.check(table.features, str(path))
    return table


def _check_header(header: list[str], schema: Schema, label: str, path: Path) -> None:
    """Name what is wrong, not what is there: without a header, that would be somebody's data."""
    wanted = [*(column.name for column in schema.columns), label]
    if not header:
        raise DataError(f"{path}: is empty, the first line must name the columns")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise DataError(f"{path}: columns must be separated by commas")
    if missing := [name for name in wanted if name not in header]:
        raise DataError(f"{path}: column {missing[0]} is missing")
    if double := [name for name in wanted if header.count(name) > 1]:
        raise DataError(f"{path}: column {double[0]} is there twice")


def _number(text: str) -> float:
    """Read a number; Python's digit separators are not numbers to anybody else."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


def dump_table(table: Table, path: Path, schema: Schema, label: str) -> None:
    """Write a CSV file that `load_table` reads back exactly."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(column.name for column in schema.columns), label])
        for row, answer in zip(table.features, table.labels, strict=True):
            writer.writerow([*(repr(float(value)) for value in row), schema.classes[int(answer)]])


def join_tables(tables: list[Table]) -> Table:
    """Put tables below each other."""
    return Table(
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.labels for table in tables]),
    )
