"""The streams of clients, which speak once, and of decryptors, which stay."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from secagg.effects import Aggregate, Frame, Refused
from secagg.errors import RemoteProtocolError
from secagg.messages.oneshot import ONESHOT_FRAMES
from secagg.params import Buffer, Identity
from secagg.params_oneshot import OneShotPhase
from secagg.service.connection import QUEUED_RECORDS, Connection, Intake
from secagg.service.desk import Desk, Discarded
from secagg.service.errors import StreamError
from secagg.service.hello import Hello
from secagg.service.kept import summed_in
from secagg.service.oneshot.driver import OneShotDriver, UploadDriver
from secagg.service.oneshot.epochs import Epochs, tag_of
from secagg.service.records import Record, RecordType, Writer
from secagg.service.stored import Standing
from secagg.service.streams import outcome_of
from secagg.service.tasks import on_thread
from secagg.store import StoreDamagedError
from secagg.store.sql import Journal, KeptRound, State

_ALLOWANCE = 4096  # around what is in a frame
_SPOOLED_BYTES = 1 << 16  # uploads from here on go to the spool as they arrive
_MEMBER_RECORDS = 1 << 15  # dealings come in many frames, a member that does not read loses its stream
_EDGE_RECORDS = 1 << 20  # each asks for a vector that is to be taken off a total
_ANSWER_BYTES = 1 << 14  # an opening with the least packing, or a key


_Driver = TypeVar("_Driver", bound=UploadDriver)


class UploadDesk(Desk, Generic[_Driver]):
    """Whoever sends vectors: frames that are large go to the spool as they arrive."""

    def __init__(
        self,
        rounds: Mapping[bytes, _Driver],
        journal: Journal,
        untold: Collection[Identity],
        queued: int = QUEUED_RECORDS,
    ) -> None:
        super().__init__(untold, queued)
        self._rounds, self._journal = rounds, journal
        self._uploads = itertools.count(1)
        self._longest = 0  # upload of a round that was offered: it may come when that is over

    def _admit(self, connection: Connection, driver: _Driver) -> None:
        """Let somebody send frames of a round."""
        connection.round = driver
        connection.joined.add(driver.round_id)
        self._longest = max(self._longest, self._most_bytes(driver))

    def _join(self, connection: Connection, driver: _Driver) -> None:
        self._admit(connection, driver)
        connection.send(RecordType.PAYLOAD, driver.payload)
        connection.send(RecordType.FRAME, driver.plan.certificate)
        connection.send(RecordType.FRAME, driver.parameters_frame)

    @abstractmethod
    def _most_bytes(self, driver: _Driver) -> int:
        """Return the longest frame that somebody has for a round."""

    @abstractmethod
    def _offer(self, connection: Connection, driver: _Driver) -> bool:
        """Tell somebody of a round, if it has a part in it and was not told before."""

    async def _hand_in(self, connection: Connection, intake: Intake, record: Record) -> Standing | None:
        if self._is_late(connection, record):
            return None
        driver, frame, spooled = await self._addressed(connection, intake, record)
        if driver is None:
            return None
        standing = await driver.receive(connection.identity, frame, spooled)
        if standing is Standing.LOST:
            connection.close()  # it comes back, and sends the same again
        elif standing is not Standing.REFUSED:
            self._taken(connection, driver)
        return standing

    @abstractmethod
    def _taken(self, connection: Connection, driver: _Driver) -> None:
        """Say that a frame is on disk."""

    def _is_late(self, connection: Connection, record: Record) -> bool:
        """Return whether a frame comes too late; nothing is left of it then."""
        late = self._there.get(connection.identity) is not connection
        if not late and not isinstance(record.spooled, Discarded):
            return False
        if record.spooled is not None:
            record.spooled.abandon()
        return True

    async def _addressed(
        self, connection: Connection, intake: Intake, record: Record
    ) -> tuple[_Driver | None, bytes | None, str | None]:
        """Return the round that a frame is for, and the frame or its name in the spool; None: it is late.

        raises  StreamError: it is no frame; StoreError
        """
        if record.spooled is None:
            frame = bytes(record.content)
            return self._joined(connection, frame), frame, None
        await intake.commit(record)
        name, stays = record.spooled.name, False
        try:
            content = await on_thread(None, self._journal.open, name)
            driver = self._joined(connection, content)
            # Of another round than the newest that it heard of: it must not go with that one.
            stays = driver is not None and name.startswith(f"{driver.round_id.hex()}.")
            return driver, None if stays or driver is None else bytes(content), name if stays else None
        finally:
            if not stays:
                await on_thread(None, self._journal.remove, [name])

    def _joined(self, connection: Connection, frame: Buffer) -> _Driver | None:
        driver = self._rounds.get(_round_id(frame))
        return driver if driver is not None and driver.round_id in connection.joined else None

    def _sink(self, connection: Connection, kind: RecordType, length: int) -> Writer | None:
        if kind is not RecordType.FRAME:
            raise StreamError(f"record: FRAME is wanted, is {kind.name}")
        driver = connection.round
        limit = self._longest + _ALLOWANCE
        if length > limit:
            raise StreamError(f"record: at most {limit} bytes at this time, announces {length}")
        if not isinstance(driver, UploadDriver) or driver.shuns(connection.identity):
            return Discarded()
        if length < _SPOOLED_BYTES:
            return None
        name = driver.round_id.hex()
        return self._journal.create(f"{name}.upload{self._journal.epoch}-{next(self._uploads)}")


class ClientDesk(UploadDesk[UploadDriver]):
    """The clients of a run: each gets the newest model and the round that takes uploads, and speaks once."""

    def offer(self, driver: UploadDriver) -> None:
        """Tell everybody who is admitted, and has not uploaded, of a round that the store has."""
        for connection in self._there.values():
            self._offer(connection, driver)

    def _offer(self, connection: Connection, driver: UploadDriver) -> bool:
        """Tell a client of a round, if it is for it and was not told before."""
        client = connection.identity
        wanted = driver.uploading and client in driver.plan.admitted and client not in driver.uploaded
        if not wanted or driver.round_id in connection.joined or driver.shuns(client):
            return False
        self._join(connection, driver)
        return True

    def refuse(self, driver: UploadDriver, client: Identity, refused: Refused) -> None:
        """Say why a frame counts as not sent."""
        connection = self._there.get(client)
        if connection is not None and driver.round_id in connection.joined:
            connection.send(RecordType.REFUSED, f"{refused.reason}: {refused.detail}".encode())

    def release(self, driver: UploadDriver, outcome: Aggregate | Exception | None) -> None:
        """Tell who is still there how a round ended. None: it goes on elsewhere, or later."""
        for connection in self._there.values():
            if driver.round_id not in connection.joined:
                continue
            connection.joined.discard(driver.round_id)
            if connection.round is driver:
                connection.round = None
            if outcome is None:
                connection.close()
                continue
            if driver.end is not None and driver.end.receipt:
                connection.send(RecordType.RECEIPT, driver.end.receipt)
            connection.send(RecordType.ENDED, outcome_of(outcome, driver.round_id))
            if connection.round is None:  # an earlier round may want it still
                connection.joined.clear()
                self._offer_newest(connection)

    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        if hello.resume:  # it has an upload that was not acknowledged
            resumed = self._rounds.get(hello.resume)
            if resumed is not None:
                await resumed.settled.wait()
            if resumed is not None and resumed.phase is not None and not resumed.shuns(hello.identity):
                self._admit(connection, resumed)
                connection.send(RecordType.FRAME, resumed.parameters_frame)  # it sends its upload again
                return
            kept = await on_thread(None, self._journal.find, hello.resume)
            if kept is not None and kept.state is State.OPEN:
                connection.close()  # it goes on elsewhere, or in a moment: the client comes back
                return
            if kept is not None and _is_summed(hello.identity, kept):
                connection.send(RecordType.TAKEN, bytes([OneShotPhase.UPLOAD]))  # that was lost on its way
            else:
                over = {"outcome": "over", "round": hello.resume.hex()}
                connection.send(RecordType.ENDED, msgspec.json.encode(over))
        self._offer_newest(connection)

    def _taken(self, connection: Connection, driver: UploadDriver) -> None:
        if connection.identity not in driver.uploaded:
            return
        connection.send(RecordType.TAKEN, bytes([OneShotPhase.UPLOAD]))
        if connection.round is driver:
            connection.round = None
            self._offer_newest(connection)

    def _offer_newest(self, connection: Connection) -> None:
        """Offer the newest round that takes uploads; of one that is being restored all hear when it is."""
        any(self._offer(connection, driver) for driver in reversed(list(self._rounds.values())))

    def _most_bytes(self, driver: UploadDriver) -> int:
        return driver.upload_bytes


class EdgeDesk(UploadDesk[OneShotDriver]):
    """The edges of a run: each is told of every round, sends one partial sum, and what is fetched from it."""

    def __init__(
        self, rounds: Mapping[bytes, OneShotDriver], journal: Journal, untold: Collection[Identity]
    ) -> None:
        super().__init__(rounds, journal, untold, _EDGE_RECORDS)

    def offer(self, driver: OneShotDriver) -> None:
        """Tell the edges of a round that the store has."""
        for connection in self._there.values():
            self._offer(connection, driver)

    def closed(self, driver: OneShotDriver) -> None:
        """Tell the edges that no partial sum is taken any more: who has sent none has no part in it."""
        for connection in self._there.values():
            if driver.round_id in connection.joined:
                _tell_closed(connection, driver)

    def deliver(self, driver: OneShotDriver, edge: Identity, item: Frame | Refused) -> None:
        """Send an edge what is wanted of it in a round."""
        connection = self._there.get(edge)
        if connection is not None and driver.round_id in connection.joined:
            _send(connection, item)

    def release(self, driver: OneShotDriver, outcome: Aggregate | Exception | None) -> None:
        """Tell the edges that a round is over: they forget its uploads. None: it goes on elsewhere."""
        _tell_end(self._there.values(), driver, outcome)

    def _offer(self, connection: Connection, driver: OneShotDriver) -> bool:
        """Tell an edge of a round that it has a part in, or may have; all that it must have follows."""
        edge, joined = connection.identity, connection.joined
        if driver.phase is None or edge not in driver.plan.edges or driver.round_id in joined:
            return False
        if driver.uploading:
            self._join(connection, driver)
        else:  # of its partial sum, if it has sent one, vectors may be fetched
            self._admit(connection, driver)
            _tell_closed(connection, driver)
        driver.rejoin(edge)
        return True

    def _joined(self, connection: Connection, frame: Buffer) -> OneShotDriver | None:
        driver = super()._joined(connection, frame)
        return None if driver is None or driver.shuns(connection.identity) else driver

    def _most_bytes(self, driver: OneShotDriver) -> int:
        return driver.partial_bytes

    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        connection.send(RecordType.ROUNDS, b"".join(self._rounds))
        for driver in list(self._rounds.values()):
            await driver.settled.wait()
            self._offer(connection, driver)

    def _taken(self, connection: Connection, driver: OneShotDriver) -> None:
        connection.send(RecordType.TAKEN, driver.round_id)


class MemberDesk(Desk):
    """The decryptors of a run: in the epoch that begins, and in every round of their committees."""

    def __init__(
        self, rounds: Mapping[bytes, OneShotDriver], epochs: Epochs, untold: Collection[Identity]
    ) -> None:
        super().__init__(untold, _MEMBER_RECORDS)
        self._rounds, self._epochs = rounds, epochs
        self._longest = _ANSWER_BYTES  # answer that was ever asked for: it may come when its round is over

    def holding(self, epoch_id: bytes) -> frozenset[Identity]:
        """Those who are connected, and have the secrets of an epoch."""
        tag = tag_of(epoch_id)
        return frozenset(one.identity for one in self._there.values() if tag in one.tags)

    def formed(self, epoch_id: bytes, members: Collection[Identity]) -> None:
        """Note who has accepted a committee on the stream that it has."""
        for member in members:
            if (connection := self._there.get(member)) is not None:
                connection.tags |= {tag_of(epoch_id)}

    def deliver(self, member: Identity, item: Frame | Refused) -> None:
        """Send a candidate something of the epoch that begins."""
        if (connection := self._there.get(member)) is not None:
            _send(connection, item)

    def deal(self, driver: OneShotDriver, member: Identity, item: Frame | Refused) -> None:
        """Send a member something of a round: nothing before the parameters."""
        connection = self._there.get(member)
        if connection is None:
            return  # it gets everything when it comes back
        joined = connection.joined
        if driver.round_id not in joined:
            if item != driver.parameters_frame:
                return
            joined.add(driver.round_id)
        _send(connection, item)

    def release(self, driver: OneShotDriver, outcome: Aggregate | Exception | None) -> None:
        """Tell the members that a round is over: they forget their shares. None: it goes on elsewhere."""
        _tell_end(self._there.values(), driver, outcome)

    async def _welcome(self, connection: Connection, hello: Hello) -> None:
        connection.send(RecordType.ROUNDS, b"".join(self._rounds))
        frame = self._epochs.latest.get(hello.identity)
        frame = frame or self._epochs.announcement(hello.identity, hello.tags)
        if frame is not None:
            connection.send(RecordType.FRAME, frame)
        for driver in list(self._rounds.values()):
            await driver.settled.wait()
            if hello.identity in driver.members:
                driver.rejoin(hello.identity)

    async def _hand_in(self, connection: Connection, _intake: Intake, record: Record) -> Standing | None:
        if self._there.get(connection.identity) is not connection or record.spooled is not None:
            return None
        frame = bytes(record.content)
        round_id = _round_id(frame)
        if (driver := self._rounds.get(round_id)) is not None:
            return await driver.receive(connection.identity, frame)
        current = self._epochs.current
        if current is not None and round_id == current.committee.parameters.epoch_id:
            self.formed(round_id, [connection.identity])  # it missed its committee, and has it now
        return self._epochs.receive(connection.identity, round_id, frame)

    def _sink(self, connection: Connection, kind: RecordType, length: int) -> Writer | None:
        if kind is not RecordType.FRAME:
            raise StreamError(f"record: FRAME is wanted, is {kind.name}")
        now = max((one.answer_bytes for one in self._rounds.values()), default=_ANSWER_BYTES)
        self._longest = max(self._longest, now)
        limit = self._longest + _ALLOWANCE
        if length > limit:
            raise StreamError(f"record: at most {limit} bytes at this time, announces {length}")
        return Discarded() if length > max(now, _ANSWER_BYTES) + _ALLOWANCE else None


def _tell_closed(connection: Connection, driver: OneShotDriver) -> None:
    closed = {"outcome": "closed", "round": driver.round_id.hex()}
    connection.send(RecordType.ENDED, msgspec.json.encode(closed))


def _tell_end(
    connections: Iterable[Connection], driver: OneShotDriver, outcome: Aggregate | Exception | None
) -> None:
    """Tell those with a part in a round how it ended. None: it goes on elsewhere, or later."""
    for connection in connections:
        if driver.round_id not in connection.joined:
            continue
        connection.joined.discard(driver.round_id)
        if outcome is None:
            connection.close()
        else:
            connection.send(RecordType.ENDED, outcome_of(outcome, driver.round_id))


def _is_summed(client: Identity, kept: KeptRound) -> bool:
    """Whether the store still says that an upload is in the sum of its round."""
    try:
        return client in summed_in(kept.outcome)
    except StoreDamagedError:
        return False


def _round_id(frame: Buffer) -> bytes:
    try:
        return ONESHOT_FRAMES.open(frame).round_id
    except RemoteProtocolError as error:
        raise StreamError(f"frame: {error}") from error


def _send(connection: Connection, item: Frame | Refused) -> None:
    if isinstance(item, Frame):
        connection.send(RecordType.FRAME, item)
    else:
        connection.send(RecordType.REFUSED, f"{item.reason}: {item.detail}".encode())
