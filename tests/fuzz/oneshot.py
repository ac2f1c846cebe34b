"""What any bytes may cause in the one-upload protocol: frames, its sessions, their snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from secagg.effects import (
    Aborted,
    CommitteeAccepted,
    Completed,
    Effect,
    InputWanted,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
    UploadTaken,
)
from secagg.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Acceptance,
    CommitteeAnnouncement,
    CommitteeCertificate,
    Dealings,
    Opening,
    OpenRequest,
    SumProposal,
    SumSignature,
    Upload,
    committee_to_wire,
    decode_oneshot,
)
from secagg.params import Adversary, Buffer, Identity
from secagg.primitives.labels import ONESHOT
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.oneshot import Contributor, DecryptorSession, OneShotServer, server_snapshot
from secagg.protocol.oneshot.dealing import digests_of, shape_fault
from secagg.protocol.oneshot.uploads import MemoryPacked
from secagg.protocol.oneshot.view import (
    candidate_of,
    committee_parameters_digest,
    key_text,
    sha256,
    sum_digest,
)
from secagg.protocol.snapshot import checked_body, with_digest
from tests.fuzz.target import MENDED, STRANGER, Target, is_frame, said_in, spoken, was_refused
from tests.protocol.network import CounterEntropy
from tests.protocol.oneshot.network import EPOCH_ID, Round, framed, message_of, signed_again

_CLIENTS, _MEMBERS = 4, 4
_STRANGER = IdentityKey.from_seed(b"a stranger".ljust(32))
_CLOSE = Identity(b"close the phase".ljust(32))  # instead of a sender


class _Server:
    """A server that remembers what it was handed."""

    def __init__(self, session: OneShotServer) -> None:
        self._session = session
        self.calls: list[tuple[Identity, bytes]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def receive(self, sender: Identity, frame: Buffer) -> list[Effect]:
        self.calls.append((sender, bytes(frame)))
        return self._session.receive(sender, frame)

    def close_phase(self) -> list[Effect]:
        self.calls.append((_CLOSE, b""))
        return self._session.close_phase()


@dataclass(frozen=True, slots=True)
class _Recording:
    """One round: what its server, its first member and its first client were handed, in order."""

    round: Round
    server: tuple[tuple[Identity, bytes], ...]
    member: tuple[bytes, ...]
    client: tuple[bytes, ...]
    sum_hash: bytes

    def party(self, place: int) -> IdentityKey:
        """A client or a member, by place."""
        if place == STRANGER:
            return _STRANGER
        parties = (*self.round.signers, *self.round.epoch.signers)
        return parties[place % len(parties)]

    def signer(self, identity: bytes) -> IdentityKey:
        """The keys of an identity; a stranger's if nobody has it."""
        parties = (*self.round.signers, *self.round.epoch.signers)
        return next((one for one in parties if one.identity == identity), _STRANGER)

    def member_signer(self, index: int) -> IdentityKey:
        return self.round.epoch.signers[index % len(self.round.epoch.signers)]

    def handed_over(self, data: bytes) -> bytes:
        """The frame, signed anew by those it names, if that is asked for and the frame is one."""
        frame = data[2:]
        if not data[1] & MENDED:
            return frame
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            return framed(envelope.round_id, self.mended(decode_oneshot(envelope)))
        except RemoteProtocolError:
            return frame

    def mended(self, message: Any) -> Any:
        """Return the message with the signatures that its authors would put on it now."""
        view, parameters = self.round.view, self.round.epoch.parameters
        match message:
            case Upload():
                members = len(view.committee.members)
                if len(message.leaves) != 32 * members or len(message.sealed) != members * view.sealed_bytes:
                    return message
                return signed_again(view, self.signer(message.identity), message)
            case Dealings():
                dealings = (
                    one
                    if shape_fault(view, one)
                    else replace(one, signature=self.signer(one.identity).sign(digests_of(0, one).text(view)))
                    for one in message.dealings
                )
                return replace(message, dealings=tuple(dealings))
            case SumSignature():
                return replace(message, signature=self._sum_signature(message.index))
            case OpenRequest():
                signatures = (
                    replace(one, signature=self._sum_signature(one.index)) for one in message.signatures
                )
                return replace(message, signatures=tuple(signatures))
            case Opening():
                text = view.opening_text(self.sum_hash, sha256(message.values))
                return replace(message, signature=self.member_signer(message.index).sign(text))
            case CommitteeAnnouncement():
                digest = committee_parameters_digest(parameters)
                keys = tuple(
                    replace(key, signature=self.signer(key.identity).sign(key_text(digest, key)))
                    for key in message.keys
                )
                said = {key.identity: candidate_of(key) for key in keys}
                candidates = tuple(said.get(one.identity, one) for one in message.committee.candidates)
                return replace(
                    message, committee=replace(message.committee, candidates=candidates), keys=keys
                )
            case CommitteeCertificate():
                text = ONESHOT.encode(
                    "committee",
                    ONESHOT.digest(
                        "committee-digest",
                        ONESHOT.digest("committee-parameters-digest", encode(message.parameters)),
                        encode(message.committee),
                    ),
                )
                acceptances = tuple(
                    Acceptance(one.index, self.member_signer(one.index).sign(text))
                    for one in message.acceptances
                )
                return replace(message, acceptances=acceptances)
            case _:
                return message

    def _sum_signature(self, index: int) -> bytes:
        return self.member_signer(index).sign(self.round.view.sum_text(self.sum_hash))


