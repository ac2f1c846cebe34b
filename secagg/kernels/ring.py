"""Vectors over the ring of integers modulo 2^b: lanes, packing, masks of quantized values.

A vector lives in the smallest unsigned lane (16, 32 or 64 bits) that holds b bits (PROTOCOL.md, 4.2).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.kernels._library import check_apart, lib, read, vector, write

UIntArray: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint16, uint32 or uint64
Lane: TypeAlias = type[np.uint16] | type[np.uint32] | type[np.uint64]

LANES: tuple[Lane, ...] = (np.uint16, np.uint32, np.uint64)


def check_ring_bits(ring_bits: int) -> None:
    """Raise ValueError unless 1 <= ring_bits <= 64."""
    if not 1 <= ring_bits <= 64:
        raise ValueError(f"ring_bits: must be in 1..64, is {ring_bits}")


def lane_bytes(ring_bits: int) -> int:
    """Bytes of the lane that holds `ring_bits` bits: 2, 4 or 8."""
    check_ring_bits(ring_bits)
    return 2 if ring_bits <= 16 else 4 if ring_bits <= 32 else 8


def lane_dtype(ring_bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Dtype of the lane that holds `ring_bits` bits."""
    return np.dtype(f"u{lane_bytes(ring_bits)}")


def ring_mask(ring_bits: int) -> int:
    """2^ring_bits - 1, the largest element of the ring."""
    check_ring_bits(ring_bits)
    return (1 << ring_bits) - 1


def packed_bytes(length: int, ring_bits: int) -> int:
    """Size of a packed vector: ceil(length * ring_bits / 8)."""
    return (length * ring_bits + 7) // 8


def checked_lanes(name: str, array: object, ring_bits: int) -> UIntArray:
    """Return `array` if it is a vector of lanes that hold ring_bits. TypeError, ValueError."""
    check_ring_bits(ring_bits)
    lanes = vector(name, array, LANES)
    if 8 * lanes.itemsize < ring_bits:
        raise ValueError(f"{name}: {lanes.dtype} is narrower than ring_bits = {ring_bits}")
    return lanes


def pack(values: UIntArray, ring_bits: int, out: bytearray | memoryview | None = None) -> bytearray:
    """Pack the low `ring_bits` bits of each value into a little-endian bit string.

    values   (d,), uint16, uint32 or uint64, at least ring_bits wide
    out      None, or ceil(d * ring_bits / 8) writable bytes to fill
    returns  ceil(d * ring_bits / 8) bytes, spare bits zero (an empty one when `out` is given)
    raises   TypeError, ValueError
    """
    lanes = checked_lanes("values", values, ring_bits)
    size = packed_bytes(lanes.size, ring_bits)
    packed = bytearray(size if out is None else 0)
    target = memoryview(packed if out is None else out)
    if target.nbytes != size or not target.c_contiguous or target.readonly:
        raise ValueError(f"out: must have {size} contiguous writable bytes, has {target.nbytes}")
    check_apart("out", target, lanes)
    if lanes.size:
        lib.sa_pack(write(target, "uint8_t[]"), read(lanes, "char[]"), lanes.size, lanes.itemsize, ring_bits)
    return packed


def unpack_add(acc: UIntArray, packed: bytes | bytearray | memoryview, ring_bits: int) -> None:
    """Add a packed vector to `acc` in place, modulo the lane of `acc`.

    acc     (d,), uint16, uint32 or uint64, at least ring_bits wide; changed in place
    packed  exactly ceil(d * ring_bits / 8) bytes; spare bits are not looked at
    raises  TypeError, ValueError
    """
    lanes = checked_lanes("acc", acc, ring_bits)
    size = packed_bytes(lanes.size, ring_bits)
    view = memoryview(packed)
    if view.nbytes != size or not view.c_contiguous:
        raise ValueError(f"packed: must have {size} contiguous bytes, has {view.nbytes}")
    check_apart("packed", view, lanes)
    if lanes.size:
        lib.sa_unpack_add(
            write(lanes, "char[]"), read(packed, "uint8_t[]"), lanes.size, lanes.itemsize, ring_bits
        )


def spare_bits_clear(packed: bytes | bytearray | memoryview, length: int, ring_bits: int) -> bool:
    """Return whether the bits behind the last element are zero."""
    spare = -(length * ring_bits) % 8
    return spare == 0 or packed[len(packed) - 1] >> (8 - spare) == 0
