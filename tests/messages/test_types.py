"""Every message: its own round trip, and the same bytes as the protobuf runtime."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg
from secagg.messages import KINDS, RevealedShare, SurvivorSet, UnmaskingResponse, decode, encode
from secagg.messages.fields import schema
from secagg.messages.oneshot import ONESHOT_KINDS, Opening
from tests.messages.strategies import BODIES, MESSAGES, ONESHOT_BODIES, name_of


def to_protobuf(value: Any, classes: dict[str, Any]) -> Any:
    """Build the same message in the protobuf runtime, field by field."""
    message = classes[name_of(type(value))]()
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if dataclasses.is_dataclass(content):
            target = getattr(message, field.name)
            target.SetInParent()
            target.CopyFrom(to_protobuf(content, classes))
        elif isinstance(content, tuple):
            items = [item if isinstance(item, bytes) else to_protobuf(item, classes) for item in content]
            getattr(message, field.name).extend(items)
        else:
            setattr(message, field.name, content)
    return message


every_message = pytest.mark.parametrize("kind", MESSAGES, ids=name_of)


@every_message
@settings(max_examples=50)
@given(data=st.data())
def test_what_was_encoded_decodes_to_the_same(kind: type, data: st.DataObject) -> None:
    value = data.draw(MESSAGES[kind])
    assert decode(kind, encode(value)) == value


@every_message
@settings(max_examples=50)
@given(data=st.data())
def test_the_protobuf_runtime_writes_and_reads_the_same_bytes(
    protobuf: dict[str, Any], kind: type, data: st.DataObject
) -> None:
    value = data.draw(MESSAGES[kind])
    ours, theirs = encode(value), to_protobuf(value, protobuf)
    assert theirs.SerializeToString(deterministic=True) == ours
    assert protobuf[name_of(kind)].FromString(ours) == theirs


@every_message
def test_fields_are_those_of_the_published_file(protobuf: dict[str, Any], kind: type) -> None:
    published = [(field.number, field.name) for field in protobuf[name_of(kind)].DESCRIPTOR.fields]
    assert [(field.number, field.name) for field in schema(kind)] == published


def test_no_message_of_the_published_file_is_left_out(protobuf: dict[str, Any]) -> None:
    assert set(protobuf) == {*map(name_of, MESSAGES), "Frame"}


def test_kinds_are_numbered_as_published() -> None:
    text = Path(secagg.__file__).with_name("secagg.proto").read_text()
    comment = text[text.index("bytes round_id", text.index("message Frame")) : text.index("uint32 kind")]
    published = re.findall(r"(\d+) ([A-Z]\w+)", comment)
    numbered = [*enumerate(KINDS, 1), *enumerate(ONESHOT_KINDS, 21)]
    assert published == [(str(number), name_of(kind)) for number, kind in numbered]
    assert list(BODIES) == list(KINDS)
    assert list(ONESHOT_BODIES) == list(ONESHOT_KINDS)


def test_the_published_file_names_the_kinds_of_version_2() -> None:
    text = Path(secagg.__file__).with_name("secagg.proto").read_text()
    first, last = 21, 20 + len(ONESHOT_KINDS)
    assert f"uint32 version = 1;  // 1, or 2 for kinds {first} to {last}\n" in text
    assert text.count("uint32 version = 1;  // 2\n") == 2


def test_revealed_shares_show_in_no_repr() -> None:
    share = RevealedShare(b"d" * 32, b"S" * 40)
    assert "S" * 5 not in repr(share)
    assert "S" * 5 not in repr(UnmaskingResponse((share,), (share,)))


def test_openings_show_in_no_repr() -> None:
    assert "S" * 5 not in repr(Opening(3, b"S" * 40, bytes(64)))


def test_messages_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SurvivorSet(b"").survivors = b"x"  # type: ignore[misc]
