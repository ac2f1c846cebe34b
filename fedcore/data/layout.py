"""Layout of tables in files: columns and their rules, the label, the id, and how values are written.

A layout is public, and part of what the parties agree on. Nothing in it is a guess: what a file says in
another way than the layout is a fault, with its line and the cure.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError, SettingError
from fedcore.settings import convert, load, read, refuse_unknown, require, to_json

Cells: TypeAlias = "Sequence[str | None] | NDArray[Any]"  # texts, None is missing; or numbers
_SEPARATORS = {".", ",", "'", " ", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"}
_DAY = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - days have no zone
_BOOLEANS = (("True", "1"), ("False", "0"))  # of a typed file, where categories are digits
_SAMPLE_DAY = 11_649.0  # 2001-11-23


class Missing(StrEnum):
    """Rule for a missing value."""

    REFUSE = "refuse"  # the file is not read
    DROP = "drop"  # its row is left out
    MEAN = "mean"  # of all sites, by the secure statistics
    CONSTANT = "constant"  # the column's `constant`
    CATEGORY = "category"  # one of its own


class Outside(StrEnum):
    """Rule for a value outside of the bounds of its column."""

    REFUSE = "refuse"  # the file is not read
    DROP = "drop"  # its row is left out
    CLIP = "clip"  # to the nearest bound
    MISSING = "missing"  # as if it were not there


@dataclass(frozen=True, kw_only=True)
class Notation:
    """[file]: how values are written in text files.

    delimiter  between fields; encoding: of the text, utf-8 with or without its mark
    decimal    mark of decimal fractions; thousands: between groups of three digits, "": none
    missing    texts that are no value, spaces around them aside
    raises     SettingError
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")

    def __post_init__(self) -> None:
        require(
            len(self.delimiter) == 1 and self.delimiter not in '"\r\n',
            "delimiter",
            "one character",
            self.delimiter,
        )
        require(self.decimal in {".", ","}, "decimal", "a point or a comma", self.decimal)
        fits = self.thousands in _SEPARATORS | {""} and self.thousands != self.decimal
        require(
            fits,
            "thousands",
            "a point, a comma, a space, an apostrophe or nothing, not the decimal mark",
            self.thousands,
        )
        try:
            "".encode(self.encoding)
            b"".decode(self.encoding)
        except (LookupError, ValueError):
            require(False, "encoding", "one that Python knows, such as utf-8 or latin-1", self.encoding)

    @cached_property
    def _number(self) -> re.Pattern[str]:
        """Numbers as they must be written: with groups of three digits all through, or without."""
        whole = r"\d+"
        if self.thousands:
            whole = rf"(?:\d{{1,3}}(?:{re.escape(self.thousands)}\d{{3}})+|\d+)"
        mark = re.escape(self.decimal)
        return re.compile(rf"[+-]?(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?", re.ASCII)

    def number(self, text: str) -> float | None:
        """Read a number; None: it is none in this notation."""
        if not self._number.fullmatch(text):
            return None
        if self.thousands:
            text = text.replace(self.thousands, "")
        return float(text.replace(self.decimal, "."))


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Values of one column: (rows,) float64, NaN where missing; bad: problem by row."""

    values: NDArray[np.float64]
    bad: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column of a file. Raises SettingError, for this and all kinds of columns.

    name     in the file
    missing  rule for missing values; constant: the value under the rule "constant"
    """

    rules: ClassVar[frozenset[Missing]] = frozenset(Missing) - {Missing.CATEGORY}

    name: str
    missing: Missing = Missing.REFUSE

    def _check(self, constant: object) -> None:
        require(bool(self.name.strip()), "name", "a text", self.name)
        words = ", ".join(rule for rule in Missing if rule in self.rules)
        require(self.missing in self.rules, "missing", f"one of {words}", self.missing)
        given = constant is not None
        rule = "given with missing = 'constant', and only then"
        require(given == (self.missing is Missing.CONSTANT), "constant", rule, constant)


