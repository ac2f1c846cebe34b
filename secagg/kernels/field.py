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
    if not lib.sa_field_valid(read(array, "uint64_t[]"), array.size):
        raise ValueError(f"{name}: every word must be below 2^61 - 1")
    return array


def _distinct(points: Words) -> bool:
    """Return whether all points are distinct; quick for ascending ones."""
    return bool((points[1:] > points[:-1]).all()) or np.unique(points).size == points.size


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


def field_lagrange(points: Words, ats: Words) -> Words:
    """Weights w with f(ats[i]) = sum of w[i, j] f(points[j]), for every f of degree below t.

    points (t,), distinct; ats (q,); returns (q, t); raises ValueError
    """
    t, q = _matrix("points", points, 1).size, _matrix("ats", ats, 1).size
    if not t or not _distinct(points):
        raise ValueError("points: must be distinct, and at least one")
    out = np.empty((q, t), np.uint64)
    scratch = np.empty(2 * t, np.uint64)
    lib.sa_field_lagrange(
        write(out, "uint64_t[]"),
        write(scratch, "uint64_t[]"),
        read(points, "uint64_t[]"),
        t,
        read(ats, "uint64_t[]"),
        q,
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


def field_decode(points: Words, values: Words, threshold: int) -> Words | None:
    """Return the polynomial of degree < threshold that all but (m - threshold) // 2 values lie on, or None.

    points (m,), distinct; values (m,), revealed ones: the time depends on them
    returns threshold coefficients, lowest degree first; raises ValueError

    Gao, "A new algorithm for decoding Reed-Solomon codes", 2003.
    """
    m = _matrix("points", points, 1).size
    if _matrix("values", values, 1).size != m:
        raise ValueError(f"values: {m} points need as many values, got {values.size}")
    if not _distinct(points):
        raise ValueError("points: must be distinct")
    if threshold < 1:
        raise ValueError(f"threshold: must be at least 1, is {threshold}")
    if m < threshold:
        return None
    polynomial = np.empty(threshold, np.uint64)
    scratch = np.empty(4 * (m + 1), np.uint64)
    wrong = lib.sa_field_decode(
        write(polynomial, "uint64_t[]"),
        write(scratch, "uint64_t[]"),
        read(points, "uint64_t[]"),
        read(values, "uint64_t[]"),
        m,
        threshold,
    )
    return polynomial if wrong <= m else None
