"""Rounds that outlive their server, a store that fails and heals, and several rounds and runs at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg import IdentityKey, ParameterError, Phase, RoundAbortedError, context_digest
from secagg.service import (
    MessageLost,
    Registry,
    RoundOutcome,
    RoundResumed,
    RunSettings,
    ServiceError,
    StoreFailed,
    Transcripts,
)
from secagg.service.records import RecordType
from secagg.service.stored import Standing
from secagg.store import MemoryStore, SealedStore, StoreBusyError, StoreError, StoreFullError
from secagg.store.sql import Database, FolderSpool, Journal, spool_of
from secagg.transcript import verify
from tests.service.cohort import PAYLOAD, SOON, Cohort, cohort, settle

TICKET = b"the first"


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[Cohort]:
    """A cohort whose server keeps everything in a folder, on the port of the one before."""
    with Database(folder / "server.db") as database:
        async with cohort(database=database, spool=spool_of(database), **options) as c:
            yield c


def stopping_before(phase: Phase) -> Callable[[Phase, bytes], Any]:
    """Let clients answer up to a phase, and hold there as long as this server lives."""

    async def before(at: Phase, _payload: bytes) -> None:
        if at is phase:
            await asyncio.Event().wait()

    return before


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ADVERTISE_KEYS])
@pytest.mark.parametrize("spooled", [False, True], ids=["inline", "spooled"])
def test_a_server_that_is_started_again_goes_on_with_the_round(
    phase: Phase, spooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients were killed as well: they come back with their sealed stores."""
    if spooled:
        monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1)
    stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]
    (tmp_path / "transcripts").mkdir()
    signer = IdentityKey.from_seed(b"t" * 32)
    transcripts = Transcripts(folder=tmp_path / "transcripts", signer=signer)

    async def first() -> None:
        async with served(tmp_path, transcripts=transcripts) as c:
            hold = stopping_before(phase)
            # one is always ahead of the others: the phase is not closed
            tasks = [
                asyncio.create_task(c.take_part(i, store=stores[i], before_answer=hold if i else None))
                for i in range(6)
            ]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON, ticket=TICKET))
            await settle(lambda: c.answered(phase, 1))
            await c.server.stop()
            with pytest.raises(ServiceError, match="stopped"):
                await running
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def second() -> None:
        async with served(tmp_path, transcripts=transcripts) as c:
            resumed = [event for event in c.events if isinstance(event, RoundResumed)]
            tasks = [asyncio.create_task(c.take_part(i, store=stores[i])) for i in range(6)]
            result = await c.run.round(c.parameters(2), PAYLOAD, SOON, ticket=TICKET)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))
            resumed = [event for event in c.events if isinstance(event, RoundResumed)]
            assert [(event.phase, event.taken) for event in resumed] == [(phase, 1)]
            assert not any(isinstance(event, MessageLost) for event in c.events)

    asyncio.run(first())
    asyncio.run(second())
    (path,) = (tmp_path / "transcripts").iterdir()
    with path.open("rb") as file:
        assert verify(file, server=signer.identity).ok


def test_an_upload_that_is_cut_short_on_disk_is_lost_told_and_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1)
    stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]

    async def first() -> None:
        async with served(tmp_path) as c:
            hold = stopping_before(Phase.MASKED_INPUT_COLLECTION)
            tasks = [
                asyncio.create_task(c.take_part(i, store=stores[i], before_answer=hold if i > 1 else None))
                for i in range(6)
            ]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON, ticket=TICKET))
            await settle(lambda: c.answered(Phase.MASKED_INPUT_COLLECTION, 2))
            await c.server.stop()
            for task in (*tasks, running):
                task.cancel()
            await asyncio.gather(*tasks, running, return_exceptions=True)

    asyncio.run(first())
    one, two = sorted((tmp_path / "server.db.spool").glob("*.upload*"))
    with one.open("r+b") as file:
        file.truncate(one.stat().st_size - 1)
    two.unlink()

    async def second() -> None:
        async with served(tmp_path) as c:
            tasks = [asyncio.create_task(c.take_part(i, store=stores[i])) for i in range(6)]
            result = await c.run.round(c.parameters(2), PAYLOAD, SOON, ticket=TICKET)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            lost = {event.client for event in c.events if isinstance(event, MessageLost)}
            assert lost == {"party-0", "party-1"}
            await asyncio.gather(*tasks)

    asyncio.run(second())


