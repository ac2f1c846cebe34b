"""What every phase of the server has in common."""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeAlias

from secagg.effects import Aggregate, Frame
from secagg.messages import Message
from secagg.params import Identity, Phase


class ServerPhase(Protocol):
    """A phase collects one kind of message from those it asked.

    `accept` checks everything first and changes the phase last; it returns the digest of a large field,
    so that nobody hashes it twice. `close` leads to the next phase, or
    to the result, or raises RoundEnded.
    """

    phase: ClassVar[Phase]

    @property
    def asked(self) -> frozenset[Identity]: ...
    @property
    def answered(self) -> frozenset[Identity]: ...
    @property
    def needed(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    def request(self, client: Identity) -> Frame: ...
    def accept(self, sender: Identity, message: Message) -> bytes | None: ...
    def close(self) -> NextPhase: ...


NextPhase: TypeAlias = "ServerPhase | Result"


class Result:
    """The last phase leads here; the session adds the traffic."""

    __slots__ = ("aggregate",)

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate
