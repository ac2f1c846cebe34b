"""Statistics of the rows of all sites from secure sums: what a site computes, and what a sum says.

Every statistic is a mean of values in [-1, 1] over rows, by bounds of the public schema. The server
learns the statistics of all rows together and their number, nothing of one site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.errors import DataError, TaskError
from fedcore.rounds.questions import Count, Covariance, Cumulative, Deviation, Mean, Moments, Question
from fedcore.statistics.moments import site_moments
from fedcore.statistics.standardizer import from_mean, unit_deviations, unit_means

LABEL = -1  # as a column: the label


def answer(
    question: Question, schema: Schema, expected: float = 0.0
) -> Callable[[Table], NDArray[np.float64]]:
    """Return what computes a site's part from its table. Raises TaskError, whatever the rows are.

    expected  rows of a site, where the part of a person must be bounded (`site_moments`)
    """
    columns = len(schema.columns)
    match question:
        case Moments():
            return lambda table: site_moments(table, schema, expected)
        case Mean():
            return lambda table: unit_means(table, schema)
        case Deviation(mean=mean):
            _by_column(mean, columns)
            return lambda table: unit_deviations(table, schema, mean)
        case Covariance(mean=mean):
            _by_column(mean, columns)
            return lambda table: _products(table, schema, mean)
        case Cumulative(edges=edges):
            if len(edges) != columns:
                raise TaskError("task.arrays: edges must be a matrix with a row per column")
            return lambda table: _cumulative(table, edges)
        case Count(cells=cells):
            _check_cells(cells, columns)
            return lambda table: _shares(table, cells)
        case _:
            raise TaskError(f"task.kind: {question.kind} is no statistic")


def _by_column(mean: NDArray[np.float64], columns: int) -> None:
    if mean.shape != (columns,):
        raise TaskError("task.arrays: mean with one value per column is missing")


def _cumulative(table: Table, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the rows at or below each edge, (columns * edges,)."""
    columns = np.sort(table.features, axis=0).T
    counts = [
        np.searchsorted(values, edge, side="right") for values, edge in zip(columns, edges, strict=True)
    ]
    return np.concatenate(counts) / len(table)


def _products(table: Table, schema: Schema, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean products of deviations in units of the ranges, upper triangle row by row."""
    scaled = from_mean(table, schema, mean)
    return np.asarray((scaled.T @ scaled / len(table))[np.triu_indices(scaled.shape[1])])


def _check_cells(cells: NDArray[np.float64], columns: int) -> None:
    if cells.shape[1] != 2:
        raise TaskError(
            f"task.arrays: cells must be pairs of column and value, have {cells.shape[1]} numbers"
        )
    for column in cells[:, 0]:
        if int(column) != column or not LABEL <= column < columns:
            raise TaskError(f"task.arrays: cells name column {column:g}, there are {columns}")


def _shares(table: Table, cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the rows whose column has the value; cells: (k, 2) of column (LABEL: the label), value."""
    out = []
    for column, value in cells:
        values = table.labels if int(column) == LABEL else table.features[:, int(column)]
        out.append(float((values == value).mean()))
    return np.array(out)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of rows by bins of equal width within the bounds of the schema.

    edges   (columns, bins + 1); counts: (columns, bins), exact
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


def edges_of(schema: Schema, bins: int) -> NDArray[np.float64]:
    """Return (columns, bins + 1) edges from low to high."""
    if bins < 1:
        raise DataError(f"bins: must be at least 1, are {bins}")
    return np.linspace(schema.low, schema.high, bins + 1).T


def to_covariance(products: NDArray[np.float64], schema: Schema) -> NDArray[np.float64]:
    """Covariance matrix, (columns, columns), over n (not n - 1), from the aggregated mean products."""
    columns = len(schema.columns)
    out = np.zeros((columns, columns))
    out[np.triu_indices(columns)] = products
    out = out + np.triu(out, 1).T
    ranges = schema.high - schema.low
    return np.asarray(out * np.outer(ranges, ranges))


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Directions of largest variance: components (k, columns), variances (k,), descending."""

    components: NDArray[np.float64]
    variances: NDArray[np.float64]


def principal_components(covariance: NDArray[np.float64], count: int) -> PrincipalComponents:
    """Eigenvectors of a covariance matrix; the largest entry of each is positive."""
    if not 1 <= count <= len(covariance):
        raise DataError(f"count: must be in 1..{len(covariance)}, is {count}")
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1][:count]
    components = vectors[:, order].T
    signs = np.sign(components[np.arange(count), np.abs(components).argmax(axis=1)])
    return PrincipalComponents(components * signs[:, None], values[order])