def test_an_upload_that_goes_to_disk_while_its_round_ends_does_not_outlive_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON, ticket=TICKET))
            await settle(lambda: c.driver is not None)
            driver = c.driver
            assert driver is not None
            await running
            spool = FolderSpool(tmp_path / "server.db.spool")
            late = spool.create(f"{c.parameters().round_id.hex()}.upload1-99")
            late.commit()
            assert await driver.receive(c.keys[5].identity, spooled=late.name) is Standing.STANDS
            assert [name.rpartition(".")[2] for name in spool.names()] == ["total"]
            await asyncio.gather(*tasks)

    asyncio.run(main())


async def begun(folder: Path, stores: list[SealedStore]) -> None:
    """Leave a round in which one client has shared its keys."""
    async with served(folder) as c:
        hold = stopping_before(Phase.SHARE_KEYS)
        tasks = [
            asyncio.create_task(c.take_part(i, store=stores[i], before_answer=hold if i else None))
            for i in range(6)
        ]
        running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON, ticket=TICKET))
        await settle(lambda: c.answered(Phase.SHARE_KEYS, 1))
        await c.server.stop()
        for task in (*tasks, running):
            task.cancel()
        await asyncio.gather(*tasks, running, return_exceptions=True)


def test_a_message_that_was_exchanged_in_the_store_is_not_taken_for_another(tmp_path: Path) -> None:
    """Whoever can write there can stop the round, and is found out; it does not become another one."""
    stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]

    async def second() -> None:
        async with served(tmp_path) as c:
            await settle(lambda: any(isinstance(event, StoreFailed) for event in c.events))
            (failed, *_) = [event for event in c.events if isinstance(event, StoreFailed)]
            assert "a message is another one than was taken" in failed.reason
            assert not any(isinstance(event, RoundResumed) for event in c.events)

    asyncio.run(begun(tmp_path, stores))
    with Database(tmp_path / "server.db") as database, database.connection() as db:
        db.exec_driver_sql("UPDATE messages SET digest = zeroblob(32)")
    asyncio.run(second())


def test_a_round_whose_payload_is_gone_ends_and_the_run_goes_on(tmp_path: Path) -> None:
    asyncio.run(begun(tmp_path, [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]))
    (payload,) = (tmp_path / "server.db.spool").glob("*.payload")
    payload.unlink()

    async def second() -> None:
        async with served(tmp_path) as c:
            with pytest.raises(RoundAbortedError, match="given up: what was kept of it"):
                await c.run.round(c.parameters(2), PAYLOAD, SOON, ticket=TICKET)

    asyncio.run(second())


def test_a_message_that_is_damaged_in_the_store_is_lost_told_and_sent_again(tmp_path: Path) -> None:
    stores = [SealedStore(MemoryStore(), b"k" * 32) for _ in range(6)]

    async def second() -> None:
        async with served(tmp_path) as c:
            tasks = [asyncio.create_task(c.take_part(i, store=stores[i])) for i in range(6)]
            async with asyncio.timeout(20):
                result = await c.run.round(c.parameters(2), PAYLOAD, SOON, ticket=TICKET)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            assert [event.client for event in c.events if isinstance(event, MessageLost)] == ["party-0"]
            await asyncio.gather(*tasks)

    asyncio.run(begun(tmp_path, stores))
    with Database(tmp_path / "server.db") as database, database.connection() as db:
        db.exec_driver_sql("UPDATE messages SET frame = zeroblob(100)")
    asyncio.run(second())


def test_a_client_notes_its_upload_before_it_keeps_what_would_send_it_again() -> None:
    """Killed between the two it has noted an upload that never left, and not the other way round."""

    class Dying(SealedStore):
        def put(self, values: Any) -> None:
            noted = bool(self.names("ledger/open/"))
            if any(name.endswith("/session") and value is not None for name, value in values.items()):
                seen.append((noted, "seat/default/default/upload" in values))
            super().put(values)

    seen: list[tuple[bool, bool]] = []

    async def run() -> None:
        async with cohort(length=5000) as c:
            store = Dying(MemoryStore(), b"k" * 32)
            tasks = [asyncio.create_task(c.take_part(i, store=store if i == 0 else None)) for i in range(6)]
            await c.run.round(c.parameters(), PAYLOAD, SOON)
            await asyncio.gather(*tasks)

    asyncio.run(run())
    with_upload = [noted for noted, has_upload in seen if has_upload]
    assert with_upload
    assert all(with_upload)