class _Measured(Field):
    """A column that is one feature."""

    __slots__ = ()

    @property
    def bounds(self) -> tuple[float, float]:
        raise NotImplementedError

    def features(self) -> dict[str, tuple[float, float]]:
        """Return the features by name, with their bounds."""
        return {self.name: self.bounds}

    def expand(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the features, (rows, features)."""
        return values[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(_Measured):
    """A number within [low, high]; unit: for people.

    varies  false: it may be the same, or nearly, in all rows of all sites, and counts for nothing then
    """

    low: float
    high: float
    unit: str = ""
    outside: Outside = Outside.REFUSE
    constant: float | None = None
    varies: bool = True

    def __post_init__(self) -> None:
        self._check(self.constant)
        _bounds(self.low, self.high)
        fits = self.constant is None or self.low <= self.constant <= self.high
        require(fits, "constant", f"in {self.low:g}..{self.high:g}", self.constant)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value."""
        return self.low, self.high

    @property
    def filling(self) -> float | None:
        """Value under the rule "constant"."""
        return self.constant

    @property
    def expected(self) -> str:
        """Rule for a value, for a message."""
        return "a number"

    @property
    def range(self) -> str:
        """Bounds, for a message."""
        return f"[{self.low:g}, {self.high:g}]"

    def values(self, cells: Cells, notation: Notation) -> Values:
        """Read the column."""
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "biufO":  # objects: booleans and None
            return _finite(cells.astype(np.float64))
        return _parsed(cells, notation, lambda text: _real(text, notation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Day(_Measured):
    """A date; its feature is the day's number, from 1970-01-01.

    date       form of it, as of Python's strptime, such as "%d.%m.%Y"
    low, high  earliest and latest day, "YYYY-MM-DD"; constant: likewise
    """

    date: str
    low: str
    high: str
    outside: Outside = Outside.REFUSE
    constant: str | None = None

    def __post_init__(self) -> None:
        self._check(self.constant)
        _bounds(*self.bounds)
        fits = _day(dt.datetime(2001, 11, 23).strftime(self.date), self.date) == _SAMPLE_DAY  # noqa: DTZ001
        require(fits, "date", 'a form of whole dates, such as "%Y-%m-%d"', self.date)
        fits = self.filling is None or self.bounds[0] <= self.filling <= self.bounds[1]
        require(fits, "constant", f"in {self.low}..{self.high}", self.constant)

    @property
    def bounds(self) -> tuple[float, float]:
        """First and last day, by number."""
        return self._day("low", self.low), self._day("high", self.high)

    @property
    def filling(self) -> float | None:
        """Day under the rule "constant"."""
        return None if self.constant is None else self._day("constant", self.constant)

    @property
    def expected(self) -> str:
        """Rule for a value, for a message."""
        return f"a date as {self.date}"

    @property
    def range(self) -> str:
        """Bounds, for a message."""
        return f"[{self.low}, {self.high}]"

    def _day(self, key: str, text: str) -> float:
        day = _day(text, "%Y-%m-%d")
        require(day is not None, key, "a day, YYYY-MM-DD", text)
        return day or 0.0

    def values(self, cells: Cells, notation: Notation) -> Values:
        """Read the column; days of a typed file are what they are."""
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            days = cells.astype("datetime64[D]")
            return Values(np.where(np.isnat(days), np.nan, days.astype(np.int64)), {})
        return _parsed(texts(cells), notation, lambda text: _day(text, self.date))


@dataclass(frozen=True, slots=True, kw_only=True)
class Category(Field):
    """One of some texts; where a file has numbers, whole ones are compared without a fraction.

    also  other spellings of categories, such as {"M" = "male"}
    A feature for each category, 0 or 1; of two, one for the second.
    """

    rules: ClassVar[frozenset[Missing]] = frozenset(Missing)
    outside: ClassVar[Outside] = Outside.REFUSE

    categories: tuple[str, ...]
    also: dict[str, str] = field(default_factory=dict, hash=False)
    constant: str | None = None

    def __post_init__(self) -> None:
        self._check(self.constant)
        names = self.categories
        fits = len(names) > 1 and len(set(names)) == len(names) and all(one == one.strip() for one in names)
        require(fits, "categories", "two or more, each once", list(names))
        for spelling, meant in self.also.items():
            fits = meant in names and spelling not in names
            require(fits, f"also.{spelling}", "another spelling of a category", meant)
        fits = self.constant is None or self.constant in names
        require(fits, "constant", "a category", self.constant)

    @property
    def bounds(self) -> tuple[float, float]:
        """First and last category, by position."""
        return 0.0, float(len(self.categories) - 1)

    @property
    def filling(self) -> float | None:
        """Category under the rules "constant" and "category", by position."""
        if self.missing is Missing.CATEGORY:
            return float(len(self.categories))
        return None if self.constant is None else float(self.categories.index(self.constant))

    @property
    def expected(self) -> str:
        """Rule for a value, for a message."""
        return f"one of {self.range}"

    @property
    def range(self) -> str:
        """Categories, for a message."""
        return ", ".join(map(repr, self.categories))

    def values(self, cells: Cells, notation: Notation) -> Values:
        """Read the column: positions of categories."""
        places = {name: float(i) for i, name in enumerate(self.categories)}
        places |= {spelling: places[meant] for spelling, meant in self.also.items()}
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "bO":
            places = {word: places[digit] for word, digit in _BOOLEANS if digit in places} | places
        return _parsed(texts(cells), notation, places.get, known=places)

    @property
    def _names(self) -> tuple[str, ...]:
        gaps = ("(missing)",) if self.missing is Missing.CATEGORY else ()
        one = len(self.categories) == 2 and not gaps
        return tuple(
            f"{self.name}={name}" for name in (self.categories[1:] if one else (*self.categories, *gaps))
        )

    def features(self) -> dict[str, tuple[float, float]]:
        """Return the features by name, with their bounds."""
        return dict.fromkeys(self._names, (0.0, 1.0))

    def expand(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the features, (rows, features); NaN where the category is."""
        count = len(self._names)
        wanted = np.arange(count) if count > 1 else np.array([1])
        out: NDArray[np.float64] = (values[:, None] == wanted).astype(np.float64)
        out[np.isnan(values)] = np.nan
        return out


AnyField: TypeAlias = Number | Day | Category


def _finite(values: NDArray[np.float64]) -> Values:
    endless = {int(row): "must be finite" for row in np.flatnonzero(np.isinf(values))}
    return Values(values, endless)


def texts(cells: Cells) -> Sequence[str | None]:
    """Return values as texts; whole numbers without their fraction."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        return [None if one == "NaT" else str(one) for one in np.datetime_as_string(cells)]
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "f":
        return [
            None if math.isnan(one) else str(int(one)) if one.is_integer() else repr(one)
            for one in cells.tolist()
        ]
    if isinstance(cells, np.ndarray):
        return [None if one is None else str(one) for one in cells.tolist()]
    return cells


def _parsed(cells: Cells, notation: Notation, parse: Any, known: Mapping[str, float] = {}) -> Values:  # noqa: ANN401 - of a text
    """Read texts, each distinct one once; known: texts that are values, also where they stand for none."""
    none = set(notation.missing) - set(known)
    found: dict[str | None, float | None] = {None: math.nan}
    values, bad = np.empty(len(cells)), {}
    for row, cell in enumerate(cells):
        if cell not in found:
            text = str(cell).strip()
            found[cell] = math.nan if text in none else parse(text)
        value = found[cell]
        if value is None or math.isinf(value):
            bad[row] = "" if value is None else "must be finite"
            value = math.nan
        values[row] = value
    return Values(values, bad)


def _real(text: str, notation: Notation) -> float | None:
    value = notation.number(text)
    if value is None and text.lstrip("+-").lower() in {"inf", "infinity"}:
        return math.inf
    return value


def _day(text: str, form: str) -> float | None:
    try:
        return float((dt.datetime.strptime(text, form).replace(tzinfo=None) - _DAY).days)  # noqa: DTZ007
    except (ValueError, re.error):
        return None


def _bounds(low: float, high: float) -> None:
    require(low < high and math.isfinite(high - low), "low", f"below high, {high:g}, both finite", low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Columns of the files of all sites.

    columns   that become features; label: what is learned, a Category (classes) or a Number
    id        column of persons, no feature: rows of one person stay together; None: each row is a person
    notation  of text files, [file]
    raises    SettingError
    """

    columns: tuple[AnyField, ...]
    label: Category | Number
    id: str | None = None
    notation: Notation = field(default_factory=Notation)

    def __post_init__(self) -> None:
        names = [column.name for column in (*self.columns, self.label)]
        names += [] if self.id is None else [self.id]
        for name in names:
            require(names.count(name) == 1, "columns", "each once, and neither label nor id", name)
        require(bool(self.columns), "column", "one or more", "none")
        rules = (Missing.REFUSE, Missing.DROP)
        require(self.label.missing in rules, "label.missing", "refuse or drop", self.label.missing)
        features = [name for column in self.columns for name in column.features()]
        for name in features:
            require(features.count(name) == 1, "columns", "of different features", name)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the label; none: it is a number."""
        return self.label.categories if isinstance(self.label, Category) else ()

    @property
    def filled(self) -> tuple[str, ...]:
        """Features whose missing values become the mean of all sites."""
        mean = (column for column in self.columns if column.missing is Missing.MEAN)
        return tuple(name for column in mean for name in column.features())

    @property
    def varying(self) -> tuple[str, ...]:
        """Features that would count for nothing if they were the same in all rows, which is a fault."""
        return tuple(one.name for one in self.columns if isinstance(one, Number) and one.varies)

    @property
    def fields(self) -> tuple[AnyField, ...]:
        """All columns that have values."""
        return (*self.columns, self.label)

    @classmethod
    def parse(cls, tables: Mapping[str, Any]) -> Self:
        """Read the tables of a file: [[column]], [label], id, [file]. Raises SettingError."""
        refuse_unknown(tables, ("column", "label", "id", "file"), "")
        for key in ("column", "label"):
            require(key in tables, key, "given", "missing")
        columns = tables["column"]
        require(isinstance(columns, list), "column", "tables, [[column]]", columns)
        return cls(
            columns=tuple(_field(table, f"column[{i}]") for i, table in enumerate(columns, 1)),
            label=_label(tables["label"]),
            id=convert(tables.get("id"), str | None, "id"),
            notation=read(Notation, tables.get("file", {}), "file"),
        )

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a TOML file. Raises DataError: one line with the path of the key."""
        try:
            return cls.parse(load(file, "a schema")[1])
        except SettingError as error:
            text = str(error)
            raise DataError(text if text.startswith(str(file)) else f"{file}: {text}") from error

    def dump(self) -> str:
        """Return the text of a TOML file that `load` reads back."""
        lines = [] if self.id is None else [f"id = {_toml(self.id)}", ""]
        if self.notation != Notation():
            lines += ["[file]", *_pairs(self.notation), ""]
        lines += ["[label]", *_pairs(self.label, categories="classes"), ""]
        for column in self.columns:
            lines += ["[[column]]", *_pairs(column), ""]
        return "\n".join(lines)


def _pairs(value: Any, **renamed: str) -> Iterator[str]:  # noqa: ANN401 - a table's dataclass
    """Write what is not as usual, in the order of the fields."""
    said = to_json(value)
    for one in fields(value):
        usual = one.default if one.default_factory is MISSING else one.default_factory()
        if getattr(value, one.name) != usual:
            yield f"{renamed.get(one.name, one.name)} = {_toml(said[one.name])}"


def _toml(value: Any) -> str:  # noqa: ANN401 - JSON values
    """Write a JSON value: a JSON text is a TOML text, but for one character."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _field(table: Any, where: str) -> AnyField:  # noqa: ANN401 - whatever a file has
    if not isinstance(table, Mapping):
        raise SettingError(f"{where}: must be a table, is {type(table).__name__}")
    kind: type[AnyField] = Category if "categories" in table else Day if "date" in table else Number
    named = table.get("name")
    return read(kind, table, f"column {named}" if isinstance(named, str) else where)


def _label(table: Any) -> Category | Number:  # noqa: ANN401
    if isinstance(table, Mapping) and "classes" in table:
        renamed = {("categories" if key == "classes" else key): value for key, value in table.items()}
        return read(Category, renamed, "label")
    return read(Number, table, "label")