@cache
def _recordings() -> tuple[_Recording, ...]:
    """Record a round whose server may lie, and one whose server may not."""
    return tuple(_record(adversary) for adversary in _ADVERSARIES)


_ADVERSARIES: tuple[Adversary, ...] = ("active", "passive")


def _record(adversary: Adversary) -> _Recording:
    played = Round(_CLIENTS, _MEMBERS, adversary=adversary, seed="fuzz")
    played.server = server = _Server(played.server)  # type: ignore[assignment]
    played.play(range(_CLIENTS - 1))
    me, view = played.epoch.members[0], played.committee
    member = (
        framed(EPOCH_ID, committee_to_wire(played.epoch.parameters)),
        framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys)),
        *played.sent[me],
    )
    (proposal,) = (m for m in map(message_of, played.sent[me]) if isinstance(m, SumProposal))
    raw = bytes(proposal.uploads)
    return _Recording(
        round=played,
        server=(*server.calls, (_CLOSE, b"")),
        member=member,
        client=(played.epoch.certificate, bytes(played.server.parameters_frame)),
        sum_hash=sum_digest([raw[at : at + 32] for at in range(0, len(raw), 32)]),
    )


# --- frames ----------------------------------------------------------------------------------------


def _frame(data: bytes) -> str:
    try:
        envelope = ONESHOT_FRAMES.open(data)
        message = decode_oneshot(envelope)
    except RemoteProtocolError as error:
        return said_in(error.detail)
    assert framed(envelope.round_id, message) == data, "a second encoding of one frame"
    return type(message).__name__


def _frame_seeds() -> list[bytes]:
    return sorted(
        {
            frame
            for one in _recordings()
            for frame in (*one.member, *one.client, *(frame for _, frame in one.server if frame))
        }
    )


