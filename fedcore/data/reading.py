"""Reading of tables by their layout: usable rows, and all that was done or is wrong, counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcore.data.layout import AnyField, Category, Cells, Day, Layout, Missing, Outside, texts
from fedcore.data.table import Table
from fedcore.errors import DataError, OutOfBoundsError

_SHOWN = 3  # offending values of a fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a file, in one row or in many.

    rows, lines  where, from 1; none: with the whole file, or a format without lines
    column       "": with none of them
    cure         what to change, in the file or in the schema
    values       the first that are wrong; never in a message, for messages travel
    """

    source: str
    problem: str
    cure: str = ""
    column: str = ""
    rows: Sequence[int] = ()
    lines: Sequence[int] = ()
    values: tuple[str, ...] = field(default=(), repr=False)
    bounds: bool = False

    def __str__(self) -> str:
        place = [self.source]
        place += [f"line {self.lines[0]}"] if self.lines else []
        place += [f"row {self.rows[0]}"] if self.rows else []
        place += [f"column {self.column}"] if self.column else []
        more = f", in {len(self.rows)} rows" if len(self.rows) > 1 else ""
        cure = f"; {self.cure}" if self.cure else ""
        return f"{', '.join(place)}: {self.problem}{more}{cure}"

    def error(self, others: int = 0) -> DataError:
        """Return the error of whoever cannot do without the file; others: faults beside this one."""
        text = f"{self}; {others} more faults: fedcore check lists them" if others else str(self)
        return OutOfBoundsError(text) if self.bounds else DataError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Columns of a file before their rules, equally long.

    lines   of each row, where a format has lines; blank: records without any text, which are no rows
    ragged  rows with another number of fields than the header, which are not in the columns
    """

    source: str
    columns: Mapping[str, Cells]
    rows: int
    lines: Sequence[int] = ()
    faults: tuple[Fault, ...] = ()
    blank: int = 0
    ragged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What a file gave.

    table    rows without a fault, after all rules
    rows     in the file; dropped: left out by a rule, by column; filled, clipped: values, likewise
             in rows that are used
    kept     which rows of the file the table's are, from 0
    unused   columns of the file that the layout does not name; blank: records without any text
    """

    source: str
    table: Table
    rows: int
    kept: NDArray[np.int64]
    faults: tuple[Fault, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)
    clipped: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    blank: int = 0

    def complete(self) -> Table:
        """Return the table. Raises DataError, OutOfBoundsError: the first fault."""
        if self.faults:
            raise self.faults[0].error(len(self.faults) - 1)
        if not len(self.table):
            raise DataError(f"{self.source}: has no rows")
        return self.table

    def rules(self) -> Iterator[str]:
        """Say what the rules did, a line each."""
        if self.blank:
            yield f"{self.blank} rows without any text left out"
        for column, count in self.dropped.items():
            yield f"{count} rows left out for want of a usable {column}"
        for column, count in self.filled.items():
            yield f"{count} missing values of {column} filled"
        for column, count in self.clipped.items():
            yield f"{count} values of {column} moved to its bounds"


