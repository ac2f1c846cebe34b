"""Who is connected, and what is left of a stream that ends: nothing; what was said, was sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from secagg import Phase
from secagg.service import ConnectionLostError, Registry
from secagg.service.connection import Connection
from secagg.service.desk import _done_well
from secagg.service.records import RecordType, encode_record
from secagg.store import StoreBusyError
from secagg.store.sql import Database, Journal, spool_of
from tests.service.cohort import PAYLOAD, SOON, Cohort, RawStream, cohort, raw_stream, settle
from tests.service.test_durable import stopping_before


def test_whoever_is_told_the_last_payload_has_been_sent_it_before_the_server_stops() -> None:
    payload = bytes(24 << 20)
    got: list[bytes] = []

    async def run() -> None:
        async with cohort(n=6) as c:
            await c.run.enrol(Registry.of([("party-0", c.keys[0].identity)]))
            async with raw_stream(c, 0) as stream:
                c.run.finish(payload)
                assert c.run.telling == 1
                told = asyncio.create_task(c.run.everybody_told())
                record = await stream.receive(pause_s=0.05)
                assert not told.done()
                assert record is not None
                got.append(bytes(record.content))
            await told

    asyncio.run(run())
    assert got == [payload]


@asynccontextmanager
async def finished(c: Cohort) -> AsyncIterator[RawStream]:
    """Hold the stream of the only party while the run ends."""
    await c.run.enrol(Registry.of([("party-0", c.keys[0].identity)]))
    async with raw_stream(c, 0) as stream:
        c.run.finish(b"over")
        yield stream


def test_everybody_is_told_when_the_last_who_was_not_is_revoked() -> None:
    async def run() -> None:
        async with cohort() as c:
            async with raw_stream(c, 0) as stream:
                c.run.finish(b"over")
                assert await stream.receive() is not None
            await c.run.enrol(Registry.of([("party-0", c.keys[0].identity)]))
            async with asyncio.timeout(20):
                await c.run.everybody_told()

    asyncio.run(run())


def test_who_has_read_the_last_payload_and_hangs_up_at_once_counts_as_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server hears of the end of the stream before the task that sent its record has ended."""
    original, sent = Connection.write_to, asyncio.Event()

    async def late(self: Connection, context: Any) -> None:
        await original(self, context)
        sent.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.2)

    monkeypatch.setattr(Connection, "write_to", late)

    async def run() -> None:
        async with cohort() as c:
            async with finished(c) as stream:
                assert await stream.receive() is not None
                await sent.wait()
            async with asyncio.timeout(20):
                await c.run.everybody_told()

    asyncio.run(run())


def test_a_cancellation_does_not_end_the_wait_for_what_is_on_its_way() -> None:
    """The end of a stream may be read before its cancellation comes."""

    async def run() -> None:
        ready = asyncio.Event()
        writing = asyncio.create_task(ready.wait())
        waiting = asyncio.create_task(_done_well(writing))  # type: ignore[arg-type]
        for _ in range(2):
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.sleep(0)
        ready.set()
        assert await waiting

    asyncio.run(run())


def test_who_breaks_off_before_the_last_payload_was_sent_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(self: Connection, _context: Any) -> None:
        await self.queue.get()
        raise ConnectionError("the transport is gone")

    monkeypatch.setattr(Connection, "write_to", breaks)

    async def run() -> None:
        async with cohort() as c:
            async with finished(c) as stream:
                with suppress(grpc.aio.AioRpcError):
                    while await stream.receive():
                        pass
            await settle(lambda: c.run.telling == 0)
            told = asyncio.create_task(c.run.everybody_told())
            done, _ = await asyncio.wait({told}, timeout=0.2)
            assert not done
            told.cancel()

    asyncio.run(run())


async def uploading(c: Cohort, tasks: list[asyncio.Task[Any]]) -> None:
    """Take a round to where party 0, who has no client, is asked for its upload: by one that holds."""
    hold = stopping_before(Phase.MASKED_INPUT_COLLECTION)
    tasks += [asyncio.create_task(c.take_part(i, before_answer=hold)) for i in range(6)]
    tasks.append(asyncio.create_task(c.run.round(c.parameters(), PAYLOAD, SOON)))
    await settle(lambda: c.answered(Phase.MASKED_INPUT_COLLECTION, 0))


