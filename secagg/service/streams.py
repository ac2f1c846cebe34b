"""The streams of a run's clients: who is connected, what arrives from them, and what goes to whom."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from concurrent.futures import Executor

import msgspec

from secagg.effects import Aggregate, Frame, Refused
from secagg.errors import RoundAbortedError
from secagg.kernels import packed_bytes
from secagg.params import Identity, Phase
from secagg.service.connection import Connection, Intake
from secagg.service.desk import Desk, Discarded
from secagg.service.driver import RoundDriver
from secagg.service.durable import DurableRound
from secagg.service.errors import StreamError
from secagg.service.hello import Hello
from secagg.service.records import Record, RecordType, Writer
from secagg.service.stored import Standing, ended
from secagg.service.tasks import on_thread
from secagg.store import LedgerError, StoreDamagedError
from secagg.store.sql import AuditLog, Journal, State

# Around the packed vector of an upload: complaints and signature; around shares: both grow with n.
_FRAME_ALLOWANCE = 4096
_BYTES_PER_CLIENT, _HYBRID_BYTES_PER_CLIENT = 400, 3000
_SPOOLED_BYTES = 1 << 18  # uploads from here on go to the spool as they arrive


class Streams(Desk):
    """The clients of a run.

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
        self._uploads = itertools.count(1)
        super().__init__(untold)

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
        self._end(part, RecordType.ENDED, outcome_of(outcome))

    def pace(self, seconds: float, spare: Collection[Identity]) -> None:
        """Send idle clients away for a while, but for some."""
        told = [one for one in self.idle if one.identity not in spare]
        self._end(told, RecordType.PACE, int(seconds * 1000).to_bytes(8, "big"))

    # --- what comes in

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
            try:
                end = await on_thread(
                    self._executor, ended, kept, self._journal, self._log, DurableRound.loaded
                )
                receipt, said = end.receipt, outcome_of(end.result)
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
        driver = self._round_of(connection)
        late = driver is None or self._there.get(connection.identity) is not connection
        if driver is None or late or isinstance(record.spooled, Discarded):
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
        driver = self._round_of(connection)
        if kind is not RecordType.FRAME:
            raise StreamError(f"record: FRAME is wanted, is {kind.name}")
        small, limit = self._frame_limits(driver)
        if length > limit:
            raise StreamError(f"record: at most {limit} bytes at this time, announces {length}")
        uploading = driver is not None and driver.phase is Phase.MASKED_INPUT_COLLECTION
        if driver is not None and uploading and length >= _SPOOLED_BYTES:
            return self._journal.create(self._upload(driver))
        return None if uploading or length <= small else Discarded()

    def _round_of(self, connection: Connection) -> RoundDriver | None:
        driver = connection.round
        return driver if isinstance(driver, RoundDriver) else None

    def _upload(self, driver: RoundDriver) -> str:
        """Name an upload as no other: one that comes again must not take the place of what was kept."""
        name = driver.parameters.round_id.hex()
        return f"{name}.upload{self._journal.epoch}-{next(self._uploads)}"

    def _frame_limits(self, driver: RoundDriver | None) -> tuple[int, int]:
        """Return the most bytes of a frame without a vector, and of one that may come, if too late."""
        if driver is None:  # of a round that ended meanwhile
            known = [self._frame_limits(one) for one in list(self._rounds.values())]
            return 0, max((limit for _, limit in known), default=_FRAME_ALLOWANCE)
        per_client = _HYBRID_BYTES_PER_CLIENT if driver.parameters.hybrid else _BYTES_PER_CLIENT
        small = _FRAME_ALLOWANCE + per_client * len(driver.plan.admitted)
        if driver.phase in {Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS}:
            return small, small
        parameters = driver.parameters
        return small, small + packed_bytes(parameters.vector_length, parameters.ring_bits)


def outcome_of(result: Aggregate | Exception, round_id: bytes = b"") -> bytes:
    """Return what clients are told of the end of a round; members, which are in several, also of which."""
    match result:
        case Aggregate():
            said = {"outcome": "completed", "survivors": str(len(result.survivors))}
        case RoundAbortedError():
            said = {"outcome": "aborted", "reason": str(result.reason), "detail": result.detail}
        case LedgerError():
            said = {"outcome": "aborted", "reason": "the ledger refuses", "detail": str(result)}
        case _:  # its words are for the operator
            said = {"outcome": "aborted", "reason": "the round could not be begun"}
    return msgspec.json.encode(said | ({"round": round_id.hex()} if round_id else {}))
