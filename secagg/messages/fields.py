"""Declarations of a message's fields, and the bytes between their values on the wire.

Fields are declared with `uint`, `octets`, `message`, `messages` and `octets_list`; the dataclass is the
schema.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import product
from typing import Any, TypeVar, cast

from secagg.effects import RefusalReason
from secagg.errors import RemoteProtocolError
from secagg.params import Buffer

M = TypeVar("M")
VARINT, BYTES = 0, 2
_ONE_BYTE = tuple(bytes([value]) for value in range(0x80))
UINT32_LIMIT, UINT64_LIMIT = 2**32, 2**64
_VARINT_SIZES = (0, 1, 2, 3)  # of the numbers in layouts


class Kind(Enum):
    """The kind of value in a field."""

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
        tag = self.number << 3 | (VARINT if self.kind is Kind.UINT else BYTES)
        object.__setattr__(self, "tag", tag)
        object.__setattr__(self, "head", varint(tag))
        heads = {size: varint(tag) + varint(size) for size in self.sizes or ()}
        object.__setattr__(self, "heads", heads)


def _declare(default: object = dataclasses.MISSING, **options: object) -> Any:
    return dataclasses.field(default=default, metadata={"wire": options})


def uint(number: int, limit: int = UINT32_LIMIT) -> int:
    """Declare an unsigned integer below `limit`."""
    return cast("int", _declare(number=number, kind=Kind.UINT, limit=limit))


def octets(number: int, *sizes: int) -> bytes:
    """Declare a byte string of one of these sizes; size 0 may be left out."""
    return cast("bytes", _declare(number=number, kind=Kind.OCTETS, sizes=sizes))


def optional_octets(number: int, size: int) -> bytes:
    """Declare a byte string of this size, or none."""
    return cast("bytes", _declare(b"", number=number, kind=Kind.OCTETS, sizes=(0, size)))


def large_octets(number: int) -> Buffer:
    """Declare a byte string of any size, decoded as a view of the input."""
    return cast("Buffer", _declare(number=number, kind=Kind.OCTETS, sizes=None))


def octets_list(number: int, size: int) -> tuple[bytes, ...]:
    """Declare a strictly ascending list of byte strings of one size."""
    return cast("tuple[bytes, ...]", _declare(number=number, kind=Kind.OCTETS, sizes=(size,), repeated=True))


def optional_octets_list(number: int, size: int) -> tuple[bytes, ...]:
    """Declare the same; without it there are none."""
    one = _declare((), number=number, kind=Kind.OCTETS, sizes=(size,), repeated=True)
    return cast("tuple[bytes, ...]", one)


def message(number: int, kind: type[M]) -> M:
    """Declare an embedded message that must be there."""
    return cast("M", _declare(number=number, kind=Kind.MESSAGE, message=kind))


def messages(number: int, kind: type[M]) -> Sequence[M]:
    """Declare a list of embedded messages, strictly ascending by their first field."""
    return cast("Sequence[M]", _declare(number=number, kind=Kind.MESSAGE, message=kind, repeated=True))


def optional_messages(number: int, kind: type[M]) -> Sequence[M]:
    """Declare the same; without it there are none."""
    one = _declare((), number=number, kind=Kind.MESSAGE, message=kind, repeated=True)
    return cast("Sequence[M]", one)


@cache
def schema(kind: Any) -> tuple[Field, ...]:
    """Return the fields of a message class, ascending by number."""
    return tuple(Field(name=field.name, **field.metadata["wire"]) for field in dataclasses.fields(kind))


@cache
def by_tag(kind: Any) -> dict[int, tuple[int, Field]]:
    return {field.tag: (place, field) for place, field in enumerate(schema(kind))}


def malformed(detail: str) -> RemoteProtocolError:
    """Make the error for bytes that are not the canonical encoding of a message."""
    return RemoteProtocolError(RefusalReason.MALFORMED, detail)


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


@dataclass(frozen=True, slots=True)
class Layout:
    """A message of so many bytes whose fields have fixed sizes: what stands between the values is known."""

    size: int
    heads: tuple[tuple[slice, bytes], ...]
    values: tuple[slice, ...]
    numbers: frozenset[int]  # places of values that are varints


@cache
def layouts(kind: Any) -> dict[int, Layout]:
    """Layouts by size, of messages of byte strings of fixed sizes and small numbers; lists are full of them.

    Where a size stands for several layouts none is given.
    """
    fields = schema(kind)
    if any(field.repeated or field.kind is Kind.MESSAGE for field in fields):
        return {}
    if any(field.kind is Kind.OCTETS and field.sizes is None for field in fields):
        return {}
    if sum(field.kind is Kind.UINT for field in fields) > 1:  # too many layouts, and none that is alone
        return {}
    out: dict[int, list[Layout]] = {}
    for sizes in product(*(field.sizes or _VARINT_SIZES for field in fields)):
        at, heads, values = 0, [], []
        for field, size in zip(fields, sizes, strict=True):
            head = b"" if not size else field.head if field.kind is Kind.UINT else field.heads[size]
            heads.append((slice(at, at + len(head)), head))
            values.append(slice(at + len(head), at + len(head) + size))
            at += len(head) + size
        numbers = frozenset(place for place, field in enumerate(fields) if field.kind is Kind.UINT)
        out.setdefault(at, []).append(Layout(at, tuple(heads), tuple(values), numbers))
    return {size: found[0] for size, found in out.items() if len(found) == 1}
