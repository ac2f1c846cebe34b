"""A first draft of a schema from a file, for people to edit; what it cannot tell it says."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fedcore.data.layout import Category, Layout, Missing, Notation, Number
from fedcore.errors import DataError

_CATEGORIES = 12  # more distinct texts are no categories
_COMMON = 5  # rows that share a text: rarer ones may name a person
_EMPTY = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")


def draft(path: Path, label: str, id_column: str | None = None) -> str:
    """Return the text of a schema. Raises DataError: no header, no such columns, no rows."""
    notation, rows = _read(path)
    header, *records = rows
    for name in (label, *(() if id_column is None else (id_column,))):
        if name not in header:
            raise DataError(f"{path}: has no column {name}, it has {', '.join(header)}")
    if not records:
        raise DataError(f"{path}: has no rows")
    cells = {
        name: [row[i].strip() for row in records if len(row) == len(header)] for i, name in enumerate(header)
    }
    notes, columns = [], []
    for name in header:
        if name in (label, id_column):
            continue
        column, note = _column(name, cells[name], notation)
        columns += [] if column is None else [column]
        notes += [f"# {name}: {note}"] if note else []
    answer, note = _column(label, [one for one in cells[label] if one not in _EMPTY], notation, label=True)
    if answer is None or not columns:
        raise DataError(f"{path}: no column, or no label, that is a number or has few values")
    notes += [f"# {label}: {note}"] if note else []
    layout = Layout(columns=tuple(columns), label=answer, id=id_column, notation=notation)
    head = [
        "# A draft from one file. Before it is shared: put bounds that are known of such values in the place",
        "# of those below, which were rounded outward from this file; check categories and rules for gaps.",
        *notes,
        "",
    ]
    return "\n".join(head) + layout.dump()


def _read(path: Path) -> tuple[Notation, list[list[str]]]:
    """Read records in the dialect that fits best: most fields, equally many in all rows."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    encoding = "utf-8"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding, text = "latin-1", content.decode("latin-1")
    found: list[tuple[int, str, list[list[str]]]] = []
    for delimiter in (",", ";", "\t", "|"):
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(map(str.strip, row))]
        widths = Counter(map(len, rows))
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        found.append((count * (width - 1), delimiter, [[one.strip() for one in row] for row in rows]))
    _, delimiter, rows = max(found, key=lambda one: one[0])
    if not rows:
        raise DataError(f"{path}: is empty, the first line must name the columns")
    return Notation(delimiter=delimiter, encoding=encoding), rows


def _column(
    name: str, cells: Sequence[str], notation: Notation, *, label: bool = False
) -> tuple[Number | Category | None, str]:
    """Return a column, or None, and what a person must decide."""
    values = [cell for cell in cells if cell not in _EMPTY]
    gaps = len(cells) - len(values)
    note = (
        f"{gaps} of {len(cells)} values are missing: refuse, drop, mean, constant, category" if gaps else ""
    )
    numbers = [notation.number(value) for value in values]
    counts = Counter(values)
    few = 2 <= len(counts) <= (_CATEGORIES if not label else 100)
    if values and all(number is not None for number in numbers) and not (few and (label or len(counts) == 2)):
        low, high = _outward([number for number in numbers if number is not None])
        missing = Missing.MEAN if gaps else Missing.REFUSE
        return Number(name=name, low=low, high=high, missing=missing), note
    if few:
        common = tuple(sorted(text for text, count in counts.items() if count >= _COMMON))
        rare = len(counts) - len(common)
        if len(common) >= 2:
            missing = Missing.CATEGORY if gaps else Missing.REFUSE
            said = f"{rare} rare texts are not listed" if rare else ""
            return Category(name=name, categories=common, missing=missing), "; ".join(
                filter(None, (note, said))
            )
    commas = sum("," in value for value in values)
    why = (
        "write [file] decimal or thousands first, it has commas"
        if commas
        else "neither numbers nor few texts"
    )
    return None, f"left out: {why}"


def _outward(values: Sequence[float]) -> tuple[float, float]:
    """Return bounds with one digit, around the values and not at one of them."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(max(high - low, abs(high), abs(low), 1e-9)))
    bottom = math.floor(low / step) * step
    top = (math.floor(high / step) + 1) * step
    return (min(bottom, 0.0) if low >= 0 else bottom - step), top
