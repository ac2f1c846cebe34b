"""Uploads and decryptors as bytes and back. A decryptor's hold secrets; the caller seals them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import large_octets, message, messages, octets, uint
from secagg.messages.oneshot import (
    CommitteeAnnouncement,
    CommitteeKey,
    CommitteeParametersMessage,
    OneShotParametersMessage,
    committee_from_wire,
    committee_to_wire,
    oneshot_from_wire,
    oneshot_to_wire,
)
from secagg.params import Buffer, Identity, require
from secagg.params_oneshot import CommitteeParameters, OneShotPolicy
from secagg.protocol.oneshot.phases import EpochSecrets, KeySent, Member, MemberRound
from secagg.protocol.oneshot.view import CommitteeView, OneShotView
from secagg.protocol.snapshot import checked_body, parts_must_fit, with_digest

M = TypeVar("M")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """An upload that was made: it cannot be made again."""

    version: int = uint(1)
    identity: bytes = octets(2, 32)
    context: bytes = octets(3, 32)
    round_id: bytes = octets(4, 16)
    frame: Buffer = large_octets(5)


def save_upload(identity: Identity, context: bytes, round_id: bytes, frame: bytes) -> bytes:
    """Encode an upload."""
    return with_digest(encode(KeptUpload(_VERSION, identity, context, round_id, frame)))


def load_upload(data: bytes) -> KeptUpload:
    """Decode an upload. Raises ParameterError."""
    kept = _decoded(KeptUpload, data)
    require(kept.version == _VERSION, "snapshot", f"of version {_VERSION}", kept.version)
    return kept


@dataclass(frozen=True, slots=True, repr=False)
class _Round:
    round_id: bytes = octets(1, 16)
    parameters: OneShotParametersMessage = message(2, OneShotParametersMessage)
    signed: bytes = octets(3, 0, 32)
    opening: Buffer = large_octets(4)
    closed: int = uint(5, 2)


@dataclass(frozen=True, slots=True, repr=False)
class _Decryptor:
    version: int = uint(1)
    identity: bytes = octets(2, 32)
    parameters: CommitteeParametersMessage = message(3, CommitteeParametersMessage)
    own: Buffer = large_octets(4)
    announcement: Buffer = large_octets(5)
    agreement: bytes = octets(6, 32)
    kem_seed: bytes = octets(7, 0, 64)
    rounds: Sequence[_Round] = messages(8, _Round)
    releases: int = uint(9)
    silent: int = uint(10, 2)


@dataclass(slots=True)
class DecryptorState:
    """The state of a decryptor, all of it that outlives its process."""

    identity: Identity
    phase: KeySent | Member
    rounds: dict[bytes, MemberRound]
    releases: int
    silent: bool  # it was restored from an older state once: it signs nothing more in this epoch


def save_decryptor(state: DecryptorState) -> bytes:
    """Encode a decryptor that is within an epoch."""
    phase = state.phase
    own = announcement = b""
    if isinstance(phase, KeySent):
        parameters, own = phase.parameters, encode(phase.own)
    else:
        parameters = phase.view.parameters
        announcement = encode(CommitteeAnnouncement(phase.view.committee, phase.view.keys))
    rounds = tuple(
        _Round(round_id, oneshot_to_wire(one.view.parameters), one.signed, one.opening, int(one.closed))
        for round_id, one in sorted(state.rounds.items())
    )
    return with_digest(
        encode(
            _Decryptor(
                _VERSION,
                state.identity,
                committee_to_wire(parameters),
                own,
                announcement,
                bytes(phase.secrets.agreement),
                bytes(phase.secrets.kem_seed),
                rounds,
                state.releases,
                int(state.silent),
            )
        )
    )


def load_decryptor(data: bytes, policy: OneShotPolicy) -> DecryptorState:
    """Decode a decryptor and check its committee again, by the policy of today. Raises ParameterError."""
    saved = _decoded(_Decryptor, data)
    require(saved.version == _VERSION, "snapshot", f"of version {_VERSION}", saved.version)
    with parts_must_fit():
        try:
            return _restored(saved, policy)
        except RemoteProtocolError as error:
            raise ParameterError(f"snapshot: {error}") from error


def _restored(saved: _Decryptor, policy: OneShotPolicy) -> DecryptorState:
    parameters = committee_from_wire(saved.parameters)
    secrets = EpochSecrets(bytearray(saved.agreement), bytearray(saved.kem_seed))
    try:
        return _with_secrets(saved, parameters, secrets, policy)
    except BaseException:
        secrets.wipe()
        raise


def _with_secrets(
    saved: _Decryptor, parameters: CommitteeParameters, secrets: EpochSecrets, policy: OneShotPolicy
) -> DecryptorState:
    identity = Identity(saved.identity)
    if not len(saved.announcement):
        own = decode(CommitteeKey, saved.own)
        sent = KeySent(parameters, own, secrets)
        return DecryptorState(identity, sent, {}, saved.releases, bool(saved.silent))
    announcement = decode(CommitteeAnnouncement, saved.announcement)
    view = CommitteeView.check(parameters, announcement.committee, tuple(announcement.keys), policy)
    rounds = {}
    for one in saved.rounds:
        round_view = OneShotView.build(oneshot_from_wire(one.parameters), view)
        rounds[one.round_id] = MemberRound(
            round_view, signed=one.signed, opening=bytes(one.opening), closed=bool(one.closed)
        )
    member = Member(view, view.index[identity], secrets)
    return DecryptorState(identity, member, rounds, saved.releases, bool(saved.silent))


def _decoded(kind: type[M], data: bytes) -> M:
    try:
        return decode(kind, checked_body(data))
    except RemoteProtocolError as error:
        raise ParameterError(f"snapshot: {error}") from error
