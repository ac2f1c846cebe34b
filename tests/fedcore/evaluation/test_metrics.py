"""Metrics are those of scikit-learn where both are defined, and NaN where there is nothing to measure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore.evaluation.metrics import classification_metrics, confusion_matrix, macro_f1, regression_metrics
from tests.lazy import Lazy

metrics: Any = Lazy("sklearn.metrics")


def draw(classes: int, rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and probabilities that know a little about them; every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % classes)
    logits = rng.normal(size=(rows, classes)) + np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, scores


@settings(max_examples=25)
@given(st.integers(2, 5), st.integers(10, 60), st.integers(0, 999))
def test_metrics_are_those_of_scikit_learn(classes: int, rows: int, seed: int) -> None:
    labels, scores = draw(classes, rows, seed)
    guesses = scores.argmax(axis=1)
    ours = classification_metrics(labels, scores)
    area = scores[:, 1] if classes == 2 else scores
    assert ours == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(labels, guesses),
            "auc": metrics.roc_auc_score(labels, area, multi_class="ovr"),
            "log_loss": metrics.log_loss(labels, scores),
            "macro_f1": metrics.f1_score(labels, guesses, average="macro"),
        }
    )
    theirs = metrics.confusion_matrix(labels, guesses, labels=np.arange(classes))
    assert np.array_equal(confusion_matrix(labels, guesses, classes), theirs)


def test_the_confusion_matrix_has_labels_in_rows_and_guesses_in_columns() -> None:
    confusion = confusion_matrix(np.array([0, 0, 2]), np.array([1, 0, 0]), 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_a_class_that_nobody_has_or_guesses_does_not_count_in_f1() -> None:
    labels, guesses = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    ours = macro_f1(confusion_matrix(labels, guesses, 4))
    assert ours == pytest.approx(metrics.f1_score(labels, guesses, average="macro"))
    assert math.isnan(macro_f1(np.zeros((3, 3), np.int64)))


def test_a_class_that_is_missing_is_left_out_of_the_area() -> None:
    labels, scores = draw(3, 30, 0)
    kept = labels != 2
    area = classification_metrics(labels[kept], scores[kept])["auc"]
    parts = [metrics.roc_auc_score(labels[kept] == label, scores[kept][:, label]) for label in (0, 1)]
    assert area == pytest.approx(np.mean(parts))


def test_rows_of_one_class_have_no_area_but_the_rest() -> None:
    found = classification_metrics(np.zeros(3, np.int64), np.array([[0.9, 0.1]] * 3))
    assert math.isnan(found.pop("auc"))
    assert found == pytest.approx({"accuracy": 1.0, "log_loss": -math.log(0.9), "macro_f1": 1.0})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_give_nan(bad: float) -> None:
    labels, scores = draw(3, 12, 0)
    scores[4, 1] = bad
    found = classification_metrics(labels, scores)
    assert found.keys() == {"accuracy", "auc", "log_loss", "macro_f1"}
    assert all(math.isnan(value) for value in found.values())


def test_no_rows_give_nan() -> None:
    found = classification_metrics(np.zeros(0, np.int64), np.zeros((0, 2)))
    assert len(found) == 4
    assert all(math.isnan(value) for value in found.values())
    assert all(math.isnan(value) for value in regression_metrics(np.zeros(0), np.zeros(0)).values())


def test_certainty_that_is_wrong_costs_much_but_not_everything() -> None:
    found = classification_metrics(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert found["log_loss"] == pytest.approx(-math.log(1e-15) / 2)


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(0, 999))
def test_metrics_of_a_regression_are_those_of_scikit_learn(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, guesses = rng.normal(size=rows), rng.normal(size=rows)
    expected = {
        "mse": metrics.mean_squared_error(targets, guesses),
        "mae": metrics.mean_absolute_error(targets, guesses),
        "r2": metrics.r2_score(targets, guesses),
    }
    assert regression_metrics(targets, guesses) == pytest.approx(expected)
    equal = regression_metrics(np.ones(rows), guesses)
    assert math.isnan(equal["r2"])
    assert equal["mse"] > 0
