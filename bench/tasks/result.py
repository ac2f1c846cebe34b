"""What a task gives: one JSON object, from one comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedcore.errors import TaskError
from fedcore.evaluation import baselines
from fedcore.evaluation.baselines import Checked, Mode, Result, Trial
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.questions import TaskKind

FLOAT32 = 4
Show = Callable[[str], None]


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


def run(name: str, metric: str, trial: Trial, show: Show) -> dict[Mode, Result]:
    """Train in real numbers and under secure aggregation, with the same dropouts."""

    def on_round(record: RoundRecord) -> None:
        if record.result is not None and record.task.kind is TaskKind.TRAIN and record.task.number % 10 == 0:
            show(f"{name}: {record.task.name} of {trial.plan.rounds}")

    found = {mode: baselines.run(trial, mode, on_round) for mode in (Mode.PLAIN, Mode.SECURE)}
    show(", ".join(f"{name}, {mode}: {one.metrics[metric]:.4f}" for mode, one in found.items()))
    return found


def checked(found: Mapping[Mode, Result]) -> Checked:
    """Return what was compared of the secure run."""
    if (one := found[Mode.SECURE].checked) is None:
        raise TaskError("secure: was not compared with real numbers")
    return one


def result(
    name: str,
    metric: str,
    trial: Trial,
    found: Mapping[Mode, Result],
    *,
    local: float | None,
    pooled: float,
    **changes: Any,  # noqa: ANN401
) -> TaskResult:
    """Put the figures of one setting together; changes: fields that are about more than this setting."""
    values = sum(array.size for array in trial.learner.initial().values())
    secure, model = checked(found), found[Mode.SECURE].model
    figures = TaskResult(
        task=name,
        metric=metric,
        local=local,
        plain=found[Mode.PLAIN].metrics[metric],
        secure=found[Mode.SECURE].metrics[metric],
        pooled=pooled,
        bytes_per_client_round=secure.bytes_per_client,
        float32_bytes=FLOAT32 * values,
        seconds=sum(one.seconds for one in found.values()),
        max_difference=secure.difference,
        bound=secure.bound,
        rounds=0 if model is None else model.number,
        clients=len(trial.rows),
        bits=trial.plan.bits,
        ring_bits=secure.ring_bits,
        bytes_per_value_net=secure.length * trial.plan.bits / 8 / values,
    )
    return TaskResult(**{key: getattr(figures, key) for key in TaskResult.__slots__} | changes)
