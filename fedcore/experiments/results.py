"""Files of an experiment: outcomes in results.jsonl, the metrics of every round in a file of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcore.evaluation.baselines import Mode
from fedcore.history import read_history

MODES = tuple(str(mode) for mode in Mode)

NAMES = {
    "local": "each site alone, mean",
    "plain": "federated, real numbers in the clear",
    "quantized": "federated, quantized in the clear",
    "secure": "federated, secure",
    "pooled": "pooled",
}
RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of one mode at one point of the grid with one seed.

    metrics        on the common held-out rows; local: means over the sites
    worst          local: of the worst site
    rounds         of training that were run; stopped: why before the last; failure: why without an end
    bytes_up, bytes_down  all phases, for each survivor and training round, measured; 0 where nothing travels
    upload_bytes   one masked vector as planned; float32_bytes: the same values in the clear
    survivors      mean of the training rounds
    digest         of the final parameters: equal digests are equal models
    """

    point: int
    seed: int
    mode: str
    changes: dict[str, Any]
    metrics: dict[str, float]
    worst: dict[str, float]
    rounds: int
    stopped: str = ""
    failure: str = ""
    epsilon: float | None = None
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    upload_bytes: int = 0
    float32_bytes: int = 0
    survivors: float = 0.0
    seconds: float = 0.0
    digest: str = ""

    @property
    def key(self) -> tuple[int, int, str]:
        """Identity within the experiment: point, seed and mode."""
        return self.point, self.seed, self.mode

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = asdict(self)
        return values | {name: finite(values[name]) for name in ("metrics", "worst")}


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is not finite: JSON has no word for it."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def cell_folder(folder: Path, point: int, seed: int) -> Path:
    """Return where the files of one point and seed lie."""
    return folder / f"{point:03d}-seed-{seed}"


def read_outcomes(folder: Path) -> list[Outcome]:
    """Return what an experiment's folder has, in order."""
    path = folder / RESULTS
    if not path.exists():
        return []
    return [
        Outcome(**{name: value for name, value in event.items() if name not in {"event", "at"}})
        for event in read_history(path)
        if event["event"] == "result"
    ]


def read_rounds(folder: Path, point: int, seed: int, mode: str) -> list[dict[str, Any]]:
    """Return the metrics of every round of a federated run."""
    path = cell_folder(folder, point, seed) / f"{mode}.jsonl"
    return [event for event in read_history(path) if event["event"] == "metrics"] if path.exists() else []


def points(outcomes: Sequence[Outcome]) -> list[int]:
    """Return the points of the grid that have outcomes."""
    return sorted({outcome.point for outcome in outcomes})


def of_point(outcomes: Sequence[Outcome], point: int, mode: str) -> list[Outcome]:
    """Return the outcomes of a mode at a point, one for each seed."""
    return [one for one in outcomes if (one.point, one.mode) == (point, mode)]


def label_of(outcomes: Sequence[Outcome], point: int) -> str:
    """Return what the grid set at a point."""
    changes = next(one.changes for one in outcomes if one.point == point)
    return ", ".join(f"{key} = {value}" for key, value in changes.items())