def _frames_are_canonical(effects: Sequence[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, Send):
            frame = bytes(effect.frame)
            envelope = ONESHOT_FRAMES.open(frame)
            assert framed(envelope.round_id, decode_oneshot(envelope)) == frame


def _frames(effects: Sequence[Effect]) -> list[tuple[Identity | None, bytes]]:
    return [(effect.to, bytes(effect.frame)) for effect in effects if isinstance(effect, Send)]


# --- a member --------------------------------------------------------------------------------------


@cache
def _member_places() -> tuple[tuple[_Recording, int], ...]:
    return tuple((one, at) for one in _recordings() for at in range(len(one.member)))


def _member_at(recording: _Recording, at: int) -> tuple[DecryptorSession, list[Effect]]:
    """A member that was handed so many frames, and what it answered to the last."""
    epoch = recording.round.epoch
    session = DecryptorSession(
        signer=epoch.signers[0], policy=epoch.policy, entropy=CounterEntropy(f"{recording.round.seed}/0")
    )
    effects: list[Effect] = []
    for frame in recording.member[:at]:
        effects = _with_consent(session, session.receive(frame))
        assert not was_refused(effects)
    return session, effects


def _with_consent(session: DecryptorSession, effects: list[Effect]) -> list[Effect]:
    wanted = [effect.round_id for effect in effects if isinstance(effect, SignWanted)]
    assert not wanted or not _frames(effects), "signed before its caller consented"
    return [*effects, *(one for round_id in wanted for one in session.sign(round_id))]


def _kept(session: DecryptorSession) -> bytes:
    try:
        return session.snapshot()
    except LocalProtocolError:
        return b""


def _member(data: bytes) -> str:
    """First byte: how far the member is; second: `MENDED` or not; then a frame."""
    if len(data) < 2:
        return ""
    place = data[0] % len(_member_places())
    recording, at = _member_places()[place]
    session, _ = _member_at(recording, at)
    before = _kept(session)
    frame = recording.handed_over(data)
    effects = session.receive(frame)
    said = spoken(effects)
    if _is_dealings(frame) and all(isinstance(effect, Refused) for effect in effects):
        assert _kept(session) == before, f"kept more than it should: {said}"  # Dealings stand for themselves
        return f"{place} {said}"
    if was_refused(effects):
        assert _kept(session) == before, f"changed by what it refused: {said}"
        right = _with_consent(session, session.receive(recording.member[at]))
        assert right == _member_at(recording, at + 1)[1], f"answers otherwise after what it refused: {said}"
        return said
    effects = _with_consent(session, effects)
    expected = Send | SignWanted | RosterAccepted | CommitteeAccepted | Completed
    assert all(isinstance(effect, expected) for effect in effects), said
    _frames_are_canonical(effects)
    if after := _kept(session):
        epoch = recording.round.epoch
        again, _ = DecryptorSession.restore(
            after, signer=epoch.signers[0], policy=epoch.policy, releases=session.releases
        )
        assert again.snapshot() == after, "restored otherwise than it was"
    return f"{place} {said}"


def _is_dealings(frame: bytes) -> bool:
    try:
        return isinstance(message_of(frame), Dealings)
    except RemoteProtocolError:
        return False


def _member_seeds() -> list[bytes]:
    return [
        bytes([place, flag]) + recording.member[to]
        for place, (recording, at) in enumerate(_member_places())
        for to in range(max(at - 1, 0), min(at + 2, len(recording.member)))
        for flag in (0, MENDED)
    ]


# --- the server ------------------------------------------------------------------------------------


@cache
def _server_places() -> tuple[tuple[_Recording, int], ...]:
    return tuple((one, at) for one in _recordings() for at in range(len(one.server)))


def _server_at(recording: _Recording, at: int) -> tuple[OneShotServer, MemoryPacked]:
    """A server that was handed so much, and where it keeps vectors."""
    played, packed = recording.round, MemoryPacked()
    session = OneShotServer(
        played.parameters,
        played.committee,
        known=[signer.identity for signer in played.signers],
        packed=packed,
    )
    session.start()
    for call in recording.server[:at]:
        _handed(session, call)
    return session, packed


def _handed(session: OneShotServer, call: tuple[Identity, bytes]) -> list[Effect]:
    sender, frame = call
    if session.phase is None:
        return []
    return session.close_phase() if sender is _CLOSE else session.receive(sender, frame)


def _state(session: OneShotServer) -> bytes:
    """Return the snapshot without whose message was refused; nothing when the round is over."""
    try:
        data = checked_body(session.snapshot())
    except LocalProtocolError:
        return b""
    return encode(replace(decode(server_snapshot._Server, data), refused=()))


def _but_traffic(session: OneShotServer) -> bytes:
    """Return the snapshot without the bytes sent: a restored session sends again."""
    return encode(replace(decode(server_snapshot._Server, checked_body(session.snapshot())), traffic=()))


def _server(data: bytes) -> str:
    """First byte: how far the round is; second: sender, `MENDED` or not; then a frame."""
    if len(data) < 2:
        return ""
    place = data[0] % len(_server_places())
    recording, at = _server_places()[place]
    session, packed = _server_at(recording, at)
    before, phase = _state(session), session.phase
    sender = recording.party(data[1] & STRANGER).identity
    effects = session.receive(sender, recording.handed_over(data))
    said = spoken(effects)
    assert session.phase is phase
    _frames_are_canonical(effects)
    if was_refused(effects):
        assert _state(session) == before, f"changed by what it refused: {said}"
        right, (other, _) = _handed(session, recording.server[at]), _server_at(recording, at)
        assert _frames(right) == _frames(_handed(other, recording.server[at])), "answers otherwise"
        assert _state(session) == _state(other), "goes on otherwise"
        return said
    assert all(isinstance(effect, UploadTaken | Send) for effect in effects)
    assert sender in {one.identity for one in (*recording.round.signers, *recording.round.epoch.signers)}
    after, copy = session.snapshot(), MemoryPacked()
    copy._packed = dict(packed._packed)
    again, _ = OneShotServer.restore(after, packed=copy)
    assert _but_traffic(again) == _but_traffic(session), "restored otherwise than it was"
    ends = [_closed(each) for each in (session, again)]
    assert ends[0] == ends[1], "restored, it goes on otherwise"
    return f"{place} taken, {ends[0]}"


def _closed(session: OneShotServer) -> str:
    effects = session.close_phase()
    _frames_are_canonical(effects)
    return spoken([effect for effect in effects if isinstance(effect, Completed | Aborted)])


def _server_seeds() -> list[bytes]:
    return [
        bytes([place, who | flag]) + frame
        for place, (recording, at) in enumerate(_server_places())
        for sender, frame in recording.server[max(at - 1, 0) : at + 2]
        if frame
        for who in _places_of(recording, sender)
        for flag in (0, MENDED)
    ]


def _places_of(recording: _Recording, sender: Identity) -> list[int]:
    parties = (*recording.round.signers, *recording.round.epoch.signers)
    return [place for place, one in enumerate(parties) if one.identity == sender]


# --- a client --------------------------------------------------------------------------------------


@cache
def _client_places() -> tuple[tuple[_Recording, int], ...]:
    return tuple((one, at) for one in _recordings() for at in range(len(one.client) + 1))


def _client(data: bytes) -> str:
    """First byte: how far the client is; second: `MENDED` or not; then a frame."""
    if len(data) < 2:
        return ""
    place = data[0] % len(_client_places())
    recording, at = _client_places()[place]
    session = recording.round.contributor(0)
    for frame in recording.client[:at]:
        session.receive(frame)
    before = session.parameters
    effects = session.receive(recording.handed_over(data))
    said = spoken(effects)
    if was_refused(effects):
        assert session.parameters == before
        for frame in recording.client[at:]:
            assert not was_refused(session.receive(frame)), f"changed by what it refused: {said}"
    else:
        assert all(isinstance(effect, InputWanted) for effect in effects)
    parameters = session.parameters
    if parameters is None:
        return f"{place} {said}"
    if parameters != recording.round.parameters:  # of a committee that others made
        return f"{place} {said}, others"
    sent = session.submit(recording.round.vector(0))
    _frames_are_canonical(sent)
    assert recording.round.upload(0) == _frames(sent)[0][1], "another upload"
    kept = session.snapshot()
    again, effects = Contributor.restore(
        kept, signer=recording.round.signers[0], policy=recording.round.epoch.policy
    )
    assert again.snapshot() == kept, "restored otherwise than it was"
    assert _frames(effects) == _frames(sent)
    return f"{place} {said}"


def _client_seeds() -> list[bytes]:
    return [
        bytes([place, flag]) + frame
        for place, (recording, _) in enumerate(_client_places())
        for frame in (*recording.client, recording.member[1])
        for flag in (0, MENDED)
    ]


# --- snapshots -------------------------------------------------------------------------------------


def _member_snapshot(data: bytes) -> str:
    """The body of a member's snapshot; it gets the right digest."""
    epoch = _recordings()[0].round.epoch
    signer, policy = epoch.signers[0], epoch.policy
    try:
        session, effects = DecryptorSession.restore(
            with_digest(data), signer=signer, policy=policy, releases=0
        )
    except ParameterError as error:
        return said_in(str(error))
    _frames_are_canonical(effects)
    kept = session.snapshot()
    again, _ = DecryptorSession.restore(kept, signer=signer, policy=policy, releases=0)
    assert again.snapshot() == kept, "restored otherwise than it was"
    return f"restored, {len(session.rounds)} {spoken(effects)}"


def _member_snapshot_seeds() -> list[bytes]:
    kept = (_kept(_member_at(recording, at)[0]) for recording, at in _member_places())
    return sorted({checked_body(one) for one in kept if one})


def _server_snapshot(data: bytes) -> str:
    """The body of a server's snapshot; it gets the right digest, and the vectors of the whole round."""
    try:
        session, effects = OneShotServer.restore(with_digest(data), packed=MemoryPacked())
    except ParameterError as error:
        return said_in(str(error))
    _frames_are_canonical(effects)
    kept = session.snapshot()
    again, _ = OneShotServer.restore(kept, packed=MemoryPacked())
    assert _but_traffic(again) == _but_traffic(session), "restored otherwise than it was"
    return f"restored, {session.phase}, {session.progress.ready}"


def _server_snapshot_seeds() -> list[bytes]:
    sessions = (_server_at(recording, at)[0] for recording, at in _server_places())
    return sorted({checked_body(one.snapshot()) for one in sessions if one.phase is not None})


TARGETS = (
    Target("oneshot_frame", _frame, _frame_seeds, shape=is_frame),
    Target("oneshot_member", _member, _member_seeds, 2, is_frame),
    Target("oneshot_server", _server, _server_seeds, 2, is_frame),
    Target("oneshot_client", _client, _client_seeds, 2, is_frame),
    Target("member_snapshot", _member_snapshot, _member_snapshot_seeds, shape=lambda _: "decryptor snapshot"),
    Target(
        "oneshot_server_snapshot",
        _server_snapshot,
        _server_snapshot_seeds,
        shape=lambda _: "one-shot server snapshot",
    ),
)
