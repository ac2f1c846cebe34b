"""What travels beside the protocols' own frames, in frames of version 4 (PROTOCOL.md, part 3).

A reply without a frame is a `Declined`, whose reason is the value of an enumeration that both ends know: no
text of a peer travels. A request of the one-upload protocol is a `Bundle` of that protocol's frames: a node
that has forgotten everything but its epoch can answer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from secagg.effects import AbortReason, RefusalReason
from secagg.errors import RemoteProtocolError
from secagg.messages import decode
from secagg.messages.fields import large_octets, malformed, messages, uint
from secagg.messages.frames import Envelope, Frames
from secagg.params import ROUND_ID_BYTES, Buffer

VERSION = 4
NO_ROUND = bytes(ROUND_ID_BYTES)  # of a request that names none
_LARGEST = 256  # bytes of a right one


class LossReason(StrEnum):
    """Why a node has no part in the rest of a round; of a node's own, and of the host around it."""

    FORGOTTEN = "the round is not known here, or not any more"
    SET_BACK = "the state of the round is older than what was sent since"
    LEDGER = "the node's ledger refuses"
    CONSENT = "the node does not consent to the sum"
    FAILED = "the node could not make its vector"
    STORE = "the node's store takes nothing"
    PLAIN = "the node takes no request without secure aggregation"
    NO_MEMBER = "the node is no decryptor"
    NOTED = "taken; there is nothing to answer"
    LEFT_OUT = "its upload was left out: decryptors complained about it"
    SILENT = "no reply in time"
    HOST = "lost by the host"
    STRANGER = "not in the registry, or excluded"
    TAKEN = "another node has this identity"
    MALFORMED = "the reply is none"


Reason: TypeAlias = LossReason | RefusalReason | AbortReason
_REASONS: dict[str, Reason] = {
    **{str(one): one for one in AbortReason},
    **{str(one): one for one in RefusalReason},
    **{str(one): one for one in LossReason},
}


@dataclass(frozen=True, slots=True)
class Declined:
    """A reply without a frame."""

    reason: Buffer = large_octets(1)


@dataclass(frozen=True, slots=True)
class Part:
    """A frame of a bundle, and its place."""

    place: int = uint(1)
    frame: Buffer = large_octets(2)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Frames for a node, in their order."""

    parts: Sequence[Part] = messages(1, Part)


FRAMES = Frames(VERSION, (Declined, Bundle), 1)
_BUNDLE = FRAMES.kinds.index(Bundle)


class Declining(Exception):  # noqa: N818 - no error: the reply is that there is none
    """Ends an answer: why there is no frame. detail: for our own log; forget: the round is left."""

    def __init__(self, reason: Reason, detail: str = "", *, forget: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.forget = reason, detail, forget


def bundled(round_id: bytes, frames: Iterable[Buffer]) -> bytes:
    """Return a request of several frames."""
    parts = tuple(Part(place, frame) for place, frame in enumerate(frames, 1))
    return bytes(FRAMES.encode(round_id, Bundle(parts)))


def is_bundle(request: Buffer) -> Envelope | None:
    """Return what stands around a bundle; None: it is something else."""
    try:
        envelope = FRAMES.open(request)
    except RemoteProtocolError:
        return None
    return envelope if envelope.kind == _BUNDLE else None


def unbundled(envelope: Envelope) -> list[Buffer]:
    """Return the frames of a bundle, without a copy. Raises RemoteProtocolError: MALFORMED."""
    frames = [part.frame for part in decode(Bundle, envelope.body).parts]
    if not frames:
        raise malformed("Bundle.parts: there is none")
    return frames


def decline(round_id: bytes, reason: Reason) -> bytes:
    """Return the reply of a node that has no frame for this round."""
    return bytes(FRAMES.encode(round_id, Declined(str(reason).encode())))


def declined(reply: Buffer) -> Reason | None:
    """Return why a reply has no frame; None: it may have one. A reason that nobody knows is MALFORMED."""
    if memoryview(reply).nbytes > _LARGEST:
        return None
    try:
        envelope = FRAMES.open(reply)
        reason = bytes(decode(Declined, envelope.body).reason)
    except RemoteProtocolError:
        return None
    return _REASONS.get(reason.decode("utf-8", "replace"), LossReason.MALFORMED)
