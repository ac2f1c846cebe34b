"""Whom a server asks next: not the guilty, not yet who is likely guilty, last who keeps silent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fedcore.data.schema import Column, Schema
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.rounds.agreement import Run, Security
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Mean
from fedcore.service.options import ServeOptions
from fedcore.service.sums import ServiceSum
from fedcore.strategies import FedAvg
from secagg import AbortReason, Aggregate, Identity, IdentityKey, RoundAbortedError, RoundParameters, Traffic
from secagg.service import Registry, ServerCredentials
from secagg.store import MemoryStore, ParticipationLedger
from tests.fedcore.service.test_sum import running_loop

IDENTITIES = sorted(IdentityKey.from_seed(bytes([i + 1]) * 32).identity for i in range(8))
NAMES = {identity: f"party-{i}" for i, identity in enumerate(IDENTITIES)}
Outcome = Callable[[frozenset[Identity]], frozenset[Identity] | Exception]


class Scripted:
    """A server whose rounds end as told: over whom, or with an error."""

    def __init__(self, outcomes: Collection[Outcome]) -> None:
        self.left = list(outcomes)
        self.asked: list[set[str]] = []
        self.gone: dict[bytes, set[str]] = {}
        self.connected = frozenset(IDENTITIES)

    async def known(self, _ticket: bytes) -> RoundParameters | None:
        return None

    async def round(
        self, parameters: RoundParameters, *_rest: Any, excluded: Collection[Identity], **_what: Any
    ) -> Aggregate:
        asked = frozenset(IDENTITIES) - frozenset(excluded)
        self.asked.append({NAMES[one] for one in asked})
        ends = self.left.pop(0)(asked)
        if isinstance(ends, Exception):
            raise ends
        self.gone[parameters.round_id] = {NAMES[one] for one in asked - ends}
        total = np.full(parameters.vector_length, len(ends), np.uint64)
        return Aggregate(total, tuple(sorted(ends)), (), Traffic())


def everybody_but(*silent: Identity) -> Outcome:
    return lambda asked: asked - frozenset(silent)


def likely(*suspects: Identity) -> Outcome:
    return lambda _asked: RoundAbortedError(AbortReason.UNRECOVERABLE_SECRET, "why", suspects, (), suspects)


def sums(folder: Path, outcomes: Collection[Outcome], times: int) -> list[set[str]]:
    """Ask for so many sums about different rows, and return who was asked in each."""
    schema = Schema((Column("age", 0.0, 1.0),), ("no", "yes"))
    run = Run(
        schema=schema,
        learner=LogisticRegressionLearner(features=1, classes=2),
        strategy=FedAvg(),
        plan=TrainingPlan(rounds=1, clients=8),
        words="",
        members=frozenset(IDENTITIES),
        security=Security(minimum_cohort=6),
    )
    options = ServeOptions(
        address="127.0.0.1:0",
        credentials=ServerCredentials.generate(),
        registry=Registry.of((NAMES[one], one) for one in IDENTITIES),
        run=run,
        out=folder,
    )
    server = Scripted(outcomes)
    with running_loop() as loop:
        store = MemoryStore()
        aggregator = ServiceSum(
            served=cast("Any", server),
            loop=loop,
            options=options,
            instance=bytes(16),
            gone=server.gone,
            on_task=lambda _task, _round: None,
            subjects=run.subjects(store),
            ledger=ParticipationLedger(store),
        )
        for _ in range(times):
            with suppress(RoundAbortedError):
                aggregator.sum(run.terms.task(Mean()))
            store = MemoryStore()  # other rows, as far as the ledger knows
            aggregator.subjects, aggregator.ledger = run.subjects(store), ParticipationLedger(store)
    return server.asked


def test_who_is_likely_guilty_is_left_out_of_the_next_attempt_only(tmp_path: Path) -> None:
    suspect = IDENTITIES[3]
    asked = sums(tmp_path, [likely(suspect), everybody_but(), everybody_but()], 3)
    everybody = set(NAMES.values())
    assert asked == [everybody, everybody - {NAMES[suspect]}, everybody]


def test_suspects_are_asked_again_where_the_others_are_too_few(tmp_path: Path) -> None:
    asked = sums(tmp_path, [likely(*IDENTITIES[:3]), everybody_but()], 2)
    assert asked[1] == set(NAMES.values())


@pytest.mark.parametrize("rounds", [3])
def test_who_is_silent_three_times_running_is_asked_last_for_as_many_rounds(
    tmp_path: Path, rounds: int
) -> None:
    sleeper = IDENTITIES[5]
    asked = sums(tmp_path, [everybody_but(sleeper)] * (2 * rounds + 1), 2 * rounds + 1)
    without = [NAMES[sleeper] not in one for one in asked]
    assert without == [False] * 3 + [True] * 3 + [False]


def test_who_answers_in_between_is_not_asked_last(tmp_path: Path) -> None:
    sleeper = IDENTITIES[5]
    outcomes = [everybody_but(sleeper), everybody_but(sleeper), everybody_but(), everybody_but(sleeper)]
    asked = sums(tmp_path, [*outcomes, everybody_but(), everybody_but()], 6)
    assert all(NAMES[sleeper] in one for one in asked)


def test_the_silent_are_asked_where_the_others_are_too_few(tmp_path: Path) -> None:
    asked = sums(tmp_path, [everybody_but(*IDENTITIES[:2], IDENTITIES[7])] * 5, 5)
    assert asked == [set(NAMES.values())] * 5
