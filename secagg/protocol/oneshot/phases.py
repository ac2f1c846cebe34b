"""The phases of a decryptor as types: the fields are all that a phase may know, and all that is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from secagg.messages.oneshot import CommitteeKey
from secagg.params import Buffer, Entropy, Identity
from secagg.params_oneshot import CommitteeParameters
from secagg.primitives.agreement import public_key
from secagg.primitives.kem import SEED_BYTES, KemSecret
from secagg.primitives.packed_sharing import Words
from secagg.protocol.oneshot.view import CommitteeView, OneShotView


@dataclass(slots=True)
class EpochSecrets:
    """The private keys of an epoch; whoever has more than T members' can open recorded shares one by one.

    agreement  32 bytes; kem_seed: 64 bytes, or none without post_quantum
    """

    agreement: bytearray = field(repr=False)
    kem_seed: bytearray = field(repr=False)
    kem: KemSecret | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.kem = KemSecret(self.kem_seed) if self.kem_seed else None

    @classmethod
    def draw(cls, entropy: Entropy, *, post_quantum: bool) -> EpochSecrets:
        """Draw 32 bytes, and 64 more with post_quantum."""
        agreement, kem_seed = bytearray(entropy(32)), bytearray()
        try:
            kem_seed += entropy(SEED_BYTES) if post_quantum else b""
            return cls(agreement, kem_seed)
        except BaseException:
            agreement[:], kem_seed[:] = bytes(len(agreement)), bytes(len(kem_seed))
            raise

    @property
    def public(self) -> tuple[bytes, bytes]:
        """Agreement key and KEM key."""
        return public_key(self.agreement), b"" if self.kem is None else self.kem.public

    def wipe(self) -> None:
        """Overwrite the keys; the library's copy of the KEM key goes with its object."""
        self.agreement[:] = bytes(len(self.agreement))
        self.kem_seed[:] = bytes(len(self.kem_seed))
        self.kem = None


@dataclass(slots=True)
class Idle:
    """Waits for CommitteeParameters."""


@dataclass(slots=True)
class KeySent:
    """Has sent its keys; waits for the committee."""

    parameters: CommitteeParameters
    own: CommitteeKey
    secrets: EpochSecrets


@dataclass(slots=True)
class Member:
    """Is in the committee; takes part in rounds until it closes the epoch."""

    view: CommitteeView
    me: int
    secrets: EpochSecrets


@dataclass(slots=True)
class Over:
    """Is no member, or has closed the epoch: nothing is left."""


DecryptorPhase = Idle | KeySent | Member | Over


@dataclass(frozen=True, slots=True)
class TakenDealing:
    """A Dealing that counts as sent: its share, or the reason of the complaint about it."""

    identity: Identity
    context: bytes
    share: Words | None = field(repr=False)
    reason: int


@dataclass(slots=True)
class MemberRound:
    """A round of a member.

    taken     Dealings by upload digest; none of a restarted session
    signed    the sum_digest that it signed, or answered for in a passive round; b"": none
    proposal  the uploads of the sum that was proposed last, as far as this session has seen it
    asked     the caller has not consented to that yet
    opening   the frame that it opened with; b"": not yet
    closed    its caller has no part in it any more
    """

    view: OneShotView
    taken: dict[bytes, TakenDealing] = field(default_factory=dict)
    signed: bytes = b""
    proposal: tuple[bytes, ...] = ()
    asked: bool = False
    opening: Buffer = b""
    closed: bool = False

    def wipe(self) -> None:
        """Overwrite the shares."""
        for dealing in self.taken.values():
            if dealing.share is not None:
                dealing.share[:] = 0
        self.taken.clear()
