"""Rows dealt to clients: partitions that lose and double nothing, and the usual ways to make them.

Every partitioner is deterministic in its seed and gives row numbers, never rows. Clients are called
client-000, client-001 ... unless the data names them. A client that has fewer than `minimum_rows` gets
rows, drawn at random, from the client that is then the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcore.data.splits import dirichlet_shares, draw_classes, principal_scores, split_by_shares
from fedcore.data.table import Table
from fedcore.errors import DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Row numbers by client, client names ascending: every row of 0 .. rows-1 exactly once.

    Raises DataError when a row is lost or doubled, or when names are not ascending. The arrays are copied
    and cannot be written to.
    """

    parts: dict[str, Rows]
    rows: int

    def __post_init__(self) -> None:
        names = list(self.parts)
        if not names or names != sorted(names) or "" in names:
            raise DataError("partition: needs clients, their names not empty and ascending")
        frozen = {name: _frozen(name, part) for name, part in self.parts.items()}
        rows = np.concatenate(list(frozen.values()))
        if rows.size and not 0 <= rows.min() <= rows.max() < self.rows:
            raise DataError(f"partition: row numbers must be in 0 .. {self.rows - 1}")
        counts = np.bincount(rows, minlength=self.rows)
        if (counts != 1).any():
            first = int(np.flatnonzero(counts != 1)[0])
            raise DataError(f"partition: row {first} must be dealt once, is dealt {counts[first]} times")
        object.__setattr__(self, "parts", frozen)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows by client."""
        return {name: len(part) for name, part in self.parts.items()}

    def tables(self, table: Table) -> dict[str, Table]:
        """Take each client's rows of a table. Raises DataError when the table has another length."""
        if len(table) != self.rows:
            raise DataError(f"partition: made for {self.rows} rows, the table has {len(table)}")
        return {name: table.take(part) for name, part in self.parts.items()}


def iid(rows: int, clients: int, seed: int, *, minimum_rows: int = 1) -> Partition:
    """Shuffle the rows and deal them evenly; sizes differ by one at most. Raises DataError."""
    rng = _begin(rows, clients, seed, minimum_rows)
    return _finish(np.array_split(rng.permutation(rows), clients), rng, minimum_rows)


def dirichlet(
    labels: ArrayLike, clients: int, alpha: float, seed: int, *, minimum_rows: int = 1
) -> Partition:
    """Deal each class by its own shares of the clients, drawn from Dirichlet(alpha, ..., alpha).

    labels   integers (rows,)
    alpha    concentration, > 0; small: a class sits with few clients, large: close to even
    raises   DataError

    Label skew as in Yurochkin et al. 2019 (arXiv:1905.12022) and NIID-Bench (Li et al. 2022):
    the draw is per class, over clients, so sizes differ, too. `dirichlet_balanced` draws per client.
    """
    classes = _labels(labels)
    rng = _begin(len(classes), clients, seed, minimum_rows)
    _positive("alpha", alpha)
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    for label in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == label))
        for part, chunk in zip(
            parts, split_by_shares(rows, dirichlet_shares(rng, clients, alpha)), strict=True
        ):
            part.append(chunk)
    return _finish([np.concatenate(part) for part in parts], rng, minimum_rows)


def dirichlet_balanced(
    labels: ArrayLike, clients: int, alpha: float, seed: int, *, minimum_rows: int = 1
) -> Partition:
    """Clients of equal size (but for one row); each draws its mix of classes from Dirichlet(alpha * p).

    p is the mix of the whole, so alpha is the sum of the parameters, while `dirichlet` has alpha for each
    client. A class that has run out is left out of the later clients' mixes.
    Raises DataError. Hsu, Qi and Brown 2019 (arXiv:1909.06335).
    """
    classes = _labels(labels)
    rng = _begin(len(classes), clients, seed, minimum_rows)
    _positive("alpha", alpha)
    kinds, counts = np.unique(classes, return_counts=True)
    piles = [rng.permutation(np.flatnonzero(classes == kind)) for kind in kinds]
    parts = []
    for size in (len(part) for part in np.array_split(classes, clients)):
        mix = dirichlet_shares(rng, len(kinds), alpha * (counts / len(classes)))
        taken = draw_classes(rng, size, mix, np.array([len(pile) for pile in piles]))
        parts.append(np.concatenate([pile[:n] for pile, n in zip(piles, taken, strict=True)]))
        piles = [pile[n:] for pile, n in zip(piles, taken, strict=True)]
    return _finish(parts, rng, minimum_rows)


def shards(
    labels: ArrayLike, clients: int, shards_per_client: int, seed: int, *, minimum_rows: int = 1
) -> Partition:
    """Sort rows by label, cut them into equal shards, and deal each client the same number of shards.

    The pathological non-IID split of McMahan et al. 2017 (arXiv:1602.05629, section 3): with two shards a
    client sees about two classes. Rows of one class stay in their order. Raises DataError.
    """
    classes = _labels(labels)
    rng = _begin(len(classes), clients, seed, minimum_rows)
    if not 1 <= shards_per_client <= len(classes) // clients:
        raise DataError(
            f"shards_per_client: must be in 1 .. {len(classes) // clients} "
            f"({len(classes)} rows, {clients} clients), is {shards_per_client}"
        )
    cut = np.array_split(np.argsort(classes, kind="stable"), clients * shards_per_client)
    dealt = rng.permutation(len(cut)).reshape(clients, shards_per_client)
    return _finish([np.concatenate([cut[i] for i in hand]) for hand in dealt], rng, minimum_rows)


