"""Logistic regression: learns, repeats with its seed, leaves what it is given as it is."""

from __future__ import annotations

import numpy as np
import pytest

from fedcore.data.table import Table
from fedcore.learner import Parameters
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner


def make(classes: int, **changes: float) -> LogisticRegressionLearner:
    return LogisticRegressionLearner(features=3, classes=classes, **changes)  # type: ignore[arg-type]


def clouds(classes: int, rows: int = 300, seed: int = 0) -> Table:
    """One cloud of points per class, at the corners of a simplex."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    return Table(3 * np.eye(3)[labels] + rng.normal(size=(rows, 3)), labels)


def trained(learner: LogisticRegressionLearner, table: Table, rounds: int = 5) -> Parameters:
    parameters = learner.initial()
    for number in range(rounds):
        parameters = learner.fit(parameters, table, number)
    return parameters


@pytest.mark.parametrize(("classes", "rows"), [(2, 1), (3, 3)])
def test_training_starts_from_zero_with_one_row_of_coefficients_per_decision(classes: int, rows: int) -> None:
    initial = make(classes).initial()
    assert {name: array.shape for name, array in initial.items()} == {
        "coefficients": (rows, 3),
        "intercepts": (rows,),
    }
    assert all((array == 0).all() for array in initial.values())


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns_and_keeps_the_shapes(classes: int) -> None:
    learner = make(classes)
    parameters = trained(learner, clouds(classes))
    initial = learner.initial()
    assert {name: a.shape for name, a in parameters.items()} == {name: a.shape for name, a in initial.items()}
    metrics = learner.evaluate(parameters, clouds(classes, seed=1))
    assert metrics["accuracy"] > 0.85
    assert metrics["auc"] > 0.95
    before = learner.evaluate(initial, clouds(classes, seed=1))
    assert before["accuracy"] < 0.6
    assert before["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("classes", [2, 3])
def test_fitting_repeats_with_its_seed_and_only_with_it(classes: int) -> None:
    learner, table = make(classes), clouds(classes)
    one, again, other = (learner.fit(learner.initial(), table, seed) for seed in (1, 1, 2))
    for name in one:
        assert np.array_equal(one[name], again[name])
        assert not np.array_equal(one[name], other[name])


@pytest.mark.parametrize("classes", [2, 3])
def test_fitting_goes_on_from_the_parameters_and_leaves_them_and_the_table_as_they_are(classes: int) -> None:
    learner, table = make(classes), clouds(classes)
    start = {name: array + 0.25 for name, array in learner.initial().items()}
    rows = table.features.copy()
    after = learner.fit(start, table, 1)
    assert all((array == 0.25).all() for array in start.values())
    assert np.array_equal(table.features, rows)
    assert not any(np.shares_memory(after[name], start[name]) for name in start)
    from_zero = learner.fit(learner.initial(), table, 1)
    assert not np.array_equal(after["coefficients"], from_zero["coefficients"])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("rows", [1, 40])
def test_a_site_that_knows_a_single_class_trains_towards_it(classes: int, rows: int) -> None:
    learner = make(classes)
    for label in range(classes):
        everything = clouds(classes)
        table = everything.take(np.flatnonzero(everything.labels == label)[:rows])
        parameters = trained(learner, table)
        assert all(np.isfinite(array).all() for array in parameters.values())
        scores = table.features @ parameters["coefficients"].T + parameters["intercepts"]
        guesses = (scores[:, 0] > 0).astype(int) if classes == 2 else scores.argmax(axis=1)
        assert (guesses == label).mean() >= 0.9


def test_the_labels_of_two_classes_are_not_swapped() -> None:
    learner = make(2)
    table = Table(np.array([[-1.0, 0, 0], [1.0, 0, 0]] * 20), np.array([0, 1] * 20))
    parameters = trained(learner, table)
    assert parameters["coefficients"][0, 0] > 0
    assert learner.evaluate(parameters, table) == {"accuracy": 1.0, "auc": 1.0}


def test_more_epochs_go_further() -> None:
    table = clouds(2)
    short, far = (
        float(np.abs(make(2, epochs=epochs).fit(make(2).initial(), table, 0)["coefficients"]).max())
        for epochs in (1, 5)
    )
    assert far > short > 0
