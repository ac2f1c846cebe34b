"""What a training run makes of a round that somebody spoilt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fedcore.data.schema import Column, Schema
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.rounds.agreement import ConsentRules, Run, Security
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import Mean
from fedcore.service.options import ServeOptions
from fedcore.service.sums import ServiceSum
from fedcore.strategies import FedAvg
from secagg import (
    AbortReason,
    Aggregate,
    Blame,
    BlameReason,
    Identity,
    IdentityKey,
    RoundAbortedError,
    RoundParameters,
    Traffic,
)
from secagg.service import Deadlines, Registry, ServedRun, ServerCredentials
from secagg.store import MemoryStore, ParticipationLedger

KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(8)]


class SpoiltServer:
    """Ends its first round with a guilty client, its second with another one blamed in the result."""

    def __init__(self) -> None:
        self.connected: frozenset[Identity] = frozenset()
        self.excluded: list[set[Identity]] = []
        self.floors: list[int] = []

    async def known(self, _ticket: bytes) -> RoundParameters | None:
        return None

    async def round(
        self,
        parameters: RoundParameters,
        _payload: bytes,
        _deadlines: Deadlines,
        *,
        ticket: bytes,
        excluded: Collection[Identity],
        subject: bytes | None,
        cohort: Collection[Identity] | None,
        floor: int,
    ) -> Aggregate:
        self.excluded.append(set(excluded))
        self.floors.append(floor)
        one, two, three = (key.identity for key in KEYS[:3])
        if len(self.excluded) == 1:
            raise RoundAbortedError(AbortReason.UNRECOVERABLE_SECRET, "why", (one, two), (one,))
        blamed = (
            Blame(two, guilty=True, reason=BlameReason.WRONG_SHARE),
            Blame(three, guilty=False, reason=BlameReason.COMPLAINT),
        )
        total = np.ones(parameters.vector_length, np.uint64)
        return Aggregate(total, tuple(key.identity for key in KEYS[1:6]), blamed, Traffic())


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def sums_of(
    server: Any, loop: asyncio.AbstractEventLoop, folder: Path, sites: int = 6, **changes: Any
) -> ServiceSum:
    """What sums over a server that is told, for sites of which none is connected."""
    options = ServeOptions(
        address="127.0.0.1:0",
        credentials=ServerCredentials.generate(),
        registry=Registry.of((f"party-{i}", key.identity) for i, key in enumerate(KEYS[:sites])),
        run=Run(
            schema=Schema((Column("age", 0.0, 1.0),), ("no", "yes")),
            learner=LogisticRegressionLearner(features=1, classes=2),
            strategy=FedAvg(),
            plan=TrainingPlan(rounds=1, clients=sites),
            words="",
            members=frozenset(key.identity for key in KEYS[:sites]),
            security=Security(minimum_cohort=4),
            **changes,
        ),
        out=folder,
    )
    store = MemoryStore()
    return ServiceSum(
        served=cast("ServedRun", server),
        loop=loop,
        options=options,
        instance=bytes(16),
        gone={},
        on_task=lambda _task, _round: None,
        subjects=options.run.subjects(store),
        ledger=ParticipationLedger(store),
    )


def test_the_guilty_are_left_out_of_all_later_rounds_and_suspects_are_not(tmp_path: Path) -> None:
    server = SpoiltServer()
    with running_loop() as loop:
        aggregator = sums_of(server, loop, tmp_path)
        task = aggregator.options.run.terms.task(Mean())
        with pytest.raises(RoundAbortedError):
            aggregator.sum(task)
        assert aggregator.sum(task).survivors == tuple(f"party-{i}" for i in range(1, 6))
        aggregator.sum(task)
    one, two = KEYS[0].identity, KEYS[1].identity
    assert server.excluded == [set(), {one}, {one, two}]


def test_nobody_is_asked_whose_vector_would_be_in_a_sum_that_ledgers_refuse(tmp_path: Path) -> None:
    """A sum over five came out: another one about it is over these five, by the floor that all agreed to."""
    server = SpoiltServer()
    with running_loop() as loop:
        aggregator = sums_of(server, loop, tmp_path)
        task = aggregator.options.run.terms.task(Mean())
        subject = aggregator.subjects.of(task)
        aggregator.ledger.released(subject, bytes(16), [key.identity for key in KEYS[:5]])
        with pytest.raises(RoundAbortedError):
            aggregator.sum(task)
    assert server.excluded == [{KEYS[5].identity}]
    assert server.floors == [aggregator.options.run.floor]


def test_a_spoiled_sum_is_dealt_into_cells_that_were_in_it_as_a_whole(tmp_path: Path) -> None:
    with running_loop() as loop:
        aggregator = sums_of(SpoiltServer(), loop, tmp_path, 8, consent=ConsentRules(regroup=True))
    names = aggregator.names
    aggregator._cells = tuple(frozenset(key.identity for key in part) for part in (KEYS[:4], KEYS[4:8]))
    assert aggregator.deal(names, 2) == [tuple(names[:4]), tuple(names[4:])]
    assert aggregator.deal(names[1:], 2) == []
