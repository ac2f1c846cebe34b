"""A set of rows as it comes, before it is dealt to sites: by natural part, or whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError

WHOLE = ""  # the name of the only part of a set that has no natural ones


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows, what they are, and who has them.

    parts  training rows by natural part, such as a hospital, a writer or a file; under WHOLE alone: has none
    label  the column's name in files
    test   rows that the set keeps for evaluation, by part; none: a share of every part is held out
    """

    name: str
    parts: Mapping[str, Table]
    schema: Schema
    label: str = "label"
    test: Mapping[str, Table] = field(default_factory=dict)

    @property
    def natural(self) -> bool:
        """Return whether the set has natural parts."""
        return list(self.parts) != [WHOLE]

    @property
    def table(self) -> Table:
        """All training rows, part after part."""
        return join_tables(list(self.parts.values()))

    def split(self, share: float, seed: int) -> tuple[dict[str, Table], dict[str, Table]]:
        """Return training and test rows by part: the set's own test rows, or a share held out by the seed."""
        if self.test:
            return dict(self.parts), dict(self.test)
        split = {name: hold_out(part, share, seed) for name, part in self.parts.items()}
        return {name: one for name, (one, _) in split.items()}, {
            name: one for name, (_, one) in split.items()
        }

    def first(self, training: Mapping[str, Table], clients: int | None) -> dict[str, Table]:
        """Return the first parts by name, or all of them. Raises DataError: there are fewer, or none."""
        if not self.natural:
            raise DataError(f"data.partition: {self.name} has no natural sites, files need one for each")
        names = sorted(training)
        if clients is not None and clients > len(names):
            raise DataError(f"data.clients: must be at most {len(names)}, is {clients}")
        return {name: training[name] for name in names[:clients]}


def hold_out(table: Table, share: float, seed: int) -> tuple[Table, Table]:
    """Split rows into training and held-out ones, class by class; nothing is lost or doubled.

    Rows of one person stay together, in the class of the first of them. Numbers are no classes.
    raises  DataError unless the share is in [0, 1]
    """
    if not 0 <= share <= 1:
        raise DataError(f"share: must be in [0, 1], is {share}")
    rng = np.random.default_rng(seed)
    firsts = np.arange(len(table))
    if table.persons is not None:
        firsts = np.unique(table.persons, return_index=True)[1]
    labels = table.labels[firsts]
    if labels.dtype.kind == "f":
        labels = np.zeros(len(firsts), np.int64)
    held: list[int] = []
    for label in np.unique(labels):
        rows = rng.permutation(firsts[labels == label])
        held.extend(rows[: round(share * len(rows))].tolist())
    chosen = np.zeros(len(table), bool)
    chosen[held] = True
    if table.persons is not None:
        chosen = np.isin(table.persons, table.persons[chosen])
    return table.take(np.flatnonzero(~chosen)), table.take(np.flatnonzero(chosen))
