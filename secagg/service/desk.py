"""The clients or members that are connected: one stream each, what goes out to whom, and the end of all."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from secagg.params import Buffer, Identity
from secagg.service.connection import QUEUED_RECORDS, Connection, Intake
from secagg.service.errors import StreamError
from secagg.service.hello import Hello
from secagg.service.records import Record, RecordType, Writer
from secagg.service.stored import Standing
from secagg.service.tasks import end_tasks, first_of

_RECORD_LIMIT = 1 << 40  # how long one may be at the time, the sink says
_STANDING_REPEATS = 4  # frames of one stream that change nothing, beyond one for each that it was sent
_HANG_UP_S = 30.0  # for a client that has been sent its last record
_SENT_S = 5.0  # to hear that a record was sent on a stream that is over, on a busy machine


class Desk(ABC):
    """Who is connected to a run.

    untold  who is to hear that there are no more rounds
    queued  records that wait for one of them at most: who does not read loses its stream
    """

    def __init__(self, untold: Collection[Identity], queued: int = QUEUED_RECORDS) -> None:
        self._there: dict[Identity, Connection] = {}
        self._queued = queued
        self._final: Buffer | None = None
        self._untold = set(untold)
        self._telling: set[Connection] = set()  # to whom the last payload is on its way
        self._all_told = asyncio.Event()

    # --- who is there

    @property
    def connected(self) -> frozenset[Identity]:
        """The clients that have a stream at the moment."""
        return frozenset(self._there)

    @property
    def idle(self) -> list[Connection]:
        """Those that have no part in a round."""
        return [one for one in self._there.values() if one.idle()]

    def enrolled(self, before: Collection[Identity], now: Collection[Identity]) -> None:
        """Let those who are enrolled no more lose their streams."""
        self._untold = {one for one in self._untold if one in now}
        self._untold |= set(now) - set(before)
        self._check_told()
        for connection in self._there.values():
            if connection.identity not in now:
                connection.dropped.set()

    # --- what goes out

    def finish(self, payload: Buffer) -> None:
        """Tell everybody, now or when it next connects, that there are no more rounds."""
        self._final = payload
        self._end(self._there.values(), RecordType.FINISHED, payload)
        self._check_told()

    @property
    def telling(self) -> int:
        """To how many the last payload is on its way."""
        return len(self._telling)

    async def everybody_told(self) -> None:
        """Return when the transport has taken the last payload for everybody who is enrolled."""
        await self._all_told.wait()

    def _end(self, connections: Collection[Connection], kind: RecordType, content: Buffer) -> None:
        """Tell clients and close their streams."""
        for connection in list(connections):
            if kind is RecordType.FINISHED:
                self._telling.add(connection)
            connection.send(kind, content)
            connection.close()
            if self._there.get(connection.identity) is connection:
                del self._there[connection.identity]

    def _check_told(self) -> None:
        if self._final is not None and not self._untold:
            self._all_told.set()

    def close(self) -> None:
        """End every stream when what is queued has been sent."""
        for connection in self._there.values():
            connection.close()

    def drop(self) -> None:
        """End every stream at once."""
        for connection in self._there.values():
            connection.dropped.set()

    # --- what comes in

    async def serve(self, hello: Hello, intake: Intake, context: Any) -> None:  # noqa: ANN401 - of gRPC
        """Hold the stream of a client that proved its identity, until it ends."""
        connection = Connection(hello.identity, hello.tags, self._queued)
        if (former := self._there.get(hello.identity)) is not None:
            former.send(RecordType.REFUSED, b"another process is connected with this identity by now")
            former.close()  # the newest stream of a client counts
        self._there[hello.identity] = connection
        if self._final is not None:
            self._end([connection], RecordType.FINISHED, self._final)
        hearing = asyncio.create_task(self._hear(connection, hello, intake))
        writing = asyncio.create_task(connection.write_to(context))
        dropping = asyncio.create_task(connection.dropped.wait())
        try:
            await first_of(hearing, writing, dropping)
            if writing.done() and connection in self._telling and await _done_well(writing):
                await first_of(hearing, dropping, timeout_s=_HANG_UP_S)  # it has read all when it hangs up
            if hearing.done():
                hearing.result()  # a StreamError ends the stream with its code
        finally:
            if self._there.get(hello.identity) is connection:
                del self._there[hello.identity]
            if connection in self._telling:
                sent = not connection.dropped.is_set() and await _done_well(writing)
                self._telling.discard(connection)
                if sent:
                    self._untold.discard(hello.identity)
                    self._check_told()
            await end_tasks(hearing, writing, dropping)

    async def _hear(self, connection: Connection, hello: Hello, intake: Intake) -> None:
        """Tell a client what it missed, then read what it sends."""
        if connection not in self._telling:
            await self._welcome(connection, hello)
        standing_frames = 0
        intake.reader.limit = _RECORD_LIMIT
        intake.reader.sink = lambda kind, length: self._sink(connection, kind, length)
        while (record := await intake.next()) is not None:
            if record.type is not RecordType.FRAME:
                raise StreamError(f"record: FRAME is wanted, is {record.type.name}")
            standing = await self._hand_in(connection, intake, record)
            if standing in {None, Standing.STANDS}:
                standing_frames += 1
                if standing_frames > _STANDING_REPEATS + connection.asked:
                    raise StreamError("frame: repeated on the same stream, again and again")

    @abstractmethod
    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        """Send what a party missed."""

    @abstractmethod
    async def _hand_in(self, connection: Connection, intake: Intake, record: Record) -> Standing | None:
        """Take a frame; None: it came too late."""

    @abstractmethod
    def _sink(self, connection: Connection, kind: RecordType, length: int) -> Writer | None:
        """Say where a record is to go as it arrives; None: into memory. Raises StreamError."""


class Discarded:
    """Takes what comes too late."""

    name = ""

    def write(self, data: Buffer) -> None:
        pass

    def commit(self) -> None:
        pass

    def abandon(self) -> None:
        pass


async def _done_well(writing: asyncio.Task[None]) -> bool:
    """Whether all was sent. Who has read it hangs up, and cancels us, before we may have heard that."""
    clock = asyncio.get_running_loop().time
    until = clock() + _SENT_S
    while not writing.done() and (left := until - clock()) > 0:
        with suppress(asyncio.CancelledError):  # it may come while we wait, and more than once
            await asyncio.wait({writing}, timeout=left)
    return writing.done() and not writing.cancelled() and writing.exception() is None
