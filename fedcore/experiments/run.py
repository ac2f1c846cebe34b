"""Every point of the grid, every seed, every mode, into one folder that an interrupted run goes on in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from fedcore.errors import DataError
from fedcore.evaluation import baselines
from fedcore.evaluation.baselines import FEDERATED, Mode
from fedcore.experiments.attack import attack_of
from fedcore.experiments.config import Experiment
from fedcore.experiments.data import load_data
from fedcore.experiments.federated import Cell, Show, digest, run_federated
from fedcore.experiments.results import (
    RESULTS,
    Outcome,
    cell_folder,
    finite,
    read_outcomes,
)
from fedcore.experiments.tracking import require_packages
from fedcore.history import History
from fedcore.privacy.accounting import Accountant

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
    for mode in map(Mode, modes):
        yield run_federated(cell, mode, show) if mode in FEDERATED else _elsewhere(cell, mode)


def _elsewhere(cell: Cell, mode: Mode) -> Outcome:
    """Train each site alone, or on all rows in one place."""
    found = baselines.run(cell.trial, mode)
    model = found.model
    cell.check_metric(found.metrics)
    return cell.outcome(
        mode,
        finite(found.metrics),
        worst=finite(found.worst),
        seconds=round(found.seconds, 3),
        digest="" if model is None else digest(model.parameters),
    )
