"""Packed secret sharing over Z_q (Franklin, Yung, STOC 1992): rho secrets in one polynomial.

A row has T + rho base values, those of its polynomial at -1, -2, ..; member j has the one at j = 1, 2, ..
Dealing and rebuilding are products with public matrices (PROTOCOL.md, part 2, section 4, step 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import LATTICE_FIELD, RING, pack, packed_bytes, spare_bits_clear, unpack_add
from secagg.params import Buffer

WORD_BITS = 50
TESTS = 2  # blinding rows, and tests of the degree
Words = NDArray[np.uint64]


def rows_of(packing: int) -> int:
    """B = ceil(2048 / rho): rows that carry the secret."""
    return -(-RING // packing)


@lru_cache(maxsize=8)
def dealing_matrix(members: int, base: int) -> Words:
    """Weights (m, T + rho): a member's share of the base values of a row."""
    return LATTICE_FIELD.lagrange(_base_points(base), np.arange(1, members + 1, dtype=np.uint64))


@lru_cache(maxsize=8)
def _base_points(base: int) -> Words:
    return np.uint64(LATTICE_FIELD.modulus) - np.arange(1, base + 1, dtype=np.uint64)


def rows(secret: Words, randomness: Words, blinding: Words, packing: int, threshold: int) -> Words:
    """Return base values (T + rho, B + TESTS), a column for each row: secret, its randomness, blinding rows.

    secret (2048,), randomness (B T,), blinding (TESTS (T + rho),)
    """
    count = rows_of(packing)
    out = np.zeros((threshold + packing, count + TESTS), np.uint64)
    padded = np.zeros(count * packing, np.uint64)
    padded[:RING] = secret
    out[:packing, :count] = padded.reshape(count, packing).T
    out[packing:, :count] = randomness.reshape(count, threshold).T
    out[:, count:] = blinding.reshape(TESTS, threshold + packing).T
    padded[:] = 0
    return out


def degree_tests(base_values: Words, gamma: Words) -> Words:
    """Test polynomials, (TESTS, T + rho): blinding_t + sum over r of gamma_(t,r) row_r, by base values.

    base_values (T + rho, B + TESTS) as `rows` gives them; gamma (TESTS, B)
    """
    count = gamma.shape[1]
    secrets, blinding = (
        np.array(part.T, order="C") for part in (base_values[:, :count], base_values[:, count:])
    )
    sums = LATTICE_FIELD.weighted_sums(gamma, secrets)
    tests = added(sums, blinding)
    secrets[:], blinding[:], sums[:] = 0, 0, 0
    return tests


def passes_tests(share: Words, tests: Words, gamma: Words, weights: Words) -> bool:
    """Whether a member's share lies on the test polynomials.

    share (B + TESTS,); tests (TESTS, T + rho); gamma (TESTS, B); weights (T + rho,), of the member
    """
    count = gamma.shape[1]
    expected = LATTICE_FIELD.weighted_sums(tests, np.ascontiguousarray(weights[:, None]))[:, 0]
    combined = LATTICE_FIELD.weighted_sums(gamma, np.ascontiguousarray(share[:count, None]))[:, 0]
    return bool((added(combined, share[count:]) == expected).all())


def added(a: Words, b: Words) -> Words:
    """Sum of elements of Z_q, both below q."""
    total = a + b
    total -= np.where(total >= LATTICE_FIELD.modulus, np.uint64(LATTICE_FIELD.modulus), np.uint64(0))
    return total


def pack_words(words: Words) -> bytes:
    """Elements of Z_q as a string of 50 bits each."""
    return bytes(pack(np.ascontiguousarray(words).reshape(-1), WORD_BITS))


def words_bytes(count: int) -> int:
    """Size of so many packed words."""
    return packed_bytes(count, WORD_BITS)


def unpack_words(packed: Buffer, count: int) -> Words | None:
    """Return the words of a string of the right size, below q or not; None where a spare bit is set."""
    raw = bytes(packed)
    if not spare_bits_clear(raw, count, WORD_BITS):
        return None
    words = np.zeros(count, np.uint64)
    unpack_add(words, raw, WORD_BITS)
    return words


def in_range(words: Words) -> bool:
    """Return whether all words are below q."""
    return bool((words < LATTICE_FIELD.modulus).all())


def elements(packed: Buffer, count: int) -> Words | None:
    """Words that are elements of Z_q; None where a spare bit is set or a word is out of range."""
    words = unpack_words(packed, count)
    return words if words is not None and in_range(words) else None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Base values (T + rho, B), and which openings were wrong, (o',)."""

    values: Words = field(repr=False)
    wrong: NDArray[np.bool_]


def rebuild(
    points: Words, openings: Words, base: int, correct: int, gamma: Callable[[int], Words]
) -> Rebuilt | None:
    """Return base values of the sum from openings, up to `correct` of them wrong; None: too many are.

    points   (o,), distinct: 1 + index of the member
    openings (o, B), elements; revealed, so the time depends on them
    gamma    gives so many words for a combination of the rows, which the liars could not know

    Positions of errors are found once, on the combination (interleaved Reed-Solomon codes); afterwards
    every opening that is kept is compared on all rows.
    """
    if points.size < base:
        return None
    wrong = np.zeros(points.size, bool)
    if points.size - base > 0:
        combined = LATTICE_FIELD.weighted_sums(
            openings, np.ascontiguousarray(gamma(openings.shape[1])[:, None])
        )
        polynomial = LATTICE_FIELD.decode(points, np.ascontiguousarray(combined[:, 0]), base)
        if polynomial is None:
            return None
        expected = LATTICE_FIELD.evaluate(np.ascontiguousarray(polynomial[:, None]), points)
        wrong = expected[:, 0] != combined[:, 0]
        if wrong.sum() > correct:
            return None
    kept = np.flatnonzero(~wrong)
    first, rest = kept[:base], kept[base:]
    weights = LATTICE_FIELD.lagrange(
        np.ascontiguousarray(points[first]), np.concatenate([_base_points(base), points[rest]])
    )
    both = LATTICE_FIELD.weighted_sums(weights, np.ascontiguousarray(openings[first]))
    if not np.array_equal(both[base:], openings[rest]):
        return None
    return Rebuilt(both[:base], wrong)


def secret_of(base_values: Words, packing: int) -> Words:
    """Return the secret (2048,) in base values (T + rho, B)."""
    return np.ascontiguousarray(base_values[:packing].T.reshape(-1)[:RING])
