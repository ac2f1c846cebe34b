"""Lists of messages of one size as one array of bytes: no object per item until somebody looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from secagg.messages.fields import Layout, layouts, schema, varint

M = TypeVar("M")
Octets = NDArray[np.uint8]


class Rows(Sequence[M], Generic[M]):
    """A sequence of messages of one class and one size.

    Only for classes of byte strings: `array` (count, size) holds the canonical encoding of each item.
    """

    __slots__ = ("_layout", "array", "kind")

    def __init__(self, kind: type[M], array: Octets) -> None:
        self.kind = kind
        self.array = array
        self._layout = layouts(cast("Any", kind))[array.shape[1]]

    @classmethod
    def build(cls, kind: type[M], count: int, **columns: Octets | bytes) -> Rows[M]:
        """Make `count` items of their fields: (count, size) arrays, or the bytes that all have in common."""
        values = [columns.get(field.name, b"") for field in schema(cast("Any", kind))]
        sizes = [len(value) if isinstance(value, bytes) else value.shape[1] for value in values]
        layout = _layout_of(kind, sizes)
        array = np.empty((count, layout.size), np.uint8)
        for place, head in layout.heads:
            array[:, place] = np.frombuffer(head, np.uint8)
        for place, value in zip(layout.values, values, strict=True):
            array[:, place] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        return cls(kind, array)

    @classmethod
    def parse(cls, kind: type[M], array: Octets) -> Rows[M] | None:
        """Take encoded items (count, size); None when one of them is not canonical."""
        layout = layouts(cast("Any", kind)).get(array.shape[1])
        if layout is None or layout.numbers:
            return None
        for place, head in layout.heads:
            if head and not (array[:, place] == np.frombuffer(head, np.uint8)).all():
                return None
        return cls(kind, array)

    def column(self, name: str) -> Octets:
        """Field `name` of all items, (count, size of the field), a view."""
        return self.array[:, self.place(name)]

    def place(self, name: str) -> slice:
        """Return which bytes of an item field `name` takes."""
        names = [field.name for field in schema(cast("Any", self.kind))]
        return self._layout.values[names.index(name)]

    def strings(self, name: str) -> list[bytes]:
        """Field `name` of all items as byte strings."""
        return split(self.column(name))

    def ascending(self) -> bool:
        """Return whether the items are strictly ascending by their first field."""
        keys = np.ascontiguousarray(self.array[:, self._layout.values[0]])
        if len(keys) < 2:
            return True
        strings = keys.view(f"S{keys.shape[1]}").ravel()  # of one size: the padding changes nothing
        return bool((strings[1:] > strings[:-1]).all())

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Rows[M]: ...
    def __getitem__(self, index: int | slice) -> M | Rows[M]:
        if isinstance(index, slice):
            return Rows(self.kind, self.array[index])
        raw = self.array[index].tobytes()
        return self.kind(*[raw[place] for place in self._layout.values])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Rows) and other.kind is self.kind:
            return np.array_equal(self.array, other.array)
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Rows({len(self)} x {self.kind.__name__})"


def encoded_rows(kind: type, count: int, **columns: Octets | bytes) -> Octets:
    """Encode messages of byte strings whose fields have one size each, whatever it is: (count, size).

    columns  as for `Rows.build`
    """
    parts: list[Octets | bytes] = []
    for field in schema(cast("Any", kind)):
        value = columns.get(field.name, b"")
        if size := len(value) if isinstance(value, bytes) else value.shape[1]:
            parts += (field.head + varint(size), value)
    sizes = [len(part) if isinstance(part, bytes) else part.shape[1] for part in parts]
    out, at = np.empty((count, sum(sizes)), np.uint8), 0
    for part, size in zip(parts, sizes, strict=True):
        out[:, at : at + size] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        at += size
    return out


def split(array: Octets) -> list[bytes]:
    """Rows of a (count, size) array as byte strings."""
    raw, size = array.tobytes(), array.shape[1]
    return [raw[at : at + size] for at in range(0, len(raw), size)] if size else [b""] * len(array)


def column(items: Sequence[Any], name: str, size: int) -> Octets:
    """Field `name`, of `size` bytes, of any sequence of messages, (count, size)."""
    if isinstance(items, Rows):
        return items.column(name)
    return joined([getattr(item, name) for item in items], size)


def joined(strings: Sequence[bytes], size: int) -> Octets:
    """Byte strings of one size as a (count, size) array."""
    return np.frombuffer(b"".join(strings), np.uint8).reshape(len(strings), size)


def _layout_of(kind: type, sizes: list[int]) -> Layout:
    for layout in layouts(cast("Any", kind)).values():
        if [place.stop - place.start for place in layout.values] == sizes:
            return layout
    raise ValueError(f"{kind.__name__}: has no fields of {sizes} bytes")
