"""What learners share: batches cover the rows, and the reach of steps is FedNova's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import TaskError
from fedcore.learner import Steering
from fedcore.learners.steering import batches, check_steering, reach

COUNTS = st.integers(1, 40)


@given(COUNTS, st.one_of(st.none(), st.integers(1, 50)), st.integers(0, 99), st.integers(1, 4))
def test_every_epoch_covers_every_row_once(count: int, size: int | None, seed: int, epochs: int) -> None:
    plan = batches(count, size, seed, epochs=epochs)
    per_epoch = -(-count // min(size or count, count))
    assert len(plan) == epochs * per_epoch
    for first in range(0, len(plan), per_epoch):
        rows = np.concatenate(plan[first : first + per_epoch])
        assert sorted(rows) == list(range(count))
    assert max(len(batch) for batch in plan) <= (size or count)


@given(COUNTS, st.integers(1, 50), st.integers(1, 30))
def test_so_many_steps_are_taken_as_are_asked_for(count: int, size: int, steps: int) -> None:
    plan = batches(count, size, 0, epochs=1, steps=steps)
    assert len(plan) == steps
    assert all(len(batch) for batch in plan)


def test_epochs_have_orders_of_their_own_and_repeat_with_the_seed() -> None:
    one, same, other = (batches(40, 10, seed, epochs=2) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(np.concatenate(one[:4]), np.concatenate(one[4:]))


@given(st.integers(1, 200), st.floats(0, 0.99))
def test_with_momentum_the_reach_is_the_closed_form_of_fednova(tau: int, rho: float) -> None:
    closed = (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)
    assert reach(tau, momentum=rho) == pytest.approx(closed, rel=1e-9)


@given(st.integers(1, 200), st.floats(0.001, 0.999))
def test_with_a_proximal_term_the_reach_is_the_closed_form_of_fednova(tau: int, decay: float) -> None:
    assert reach(tau, decay=decay) == pytest.approx((1 - (1 - decay) ** tau) / decay, rel=1e-9)


@given(st.integers(1, 30), st.floats(0, 0.95), st.floats(0, 2.5))
def test_with_both_the_reach_is_the_sum_of_what_each_gradient_moves(
    tau: int, momentum: float, decay: float
) -> None:
    """Feed one gradient of 1 at step t, zeros otherwise, and look where the parameter ends."""
    total = 0.0
    for t in range(tau):
        w = speed = 0.0
        for step in range(tau):
            speed = momentum * speed + float(step == t) + decay * w
            w -= speed
        total += abs(w)
    assert reach(tau, momentum=momentum, decay=decay) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("tau", [1, 2, 17])
def test_plain_steps_reach_as_far_as_they_are_many(tau: int) -> None:
    assert reach(tau) == tau


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        (Steering(frozen=frozenset({"b"})), "steering.frozen: b is no parameter"),
        (Steering(correction={"b": np.zeros(2)}), "steering.correction: b is no parameter"),
        (Steering(correction={"a": np.zeros(1)}), r"a must be of shape \(2,\), is \(1,\)"),
        (Steering(proximal=-1.0), "steering.proximal: must be finite and at least 0, is -1.0"),
        (Steering(rate=0.0), "steering.rate: must be positive and finite, is 0.0"),
        (Steering(proximal=float("nan")), "steering.proximal: .* is nan"),
    ],
)
def test_steering_that_fits_no_parameter_is_refused(steering: Steering, message: str) -> None:
    check_steering({"a": np.zeros(2)}, Steering(proximal=1.0, correction={"a": np.ones(2)}))
    with pytest.raises(TaskError, match=message):
        check_steering({"a": np.zeros(2)}, steering)
