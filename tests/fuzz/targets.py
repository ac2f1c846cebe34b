"""What any bytes may cause, one function per reader of bytes; none of them knows of the fuzzer.

A target returns in a few words what became of its input, for the corpus; it raises when a promise is broken:
bytes decode or raise the protocol's error; what decodes is encoded to the same bytes; `receive` raises
nothing; what is refused changes nothing.
"""

from __future__ import annotations

import io
import pickle
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from fedcore.codec.clipping import AdaptiveClip
from fedcore.codec.codec import Codec
from fedcore.data.schema import Column, Schema
from fedcore.errors import CodecError, DataError, TaskError
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import (
    Count,
    Covariance,
    Cumulative,
    Deviation,
    Evaluate,
    Mean,
    Question,
    Sites,
    Train,
)
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from fedcore.statistics.standardizer import Standardizer
from secagg.effects import Aborted, Completed, Effect, InputWanted, Refused, RosterAccepted, Send, SignWanted
from secagg.errors import LocalProtocolError, ParameterError, RegistryError, RemoteProtocolError
from secagg.messages import (
    KINDS,
    RevealedShare,
    Roster,
    RosterEntry,
    SealedShare,
    UploadProof,
    decode,
    decode_frame,
    encode,
    encode_frame,
)
from secagg.messages.types import ThreatModelMessage
from secagg.params import Identity
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.server import snapshot as server_snapshot
from secagg.protocol.snapshot import checked_body, with_digest
from secagg.registry import Registry
from secagg.service.errors import HelloError, StreamError
from secagg.service.hello import check_hello, make_hello, read_hello
from secagg.service.line import read_outcome
from secagg.service.records import Record, RecordReader, RecordType, encode_record
from secagg.transcript import RecordedServerSession, transcript_digest, verify
from secagg.transcript.entries import LENGTH_BYTES, MAGIC, EntryKind, Seal, address, framed, seal_text
from tests.fuzz.oneshot import TARGETS as ONESHOT_TARGETS
from tests.fuzz.rounds import ME, Moment, Recording, recordings
from tests.fuzz.target import MENDED, STRANGER, Target, is_frame, said_in, spoken, was_refused
from tests.protocol.network import Cohort

PARTS = (ThreatModelMessage, RosterEntry, Roster, SealedShare, UploadProof, RevealedShare)
CLASSES = (*KINDS, *PARTS)


# --- messages --------------------------------------------------------------------------------------


def _frame(data: bytes) -> str:
    try:
        round_id, message = decode_frame(data)
    except RemoteProtocolError as error:
        return said_in(error.detail)
    again = bytes(encode_frame(round_id, message))
    assert again == data, "a second encoding of one frame"
    assert decode_frame(again) == (round_id, message)
    return type(message).__name__


def _message(data: bytes) -> str:
    """First byte: which message the rest is."""
    if not data:
        return ""
    kind = CLASSES[data[0] % len(CLASSES)]
    try:
        message = decode(cast("type[Any]", kind), memoryview(data)[1:])
    except RemoteProtocolError as error:
        return said_in(error.detail)
    assert encode(message) == data[1:], f"a second encoding of one {kind.__name__}"
    return kind.__name__


def _message_seeds() -> list[bytes]:
    out = set()
    for recording in recordings():
        for moment in (*recording.clients, *recording.servers):
            for _, frame in moment.inputs[:1]:
                if frame:
                    out |= set(_tree(decode_frame(frame)[1]))
    return sorted(out)


def _tree(message: Any) -> Iterator[bytes]:
    """Yield a message and what is embedded in it as inputs."""
    if type(message) in CLASSES:
        yield bytes([CLASSES.index(type(message))]) + encode(message)
        for name in type(message).__slots__:
            value = getattr(message, name)
            many = isinstance(value, Sequence) and not isinstance(value, bytes)
            for item in value[:1] if many else (value,):
                yield from _tree(item)


# --- sessions --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Live:
    """A session that has not changed since it was prepared."""

    session: Any
    snapshot: bytes  # without the bookkeeping of whose message was refused
    mark: bytes = b""  # what tells quickly that nothing changed


def _snapshot(session: ClientSession | ServerSession) -> bytes:
    """Return the snapshot, or nothing where there is none; a server's without whose message was refused."""
    try:
        data = session.snapshot()
    except LocalProtocolError:
        return b""
    if isinstance(session, ClientSession):
        return data
    return encode(replace(decode(server_snapshot._Snapshot, checked_body(data)), refused=()))


