"""However a round ends, and whatever fails on the way: one end, kept, audited, told, and nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg import IdentityKey, Phase, RoundAbortedError
from secagg.audit import Round, content_of
from secagg.service import (
    RoundCompleted,
    RoundFailed,
    RoundResumed,
    RunSettings,
    StoreFailed,
    TranscriptFailed,
    Transcripts,
)
from secagg.store import (
    MemoryStore,
    SealedStore,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreGoneError,
)
from secagg.store.sql import AuditLog, Database, Journal, Lease, Leases, spool_of
from tests.service.cohort import PAYLOAD, SOON, Cohort, cohort, settle
from tests.service.test_durable import TICKET, begun, served, stopping_before

SERVER = IdentityKey.from_seed(b"t" * 32)


def audited(database: Database) -> list[Round]:
    log = AuditLog(database, None, database.now)
    return [one for one in map(content_of, log.entries(0, 99)) if isinstance(one, Round)]


def joining(c: Cohort, **options: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(c.take_part(i, **options)) for i in range(6)]


async def exact(c: Cohort, number: int = 1, **options: Any) -> None:
    result = await c.run.round(c.parameters(number), PAYLOAD, SOON, **options)
    assert np.array_equal(result.total, c.expected(list(range(6))))


def kept_then(raised: Exception, call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a call of the journal do its work, once, and then say that it failed: a lost reply to COMMIT."""
    failures = [raised]

    def wrapped(self: Journal, *arguments: Any, **options: Any) -> Any:
        result = call(self, *arguments, **options)
        if failures:
            self._database.when_kept(fail)
        return result

    def fail() -> None:
        raise failures.pop()

    return wrapped


@pytest.mark.parametrize("call", ["begin", "take", "checkpoint", "end"])
def test_a_store_that_kept_it_and_says_that_it_failed_is_a_delay(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.service.driver._RETRY_S", 0.01)
    raised = StoreGoneError("the database: no reply to COMMIT")
    monkeypatch.setattr(Journal, call, kept_then(raised, getattr(Journal, call)))

    async def run() -> None:
        with Database(tmp_path / "server.db") as database:
            async with cohort(database=database, auditor=SERVER) as c:
                tasks = joining(c)
                await exact(c, ticket=TICKET)
                outcomes = await asyncio.gather(*tasks)
                assert all(outcome.completed and outcome.receipt for outcome in outcomes)
                assert sum(isinstance(event, RoundCompleted) for event in c.events) == 1
            assert len(audited(database)) == 1
            assert [name.rpartition(".")[2] for name in spool_of(database).names()] == ["total"]

    asyncio.run(run())


def test_an_observer_that_fails_ends_no_round(caplog: pytest.LogCaptureFixture) -> None:
    def failing(_event: object) -> None:
        raise OSError(28, "No space left on device")

    async def run() -> None:
        async with cohort(observer=failing) as c:
            tasks = joining(c)
            await exact(c)
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))

    asyncio.run(run())
    assert any("observer failed" in record.message for record in caplog.records)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_round_whose_checkpoint_is_damaged_is_given_up_and_the_run_goes_on(
    damage: str, tmp_path: Path
) -> None:
    asyncio.run(begun(tmp_path, [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]))
    (checkpoint,) = (tmp_path / "server.db.spool").glob("*.checkpoint*")
    if damage == "gone":
        checkpoint.unlink()
    else:
        checkpoint.write_bytes(b"something else")

    async def second() -> None:
        async with served(tmp_path, auditor=SERVER) as c:
            with pytest.raises(RoundAbortedError, match="given up: what was kept of it"):
                await c.run.round(c.parameters(2), PAYLOAD, SOON, ticket=TICKET)
            assert [str(tmp_path) in event.reason for event in c.events if isinstance(event, StoreFailed)]
            tasks = joining(c)
            await exact(c, 3)
            assert all(str(tmp_path) not in outcome.reason for outcome in await asyncio.gather(*tasks))

    asyncio.run(second())
    with Database(tmp_path / "server.db") as database:
        assert [bool(one.reason) for one in audited(database)] == [True, False]
    left = [path.name for path in (tmp_path / "server.db.spool").iterdir()]
    assert [name.rpartition(".")[2] for name in left] == ["total"]


def test_a_round_whose_plan_is_damaged_does_not_stop_the_others(tmp_path: Path) -> None:
    stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]
    asyncio.run(begun(tmp_path, stores))
    other = bytes(16)
    with Database(tmp_path / "server.db") as database, database.connection() as db:
        db.exec_driver_sql(
            "INSERT INTO rounds (round_id, place, ticket, opened, state, header, record) "
            "VALUES (?, 'default/default', x'00', 0.0, 'open', x'c1', 0)",
            (other,),
        )

    async def second() -> None:
        async with served(tmp_path) as c:
            tasks = [asyncio.create_task(c.take_part(i, store=stores[i])) for i in range(6)]
            await exact(c, 2, ticket=TICKET)
            await asyncio.gather(*tasks)
            assert [event.round_id for event in c.events if isinstance(event, StoreFailed)] == [other]

    asyncio.run(second())


def test_a_run_that_cannot_be_opened_leaves_its_lease_and_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(begun(tmp_path, [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]))
    original = Journal.open

    def failing(self: Journal, name: str) -> Any:
        if name.endswith(".payload"):
            raise StoreError("the spool: is not there at the moment")
        return original(self, name)

    async def second() -> None:
        monkeypatch.setattr(Journal, "open", failing)
        before = asyncio.all_tasks()
        with pytest.raises(StoreError, match="not there at the moment"):
            async with served(tmp_path):
                pass
        monkeypatch.setattr(Journal, "open", original)
        assert not {task for task in asyncio.all_tasks() - before if "_beat" in repr(task)}
        with Database(tmp_path / "server.db") as database:
            assert Leases(database, holder="another").take("default/default") is not None

    asyncio.run(second())


