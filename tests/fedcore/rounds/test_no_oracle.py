"""Whatever the rows are, a task that was accepted is answered: nobody hears that a computation failed.

The vector has its usual length, the weight is the usual one, and what the site keeps stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.codec.clipping import AdaptiveClip
from fedcore.data.table import Table
from fedcore.errors import TaskError
from fedcore.learner import LocalFit, Parameters, Steering, flatten
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import FloatSum, PlainSum, SecureSum
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind, Train
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from fedcore.strategies import FedAvg, FedNova, GeometricMedian, Scaffold, Strategy
from tests.fedcore.rows import table_of
from tests.fedcore.sites import (
    LEARNER,
    SCHEMA,
    FailingLearner,
    FixedLearner,
    answering,
    make_plan,
    make_question,
    make_sites,
    make_table,
    make_task,
    make_terms,
    site_with,
)

TRAIN = make_task(TaskKind.TRAIN)
EMPTY = Table(np.zeros((0, 3)), np.zeros(0, np.int64))


def decoded(site: Site, task: Task, clients: int = 1) -> tuple[list[float], int]:
    """Mean and weight of a sum over this site alone."""
    vector = site.contribute(task)
    assert vector.shape == (task.encoding.length,)
    found = task.encoding.codec.decode(vector, clients)
    return [float(value) for value in found.mean], found.weight


ODD: dict[str, tuple[Any, str]] = {
    "raises": (FailingLearner({}), "odd: the learner failed with ValueError"),
    "NaN": (answering([[0.0, np.nan, 0.0]], [0.0]), r"update\[1\]: must be finite"),
    "infinite": (answering([[0.0, 0.0, 0.0]], [-np.inf]), r"update\[3\]: must be finite"),
    "one value": (answering([0.5], []), "parameters of other shapes"),
    "too short": (answering([[0.5, 0.5]], [0.5]), "parameters of other shapes"),
    "too long": (answering([[0.5] * 5], [0.5]), "parameters of other shapes"),
    "an array is missing": (FixedLearner({"coefficients": np.ones((1, 3))}), "parameters of other shapes"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_failing_learner_sends_zeros_under_its_usual_weight(name: str) -> None:
    learner, why = ODD[name]
    site = site_with(learner)
    assert decoded(site, TRAIN) == ([0.0] * 4, 20)
    with pytest.raises(TaskError, match=why.removeprefix("odd: ")):
        raise TaskError(site.trouble)
    site.learner = LEARNER
    values, weight = decoded(site, TRAIN)
    assert (any(values), weight, site.trouble) == (True, 20, "")


def test_an_overflow_of_one_row_is_answered_like_any_other() -> None:
    """Deviations from a mean that no column has: the square is no number."""
    for kind in (TaskKind.DEVIATION, TaskKind.COVARIANCE):
        rows = make_table(20, 0)
        site, plain = site_with(LEARNER, rows), site_with(LEARNER)
        rows.features[3, 0] = 1e308  # past the check of what a site is made of
        task = make_task(kind, mean=np.full(3, -1e308))
        assert decoded(site, task) == ([0.0] * task.encoding.dimension, 20)
        assert site.trouble == "update: must be finite"
        assert len(plain.contribute(task)) == len(site.contribute(task))


def test_rows_beyond_the_cap_are_capped_and_their_number_does_not_show() -> None:
    for kind in TaskKind:
        task = make_task(kind)
        if kind in {TaskKind.EVALUATE, TaskKind.SITES, TaskKind.MOMENTS}:
            continue  # this learner gives no scores; sites count alike under noise
        sites = [site_with(LEARNER, make_table(rows, 0)) for rows in (100, 101, 5000)]
        found = [decoded(site, task) for site in sites]
        assert [weight for _, weight in found] == [100] * 3
        assert [site.trouble for site in sites] == [""] * 3


def test_a_site_without_rows_sends_zeros_of_no_weight() -> None:
    for kind in (TaskKind.MEAN, TaskKind.DEVIATION, TaskKind.COUNT, TaskKind.TRAIN):
        site, task = site_with(LEARNER), make_task(kind)
        site.table = EMPTY
        vector = site.contribute(task)
        assert not vector.any()
        assert vector.shape == (task.encoding.length,)
        assert site.trouble == "has no rows"
        others = PlainSum(make_sites(4)).sum(task)
        joined = PlainSum(make_sites(4) | {"odd": site}).sum(task)
        assert joined.total.tolist() == others.total.tolist()
        assert joined.mean.weight == others.mean.weight
        assert joined.mean.mean.tolist() == others.mean.mean.tolist()
        assert set(joined.survivors) == {*others.survivors, "odd"}
        assert joined.failures == {"odd": "has no rows"}


@pytest.mark.parametrize("kind", [PlainSum, FloatSum, SecureSum])
def test_under_a_cap_of_one_no_weight_travels_and_a_site_without_rows_counts_like_all(kind: Any) -> None:
    terms = make_terms(asks=Asks(weighting=Weighting.UNIFORM))
    task = terms.task(make_question(TaskKind.TRAIN))
    assert task.encoding.codec.weight_cap == 1
    assert task.encoding.length == task.encoding.dimension == 4
    site = site_with(LEARNER)
    site.table = EMPTY
    found = kind(make_sites(4) | {"odd": site}).sum(task)
    assert found.mean.weight == len(found.survivors) == 5
    alone = kind(make_sites(4)).sum(task)
    bound = task.encoding.codec.error_bound(5, 5)
    assert np.abs(found.mean.mean * 5 - alone.mean.mean * 4).max() <= 10 * bound


def test_whatever_the_computation_raises_it_is_answered_and_nothing_of_it_is_said() -> None:
    class Odd(Site):
        error: Exception

        def _statistic(self, task: Task) -> Any:
            def compute() -> Any:
                raise self.error

            return compute

    site = Odd("odd", make_table(20, 0), SCHEMA, LEARNER, 0)
    for error in (KeyError("4711"), MemoryError("4711"), ZeroDivisionError("4711"), RuntimeError("4711")):
        site.error = error
        assert decoded(site, make_task(TaskKind.MEAN)) == ([0.0] * 3, 20)
        assert site.trouble == f"failed with {type(error).__name__}"


# --- what the strategies make of it ---

STEERED = LocalSGD(model=SoftmaxRegression(3, 2), batch_size=8, rate=0.2)


@dataclass(frozen=True)
class Failing:
    """Fails from the call `after` on, and trains before."""

    after: int
    calls: list[int]

    def initial(self) -> Parameters:
        return STEERED.initial()

    def _count(self) -> None:
        self.calls.append(1)
        if len(self.calls) > self.after:
            raise ZeroDivisionError

    def fit(self, parameters: Parameters, rows: Table, seed: int) -> Parameters:
        self._count()
        return STEERED.fit(parameters, rows, seed)

    def fit_steered(self, parameters: Parameters, rows: Table, seed: int, steering: Steering) -> LocalFit:
        self._count()
        return STEERED.fit_steered(parameters, rows, seed, steering)

    def gradient(self, parameters: Parameters, rows: Table) -> Parameters:
        self._count()
        return STEERED.gradient(parameters, rows)

    def evaluate(self, parameters: Parameters, rows: Table) -> dict[str, float]:
        return {}


PRIVACY = PrivacyPlan(epsilon=50.0, delta=1e-3, rounds=4, smallest=4)
CASES: dict[str, tuple[Strategy, dict[str, Any]]] = {
    "FedAvg": (FedAvg(), {}),
    "weights": (FedAvg(ask=Asks(update=UpdateKind.WEIGHTS)), {}),
    "weights, rotated": (FedAvg(ask=Asks(update=UpdateKind.WEIGHTS)), {"rotate": True}),
    "gradients": (FedAvg(ask=Asks(update=UpdateKind.GRADIENT), server_rate=0.1), {}),
    "uniform": (FedAvg(ask=Asks(weighting=Weighting.UNIFORM)), {}),
    "FedNova": (FedNova(), {}),
    "Scaffold": (Scaffold(sites=6), {"keep": 0.5}),
    "median": (GeometricMedian(smoothing=0.05, passes=2), {}),
    "median, uniform": (
        GeometricMedian(smoothing=0.05, passes=2, ask=Asks(weighting=Weighting.UNIFORM)), {"rotate": True}
    ),
    "adaptive norm": (FedAvg(), {"norm": AdaptiveClip(norm=0.5), "rotate": True}),
    "private": (FedAvg(), {"norm": 0.5, "privacy": PRIVACY}),
    "private, adaptive": (FedAvg(), {"norm": AdaptiveClip(norm=0.5), "privacy": PRIVACY, "keep": 0.5}),
}  # fmt: skip


def train(name: str, sites: dict[str, Site], kind: Any = PlainSum) -> tuple[Any, list[Any]]:
    strategy, changes = CASES[name]
    values: dict[str, Any] = {"rounds": 2, "clients": 6, "weight_cap": 100, "bits": 16, "standardize": False}
    records: list[Any] = []
    plan = TrainingPlan(**(values | changes))
    model = Federation(kind(sites), SCHEMA, STEERED, plan, strategy, on_round=records.append).run()
    return model, records


def sites_with(learner: Any) -> dict[str, Site]:
    made = {f"s{i}": Site(f"s{i}", make_table(12 + 7 * i, i), SCHEMA, STEERED, 7) for i in range(6)}
    return made | {"s2": replace(made["s2"], learner=learner)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_neither_length_nor_weight_nor_a_refusal_tells_that_a_learner_failed(name: str, kind: Any) -> None:
    (_, fine), (_, odd) = (train(name, sites_with(Failing(after, [])), kind) for after in (1000, 0))
    assert len(fine) == len(odd)
    for one, other in zip(fine, odd, strict=True):
        assert other.result.survivors == one.result.survivors
        assert other.result.total.shape == one.result.total.shape
        assert list(other.result.failures) == ["s2"]
        if not one.task.question.passes:  # later weights are by distance
            assert other.weight == one.weight


@pytest.mark.parametrize("name", CASES)
def test_a_failing_site_pulls_the_model_to_where_it_was_and_nowhere_else(name: str) -> None:
    """By its share of the weight: so far from honest runs as a site that does not move."""
    model, _ = train(name, sites_with(Failing(0, [])))
    honest, _ = train(name, sites_with(STEERED))
    away = np.abs(flatten(model.parameters) - flatten(honest.parameters)).max()
    noise = 0.6 if "private" in name else 0.0
    assert away <= 0.75 * np.abs(flatten(honest.parameters)).max() + noise
    assert np.abs(flatten(model.parameters)).max() <= 1.1 * np.abs(flatten(honest.parameters)).max() + noise


@pytest.mark.parametrize("plan", [{}, {"rotate": True}])
def test_where_weights_are_sent_a_failing_site_sends_those_that_it_was_given(plan: dict[str, Any]) -> None:
    """Zeros would pull the model to zero."""
    model = {name: array + 0.5 for name, array in LEARNER.initial().items()}
    terms = make_terms(make_plan(clients=1, **plan), asks=Asks(update=UpdateKind.WEIGHTS))
    site = site_with(FailingLearner({}))
    contribution = site.compute(terms.task(make_question(TaskKind.TRAIN, model=model)))
    found, _ = terms.plan.shaping(1).restore(contribution.coordinates, 4)
    assert found == pytest.approx([0.5] * 4, abs=1e-6)
    assert (contribution.weight, bool(site.trouble)) == (20, True)


def test_no_steps_are_told_where_nothing_was_trained() -> None:
    """Half of the largest number would move the model by what no site has done."""
    _, records = train("FedNova", sites_with(Failing(0, [])))
    steps = [(1 + record.result.mean.precise[0]) / 2 * 10_000 for record in records]
    assert max(steps) < 50


@pytest.mark.parametrize("name", ["Scaffold", "median"])
def test_a_failure_leaves_what_a_site_keeps_as_it_was(name: str) -> None:
    sites = sites_with(Failing(1, []))
    train(name, sites)
    state = sites["s2"].state
    assert state.pending is None
    if name == "Scaffold":
        assert state.control is not None
        assert state.residual is not None


def test_a_failed_retry_does_not_let_an_earlier_vector_count() -> None:
    site = sites_with(Failing(1, []))["s2"]
    terms = Terms.of(TrainingPlan(rounds=2, clients=6, keep=0.5, weight_cap=100), FedAvg(), STEERED, SCHEMA)
    task = terms.task(Train(model=STEERED.initial()))
    site.contribute(task)
    assert site.state.pending is not None
    site.contribute(task)  # tried again: now it fails, and zeros are sent
    assert site.trouble
    site.state.count(task.name, ["s1", "s2"])
    site.state.go_on("train 2")
    assert site.state.residual is None


def test_a_vector_that_no_rounding_keeps_within_the_norm_is_replaced_and_does_not_count() -> None:
    """The noise's norm is too small for any vector but zero."""
    plan = TrainingPlan(rounds=2, clients=6, keep=0.5, bits=16, norm=0.5, privacy=PRIVACY)
    terms = Terms.of(plan, FedAvg(), STEERED, SCHEMA)
    task = terms.task(Train(model=STEERED.initial()))
    assert task.encoding.noise is not None
    tight = replace(task.encoding, noise=replace(task.encoding.noise, norm=1e-3))
    site = sites_with(STEERED)["s1"]
    vector = site.contribute(replace(task, encoding=tight))
    assert vector.shape == (task.encoding.length,)
    assert "no rounding within the norm" in site.trouble
    site.state.count(task.name, ["s1"])
    site.state.go_on("train 2")
    assert site.state.residual is None


