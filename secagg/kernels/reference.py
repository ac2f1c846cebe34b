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


# --- GF(p), p = 2^61 - 1 or another prime: polynomials are lists of coefficients, lowest degree first,
# --- without leading zeros ---------------------------------------------------------------------------


def evaluate(coefficients: Sequence[int], point: int, p: int = P) -> int:
    """Value of a polynomial at a point."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % p
    return value


def lagrange(points: Sequence[int], at: int, p: int = P) -> list[int]:
    """Weights w with f(at) = sum of w[j] f(points[j])."""
    weights = []
    for j, x in enumerate(points):
        numerator = denominator = 1
        for i, other in enumerate(points):
            if i != j:
                numerator = numerator * (at - other) % p
                denominator = denominator * (x - other) % p
        weights.append(numerator * pow(denominator, -1, p) % p)
    return weights


def _trim(a: list[int]) -> list[int]:
    while a and a[-1] == 0:
        a.pop()
    return a


def _add(a: Sequence[int], b: Sequence[int], factor: int, p: int) -> list[int]:
    size = max(len(a), len(b))
    left, right = (list(a) + [0] * (size - len(a))), (list(b) + [0] * (size - len(b)))
    return _trim([(x + factor * y) % p for x, y in zip(left, right, strict=True)])


def _multiply(a: Sequence[int], b: Sequence[int], p: int) -> list[int]:
    if not a or not b:
        return []
    product = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            product[i + j] = (product[i + j] + x * y) % p
    return _trim(product)


def _divide(a: Sequence[int], b: Sequence[int], p: int) -> tuple[list[int], list[int]]:
    remainder, quotient = list(a), [0] * max(len(a) - len(b) + 1, 0)
    lead = pow(b[-1], -1, p)
    for shift in range(len(a) - len(b), -1, -1):
        factor = remainder[shift + len(b) - 1] * lead % p
        quotient[shift] = factor
        for i, y in enumerate(b):
            remainder[shift + i] = (remainder[shift + i] - factor * y) % p
    return _trim(quotient), _trim(remainder)


def interpolate(points: Sequence[int], values: Sequence[int], p: int = P) -> list[int]:
    """Return the polynomial of degree below len(points) through the points (Newton's form)."""
    polynomial: list[int] = []
    basis = [1]
    for x, y in zip(points, values, strict=True):
        step = (y - evaluate(polynomial, x, p)) * pow(evaluate(basis, x, p), -1, p) % p
        polynomial = _add(polynomial, basis, step, p)
        basis = _multiply(basis, [-x % p, 1], p)
    return polynomial


def decode(points: Sequence[int], values: Sequence[int], threshold: int, p: int = P) -> list[int] | None:
    """Return the polynomial of degree < threshold that all but (m - threshold) // 2 values lie on, or None.

    Gao's decoder for Reed-Solomon codes ("A new algorithm for decoding Reed-Solomon codes", 2003):
    run Euclid on prod (x - x_i) and the interpolation, stop half-way, divide.
    """
    m = len(points)
    if m < threshold:
        return None
    g0 = [1]
    for x in points:
        g0 = _multiply(g0, [-x % p, 1], p)
    g1 = interpolate(points, values, p)
    v0: list[int] = []
    v1: list[int] = [1]
    while 2 * (len(g1) - 1) >= m + threshold:
        quotient, remainder = _divide(g0, g1, p)
        g0, g1 = g1, remainder
        v0, v1 = v1, _add(v0, _multiply(quotient, v1, p), -1, p)
    polynomial, remainder = _divide(g1, v1, p)
    if remainder or len(polynomial) > threshold:
        return None
    errors = sum(evaluate(polynomial, x, p) != y for x, y in zip(points, values, strict=True))
    return polynomial if errors <= (m - threshold) // 2 else None


# --- lattice masks: polynomials over Z_q as lists of 2048 integers ----------------------------------

Q = 2**50 - 2**14 + 1
RING = 2048
PSI = 765727830662934  # 11^((q - 1) / 4096) mod q, of order 4096


def _reversed_bits(i: int) -> int:
    return int(f"{i:011b}"[::-1], 2)


def lattice_transform(coefficients: Sequence[int]) -> list[int]:
    """Values of a polynomial at psi^(2 brv(i) + 1), i < 2048, by halving (Cooley, Tukey)."""
    scaled = [c * pow(PSI, k, Q) % Q for k, c in enumerate(coefficients)]
    values = _fourier(scaled, PSI * PSI % Q)
    return [values[_reversed_bits(i)] for i in range(RING)]


def lattice_inverse(values: Sequence[int]) -> list[int]:
    """Coefficients of the polynomial that has these values."""
    natural = [values[_reversed_bits(i)] for i in range(RING)]
    scaled = _fourier(natural, pow(PSI, -2, Q))
    inverse = pow(RING, -1, Q)
    return [c * inverse * pow(PSI, -k, Q) % Q for k, c in enumerate(scaled)]


def _fourier(a: Sequence[int], root: int) -> list[int]:
    """Sum over k of a[k] root^(i k), for every i."""
    if len(a) == 1:
        return list(a)
    even, odd = _fourier(a[::2], root * root % Q), _fourier(a[1::2], root * root % Q)
    power, low, high = 1, [], []
    for x, y in zip(even, odd, strict=True):
        low.append((x + power * y) % Q)
        high.append((x - power * y) % Q)
        power = power * root % Q
    return low + high


def lattice_mask(
    values: Sequence[int],
    secret: Sequence[int],
    public_seed: bytes,
    noise_seed: bytes | None,
    *,
    ring_bits: int,
    upload_bits: int,
) -> list[int]:
    """Entries of an upload (PROTOCOL.md, part 2, section 4, step 2), as many as there are values."""
    blocks = -(-len(values) // RING)
    words = [word % 2**50 for word in prg(public_seed, 0, blocks * RING, 64)]
    noise = prg(noise_seed, 0, blocks * RING, 64) if noise_seed else []
    out = []
    for j in range(blocks):
        block = words[j * RING : (j + 1) * RING]
        c = lattice_inverse([a * s % Q for a, s in zip(block, secret, strict=True)])
        for i in range(j * RING, min((j + 1) * RING, len(values))):
            e = (noise[i] % 2**32).bit_count() - (noise[i] >> 32).bit_count() if noise else 0
            x = values[i]
            scaled = (x << 50 - ring_bits) - (x * 16383 >> ring_bits)
            z = (c[i % RING] + e + scaled) % Q
            out.append(z + (z >> 36) >> 50 - upload_bits)
    return out
