"""A server that lies about everything it may choose, over many rounds: what its sums tell together.

Honest sites are real: a `Consent` each, over a store of its own. The server chooses tasks, cohorts, who is in
a sum and who is asked to sign; colluders sign anything. What it can compute is linear algebra over the
vectors of one subject: all statistics of the rows; all updates about nearly the same model, in any step,
attempt and run. A pass over an update weights it, by numbers that the server is taken to know.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

from fedcore.errors import FedcoreError
from fedcore.rounds.agreement import ConsentRules, Run, Security, StatisticsRules
from fedcore.rounds.consent import Consent
from fedcore.rounds.questions import Question, TaskKind, Train
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.task import Task
from fedcore.statistics.standardizer import Standardizer
from fedcore.strategies import FedAvg, GeometricMedian
from secagg import ConsentError, Identity, IdentityKey, RoundParameters, ThreatModel, context_digest
from secagg.store import LedgerError, MemoryStore, ParticipationLedger, cells, floor_for
from tests.fedcore.service.test_training import LEARNER
from tests.fedcore.sites import SCHEMA, make_plan, make_question, make_sites
from tests.store.spans import alone, quorum

KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(12)]
STATISTICS = StatisticsRules(count=3, values=8)
BASE = {name: array + 1.0 for name, array in LEARNER.initial().items()}
FAR = {name: array * 3.0 for name, array in BASE.items()}
# What vectors are about: a model and those near it have one subject in truth.
MODELS: dict[str, tuple[Any, ...]] = {
    "base": (BASE, {name: array * (1 + 1e-5) for name, array in BASE.items()}),
    "far": (FAR, {name: array + 1e-5 for name, array in FAR.items()}),
}


PLAIN = ConsentRules()


@dataclass(frozen=True)
class Game:
    """What was agreed on, and how many of the members collude.

    at_least  fewest members of a roster, of which no more collude than its share
    """

    members: int
    corrupt: float
    at_least: int = 4
    passes: int = 0
    attempts: int = 3
    rules: ConsentRules = PLAIN

    def run(self, name: str) -> Run:
        """The run of these rules; another name makes it another one about the same rows."""
        strategy = GeometricMedian(smoothing=0.1, passes=self.passes) if self.passes else FedAvg()
        plan = replace(make_plan(rounds=8, clients=self.members), attempts=self.attempts, smallest_group=2)
        return Run(
            schema=SCHEMA,
            learner=LEARNER,
            strategy=strategy,
            plan=plan,
            words="local",
            members=frozenset(KEYS[: self.members]),
            security=Security(corrupt=self.corrupt, minimum_cohort=self.at_least, minimum_survivors=2),
            consent=replace(self.rules, name=name),
            statistics=STATISTICS,
        )

    def colluders(self, clients: int) -> int:
        return floor_for(ThreatModel(corrupt=self.corrupt), clients) - 2


@dataclass
class Server:
    """Lies by chance: `rng` decides, more often for what may help."""

    game: Game
    rng: random.Random
    weak: dict[str, Any] = field(default_factory=dict)  # of the sites' ledgers
    sums: dict[str, list[list[Fraction]]] = field(default_factory=dict)  # by what they are about in truth
    sets: list[frozenset[int]] = field(default_factory=list)  # that were opened
    asked: dict[str, set[int]] = field(default_factory=dict)  # who signed about it
    rounds: int = 0
    own: MemoryStore = field(default_factory=MemoryStore)

    RUNS: ClassVar[dict[tuple[Game, str], Run]] = {}

    def __post_init__(self) -> None:
        game = self.game
        self.runs = [self.RUNS.setdefault((game, name), game.run(name)) for name in ("one", "two")]
        self.colluding = frozenset(self.rng.sample(range(game.members), game.colluders(game.members)))
        self.honest = sorted(frozenset(range(game.members)) - self.colluding)
        self.consents: dict[int, list[Consent]] = {}
        for member in self.honest:
            store = MemoryStore()
            ledger = ParticipationLedger(store, **self.weak)
            site = replace(SITE)
            self.consents[member] = [Consent(run, site, store, ledger) for run in self.runs]
        self.cohorts = [frozenset(range(game.members))]
        self.place = [(0, 0)] * len(self.runs)  # step and attempt that were asked last
        self.question: list[tuple[str, Question]] = [("", make_question(TaskKind.MEAN))] * len(self.runs)

    # --- what it chooses

    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            which = self.rng.choice((0, 0, 1))
            truth, task = self._task(which)
            roster = self._roster()
            self.round(which, truth, task, roster, self._survivors(which, task, roster))

    def _task(self, which: int) -> tuple[str, Task]:
        """Ask the same again, a pass over it, or the next in order - or any other that stands later."""
        terms, (step, attempt) = self.runs[which].terms, self.place[which]
        truth, question = self.question[which]
        choice = self.rng.random()
        if step and attempt < self.game.attempts and choice < 0.4:
            attempt, question = attempt + 1, question.first()
        elif isinstance(question, Train) and question.passes < self.game.passes and choice < 0.8:
            center = np.array([self.rng.random() for _ in range(terms.size)])
            question = replace(question, again=question.passes + 1, center=center)
        else:
            places = list(terms.schedule)
            step = min(step + self.rng.choice((1, 1, 1, 2)), len(places))
            attempt = 1
            truth, question = self._about(places[step - 1].kind, places[step - 1].number)
        self.place[which], self.question[which] = (step, attempt), (truth, question)
        cohort = self.runs[which].cohort_bits({KEYS[i] for i in self._cohort()})
        return truth, replace(
            terms.task(question), attempt=attempt, cohort=cohort if self.runs[which].regroups else ""
        )

    def _about(self, kind: TaskKind, number: int) -> tuple[str, Question]:
        if kind is not TaskKind.TRAIN:
            return "rows", make_question(kind, number)
        truth = self.rng.choice(("base", "base", "far"))
        model = self.rng.choice(MODELS[truth])
        truth = "updates" if self.game.rules.strict_cohorts else truth
        scale = Standardizer(np.array([50.0, 0.0, 0.5]), np.array([20.0, 2.0, 0.0]))
        return truth, Train(model=model, number=number, standardizer=scale)

    def _cohort(self) -> frozenset[int]:
        """One of a few, so that subjects meet the same again."""
        if len(self.cohorts) < 4 and self.rng.random() < 0.2:
            size = self.rng.randint(self.runs[0].cell if self.runs[0].regroups else 4, self.game.members)
            self.cohorts.append(frozenset(self.rng.sample(range(self.game.members), size)))
        return self.rng.choice(self.cohorts)

    def _roster(self) -> frozenset[int]:
        """No more colluders than its share: what else a round promises, it does not promise beyond."""
        size = self.rng.randint(self.game.at_least, self.game.members)
        size = self.rng.choice((size, self.game.members))
        colluding = self.rng.sample(
            sorted(self.colluding), min(self.game.colluders(size), len(self.colluding))
        )
        honest = self.rng.sample(self.honest, min(size - len(colluding), len(self.honest)))
        return frozenset(colluding) | frozenset(honest)

    def _survivors(self, which: int, task: Task, roster: frozenset[int]) -> frozenset[int]:
        """As before with one member more or less, or some whole cells, or anybody."""
        run, choice = self.runs[which], self.rng.random()
        if self.sets and choice < 0.4:
            return (self.rng.choice(self.sets) ^ {self.rng.randrange(self.game.members)}) & roster
        if run.regroups and choice < 0.8:
            cohort = run.cohort_of(task.cohort) or frozenset()
            dealt = cells(run.subjects(self.own).of(task), cohort, floor=run.cell)
            some = self.rng.sample(dealt, self.rng.randint(1, len(dealt)))
            return frozenset(KEYS.index(Identity(one)) for cell in some for one in cell) & roster
        gone = self.rng.choice((0, 0, 1, 2, 3))
        return roster - frozenset(self.rng.sample(sorted(roster), gone))

    # --- a round

    def round(
        self, which: int, truth: str, task: Task, roster: frozenset[int], wanted: frozenset[int]
    ) -> bool:
        """Run one; whether its sum comes out."""
        self.rounds += 1
        run, payload = self.runs[which], task.encode()
        if len(roster) <= run.colluders:
            return False
        parameters = RoundParameters(
            round_id=self.rounds.to_bytes(16, "big"),
            vector_length=task.encoding.length,
            ring_bits=task.encoding.codec.ring_bits,
            context=context_digest(run.digest, payload),
            threat_model=run.threat_model(len(roster)),
            minimum_cohort=len(roster),
            minimum_survivors=2,
        )
        if len(roster) < run.policy().minimum_cohort:
            return False
        uploaded = roster & self.colluding
        for member in sorted(roster - self.colluding):
            if self._uploads(member, self.consents[member][which], payload, parameters):
                uploaded |= {member}
        survivors = wanted & uploaded
        missing = quorum(len(roster), floor_for(parameters.threat_model, len(roster)) - 2) - len(
            survivors & self.colluding
        )
        names = [Identity(KEYS[i]) for i in sorted(survivors)]
        for member in self._order(truth, survivors - self.colluding):
            if missing <= 0:
                break
            try:
                self.consents[member][which].signs(payload, parameters, names)
            except (FedcoreError, LedgerError, ConsentError):
                continue
            self.asked.setdefault(truth, set()).add(member)
            missing -= 1
        if missing > 0 or len(survivors) < run.policy().minimum_survivors:
            return False
        self.sets.append(survivors)
        again = task.question.passes
        self.sums.setdefault(truth, []).append(
            [self._weight(again) if i in survivors else Fraction(0) for i in self.honest]
        )
        return True

    def _uploads(self, member: int, consent: Consent, payload: bytes, parameters: RoundParameters) -> bool:
        """Whether a site takes part, as its client and its seat have it."""
        try:
            question = consent.question_of(payload, parameters)
            floor = question.floor or floor_for(parameters.threat_model, len(question.cohort or ()))
            consent.ledger.join(question.subject, cohort=question.cohort, floor=floor)
            consent.admit(payload, parameters)
        except (FedcoreError, LedgerError):
            return False
        consent.ledger.uploaded(question.subject, parameters.round_id, KEYS[member], 0)
        return True

    def _order(self, truth: str, members: Collection[int]) -> Iterable[int]:
        """First who has signed nothing about it, and no more than are needed."""
        seen = self.asked.get(truth, set())
        return sorted(members, key=lambda one: (one in seen, self.rng.random()))

    def _weight(self, again: int) -> Fraction:
        return Fraction(self.rng.randint(1, 10**6), 10**6) if again else Fraction(1)

    def isolates(self) -> set[int]:
        return {self.honest[i] for rows in self.sums.values() for i in alone(rows)}


SITE = replace(make_sites(1)["site-0"], learner=LEARNER)
GAMES = {
    "nobody colludes": Game(5, 0.0),
    "an odd rate": Game(7, 0.13),
    "a rate that rounds up": Game(8, 0.126, at_least=5),
    "strict": Game(7, 0.13, rules=ConsentRules(strict_cohorts=True)),
    "cells": Game(9, 0.1, rules=ConsentRules(regroup=True)),
    "cells, a large cohort": Game(12, 0.15, at_least=6, rules=ConsentRules(regroup=True)),
    "passes": Game(8, 0.1, passes=2, attempts=1),
}
TRIES, ROUNDS = 8, 12


def searched(game: Game, tries: int = TRIES, **weak: Any) -> tuple[int, int]:
    """How many sums came out, and how many members they isolate."""
    opened = isolated = 0
    for seed in range(tries):
        server = Server(game, random.Random(seed), weak)
        server.play(ROUNDS)
        opened += len(server.sets)
        isolated += len(server.isolates())
    return opened, isolated


@pytest.mark.parametrize("name", GAMES)
def test_no_choice_of_tasks_cohorts_and_survivors_isolates_a_member(name: str) -> None:
    opened, isolated = searched(GAMES[name])
    assert isolated == 0
    assert opened >= TRIES


# --- the same search against sites that are weaker: it would have found what there is


def test_it_isolates_members_whose_ledgers_only_warn() -> None:
    for name in ("an odd rate", "strict", "cells"):
        assert searched(GAMES[name], tries=4, differencing="warn")[1] > 0


def _of_the_step(_subjects: Subjects, task: Task) -> bytes:
    return context_digest(b"subject", task.name.encode())


def _of_the_bytes(_subjects: Subjects, task: Task) -> bytes:
    return context_digest(b"subject", task.digest)


def _of_the_run(subjects: Subjects, task: Task) -> bytes:
    return context_digest(b"subject", subjects.run, str(isinstance(task.question, Train)).encode())


@pytest.mark.parametrize("of", [_of_the_step, _of_the_bytes, _of_the_run])
def test_it_isolates_members_whose_subjects_are_narrower_than_what_they_tell(
    of: Callable[[Subjects, Task], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Subjects, "all_of", lambda subjects, task: (of(subjects, task),))
    assert searched(GAMES["nobody colludes"], tries=10)[1] > 0


# --- what it found when it was made


def train_once(server: Server, again: int, attempt: int) -> bool:
    """A sum over three of four: the first of a round, or a pass with a center that the server made up."""
    terms = server.runs[0].terms
    question = server._about(TaskKind.TRAIN, 1)[1]
    assert isinstance(question, Train)
    center = np.full(terms.size, float(attempt)) if again else None
    task = replace(terms.task(replace(question, model=BASE, again=again, center=center)), attempt=attempt)
    return server.round(0, "base", task, frozenset(range(4)), frozenset(range(3)))


def test_as_many_passes_as_were_agreed_on_are_within_the_floor() -> None:
    server = Server(Game(4, 0.0, passes=1), random.Random(0))
    assert train_once(server, 0, 1)
    assert train_once(server, 1, 1)
    assert server.isolates() == set()


def test_passes_of_another_attempt_with_another_center_isolate_nobody() -> None:
    server = Server(Game(4, 0.0, passes=1), random.Random(0))
    for attempt in (1, 2):
        for again in (0, 1):
            train_once(server, again, attempt)
    assert server.isolates() == set()


def test_all_that_may_collude_in_a_roster_that_an_agreement_allows_isolate_nobody() -> None:
    """2 of 11 may collude: with 1 of a roster of 10, as its share is, sets of 10 and of 9 had two quorums."""
    game = Game(11, 0.1, at_least=9)
    run = game.run("one")
    assert replace(run, security=Security()).minimum_cohort == 9
    server = Server(game, random.Random(0))
    roster = server.colluding | frozenset(server.honest[:8])
    task = run.terms.task(make_question(TaskKind.MEAN))
    assert len(server.colluding) == 2
    assert server.round(0, "rows", task, roster, roster)
    victim = min(server.asked["rows"])
    server.round(0, "rows", replace(task, attempt=2), roster, roster - {victim})
    assert server.isolates() == set()
