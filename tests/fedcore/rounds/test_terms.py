"""The order and the form of every sum follow from what was agreed, alike for all, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError, TaskError
from fedcore.evaluation import federated
from fedcore.learner import flatten
from fedcore.learners import LocalSGD, SoftmaxRegression
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.aggregation import PlainSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind, Train
from fedcore.rounds.site import Site
from fedcore.rounds.terms import Place, Terms
from fedcore.strategies import FedAvg, FedMedian, FedNova, GeometricMedian, Scaffold, Strategy
from tests.fedcore.sites import SCHEMA, make_plan, make_question, make_table, make_terms

LEARNER = LocalSGD(model=SoftmaxRegression(3, 2), batch_size=8, rate=0.2)
PRIVACY = PrivacyPlan(epsilon=20.0, delta=1e-3, rounds=3, smallest=4)


# --- the order ---


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    plan = make_plan(
        rounds=draw(st.integers(0, 6)),
        evaluate_every=draw(st.integers(0, 3)),
        standardize=draw(st.booleans()),
    )
    statistics = st.sampled_from([TaskKind.COUNT, TaskKind.CUMULATIVE, TaskKind.COVARIANCE])
    before = st.lists(st.tuples(statistics, st.integers(1, 3)), max_size=2, unique_by=lambda pair: pair[0])
    after = st.lists(st.tuples(st.just(TaskKind.SITES), st.integers(1, 3)), max_size=1)
    return make_terms(
        plan,
        passes=draw(st.integers(0, 3)),
        schema=draw(st.sampled_from([SCHEMA, None])),
        before=tuple(draw(before)),
        after=tuple(draw(after)),
    )


@settings(deadline=None)
@given(terms())
def test_every_sum_has_one_step_and_the_steps_ascend_without_gaps(one: Terms) -> None:
    steps = list(one.schedule.values())
    assert steps == list(range(1, len(steps) + 1))
    plan = one.plan
    training = [place for place in one.schedule if place.kind is TaskKind.TRAIN]
    assert training == [Place(TaskKind.TRAIN, number) for number in range(1, plan.rounds + 1)]
    evaluated = [place.number for place in one.schedule if place.kind is TaskKind.EVALUATE]
    every = plan.evaluate_every
    assert evaluated == [n for n in range(1, plan.rounds + 1) if every and n % every == 0]
    means = [place for place in one.schedule if place.kind in {TaskKind.MEAN, TaskKind.DEVIATION}]
    assert len(means) == (2 if plan.standardize and one.schema is not None else 0)


def test_the_order_of_a_whole_run() -> None:
    one = make_terms(
        make_plan(rounds=2, evaluate_every=2),
        passes=1,
        before=((TaskKind.COUNT, 2),),
        after=((TaskKind.EVALUATE, 1), (TaskKind.SITES, 1)),
    )
    assert [(str(place.kind), place.number) for place in one.schedule] == [
        *(("count", 1), ("count", 2), ("mean", 1), ("deviation", 1)),
        *(("train", 1), ("train", 2), ("evaluate", 2)),
        *(("evaluate", 3), ("sites", 3)),
    ]


def test_with_privacy_nothing_is_standardized_by_sums() -> None:
    plan = TrainingPlan(rounds=1, clients=6, norm=1.0, bits=16, privacy=PRIVACY)
    assert [place.kind for place in make_terms(plan).schedule] == [TaskKind.TRAIN]


def test_a_question_that_no_run_asks_has_no_place() -> None:
    one = make_terms(make_plan(rounds=2))
    assert one.place(make_question(TaskKind.TRAIN, 2)) == 4
    for question in (
        *(make_question(TaskKind.TRAIN, 3), make_question(TaskKind.TRAIN, 0)),
        *(make_question(TaskKind.TRAIN, 1, again=1), make_question(TaskKind.MEAN, 2)),
        *(make_question(TaskKind.COUNT), make_question(TaskKind.EVALUATE, 1)),
    ):
        assert one.place(question) == 0
        assert one.task(question).step == 0


# --- the form ---

STRATEGIES: list[Strategy] = [
    FedAvg(),
    FedAvg(ask=Asks(weighting=Weighting.UNIFORM, shared=("coef*",))),
    FedAvg(ask=Asks(update=UpdateKind.GRADIENT)),
    FedAvg(ask=Asks(personal=("inter*",))),
    FedNova(),
    Scaffold(sites=6),
    GeometricMedian(smoothing=0.1, passes=2),
]
PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shaped": {"rotate": True, "keep": 0.5, "decay": 0.9, "final_rate": 0.1, "bits": 8},
    "norm": {"norm": 0.5, "bits": 12},
    "adaptive": {"norm": AdaptiveClip(norm=0.5), "rotate": True},
    "private": {"norm": 0.5, "privacy": PRIVACY, "bits": 16},
    "private, adaptive": {"norm": AdaptiveClip(norm=0.5), "privacy": PRIVACY, "bits": 16, "keep": 0.5},
}


def plan_of(name: str) -> TrainingPlan:
    return TrainingPlan(**({"rounds": 3, "clients": 6, "weight_cap": 100} | PLANS[name]))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("number", [1, 3])
def test_a_training_round_is_encoded_as_plan_and_strategy_say(
    strategy: Strategy, name: str, number: int
) -> None:
    plan = plan_of(name)
    one = Terms.of(plan, strategy, LEARNER, SCHEMA)
    norm = 0.3 if isinstance(plan.norm, AdaptiveClip) else None
    question = Train(number=number, model={}, norm=norm)
    if plan.privacy is not None and isinstance(strategy, FedNova | GeometricMedian):
        with pytest.raises(SettingError, match="travel beside the noise"):
            one.encoding(question)
        return
    asks = plan.asks(strategy.asks(), number)
    values = one.size * (2 if asks.control else 1)
    shaping = plan.shaping(number, norm)
    codec, noise = plan.round_codec(asks, shaping, values)
    found = one.encoding(question)
    assert (found.dimension, found.asks, found.shaping) == (values, asks, shaping)
    assert (found.codec, found.noise) == (codec, noise)
    assert (found.schema, found.classes) == (SCHEMA, SCHEMA.classes)
    hidden = int(bool(asks.quantile) and noise is not None)
    assert found.length == codec.length(shaping.length(values) + hidden)
    assert (found.hidden, found.sent) == (hidden, shaping.length(values) + hidden)
    assert found.quantile == (asks.quantile if hidden else 0.0)
    assert len(found.precise) == codec.precise
    assert found.precise == ("steps",) * asks.normalized + ("within",) * (bool(asks.quantile) and not hidden)


@pytest.mark.parametrize(
    ("strategy", "size"), list(zip(STRATEGIES, [8, 6, 8, 6, 8, 8, 8], strict=True)), ids=lambda v: str(v)[:12]
)
def test_the_size_is_of_what_is_trained_and_sent(strategy: Strategy, size: int) -> None:
    assert Terms.of(plan_of("plain"), strategy, LEARNER, SCHEMA).size == size


def test_what_adapts_travels_and_nothing_else_does() -> None:
    fixed, adaptive = (Terms.of(plan_of(name), FedAvg(), LEARNER, SCHEMA) for name in ("norm", "adaptive"))
    assert (fixed.adapts, adaptive.adapts) == (False, True)
    assert adaptive.encoding(Train(model={}, norm=0.125)).shaping.norm == 0.125
    with pytest.raises(TaskError, match=r"task\.norm: is missing, it adapts"):
        adaptive.encoding(Train(model={}))
    with pytest.raises(TaskError, match=r"task\.norm: does not adapt"):
        fixed.encoding(Train(model={}, norm=0.5))
    assert fixed.encoding(Train(model={})).shaping.norm == 0.5


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TaskKind.MEAN, 3),
        (TaskKind.DEVIATION, 3),
        (TaskKind.COVARIANCE, 6),
        (TaskKind.CUMULATIVE, 6),
        (TaskKind.COUNT, 2),
        (TaskKind.EVALUATE, federated.dimension(2)),
        (TaskKind.SITES, federated.SITE_BINS),
    ],
)
def test_other_kinds_are_encoded_finely_and_unshaped(kind: TaskKind, values: int) -> None:
    plan = plan_of("shaped")
    one = Terms.of(plan, FedAvg(ask=Asks(personal=("inter*",), proximal=0.5)), LEARNER, SCHEMA)
    found = one.encoding(make_question(kind))
    assert found.dimension == found.sent == values
    assert found.codec == plan.codec(kind)
    assert found.shaping.length(values) == values
    assert (found.shaping.norm, found.shaping.rotate, found.noise, found.precise) == (None, False, None, ())
    uniform = kind is TaskKind.SITES
    personal = ("inter*",) if kind in {TaskKind.EVALUATE, TaskKind.SITES} else ()
    weighting = Weighting.UNIFORM if uniform else Weighting.ROWS
    assert found.asks == Asks(weighting=weighting, personal=personal)
    assert found.codec.weight_cap == (1 if uniform else 100)


def test_without_a_schema_there_are_classes_but_no_columns() -> None:
    one = Terms.of(plan_of("plain"), FedAvg(), LEARNER, None, ("a", "b", "c"))
    found = one.encoding(make_question(TaskKind.EVALUATE))
    assert (found.schema, found.classes, found.dimension) == (None, ("a", "b", "c"), federated.dimension(3))
    assert one.encoding(make_question(TaskKind.MEAN)).dimension == 0


def test_a_form_that_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="noise needs 2 or more"):
        plan = TrainingPlan(rounds=1, clients=6, norm=1.0, bits=1, privacy=PRIVACY)
        make_terms(plan).encoding(Train(model={}))
    with pytest.raises(SettingError, match="weights are not clipped to a norm"):
        make_terms(plan_of("norm"), asks=Asks(update=UpdateKind.WEIGHTS)).encoding(Train(model={}))
    with pytest.raises(TaskError, match="leave nothing of"):
        Terms.of(plan_of("plain"), FedAvg(ask=Asks(personal=("*",))), LEARNER, SCHEMA)


# --- a run keeps to it ---

RUNS: dict[str, tuple[Strategy, dict[str, Any]]] = {
    "FedAvg": (FedAvg(), {"evaluate_every": 2}),
    "median": (GeometricMedian(smoothing=0.1, passes=2), {}),
    "groups": (FedMedian(groups=3, smallest=2), {"attempts": 1}),
    "Scaffold, cohort": (Scaffold(sites=6), {"cohort": 5, "keep": 0.5}),
    "adaptive": (FedAvg(), {"norm": AdaptiveClip(norm=0.5)}),
    "private": (FedAvg(), {"norm": 0.5, "privacy": PRIVACY, "bits": 16}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_asks_step_by_step_and_every_task_is_what_the_terms_make_of_it(name: str) -> None:
    strategy, changes = RUNS[name]
    plan = TrainingPlan(**({"rounds": 3, "clients": 6, "weight_cap": 100} | changes))
    sites = {f"s{i}": Site(f"s{i}", make_table(12 + 7 * i, i), SCHEMA, LEARNER, 7) for i in range(6)}
    one = Terms.of(plan, strategy, LEARNER, SCHEMA)
    records: list[RoundRecord] = []
    model = Federation(PlainSum(sites), SCHEMA, LEARNER, plan, strategy, on_round=records.append).run()
    assert np.abs(flatten(model.parameters)).max() > 0
    for record in records:
        task = record.task
        assert task.encoding == one.encoding(task.question)
        assert task.step == one.place(task.question) > 0
        assert (task.attempt, task.group) == (1, 0)
    steps = [record.task.step for record in records if record.task.kind is not TaskKind.EVALUATE]
    rises = 0 if name in {"groups", "median"} else 1  # groups, and passes, of a round share its step
    assert all(after - before >= rises for before, after in pairwise(steps))
    assert {record.task.step for record in records} == set(one.schedule.values())


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_run_that_goes_on_repeats_no_attempt(done: int) -> None:
    """The step that was asked last, so often; other steps begin at the first attempt."""
    plan = make_plan(rounds=2)
    sites = {f"s{i}": Site(f"s{i}", make_table(12 + 7 * i, i), SCHEMA, LEARNER, 7) for i in range(5)}
    saved: list[Any] = []
    Federation(PlainSum(sites), SCHEMA, LEARNER, make_plan(rounds=1), on_checkpoint=saved.append).run()
    records: list[RoundRecord] = []
    federation = Federation(PlainSum(sites), SCHEMA, LEARNER, plan, on_round=records.append)
    one = Terms.of(plan, FedAvg(), LEARNER, SCHEMA)
    step = one.schedule[Place(TaskKind.TRAIN, 2)]
    federation.run(replace(saved[-1], tried=(step, done)))
    assert [(record.task.step, record.task.attempt) for record in records] == [(step, done + 1)]
    with pytest.raises(TaskError, match="attempts: all 3 of train 2 are spent"):
        federation.run(replace(saved[-1], tried=(step, 3)))
