"""The streams of a run's clients: who is connected, what arrives from them, and what goes to whom."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

import msgspec

from secagg.effects import Aggregate, Frame, Refused
from secagg.errors import RoundAbortedError
from secagg.kernels import packed_bytes
from secagg.params import Buffer, Identity, Phase
from secagg.service.connection import Connection, Intake
from secagg.service.driver import RoundDriver
from secagg.service.durable import Standing, ended
from secagg.service.errors import StreamError
from secagg.service.hello import Hello
from secagg.service.kept import RoundPlan
from secagg.service.records import Record, RecordType, Writer
from secagg.service.tasks import end_tasks, first_of, on_thread
from secagg.store import LedgerError, StoreDamagedError
from secagg.store.sql import AuditLog, Journal, State

# Around the packed vector of an upload: complaints and signature; around shares: both grow with n.
_FRAME_ALLOWANCE = 4096
_BYTES_PER_CLIENT = 400
_SPOOLED_BYTES = 1 << 18  # uploads from here on go to the spool as they arrive
_RECORD_LIMIT = 1 << 40  # how long one may be at the time, the sink says
_STANDING_REPEATS = 4  # frames of one stream that change nothing, beyond one for each that it was sent
_HANG_UP_S = 30.0  # for a client that has been sent its last record
_SENT_S = 1.0  # to hear that a record was sent on a stream that is over


class Streams:
    """Who is connected to a run.

    rounds  those that go on, by their ids; the run's own
    untold  who is to hear that there are no more rounds
    """

    def __init__(
        self,
        rounds: Mapping[bytes, RoundDriver],
        journal: Journal,
        log: AuditLog | None,
        executor: Executor,
        untold: Collection[Identity],
    ) -> None:
        self._rounds, self._journal, self._log, self._executor = rounds, journal, log, executor
        self._there: dict[Identity, Connection] = {}
        self._uploads = itertools.count(1)
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

    def attach(self, driver: RoundDriver) -> None:
        """Give every idle client that is admitted a part in a new round."""
        for connection in self.idle:
            if connection.identity in driver.plan.admitted:
                self._attach(connection, driver)

    def _attach(self, connection: Connection, driver: RoundDriver) -> None:
        connection.round = driver
        connection.send(RecordType.PAYLOAD, driver.payload)

    def deliver(self, driver: RoundDriver, client: Identity, item: Frame | Refused) -> None:
        """Send a client something of the round that it is in."""
        connection = self._there.get(client)
        if connection is None or connection.round is not driver:
            return  # the last frame is sent again when the client comes back and resumes
        if isinstance(item, Frame):
            connection.send(RecordType.FRAME, item)
        else:
            connection.send(RecordType.REFUSED, f"{item.reason}: {item.detail}".encode())

    def release(self, driver: RoundDriver, outcome: Aggregate | Exception | None) -> None:
        """Tell the clients of a round how it ended. None: it goes on elsewhere, or later."""
        part = [one for one in self._there.values() if one.round is driver]
        if outcome is None:
            for connection in part:
                connection.close()
            return
        if driver.end is not None and driver.end.receipt:
            for connection in part:
                connection.send(RecordType.RECEIPT, driver.end.receipt)
        self._end(part, RecordType.ENDED, _outcome(outcome))

    def pace(self, seconds: float, spare: Collection[Identity]) -> None:
        """Send idle clients away for a while, but for some."""
        told = [one for one in self.idle if one.identity not in spare]
        self._end(told, RecordType.PACE, int(seconds * 1000).to_bytes(8, "big"))

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
        connection = Connection(hello.identity, hello.tags)
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

    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        """Send what the client missed: its last frame when it resumes, the parameters when it is new."""
        resumed = self._rounds.get(hello.resume)
        if resumed is not None and not resumed.shuns(hello.identity):
            connection.round = resumed
            if (frame := resumed.latest.get(hello.identity)) is not None:
                connection.send(RecordType.FRAME, frame)
            return
        if hello.resume and await self._tell_end(connection, hello.resume):
            return
        for driver in list(self._rounds.values()):
            await driver.settled.wait()
            if not connection.idle():
                return  # a round was opened meanwhile
            frame = driver.latest.get(hello.identity)
            wanted = driver.phase is Phase.ADVERTISE_KEYS and hello.identity in driver.progress.missing
            if wanted and frame is not None and not driver.shuns(hello.identity):
                self._attach(connection, driver)
                connection.send(RecordType.FRAME, frame)
                return

    async def _tell_end(self, connection: Connection, round_id: bytes) -> bool:
        """Tell a client how a round that it was in has ended; whether the store knows the round."""
        kept = await on_thread(self._executor, self._journal.find, round_id)
        if kept is None:
            return False
        if kept.state is not State.OPEN:
            parameters = RoundPlan.load(kept.header).parameters
            try:
                end = await on_thread(self._executor, ended, kept, parameters, self._journal, self._log)
                receipt, said = end.receipt, _outcome(end.result)
            except StoreDamagedError:  # the sum is purged: that there was one stands
                receipt, said = b"", msgspec.json.encode({"outcome": str(kept.state)})
            if not connection.idle():  # a round was opened meanwhile
                return True
            if receipt:
                connection.send(RecordType.RECEIPT, receipt)
            connection.send(RecordType.ENDED, said)
            connection.close()
        return True

    async def _hand_in(self, connection: Connection, intake: Intake, record: Record) -> Standing | None:
        """Give a frame to the round that the client is in; None: it came too late."""
        driver = connection.round
        late = driver is None or self._there.get(connection.identity) is not connection
        if driver is None or late or isinstance(record.spooled, _Discarded):
            if record.spooled is not None:
                record.spooled.abandon()
            return None
        phase, spooled = driver.phase, None
        if record.spooled is not None:
            await intake.commit(record)
            spooled = record.spooled.name
        frame = None if spooled else bytes(record.content)
        standing = await driver.receive(connection.identity, frame, spooled)
        if standing is Standing.TAKEN and phase is not None:
            connection.send(RecordType.TAKEN, bytes([phase]))
        return standing

    def _sink(self, connection: Connection, kind: RecordType, length: int) -> Writer | None:
        """Spool uploads as they arrive; what comes too late is read and thrown away. Raises StreamError."""
        driver = connection.round
        if kind is not RecordType.FRAME:
            raise StreamError(f"record: FRAME is wanted, is {kind.name}")
        small, limit = self._frame_limits(driver)
        if length > limit:
            raise StreamError(f"record: at most {limit} bytes at this time, announces {length}")
        uploading = driver is not None and driver.phase is Phase.MASKED_INPUT_COLLECTION
        if driver is not None and uploading and length >= _SPOOLED_BYTES:
            return self._journal.create(self._upload(driver))
        return None if uploading or length <= small else _Discarded()

    def _upload(self, driver: RoundDriver) -> str:
        """Name an upload as no other: one that comes again must not take the place of what was kept."""
        name = driver.parameters.round_id.hex()
        return f"{name}.upload{self._journal.epoch}-{next(self._uploads)}"

    def _frame_limits(self, driver: RoundDriver | None) -> tuple[int, int]:
        """Return the most bytes of a frame without a vector, and of one that may come, if too late."""
        if driver is None:  # of a round that ended meanwhile
            known = [self._frame_limits(one) for one in list(self._rounds.values())]
            return 0, max((limit for _, limit in known), default=_FRAME_ALLOWANCE)
        small = _FRAME_ALLOWANCE + _BYTES_PER_CLIENT * len(driver.plan.admitted)
        if driver.phase in {Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS}:
            return small, small
        parameters = driver.parameters
        return small, small + packed_bytes(parameters.vector_length, parameters.ring_bits)


class _Discarded:
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
    if not writing.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({writing}, timeout=_SENT_S)
    return writing.done() and not writing.cancelled() and writing.exception() is None


def _outcome(result: Aggregate | Exception) -> bytes:
    """Return what clients are told of the end of a round."""
    match result:
        case Aggregate():
            said = {"outcome": "completed", "survivors": str(len(result.survivors))}
        case RoundAbortedError():
            said = {"outcome": "aborted", "reason": str(result.reason), "detail": result.detail}
        case LedgerError():
            said = {"outcome": "aborted", "reason": "the ledger refuses", "detail": str(result)}
        case _:  # its words are for the operator
            said = {"outcome": "aborted", "reason": "the round could not be begun"}
    return msgspec.json.encode(said)
