"""Rows to learn from, and gradients by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedcore.data.table import Table
from fedcore.learner import Parameters


def clouds(classes: int = 3, rows: int = 60, features: int = 4, seed: int = 0) -> Table:
    """One cloud of points per class; every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % classes)
    centres = 2 * np.eye(max(features, classes))[:classes, :features]
    return Table(centres[labels] + rng.normal(size=(rows, features)), labels.astype(np.int64))


def line(rows: int = 60, features: int = 4, seed: int = 0) -> Any:
    """Targets on a plane, with a little noise."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, features))
    targets: Any = values @ np.arange(1.0, features + 1) + 2 + rng.normal(0, 0.1, rows)
    return Table(values, targets)


def sparse(table: Table) -> Any:
    """The same rows, features as a sparse matrix of scipy."""
    from scipy.sparse import csr_array

    features: Any = csr_array(table.features)
    return Table(features, table.labels)


def jitter(parameters: Parameters, seed: int = 1, scale: float = 0.5) -> Parameters:
    """Parameters away from where gradients vanish."""
    rng = np.random.default_rng(seed)
    return {name: array + rng.normal(0, scale, array.shape) for name, array in parameters.items()}


def numerical_gradient(loss: Callable[[Parameters], float], at: Parameters, step: float = 1e-6) -> Parameters:
    """Central differences, coordinate by coordinate."""
    out: Parameters = {}
    for name, array in at.items():
        slope = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            losses = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                losses.append(loss(at | {name: moved}))
            slope[index] = (losses[0] - losses[1]) / (2 * step)
        out[name] = slope
    return out


def assert_close(one: Parameters, other: Parameters, tolerance: float) -> None:
    """Same names, same values; not all of them zero."""
    assert one.keys() == other.keys()
    assert any(np.abs(array).max() > 10 * tolerance for array in one.values())
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def distance(one: Parameters, other: Parameters) -> float:
    return float(np.sqrt(sum(((one[name] - other[name]) ** 2).sum() for name in one)))
