"""A few numbers for how different the clients of a partition are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcore.data.partition import Partition
from fedcore.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """Measures of a partition. Label and feature measures are plain means over clients that have rows."""

    clients: int
    rows: int
    rows_min: int
    rows_median: float
    rows_max: int
    rows_gini: float  # of the clients' sizes: 0 all equal, towards 1 one has all
    variation_mean: float  # total variation between a client's mix of labels and the whole's, in [0, 1]
    variation_max: float
    divergence_mean: float  # Jensen-Shannon divergence between the same two, in bits, in [0, 1]
    classes: int  # of the task
    classes_mean: float  # effective number of classes of a client: exp of the entropy of its mix
    classes_min: float
    single_class: int  # clients that have one class only
    feature_shift: float | None  # see `describe`; None without features

    def to_text(self) -> str:
        """Return a table of two columns for a terminal, without a line break at its end."""
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def to_markdown(self) -> str:
        """Return the same table in Markdown."""
        lines = [f"| {name} | {value} |" for name, value in self._rows()]
        return "\n".join(["| measure | value |", "| --- | --- |", *lines])

    def _rows(self) -> list[tuple[str, str]]:
        shift = "not measured" if self.feature_shift is None else f"{self.feature_shift:.3f}"
        sizes = f"{self.rows_min} / {self.rows_median:g} / {self.rows_max}"
        return [
            ("clients", str(self.clients)),
            ("rows", str(self.rows)),
            ("rows by client, min / median / max", sizes),
            ("rows by client, Gini", f"{self.rows_gini:.3f}"),
            ("label total variation, mean / max", f"{self.variation_mean:.3f} / {self.variation_max:.3f}"),
            ("label Jensen-Shannon, mean, bits", f"{self.divergence_mean:.3f}"),
            (
                f"effective classes of {self.classes}, mean / min",
                f"{self.classes_mean:.2f} / {self.classes_min:.2f}",
            ),
            ("clients with a single class", str(self.single_class)),
            ("feature shift, standard deviations", shift),
        ]


def describe(
    labels: ArrayLike, features: ArrayLike | None, partition: Partition, classes: int
) -> Heterogeneity:
    """Measure a partition.

    labels    (rows,) integers in 0 .. classes-1
    features  (rows, columns), finite; or None. The feature shift is the mean, over clients and columns, of
              the distance of the client's mean from the whole's, in standard deviations of the whole; a
              constant column counts as 0
    raises    DataError when labels, features and partition do not fit each other
    """
    answers = _checked(labels, partition, classes)
    sizes = np.array(list(partition.sizes.values()))
    held = [part for part in partition.parts.values() if len(part)]
    mixes = np.array([np.bincount(answers[part], minlength=classes) / len(part) for part in held])
    whole = np.bincount(answers, minlength=classes) / len(answers)
    variation = np.abs(mixes - whole).sum(axis=1) / 2
    effective = np.exp2(_entropy(mixes))
    divergence = _entropy((mixes + whole) / 2) - (_entropy(mixes) + _entropy(whole)) / 2
    return Heterogeneity(
        clients=len(sizes),
        rows=len(answers),
        rows_min=int(sizes.min()),
        rows_median=float(np.median(sizes)),
        rows_max=int(sizes.max()),
        rows_gini=_gini(sizes),
        variation_mean=float(variation.mean()),
        variation_max=float(variation.max()),
        divergence_mean=float(np.maximum(divergence, 0.0).mean()),
        classes=classes,
        classes_mean=float(effective.mean()),
        classes_min=float(effective.min()),
        single_class=int((mixes.max(axis=1) == 1).sum()),
        feature_shift=None if features is None else _shift(features, held, len(answers)),
    )


def _checked(labels: ArrayLike, partition: Partition, classes: int) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iub":
        raise DataError("labels: must be integers (rows,), not empty")
    if len(array) != partition.rows:
        raise DataError(f"labels: the partition has {partition.rows} rows, the labels {len(array)}")
    if not 0 <= array.min() <= array.max() < classes:
        raise DataError(f"labels: must be in 0 .. {classes - 1}")
    return array.astype(np.int64)


def _entropy(mixes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy along the last axis, in bits."""
    logs = np.log2(mixes, out=np.zeros_like(mixes), where=mixes > 0)
    return np.asarray(-(mixes * logs).sum(axis=-1))


def _gini(sizes: NDArray[np.int64]) -> float:
    """Mean absolute difference of two clients over twice the mean."""
    ascending = np.sort(sizes)
    ranks = 2 * np.arange(1, len(ascending) + 1) - len(ascending) - 1
    return float((ranks * ascending).sum() / (len(ascending) * ascending.sum()))


def _shift(features: ArrayLike, held: list[NDArray[np.int64]], rows: int) -> float:
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or len(matrix) != rows or not matrix.shape[1] or not np.isfinite(matrix).all():
        raise DataError(f"features: must be ({rows}, columns), finite, shape is {matrix.shape}")
    deviation = matrix.std(axis=0)
    rounding = 1e-12 * np.abs(matrix).max(axis=0)  # what is left of a constant column's deviation
    scale = np.where(deviation > rounding, deviation, np.inf)
    means = np.array([matrix[part].mean(axis=0) for part in held])
    return float((np.abs(means - matrix.mean(axis=0)) / scale).mean())
