"""A look at one's own rows before they are used: what they are, and what will surprise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fedcore.data.reading import Reading
from fedcore.data.schema import Schema

_FEW = 10  # rows, with fewer a column tells the label by chance
_NARROW = 2.0**-10  # of the range of a column: a deviation below it is near what sums resolve


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What a file is, and what of it will surprise. For the eyes of its owner: values are told."""

    reading: Reading
    facts: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        reading = self.reading
        counts = {name: dict(getattr(reading, name)) for name in ("dropped", "filled", "clipped")}
        return {
            "source": reading.source,
            "rows": reading.rows,
            "usable": len(reading.table),
            **counts,
            "unused": list(reading.unused),
            "facts": list(self.facts),
            "notes": list(self.warnings),
            "faults": [asdict(fault) for fault in reading.faults],
        }


def look(
    reading: Reading, schema: Schema, weight_cap: int | None = None, *, answers: bool = True
) -> Findings:
    """Return what there is to say.

    weight_cap  rows of a site that count at most; None: not known. answers: whether labels were read
    """
    facts = tuple(_facts(reading, schema, answers=answers))
    return Findings(reading, facts, tuple(_warnings(reading, schema, weight_cap, answers=answers)))


def _facts(reading: Reading, schema: Schema, *, answers: bool) -> Iterator[str]:
    table = reading.table
    if table.persons is not None:
        yield f"{len(np.unique(table.persons))} persons"
    if not answers:
        yield "without labels"
    elif schema.target is not None:
        if len(table):
            yield f"{schema.target.name} from {table.labels.min():g} to {table.labels.max():g}"
    else:
        counts = np.bincount(table.labels, minlength=len(schema.classes))
        yield ", ".join(f"{count} x {name}" for name, count in zip(schema.classes, counts, strict=True))
    yield f"{len(schema.columns)} features"
    if reading.unused:
        yield f"not used: {', '.join(reading.unused)}"


def _warnings(reading: Reading, schema: Schema, weight_cap: int | None, *, answers: bool) -> Iterator[str]:
    table, classes = reading.table, answers and schema.target is None
    if weight_cap is not None and len(table) > weight_cap:
        yield f"{len(table)} rows count as {weight_cap}, plan.weight_cap"
    if len(table) < _FEW:
        return
    if classes and len(np.unique(table.labels)) == 1:
        yield f"all rows are {schema.classes[int(table.labels[0])]}"
    width = schema.high - schema.low
    known = np.asarray(np.isfinite(table.features).any(axis=0))
    spread = np.zeros(len(width))
    spread[known] = np.nanstd(table.features[:, known], axis=0) / width[known]
    for i, column in enumerate(schema.columns):
        if not known[i]:
            yield f"{column.name} has no value in any row"
        elif not spread[i] > 0:
            yield f"{column.name} is the same in all rows"
        elif spread[i] < _NARROW:
            yield (
                f"{column.name} varies by {spread[i] * width[i]:.3g} within the bounds {column.low:g}.."
                f"{column.high:g}: narrower bounds are seen better"
            )
        if classes and _tells(table.features[:, i], table.labels):
            yield f"{column.name} alone tells the label: is it known before the outcome?"


def _tells(
    values: np.ndarray[Any, np.dtype[np.float64]], labels: np.ndarray[Any, np.dtype[np.int64]]
) -> bool:
    """Tell whether each value comes with one label, and the labels' values do not overlap."""
    known = np.isfinite(values)
    values, labels = values[known], labels[known]
    if len(np.unique(labels)) < 2:
        return False
    ends = sorted((values[labels == one].min(), values[labels == one].max()) for one in np.unique(labels))
    return all(before[1] < after[0] for before, after in pairwise(ends))
