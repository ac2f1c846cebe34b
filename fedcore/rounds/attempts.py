"""One secure sum about a task, tried again while it has no result; in groups, once somebody spoiled it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from fedcore.codec.codec import WeightedMean
from fedcore.errors import CodecError, TaskError
from fedcore.learner import Parameters
from fedcore.rounds.aggregation import GroupSum, SpoiledSumError, SumAggregator
from fedcore.rounds.task import Task
from secagg import RoundAbortedError


@dataclass(frozen=True, slots=True, eq=False)
class RoundRecord:
    """Outcome of one task: the sum, or the reason why there is none; the model after it.

    epsilon  spent up to and with this round, where noise is added
    norm     that the updates were clipped to; within: share of the sites whose update was, if asked for
    """

    task: Task
    result: GroupSum | None
    reason: str
    parameters: Parameters
    epsilon: float | None = None
    norm: float | None = None
    within: float | None = None

    @property
    def weight(self) -> int:
        """Sum of the weights; 0 without a result."""
        return 0 if self.result is None else self.result.mean.weight


OnRound: TypeAlias = Callable[[RoundRecord], None]


@dataclass(slots=True)
class Attempts:
    """Sums about tasks, each tried so often at most.

    smallest  fewest sites of a group; groups are dealt of those who were in a sum that makes no sense
    before    called ahead of every attempt with its task; what it raises ends them
    failed    told of every attempt, or group of one, that has no result: its task, and why
    done      attempts that were made before
    """

    aggregator: SumAggregator
    attempts: int
    smallest: int
    before: Callable[[Task], None]
    failed: Callable[[Task, str], None]
    done: int = 0

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Return the sum, or the combined sums of the groups that make sense.

        raises  the last RoundAbortedError or CodecError; TaskError: everybody refused or failed
        """
        attempt, last = self.done, TaskError(f"attempts: all {self.attempts} of {task.name} are spent")
        while attempt < self.attempts:
            attempt += 1
            one = replace(task, attempt=attempt)
            self.before(one)
            try:
                return self.aggregator.sum(one, among)
            except SpoiledSumError as error:
                self.failed(one, str(error))
                if attempt == self.attempts:
                    raise
                return self._in_groups(task, attempt, error)
            except (RoundAbortedError, CodecError) as error:
                self.failed(one, str(error))
                if attempt == self.attempts:
                    raise
        raise last

    def _in_groups(self, task: Task, attempt: int, spoiled: SpoiledSumError) -> GroupSum:
        """Halve what makes no sense until the attempts, or the sites of a group, are too few."""
        found: list[GroupSum] = []
        suspects = list(self._halves(spoiled.survivors))
        last: Exception = spoiled
        while suspects and attempt < self.attempts:
            attempt += 1
            again: list[tuple[str, ...]] = []
            for number, group in enumerate(suspects, 1):
                one = replace(task, attempt=attempt, group=number)
                self.before(one)
                try:
                    found.append(self.aggregator.sum(one, group))
                except (RoundAbortedError, CodecError, TaskError) as error:
                    self.failed(one, f"group {number} of {len(suspects)}: {error}")
                    last = error
                    if isinstance(error, SpoiledSumError):
                        again += self._halves(error.survivors)
            suspects = again
        if not found:
            raise last
        return combined(found)

    def _halves(self, members: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Deal into two groups, where both are large enough."""
        if len(members) >= 2 * self.smallest:
            yield from self.aggregator.deal(members, 2)


def combined(sums: Sequence[GroupSum]) -> GroupSum:
    """Return the mean over the sites of all groups, weighted as they are; the total is that of none."""
    if len(sums) == 1:
        return sums[0]
    weight = sum(one.mean.weight for one in sums)
    mean = sum((one.mean.weight / weight) * one.mean.mean for one in sums)
    precise = sum((one.mean.weight / weight) * one.mean.precise for one in sums)
    return replace(
        sums[0],
        total=np.zeros(0, np.uint16),
        survivors=tuple(sorted(name for one in sums for name in one.survivors)),
        groups=tuple(one.survivors for one in sums),
        mean=WeightedMean(np.asarray(mean), weight, np.asarray(precise)),
        bytes_up=sum(one.bytes_up for one in sums),
        bytes_down=sum(one.bytes_down for one in sums),
        failures={name: why for one in sums for name, why in one.failures.items()},
    )
