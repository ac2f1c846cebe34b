"""Frames and parameters of version 2; its messages are among those of test_types.py and test_wire.py."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import RefusalReason
from secagg.errors import RemoteProtocolError
from secagg.messages import decode, decode_frame, encode, encode_frame
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    ONESHOT_KINDS,
    OneShotMessage,
    PackedRequest,
    ReviewRequest,
    SumProposal,
    Upload,
    committee_from_wire,
    committee_to_wire,
    decode_oneshot,
    oneshot_from_wire,
    oneshot_to_wire,
)
from secagg.params import ThreatModel
from secagg.params_oneshot import ONESHOT_VERSION, CommitteeParameters, OneShotParameters
from tests.messages.raw import field
from tests.messages.strategies import bodies, octets, oneshot_bodies
from tests.messages.test_frames import threat_models

ROUND = bytes(range(16))
EPOCH = CommitteeParameters(epoch_id=ROUND)
PARAMETERS = OneShotParameters(
    round_id=ROUND,
    committee_digest=b"d" * 32,
    vector_length=10,
    ring_bits=20,
    contexts=(b"a" * 32, b"b" * 32),
    maximum_uploads=100,
)


@st.composite
def committee_parameters(draw: st.DrawFn) -> CommitteeParameters:
    size = draw(st.integers(3, 256))
    minimum = draw(st.integers(3, size))
    return CommitteeParameters(
        epoch_id=draw(octets(16)),
        threat_model=draw(threat_models),
        minimum_candidates=draw(st.integers(minimum, 2**16)),
        minimum_committee=minimum,
        committee_size=size,
        post_quantum=draw(st.booleans()),
    )


@st.composite
def oneshot_parameters(draw: st.DrawFn) -> OneShotParameters:
    most = draw(st.integers(2, 2**20))
    contexts = draw(st.lists(octets(32), unique=True, min_size=1, max_size=16))
    return OneShotParameters(
        round_id=draw(octets(16)),
        committee_digest=draw(octets(32)),
        vector_length=draw(st.integers(1, 2**27)),
        ring_bits=draw(st.integers(1, 25)),
        contexts=tuple(sorted(contexts)),
        maximum_uploads=most,
        minimum_survivors=draw(st.integers(2, most)),
        minimum_per_context=draw(st.integers(1, most)),
        colluding=draw(st.integers(0, most - 2)),
    )


def frame_bytes(version: int = 2, kind: int = 31, body: bytes = b"", round_id: bytes = ROUND) -> bytes:
    return field(1, version) + field(2, round_id) + field(3, kind) + (field(4, body) if body else b"")


def opened(data: bytes) -> tuple[bytes, OneShotMessage]:
    envelope = ONESHOT_FRAMES.open(data)
    return envelope.round_id, decode_oneshot(envelope)


# --- frames ----------------------------------------------------------------------------------------


@given(round_id=octets(16), body=oneshot_bodies)
def test_what_was_framed_comes_back(round_id: bytes, body: OneShotMessage) -> None:
    frame = ONESHOT_FRAMES.encode(round_id, body)
    assert opened(bytes(frame)) == (round_id, body)
    assert frame.size == len(bytes(frame))


@given(round_id=octets(16), body=oneshot_bodies)
def test_a_frame_is_that_of_the_protobuf_runtime(
    protobuf: dict[str, Any], round_id: bytes, body: OneShotMessage
) -> None:
    theirs = protobuf["Frame"](
        version=2, round_id=round_id, kind=ONESHOT_KINDS.index(type(body)) + 21, body=encode(body)
    )
    ours = bytes(ONESHOT_FRAMES.encode(round_id, body))
    assert theirs.SerializeToString(deterministic=True) == ours
    assert protobuf["Frame"].FromString(ours) == theirs


def test_frames_by_hand() -> None:
    proposal = bytes(ONESHOT_FRAMES.encode(ROUND, SumProposal(b"u" * 32)))
    assert proposal == b"\x08\x02\x12\x10" + ROUND + b"\x18\x1f\x22\x22\x0a\x20" + b"u" * 32
    request = bytes(ONESHOT_FRAMES.encode(ROUND, PackedRequest(b"u" * 32)))
    assert request == b"\x08\x02\x12\x10" + ROUND + b"\x18\x24\x22\x22\x0a\x20" + b"u" * 32


def test_a_message_without_fields_is_a_frame_without_a_body() -> None:
    assert bytes(ONESHOT_FRAMES.encode(ROUND, ReviewRequest())) == frame_bytes(kind=29)
    assert opened(frame_bytes(kind=29)) == (ROUND, ReviewRequest())
    for body in (b"\0", field(1, 1), field(1, b"x")):
        with pytest.raises(RemoteProtocolError) as caught:
            opened(frame_bytes(kind=29, body=body))
        assert caught.value.reason is RefusalReason.MALFORMED


def test_the_large_vector_of_a_frame_is_not_copied() -> None:
    packed = bytearray(1 << 20)
    upload = Upload(b"i" * 32, b"c" * 32, memoryview(packed), b"k" * 32, b"l", b"t", b"s", bytes(64))
    views = [memoryview(part) for part in ONESHOT_FRAMES.encode(ROUND, upload).chunks(2 << 20)]
    assert sum(view.obj is packed for view in views) == 1


def is_canonical_or_refused(data: bytes) -> None:
    reason, again = None, b""
    try:
        again = bytes(ONESHOT_FRAMES.encode(*opened(data)))
    except RemoteProtocolError as error:
        reason = error.reason
    if reason is None:
        assert again == data
    else:
        assert reason in {RefusalReason.MALFORMED, RefusalReason.UNSUPPORTED_VERSION}


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_canonical_frame_or_refused(data: bytes) -> None:
    is_canonical_or_refused(data)


@given(kind=st.integers(0, 40), body=st.binary(max_size=200))
def test_any_body_is_canonical_or_refused(kind: int, body: bytes) -> None:
    is_canonical_or_refused(frame_bytes(kind=kind, body=body))


@settings(max_examples=300)
@given(body=oneshot_bodies, data=st.data())
def test_changed_frames_are_canonical_or_refused(body: OneShotMessage, data: st.DataObject) -> None:
    whole = bytearray(bytes(ONESHOT_FRAMES.encode(ROUND, body)))
    at = data.draw(st.integers(0, len(whole) - 1))
    match data.draw(st.sampled_from(["change", "cut", "insert", "append"])):
        case "change":
            whole[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del whole[at:]
        case "insert":
            whole[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        case _:
            whole += data.draw(st.binary(min_size=1, max_size=8))
    is_canonical_or_refused(bytes(whole))


# --- one version's frames and the other's ----------------------------------------------------------


@given(body=bodies)
def test_a_frame_of_version_1_is_refused_by_name(body: Any) -> None:
    with pytest.raises(RemoteProtocolError, match=r"Frame\.version: 1, this is version 2") as caught:
        ONESHOT_FRAMES.open(bytes(encode_frame(ROUND, body)))
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


@given(body=oneshot_bodies)
def test_a_frame_of_version_2_is_refused_by_name_where_version_1_is_spoken(body: OneShotMessage) -> None:
    with pytest.raises(RemoteProtocolError, match=r"Frame\.version: 2, this is version 1") as caught:
        decode_frame(bytes(ONESHOT_FRAMES.encode(ROUND, body)))
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


@pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
def test_any_other_version_is_refused_by_name(version: int) -> None:
    data = frame_bytes(version=version) if version else field(2, ROUND) + field(3, 31)
    with pytest.raises(RemoteProtocolError, match=rf"Frame\.version: {version}, this is version 2") as caught:
        ONESHOT_FRAMES.open(data)
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


@pytest.mark.parametrize("kind", [0, 1, 10, 11, 20, 38, 2**32 - 1])
def test_kinds_of_version_1_and_unknown_ones_are_refused(kind: int) -> None:
    data = frame_bytes(kind=kind) if kind else field(1, 2) + field(2, ROUND)
    with pytest.raises(RemoteProtocolError, match=rf"Frame\.kind: must be in 21\.\.37, is {kind}") as caught:
        ONESHOT_FRAMES.open(data)
    assert caught.value.reason is RefusalReason.MALFORMED


@pytest.mark.parametrize("kind", range(21, 38))
def test_kinds_of_version_2_are_refused_where_version_1_is_spoken(kind: int) -> None:
    with pytest.raises(RemoteProtocolError, match=rf"Frame\.kind: must be in 1\.\.10, is {kind}") as caught:
        decode_frame(frame_bytes(version=1, kind=kind))
    assert caught.value.reason is RefusalReason.MALFORMED


@pytest.mark.parametrize("kind", [kind for kind in range(21, 38) if kind != 27])
def test_an_upload_is_no_body_of_another_kind(kind: int) -> None:
    upload = Upload(b"i" * 32, b"c" * 32, b"p", b"k" * 32, b"l", b"t", b"s", bytes(64))
    assert opened(frame_bytes(kind=27, body=encode(upload)))[1] == upload
    with pytest.raises(RemoteProtocolError) as caught:
        opened(frame_bytes(kind=kind, body=encode(upload)))
    assert caught.value.reason is RefusalReason.MALFORMED


# --- parameters ------------------------------------------------------------------------------------


@given(parameters=committee_parameters())
def test_committee_parameters_come_back_from_the_wire(parameters: CommitteeParameters) -> None:
    wire = committee_to_wire(parameters)
    assert wire.version == ONESHOT_VERSION == 2
    again = committee_from_wire(decode(type(wire), encode(wire)))
    assert committee_to_wire(again) == wire
    assert again == parameters


@given(parameters=oneshot_parameters())
def test_round_parameters_come_back_from_the_wire(parameters: OneShotParameters) -> None:
    wire = oneshot_to_wire(parameters)
    assert wire.version == 2
    again = oneshot_from_wire(decode(type(wire), encode(wire)))
    assert oneshot_to_wire(again) == wire
    assert again == parameters


def test_committee_parameters_on_the_wire_by_hand() -> None:
    model = ThreatModel(corrupt=0.25, dropout=0.0, adversary="passive")
    parameters = dataclasses.replace(EPOCH, threat_model=model, post_quantum=False)
    threat = field(1, 250_000) + field(3, 1) + field(4, 40) + field(5, 20) + field(6, 40)
    without = b"".join(
        [field(1, 2), field(2, ROUND), field(3, threat), field(4, 4), field(5, 4), field(6, 256)]
    )
    assert encode(committee_to_wire(parameters)) == without
    with_kem = dataclasses.replace(parameters, post_quantum=True)
    assert encode(committee_to_wire(with_kem)) == without + field(7, 1)


def test_round_parameters_on_the_wire_by_hand() -> None:
    parts = [
        field(1, 2),
        field(2, ROUND),
        field(3, b"d" * 32),
        field(4, 10),
        field(5, 20),
        field(6, b"a" * 32),
        field(6, b"b" * 32),
        field(7, 100),
        field(8, 3),
        field(9, 3),  # minimum_survivors, for the constructor was given none
        field(10, 1),
    ]
    assert encode(oneshot_to_wire(PARAMETERS)) == b"".join(parts)
    without = dataclasses.replace(PARAMETERS, colluding=0)
    assert encode(oneshot_to_wire(without)) == b"".join(parts[:-1])


@pytest.mark.parametrize("version", [0, 1, 3, 77])
def test_another_version_of_parameters_is_refused_by_name(version: int) -> None:
    match = rf"CommitteeParameters\.version: {version}, this is version 2"
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        committee_from_wire(dataclasses.replace(committee_to_wire(EPOCH), version=version))
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION
    match = rf"OneShotParameters\.version: {version}, this is version 2"
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        oneshot_from_wire(dataclasses.replace(oneshot_to_wire(PARAMETERS), version=version))
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("minimum_candidates", 3, r"in 4\.\.2\^16"),
        ("minimum_candidates", 2**16 + 1, r"in 4\.\.2\^16"),
        ("minimum_committee", 0, r"in 3\.\.256"),
        ("minimum_committee", 257, r"in 3\.\.256"),
        ("committee_size", 2, r"in 3\.\.256"),
        ("committee_size", 257, r"in 3\.\.256"),
    ],
)
def test_committee_parameters_out_of_range_are_malformed(name: str, value: int, limits: str) -> None:
    change: dict[str, Any] = {name: value}
    match = rf"CommitteeParameters\.{name}: must be {limits}, is {value}"
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        committee_from_wire(dataclasses.replace(committee_to_wire(EPOCH), **change))
    assert caught.value.reason is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("corrupt_ppm", 10**6, r"CommitteeParameters\.corrupt: must be in \[0, 1\)"),
        ("dropout_ppm", 2**32 - 1, r"CommitteeParameters\.dropout: must be in \[0, 1\)"),
        ("adversary", 0, r"ThreatModel\.adversary: must be 1 or 2, is 0"),
        ("adversary", 3, r"ThreatModel\.adversary: must be 1 or 2, is 3"),
        ("security_bits", 257, r"CommitteeParameters\.security_bits: must be in 0\.\.256, is 257"),
    ],
)
def test_threat_models_out_of_range_are_malformed(name: str, value: int, complaint: str) -> None:
    wire = committee_to_wire(EPOCH)
    model = dataclasses.replace(wire.threat_model, **{name: value})
    with pytest.raises(RemoteProtocolError, match=complaint) as caught:
        committee_from_wire(dataclasses.replace(wire, threat_model=model))
    assert caught.value.reason is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("vector_length", 0, r"vector_length: must be in 1\.\.2\^27, is 0"),
        ("vector_length", 2**64 - 1, r"vector_length: must be in 1\.\.2\^27"),
        ("ring_bits", 0, r"ring_bits: must be in 1\.\.40, is 0"),
        ("ring_bits", 41, r"ring_bits: must be in 1\.\.40, is 41"),
        ("ring_bits", 38, r"ring_bits, maximum_uploads: must leave room for the noise in 44 bits"),
        ("contexts", (), r"contexts: must be 1 to 16 digests, is 0"),
        ("contexts", tuple(bytes([i]) * 32 for i in range(17)), r"contexts: must be 1 to 16 digests, is 17"),
        ("contexts", (b"b" * 32, b"a" * 32), r"contexts: must be ascending"),
        ("maximum_uploads", 1, r"maximum_uploads: must be in 2\.\.2\^20, is 1"),
        ("maximum_uploads", 2**20 + 1, r"maximum_uploads: must be in 2\.\.2\^20, is 1048577"),
        ("minimum_survivors", 1, r"minimum_survivors: must be at least 2, is 1"),
        ("minimum_survivors", 101, r"effective minimum: must be at most maximum_uploads = 100, is 101"),
        ("minimum_per_context", 0, r"minimum_per_context: must be at least 1, is 0"),
        (
            "minimum_per_context",
            101,
            r"effective minimum per context: must be at most maximum_uploads = 100, is 101",
        ),
        ("colluding", 99, r"effective minimum: must be at most maximum_uploads = 100, is 101"),
        ("colluding", 2**20 - 1, r"colluding: must be in 0\.\.2\^20 - 2, is 1048575"),
    ],
)
def test_round_parameters_out_of_range_are_malformed(name: str, value: Any, limits: str) -> None:
    change: dict[str, Any] = {name: value}
    with pytest.raises(RemoteProtocolError, match=rf"OneShotParameters\.{limits}") as caught:
        oneshot_from_wire(dataclasses.replace(oneshot_to_wire(PARAMETERS), **change))
    assert caught.value.reason is RefusalReason.MALFORMED
