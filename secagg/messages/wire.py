"""The Protocol Buffers wire format, strictly: one encoding per message, every other one refused.

Canonical form (PROTOCOL.md, 4.3): fields in ascending order, minimal varints, default values left out,
every list strictly ascending by its first field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np

from secagg.messages.fields import (
    BYTES,
    UINT64_LIMIT,
    VARINT,
    Field,
    Kind,
    by_tag,
    layouts,
    malformed,
    schema,
    varint,
)
from secagg.messages.rows import Octets, Rows
from secagg.params import Buffer

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Stands for a message, or a whole list of them, that many others embed and that is encoded once."""

    data: bytes


# --- encoding ------------------------------------------------------------------------------------


def encode_parts(value: object) -> list[Buffer]:
    """Canonical encoding of a message, as buffers; a large field stays the buffer that it is."""
    parts: list[Buffer] = []
    small = bytearray()
    for field in schema(cast("Any", type(value))):
        content = getattr(value, field.name)
        if field.repeated and isinstance(content, Encoded | Rows):
            whole = content.data if isinstance(content, Encoded) else _list(field, content.array)
            parts += (bytes(small), whole)
            small.clear()
            continue
        for item in content if field.repeated else (content,):
            if field.kind is Kind.UINT:
                if item:
                    small += field.head + varint(item)
                continue
            shared = isinstance(item, Encoded)
            body = item.data if shared else encode(item) if field.kind is Kind.MESSAGE else item
            if not len(body) and field.kind is Kind.OCTETS and not field.repeated:
                continue
            small += field.heads.get(len(body)) or field.head + varint(len(body))
            if shared or (field.sizes is None and field.kind is Kind.OCTETS):  # many frames refer to it
                parts += (bytes(small), body)
                small.clear()
            else:
                small += body
    if small:
        parts.append(bytes(small))
    return parts


def encode_list(kind: type, name: str, items: Sequence[object] | Octets) -> Encoded:
    """Encode the list `name` of a message of class `kind`, to stand in many messages.

    items  messages, or their encodings (count, size)
    """
    field = next(field for field in schema(cast("Any", kind)) if field.name == name)
    if isinstance(items, Rows | np.ndarray):
        return Encoded(_list(field, items.array if isinstance(items, Rows) else items))
    bodies = [encode(item) for item in items]
    return Encoded(b"".join(field.head + varint(len(body)) + body for body in bodies))


def _list(field: Field, rows: Octets) -> bytes:
    head = field.head + varint(rows.shape[1])
    out = np.empty((len(rows), len(head) + rows.shape[1]), np.uint8)
    out[:, : len(head)] = np.frombuffer(head, np.uint8)
    out[:, len(head) :] = rows
    return out.tobytes()


def encode(value: object) -> bytes:
    """Canonical encoding of a message."""
    return b"".join(encode_parts(value))


# --- decoding ------------------------------------------------------------------------------------


def decode(kind: type[M], data: Buffer) -> M:
    """Decode a message. Raises RemoteProtocolError(MALFORMED) for anything but its canonical encoding."""
    fields = cast("Any", kind)
    layout = layouts(fields).get(len(data))
    if layout is not None:
        raw = bytes(data)
        if all(raw[place] == head for place, head in layout.heads):
            values: list[Any] = [raw[place] for place in layout.values]
            for i in layout.numbers:
                values[i] = _small(values[i], schema(fields)[i].limit)
            if None not in values:
                return kind(*values)
    return _decode_fields(kind, data)


def _small(raw: bytes, limit: int) -> int | None:
    """Return a varint of a layout; None unless it is minimal, fills its bytes and is below the limit."""
    value = 0
    for i, byte in enumerate(raw):
        if (byte < 0x80) != (i == len(raw) - 1) or (byte == 0):
            return None
        value |= (byte & 0x7F) << 7 * i
    return value if value < limit else None


def _decode_fields(kind: type[M], data: Buffer) -> M:
    """Decode field by field; says what is wrong with those that are not canonical."""
    name = kind.__name__
    values: dict[str, Any] = {}
    last = -1
    fields = cast("Any", kind)
    table = by_tag(fields)
    view = memoryview(data)
    at = 0
    while at < len(view):
        start = at
        tag, content, at = _field(name, view, at)
        if tag not in table:
            raise malformed(f"{name}: unknown field tag {tag}")
        place, field = table[tag]
        if place < last or (place == last and not field.repeated):
            raise malformed(f"{name}.{field.name}: out of order or repeated")
        if not field.repeated:
            values[field.name] = _value(name, field, content)
        elif place != last and (found := _rows(field, view, start, at, content)) is not None:
            values[field.name], at = found
        else:
            items = values.setdefault(field.name, [])
            if isinstance(items, Rows):  # after rows of one size comes an item of another
                items = values[field.name] = list(items)
            items.append(_value(name, field, content))
        last = place
    for field in schema(fields):
        if field.repeated:
            values[field.name] = _ascending(name, field, values.get(field.name, ()))
        elif field.name not in values:
            values[field.name] = _default(name, field)
    return kind(**values)


def _rows(
    field: Field, data: memoryview, start: int, end: int, first: int | memoryview
) -> tuple[Rows[Any], int] | None:
    """Take the items of the size of the first, at data[start:end], all at once, if their form allows it.

    returns  the items, and where they end
    """
    if field.message is None or isinstance(first, int) or len(first) not in layouts(field.message):
        return None
    stride, size = end - start, len(first)
    array = np.frombuffer(data[start:], np.uint8, (len(data) - start) // stride * stride).reshape(-1, stride)
    alike = (array[:, : stride - size] == array[0, : stride - size]).all(axis=1)
    count = len(alike) if alike.all() else int(alike.argmin())
    rows: Rows[Any] | None = Rows.parse(
        field.message, array[:count, stride - size :].copy()
    )  # the input is the caller's
    return None if rows is None else (rows, start + count * stride)


def _field(name: str, data: memoryview, at: int) -> tuple[int, int | memoryview, int]:
    """Read a tag and what follows it; returns also where it ends."""
    tag = data[at]
    if tag < 0x80:
        at += 1
    else:
        tag, at = _varint(name, data, at)
    if tag & 7 == VARINT:
        number, at = _varint(name, data, at)
        return tag, number, at
    if tag & 7 != BYTES:
        raise malformed(f"{name}: wire type {tag & 7} is not used")
    size, at = _varint(name, data, at)
    if size > len(data) - at:
        raise malformed(f"{name}: a field of {size} bytes, {len(data) - at} are left")
    return tag, data[at : at + size], at + size


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


def _ascending(name: str, field: Field, items: Sequence[Any]) -> Sequence[Any]:
    if isinstance(items, Rows):
        if not items.ascending():
            raise malformed(f"{name}.{field.name}: not strictly ascending")
        return items
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
