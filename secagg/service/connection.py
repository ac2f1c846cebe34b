"""One stream of a client on the server: its records in, at the pace of the disk, and its records out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import grpc.aio

from secagg.effects import Frame
from secagg.params import Buffer, Identity
from secagg.service.errors import StreamError
from secagg.service.records import Record, RecordReader, RecordType, encode_record
from secagg.service.tasks import on_thread

if TYPE_CHECKING:
    from secagg.service.driver import Driver

QUEUED_RECORDS = 32  # a round has a dozen for a client
_DRAIN_S = 60.0  # for a message of 1 MiB, either way
_LEAST_BYTES = 32  # of a record: a hello and every frame are longer
_INLINE_BYTES = 1 << 16  # of a message; more is put away on a thread


class Intake:
    """The records that arrive on a stream. One message is read at a time: who sends more waits."""

    def __init__(self, messages: AsyncIterator[bytes], executor: Executor, limit: int) -> None:
        self.reader = RecordReader(limit, least=_LEAST_BYTES)
        self._messages = messages
        self._executor = executor
        self._feeding: Iterator[Record] | None = None  # of the message that is being read
        self._large = False
        self._ready: Record | None = None  # complete, and not handed out: `close` finds it

    async def next(self) -> Record | None:
        """Return the next record; None at the end of the stream. Raises StreamError, StoreError.

        A message is read a record at a time: however many are in it, others get their turn.
        """
        while True:
            if self._feeding is None:
                message = await self._message()
                if message is None:
                    return None
                self._feeding, self._large = iter(self.reader.feed(message)), len(message) >= _INLINE_BYTES
            if self._large:
                await on_thread(self._executor, self._pull, self._feeding)
            else:
                self._pull(self._feeding)
            if self._ready is not None:
                record, self._ready = self._ready, None
                return record
            self._feeding = None

    def _pull(self, feeding: Iterator[Record]) -> None:
        self._ready = next(feeding, None)

    async def _message(self) -> bytes | None:
        if not self.reader.unfinished:
            return await anext(self._messages, None)  # nothing is owed: keepalive finds who is gone
        try:
            async with asyncio.timeout(_DRAIN_S):
                return await anext(self._messages, None)
        except TimeoutError:
            raise StreamError(f"record: its rest did not come within {_DRAIN_S:g} s") from None

    async def commit(self, record: Record) -> None:
        """Make a spooled record durable. Raises StoreError."""
        if record.spooled is None:
            return
        try:
            await on_thread(self._executor, record.spooled.commit)
        except BaseException:
            await on_thread(self._executor, record.spooled.abandon)
            raise

    def close(self) -> None:
        """Forget what did not arrive as a whole."""
        self.reader.close()
        if self._ready is not None and self._ready.spooled is not None:
            self._ready.spooled.abandon()
        self._ready = self._feeding = None


class Connection:
    """The outgoing records of one client, in order. A client that does not read loses its stream."""

    def __init__(self, identity: Identity, tags: tuple[str, ...] = (), queued: int = QUEUED_RECORDS) -> None:
        self.identity, self._queued = identity, queued
        self.tags = frozenset(tags)  # what it says of itself
        self.round: Driver[Any] | None = None  # that it has a part in; None: it waits for one
        self.joined: set[bytes] = set()  # rounds that it was told of as a member
        self.dropped = asyncio.Event()
        self.asked = 0  # frames that were queued for it
        self.queue: asyncio.Queue[tuple[RecordType, Buffer | Frame] | None] = asyncio.Queue()

    def idle(self) -> bool:
        """Whether it has no part in a round."""
        return self.round is None

    def send(self, kind: RecordType, content: Buffer | Frame) -> None:
        """Queue a record."""
        self.asked += kind is RecordType.FRAME
        if self.queue.qsize() >= self._queued:
            self.dropped.set()
        else:
            self.queue.put_nowait((kind, content))

    def close(self) -> None:
        """End the stream once everything is sent, or as soon as the client stops reading."""
        self.queue.put_nowait(None)

    async def write_to(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Write what is queued until `close`. A message that is not taken in time ends the stream."""
        while (item := await self.queue.get()) is not None:
            for message in encode_record(*item):
                try:
                    async with asyncio.timeout(_DRAIN_S):
                        await context.write(message)
                except TimeoutError:
                    self.dropped.set()
                    return
