"""A learner of one's own takes fewer than 40 lines, and trains like the built-in ones."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore import Learner, Table, join_tables
from fedcore.examples.own_learner import PoissonRegression
from tests.examples.federation import federate, lines_of

TRUTH = np.array([0.5, -0.8, 0.2])


def site(seed: int, rows: int = 150) -> Table:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 3))
    return Table(features, rng.poisson(np.exp(features @ TRUTH + 0.3)))


def test_it_is_short() -> None:
    assert 10 < lines_of(PoissonRegression) < 40


def test_three_sites_find_what_one_site_with_all_rows_finds() -> None:
    learner: Learner[Table] = PoissonRegression(features=3)
    sites = [site(seed) for seed in range(3)]
    after = federate(learner, sites, 15)
    everything = join_tables(sites)
    from sklearn.linear_model import PoissonRegressor

    central = PoissonRegressor(alpha=0, tol=1e-8).fit(everything.features, everything.labels)
    np.testing.assert_allclose(after["coefficients"], central.coef_, atol=0.05)
    assert after["intercept"][0] == pytest.approx(central.intercept_, abs=0.05)
    np.testing.assert_allclose(after["coefficients"], TRUTH, atol=0.15)
    fresh = site(9)
    assert learner.evaluate(after, fresh)["loss"] < learner.evaluate(learner.initial(), fresh)["loss"] - 0.1


def test_a_step_follows_the_gradient_of_the_loss_and_leaves_its_start() -> None:
    learner, rows = PoissonRegression(features=3, steps=1, rate=1e-4), site(0)
    start = {"coefficients": np.array([0.1, 0.2, -0.3]), "intercept": np.array([0.2])}
    after = learner.fit(start, rows, 0)
    assert start["coefficients"].tolist() == [0.1, 0.2, -0.3]
    squares = sum(float(((after[name] - start[name]) ** 2).sum()) for name in start) / 1e-4
    fall = learner.evaluate(start, rows)["loss"] - learner.evaluate(after, rows)["loss"]
    assert fall == pytest.approx(squares, rel=1e-3)
