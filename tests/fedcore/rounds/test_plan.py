"""What a plan promises of an upload is what the round then sends; plans that cannot be are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcore.codec.clipping import AdaptiveClip
from fedcore.errors import SettingError
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from fedcore.rounds.upload import plan_upload
from fedcore.strategies import FedAdam, FedAvg, FedNova, GeometricMedian, Scaffold, Strategy
from secagg import ParameterError
from secagg.kernels import pack, packed_bytes
from tests.fedcore.strategies.toys import LEARNER, Runner, make_toy_sites, make_toys, toy_plan

TOYS = make_toys(5)
PRIVACY = PrivacyPlan(epsilon=10.0, delta=1e-3, rounds=2, smallest=4)
STRATEGIES: list[Strategy] = [
    FedAvg(),
    FedAvg(ask=Asks(shared=("coef*",))),
    FedAdam(ask=Asks(weighting=Weighting.UNIFORM)),
    FedNova(),
    Scaffold(sites=5),
    GeometricMedian(smoothing=0.1, passes=1),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("bits", [1, 2, 8, 14])
@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("keep", [1.0, 0.4])
@pytest.mark.parametrize("norm", [None, 0.2, AdaptiveClip(norm=0.2)])
@pytest.mark.parametrize("privacy", [None, PRIVACY])
def test_the_planned_upload_is_that_of_the_round(
    strategy: Strategy, bits: int, rotate: bool, keep: float, norm: Any, privacy: PrivacyPlan | None
) -> None:
    refused = privacy is not None and (
        norm is None or bits == 1 or isinstance(strategy, FedNova | GeometricMedian)
    )
    if privacy is not None and norm is None:
        with pytest.raises(SettingError, match="privacy: needs a norm"):
            toy_plan(norm=norm, privacy=privacy)
        return
    plan = toy_plan(rounds=2, bits=bits, rotate=rotate, keep=keep, norm=norm, privacy=privacy)
    size = 3 if strategy.ask.shared else 4
    if refused:
        with pytest.raises(SettingError):
            plan_upload(plan, strategy.asks(), size)
        with pytest.raises(SettingError):
            Runner(TOYS).run("plain", strategy, plan)
        return
    promised = plan_upload(plan, strategy.asks(), size)
    ran = Runner(TOYS).run("plain", strategy, plan)
    assert ran.records
    for record in ran.records:
        task, result = record.task, record.result
        assert result is not None
        assert (promised.entries, promised.ring_bits) == (task.encoding.length, task.encoding.codec.ring_bits)
        assert result.total.shape == (promised.entries,)
        assert promised.values == task.encoding.dimension
        assert len(pack(result.total, ring_bits=task.encoding.codec.ring_bits)) == promised.bytes
        assert promised.bytes == packed_bytes(task.encoding.length, task.encoding.codec.ring_bits)
        assert promised.float32_bytes == 4 * task.encoding.dimension
        assert promised.bytes_per_value == promised.bytes / task.encoding.dimension
        assert promised.net_bytes_per_value == pytest.approx(
            task.encoding.length * bits / 8 / task.encoding.dimension
        )


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_what_does_not_travel_is_derived_by_who_has_the_terms(strategy: Strategy) -> None:
    plan = toy_plan(rounds=3, rotate=True, keep=0.5, norm=AdaptiveClip(norm=0.2))
    terms = Terms.of(plan, strategy, LEARNER, None)
    for record in Runner(TOYS, {"train 2": frozenset({"s01"})}).run("plain", strategy, plan).records:
        again = Task.decode(record.task.encode(), terms.encoding)
        assert again.encode() == record.task.encode()
        assert again.encoding == record.task.encoding
        assert again.step == terms.place(again.question) > 0


def test_a_site_contributes_the_same_to_a_decoded_task() -> None:
    plan = toy_plan(rounds=1, rotate=True, norm=0.2, privacy=PRIVACY, bits=12)
    record = Runner(TOYS).run("plain", FedAvg(), plan).records[0]
    decoded = Task.decode(record.task.encode(), Terms.of(plan, FedAvg(), LEARNER, None).encoding)
    one, two = (make_toy_sites(TOYS)["s03"].contribute(task) for task in (record.task, decoded))
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rounds": -1}, "rounds: must be at least 0, is -1"),
        ({"attempts": 0}, "attempts: must be at least 1, is 0"),
        ({"cohort": 0}, "cohort: must be in 1..12"),
        ({"cohort": 13}, "cohort: must be in 1..12"),
        ({"decay": 0.0}, "decay: must be positive"),
        ({"decay": float("nan")}, "decay: must be a number, is nan"),
        ({"evaluate_every": -1}, "evaluate_every"),
        ({"keep": 0.0}, "keep: must be in"),
        ({"bits": 0}, "bits: must be in"),
        ({"clip": 0.0}, "clip: must be in 1e-100"),
        ({"clients": 0}, "clients: must be at least 1"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingError, match=why):
        toy_plan(**changes)


def test_weights_are_not_clipped_to_a_norm() -> None:
    plan = toy_plan(norm=1.0)
    with pytest.raises(SettingError, match="norm: weights are not clipped"):
        plan.asks(Asks(update=UpdateKind.WEIGHTS), 1)


def test_rates_decay_from_round_to_round() -> None:
    plan = toy_plan(rounds=3, decay=0.5)
    assert [plan.asks(Asks(rate=2.0), number).rate for number in (1, 2, 3)] == [2.0, 1.0, 0.5]


@pytest.mark.parametrize("bits", [20, 40])
def test_bits_that_are_too_many_for_the_noise_are_refused(bits: int) -> None:
    plan = toy_plan(norm=0.2, privacy=PRIVACY, bits=bits)
    for what in (lambda: plan_upload(plan, Asks(), 4), lambda: Runner(TOYS).run("plain", FedAvg(), plan)):
        with pytest.raises(ParameterError, match="needs a variance above"):
            what()


@pytest.mark.parametrize("cohort", [3, 4])
def test_a_cohort_is_asked_and_nobody_else(cohort: int) -> None:
    ran = Runner(TOYS).run("plain", FedAvg(), toy_plan(rounds=12, cohort=cohort))
    met = [record.result.survivors for record in ran.records if record.result is not None]
    assert {len(names) for names in met} == {cohort}
    assert set(sum(met, ())) == set(TOYS)
    assert len(set(met)) > 2


def test_cohorts_follow_from_the_public_seed() -> None:
    def met(seed: int) -> list[Any]:
        ran = Runner(TOYS).run("plain", FedAvg(), toy_plan(rounds=5, cohort=3, seed=seed))
        return [record.result.survivors for record in ran.records if record.result is not None]

    assert met(1) == met(1)
    assert met(1) != met(2)


def test_statistics_count_rows_as_the_plan_says() -> None:
    plan = TrainingPlan(rounds=1, clients=7, weight_cap=50)
    assert plan.codec(TaskKind.SITES).weight_cap == 1
    assert plan.codec(TaskKind.EVALUATE).weight_cap == 50


@pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), float("nan")])
def test_a_norm_that_is_not_positive_and_finite_is_refused(norm: float) -> None:
    with pytest.raises(SettingError, match="norm: must be"):
        TrainingPlan(rounds=1, clients=3, norm=norm)
