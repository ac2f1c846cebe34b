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


def period_251(length: int, lane: int) -> UIntArray:
    """Bytes of period 251: no power of two divides it, so a wrong offset shows."""
    return np.frombuffer(bytes(i % 251 for i in range(length * lane)), f"<u{lane}").copy()
