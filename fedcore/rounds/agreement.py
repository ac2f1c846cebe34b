"""Agreement of the parties of a service run: one file (TOML) that all have, a schema, and who they are.

Tables of learner, strategy, plan and privacy are those of an experiment file, too. Every party derives from
its own copy what a task does not carry, and the digest of it all is in the context of every round: whoever
agreed to something else takes no part.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from fedcore.data.schema import Schema
from fedcore.errors import SettingError, TaskError
from fedcore.foreign import code_digest, import_beside
from fedcore.learner import Abilities, Learner, Parameters, flatten
from fedcore.learners.kinds import REGRESSIONS, learner_json, read_learner, split
from fedcore.learners.models import is_regression
from fedcore.names import select
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, sent
from fedcore.rounds.model import Model
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Moments, TaskKind, Train
from fedcore.rounds.state import RunState
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.terms import Terms
from fedcore.settings import at_least, load, positive, read, require, settle, to_json
from fedcore.strategies import Strategy
from fedcore.strategies.named import read_strategy, strategy_json
from secagg import (
    HYBRID,
    SUITES,
    Identity,
    InfeasibleParameters,
    OneShotPolicy,
    ParameterError,
    Policy,
    Suite,
    ThreatModel,
    choose_parameters,
    context_digest,
)
from secagg.store import Store, floor_for

PAIRWISE, ONE_SHOT = "pairwise", "one-shot"
_RULES = ("security", "consent", "statistics", "evaluation", "fine_tuning")
FOREIGN = (("learner", "kind"), ("strategy", "name"))  # keys that may name code of one's own
ANY_NUMBER = 1_000_000  # of sites, for which a file is checked before it is known how many there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """[security]: against whom the sums are protected.

    corrupt, dropout   shares of those enrolled that may collude, or drop out
    minimum_cohort     fewest sites of a round; None: 3/4 of those enrolled, at least 4
    minimum_survivors  fewest whose vectors are in a sum
    protocol           "pairwise", or "one-shot": sites speak once a round, and decryptors open the sum
    suite              of "pairwise": "x25519", or "x25519-mlkem768": what is recorded of a run stays closed
                       to quantum computers
    minimum_decryptors, post_quantum
                       of every committee of the one-upload protocol
    raises             SettingError
    """

    corrupt: float = 0.1
    dropout: float = 0.1
    minimum_cohort: int | None = None
    minimum_survivors: int = 3
    protocol: str = PAIRWISE
    suite: str = "x25519"
    minimum_decryptors: int = 4
    post_quantum: bool = True

    def __post_init__(self) -> None:
        settle(self)
        for name in ("corrupt", "dropout"):
            require(0 <= getattr(self, name) < 1, name, "in [0, 1)", getattr(self, name))
        at_least(self, 3, "minimum_cohort", "minimum_decryptors")
        at_least(self, 2, "minimum_survivors")
        protocols = (PAIRWISE, ONE_SHOT)
        require(self.protocol in protocols, "protocol", f"one of {', '.join(protocols)}", self.protocol)
        suites = SUITES if self.protocol == PAIRWISE else ["x25519"]
        require(self.suite in suites, "suite", f"{' or '.join(suites)} with {self.protocol}", self.suite)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without what is the other protocol's, or was not chosen."""
        said: dict[str, Any] = to_json(self)
        if self.suite == "x25519":
            del said["suite"]
        if self.protocol == PAIRWISE:
            for name in ("protocol", "minimum_decryptors", "post_quantum"):
                del said[name]
        return said

    def colluders(self, enrolled: int) -> int:
        """Return how many of so many enrolled may collude, A."""
        return floor_for(ThreatModel(corrupt=self.corrupt), enrolled) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRules:
    """[consent]: which sums about the same vectors a site signs.

    strict_cohorts  all that is asked about the rows has one subject, however the model changes
    regroup         a subject is summed in whole cells of a cohort that is named before anybody uploads: a sum
                    that somebody spoiled is dealt into groups, and who drops out takes its cell along. Else
                    whoever uploads is in the one sum there is, and a sum that stays spoiled ends the run
    near            relative distance up to which two models count as the same
    name            tells a run from another one with the same settings: no step is answered twice in one
    rows            names the state of the rows: sums under one name are about the same rows, in all runs
    raises          SettingError
    """

    strict_cohorts: bool = False
    regroup: bool = False
    near: float = 1e-3
    name: str = ""
    rows: str = ""

    def __post_init__(self) -> None:
        settle(self)
        require(0 <= self.near <= 1, "near", "in 0..1", self.near)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRules:
    """[statistics]: sums that may be asked ahead of training, beside the means and deviations of the plan.

    cumulative, covariance, count  how many of each kind (see `Analyst`); values: most numbers of one
    raises                         SettingError
    """

    cumulative: int = 0
    covariance: int = 0
    count: int = 0
    values: int = 4096

    def __post_init__(self) -> None:
        settle(self)
        for one in fields(self):
            require(0 <= getattr(self, one.name) <= 2**20, one.name, "in 0..2^20", getattr(self, one.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRules:
    """[evaluation]: what may be asked about the final model, beside plan.evaluate_every.

    overall  how often its metrics over all held-out rows; sites: the spread of the sites' own accuracies
    raises   SettingError
    """

    overall: int = 0
    sites: int = 0

    def __post_init__(self) -> None:
        settle(self)
        for one in fields(self):
            require(0 <= getattr(self, one.name) <= 1000, one.name, "in 0..1000", getattr(self, one.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningRules:
    """[fine_tuning]: how each site trains the final model on, for itself: no sum, nothing that others see.

    rounds  of local training; 0: none. only: patterns of the parameters that move, such as a head; none: all
    rate    factor of the learning rate
    raises  SettingError
    """

    rounds: int = 0
    only: tuple[str, ...] = ()
    rate: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        require(0 <= self.rounds <= 1000, "rounds", "in 0..1000", self.rounds)
        positive(self, "rate")


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
    security: Security = field(default_factory=Security)
    consent: ConsentRules = field(default_factory=ConsentRules)
    statistics: StatisticsRules = field(default_factory=StatisticsRules)
    evaluation: EvaluationRules = field(default_factory=EvaluationRules)
    fine_tuning: FineTuningRules = field(default_factory=FineTuningRules)

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
        """Read a file, and import what it names of the code beside it. Raises SettingError."""
        tables = load(path, "a training file")[1]
        for table, key in FOREIGN:
            if isinstance(tables.get(table), Mapping):
                import_beside(tables[table].get(key), path.parent, f"{table}.{key}")
        return cls.parse(tables)

    def code(self) -> dict[str, Any]:
        """Return what is said of code of one's own, and its digest, by "module:name"; {}: there is none."""
        out: dict[str, Any] = {}
        for table, key in FOREIGN:
            said = getattr(self, table)
            named = str(said.get(key, ""))
            if ":" in named:
                digest = code_digest(named, f"{table}.{key}")
                out[table] = {"name": named, "options": said.get("options", {}), "sha256": digest}
        return out

    def make_learner(self, schema: Schema, seed: int = 0) -> Learner[Any]:
        """Return the learner, with the same initial parameters at every party. Raises SettingError."""
        features, classes = len(schema.columns), len(schema.classes)
        made = read_learner(self.learner, features=features, classes=classes, seed=seed)
        kind = split(self.learner)[0]
        numbers = not classes or schema.classes == tuple(str(i) for i in range(classes))
        require(
            kind not in REGRESSIONS or numbers,
            "learner.kind",
            f"one for classes, or the label a number, with low and high, and not {', '.join(schema.classes)}",
            kind,
        )
        low = 0.0 if schema.target is None else schema.target.low
        require(kind != "poisson" or low >= 0, "learner.kind", "one for a label that may be negative", kind)
        promised = (self.privacy or {}).get("sensitivity")
        if promised is not None and Abilities.of(made).sensitivity is None:
            raise SettingError(f"privacy.sensitivity: {type(made).__name__} bounds no person's part")
        return made

    def make_strategy(self, clients: int) -> Strategy:
        """Return the strategy for so many enrolled sites. Raises SettingError."""
        return read_strategy(self.strategy, clients=clients, private=self.privacy is not None)

    def make_plan(self, clients: int, usual: Mapping[str, Any] = {}) -> TrainingPlan:
        """Return the plan for so many enrolled sites; usual: as in `with_privacy`. Raises SettingError."""
        plan = read(TrainingPlan, self.plan, "plan", {"clients": clients, "privacy": None})
        return self.with_privacy(plan, usual)

    def with_privacy(self, plan: TrainingPlan, usual: Mapping[str, Any] = {}) -> TrainingPlan:
        """Return the plan with its noise and budget; usual: fields where the file does not say."""
        if self.privacy is None:
            return plan
        said = {"statistics": plan.standardize, **usual, **self.privacy}
        rounds = {"rounds": max(plan.rounds, 1) + (said["statistics"] is True)}
        return replace(plan, privacy=read(PrivacyPlan, said, "privacy", rounds))

    def tried(self, schema: Schema) -> Run:
        """Return a run of it before it is known who takes part, as many as it needs. Raises SettingError."""
        given = (self.security.minimum_cohort, self.plan.get("cohort"), (self.privacy or {}).get("smallest"))
        fewest = max([10, *(int(one) for one in given if isinstance(one, int))])
        members = frozenset(Identity(i.to_bytes(32, "big")) for i in range(fewest))
        return Run.of(self, schema, members)

    def learner_json(self, schema: Schema, seed: int = 0) -> dict[str, Any]:
        """Return what is said of the learner, defaults included, as JSON values. Raises SettingError."""
        features, classes = len(schema.columns), len(schema.classes)
        return learner_json(self.learner, features=features, classes=classes, seed=seed)


def _rules_json(rules: Any) -> Any:  # noqa: ANN401 - of whichever table
    return rules.to_json() if isinstance(rules, Security) else to_json(rules)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run, as every party of it understands it. Its digest is in the context of every round.

    words     of the learner, as its table says: learners are foreign code
    members   who is enrolled
    decryptors  who may be in a committee of the one-upload protocol; nobody: it is not spoken
    code      of one's own that the file names: `Agreement.code`
    raises    SettingError
    """

    schema: Schema
    learner: Learner[Any]
    strategy: Strategy
    plan: TrainingPlan
    words: str
    members: frozenset[Identity]
    security: Security = field(default_factory=Security)
    consent: ConsentRules = field(default_factory=ConsentRules)
    statistics: StatisticsRules = field(default_factory=StatisticsRules)
    evaluation: EvaluationRules = field(default_factory=EvaluationRules)
    fine_tuning: FineTuningRules = field(default_factory=FineTuningRules)
    code: Mapping[str, Any] = field(default_factory=dict)
    decryptors: frozenset[Identity] = frozenset()

    def __post_init__(self) -> None:
        privacy, after = self.plan.privacy, self.evaluation
        _ = self.terms  # refuses what no round could be made of
        self._check_protocol()
        evaluated = self.plan.evaluate_every or after.overall or after.sites
        rule = "0 for a regression on positions of classes: the label needs low and high"
        positions = bool(self.schema.classes) and is_regression(getattr(self.learner, "model", None))
        require(not (positions and evaluated), "plan.evaluate_every, evaluation", rule, evaluated)
        noiseless = self.plan.evaluate_every or after.overall or after.sites
        require(
            privacy is None or not noiseless, "plan.evaluate_every, evaluation", "0 with [privacy]", noiseless
        )
        several = getattr(self.strategy, "passes", 0) or getattr(self.strategy, "groups", 0)
        rule = "false where a strategy sums in groups, or the same updates again"
        require(not (self.consent.regroup and several), "consent.regroup", rule, self.consent.regroup)
        require(
            privacy is None or self.minimum_survivors <= self.minimum_cohort,
            "security.minimum_cohort",
            f"at least privacy.smallest, {self.minimum_survivors}",
            self.minimum_cohort,
        )
        sizes = {"security.minimum_cohort": self.minimum_cohort, "plan.cohort": self.plan.cohort}
        sizes["strategy.smallest"] = getattr(self.strategy, "smallest", None)
        for name, sites in sizes.items():  # refused here rather than in the first round
            if sites is None or not (fault := self._infeasible(min(sites, len(self.members)))):
                continue
            rule = f"enough for {self.colluders} colluders, of those enrolled, in one round"
            raise SettingError(f"{name}: must be {rule}, is {sites}: {fault}")
        if self.regroups:
            _ = self.cell
        names, asks = self.learner.initial(), self.strategy.asks()
        select(names, self.fine_tuning.only, "fine_tuning.only")
        select(names, asks.personal, "strategy.personal")
        select(names, asks.shared, "strategy.shared")
        steers = self.fine_tuning.only or self.fine_tuning.rate != 1
        if self.fine_tuning.rounds and steers and Abilities.of(self.learner).steerable is None:
            kind = type(self.learner).__name__
            raise SettingError(f"fine_tuning.only, fine_tuning.rate: {kind} cannot be steered")
        if privacy is not None:
            try:
                self.terms.encoding(Train(model={}, norm=self.plan.first_norm if self.terms.adapts else None))
                if privacy.statistics:
                    self.terms.encoding(Moments())
            except ParameterError as error:
                raise SettingError(f"privacy: {error}; fewer plan.bits need less noise") from error

    def _check_protocol(self) -> None:
        """Refuse what the one-upload protocol cannot keep: a vector is in one sum, of which no site learns.

        raises  SettingError
        """
        rules, plan = self.security, self.plan
        if not self.one_shot:
            require(not self.decryptors, "decryptors", f"none with protocol = {PAIRWISE!r}", "some")
            return
        fewest, enrolled = rules.minimum_decryptors, len(self.decryptors)
        require(enrolled >= fewest, "security.minimum_decryptors", f"at most the {enrolled} enrolled", fewest)
        require(plan.attempts == 1, "plan.attempts", f"1 with protocol = {ONE_SHOT!r}", plan.attempts)
        for name, value, said in (
            ("consent.regroup", self.consent.regroup, "false"),
            ("consent.strict_cohorts", self.consent.strict_cohorts, "false"),
            ("plan.keep", plan.keep < 1, "1: what was not sent would come again"),
            ("strategy", self.terms.passes, "one without passes over the same updates"),
            ("strategy", getattr(self.strategy, "groups", 0), "one without groups"),
            ("strategy", self.strategy.asks().control, "one without control variates"),
        ):
            require(not value, name, f"{said}, with protocol = {ONE_SHOT!r}", value)

    @classmethod
    def of(
        cls,
        agreed: Agreement,
        schema: Schema,
        members: frozenset[Identity],
        decryptors: frozenset[Identity] = frozenset(),
    ) -> Self:
        """Make what a file says for these members and rows. Raises SettingError.

        Colluders are those of [security], unless [privacy] says otherwise. A sum of the one-upload protocol
        is tried once: a vector that was uploaded must be presumed summed.
        """
        clients = len(members)
        plan = agreed.make_plan(clients, {"colluders": agreed.security.colluders(clients)})
        if agreed.security.protocol == ONE_SHOT and "attempts" not in agreed.plan:
            plan = replace(plan, attempts=1)
        return cls(
            schema=schema,
            learner=agreed.make_learner(schema),
            strategy=agreed.make_strategy(clients),
            plan=plan,
            words=json.dumps(agreed.learner_json(schema), sort_keys=True),
            code=agreed.code(),
            members=members,
            security=agreed.security,
            consent=agreed.consent,
            statistics=agreed.statistics,
            evaluation=agreed.evaluation,
            fine_tuning=agreed.fine_tuning,
            decryptors=decryptors,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all that is agreed on but who the members are, as JSON values: equal for equal runs."""
        rules = {name: _rules_json(getattr(self, name)) for name in _RULES}
        if self.code:
            rules |= {"asks": to_json(self.strategy.asks()), "code": dict(self.code)}
        return {
            "learner": self.words,
            "plan": to_json(self.plan),
            "schema": to_json(self.schema),
            "strategy": strategy_json(self.strategy),
            **rules,
        }

    def stands_on(self) -> dict[str, Any]:
        """Return what a checkpoint of this run can be gone on with, as JSON values.

        It may have more rounds than were agreed on first: all agree anew. A budget is for its rounds.
        """
        said = self._of_all() | {"members": sorted(member.hex() for member in self.members)}
        with suppress(ValueError):  # of a learner that is foreign code
            said["learner"] = json.loads(self.words)
        del said["plan"]["rounds"]
        return said

    def _of_all(self) -> dict[str, Any]:
        return self.to_json() | (
            {"decryptors": sorted(one.hex() for one in self.decryptors)} if self.one_shot else {}
        )

    @cached_property
    def digest(self) -> bytes:
        """32 bytes, equal for equal agreements."""
        text = json.dumps(self._of_all(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return context_digest(b"agreement", text.encode(), *sorted(self.members))

    @property
    def store_name(self) -> str:
        """Name under which a site's store keeps what it answered in this run."""
        return f"runs/{self.digest.hex()}"

    @cached_property
    def terms(self) -> Terms:
        """The order and the form of every sum."""
        ahead, after = self.statistics, self.evaluation
        return replace(
            Terms.of(self.plan, self.strategy, self.learner, self.schema),
            before=(
                (TaskKind.CUMULATIVE, ahead.cumulative),
                (TaskKind.COVARIANCE, ahead.covariance),
                (TaskKind.COUNT, ahead.count),
            ),
            values=ahead.values,
            after=((TaskKind.EVALUATE, after.overall), (TaskKind.SITES, after.sites)),
        )

    def subjects(self, store: Store) -> Subjects:
        """Return how sums are told to be about the same vectors."""
        rules, schema = self.consent, json.dumps(to_json(self.schema), sort_keys=True)
        rows = context_digest(b"rows", schema.encode(), rules.rows.encode())
        return Subjects(store, self.digest, rows, rules.near, rules.strict_cohorts)

    def fits(self, model: Parameters) -> bool:
        """Tell whether a global model has the names and shapes of this run's."""
        shared = sent(self.learner.initial(), Asks(personal=self.strategy.asks().personal))
        shapes, wanted = ({name: array.shape for name, array in one.items()} for one in (model, shared))
        return shapes == wanted

    def model_of(self, now: RunState, epsilon: float | None = None) -> Model:
        """Return the model of this run after a round, with all that whoever uses it must know."""
        said = {"learner": self.words, "agreement": self.digest.hex(), "epsilon": epsilon}
        return Model(now.parameters, now.standardizer, now.number, self.schema, **said)  # type: ignore[arg-type]

    @property
    def most_bytes(self) -> int:
        """Most bytes of what a server sends: a task with model, control variates and center, or a roster."""
        values = flatten(self.learner.initial()).size + len(self.schema.columns) + self.statistics.values
        return 2**20 + 2**12 * len(self.members) + 8 * 4 * values

    # --- who may be summed

    @cached_property
    def floor(self) -> int:
        """Fewest members that sums may tell apart: A + 2, with the colluders of all that are enrolled.

        A server chooses whom of them it asks. Passes over the same updates are further equations about
        these, so that they count, too.
        """
        return self.colluders + 2 + self.terms.passes

    @property
    def colluders(self) -> int:
        """A: of all that are enrolled, for they may be together in one round."""
        return self.security.colluders(len(self.members))

    def threat_model(self, sites: int) -> ThreatModel:
        """Return what a round of so many sites or more is planned for: all colluders may be in it."""
        # Rates are rounded up to ppm: one that is rounded down before is still that of as many colluders.
        return ThreatModel(
            corrupt=1_000_000 * self.colluders // sites / 1_000_000, dropout=self.security.dropout
        )

    def _infeasible(self, sites: int) -> str:
        """Return why no round can be of so many sites, and what helps; empty: one can."""
        if self.colluders >= sites:
            return "security.corrupt would have to be lower"
        model = self.threat_model(sites)
        try:
            choose_parameters(clients=sites, corrupt=model.corrupt, dropout=model.dropout)
        except InfeasibleParameters as error:
            return str(error)
        return ""

    @cached_property
    def cell(self) -> int:
        """Fewest members of a cell: as the floor and the plan want it, and as the protocol can sum over.

        raises  SettingError: not even all that are enrolled are enough
        """
        for sites in range(max(self.floor, self.plan.smallest_group), len(self.members) + 1):
            if not self._infeasible(sites):
                return sites
        raise SettingError(f"consent.regroup: {len(self.members)} members are not enough for one group")

    @property
    def minimum_cohort(self) -> int:
        """Fewest sites of a round over everybody."""
        given = self.security.minimum_cohort
        return max(4, math.ceil(0.75 * len(self.members))) if given is None else given

    @property
    def minimum_survivors(self) -> int:
        """Fewest sites of a sum."""
        privacy = self.plan.privacy
        return max(self.security.minimum_survivors, 0 if privacy is None else privacy.smallest)

    @property
    def regroups(self) -> bool:
        """Whether sums are of whole cells of a cohort; under noise the budget bounds what they tell."""
        return self.consent.regroup and self.plan.privacy is None

    def policy(self) -> Policy:
        """Return what a site demands of every round, down to the smallest that regrouping makes."""
        groups = getattr(self.strategy, "smallest", None)
        sizes = [self.minimum_cohort, self.plan.cohort, groups, self.cell if self.regroups else None]
        smallest = max(3, min(size for size in sizes if size is not None))
        return Policy(
            known=self.members,
            minimum_cohort=smallest,
            minimum_survivors=min(self.minimum_survivors, smallest),
            minimum_corrupt=self.security.corrupt,
            require_post_quantum=self.suite == HYBRID,
        )

    @property
    def suite(self) -> Suite:
        """The suite of every round of the pairwise protocol."""
        return HYBRID if self.security.suite == HYBRID else "x25519"

    @property
    def one_shot(self) -> bool:
        """Whether sites speak once a round."""
        return self.security.protocol == ONE_SHOT

    def oneshot_policy(self) -> OneShotPolicy:
        """Return what a site demands of every committee and round of the one-upload protocol."""
        fewest = self.security.minimum_decryptors
        return OneShotPolicy(
            known=self.members,
            decryptors=self.decryptors,
            minimum_candidates=fewest,
            minimum_committee=fewest,
            minimum_corrupt=self.security.corrupt,
            minimum_survivors=self.minimum_survivors,
            minimum_per_context=self.minimum_survivors,
            minimum_colluding=self.colluders,
            maximum_uploads=max(2, len(self.members)),
            require_post_quantum=self.security.post_quantum,
        )

    def cohort_bits(self, cohort: Collection[bytes]) -> str:
        """Name a cohort: a bitmap over the members in order, in hex."""
        bits = sum(1 << i for i, member in enumerate(sorted(self.members)) if member in cohort)
        return bits.to_bytes((len(self.members) + 7) // 8, "little").hex()

    def cohort_of(self, bits: str) -> frozenset[Identity] | None:
        """Undo `cohort_bits`; None: none is named. Raises TaskError."""
        if not bits:
            return None
        count = len(self.members)
        fine = len(bits) == 2 * ((count + 7) // 8) and re.fullmatch("[0-9a-f]*", bits)
        number = int.from_bytes(bytes.fromhex(bits), "little") if fine else 0
        if not fine or number >> count:
            raise TaskError(f"task.cohort: must be a bitmap over {count} members")
        return frozenset(member for i, member in enumerate(sorted(self.members)) if number >> i & 1)
