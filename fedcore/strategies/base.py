"""The interface of a strategy: its request to the sites, one update from sums, and a step with it.

A strategy is a frozen value; what it remembers from round to round is its state, a dict of arrays that
checkpoints keep. To write one, subclass `Strategy` and define `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import SettingError, TaskError
from fedcore.learner import Parameters, unflatten
from fedcore.rounds.instructions import Asks, UpdateKind
from fedcore.settings import settle, shown

Vector: TypeAlias = NDArray[np.float64]
State: TypeAlias = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class RoundUpdate:
    """The result of a round: a weighted mean over the sites that are in it.

    kind     what the mean is of; mean: (d,), or (groups, d) before groups are combined
    weight   sum of the weights; clients: how many sites
    steps    weighted mean of the local steps, if they were asked for
    control  mean change of the control variates, (d,), if they were asked for
    within   share of the sites whose update was within the norm, if it was asked for
    like     arrays with the names and shapes that vectors of parameters are made of, see `named`
    """

    kind: UpdateKind
    mean: Vector
    weight: int
    clients: int
    steps: float = float("nan")
    control: Vector | None = None
    within: float = float("nan")
    like: Parameters = field(default_factory=dict, repr=False)

    def named(self, vector: Vector) -> Parameters:
        """Return a vector of parameters, such as the mean or those of `step`, by name and in shape.

        `fedcore.flatten` undoes it. Raises TaskError: it has another length.
        """
        return unflatten(vector, self.like)

    def of(self, *kinds: UpdateKind) -> Vector:
        """Return the mean if it is of one of these kinds. Raises TaskError: kinds are not mixed."""
        if self.kind not in kinds:
            raise TaskError(f"update: must be {' or '.join(kinds)}, is {self.kind}")
        return self.mean


class Sums(Protocol):
    """The source of a strategy's sums in a round: each call is one secure sum."""

    @property
    def sites(self) -> Sequence[str]:
        """Names of the cohort."""

    def mean(
        self, among: Sequence[str] | None = None, *, passes: int = 0, center: Vector | None = None
    ) -> RoundUpdate:
        """Return the mean over the cohort or some of it. Raises RoundAbortedError, TaskError.

        passes, center  sum the vectors of this round once more, each weighted by its distance from the
                        center
        """

    def shuffled(self) -> Sequence[str]:
        """Return the cohort in an order of this round, from a public seed."""


Combine: TypeAlias = Callable[[Sums], RoundUpdate]


def mean_of_all(sums: Sums) -> RoundUpdate:
    """One sum over everybody."""
    return sums.mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """Base of the strategies: plain means of what the sites are asked for.

    kinds   of updates that `step` can use
    ask     what the sites do beside local training
    raises  SettingError
    """

    kinds: ClassVar[frozenset[UpdateKind]] = frozenset({UpdateKind.DELTA})
    ask: Asks = field(default_factory=Asks)

    def __post_init__(self) -> None:
        settle(self)
        if self.asks().update not in self.kinds:
            rule = f"{' or '.join(sorted(self.kinds))} with {type(self).__name__}"
            raise SettingError(f"update: must be {rule}, is {shown(self.asks().update)}")

    def asks(self) -> Asks:
        """Return what the sites are asked for."""
        return self.ask

    def start(self, dimension: int) -> State:
        """Return the state before the first round, for d parameters."""
        return {}

    def arrays(self, state: State) -> dict[str, Vector]:
        """Return what the sites need of the state; it travels in the task."""
        return {}

    def combine(self, sums: Sums) -> RoundUpdate:
        """Return the round's update."""
        return mean_of_all(sums)

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return the next parameters, (d,), and the next state."""
        raise NotImplementedError