def test_a_round_that_its_caller_gave_up_is_audited_and_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        with Database(tmp_path / "server.db") as database:
            async with cohort(database=database, auditor=SERVER) as c:
                hold = stopping_before(Phase.MASKED_INPUT_COLLECTION)
                tasks = [
                    asyncio.create_task(c.take_part(i, before_answer=hold if i else None)) for i in range(6)
                ]
                running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
                await settle(lambda: c.answered(Phase.MASKED_INPUT_COLLECTION, 1))
                with database.connection() as db:
                    kept = [bytes(row[0]) for row in db.exec_driver_sql("SELECT frame FROM messages")]
                assert kept
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                assert isinstance(c.events[-1], RoundFailed)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert [one.reason for one in audited(database)] != []
            assert spool_of(database).names() == []
            frames.extend(kept)

    frames: list[bytes] = []
    asyncio.run(run())
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert not any(one[:64] in files for one in frames)


def test_a_caller_that_gives_up_when_its_round_has_just_ended_hears_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        async with cohort() as c:
            tasks = joining(c)
            original = Journal.end

            def cancelling(self: Journal, *arguments: Any) -> None:
                original(self, *arguments)
                loop.call_soon_threadsafe(running.cancel)

            loop = asyncio.get_running_loop()
            monkeypatch.setattr(Journal, "end", cancelling)
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            with pytest.raises(asyncio.CancelledError):
                await running
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_who_comes_while_the_store_is_away_has_a_part_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("secagg.service.driver._RETRY_S", 0.01)
    original, away = Journal.take, True

    def failing(self: Journal, *arguments: Any) -> None:
        if away:
            raise StoreFullError("the disk: is full")
        original(self, *arguments)

    async def run() -> None:
        nonlocal away
        async with cohort() as c:
            monkeypatch.setattr(Journal, "take", failing)
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(5)]
            await settle(lambda: any(isinstance(event, StoreFailed) for event in c.events))
            tasks.append(asyncio.create_task(c.take_part(5)))
            await settle(lambda: c.keys[5].identity in c.run.connected)
            await settle(lambda: c.keys[5].identity not in c.run.idle)
            away = False
            assert np.array_equal((await running).total, c.expected(list(range(6))))
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))
            assert any(isinstance(event, RoundResumed) for event in c.events)

    asyncio.run(run())


@pytest.mark.parametrize("when", ["begun", "sealed"])
def test_a_transcript_that_cannot_be_written_is_in_no_log_and_costs_no_round(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "transcripts"
    folder.mkdir()

    def failing(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    if when == "begun":
        monkeypatch.setattr("secagg.service.transcripts.create_private", failing)
    else:
        monkeypatch.setattr("secagg.service.transcripts.move_into_place", failing)

    async def run() -> None:
        with Database("sqlite://") as database:
            transcripts = Transcripts(folder=folder, signer=SERVER)
            async with cohort(database=database, auditor=SERVER, transcripts=transcripts) as c:
                tasks = joining(c)
                await exact(c)
                await asyncio.gather(*tasks)
                assert sum(isinstance(event, TranscriptFailed) for event in c.events) == 1
            assert [one.transcript for one in audited(database)] == [b""]
        assert not list(folder.iterdir())

    asyncio.run(run())


def test_a_durable_server_keeps_what_it_spools_though_nobody_says_where(tmp_path: Path) -> None:
    async def first() -> None:
        with Database(tmp_path / "server.db") as database:
            async with cohort(database=database) as c:
                hold = stopping_before(Phase.SHARE_KEYS)
                tasks = joining(c, before_answer=hold)
                running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON, ticket=TICKET))
                await settle(lambda: c.answered(Phase.SHARE_KEYS, 0))
                await c.server.stop()
                for task in (*tasks, running):
                    task.cancel()
                await asyncio.gather(*tasks, running, return_exceptions=True)

    async def second() -> None:
        with Database(tmp_path / "server.db") as database:
            async with cohort(database=database) as c:
                await settle(lambda: any(isinstance(event, RoundResumed) for event in c.events))

    asyncio.run(first())
    asyncio.run(second())


def test_a_server_that_stands_by_outlives_a_database_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = StoreGoneError("the database: does not answer")
    answers: list[bool | StoreError] = [True, gone, gone, True]
    original = Leases.take
    monkeypatch.setattr("secagg.service.server._LOOK_S", 0.01)

    def take(self: Leases, place: str) -> Lease | None:
        if not answers:
            return original(self, place)
        answer = answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return None  # another server leads

    async def run() -> None:
        async with cohort() as c:
            monkeypatch.setattr(Leases, "take", take)
            told: list[object] = []
            settings = RunSettings(registry=c.registry, place="icu/second", observer=told.append)
            second = await c.server.open(settings)
            assert second.place == "icu/second"
            assert told == [StoreFailed(b"", str(gone))]  # once, however often it is asked
            answers.append(gone)
            with pytest.raises(StoreGoneError):  # nobody is known to lead: it is told
                await c.server.open(RunSettings(registry=c.registry, place="icu/third"))
            answers.extend([True, StoreDamagedError("the database: is something else")])
            with pytest.raises(StoreDamagedError):  # waiting does not mend it
                await c.server.open(RunSettings(registry=c.registry, place="icu/fourth"))

    asyncio.run(run())
    assert answers == []
