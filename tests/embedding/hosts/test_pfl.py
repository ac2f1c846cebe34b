"""pfl-research itself: run by `make test-hosts` in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pfl.aggregate.simulate import SimulatedBackend
from pfl.common_types import Population
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.internal.ops import numpy_ops, selector
from pfl.metrics import Metrics
from pfl.stats import MappedVectorStatistics

from fedcore import Mean
from fedcore.errors import SettingError
from fedcore.integrations.pfl import SecAggSum

pytestmark = pytest.mark.host
USERS, LENGTH = 30, 7
MEAN = Mean(clip=1.0, bits=20, weight_cap=50)


@pytest.fixture(autouse=True)
def numpy_is_the_framework() -> Iterator[None]:
    selector._internal_reset_framework_module()
    selector.set_framework_module(numpy_ops)
    yield
    selector._internal_reset_framework_module()


def update_of(user: int) -> np.ndarray[Any, Any]:
    return np.linspace(-0.4, 0.4, LENGTH, dtype=np.float32) + np.float32(user / 100)


class Algorithm:
    """Every user's update is known; its weight is its number of examples."""

    def __init__(self, weight: float | None = None) -> None:
        self.weight = weight

    def simulate_one_user(self, _model: Any, user: Dataset, _context: Any) -> Any:
        i = int(user.user_id)
        weight = float(i + 1) if self.weight is None else self.weight
        return MappedVectorStatistics({"w": update_of(i) * np.float32(weight)}, weight), Metrics()


def gathered(last: SecAggSum, algorithm: Algorithm | None = None) -> tuple[Any, Metrics]:
    """One round of pfl's backend over all users."""
    order = iter(range(10 * USERS))
    data = FederatedDataset(
        lambda user: Dataset([np.zeros((1, 1))], user_id=str(user)), lambda: next(order) % USERS
    )
    backend = SimulatedBackend(data, data, [last])
    context = SimpleNamespace(cohort_size=USERS, population=Population.TRAIN, seed=1)
    return backend.gather_results(None, algorithm or Algorithm(), central_context=context)  # type: ignore[no-any-return]


def told(metrics: Metrics) -> dict[str, float]:
    return {
        str(name): float(getattr(value, "overall_value", value))
        for name, value in metrics
        if "secagg" in str(name)
    }


def test_the_sum_is_that_of_the_users() -> None:
    stats, metrics = gathered(SecAggSum(MEAN, cohort=USERS))
    weights = np.arange(1, USERS + 1)
    wanted = sum(weight * update_of(i).astype(np.float64) for i, weight in enumerate(weights))
    assert stats.weight == weights.sum()
    np.testing.assert_allclose(stats["w"] / stats.weight, wanted / weights.sum(), atol=1e-4)
    found = told(metrics)
    assert found["secagg: uploads summed"] == USERS
    assert found["secagg: users lost"] == 0
    assert 0 < found["secagg: rounding over norm"] < 0.01


@pytest.mark.parametrize("masks", ["pairwise", "one-shot"])
def test_with_masks_it_is_the_same_to_the_last_bit(masks: Any) -> None:
    plain, _ = gathered(SecAggSum(MEAN, cohort=USERS, lost=0.2, seed=3))
    masked, metrics = gathered(SecAggSum(MEAN, cohort=USERS, lost=0.2, seed=3, masks=masks))
    assert plain["w"].tobytes() == masked["w"].tobytes()
    assert plain.weight == masked.weight
    assert 0 < told(metrics)["secagg: users lost"] < 0.5


def test_what_did_not_fit_is_told() -> None:
    stats, metrics = gathered(SecAggSum(Mean(clip=0.5, bits=20, weight_cap=10), cohort=USERS))
    found, largest = told(metrics), [float(np.abs(update_of(i)).max()) for i in range(USERS)]
    assert found["secagg: weights capped"] == USERS - 10
    assert found["secagg: updates clipped"] == sum(value > 0.5 for value in largest)
    assert stats.weight == sum(min(i + 1, 10) for i in range(USERS))


def test_a_round_with_too_few_uploads_moves_nothing() -> None:
    stats, metrics = gathered(SecAggSum(MEAN, cohort=USERS, fewest=USERS, lost=0.3))
    assert not stats["w"].any()
    assert told(metrics)["secagg: uploads summed"] == 0


def test_a_round_that_its_protocol_ends_moves_nothing() -> None:
    stats, metrics = gathered(SecAggSum(MEAN, cohort=USERS, fewest=2, lost=0.7, masks="pairwise", seed=1))
    assert not stats["w"].any()
    assert told(metrics)["secagg: uploads summed"] == 0
    assert told(metrics)["secagg: users lost"] <= 1 - 2 / USERS + 1e-6  # `fewest` would do


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="weight: must be a whole number of at least 1, is 0.5"):
        gathered(SecAggSum(MEAN, cohort=USERS), Algorithm(weight=0.5))
    with pytest.raises(SettingError, match="cohort: must be at least the users of a round, is 5"):
        gathered(SecAggSum(MEAN, cohort=5))
    with pytest.raises(SettingError, match="mean: must be without metrics"):
        SecAggSum(Mean(clip=1.0, metrics={"loss": (0, 1)}), cohort=5)
