"""An experiment file: read, checked as a whole, and spread over its grid before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcore.errors import SettingError
from fedcore.experiments import tables
from fedcore.experiments.results import MODES
from fedcore.foreign import import_beside
from fedcore.learners.kinds import REGRESSIONS
from fedcore.rounds.agreement import ANY_NUMBER, FOREIGN, Agreement
from fedcore.rounds.plan import TrainingPlan
from fedcore.settings import load, read, require

_AGREED = ("learner", "strategy", "plan", "privacy")
_TABLES = ("data", *_AGREED, "dropout", "attack")
_SECRETS = (
    "token",
    "secret",
    "password",
    "passphrase",
    "api_key",
    "private_key",
    "credential",
    "credentials",
)
_FEWEST = 3  # sites of a secure sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of the grid.

    changes  what the grid set, by table.key; empty without a grid
    agreed   learner, strategy, plan and privacy, as the parties of a service run agree on them
    """

    changes: dict[str, Any]
    data: tables.DataTable
    agreed: Agreement = field(default_factory=Agreement)
    dropout: tables.DropoutTable = field(default_factory=tables.DropoutTable)
    attack: tables.AttackTable | None = None

    @property
    def label(self) -> str:
        """Changed settings of this point, for a table or a legend."""
        return ", ".join(f"{key} = {value}" for key, value in self.changes.items())

    def make_plan(self, *, clients: int, largest: int, seed: int) -> TrainingPlan:
        """Return the plan, with what only a simulation knows where the file does not say it.

        clients  sites; largest: rows of the largest, the cap of weights
        seed     of the run
        Evaluation costs nothing here, so that it follows every round; noise counts on those who do not drop
        out. Raises SettingError.
        """
        usual = {"weight_cap": largest, "evaluate_every": 1, **self.agreed.plan}
        plan = read(TrainingPlan, usual, "plan", {"clients": clients, "seed": seed, "privacy": None})
        require(plan.rounds >= 1, "plan.rounds", "at least 1", plan.rounds)
        sites = min(clients, plan.cohort or clients)
        survivors = sites - self.dropout.most(sites)
        gone = self.dropout.most(sites)
        require(survivors >= 1, "dropout", f"less than the {sites} sites of a round", gone)
        plan = self.agreed.with_privacy(plan, {"smallest": survivors})
        smallest = 0 if plan.privacy is None else plan.privacy.smallest
        require(smallest <= survivors, "privacy.smallest", f"at most {survivors}", smallest)
        return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A whole file.

    metric   that tables, plots and stopping are about
    compare  modes, see results.MODES; points: of the grid
    text     the file; folder: where it lies, for relative paths
    """

    name: str
    metric: str
    seeds: tuple[int, ...]
    compare: tuple[str, ...]
    points: tuple[Point, ...]
    tracking: tables.TrackingTable
    text: str = field(default="", repr=False)
    folder: Path = Path()


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file. Raises SettingError: one line that names table.key, the rule and the value."""
    text, values = load(path, "an experiment file")
    return parse_experiment(values, name=path.stem, text=text, folder=path.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """The keys of a file, before the grid is spread. Raises SettingError."""

    data: dict[str, Any]
    name: str | None = None
    metric: str | None = None
    seeds: tuple[int, ...] = (0,)
    compare: tuple[str, ...] = ("local", "plain", "secure", "pooled")
    learner: dict[str, Any] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] | None = None
    dropout: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] | None = None
    grid: dict[str, Any] = field(default_factory=dict)
    tracking: tables.TrackingTable = field(default_factory=tables.TrackingTable)

    def __post_init__(self) -> None:
        fine = len(self.seeds) > 0 and min(self.seeds) >= 0 and _distinct(self.seeds)
        require(fine, "seeds", "distinct, from 0 on", self.seeds)
        for one in self.compare:
            require(one in MODES, "compare", f"of {', '.join(MODES)}", one)
        fine = len(self.compare) > 0 and _distinct(self.compare)
        require(fine, "compare", "distinct, not empty", self.compare)


def parse_experiment(
    values: Mapping[str, Any], *, name: str = "experiment", text: str = "", folder: Path = Path()
) -> Experiment:
    """Check the values of a file. Raises SettingError."""
    _refuse_secrets(values, "")
    file = read(_File, values)
    for table, key in FOREIGN:
        for named in (getattr(file, table).get(key), *_flat(file.grid, "").get(f"{table}.{key}", ())):
            import_beside(named, folder, f"{table}.{key}")
    points = tuple(_point(values, changes) for changes in _grid(file.grid))
    for point in points:
        if "secure" in file.compare and point.data.clients is not None:
            fine = point.data.clients >= _FEWEST
            require(fine, "data.clients", f"at least {_FEWEST} for secure sums", point.data.clients)
    usual = "r2" if points[0].agreed.learner.get("kind") in REGRESSIONS else "accuracy"
    return Experiment(
        name=file.name or name,
        metric=file.metric or usual,
        seeds=file.seeds,
        compare=file.compare,
        points=points,
        tracking=file.tracking,
        text=text,
        folder=folder,
    )


def _point(values: Mapping[str, Any], changes: dict[str, Any]) -> Point:
    """Read the tables with one combination of the grid's values in them, and try what they say."""
    raw = {name: deepcopy(values[name]) for name in _TABLES if name in values}
    for key, value in changes.items():
        table, *path, last = key.split(".")
        inner = raw.setdefault(table, {})
        for name in path:
            inner = inner.setdefault(name, {})
            require(isinstance(inner, dict), f"grid.{key}", "in a table", inner)
        inner[last] = value
    point = Point(
        changes=changes,
        data=read(tables.DataTable, raw["data"], "data"),
        agreed=read(Agreement, {name: raw[name] for name in _AGREED if name in raw}),
        dropout=read(tables.DropoutTable, raw.get("dropout", {}), "dropout"),
        attack=read(tables.AttackTable, raw["attack"], "attack") if "attack" in raw else None,
    )
    point.make_plan(clients=point.data.clients or ANY_NUMBER, largest=1, seed=0)
    return point


def _grid(grid: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all combinations of the grid's values, by table.key."""
    flat = _flat(grid, "")
    for key, values in flat.items():
        fine = key.split(".")[0] in _TABLES and "." in key
        require(fine, f"grid.{key}", f"table.key with a table of {', '.join(_TABLES)}", key)
        require(isinstance(values, list) and len(values) > 0, f"grid.{key}", "a list with values", values)
    return [dict(zip(flat, chosen, strict=True)) for chosen in itertools.product(*flat.values())]


def _flat(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Spell nested tables as dotted keys: plan.bits and "plan.bits" mean the same."""
    out: dict[str, Any] = {}
    for name, value in table.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        out |= inner
    return out


def _refuse_secrets(table: Mapping[str, Any], prefix: str) -> None:
    """Refuse keys that name secrets: the file is copied beside the results and its settings are logged."""
    for name, value in table.items():
        if name.lower() in _SECRETS or name.lower().endswith(tuple(f"_{word}" for word in _SECRETS)):
            raise SettingError(f"{prefix}{name}: secrets do not belong in an experiment file")
        if isinstance(value, dict):
            _refuse_secrets(value, f"{prefix}{name}.")


def _distinct(values: tuple[Any, ...]) -> bool:
    return len(set(values)) == len(values)
