"""Where the metrics of a run go: JSON lines always; TensorBoard, Weights & Biases and MLflow on demand.

Trackers are given settings and metrics, never keys, updates or parameters. Addresses and credentials of
their services come from the services' own environment variables.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedcore.errors import SettingError, needs
from fedcore.experiments.results import finite
from fedcore.experiments.tables import TrackingTable
from fedcore.history import History, read_history


class Tracker(Protocol):
    """Takes the metrics of one run, round by round."""

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Begin a run; config: its settings as JSON values."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take the metrics of a round. What is not finite is left out."""

    def close(self) -> None:
        """End the run; whatever was logged is kept."""


@dataclass(slots=True)
class JsonLines:
    """A file of JSON lines.

    resume  the round to go on after: what the file says of later ones is dropped
    """

    path: Path
    resume: int = 0
    _history: History | None = field(default=None, init=False, repr=False)

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Open the file; the first line has name and settings."""
        kept: list[dict[str, Any]] = []
        if self.resume and self.path.exists():
            kept = [e for e in read_history(self.path) if e["event"] != "run" and e["step"] <= self.resume]
        self.path.unlink(missing_ok=True)
        self._history = History(self.path)
        self._history.write("run", name=name, config=dict(config))
        for event in kept:
            self._history.write(**event)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a line."""
        if self._history is not None:
            self._history.write("metrics", step=step, **finite(metrics))

    def close(self) -> None:
        """Close the file."""
        if self._history is not None:
            self._history.close()


@dataclass(slots=True)
class TensorBoard:
    """Event files in a folder, by tensorboardX."""

    folder: Path
    resume: int = 0
    _writer: Any = field(default=None, init=False, repr=False)

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Open a writer; settings become a text."""
        module = _module("tensorboardX", "tensorboard")
        # A file of its own: one of the same second would be overwritten.
        again = {"purge_step": self.resume + 1, "filename_suffix": f".{self.resume}"} if self.resume else {}
        self._writer = module.SummaryWriter(str(self.folder), **again)
        self._writer.add_text("run", f"{name}: {dict(config)}")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add scalars."""
        for key, value in finite(metrics).items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


@dataclass(slots=True)
class Wandb:
    """A run of Weights & Biases."""

    project: str
    folder: Path
    _run: Any = field(default=None, init=False, repr=False)

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Begin a run of the project."""
        module = _module("wandb", "wandb")
        self._run = module.init(project=self.project, name=name, config=dict(config), dir=str(self.folder))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step."""
        self._run.log(finite(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


@dataclass(slots=True)
class Mlflow:
    """A run of MLflow."""

    project: str
    _module: Any = field(default=None, init=False, repr=False)

    def start(self, name: str, config: Mapping[str, Any]) -> None:
        """Begin a run of the experiment."""
        self._module = _module("mlflow", "mlflow")
        self._module.set_experiment(self.project)
        self._module.start_run(run_name=name)
        self._module.log_params(flat(config))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step."""
        self._module.log_metrics(finite(metrics), step=step)

    def close(self) -> None:
        """End the run."""
        self._module.end_run()


def trackers(
    table: TrackingTable, *, project: str, folder: Path, mode: str, resume: int = 0
) -> list[Tracker]:
    """Return what a run of `mode` is tracked by; its files lie in `folder`."""
    out: list[Tracker] = [JsonLines(folder / f"{mode}.jsonl", resume)]
    if table.tensorboard:
        out.append(TensorBoard(folder / "tensorboard" / mode, resume))
    if table.wandb:
        out.append(Wandb(project, folder))
    if table.mlflow:
        out.append(Mlflow(project))
    return out


def require_packages(table: TrackingTable) -> None:
    """Raise SettingError before anything is trained when a tracker's package is missing."""
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        if getattr(table, name):
            _module(package, name)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Spell nested settings as dotted names."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping)
        out |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return out


def _module(package: str, extra: str) -> Any:  # noqa: ANN401 - a module without types
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise SettingError(needs(f"tracking.{extra}", extra, error)) from None
