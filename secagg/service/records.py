"""Records over a stream of messages: type (1 byte), length (8 bytes, big-endian), content.

A gRPC message carries the next 1 MiB, at most, of the byte string that the records make; a record may
span many messages. Frames go out as the buffers they consist of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from secagg.effects import Frame
from secagg.params import Buffer
from secagg.service.errors import StreamError

METHOD = "/secagg.v1.Aggregation/Join"
MESSAGE_BYTES = 1 << 20
GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES + 1024),
    ("grpc.max_send_message_length", MESSAGE_BYTES + 1024),
    ("grpc.so_reuseport", 0),
)
_HEAD_BYTES = 9


class RecordType(IntEnum):
    """The content of a record."""

    CHALLENGE = 1  # server: 32 random bytes, and its certificate where an authority issued it
    HELLO = 2  # client: who it is, the run, the round to resume, signed over challenge and certificate
    PAYLOAD = 3  # server: what the round is about; its digest is the round's context
    FRAME = 4  # both: a frame of the protocol
    REFUSED = 5  # server: why a frame counts as not sent, text
    ENDED = 6  # server: outcome of the round, JSON; "closed", to an edge: it takes no more partial sums
    FINISHED = 7  # server: there are no more rounds; the last payload
    TAKEN = 8  # server: the frame of a phase is on disk, 1 byte; to an edge, of a round, its id, 16 bytes
    RECEIPT = 9  # server: proof that the round is in its audit log (PROTOCOL.md, section 10)
    ROUNDS = 11  # server, to decryptors and edges: ids of the rounds that go on, those of all others are over
    PACE = 10  # server: nothing for you now, come back in so many milliseconds, 8 bytes


@dataclass(frozen=True, slots=True)
class Record:
    """A complete record. Its content is at hand or, of a large frame, in a writer, not committed yet."""

    type: RecordType
    content: Buffer
    spooled: Writer | None = None


class Writer(Protocol):
    """Takes the content of a large record as it arrives (secagg.store.sql.SpoolWriter)."""

    @property
    def name(self) -> str: ...
    def write(self, data: Buffer) -> None: ...
    def commit(self) -> None: ...
    def abandon(self) -> None: ...


# Gives a writer for a record of this type and length; None: it is kept in memory. May raise StreamError.
Sink: TypeAlias = Callable[[RecordType, int], Writer | None]


def in_memory(_kind: RecordType, _length: int) -> None:
    """Spool nothing."""


def encode_record(kind: RecordType, content: Buffer | Frame) -> Iterator[bytes]:
    """Yield messages of at most 1 MiB."""
    frame = content if isinstance(content, Frame) else Frame(content)
    yield bytes([kind]) + frame.size.to_bytes(8, "big")
    for chunk in frame.chunks(MESSAGE_BYTES):
        yield bytes(chunk)


class RecordReader:
    """Puts records together again; memory is taken as bytes arrive, never by an announced length alone."""

    def __init__(self, limit: int, sink: Sink = in_memory, least: int = 0) -> None:
        self.limit, self.least = limit, least  # of a record's content, bytes
        self.sink = sink
        self._writer: Writer | None = None
        self._head = bytearray()
        self._content = bytearray()
        self._missing = 0

    def feed(self, message: bytes) -> Iterable[Record]:
        """Take one message; yield the records that it completes. Raises StreamError."""
        view = memoryview(message)
        while view or (len(self._head) == _HEAD_BYTES and not self._missing):
            if len(self._head) < _HEAD_BYTES:
                take = min(_HEAD_BYTES - len(self._head), len(view))
                self._head += view[:take]
                view = view[take:]
                if len(self._head) < _HEAD_BYTES:
                    return
                self._missing = int.from_bytes(self._head[1:], "big")
                if self._missing > self.limit:
                    raise StreamError(f"record: at most {self.limit} bytes, announces {self._missing}")
                if self._missing < self.least:
                    raise StreamError(f"record: at least {self.least} bytes, announces {self._missing}")
                self._writer = self.sink(self._kind(), self._missing)
            take = min(self._missing, len(view))
            if self._writer is None:
                self._content += view[:take]
            else:
                self._writer.write(view[:take])
            view = view[take:]
            self._missing -= take
            if not self._missing:
                yield self._complete()

    @property
    def unfinished(self) -> bool:
        """Whether a record has begun to arrive."""
        return bool(self._head)

    def close(self) -> None:
        """Forget a record that did not arrive as a whole."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self._head, self._content = bytearray(), bytearray()

    def _kind(self) -> RecordType:
        try:
            return RecordType(self._head[0])
        except ValueError:
            raise StreamError(f"record: type must be in 1..{len(RecordType)}, is {self._head[0]}") from None

    def _complete(self) -> Record:
        record = Record(self._kind(), memoryview(self._content).toreadonly(), self._writer)
        self._head, self._content, self._writer = bytearray(), bytearray(), None
        return record
