"""Estimators of scikit-learn that go on from given parameters. None can be steered: no hook is in a step."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.evaluation.metrics import classification_metrics, regression_metrics
from fedcore.learner import Metrics, Parameters
from fedcore.learners.models import Examples, softmax
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner
from fedcore.settings import at_least, positive, require, settle

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier

__all__ = ["LogisticRegressionLearner", "SklearnPerceptron", "SklearnRegression"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SklearnRegression:
    """A linear model by SGDRegressor; labels are the targets.

    Of sparse features scikit-learn moves the intercept at a hundredth of the rate.

    features  of the task
    loss      "squared_error", or "huber" with `epsilon`, from which on an error counts linearly
    epochs    passes over a site's rows in a round; rate: constant; penalty: L2, of the coefficients
    raises    SettingError
    """

    features: int
    loss: Literal["squared_error", "huber"] = "squared_error"
    epochs: int = 2
    rate: float = 0.01
    penalty: float = 0.0
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "rate", "epsilon")
        at_least(self, 1, "features", "epochs")
        at_least(self, 0, "penalty")
        require(self.loss in ("squared_error", "huber"), "loss", "squared_error or huber", self.loss)

    def initial(self) -> Parameters:
        """All zero."""
        return {"coefficients": np.zeros(self.features), "intercept": np.zeros(1)}

    def fit(self, parameters: Parameters, rows: Examples, seed: int) -> Parameters:
        """Train for `epochs`. Raises TaskError without rows."""
        from sklearn.linear_model import SGDRegressor

        model = SGDRegressor(
            loss=self.loss,
            alpha=self.penalty,
            epsilon=self.epsilon,
            learning_rate="constant",
            eta0=self.rate,
        )
        model.coef_ = parameters["coefficients"].copy()
        model.intercept_ = parameters["intercept"].copy()
        model.t_ = 1.0
        model.n_features_in_ = self.features
        for random_state in _states(rows, seed, self.epochs):
            model.set_params(random_state=random_state)
            model.partial_fit(rows.features, rows.labels)
        return {"coefficients": model.coef_, "intercept": model.intercept_}

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Mean squared and absolute error, and R squared."""
        return regression_metrics(rows.labels, self.predict(parameters, rows))

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return (rows,)."""
        return np.asarray(rows.features @ parameters["coefficients"] + parameters["intercept"])


@dataclass(frozen=True, slots=True, kw_only=True)
class SklearnPerceptron:
    """Rectified layers by MLPClassifier under SGD. The output of two classes is a single logit.

    features, classes  of the task; hidden: units of each hidden layer
    epochs, batch_size, rate, momentum  of a round; penalty: L2 of the weights, over the rows of a batch
    seed               of the initial weights: every site must use the same
    raises             SettingError
    """

    features: int
    classes: int
    hidden: tuple[int, ...] = (100,)
    epochs: int = 1
    batch_size: int = 32
    rate: float = 0.1
    momentum: float = 0.0
    penalty: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "rate")
        at_least(self, 1, "features", "epochs", "batch_size")
        at_least(self, 2, "classes")
        at_least(self, 0, "penalty")
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        require(min(self.hidden, default=1) >= 1, "hidden", "at least 1 unit each", self.hidden)

    def initial(self) -> Parameters:
        """Uniform weights of variance 2 / (inputs + outputs) (Glorot and Bengio 2010), no biases."""
        rng = np.random.default_rng(self.seed)
        sizes = (self.features, *self.hidden, 1 if self.classes == 2 else self.classes)
        out: Parameters = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            bound = math.sqrt(6 / (inputs + outputs))
            out[f"layer{i}.weights"] = rng.uniform(-bound, bound, (inputs, outputs))
            out[f"layer{i}.biases"] = np.zeros(outputs)
        return out

    def fit(self, parameters: Parameters, rows: Examples, seed: int) -> Parameters:
        """Train for `epochs`. Examples of a single class are fine. Raises TaskError without rows."""
        states = _states(rows, seed, self.epochs)
        model = self._started(parameters, rows)
        for random_state in states:
            model.set_params(random_state=random_state)
            model.partial_fit(rows.features, rows.labels)
        out: Parameters = {}
        for i, (weights, biases) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
            out |= {f"layer{i}.weights": weights, f"layer{i}.biases": biases}
        return out

    def _started(self, parameters: Parameters, rows: Examples) -> MLPClassifier:
        """Return an estimator with these parameters that `partial_fit` goes on from.

        There is no public way to begin but a step: one is taken, and undone.
        """
        from sklearn.neural_network import MLPClassifier

        size = min(self.batch_size, len(rows))
        model = MLPClassifier(
            self.hidden,
            solver="sgd",
            alpha=self.penalty,
            batch_size=size,
            learning_rate_init=self.rate,
            momentum=self.momentum,
            nesterovs_momentum=False,
            random_state=0,
        )
        first = rows.take(np.arange(size))
        model.partial_fit(first.features, first.labels, classes=np.arange(self.classes))
        model.coefs_ = [parameters[f"layer{i}.weights"].copy() for i in range(len(model.coefs_))]
        model.intercepts_ = [parameters[f"layer{i}.biases"].copy() for i in range(len(model.coefs_))]
        vars(model).pop("_optimizer", None)  # holds the momentum of that step
        return model

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities, (rows, classes)."""
        values = rows.features
        for i in range(len(self.hidden) + 1):
            after = values @ parameters[f"layer{i}.weights"] + parameters[f"layer{i}.biases"]
            values = np.maximum(after, 0) if i < len(self.hidden) else np.asarray(after)
        if self.classes == 2:  # a single logit; that of the other class is zero
            values = np.hstack([np.zeros_like(values), values])
        return softmax(values)

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Accuracy, AUC, log loss, macro F1."""
        return classification_metrics(rows.labels, self.scores(parameters, rows))


def _states(rows: Examples, seed: int, epochs: int) -> list[int]:
    """Return one random state per epoch, so that each has its own order. Raises TaskError without rows."""
    if not len(rows):
        raise TaskError("rows: there are none to train on")
    return [int(state) for state in np.random.SeedSequence(seed).generate_state(epochs)]
