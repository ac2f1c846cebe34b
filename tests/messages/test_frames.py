import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import Frame, RefusalReason
from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages import (
    KINDS,
    MaskedInput,
    Message,
    SurvivorSet,
    decode,
    decode_frame,
    encode,
    encode_frame,
    parameters_from_wire,
    parameters_to_wire,
)
from secagg.params import FRAME_VERSION, RoundParameters, ThreatModel
from tests.messages.raw import field
from tests.messages.strategies import bodies, octets

ROUND = bytes(range(16))
MIB = 1 << 20

threat_models = st.builds(
    ThreatModel,
    corrupt=st.integers(0, 999_999).map(lambda ppm: ppm / 10**6),
    dropout=st.integers(0, 999_999).map(lambda ppm: ppm / 10**6),
    adversary=st.sampled_from(["passive", "active"]),
    security_bits=st.integers(0, 256),
    correctness_bits=st.integers(0, 256),
    grinding_bits=st.integers(0, 256),
)
parameters_ = st.builds(
    RoundParameters,
    round_id=octets(16),
    vector_length=st.integers(1, 2**33),
    ring_bits=st.integers(1, 64),
    context=octets(32),
    threat_model=threat_models,
    minimum_cohort=st.integers(1, 2**32 - 1),
    minimum_survivors=st.integers(1, 2**32 - 1),
)
PARAMETERS = RoundParameters(round_id=ROUND, vector_length=10, ring_bits=20, context=bytes(32))


def frame_bytes(version: int = 1, kind: int = 7, body: bytes = b"", round_id: bytes = ROUND) -> bytes:
    return field(1, version) + field(2, round_id) + field(3, kind) + (field(4, body) if body else b"")


# --- frames ----------------------------------------------------------------------------------------


@given(round_id=octets(16), body=bodies)
def test_what_was_framed_comes_back(round_id: bytes, body: Message) -> None:
    frame = encode_frame(round_id, body)
    assert decode_frame(bytes(frame)) == (round_id, body)
    assert frame.size == len(bytes(frame))


@given(round_id=octets(16), body=bodies)
def test_a_frame_is_that_of_the_protobuf_runtime(
    protobuf: dict[str, Any], round_id: bytes, body: Message
) -> None:
    theirs = protobuf["Frame"](
        version=FRAME_VERSION, round_id=round_id, kind=KINDS.index(type(body)) + 1, body=encode(body)
    )
    ours = bytes(encode_frame(round_id, body))
    assert theirs.SerializeToString(deterministic=True) == ours
    assert protobuf["Frame"].FromString(ours) == theirs


def test_a_frame_by_hand() -> None:
    frame = encode_frame(ROUND, SurvivorSet(b"\x07"))
    assert bytes(frame) == b"\x08\x01\x12\x10" + ROUND + b"\x18\x07\x22\x03\x0a\x01\x07"


def test_an_empty_body_is_left_out() -> None:
    frame = encode_frame(ROUND, SurvivorSet(b""))
    assert bytes(frame) == frame_bytes(kind=7)
    assert decode_frame(bytes(frame)) == (ROUND, SurvivorSet(b""))


def is_canonical_or_refused(data: bytes) -> None:
    reason = None
    try:
        round_id, body = decode_frame(data)
        again = bytes(encode_frame(round_id, body))
    except RemoteProtocolError as error:
        reason, again = error.reason, b""
    if reason is None:
        assert again == data
    else:
        assert reason in {RefusalReason.MALFORMED, RefusalReason.UNSUPPORTED_VERSION}


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_canonical_frame_or_refused(data: bytes) -> None:
    is_canonical_or_refused(data)


@given(kind=st.integers(0, 12), body=st.binary(max_size=200))
def test_any_body_is_canonical_or_refused(kind: int, body: bytes) -> None:
    is_canonical_or_refused(frame_bytes(kind=kind, body=body))


@settings(max_examples=300)
@given(body=bodies, data=st.data())
def test_changed_frames_are_canonical_or_refused(body: Message, data: st.DataObject) -> None:
    whole = bytearray(bytes(encode_frame(ROUND, body)))
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


