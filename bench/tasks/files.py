"""Tasks that are an experiment file with a table [task]: what is shown, what is published, what is varied.

Changes are of the experiment's tables, by dotted key, as in its grid.

title, columns     of what is printed; details: columns of the JSON object's details, by variant
quick              changes with --quick
variants           name, published, changes; the last is the headline. Means over the seeds
local, pooled      changes for the baselines; local.every: only every so many sites
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as View

from bench.tasks.result import TaskResult, checked, result, run
from fedcore.evaluation import baselines
from fedcore.evaluation.baselines import Mode, Result, Trial
from fedcore.experiments import parse_experiment
from fedcore.experiments.data import load_data
from fedcore.experiments.federated import make_trial

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))
Changes = dict[str, Any]
Details = dict[str, dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class _File:
    """A task's file: the experiment, and the table [task] of it."""

    name: str
    experiment: dict[str, Any]
    task: dict[str, Any]
    quick: bool

    @classmethod
    def load(cls, name: str, *, quick: bool) -> _File:
        values = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
        task = values.pop("task")
        if quick:
            values["seeds"] = values["seeds"][:1]
        return cls(name, values, task, quick)

    @property
    def metric(self) -> str:
        return str(self.experiment["metric"])

    def trial(self, seed: int, *changes: Changes) -> Trial:
        """The experiment with changes, later ones before earlier ones; --quick before all but the last."""
        grid: Changes = {}
        for one in changes:
            grid |= one
        if self.quick:
            grid |= self.task.get("quick", {})
        grid = {key: [value] for key, value in grid.items() if key != "every"}
        point = parse_experiment({**self.experiment, "grid": grid}).points[0]
        return make_trial(point, seed, load_data(point.data, seed, FOLDER))

    def baseline(self, mode: Mode, changes: Changes) -> dict[str, float]:
        """Means over the seeds of training alone or pooled."""
        more = self.task.get(mode, {})
        found = []
        for seed in self.experiment["seeds"]:
            trial = self.trial(seed, changes, more)
            rows = dict(list(trial.rows.items())[:: more.get("every", 1)])
            found.append(baselines.run(replace(trial, rows=rows), mode).metrics)
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


@dataclass(frozen=True, slots=True)
class _Row:
    """A variant: one trial and comparison for each seed."""

    name: str
    changes: Changes
    published: float | None
    runs: list[tuple[Trial, dict[Mode, Result]]]

    def metric(self, mode: Mode, name: str) -> list[float]:
        return [found[mode].metrics[name] for _, found in self.runs]


def main(name: str, console: Console, *, quick: bool = False) -> TaskResult:
    """Run the task and print its table."""
    file = _File.load(name, quick=quick)
    rows = []
    for variant in file.task.get("variants", [{}]):
        runs = []
        for seed in file.experiment["seeds"]:
            trial = file.trial(seed, variant.get("changes", {}))
            title = ", ".join(filter(None, (name, variant.get("name", ""))))
            show = lambda text: console.print(text, highlight=False)  # noqa: E731
            runs.append((trial, run(title, file.metric, trial, show)))
        rows.append(_Row(variant.get("name", ""), variant.get("changes", {}), variant.get("published"), runs))
    best = rows[-1]
    local, pooled = (file.baseline(mode, best.changes) for mode in (Mode.LOCAL, Mode.POOLED))
    details = {row.name: _details(file, row) for row in rows if row.name}
    console.print(_view(file, rows, local, pooled, details))
    secure = [checked(found) for row in rows for _, found in row.runs]
    nearest = max(secure, key=lambda one: one.difference / one.bound)
    return result(
        name,
        file.metric,
        *best.runs[0],
        local=local[file.metric],
        pooled=pooled[file.metric],
        plain=float(np.mean(best.metric(Mode.PLAIN, file.metric))),
        secure=float(np.mean(best.metric(Mode.SECURE, file.metric))),
        seconds=sum(one.seconds for row in rows for _, found in row.runs for one in found.values()),
        max_difference=nearest.difference,
        bound=nearest.bound,
        details=details,
    )


def _details(file: _File, row: _Row) -> dict[str, float | None]:
    """The columns that the file asks for."""
    secure = row.metric(Mode.SECURE, file.metric)
    known: dict[str, Any] = {
        "plain": lambda: float(np.mean(row.metric(Mode.PLAIN, file.metric))),
        "secure": lambda: float(np.mean(secure)),
        "deviation": lambda: float(np.std(secure)),
        "published": lambda: row.published,
        "pooled": lambda: file.baseline(Mode.POOLED, row.changes)[file.metric],
    }
    return {name: known[name]() for name in file.task["details"]}


def _view(
    file: _File,
    rows: list[_Row],
    local: Changes,
    pooled: Changes,
    details: Details,
) -> View:
    view = View(title=file.task["title"])
    columns = file.task["details"] if details else file.task["columns"]
    for column in ("training", *columns):
        view.add_column(column)
    if details:
        for name, row in details.items():
            view.add_row(name, *("" if value is None else f"{value:.4f}" for value in row.values()))
        notes = {"local": local[file.metric], "pooled": pooled[file.metric]}
        view.caption = ", ".join(f"{key} {value:.4f}" for key, value in notes.items())
        return view
    plain, secure = ({m: float(np.mean(rows[-1].metric(mode, m))) for m in columns} for mode in _BOTH)
    for name, metrics in (
        ("each site alone, mean", local),
        ("federated, real numbers", plain),
        ("federated, secure", secure),
        ("pooled", pooled),
    ):
        view.add_row(name, *(f"{metrics[m]:.4f}" for m in columns))
    return view


_BOTH = (Mode.PLAIN, Mode.SECURE)
