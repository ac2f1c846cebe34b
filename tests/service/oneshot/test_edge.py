"""Edges as processes: sums of sums, whoever is started again, and what a root fetches from them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from secagg import IdentityKey, OneShotParameters, ParameterError
from secagg.effects import Frame
from secagg.kernels import UIntArray
from secagg.messages.oneshot import ONESHOT_FRAMES, Packed, PackedRequest
from secagg.params_oneshot import OneShotPhase
from secagg.service import (
    AggregationServer,
    Contribution,
    EdgeRun,
    EdgeSettings,
    Event,
    HelloError,
    MessageRefused,
    OneShotClient,
    PartialSumTaken,
    Registry,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    ServerCredentials,
    StoreFailed,
)
from secagg.service.connection import QUEUED_RECORDS
from secagg.service.context import round_context
from secagg.service.kept import summed_in
from secagg.service.line import Stream
from secagg.service.oneshot.edge import ROOT, EdgeRound, _Upward
from secagg.service.oneshot.rounds import FramesAsPacked, OneShotRound
from secagg.service.records import Record, RecordType
from secagg.service.stored import Incoming, Step
from secagg.store import LeaseLostError, MemoryStore, ParticipationLedger, SealedStore, Store, StoreError
from secagg.store.sql import Database, Journal, KeptRound, Leases, spool_of
from tests.service.cohort import PINNED, settle
from tests.service.oneshot.cohort import OneShotCohort, oneshot_cohort
from tests.service.oneshot.test_durable import AUDITOR, recorded, verified

EDGE_KEYS = [IdentityKey.from_seed(bytes([i + 201]) * 32) for i in range(2)]
EDGES = Registry.of((f"edge-{i}", key.identity) for i, key in enumerate(EDGE_KEYS))
NEAR = ServerCredentials.generate()  # of the edges, for their clients


@dataclass
class Near:
    """An edge that is open, and what it saw."""

    server: AggregationServer
    run: EdgeRun
    clients: frozenset[bytes]
    events: list[Event] = field(default_factory=list)
    last: list[asyncio.Task[Contribution]] = field(default_factory=list)

    @property
    def completed(self) -> bool:
        """Whether the root has said that a round is completed."""
        return any(isinstance(event, RoundCompleted) for event in self.events)


@asynccontextmanager
async def edge(c: OneShotCohort, i: int, clients: Iterable[int], **options: Any) -> AsyncIterator[Near]:
    """Start edge i for some of the clients."""
    database, events = options.pop("database", None), list[Event]()
    spool = None if database is None else spool_of(database)
    server = AggregationServer(address="127.0.0.1:0", credentials=NEAR, database=database, spool=spool)
    await server.start()
    try:
        settings: dict[str, Any] = {
            "root": f"127.0.0.1:{c.server.port}",
            "credentials": PINNED,
            "signer": EDGE_KEYS[i],
            "registry": Registry.of((f"client-{j}", c.keys[j].identity) for j in clients),
            "observer": events.append,
            "upload_s": 60.0,
        }
        run = await server.open_edge(EdgeSettings(**(settings | options)))
        yield Near(server, run, settings["registry"].identities, events)
    finally:
        await server.stop()


def client(c: OneShotCohort, near: Near, i: int, store: Store | None = None) -> OneShotClient:
    """A client of an edge: it knows the edge's address, and trusts it no more than the root."""
    return OneShotClient(
        address=f"127.0.0.1:{near.server.port}",
        credentials=ServerCredentials(NEAR.certificate),
        signer=c.keys[i],
        policy=c.policy(),
        store=store or MemoryStore(),
    )


def vector_of(c: OneShotCohort, i: int, _payload: bytes, _parameters: OneShotParameters) -> UIntArray:
    return c.vectors[i]


async def upload(c: OneShotCohort, near: Near, *clients: int) -> None:
    said = await asyncio.gather(*(client(c, near, i).contribute(partial(vector_of, c, i)) for i in clients))
    assert all(one.acknowledged for one in said), said


