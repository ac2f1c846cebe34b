"""Strategies that bound what a few bad sites can do, from secure sums alone.

What needs single updates (Krum, Multi-Krum, Bulyan, coordinate medians of clients, FoolsGold, norm
filters on the server) cannot be had: the server sees sums over groups, never one update.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedcore.errors import CodecError, TaskError
from fedcore.rounds.instructions import Asks, UpdateKind
from fedcore.settings import at_least, positive, settle
from fedcore.strategies.base import RoundUpdate, State, Strategy, Sums, Vector
from secagg import RoundAbortedError


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupMeans(Strategy):
    """Means of groups, each a secure sum of its own over `len(cohort) / groups` sites.

    groups   how many; dealt anew in every round, by a public seed
    smallest fewest sites of a group: what its mean hides in; 4 bear one dropout, 3 none
    raises   TaskError: groups that would be smaller
    """

    groups: int
    smallest: int = 4
    server_rate: float = 1.0

    def combine(self, sums: Sums) -> RoundUpdate:
        """Return the combined means of the groups that have a result."""
        order = sums.shuffled()
        if self.groups < 1 or len(order) // self.groups < self.smallest:
            raise TaskError(
                f"groups: {self.groups} of at least {self.smallest} sites each are needed, "
                f"the cohort has {len(order)}"
            )
        results: list[RoundUpdate] = []
        last: Exception | None = None
        for i in range(self.groups):
            try:
                results.append(sums.mean(sorted(order[i :: self.groups])))
            except (RoundAbortedError, CodecError, TaskError) as error:  # too many dropouts: no say
                last = error
        if len(results) <= self.groups // 2:
            raise TaskError(
                f"groups: {len(results)} of {self.groups} have a result, a majority is needed: {last}"
            ) from last
        stacked = np.stack([result.mean for result in results])
        weight, clients = sum(r.weight for r in results), sum(r.clients for r in results)
        within = sum(r.within * r.weight for r in results) / weight
        return RoundUpdate(results[0].kind, self._middle(stacked), weight, clients, within=within)

    def _middle(self, means: Vector) -> Vector:
        """Combine (groups, d) to (d,)."""
        raise NotImplementedError

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return parameters + server_rate * combined change."""
        return parameters + self.server_rate * update.of(UpdateKind.DELTA), state


@dataclass(frozen=True, slots=True, kw_only=True)
class FedMedian(_GroupMeans):
    """Coordinate-wise median of means of groups (Yin et al., ICML 2018, definition 1, over group means).

    A minority of groups with a bad site cannot move a coordinate beyond the other groups' means: f bad
    sites need 2 f + 1 groups.
    Reveals to the server: the mean of every group, so an update hides among `len(cohort) / groups` sites.
    """

    def _middle(self, means: Vector) -> Vector:
        return np.asarray(np.median(means, axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FedTrimmedMean(_GroupMeans):
    """Coordinate-wise trimmed mean of means of groups (Yin et al., ICML 2018, definition 2).

    trim  groups that are dropped at either end of every coordinate: as many bad sites are borne
    Reveals to the server: the mean of every group.
    """

    trim: int = 1

    def _middle(self, means: Vector) -> Vector:
        if not 0 <= 2 * self.trim < len(means):
            raise TaskError(f"trim: must leave groups, {self.trim} at either end of {len(means)} do not")
        ordered = np.sort(means, axis=0)
        return np.asarray(ordered[self.trim : len(means) - self.trim].mean(axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometricMedian(Strategy):
    """Robust federated aggregation by the smoothed Weiszfeld algorithm (Pillutla et al. 2022, algorithm 2).

    passes     secure sums after the first, each of the same updates with weights
               w_i / max(nu, |x_i - v|) that the sites compute themselves
    smoothing  nu, in units of the update: near the distance between honest updates. Weights travel in
               steps of 1 / 1024 and scale the values, so a much smaller one loses bits
    Up to half of the weight may be bad, but sites that lie about their distance are not bounded: their
    pull is limited by the codec's clip alone.
    Reveals to the server: the weighted mean, and one reweighted mean of the same updates per pass: as many
    linear views of them as passes, plus one.
    """

    smoothing: float
    passes: int = 3
    server_rate: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "smoothing")
        at_least(self, 0, "passes")
        Strategy.__post_init__(self)

    def asks(self) -> Asks:
        """Ask for weights by distance."""
        return replace(self.ask, smoothing=self.smoothing)

    def combine(self, sums: Sums) -> RoundUpdate:
        """Return the geometric median after the passes."""
        first = update = sums.mean()
        for number in range(1, self.passes + 1):
            update = sums.mean(passes=number, center=update.mean)
        return replace(update, within=first.within)  # where sites count as they should

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return parameters + server_rate * geometric median of the changes."""
        return parameters + self.server_rate * update.of(UpdateKind.DELTA), state
