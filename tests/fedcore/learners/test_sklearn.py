"""Estimators of scikit-learn: they go on from given parameters, and do not claim to be steered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcore.errors import SettingError, TaskError
from fedcore.learner import Parameters, ScoringLearner, SteerableLearner
from fedcore.learners import LocalSGD, Perceptron
from fedcore.learners.sklearn import LogisticRegressionLearner, SklearnPerceptron, SklearnRegression
from tests.fedcore.learners.numerics import assert_close, clouds, distance, jitter, line, sparse

REGRESSION = SklearnRegression(features=4, epochs=20)
CASES: list[tuple[Any, Any]] = [
    (REGRESSION, line()),
    (SklearnRegression(features=4, loss="huber", penalty=0.01), line()),
    (SklearnPerceptron(features=4, classes=2, hidden=(5,)), clouds(2)),
    (SklearnPerceptron(features=4, classes=3, hidden=(6, 5), momentum=0.5), clouds(3)),
    (SklearnPerceptron(features=4, classes=3, hidden=()), clouds(3)),
]
each_learner = pytest.mark.parametrize(("learner", "rows"), CASES, ids=lambda case: repr(case)[:45])


def test_none_can_be_steered_and_classifiers_have_scores() -> None:
    perceptron = SklearnPerceptron(features=4, classes=3)
    logistic = LogisticRegressionLearner(features=4, classes=3)
    for learner in (REGRESSION, perceptron, logistic):
        assert not isinstance(learner, SteerableLearner)
    assert isinstance(perceptron, ScoringLearner)
    assert not isinstance(REGRESSION, ScoringLearner)


@each_learner
def test_fitting_repeats_with_its_seed_and_goes_on_from_what_it_is_given(learner: Any, rows: Any) -> None:
    start = jitter(learner.initial(), scale=0.1)
    kept = {name: array.copy() for name, array in start.items()}
    one, same, other = (learner.fit(start, rows, seed) for seed in (1, 1, 2))
    assert distance(one, same) == 0
    assert distance(one, other) > 0
    assert distance(learner.fit(learner.initial(), rows, 1), one) > 0
    assert {name: array.shape for name, array in one.items()} == {n: a.shape for n, a in start.items()}
    assert all(np.array_equal(start[name], kept[name]) for name in start)
    assert not any(np.shares_memory(one[name], start[name]) for name in start)


@pytest.mark.parametrize(("learner", "rows"), CASES[2:], ids=lambda case: repr(case)[:45])
def test_sparse_rows_train_the_perceptron_like_dense_ones(learner: Any, rows: Any) -> None:
    start = learner.initial()
    assert_close(learner.fit(start, sparse(rows), 1), learner.fit(start, rows, 1), 1e-9)
    assert learner.evaluate(start, rows) == pytest.approx(learner.evaluate(start, sparse(rows)))


def test_sparse_rows_train_the_regression_to_the_same_slope() -> None:
    after = REGRESSION.fit(REGRESSION.initial(), sparse(line(300)), 0)
    np.testing.assert_allclose(after["coefficients"], [1, 2, 3, 4], atol=0.2)
    assert REGRESSION.evaluate(after, sparse(line(300)))["r2"] > 0.95


def test_the_line_is_found_and_huber_is_not_drawn_away_from_it() -> None:
    rows = line(300)
    after = REGRESSION.fit(REGRESSION.initial(), rows, 0)
    np.testing.assert_allclose(after["coefficients"], [1, 2, 3, 4], atol=0.05)
    assert REGRESSION.evaluate(after, line(seed=1))["r2"] > 0.99
    rows.labels[::10] += 500
    huber = SklearnRegression(features=4, loss="huber", epochs=50, epsilon=0.5)
    errors = [
        float(np.abs(one.fit(one.initial(), rows, 0)["coefficients"] - [1, 2, 3, 4]).max())
        for one in (huber, REGRESSION)
    ]
    assert errors[0] < 0.3 < errors[1]


def test_a_full_step_of_the_regression_is_that_of_its_first_row() -> None:
    learner, row = SklearnRegression(features=4, epochs=1, rate=0.1), line(1)
    after = learner.fit(learner.initial(), row, 0)
    np.testing.assert_allclose(after["coefficients"], 0.1 * row.labels[0] * row.features[0])
    np.testing.assert_allclose(after["intercept"], 0.1 * row.labels)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_perceptron_steps_like_that_of_numpy_from_any_parameters(momentum: float) -> None:
    """Full batches leave nothing to chance: nothing of the step that starts the estimator is left."""
    settings: dict[str, Any] = {"epochs": 4, "rate": 0.2, "momentum": momentum}
    theirs = SklearnPerceptron(features=4, classes=3, hidden=(6, 5), batch_size=60, **settings)
    ours = LocalSGD(model=Perceptron(4, 3, hidden=(6, 5)), batch_size=None, **settings)
    start = jitter(theirs.initial())
    assert_close(theirs.fit(start, clouds(), 0), ours.fit(start, clouds(), 0), 1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_perceptron_learns_and_scores_like_the_estimator(classes: int) -> None:
    learner, rows = SklearnPerceptron(features=4, classes=classes, epochs=20), clouds(classes, 200)
    after = learner.fit(learner.initial(), rows, 0)
    assert learner.evaluate(after, clouds(classes, 200, seed=1))["accuracy"] > 0.75
    model = learner._started(after, rows)
    np.testing.assert_allclose(learner.scores(after, rows), model.predict_proba(rows.features), atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("rows", [1, 20])
def test_a_site_that_knows_a_single_class_trains_towards_it(classes: int, rows: int) -> None:
    learner, everything = SklearnPerceptron(features=4, classes=classes, epochs=30), clouds(classes, 90)
    for label in range(classes):
        table = everything.take(np.flatnonzero(everything.labels == label)[:rows])
        after = learner.fit(learner.initial(), table, 0)
        assert learner.evaluate(after, table)["accuracy"] == 1.0
        assert learner.scores(after, table).shape == (rows, classes)


def test_initial_weights_are_those_of_the_seed() -> None:
    def start(seed: int) -> Parameters:
        return SklearnPerceptron(features=4, classes=3, seed=seed).initial()

    assert distance(start(1), start(1)) == 0
    assert distance(start(1), start(2)) > 0


@each_learner
def test_no_rows_are_refused(learner: Any, rows: Any) -> None:
    with pytest.raises(TaskError, match="rows: there are none"):
        learner.fit(learner.initial(), rows.take(np.arange(0)), 0)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (SklearnRegression, {"rate": 0.0}, "rate: must be positive and finite, is 0.0"),
        (SklearnRegression, {"penalty": -1.0}, "penalty: must be finite and at least 0, is -1.0"),
        (SklearnRegression, {"loss": "hinge"}, "loss: must be squared_error or huber, is 'hinge'"),
        (SklearnRegression, {"epochs": 0}, "epochs: must be at least 1, is 0"),
        (SklearnPerceptron, {"classes": 1}, "classes: must be at least 2, is 1"),
        (SklearnPerceptron, {"momentum": 1.0}, r"momentum: must be in \[0, 1\), is 1.0"),
        (SklearnPerceptron, {"hidden": (3, 0)}, r"hidden: must be at least 1 unit each, is \(3, 0\)"),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, change: dict[str, Any], message: str) -> None:
    settings = {"features": 4} | ({"classes": 3} if kind is SklearnPerceptron else {})
    with pytest.raises(SettingError, match=message):
        kind(**(settings | change))
