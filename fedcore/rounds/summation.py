"""One secure sum about a task, tried again while it has no result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fedcore.codec.codec import WeightedMean
from fedcore.errors import CodecError, TaskError
from fedcore.learner import Parameters
from fedcore.rounds.aggregation import GroupSum, SumAggregator
from fedcore.rounds.task import Task
from secagg import RoundAbortedError


@dataclass(frozen=True, slots=True, eq=False)
class RoundRecord:
    """What became of one task: the sum, or the reason why there is none; the model after it.

    epsilon  spent up to and with this round, where noise is added
    norm     that the updates were clipped to; within: share of the sites whose update was, if asked for
    """

    task: Task
    result: GroupSum | None
    weight: int
    reason: str
    parameters: Parameters
    epsilon: float | None = None
    norm: float | None = None
    within: float | None = None


OnRound: TypeAlias = Callable[[RoundRecord], None]


@dataclass(frozen=True, slots=True)
class Summed:
    """A task, the sum about it, and what it says."""

    task: Task
    result: GroupSum
    mean: WeightedMean


def sum_once(aggregator: SumAggregator, task: Task, among: Sequence[str] | None) -> Summed:
    """Ask the sites. Raises RoundAbortedError, CodecError: somebody sent no weight; TaskError."""
    result = aggregator.sum(task, among)
    if result.mean is not None:
        return Summed(task, result, result.mean)
    return Summed(task, result, task.codec.decode(result.total, len(result.survivors)))


def sum_with_retries(
    aggregator: SumAggregator,
    task: Task,
    *,
    attempts: int,
    on_failure: Callable[[str], None],
    among: Sequence[str] | None = None,
    before: Callable[[], None] = lambda: None,
) -> Summed:
    """Sum until there is a result, at most `attempts` times. Raises the last error.

    before  called ahead of every attempt; what it raises ends them
    """
    for left in reversed(range(attempts)):
        before()
        try:
            return sum_once(aggregator, task, among)
        except (RoundAbortedError, CodecError) as error:
            on_failure(str(error))
            if not left:
                raise
    raise TaskError("attempts: must be at least 1")
