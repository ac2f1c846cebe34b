"""No row moves a person-clipped gradient by more than its sensitivity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.table import Table
from fedcore.errors import SettingError, TaskError
from fedcore.learner import GradientLearner, SteerableLearner, flatten
from fedcore.learners import LogisticRegression
from fedcore.learners.models import (
    LinearRegression,
    Perceptron,
    PoissonRegression,
    RowGradients,
    SoftmaxRegression,
)
from fedcore.learners.per_person import PersonClipped

MODEL = LogisticRegression(3)


def rows_of(seed: int, count: int) -> Table:
    rng = np.random.default_rng(seed)
    return Table(rng.normal(0, 10.0, (count, 3)), rng.integers(0, 2, count))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(2, 12), st.floats(0.01, 5.0), st.floats(1.0, 500.0))
def test_leaving_a_row_out_changes_the_gradient_by_the_sensitivity_at_most(
    seed: int, count: int, clip: float, expected: float
) -> None:
    learner = PersonClipped(model=MODEL, clip=clip, expected=expected)
    table, parameters = rows_of(seed, count), MODEL.initial()
    whole = flatten(learner.gradient(parameters, table))
    for i in range(count):
        rest = flatten(learner.gradient(parameters, table.take(np.delete(np.arange(count), i))))
        assert np.linalg.norm(whole - rest) <= learner.sensitivity * (1 + 1e-9)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(1, 5), st.floats(0.01, 5.0))
def test_leaving_a_person_out_with_all_rows_changes_the_gradient_by_the_sensitivity_at_most(
    seed: int, count: int, people: int, clip: float
) -> None:
    learner = PersonClipped(model=MODEL, clip=clip, expected=10.0)
    table, parameters = rows_of(seed, count), MODEL.initial()
    table = replace(table, persons=np.random.default_rng(seed).integers(0, people, count))
    assert table.persons is not None
    whole = flatten(learner.gradient(parameters, table))
    for person in np.unique(table.persons):
        rest = flatten(learner.gradient(parameters, table.take(np.flatnonzero(table.persons != person))))
        assert np.linalg.norm(whole - rest) <= learner.sensitivity * (1 + 1e-9)


def test_rows_of_one_person_are_clipped_together() -> None:
    table, parameters = rows_of(1, 6), MODEL.initial()
    learner = PersonClipped(model=MODEL, clip=1.0, expected=1.0)
    one = learner.gradient(parameters, replace(table, persons=np.zeros(6, np.int64)))
    assert np.linalg.norm(flatten(one)) == pytest.approx(1.0)
    each = learner.gradient(parameters, table)
    assert np.linalg.norm(flatten(each)) > 1.0


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxRegression(3, 2, penalty=0.1),
        Perceptron(3, 2, hidden=(4, 3), penalty=0.1),
        LinearRegression(3, penalty=0.1),
        PoissonRegression(3, penalty=0.1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_gradients_of_single_rows_are_those_that_the_model_gives_row_by_row(model: RowGradients) -> None:
    rng = np.random.default_rng(3)
    table = Table(rng.normal(0, 0.3, (7, 3)), rng.integers(0, 2, 7))
    parameters = {name: rng.normal(0, 0.3, array.shape) for name, array in model.initial().items()}
    found = model.row_gradients(parameters, table)
    for i in range(7):
        one = model.gradient(parameters, table.take(np.array([i])))
        for name, array in one.items():
            assert found[name][i] == pytest.approx(array, abs=1e-12), name


def test_a_row_that_is_not_finite_counts_nothing() -> None:
    table = rows_of(2, 4)
    bad = replace(table, features=np.where(np.arange(4)[:, None] == 2, np.inf, table.features))
    learner = PersonClipped(model=MODEL, clip=1.0, expected=4)
    parameters = {name: array + 0.1 for name, array in MODEL.initial().items()}
    rest = learner.gradient(parameters, table.take(np.array([0, 1, 3])))
    assert flatten(learner.gradient(parameters, bad)) == pytest.approx(flatten(rest))


def test_with_a_wide_clip_it_is_the_mean_gradient() -> None:
    table, parameters = rows_of(1, 20), MODEL.initial()
    learner = PersonClipped(model=MODEL, clip=1e6, expected=20)
    assert flatten(learner.gradient(parameters, table)) == pytest.approx(
        flatten(MODEL.gradient(parameters, table))
    )


def test_it_gives_gradients_and_nothing_else() -> None:
    learner = PersonClipped(model=MODEL, clip=1.0, expected=20)
    assert isinstance(learner, GradientLearner)
    assert not isinstance(learner, SteerableLearner)
    with pytest.raises(TaskError, match="fit: rows are clipped in gradients only"):
        learner.fit(learner.initial(), rows_of(0, 3), 0)
    assert learner.scores(learner.initial(), rows_of(0, 3)).shape == (3, 2)


@pytest.mark.parametrize("changes", [{"clip": 0.0}, {"clip": float("nan")}, {"expected": -1.0}])
def test_bounds_that_are_none_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="must be (positive and finite|a number)"):
        PersonClipped(model=MODEL, **({"clip": 1.0, "expected": 1.0} | changes))
