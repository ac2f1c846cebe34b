"""The public schema of a table: columns, each with bounds that are known before anybody looks at data."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError, OutOfBoundsError


@dataclass(frozen=True, slots=True)
class Column:
    """A feature: every value lies in [low, high]. Raises DataError unless low < high, both finite."""

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise DataError(
                f"schema, column {self.name}: low < high, both finite, are {self.low}, {self.high}"
            )


@dataclass(frozen=True, slots=True)
class Schema:
    """The features of a task, in order, and the classes of its label. Raises DataError for doubled names."""

    columns: tuple[Column, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) != len(names):
            raise DataError("schema: needs columns, each once")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise DataError(f"schema: needs two classes or more, each once, has {list(self.classes)}")

    @classmethod
    def load(cls, path: Path, classes: tuple[str, ...]) -> Schema:
        """Read a CSV file with the columns column, low, high. Raises DataError."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
            if any(None in row or None in row.values() for row in rows):
                raise DataError("a row has another number of values than the first line")
            if not rows:
                raise DataError("there are no rows below the first line")
            columns = [Column(row["column"], float(row["low"]), float(row["high"])) for row in rows]
        except OSError as error:
            raise DataError(f"{path}: not a schema of column,low,high: {error.strerror or error}") from error
        except KeyError as error:
            raise DataError(f"{path}: not a schema of column,low,high: has no column {error}") from error
        except (TypeError, ValueError, csv.Error) as error:
            raise DataError(f"{path}: not a schema of column,low,high: {error}") from error
        return cls(tuple(columns), classes)

    def dump(self, path: Path) -> None:
        """Write the CSV file."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["column", "low", "high"])
            writer.writerows([column.name, column.low, column.high] for column in self.columns)

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower bounds of the columns, (columns,)."""
        return np.array([column.low for column in self.columns])

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper bounds of the columns, (columns,)."""
        return np.array([column.high for column in self.columns])

    def check(self, features: NDArray[np.float64], source: str) -> None:
        """Raise unless all values (rows, columns) are finite and within bounds; name column and row."""
        for kind, bad in (
            (DataError, ~np.isfinite(features)),
            (OutOfBoundsError, (features < self.low) | (features > self.high)),
        ):
            if bad.any():
                row, column = (int(i) for i in np.argwhere(bad)[0])
                wanted = self.columns[column]
                rule = "finite" if kind is DataError else f"in [{wanted.low:g}, {wanted.high:g}]"
                raise kind(f"{source}, row {row + 1}, column {wanted.name}: must be {rule}")
