"""Attempts: as many as there are, asked for before each, told after each that failed; groups when spoiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from fedcore.adversaries.sites import OutOfRange, corrupt
from fedcore.codec.codec import WeightedMean
from fedcore.errors import CodecError, TaskError
from fedcore.learner import flatten
from fedcore.rounds.aggregation import (
    FloatSum,
    GroupSum,
    PlainSum,
    SecureSum,
    SpoiledSumError,
    SumAggregator,
    real_mean,
)
from fedcore.rounds.attempts import Attempts, RoundRecord, combined
from fedcore.rounds.federation import Federation
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site, whole
from fedcore.rounds.task import Task
from secagg import AbortReason, RoundAbortedError
from secagg.kernels import UIntArray
from tests.fedcore.sites import LEARNER, SCHEMA, make_plan, make_sites, make_task

TASK = make_task(TaskKind.MEAN)
LIAR = "site-11"


@dataclass
class Scripted:
    """Raises what it is given, in turn; None: sums."""

    inner: SumAggregator
    script: list[Exception | None]
    among: list[Sequence[str] | None] = field(default_factory=list)

    @property
    def names(self) -> Sequence[str]:
        return self.inner.names

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        return self.inner.deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        self.among.append(among)
        if (error := self.script.pop(0)) is not None:
            raise error
        return self.inner.sum(task, among)


def aborted(text: str) -> RoundAbortedError:
    return RoundAbortedError(AbortReason.TOO_FEW_SURVIVORS, text)


def attempts_of(
    aggregator: SumAggregator, log: list[str], attempts: int = 3, smallest: int = 4, done: int = 0
) -> Attempts:
    """Attempts that note the (attempt, group) they ask for, and what failed."""
    return Attempts(
        aggregator,
        attempts,
        smallest,
        lambda task: log.append(f"before {task.attempt}.{task.group}"),
        lambda task, why: log.append(f"failed {task.attempt}.{task.group}: {why}"),
        done,
    )


def run(script: list[Exception | None], attempts: int, log: list[str], done: int = 0) -> int:
    scripted = Scripted(PlainSum(make_sites()), script)
    found = attempts_of(scripted, log, attempts, done=done).sum(TASK, ["site-0", "site-1"])
    assert set(map(tuple, scripted.among)) == {("site-0", "site-1")}  # type: ignore[arg-type]
    return len(found.survivors)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_attempts_go_on_until_there_is_a_result(failing: int) -> None:
    log: list[str] = []
    assert run([*[aborted("x")] * failing, None], 3, log) == 2
    failed = [
        line
        for i in range(1, failing + 1)
        for line in (f"before {i}.0", f"failed {i}.0: too few survivors: x")
    ]
    assert log == [*failed, f"before {failing + 1}.0"]


def test_the_last_error_is_raised() -> None:
    log: list[str] = []
    with pytest.raises(CodecError, match="second"):
        run([aborted("first"), CodecError("second")], 2, log)
    assert log == ["before 1.0", "failed 1.0: too few survivors: first", "before 2.0", "failed 2.0: second"]


def test_attempts_that_were_made_before_are_not_made_again() -> None:
    log: list[str] = []
    assert run([None], 3, log, done=2) == 2
    assert log == ["before 3.0"]
    with pytest.raises(TaskError, match="attempts: all 3 of mean 1 are spent"):
        run([None], 3, log, done=3)
    assert log == ["before 3.0"]


def test_a_task_that_nobody_does_is_not_tried_again() -> None:
    log: list[str] = []
    with pytest.raises(TaskError, match="nobody"):
        run([TaskError("nobody"), None], 3, log)
    assert log == ["before 1.0"]


def test_what_is_raised_before_an_attempt_ends_them() -> None:
    def refuse(_task: Task) -> None:
        raise TaskError("no budget")

    scripted = Scripted(PlainSum(make_sites()), [None])
    with pytest.raises(TaskError, match="no budget"):
        replace(attempts_of(scripted, []), before=refuse).sum(TASK)
    assert scripted.among == []


def test_real_means_are_not_decoded() -> None:
    real, ring = (kind(make_sites()).sum(TASK) for kind in (FloatSum, PlainSum))
    assert real.total.size == 0
    assert real.mean.weight == ring.mean.weight
    assert np.abs(real.mean.mean - ring.mean.mean).max() <= TASK.encoding.codec.error_bound(
        5, ring.mean.weight
    )


# --- sums that make no sense ---


class Spoiling(Site):
    """Sends weights that nobody can have."""

    def answer(self, task: Task) -> UIntArray:
        vector = whole(super().answer(task), task)
        codec = task.encoding.codec
        if codec.overhead:
            vector[-1] = 2 ** (codec.ring_bits - 2)
        return vector


def with_liars(n: int, *liars: str) -> dict[str, Site]:
    """Sites, some of them liars."""
    sites = make_sites(n)
    for name in liars:
        one = sites[name]
        sites[name] = Spoiling(name, one.table, one.schema, one.learner, one.seed)
    return sites


def task_for(n: int) -> Task:
    return make_task(TaskKind.MEAN, make_plan(clients=n, weight_cap=1000))


@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_a_spoiled_sum_is_a_typed_outcome_that_says_who_is_in_it(kind: Any) -> None:
    sites = with_liars(6, "site-4")
    with pytest.raises(SpoiledSumError, match="total: ") as caught:
        kind(sites, {"mean 1": frozenset({"site-1"})}).sum(task_for(6))
    assert caught.value.survivors == ("site-0", "site-2", "site-3", "site-4", "site-5")
    assert caught.value.failures == {}
    assert isinstance(caught.value, CodecError)


@pytest.mark.parametrize("kind", [PlainSum, SecureSum])
def test_one_liar_among_sixteen_costs_its_own_group_and_the_others_mean_comes_out_exactly(kind: Any) -> None:
    sites, log, task = with_liars(16, LIAR), list[str](), task_for(16)
    found = attempts_of(kind(sites), log).sum(task)
    said = [line.split(": ")[0] for line in log]
    assert said[:3] == ["before 1.0", "failed 1.0", "before 2.1"]
    assert sorted(line for line in said if line.startswith("before")) == [
        *("before 1.0", "before 2.1", "before 2.2", "before 3.1", "before 3.2")
    ]
    assert sum(line.startswith("failed") for line in said) == 3
    assert len(found.survivors) == 12
    assert LIAR not in found.survivors
    assert sorted(map(len, found.groups)) == [4, 8]
    assert found.fewest == 4
    assert sorted(name for group in found.groups for name in group) == sorted(found.survivors)
    honest = make_sites(16)
    whole = PlainSum(honest).sum(task, found.survivors)
    assert found.mean.weight == whole.mean.weight
    assert found.mean.mean == pytest.approx(whole.mean.mean, rel=1e-12)
    real = real_mean([honest[name].compute(task) for name in found.survivors])
    bound = task.encoding.codec.error_bound(12, found.mean.weight)
    assert np.abs(found.mean.mean - real.mean).max() <= bound


def test_groups_are_halved_as_long_as_both_are_large_enough_and_attempts_are_left() -> None:
    for smallest, attempts, left in ((4, 3, 12), (8, 3, 8), (2, 3, 12), (2, 4, 14), (1, 5, 15), (4, 2, 8)):
        log: list[str] = []
        aggregator = PlainSum(with_liars(16, LIAR))
        found = attempts_of(aggregator, log, attempts, smallest).sum(task_for(16))
        assert len(found.survivors) == left, (smallest, attempts)
        assert max(int(line.split()[1].split(".")[0]) for line in log) <= attempts
        assert found.fewest >= smallest


def test_two_liars_are_found_in_their_groups() -> None:
    log: list[str] = []
    aggregator = PlainSum(with_liars(16, LIAR, "site-2"))
    found = attempts_of(aggregator, log, 5, 1).sum(task_for(16))
    assert set(found.survivors) == {f"site-{i}" for i in range(16)} - {LIAR, "site-2"}


def test_where_groups_would_be_too_small_or_no_attempt_is_left_the_spoiled_sum_is_raised() -> None:
    for smallest, attempts, asked in ((9, 3, 1), (4, 1, 1)):
        log: list[str] = []
        with pytest.raises(SpoiledSumError):
            attempts_of(PlainSum(with_liars(16, LIAR)), log, attempts, smallest).sum(task_for(16))
        assert sum(line.startswith("before") for line in log) == asked


def test_where_every_group_is_spoiled_the_last_is_raised() -> None:
    log: list[str] = []
    liars = [f"site-{i}" for i in range(16)]
    with pytest.raises(SpoiledSumError):
        attempts_of(PlainSum(with_liars(16, *liars)), log, 3, 4).sum(task_for(16))
    assert len([line for line in log if line.startswith("before 3")]) == 4


def test_groups_are_dealt_evenly_by_their_members_alone() -> None:
    names = [f"site-{i}" for i in range(17)]
    sums = PlainSum(make_sites(17)), SecureSum(make_sites(17)), FloatSum(make_sites(17))
    dealt = sums[0].deal(names, 3)
    assert sorted(map(len, dealt)) == [5, 6, 6]
    assert sorted(name for group in dealt for name in group) == sorted(names)
    assert all(one.deal(list(reversed(names)), 3) == dealt for one in sums)
    assert dealt != [tuple(sorted(names)[i::3]) for i in range(3)]


def test_one_liar_among_sixteen_does_not_end_a_run() -> None:
    records: list[RoundRecord] = []
    plan = make_plan(rounds=3, clients=16, weight_cap=200)
    model = Federation(SecureSum(with_liars(16, LIAR)), SCHEMA, LEARNER, plan, on_round=records.append).run()
    assert model.number == 3
    assert np.abs(flatten(model.parameters)).max() > 1e-3
    results = [record.result for record in records if record.result is not None]
    assert [record.task.name for record in records if record.result is not None] == [
        *("mean 1", "deviation 1", "train 1", "train 2", "train 3")
    ]
    for found in results:
        assert LIAR not in found.survivors
        assert len(found.survivors) == 12


def test_under_uniform_weights_a_liar_cannot_spoil_a_sum_but_only_move_it() -> None:
    """No weight is sent: there is nothing to lie about but the values, which the ring bounds."""
    sites = make_sites(6)
    sites["site-1"] = corrupt(sites["site-1"], OutOfRange(scale=1e3))
    task = make_task(TaskKind.SITES, make_plan(clients=6))
    assert task.encoding.codec.overhead == 0


# --- sums put together ---


def group(survivors: tuple[str, ...], mean: list[float], weight: int, **rest: Any) -> GroupSum:
    said = WeightedMean(np.array(mean), weight, np.array([mean[0]]))
    return GroupSum(TASK, np.ones(2, np.uint32), survivors, said, **rest)


def test_combined_sums_are_weighted_as_they_are() -> None:
    one = group(("b", "d"), [1.0, 2.0], 30, bytes_up=5, bytes_down=7, failures={"b": "x"})
    other = group(("a", "c", "e"), [4.0, -1.0], 10, bytes_up=1, bytes_down=2, failures={"a": "y"})
    found = combined([one, other])
    assert found.mean.mean.tolist() == [1.75, 1.25]
    assert found.mean.precise.tolist() == [1.75]
    assert found.mean.weight == 40
    assert found.survivors == ("a", "b", "c", "d", "e")
    assert found.groups == (("b", "d"), ("a", "c", "e"))
    assert found.fewest == 2
    assert (found.bytes_up, found.bytes_down) == (6, 9)
    assert found.failures == {"a": "y", "b": "x"}
    assert found.total.size == 0


def test_one_sum_stays_as_it_is() -> None:
    one = group(("a", "b"), [1.0, 2.0], 3)
    assert combined([one]) is one
    assert one.fewest == 2
