"""The Protocol Buffers wire format, strictly: one encoding per message, every other one refused.

Canonical form (PROTOCOL.md, 4.3): fields in ascending order, minimal varints, default values left out,
every list strictly ascending by its first field. Fields of a message are declared with `uint`,
`octets`, `message`, `messages` and `octets_list`; the dataclass is the schema.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import pairwise, product
from typing import Any, TypeVar, cast

from secagg.effects import RefusalReason
from secagg.errors import RemoteProtocolError
from secagg.params import Buffer

M = TypeVar("M")
_VARINT, _BYTES = 0, 2
_ONE_BYTE = tuple(bytes([value]) for value in range(0x80))
UINT32_LIMIT, UINT64_LIMIT = 2**32, 2**64


class Kind(Enum):
    """What a field holds."""

    UINT = "uint"
    OCTETS = "octets"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; `number` and `name` as in secagg.proto."""

    number: int
    name: str
    kind: Kind
    repeated: bool = False
    limit: int = 0  # UINT: the value is below
    sizes: tuple[int, ...] | None = None  # OCTETS: allowed sizes; None: any, and left where it is
    message: type | None = None
    tag: int = dataclasses.field(init=False)
    head: bytes = dataclasses.field(init=False)  # the tag, encoded
    heads: dict[int, bytes] = dataclasses.field(init=False)  # tag and length, by allowed size

    def __post_init__(self) -> None:
        tag = self.number << 3 | (_VARINT if self.kind is Kind.UINT else _BYTES)
        object.__setattr__(self, "tag", tag)
        object.__setattr__(self, "head", varint(tag))
        heads = {size: varint(tag) + varint(size) for size in self.sizes or ()}
        object.__setattr__(self, "heads", heads)


def _declare(**options: object) -> Any:
    return dataclasses.field(metadata={"wire": options})


def uint(number: int, limit: int = UINT32_LIMIT) -> int:
    """Declare an unsigned integer below `limit`."""
    return cast("int", _declare(number=number, kind=Kind.UINT, limit=limit))


def octets(number: int, *sizes: int) -> bytes:
    """Declare a byte string of one of these sizes; size 0 may be left out."""
    return cast("bytes", _declare(number=number, kind=Kind.OCTETS, sizes=sizes))


def large_octets(number: int) -> Buffer:
    """Declare a byte string of any size, decoded as a view of the input."""
    return cast("Buffer", _declare(number=number, kind=Kind.OCTETS, sizes=None))


def octets_list(number: int, size: int) -> tuple[bytes, ...]:
    """Declare a strictly ascending list of byte strings of one size."""
    return cast("tuple[bytes, ...]", _declare(number=number, kind=Kind.OCTETS, sizes=(size,), repeated=True))


def message(number: int, kind: type[M]) -> M:
    """Declare an embedded message that must be there."""
    return cast("M", _declare(number=number, kind=Kind.MESSAGE, message=kind))


