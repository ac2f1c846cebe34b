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
from fedcore.rounds.agreement import Run, Security
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
from secagg.service import AggregationServer, Deadlines, Registry, ServerCredentials
from secagg.store import MemoryStore, ParticipationLedger

KEYS = [IdentityKey.from_seed(bytes([i + 1]) * 32) for i in range(6)]


class SpoiltServer:
    """Ends its first round with a guilty client, its second with another one blamed in the result."""

    def __init__(self) -> None:
        self.excluded: list[set[Identity]] = []

    async def run_round(
        self,
        parameters: RoundParameters,
        _payload: bytes,
        _deadlines: Deadlines,
        *,
        excluded: Collection[Identity],
        subject: bytes | None,
        cohort: Collection[Identity] | None,
        floor: int,
    ) -> Aggregate:
        self.excluded.append(set(excluded))
        one, two, three = (key.identity for key in KEYS[:3])
        if len(self.excluded) == 1:
            raise RoundAbortedError(AbortReason.UNRECOVERABLE_SECRET, "why", (one, two), (one,))
        blamed = (
            Blame(two, guilty=True, reason=BlameReason.WRONG_SHARE),
            Blame(three, guilty=False, reason=BlameReason.COMPLAINT),
        )
        total = np.ones(parameters.vector_length, np.uint64)
        return Aggregate(total, tuple(key.identity for key in KEYS[1:]), blamed, Traffic())


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


def test_the_guilty_are_left_out_of_all_later_rounds_and_suspects_are_not(tmp_path: Path) -> None:
    schema = Schema((Column("age", 0.0, 1.0),), ("no", "yes"))
    options = ServeOptions(
        address="127.0.0.1:0",
        credentials=ServerCredentials.generate(),
        registry=Registry.of((f"party-{i}", key.identity) for i, key in enumerate(KEYS)),
        run=Run(
            schema=schema,
            learner=LogisticRegressionLearner(features=1, classes=2),
            strategy=FedAvg(),
            plan=TrainingPlan(rounds=1, clients=6),
            words="",
            members=frozenset(key.identity for key in KEYS),
            security=Security(minimum_cohort=4),
        ),
        out=tmp_path,
    )
    task = options.run.terms.task(Mean())
    server = SpoiltServer()
    with running_loop() as loop:
        store = MemoryStore()
        aggregator = ServiceSum(
            cast("AggregationServer", cast("Any", server)),
            loop,
            options,
            traffic={},
            gone={},
            on_task=lambda _task, _round: None,
            subjects=options.run.subjects(store),
            ledger=ParticipationLedger(store),
        )
        with pytest.raises(RoundAbortedError):
            aggregator.sum(task)
        assert aggregator.sum(task).survivors == tuple(f"party-{i}" for i in range(1, 6))
        aggregator.sum(task)
    one, two = KEYS[0].identity, KEYS[1].identity
    assert server.excluded == [set(), {one}, {one, two}]
