"""One federated run of an experiment: recorded and checkpointed after every round, and taken up again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedcore.data.schema import Schema
from fedcore.errors import DataError, SettingError
from fedcore.evaluation.baselines import Mode, Trial
from fedcore.experiments.attack import with_attack
from fedcore.experiments.config import Experiment, Point
from fedcore.experiments.data import FederatedData
from fedcore.experiments.dropout import absences, threat_model
from fedcore.experiments.results import Outcome, cell_folder, read_rounds
from fedcore.experiments.tracking import Tracker, trackers
from fedcore.learner import Metrics, Parameters, flatten
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.model import SUFFIX
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.state import RunState, restore_sites, sites_kept
from fedcore.rounds.upload import plan_upload
from fedcore.settings import to_json
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies.named import strategy_json
from secagg import SecAggError

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One point of the grid with one seed: what all its modes share."""

    experiment: Experiment
    index: int
    trial: Trial
    schema: Schema
    folder: Path

    @property
    def point(self) -> Point:
        """The point's settings."""
        return self.experiment.points[self.index]

    @classmethod
    def of(cls, experiment: Experiment, index: int, seed: int, data: FederatedData, folder: Path) -> Cell:
        """Build learner, strategy and plan for the data. Raises SettingError."""
        trial = make_trial(experiment.points[index], seed, data)
        return cls(experiment, index, trial, data.schema, cell_folder(folder, index, seed))

    def evaluate(self, parameters: Parameters, standardizer: Standardizer) -> Metrics:
        """Evaluate on the common held-out rows. Raises SettingError when the metric is none of them."""
        return self.check_metric(self.trial.evaluate(parameters, standardizer))

    def check_metric(self, metrics: Metrics) -> Metrics:
        """Return the metrics. Raises SettingError: the experiment's own is none of them."""
        if (wanted := self.experiment.metric) not in metrics:
            raise SettingError(f"metric: must be one of {', '.join(sorted(metrics))}, is {wanted!r}")
        return metrics

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, with what the data have said."""
        point = self.point
        parts = {"data": point.data, "dropout": point.dropout, "attack": point.attack}
        described = {name: to_json(part) for name, part in parts.items() if part is not None}
        return described | {
            "learner": point.agreed.learner_json(self.schema, self.trial.seed),
            "plan": to_json(self.trial.plan),
            "strategy": strategy_json(self.trial.strategy),
        }

    def outcome(self, mode: Mode, metrics: Metrics, **fields: Any) -> Outcome:  # noqa: ANN401
        """Return an outcome of this cell."""
        values: dict[str, Any] = {"worst": {}, "rounds": self.trial.plan.rounds} | fields
        changes = self.point.changes
        return Outcome(
            point=self.index, seed=self.trial.seed, mode=str(mode), changes=changes, metrics=metrics, **values
        )


def make_trial(point: Point, seed: int, data: FederatedData) -> Trial:
    """Return what a point of the grid compares, with one seed. Raises SettingError."""
    clients, names = len(data.sites), sorted(data.sites)
    plan = point.make_plan(clients=clients, largest=max(map(len, data.sites.values())), seed=seed)
    if plan.cohort is not None and not plan.standardize:  # no sum is over more sites than a cohort
        plan = replace(plan, clients=plan.cohort)
    return Trial(
        rows=data.sites,
        held_out=data.held_out,
        schema=data.schema,
        learner=point.agreed.make_learner(data.schema, seed),
        strategy=point.agreed.make_strategy(clients),
        plan=plan,
        absent=absences(point.dropout, plan, names),
        threat_model=threat_model(point.dropout, min(clients, plan.cohort or clients)),
        seed=seed,
        attack=lambda sites: with_attack(sites, point.attack, seed),
    )


@dataclass(slots=True)
class Recorder:
    """Adds up the sums of a round, and writes one line when the round is over."""

    metric: str
    trackers: list[Tracker]
    show: Show
    started: float = field(default_factory=time.perf_counter)
    names: set[str] = field(default_factory=set)
    values: dict[str, float] = field(default_factory=dict)

    def on_round(self, record: RoundRecord) -> None:
        """Take one sum of training, or an attempt at one."""
        if record.task.kind is not TaskKind.TRAIN:
            return
        if record.result is None:
            self._add("failed", 1)
        else:
            self.names.update(record.result.survivors)
            self._add("bytes_up", record.result.bytes_up)
            self._add("bytes_down", record.result.bytes_down)
        known = {"epsilon": record.epsilon, "norm": record.norm, "within": record.within}
        self.values |= {name: value for name, value in known.items() if value is not None}

    def _add(self, name: str, value: float) -> None:
        self.values[name] = self.values.get(name, 0.0) + value

    def finish(self, checkpoint: RunState) -> dict[str, float]:
        """Log the round and begin the next. Returns what was logged."""
        now = time.perf_counter()
        line = self.values | checkpoint.evaluations.get(checkpoint.number, {})
        line |= {"survivors": len(self.names), "seconds": round(now - self.started, 4)}
        for tracker in self.trackers:
            tracker.log(line, checkpoint.number)
        self.values, self.names, self.started = {}, set(), now
        return line


def run_federated(cell: Cell, mode: Mode, show: Show) -> Outcome:
    """Train in one mode, from the checkpoint if there is one.

    A run that ends with an error of its own is an outcome, too: with the model of the last checkpoint.
    """
    path = cell.folder / f"{mode}{SUFFIX}"
    sites, rounds = cell.trial.sites(), cell.trial.plan.rounds
    resume = RunState.load(path) if path.exists() else None
    if resume is not None:
        restore_sites(sites, resume.sites)
    last = [resume]
    recorder = _recorder(cell, mode, show, 0 if resume is None else resume.number)

    def keep(checkpoint: RunState) -> None:
        if checkpoint.number == (0 if last[0] is None else last[0].number):
            return  # an attempt begins: a simulation that is interrupted has released nothing
        whole = replace(checkpoint, sites=sites_kept(sites))
        line = recorder.finish(whole)
        whole.save(path)
        last[0] = whole
        show({"event": "round", "mode": str(mode), "number": whole.number, "rounds": rounds} | line)

    federation = cell.trial.federation(
        mode, cell.trial.aggregator(mode, sites), recorder.on_round, keep, cell.evaluate
    )
    stopped = failure = ""
    try:
        stopped = federation.run(resume).stopped
    except (SettingError, DataError):  # of the file
        raise
    except SecAggError as error:
        failure = str(error)
    finally:
        for tracker in recorder.trackers:
            tracker.close()
    return _outcome(cell, mode, last[0], stopped, failure)


def _recorder(cell: Cell, mode: Mode, show: Show, resume: int) -> Recorder:
    experiment = cell.experiment
    table = experiment.tracking
    found = trackers(table, project=experiment.name, folder=cell.folder, mode=mode, resume=resume)
    for tracker in found:
        tracker.start(
            f"{experiment.name}-{cell.index}-{cell.trial.seed}-{mode}",
            {"mode": str(mode), "seed": cell.trial.seed, **cell.describe()},
        )
    return Recorder(experiment.metric, found, show)


def _outcome(cell: Cell, mode: Mode, last: RunState | None, stopped: str, failure: str) -> Outcome:
    """Sum up the rounds' lines, which are whole also where the run was interrupted."""
    if last is None:
        return cell.outcome(mode, {}, rounds=0, failure=failure)
    lines = read_rounds(cell.folder.parent, cell.index, cell.trial.seed, mode)
    upload = plan_upload(cell.trial.plan, cell.trial.strategy.asks(), flatten(last.parameters).size)
    return cell.outcome(
        mode,
        cell.evaluate(last.parameters, last.standardizer),
        rounds=last.number,
        stopped=stopped,
        failure=failure,
        epsilon=max((line["epsilon"] for line in lines if "epsilon" in line), default=None),
        bytes_up=_mean([line.get("bytes_up", 0) / max(line["survivors"], 1) for line in lines]),
        bytes_down=_mean([line.get("bytes_down", 0) / max(line["survivors"], 1) for line in lines]),
        upload_bytes=upload.float32_bytes if mode is Mode.PLAIN else upload.bytes,
        float32_bytes=upload.float32_bytes,
        survivors=_mean([line["survivors"] for line in lines]),
        seconds=round(sum(line["seconds"] for line in lines), 3),
        digest=digest(last.parameters),
    )


def digest(parameters: Parameters) -> str:
    """Return SHA-256 of the parameters, as hex."""
    return hashlib.sha256(flatten(parameters).tobytes()).hexdigest()


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
