"""Vector arithmetic in GF(p), p = 2^61 - 1, for Shamir's secret sharing. Constant-time in C."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.kernels._library import lib, read, write

PRIME = 2**61 - 1

Words = NDArray[np.uint64]


def _matrix(name: str, array: Words, ndim: int) -> Words:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint64 or array.ndim != ndim:
        raise ValueError(f"{name}: must be an array of uint64 with {ndim} dimensions")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"{name}: must be contiguous and aligned")
    if array.size and int(array.max()) >= PRIME:
        raise ValueError(f"{name}: every word must be below 2^61 - 1")
    return array


def field_evaluate(coefficients: Words, points: Words) -> Words:
    """Evaluate m polynomials of degree t - 1 at k points.

    coefficients (t, m), lowest degree first; points (k,); returns (k, m); raises ValueError
    """
    t, m = _matrix("coefficients", coefficients, 2).shape
    k = _matrix("points", points, 1).size
    out = np.zeros((k, m), np.uint64)
    if out.size and t:
        lib.sa_field_evaluate(
            write(out, "uint64_t[]"),
            read(coefficients, "uint64_t[]"),
            t,
            m,
            read(points, "uint64_t[]"),
            k,
        )
    return out


def field_lagrange(points: Words, at: int) -> Words:
    """Weights w with f(at) = sum of w[j] f(points[j]), for every f of degree below t.

    points (t,), distinct; returns (t,); raises ValueError
    """
    t = _matrix("points", points, 1).size
    if not t or np.unique(points).size != t:
        raise ValueError("points: must be distinct, and at least one")
    if not 0 <= at < PRIME:
        raise ValueError("at: must be a field element")
    out = np.empty(t, np.uint64)
    scratch = np.empty(2 * t, np.uint64)
    lib.sa_field_lagrange(
        write(out, "uint64_t[]"), write(scratch, "uint64_t[]"), read(points, "uint64_t[]"), t, at
    )
    return out


def field_weighted_sums(weights: Words, values: Words) -> Words:
    """Return the matrix product of weights (q, t) and values (t, m) over the field; ValueError."""
    q, t = _matrix("weights", weights, 2).shape
    if _matrix("values", values, 2).shape[0] != t:
        raise ValueError(f"values: {t} rows are needed, got {values.shape[0]}")
    m = values.shape[1]
    out = np.zeros((q, m), np.uint64)
    if out.size and t:
        lib.sa_field_weighted_sums(
            write(out, "uint64_t[]"), read(weights, "uint64_t[]"), read(values, "uint64_t[]"), q, t, m
        )
    return out
