"""The effects that sessions return, as data for the caller to carry out, and the reasons they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.params import Buffer, Identity, Phase, require

Step: TypeAlias = Any  # Phase, or OneShotPhase; mappings are invariant in their keys


class RefusalReason(StrEnum):
    """Why a message was refused; it counts as not sent."""

    MALFORMED = "malformed"
    UNSUPPORTED_VERSION = "unsupported version"
    WRONG_ROUND = "wrong round"
    WRONG_PHASE = "wrong phase"
    UNKNOWN_SENDER = "unknown sender"
    SENDER_MISMATCH = "sender mismatch"
    EQUIVOCATION = "a different second message"
    BAD_SIGNATURE = "bad signature"
    BAD_KEY = "bad key"
    WRONG_NEIGHBORS = "wrong neighbors"
    WRONG_LENGTH = "wrong length"
    OUT_OF_RANGE = "out of range"
    POLICY = "against the client's policy"
    CONTEXT_MISMATCH = "another context"
    ROUND_REUSED = "round id used before"
    UNKNOWN_IDENTITY = "unknown identity"
    WEAK_PARAMETERS = "weak graph parameters"
    NOT_INCLUDED = "not in the set"
    TOO_FEW_SURVIVORS = "too few survivors"
    SURVIVOR_GAP = "survivors leave a gap on the circle"
    NO_QUORUM = "no quorum"
    CONTEXT_REPEATED = "a vector for this context was uploaded before"
    ROUND_FULL = "the round takes no more uploads"
    UPLOAD_LOST = "the upload was not kept"


class DropReason(StrEnum):
    """Why a client takes no further part in the round."""

    SILENT = "sent nothing in time"
    REFUSED = "sent nothing right in time"
    GIVEN_UP = "given up by the caller"
    LEFT = "left: a neighbor's contribution did not open"


class AbortReason(StrEnum):
    """Why a round ended without a result."""

    COHORT_TOO_SMALL = "cohort too small"
    INFEASIBLE_PARAMETERS = "infeasible parameters"
    TOO_FEW_SURVIVORS = "too few survivors"
    SURVIVOR_GAP = "survivors leave a gap on the circle"
    COMPLAINTS = "too many complaints"
    NO_QUORUM = "no quorum of survivor signatures"
    TOO_FEW_ANSWERS = "too few unmasking answers"
    UNRECOVERABLE_SECRET = "a secret could not be rebuilt"  # noqa: S105 - a reason, not a password
    BAD_NEIGHBOR_KEY = "unusable key of a neighbor"
    NOT_FINISHED = "left out of the set that shared keys"
    TOO_FEW_NEIGHBORS = "too few neighbors shared keys"
    TOO_FEW_OPENINGS = "too few openings"
    DECODE_FAILED = "more wrong openings than can be corrected"
    CHECK_FAILED = "the sum fails its checks: somebody lied"
    WRONG_SHARES = "delivered shares are not those of the neighbors"
    BAD_CONTRIBUTION = "a contribution to a mask does not open"
    CONTEXT_MISMATCH = "another context"


class BlameReason(StrEnum):
    """The evidence against a client."""

    COMPLAINT = "complaint about a sealed share"
    WRONG_SHARE = "share contradicts the secret"
    WRONG_SECRET = "shared a secret that fails its check"  # noqa: S105 - a reason, not a password
    WRONG_OPENING = "opening contradicts the others"
    BAD_DEALING = "dealt what members complain about"
    BAD_CONTRIBUTION = "lied about a contribution to a mask"


class Frame:
    """An encoded frame, possibly large, held as the buffers it consists of: the vector is not copied."""

    __slots__ = ("_parts", "size")

    def __init__(self, *parts: Buffer) -> None:
        self._parts = tuple(memoryview(part).cast("B") for part in parts)
        self.size = sum(part.nbytes for part in self._parts)

    def chunks(self, limit: int) -> Iterator[Buffer]:
        """Yield the frame in buffers of 1..limit bytes; may be called again. Raises ParameterError."""
        require(limit >= 1, "limit", "at least 1", limit)
        for part in self._parts:
            for at in range(0, part.nbytes, limit):
                yield part[at : at + limit]

    def buffer(self) -> Buffer:
        """Return the frame as one buffer; copies only when it consists of several."""
        return self._parts[0] if len(self._parts) == 1 else bytes(self)

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __repr__(self) -> str:
        return f"Frame(size={self.size})"


@dataclass(frozen=True, slots=True)
class Send:
    """Deliver the frame to a client, or to the server (to is None)."""

    to: Identity | None
    frame: Frame


@dataclass(frozen=True, slots=True)
class RosterAccepted:
    """Client, decryptor: keep this round id before what follows is released; never accept it again."""

    round_id: bytes


@dataclass(frozen=True, slots=True)
class CommitteeAccepted:
    """Decryptor: keep this epoch id before anything that follows is released; never accept it again.

    member  whether we are in the committee; who is not is done
    """

    epoch_id: bytes
    member: bool


@dataclass(frozen=True, slots=True)
class CommitteeFormed:
    """Server: the certificate of an epoch's committee, for clients and for rounds."""

    certificate: Frame


