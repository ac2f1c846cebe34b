"""Rows of one site."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one site.

    features  (rows, columns) float64; NaN where the mean of all sites takes the place of a missing value
    labels    (rows,): positions of classes, int64, or numbers, float64
    persons   (rows,) integers from 0, whose row it is; None: each row is a person
    raises    DataError: persons that are not one for each row
    """

    features: NDArray[np.float64]
    labels: NDArray[Any]
    persons: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.persons is not None and (
            self.persons.shape != (len(self.labels),) or (self.persons < 0).any()
        ):
            raise DataError(f"persons: must be {len(self.labels)} integers from 0, one for each row")

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> bytes:
        """Return 32 bytes, equal for equal rows."""
        hashed = hashlib.sha256()
        for array in (self.features, self.labels, self.persons):
            if array is not None:
                hashed.update(f"{array.dtype.str} {array.shape}".encode())
                hashed.update(np.ascontiguousarray(array).data)
        return hashed.digest()

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return these rows."""
        persons = None if self.persons is None else self.persons[rows]
        return Table(self.features[rows], self.labels[rows], persons)


def join_tables(tables: Sequence[Table]) -> Table:
    """Put tables below each other; a person of one is none of another. Raises DataError: some have no ids."""
    given = [table.persons for table in tables if table.persons is not None]
    if given and len(given) < len(tables):
        raise DataError("persons: must be given in all tables that are joined, or in none")
    persons = None
    if given:
        counts = [int(one.max(initial=-1)) + 1 for one in given]
        firsts = np.cumsum([0, *counts[:-1]])
        persons = np.concatenate([one + first for one, first in zip(given, firsts, strict=True)])
    return Table(
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.labels for table in tables]),
        persons,
    )