def messages(number: int, kind: type[M]) -> tuple[M, ...]:
    """Declare a list of embedded messages, strictly ascending by their first field."""
    return cast("tuple[M, ...]", _declare(number=number, kind=Kind.MESSAGE, message=kind, repeated=True))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Stands for a message that many others embed and that is encoded once."""

    data: bytes


@cache
def schema(kind: Any) -> tuple[Field, ...]:
    """Return the fields of a message class, ascending by number."""
    return tuple(Field(name=field.name, **field.metadata["wire"]) for field in dataclasses.fields(kind))


@cache
def _by_tag(kind: Any) -> dict[int, tuple[int, Field]]:
    return {field.tag: (place, field) for place, field in enumerate(schema(kind))}


def malformed(detail: str) -> RemoteProtocolError:
    """Make the error for bytes that are not the canonical encoding of a message."""
    return RemoteProtocolError(RefusalReason.MALFORMED, detail)


@dataclass(frozen=True, slots=True)
class _Layout:
    """A message of so many bytes whose fields have fixed sizes: what stands between the values is known."""

    heads: tuple[tuple[slice, bytes], ...]
    values: tuple[slice, ...]


@cache
def _layouts(kind: Any) -> dict[int, _Layout]:
    """Layouts by size, of messages with nothing but byte strings of fixed sizes; lists are full of them."""
    fields = schema(kind)
    if any(field.kind is not Kind.OCTETS or field.repeated or field.sizes is None for field in fields):
        return {}
    out = {}
    for sizes in product(*(field.sizes or () for field in fields)):
        at, heads, values = 0, [], []
        for field, size in zip(fields, sizes, strict=True):
            head = field.heads[size] if size else b""
            heads.append((slice(at, at + len(head)), head))
            values.append(slice(at + len(head), at + len(head) + size))
            at += len(head) + size
        out[at] = _Layout(tuple(heads), tuple(values))
    return out


# --- encoding ------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """Minimal varint of an unsigned integer."""
    if value < 0x80:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_parts(value: object) -> list[Buffer]:
    """Canonical encoding of a message, as buffers; a large field stays the buffer that it is."""
    parts: list[Buffer] = []
    small = bytearray()
    for field in schema(cast("Any", type(value))):
        content = getattr(value, field.name)
        for item in content if field.repeated else (content,):
            if field.kind is Kind.UINT:
                if item:
                    small += field.head + varint(item)
                continue
            if isinstance(item, Encoded):
                body = item.data
            else:
                body = encode(item) if field.kind is Kind.MESSAGE else item
            if not len(body) and field.kind is Kind.OCTETS and not field.repeated:
                continue
            small += field.heads.get(len(body)) or field.head + varint(len(body))
            if field.sizes is None and field.kind is Kind.OCTETS:
                parts += (bytes(small), body)
                small.clear()
            else:
                small += body
    if small:
        parts.append(bytes(small))
    return parts


def encode(value: object) -> bytes:
    """Canonical encoding of a message."""
    return b"".join(encode_parts(value))


# --- decoding ------------------------------------------------------------------------------------


def decode(kind: type[M], data: Buffer) -> M:
    """Decode a message. Raises RemoteProtocolError(MALFORMED) for anything but its canonical encoding."""
    fields = cast("Any", kind)
    layout = _layouts(fields).get(len(data))
    if layout is not None:
        raw = bytes(data)
        if all(raw[place] == head for place, head in layout.heads):
            return kind(*[raw[place] for place in layout.values])
    return _decode_fields(kind, data)


def _decode_fields(kind: type[M], data: Buffer) -> M:
    """Decode field by field; says what is wrong with those that are not canonical."""
    name = kind.__name__
    values: dict[str, Any] = {}
    last = -1
    fields = cast("Any", kind)
    table = _by_tag(fields)
    for tag, content in _fields(name, memoryview(data)):
        if tag not in table:
            raise malformed(f"{name}: unknown field tag {tag}")
        place, field = table[tag]
        if place < last or (place == last and not field.repeated):
            raise malformed(f"{name}.{field.name}: out of order or repeated")
        last = place
        item = _value(name, field, content)
        if field.repeated:
            values.setdefault(field.name, []).append(item)
        else:
            values[field.name] = item
    for field in schema(fields):
        if field.repeated:
            values[field.name] = _ascending(name, field, values.get(field.name, []))
        elif field.name not in values:
            values[field.name] = _default(name, field)
    return kind(**values)


def _fields(name: str, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _varint(name, data, at)
        if tag & 7 == _VARINT:
            number, at = _varint(name, data, at)
            yield tag, number
        elif tag & 7 == _BYTES:
            size, at = _varint(name, data, at)
            if size > len(data) - at:
                raise malformed(f"{name}: a field of {size} bytes, {len(data) - at} are left")
            yield tag, data[at : at + size]
            at += size
        else:
            raise malformed(f"{name}: wire type {tag & 7} is not used")


def _varint(name: str, data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise malformed(f"{name}: ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (byte == 0 and shift) or value >= UINT64_LIMIT:
                break
            return value, at
    raise malformed(f"{name}: a number is not minimal or above 64 bits")


def _value(name: str, field: Field, content: int | memoryview) -> object:
    if isinstance(content, int):
        if not 0 < content < field.limit:
            raise malformed(f"{name}.{field.name}: must be in 1..{field.limit - 1}, is {content}")
        return content
    if field.message is not None:
        return decode(field.message, content)
    if not len(content) and not field.repeated:
        raise malformed(f"{name}.{field.name}: a default value is left out")
    if field.sizes is None:
        return content
    if len(content) not in field.sizes:
        raise malformed(f"{name}.{field.name}: must have {field.sizes} bytes, has {len(content)}")
    return bytes(content)


def _ascending(name: str, field: Field, items: list[Any]) -> tuple[Any, ...]:
    key = schema(field.message)[0].name if field.message is not None else None
    keys = items if key is None else [getattr(item, key) for item in items]
    if any(b <= a for a, b in pairwise(keys)):
        raise malformed(f"{name}.{field.name}: not strictly ascending")
    return tuple(items)


def _default(name: str, field: Field) -> object:
    if field.kind is Kind.UINT:
        return 0
    if field.kind is Kind.OCTETS and (field.sizes is None or 0 in field.sizes):
        return b""
    raise malformed(f"{name}.{field.name}: missing")