@pytest.mark.parametrize("call", ["take", "checkpoint", "end"])
@pytest.mark.parametrize("error", [StoreFullError, StoreBusyError, StoreError])
def test_a_store_that_fails_within_a_round_is_a_delay_and_nothing_else(
    call: str, error: type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.service.driver._RETRY_S", 0.01)
    original, failures = getattr(Journal, call), 3

    def failing(self: Journal, *arguments: Any, **options: Any) -> Any:
        nonlocal failures
        begun = self.find(arguments[0])
        if failures and begun is not None and begun.checkpoint is not None:
            failures -= 1
            raise error("the disk of the server: is not well")
        return original(self, *arguments, **options)

    async def run() -> None:
        async with cohort() as c:
            monkeypatch.setattr(Journal, call, failing)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))
            assert sum(isinstance(event, StoreFailed) for event in c.events) == 3
            assert any(isinstance(event, RoundResumed) for event in c.events)
            assert not any("disk" in text for text in c.refusals)  # nobody's business

    asyncio.run(run())


def test_an_upload_that_comes_again_does_not_take_away_the_one_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the acknowledgement was lost: the same upload on a new stream, and another one."""
    monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1)
    kept: list[Any] = []
    original = Journal.take

    def watching(self: Journal, round_id: bytes, messages: Any) -> None:
        kept.extend(messages)
        original(self, round_id, messages)

    monkeypatch.setattr(Journal, "take", watching)

    async def run() -> None:
        async with served(tmp_path) as c:
            hold = stopping_before(Phase.MASKED_INPUT_COLLECTION)
            tasks = [asyncio.create_task(c.take_part(i, before_answer=hold if i else None)) for i in range(6)]
            running = asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON))
            await settle(lambda: c.answered(Phase.MASKED_INPUT_COLLECTION, 1))
            (upload,) = [one for one in kept if one.spooled is not None]
            content = (tmp_path / "server.db.spool" / upload.spooled).read_bytes()
            assert c.driver is not None
            for frame in (content, content[:-1] + bytes([content[-1] ^ 1])):
                connection = c.run._streams._there[c.keys[0].identity]
                writer = c.run._streams._sink(connection, RecordType.FRAME, len(frame))
                assert writer is not None
                writer.write(frame)
                writer.commit()
                await c.driver.receive(c.keys[0].identity, spooled=writer.name)
            spool = tmp_path / "server.db.spool"
            assert (spool / upload.spooled).read_bytes() == content
            assert len(list(spool.glob("*.upload*"))) == 1
            for task in (*tasks, running):
                task.cancel()
            await asyncio.gather(*tasks, running, return_exceptions=True)

    asyncio.run(run())


def test_an_upload_that_the_disk_does_not_take_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where fsync fails: what was written is given up, and asked for once more."""
    monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1)
    failures = 3

    async def run(folder: Path) -> None:
        nonlocal failures
        import os

        original = os.fsync

        def failing(descriptor: int) -> None:
            nonlocal failures
            path = Path(f"/proc/self/fd/{descriptor}").readlink().name
            if failures and ".upload" in path:
                failures -= 1
                raise OSError(5, "Input/output error")
            original(descriptor)

        async with served(folder) as c:
            monkeypatch.setattr(os, "fsync", failing)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks)
            assert failures == 0
            assert not list((folder / "server.db.spool").glob("*.partial"))

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def test_a_round_that_the_store_does_not_take_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with cohort() as c:
            original = Journal.begin

            def full(*_arguments: Any, **_options: Any) -> None:
                raise StoreFullError("the disk is full")

            monkeypatch.setattr(Journal, "begin", full)
            with pytest.raises(StoreFullError):
                await c.run.round(c.parameters(), PAYLOAD, SOON)
            monkeypatch.setattr(Journal, "begin", original)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(2), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_what_a_round_was_made_of_is_gone_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked uploads, shares and answers: no file has them any more, only the sum."""
    monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1)
    seen: list[bytes] = []
    original = Journal.take

    def watching(self: Journal, round_id: bytes, kept: Any) -> None:
        seen.extend(bytes(one.frame if one.frame is not None else self.open(one.spooled)) for one in kept)
        original(self, round_id, kept)

    monkeypatch.setattr(Journal, "take", watching)

    async def run() -> None:
        async with served(tmp_path) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            await c.run.round(c.parameters(), PAYLOAD, SOON)
            await asyncio.gather(*tasks)
            everything = b"".join(map(Path.read_bytes, filter(Path.is_file, tmp_path.rglob("*"))))  # noqa: ASYNC240
            assert len(seen) == 30
            for frame in seen:
                if len(frame) > 150:  # an advertisement is public, and its keys stay in no file either
                    assert frame[-64:] not in everything
                    assert frame[40:104] not in everything
            left = [path.name for path in (tmp_path / "server.db.spool").iterdir()]
            assert left == [f"{c.parameters().round_id.hex()}.total"]

    asyncio.run(run())


def test_a_ticket_names_one_round_whatever_happened_to_its_server(tmp_path: Path) -> None:
    async def first() -> None:
        async with served(tmp_path) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            await c.run.round(c.parameters(), PAYLOAD, SOON, ticket=TICKET)
            await asyncio.gather(*tasks)

    async def second() -> None:
        async with served(tmp_path) as c:  # and nobody is asked again
            known = await c.run.known(TICKET)
            assert known is not None
            assert known.round_id == c.parameters().round_id
            result = await c.run.round(c.parameters(7), PAYLOAD, SOON, ticket=TICKET)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            assert sum(result.traffic.up.values()) > 0
            with pytest.raises(ParameterError, match="ticket: is of a round with other parameters"):
                await c.run.round(c.parameters(minimum_cohort=5), PAYLOAD, SOON, ticket=TICKET)
            assert await c.run.known(b"another") is None

    asyncio.run(first())
    asyncio.run(second())


def test_two_callers_with_one_ticket_have_one_round() -> None:
    async def run() -> None:
        async with cohort() as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            one, two = await asyncio.gather(
                *(c.run.round(c.parameters(i), PAYLOAD, SOON, ticket=TICKET) for i in (1, 2))
            )
            assert np.array_equal(one.total, two.total)
            await asyncio.gather(*tasks)
            assert not c.run._tasks

    asyncio.run(run())


def test_the_ticket_of_a_round_without_a_sum_gives_its_reason_again(tmp_path: Path) -> None:
    from secagg.service import ManualClock

    async def once(*, again: bool) -> str:
        async with served(tmp_path, clock=ManualClock()) as c:
            if again:
                with pytest.raises(RoundAbortedError) as caught:
                    await c.run.round(c.parameters(2), PAYLOAD, SOON, ticket=TICKET)
                return str(caught.value)
            with pytest.raises(RoundAbortedError) as caught:
                await c.run_late(c.parameters(), Phase.ADVERTISE_KEYS, 0, ticket=TICKET)
            return str(caught.value)

    assert asyncio.run(once(again=False)) == asyncio.run(once(again=True))


def test_rounds_of_one_run_go_on_side_by_side_over_other_members() -> None:
    async def run() -> None:
        async with cohort(12) as c:
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(12)]
            await settle(lambda: len(c.run.connected) == 12)
            halves = [list(range(6)), list(range(6, 12))]
            results = await asyncio.gather(
                *(
                    c.run.round(c.parameters(number), PAYLOAD, SOON, among=[c.keys[i].identity for i in half])
                    for number, half in enumerate(halves, 1)
                )
            )
            for half, result in zip(halves, results, strict=True):
                assert set(result.survivors) == c.named(half)
                assert np.array_equal(result.total, c.expected(half))
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_one_party_is_in_several_runs_of_several_federations_at_once() -> None:
    async def run() -> None:
        async with cohort(8) as c:
            small = Registry({one: name for one, name in c.registry.names.items() if name < "party-6"})
            places = {"icu/first": small, "icu/second": c.registry, "ward/first": c.registry}
            runs = {
                place: await c.server.open(RunSettings(place=place, registry=registry))
                for place, registry in places.items()
            }
            members = {place: range(len(registry.names)) for place, registry in places.items()}

            async def part(place: str, i: int) -> RoundOutcome:
                client = c.client(i, place=place)  # about other data: its ledger would refuse the same
                return await client.take_part(lambda _p, _q: c.vectors[i])

            tasks = [asyncio.create_task(part(place, i)) for place in places for i in members[place]]
            results = await asyncio.gather(
                *(
                    one.round(
                        replace(
                            c.parameters(),
                            round_id=hashlib.sha256(place.encode()).digest()[:16],
                            context=context_digest(place.encode()),
                        ),
                        place.encode(),
                        SOON,
                    )
                    for place, one in runs.items()
                )
            )
            for place, result in zip(places, results, strict=True):
                assert np.array_equal(result.total, c.expected(list(members[place])))
            assert all(outcome.completed for outcome in await asyncio.gather(*tasks))
            with pytest.raises(ParameterError, match="is open on this server already"):
                await c.server.open(RunSettings(place="icu/first", registry=small))

    asyncio.run(run())


def test_a_spool_that_others_can_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(StoreError, match="is open to others"):
        FolderSpool(tmp_path)
