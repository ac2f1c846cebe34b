"""A strategy of one's own: server momentum that looks ahead (Nesterov), in fewer than 40 lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcore.rounds.instructions import UpdateKind
from fedcore.strategies import RoundUpdate, State, Strategy, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class FedNesterov(Strategy):
    """v = beta v + mean change; add rate * (mean change + beta v).

    Reveals to the server: the weighted mean of the survivors' changes and the sum of their weights.
    """

    server_rate: float = 1.0
    momentum: float = 0.9

    def start(self, dimension: int) -> State:
        """No speed."""
        return {"speed": np.zeros(dimension)}

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return the next parameters and speed."""
        mean = update.of(UpdateKind.DELTA)
        speed = self.momentum * state["speed"] + mean
        return parameters + self.server_rate * (mean + self.momentum * speed), {"speed": speed}