def test_two_edges_and_clients_of_the_root_are_in_one_sum(tmp_path: Path) -> None:
    transcripts, ledger = recorded(tmp_path, keep_inputs=False), ParticipationLedger(MemoryStore())

    async def run() -> None:
        async with AsyncExitStack() as stack:
            c = await stack.enter_async_context(
                oneshot_cohort(
                    8, edges=EDGES, transcripts=transcripts, ledger=ledger, server={"auditor": AUDITOR}
                )
            )
            near = [await stack.enter_async_context(edge(c, i, range(3 * i, 3 * i + 3))) for i in range(2)]
            c.decrypt()
            running = c.round()
            await asyncio.gather(
                upload(c, near[0], 0, 1, 2), upload(c, near[1], 3, 4, 5), c.contribute(6), c.contribute(7)
            )
            c.exact(await running, range(8))
            taken = [event for event in c.events if isinstance(event, PartialSumTaken)]
            assert sorted((one.edge, one.clients) for one in taken) == [
                ("edge-0", ("client-0", "client-1", "client-2")),
                ("edge-1", ("client-3", "client-4", "client-5")),
            ]
            for one in near:
                await settle(lambda one=one: one.completed)  # type: ignore[misc]
            verified(transcripts, c)
            assert all(len(ledger.participations(key.identity)) == 1 for key in c.keys)
            c.run.finish(b"the last")
            assert await asyncio.gather(*(finished(c, one) for one in near)) == [b"the last"] * 2

    asyncio.run(run())


async def finished(c: OneShotCohort, near: Near) -> bytes:
    """Let an edge tell everybody that there are no more rounds."""
    for i, key in enumerate(c.keys):
        if key.identity in near.clients:
            near.last.append(asyncio.create_task(client(c, near, i).contribute(partial(vector_of, c, i))))
    return await near.run.finished()


