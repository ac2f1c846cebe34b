"""The common part of all phases of the server."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeAlias

from secagg.effects import Aggregate, Frame, RefusalReason
from secagg.params import Identity, Phase
from secagg.protocol.round import refuse

# What stands beside lists, and an item of one, with room to spare: more is refused before it is decoded.
SMALL_BYTES, ITEM_BYTES = 1024, 256
# The same of the hybrid suite: two ML-KEM keys; a share with its ciphertext, and a contribution.
HYBRID_SMALL_BYTES, HYBRID_ITEM_BYTES = 4096, 2816


class ServerPhase(Protocol):
    """A phase collects one kind of message from those it asked.

    wants     the class of that message; largest: the most bytes that a right one has
    asked     the clients whose message is wanted; answered: those whose message was taken
    needed    the fewest answers with which the round can go on; ready: whether it can
    request   the frame that asks a client
    accept    takes a message of that class: checks everything first, changes the phase last, and returns
              the digest of a large field, so that nobody hashes it twice; RemoteProtocolError refuses
    close     leads to the next phase, or to the result, or raises RoundEnded
    """

    phase: ClassVar[Phase]
    wants: ClassVar[type]

    @property
    def largest(self) -> int: ...
    @property
    def asked(self) -> frozenset[Identity]: ...
    @property
    def answered(self) -> frozenset[Identity]: ...
    @property
    def needed(self) -> int: ...
    @property
    def ready(self) -> bool: ...
    def request(self, client: Identity) -> Frame: ...
    def accept(self, sender: Identity, message: Any) -> bytes | None: ...  # noqa: ANN401 - of the class it wants
    def close(self) -> NextPhase: ...


def check_kind(phase: ServerPhase, kind: type) -> None:
    """Refuse a message of another class than the phase wants; its `accept` relies on that."""
    if kind is not phase.wants:
        raise refuse(RefusalReason.WRONG_PHASE, f"{kind.__name__} in {type(phase).__name__}")


NextPhase: TypeAlias = "ServerPhase | Result"


class Result:
    """The last phase leads here; the session adds the traffic."""

    __slots__ = ("aggregate",)

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate
