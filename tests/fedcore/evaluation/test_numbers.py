"""Labels that are numbers, from training to metrics: sums say what the pooled rows do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table, join_tables
from fedcore.errors import SettingError, TaskError
from fedcore.evaluation.federated import SITE_BINS
from fedcore.learner import Abilities, Learner
from fedcore.learners.kinds import read_learner
from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.models import LinearRegression, PoissonRegression, SoftmaxRegression
from fedcore.rounds.aggregation import PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.site import Site
from fedcore.statistics.standardizer import Standardizer

SCHEMA = Schema((Column("x", -3, 3), Column("z", -3, 3)), (), Column("days", 0, 60))
LINEAR = LocalSGD(model=LinearRegression(2), rate=0.1, epochs=3)
COUNTS = LocalSGD(model=PoissonRegression(2), rate=0.02, epochs=3)


def make_sites(learner: Learner[Table], sizes: tuple[int, ...] = (40, 60, 80, 100)) -> dict[str, Site]:
    rng = np.random.default_rng(5)
    sites = {}
    for i, rows in enumerate(sizes):
        features = rng.uniform(-3, 3, (rows, 2))
        mean = np.exp(1.5 + 0.4 * features[:, 0] - 0.3 * features[:, 1])
        table = Table(features, np.minimum(rng.poisson(mean), 60).astype(float))
        sites[f"s{i}"] = Site(f"s{i}", table, SCHEMA, learner, seed=2)
    return sites


def federation(learner: Learner[Table], kind: type[PlainSum | SecureSum], **more: int) -> Federation:
    sites = make_sites(learner)
    plan = TrainingPlan(clients=4, weight_cap=100, clip=30.0, bits=16, **({"rounds": 8} | more))  # type: ignore[arg-type]
    return Federation(kind(sites), SCHEMA, learner, plan)


@pytest.mark.parametrize(("learner", "least"), [(LINEAR, 0.4), (COUNTS, 0.55)], ids=["linear", "poisson"])
@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_numbers_are_learned_and_evaluated_as_on_pooled_rows(
    learner: Learner[Table], least: float, kind: type[PlainSum | SecureSum]
) -> None:
    one = federation(learner, kind)
    model = one.run()
    found = one.evaluate(model.parameters, model.standardizer)
    pooled = join_tables([site.table for site in make_sites(learner).values()])  # type: ignore[misc]
    predicting = Abilities.of(learner).predicting
    assert predicting is not None
    guesses = predicting.predict(model.parameters, model.standardizer.apply(pooled))
    assert found.rows == len(pooled)
    assert found.metrics == pytest.approx(
        {
            "mse": metrics.mean_squared_error(pooled.labels, guesses),
            "mae": metrics.mean_absolute_error(pooled.labels, guesses),
            "r2": metrics.r2_score(pooled.labels, guesses),
            "beyond": 0.0,
        },
        rel=1e-3,
        abs=1e-6,
    )
    assert found.metrics["r2"] > least
    spread = one.evaluate_sites(model.parameters, model.standardizer)
    assert spread.counts.sum() == 4
    assert spread.worst > 0.2


def test_sums_of_the_protocol_train_what_plain_sums_do() -> None:
    plain, secure = (federation(COUNTS, kind).run() for kind in (PlainSum, SecureSum))
    for name, array in plain.parameters.items():
        assert np.array_equal(array, secure.parameters[name])


class Wild:
    """Says what is far, or no number at all."""

    def initial(self) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return {"w": np.zeros(1)}

    def fit(self, parameters, rows, seed):  # type: ignore[no-untyped-def]  # noqa: ANN001
        return parameters

    def evaluate(self, parameters, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
        return {}

    def predict(self, parameters, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
        return np.where(np.arange(len(rows)) % 2 == 0, np.nan, 1e9)


def test_predictions_that_are_far_or_no_numbers_count_as_the_range_and_are_told() -> None:
    one = federation(Wild(), PlainSum)
    found = one.evaluate({"w": np.zeros(1)}, Standardizer.none())
    assert found.metrics["beyond"] == pytest.approx(1.0)
    assert found.metrics["mse"] == pytest.approx(60.0**2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.floats(0.01, 3))
def test_gradients_of_counts_are_those_of_the_loss(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    model = PoissonRegression(2, penalty=0.1)
    rows = Table(rng.normal(0, 1, (9, 2)), rng.poisson(2, 9).astype(float))
    at = {"coefficients": rng.normal(0, scale / 3, 2), "intercept": rng.normal(0, 0.1, 1)}
    gradient = model.gradient(at, rows)
    for name, array in at.items():
        for i in range(array.size):
            step = 1e-6 * (np.arange(array.size) == i)
            up, down = ({**at, name: array + sign * step} for sign in (1, -1))
            slope = (model.loss(up, rows) - model.loss(down, rows)) / 2e-6
            assert gradient[name][i] == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_a_classifier_learns_no_numbers_and_a_regression_has_no_scores() -> None:
    with pytest.raises(SettingError, match="learner.kind: must be one of linear, poisson for a label"):
        read_learner({"kind": "softmax"}, features=2, classes=0)
    rows = Table(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(TaskError, match="predict: SoftmaxRegression is no regression"):
        LocalSGD(model=SoftmaxRegression(2, 2)).predict(SoftmaxRegression(2, 2).initial(), rows)
    with pytest.raises(TaskError, match="scores: LinearRegression is no classifier"):
        LINEAR.scores(LINEAR.initial(), rows)


def test_the_site_spread_of_numbers_is_of_r_squared() -> None:
    one = federation(LINEAR, PlainSum, rounds=0)
    mean = {"coefficients": np.zeros(2), "intercept": np.array([6.0])}
    spread = one.evaluate_sites(mean, Standardizer.none())
    assert spread.counts[0] == 4  # no better than a constant
    assert len(spread.counts) == SITE_BINS


def test_what_sums_cannot_tell_within_wide_bounds_is_no_number() -> None:
    """A metric is near the true one, or none at all, however wide the bounds of the label are."""
    sites = make_sites(LINEAR)
    pooled = join_tables([site.table for site in sites.values()])  # type: ignore[misc]
    true = LINEAR.evaluate(LINEAR.initial(), pooled)
    told = []
    for width in np.geomspace(60, 1e6, 40):
        wide = Schema((Column("x", -3, 3), Column("z", -3, 3)), (), Column("days", 0, float(width)))
        inside = {name: replace(site, schema=wide) for name, site in sites.items()}
        plan = TrainingPlan(rounds=0, clients=4, weight_cap=10_000, bits=16)
        found = Federation(PlainSum(inside), wide, LINEAR, plan).evaluate(
            LINEAR.initial(), Standardizer.none()
        )
        for name in ("mse", "mae"):
            told.append(not np.isnan(found.metrics[name]))
            assert not told[-1] or found.metrics[name] == pytest.approx(true[name], rel=0.06)
    assert any(told)
    assert not all(told)


def test_persons_may_be_clipped_where_labels_are_numbers() -> None:
    learner = read_learner({"kind": "linear", "person_clip": 5.0, "expected": 70.0}, features=2, classes=0)
    rows = Table(np.ones((3, 2)), np.zeros(3))
    predicting = Abilities.of(learner).predicting
    assert predicting is not None
    assert predicting.predict(learner.initial(), rows).tolist() == [0, 0, 0]
