"""A first draft of a schema from a file, for people to edit; what it cannot tell it says."""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

from fedcore.data.layout import AnyField, Category, Day, Layout, Missing, Notation, Number
from fedcore.errors import DataError

_CATEGORIES = 12  # more distinct texts are no categories
_CLASSES = 100  # of a label
_COMMON = 5  # persons that share a text: rarer ones may tell who it is
_LARGEST = 1e100
_FORMS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d")
_EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")


def draft(path: Path, label: str, id_column: str | None = None) -> str:
    """Return the text of a schema; no counts of the file are in it.

    raises  DataError: no header, no such columns, no rows, nothing to learn from
    """
    notation, header, records = _read(path)
    for name in (label, *(() if id_column is None else (id_column,))):
        if name not in header:
            raise DataError(f"{path}: has no column {name}, it has {', '.join(header)}")
    if not records:
        raise DataError(f"{path}: has no rows")
    cells = {name: [row[i].strip() for row in records] for i, name in enumerate(header)}
    notation = _decimal(cells, notation)
    notes, columns = [], []
    people = None if id_column is None else cells[id_column]
    for name in header:
        if name in (label, id_column):
            continue
        column, note = _column(name, cells[name], notation, people)
        columns += [] if column is None else [column]
        notes += [_note(name, note)] if note else []
    answer, note = _answer(label, cells[label], notation)
    if answer is None:
        raise DataError(f"{path}: column {label} is no label: {note}")
    if not columns:
        raise DataError(f"{path}: no column beside {label} is a number, a day or one of few texts")
    notes += [_note(label, note)] if note else []
    if notation.decimal != ".":
        notes += ["# Numbers were taken to have a decimal comma: see [file]."]
    layout = Layout(columns=tuple(columns), label=answer, id=id_column, notation=notation)
    head = [
        "# A draft from one file. Before it is shared: put bounds that are known of such values in the place",
        "# of those below, which were rounded outward from this file; check categories and rules for gaps.",
        *notes,
        "",
    ]
    return "\n".join(head) + layout.dump()


def _note(name: str, text: str) -> str:
    return f"# {' '.join(name.split())}: {text}"


