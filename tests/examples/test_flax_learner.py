"""A Flax module is a learner in fewer than 40 lines, and three sites train it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fedcore import Table, flatten, join_tables
from tests.examples.federation import federate, lines_of
from tests.fedcore.learners.numerics import clouds
from tests.lazy import Lazy

nn: Any = Lazy("flax.linen")
flax_learner: Any = Lazy("fedcore.examples.flax_learner")


@pytest.fixture(scope="module", autouse=True)
def needs_flax() -> None:
    if os.environ.get("CI") != "true":  # there, a missing extra is an error
        pytest.importorskip("jax")
        pytest.importorskip("flax")


@pytest.fixture(scope="module")
def learner() -> Any:
    module = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(3)])
    return flax_learner.FlaxLearner(module, features=4)


def sites() -> list[Table]:
    """Each site has few rows of one of the three classes."""
    tables = [clouds(3, 150, seed=seed) for seed in range(3)]
    return [
        table.take(np.flatnonzero((table.labels != i) | (np.arange(150) % 5 == 0)))
        for i, table in enumerate(tables)
    ]


def test_it_is_short() -> None:
    assert 10 < lines_of(flax_learner.FlaxLearner) < 40


def test_three_sites_train_it(learner: Any) -> None:
    start = learner.initial()
    assert len(start) == 4
    assert len(flatten(start)) == 4 * 16 + 16 + 16 * 3 + 3
    after = federate(learner, sites(), 8)
    fresh = clouds(3, 300, seed=9)
    assert learner.evaluate(start, fresh)["accuracy"] < 0.6
    found = learner.evaluate(after, fresh)
    assert found["accuracy"] > 0.8
    assert found["auc"] > 0.9
    alone = learner.fit(start, join_tables(sites()), 0)
    assert found["log_loss"] < learner.evaluate(alone, fresh)["log_loss"]


def test_it_repeats_and_leaves_its_start(learner: Any) -> None:
    start, rows = learner.initial(), sites()[0]
    kept = {name: array.copy() for name, array in start.items()}
    one, same = learner.fit(start, rows, 0), learner.fit(start, rows, 1)
    for name in start:
        assert np.array_equal(start[name], kept[name])
        assert np.array_equal(one[name], same[name])
        assert one[name].dtype == np.float64
    assert not np.array_equal(one["params/layers_0/kernel"], start["params/layers_0/kernel"])
