"""The linear tagger: one logistic regression per tag against the rest, trained by plain SGD.

scikit-learn's SGDClassifier does the steps. A block of documents has few of the features, so it trains on
those columns only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.tasks.ner_data import TAGS, Sentences
from bench.tasks.ner_metrics import ner_metrics
from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters
from secagg import ParameterError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import SGDClassifier


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceLearner:
    """Parameters: coefficients (buckets, 9) and intercepts (9,).

    buckets  columns of the rows' features
    epochs   passes over the tokens in a round, in an order drawn from the seed
    rate     learning rate, constant within a round; `at_rate` gives the learner of another round
    alpha    L2 penalty
    raises   ParameterError
    """

    buckets: int
    epochs: int = 1
    rate: float = 0.3
    alpha: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("buckets", "epochs"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name}: must be at least 1, is {getattr(self, name)}")
        for name in ("rate", "alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ParameterError(f"{name}: must be positive and finite, is {value}")

    def at_rate(self, rate: float) -> SentenceLearner:
        """Return the same learner with another learning rate."""
        return replace(self, rate=rate)

    def initial(self) -> Parameters:
        """All zero."""
        return {"coefficients": np.zeros((self.buckets, len(TAGS))), "intercepts": np.zeros(len(TAGS))}

    def fit(self, parameters: Parameters, rows: Sentences, seed: int) -> Parameters:
        """Train. Raises TaskError when there are no rows, or rows with other columns."""
        self._check(rows)
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        columns, part = _used(rows.features)
        model = self._model(parameters["coefficients"][columns], parameters["intercepts"], seed)
        for _ in range(self.epochs):
            model.partial_fit(part, rows.labels)
        coefficients = parameters["coefficients"].copy()
        # The penalty would also shrink the rest, by less than 1 - rate * alpha a step: left out.
        coefficients[columns] = model.coef_.T
        return {"coefficients": coefficients, "intercepts": model.intercept_}

    def _model(
        self, coefficients: NDArray[np.float64], intercepts: NDArray[np.float64], seed: int
    ) -> SGDClassifier:
        """Return a classifier that goes on from these parameters, with all tags known to it."""
        from sklearn.linear_model import SGDClassifier

        model = SGDClassifier(
            loss="log_loss", alpha=self.alpha, learning_rate="constant", eta0=self.rate, random_state=seed
        )
        model.classes_ = np.arange(len(TAGS))
        model.coef_ = np.ascontiguousarray(coefficients.T)
        model.intercept_ = intercepts.copy()
        model.t_ = 1.0
        model.n_features_in_ = len(coefficients)
        return model

    def guesses(self, parameters: Parameters, rows: Sentences) -> NDArray[np.int64]:
        """Return the likeliest tag of each token, (tokens,), each by itself."""
        self._check(rows)
        scores = rows.features @ parameters["coefficients"] + parameters["intercepts"]
        return np.asarray(scores.argmax(axis=1), np.int64)

    def evaluate(self, parameters: Parameters, rows: Sentences) -> Metrics:
        """Return those of `ner_metrics`."""
        return ner_metrics(rows.labels, self.guesses(parameters, rows), rows.sentences)

    def _check(self, rows: Sentences) -> None:
        if rows.features.shape[1] != self.buckets:
            raise TaskError(f"rows: {self.buckets} columns are needed, got {rows.features.shape[1]}")


def _used(features: csr_matrix) -> tuple[NDArray[np.int64], csr_matrix]:
    """Return the columns in use, ascending, and the matrix of these alone."""
    from scipy.sparse import csr_matrix

    columns, places = np.unique(features.indices, return_inverse=True)
    shape = (features.shape[0], len(columns))
    return columns, csr_matrix((features.data, places.astype(np.int32), features.indptr), shape=shape)
