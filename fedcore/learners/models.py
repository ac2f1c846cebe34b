"""Reference models in numpy: initial parameters, gradient of the mean loss, scores. `LocalSGD` trains them.

Features may be a dense array or a scipy sparse matrix, (rows, columns).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol, Self, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.evaluation.metrics import classification_metrics, regression_metrics
from fedcore.learner import Labelled, Metrics, Parameters
from fedcore.settings import at_least, require, settle

LARGEST_LOG = 30.0  # of a count's mean: a step too far stays finite


class Examples(Labelled, Protocol):
    """Rows with features (rows, columns) and labels (rows,), such as a Table."""

    @property
    def features(self) -> NDArray[np.float64]: ...
    def take(self, rows: NDArray[np.int64], /) -> Self:
        """Return these examples."""


class Model(Protocol):
    """A differentiable model that `LocalSGD` trains."""

    def initial(self) -> Parameters:
        """Return the parameters that training starts from."""

    def gradient(self, parameters: Parameters, rows: Examples, /) -> Parameters:
        """Return the gradient of the mean loss, by name."""

    def loss(self, parameters: Parameters, rows: Examples, /) -> float:
        """Return the mean loss."""

    def evaluate(self, parameters: Parameters, rows: Examples, /) -> Metrics:
        """Return metrics by name."""


@runtime_checkable
class Classifier(Model, Protocol):
    """A model that gives class probabilities."""

    def scores(self, parameters: Parameters, rows: Examples, /) -> NDArray[np.float64]:
        """Return class probabilities, (rows, classes)."""


def classifier(model: Model) -> Classifier:
    """Return the same model. Raises TaskError: it gives no class probabilities."""
    if not isinstance(model, Classifier):
        raise TaskError(f"scores: {type(model).__name__} is no classifier")
    return model


@runtime_checkable
class RowGradients(Model, Protocol):
    """A model that gives the gradient of each row at once."""

    def row_gradients(self, parameters: Parameters, rows: Examples, /) -> Parameters:
        """Return by name the gradients of the losses of single rows, (rows, *shape)."""


@runtime_checkable
class Regression(Model, Protocol):
    """A model that gives numbers."""

    def predict(self, parameters: Parameters, rows: Examples, /) -> NDArray[np.float64]:
        """Return predicted numbers, (rows,)."""


def regression(model: Model) -> Regression:
    """Return the same model. Raises TaskError: it gives class probabilities."""
    if not is_regression(model):
        raise TaskError(f"predict: {type(model).__name__} is no regression")
    return model


def is_regression(model: object) -> TypeGuard[Regression]:
    """Tell whether a model gives numbers and no class probabilities."""
    return isinstance(model, Regression) and not isinstance(model, Classifier)


class _Line:
    """The common part of regressions: a mean that follows from a linear function of the features."""

    __slots__ = ()
    features: int
    penalty: float  # L2, of the coefficients

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 1, "features")
        at_least(self, 0, "penalty")

    def initial(self) -> Parameters:
        """All zero."""
        return {"coefficients": np.zeros(self.features), "intercept": np.zeros(1)}

    def line(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return the linear function, (rows,)."""
        return np.asarray(rows.features @ parameters["coefficients"] + parameters["intercept"])

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        raise NotImplementedError

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradient of the loss: of both, the error times the features."""
        error = self.predict(parameters, rows) - rows.labels
        slope = np.asarray(rows.features.T @ error) / len(rows)
        return {
            "coefficients": slope + self.penalty * parameters["coefficients"],
            "intercept": np.array([error.mean()]),
        }

    def row_gradients(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradients of single rows by name, (rows, *shape)."""
        error = (self.predict(parameters, rows) - rows.labels)[:, None]
        slopes = error * _dense(rows) + self.penalty * parameters["coefficients"]
        return {"coefficients": slopes, "intercept": error}

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Mean squared and absolute error, and R squared."""
        return regression_metrics(rows.labels, self.predict(parameters, rows))


@dataclass(frozen=True, slots=True)
class LinearRegression(_Line):
    """Least squares: half the squared error; labels are the targets. Raises SettingError."""

    features: int
    penalty: float = 0.0  # L2, of the coefficients

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return (rows,)."""
        return self.line(parameters, rows)

    def loss(self, parameters: Parameters, rows: Examples) -> float:
        """Half the mean squared error and the penalty."""
        error = self.predict(parameters, rows) - rows.labels
        return float((error**2).mean() + self.penalty * (parameters["coefficients"] ** 2).sum()) / 2


