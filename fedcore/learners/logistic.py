"""Binary logistic regression: one weight per feature and an intercept, as in clinical scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.evaluation.metrics import classification_metrics
from fedcore.learner import Metrics, Parameters
from fedcore.learners.models import Examples


@dataclass(frozen=True, slots=True)
class LogisticRegression:
    """The model of a linear layer, a sigmoid and binary cross-entropy.

    penalty  L2, of the coefficients
    """

    features: int
    penalty: float = 0.0

    def initial(self) -> Parameters:
        """All zero."""
        return {"coefficients": np.zeros(self.features), "intercept": np.zeros(1)}

    def logits(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return (rows,)."""
        return np.asarray(rows.features @ parameters["coefficients"] + parameters["intercept"])

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradient of the mean cross-entropy plus the penalty."""
        error = _sigmoid(self.logits(parameters, rows)) - rows.labels
        slope = np.asarray(rows.features.T @ error) / len(rows)
        return {
            "coefficients": slope + self.penalty * parameters["coefficients"],
            "intercept": np.array([error.mean()]),
        }

    def loss(self, parameters: Parameters, rows: Examples) -> float:
        """Mean cross-entropy, without the penalty."""
        logits = self.logits(parameters, rows)
        return float(np.mean(np.logaddexp(0, logits) - logits * rows.labels))

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return probabilities of the two classes, (rows, 2)."""
        ill = _sigmoid(self.logits(parameters, rows))
        return np.column_stack([1 - ill, ill])

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Accuracy, AUC, log loss, macro F1."""
        return classification_metrics(rows.labels, self.scores(parameters, rows))


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(logits / 2)))