def test_who_uploads_through_two_edges_counts_once() -> None:
    """Both totals have it: of one it is fetched, and taken off."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            c = await stack.enter_async_context(oneshot_cohort(6, edges=EDGES))
            near = [
                await stack.enter_async_context(edge(c, 0, [0, 1, 2])),
                await stack.enter_async_context(edge(c, 1, [2, 3, 4])),
            ]
            c.decrypt()
            running = c.round(goal=6)
            await asyncio.gather(upload(c, near[0], 0, 1, 2), upload(c, near[1], 2, 3, 4))
            await c.contribute(5)
            c.exact(await running, range(6))

    asyncio.run(run())


@pytest.mark.parametrize("sent", [False, True], ids=["before its sum", "after its sum"])
def test_an_edge_that_is_started_again_goes_on_with_what_it_acknowledged(tmp_path: Path, sent: bool) -> None:
    """Its clients are gone for good; what the root fetches is there."""
    ledger, mine = ParticipationLedger(MemoryStore()), [0, 1, 2, 3]
    ends = {"goal": 3, "grace_s": 0.01} if sent else {}

    async def run() -> None:
        async with AsyncExitStack() as stack:
            c = await stack.enter_async_context(oneshot_cohort(6, edges=EDGES, ledger=ledger))
            other = await stack.enter_async_context(edge(c, 1, [2, 4, 5]))
            c.decrypt()
            running = c.round(goal=6)
            with Database(tmp_path / "edge.db") as database:
                async with edge(c, 0, mine, database=database, **ends) as near:
                    await upload(c, near, 0, 1, 2)
                    if sent:
                        await settle(lambda: any(isinstance(e, PartialSumTaken) for e in c.events))
                        (there,) = c.run.rounds
                        assert ledger.told(round_context(bytes(there.payload)), c.keys[0].identity)
                async with edge(c, 0, mine, database=database) as near:
                    (again,) = near.run.rounds
                    await again.settled.wait()
                    assert again.uploading is not sent
                    assert len(again.uploaded) == 3
                    if not sent:
                        await upload(c, near, 3)
                    await upload(c, other, 2, 4, 5)  # of 2 one upload is fetched and taken off
                    if sent:
                        await c.contribute(3)
                    c.exact(await running, range(6))
                    await settle(lambda near=near: near.completed)  # type: ignore[misc]
                    assert not [e for e in c.events if isinstance(e, MessageRefused)]
                    await settle(lambda near=near: not near.run.rounds)  # type: ignore[misc]
                    assert not list(near.server._shared.spool.names())
                with database.connection() as db:
                    assert db.exec_driver_sql("SELECT count(*) FROM messages").scalar_one() == 0

    asyncio.run(run())


def test_a_vector_that_was_fetched_from_an_edge_is_where_its_frame_is() -> None:
    """The root may need it once more, when it chooses other uploads."""
    with Database("sqlite://") as database:
        spool = spool_of(database)
        leases = Leases(database, holder="test")
        lease = leases.take("default/default")
        assert lease is not None
        packed = FramesAsPacked(Journal(database, spool, leases, lease))
        frame = bytes(ONESHOT_FRAMES.encode(bytes(16), Packed(b"d" * 32, b"the vector")))
        packed.arrives(frame, None)
        packed.put(b"d" * 32, b"the vector")
        assert bytes(packed.get(b"d" * 32)) == b"the vector"
        packed.arrives(bytes(ONESHOT_FRAMES.encode(bytes(16), PackedRequest(b"d" * 32))), None)
        packed.put(b"e" * 32, b"")
        with pytest.raises(TypeError, match="vectors come in uploads"):
            packed.get(b"e" * 32)


def test_a_root_that_is_started_again_has_the_sums_of_its_edges(tmp_path: Path) -> None:
    async def run() -> None:
        sealed = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]
        with Database(tmp_path / "root.db") as database, Database(tmp_path / "edge.db") as at_edge:
            options: dict[str, Any] = {"database": database, "spool": spool_of(database), "edges": EDGES}
            for again in (False, True):
                async with oneshot_cohort(5, **options) as c:
                    for i in range(5):
                        c.decrypt(i, store=sealed[i])
                    running = c.round(ticket=b"one")
                    async with edge(c, 0, [0, 1, 2], database=at_edge) as near:
                        if not again:
                            await upload(c, near, 0, 1, 2)
                            await settle(lambda c=c: any(isinstance(e, PartialSumTaken) for e in c.events))  # type: ignore[misc]
                        else:
                            await asyncio.gather(c.contribute(3), c.contribute(4))
                            c.exact(await running, range(5))
                            await settle(lambda near=near: near.completed)  # type: ignore[misc]
                    await c.server.stop()
                    await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_an_edge_that_vanishes_before_its_sum_costs_its_clients_and_nothing_else() -> None:
    async def run() -> None:
        async with oneshot_cohort(6, edges=EDGES) as c:
            c.decrypt()
            running = c.round(goal=4)
            async with edge(c, 0, [0, 1, 2]) as near:
                await upload(c, near, 0)
            await asyncio.gather(*(c.contribute(i) for i in (2, 3, 4, 5)))
            c.exact(await running, [2, 3, 4, 5])

    asyncio.run(run())


def test_a_round_is_over_for_an_edge_whose_sum_did_not_come_in_time() -> None:
    """What it acknowledged is in no sum, and it says so: to its operator, and to clients that ask again."""

    async def run() -> None:
        async with oneshot_cohort(6, edges=EDGES) as c:
            c.decrypt()
            running = c.round(goal=4)
            async with edge(c, 0, [0, 1, 2]) as near:
                await upload(c, near, 0)
                await asyncio.gather(*(c.contribute(i) for i in (2, 3, 4, 5)))
                c.exact(await running, [2, 3, 4, 5])
                await settle(lambda: any(isinstance(event, RoundFailed) for event in near.events))
                assert "took no more before our sum was sent" in str(near.events)
                assert not near.completed
                kept = near.run._journal.find(near.events[0].round_id)
                assert kept is not None
                assert not summed_in(kept.outcome)

    asyncio.run(run())


def test_a_sum_that_did_not_reach_the_root_is_not_called_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Frame] = []
    monkeypatch.setattr(_Upward, "send", lambda _, frame: held.append(frame))

    async def run() -> None:
        async with oneshot_cohort(6, edges=EDGES) as c:
            c.decrypt()
            running = c.round(goal=4)
            async with edge(c, 0, [0, 1, 2], goal=1) as near:
                await upload(c, near, 0)
                await settle(lambda: bool(held))
                await asyncio.gather(*(c.contribute(i) for i in (2, 3, 4, 5)))
                c.exact(await running, [2, 3, 4, 5])
                await settle(lambda: any(isinstance(event, RoundFailed) for event in near.events))
                assert "it came too late" in str(near.events)

    asyncio.run(run())


def test_an_edge_is_not_offered_a_round_that_takes_no_more() -> None:
    async def run() -> None:
        async with oneshot_cohort(7, edges=EDGES) as c:
            sealed = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]
            for i in range(5):
                c.decrypt(i, store=sealed[i])
            running = c.round(goal=4)
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            await c.lose(2, 3, 4)
            await asyncio.gather(*(c.contribute(i) for i in (3, 4, 5, 6)))
            (there,) = c.run.rounds
            await settle(lambda: not there.uploading)
            async with edge(c, 0, [0, 1, 2]) as near:
                await settle(lambda: bool(c.run.edges))
                for i in (2, 3, 4):
                    c.decrypt(i, store=sealed[i])
                c.exact(await running, [3, 4, 5, 6])
                running = c.round(b"the next", goal=6)
                await asyncio.gather(upload(c, near, 0, 1, 2), *(c.contribute(i) for i in (3, 4, 5)))
                c.exact(await running, range(6))
                assert len([event for event in near.events if isinstance(event, RoundOpened)]) == 1

    asyncio.run(run())


def test_a_client_that_the_root_does_not_admit_does_not_cost_the_others() -> None:
    async def run() -> None:
        async with oneshot_cohort(7, edges=EDGES) as c:
            c.decrypt()
            running = c.round(among=[key.identity for key in c.keys[1:]])
            async with edge(c, 0, [0, 1, 2]) as near:
                await upload(c, near, 0, 1, 2)
                await asyncio.gather(*(c.contribute(i) for i in (3, 4, 5, 6)))
                c.exact(await running, range(1, 7))

    asyncio.run(run())


def test_more_vectors_are_fetched_from_an_edge_than_wait_for_a_client() -> None:
    both = QUEUED_RECORDS + 4

    async def run() -> None:
        async with AsyncExitStack() as stack:
            c = await stack.enter_async_context(oneshot_cohort(both + 1, edges=EDGES))
            near = [
                await stack.enter_async_context(edge(c, 0, range(both))),
                await stack.enter_async_context(edge(c, 1, range(both + 1))),
            ]
            c.decrypt()
            running = c.round()
            await upload(c, near[0], *range(both))
            await upload(c, near[1], *range(both + 1))
            c.exact(await running, range(both + 1))
            assert not near[1].run.trouble

    asyncio.run(run())


@pytest.mark.parametrize("restored", ["any time", "before it hears so", "after"])
def test_an_edge_that_comes_back_when_its_round_is_over_is_done_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: str
) -> None:
    """A root sends an edge away that brings a sum of a round that it has no more."""
    resume, heard, greeted, told = EdgeRound._resume, _Upward.on_record, threading.Event(), list[Record]()

    def held(self: EdgeRound, kept: KeptRound) -> Step:
        greeted.wait()
        return resume(self, kept)

    async def hear(self: _Upward, record: Record, stream: Stream) -> None:
        if restored == "after":
            await heard(self, record, stream)
        if record.type is RecordType.ROUNDS:
            greeted.set()
            told.append(record)
            await asyncio.gather(*(driver.settled.wait() for driver in self._run.rounds))
            await asyncio.sleep(0.1)  # what would be sent now is sent
        if restored != "after":
            await heard(self, record, stream)

    async def run() -> None:
        with Database(tmp_path / "root.db") as database, Database(tmp_path / "edge.db") as at_edge:
            options: dict[str, Any] = {"database": database, "spool": spool_of(database), "edges": EDGES}
            sealed = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]
            async with oneshot_cohort(5, **options) as c:
                for i in range(5):
                    c.decrypt(i, store=sealed[i])
                running = c.round()
                async with edge(c, 0, [0, 1, 2], database=at_edge) as near:
                    await upload(c, near, 0, 1, 2)
                    await settle(lambda: any(isinstance(e, PartialSumTaken) for e in c.events))
                await asyncio.gather(c.contribute(3), c.contribute(4))
                c.exact(await running, range(5))
            if restored != "any time":
                monkeypatch.setattr(EdgeRound, "_resume", held)
                monkeypatch.setattr(_Upward, "on_record", hear)
            async with oneshot_cohort(5, **options) as c, edge(c, 0, [0, 1, 2], database=at_edge) as near:
                await settle(lambda: not near.run.rounds)
                assert "has ended it meanwhile" in str(near.events)
                await asyncio.sleep(0.3)  # what was sent is refused before there is another round
                for i in range(5):
                    c.decrypt(i, store=sealed[i])
                running = c.round(b"the next")
                await asyncio.gather(upload(c, near, 0, 1, 2), c.contribute(3), c.contribute(4))
                c.exact(await running, range(5))
                assert near.run.trouble is None
                assert len(told) <= 1  # it was sent away once otherwise, or for good

    asyncio.run(run())


def test_an_edge_that_is_there_before_its_round_is_restored_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root dies while it fetches: the request is of the stream before."""
    restored, resume = threading.Event(), OneShotRound._resume

    def held(self: OneShotRound, kept: KeptRound) -> Step:
        restored.wait()
        return resume(self, kept)

    async def run() -> None:
        sealed = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]
        with ExitStack() as stack:
            of_root, *of_edges = (
                stack.enter_context(Database(tmp_path / f"{name}.db")) for name in ("root", "a", "b")
            )
            options: dict[str, Any] = {"database": of_root, "spool": spool_of(of_root), "edges": EDGES}
            for again in (False, True):
                async with AsyncExitStack() as there:
                    c = await there.enter_async_context(oneshot_cohort(6, **options))
                    near = [
                        await there.enter_async_context(
                            edge(c, i, range(2 * i, 2 * i + 3), database=of_edges[i])
                        )
                        for i in range(2)
                    ]
                    for i in range(5):
                        c.decrypt(i, store=sealed[i])
                    running = c.round(ticket=b"one")
                    if not again:
                        monkeypatch.setattr(EdgeRound, "take", _no_vectors(EdgeRound.take))
                        await upload(c, near[0], 0, 1, 2)
                        await upload(c, near[1], 2, 3, 4)
                        await c.contribute(5)
                        await settle(lambda c=c: c.run.rounds[0].phase is OneShotPhase.FETCH)  # type: ignore[misc]
                        monkeypatch.undo()
                        monkeypatch.setattr(OneShotRound, "_resume", held)
                    else:
                        await settle(lambda c=c: len(c.run.edges) == 2)  # type: ignore[misc]
                        restored.set()
                        c.exact(await running, range(6))
                    await c.server.stop()
                    await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def _no_vectors(take: Any) -> Any:
    """Let an edge be silent when vectors are fetched from it."""

    def silent(self: EdgeRound, batch: list[Incoming]) -> Step:
        step: Step = take(self, batch)
        if any(arrived.sender == ROOT and arrived.frame for arrived in batch):
            step.effects = []
        return step

    return silent


