"""The round loop: standardize by two secure sums, then train by as many as the plan says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.aggregation import GroupSum, SumAggregator
from fedcore.codec import Codec, WeightedMean
from fedcore.errors import CodecError, TaskError
from fedcore.learner import Learner, Parameters, flatten, unflatten
from fedcore.schema import Schema
from fedcore.statistics import Standardizer, to_mean, to_standardizer
from fedcore.strategy import FedAvg, Strategy
from fedcore.task import Task, TaskKind
from secagg import RoundAbortedError

STATISTICS_BITS = 32  # of a unit mean: finer than any measurement

OnRound: TypeAlias = Callable[["RoundRecord"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What a run does, known to everybody.

    rounds      of training, after the two of statistics
    clients     enrolled sites: at most so many are summed
    weight_cap  most rows that count for a site
    clip, bits  of the updates, see Codec
    attempts    for a round that ends without a result
    raises      CodecError, TaskError
    """

    rounds: int
    clients: int
    weight_cap: int = 10_000
    clip: float = 1.0
    bits: int = 20
    attempts: int = 3

    def __post_init__(self) -> None:
        for kind in TaskKind:
            self.codec(kind)
        if self.attempts < 1 or self.rounds < 0:
            raise TaskError(f"attempts, rounds: at least 1 and 0, are {self.attempts}, {self.rounds}")

    def codec(self, kind: TaskKind) -> Codec:
        """Return the codec of a task: finer for statistics, whose values lie in [0, 1]."""
        training = kind is TaskKind.TRAIN
        return Codec(
            clip=self.clip if training else 1.0,
            bits=self.bits if training else STATISTICS_BITS,
            weight_cap=self.weight_cap,
            clients=self.clients,
        )


@dataclass(frozen=True, slots=True, eq=False)
class RoundRecord:
    """What became of one task: the sum, or the reason why there is none; the model after it."""

    task: Task
    result: GroupSum | None
    weight: int
    reason: str
    parameters: Parameters


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """The outcome of a run."""

    parameters: Parameters
    standardizer: Standardizer
    weight: int  # rows of the sites in the last statistics round


@dataclass(slots=True)
class Federation:
    """Drives an aggregator through a training plan.

    aggregator  PlainSum, SecureSum, or the service
    on_round    told what became of every task, as it happens
    """

    aggregator: SumAggregator
    schema: Schema
    learner: Learner[Any]
    plan: TrainingPlan
    strategy: Strategy = field(default_factory=FedAvg)
    on_round: OnRound = lambda _record: None

    def run(self) -> TrainedModel:
        """Train. A round without a result is tried again; raises the last RoundAbortedError."""
        standardizer, weight = self._standardize()
        parameters = self.learner.initial()
        for number in range(1, self.plan.rounds + 1):
            arrays = {"mean": standardizer.mean, "deviation": standardizer.deviation}
            arrays |= {f"model.{name}": array for name, array in parameters.items()}
            size = flatten(parameters).size
            task = self._task(TaskKind.TRAIN, number, size, arrays)
            current = parameters

            def advance(mean: WeightedMean, current: Parameters = current) -> Parameters:
                return unflatten(self.strategy.step(flatten(current), mean.mean), current)

            parameters = self._sum(task, current, advance)[1]
        return TrainedModel(parameters, standardizer, weight)

    def _standardize(self) -> tuple[Standardizer, int]:
        columns = len(self.schema.columns)
        nothing = self.learner.initial()
        first, _ = self._sum(self._task(TaskKind.MEAN, 1, columns, {}), nothing)
        mean = to_mean(first.mean, self.schema)
        task = self._task(TaskKind.DEVIATION, 1, columns, {"mean": mean})
        second, _ = self._sum(task, nothing)
        resolution = task.codec.error_bound(self.plan.clients, second.weight)
        return to_standardizer(mean, second.mean, self.schema, resolution), second.weight

    def _task(
        self, kind: TaskKind, number: int, dimension: int, arrays: dict[str, NDArray[np.float64]]
    ) -> Task:
        return Task(
            kind=kind,
            number=number,
            dimension=dimension,
            codec=self.plan.codec(kind),
            columns=tuple((column.name, column.low, column.high) for column in self.schema.columns),
            classes=self.schema.classes,
            arrays=arrays,
        )

    def _sum(
        self,
        task: Task,
        current: Parameters,
        advance: Callable[[WeightedMean], Parameters] | None = None,
    ) -> tuple[WeightedMean, Parameters]:
        """Sum until there is a result, at most `attempts` times; report each attempt."""
        for left in reversed(range(self.plan.attempts)):
            try:
                result = self.aggregator.sum(task)
                mean = task.codec.decode(result.total, len(result.survivors))
            except (RoundAbortedError, CodecError) as error:  # a CodecError: somebody sent no weight
                self.on_round(RoundRecord(task, None, 0, str(error), current))
                if not left:
                    raise
                continue
            following = current if advance is None else advance(mean)
            self.on_round(RoundRecord(task, result, mean.weight, "", following))
            return mean, following
        raise TaskError("attempts: must be at least 1")
