"""Shamir's secret sharing of 32-byte secrets over GF(2^61 - 1) (PROTOCOL.md, 4.1; Shamir, CACM 1979)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import (
    PRIME,
    field_decode,
    field_evaluate,
    mask_apply,
)
from secagg.params import Secret
from secagg.primitives.labels import digest

LIMBS = 5
LIMB_BITS = 52
SHARE_BYTES = 8 * LIMBS
_LIMB_LIMITS = np.array([2**52] * 4 + [2**48], np.uint64)
_PLUS = np.ones(1, np.int8)

Words = NDArray[np.uint64]


def to_limbs(secret: Secret) -> list[int]:
    """Split a 32-byte little-endian integer into five limbs of 52 bits, lowest first."""
    value = int.from_bytes(secret, "little")
    return [value >> LIMB_BITS * i & 2**LIMB_BITS - 1 for i in range(LIMBS)]


def from_limbs(limbs: Words) -> bytes | None:
    """Join five limbs to the secret of 32 bytes; None when a limb is out of range."""
    if not (limbs < _LIMB_LIMITS).all():
        return None
    return sum(int(limb) << LIMB_BITS * i for i, limb in enumerate(limbs)).to_bytes(32, "little")


def share_pairs(
    mask_secret: Secret,
    self_seed: Secret,
    *,
    share_seed: Secret,
    roster_digest: bytes,
    threshold: int,
    holders: int,
) -> list[bytes]:
    """Share a mask private key and a self-mask seed among `holders` (points 1, 2, ...).

    returns  per holder 80 bytes: the mask-key share, then the self-seed share
    """
    limbs = to_limbs(mask_secret) + to_limbs(self_seed)
    words = _coefficients(digest("share-seed", roster_digest, share_seed), len(limbs) * (threshold - 1))
    polynomials = np.empty((threshold, len(limbs)), np.uint64)
    polynomials[0] = limbs
    polynomials[1:] = words.reshape(len(limbs), threshold - 1).T
    shares = field_evaluate(polynomials, np.arange(1, holders + 1, dtype=np.uint64))
    polynomials[:] = 0
    return [row.tobytes() for row in shares.astype("<u8", copy=False)]


def _coefficients(seed: bytes, count: int) -> Words:
    """Successive 64-bit words of PRG(seed), top three bits cleared, words equal to p skipped."""
    drawn = count
    while True:
        words = np.zeros(drawn, np.uint64)
        mask_apply(words, seed, _PLUS)
        words &= np.uint64(PRIME)
        words = words[words != PRIME]
        if words.size >= count:
            return np.ascontiguousarray(words[:count])
        drawn += count - words.size


def share_words(shares: list[bytes]) -> Words:
    """Shares of 40 bytes each as words, (m, 5). Words may be out of the field: `in_field` tells."""
    return np.frombuffer(b"".join(shares), "<u8").reshape(-1, LIMBS).astype(np.uint64)


def in_field(words: Words) -> NDArray[np.bool_]:
    """Mark the rows that hold field elements only, shape (m,)."""
    return np.asarray((words < PRIME).all(axis=1))


@dataclass(frozen=True, slots=True)
class Correction:
    """Decoded shares: the limbs of the secret, (5,), and which shares were wrong, (m,)."""

    secret: Words = field(repr=False)
    wrong: NDArray[np.bool_]


def correct_shares(points: Words, shares: Words, threshold: int) -> Correction | None:
    """Correct up to (m - threshold) // 2 wrong ones among m shares; None when there are too many.

    points (m,), distinct; shares (m, 5), revealed ones: the time depends on them
    """
    secret = np.empty(shares.shape[1], np.uint64)
    wrong = np.zeros(points.size, bool)
    for i in range(shares.shape[1]):
        limbs = np.ascontiguousarray(shares[:, i])
        polynomial = field_decode(points, limbs, threshold)
        if polynomial is None:
            return None
        secret[i] = polynomial[0]
        wrong |= field_evaluate(polynomial[:, None], points)[:, 0] != limbs
    return Correction(secret, wrong)
