"""Rounds and bytes until a target is reached, against clients, heterogeneity, dropouts and bits.

One setting is varied at a time; the others stay at the first value that was given for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from fedcore.errors import SettingError
from fedcore.evaluation.baselines import Mode
from fedcore.experiments.config import parse_experiment
from fedcore.experiments.data import load_data
from fedcore.experiments.federated import Cell, run_federated
from fedcore.experiments.results import Outcome
from fedcore.history import History

FACTORS = ("clients", "alpha", "dropout", "bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Values to vary, and the accuracy to reach.

    clients, alpha, dropout, bits  values; the first of each is what it is while the others vary
    target  accuracy; rounds: at most
    raises  SettingError
    """

    clients: tuple[int, ...] = (10, 5, 20)
    alpha: tuple[float, ...] = (1.0, 0.1, 100.0)
    dropout: tuple[float, ...] = (0.1, 0.0, 0.2)
    bits: tuple[int, ...] = (8, 4, 16)
    target: float = 0.9
    rounds: int = 20
    seeds: tuple[int, ...] = (0,)
    dataset: str = "digits"
    strategy: str = "FedAvg"
    rate: float = 0.05

    def __post_init__(self) -> None:
        for name in (*FACTORS, "seeds"):
            if not getattr(self, name):
                raise SettingError(f"{name}: needs a value")
        if not 0 < self.target <= 1:
            raise SettingError(f"target: must be in (0, 1], is {self.target}")

    def check(self) -> None:
        """Raise SettingError for a setting that no experiment could have."""
        for _varied, setting in self.settings():
            parse_experiment(self.file(setting))

    def settings(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (what is varied, all settings); the base stands once, under "base"."""
        base = {name: getattr(self, name)[0] for name in FACTORS}
        varied = [(name, base | {name: v}) for name in FACTORS for v in getattr(self, name)[1:]]
        return [("base", base), *varied]

    def file(self, setting: dict[str, Any]) -> dict[str, Any]:
        """Return the experiment of one setting."""
        return {
            "seeds": list(self.seeds),
            "compare": ["secure"],
            "data": {
                "name": self.dataset,
                "partition": "dirichlet",
                "clients": setting["clients"],
                "alpha": setting["alpha"],
            },
            "learner": {"kind": "softmax", "rate": self.rate},
            "strategy": {"name": self.strategy},
            "plan": {
                "rounds": self.rounds,
                "bits": setting["bits"],
                "stopping": {"target": self.target},
            },
            "dropout": {"rate": setting["dropout"]},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Result of one setting, means over the seeds.

    varied   which setting; base: none
    reached  share of the seeds that reached the target
    rounds, client_bytes  until then, or all rounds where it was not reached; client_bytes: up, all
             phases, of one client in all these rounds
    """

    varied: str
    clients: int
    alpha: float
    dropout: float
    bits: int
    reached: float
    rounds: float
    client_bytes: float
    accuracy: float
    failures: tuple[str, ...] = ()


def run_study(
    study: Study, folder: Path, show: Callable[[Reached], None] = lambda _one: None
) -> list[Reached]:
    """Run all settings; every result is a line of folder/convergence.jsonl as soon as it is there."""
    files = [(varied, setting, study.file(setting)) for varied, setting in study.settings()]
    parsed = [parse_experiment(values) for _varied, _setting, values in files]  # before anything is trained
    history = History(folder / "convergence.jsonl")
    history.write("study", **asdict(study))
    out = []
    try:
        for i, (varied, setting, _values) in enumerate(files):
            outcomes: list[Outcome] = []
            for seed in study.seeds:
                data = load_data(parsed[i].points[0].data, seed)
                cell = Cell.of(parsed[i], 0, seed, data, folder / f"{i:03d}-{varied}")
                cell.folder.mkdir(parents=True)
                outcomes.append(run_federated(cell, Mode.SECURE, lambda _event: None))
            one = _reached(varied, setting, outcomes)
            history.write("reached", **asdict(one))
            show(one)
            out.append(one)
    finally:
        history.close()
    return out


def _reached(varied: str, setting: dict[str, Any], outcomes: Sequence[Outcome]) -> Reached:
    return Reached(
        varied=varied,
        **setting,
        reached=mean(bool(one.stopped) for one in outcomes),
        rounds=mean(one.rounds for one in outcomes),
        client_bytes=mean(one.rounds * one.bytes_up for one in outcomes),
        accuracy=mean(one.metrics.get("accuracy", math.nan) for one in outcomes),
        failures=tuple(one.failure for one in outcomes if one.failure),
    )


def plot_study(study: Study, results: Sequence[Reached], path: Path) -> None:
    """Plot rounds and bytes against each of the four settings; open marks did not reach the target."""
    from fedcore.experiments.plots import figure_with

    figure, axes = figure_with(len(FACTORS))
    for name, left in zip(FACTORS, axes, strict=True):
        ones = sorted((o for o in results if o.varied in {"base", name}), key=lambda o: getattr(o, name))
        at = [getattr(one, name) for one in ones]
        left.plot(at, [one.rounds for one in ones], color="tab:blue")
        for one, x in zip(ones, at, strict=True):
            left.plot(
                [x], [one.rounds], "o", color="tab:blue", fillstyle="full" if one.reached == 1 else "none"
            )
        right = left.twinx()
        right.plot(at, [one.client_bytes / 1000 for one in ones], "s--", color="tab:orange")
        left.set(xlabel=name, xscale="log" if name == "alpha" else "linear")
        left.set_ylabel(f"rounds to accuracy {study.target:g}", color="tab:blue")
        left.set_ylim(0, 1.1 * max(one.rounds for one in ones))
        right.set_ylabel("kB up of a client", color="tab:orange")
        right.set_ylim(0, 1.1 * max(one.client_bytes for one in ones) / 1000)
    figure.savefig(path, dpi=120)


def print_study(study: Study, results: Sequence[Reached], console: Any) -> None:  # noqa: ANN401 - rich's
    """Print one row for each setting."""
    from rich.table import Table

    table = Table(title=f"{study.dataset}, {study.strategy}: until accuracy {study.target:g}")
    for head in ("varied", *FACTORS, "rounds", "kB up of a client", "accuracy"):
        table.add_column(head, justify="left" if head == "varied" else "right")
    for one in results:
        more = "" if one.reached == 1 else "> "
        table.add_row(
            one.varied,
            *(f"{getattr(one, name):g}" for name in FACTORS),
            f"{more}{one.rounds:.1f}",
            f"{more}{one.client_bytes / 1000:.1f}",
            f"{one.accuracy:.3f}",
        )
    console.print(table)
    for one in results:
        for failure in one.failures:
            console.print(f"{one.varied}: {failure}", highlight=False, markup=False)
