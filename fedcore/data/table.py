"""Rows of one site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one site.

    features  (rows, columns) float64; NaN where the mean of all sites takes the place of a missing value
    labels    (rows,): positions of classes, int64, or numbers, float64
    persons   (rows,) int64, whose row it is; None: each row is a person
    """

    features: NDArray[np.float64]
    labels: NDArray[Any]
    persons: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return these rows."""
        persons = None if self.persons is None else self.persons[rows]
        return Table(self.features[rows], self.labels[rows], persons)


def join_tables(tables: Sequence[Table]) -> Table:
    """Put tables below each other; a person of one is none of another."""
    persons = None
    if tables and all(table.persons is not None for table in tables):
        counts = [0 if not len(table) else int(table.persons.max()) + 1 for table in tables]  # type: ignore[union-attr]
        firsts = np.cumsum([0, *counts[:-1]])
        persons = np.concatenate([table.persons + first for table, first in zip(tables, firsts, strict=True)])
    return Table(
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.labels for table in tables]),
        persons,
    )
