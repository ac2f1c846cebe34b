"""The messages of the one-upload protocol, kinds 21 to 37 (PROTOCOL.md, part 2, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from secagg.effects import RefusalReason
from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages.fields import (
    UINT64_LIMIT,
    large_octets,
    malformed,
    message,
    messages,
    octets,
    octets_list,
    uint,
)
from secagg.messages.frames import Envelope, Frames, model_from_wire, model_to_wire
from secagg.messages.types import ThreatModelMessage
from secagg.messages.wire import decode
from secagg.params import Buffer
from secagg.params_oneshot import ONESHOT_VERSION, CommitteeParameters, OneShotParameters

KEM_KEY_BYTES = 1184


@dataclass(frozen=True, slots=True)
class CommitteeParametersMessage:
    """CommitteeParameters on the wire."""

    version: int = uint(1)
    epoch_id: bytes = octets(2, 16)
    threat_model: ThreatModelMessage = message(3, ThreatModelMessage)
    minimum_candidates: int = uint(4)
    minimum_committee: int = uint(5)
    committee_size: int = uint(6)
    post_quantum: int = uint(7, 2)


@dataclass(frozen=True, slots=True)
class CommitteeKey:
    """Candidate to server, and on to members and clients."""

    identity: bytes = octets(1, 32)
    agreement_key: bytes = octets(2, 32)
    kem_key: bytes = octets(3, 0, KEM_KEY_BYTES)
    signature: bytes = octets(4, 64)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate and the digest of its keys."""

    identity: bytes = octets(1, 32)
    key_digest: bytes = octets(2, 32)


@dataclass(frozen=True, slots=True)
class Committee:
    """Threshold, packing, the candidates by identity, and a bitmap of the members over them."""

    privacy_threshold: int = uint(1)
    packing: int = uint(2)
    candidates: Sequence[Candidate] = messages(3, Candidate)
    members: Buffer = large_octets(4)


@dataclass(frozen=True, slots=True)
class CommitteeAnnouncement:
    """Server to candidates: the committee and its members' keys."""

    committee: Committee = message(1, Committee)
    keys: Sequence[CommitteeKey] = messages(2, CommitteeKey)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Member to server; index among the members."""

    index: int = uint(1)
    signature: bytes = octets(2, 64)


@dataclass(frozen=True, slots=True)
class CommitteeCertificate:
    """Server to client: a committee that a quorum of its members accepted."""

    parameters: CommitteeParametersMessage = message(1, CommitteeParametersMessage)
    committee: Committee = message(2, Committee)
    keys: Sequence[CommitteeKey] = messages(3, CommitteeKey)
    acceptances: Sequence[Acceptance] = messages(4, Acceptance)


@dataclass(frozen=True, slots=True)
class OneShotParametersMessage:
    """OneShotParameters on the wire."""

    version: int = uint(1)
    round_id: bytes = octets(2, 16)
    committee_digest: bytes = octets(3, 32)
    vector_length: int = uint(4, UINT64_LIMIT)
    ring_bits: int = uint(5)
    contexts: tuple[bytes, ...] = octets_list(6, 32)
    maximum_uploads: int = uint(7)
    minimum_survivors: int = uint(8)
    minimum_per_context: int = uint(9)
    colluding: int = uint(10)


@dataclass(frozen=True, slots=True)
class Upload:
    """Client to server, all that it says."""

    identity: bytes = octets(1, 32)
    context: bytes = octets(2, 32)
    packed: Buffer = large_octets(3)
    ephemeral_key: bytes = octets(4, 32)
    leaves: Buffer = large_octets(5)
    tests: Buffer = large_octets(6)
    sealed: Buffer = large_octets(7)
    signature: bytes = octets(8, 64)


@dataclass(frozen=True, slots=True)
class Dealing:
    """Server to member: what an upload dealt it, and the proof that the client signed it."""

    identity: bytes = octets(1, 32)
    context: bytes = octets(2, 32)
    packed_digest: bytes = octets(3, 32)
    ephemeral_key: bytes = octets(4, 32)
    tests: Buffer = large_octets(5)
    signature: bytes = octets(6, 64)
    sealed: Buffer = large_octets(7)
    path: Buffer = large_octets(8)
    sealed_path: Buffer = large_octets(9)


@dataclass(frozen=True, slots=True)
class Dealings:
    """Server to member."""

    dealings: Sequence[Dealing] = messages(1, Dealing)


@dataclass(frozen=True, slots=True)
class ReviewRequest:
    """Server to member: say what you took."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """An upload, by its digest, and the first reason that applies."""

    upload: bytes = octets(1, 32)
    reason: int = uint(2, 6)


@dataclass(frozen=True, slots=True)
class Review:
    """Member to server: how many Dealings it took, their digest, and its complaints."""

    count: int = uint(1)
    digest: bytes = octets(2, 32)
    complaints: Sequence[Complaint] = messages(3, Complaint)


@dataclass(frozen=True, slots=True)
class SumProposal:
    """Server to member: the digests of the uploads in the sum, ascending."""

    uploads: Buffer = large_octets(1)


@dataclass(frozen=True, slots=True)
class SumSignature:
    """Member to server; index among the members."""

    index: int = uint(1)
    signature: bytes = octets(2, 64)


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Server to member: a quorum signed the sum."""

    signatures: Sequence[SumSignature] = messages(1, SumSignature)


