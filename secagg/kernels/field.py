"""Vector arithmetic in prime fields: GF(2^61 - 1) for Shamir's sharing, Z_q for packed sharing.

Constant-time in C, but for decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from secagg.kernels._library import lib, read, write

PRIME = 2**61 - 1

Words = NDArray[np.uint64]


class PrimeField:
    """Matrices over GF(modulus), as contiguous arrays of uint64 with every word below the modulus."""

    def __init__(self, modulus: int, spelled: str, functions: str) -> None:
        self.modulus: Final = modulus
        self._spelled = spelled
        self._valid = self._function(functions, "valid")
        self._evaluate = self._function(functions, "evaluate")
        self._lagrange = self._function(functions, "lagrange")
        self._weighted_sums = self._function(functions, "weighted_sums")
        self._decode = self._function(functions, "decode")

    @staticmethod
    def _function(prefix: str, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(lib, f"{prefix}_{name}")
        return found

    def matrix(self, name: str, array: Words, ndim: int) -> Words:
        """Return `array` if it is one of elements with so many dimensions. ValueError names it."""
        if not isinstance(array, np.ndarray) or array.dtype != np.uint64 or array.ndim != ndim:
            raise ValueError(f"{name}: must be an array of uint64 with {ndim} dimensions")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError(f"{name}: must be contiguous and aligned")
        if not self._valid(read(array, "uint64_t[]"), array.size):
            raise ValueError(f"{name}: every word must be below {self._spelled}")
        return array

    def evaluate(self, coefficients: Words, points: Words) -> Words:
        """Evaluate m polynomials of degree t - 1 at k points.

        coefficients (t, m), lowest degree first; points (k,); returns (k, m); raises ValueError
        """
        t, m = self.matrix("coefficients", coefficients, 2).shape
        k = self.matrix("points", points, 1).size
        out = np.zeros((k, m), np.uint64)
        if out.size and t:
            self._evaluate(
                write(out, "uint64_t[]"),
                read(coefficients, "uint64_t[]"),
                t,
                m,
                read(points, "uint64_t[]"),
                k,
            )
        return out

    def lagrange(self, points: Words, ats: Words) -> Words:
        """Weights w with f(ats[i]) = sum of w[i, j] f(points[j]), for every f of degree below t.

        points (t,), distinct; ats (q,); returns (q, t); raises ValueError
        """
        t, q = self.matrix("points", points, 1).size, self.matrix("ats", ats, 1).size
        if not t or not _distinct(points):
            raise ValueError("points: must be distinct, and at least one")
        out = np.empty((q, t), np.uint64)
        scratch = np.empty(2 * t, np.uint64)
        self._lagrange(
            write(out, "uint64_t[]"),
            write(scratch, "uint64_t[]"),
            read(points, "uint64_t[]"),
            t,
            read(ats, "uint64_t[]"),
            q,
        )
        return out

    def weighted_sums(self, weights: Words, values: Words) -> Words:
        """Return the matrix product of weights (q, t) and values (t, m) over the field; ValueError."""
        q, t = self.matrix("weights", weights, 2).shape
        if self.matrix("values", values, 2).shape[0] != t:
            raise ValueError(f"values: {t} rows are needed, got {values.shape[0]}")
        m = values.shape[1]
        out = np.zeros((q, m), np.uint64)
        if out.size and t:
            self._weighted_sums(
                write(out, "uint64_t[]"), read(weights, "uint64_t[]"), read(values, "uint64_t[]"), q, t, m
            )
        return out

    def decode(self, points: Words, values: Words, threshold: int) -> Words | None:
        """Return the polynomial of degree < threshold through all but (m - threshold) // 2 values, or None.

        points (m,), distinct; values (m,), revealed ones: the time depends on them
        returns threshold coefficients, lowest degree first; raises ValueError

        Gao, "A new algorithm for decoding Reed-Solomon codes", 2003.
        """
        m = self.matrix("points", points, 1).size
        if self.matrix("values", values, 1).size != m:
            raise ValueError(f"values: {m} points need as many values, got {values.size}")
        if not _distinct(points):
            raise ValueError("points: must be distinct")
        if threshold < 1:
            raise ValueError(f"threshold: must be at least 1, is {threshold}")
        if m < threshold:
            return None
        polynomial = np.empty(threshold, np.uint64)
        scratch = np.empty(4 * (m + 1), np.uint64)
        wrong = self._decode(
            write(polynomial, "uint64_t[]"),
            write(scratch, "uint64_t[]"),
            read(points, "uint64_t[]"),
            read(values, "uint64_t[]"),
            m,
            threshold,
        )
        return polynomial if wrong <= m else None


def _distinct(points: Words) -> bool:
    """Return whether all points are distinct; quick for ascending ones."""
    return bool((points[1:] > points[:-1]).all()) or np.unique(points).size == points.size


SHAMIR_FIELD = PrimeField(PRIME, "2^61 - 1", "sa_field")
LATTICE_FIELD = PrimeField(2**50 - 2**14 + 1, "2^50 - 2^14 + 1", "sa_modq")

# For Shamir's sharing of 61-bit limbs (primitives.shamir).
field_evaluate = SHAMIR_FIELD.evaluate
field_lagrange = SHAMIR_FIELD.lagrange
field_weighted_sums = SHAMIR_FIELD.weighted_sums
field_decode = SHAMIR_FIELD.decode
