"""The numpy models: gradients are those of the loss, and scores are probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedcore.data.table import Table
from fedcore.errors import SettingError, TaskError
from fedcore.learners import Classifier, LinearRegression, Perceptron, SoftmaxRegression
from fedcore.learners.kinds import read_learner
from fedcore.learners.models import softmax
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from tests.fedcore.learners.numerics import assert_close, clouds, jitter, line, numerical_gradient, sparse

CASES: list[tuple[Any, Any]] = [
    (LinearRegression(4), line()),
    (LinearRegression(4, penalty=0.3), line()),
    (SoftmaxRegression(4, 2), clouds(2)),
    (SoftmaxRegression(4, 3, penalty=0.3), clouds(3)),
    (Perceptron(4, 3, hidden=(5,)), clouds(3)),
    (Perceptron(4, 3, hidden=(6, 5), penalty=0.3), clouds(3)),
    (Perceptron(4, 2, hidden=()), clouds(2)),
    (SoftmaxRegression(4, 3, 0.3, (1.0, 2.0, 0.5)), clouds(3)),
    (Perceptron(4, 3, hidden=(5,), class_weights=(1.0, 2.0, 0.5)), clouds(3)),
]


@pytest.mark.parametrize(("model", "rows"), CASES, ids=lambda case: repr(case)[:50])
@pytest.mark.parametrize("as_sparse", [False, True], ids=["dense", "sparse"])
def test_the_gradient_is_that_of_the_loss(model: Any, rows: Any, as_sparse: bool) -> None:
    rows = sparse(rows) if as_sparse else rows
    at = jitter(model.initial())
    expected = numerical_gradient(lambda parameters: model.loss(parameters, rows), at)
    assert_close(model.gradient(at, rows), expected, 1e-6)


@pytest.mark.parametrize(("model", "rows"), CASES[2:], ids=lambda case: repr(case)[:50])
def test_scores_are_probabilities_and_lead_to_the_loss(model: Any, rows: Table) -> None:
    at = jitter(model.initial())
    scores = model.scores(at, rows)
    assert scores.shape == (len(rows), model.classes)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores > 0).all()
    hit = scores[np.arange(len(rows)), rows.labels] ** np.array(model.class_weights or [1.0] * 9)[rows.labels]
    squares = sum((array**2).sum() for array in at.values() if array.ndim == 2)
    assert model.loss(at, rows) == pytest.approx(-np.log(hit).mean() + model.penalty * squares / 2)


def test_only_classifiers_have_scores() -> None:
    assert isinstance(SoftmaxRegression(2, 2), Classifier)
    assert isinstance(Perceptron(2, 2), Classifier)
    assert not isinstance(LinearRegression(2), Classifier)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("model", [SoftmaxRegression(4, 3), Perceptron(4, 3, hidden=(5,))])
def test_a_label_out_of_range_is_refused(model: Any, label: int) -> None:
    rows = Table(np.ones((2, 4)), np.array([0, label]))
    with pytest.raises(TaskError, match=r"labels: must be in 0\.\.2"):
        model.gradient(model.initial(), rows)


def test_the_perceptron_starts_alike_everywhere_and_elsewhere_with_another_seed() -> None:
    one, same, other = (Perceptron(4, 3, seed=seed).initial() for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["layer0.weights"], other["layer0.weights"])
    shapes = [one[f"layer{i}.weights"].shape for i in range(3)]
    assert shapes == [(4, 200), (200, 200), (200, 3)]
    assert one["layer1.weights"].var() == pytest.approx(2 / 200, rel=0.05)


def test_large_logits_neither_overflow_nor_warn() -> None:
    scores = softmax(np.array([[1e4, 0.0], [-1e308, 1e300], [5.0, 5.0]]))
    assert scores.tolist() == [[1, 0], [0, 1], [0.5, 0.5]]


def test_least_squares_are_found_where_the_gradient_vanishes() -> None:
    rows, model = line(), LinearRegression(4)
    wide = np.hstack([rows.features, np.ones((len(rows), 1))])
    best = np.linalg.lstsq(wide, rows.labels, rcond=None)[0]
    at = {"coefficients": best[:4], "intercept": best[4:]}
    assert all(np.abs(array).max() < 1e-10 for array in model.gradient(at, rows).values())
    assert model.evaluate(at, rows)["r2"] > 0.99
    assert 2 * model.loss(at, rows) == pytest.approx(model.evaluate(at, rows)["mse"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearRegression(0), "features: must be at least 1, is 0"),
        (lambda: LinearRegression(3, penalty=-1.0), r"penalty: must be finite and at least 0, is -1\.0"),
        (lambda: SoftmaxRegression(-5, 2), "features: must be at least 1, is -5"),
        (lambda: SoftmaxRegression(3, 1), "classes: must be at least 2, is 1"),
        (lambda: SoftmaxRegression(3, 2, float("nan")), "penalty: must be a number, is nan"),
        (
            lambda: Perceptron(3, 2, hidden=(4, 0)),
            r"hidden: must be at least 1 unit each, is \(4, 0\)",
        ),
    ],
)
def test_sizes_that_make_no_model_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda w: SoftmaxRegression(4, 3, 0.1, w), lambda w: Perceptron(4, 3, (5,), 1, 0.1, w)]
)
def test_class_weights_count_a_row_as_so_many(make: Callable[[tuple[float, ...]], Any]) -> None:
    rows = clouds()
    more = rows.take(np.concatenate([np.arange(len(rows)), *[np.flatnonzero(rows.labels == 2)] * 2]))
    plain, weighted = make(()), make((1.0, 1.0, 3.0))
    parameters = {name: array + 0.1 for name, array in plain.initial().items()}
    scale = len(more) / len(rows)  # means over more rows
    for name, slope in weighted.gradient(parameters, rows).items():
        penalty = 0.1 * parameters[name] * (parameters[name].ndim == 2)
        np.testing.assert_allclose(
            slope - penalty, scale * (plain.gradient(parameters, more)[name] - penalty), atol=1e-12
        )
    for name, slopes in weighted.row_gradients(parameters, rows).items():
        np.testing.assert_allclose(slopes.mean(axis=0), weighted.gradient(parameters, rows)[name], atol=1e-12)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0, 1.0), (1.0, np.inf, 1.0), (1.0, -1.0, 1.0)])
def test_class_weights_are_a_positive_one_for_each_class(weights: tuple[float, ...]) -> None:
    for make in (SoftmaxRegression, Perceptron, LogisticRegressionLearner):
        with pytest.raises(SettingError, match="class_weights: must be 3 positive numbers, one"):
            make(features=4, classes=3, class_weights=weights)


def test_class_weights_of_an_agreement_find_more_of_the_rare_class() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(600) < 0.1).astype(np.int64)
    rows = Table(rng.normal(size=(600, 2)) + 1.2 * labels[:, None], labels)
    for kind in ("softmax", "logistic", "perceptron"):
        found = []
        for table in ({}, {"class_weights": [1.0, 9.0]}):
            learner = read_learner({"kind": kind, "epochs": 5, **table}, features=2, classes=2)
            scores = learner.scores(learner.fit(learner.initial(), rows, 0), rows)  # type: ignore[attr-defined]
            found.append(int((scores.argmax(axis=1) == 1).sum()))
        assert found[1] > 1.5 * found[0] > 0
