"""What the parties of a service run agree on, in one file (TOML) that all of them have.

The tables are those of an experiment file, too. The server takes all of them; a site takes its learner, and
the privacy as its own demand: it refuses rounds that give less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from fedcore.data.schema import Schema
from fedcore.errors import SettingError
from fedcore.learner import Abilities, Learner
from fedcore.learners.kinds import learner_json, read_learner, split
from fedcore.privacy.guard import PrivacyGuard
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.plan import TrainingPlan
from fedcore.settings import load, read, to_json
from fedcore.strategies import Strategy
from fedcore.strategies.named import read_strategy

ANY_NUMBER = 1_000_000  # of sites, for which a file is checked before it is known how many there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The tables of a file; what they say is made when the sites and the schema are known.

    learner   see fedcore.learners.kinds; strategy: see fedcore.strategies.named
    plan      fields of TrainingPlan; privacy: of PrivacyPlan, whose rounds are the plan's; None: no noise
    raises    SettingError: one line that names table.key, the rule and the value
    """

    learner: dict[str, Any] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if ":" not in split(self.learner)[0]:  # others are foreign code, and may need the real numbers
            read_learner(self.learner, features=1, classes=2)
        self.make_strategy(ANY_NUMBER)

    @classmethod
    def parse(cls, tables: Mapping[str, Any]) -> Self:
        """Check the tables of a file. Raises SettingError."""
        agreed = read(cls, tables)
        agreed.make_plan(ANY_NUMBER)
        return agreed

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file. Raises SettingError."""
        return cls.parse(load(path, "a training file")[1])

    def make_learner(self, schema: Schema, seed: int = 0) -> Learner[Any]:
        """Return the learner, with the same initial parameters at every party. Raises SettingError."""
        features, classes = len(schema.columns), len(schema.classes)
        made = read_learner(self.learner, features=features, classes=classes, seed=seed)
        promised = (self.privacy or {}).get("sensitivity")
        if promised is not None and Abilities.of(made).sensitivity is None:
            raise SettingError(f"privacy.sensitivity: {type(made).__name__} bounds no person's part")
        return made

    def make_strategy(self, clients: int) -> Strategy:
        """Return the strategy for so many enrolled sites. Raises SettingError."""
        return read_strategy(self.strategy, clients=clients, private=self.privacy is not None)

    def make_plan(self, clients: int) -> TrainingPlan:
        """Return the plan for so many enrolled sites. Raises SettingError."""
        return self.with_privacy(read(TrainingPlan, self.plan, "plan", {"clients": clients, "privacy": None}))

    def with_privacy(self, plan: TrainingPlan, usual: Mapping[str, Any] = {}) -> TrainingPlan:
        """Return the plan with its noise and budget; usual: fields where the file does not say."""
        if self.privacy is None:
            return plan
        rounds = {"rounds": max(plan.rounds, 1)}
        return replace(plan, privacy=read(PrivacyPlan, {**usual, **self.privacy}, "privacy", rounds))

    def make_guard(self, clients: int, account: Path | None = None) -> PrivacyGuard | None:
        """Return a site's own account of its privacy, kept in a file if one is given; None: it demands none.

        Raises SettingError; DataError: the file is no account.
        """
        privacy = self.make_plan(clients).privacy
        return None if privacy is None else PrivacyGuard(privacy, account)

    def to_json(self, schema: Schema, plan: TrainingPlan, seed: int = 0) -> dict[str, Any]:
        """Return everything that is agreed on, defaults included, as JSON values: equal for equal runs.

        plan  as it was made for the sites
        """
        features, classes = len(schema.columns), len(schema.classes)
        strategy = self.make_strategy(plan.clients)
        return {
            "learner": learner_json(self.learner, features=features, classes=classes, seed=seed),
            "plan": to_json(plan),
            "strategy": {"name": type(strategy).__name__, **to_json(strategy)},
        }
