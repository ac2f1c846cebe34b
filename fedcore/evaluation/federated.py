"""Federated evaluation: metrics over the held-out rows of all sites, from sums alone.

The server learns the confusion matrix, the sum of the log losses, and histograms of the scores of all
rows together; of single sites only how many lie in which bin of accuracy, not which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Column
from fedcore.errors import TaskError
from fedcore.evaluation.metrics import confusion_matrix, macro_f1
from fedcore.learner import Abilities, Labelled, Learner, Metrics, Parameters, Rows
from fedcore.rounds.questions import TaskKind

BINS = 200  # of scores: the AUC is exact up to pairs within one bin
SITE_BINS = 50  # of a site's own accuracy
_LOG_CAP = 35.0  # largest loss of a row: that of a probability of 1e-15
_TINY = 1e-15
_CLEAR = 20.0
_REGRESSION = ("rows", "squared", "absolute", "label", "label squared", "beyond")  # in ranges of the label


def dimension(classes: int) -> int:
    """Values of an EVALUATE task: confusion, loss, and scores of rows of the class and of the rest.

    classes  0: the label is a number; then rows, squared and absolute error, the label and its square, and
             rows whose error is beyond the range of the label
    """
    if not classes:
        return len(_REGRESSION)
    return classes * classes + 1 + 2 * BINS * _curves(classes)


def _curves(classes: int) -> int:
    return 1 if classes == 2 else classes


def answer(
    kind: TaskKind, learner: Learner[Any], parameters: Parameters, classes: int, target: Column | None = None
) -> Callable[[Rows], NDArray[np.float64]]:
    """Return what computes a site's part from its rows, each value in [0, 1].

    target  bounds of a label that is a number; None: it is one of the classes
    raises  TaskError: the learner gives no scores, or no numbers; what is returned: it failed, or labels are
            no classes. A row whose scores are not finite counts as one about which the model says nothing.
    """
    if kind not in {TaskKind.EVALUATE, TaskKind.SITES}:
        raise TaskError(f"task.kind: {kind} is no evaluation")
    found = Abilities.of(learner)
    if target is None and found.scoring is None:
        raise TaskError(f"evaluation: {type(learner).__name__} gives no class probabilities")
    if target is not None and found.predicting is None:
        raise TaskError(f"evaluation: {type(learner).__name__} predicts no numbers")

    def compute(rows: Rows) -> NDArray[np.float64]:
        if not isinstance(rows, Labelled):
            raise TaskError(f"evaluation: {type(rows).__name__} has no labels")
        try:
            said = found.predicting.predict if target is not None else found.scoring.scores  # type: ignore[union-attr]
            scores: NDArray[np.float64] = np.asarray(said(parameters, rows), float)
            labels: NDArray[Any] = np.asarray(rows.labels)
        except TaskError:
            raise
        except Exception as error:  # a learner is foreign code
            raise TaskError(f"evaluation: the learner failed with {type(error).__name__}") from error
        if target is not None:
            return _of_numbers(kind, labels, scores, target)
        return _of_classes(kind, labels, scores, classes)

    return compute


def _of_classes(
    kind: TaskKind, labels: NDArray[np.int64], scores: NDArray[np.float64], classes: int
) -> NDArray[np.float64]:
    if scores.shape != (len(labels), classes):
        raise TaskError(f"scores: must be {len(labels)} by {classes}, are {scores.shape}")
    scores = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, 1 / classes)
    if not ((labels >= 0) & (labels < classes)).all():  # -1 would count from the end
        raise TaskError(f"labels: must be in 0..{classes - 1}")
    if kind is TaskKind.SITES:
        hits = int(np.count_nonzero(scores.argmax(axis=1) == labels))
        return _vote(hits * SITE_BINS // len(labels))  # whole numbers: .58 * 50 is below 29
    return _sums(labels, scores) / len(labels)


def _vote(place: int) -> NDArray[np.float64]:
    return np.bincount([min(max(place, 0), SITE_BINS - 1)], minlength=SITE_BINS).astype(float)


def _of_numbers(
    kind: TaskKind, labels: NDArray[np.float64], guesses: NDArray[np.float64], target: Column
) -> NDArray[np.float64]:
    if guesses.shape != labels.shape:
        raise TaskError(f"predictions: must be ({len(labels)},), are {guesses.shape}")
    width = target.high - target.low
    error, place = (guesses - labels) / width, (labels - target.low) / width
    if not ((place >= 0) & (place <= 1)).all():
        raise TaskError(f"labels: must be in [{target.low:g}, {target.high:g}]")
    within = np.abs(error) <= 1  # what is not finite is not
    error = np.where(within, error, 1.0)
    if kind is TaskKind.SITES:
        spread = float(np.var(place))
        return _vote(int((1 - float((error**2).mean()) / spread) * SITE_BINS) if spread else 0)
    parts = (np.ones(len(labels)), error**2, np.abs(error), place, place**2, ~within)
    return np.array([float(np.mean(part)) for part in parts])


def _sums(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    classes = scores.shape[1]
    confusion = confusion_matrix(labels, scores.argmax(axis=1), classes)
    hit = np.clip(scores[np.arange(len(labels)), labels], _TINY, 1.0)
    parts = [confusion.ravel().astype(float), np.array([-np.log(hit).sum() / _LOG_CAP])]
    for label in [1] if classes == 2 else range(classes):
        bins = np.clip((scores[:, label] * BINS).astype(int), 0, BINS - 1)
        parts += [np.bincount(bins[labels == label], minlength=BINS).astype(float)]
        parts += [np.bincount(bins[labels != label], minlength=BINS).astype(float)]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Metrics of all rows of all sites, from sums.

    metrics    accuracy, auc (binned: pairs of rows within a bin of scores count half), log_loss, macro_f1;
               the AUC is NaN when all rows are of one class. Of two classes also precision, recall,
               average_precision and ks, of the second. Of numbers: mse, mae, r2, and `beyond`, the
               share of rows whose error is larger than the range of the label, and counts as the range; a
               metric that is too small within that range for the sums to tell is NaN: narrower bounds help
    confusion  (classes, classes) counts: row is the label, column the guess
    rows       evaluated, without those of sites that had nothing to say; where weights are capped, a
               site's count at most the cap, and the counts are rounded
    """

    metrics: Metrics
    confusion: NDArray[np.int64]
    rows: int


