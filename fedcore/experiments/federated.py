"""One federated run of an experiment: recorded and checkpointed after every round, and taken up again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedcore.errors import DataError
from fedcore.experiments.attack import with_attack
from fedcore.experiments.build import make_learner, make_plan, make_strategy
from fedcore.experiments.config import Experiment, Point
from fedcore.experiments.data import FederatedData
from fedcore.experiments.dropout import absences, threat_model
from fedcore.experiments.results import Outcome, cell_folder, read_rounds
from fedcore.experiments.tracking import Tracker, trackers
from fedcore.learner import Learner, Metrics, Parameters, flatten
from fedcore.rounds.aggregation import FloatSum, PlainSum, SecureSum, SumAggregator
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.state import RunState, restore_sites, sites_kept
from fedcore.rounds.upload import plan_upload
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import Strategy
from secagg import SecAggError

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One point of the grid with one seed: what all its modes share."""

    experiment: Experiment
    index: int
    seed: int
    data: FederatedData
    learner: Learner[Any]
    strategy: Strategy
    plan: TrainingPlan
    folder: Path

    @property
    def point(self) -> Point:
        """The point's settings."""
        return self.experiment.points[self.index]

    @classmethod
    def of(cls, experiment: Experiment, index: int, seed: int, data: FederatedData, folder: Path) -> Cell:
        """Build learner, strategy and plan for the data. Raises DataError."""
        point, clients = experiment.points[index], len(data.sites)
        largest = max(map(len, data.sites.values()))
        features, classes = len(data.schema.columns), len(data.schema.classes)
        plan = make_plan(
            point.plan, point.privacy, point.dropout, clients=clients, largest=largest, seed=seed
        )
        return cls(
            experiment,
            index,
            seed,
            data,
            make_learner(point.learner, features, classes, seed),
            make_strategy(point.strategy, clients, private=point.privacy is not None),
            plan,
            cell_folder(folder, index, seed),
        )

    def evaluate(self, parameters: Parameters, standardizer: Standardizer) -> Metrics:
        """Evaluate on the common held-out rows. Raises DataError when the metric is none of them."""
        metrics = self.learner.evaluate(parameters, standardizer.apply(self.data.held_out))
        if (wanted := self.experiment.metric) not in metrics:
            raise DataError(f"metric: must be one of {', '.join(sorted(metrics))}, is {wanted!r}")
        return metrics

    def outcome(self, mode: str, metrics: Metrics, **fields: Any) -> Outcome:  # noqa: ANN401
        """Return an outcome of this cell."""
        values: dict[str, Any] = {"worst": {}, "rounds": self.plan.rounds} | fields
        changes = self.point.changes
        return Outcome(
            point=self.index, seed=self.seed, mode=mode, changes=changes, metrics=metrics, **values
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


def run_federated(cell: Cell, mode: str, show: Show) -> Outcome:
    """Train in one mode, from the checkpoint if there is one.

    A run that ends with an error of its own is an outcome, too: with the model of the last checkpoint.
    """
    path = cell.folder / f"{mode}.npz"
    plan = cell.plan if mode != "plain" else replace(cell.plan, privacy=None)
    sites = with_attack(make_sites(cell), cell.point.attack, cell.seed)
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
        show({"event": "round", "mode": mode, "number": whole.number, "rounds": plan.rounds} | line)

    federation = Federation(
        _aggregator(mode, sites, cell),
        cell.data.schema,
        cell.learner,
        plan,
        cell.strategy,
        recorder.on_round,
        evaluator=cell.evaluate,
        on_checkpoint=keep,
    )
    stopped = failure = ""
    try:
        stopped = federation.run(resume).stopped
    except DataError:  # of the file
        raise
    except SecAggError as error:
        failure = str(error)
    finally:
        for tracker in recorder.trackers:
            tracker.close()
    return _outcome(cell, mode, last[0], stopped, failure)


def make_sites(cell: Cell) -> dict[str, Site]:
    """Return honest sites whose training and rounding repeat by the seed."""
    data = cell.data
    return {
        name: Site(name, table, data.schema, cell.learner, cell.seed) for name, table in data.sites.items()
    }


def _aggregator(mode: str, sites: Mapping[str, Site], cell: Cell) -> SumAggregator:
    names = sorted(sites)
    absent = absences(cell.point.dropout, cell.plan, names)
    if mode == "secure":
        size = min(len(names), cell.plan.cohort or len(names))
        return SecureSum(sites, absent, threat_model(cell.point.dropout, size))
    return FloatSum(sites, absent) if mode == "plain" else PlainSum(sites, absent)


def _recorder(cell: Cell, mode: str, show: Show, resume: int) -> Recorder:
    experiment = cell.experiment
    table = experiment.tracking
    found = trackers(table, project=experiment.name, folder=cell.folder, mode=mode, resume=resume)
    for tracker in found:
        tracker.start(
            f"{experiment.name}-{cell.index}-{cell.seed}-{mode}",
            {"mode": mode, "seed": cell.seed, **cell.point.describe()},
        )
    return Recorder(experiment.metric, found, show)


def _outcome(cell: Cell, mode: str, last: RunState | None, stopped: str, failure: str) -> Outcome:
    """Sum up the rounds' lines, which are whole also where the run was interrupted."""
    if last is None:
        return cell.outcome(mode, {}, rounds=0, failure=failure)
    lines = read_rounds(cell.folder.parent, cell.index, cell.seed, mode)
    upload = plan_upload(cell.plan, cell.strategy.asks(), flatten(last.parameters).size)
    return cell.outcome(
        mode,
        cell.evaluate(last.parameters, last.standardizer),
        rounds=last.number,
        stopped=stopped,
        failure=failure,
        epsilon=max((line["epsilon"] for line in lines if "epsilon" in line), default=None),
        bytes_up=_mean([line.get("bytes_up", 0) / max(line["survivors"], 1) for line in lines]),
        bytes_down=_mean([line.get("bytes_down", 0) / max(line["survivors"], 1) for line in lines]),
        upload_bytes=upload.float32_bytes if mode == "plain" else upload.bytes,
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
