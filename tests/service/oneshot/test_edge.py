"""Edges as processes: sums of sums, whoever is started again, and what a root fetches from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from secagg import IdentityKey, OneShotParameters, ParameterError
from secagg.kernels import UIntArray
from secagg.messages.oneshot import ONESHOT_FRAMES, Packed, PackedRequest
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
    ServerCredentials,
)
from secagg.service.context import round_context
from secagg.service.oneshot.rounds import FramesAsPacked
from secagg.store import MemoryStore, ParticipationLedger, SealedStore, Store
from secagg.store.sql import Database, Journal, Leases, spool_of
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
