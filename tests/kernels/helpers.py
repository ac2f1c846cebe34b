"""Inputs that several kernel tests share."""

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import UIntArray

LANES = (2, 4, 8)
seeds = st.binary(min_size=32, max_size=32)


def aes_masks(seed: bytes, first: int, length: int, lane: int) -> UIntArray:
    """PRG(seed)[first : first + length], AES on counter blocks put together by hand."""
    start, stop = first * lane // 16, -(-(first + length) * lane // 16)
    blocks = b"".join(seed[16:28] + i.to_bytes(4, "big") for i in range(start, stop))
    stream = Cipher(algorithms.AES128(seed[:16]), modes.ECB()).encryptor().update(blocks)
    return np.frombuffer(stream[first * lane - 16 * start :], f"<u{lane}", count=length)


def misaligned(array: NDArray[Any]) -> NDArray[Any]:
    """Copy of the array that starts at an odd address."""
    memory = bytearray(array.nbytes + 2)
    at = 1 - np.frombuffer(memory, np.uint8).ctypes.data % 2
    view = np.frombuffer(memory, array.dtype, count=array.size, offset=at)
    view[:] = array
    return view


def guarded(size: int, skew: int = 0) -> tuple[bytearray, memoryview]:
    """Memory full of 0xa5, and `size` bytes in its middle, `skew` bytes off an even address."""
    memory = bytearray(b"\xa5" * (size + 160))
    at = 64 + np.frombuffer(memory, np.uint8).ctypes.data % 2 + skew
    return memory, memoryview(memory)[at : at + size]


def guards_stand(memory: bytearray, inside: memoryview) -> bool:
    """Whether all of guarded memory but its middle is as it was."""
    at = np.frombuffer(inside, np.uint8).ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    outside = memory[:at] + memory[at + inside.nbytes :]
    return outside == b"\xa5" * len(outside)


def lanes_for(ring_bits: int) -> list[int]:
    """Bytes of the lanes that hold `ring_bits` bits."""
    return [lane for lane in LANES if 8 * lane >= ring_bits]


def period_251(length: int, lane: int) -> UIntArray:
    """Bytes of period 251: no power of two divides it, so a wrong offset shows."""
    return np.frombuffer(bytes(i % 251 for i in range(length * lane)), f"<u{lane}").copy()


def butterflies(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Walsh-Hadamard transform without its factor: sums and differences at distances 1, 2, 4, ..."""
    out, distance = values.copy(), 1
    while distance < out.size:
        pairs = out.reshape(-1, 2, distance)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        distance *= 2
    return out
