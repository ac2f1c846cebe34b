"""The standardizer under a budget: mean and spread of the columns from one noisy sum.

Every row is a vector within a public norm: offsets from the middle of the bounds, their squares, and a
constant that counts the row. Its sum over rows has the noise of a training round and is one release more of
the same budget; what follows from it costs nothing (Dwork and Roth 2014, proposition 2.1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.statistics.standardizer import FLOOR, Standardizer, from_bounds

_COUNT = 0.5  # of a row, as large as its other numbers can be
_PRIOR = 1 / 12  # variance of a mean that may be anywhere within its bounds, in units of their range
_WIDEST = 1 / 16  # variance that the bounds alone would give


def moments_asked(schema: Schema) -> int:
    """Return how many numbers `site_moments` are."""
    return 2 * len(schema.columns) + len(schema.filled) + 1


def moments_norm(schema: Schema) -> float:
    """Return the L2 norm that no row's vector passes: every number of it is in -1/2..1/2."""
    return _COUNT * math.sqrt(moments_asked(schema))


def _by_row(table: Table, schema: Schema) -> NDArray[np.float64]:
    """Return the vectors of the rows, (rows, moments_asked)."""
    offsets = (table.features - schema.low) / (schema.high - schema.low) - 0.5
    known = ~np.isnan(offsets)
    squares = 4 * offsets**2 - 0.5
    counted = np.column_stack([known[:, schema.filled], np.ones(len(table), bool)])
    return np.column_stack([np.where(known, offsets, 0.0), np.where(known, squares, 0.0), _COUNT * counted])


def site_moments(table: Table, schema: Schema, expected: float = 0.0) -> NDArray[np.float64]:
    """Return a site's vector, (moments_asked,): the mean of its rows' vectors.

    expected  where a person's part must be bounded: the sum over persons, of whom none has more than one
              row's norm, over this public number of rows; 0: it need not be
    """
    rows = _by_row(table, schema)
    if not expected:
        return np.asarray(rows.mean(axis=0))
    if table.persons is not None:
        order = np.argsort(table.persons, kind="stable")
        starts = np.flatnonzero(np.diff(table.persons[order], prepend=-1))
        rows = np.add.reduceat(rows[order], starts, axis=0)
    lengths = np.maximum(np.sqrt((rows**2).sum(axis=1)), 1e-300)
    bounded = rows * np.minimum(1.0, moments_norm(schema) / lengths)[:, None]
    return np.asarray(bounded.sum(axis=0) / expected)


def from_moments(mean: NDArray[np.float64], deviation: float, schema: Schema) -> Standardizer:
    """Return the standardizer that follows from the mean of the sites' vectors, under its noise.

    deviation  standard deviation of the noise of each number in `mean`
    Where noise outweighs what it hides, means move to the middle of the bounds, and variances are no smaller
    than twice their error: at the worst the result is that of the bounds alone.
    """
    columns, count = len(schema.columns), float(mean[-1]) / _COUNT
    if count <= 3 * deviation / _COUNT:
        return from_bounds(schema)
    offsets, squares, shares = np.split(mean[:-1] / count, [columns, 2 * columns])
    known = np.ones(columns)
    sure = max(3 * deviation / (count * _COUNT), 1e-6)  # a share below says nothing
    known[schema.filled] = np.clip(shares / _COUNT, sure, 1.0)
    error = deviation / (count * known)
    offsets = np.clip(offsets / known * (_PRIOR / (_PRIOR + error**2)), -0.5, 0.5)
    spread = (squares / known + 0.5) / 4 - offsets**2
    least = np.minimum(2 * (error / 4 + 2 * np.abs(offsets) * error), _WIDEST)
    variance = np.clip(np.maximum(spread, least), FLOOR**2 * (1 + 1e-6), 0.25)
    width = schema.high - schema.low
    return Standardizer(schema.low + (offsets + 0.5) * width, np.sqrt(variance) * width)
