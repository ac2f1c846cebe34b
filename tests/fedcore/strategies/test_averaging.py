"""What becomes of a mean update; which updates a strategy takes, and of which learners."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedcore.errors import SettingError, TaskError
from fedcore.learner import Metrics, Parameters
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.strategies import (
    STRATEGIES,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedNova,
    FedProx,
    FedTrimmedMean,
    FedYogi,
    GeometricMedian,
    RoundUpdate,
    Scaffold,
    Strategy,
)
from tests.fedcore.strategies.toys import (
    KINDS,
    LEARNER,
    Runner,
    make_toy_sites,
    make_toys,
    run_over,
    toy_plan,
    with_steps,
)

ONE_OF_EACH: list[Strategy] = [
    *(FedAvg(), FedAvgM(), FedProx(), FedNova(), FedAdam(), FedYogi(), FedAdagrad(), Scaffold(sites=3)),
    *(FedMedian(groups=3), FedTrimmedMean(groups=3), GeometricMedian(smoothing=1.0)),
]


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.0])
def test_federated_averaging_adds_the_scaled_mean_update(rate: float) -> None:
    parameters, update = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    mean = RoundUpdate(UpdateKind.DELTA, update, weight=3, clients=2)
    following, _state = FedAvg(server_rate=rate).step(parameters, mean, {})
    assert following.tolist() == [1.0 + rate * 0.5, -2.0 + rate * 4.0]
    assert (parameters.tolist(), update.tolist()) == ([1.0, -2.0], [0.5, 4.0])


def test_the_rate_of_the_paper_is_the_default() -> None:
    assert FedAvg() == FedAvg(server_rate=1.0)


@pytest.mark.parametrize("strategy", ONE_OF_EACH, ids=lambda s: type(s).__name__)
def test_a_step_leaves_what_it_was_given_and_gives_finite_state_of_the_same_shapes(
    strategy: Strategy,
) -> None:
    parameters, state = np.array([1.0, -2.0, 0.0]), strategy.start(3)
    before = {name: array.copy() for name, array in state.items()}
    update = RoundUpdate(UpdateKind.DELTA, np.array([0.5, 0.0, -1.0]), 9, 3, steps=2.0, control=np.ones(3))
    after, following = strategy.step(parameters, update, state)
    assert after[0] > 1.0
    assert after[1] == -2.0
    assert after[2] < 0.0
    assert parameters.tolist() == [1.0, -2.0, 0.0]
    assert following.keys() == before.keys()
    for name, array in before.items():
        assert array.tolist() == state[name].tolist()
        assert following[name].shape == (3,)


@given(delta=st.floats(-10, 10), eta=st.floats(0.01, 1), tau=st.floats(1e-3, 1))
def test_the_first_adaptive_step_in_closed_form(delta: float, eta: float, tau: float) -> None:
    """v before is tau^2: sqrt of tau^2 + d^2, of the mixture, and of tau^2 towards d^2."""
    assume(abs(delta**2 - tau**2) > 1e-9 * tau**2)  # equal up to rounding: Yogi's sign is rounding's
    update = RoundUpdate(UpdateKind.DELTA, np.array([delta]), 1, 1)

    def first(kind: type[Any], **options: float) -> float:
        strategy = kind(server_rate=eta, tau=tau, **options)
        after, _ = strategy.step(np.zeros(1), update, strategy.start(1))
        return float(after[0])

    assert first(FedAdagrad) == pytest.approx(eta * delta / ((tau**2 + delta**2) ** 0.5 + tau))
    adam = (0.9 * tau**2 + 0.1 * delta**2) ** 0.5
    assert first(FedAdam, beta1=0.5, beta2=0.9) == pytest.approx(eta * 0.5 * delta / (adam + tau))
    sign = (tau**2 > delta**2) - (tau**2 < delta**2)
    yogi = (tau**2 - 0.1 * delta**2 * sign) ** 0.5
    assert first(FedYogi, beta1=0.5, beta2=0.9) == pytest.approx(eta * 0.5 * delta / (yogi + tau))


def test_normalized_averaging_has_no_bias_to_the_sites_that_step_more() -> None:
    """Two quadratic losses, one site takes 30 steps and the other one (Wang et al. 2020, section 3)."""
    toys = with_steps(dict(list(make_toys(2).items())), [30, 1])
    rows = sum(toy.rows for toy in toys.values())
    H = sum(toy.X.T @ toy.X for toy in toys.values()) / rows
    optimum = np.linalg.solve(H, sum(toy.X.T @ toy.y for toy in toys.values()) / rows)
    alone = np.linalg.lstsq(toys["s00"].X, toys["s00"].y, rcond=None)[0]

    def distance(strategy: Strategy) -> float:
        plan = toy_plan(rounds=800, decay=0.992)  # with smaller local rates only the bias of steps is left
        return float(np.linalg.norm(Runner(toys).run("float", strategy, plan).flat - optimum))

    averaging, normalized = distance(FedAvg()), distance(FedNova())
    assert np.linalg.norm(alone - optimum) > 0.3
    assert averaging > 0.2
    assert normalized < averaging / 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_proximal_weight_of_zero_is_federated_averaging(kind: str) -> None:
    one, two = (Runner(make_toys(5)).run(kind, s).flat for s in (FedProx(mu=0.0), FedAvg()))
    assert one.tobytes() == two.tobytes()
    assert not np.array_equal(Runner(make_toys(5)).run(kind, FedProx(mu=1.0)).flat, two)


@pytest.mark.parametrize("strategy", ONE_OF_EACH, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", UpdateKind)
def test_a_strategy_takes_its_kinds_of_updates_and_refuses_all_others(
    strategy: Strategy, kind: UpdateKind
) -> None:
    update = RoundUpdate(kind, np.ones(3), 1, 1, steps=1.0, control=np.ones(3))
    if kind in strategy.kinds:
        after, _ = strategy.step(np.zeros(3), update, strategy.start(3))
        assert np.isfinite(after).all()
        return
    with pytest.raises(TaskError, match=f"update: must be .*, is {kind}"):
        strategy.step(np.zeros(3), update, strategy.start(3))
    with pytest.raises(SettingError, match=r"update: must be .* with .*, is '|a gradient has no local steps"):
        replace(strategy, ask=replace(strategy.ask, update=kind))


def test_all_strategies_are_in_the_table() -> None:
    assert {type(strategy) for strategy in ONE_OF_EACH} == set(STRATEGIES.values())


@dataclass(frozen=True)
class Plain:
    """A learner that can only fit: what wraps foreign code."""

    inner: Any = field(default_factory=lambda: LEARNER)

    def initial(self) -> Parameters:
        return dict(self.inner.initial())

    def fit(self, parameters: Parameters, rows: Any, seed: int) -> Parameters:
        return dict(self.inner.fit(parameters, rows, seed))

    def evaluate(self, parameters: Parameters, rows: Any) -> Metrics:
        return {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (FedProx(mu=0.1), "Plain cannot be steered; proximal terms"),
        (FedNova(), "Plain cannot be steered; proximal terms"),
        (Scaffold(sites=5), "Plain cannot be steered; proximal terms"),
        (FedAvg(ask=Asks(shared=("coef*",))), "Plain cannot be steered"),
        (FedAvg(ask=Asks(rate=0.5)), "Plain cannot be steered"),
        (FedAvg(ask=Asks(update=UpdateKind.GRADIENT), server_rate=0.1), "Plain gives no gradients"),
    ],
    ids=["proximal", "normalized", "control", "frozen", "rate", "gradient"],
)
def test_a_learner_that_cannot_do_it_sits_out_with_a_sentence_and_the_round_goes_on(
    kind: str, strategy: Strategy, why: str
) -> None:
    toys = make_toys(5)
    sites = make_toy_sites(toys)
    sites["s03"] = replace(sites["s03"], learner=Plain())
    aggregator: Any = KINDS[kind](sites)
    ran = run_over(aggregator, sites, strategy, toy_plan(rounds=2))
    for record in ran.records:
        assert record.result is not None
        assert record.result.survivors == ("s00", "s01", "s02", "s04")
        assert list(record.result.failures) == ["s03"]
        assert why in record.result.failures["s03"]
    assert np.abs(ran.flat).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_learner_is_enough_for_plain_averaging(kind: str) -> None:
    sites = make_toy_sites(make_toys(5))
    sites["s03"] = replace(sites["s03"], learner=Plain())
    aggregator: Any = KINDS[kind](sites)
    ran = run_over(aggregator, sites, FedAvg(ask=Asks(weighting=Weighting.UNIFORM)), toy_plan(rounds=2))
    assert all(record.result is not None and not record.result.failures for record in ran.records)


def test_a_strategy_without_a_step_is_refused_before_the_first_round() -> None:
    class Idle(Strategy):
        pass

    with pytest.raises(SettingError, match="strategy: Idle has no step"):
        Federation(PlainSum({}), None, LocalSGD(model=SoftmaxRegression(2, 2)), toy_plan(), Idle())
