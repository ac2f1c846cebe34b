"""The round loop: federations learn, failed rounds are tried again, and secrecy changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fedcore.errors import CodecError, SettingError
from fedcore.learner import flatten
from fedcore.rounds.aggregation import GroupSum, PlainSum, SecureSum, SumAggregator
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg
from secagg import AbortReason, RoundAbortedError
from tests.fedcore.sites import LEARNER, SCHEMA, make_plan, make_sites, make_table, model_of

NAMES = ["mean 1", "deviation 1", "train 1", "train 2", "train 3", "train 4"]


@dataclass
class Flaky:
    """An aggregator that has no result at certain calls."""

    inner: SumAggregator
    fails: frozenset[int]
    calls: list[str] = field(default_factory=list)

    @property
    def names(self) -> Sequence[str]:
        return self.inner.names

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        return self.inner.deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        self.calls.append(task.name)
        if len(self.calls) - 1 in self.fails:
            raise RoundAbortedError(AbortReason.COHORT_TOO_SMALL, f"call {len(self.calls) - 1}")
        return self.inner.sum(task, among)


def train(aggregator: SumAggregator, **options: Any) -> tuple[RunState, list[RoundRecord]]:
    records: list[RoundRecord] = []
    values: dict[str, Any] = {"plan": make_plan(), "on_round": records.append}
    model = Federation(aggregator, SCHEMA, LEARNER, **(values | options)).run()
    return model, records


def accuracy(model: RunState) -> float:
    held_out = make_table(2000, 99)
    return LEARNER.evaluate(model.parameters, model.standardizer.apply(held_out))["accuracy"]


def test_federation_improves_accuracy_over_the_initial_model_and_every_single_site() -> None:
    sites = make_sites()
    plan = make_plan(rounds=10)
    untrained, _ = train(PlainSum(sites), plan=make_plan(rounds=0))
    federated, _ = train(PlainSum(sites), plan=plan)
    alone = [train(PlainSum({name: site}), plan=plan)[0] for name, site in sites.items()]
    assert accuracy(federated) > 0.85
    assert accuracy(federated) > accuracy(untrained) + 0.2
    assert accuracy(federated) > np.mean([accuracy(model) for model in alone])


@pytest.mark.parametrize(
    "absent", [{}, {"train 2": frozenset({"site-3"}), "deviation 1": frozenset({"site-0"})}]
)
def test_secure_and_clear_training_end_in_the_same_parameters_bit_for_bit(
    absent: dict[str, frozenset[str]],
) -> None:
    (clear, one), (secure, two) = (train(kind(make_sites(), absent)) for kind in (PlainSum, SecureSum))
    assert flatten(clear.parameters).tobytes() == flatten(secure.parameters).tobytes()
    assert clear.standardizer.mean.tobytes() == secure.standardizer.mean.tobytes()
    assert clear.standardizer.deviation.tobytes() == secure.standardizer.deviation.tobytes()
    assert clear.weight == secure.weight
    assert np.abs(flatten(clear.parameters)).max() > 0
    for first, second in zip(one, two, strict=True):
        assert first.task.encode() == second.task.encode()
        assert first.result is not None
        assert second.result is not None
        assert np.array_equal(first.result.total, second.result.total)
        assert first.result.survivors == second.result.survivors


def test_every_task_is_reported_once_with_its_sum_and_the_model_after_it() -> None:
    sites = make_sites()
    model, records = train(PlainSum(sites))
    assert [record.task.name for record in records] == NAMES
    rows = sum(len(site.table) for site in sites.values())
    for record in records:
        assert (record.weight, record.reason) == (rows, "")
        assert record.result is not None
        assert record.result.survivors == tuple(sites)
    for before, after in pairwise(records[2:]):
        assert flatten(before.parameters).tolist() == flatten(model_of(after.task)).tolist()
    assert flatten(records[1].parameters).tolist() == flatten(LEARNER.initial()).tolist()
    assert flatten(records[-1].parameters).tolist() == flatten(model.parameters).tolist()
    assert model.weight == rows


def test_the_tasks_carry_what_the_sites_need_and_nothing_before_it_is_known() -> None:
    model, records = train(PlainSum(make_sites()))
    tasks = [record.task for record in records]
    assert sorted(tasks[0].question.arrays()) == []
    assert sorted(tasks[1].question.arrays()) == ["mean"]
    for task in tasks[2:]:
        arrays = task.question.arrays()
        assert sorted(arrays) == ["deviation", "mean", "model.coefficients", "model.intercepts"]
        assert arrays["mean"].tolist() == model.standardizer.mean.tolist()
        assert arrays["deviation"].tolist() == model.standardizer.deviation.tolist()
        assert task.encoding.dimension == 4


def test_one_step_adds_the_mean_update_times_the_rate_of_the_server() -> None:
    plan = make_plan(rounds=1)
    full, half = (
        flatten(train(PlainSum(make_sites()), plan=plan, strategy=FedAvg(server_rate=rate))[0].parameters)
        for rate in (1.0, 0.5)
    )
    assert half == pytest.approx(full / 2)
    assert np.abs(full).max() > 0


def test_updates_are_clipped() -> None:
    plan = make_plan(rounds=1, clip=0.01)
    model, _ = train(PlainSum(make_sites()), plan=plan)
    bound = plan.codec(TaskKind.TRAIN).error_bound(5, model.weight)
    assert np.abs(flatten(model.parameters)).max() == pytest.approx(0.01, abs=bound)


@pytest.mark.parametrize("failing", [{0}, {1}, {3}, {0, 1, 3, 5}])
def test_a_round_without_a_result_is_tried_again_and_changes_nothing(failing: set[int]) -> None:
    flaky = Flaky(PlainSum(make_sites()), frozenset(failing))
    model, records = train(flaky)
    steady, _ = train(PlainSum(make_sites()))
    assert flatten(model.parameters).tolist() == flatten(steady.parameters).tolist()
    lost = [record for record in records if record.result is None]
    assert len(lost) == len(failing)
    assert [record.task.name for record in records if record.result is not None] == NAMES
    for record, call in zip(lost, sorted(failing), strict=True):
        assert record.weight == 0
        assert record.reason == f"cohort too small: call {call}"
    for record, following in pairwise(records):
        if record.result is None:
            assert following.task.digest == record.task.digest
            place, then = ((r.task.step, r.task.attempt) for r in (record, following))
            assert then == (place[0], place[1] + 1)


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_after_the_last_attempt_the_error_is_raised_and_every_attempt_was_reported(attempts: int) -> None:
    flaky = Flaky(PlainSum(make_sites()), frozenset(range(2, 100)))
    records: list[RoundRecord] = []
    plan = make_plan(attempts=attempts)
    with pytest.raises(RoundAbortedError, match=f"call {1 + attempts}"):
        Federation(flaky, SCHEMA, LEARNER, plan, on_round=records.append).run()
    assert flaky.calls == ["mean 1", "deviation 1", *["train 1"] * attempts]
    assert [record.result is None for record in records] == [False, False, *[True] * attempts]


def test_a_plan_without_attempts_is_refused() -> None:
    with pytest.raises(SettingError, match="attempts: must be at least 1, is 0"):
        train(PlainSum(make_sites()), plan=make_plan(attempts=0))


def test_more_survivors_than_the_plan_has_clients_are_refused() -> None:
    with pytest.raises(CodecError, match=r"survivors: must be in 1\.\.4, are 5"):
        train(PlainSum(make_sites()), plan=make_plan(clients=4))


def test_statistics_are_finer_than_updates_and_within_fixed_bounds() -> None:
    plan = TrainingPlan(rounds=1, clients=7, weight_cap=50, clip=3.0, bits=9)
    fine, coarse = plan.codec(TaskKind.MEAN), plan.codec(TaskKind.TRAIN)
    assert plan.codec(TaskKind.DEVIATION) == fine
    assert (coarse.clip, coarse.bits, coarse.weight_cap, coarse.clients) == (3.0, 9, 50, 7)
    assert (fine.clip, fine.bits, fine.weight_cap, fine.clients) == (1.0, 32, 50, 7)