def to_evaluation(
    mean: NDArray[np.float64],
    rows: int,
    classes: int,
    target: Column | None = None,
    resolution: float = 0.0,
) -> Evaluation:
    """Metrics from the aggregated means over `rows` rows.

    resolution  error bound of the means: metrics of numbers that it could change by a twentieth are NaN
    raises      TaskError: no site could evaluate
    """
    if target is not None:
        return _to_regression(mean, rows, target, _CLEAR * resolution)
    cells = classes * classes
    evaluated = int(np.rint(mean[:cells].sum() * rows))
    if evaluated < 1:
        raise TaskError("evaluation: no site could evaluate its rows")
    confusion = np.rint(mean[:cells] * rows).astype(np.int64).reshape(classes, classes)
    curves = np.rint(mean[cells + 1 :] * rows).reshape(_curves(classes), 2, BINS)
    areas = [area for area in map(_area, curves) if area is not None]
    metrics = {
        "accuracy": float(np.trace(confusion) / evaluated),
        "auc": float(np.mean(areas)) if areas else float("nan"),
        "log_loss": float(mean[cells] * _LOG_CAP * (rows / evaluated)),
        "macro_f1": macro_f1(confusion),
    }
    if classes == 2:
        metrics |= _of_the_second(confusion, curves[0])
    return Evaluation(metrics, confusion, evaluated)


def _of_the_second(confusion: NDArray[np.int64], curve: NDArray[np.float64]) -> Metrics:
    """Metrics of the second of two classes, NaN where there are no such rows or guesses.

    The area under precision and recall is the average precision, and KS the largest distance of the two
    distributions of scores, both over the edges of the bins.
    """
    inside, outside = (np.cumsum(rows[::-1]) for rows in curve)  # rows at or above each edge
    nan = float("nan")
    metrics = {
        "precision": float(confusion[1, 1] / confusion[:, 1].sum()) if confusion[:, 1].any() else nan,
        "recall": float(confusion[1, 1] / confusion[1].sum()) if confusion[1].any() else nan,
        "average_precision": nan,
        "ks": nan,
    }
    if inside[-1]:
        found = inside / np.maximum(inside + outside, 1)
        metrics["average_precision"] = float(np.diff(inside, prepend=0) @ found / inside[-1])
    if inside[-1] and outside[-1]:
        metrics["ks"] = float(np.abs(inside / inside[-1] - outside / outside[-1]).max())
    return metrics


def _to_regression(mean: NDArray[np.float64], rows: int, target: Column, least: float) -> Evaluation:
    evaluated = int(np.rint(mean[0] * rows))
    if evaluated < 1:
        raise TaskError("evaluation: no site could evaluate its rows")
    _, squared, absolute, label, square, beyond = mean / mean[0]
    width, spread = target.high - target.low, square - label**2
    nan = float("nan")
    metrics = {
        "mse": float(squared * width**2) if squared > least else nan,
        "mae": float(absolute * width) if absolute > least else nan,
        "r2": float(1 - squared / spread) if spread > max(least, 0.0) else nan,
        "beyond": float(beyond),
    }
    return Evaluation(metrics, np.zeros((0, 0), np.int64), evaluated)


def _area(curve: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve from histograms of scores; ties within a bin count half."""
    inside, outside = curve
    pairs = inside.sum() * outside.sum()
    if not pairs:
        return None
    below = np.concatenate([[0.0], np.cumsum(outside)[:-1]])
    return float((inside * (below + outside / 2)).sum() / pairs)


@dataclass(frozen=True, slots=True, eq=False)
class SiteSpread:
    """Spread of the accuracies of single sites, or their R squared, to the width of a bin, 1 / SITE_BINS.

    counts  (SITE_BINS,) sites by bin
    """

    counts: NDArray[np.int64]

    @property
    def worst(self) -> float:
        """Lower end of the lowest bin with a site: no site is below it."""
        return float(np.flatnonzero(self.counts)[0] / SITE_BINS)

    @property
    def median(self) -> float:
        """Middle of the bin in which the median site lies."""
        half = np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2)
        return float((half + 0.5) / SITE_BINS)


def to_spread(mean: NDArray[np.float64], sites: int) -> SiteSpread:
    """Spread from the aggregated means over `sites` sites, one vote each."""
    return SiteSpread(np.rint(mean * sites).astype(np.int64))
