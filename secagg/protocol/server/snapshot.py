"""A server session as bytes and back. No secret of a client is in them but the shares it revealed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secagg.errors import ParameterError, RemoteProtocolError
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages import (
    Advertisement,
    RevealedShare,
    Roster,
    RoundParametersMessage,
    Rows,
    SealedContribution,
    SharedKeys,
    SurvivorSignature,
    column,
    decode,
    encode,
    parameters_from_wire,
    parameters_to_wire,
    split,
)
from secagg.messages.fields import UINT64_LIMIT, large_octets, message, messages, octets, octets_list, uint
from secagg.params import Buffer, Identity, Phase, RoundParameters, require
from secagg.protocol.round import RoundView
from secagg.protocol.server.advertise_keys import AdvertiseKeys
from secagg.protocol.server.answers import Answers
from secagg.protocol.server.consistency_check import ConsistencyCheck
from secagg.protocol.server.masked import Masked, Upload
from secagg.protocol.server.masked_input_collection import MaskedInputCollection
from secagg.protocol.server.phase import ServerPhase
from secagg.protocol.server.share_keys import ShareKeys
from secagg.protocol.server.unmasking import Unmasking
from secagg.protocol.snapshot import checked_body, with_digest

_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Shared:
    dealer: bytes = octets(1, 32)
    body: Buffer = large_octets(2)


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A value of a roster index, which travels plus one."""

    index: int = uint(1)
    value: bytes = octets(2, 32)


@dataclass(frozen=True, slots=True)
class _Upload:
    index: int = uint(1)  # plus one
    packed_digest: bytes = octets(2, 32)
    signature: bytes = octets(3, 64)
    complaints: Buffer = large_octets(4)  # bitmap


@dataclass(frozen=True, slots=True)
class _KemKey:
    index: int = uint(1)  # plus one
    key: bytes = octets(2, 1184)


@dataclass(frozen=True, slots=True)
class _Departure:
    index: int = uint(1)  # plus one
    unopened: Buffer = large_octets(2)  # bitmap


@dataclass(frozen=True, slots=True)
class _Contribution:
    pair: bytes = octets(1, 64)  # identities of sender and receiver
    kem: bytes = octets(2, 1088)
    ciphertext: bytes = octets(3, 48)


@dataclass(frozen=True, slots=True, repr=False)
class _Answer:
    index: int = uint(1)  # plus one
    shares: Sequence[RevealedShare] = messages(2, RevealedShare)


@dataclass(frozen=True, slots=True)
class _Count:
    phase: int = uint(1)  # plus one
    up: int = uint(2, UINT64_LIMIT)
    down: int = uint(3, UINT64_LIMIT)


@dataclass(frozen=True, slots=True)
class _Taken:
    key: bytes = octets(1, 33)  # sender, kind
    digest: bytes = octets(2, 32)


@dataclass(frozen=True, slots=True, repr=False)
class _Snapshot:
    version: int = uint(1)
    phase: int = uint(2)  # plus one
    parameters: RoundParametersMessage = message(3, RoundParametersMessage)
    admitted: tuple[bytes, ...] = octets_list(4, 32)
    gone: tuple[bytes, ...] = octets_list(5, 32)
    refused: tuple[bytes, ...] = octets_list(6, 32)
    counts: Sequence[_Count] = messages(7, _Count)
    taken: Sequence[_Taken] = messages(8, _Taken)
    advertisements: Sequence[Advertisement] = messages(9, Advertisement)
    roster: Buffer = large_octets(10)
    shared: Sequence[_Shared] = messages(11, _Shared)
    mask_keys: Sequence[_Indexed] = messages(12, _Indexed)
    commitments: Sequence[_Indexed] = messages(13, _Indexed)
    uploads: Sequence[_Upload] = messages(14, _Upload)
    total: Buffer = large_octets(15)
    signatures: Sequence[SurvivorSignature] = messages(16, SurvivorSignature)
    answers: Sequence[_Answer] = messages(17, _Answer)
    kem_keys: Sequence[_KemKey] = messages(18, _KemKey)
    departures: Sequence[_Departure] = messages(19, _Departure)
    contributions: Sequence[_Contribution] = messages(20, _Contribution)