def _mark(session: ServerSession) -> bytes:
    """Return all of the session, quickly, if it lets itself be pickled."""
    try:
        return pickle.dumps(session, protocol=5)
    except (TypeError, pickle.PicklingError):
        return b""


_clients: dict[int, _Live] = {}  # by place
_servers: dict[int, _Live] = {}


@cache
def _client_places() -> tuple[tuple[Recording, Moment], ...]:
    return tuple((recording, moment) for recording in recordings() for moment in recording.clients)


@cache
def _server_places() -> tuple[tuple[Recording, Moment], ...]:
    return tuple((recording, moment) for recording in recordings() for moment in recording.servers)


def _handed_over(recording: Recording, frame: bytes, who: int) -> bytes:
    """The frame, signed anew if that is asked for and the frame is one."""
    if not who & MENDED:
        return frame
    try:
        round_id, message = decode_frame(frame)
    except RemoteProtocolError:
        return frame
    return bytes(encode_frame(round_id, recording.mended(message, who & STRANGER)))


def _client(data: bytes) -> str:
    """First byte: which session, at which moment; second: `MENDED` or not; then a frame."""
    if len(data) < 2:
        return ""
    place = data[0] % len(_client_places())
    recording, moment = _client_places()[place]
    frame = _handed_over(recording, data[2:], data[1])
    live = _clients.pop(place, None)
    if live is None:
        fresh = recording.client(moment)
        live = _Live(fresh, _snapshot(fresh))
    session: ClientSession = live.session
    effects = session.receive(frame)
    said = spoken(effects)
    if was_refused(effects):
        assert _snapshot(session) == live.snapshot, f"changed by what it refused: {said}"
        _clients[place] = live
        return said
    after = session.snapshot()
    expected = Send | RosterAccepted | InputWanted | SignWanted | Completed | Aborted
    assert all(isinstance(e, expected) for e in effects)
    _frames_are_canonical(effects)
    kept = session.upload
    again, _ = ClientSession.restore(
        after,
        signer=recording.cohort.signers[ME],
        policy=recording.cohort.policy,
        upload=None if kept is None else bytes(kept),
    )
    assert again.snapshot() == after, "restored otherwise than it was"
    aborted = any(isinstance(effect, Aborted) for effect in effects)
    for each in (session, again):
        assert was_refused(each.receive(frame)) == aborted, "asked again, it answers otherwise"
        assert each.snapshot() == after
    if aborted:
        assert session.phase is None
        assert len(effects) == 1
    if any(isinstance(effect, InputWanted) for effect in effects):
        parameters = session.parameters
        assert parameters is not None
        _frames_are_canonical(session.submit(recording.cohort.vector(ME)))
    if any(isinstance(effect, SignWanted) for effect in effects):
        assert not any(isinstance(effect, Send) for effect in effects), "signed before its caller consented"
        _frames_are_canonical(session.sign())
    return f"{place} {said}"


def _client_seeds() -> list[bytes]:
    return [
        bytes([place, flag]) + frame
        for place, (recording, moment) in enumerate(_client_places())
        for _, frame in moment.inputs
        for flag in _flags(recording)
    ]


def _server(data: bytes) -> str:
    """First byte: which session, at which moment; second: sender, `MENDED` or not; then a frame."""
    if len(data) < 2:
        return ""
    place = data[0] % len(_server_places())
    recording, moment = _server_places()[place]
    sender = data[1] & STRANGER
    identities = recording.cohort.identities
    frame = _handed_over(recording, data[2:], data[1])
    who = _STRANGER.identity if sender == STRANGER else identities[sender % len(identities)]
    live = _servers.pop(place, None)
    if live is None:
        fresh = recording.server(moment)
        live = _Live(fresh, _snapshot(fresh), _mark(fresh))
    session: ServerSession = live.session
    phase = session.phase
    effects = session.receive(who, frame)
    said = spoken(effects)
    assert session.phase is phase
    assert all(isinstance(effect, Refused | Send) for effect in effects)
    mark = _mark(session)
    if was_refused(effects) or (mark and mark == live.mark) or _snapshot(session) == live.snapshot:
        same = mark and mark == live.mark
        assert same or _snapshot(session) == live.snapshot, f"changed by what it refused: {said}"
        assert len(effects) < 2
        _frames_are_canonical(effects)
        live.mark = mark
        _servers[place] = live
        return said
    assert effects == [], f"changed by what it did not take: {said}"
    assert who in identities
    assert who not in session.progress.missing
    after = session.snapshot()
    again, _ = ServerSession.restore(after)
    assert again.snapshot() == after, "restored otherwise than it was"
    for each in (session, again):
        assert not was_refused(each.receive(who, frame)), "an identical second message is refused"
        assert each.snapshot() == after
    ready = session.progress.ready
    ends = [_closed(each) for each in (session, again)]
    assert ends[0] == ends[1], "restored, it goes on otherwise"
    return f"{place} taken, {'ready, ' if ready else ''}{ends[0]}"