def quantity(rows: int, clients: int, concentration: float, seed: int, *, minimum_rows: int = 1) -> Partition:
    """Shuffle the rows and deal shares drawn from Dirichlet(concentration, ...): sizes differ, mixes do not.

    Quantity skew of NIID-Bench (Li et al. 2022). Raises DataError.
    """
    rng = _begin(rows, clients, seed, minimum_rows)
    _positive("concentration", concentration)
    shares = dirichlet_shares(rng, clients, concentration)
    return _finish(split_by_shares(rng.permutation(rows), shares), rng, minimum_rows)


def feature(
    features: ArrayLike,
    clients: int,
    column: int | None,
    seed: int,
    *,
    overlap: float = 0.0,
    minimum_rows: int = 1,
) -> Partition:
    """Order rows by a value and give each client an equal stretch: feature skew.

    features  (rows, columns), finite
    column    whose value orders the rows; None: the first principal component of standardized columns
    overlap   in [0, 1]: the share of rows that change places at random; 0 disjoint stretches, 1 IID
    raises    DataError

    Equal values are ordered at random, so that a column of two values does not follow the file's order.
    """
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or not matrix.shape[1] or not np.isfinite(matrix).all():
        raise DataError("features: must be (rows, columns), finite")
    if column is not None and not 0 <= column < matrix.shape[1]:
        raise DataError(f"column: must be in 0 .. {matrix.shape[1] - 1}, is {column}")
    if not 0 <= overlap <= 1:
        raise DataError(f"overlap: must be in [0, 1], is {overlap}")
    rng = _begin(len(matrix), clients, seed, minimum_rows)
    values = principal_scores(matrix) if column is None else matrix[:, column]
    order = np.lexsort((rng.random(len(values)), values))
    loose = rng.permutation(len(order))[: round(overlap * len(order))]
    order[np.sort(loose)] = order[loose]
    return _finish(np.array_split(order, clients), rng, minimum_rows)


def uneven(labels: ArrayLike, clients: int, seed: int, *, minimum_rows: int = 1) -> Partition:
    """Deal to clients that differ in size and in the mix of labels, as hospitals do. Raises DataError.

    Sizes are drawn from Dirichlet(3, ..., 3); of each class a client takes its size times a share of
    Dirichlet(1, ..., 1).
    """
    classes = _labels(labels)
    rng = _begin(len(classes), clients, seed, minimum_rows)
    sizes = rng.dirichlet(np.full(clients, 3.0))
    parts: list[list[Rows]] = [[] for _ in range(clients)]
    for label in np.unique(classes):
        shares = sizes * rng.dirichlet(np.ones(clients)) + 1e-6
        rows = rng.permutation(np.flatnonzero(classes == label))
        for part, chunk in zip(parts, split_by_shares(rows, shares / shares.sum()), strict=True):
            part.append(chunk)
    return _finish([np.concatenate(part) for part in parts], rng, minimum_rows)


def natural(ids: Sequence[str] | Sequence[int] | NDArray[np.int64] | NDArray[np.str_]) -> Partition:
    """Make one client of each distinct id, all strings or all integers; its name is the id as text.

    Names ascend as text ("10" before "9"). Sizes are what they are. Raises DataError.
    """
    array = np.asarray(ids)
    alike = array.dtype.kind in "iuU" and len({isinstance(one, str) for one in ids}) == 1
    if array.ndim != 1 or not alike:
        raise DataError("ids: must be a list of integers or of strings, not empty")
    names, owners = np.unique(array.astype(np.str_), return_inverse=True)
    if "" in names:
        raise DataError(f"ids: row {int(np.flatnonzero(array == '')[0])} has none")
    order = np.argsort(owners, kind="stable").astype(np.int64)
    chunks = np.split(order, np.cumsum(np.bincount(owners))[:-1])
    return Partition(dict(zip(names.tolist(), chunks, strict=True)), len(array))


def _frozen(name: str, part: Rows) -> Rows:
    array = np.asarray(part)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"partition, client {name}: row numbers must be integers (rows,)")
    copied = array.astype(np.int64)
    copied.flags.writeable = False
    return copied


def _labels(labels: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        raise DataError("labels: must be integers (rows,)")
    return array.astype(np.int64)


def _begin(rows: int, clients: int, seed: int, minimum_rows: int) -> np.random.Generator:
    """Check what all partitioners share; a client without rows is never wanted, so one is the least."""
    if clients < 1:
        raise DataError(f"clients: must be at least 1, is {clients}")
    if minimum_rows < 1:
        raise DataError(f"minimum_rows: must be at least 1, is {minimum_rows}")
    if rows < clients * minimum_rows:
        raise DataError(
            f"rows: {clients} clients of {minimum_rows} or more need {clients * minimum_rows}, are {rows}"
        )
    if seed < 0:
        raise DataError(f"seed: must not be negative, is {seed}")
    return np.random.default_rng(seed)


def _positive(field: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise DataError(f"{field}: must be positive and finite, is {value}")


def _finish(parts: Sequence[Rows], rng: np.random.Generator, minimum_rows: int) -> Partition:
    """Top up the small clients and name them all; rows of a client ascend."""
    hands = [part.tolist() for part in parts]
    for hand in hands:
        while len(hand) < minimum_rows:
            largest = max(hands, key=len)
            hand.append(largest.pop(int(rng.integers(len(largest)))))
    width = max(3, len(str(len(hands) - 1)))  # so that names ascend as numbers do
    named = {f"client-{i:0{width}d}": np.sort(np.array(hand, np.int64)) for i, hand in enumerate(hands)}
    return Partition(named, sum(map(len, hands)))