@dataclass(slots=True)
class ServerState:
    """The state of a server session, all of it."""

    parameters: RoundParameters
    admitted: frozenset[Identity]
    phase: ServerPhase
    gone: set[Identity]
    refused: set[Identity]
    up: Counter[Phase]
    down: Counter[Phase]
    taken: dict[tuple[Identity, int], bytes]


def save(state: ServerState) -> bytes:
    """Encode a session that is within a round."""
    fields: dict[str, object] = {"roster": b"", "total": b""}
    for name in (
        "advertisements",
        "shared",
        "mask_keys",
        "commitments",
        "uploads",
        "signatures",
        "answers",
        "kem_keys",
        "departures",
        "contributions",
    ):
        fields[name] = ()
    match state.phase:
        case AdvertiseKeys(inbox=inbox):
            fields["advertisements"] = tuple(inbox[identity] for identity in sorted(inbox))
        case ShareKeys() as phase:
            fields["roster"] = encode(phase.view.roster)
            fields["advertisements"] = phase.advertisements
            fields["shared"] = _save_shared(phase.inbox)
        case MaskedInputCollection() as phase:
            fields["roster"] = encode(phase.view.roster)
            fields["mask_keys"] = _save_indexed(dict(enumerate(phase.mask_keys)))
            fields["shared"] = _save_shared(phase.shared)
            fields["uploads"] = _save_uploads(phase.view, phase.uploads)
            fields["total"] = _little_endian(phase.total)
            fields["kem_keys"] = _save_kem_keys(phase.kem_keys)
            fields["departures"] = _save_departures(phase.view, phase.departures)
        case ConsistencyCheck(masked=masked, signatures=signatures):
            fields |= _save_masked(masked, signatures)
        case Unmasking(masked=masked, signatures=signatures, answers=answers):
            fields |= _save_masked(masked, signatures)
            fields["answers"] = tuple(
                _Answer(holder + 1, _save_answer(masked.view, answers, holder))
                for holder in sorted(answers.holders)
            )
        case _:
            raise ParameterError(f"snapshot: {type(state.phase).__name__} is not known here")
    body = encode(
        _Snapshot(
            version=_VERSION,
            phase=state.phase.phase + 1,
            parameters=parameters_to_wire(state.parameters),
            admitted=tuple(sorted(state.admitted)),
            gone=tuple(sorted(state.gone)),
            refused=tuple(sorted(state.refused)),
            counts=tuple(_Count(phase + 1, state.up[phase], state.down[phase]) for phase in Phase),
            taken=tuple(
                _Taken(sender + bytes([kind]), digest)
                for (sender, kind), digest in sorted(state.taken.items())
            ),
            **fields,  # type: ignore[arg-type]
        )
    )
    return with_digest(body)


def load(data: bytes) -> ServerState:
    """Decode a session. Raises ParameterError when the bytes are not a snapshot of this version."""
    try:
        saved = decode(_Snapshot, checked_body(data))
        if saved.version != _VERSION or not 1 <= saved.phase <= len(Phase):
            raise ParameterError(f"snapshot: version {saved.version}, phase {saved.phase}: not known here")
        parameters = parameters_from_wire(saved.parameters)
        admitted = frozenset(Identity(identity) for identity in saved.admitted)
        phase = _load_phase(saved, parameters, admitted)
    except RemoteProtocolError as error:
        raise ParameterError(f"snapshot: {error.detail}") from error
    return ServerState(
        parameters,
        admitted,
        phase,
        {Identity(identity) for identity in saved.gone},
        {Identity(identity) for identity in saved.refused},
        Counter({Phase(count.phase - 1): count.up for count in saved.counts if count.up}),
        Counter({Phase(count.phase - 1): count.down for count in saved.counts if count.down}),
        {(Identity(entry.key[:32]), entry.key[32]): entry.digest for entry in saved.taken},
    )


