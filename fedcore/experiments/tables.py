"""The tables of an experiment file, each a frozen value that checks what can be checked without data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from fedcore.errors import DataError
from fedcore.experiments.fields import shown
from fedcore.privacy.accounting import Mechanism
from fedcore.rounds.instructions import UpdateKind, Weighting

# What each set is dealt by when the file does not say, and whether it has test rows of its own.
SETS = {
    "breast_cancer": ("iid", False),
    "digits": ("iid", False),
    "heart_disease": ("natural", True),
    "mnist_writers": ("natural", True),
    "breast_homo": ("natural", True),
    "files": ("natural", False),
}
PARTITIONS: dict[str, frozenset[str]] = {  # and the keys that belong to them alone
    "natural": frozenset(),
    "iid": frozenset(),
    "dirichlet": frozenset({"alpha"}),
    "shards": frozenset({"shards_per_client"}),
    "quantity": frozenset({"concentration"}),
    "feature": frozenset({"column", "overlap"}),
}
_FILES = ("path", "schema", "label", "classes")


def require(fine: bool, where: str, rule: str, value: object) -> None:
    """Raise DataError unless fine: "table.key: must be RULE, is VALUE"."""
    if not fine:
        raise DataError(f"{where}: must be {rule}, is {shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """[data]: which rows, and who has them.

    name       a set of SETS; files: `path` is a file, or a folder with a file for each site, whose
               columns, label and classes `schema`, `label` and `classes` say
    partition  natural: by hospital, writer, party or file; the others are those of fedcore.data
    clients    sites; with natural: only the first so many; None: all
    alpha, shards_per_client, concentration, column, overlap  of the partition that they belong to
    held_out   share of the rows that everything is evaluated on; not for sets with test rows of their own
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
    path: str | None = None
    schema: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        require(self.name in SETS, "data.name", f"one of {', '.join(SETS)}", self.name)
        usual, has_test = SETS[self.name]
        if not self.partition:
            object.__setattr__(self, "partition", usual)
        self._check_partition(natural=usual == "natural")
        self._check_files()
        if has_test and self.held_out is not None:
            raise DataError(f"data.held_out: {self.name} has test rows of its own, is {self.held_out}")
        if self.held_out is not None:
            require(0 < self.held_out < 1, "data.held_out", "in (0, 1)", self.held_out)
        require(self.minimum_rows >= 1, "data.minimum_rows", "at least 1", self.minimum_rows)

    def _check_partition(self, *, natural: bool) -> None:
        known = [name for name in PARTITIONS if natural or name != "natural"]
        require(self.partition in known, "data.partition", f"one of {', '.join(known)}", self.partition)
        for owner, names in PARTITIONS.items():
            for name in names:
                given = getattr(self, name)
                if given is not None and owner != self.partition:
                    raise DataError(f"data.{name}: is for {owner}, the partition is {self.partition}")
                if given is None and owner == self.partition and name not in {"column", "overlap"}:
                    raise DataError(f"data.{name}: is missing, {owner} needs it")
        for name in ("alpha", "concentration"):
            value = getattr(self, name)
            if value is not None:
                fine = math.isfinite(value) and value > 0
                require(fine, f"data.{name}", "positive and finite", value)
        if self.partition != "natural" and self.clients is None:
            raise DataError(f"data.clients: is missing, {self.partition} needs it")
        if self.clients is not None:
            require(self.clients >= 1, "data.clients", "at least 1", self.clients)

    def _check_files(self) -> None:
        for name in _FILES:
            given = getattr(self, name) is not None
            if given != (self.name == "files"):
                fault = "is for files" if given else "is missing, files need it"
                raise DataError(f"data.{name}: {fault}, data.name is {self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerTable:
    """[learner]: kind, and its options beside it (those of "module:function" in [learner.options])."""

    kind: str = "softmax"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyTable:
    """[strategy]: name, weighting and update, and the strategy's own options beside them."""

    name: str = "FedAvg"
    weighting: Weighting | None = None
    update: UpdateKind = UpdateKind.DELTA
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormTable:
    """plan.norm as a table: adaptive clipping (fedcore.codec.clipping.AdaptiveClip)."""

    norm: float
    quantile: float = 0.5
    rate: float = 0.2
    share: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingTable:
    """plan.stopping (fedcore.rounds.stopping.Stopping)."""

    metric: str = "accuracy"
    lower: bool = False
    target: float | None = None
    patience: int | None = None
    least: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """[plan]: the fields of TrainingPlan that a file may set.

    norm        a number: fixed; a table: adaptive
    weight_cap  None: the rows of the largest site, which a simulation knows
    """

    rounds: int = 10
    cohort: int | None = None
    bits: int = 16
    clip: float = 1.0
    norm: float | NormTable | None = None
    rotate: bool = False
    keep: float = 1.0
    decay: float = 1.0
    final_rate: float = 1.0
    attempts: int = 3
    weight_cap: int | None = None
    standardize: bool = True
    evaluate_every: int = 1
    stopping: StoppingTable | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "plan.rounds", "at least 1", self.rounds)
        if self.weight_cap is not None:
            require(self.weight_cap >= 1, "plan.weight_cap", "at least 1", self.weight_cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyTable:
    """[privacy] (fedcore.privacy.plan.PrivacyPlan).

    smallest  fewest survivors; None: the sites of a round without those that [dropout] takes away
    """

    epsilon: float
    delta: float
    smallest: int | None = None
    colluders: int = 0
    mechanism: Mechanism = Mechanism.SKELLAM


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutTable:
    """[dropout]: which sites vanish in a training round after they shared keys; drawn from the seed.

    rate       share of the round's sites; a fraction of a site is one with that probability
    per_round  exactly so many instead
    """

    rate: float = 0.0
    per_round: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.rate < 1, "dropout.rate", "in [0, 1)", self.rate)
        require(self.per_round >= 0, "dropout.per_round", "at least 0", self.per_round)
        if self.rate and self.per_round:
            raise DataError(f"dropout.per_round: excludes dropout.rate, is {self.per_round}")

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
        require(0 < self.share <= 1, "attack.share", "in (0, 1]", self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingTable:
    """[tracking]: where metrics go beside the JSON lines."""

    tensorboard: bool = False
    wandb: bool = False
    mlflow: bool = False
