"""Strategies that add the mean update: FedAvg, FedAvgM, FedProx, FedNova."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedcore.rounds.instructions import Asks, UpdateKind
from fedcore.settings import at_least, settle
from fedcore.strategies.base import RoundUpdate, State, Strategy, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg(Strategy):
    """Federated averaging (McMahan et al., AISTATS 2017, algorithm 1): add the weighted mean change.

    server_rate  1 is the paper's; less moves more carefully. With gradients it is the learning rate of
                 FedSGD, with weights it mixes the mean in.
    Weighted by rows or uniformly: `ask.weighting`.
    Reveals to the server: the weighted mean of the survivors' updates and the sum of their weights.
    """

    kinds: ClassVar[frozenset[UpdateKind]] = frozenset(UpdateKind)
    server_rate: float = 1.0

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return parameters + server_rate * mean change."""
        change = update.of(*self.kinds)
        if update.kind is UpdateKind.WEIGHTS:
            change = change - parameters
        elif update.kind is UpdateKind.GRADIENT:
            change = -change
        return parameters + self.server_rate * change, state


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM(Strategy):
    """FedAvg with server momentum (Hsu, Qi, Brown, 2019, section 4.3): v = beta v + mean; add rate * v.

    Reveals to the server: what FedAvg does.
    """

    server_rate: float = 1.0
    momentum: float = 0.9

    def start(self, dimension: int) -> State:
        """No speed."""
        return {"speed": np.zeros(dimension)}

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return the next parameters and speed."""
        speed = self.momentum * state["speed"] + update.of(UpdateKind.DELTA)
        return parameters + self.server_rate * speed, {"speed": speed}


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(FedAvg):
    """FedAvg whose sites are pulled to where they started (Li et al., MLSys 2020, algorithm 2).

    mu  weight of the proximal term mu/2 |w - w_t|^2 in every local step; needs a steerable learner
    Reveals to the server: what FedAvg does.
    """

    kinds: ClassVar[frozenset[UpdateKind]] = frozenset({UpdateKind.DELTA, UpdateKind.WEIGHTS})
    mu: float = 0.01

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 0, "mu")
        FedAvg.__post_init__(self)

    def asks(self) -> Asks:
        """Add the proximal term."""
        return replace(self.ask, proximal=self.mu)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedNova(Strategy):
    """Normalized averaging (Wang et al., NeurIPS 2020, equation 9): sites that step more do not pull more.

    Each site sends its change divided by its steps, |a_i|_1; the mean is taken as often as sites step on
    average. Needs a steerable learner.
    Reveals to the server: the weighted mean of the normalized changes, the weighted mean number of steps,
    and the sum of the weights.
    """

    server_rate: float = 1.0

    def asks(self) -> Asks:
        """Ask for normalized updates."""
        return replace(self.ask, normalized=True)

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return parameters + server_rate * mean steps * mean normalized change."""
        return parameters + self.server_rate * update.steps * update.of(UpdateKind.DELTA), state
