"""Column statistics from secure sums, and the standardizer that follows from them.

Two rounds: the mean, then the mean squared deviation from it. Both are weighted means of values in
[0, 1], by the public bounds of the schema, so nothing but the two sums leaves the sites.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.errors import DataError, TaskError
from fedcore.learner import Rows

# Of the range of a column: smaller deviations count as no spread, and no site standardizes by one. What a sum
# resolves is coarser than that unless sites have about as many rows as their weight is capped at.
FLOOR = 2.0**-13


@dataclass(frozen=True, slots=True)
class Standardizer:
    """x -> (x - mean) / deviation, per column; columns without spread become zero.

    One without columns leaves rows of any kind as they are.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def none(cls) -> Self:
        """Return one that changes nothing."""
        return cls(np.zeros(0), np.zeros(0))

    @classmethod
    def of(cls, table: Table) -> Self:
        """Return that of these rows."""
        mean = table.features.mean(axis=0)
        gaps = np.flatnonzero(np.isnan(mean))
        if not gaps.size:
            return cls(mean, table.features.std(axis=0))
        known = ~np.isnan(table.features[:, gaps])
        total = np.nansum(table.features[:, gaps], axis=0)
        mean[gaps] = total / np.maximum(known.sum(axis=0), 1)  # 0 where there is no value at all
        return cls(mean, np.where(np.isnan(table.features), mean, table.features).std(axis=0))

    def impossible(self, schema: Schema) -> str:
        """Return why no rows within the bounds of a schema can have these statistics; empty: they can."""
        wanted, width = (len(schema.columns),), schema.high - schema.low
        if {self.mean.shape, self.deviation.shape} != {wanted}:
            return "mean, deviation: must have one value per column"
        slack = width * 1e-9
        faults = (
            (
                "mean",
                ~((self.mean >= schema.low - slack) & (self.mean <= schema.high + slack)),
                "within bounds",
            ),
            ("deviation", ~(self.deviation <= width / 2 + slack), "at most half the range"),
            (
                "deviation",
                (self.deviation != 0) & ~(self.deviation >= width * FLOOR * (1 - 1e-9)),
                f"0 or at least {FLOOR:.3g} of the range",
            ),
        )
        for name, bad, rule in faults:
            if bad.any():
                return f"{name}: must be {rule}, of {schema.columns[int(np.argmax(bad))].name} is not"
        return ""

    @overload
    def apply(self, table: Table) -> Table: ...
    @overload
    def apply(self, table: Rows) -> Rows: ...
    def apply(self, table: Rows) -> Rows:
        """Return the table with standardized features. Raises TaskError for other rows, given a mean."""
        if not self.mean.size:
            return table
        if not isinstance(table, Table):
            raise TaskError(f"standardizer: needs a table, not a {type(table).__name__}")
        safe = np.where(self.deviation > 0, self.deviation, 1.0)
        scaled = (table.features - self.mean) / safe
        unknown = ~(self.deviation > 0) | np.isnan(scaled)  # the mean of all sites
        return replace(table, features=np.where(unknown, 0.0, scaled))


def unit_means(table: Table, schema: Schema) -> NDArray[np.float64]:
    """Site's means of the columns, scaled to [0, 1] by the bounds, (columns + columns that are filled,).

    In a column that is filled with the mean of all sites, missing values count 0; the share of the rows that
    have a value stands behind the means, a number for each such column, in order.
    """
    scaled: NDArray[np.float64] = (table.features - schema.low) / (schema.high - schema.low)
    if not schema.filled.size:
        return np.asarray(scaled.mean(axis=0))
    shares = (~np.isnan(scaled[:, schema.filled])).mean(axis=0)
    return np.concatenate([np.nan_to_num(scaled, nan=0.0).mean(axis=0), shares])


def unit_deviations(table: Table, schema: Schema, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Site's mean squared deviations from `mean` (units of the table), in units of the range; (columns,)."""
    return np.asarray((from_mean(table, schema, mean) ** 2).mean(axis=0))


def from_mean(table: Table, schema: Schema, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations from a mean in units of the ranges, (rows, columns); 0 where a value is filled with it."""
    scaled: NDArray[np.float64] = (table.features - mean) / (schema.high - schema.low)
    return np.nan_to_num(scaled, nan=0.0) if schema.filled.size else scaled


def means_asked(schema: Schema) -> int:
    """Return how many numbers `unit_means` are."""
    return len(schema.columns) + len(schema.filled)


def to_mean(unit: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Mean within the bounds in units of the table, from the aggregated unit means.

    raises  DataError: no row of any site has a value in a column that would be filled with its mean
    """
    means, shares = np.split(unit, [len(schema.columns)])
    if schema.filled.size:
        if (shares <= 0).any():
            name = schema.columns[int(schema.filled[int(np.argmin(shares))])].name
            raise DataError(
                f"column {name}: no row of any site has a value, there is no mean to fill it with"
            )
        means = means.copy()
        means[schema.filled] /= shares
    return np.clip(schema.low + means * (schema.high - schema.low), schema.low, schema.high)


def to_standardizer(
    mean: NDArray[np.float64], unit: NDArray[np.float64], schema: Schema, resolution: float
) -> Standardizer:
    """Standardizer from the aggregated unit deviations.

    resolution  error bound of the unit deviations; smaller ones count as no spread
    raises      DataError: no spread in a column that varies, as its layout says
    """
    least = max(resolution, FLOOR**2)
    spread = np.where(unit > least, unit, 0.0)
    _refuse_flat(schema, spread, math.sqrt(least))
    return Standardizer(mean, np.sqrt(spread) * (schema.high - schema.low))


def _refuse_flat(schema: Schema, spread: NDArray[np.float64], least: float) -> None:
    """Raise DataError for a column without spread that has some, as its layout says."""
    varying = () if schema.layout is None else schema.layout.varying
    flat = [
        one for one, found in zip(schema.columns, spread, strict=True) if one.name in varying and not found
    ]
    if flat:
        one, *others = flat
        more = f", likewise {', '.join(other.name for other in others)}" if others else ""
        raise DataError(
            f"column {one.name}: varies by less than what a sum resolves, {least * (one.high - one.low):.3g} "
            f"within {one.low:g}..{one.high:g}{more}: agree on narrower bounds, or on varies = false"
        )


def from_bounds(schema: Schema) -> Standardizer:
    """Standardizer from public bounds alone: their middle, and a quarter of the range as the deviation."""
    return Standardizer((schema.low + schema.high) / 2, (schema.high - schema.low) / 4)
