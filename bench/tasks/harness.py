"""One task: train in the clear and under secure aggregation, compare, and print one JSON object."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.learner import Learner, Metrics
from fedcore.rounds.aggregation import FloatSum, GroupSum, SecureSum, SumAggregator, real_mean
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Contribution, Site
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.strategies import Strategy
from fedcore.stream import choose, derive
from secagg import ThreatModel

FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The last line of a task's output.

    metric                  of local, plain, secure and pooled; local: mean over the sites alone
    plain                   federated in real numbers; secure: through the protocol
    bytes_per_client_round  sent by a client in a training round, all phases
    float32_bytes           of the update in the clear
    max_difference          largest difference of a coordinate between the mean update that the secure
                            sum gave and the mean of the same updates in real numbers; bound: of rounding
    """

    task: str
    metric: str
    local: float | None
    plain: float
    secure: float
    pooled: float
    bytes_per_client_round: float
    float32_bytes: int
    seconds: float
    max_difference: float
    bound: float
    rounds: int
    clients: int
    bits: int
    ring_bits: int
    bytes_per_value_net: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


class _Remembering(Site):
    """A site that keeps what it last computed, so that the sum can be checked without computing twice."""

    last: Contribution

    def accept(self, task: Task) -> Callable[[], Contribution]:
        compute = Site.accept(self, task)

        def remembered() -> Contribution:
            self.last = compute()
            return self.last

        return remembered


@dataclass(slots=True)
class Checked:
    """A SecureSum whose every result is compared with the mean of the same updates in real numbers."""

    inner: SecureSum
    difference: float = 0.0
    bound: float = 0.0
    traffic: list[tuple[int, int]] = field(default_factory=list)  # (bytes up, clients) by training round
    ring_bits: int = 0
    length: int = 0

    @property
    def names(self) -> Sequence[str]:
        return self.inner.names

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        return self.inner.deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        result = self.inner.sum(task, among)
        if task.kind is TaskKind.TRAIN:
            decoded, encoding = result.mean, task.encoding
            real = real_mean([self._site(name).last for name in result.survivors])
            self.difference = max(self.difference, float(np.abs(decoded.mean - real.mean).max()))
            self.bound = max(self.bound, encoding.codec.error_bound(len(result.survivors), decoded.weight))
            asked = len(self.names if among is None else among)
            self.traffic.append((result.bytes_up, asked))
            self.ring_bits, self.length = encoding.codec.ring_bits, encoding.length
        return result

    def _site(self, name: str) -> _Remembering:
        site = self.inner.sites[name]
        if not isinstance(site, _Remembering):
            raise TypeError(f"{name}: {type(site).__name__} does not remember")
        return site


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a task trains.

    rows       by site; held_out: what models are evaluated on, with `metric`
    absent     sites that drop out, by task name
    """

    name: str
    metric: str
    rows: Mapping[str, Any]
    schema: Schema | None
    learner: Learner[Any]
    plan: TrainingPlan
    strategy: Strategy
    evaluate: Callable[[RunState], Metrics]
    classes: tuple[str, ...] = ()
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    seed: int = 0

    def sites(self, kind: type[Site] = Site) -> dict[str, Site]:
        """Return fresh sites."""
        return {
            name: kind(name, rows, self.schema, self.learner, self.seed) for name, rows in self.rows.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one setting gave."""

    plain: Metrics
    secure: Metrics
    checked: Checked
    model: RunState
    seconds: float

    @property
    def bytes_per_client_round(self) -> float:
        """Mean over training rounds of the bytes that a client sends."""
        return float(np.mean([up / asked for up, asked in self.checked.traffic]))


def run(setting: Setting, show: Callable[[str], None] = lambda _line: None) -> Outcome:
    """Train twice, in real numbers and under secure aggregation, with the same dropouts."""
    began = time.perf_counter()
    plain = train(setting, FloatSum(setting.sites(), setting.absent))
    show(f"{setting.name}, plain: {setting.evaluate(plain)[setting.metric]:.4f}")
    checked = Checked(SecureSum(setting.sites(_Remembering), setting.absent, setting.threat_model))
    secure = train(setting, checked, show)
    return Outcome(
        plain=setting.evaluate(plain),
        secure=setting.evaluate(secure),
        checked=checked,
        model=secure,
        seconds=time.perf_counter() - began,
    )


def train(
    setting: Setting, aggregator: SumAggregator, show: Callable[[str], None] = lambda _line: None
) -> RunState:
    """Train once."""

    def on_round(record: RoundRecord) -> None:
        if record.result is not None and record.task.kind is TaskKind.TRAIN and record.task.number % 10 == 0:
            show(f"{setting.name}: {record.task.name} of {setting.plan.rounds}")

    return Federation(
        aggregator,
        setting.schema,
        setting.learner,
        setting.plan,
        setting.strategy,
        on_round=on_round,
        classes=setting.classes,
    ).run()


def result(
    setting: Setting,
    outcome: Outcome,
    *,
    local: float | None,
    pooled: float,
    **details: Any,  # noqa: ANN401
) -> TaskResult:
    """Put the figures of one setting together."""
    values = sum(array.size for array in setting.learner.initial().values())
    checked = outcome.checked
    return TaskResult(
        task=setting.name,
        metric=setting.metric,
        local=local,
        plain=outcome.plain[setting.metric],
        secure=outcome.secure[setting.metric],
        pooled=pooled,
        bytes_per_client_round=outcome.bytes_per_client_round,
        float32_bytes=FLOAT32 * values,
        seconds=outcome.seconds,
        max_difference=checked.difference,
        bound=checked.bound,
        rounds=outcome.model.number,
        clients=len(setting.rows),
        bits=setting.plan.bits,
        ring_bits=checked.ring_bits,
        bytes_per_value_net=checked.length * setting.plan.bits / 8 / values,
        details=details,
    )


def with_seed(setting: Setting, seed: int) -> Setting:
    """Return the setting with other training and rounding."""
    return replace(setting, seed=seed, plan=replace(setting.plan, seed=seed))


def one_absent(names: Sequence[str], rounds: int, seed: int, every: int = 1) -> dict[str, frozenset[str]]:
    """One site that drops out in every `every`-th training round, drawn by a seed."""
    return some_absent(names, rounds, seed, 1, every)


def some_absent(
    names: Sequence[str], rounds: int, seed: int, count: int, every: int = 1
) -> dict[str, frozenset[str]]:
    """So many sites that drop out in every `every`-th training round."""
    ordered, out = sorted(names), {}
    for number in range(every, rounds + 1, every):
        chosen = choose(derive(seed.to_bytes(8, "big"), "absent", number), len(ordered), count)
        out[f"{TaskKind.TRAIN} {number}"] = frozenset(ordered[i] for i in chosen)
    return out


def fit_alone(learner: Learner[Any], rows: Any, rounds: int, seed: int) -> dict[str, NDArray[np.float64]]:  # noqa: ANN401
    """Train on one table as long as a federation does: the local and pooled baselines."""
    parameters = learner.initial()
    for number in range(rounds):
        parameters = learner.fit(parameters, rows, seed * 1000 + number)
    return parameters
