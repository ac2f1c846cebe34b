"""LocalSGD: learns, obeys its steering, says how far it went, repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcore.errors import SettingError, TaskError
from fedcore.learner import Parameters, ScoringLearner, SteerableLearner, Steering
from fedcore.learners import LinearRegression, LocalSGD, Perceptron, SoftmaxRegression
from tests.fedcore.learners.numerics import assert_close, clouds, distance, jitter, line, sparse

MODEL = SoftmaxRegression(4, 3)
LEARNER = LocalSGD(model=MODEL, epochs=2, batch_size=16, momentum=0.5)


@pytest.mark.parametrize("model", [MODEL, Perceptron(4, 3, hidden=(10,))])
def test_it_learns_and_leaves_what_it_is_given(model: Any) -> None:
    learner = LocalSGD(model=model, epochs=20)
    start = learner.initial()
    kept = {name: array.copy() for name, array in start.items()}
    after = learner.fit(start, clouds(rows=300), 0)
    assert learner.evaluate(after, clouds(rows=300, seed=1))["accuracy"] > 0.75
    assert all(np.array_equal(start[name], kept[name]) for name in start)
    assert not any(np.shares_memory(after[name], start[name]) for name in start)


def test_it_finds_the_line() -> None:
    learner = LocalSGD(model=LinearRegression(4), epochs=60)
    after = learner.fit(learner.initial(), line(), 0)
    np.testing.assert_allclose(after["coefficients"], [1, 2, 3, 4], atol=0.1)
    assert learner.evaluate(after, line(seed=1))["r2"] > 0.99


def test_sparse_rows_train_like_dense_ones() -> None:
    rows = clouds()
    assert_close(
        LEARNER.fit(LEARNER.initial(), rows, 3), LEARNER.fit(LEARNER.initial(), sparse(rows), 3), 1e-12
    )


def test_one_step_is_the_gradient_times_the_rate() -> None:
    learner, rows = LocalSGD(model=MODEL, batch_size=None, rate=0.3), clouds()
    start = jitter(MODEL.initial())
    slope = learner.gradient(start, rows)
    assert_close(learner.fit(start, rows, 0), {n: start[n] - 0.3 * slope[n] for n in start}, 1e-12)


def test_steering_is_added_to_every_gradient() -> None:
    """Three full steps with everything at once, against the formula."""
    rows, start = clouds(), jitter(MODEL.initial())
    shift = jitter({name: np.zeros_like(array) for name, array in start.items()}, 5)
    learner = LocalSGD(model=MODEL, epochs=3, batch_size=None, rate=0.2, momentum=0.6)
    fit = learner.fit_steered(start, rows, 0, Steering(proximal=0.7, correction=shift, rate=0.5))
    now, speed = dict(start), {name: np.zeros_like(array) for name, array in start.items()}
    for _ in range(3):
        slope = MODEL.gradient(now, rows)
        for name, array in now.items():
            total = slope[name] + shift[name] + 0.7 * (array - start[name])
            speed[name] = 0.6 * speed[name] + total
        now = {name: now[name] - 0.1 * speed[name] for name in now}
    assert_close(fit.parameters, now, 1e-12)
    assert fit.rate == 0.1


def test_a_proximal_term_keeps_parameters_near_the_start() -> None:
    rows, start = clouds(), jitter(MODEL.initial())
    ways = [
        distance(start, LEARNER.fit_steered(start, rows, 0, Steering(proximal=mu)).parameters)
        for mu in (0.0, 0.5, 2.0)
    ]
    assert ways[0] > ways[1] > ways[2] > 0


def test_a_correction_that_undoes_the_gradient_holds_the_parameters() -> None:
    learner, rows, start = LocalSGD(model=MODEL, batch_size=None, epochs=3), clouds(), MODEL.initial()
    opposite = {name: -array for name, array in MODEL.gradient(start, rows).items()}
    assert distance(start, learner.fit(start, rows, 0)) > 0.1
    assert (
        distance(start, learner.fit_steered(start, rows, 0, Steering(correction=opposite)).parameters) < 1e-12
    )


@pytest.mark.parametrize("name", ["coefficients", "intercepts"])
def test_what_is_frozen_does_not_move_whatever_pulls_at_it(name: str) -> None:
    start = jitter(MODEL.initial())
    everything = {each: np.ones_like(array) for each, array in start.items()}
    steering = Steering(proximal=0.1, correction=everything, frozen=frozenset({name}))
    after = LEARNER.fit_steered(start, clouds(), 0, steering).parameters
    moved = {each for each in start if not np.array_equal(after[each], start[each])}
    assert moved == start.keys() - {name}


@pytest.mark.parametrize(("momentum", "proximal"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.5), (0.9, 0.5)])
def test_steps_say_how_far_a_constant_gradient_would_lead(momentum: float, proximal: float) -> None:
    class Slope:
        """A loss that falls at the same pace everywhere."""

        def initial(self) -> Parameters:
            return {"w": np.zeros(1)}

        def gradient(self, parameters: Parameters, rows: Any) -> Parameters:
            return {"w": np.ones(1)}

    model: Any = Slope()
    learner = LocalSGD(model=model, steps=7, batch_size=10, rate=0.01, momentum=momentum)
    fit = learner.fit_steered(model.initial(), clouds(), 0, Steering(proximal=proximal))
    assert -fit.parameters["w"][0] / 0.01 == pytest.approx(fit.steps)
    if proximal == 0:
        tau, rho = 7, momentum
        assert fit.steps == pytest.approx((tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho))


def test_fitting_repeats_with_its_seed_and_only_with_it() -> None:
    one, same, other = (LEARNER.fit(LEARNER.initial(), clouds(), seed) for seed in (1, 1, 2))
    assert distance(one, same) == 0
    assert distance(one, other) > 0


def test_it_is_what_strategies_and_evaluation_ask_for() -> None:
    assert isinstance(LEARNER, SteerableLearner)
    assert isinstance(LEARNER, ScoringLearner)
    assert LEARNER.scores(LEARNER.initial(), clouds()).shape == (60, 3)
    with pytest.raises(TaskError, match="LinearRegression is no classifier"):
        LocalSGD(model=LinearRegression(4)).scores(LinearRegression(4).initial(), line())


def test_no_rows_are_refused() -> None:
    nothing = clouds().take(np.arange(0))
    for attempt in (LEARNER.gradient, lambda start, rows: LEARNER.fit(start, rows, 0)):
        with pytest.raises(TaskError, match="rows: there are none"):
            attempt(LEARNER.initial(), nothing)


def test_training_that_diverges_is_refused_by_name_of_the_rate() -> None:
    learner = LocalSGD(model=LinearRegression(4), rate=1e3, epochs=100)
    with (
        np.errstate(all="ignore"),
        pytest.raises(TaskError, match="rate: parameters are not finite after 200 steps"),
    ):
        learner.fit(learner.initial(), line(), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0.0}, "rate: must be positive and finite, is 0.0"),
        ({"rate": float("inf")}, "rate: .* is inf"),
        ({"momentum": 1.0}, r"momentum: must be in \[0, 1\), is 1.0"),
        ({"epochs": 0}, "epochs: must be at least 1, is 0"),
        ({"steps": 0}, "steps: must be at least 1, is 0"),
        ({"batch_size": 0}, "batch_size: must be at least 1, is 0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        LocalSGD(model=MODEL, **change)
