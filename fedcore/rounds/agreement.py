"""What the parties of a service run agree on, in one file (TOML) that all of them have.

The tables are those of an experiment file. The server takes all of them; a site takes its learner, and the
privacy as its own demand: it refuses rounds that give less.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fedcore.data.schema import Schema
from fedcore.errors import DataError
from fedcore.experiments import tables
from fedcore.experiments.build import learner_table, make_learner, make_plan, make_strategy, strategy_table
from fedcore.experiments.fields import read, typed
from fedcore.learner import Learner
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.plan import TrainingPlan
from fedcore.strategies import Strategy

_TABLES = ("learner", "strategy", "plan", "privacy")
_WEIGHT_CAP = 10_000  # rows, where the file does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The tables of a file, checked."""

    learner: tables.LearnerTable
    strategy: tables.StrategyTable
    plan: tables.PlanTable
    privacy: tables.PrivacyTable | None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file. Raises DataError: one line that names table.key, the limit and the value."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: not a training file: {error.strerror or error}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise DataError(f"{path}: not a training file: {error}") from error
        return cls.parse(values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check the tables of a file. Raises DataError."""
        for name in values:
            if name not in _TABLES:
                raise DataError(f"{name}: is not known, a training file has {', '.join(_TABLES)}")
        raw = {name: typed(values.get(name, {}), dict[str, Any], name) for name in _TABLES}
        plan = read(tables.PlanTable, {"evaluate_every": 0, "weight_cap": _WEIGHT_CAP} | raw["plan"], "plan")
        privacy = read(tables.PrivacyTable, raw["privacy"], "privacy") if "privacy" in values else None
        if privacy is not None and privacy.smallest is None:
            raise DataError("privacy.smallest: is missing, the fewest survivors whose noise is enough")
        return cls(
            learner=learner_table(raw["learner"]),
            strategy=strategy_table(raw["strategy"]),
            plan=plan,
            privacy=privacy,
        )

    def make_learner(self, schema: Schema) -> Learner[Any]:
        """Return the learner, with the same initial parameters at every party. Raises DataError."""
        return make_learner(self.learner, len(schema.columns), len(schema.classes), 0)

    def make_strategy(self, clients: int) -> Strategy:
        """Return the strategy for so many enrolled sites. Raises DataError."""
        return make_strategy(self.strategy, clients, private=self.privacy is not None)

    def make_plan(self, clients: int) -> TrainingPlan:
        """Return the plan for so many enrolled sites. Raises DataError."""
        whole = tables.DropoutTable()
        return make_plan(self.plan, self.privacy, whole, clients=clients, largest=_WEIGHT_CAP, seed=0)

    def make_guard(self, clients: int, account: Path | None = None) -> PrivacyGuard | None:
        """Return a site's own account of its privacy, kept in a file if one is given; None: it demands none.

        Raises DataError.
        """
        privacy = self.make_plan(clients).privacy
        return None if privacy is None else PrivacyGuard(privacy, account)
