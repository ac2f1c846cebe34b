"""What a node answers: a frame of the protocol, or why there is none. No text of a peer travels.

A reply without a frame is a frame of its own version, 4: kind 1, `Declined`, whose reason is the value of an
enumeration that both ends know (PROTOCOL.md, part 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from secagg.effects import AbortReason, RefusalReason
from secagg.errors import RemoteProtocolError
from secagg.messages import decode
from secagg.messages.fields import large_octets
from secagg.messages.frames import Frames
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


FRAMES = Frames(VERSION, (Declined,), 1)


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
