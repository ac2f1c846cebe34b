"""The tables that only an experiment file has, each a frozen value that checks itself without data.

Those that a training file has, too, are in fedcore.rounds.agreement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fedcore.data.sets import registry
from fedcore.errors import SettingError
from fedcore.settings import at_least, positive, require, settle

# What each set is dealt by when the file does not say, and whether it has test rows of its own.
SETS = {name: ("natural" if one.natural else "iid", one.test) for name, one in registry.SETS.items()}
SETS["files"] = ("natural", False)
PARTITIONS: dict[str, frozenset[str]] = {  # and the keys that belong to them alone
    "natural": frozenset(),
    "iid": frozenset(),
    "uneven": frozenset(),
    "dirichlet": frozenset({"alpha"}),
    "shards": frozenset({"shards_per_client"}),
    "quantity": frozenset({"concentration"}),
    "feature": frozenset({"column", "overlap"}),
}
_FILES = ("path", "schema", "label", "classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """[data]: which rows, and who has them.

    name       a set of SETS; files: `path` is a file, or a folder with a file for each site, whose
               columns, label and classes `schema`, `label` and `classes` say, or a TOML schema alone
    partition  natural: by hospital, writer, party or file; the others are those of fedcore.data
    clients    sites; with natural: only the first so many; None: all
    alpha, shards_per_client, concentration, column, overlap  of the partition that they belong to
    test       of files: a file, or a folder of files, that everything is evaluated on
    held_out   share of the rows that everything is evaluated on; not for sets with test rows of their own
    evaluate   rows: on all held-out rows together; parts: the mean over those of each natural part
    """

    name: str
    partition: str = ""
    clients: int | None = None
    alpha: float | None = None
    shards_per_client: int | None = None
    concentration: float | None = None
    column: int | None = None
    overlap: float | None = None
    minimum_rows: int = 2
    held_out: float | None = None
    evaluate: str = "rows"
    path: str | None = None
    schema: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        settle(self)
        require(self.name in SETS, "name", f"one of {', '.join(SETS)}", self.name)
        usual, has_test = SETS[self.name]
        if not self.partition:
            object.__setattr__(self, "partition", usual)
        self._check_partition(natural=usual == "natural")
        self._check_files()
        if self.test is not None and self.name != "files":
            raise SettingError(f"test: is for files, data.name is {self.name}")
        if self.test is not None and self.held_out is not None:
            raise SettingError(f"held_out: excludes test, the rows to evaluate on, is {self.held_out}")
        if has_test and self.held_out is not None:
            raise SettingError(f"held_out: {self.name} has test rows of its own, is {self.held_out}")
        if self.held_out is not None:
            require(0 < self.held_out < 1, "held_out", "in (0, 1)", self.held_out)
        require(self.evaluate in {"rows", "parts"}, "evaluate", "rows or parts", self.evaluate)
        at_least(self, 1, "minimum_rows")

    def _check_partition(self, *, natural: bool) -> None:
        known = [name for name in PARTITIONS if natural or name != "natural"]
        require(self.partition in known, "partition", f"one of {', '.join(known)}", self.partition)
        for owner, names in PARTITIONS.items():
            for name in names:
                given = getattr(self, name)
                if given is not None and owner != self.partition:
                    raise SettingError(f"{name}: is for {owner}, the partition is {self.partition}")
                if given is None and owner == self.partition and name not in {"column", "overlap"}:
                    raise SettingError(f"{name}: is missing, {owner} needs it")
        positive(self, "alpha", "concentration")
        if self.partition != "natural" and self.clients is None:
            raise SettingError(f"clients: is missing, {self.partition} needs it")
        at_least(self, 1, "clients")

    def _check_files(self) -> None:
        said = str(self.schema).lower().endswith(".toml")  # such a schema says label and classes itself
        for name in _FILES:
            given = getattr(self, name) is not None
            if said and name in {"label", "classes"}:
                rule = "said by the schema alone where that is TOML"
                require(not given, name, rule, getattr(self, name))
            elif given != (self.name == "files"):
                fault = "is for files" if given else "is missing, files need it"
                raise SettingError(f"{name}: {fault}, data.name is {self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutTable:
    """[dropout]: which sites vanish in a training round after they shared keys; drawn from the seed.

    rate       share of the round's sites; a fraction of a site is one with that probability
    per_round  exactly so many instead
    every      rounds from one with dropouts to the next
    """

    rate: float = 0.0
    per_round: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        settle(self)
        require(0 <= self.rate < 1, "rate", "in [0, 1)", self.rate)
        at_least(self, 0, "per_round")
        if self.rate and self.per_round:
            raise SettingError(f"per_round: excludes rate, is {self.per_round}")

    def most(self, sites: int) -> int:
        """Return the most that vanish of so many sites."""
        return self.per_round or math.ceil(self.rate * sites - 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackTable:
    """[attack]: a kind of fedcore.adversaries.sites.ATTACKS, the share of sites that mount it, options."""

    kind: str
    share: float
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settle(self)
        require(0 < self.share <= 1, "share", "in (0, 1]", self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingTable:
    """[tracking]: where metrics go beside the JSON lines."""

    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False
