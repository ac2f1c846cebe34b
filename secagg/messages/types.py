"""One frozen dataclass per message, as in secagg.proto. Sessions check sizes that need n or d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secagg.messages.fields import (
    UINT64_LIMIT,
    large_octets,
    message,
    messages,
    octets,
    octets_list,
    optional_messages,
    optional_octets,
    optional_octets_list,
    uint,
)
from secagg.params import Buffer


@dataclass(frozen=True, slots=True)
class ThreatModelMessage:
    """ThreatModel on the wire; adversary: 1 passive, 2 active."""

    corrupt_ppm: int = uint(1)
    dropout_ppm: int = uint(2)
    adversary: int = uint(3)
    security_bits: int = uint(4)
    correctness_bits: int = uint(5)
    grinding_bits: int = uint(6)


@dataclass(frozen=True, slots=True)
class RoundParametersMessage:
    """RoundParameters on the wire."""

    version: int = uint(1)
    round_id: bytes = octets(2, 16)
    vector_length: int = uint(3, UINT64_LIMIT)
    ring_bits: int = uint(4)
    threat_model: ThreatModelMessage = message(5, ThreatModelMessage)
    minimum_cohort: int = uint(6)
    minimum_survivors: int = uint(7)
    context: bytes = octets(8, 32)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Client to server, phase 0, and on to the neighbors."""

    identity: bytes = octets(1, 32)
    agreement_key: bytes = octets(2, 32)
    mask_key: bytes = octets(3, 32)
    signature: bytes = octets(4, 64)
    share_kem_key: bytes = optional_octets(5, 1184)  # both in the hybrid suite only
    mask_kem_key: bytes = optional_octets(6, 1184)


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """A client of the round and the digest of its advertisement."""

    identity: bytes = octets(1, 32)
    advertisement_digest: bytes = octets(2, 32)


@dataclass(frozen=True, slots=True)
class Roster:
    """The clients that take part, in ascending order of identities, and their graph."""

    degree: int = uint(1)
    threshold: int = uint(2)
    entries: Sequence[RosterEntry] = messages(3, RosterEntry)


@dataclass(frozen=True, slots=True)
class RosterAnnouncement:
    """Server to client, phase 1: the roster and the receiver's neighbors."""

    roster: Roster = message(1, Roster)
    neighbors: Sequence[Advertisement] = messages(2, Advertisement)


@dataclass(frozen=True, slots=True)
class SealedShare:
    """Both shares of a dealer for a holder. peer: the holder upward, the dealer downward."""

    peer: bytes = octets(1, 32)
    ciphertext: bytes = octets(2, 96)
    acceptance: bytes = octets(3, 0, 64)  # the dealer's, downward only
    kem: bytes = optional_octets(4, 1088)  # ciphertext; in the hybrid suite only


@dataclass(frozen=True, slots=True)
class SealedContribution:
    """What the smaller of two identities adds to their seed. peer: the receiver; downward, the sender."""

    peer: bytes = octets(1, 32)
    kem: bytes = octets(2, 1088)
    ciphertext: bytes = octets(3, 48)


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """Client to server, phase 1."""

    shares: Sequence[SealedShare] = messages(1, SealedShare)
    seed_commitment: bytes = octets(2, 32)
    acceptance: bytes = octets(3, 64)
    contributions: Sequence[SealedContribution] = optional_messages(4, SealedContribution)


@dataclass(frozen=True, slots=True)
class ShareDelivery:
    """Server to client, phase 2: the bitmap U1 and the shares of the neighbors in it."""

    finished: Buffer = large_octets(1)
    shares: Sequence[SealedShare] = messages(2, SealedShare)
    contributions: Sequence[SealedContribution] = optional_messages(3, SealedContribution)


@dataclass(frozen=True, slots=True)
class MaskedInput:
    """Client to server, phase 2: the masked vector, packed to ring_bits per element.

    unopened  neighbors whose contribution does not open: the client leaves the round, and sends no vector
    """

    packed: Buffer = large_octets(1)
    complaints: tuple[bytes, ...] = octets_list(2, 32)
    signature: bytes = octets(3, 64)
    unopened: tuple[bytes, ...] = optional_octets_list(4, 32)


@dataclass(frozen=True, slots=True)
class SurvivorSet:
    """Server to client, phase 3: the bitmap S."""

    survivors: Buffer = large_octets(1)


@dataclass(frozen=True, slots=True)
class SurvivorSignature:
    """Client to server, phase 3; index in the roster."""

    index: int = uint(1)
    signature: bytes = octets(2, 64)


@dataclass(frozen=True, slots=True)
class UploadProof:
    """A neighbor's signature that it uploaded under a set U1."""

    identity: bytes = octets(1, 32)
    packed_digest: bytes = octets(2, 32)
    signature: bytes = octets(3, 64)


@dataclass(frozen=True, slots=True)
class UnmaskingRequest:
    """Server to client, phase 4."""

    survivors: Buffer = large_octets(1)
    uploads: Sequence[UploadProof] = messages(2, UploadProof)
    signatures: Sequence[SurvivorSignature] = messages(3, SurvivorSignature)


@dataclass(frozen=True, slots=True, repr=False)
class RevealedShare:
    """A share of one of the dealer's two secrets."""

    dealer: bytes = octets(1, 32)
    share: bytes = octets(2, 40)


@dataclass(frozen=True, slots=True, repr=False)
class UnmaskingResponse:
    """Client to server, phase 4."""

    self_seed_shares: Sequence[RevealedShare] = messages(1, RevealedShare)
    mask_key_shares: Sequence[RevealedShare] = messages(2, RevealedShare)


Message = (
    RoundParametersMessage
    | Advertisement
    | RosterAnnouncement
    | SharedKeys
    | ShareDelivery
    | MaskedInput
    | SurvivorSet
    | SurvivorSignature
    | UnmaskingRequest
    | UnmaskingResponse
)

# Kinds of frames, 1..10.
KINDS: tuple[type, ...] = (
    RoundParametersMessage,
    Advertisement,
    RosterAnnouncement,
    SharedKeys,
    ShareDelivery,
    MaskedInput,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
)
