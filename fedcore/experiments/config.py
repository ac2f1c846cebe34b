"""An experiment file: read, checked as a whole, and spread over its grid before anything is trained."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedcore.errors import DataError
from fedcore.experiments import tables
from fedcore.experiments.build import learner_table, make_plan, make_strategy, strategy_table
from fedcore.experiments.fields import read, typed
from fedcore.experiments.results import MODES
from fedcore.experiments.tables import require

_TABLES = ("data", "learner", "strategy", "plan", "privacy", "dropout", "attack")
_KEYS = ("name", "metric", "seeds", "compare", *_TABLES, "grid", "tracking")
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
_MANY = 1000  # sites for which a plan is checked when the data will say how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of the grid.

    changes  what the grid set, by table.key; empty without a grid
    """

    changes: dict[str, Any]
    data: tables.DataTable
    learner: tables.LearnerTable = field(default_factory=tables.LearnerTable)
    strategy: tables.StrategyTable = field(default_factory=tables.StrategyTable)
    plan: tables.PlanTable = field(default_factory=tables.PlanTable)
    privacy: tables.PrivacyTable | None = None
    dropout: tables.DropoutTable = field(default_factory=tables.DropoutTable)
    attack: tables.AttackTable | None = None

    @property
    def label(self) -> str:
        """What sets this point apart, for a table or a legend."""
        return ", ".join(f"{key} = {value}" for key, value in self.changes.items())

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, without those that are not set."""
        return {name: _set(asdict(part)) for name in _TABLES if (part := getattr(self, name)) is not None}


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
    """Read an experiment file. Raises DataError: one line that names table.key, the limit and the value."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise DataError(f"{path}: not an experiment file: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not an experiment file: {error}") from error
    return parse_experiment(values, name=path.stem, text=text, folder=path.parent)


def parse_experiment(
    values: Mapping[str, Any], *, name: str = "experiment", text: str = "", folder: Path = Path()
) -> Experiment:
    """Check the values of a file. Raises DataError."""
    for key in values:
        if key not in _KEYS:
            raise DataError(f"{key}: is not known, an experiment has {', '.join(_KEYS)}")
    _refuse_secrets(values, "")
    seeds = typed(values.get("seeds", [0]), tuple[int, ...], "seeds")
    require(len(seeds) > 0 and min(seeds) >= 0 and _distinct(seeds), "seeds", "distinct, from 0 on", seeds)
    compare = typed(values.get("compare", ["local", "plain", "secure", "pooled"]), tuple[str, ...], "compare")
    for one in compare:
        require(one in MODES, "compare", f"of {', '.join(MODES)}", one)
    require(len(compare) > 0 and _distinct(compare), "compare", "distinct, not empty", compare)
    points = tuple(_point(values, changes) for changes in _grid(values.get("grid", {})))
    for point in points:
        if "secure" in compare and point.data.clients is not None:
            fine = point.data.clients >= _FEWEST
            require(fine, "data.clients", f"at least {_FEWEST} for secure sums", point.data.clients)
    usual = "r2" if points[0].learner.kind == "linear" else "accuracy"
    return Experiment(
        name=typed(values.get("name", name), str, "name"),
        metric=typed(values.get("metric", usual), str, "metric"),
        seeds=seeds,
        compare=compare,
        points=points,
        tracking=read(tables.TrackingTable, _table(values, "tracking"), "tracking"),
        text=text,
        folder=folder,
    )


def _point(values: Mapping[str, Any], changes: dict[str, Any]) -> Point:
    """Read the tables with one combination of the grid's values in them, and try what they say."""
    raw = {name: deepcopy(dict(_table(values, name))) for name in _TABLES if name in values}
    for key, value in changes.items():
        table, *path, last = key.split(".")
        inner = raw.setdefault(table, {})
        for name in path:
            inner = inner.setdefault(name, {})
            require(isinstance(inner, dict), f"grid.{key}", "in a table", inner)
        inner[last] = value
    if "data" not in raw:
        raise DataError("data: is missing")
    point = Point(
        changes=changes,
        data=read(tables.DataTable, raw["data"], "data"),
        learner=learner_table(raw.get("learner", {})),
        strategy=strategy_table(raw.get("strategy", {})),
        plan=read(tables.PlanTable, raw.get("plan", {}), "plan"),
        privacy=read(tables.PrivacyTable, raw["privacy"], "privacy") if "privacy" in raw else None,
        dropout=read(tables.DropoutTable, raw.get("dropout", {}), "dropout"),
        attack=read(tables.AttackTable, raw["attack"], "attack") if "attack" in raw else None,
    )
    clients = point.data.clients or _MANY
    private = point.privacy is not None
    make_strategy(point.strategy, clients, private=private)
    make_plan(point.plan, point.privacy, point.dropout, clients=clients, largest=1, seed=0)
    return point


def _grid(grid: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - TOML
    """Return all combinations of the grid's values, by table.key."""
    flat = _flat(typed(grid, dict[str, Any], "grid"), "")
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


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return typed(values.get(name, {}), dict[str, Any], name)  # type: ignore[no-any-return]


def _refuse_secrets(table: Mapping[str, Any], prefix: str) -> None:
    """Refuse keys that name secrets: the file is copied beside the results and its settings are logged."""
    for name, value in table.items():
        if name.lower() in _SECRETS or name.lower().endswith(tuple(f"_{word}" for word in _SECRETS)):
            raise DataError(f"{prefix}{name}: secrets do not belong in an experiment file")
        if isinstance(value, dict):
            _refuse_secrets(value, f"{prefix}{name}.")


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _distinct(values: tuple[Any, ...]) -> bool:
    return len(set(values)) == len(values)
