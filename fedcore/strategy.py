"""What the server does with the mean update of a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Strategy(Protocol):
    """Turns the parameters of a round and the mean update into the next parameters."""

    def step(self, parameters: NDArray[np.float64], update: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the next parameters, (d,), from those of the round and the mean change, both (d,)."""


@dataclass(frozen=True, slots=True)
class FedAvg:
    """Federated averaging (McMahan et al., AISTATS 2017, algorithm 1): add the weighted mean change.

    server_rate  1 is the paper's; less moves more carefully
    Reveals to the server: the weighted mean of the survivors' changes and the sum of their weights.
    """

    server_rate: float = 1.0

    def step(self, parameters: NDArray[np.float64], update: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return parameters + server_rate * update."""
        return parameters + self.server_rate * update