_STRANGER = IdentityKey.from_seed(b"a stranger".ljust(32))


def _closed(session: ServerSession) -> str:
    """Close the phase; what comes of it must be a session, a result or an end."""
    effects = session.close_phase()
    _frames_are_canonical(effects)
    if session.phase is not None:
        after = session.snapshot()
        assert ServerSession.restore(after)[0].snapshot() == after
    return spoken([effect for effect in effects if isinstance(effect, Completed | Aborted)])


def _server_seeds() -> list[bytes]:
    return [
        bytes([place, sender | flag]) + frame
        for place, (recording, moment) in enumerate(_server_places())
        for sender, frame in moment.inputs
        for flag in _flags(recording)
    ]


def _flags(recording: Recording) -> tuple[int, ...]:
    return (0,) if recording.wide else (0, MENDED)  # wide ones take long


def _frames_are_canonical(effects: Sequence[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, Send):
            frame = bytes(effect.frame)
            assert bytes(encode_frame(*decode_frame(frame))) == frame


# --- snapshots -------------------------------------------------------------------------------------


def _client_snapshot(data: bytes) -> str:
    """The body of a snapshot; it gets the right digest."""
    recording = recordings()[0]
    signer, policy = recording.cohort.signers[ME], recording.cohort.policy
    try:
        session, _ = ClientSession.restore(with_digest(data), signer=signer, policy=policy)
    except ParameterError as error:
        return said_in(str(error))
    kept = session.snapshot()
    again, _ = ClientSession.restore(kept, signer=signer, policy=policy)
    assert again.snapshot() == kept, "restored otherwise than it was"
    return f"restored, {session.phase}"


def _client_snapshot_seeds() -> list[bytes]:
    return [
        checked_body(moment.snapshot)
        for recording in recordings()[:2]
        for moment in recording.clients
        if moment.snapshot is not None
    ]


def _server_snapshot(data: bytes) -> str:
    """The body of a snapshot; it gets the right digest."""
    try:
        session, effects = ServerSession.restore(with_digest(data))
    except ParameterError as error:
        return said_in(str(error))
    _frames_are_canonical(effects)
    kept = session.snapshot()
    again, _ = ServerSession.restore(kept)
    assert again.snapshot() == kept, "restored otherwise than it was"
    return f"restored, {session.phase}, {session.progress.ready}"


def _server_snapshot_seeds() -> list[bytes]:
    return [
        checked_body(moment.snapshot)
        for recording in recordings()[:2]
        for moment in recording.servers
        if moment.snapshot is not None
    ]


# --- the service and fedcore -----------------------------------------------------------------------


_LIMIT = 64


def _records(data: bytes) -> str:
    """A stream of records in pieces; first byte: how long a piece is."""
    if not data:
        return ""
    stream, size = data[1:], data[0] or len(data)
    reader, got = RecordReader(_LIMIT), list[Record]()
    error = ""
    try:
        for at in range(0, len(stream), size):
            got += reader.feed(stream[at : at + size])
    except StreamError as caught:
        error = said_in(str(caught))
    assert all(len(record.content) <= _LIMIT for record in got)
    again = b"".join(b"".join(encode_record(record.type, record.content)) for record in got)
    assert stream.startswith(again), "records that were not sent"
    whole = RecordReader(_LIMIT)
    assert [(r.type, r.content) for r in whole.feed(again)] == [(r.type, r.content) for r in got]
    return f"{min(len(got), 3)} records, rest: {len(stream) > len(again)} {error}"


def _record_seeds() -> list[bytes]:
    out = []
    for size in (0, 1, 9, 40):
        for contents in ([b""], [b"a" * _LIMIT], [b"one", b"", b"three"]):
            records = (encode_record(kind, text) for kind, text in zip(RecordType, contents, strict=False))
            out.append(bytes([size]) + b"".join(b"".join(record) for record in records))
    return out


_CERTIFICATE, _NONCE = b"c" * 32, b"n" * 32


def _hello(data: bytes) -> str:
    try:
        hello = read_hello(memoryview(data))
        check_hello(hello, _CERTIFICATE, _NONCE, frozenset(recordings()[0].cohort.identities))
    except HelloError as error:
        return said_in(str(error))
    signer = next(one for one in recordings()[0].cohort.signers if one.identity == hello.identity)
    again = make_hello(signer, _CERTIFICATE, _NONCE, place=hello.place, resume=hello.resume)
    assert read_hello(again) == hello
    return f"hello, {len(hello.resume)}"


def _hello_seeds() -> list[bytes]:
    signers = (*recordings()[0].cohort.signers[:1], _STRANGER)
    return [
        make_hello(s, _CERTIFICATE, _NONCE, place="trial/first", resume=resume)
        for s in signers
        for resume in (b"", b"r" * 16)
    ]


@cache
def _file() -> Path:
    return Path(_folder().name) / "file"


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)  # removed with the process