def _read(path: Path) -> tuple[Notation, list[str], list[list[str]]]:
    """Read header and rows with the delimiter by which most rows have as many fields as the header."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    encoding = "utf-8"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding, text = "latin-1", content.decode("latin-1")
    best = (-1, ",", [""], list[list[str]]())
    for delimiter in (";", "\t", "|", ","):
        try:
            rows = [
                row for row in csv.reader(StringIO(text, ""), delimiter=delimiter) if any(map(str.strip, row))
            ]
        except csv.Error as error:
            raise DataError(f"{path}: {error}") from error
        if rows and rows[0][0].startswith("sep="):  # how Excel is told the delimiter
            rows = rows[1:]
        if not rows:
            raise DataError(f"{path}: is empty, the first line must name the columns")
        header, *records = rows
        fitting = [row for row in records if len(row) == len(header)]
        if (score := (len(header) - 1) * (1 + len(fitting))) > best[0]:
            best = (score, delimiter, [name.strip() for name in header], fitting)
    _, delimiter, header, records = best
    return Notation(delimiter=delimiter, encoding=encoding), header, records


def _decimal(cells: Mapping[str, Sequence[str]], notation: Notation) -> Notation:
    """Return the notation with the decimal mark by which more columns are numbers."""
    if notation.delimiter == ",":
        return notation
    comma = replace(notation, decimal=",")

    def numeric(one: Notation) -> int:
        return sum(
            all(cell in _EMPTY or one.number(cell) is not None for cell in column)
            for column in cells.values()
        )

    return comma if numeric(comma) > numeric(notation) else notation


def _known(cells: Sequence[str], notation: Notation) -> list[float] | None:
    """Return all values that are there as finite numbers; None: some are none."""
    found = [notation.number(cell) for cell in cells if cell not in _EMPTY]
    numbers = [one for one in found if one is not None and abs(one) < _LARGEST]
    return numbers if numbers and len(numbers) == len(found) else None


def _answer(name: str, cells: Sequence[str], notation: Notation) -> tuple[Number | Category | None, str]:
    """Return the label: a number if it has more values than classes have; its classes are public."""
    values = [cell for cell in cells if cell not in _EMPTY]
    numbers = _known(cells, notation)
    missing = Missing.DROP if len(values) < len(cells) else Missing.REFUSE
    note = "some are missing: these rows are dropped" if missing is Missing.DROP else ""
    if numbers is not None and len(set(values)) > _CATEGORIES:
        low, high = _outward(numbers)
        return Number(name=name, low=low, high=high, missing=missing), note
    texts = sorted(set(values), key=lambda text: (notation.number(text) or 0.0, text))
    if len(texts) == 1:
        return None, "all rows have the same"
    if not 2 <= len(texts) <= _CLASSES:
        return None, f"it is neither a number nor one of 2 to {_CLASSES} texts"
    if numbers is not None and len(texts) > 2:
        note = f"{note}; " * bool(note) + "if it is a number, give low and high in the place of classes"
    return Category(name=name, categories=tuple(texts), missing=missing), note


def _column(
    name: str, cells: Sequence[str], notation: Notation, people: Sequence[str] | None
) -> tuple[AnyField | None, str]:
    """Return a column, or None, and what is to be decided; people: whose row each is, None: all differ."""
    whose = people or [str(row) for row in range(len(cells))]
    pairs = {(cell, who) for cell, who in zip(cells, whose, strict=True) if cell not in _EMPTY}
    counts = Counter(cell for cell, _ in pairs)  # by how many people
    gaps = any(cell in _EMPTY for cell in cells)
    numbers = _known(cells, notation)
    notes = [f"some are missing: refuse, drop, mean, constant{', category' * (numbers is None)}"] * gaps
    common = tuple(sorted(text for text, count in counts.items() if count >= _COMMON))
    if len(common) >= 2 and len(counts) <= (2 if numbers is not None else _CATEGORIES):
        notes += ["rare texts are not listed"] * (len(counts) > len(common))
        missing = Missing.CATEGORY if gaps else Missing.REFUSE
        return Category(name=name, categories=common, missing=missing), "; ".join(notes)
    if numbers is not None:
        low, high = _outward(numbers)
        missing = Missing.MEAN if gaps else Missing.REFUSE
        return Number(name=name, low=low, high=high, missing=missing), "; ".join(notes)
    if (day := _day_column(name, list(counts), gaps=gaps)) is not None:
        return day, "; ".join([*notes, f"read as {day.date}"])
    cure = "if some of its texts are no value, list them in [file] missing and draft again"
    return (
        None,
        f"left out, for it is no number, day or one of few texts that {_COMMON} persons share; {cure}",
    )


def _day_column(name: str, texts: Sequence[str], *, gaps: bool) -> Day | None:
    """Return the column of days, if there is one form by which all texts are days."""
    fitting = [form for form in _FORMS if texts and all(_is_day(text, form) for text in texts)]
    if len(fitting) != 1:
        return None
    years = [dt.datetime.strptime(text, fitting[0]).year for text in texts]  # noqa: DTZ007 - days have no zone
    low, high = f"{min(years):04d}-01-01", f"{max(years) + 1:04d}-12-31"
    missing = Missing.MEAN if gaps else Missing.REFUSE
    return Day(name=name, date=fitting[0], low=low, high=high, missing=missing)


def _is_day(text: str, form: str) -> bool:
    try:
        return dt.datetime.strptime(text, form).year > 0  # noqa: DTZ007
    except ValueError:
        return False


def _outward(values: Sequence[float]) -> tuple[float, float]:
    """Return bounds with one digit, around the values and not at one of them."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(max(high - low, abs(high), abs(low)) or 1.0))
    bottom = math.floor(low / step) * step
    top = (math.floor(high / step) + 1) * step
    return (min(bottom, 0.0) if low >= 0 else bottom - step), top
