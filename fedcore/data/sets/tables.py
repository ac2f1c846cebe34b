"""Tables for demonstrations, from scikit-learn's own files, with schemas of public bounds; partitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.errors import DataError

# Bounds a clinician would write down before seeing any patient: (mean, standard error, worst) of the
# ten measurements of cell nuclei that the set describes. Not taken from the data.
_NUCLEI: dict[str, tuple[float, float, float]] = {
    "radius": (50, 5, 60),
    "texture": (60, 10, 80),
    "perimeter": (300, 40, 400),
    "area": (4000, 1000, 6000),
    "smoothness": (0.5, 0.1, 0.5),
    "compactness": (1, 0.3, 2),
    "concavity": (1, 0.6, 2),
    "concave points": (0.5, 0.1, 0.6),
    "symmetry": (1, 0.2, 1),
    "fractal dimension": (0.3, 0.06, 0.4),
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """A whole table, its schema, and what its label is called."""

    name: str
    table: Table
    schema: Schema
    label: str


def breast_cancer() -> Dataset:
    """Wisconsin diagnostic breast cancer: 569 patients, 30 features, two classes."""
    from sklearn.datasets import load_breast_cancer

    raw = load_breast_cancer()
    bounds = {
        f"{prefix}{name}{suffix}": high
        for name, highs in _NUCLEI.items()
        for (prefix, suffix), high in zip((("mean ", ""), ("", " error"), ("worst ", "")), highs, strict=True)
    }
    columns = tuple(Column(str(name), 0.0, float(bounds[str(name)])) for name in raw.feature_names)
    schema = Schema(columns, tuple(str(name) for name in raw.target_names))
    return _dataset("breast_cancer", raw.data, raw.target, schema, "diagnosis")


def digits() -> Dataset:
    """Handwritten digits: 1797 images of 8 x 8 pixels, ten classes."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    columns = tuple(Column(str(name), 0.0, 16.0) for name in raw.feature_names)
    schema = Schema(columns, tuple(str(name) for name in raw.target_names))
    return _dataset("digits", raw.data, raw.target, schema, "digit")


DATASETS = {"breast_cancer": breast_cancer, "digits": digits}


def _dataset(
    name: str, features: NDArray[np.float64], labels: NDArray[np.int64], schema: Schema, label: str
) -> Dataset:
    table = Table(np.asarray(features, np.float64), np.asarray(labels, np.int64))
    schema.check(table.features, name)
    return Dataset(name, table, schema, label)


def hold_out(table: Table, share: float, seed: int) -> tuple[Table, Table]:
    """Split rows into training and held-out ones, class by class; nothing is lost or doubled.

    raises  DataError unless the share is in [0, 1]
    """
    if not 0 <= share <= 1:
        raise DataError(f"share: must be in [0, 1], is {share}")
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for label in np.unique(table.labels):
        rows = rng.permutation(np.flatnonzero(table.labels == label))
        held.extend(rows[: round(share * len(rows))].tolist())
    chosen = np.zeros(len(table), bool)
    chosen[held] = True
    return table.take(np.flatnonzero(~chosen)), table.take(np.flatnonzero(chosen))


def partition_unevenly(table: Table, sites: int, seed: int, minimum_rows: int = 8) -> list[NDArray[np.int64]]:
    """Deal rows to sites that differ in size and in the mix of labels (Dirichlet, sizes 3, labels 1).

    returns  row numbers by site; every row once, every site at least `minimum_rows`
    raises   DataError when there are too few rows
    """
    if sites < 1 or len(table) < sites * minimum_rows:
        raise DataError(
            f"partition: {sites} sites of {minimum_rows} rows or more, {len(table)} rows are there"
        )
    rng = np.random.default_rng(seed)
    sizes = rng.dirichlet(np.full(sites, 3.0))
    parts: list[list[int]] = [[] for _ in range(sites)]
    for label in np.unique(table.labels):
        shares = sizes * rng.dirichlet(np.ones(sites)) + 1e-6
        rows = rng.permutation(np.flatnonzero(table.labels == label))
        ends = np.round(np.cumsum(shares / shares.sum())[:-1] * len(rows)).astype(int)
        for part, chunk in zip(parts, np.split(rows, ends), strict=True):
            part.extend(chunk.tolist())
    while len(smallest := min(parts, key=len)) < minimum_rows:
        smallest.append(max(parts, key=len).pop())
    return [np.sort(np.array(part, np.int64)) for part in parts]