class Reader:
    """Applies the rules of a layout to raw columns."""

    def __init__(self, raw: Raw, layout: Layout, *, answers: bool = True) -> None:
        self._raw, self._layout, self._answers = raw, layout, answers
        self._faults = list(raw.faults)
        self._out = np.zeros(raw.rows, bool)  # rows that are not in the table
        self._dropped: dict[str, int] = {}
        self._changed: dict[str, dict[str, NDArray[np.bool_]]] = {"filled": {}, "clipped": {}}

    def read(self) -> Reading:
        """Return what there is."""
        raw, layout = self._raw, self._layout
        read = {one.name: self._column(one) for one in layout.columns}
        labels = self._column(layout.label) if self._answers else np.zeros(raw.rows)
        persons = None if layout.id is None or not self._answers else self._persons(layout.id)
        keep = np.flatnonzero(~self._out)
        features = [one.expand(read[one.name]) for one in layout.columns]
        kind = np.int64 if isinstance(layout.label, Category) else np.float64
        table = Table(
            np.concatenate(features, axis=1)[keep],
            labels[keep].astype(kind),
            None if persons is None else persons[keep],
        )
        named = {one.name for one in layout.fields} | {layout.id}
        unused = tuple(name for name in raw.columns if name not in named)
        return Reading(
            source=raw.source,
            table=table,
            rows=raw.rows + raw.ragged,
            kept=keep,
            faults=tuple(self._faults),
            unused=unused,
            blank=raw.blank,
            dropped=self._dropped,
            **{what: self._kept_of(marks) for what, marks in self._changed.items()},
        )

    def _kept_of(self, marks: Mapping[str, NDArray[np.bool_]]) -> dict[str, int]:
        """Count by column the values that a rule changed in rows that are used."""
        counts = {column: int(np.count_nonzero(where & ~self._out)) for column, where in marks.items()}
        return {column: count for column, count in counts.items() if count}

    def _fault(
        self, where: NDArray[np.int64], column: str, problem: str, cure: str = "", *, bounds: bool = False
    ) -> None:
        if not len(where):
            return
        cells, lines = self._raw.columns[column], self._raw.lines
        self._out[where] = True
        self._faults.append(
            Fault(
                source=self._raw.source,
                column=column,
                problem=problem,
                cure=cure,
                rows=[int(row) + 1 for row in where],
                lines=[lines[row] for row in where] if lines else (),
                values=tuple(str(cells[row]) for row in where[:_SHOWN]),
                bounds=bounds,
            )
        )

    def _drop(self, where: NDArray[np.bool_], column: str) -> None:
        count = int(np.count_nonzero(where & ~self._out))
        if count:
            self._dropped[column] = self._dropped.get(column, 0) + count
        self._out |= where

    def _column(self, one: AnyField) -> NDArray[np.float64]:
        """Return the values of a column after its rules, NaN where the mean of all sites will be."""
        read = one.values(self._raw.columns[one.name], self._layout.notation)
        values = read.values
        for problem in dict.fromkeys(read.bad.values()):
            rows = np.array([row for row, text in read.bad.items() if text == problem], np.int64)
            self._fault(
                rows,
                one.name,
                problem or f"must be {one.expected}",
                "correct it" if problem else self._hint(one, rows),
            )
        values = self._within(one, values)
        gaps = np.isnan(values)
        gaps[list(read.bad)] = False
        match one.missing:
            case Missing.REFUSE:
                cure = 'give it, or agree on missing = "drop" or another rule for the column'
                self._fault(np.flatnonzero(gaps), one.name, f"is missing, must be {one.expected}", cure)
            case Missing.DROP:
                self._drop(gaps, one.name)
            case Missing.MEAN:
                self._changed["filled"][one.name] = gaps
            case Missing.CONSTANT | Missing.CATEGORY:
                self._changed["filled"][one.name] = gaps
                values = np.where(gaps, np.nan if one.filling is None else one.filling, values)
        return values

    def _within(self, one: AnyField, values: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = one.bounds
        beyond = (values < low) | (values > high)
        match one.outside:
            case Outside.REFUSE:
                cure = 'correct it, or agree on wider bounds or on outside = "clip", "drop" or "missing"'
                self._fault(np.flatnonzero(beyond), one.name, f"must be in {one.range}", cure, bounds=True)
            case Outside.DROP:
                self._drop(beyond, one.name)
            case Outside.CLIP:
                self._changed["clipped"][one.name] = beyond
                values = np.clip(values, low, high)
            case Outside.MISSING:
                values = np.where(beyond, np.nan, values)
        return values

    def _hint(self, one: AnyField, rows: NDArray[np.int64]) -> str:
        """Say how the first wrong text could be read, if the schema said so."""
        notation, cell = self._layout.notation, str(self._raw.columns[one.name][int(rows[0])]).strip()
        if isinstance(one, Category):
            alike = [name for name in one.categories if name.casefold() == cell.casefold()]
            meant = alike[0] if alike else "one of them"
            return f'correct it, or agree on the spelling: also = {{ "..." = "{meant}" }}'
        if isinstance(one, Day):
            return 'correct it, or agree on the form that the files have: date = "..."'
        if not any(mark.isdigit() for mark in cell) or any(mark.isalpha() for mark in cell):
            return "correct it, or agree on texts that are no value: missing in [file]"
        other = "," if notation.decimal == "." else "."
        if other in cell and notation.thousands != other:
            return f'agree on decimal = "{other}" or thousands = "{other}" in [file]'
        if any(mark in cell for mark in "' \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"):
            return "agree on thousands in [file], the mark between groups of digits"
        return "correct it"

    def _persons(self, name: str) -> NDArray[np.int64]:
        cells = [None if cell is None else cell.strip() for cell in texts(self._raw.columns[name])]
        none = set(self._layout.notation.missing)
        gaps = np.array([cell is None or cell in none for cell in cells], bool)
        self._fault(np.flatnonzero(gaps), name, "is missing: it tells whose row it is", "give it")
        return np.unique([cell or "" for cell in cells], return_inverse=True)[1].astype(np.int64)
