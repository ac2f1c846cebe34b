"""One encoding per message: whatever else protobuf would read is refused, with the reason."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import RefusalReason
from secagg.errors import RemoteProtocolError
from secagg.messages import (
    Advertisement,
    MaskedInput,
    RevealedShare,
    Roster,
    RosterAnnouncement,
    RosterEntry,
    RoundParametersMessage,
    SealedContribution,
    SealedShare,
    SharedKeys,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    decode,
    encode,
)
from secagg.messages.fields import Field, Kind, schema
from secagg.messages.oneshot import (
    Acceptance,
    Candidate,
    Committee,
    CommitteeAnnouncement,
    CommitteeKey,
    CommitteeParametersMessage,
    Complaint,
    Dealing,
    Dealings,
    OneShotParametersMessage,
    Opening,
    OpenRequest,
    PartialSum,
    Review,
    SumSignature,
    Upload,
)
from secagg.messages.types import ThreatModelMessage
from secagg.messages.wire import Encoded, encode_parts
from tests.messages.raw import field, fields_of, joined, number
from tests.messages.strategies import MESSAGES, name_of

every_message = pytest.mark.parametrize("kind", MESSAGES, ids=name_of)
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def refused(kind: type, data: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        decode(kind, data)
    assert caught.value.reason is RefusalReason.MALFORMED


def declared(kind: type, tag_number: int) -> Field:
    return next(one for one in schema(kind) if one.number == tag_number)


# --- any bytes -------------------------------------------------------------------------------------


def is_canonical_or_refused(kind: type, data: bytes) -> None:
    refusal, again = None, b""
    try:
        again = encode(decode(kind, data))
    except RemoteProtocolError as error:
        refusal = error
    if refusal is None:
        assert again == data
    else:
        assert refusal.reason is RefusalReason.MALFORMED
        assert refusal.detail.startswith(tuple(made.__name__ for made in MESSAGES))


@every_message
@settings(max_examples=50)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_canonical_or_refused(kind: type, data: bytes) -> None:
    is_canonical_or_refused(kind, data)


@every_message
@settings(max_examples=60)
@given(data=st.data())
def test_changed_messages_are_canonical_or_refused(kind: type, data: st.DataObject) -> None:
    whole = bytearray(encode(data.draw(MESSAGES[kind])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole)))
        match data.draw(st.sampled_from(["change", "cut", "insert", "remove", "repeat"])):
            case "change" if at < len(whole):
                whole[at] = data.draw(st.integers(0, 255))
            case "cut":
                del whole[at:]
            case "remove":
                del whole[at : at + data.draw(st.integers(1, 40))]
            case "repeat":
                whole[at:at] = whole[at : at + data.draw(st.integers(1, 110))]
            case _:
                whole[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    is_canonical_or_refused(kind, bytes(whole))


@every_message
@settings(max_examples=25)
@given(data=st.data())
def test_shuffled_and_repeated_fields_are_refused(kind: type, data: st.DataObject) -> None:
    fields = fields_of(encode(data.draw(MESSAGES[kind])))
    assert joined(fields) == encode(decode(kind, joined(fields)))
    changed = data.draw(st.permutations(fields + fields[: data.draw(st.integers(0, 2))]))
    if list(changed) != fields:
        refused(kind, joined(list(changed)), "out of order or repeated|not strictly ascending")


@every_message
@settings(max_examples=25)
@given(data=st.data())
def test_messages_cut_short_are_canonical_or_refused_at_every_place(kind: type, data: st.DataObject) -> None:
    whole = encode(data.draw(MESSAGES[kind]))
    places = range(len(whole))
    for size in {*places[:1000], *places[-1000:]}:  # between them is one long field
        is_canonical_or_refused(kind, whole[:size])


# --- numbers ---------------------------------------------------------------------------------------


@every_message
@settings(max_examples=25)
@given(data=st.data(), padding=st.integers(1, 9))
def test_numbers_that_are_not_minimal_are_refused(kind: type, data: st.DataObject, padding: int) -> None:
    fields = fields_of(encode(data.draw(MESSAGES[kind])))
    if not fields:
        return
    place = data.draw(st.integers(0, len(fields) - 1))
    tag_number, content = fields[place]
    before, after = joined(fields[:place]), joined(fields[place + 1 :])
    refused(kind, before + field(tag_number, content, padding) + after, "a number is not minimal")
    tag = declared(kind, tag_number).tag
    long_tag = number(tag, padding) + field(tag_number, content)[1:]
    refused(kind, before + long_tag + after, "a number is not minimal")


@pytest.mark.parametrize("value", [2**64, 2**65, 2**69, 2**70 - 1, 2**77])
def test_numbers_above_64_bits_are_refused(value: int) -> None:
    wire = encode(round_parameters(vector_length=1))
    assert field(3, 1) in wire
    refused(
        RoundParametersMessage, wire.replace(field(3, 1), field(3, value)), "not minimal or above 64 bits"
    )


def round_parameters(vector_length: int) -> RoundParametersMessage:
    return RoundParametersMessage(
        1, bytes(16), vector_length, 20, ThreatModelMessage(1, 2, 1, 40, 20, 40), 4, 3, bytes(32)
    )


def test_the_largest_64_bit_number_is_carried() -> None:
    value = round_parameters(2**64 - 1)
    assert decode(RoundParametersMessage, encode(value)) == value


@pytest.mark.parametrize("value", [2**32, 2**32 + 5, 2**64 - 1])
def test_numbers_above_32_bits_are_refused_where_the_file_says_uint32(value: int) -> None:
    refused(
        SurvivorSignature,
        field(1, value) + field(2, bytes(64)),
        rf"SurvivorSignature\.index: must be in 1\.\.4294967295, is {value}",
    )


@pytest.mark.parametrize("data", [b"\x80", b"\x0a", b"\x0a\x80", b"\x08", b"\x08\xff\xff"])
def test_a_message_that_ends_within_a_number_is_refused(data: bytes) -> None:
    refused(SurvivorSignature, data, "SurvivorSignature: ends within a number")


def test_a_field_longer_than_what_is_left_is_refused() -> None:
    refused(SurvivorSet, b"\x0a\x05four", "SurvivorSet: a field of 5 bytes, 4 are left")
    refused(SurvivorSet, b"\x0a" + number(2**64 - 1), "a field of 18446744073709551615 bytes, 0 are left")


# --- fields ----------------------------------------------------------------------------------------


@every_message
@settings(max_examples=20)
@given(data=st.data(), content=st.integers(0, 2**64 - 1) | st.binary(max_size=20))
def test_unknown_fields_are_refused(kind: type, data: st.DataObject, content: int | bytes) -> None:
    whole = encode(data.draw(MESSAGES[kind]))
    tag_number = data.draw(st.sampled_from([11, 15, 16, 1000, 2**29 - 1]))
    refused(kind, whole + field(tag_number, content), f"{kind.__name__}: unknown field tag")
    refused(kind, field(tag_number, content) + whole, f"{kind.__name__}: unknown field tag")
    refused(kind, field(0, content) + whole, f"{kind.__name__}: unknown field tag")


@every_message
@settings(max_examples=20)
@given(data=st.data(), wire_type=st.sampled_from([1, 3, 4, 5, 6, 7]))
def test_groups_and_fixed_numbers_are_refused(kind: type, data: st.DataObject, wire_type: int) -> None:
    whole = encode(data.draw(MESSAGES[kind]))
    tag = number(data.draw(st.integers(0, 20)) << 3 | wire_type)
    for extra in (tag, tag + bytes(8), tag + b"\x0c"):
        refused(kind, whole + extra, f"{kind.__name__}: wire type {wire_type} is not used")
        refused(kind, extra + whole, f"{kind.__name__}: wire type {wire_type} is not used")


@every_message
@settings(max_examples=20)
@given(data=st.data())
def test_a_known_field_of_the_other_wire_type_is_refused(kind: type, data: st.DataObject) -> None:
    fields = schema(kind)
    if not fields:
        return
    one = data.draw(st.sampled_from(fields))
    wrong: int | bytes = b"\x01" if one.kind is Kind.UINT else 1
    refused(kind, field(one.number, wrong), f"{kind.__name__}: unknown field tag")


@every_message
@settings(max_examples=20)
@given(data=st.data())
def test_explicit_defaults_are_refused(kind: type, data: st.DataObject) -> None:
    whole = fields_of(encode(data.draw(MESSAGES[kind])))
    for one in schema(kind):
        if one.repeated or one.message is not None:
            continue
        default: int | bytes = 0 if one.kind is Kind.UINT else b""
        fields = [item for item in whole if item[0] != one.number]
        place = sum(item[0] < one.number for item in fields)
        fields.insert(place, (one.number, default))
        reason = r"must be in 1\.\.\d+, is 0" if default == 0 else "a default value is left out"
        refused(kind, joined(fields), rf"{kind.__name__}\.{one.name}: {reason}")


@every_message
@settings(max_examples=20)
@given(data=st.data())
def test_singular_fields_given_twice_are_refused(kind: type, data: st.DataObject) -> None:
    fields = fields_of(encode(data.draw(MESSAGES[kind])))
    for place, item in enumerate(fields):
        if not declared(kind, item[0]).repeated:
            name = declared(kind, item[0]).name
            refused(
                kind,
                joined([*fields[:place], item, *fields[place:]]),
                rf"{kind.__name__}\.{name}: out of order or repeated",
            )


@every_message
@settings(max_examples=20)
@given(data=st.data())
def test_byte_strings_of_another_size_are_refused(kind: type, data: st.DataObject) -> None:
    fields = fields_of(encode(data.draw(MESSAGES[kind])))
    for place, (tag_number, content) in enumerate(fields):
        one = declared(kind, tag_number)
        if one.kind is Kind.OCTETS and one.sizes is not None:
            assert isinstance(content, bytes)
            for wrong in (content[:-1], content + b"x", content[:1], content * 2):
                changed = [*fields[:place], (tag_number, wrong), *fields[place + 1 :]]
                reason = rf"{kind.__name__}\.{one.name}: must have \(.*\) bytes, has {len(wrong)}"
                refused(kind, joined(changed), reason)


@every_message
@settings(max_examples=20)
@given(data=st.data())
def test_missing_fields_are_refused_unless_they_may_be_empty(kind: type, data: st.DataObject) -> None:
    whole = fields_of(encode(data.draw(MESSAGES[kind])))
    for one in schema(kind):
        left = [item for item in whole if item[0] != one.number]
        if one.kind is Kind.OCTETS:
            needed = one.sizes is not None and 0 not in one.sizes
        else:
            needed = one.kind is Kind.MESSAGE
        if needed and not one.repeated:
            refused(kind, joined(left), rf"{kind.__name__}\.{one.name}: missing")
        else:
            assert encode(decode(kind, joined(left))) == joined(left)


SIZES = {
    "identity": 32,
    "agreement_key": 32,
    "mask_key": 32,
    "advertisement_digest": 32,
    "packed_digest": 32,
    "seed_commitment": 32,
    "context": 32,
    "peer": 32,
    "dealer": 32,
    "complaints": 32,
    "unopened": 32,
    "key_digest": 32,
    "committee_digest": 32,
    "contexts": 32,
    "ephemeral_key": 32,
    "digest": 32,
    "upload": 32,
    "round_id": 16,
    "epoch_id": 16,
    "signature": 64,
    "ciphertext": 96,
    "share": 40,
}


@every_message
def test_sizes_are_those_of_the_specification(kind: type) -> None:
    for one in schema(kind):
        if one.kind is Kind.OCTETS and one.sizes is not None:
            if one.name == "acceptance":
                assert one.sizes == ((0, 64) if kind is SealedShare else (64,))
            elif one.name.endswith("kem_key"):
                assert one.sizes == (0, 1184)
            elif one.name == "kem":
                assert one.sizes == ((0, 1088) if kind is SealedShare else (1088,))
            elif kind is SealedContribution and one.name == "ciphertext":
                assert one.sizes == (48,)
            else:
                assert one.sizes == (SIZES[one.name],)


# --- lists -----------------------------------------------------------------------------------------


def dealing(identity: bytes) -> Dealing:
    return Dealing(identity, A, B, C, b"tests", A + B, b"sealed", b"path", b"")


LISTS = [
    (Roster, 3, [RosterEntry(key, bytes(32)) for key in (A, B, C)], b""),
    (SharedKeys, 1, [SealedShare(key, bytes(96), b"") for key in (A, B, C)], field(2, A) + field(3, A + B)),
    (MaskedInput, 2, [A, B, C], field(3, A + B)),
    (UnmaskingRequest, 3, [SurvivorSignature(index, bytes(64)) for index in (0, 7, 300)], b""),
    (UnmaskingResponse, 1, [RevealedShare(key, bytes(40)) for key in (A, B, C)], b""),
    (UnmaskingResponse, 2, [RevealedShare(key, bytes(40)) for key in (A, B, C)], b""),
    (Committee, 3, [Candidate(key, bytes(32)) for key in (A, B, C)], b""),
    (CommitteeAnnouncement, 2, [CommitteeKey(key, B, b"", B + B) for key in (A, B, C)], b""),
    (OneShotParametersMessage, 6, [A, B, C], b""),
    (Dealings, 1, [dealing(key) for key in (A, B, C)], b""),
    (Review, 3, [Complaint(key, 1) for key in (A, B, C)], b""),
    (OpenRequest, 1, [SumSignature(index, bytes(64)) for index in (0, 7, 300)], b""),
    (PartialSum, 2, [dealing(key) for key in (A, B, C)], b""),
]
BEFORE = {
    CommitteeAnnouncement: field(1, b""),
    OneShotParametersMessage: field(2, A[:16]) + field(3, A),
    Review: field(2, A),
}


@pytest.mark.parametrize(("kind", "tag_number", "items", "rest"), LISTS)
def test_lists_are_strictly_ascending_by_their_first_field(
    kind: type, tag_number: int, items: list[object], rest: bytes
) -> None:
    one, two, three = (item if isinstance(item, bytes) else encode(item) for item in items)
    before = BEFORE.get(kind, b"")

    def wire(*entries: bytes) -> bytes:
        return before + b"".join(field(tag_number, entry) for entry in entries) + rest

    for right in ((), (two,), (one, two), (one, three), (one, two, three)):
        assert encode(decode(kind, wire(*right))) == wire(*right)
    name = declared(kind, tag_number).name
    for wrong in ((two, one), (one, one), (one, two, two), (one, three, two), (two, one, three)):
        refused(kind, wire(*wrong), rf"{kind.__name__}\.{name}: not strictly ascending")


def test_entries_of_one_key_are_duplicates_whatever_else_they_say() -> None:
    one, other = (encode(RosterEntry(A, digest)) for digest in (B, C))
    refused(Roster, field(3, one) + field(3, other), r"Roster\.entries: not strictly ascending")


def test_survivor_signatures_are_ordered_as_numbers() -> None:
    # 255 and 256 as varints, or as bytes, would compare the other way round
    ordered = [SurvivorSignature(index, bytes(64)) for index in (2, 10, 255, 256, 2**31)]
    request = UnmaskingRequest(b"", (), tuple(ordered))
    assert decode(UnmaskingRequest, encode(request)) == request


def test_errors_inside_an_embedded_message_are_those_of_that_message() -> None:
    entry = field(1, A) + field(2, B) + field(3, b"more")
    refused(Roster, field(1, 2) + field(3, entry), "RosterEntry: unknown field tag 26")
    refused(RosterAnnouncement, field(1, field(3, entry)), "RosterEntry: unknown field tag 26")


# --- encoding --------------------------------------------------------------------------------------


def test_an_advertisement_by_hand() -> None:
    wire = b"\x0a\x20" + A + b"\x12\x20" + B + b"\x1a\x20" + C + b"\x22\x40" + A + B
    assert encode(Advertisement(A, B, C, A + B)) == wire
    assert decode(Advertisement, wire) == Advertisement(A, B, C, A + B)


def test_an_embedded_message_of_defaults_is_written_and_a_missing_one_is_not() -> None:
    announcement = RosterAnnouncement(Roster(0, 0, ()), ())
    assert encode(announcement) == b"\x0a\x00"
    assert decode(RosterAnnouncement, b"\x0a\x00") == announcement


def test_a_message_encoded_once_stands_in_for_itself() -> None:
    roster = Roster(4, 2, (RosterEntry(A, B), RosterEntry(B, C)))
    plain = RosterAnnouncement(roster, ())
    shared = dataclasses.replace(plain, roster=Encoded(encode(roster)))  # type: ignore[arg-type]
    assert encode(shared) == encode(plain)


def test_large_fields_are_neither_copied_when_encoded_nor_when_decoded() -> None:
    packed = bytearray(b"0123456789" * 100)
    parts = encode_parts(MaskedInput(memoryview(packed), (), bytes(64)))
    wire = bytearray(b"".join(parts))
    decoded = decode(MaskedInput, memoryview(wire))
    assert bytes(decoded.packed) == packed
    packed[0] = wire[wire.index(b"0123")] = ord("#")
    assert sum(bytes(part).startswith(b"#123") for part in parts) == 1
    assert isinstance(decoded.packed, memoryview)
    assert decoded.packed[0] == ord("#")


@pytest.mark.parametrize("copied", [bytes, bytearray, memoryview])
def test_any_buffer_is_decoded(copied: type) -> None:
    value = SurvivorSignature(5, A + B)
    assert decode(SurvivorSignature, copied(encode(value))) == value


def test_small_fields_are_copied_so_that_the_input_may_go() -> None:
    wire = bytearray(encode(SurvivorSignature(5, A + B)))
    value = decode(SurvivorSignature, memoryview(wire))
    wire[:] = bytes(len(wire))
    assert value.signature == A + B


def test_a_committee_key_by_hand() -> None:
    kem = bytes(range(256)) * 4 + bytes(160)
    without = b"\x0a\x20" + A + b"\x12\x20" + B + b"\x22\x40" + A + B
    assert encode(CommitteeKey(A, B, b"", A + B)) == without
    assert decode(CommitteeKey, without) == CommitteeKey(A, B, b"", A + B)
    wire = b"\x0a\x20" + A + b"\x12\x20" + B + b"\x1a\xa0\x09" + kem + b"\x22\x40" + A + B
    assert encode(CommitteeKey(A, B, kem, A + B)) == wire
    assert decode(CommitteeKey, wire) == CommitteeKey(A, B, kem, A + B)


def test_an_acceptance_of_the_first_member_has_no_index() -> None:
    assert encode(Acceptance(0, A + B)) == b"\x12\x40" + A + B
    assert decode(Acceptance, b"\x12\x40" + A + B) == Acceptance(0, A + B)


def test_a_truth_value_is_0_or_1() -> None:
    parameters = CommitteeParametersMessage(2, bytes(16), ThreatModelMessage(0, 0, 0, 0, 0, 0), 4, 4, 4, 1)
    wire = encode(parameters)
    assert wire.endswith(field(7, 1))
    for wrong in (2, 3, 2**32, 2**64 - 1):
        changed = wire.removesuffix(field(7, 1)) + field(7, wrong)
        reason = rf"CommitteeParametersMessage\.post_quantum: must be in 1\.\.1, is {wrong}"
        refused(CommitteeParametersMessage, changed, reason)


def test_a_complaint_has_a_reason_of_the_specification() -> None:
    for reason in range(1, 6):
        assert decode(Complaint, field(1, A) + field(2, reason)) == Complaint(A, reason)
    for wrong in (6, 7, 2**32):
        text = rf"Complaint\.reason: must be in 1\.\.5, is {wrong}"
        refused(Complaint, field(1, A) + field(2, wrong), text)


def test_the_large_fields_of_an_upload_are_views() -> None:
    upload = Upload(A, B, b"packed", C, b"leaves", b"tests", b"sealed", A + B)
    wire = bytearray(encode(upload))
    decoded = decode(Upload, memoryview(wire))
    for name in ("packed", "leaves", "tests", "sealed"):
        content = getattr(decoded, name)
        assert isinstance(content, memoryview)
        assert bytes(content) == name.encode()
    parts = encode_parts(Opening(1, memoryview(wire), A + B))
    assert sum(isinstance(part, memoryview) and part.obj is wire for part in parts) == 1


def test_details_quote_no_content() -> None:
    wire = field(1, A) + field(2, b"secret" * 7)
    with pytest.raises(RemoteProtocolError) as caught:
        decode(RevealedShare, wire)
    assert not re.search("secret|" + b"secret".hex(), str(caught.value))