@dataclass(frozen=True, slots=True)
class PoissonRegression(_Line):
    """Counts, of which the logarithm of the mean is linear; labels are the counts. Raises SettingError."""

    features: int
    penalty: float = 0.0  # L2, of the coefficients

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return means, (rows,)."""
        return np.exp(np.minimum(self.line(parameters, rows), LARGEST_LOG))

    def loss(self, parameters: Parameters, rows: Examples) -> float:
        """Negative log likelihood, but for what depends on the labels alone, and the penalty."""
        error = self.predict(parameters, rows) - rows.labels * self.line(parameters, rows)
        return float(error.mean() + self.penalty * (parameters["coefficients"] ** 2).sum() / 2)


class _Softmax:
    """The common part of classifiers: cross-entropy over `logits`."""

    __slots__ = ()
    classes: int
    penalty: float  # L2, of the matrices
    class_weights: tuple[float, ...]  # factors of the losses of rows, by their class; none: 1

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 1, "features")
        at_least(self, 2, "classes")
        at_least(self, 0, "penalty")
        check_class_weights(self.class_weights, self.classes)

    def _weighted(self, losses: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Multiply values of rows, (rows, ...), by the weights of their classes."""
        if not self.class_weights:
            return losses
        factors = np.asarray(self.class_weights)[labels]
        return np.asarray(losses * factors.reshape(-1, *[1] * (losses.ndim - 1)))

    def logits(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        raise NotImplementedError

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities, (rows, classes)."""
        return softmax(self.logits(parameters, rows))

    def loss(self, parameters: Parameters, rows: Examples) -> float:
        """Mean cross-entropy and the penalty, whose gradient `gradient` is."""
        scores = self.scores(parameters, rows)
        hit = np.maximum(scores[np.arange(len(rows)), rows.labels], 1e-300)
        squares = sum(float((array**2).sum()) for array in parameters.values() if array.ndim == 2)
        return float(-self._weighted(np.log(hit), rows.labels).mean() + self.penalty * squares / 2)

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Accuracy, AUC, log loss, macro F1."""
        return classification_metrics(rows.labels, self.scores(parameters, rows))

    def errors(self, scores: NDArray[np.float64], rows: Examples) -> NDArray[np.float64]:
        """Return the gradient by the logits, (rows, classes), of the mean loss. Raises TaskError."""
        if not (rows.labels.min() >= 0 and rows.labels.max() < self.classes):
            raise TaskError(f"labels: must be in 0..{self.classes - 1}")  # -1 would count from the end
        scores = scores.copy()
        scores[np.arange(len(rows)), rows.labels] -= 1
        return self._weighted(scores, rows.labels) / len(rows)


def check_class_weights(weights: tuple[float, ...], classes: int) -> None:
    """Raise SettingError unless there is none, or a positive one for each class."""
    fine = not weights or (len(weights) == classes and all(0 < one < np.inf for one in weights))
    require(fine, "class_weights", f"{classes} positive numbers, one for each class", weights)


@dataclass(frozen=True, slots=True)
class SoftmaxRegression(_Softmax):
    """Multinomial logistic regression; two classes are the logistic regression of the textbooks.

    class_weights  factors of the losses of rows, by their class; none: 1
    raises         SettingError
    """

    features: int
    classes: int
    penalty: float = 0.0
    class_weights: tuple[float, ...] = ()

    def initial(self) -> Parameters:
        """All zero."""
        return {
            "coefficients": np.zeros((self.features, self.classes)),
            "intercepts": np.zeros(self.classes),
        }

    def logits(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return (rows, classes)."""
        return np.asarray(rows.features @ parameters["coefficients"] + parameters["intercepts"])

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradient of the mean cross-entropy plus the penalty."""
        errors = self.errors(self.scores(parameters, rows), rows)
        return {
            "coefficients": np.asarray(rows.features.T @ errors) + self.penalty * parameters["coefficients"],
            "intercepts": errors.sum(axis=0),
        }

    def row_gradients(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradients of single rows by name, (rows, *shape)."""
        errors = self.errors(self.scores(parameters, rows), rows) * len(rows)
        slopes = _dense(rows)[:, :, None] * errors[:, None, :]
        return {"coefficients": slopes + self.penalty * parameters["coefficients"], "intercepts": errors}


@dataclass(frozen=True, slots=True)
class Perceptron(_Softmax):
    """Layers of rectified units and a softmax: `hidden=(200, 200)` is the 2NN of McMahan et al. (2017).

    seed           of the initial weights (He et al. 2015): every site must use the same
    class_weights  factors of the losses of rows, by their class; none: 1
    raises         SettingError
    """

    features: int
    classes: int
    hidden: tuple[int, ...] = (200, 200)
    seed: int = 0
    penalty: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        settle(self)
        _Softmax.__post_init__(self)
        require(min(self.hidden, default=1) >= 1, "hidden", "at least 1 unit each", self.hidden)

    def initial(self) -> Parameters:
        """Random weights of variance 2 / inputs, no biases."""
        rng = np.random.default_rng(self.seed)
        sizes = (self.features, *self.hidden, self.classes)
        out: Parameters = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            out[f"layer{i}.weights"] = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs))
            out[f"layer{i}.biases"] = np.zeros(outputs)
        return out

    def _forward(self, parameters: Parameters, rows: Examples) -> list[NDArray[np.float64]]:
        """Return what enters each layer, and the logits."""
        values = [rows.features]
        for i in range(len(self.hidden) + 1):
            after = values[-1] @ parameters[f"layer{i}.weights"] + parameters[f"layer{i}.biases"]
            values.append(np.maximum(after, 0) if i < len(self.hidden) else np.asarray(after))
        return values

    def logits(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return (rows, classes)."""
        return self._forward(parameters, rows)[-1]

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradient of the mean cross-entropy plus the penalty, by backpropagation."""
        *values, logits = self._forward(parameters, rows)
        errors = self.errors(softmax(logits), rows)
        out: Parameters = {}
        for i in reversed(range(len(values))):
            weights = parameters[f"layer{i}.weights"]
            out[f"layer{i}.weights"] = np.asarray(values[i].T @ errors) + self.penalty * weights
            out[f"layer{i}.biases"] = errors.sum(axis=0)
            if i:
                errors = (errors @ weights.T) * (values[i] > 0)
        return out

    def row_gradients(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradients of single rows by name, (rows, *shape)."""
        *values, logits = self._forward(parameters, rows)
        values[0] = _dense(rows)
        errors = self.errors(softmax(logits), rows) * len(rows)
        out: Parameters = {}
        for i in reversed(range(len(values))):
            weights = parameters[f"layer{i}.weights"]
            out[f"layer{i}.weights"] = values[i][:, :, None] * errors[:, None, :] + self.penalty * weights
            out[f"layer{i}.biases"] = errors
            if i:
                errors = (errors @ weights.T) * (values[i] > 0)
        return out


def _dense(rows: Examples) -> NDArray[np.float64]:
    return np.asarray(getattr(rows.features, "toarray", lambda: rows.features)())


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from logits, row by row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
