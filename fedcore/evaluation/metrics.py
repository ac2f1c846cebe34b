"""Metrics of classifiers, from labels and class probabilities, and of regressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.learner import Metrics

_TINY = 1e-15  # a probability below it counts as this in the log loss


def areas(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> list[float]:
    """Areas under the ROC curves of one class against the rest, where there are both kinds of rows."""
    from sklearn.metrics import roc_auc_score

    return [
        float(roc_auc_score(labels == label, scores[:, label]))
        for label in ([1] if scores.shape[1] == 2 else range(scores.shape[1]))
        if 0 < np.count_nonzero(labels == label) < len(labels)
    ]


def classification_metrics(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Metrics:
    """Accuracy, AUC (more than two classes: mean of one against the rest), log loss, macro F1.

    labels  (rows,) indices of classes; scores: (rows, classes) probabilities
    The AUC is NaN when all rows are of one class; all metrics are when there are no rows, or when a
    probability is not finite, as after training that diverged.
    """
    if not (len(labels) and np.isfinite(scores).all()):
        return dict.fromkeys(("accuracy", "auc", "log_loss", "macro_f1"), float("nan"))
    guesses = scores.argmax(axis=1)
    hit = np.maximum(scores[np.arange(len(labels)), labels], _TINY)
    return {
        "accuracy": float((guesses == labels).mean()),
        "auc": float(np.mean(areas(labels, scores) or np.nan)),
        "log_loss": float(-np.log(hit).mean()),
        "macro_f1": macro_f1(confusion_matrix(labels, guesses, scores.shape[1])),
    }


def mean_metrics(found: Sequence[Metrics]) -> Metrics:
    """Return the plain mean of every metric: over sites, or over parts of the rows."""
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def worst_metrics(found: Sequence[Metrics]) -> Metrics:
    """Return the worst of every metric."""
    return {name: (max if lower_is_better(name) else min)(one[name] for one in found) for name in found[0]}


def lower_is_better(metric: str) -> bool:
    """Tell whether small values of a metric are good ones."""
    return metric in {"log_loss", "mse", "mae", "beyond"}


def confusion_matrix(
    labels: NDArray[np.int64], guesses: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return counts, (classes, classes): row is the label, column the guess."""
    flat = np.bincount(labels * classes + guesses, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur among labels or guesses; NaN when none does."""
    if not confusion.any():
        return float("nan")
    hits = np.diag(confusion).astype(float)
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * hits[both > 0] / both[both > 0]))


def regression_metrics(targets: NDArray[Any], guesses: NDArray[np.float64]) -> Metrics:
    """Mean squared and mean absolute error, R squared, NaN when all targets are equal; without rows all NaN.

    targets, guesses  (rows,)
    """
    if not len(targets):
        return dict.fromkeys(("mse", "mae", "r2"), float("nan"))
    error, spread = guesses - targets, float(np.var(targets))
    mse, mae = float((error**2).mean()), float(np.abs(error).mean())
    return {"mse": mse, "mae": mae, "r2": 1 - mse / spread if spread else float("nan")}
