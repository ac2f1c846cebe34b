"""Rounds of the one-upload protocol that outlive their server, their clients, and a store that fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg import IdentityKey, ParameterError, RoundAbortedError
from secagg.audit import Round, content_of
from secagg.params_oneshot import OneShotPhase
from secagg.service import (
    Contribution,
    Decryptor,
    OneShotSettings,
    Registry,
    RoundCompleted,
    RoundResumed,
    RunSettings,
    ServiceError,
    StoreFailed,
    Transcripts,
)
from secagg.service.line import Stream
from secagg.service.oneshot.driver import OneShotDriver
from secagg.service.oneshot.rounds import OneShotRound
from secagg.service.records import RecordType
from secagg.store import MemoryStore, SealedStore, SqliteStore, StoreFullError
from secagg.store.sql import AuditLog, Database, Journal, KeptRound, spool_of
from secagg.transcript import OneShotReport, verify_oneshot
from tests.service.cohort import RING_BITS, settle
from tests.service.oneshot.cohort import OneShotCohort, oneshot_cohort

TICKET = b"the first"
AUDITOR = IdentityKey.from_seed(b"t" * 32)


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[OneShotCohort]:
    with Database(folder / "server.db") as database:
        server = {"auditor": AUDITOR} | options.pop("server", {})
        async with oneshot_cohort(database=database, spool=spool_of(database), server=server, **options) as c:
            yield c


def recorded(folder: Path, *, keep_inputs: bool) -> Transcripts:
    (folder / "transcripts").mkdir()
    return Transcripts(folder=folder / "transcripts", signer=AUDITOR, keep_inputs=keep_inputs)


def verified(transcripts: Transcripts, c: OneShotCohort) -> OneShotReport:
    """Verify the one record that there is."""
    (path,) = transcripts.folder.iterdir()
    with path.open("rb") as file:
        report = verify_oneshot(
            file,
            server=AUDITOR.identity,
            known=c.registry.identities,
            decryptors=c.decryptors.identities,
        )
    assert report.ok, report.findings
    if report.facts.total is not None:
        assert np.array_equal(report.facts.total, sum(c.vectors) % 2**RING_BITS)
    return report


def holding(monkeypatch: pytest.MonkeyPatch, phase: OneShotPhase, answers: int) -> None:
    """Let a server take so many answers of a phase, and no more of anything."""
    original = OneShotDriver.receive
    taken = 0

    async def receive(self: OneShotDriver, *arguments: Any) -> Any:
        nonlocal taken
        if self.phase is phase:
            if taken == answers:
                await asyncio.Event().wait()
            taken += 1
        return await original(self, *arguments)

    monkeypatch.setattr(OneShotDriver, "receive", receive)


@pytest.mark.parametrize("spooled", [False, True], ids=["inline", "spooled"])
@pytest.mark.parametrize(
    "phase", [OneShotPhase.UPLOAD, OneShotPhase.REVIEW, OneShotPhase.AGREE, OneShotPhase.OPEN]
)
def test_a_server_that_is_started_again_goes_on_with_the_round(
    phase: OneShotPhase, spooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients whose upload was acknowledged are gone for ever; decryptors were started again, too."""
    if spooled:
        monkeypatch.setattr("secagg.service.oneshot.desks._SPOOLED_BYTES", 32)
    stores = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]
    transcripts = recorded(tmp_path, keep_inputs=spooled)
    kept: dict[str, Any] = {}
    answers = 2

    async def first() -> None:
        async with served(tmp_path, transcripts=transcripts) as c:
            kept["clients"] = c.stores
            for i in range(5):
                c.decrypt(i, store=stores[i])
            running = c.round(ticket=TICKET)
            await settle(lambda: len(c.run.decryptors) == 5 and bool(c.run.rounds))
            with monkeypatch.context() as patch:
                holding(patch, phase, answers)
                tasks = [asyncio.create_task(c.contribute(i)) for i in range(5)]
                await settle(
                    lambda: (
                        bool(c.run.rounds)
                        and c.run.rounds[0].phase is phase
                        and c.run.rounds[0].progress.received == answers
                    )
                )
                uploaded = c.run.rounds[0].uploaded
                kept["gone"] = {i for i, key in enumerate(c.keys) if key.identity in uploaded}
                await asyncio.gather(*(tasks[i] for i in kept["gone"]))
                await c.server.stop()
                with pytest.raises(ServiceError, match="stopped"):
                    await running
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def second() -> None:
        async with served(tmp_path, stores=kept["clients"], transcripts=transcripts) as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            running = c.round(ticket=TICKET)
            back = [i for i in range(5) if i not in kept["gone"]]
            said = await asyncio.gather(*(c.contribute(i) for i in back))
            c.exact(await running, range(5))
            assert all(one.acknowledged for one in said)
            resumed = [event for event in c.events if isinstance(event, RoundResumed)]
            assert [(event.phase, event.taken) for event in resumed] == [(phase, answers)]
            assert not c.committees  # it is still that of before
            # Members that were asked before say, or are told, once more what has passed.
            assert all(one.startswith("wrong phase: ") for one in c.refusals)
            log = AuditLog(c.server._shared.database, None, lambda: 0.0)
            (entry,) = (one for one in map(content_of, log.entries(0, 99)) if isinstance(one, Round))
            assert set(entry.survivors) == {key.identity for key in c.keys}
            report = verified(transcripts, c)
            assert report.transcript == entry.transcript
            assert (report.facts.total is not None) == spooled
            with c.server._shared.database.connection() as db:
                assert db.exec_driver_sql("SELECT count(*) FROM messages").scalar_one() == 0
            assert [name.rpartition(".")[2] for name in c.server._shared.spool.names()] == ["total"]

    asyncio.run(first())
    asyncio.run(second())