def _registry_file(data: bytes) -> str:
    _file().write_bytes(data)
    try:
        registry = Registry.load(_file())
    except RegistryError as error:
        return _first_words(error)
    if registry.names:  # the text of an empty one is not a registry
        _file().write_text(registry.dump(), encoding="utf-8")
        assert Registry.load(_file()) == registry
    return f"{min(len(registry.names), 2)} parties"


def _registry_seeds() -> list[bytes]:
    text = Registry.of(list(zip("ab", recordings()[0].cohort.identities, strict=False))).dump()
    return [text.encode(), b"", b"party = []", b"[[party]]\nname = 'a'\nidentity = ''", b"party = {name = 1}"]


def _schema_file(data: bytes) -> str:
    _file().write_bytes(data)
    try:
        schema = Schema.load(_file(), ("no", "yes"))
    except DataError as error:
        return _first_words(error)
    schema.dump(_file())
    assert Schema.load(_file(), ("no", "yes")) == schema
    return f"{min(len(schema.columns), 2)} columns"


def _schema_seeds() -> list[bytes]:
    return [
        b"column,low,high\nage,0,120\nbmi,1e1,6e1\n",
        b"\xef\xbb\xbfhigh,column,low\r\n1,a,0\r\n",
        b'column,low,high\n"a,""b""",-1,1\n',
    ]


_COLUMNS = Schema((Column("age", 0.0, 120.0), Column("bmi", 10.0, 60.0)), ("no", "yes"))
_MODEL: dict[str, Any] = {"coef": np.arange(2.0), "head.0": np.ones((1, 2), np.float32)}


@cache
def _terms() -> Terms:
    plan = TrainingPlan(rounds=4, clients=5, weight_cap=100, norm=AdaptiveClip(norm=1.0), keep=0.5)
    asks = Asks(control=1.0, weighting=Weighting.UNIFORM, personal=("head*",))
    return Terms(plan=plan, asks=asks, passes=2, schema=_COLUMNS, classes=_COLUMNS.classes, size=2)


def _task(data: bytes) -> str:
    try:
        task = Task.decode(data, _terms().encoding)
    except (TaskError, CodecError) as error:
        return _first_words(error)
    payload = task.encode()
    again = Task.decode(payload, _terms().encoding)
    assert again.encode() == payload
    assert again.digest == task.digest
    assert again.encoding == task.encoding
    known = "known" if _terms().place(task.question) else "in no run"
    return f"{task.kind}, {min(len(task.question.arrays()), 3)} arrays, {known}"


def _task_seeds() -> list[bytes]:
    standardizer = Standardizer(np.zeros(2), np.ones(2))
    about: dict[str, Any] = {"model": _MODEL, "standardizer": standardizer}
    questions: list[Question] = [
        Mean(),
        Deviation(mean=np.arange(2.0)),
        Covariance(mean=np.zeros(2)),
        Cumulative(edges=np.zeros((2, 3))),
        Count(cells=np.array([[-1.0, 1.0]])),
        Evaluate(number=3, **about),
        Sites(number=3, model=_MODEL),
        Train(number=2, norm=0.5, control=np.zeros(2), **about),
        Train(number=2, norm=0.5, control=np.zeros(2), center=np.zeros(4), again=1, **about),
        Train(model={}),
    ]
    encoding = Encoding(dimension=2, codec=Codec(clip=1.0, bits=16, weight_cap=100, clients=5))
    return [
        Task(
            question=question,
            encoding=encoding,
            step=place,
            attempt=1 + place % 2,
            group=place % 3,
            cohort="1f"[: place % 3],
        ).encode()
        for place, question in enumerate(questions)
    ]


