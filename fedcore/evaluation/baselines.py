"""The one comparison: each site alone, federated in three kinds of sums, and all rows in one place.

The demonstration, experiments and the benchmarks' tasks all call this; their reports differ, the training
does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, cast

import numpy as np

from fedcore.data.schema import Schema
from fedcore.data.table import Table, join_tables
from fedcore.evaluation.metrics import mean_metrics, worst_metrics
from fedcore.evaluation.personal import train_alone
from fedcore.learner import Learner, Metrics, Parameters
from fedcore.rounds.aggregation import FloatSum, GroupSum, PlainSum, SecureSum, SumAggregator, real_mean
from fedcore.rounds.attempts import OnRound
from fedcore.rounds.federation import Evaluator, Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Contribution, Site
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg, Strategy
from secagg import ThreatModel


class Mode(StrEnum):
    """Way to train, one of those that are compared.

    local: each site alone; plain: federated, in real numbers and without noise; quantized: with the secure
    sums' own arithmetic in the clear; secure: by the protocol; pooled: all rows in one place.
    """

    LOCAL = "local"
    PLAIN = "plain"
    QUANTIZED = "quantized"
    SECURE = "secure"
    POOLED = "pooled"


FEDERATED = (Mode.PLAIN, Mode.QUANTIZED, Mode.SECURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Data, learner and strategy, the same for all modes.

    rows      training rows by site, whatever the learner reads
    held_out  rows that every model is evaluated on; of several parts the metrics are averaged
    schema    of the rows; None: they are not standardized, and `classes` are the label's
    absent    sites that drop out of a round, by the name of its task
    attack    makes the sites that train of honest ones
    """

    rows: Mapping[str, Any]
    held_out: Sequence[Any]
    learner: Learner[Any]
    plan: TrainingPlan
    schema: Schema | None = None
    classes: tuple[str, ...] = ()
    strategy: Strategy = field(default_factory=FedAvg)
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    seed: int = 0
    attack: Callable[[Mapping[str, Site]], Mapping[str, Site]] = lambda sites: sites

    def evaluate(self, parameters: Parameters, standardizer: Standardizer) -> Metrics:
        """Return the metrics of a model on the common held-out rows."""
        parts = [standardizer.apply(part) for part in self.held_out]
        return mean_metrics([self.learner.evaluate(parameters, part) for part in parts])

    def sites(self, kind: type[Site] = Site) -> Mapping[str, Site]:
        """Return fresh sites, whose training and rounding repeat by the seed."""
        honest = {
            name: kind(name, rows, self.schema, self.learner, self.seed) for name, rows in self.rows.items()
        }
        return self.attack(honest)

    def alone(self, rows: Any) -> RunState:  # noqa: ANN401 - whatever the learner reads
        """Train in one place, with the rows' own standardization, as many rounds as the federation does."""
        standardizer = Standardizer.none()
        if self.schema is not None and self.plan.standardize:
            standardizer = Standardizer.of(rows)
        scaled = standardizer.apply(rows)
        parameters = train_alone(self.learner, self.plan, scaled, self.seed)
        return RunState.of(self.plan.rounds, parameters, standardizer)

    def federation(
        self,
        mode: Mode,
        aggregator: SumAggregator,
        on_round: OnRound = lambda _record: None,
        on_checkpoint: Callable[[RunState], None] = lambda _state: None,
        evaluate: Evaluator | None = None,
    ) -> Federation:
        """Return the training of a federated mode over an aggregator, such as its own (`aggregator`)."""
        return Federation(
            aggregator,
            self.schema,
            self.learner,
            replace(self.plan, privacy=None) if mode is Mode.PLAIN else self.plan,
            self.strategy,
            on_round=on_round,
            classes=self.classes,
            evaluator=evaluate or self.evaluate,
            on_checkpoint=on_checkpoint,
        )

    def aggregator(self, mode: Mode, sites: Mapping[str, Site]) -> SumAggregator:
        """Return the kind of sum that a federated mode is about."""
        if mode is Mode.SECURE:
            return SecureSum(sites, self.absent, self.threat_model)
        return (FloatSum if mode is Mode.PLAIN else PlainSum)(sites, self.absent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of one mode.

    metrics  on the held-out rows; local: means over the sites, worst: of the worst one
    model    local: none
    checked  secure: its sums beside means in real numbers, and their bytes
    """

    mode: Mode
    metrics: Metrics
    worst: Metrics = field(default_factory=dict)
    model: RunState | None = None
    checked: Checked | None = None
    seconds: float = 0.0

    def equals(self, other: Result) -> bool:
        """Tell whether both ended in the same parameters, bit for bit."""
        if self.model is None or other.model is None:
            return False
        mine, theirs = self.model.parameters, other.model.parameters
        return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def compare(trial: Trial, modes: Iterable[Mode]) -> dict[Mode, Result]:
    """Train and evaluate in every mode, one after the other."""
    return {mode: run(trial, mode) for mode in modes}


def run(trial: Trial, mode: Mode, on_round: OnRound = lambda _record: None) -> Result:
    """Train and evaluate in one mode. Raises what training does."""
    began = time.perf_counter()
    if mode is Mode.LOCAL:
        models = [trial.alone(rows) for rows in trial.rows.values()]
        found = [trial.evaluate(model.parameters, model.standardizer) for model in models]
        taken = time.perf_counter() - began
        return Result(mode=mode, metrics=mean_metrics(found), worst=worst_metrics(found), seconds=taken)
    checked = None
    if mode is Mode.POOLED:
        model = trial.alone(join_tables(cast("list[Table]", list(trial.rows.values()))))
    else:
        aggregator = trial.aggregator(mode, trial.sites(_Remembering))
        if isinstance(aggregator, SecureSum):
            aggregator = checked = Checked(aggregator)
        model = trial.federation(mode, aggregator, on_round).run()
    metrics, taken = trial.evaluate(model.parameters, model.standardizer), time.perf_counter() - began
    return Result(mode=mode, metrics=metrics, model=model, checked=checked, seconds=taken)


class _Remembering(Site):
    """A site that keeps what it last computed, so that a sum can be checked without computing twice."""

    last: Contribution

    def accept(self, task: Task) -> Callable[[], Contribution]:
        """Compute and remember."""
        compute = Site.accept(self, task)

        def remembering() -> Contribution:
            self.last = compute()
            return self.last

        return remembering


@dataclass(slots=True)
class Checked:
    """A SecureSum whose training sums are compared with the means of the same updates in real numbers.

    difference  largest of a coordinate so far; bound: of rounding. Sums with noise are not compared
    traffic     (bytes up, sites asked) by training sum
    ring_bits   of the last training sum; length: its entries
    """

    inner: SecureSum
    difference: float = 0.0
    bound: float = 0.0
    traffic: list[tuple[int, int]] = field(default_factory=list)
    ring_bits: int = 0
    length: int = 0

    @property
    def names(self) -> Sequence[str]:
        """All sites, ascending."""
        return self.inner.names

    @property
    def bytes_per_client(self) -> float:
        """Mean over the training sums of the bytes that a site sends in all phases."""
        return float(np.mean([up / asked for up, asked in self.traffic]))

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        """Deal as the sum itself does."""
        return self.inner.deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round, and compare."""
        result = self.inner.sum(task, among)
        if task.kind is TaskKind.TRAIN:
            asked = len(self.names if among is None else among)
            self.traffic.append((result.bytes_up, asked))
            self.ring_bits, self.length = task.encoding.codec.ring_bits, task.encoding.length
            self._compare(task, result)
        return result

    def _compare(self, task: Task, result: GroupSum) -> None:
        sites = [self.inner.sites[name] for name in result.survivors]
        honest = [site.last for site in sites if isinstance(site, _Remembering)]
        if task.encoding.noise is not None or len(honest) < len(sites):
            return
        real, bound = real_mean(honest), task.encoding.codec.error_bound(len(sites), result.mean.weight)
        self.difference = max(self.difference, float(np.abs(result.mean.mean - real.mean).max()))
        self.bound = max(self.bound, bound)