def test_a_decryptor_that_is_cancelled_ends_its_step_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next one restores is what this one has sent: nothing of it writes any more."""

    async def run() -> None:
        entered, free = threading.Event(), threading.Event()
        original = Decryptor._answers

        def slow(self: Decryptor, frame: bytes) -> Any:
            entered.set()
            free.wait(60)
            return original(self, frame)

        monkeypatch.setattr(Decryptor, "_answers", slow)
        store = SealedStore(MemoryStore(), b"k" * 32)
        async with oneshot_cohort(m=4) as c:
            c.decrypt(0, store=store)
            c.decrypt(1, 2, 3)
            running = c.round()
            await settle(entered.is_set)
            task = c.tasks.pop(0)
            task.cancel()
            await asyncio.sleep(0.1)
            assert not task.done()
            free.set()
            await asyncio.gather(task, return_exceptions=True)
            kept = list(store.names(""))
            await asyncio.sleep(0.1)
            assert list(store.names("")) == kept
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())


def test_a_ticket_is_one_round_whatever_happens(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path, stores=[MemoryStore() for _ in range(5)]) as c:
            c.decrypt()
            running = c.round(ticket=TICKET)
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            result = await running
            c.exact(result, range(5))
            again = await c.round(ticket=TICKET)
            c.exact(again, range(5))
            assert (again.unprotected, again.left_out, dict(again.traffic.up)) == (
                result.unprotected,
                result.left_out,
                dict(result.traffic.up),
            )
            with pytest.raises(ParameterError, match="other parameters"):
                await c.round(b"another model", ticket=TICKET)
        async with served(tmp_path) as c:
            c.exact(await c.round(ticket=TICKET), range(5))

    asyncio.run(run())


def test_a_server_that_is_started_again_goes_on_with_its_committee(tmp_path: Path) -> None:
    stores = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]

    async def run(payload: bytes, formed: int) -> None:
        async with served(tmp_path) as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            running = c.round(payload)
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await running, range(5))
            assert len(c.committees) == formed

    asyncio.run(run(b"one", 1))
    asyncio.run(run(b"two", 0))


def test_a_ticket_whose_round_is_over_is_answered_whoever_is_enrolled_by_now(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(tmp_path) as c:
            c.decrypt()
            running = c.round(ticket=TICKET)
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            await running
            await c.run.enrol(Registry.of([("client-0", c.keys[0].identity)]))
            c.exact(await c.round(ticket=TICKET), range(5))
            with pytest.raises(ParameterError, match="among: 1 enrolled clients"):
                await c.round(b"the next model")

    asyncio.run(run())


def test_clients_that_come_while_a_round_is_restored_hear_of_it_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]

    async def first() -> None:
        async with served(tmp_path) as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            running = c.round(ticket=TICKET)
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            await c.server.stop()
            await asyncio.gather(running, return_exceptions=True)

    async def second() -> None:
        free = threading.Event()
        original = OneShotRound._resume

        def slow(self: OneShotRound, kept: KeptRound) -> Any:
            free.wait(60)
            return original(self, kept)

        monkeypatch.setattr(OneShotRound, "_resume", slow)
        async with served(tmp_path) as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            running = c.round(ticket=TICKET)
            clients = [asyncio.create_task(c.contribute(i)) for i in range(5)]
            await settle(lambda: len(c.run.connected) == 5)
            free.set()
            await asyncio.gather(*clients)
            c.exact(await running, range(5))

    asyncio.run(first())
    asyncio.run(second())


def test_a_place_with_open_rounds_of_the_other_protocol_is_refused(tmp_path: Path) -> None:
    """They would be taken for damaged, and given up."""

    async def run() -> None:
        async with served(tmp_path) as c:
            c.decrypt()
            running = c.round(ticket=TICKET)
            await settle(lambda: bool(c.run.rounds) and c.run.rounds[0].uploading)
            await c.server.close(c.run)
            await asyncio.gather(running, return_exceptions=True)
            with pytest.raises(ParameterError, match="open rounds of the one-shot protocol"):
                await c.server.open(RunSettings(registry=c.registry))
            settings = OneShotSettings(registry=c.registry, decryptors=c.decryptors, post_quantum=False)
            c.run = await c.server.open_oneshot(settings)
            running = c.round(ticket=TICKET)
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await running, range(5))
            await c.server.close(c.run)
            await c.server.open(RunSettings(registry=c.registry))

    asyncio.run(run())


def test_a_client_that_was_not_acknowledged_sends_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was killed after the upload left: it neither computes nor uploads anything else."""

    async def run() -> None:
        with SqliteStore(tmp_path / "client.db") as store:
            async with served(tmp_path) as c:
                c.decrypt()
                running = c.round()
                sent: list[bytes] = []
                original = Stream.send

                async def send(self: Stream, frame: Any) -> None:
                    if len(bytes(frame)) > 2000:  # an upload
                        sent.append(bytes(frame))
                    await original(self, frame)

                monkeypatch.setattr(Stream, "send", send)
                with monkeypatch.context() as patch:
                    holding(patch, OneShotPhase.UPLOAD, 0)
                    lost = asyncio.create_task(c.contribute(0, store=store))
                    await settle(lambda: len(sent) == 1)
                    lost.cancel()
                    await asyncio.gather(lost, return_exceptions=True)

                def computes(_payload: bytes, _parameters: Any) -> Any:
                    raise AssertionError("it has uploaded")

                said = await c.client(0, store=store).contribute(computes)
                assert said.acknowledged
                assert sent[0] == sent[1]
                await asyncio.gather(*(c.contribute(i) for i in range(1, 5)))
                c.exact(await running, range(5))
                assert not list(store.names("upload/"))

    asyncio.run(run())


@pytest.mark.parametrize("over", [False, True])
def test_an_acknowledgement_that_was_lost_is_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    """Also when the round is over, with the upload in its sum."""

    async def run() -> None:
        store = MemoryStore()
        async with served(tmp_path) as c:
            c.decrypt()
            running = c.round()
            with monkeypatch.context() as patch:
                from secagg.service.connection import Connection

                original = Connection.send

                def deaf(self: Connection, kind: RecordType, content: Any) -> None:
                    if kind is not RecordType.TAKEN:
                        original(self, kind, content)

                patch.setattr(Connection, "send", deaf)
                lost = asyncio.create_task(c.contribute(0, store=store))
                await settle(lambda: bool(c.run.rounds) and len(c.run.rounds[0].uploaded) == 1)
                lost.cancel()
                await asyncio.gather(lost, return_exceptions=True)
            others = [asyncio.create_task(c.contribute(i)) for i in range(1, 5)]
            if over:
                await running
            assert (await c.contribute(0, store=store)).acknowledged
            await asyncio.gather(*others)
            c.exact(await running, range(5))

    asyncio.run(run())


def test_an_upload_whose_round_is_over_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be presumed summed: the client does not upload about this model again."""

    async def run() -> None:
        store = MemoryStore()
        async with served(tmp_path) as c:
            c.decrypt()
            running = c.round(goal=4)
            with monkeypatch.context() as patch:
                holding(patch, OneShotPhase.UPLOAD, 0)
                lost = asyncio.create_task(c.contribute(0, store=store))
                await settle(lambda: bool(list(store.names("upload/"))))
                lost.cancel()
                await asyncio.gather(lost, return_exceptions=True)
            await asyncio.gather(*(c.contribute(i) for i in range(1, 5)))
            c.exact(await running, range(1, 5))
            said = await c.contribute(0, store=store)
            assert not said.acknowledged
            assert said.reason.startswith("not acknowledged")
            second = c.round(b"the next model")
            await asyncio.gather(*(c.contribute(i, store=store if not i else c.stores[i]) for i in range(5)))
            c.exact(await second, range(5))

    asyncio.run(run())


@pytest.mark.parametrize("call", ["begin", "take", "end", "keep"])
def test_a_store_that_fails_for_a_while_is_a_delay(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second write fails at first; nothing that was acknowledged is lost, nothing counts twice."""
    monkeypatch.setattr("secagg.service.driver._RETRY_S", 0.02)
    original, failures = getattr(Journal, call), 0

    def failing(self: Journal, *arguments: Any, **options: Any) -> Any:
        nonlocal failures
        if failures < 3:
            failures += 1
            raise StoreFullError("database: no room")
        return original(self, *arguments, **options)

    async def run() -> None:
        async with served(tmp_path) as c:
            c.decrypt()
            await settle(lambda: len(c.run.decryptors) == 5)
            monkeypatch.setattr(Journal, call, failing)
            if call in {"begin", "keep"}:  # nothing has begun: the caller hears of it, and asks again
                for _ in range(3):
                    with pytest.raises(StoreFullError):
                        await c.round(ticket=TICKET)
            running = c.round(ticket=TICKET)
            said = await asyncio.gather(*(c.contribute(i) for i in range(5)))
            assert said == [Contribution(True, False, one.payload, one.round_id) for one in said]
            c.exact(await running, range(5))
            assert failures == 3
            if call in {"take", "end"}:
                assert any(isinstance(event, StoreFailed) for event in c.events)
            assert len([event for event in c.events if isinstance(event, RoundCompleted)]) >= 1

    asyncio.run(run())


def test_a_damaged_upload_ends_its_round_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was acknowledged, its client is gone: nobody can be asked for it again."""
    monkeypatch.setattr("secagg.service.oneshot.desks._SPOOLED_BYTES", 32)
    stores = [SealedStore(MemoryStore(), bytes([i]) * 32) for i in range(5)]
    clients = [MemoryStore() for _ in range(5)]

    async def first() -> None:
        async with served(tmp_path, stores=clients) as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            running = c.round(ticket=TICKET)
            for i in range(3):
                await c.contribute(i)
            await c.server.stop()
            await asyncio.gather(running, return_exceptions=True)

    async def second() -> None:
        async with served(tmp_path, stores=clients) as c:
            for i in range(5):
                c.decrypt(i, store=stores[i])
            with pytest.raises(RoundAbortedError, match="cannot be read any more"):
                await c.round(ticket=TICKET)
            running = c.round(b"the next model")
            await asyncio.gather(*(c.contribute(i) for i in range(5)))
            c.exact(await running, range(5))

    asyncio.run(first())
    with Database(tmp_path / "server.db") as database:
        spool = spool_of(database)
        (name, *_) = (one for one in spool.names() if ".upload" in one)
        spool.remove([name])
    asyncio.run(second())