def _outcome(data: bytes) -> str:
    try:
        outcome = read_outcome(memoryview(data))
    except StreamError as error:
        return said_in(str(error))
    assert isinstance(outcome.why, str)
    return f"{outcome.completed}, {bool(outcome.why)}"


def _outcome_seeds() -> list[bytes]:
    return [
        b'{"outcome": "completed"}',
        b'{"outcome": "failed", "reason": "no quorum", "detail": "3 are right"}',
        b'"outcome"',
    ]


@cache
def _transcript_entries() -> tuple[bytes, ...]:
    cohort = Cohort(4, vector_length=3)
    file = io.BytesIO()
    cohort.server = RecordedServerSession(
        cohort.parameters, admitted=cohort.identities, file=file, signer=_STRANGER, keep_inputs=True
    )
    cohort.finish()
    data, at, out = file.getvalue(), len(MAGIC), []
    while at < len(data):
        length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        at += LENGTH_BYTES + length
        out.append(data[at - length : at])
    return tuple(out)


def _transcript(data: bytes) -> str:
    """First byte: in place of which entry the rest is put; with MENDED the seal is made anew."""
    if not data:
        return str(verify(io.BytesIO(data)).ok)
    entries = list(_transcript_entries())
    place, mend = (data[0] & ~MENDED) % len(entries), data[0] & MENDED
    same = entries[place] == data[1:]
    entries[place] = data[1:]
    if mend and place < len(entries) - 1:
        addresses = [address(entry) for entry in entries[:-1]]
        signature = _STRANGER.sign(seal_text(transcript_digest(addresses)))
        entries[-1] = framed(EntryKind.SEAL, content=encode(Seal(b"".join(addresses), signature)))[1]
    lengths = (len(entry).to_bytes(LENGTH_BYTES, "big") for entry in entries)
    whole = MAGIC + b"".join(map(bytes.__add__, lengths, entries))
    report = verify(io.BytesIO(whole))
    assert report.ok or not same
    assert same or mend or not report.ok, "a change that is not found"
    assert all(finding.place is None or finding.place < len(entries) + 1 for finding in report.findings)
    return " ".join(sorted({said_in(finding.what) for finding in report.findings})[:2])


def _transcript_seeds() -> list[bytes]:
    entries = _transcript_entries()
    return [bytes([i | mend]) + entry for i, entry in enumerate(entries) for mend in (0, MENDED)]


# --- all of them -----------------------------------------------------------------------------------


def _first_words(error: Exception) -> str:
    """Say of an error about a text, which it quotes at length, only how it begins."""
    cause = error.__cause__ or error
    return " ".join([type(cause).__name__, *re.findall(r"\b[a-z]{2,}\b", said_in(str(cause)))[:4]])


def _frame_seeds() -> list[bytes]:
    return [frame for recording in recordings() for m in recording.clients for _, frame in m.inputs[:1]] + [
        frame for recording in recordings() for m in recording.servers for _, frame in m.inputs[:1] if frame
    ]


def identities() -> list[Identity]:
    """Identities that inputs may name."""
    return list(recordings()[0].cohort.identities)


# The order stays: the first byte of an input of the fuzzer is a place in it.
TARGETS = (
    Target("frame", _frame, _frame_seeds, shape=is_frame),
    Target("message", _message, _message_seeds, 1, lambda head: CLASSES[head[0] % len(CLASSES)].__name__),
    Target("client", _client, _client_seeds, 2, is_frame),
    Target("server", _server, _server_seeds, 2, is_frame),
    Target("client_snapshot", _client_snapshot, _client_snapshot_seeds, shape=lambda _: "client snapshot"),
    Target("server_snapshot", _server_snapshot, _server_snapshot_seeds, shape=lambda _: "server snapshot"),
    Target("records", _records, _record_seeds, 1),
    Target("hello", _hello, _hello_seeds),
    Target("registry", _registry_file, _registry_seeds),
    Target("schema", _schema_file, _schema_seeds),
    Target("task", _task, _task_seeds),
    Target("outcome", _outcome, _outcome_seeds),
    Target("transcript", _transcript, _transcript_seeds, 1, lambda _: "transcript entry"),
    *ONESHOT_TARGETS,
)
