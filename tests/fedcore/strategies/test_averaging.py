"""What becomes of a mean update."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore.asks import UpdateKind
from fedcore.strategies import FedAvg, RoundUpdate


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.0])
def test_federated_averaging_adds_the_scaled_mean_update(rate: float) -> None:
    parameters, update = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    mean = RoundUpdate(UpdateKind.DELTA, update, weight=3, clients=2)
    following, _state = FedAvg(server_rate=rate).step(parameters, mean, {})
    assert following.tolist() == [1.0 + rate * 0.5, -2.0 + rate * 4.0]
    assert (parameters.tolist(), update.tolist()) == ([1.0, -2.0], [0.5, 4.0])


def test_the_rate_of_the_paper_is_the_default() -> None:
    assert FedAvg() == FedAvg(server_rate=1.0)
