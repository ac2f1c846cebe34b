"""No row moves a person-clipped gradient by more than its sensitivity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.table import Table
from fedcore.errors import SettingError, TaskError
from fedcore.learner import GradientLearner, SteerableLearner, flatten
from fedcore.learners import LogisticRegression
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
    with pytest.raises(SettingError, match=r"must be positive and finite"):
        PersonClipped(model=MODEL, **({"clip": 1.0, "expected": 1.0} | changes))
