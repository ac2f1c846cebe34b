"""SCAFFOLD: control variates against client drift, in the same masked vector as the update."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedcore.errors import TaskError
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.settings import at_least, positive, settle
from fedcore.strategies.base import RoundUpdate, State, Strategy, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold(Strategy):
    """Stochastic controlled averaging (Karimireddy et al., ICML 2020, algorithm 1, option II).

    sites          enrolled in all, N of the paper
    server_rate    eta_g
    control_scale  the changes of control variates travel times this; near (local steps * learning rate)
                   they are as large as the update, so that one clip fits both
    Sites count uniformly, as in the paper. A site keeps c_i; a change of it counts only when its vector
    was in the sum, which its own session proves. C is the mean of all c_i as long as
    nothing is clipped: a norm or clip that binds, and noise, reach C but no c_i. Needs a steerable learner.
    Reveals to the server: the mean change and the mean change of the control variates of the survivors.
    """

    sites: int
    server_rate: float = 1.0
    control_scale: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 1, "sites")
        positive(self, "control_scale")
        Strategy.__post_init__(self)

    def asks(self) -> Asks:
        """Ask for control variates."""
        return replace(self.ask, control=self.control_scale, weighting=Weighting.UNIFORM)

    def start(self, dimension: int) -> State:
        """C = 0."""
        return {"control": np.zeros(dimension)}

    def arrays(self, state: State) -> dict[str, Vector]:
        """Return c."""
        return {"control": np.asarray(state["control"])}

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """X += eta_g mean(delta y); c += |S| / N mean(delta c)."""
        if update.control is None:
            raise TaskError("update: has no control variates")
        control = state["control"] + update.clients / self.sites * update.control
        return parameters + self.server_rate * update.of(UpdateKind.DELTA), {"control": control}