@pytest.mark.parametrize("step", ["find", "begin"])
def test_a_store_that_fails_when_a_round_is_offered_costs_an_edge_one_connection(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def run() -> None:
        async with oneshot_cohort(5, edges=EDGES) as c, edge(c, 0, [0, 1, 2]) as near:
            c.decrypt()
            await settle(lambda: bool(c.run.edges))
            journal = near.run._journal
            works, failures = getattr(journal, step), [StoreError("the disk is full")]

            def fails(*given: Any, **options: Any) -> Any:
                if failures:
                    raise failures.pop()
                return works(*given, **options)

            monkeypatch.setattr(journal, step, fails)
            running = c.round()
            await asyncio.gather(upload(c, near, 0, 1, 2), c.contribute(3), c.contribute(4))
            c.exact(await running, range(5))
            (failed,) = (event for event in near.events if isinstance(event, StoreFailed))
            assert failed.reason == "the disk is full"

    asyncio.run(run())


def test_a_store_that_fails_when_a_vector_is_fetched_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[StoreError] = []
    take = EdgeRound.take

    def fails(self: EdgeRound, batch: list[Incoming]) -> Step:
        if failures and any(arrived.sender == ROOT and arrived.frame for arrived in batch):
            raise failures.pop()
        return take(self, batch)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            c = await stack.enter_async_context(oneshot_cohort(6, edges=EDGES))
            near = [await stack.enter_async_context(edge(c, i, range(2 * i, 2 * i + 3))) for i in range(2)]
            c.decrypt()
            running = c.round()
            failures.append(StoreError("the disk does not answer"))
            monkeypatch.setattr(EdgeRound, "take", fails)
            await asyncio.gather(upload(c, near[0], 0, 1, 2), upload(c, near[1], 2, 3, 4), c.contribute(5))
            c.exact(await running, range(6))
            assert not failures

    asyncio.run(run())


def test_an_edge_that_another_process_leads_leaves_the_root(tmp_path: Path) -> None:
    """Both would say hello with one identity, and push each other out for ever."""

    async def run() -> None:
        with Database(tmp_path / "edge.db") as database:
            async with oneshot_cohort(5, edges=EDGES) as c, edge(c, 0, [0, 1, 2], database=database) as near:
                await settle(lambda: bool(c.run.edges))
                finished = asyncio.create_task(near.run.finished())
                heart = near.run._heart
                await heart.stop()
                heart.lost = LeaseLostError("default/default: another server leads")
                await near.run._stop_leading(heart.lost)
                with pytest.raises(LeaseLostError, match="another server leads"):
                    await finished
                await settle(lambda: not c.run.edges)

    asyncio.run(run())


def test_an_edge_ends_with_its_root_though_a_round_goes_on_and_clients_do_not_come() -> None:
    async def run() -> None:
        async with oneshot_cohort(5, edges=EDGES) as c, edge(c, 0, [0, 1, 2], linger_s=0.1) as near:
            c.decrypt()
            running = c.round()
            await upload(c, near, 0)
            c.run.finish(b"the last")
            assert await near.run.finished() == b"the last"
            assert "the root has no more rounds" in str(near.events)
            running.cancel()

    asyncio.run(run())


def test_uploads_are_taken_no_longer_because_the_edge_was_started_again(tmp_path: Path) -> None:
    async def run() -> None:
        with Database(tmp_path / "edge.db") as database:
            async with oneshot_cohort(5, edges=EDGES) as c:
                c.decrypt()
                running = c.round(goal=5)
                async with edge(c, 0, [0, 1, 2], database=database) as near:
                    await upload(c, near, 0, 1)
                with database.connection() as db:
                    db.exec_driver_sql("UPDATE rounds SET opened = opened - 3600")
                async with edge(c, 0, [0, 1, 2], database=database) as near:
                    await settle(lambda: any(isinstance(e, PartialSumTaken) for e in c.events))
                    await asyncio.gather(*(c.contribute(i) for i in (2, 3, 4)))
                    c.exact(await running, range(5))

    asyncio.run(run())


def test_an_edge_waits_for_as_many_as_it_is_told_or_as_there_can_be() -> None:
    async def run() -> None:
        async with oneshot_cohort(6, edges=EDGES) as c:
            c.decrypt()
            for options, changes in (({"goal": 2}, {"goal": 4}), ({}, {"goal": 4, "maximum_uploads": 4})):
                running = c.round(str(options).encode(), **changes)
                async with edge(c, 0, range(6) if not options else [0, 1, 2], **options) as near:
                    first = (0, 1) if options else (0, 1, 2, 3)
                    await upload(c, near, *first)
                    if options:
                        await asyncio.gather(c.contribute(4), c.contribute(5))
                    c.exact(await running, [*first, 4, 5][:4])

    asyncio.run(run())


def test_an_edge_whose_clients_do_not_come_sends_what_it_has_in_time() -> None:
    async def run() -> None:
        async with oneshot_cohort(6, edges=EDGES) as c:
            c.decrypt()
            running = c.round(goal=5)
            async with edge(c, 0, [0, 1, 2], upload_s=1.0) as near, edge(c, 1, [1], upload_s=0.1) as other:
                await upload(c, near, 0, 2)
                await asyncio.gather(*(c.contribute(i) for i in (3, 4, 5)))
                c.exact(await running, [0, 2, 3, 4, 5])
                assert not other.completed

    asyncio.run(run())


def test_who_is_no_edge_is_heard_as_none() -> None:
    async def run() -> None:
        strangers = Registry.of([("edge-1", EDGE_KEYS[1].identity)])
        async with oneshot_cohort(5, edges=strangers) as c, edge(c, 0, [0, 1, 2], patience_s=5.0) as near:
            with pytest.raises(HelloError):
                await near.run.finished()

    asyncio.run(run())


def test_settings_that_fit_nothing_are_refused() -> None:
    one: dict[str, Any] = {"root": "127.0.0.1:9", "credentials": PINNED, "signer": EDGE_KEYS[0]}
    mine = Registry.of([("me", EDGE_KEYS[0].identity)])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"registry": mine}, "signer: is a client"),
        ({"registry": Registry({}), "linger_s": -1.0}, "linger_s: must"),
        ({"registry": Registry({}), "goal": -1}, "goal: must"),
        ({"registry": Registry({}), "upload_s": 0.0}, "upload_s: must"),
        ({"registry": Registry({}), "place": "nowhere"}, "place: must"),
    ]
    for changes, words in cases:
        with pytest.raises(ParameterError, match=words):
            EdgeSettings(**(one | changes))


def test_an_edge_is_no_client_of_the_root() -> None:
    async def run() -> None:
        both = Registry.of([("edge", IdentityKey.from_seed(bytes([1]) * 32).identity)])
        with pytest.raises(ParameterError, match="is a client, and no edge"):
            async with oneshot_cohort(5, edges=both):
                pass

    asyncio.run(run())