@dataclass(frozen=True, slots=True)
class UploadTaken:
    """Server: acknowledge the upload once it is durable; its sender may vanish for ever.

    Durable: the session's snapshot after it is on disk, beside a durable PackedStore; or the frame is, to be
    fed to a new session again.

    digest  of the upload, 32 bytes
    again   it was taken before
    """

    client: Identity
    digest: bytes
    again: bool = False


@dataclass(frozen=True, slots=True)
class InputWanted:
    """Client: submit() the vector now."""

    vector_length: int
    ring_bits: int


@dataclass(frozen=True, slots=True)
class SignWanted:
    """Client: sign() if a sum over these survivors may be opened, or close(). Nothing was sent for it yet.

    finished   U1, those that shared keys, and survivors S, both as this session checked them; of a decryptor
               the clients whose uploads it took, and those in the proposed sum
    round_id   of a decryptor, which may be in several rounds
    """

    finished: frozenset[Identity]
    survivors: frozenset[Identity]
    round_id: bytes = b""


@dataclass(frozen=True, slots=True)
class PhaseClosed:
    """Server: the phase is over; `remaining` take part in the next one."""

    phase: Phase
    remaining: frozenset[Identity]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Server: the client is out of the round."""

    client: Identity
    reason: DropReason


@dataclass(frozen=True, slots=True)
class Breach:
    """A demand of a client's policy that a round does not meet."""

    field: str  # of RoundParameters, ThreatModel or Roster
    limit: int | str
    value: int | str


@dataclass(frozen=True, slots=True)
class Refused:
    """A message failed its checks, changed nothing and counts as not sent; tell its sender."""

    sender: Identity | None  # None: the server
    reason: RefusalReason
    detail: str
    breaches: tuple[Breach, ...] = ()  # with POLICY: everything that the policy forbids


@dataclass(frozen=True, slots=True)
class Blame:
    """A client under suspicion, or guilty beyond the declared number of colluders (PROTOCOL.md, 3.6)."""

    client: Identity
    guilty: bool
    reason: BlameReason


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of frames accepted from clients (up) and sent to them (down), by phase, all clients together."""

    up: Mapping[Step, int] = field(default_factory=lambda: MappingProxyType({}))
    down: Mapping[Step, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, up: Mapping[Step, int], down: Mapping[Step, int]) -> Self:
        """Return what was counted, as it is now."""
        return cls(MappingProxyType(dict(up)), MappingProxyType(dict(down)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy what read-only views are of."""
        return type(self).of, (dict(self.up), dict(self.down))


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """The result of a round: the sum over the survivors modulo 2^ring_bits.

    total      (d,) in the lane of ring_bits, every value below 2^ring_bits
    survivors  those whose vectors are in the sum, in ascending order
    """

    total: NDArray[np.unsignedinteger[Any]]
    survivors: tuple[Identity, ...]
    blamed: tuple[Blame, ...]
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Completed:
    """The round is over and well; the server has the result.

    survivors  S: of a client the one that a quorum signed (active), or that it answered for (passive)
    """

    result: Aggregate | None
    survivors: frozenset[Identity]


@dataclass(frozen=True, slots=True)
class Aborted:
    """The round is over without a result; `blamed` are the suspects.

    guilty  those of `blamed` to leave out of the next attempt without asking anybody
    likely  those whose guilt is not proved, but likely: in a round that follows the protocol but for the
            declared colluders, an honest client is among them with probability 2^-correctness_bits at most
            (PROTOCOL.md, 3.6)
    """

    reason: AbortReason
    blamed: tuple[Identity, ...]
    detail: str = ""
    guilty: tuple[Identity, ...] = ()
    likely: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OneShotAggregate(Aggregate):
    """The result of a round of the one-upload protocol.

    unprotected  too few members opened to know whether somebody lied: believe it as far as you believe them
    left_out     clients whose uploads were taken and are not in the sum
    """

    unprotected: bool = False
    left_out: tuple[Identity, ...] = ()


Effect: TypeAlias = (
    Send
    | RosterAccepted
    | CommitteeAccepted
    | CommitteeFormed
    | UploadTaken
    | InputWanted
    | SignWanted
    | PhaseClosed
    | Dropped
    | Refused
    | Completed
    | Aborted
)


@dataclass(frozen=True, slots=True)
class Progress:
    """The standing of a server session: all that its caller needs to decide about close_phase()."""

    phase: Phase | None  # None: the round is over
    expected: int  # clients asked that may still count
    received: int  # right messages of this phase
    needed: int  # below this many the round cannot go on
    ready: bool  # closing now lets the round go on, if those who answered stay
    missing: frozenset[Identity]  # asked, not given up, without a right message

    @property
    def complete(self) -> bool:
        """Return whether no client is waited for."""
        return not self.missing
