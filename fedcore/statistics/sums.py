"""Statistics of the rows of all sites from secure sums: what a site computes, and what a sum says.

Every statistic is a mean of values in [-1, 1] over rows, by bounds of the public schema. The server
learns the statistics of all rows together and their number, nothing of one site.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.errors import DataError, TaskError
from fedcore.rounds.task import Task, TaskKind
from fedcore.statistics.standardizer import unit_deviations, unit_means

LABEL = -1  # as a column: the label


def compute(task: Task, table: Table, schema: Schema) -> NDArray[np.float64]:
    """Return a site's part, (task.dimension,). Raises TaskError."""
    match task.kind:
        case TaskKind.MEAN:
            return unit_means(table, schema)
        case TaskKind.DEVIATION:
            return unit_deviations(table, schema, by_column(task, "mean"))
        case TaskKind.CUMULATIVE:
            return _cumulative(table, _matrix(task, "edges", len(schema.columns)))
        case TaskKind.COVARIANCE:
            return _products(table, schema, by_column(task, "mean"))
        case TaskKind.COUNT:
            return _shares(table, _matrix(task, "cells", None))
        case _:
            raise TaskError(f"task.kind: {task.kind} is no statistic")


def by_column(task: Task, name: str) -> NDArray[np.float64]:
    """Return an array of a task with one value per column. Raises TaskError."""
    array = task.arrays.get(name)
    if array is None or array.shape != (len(task.columns),):
        raise TaskError(f"task.arrays: {name} with one value per column is missing")
    return array


def _matrix(task: Task, name: str, rows: int | None) -> NDArray[np.float64]:
    array = task.arrays.get(name)
    if array is None or array.ndim != 2 or (rows is not None and len(array) != rows):
        raise TaskError(f"task.arrays: {name} must be a matrix with a row per {'column' if rows else 'cell'}")
    return array


def _cumulative(table: Table, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the rows at or below each edge, (columns * edges,)."""
    columns = np.sort(table.features, axis=0).T
    counts = [
        np.searchsorted(values, edge, side="right") for values, edge in zip(columns, edges, strict=True)
    ]
    return np.concatenate(counts) / len(table)


def _products(table: Table, schema: Schema, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean products of deviations in units of the ranges, upper triangle row by row."""
    scaled = (table.features - mean) / (schema.high - schema.low)
    return np.asarray((scaled.T @ scaled / len(table))[np.triu_indices(scaled.shape[1])])


def _shares(table: Table, cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the rows whose column has the value; cells: (k, 2) of column (LABEL: the label), value."""
    if cells.shape[1] != 2:
        raise TaskError(
            f"task.arrays: cells must be pairs of column and value, have {cells.shape[1]} numbers"
        )
    out = []
    for column, value in cells:
        index = int(column)
        if index != column or not LABEL <= index < table.features.shape[1]:
            raise TaskError(f"task.arrays: cells name column {column:g}, there are {table.features.shape[1]}")
        values = table.labels if index == LABEL else table.features[:, index]
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


def to_histogram(edges: NDArray[np.float64], shares: NDArray[np.float64], rows: int) -> Histogram:
    """Histogram from the aggregated shares at the upper edges; a bin holds its upper edge, the first both."""
    below = np.rint(shares.reshape(len(edges), -1) * rows).astype(np.int64)
    return Histogram(edges, np.diff(below, axis=1, prepend=0))


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