def _load_phase(saved: _Snapshot, parameters: RoundParameters, admitted: frozenset[Identity]) -> ServerPhase:
    kind = Phase(saved.phase - 1)
    if kind is Phase.ADVERTISE_KEYS:
        advertised = {Identity(entry.identity): entry for entry in saved.advertisements}
        return AdvertiseKeys(parameters, admitted, advertised)
    roster = decode(Roster, saved.roster)
    require(roster.degree < len(roster.entries), "snapshot", "of a graph with its roster", roster.degree)
    view = RoundView.build(parameters, roster)
    shared = {Identity(entry.dealer): decode(SharedKeys, entry.body) for entry in saved.shared}
    if kind is Phase.SHARE_KEYS:
        return ShareKeys(view, tuple(saved.advertisements), shared)
    lane = lane_dtype(parameters.ring_bits)
    total = np.frombuffer(saved.total, lane.newbyteorder("<")).astype(lane)
    mask_keys = tuple(entry.value for entry in saved.mask_keys)
    uploads = {
        entry.index - 1: Upload(
            entry.packed_digest, view.members("complaints", bytes(entry.complaints)), entry.signature
        )
        for entry in saved.uploads
    }
    kem_keys = tuple(entry.key for entry in saved.kem_keys)
    departures = {
        entry.index - 1: view.members("unopened", bytes(entry.unopened)) for entry in saved.departures
    }
    if kind is Phase.MASKED_INPUT_COLLECTION:
        return MaskedInputCollection(view, mask_keys, shared, total, uploads, kem_keys, departures)
    commitments = {entry.index - 1: entry.value for entry in saved.commitments}
    contributions = {
        (view.index[Identity(entry.pair[:32])], view.index[Identity(entry.pair[32:])]): SealedContribution(
            entry.pair[:32], entry.kem, entry.ciphertext
        )
        for entry in saved.contributions
    }
    hybrid = kem_keys, contributions, departures
    masked = Masked(view, mask_keys, commitments, frozenset(commitments), uploads, total, *hybrid)
    signatures = {entry.index: entry.signature for entry in saved.signatures}
    if kind is Phase.CONSISTENCY_CHECK:
        return ConsistencyCheck(masked, signatures)
    unmasking = Unmasking(masked, signatures)
    for entry in saved.answers:
        dealers = [view.index[Identity(name)] for name in split(column(entry.shares, "dealer", 32))]
        unmasking.take(entry.index - 1, np.array(dealers, np.int32), column(entry.shares, "share", 40))
    return unmasking


def _save_masked(masked: Masked, signatures: dict[int, bytes]) -> dict[str, object]:
    return {
        "roster": encode(masked.view.roster),
        "mask_keys": _save_indexed(dict(enumerate(masked.mask_keys))),
        "commitments": _save_indexed(masked.commitments),
        "uploads": _save_uploads(masked.view, masked.uploads),
        "total": _little_endian(masked.total),
        "kem_keys": _save_kem_keys(masked.kem_keys),
        "departures": _save_departures(masked.view, masked.departures),
        "contributions": tuple(
            _Contribution(pair, one.kem, one.ciphertext)
            for pair, one in sorted(
                (masked.view.identities[sender] + masked.view.identities[receiver], one)
                for (sender, receiver), one in masked.contributions.items()
            )
        ),
        "signatures": tuple(SurvivorSignature(i, signatures[i]) for i in sorted(signatures)),
    }


def _save_shared(shared: dict[Identity, SharedKeys]) -> tuple[_Shared, ...]:
    return tuple(_Shared(dealer, encode(shared[dealer])) for dealer in sorted(shared))


def _save_indexed(values: dict[int, bytes]) -> tuple[_Indexed, ...]:
    return tuple(_Indexed(i + 1, values[i]) for i in sorted(values))


def _save_uploads(view: RoundView, uploads: dict[int, Upload]) -> tuple[_Upload, ...]:
    return tuple(
        _Upload(i + 1, upload.packed_digest, upload.signature, view.bitmap(upload.complaints))
        for i, upload in sorted(uploads.items())
    )


def _save_kem_keys(keys: tuple[bytes, ...]) -> tuple[_KemKey, ...]:
    return tuple(_KemKey(i + 1, key) for i, key in enumerate(keys))


def _save_departures(view: RoundView, departures: dict[int, frozenset[int]]) -> tuple[_Departure, ...]:
    return tuple(_Departure(i + 1, view.bitmap(unopened)) for i, unopened in sorted(departures.items()))


def _save_answer(view: RoundView, answers: Answers, holder: int) -> Rows[RevealedShare]:
    dealers, shares = answers.of_holder(holder)
    return Rows.build(RevealedShare, len(dealers), dealer=view.names[dealers], share=shares)


def _little_endian(total: UIntArray) -> bytes:
    return total.astype(total.dtype.newbyteorder("<")).tobytes()
