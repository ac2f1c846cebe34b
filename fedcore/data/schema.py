"""The public schema of a table: features, each with bounds that are known before anybody looks at data."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedcore.data.layout import Category, Layout, Missing, Number
from fedcore.data.table import Table
from fedcore.errors import DataError, OutOfBoundsError, SettingError


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


@dataclass(frozen=True)
class Schema:
    """The features of a task, in order, and its label: one of some classes, or a number.

    columns  features; classes: of the label, none where it is a number within `target`
    layout   of the files whose columns become the features; None: they are the files' columns, all numbers
    raises   DataError: doubled names, one class, both classes and target
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...] = ()
    target: Column | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names or len(set(names)) != len(names):
            raise DataError("schema: needs columns, each once")
        if self.target is not None:
            if self.classes:
                raise DataError("schema: has either classes or a target, which is a number")
        elif len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise DataError(f"schema: needs two classes or more, each once, has {list(self.classes)}")

    @classmethod
    def of(cls, layout: Layout) -> Self:
        """Return the schema of the features that a layout makes."""
        features = [pair for column in layout.columns for pair in column.features().items()]
        label = layout.label
        return cls(
            columns=tuple(Column(name, low, high) for name, (low, high) in features),
            classes=layout.classes,
            target=None if isinstance(label, Category) else Column(label.name, label.low, label.high),
            layout=layout,
        )

    @classmethod
    def load(cls, path: Path, classes: tuple[str, ...] | None = None) -> Self:
        """Read a TOML file with a layout, or a CSV file with the columns column, low, high. Raises DataError.

        classes  of the label, for a CSV file, None: 0 and 1; a TOML file says them itself
        """
        if path.suffix.lower() == ".toml":
            if classes is not None:
                raise DataError(f"{path}: says the classes of the label itself, no others can be given")
            return cls.of(Layout.load(path))
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
        return cls(tuple(columns), ("0", "1") if classes is None else classes)

    def of_features(self, label: str) -> Schema:
        """Return the schema of files whose columns are the features, where there is a layout."""
        if self.layout is None:
            return self
        columns = tuple(
            Number(
                name=one.name,
                low=one.low,
                high=one.high,
                missing=Missing.MEAN if i in self.filled else Missing.REFUSE,
                varies=one.name in self.layout.varying,
            )
            for i, one in enumerate(self.columns)
        )
        return Schema.of(Layout(columns=columns, label=replace(self.layout.label, name=label)))

    def dump(self, path: Path) -> None:
        """Write a file that `load` reads back: TOML, or CSV, which has no layout."""
        if path.suffix.lower() == ".toml":
            path.write_text(self.layout_with("label").dump(), encoding="utf-8")
            return
        if self.layout is not None:
            raise DataError(f"{path}: the layout needs a file that ends in .toml")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["column", "low", "high"])
            writer.writerows([column.name, column.low, column.high] for column in self.columns)

    def label_column(self, given: str | None = None) -> str:
        """Return the label's column in files: the layout's, else what is given, else "label".

        raises  DataError: given although the layout says it
        """
        if self.layout is None:
            return given or "label"
        if given is not None:
            name = self.layout.label.name
            raise DataError(f"label: is said by the schema, {name}, no other can be given")
        return self.layout.label.name

    def layout_with(self, label: str) -> Layout:
        """Return the layout of files with a column for each feature, and the label. Raises DataError."""
        if self.layout is not None:
            return self.layout
        if label in [column.name for column in self.columns]:
            raise DataError(f"schema: column {label} cannot be a feature and the label")
        try:
            return Layout(
                columns=tuple(Number(name=one.name, low=one.low, high=one.high) for one in self.columns),
                label=Number(name=label, low=self.target.low, high=self.target.high)
                if self.target is not None
                else Category(name=label, categories=self.classes),
            )
        except SettingError as error:
            raise DataError(f"schema: {error}") from error

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower bounds of the columns, (columns,)."""
        return np.array([column.low for column in self.columns])

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper bounds of the columns, (columns,)."""
        return np.array([column.high for column in self.columns])

    @cached_property
    def filled(self) -> NDArray[np.int64]:
        """Positions of the columns in which a missing value becomes the mean of all sites."""
        names = () if self.layout is None else self.layout.filled
        return np.array([i for i, one in enumerate(self.columns) if one.name in names], np.int64)

    def check(self, features: NDArray[np.float64], source: str) -> None:
        """Raise unless all values (rows, columns) are within bounds, and not missing; name column and row."""
        low, high = self.low, self.high
        if features.dtype == np.float32:  # a bound may be no float32
            low, high = low.astype(np.float32), high.astype(np.float32)
        gaps = np.isnan(features)
        gaps[:, self.filled] = False
        for kind, bad in (
            (DataError, gaps | np.isinf(features)),
            (OutOfBoundsError, (features < low) | (features > high)),
        ):
            if bad.any():
                row, column = (int(i) for i in np.argwhere(bad)[0])
                wanted = self.columns[column]
                rule = "finite" if kind is DataError else f"in [{wanted.low:g}, {wanted.high:g}]"
                raise kind(f"{source}, row {row + 1}, column {wanted.name}: must be {rule}")

    def check_table(self, table: Table, source: str, label: str = "label") -> None:
        """Raise unless features and labels fit; label: its column. Raises DataError, OutOfBoundsError."""
        if table.features.shape != (len(table), len(self.columns)):
            wanted = f"({len(table)}, {len(self.columns)})"
            raise DataError(f"{source}: features must be {wanted}, shape is {table.features.shape}")
        if isinstance(table.features, np.ndarray):  # a sparse matrix is its learner's business
            self.check(table.features, source)
        wanted_kind = "biu" if self.target is None else "biuf"
        if table.labels.ndim != 1 or table.labels.dtype.kind not in wanted_kind:
            kinds = "positions of classes" if self.target is None else "numbers"
            raise DataError(f"{source}, column {label}: must be {kinds}, (rows,), are {table.labels.dtype}")
        if self.target is None:
            bad = (table.labels < 0) | (table.labels >= len(self.classes))
            rule = f"in 0 .. {len(self.classes) - 1}"
        else:
            bad = ~((table.labels >= self.target.low) & (table.labels <= self.target.high))
            rule = f"in [{self.target.low:g}, {self.target.high:g}]"
        if bad.any():
            kind = DataError if self.target is None else OutOfBoundsError
            raise kind(f"{source}, row {int(np.argmax(bad)) + 1}, column {label}: must be {rule}")
