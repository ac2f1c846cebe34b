"""Records over a stream of messages: type (1 byte), length (8 bytes, big-endian), content.

A gRPC message carries the next 1 MiB, at most, of the byte string that the records make; a record may
span many messages. Frames go out as the buffers they consist of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from secagg.effects import Frame
from secagg.params import Buffer
from secagg.service.errors import StreamError

MESSAGE_BYTES = 1 << 20
_HEAD_BYTES = 9


class RecordType(IntEnum):
    """The content of a record."""

    CHALLENGE = 1  # server: 32 random bytes
    HELLO = 2  # client: identity 32, signature 64, then the id of the round to resume, or nothing
    PAYLOAD = 3  # server: what the round is about; its digest is the round's context
    FRAME = 4  # both: a frame of the protocol
    REFUSED = 5  # server: why a frame counts as not sent, text
    ENDED = 6  # server: outcome of the round, JSON
    FINISHED = 7  # server: there are no more rounds; the last payload


@dataclass(frozen=True, slots=True)
class Record:
    """A complete record."""

    type: RecordType
    content: Buffer


def encode_record(kind: RecordType, content: Buffer | Frame) -> Iterator[bytes]:
    """Yield messages of at most 1 MiB."""
    frame = content if isinstance(content, Frame) else Frame(content)
    yield bytes([kind]) + frame.size.to_bytes(8, "big")
    for chunk in frame.chunks(MESSAGE_BYTES):
        yield bytes(chunk)


class RecordReader:
    """Puts records together again; memory is taken as bytes arrive, never by an announced length alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # of a record's content, bytes
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
            take = min(self._missing, len(view))
            self._content += view[:take]
            view = view[take:]
            self._missing -= take
            if not self._missing:
                yield self._complete()

    def _complete(self) -> Record:
        try:
            kind = RecordType(self._head[0])
        except ValueError:
            raise StreamError(f"record: type must be in 1..7, is {self._head[0]}") from None
        content = memoryview(self._content).toreadonly()
        self._head, self._content = bytearray(), bytearray()
        return Record(kind, content)
