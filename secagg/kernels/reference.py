"""The kernels once more, in plain Python, slow and legible: the specification, the oracle of the tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from secagg.kernels.field import PRIME

P = PRIME


def prg(seed: bytes, first: int, length: int, ring_bits: int) -> list[int]:
    """Entries first .. first + length - 1 of PRG(seed), each below 2^ring_bits (PROTOCOL.md, 4.2)."""
    lane = 2 if ring_bits <= 16 else 4 if ring_bits <= 32 else 8
    cipher = Cipher(algorithms.AES128(seed[:16]), modes.CTR(seed[16:28] + bytes(4)))
    stream = cipher.encryptor().update(bytes((first + length) * lane))
    lanes = [
        int.from_bytes(stream[i * lane : (i + 1) * lane], "little") for i in range(first, first + length)
    ]
    return [value % 2**ring_bits for value in lanes]


def mask_apply(
    acc: Sequence[int], seeds: Sequence[bytes], signs: Sequence[int], ring_bits: int, first: int = 0
) -> list[int]:
    """Return acc + the signed sum of the masks, modulo 2^ring_bits."""
    total = list(acc)
    for seed, sign in zip(seeds, signs, strict=True):
        for i, mask in enumerate(prg(seed, first, len(total), ring_bits)):
            total[i] = (total[i] + sign * mask) % 2**ring_bits
    return total


def pack(values: Sequence[int], ring_bits: int) -> bytes:
    """Write the values one after the other into one little-endian bit string."""
    string = sum(value << (i * ring_bits) for i, value in enumerate(values))
    return string.to_bytes((len(values) * ring_bits + 7) // 8, "little")


def unpack(packed: bytes, length: int, ring_bits: int) -> list[int]:
    """Read `length` values of `ring_bits` bits from a little-endian bit string."""
    string = int.from_bytes(packed, "little")
    return [(string >> (i * ring_bits)) % 2**ring_bits for i in range(length)]


def quantize(  # the arguments of the kernel
    values: Sequence[float], words: Sequence[int], *, clip: float, scale: float, limit: int, ring_bits: int
) -> list[int]:
    """Clip, scale, clamp, round up when words[i] / 2^32 is below the fraction, reduce modulo 2^b."""
    out = []
    for value, word in zip(values, words, strict=True):
        y = min(max(value, -clip), clip) * scale
        y = min(max(y, -limit), limit)
        low = math.floor(y)
        out.append((low + (word / 2**32 < y - low)) % 2**ring_bits)
    return out


def dequantize(values: Sequence[int], *, step: float, ring_bits: int) -> list[float]:
    """Centre the residues in [-2^(b-1), 2^(b-1)) and scale them."""
    half = 2 ** (ring_bits - 1)
    return [float((value + half) % (2 * half) - half) * step for value in values]


# --- GF(p): polynomials are lists of coefficients, lowest degree first, without leading zeros ------


def evaluate(coefficients: Sequence[int], point: int) -> int:
    """Value of a polynomial at a point."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % P
    return value


def lagrange(points: Sequence[int], at: int) -> list[int]:
    """Weights w with f(at) = sum of w[j] f(points[j])."""
    weights = []
    for j, x in enumerate(points):
        numerator = denominator = 1
        for i, other in enumerate(points):
            if i != j:
                numerator = numerator * (at - other) % P
                denominator = denominator * (x - other) % P
        weights.append(numerator * pow(denominator, -1, P) % P)
    return weights


def _trim(a: list[int]) -> list[int]:
    while a and a[-1] == 0:
        a.pop()
    return a


def _add(a: Sequence[int], b: Sequence[int], factor: int = 1) -> list[int]:
    size = max(len(a), len(b))
    left, right = (list(a) + [0] * (size - len(a))), (list(b) + [0] * (size - len(b)))
    return _trim([(x + factor * y) % P for x, y in zip(left, right, strict=True)])


def _multiply(a: Sequence[int], b: Sequence[int]) -> list[int]:
    if not a or not b:
        return []
    product = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] = (product[i + j] + x * y) % P
    return _trim(product)


def _divide(a: Sequence[int], b: Sequence[int]) -> tuple[list[int], list[int]]:
    remainder, quotient = list(a), [0] * max(len(a) - len(b) + 1, 0)
    lead = pow(b[-1], -1, P)
    for shift in range(len(a) - len(b), -1, -1):
        factor = remainder[shift + len(b) - 1] * lead % P
        quotient[shift] = factor
        for i, y in enumerate(b):
            remainder[shift + i] = (remainder[shift + i] - factor * y) % P
    return _trim(quotient), _trim(remainder)


def interpolate(points: Sequence[int], values: Sequence[int]) -> list[int]:
    """Return the polynomial of degree below len(points) through the points (Newton's form)."""
    polynomial: list[int] = []
    basis = [1]
    for x, y in zip(points, values, strict=True):
        step = (y - evaluate(polynomial, x)) * pow(evaluate(basis, x), -1, P) % P
        polynomial = _add(polynomial, basis, step)
        basis = _multiply(basis, [-x % P, 1])
    return polynomial


def decode(points: Sequence[int], values: Sequence[int], threshold: int) -> list[int] | None:
    """Return the polynomial of degree < threshold that all but (m - threshold) // 2 values lie on, or None.

    Gao's decoder for Reed-Solomon codes ("A new algorithm for decoding Reed-Solomon codes", 2003):
    run Euclid on prod (x - x_i) and the interpolation, stop half-way, divide.
    """
    m = len(points)
    if m < threshold:
        return None
    g0 = [1]
    for x in points:
        g0 = _multiply(g0, [-x % P, 1])
    g1 = interpolate(points, values)
    v0: list[int] = []
    v1: list[int] = [1]
    while 2 * (len(g1) - 1) >= m + threshold:
        quotient, remainder = _divide(g0, g1)
        g0, g1 = g1, remainder
        v0, v1 = v1, _add(v0, _multiply(quotient, v1), -1)
    polynomial, remainder = _divide(g1, v1)
    if remainder or len(polynomial) > threshold:
        return None
    errors = sum(evaluate(polynomial, x) != y for x, y in zip(points, values, strict=True))
    return polynomial if errors <= (m - threshold) // 2 else None
