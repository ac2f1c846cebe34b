"""Sets of clients as bitmaps over the roster: entry i is bit i % 8, lowest first, of byte i // 8."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np


def to_bitmap(members: Collection[int], size: int) -> bytes:
    """Bitmap of the roster indices `members`, all below `size`; ceil(size / 8) bytes."""
    bits = np.zeros(size, np.uint8)
    bits[list(members)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def from_bitmap(bitmap: bytes, size: int) -> frozenset[int]:
    """Roster indices in the bitmap. ValueError when its size is wrong or a spare bit is set."""
    if len(bitmap) != (size + 7) // 8:
        raise ValueError(f"bitmap over {size} clients has {len(bitmap)} bytes")
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    if bits[size:].any():
        raise ValueError("bitmap has spare bits set")
    return frozenset(np.flatnonzero(bits[:size]).tolist())
