"""Columns dealt to parties, for training on tables that are split by feature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError


@dataclass(frozen=True, slots=True)
class ColumnPartition:
    """Column names by party, party names ascending: every column of the table exactly once.

    Raises DataError when a column is unknown, lost or doubled, or a party has none.
    """

    parties: dict[str, tuple[str, ...]]
    names: tuple[str, ...]  # of the whole table, in its order

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise DataError("columns: the table needs columns, each once")
        if not self.parties or list(self.parties) != sorted(self.parties) or "" in self.parties:
            raise DataError("columns: needs parties, their names not empty and ascending")
        if empty := [party for party, held in self.parties.items() if not held]:
            raise DataError(f"columns: party {empty[0]} has none")
        counts = Counter(name for held in self.parties.values() for name in held)
        if unknown := [name for name in counts if name not in self.names]:
            raise DataError(f"columns: the table has no column {unknown[0]}")
        if wrong := [name for name in self.names if counts[name] != 1]:
            raise DataError(f"columns: {wrong[0]} must have one party, has {counts[wrong[0]]}")

    def indices(self, party: str) -> NDArray[np.int64]:
        """Positions of a party's columns in the table. Raises DataError for an unknown party."""
        if party not in self.parties:
            raise DataError(f"columns: there is no party {party}")
        return np.array([self.names.index(name) for name in self.parties[party]], np.int64)

    def features(self, features: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Cut a matrix (rows, columns) into one of (rows, its columns) for each party. Raises DataError."""
        if features.ndim != 2 or features.shape[1] != len(self.names):
            raise DataError(f"columns: the matrix must have {len(self.names)}, its shape is {features.shape}")
        return {party: features[:, self.indices(party)] for party in self.parties}


def columns(
    names: Sequence[str], parties: int | Mapping[str, Sequence[str]], seed: int | None = None
) -> ColumnPartition:
    """Deal the columns of a table to parties.

    parties  a number: equal stretches of the columns in their order, or, with a seed, of shuffled columns
             (each party's columns then keep the table's order); or the columns by party, as wanted
    raises   DataError: no parties, more parties than columns, unknown, lost or doubled columns
    """
    if isinstance(parties, Mapping):
        if seed is not None:
            raise DataError("seed: has no use when the columns of each party are given")
        return ColumnPartition({party: tuple(parties[party]) for party in sorted(parties)}, tuple(names))
    if not 1 <= parties <= len(names):
        raise DataError(f"parties: must be in 1 .. {len(names)}, the number of columns, is {parties}")
    if seed is not None and seed < 0:
        raise DataError(f"seed: must not be negative, is {seed}")
    order = np.arange(len(names)) if seed is None else np.random.default_rng(seed).permutation(len(names))
    width = max(3, len(str(parties - 1)))
    dealt = {
        f"party-{i:0{width}d}": tuple(names[j] for j in sorted(stretch.tolist()))
        for i, stretch in enumerate(np.array_split(order, parties))
    }
    return ColumnPartition(dealt, tuple(names))
