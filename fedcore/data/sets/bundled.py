"""Sets that come with scikit-learn, with schemas of public bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcore.data.dataset import WHOLE, Dataset
from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table

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


def _dataset(
    name: str, features: NDArray[np.float64], labels: NDArray[np.int64], schema: Schema, label: str
) -> Dataset:
    table = Table(np.asarray(features, np.float64), np.asarray(labels, np.int64))
    schema.check(table.features, name)
    return Dataset(name, {WHOLE: table}, schema, label)