@dataclass(frozen=True, slots=True, repr=False)
class Opening:
    """Member to server: the sum of its shares."""

    index: int = uint(1)
    values: Buffer = large_octets(2)
    signature: bytes = octets(3, 64)


@dataclass(frozen=True, slots=True)
class PartialSum:
    """Edge to root: the total over its uploads, and one Dealing for each, with all that it sealed."""

    total: Buffer = large_octets(1)
    dealings: Sequence[Dealing] = messages(2, Dealing)


@dataclass(frozen=True, slots=True)
class PackedRequest:
    """Root to edge: the packed vector of an upload, to take it out of the total."""

    upload: bytes = octets(1, 32)


@dataclass(frozen=True, slots=True)
class Packed:
    """Edge to root."""

    upload: bytes = octets(1, 32)
    packed: Buffer = large_octets(2)


OneShotMessage = (
    CommitteeParametersMessage
    | CommitteeKey
    | CommitteeAnnouncement
    | Acceptance
    | CommitteeCertificate
    | OneShotParametersMessage
    | Upload
    | Dealings
    | ReviewRequest
    | Review
    | SumProposal
    | SumSignature
    | OpenRequest
    | Opening
    | PartialSum
    | PackedRequest
    | Packed
)

# Kinds of frames, 21..37.
ONESHOT_KINDS: tuple[type, ...] = (
    CommitteeParametersMessage,
    CommitteeKey,
    CommitteeAnnouncement,
    Acceptance,
    CommitteeCertificate,
    OneShotParametersMessage,
    Upload,
    Dealings,
    ReviewRequest,
    Review,
    SumProposal,
    SumSignature,
    OpenRequest,
    Opening,
    PartialSum,
    PackedRequest,
    Packed,
)
ONESHOT_FRAMES = Frames(ONESHOT_VERSION, ONESHOT_KINDS, 21)


def decode_oneshot(envelope: Envelope) -> OneShotMessage:
    """Return the message of a frame. Large fields are views. Raises RemoteProtocolError: MALFORMED."""
    return cast("OneShotMessage", decode(ONESHOT_KINDS[envelope.kind], envelope.body))


def committee_to_wire(parameters: CommitteeParameters) -> CommitteeParametersMessage:
    """CommitteeParameters as the message that is hashed and sent."""
    return CommitteeParametersMessage(
        ONESHOT_VERSION,
        parameters.epoch_id,
        model_to_wire(parameters.threat_model),
        parameters.minimum_candidates,
        parameters.minimum_committee,
        parameters.committee_size,
        int(parameters.post_quantum),
    )


def committee_from_wire(wire: CommitteeParametersMessage) -> CommitteeParameters:
    """CommitteeParameters of a message. Raises RemoteProtocolError."""
    _check_version("CommitteeParameters", wire.version)
    try:
        return CommitteeParameters(
            epoch_id=wire.epoch_id,
            threat_model=model_from_wire(wire.threat_model),
            minimum_candidates=wire.minimum_candidates,
            minimum_committee=wire.minimum_committee,
            committee_size=wire.committee_size,
            post_quantum=bool(wire.post_quantum),
        )
    except ParameterError as error:
        raise RemoteProtocolError(RefusalReason.MALFORMED, f"CommitteeParameters.{error}") from error


def oneshot_to_wire(parameters: OneShotParameters) -> OneShotParametersMessage:
    """OneShotParameters as the message that is hashed and sent."""
    return OneShotParametersMessage(
        ONESHOT_VERSION,
        parameters.round_id,
        parameters.committee_digest,
        parameters.vector_length,
        parameters.ring_bits,
        parameters.contexts,
        parameters.maximum_uploads,
        parameters.minimum_survivors,
        parameters.minimum_per_context,
        parameters.colluding,
    )


def oneshot_from_wire(wire: OneShotParametersMessage) -> OneShotParameters:
    """OneShotParameters of a message. Raises RemoteProtocolError."""
    _check_version("OneShotParameters", wire.version)
    if not wire.minimum_per_context:
        raise malformed("OneShotParameters.minimum_per_context: must be at least 1, is 0")
    try:
        return OneShotParameters(
            round_id=wire.round_id,
            committee_digest=wire.committee_digest,
            vector_length=wire.vector_length,
            ring_bits=wire.ring_bits,
            contexts=wire.contexts,
            maximum_uploads=wire.maximum_uploads,
            minimum_survivors=wire.minimum_survivors,
            minimum_per_context=wire.minimum_per_context,
            colluding=wire.colluding,
        )
    except ParameterError as error:
        raise RemoteProtocolError(RefusalReason.MALFORMED, f"OneShotParameters.{error}") from error


def _check_version(name: str, version: int) -> None:
    if version != ONESHOT_VERSION:
        raise RemoteProtocolError(
            RefusalReason.UNSUPPORTED_VERSION, f"{name}.version: {version}, this is version {ONESHOT_VERSION}"
        )
