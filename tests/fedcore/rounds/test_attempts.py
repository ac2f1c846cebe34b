"""Attempts: as many as there are, asked for before each, told after each that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedcore.errors import CodecError, TaskError
from fedcore.rounds.aggregation import FloatSum, GroupSum, PlainSum, SumAggregator
from fedcore.rounds.attempts import sum_once, sum_with_retries
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.task import Task, counted
from secagg import AbortReason, RoundAbortedError
from tests.fedcore.rounds.test_site import make_sites, make_task

TASK = make_task(TaskKind.MEAN)


@dataclass
class Scripted:
    """Raises what it is given, in turn; None: sums."""

    inner: SumAggregator
    script: list[Exception | None]
    among: list[Sequence[str] | None] = field(default_factory=list)

    @property
    def names(self) -> Sequence[str]:
        return self.inner.names

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        self.among.append(among)
        if (error := self.script.pop(0)) is not None:
            raise error
        return self.inner.sum(task, among)


def aborted(text: str) -> RoundAbortedError:
    return RoundAbortedError(AbortReason.TOO_FEW_SURVIVORS, text)


def run(script: list[Exception | None], attempts: int, log: list[str]) -> int:
    scripted = Scripted(PlainSum(make_sites()), script)
    summed = sum_with_retries(
        scripted,
        TASK,
        attempts=attempts,
        on_failure=lambda reason: log.append(f"failed: {reason}"),
        among=["site-0", "site-1"],
        before=lambda: log.append("before"),
    )
    assert set(map(tuple, scripted.among)) == {("site-0", "site-1")}  # type: ignore[arg-type]
    return len(summed.result.survivors)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_attempts_go_on_until_there_is_a_result(failing: int) -> None:
    log: list[str] = []
    assert run([*[aborted("x")] * failing, None], 3, log) == 2
    assert log == ["before", "failed: too few survivors: x"] * failing + ["before"]


def test_the_last_error_is_raised() -> None:
    log: list[str] = []
    with pytest.raises(CodecError, match="second"):
        run([aborted("first"), CodecError("second")], 2, log)
    assert log == ["before", "failed: too few survivors: first", "before", "failed: second"]


def test_a_task_that_nobody_does_is_not_tried_again() -> None:
    log: list[str] = []
    with pytest.raises(TaskError, match="nobody"):
        run([TaskError("nobody"), None], 3, log)
    assert log == ["before"]


def test_no_attempts_are_refused() -> None:
    with pytest.raises(TaskError, match="attempts: must be at least 1"):
        run([None], 0, [])


def test_what_is_raised_before_an_attempt_ends_them() -> None:
    def refuse() -> None:
        raise TaskError("no budget")

    scripted = Scripted(PlainSum(make_sites()), [None])
    with pytest.raises(TaskError, match="no budget"):
        sum_with_retries(scripted, TASK, attempts=3, on_failure=lambda _: None, before=refuse)
    assert scripted.among == []


def test_real_means_are_not_decoded() -> None:
    real, ring = (sum_once(kind(make_sites()), TASK, None) for kind in (FloatSum, PlainSum))
    assert real.result.total.size == 0
    assert real.mean.weight == ring.mean.weight
    assert np.abs(real.mean.mean - ring.mean.mean).max() <= TASK.codec.error_bound(5, ring.mean.weight)


def test_every_site_stands_under_the_last_round_it_counted_in() -> None:
    first = counted((), "train 1", ("a", "b", "c"))
    second = counted(first, "train 2", ("b",))
    third = counted(second, "train 3", ("a", "d"))
    assert second == (("train 1", ("a", "c")), ("train 2", ("b",)))
    assert third == (("train 1", ("c",)), ("train 2", ("b",)), ("train 3", ("a", "d")))
    assert counted(third, "train 4", ("a", "b", "c", "d")) == (("train 4", ("a", "b", "c", "d")),)
    assert first == (("train 1", ("a", "b", "c")),)