def test_an_upload_that_is_followed_by_nonsense_leaves_no_file_and_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.service.streams._SPOOLED_BYTES", 1)

    async def run() -> None:
        with Database(tmp_path / "server.db") as database:
            async with cohort(database=database, spool=spool_of(database), length=50_000) as c:
                tasks: list[asyncio.Task[Any]] = []
                await uploading(c, tasks)
                connection = c.run._streams._there[c.keys[0].identity]
                tasks[0].cancel()
                await settle(lambda: c.keys[0].identity not in c.run.connected)
                before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
                bad = b"".join(encode_record(RecordType.FRAME, bytes(80_000))) + b"\xff" * 9
                for _ in range(5):
                    async with raw_stream(c, 0) as stream:
                        c.run._streams._there[c.keys[0].identity].round = connection.round
                        await stream.send_bytes(bad)
                        with pytest.raises(grpc.aio.AioRpcError):
                            while await stream.receive():
                                pass
                await settle(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)  # noqa: PTH208
                folder = tmp_path / "server.db.spool"
                assert not [name for name in os.listdir(folder) if "upload" in name]  # noqa: PTH208
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["the store fails", "the client leaves", "another stream comes"])
def test_a_stream_that_ends_while_it_is_welcomed_is_nobody_who_is_connected(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding, held = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with cohort() as c:
            streams: Any = c.run._streams
            original = streams._welcome

            async def welcome(connection: Connection, hello: Any) -> None:
                held.set()
                if how == "the store fails":
                    raise StoreBusyError("the store: is busy")
                if not holding.is_set():
                    await holding.wait()
                await original(connection, hello)

            monkeypatch.setattr(streams, "_welcome", welcome)
            if how == "another stream comes":
                async with raw_stream(c, 0) as first:
                    await held.wait()
                    holding.set()
                    async with raw_stream(c, 0):
                        record = await first.receive()
                        assert record is not None
                        assert record.type is RecordType.REFUSED
                        assert await first.receive() is None
                        assert c.run.connected == {c.keys[0].identity}
            elif how == "the store fails":
                with pytest.raises(ConnectionLostError):
                    await c.take_part(0, patience_s=0.0)
            else:
                async with raw_stream(c, 0):
                    await held.wait()
            await settle(lambda: not c.run.connected)
            assert not c.run.idle

    asyncio.run(run())


def test_the_end_of_an_earlier_round_is_not_told_to_who_is_in_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A store that is slow to find the earlier one, while the next begins."""
    original = Journal.find
    looking: list[bytes] = []

    async def run() -> None:
        async with cohort() as c:
            loop = asyncio.get_running_loop()
            may_go = asyncio.Event()

            def slow(self: Journal, round_id: bytes) -> Any:
                found = original(self, round_id)
                if round_id == c.parameters(1).round_id:
                    looking.append(round_id)
                    asyncio.run_coroutine_threadsafe(may_go.wait(), loop).result(30)
                return found

            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            await c.run.round(c.parameters(1), PAYLOAD, SOON)
            await asyncio.gather(*tasks)
            monkeypatch.setattr(Journal, "find", slow)
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(1, 6)]
            await settle(lambda: len(c.run.connected) == 5)
            async with raw_stream(c, 0, resume=c.parameters(1).round_id) as stream:
                await settle(lambda: looking != [])
                tasks.append(asyncio.create_task(c.run.round(c.parameters(2), PAYLOAD, SOON)))
                record = await stream.receive()
                may_go.set()
                assert record is not None
                assert record.type is RecordType.PAYLOAD
                record = await stream.receive()
                assert record is not None
                assert record.type is RecordType.FRAME
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await stream.receive()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_frames_that_come_too_late_again_and_again_end_their_stream() -> None:
    async def run() -> None:
        async with cohort() as c, raw_stream(c, 0) as stream:
            frame = b"".join(encode_record(RecordType.FRAME, bytes(100)))
            await stream.send_bytes(frame * 100)  # of no round
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await stream.receive():
                    pass
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            tasks = [asyncio.create_task(c.take_part(i)) for i in range(6)]
            result = await c.run.round(c.parameters(), PAYLOAD, SOON)
            assert np.array_equal(result.total, c.expected(list(range(6))))
            await asyncio.gather(*tasks)

    asyncio.run(run())
