"""Every point of the grid, every seed, every mode, into one folder that an interrupted run goes on in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from fedcore.data.table import Table, join_tables
from fedcore.errors import DataError
from fedcore.evaluation.metrics import mean_metrics, worst_metrics
from fedcore.experiments.attack import attack_of
from fedcore.experiments.config import Experiment
from fedcore.experiments.data import load_data
from fedcore.experiments.federated import Cell, Show, digest, run_federated
from fedcore.experiments.results import (
    FEDERATED,
    RESULTS,
    Outcome,
    cell_folder,
    finite,
    read_outcomes,
)
from fedcore.experiments.tracking import require_packages
from fedcore.history import History
from fedcore.learner import Metrics, Parameters
from fedcore.privacy.accounting import Accountant
from fedcore.statistics.standardizer import Standardizer

COPY = "experiment.toml"


def new_folder(out: Path) -> Path:
    """Make a folder for a run, named by the time. Raises DataError when it cannot be made."""
    for attempt in range(100):
        suffix = f"-{attempt}" if attempt else ""
        folder = out / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise DataError(f"out: {out} has a folder of this second already")


def check_tools(experiment: Experiment) -> None:
    """Raise SettingError when a package or an attack that the file asks for is not there."""
    require_packages(experiment.tracking)
    if any(point.agreed.privacy is not None for point in experiment.points):
        Accountant(0.5)  # to hear at once that dp-accounting is missing
    for point in experiment.points:
        if point.attack is not None:
            attack_of(point.attack)


def run_experiment(experiment: Experiment, folder: Path, show: Show = lambda _event: None) -> list[Outcome]:
    """Run what `folder` has no outcome of yet, and return all outcomes.

    show    told about rounds and outcomes as they happen
    raises  SettingError: what the file asks for cannot be done; DataError: the folder is another experiment's
    """
    check_tools(experiment)
    _claim(experiment, folder)
    done = {outcome.key: outcome for outcome in read_outcomes(folder)}
    history = History(folder / RESULTS)
    try:
        if not done:
            history.write("experiment", name=experiment.name, metric=experiment.metric)
        for index in range(len(experiment.points)):
            for seed in experiment.seeds:
                missing = [mode for mode in experiment.compare if (index, seed, mode) not in done]
                for outcome in _run_cell(experiment, index, seed, missing, folder, show):
                    done[outcome.key] = outcome
                    history.write("result", **outcome.as_json())
                    show({"event": "result", "label": experiment.points[index].label, **outcome.as_json()})
    finally:
        history.close()
    return read_outcomes(folder)


def _claim(experiment: Experiment, folder: Path) -> None:
    """Keep the file beside the results; a folder goes on only with the file that it began with."""
    copy = folder / COPY
    if copy.exists():
        if copy.read_text(encoding="utf-8") != experiment.text:
            raise DataError(f"resume: {copy} is not the experiment that was given")
        return
    if (folder / RESULTS).exists():
        raise DataError(f"resume: {folder} has results without {COPY}")
    copy.write_text(experiment.text, encoding="utf-8")


def _run_cell(
    experiment: Experiment, index: int, seed: int, modes: list[str], folder: Path, show: Show
) -> Iterator[Outcome]:
    if not modes:
        return
    point = experiment.points[index]
    data = load_data(point.data, seed, experiment.folder)
    cell = Cell.of(experiment, index, seed, data, folder)
    cell_folder(folder, index, seed).mkdir(exist_ok=True)
    show({"event": "cell", "label": point.label, "seed": seed, "sites": len(data.sites)})
    for mode in modes:
        if mode in FEDERATED:
            yield run_federated(cell, mode, show)
        else:
            yield _local(cell) if mode == "local" else _pooled(cell)


def _local(cell: Cell) -> Outcome:
    """Train each site alone as long as the federation does: the mean and the worst site."""
    began = time.perf_counter()
    found = [cell.evaluate(*_alone(cell, table)) for table in cell.data.sites.values()]
    worst = finite(worst_metrics(found))
    return cell.outcome("local", finite(mean_metrics(found)), worst=worst, seconds=_since(began))


def _pooled(cell: Cell) -> Outcome:
    """Train on all rows in one place."""
    began = time.perf_counter()
    parameters, standardizer = _alone(cell, join_tables(list(cell.data.sites.values())))
    metrics: Metrics = cell.evaluate(parameters, standardizer)
    return cell.outcome("pooled", finite(metrics), seconds=_since(began), digest=digest(parameters))


def _alone(cell: Cell, table: Table) -> tuple[Parameters, Standardizer]:
    """Train on one table with its own standardization, for as many rounds of local training."""
    standardizer = Standardizer.none()
    if cell.plan.standardize:
        standardizer = Standardizer(table.features.mean(axis=0), table.features.std(axis=0))
    scaled = standardizer.apply(table)
    parameters = cell.learner.initial()
    for number in range(cell.plan.rounds):
        parameters = cell.learner.fit(parameters, scaled, cell.seed + number)
    return parameters, standardizer


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)
