"""A client session as bytes and back. The bytes hold secrets; the caller seals them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from secagg.effects import Effect, Frame, InputWanted, Send, SignWanted
from secagg.errors import ParameterError, RemoteProtocolError
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages import (
    Advertisement,
    Roster,
    RoundParametersMessage,
    SurvivorSet,
    UnmaskingRequest,
    decode,
    encode,
    parameters_from_wire,
    parameters_to_wire,
)
from secagg.messages.fields import large_octets, message, messages, octets, octets_list, uint
from secagg.params import Buffer, Identity, RoundParameters, require
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.client.phases import (
    AdvertiseKeys,
    ClientPhase,
    Idle,
    MaskedInputCollection,
    Over,
    ShareKeys,
    Uploaded,
)
from secagg.protocol.client.vault import Vault
from secagg.protocol.round import RoundView
from secagg.protocol.snapshot import checked_body, parts_must_fit, with_digest

_VERSION = 5
_PHASES: tuple[type, ...] = (AdvertiseKeys, ShareKeys, MaskedInputCollection, Uploaded, Over)


@dataclass(frozen=True, slots=True)
class _Answered:
    kind: int = uint(1)  # plus one
    digest: bytes = octets(2, 32)


@dataclass(frozen=True, slots=True, repr=False)
class _Held:
    dealer: bytes = octets(1, 32)
    shares: bytes = octets(2, 80)


@dataclass(frozen=True, slots=True, repr=False)
class _Opening:
    dealer: bytes = octets(1, 32)
    key: bytes = octets(2, 32)


@dataclass(frozen=True, slots=True, repr=False)
class _Snapshot:
    version: int = uint(1)
    phase: int = uint(2)  # plus one
    parameters: RoundParametersMessage = message(3, RoundParametersMessage)
    own: Buffer = large_octets(4)
    roster: Buffer = large_octets(5)
    neighbors: Sequence[Advertisement] = messages(6, Advertisement)
    agreement: bytes = octets(7, 0, 32)
    mask: bytes = octets(8, 0, 32)
    self_seed: bytes = octets(9, 0, 32)
    share_seed: bytes = octets(10, 0, 32)
    finished: Buffer = large_octets(11)
    held: Sequence[_Held] = messages(12, _Held)
    signed: Buffer = large_octets(13)
    vector: Buffer = large_octets(14)
    answered: Sequence[_Answered] = messages(15, _Answered)
    last: Buffer = large_octets(16)
    input_wanted: int = uint(17)
    identity: bytes = octets(18, 32)
    opening: Sequence[_Opening] = messages(19, _Opening)
    releases: int = uint(20)
    asked_set: Buffer = large_octets(21)
    asked_request: Buffer = large_octets(22)
    survivors: tuple[bytes, ...] = octets_list(23, 32)
    kem: bytes = octets(24, 0, 64)
    contributions: Sequence[_Opening] = messages(25, _Opening)
    upload: bytes = octets(26, 0, 32)
    open_context: int = uint(27)


@dataclass(slots=True)
class ClientState:
    """The state of a client session, all of it."""

    identity: Identity
    phase: ClientPhase
    parameters: RoundParameters
    vector: UIntArray | None = field(repr=False)
    answered: dict[int, bytes]
    last: tuple[Effect, ...]
    releases: int
    upload: bytes  # digest of its frame, which `last` has, or would have
    open_context: bool  # nothing was compared with the context of the round yet


def save(state: ClientState) -> bytes:
    """Encode a session that is within a round."""
    vector, last = state.vector, state.last
    frames = [effect.frame for effect in last if isinstance(effect, Send) and not state.upload]
    body = encode(
        _Snapshot(
            version=_VERSION,
            phase=_PHASES.index(type(state.phase)) + 1,
            parameters=parameters_to_wire(state.parameters),
            vector=vector.astype(vector.dtype.newbyteorder("<")).tobytes() if vector is not None else b"",
            answered=tuple(_Answered(kind + 1, digest) for kind, digest in sorted(state.answered.items())),
            last=bytes(frames[0]) if frames else b"",
            input_wanted=int(any(isinstance(effect, InputWanted) for effect in last)),
            identity=state.identity,
            releases=state.releases,
            upload=state.upload,
            open_context=int(state.open_context),
            **_save_public(state.phase),  # type: ignore[arg-type]
            **_save_secret(state.phase),  # type: ignore[arg-type]
        )
    )
    return with_digest(body)


def _save_public(phase: ClientPhase) -> dict[str, object]:
    """Return what a phase knows beside its secrets."""
    fields: dict[str, object] = dict.fromkeys(("own", "roster", "signed", "asked_set", "asked_request"), b"")
    fields["neighbors"] = fields["survivors"] = ()
    match phase:
        case AdvertiseKeys(own=own):
            fields["own"] = encode(own)
        case ShareKeys(view=view) | MaskedInputCollection(view=view):
            fields["roster"] = encode(view.roster)
            fields["neighbors"] = tuple(phase.neighbors.values())
        case Uploaded(view=view, neighbors=neighbors, signed=signed, asked=asked):
            fields["roster"] = encode(view.roster)
            fields["neighbors"] = tuple(_name_only(neighbor) for neighbor in neighbors)
            fields["signed"] = signed or b""
            if asked is not None:
                fields["asked_set" if isinstance(asked, SurvivorSet) else "asked_request"] = encode(asked)
        case Over(survivors=survivors):  # beside them only the last answer is kept
            fields["survivors"] = tuple(sorted(survivors))
        case Idle():
            raise ParameterError("snapshot: there is no round to keep")
    return fields


def _save_secret(phase: ClientPhase) -> dict[str, object]:
    """Return secrets, keys and shares, and U1, for which the shares are."""
    drawn = ("agreement", "mask", "self_seed", "share_seed", "kem")
    fields: dict[str, object] = dict.fromkeys((*drawn, "finished"), b"")
    fields["held"] = fields["opening"] = fields["contributions"] = ()
    if isinstance(phase, AdvertiseKeys | ShareKeys | MaskedInputCollection):
        fields |= {name: bytes(getattr(phase.secrets, name)) for name in drawn}
    if isinstance(phase, ShareKeys):
        fields["opening"] = _save_keys(phase.opening)
    if isinstance(phase, MaskedInputCollection):
        fields["contributions"] = _save_keys(phase.contributions)
    if isinstance(phase, MaskedInputCollection | Uploaded):
        fields["finished"] = phase.view.bitmap(phase.finished)
        fields["held"] = tuple(_Held(dealer, shares) for dealer, shares in phase.vault.saved())
    return fields


def _save_keys(keys: Mapping[Identity, bytearray]) -> tuple[_Opening, ...]:
    return tuple(_Opening(dealer, bytes(key)) for dealer, key in sorted(keys.items()))


def _load_keys(saved: Iterable[_Opening]) -> dict[Identity, bytearray]:
    return {Identity(entry.dealer): bytearray(entry.key) for entry in saved}


def load(data: bytes) -> ClientState:
    """Decode a session. Raises ParameterError when the bytes are not a snapshot of this version."""
    with parts_must_fit():
        return _load(data)


def _load(data: bytes) -> ClientState:
    try:
        saved = decode(_Snapshot, checked_body(data))
        parameters = parameters_from_wire(saved.parameters)
        if saved.version != _VERSION or not 1 <= saved.phase <= len(_PHASES):
            raise ParameterError(f"snapshot: version {saved.version}, phase {saved.phase}: not known here")
        phase = _load_phase(saved, parameters)
    except RemoteProtocolError as error:
        raise ParameterError(f"snapshot: {error.detail}") from error
    last: list[Effect] = []
    if len(saved.last):
        last.append(Send(None, Frame(bytes(saved.last))))
    if saved.input_wanted:
        last.append(InputWanted(parameters.vector_length, parameters.ring_bits))
    if isinstance(phase, Uploaded) and phase.asked is not None:
        members = phase.view.members("snapshot.asked", bytes(phase.asked.survivors))
        last.append(SignWanted(phase.view.named(phase.finished), phase.view.named(members)))
    vector = None
    if len(saved.vector):
        lane = lane_dtype(parameters.ring_bits)
        vector = np.frombuffer(saved.vector, lane.newbyteorder("<")).astype(lane)
        require(
            vector.size == parameters.vector_length,
            "snapshot",
            f"with a vector of {parameters.vector_length} entries",
            vector.size,
        )
    answered = {entry.kind - 1: entry.digest for entry in saved.answered}
    return ClientState(
        Identity(saved.identity),
        phase,
        parameters,
        vector,
        answered,
        tuple(last),
        saved.releases,
        saved.upload,
        bool(saved.open_context),
    )


def _load_phase(saved: _Snapshot, parameters: RoundParameters) -> ClientPhase:
    kind = _PHASES[saved.phase - 1]
    if kind is Over:
        return Over(frozenset(map(Identity, saved.survivors)))
    drawn = (saved.agreement, saved.mask, saved.self_seed, saved.share_seed, saved.kem)
    secrets = Secrets(*map(bytearray, drawn))
    if kind is AdvertiseKeys:
        return AdvertiseKeys(parameters, decode(Advertisement, saved.own), secrets)
    view = RoundView.build(parameters, decode(Roster, saved.roster))
    neighbors = {Identity(neighbor.identity): neighbor for neighbor in saved.neighbors}
    if kind is ShareKeys:
        return ShareKeys(view, neighbors, secrets, _load_keys(saved.opening))
    finished = view.members("snapshot.finished", bytes(saved.finished))
    vault = Vault({Identity(entry.dealer): entry.shares for entry in saved.held})
    if kind is MaskedInputCollection:
        contributions = _load_keys(saved.contributions)
        return MaskedInputCollection(view, neighbors, secrets, finished, vault, contributions)
    asked: SurvivorSet | UnmaskingRequest | None = None
    if len(saved.asked_set):
        asked = decode(SurvivorSet, saved.asked_set)
    elif len(saved.asked_request):
        asked = decode(UnmaskingRequest, saved.asked_request)
    return Uploaded(view, tuple(neighbors), finished, vault, bytes(saved.signed) or None, asked)


def _name_only(identity: Identity) -> Advertisement:
    """Keep only the name of a neighbor whose keys are no longer needed."""
    return Advertisement(identity, bytes(32), bytes(32), bytes(64))