def test_where_everybody_fails_the_simulation_says_why() -> None:
    sites = {name: site_with(FailingLearner({})) for name in "abcd"}
    for name, site in sites.items():
        site.name = name
    with pytest.raises(TaskError, match="train 1: no site could contribute: a, b, c, d: the learner failed"):
        PlainSum(sites).sum(TRAIN)


def test_rows_of_a_site_that_cannot_evaluate_are_not_counted_as_wrong() -> None:
    class Scoring(FixedLearner):
        def scores(self, parameters: Parameters, rows: Table) -> NDArray[np.float64]:
            if rows.features[0, 0] == 1.0:
                raise ZeroDivisionError
            return np.asarray(np.eye(2)[rows.labels] * 0.8 + 0.1)

    sites = make_sites(4)
    sites = {name: replace(site, learner=Scoring({})) for name, site in sites.items()}
    table_of(sites["site-3"]).features[0, 0] = 1.0
    plan = make_plan(standardize=False)
    found = Federation(PlainSum(sites), SCHEMA, Scoring({}), plan).evaluate(LEARNER.initial())
    assert found.metrics["accuracy"] == 1.0
    assert found.metrics["log_loss"] == pytest.approx(-np.log(0.9), abs=1e-6)
    assert found.rows == sum(len(sites[f"site-{i}"].table) for i in range(3))
