"""Changes of an input that keep most of its structure: fields, lists, lengths, tags; encoded again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any, cast

from secagg.errors import SecAggError
from secagg.messages import KINDS, Advertisement, Roster, SharedKeys, decode, encode
from secagg.messages.fields import Field, Kind, schema
from secagg.messages.frames import _FrameMessage
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    ONESHOT_KINDS,
    CommitteeAnnouncement,
    CommitteeKey,
    Opening,
    Review,
    SumSignature,
)
from secagg.primitives.agreement import SMALL_ORDER
from secagg.protocol.client import snapshot as client_snapshot
from secagg.protocol.oneshot import server_snapshot as oneshot_snapshot
from secagg.protocol.oneshot import snapshot as decryptor_snapshot
from secagg.protocol.server import snapshot as server_snapshot
from secagg.transcript.entries import Entry
from tests.fuzz.target import MENDED, STRANGER, Target
from tests.fuzz.targets import CLASSES, identities
from tests.messages.raw import field as raw_field
from tests.messages.raw import fields_of, number

_NUMBERS = (0, 1, 2, 3, 4, 5, 8, 64, 127, 128, 255, 256, 2**14, 2**16, 2**31, 2**32 - 1, 2**32, 2**63)
_TEXT = (
    *(b'""', b"''", b"[]", b"[[", b"{}", b"null", b"true", b"-1", b"0", b"1e999", b"nan", b"-0.0", b"9" * 40),
    *(b"\n", b"\r", b",", b'"', b"[[party]]\n", b"name = ", b"identity = ", b"reason", b"detail"),
    *(b"\xff", b"\x00", b"\xef\xbb\xbf"),
)
_TYPES: dict[str, type] = {
    "frame": _FrameMessage,
    "client snapshot": client_snapshot._Snapshot,
    "server snapshot": server_snapshot._Snapshot,
    "decryptor snapshot": decryptor_snapshot._Decryptor,
    "one-shot server snapshot": oneshot_snapshot._Server,
    "transcript entry": Entry,
    **{kind.__name__: kind for kind in CLASSES},
}
_KINDS = {
    **dict(enumerate(KINDS, 1)),
    **dict(enumerate(ONESHOT_KINDS, ONESHOT_FRAMES.first)),
}
# Byte strings that are messages themselves.
_INNER: dict[tuple[type, str], type] = {
    (client_snapshot._Snapshot, "own"): Advertisement,
    (client_snapshot._Snapshot, "roster"): Roster,
    (client_snapshot._Snapshot, "last"): _FrameMessage,
    (server_snapshot._Snapshot, "roster"): Roster,
    (server_snapshot._Shared, "body"): SharedKeys,
    (decryptor_snapshot._Decryptor, "own"): CommitteeKey,
    (decryptor_snapshot._Decryptor, "announcement"): CommitteeAnnouncement,
    (oneshot_snapshot._Member, "review"): Review,
    (oneshot_snapshot._Member, "signature"): SumSignature,
    (oneshot_snapshot._Member, "opening"): Opening,
    (Entry, "content"): _FrameMessage,
}


def mutated(target: Target, data: bytes, random: Random, seeds: list[bytes]) -> bytes:
    """Return the input with a change or a few.

    seeds  other inputs of the target, to take parts of
    """
    out = data
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        out = _changed_once(target, out, random, seeds)
    return out


def _changed_once(target: Target, data: bytes, random: Random, seeds: list[bytes]) -> bytes:
    head, rest = data[: target.head], data[target.head :]
    if len(head) < target.head:
        return random.choice(seeds)
    if head and not random.randrange(6):
        return _other_head(head, random, seeds) + rest
    kind = _TYPES.get(target.shape(head))
    choice = random.randrange(10)
    if kind is not None and choice < 6:
        try:
            return head + encode(_changed(decode(kind, rest), random))
        except (SecAggError, ValueError):  # not a message, or one that is none after the change
            pass
    if kind is not None and choice < 9:
        return head + _retagged(rest, random)
    if kind is None and choice < 4:
        return head + _worded(rest, random)
    if choice < 8:
        return head + _bytes_changed(rest, random)
    return head + _spliced(rest, random.choice(seeds)[target.head :], random)


def _other_head(head: bytes, random: Random, seeds: list[bytes]) -> bytes:
    match random.randrange(4):
        case 0 if len(head) == 2:
            return bytes([head[0], head[1] ^ MENDED])
        case 1 if len(head) == 2:
            return bytes([head[0], head[1] & MENDED | random.choice((0, 1, 2, 3, 4, 5, STRANGER))])
        case 2:
            return random.choice(seeds)[: len(head)]
        case _:
            return bytes([random.randrange(128), *head[1:]])


# --- messages as values ----------------------------------------------------------------------------


def _changed(value: Any, random: Random) -> Any:
    """Return a message with another value in one of its fields, or in one of an embedded message."""
    kind = type(value)
    one = random.choice(schema(cast("Any", kind)))
    content = getattr(value, one.name)
    if one.repeated:
        new: Any = _changed_list(one, list(content), random)
    elif one.kind is Kind.MESSAGE:
        new = _changed(content, random)
    elif one.kind is Kind.UINT:
        new = _changed_number(content, random)
    elif (inner := _inner(value, one)) is not None and len(content) and random.randrange(8):
        new = encode(_changed(decode(inner, content), random))
    else:
        new = _changed_octets(one, bytes(content), random)
    return replace(value, **{one.name: new})


def _inner(value: Any, one: Field) -> type | None:
    """Class of the message that the byte string of a field is."""
    if isinstance(value, _FrameMessage) and one.name == "body":
        return _KINDS.get(value.kind)
    return _INNER.get((type(value), one.name))


def _changed_number(value: int, random: Random) -> int:
    match random.randrange(3):
        case 0:
            return value + 1
        case 1:
            return max(value - random.choice((1, 1, 2, value)), 0)
        case _:
            return random.choice(_NUMBERS)


def _changed_octets(one: Field, content: bytes, random: Random) -> bytes:
    if one.sizes is None:
        return random.choice((_bytes_changed, _bytes_changed, _shortened, _lengthened))(content, random)
    size = random.choice(one.sizes)
    match random.randrange(6):
        case 0:
            return random.randbytes(size)
        case 1:
            return bytes(size) if random.randrange(2) else b"\xff" * size
        case 2 if size == 32:
            return random.choice(_strings())
        case 3 if not random.randrange(4):
            return random.choice((_shortened, _lengthened))(content, random)
        case _:
            return _flipped(content or bytes(size), random)


@cache
def _strings() -> tuple[bytes, ...]:
    """Of 32 bytes, with a meaning."""
    return (*identities(), *(u.to_bytes(32, "little") for u in sorted(SMALL_ORDER)))


def _changed_list(one: Field, items: list[Any], random: Random) -> tuple[Any, ...]:
    """Remove, double, change or move items; then put them in order, mostly."""
    at = random.randrange(len(items) + 1)
    match random.randrange(7):
        case 0 if items:
            del items[at % len(items)]
        case 1 if items:
            items.insert(at, items[at % len(items)])
        case 2:
            items = items[:at]
        case 3 if items:
            items.insert(at, _changed_item(one, items[at % len(items)], random))
        case 4 if items:
            random.shuffle(items)
        case _ if items:
            items[at % len(items)] = _changed_item(one, items[at % len(items)], random)
        case _:
            pass
    if random.randrange(8):
        key = _key(one)
        items = sorted({key(item): item for item in items}.values(), key=key)
    return tuple(items)


def _key(one: Field) -> Callable[[Any], Any]:
    if one.message is None:
        return lambda item: item
    first = schema(one.message)[0].name
    return lambda item: getattr(item, first)


def _changed_item(one: Field, item: Any, random: Random) -> Any:
    return _changed(item, random) if one.message is not None else _changed_octets(one, item, random)


# --- the wire format below the messages ------------------------------------------------------------


def _retagged(data: bytes, random: Random) -> bytes:
    """Return fields in another order, repeated, missing, with other tags, lengths or forms of numbers."""
    try:
        fields = fields_of(data)
    except IndexError:
        return _bytes_changed(data, random)
    if not fields:
        return raw_field(random.randrange(20), random.choice((b"", 0, 1)))
    at = random.randrange(len(fields))
    tag, content = fields[at]
    if isinstance(content, bytes) and len(content) > 2 and random.randrange(3):
        return _with(fields, at, raw_field(tag, _retagged(content, random)))
    match random.randrange(8):
        case 0:
            return _with(fields, at, b"")
        case 1:
            return _with(fields, at, raw_field(tag, content) * 2)
        case 2:
            return _with(fields, at, raw_field(tag, content, random.randrange(1, 10)))
        case 3:
            return _with(fields, at, raw_field(random.randrange(20), content))
        case 4:
            return _with(fields, at, number(tag << 3 | random.randrange(8)) + raw_field(tag, content)[1:])
        case 5:
            random.shuffle(fields)
            return b"".join(raw_field(*one) for one in fields)
        case 6 if isinstance(content, bytes):
            wrong = number(random.choice((len(content) + 1, len(content) // 2, random.choice(_NUMBERS))))
            return _with(fields, at, number(tag << 3 | 2) + wrong + content)
        case _:
            return _with(fields, at, raw_field(tag, random.choice((0, b"", *_NUMBERS))))


def _with(fields: list[tuple[int, int | bytes]], at: int, new: bytes) -> bytes:
    return b"".join(new if i == at else raw_field(*one) for i, one in enumerate(fields))


# --- bytes -----------------------------------------------------------------------------------------


def _bytes_changed(data: bytes, random: Random) -> bytes:
    return random.choice((_flipped, _flipped, _overwritten, _shortened, _lengthened))(data, random)


def _flipped(data: bytes, random: Random) -> bytes:
    if not data:
        return random.randbytes(1)
    out = bytearray(data)
    bit = random.randrange(8 * len(out))
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def _overwritten(data: bytes, random: Random) -> bytes:
    if not data:
        return b"\xff"
    out = bytearray(data)
    out[random.randrange(len(out))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(out)


def _shortened(data: bytes, random: Random) -> bytes:
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:first] if random.randrange(2) else data[:first] + data[last:]


def _lengthened(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randrange(1, 5)) + data[at:]


def _worded(data: bytes, random: Random) -> bytes:
    """Put a word in, in place of as many bytes or between them."""
    at, word = random.randrange(len(data) + 1), random.choice(_TEXT)
    return data[:at] + word + data[at + random.choice((0, len(word), random.randrange(20))) :]


def _spliced(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]