@pytest.mark.parametrize("version", [2, 3, 2**32 - 1])
def test_another_version_of_a_frame_is_refused_by_name(version: int) -> None:
    with pytest.raises(RemoteProtocolError, match=rf"Frame\.version: {version}, this is version 1") as caught:
        decode_frame(frame_bytes(version=version))
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


def test_a_frame_without_a_version_is_of_version_0() -> None:
    with pytest.raises(RemoteProtocolError, match=r"Frame\.version: 0, this is version 1") as caught:
        decode_frame(field(2, ROUND) + field(3, 7))
    assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


@pytest.mark.parametrize("kind", [11, 12, 2**32 - 1])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(RemoteProtocolError, match=rf"Frame\.kind: must be in 1\.\.10, is {kind}") as caught:
        decode_frame(frame_bytes(kind=kind))
    assert caught.value.reason is RefusalReason.MALFORMED


def test_a_frame_without_a_kind_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match=r"Frame\.kind: must be in 1\.\.10, is 0"):
        decode_frame(field(1, 1) + field(2, ROUND))


@pytest.mark.parametrize("size", [0, 15, 17])
def test_round_ids_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_frame(frame_bytes(round_id=bytes(size)))
    assert caught.value.reason is RefusalReason.MALFORMED


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x08", frame_bytes() + b"\x00", frame_bytes() * 2])
def test_broken_frames_are_malformed(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_frame(data)
    assert caught.value.reason is RefusalReason.MALFORMED


# --- large frames ----------------------------------------------------------------------------------


def test_the_vector_of_a_frame_is_not_copied() -> None:
    packed = bytearray(MIB)
    frame = encode_frame(ROUND, MaskedInput(memoryview(packed), (b"c" * 32,), b"s" * 64))
    before = b"".join(frame.chunks(1000))
    packed[12345] = 0xEE
    after = b"".join(frame.chunks(1000))
    assert [a != b for a, b in zip(before, after, strict=True)].count(True) == 1
    views = [memoryview(chunk) for chunk in frame.chunks(2 * MIB)]
    assert sum(view.obj is packed for view in views) == 1


def test_a_decoded_vector_is_a_view_of_the_frame() -> None:
    data = bytearray(bytes(encode_frame(ROUND, MaskedInput(b"\x11" * 10_000, (), bytes(64)))))
    _, body = decode_frame(memoryview(data))
    assert isinstance(body, MaskedInput)
    data[5000] = 0x22
    assert bytes(body.packed).count(0x22) == 1


@given(sizes=st.lists(st.integers(0, 50), max_size=6), limit=st.integers(1, 60))
def test_chunks_are_the_frame_and_keep_to_the_limit(sizes: list[int], limit: int) -> None:
    parts = [bytes([i]) * size for i, size in enumerate(sizes)]
    frame = Frame(*parts)
    for _ in range(2):  # repeatable
        chunks = list(frame.chunks(limit))
        assert b"".join(chunks) == b"".join(parts) == bytes(frame)
        assert all(1 <= len(chunk) <= limit for chunk in chunks)
    assert frame.size == sum(sizes)


def test_two_iterations_over_chunks_do_not_disturb_each_other() -> None:
    frame = Frame(b"abc", b"defg")
    first, second = frame.chunks(2), frame.chunks(3)
    assert [bytes(next(first)), bytes(next(second)), bytes(next(first))] == [b"ab", b"abc", b"c"]
    assert [bytes(chunk) for chunk in first] == [b"de", b"fg"]
    assert [bytes(chunk) for chunk in second] == [b"def", b"g"]


@pytest.mark.parametrize("limit", [0, -1])
def test_chunks_have_at_least_one_byte(limit: int) -> None:
    with pytest.raises(ParameterError, match=f"limit: must be at least 1, is {limit}"):
        list(Frame(b"abc").chunks(limit))


def test_one_buffer_is_copied_only_when_there_are_several() -> None:
    memory = bytearray(b"abc")
    single = Frame(memoryview(memory)).buffer()
    assert isinstance(single, memoryview)
    assert single.obj is memory
    assert Frame(b"ab", b"c").buffer() == b"abc"


def test_frames_of_the_same_bytes_are_equal() -> None:
    assert Frame(b"ab", b"c") == Frame(b"a", b"bc")
    assert hash(Frame(b"ab", b"c")) == hash(Frame(b"abc"))
    assert Frame(b"abc") != Frame(b"abd")
    assert Frame(b"abc") != b"abc"
    assert len({Frame(b"abc"), Frame(b"a", b"bc")}) == 1


def test_a_repr_shows_the_size_only() -> None:
    assert repr(Frame(b"key material")) == "Frame(size=12)"


# --- parameters ------------------------------------------------------------------------------------


@given(parameters=parameters_)
def test_parameters_come_back_from_the_wire(parameters: RoundParameters) -> None:
    wire = parameters_to_wire(parameters)
    assert wire.version == FRAME_VERSION
    again = parameters_from_wire(decode(type(wire), encode(wire)))
    assert parameters_to_wire(again) == wire
    assert again == parameters


def test_every_rate_in_ppm_survives() -> None:
    for ppm in range(0, 10**6, 7):
        assert ThreatModel(corrupt=ppm / 10**6).corrupt_ppm == ppm


def test_parameters_on_the_wire_by_hand() -> None:
    model = ThreatModel(corrupt=0.25, dropout=0.0, adversary="passive")
    wire = parameters_to_wire(dataclasses.replace(PARAMETERS, threat_model=model))
    threat = field(1, 250_000) + field(3, 1) + field(4, 40) + field(5, 20) + field(6, 40)
    assert encode(wire) == b"".join(
        [
            field(1, 1),
            field(2, ROUND),
            field(3, 10),
            field(4, 20),
            field(5, threat),
            field(6, 4),
            field(7, 3),
            field(8, bytes(32)),
        ]
    )


def test_another_version_of_parameters_is_refused_by_name() -> None:
    for version in (0, 2, 77):
        wire = dataclasses.replace(parameters_to_wire(PARAMETERS), version=version)
        match = rf"RoundParameters\.version: {version}, known here are 1, 3"
        with pytest.raises(RemoteProtocolError, match=match) as caught:
            parameters_from_wire(wire)
        assert caught.value.reason is RefusalReason.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    ("field_name", "value", "limits"),
    [
        ("vector_length", 0, r"in 1\.\.17179869184"),
        ("vector_length", 2**34 + 1, r"in 1\.\.17179869184"),
        ("vector_length", 2**64 - 1, r"in 1\.\.17179869184"),
        ("ring_bits", 0, r"in 1\.\.64"),
        ("ring_bits", 65, r"in 1\.\.64"),
        ("minimum_cohort", 0, r"in 1\.\.2\^32 - 1"),
        ("minimum_survivors", 0, r"in 1\.\.2\^32 - 1"),
    ],
)
def test_parameters_out_of_range_are_refused(field_name: str, value: int, limits: str) -> None:
    change: dict[str, Any] = {field_name: value}
    wire = dataclasses.replace(parameters_to_wire(PARAMETERS), **change)
    match = rf"RoundParameters\.{field_name}: must be {limits}, is {value}"
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        parameters_from_wire(wire)
    assert caught.value.reason is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    ("field_name", "value", "complaint"),
    [
        ("corrupt_ppm", 10**6, r"RoundParameters\.corrupt: must be in \[0, 1\)"),
        ("dropout_ppm", 2**32 - 1, r"RoundParameters\.dropout: must be in \[0, 1\)"),
        ("adversary", 0, r"ThreatModel\.adversary: must be 1 or 2, is 0"),
        ("adversary", 3, r"ThreatModel\.adversary: must be 1 or 2, is 3"),
        ("security_bits", 257, r"RoundParameters\.security_bits: must be in 0\.\.256, is 257"),
        ("correctness_bits", 257, r"RoundParameters\.correctness_bits: must be in 0\.\.256, is 257"),
        ("grinding_bits", 2**32 - 1, r"RoundParameters\.grinding_bits: must be in 0\.\.256"),
    ],
)
def test_threat_models_out_of_range_are_refused(field_name: str, value: int, complaint: str) -> None:
    wire = parameters_to_wire(PARAMETERS)
    model = dataclasses.replace(wire.threat_model, **{field_name: value})
    with pytest.raises(RemoteProtocolError, match=complaint) as caught:
        parameters_from_wire(dataclasses.replace(wire, threat_model=model))
    assert caught.value.reason is RefusalReason.MALFORMED
