"""Logistic regression by scikit-learn's SGDClassifier: a few local epochs from the round's parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.data.table import Table
from fedcore.evaluation.metrics import areas
from fedcore.learner import Metrics, Parameters
from fedcore.learners.models import check_class_weights, softmax
from fedcore.settings import at_least, positive, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticRegressionLearner:
    """Linear model: one row of coefficients for two classes, one per class (one against the rest) for more.

    features, classes  of the task
    epochs             passes over a site's rows in a round
    learning_rate      constant; alpha: L2 penalty
    class_weights      factors of the steps of rows, by their class; none: 1
    raises             SettingError
    """

    features: int
    classes: int
    epochs: int = 2
    learning_rate: float = 0.02
    alpha: float = 1e-3
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        settle(self)
        check_class_weights(self.class_weights, self.classes)
        positive(self, "learning_rate", "alpha")
        at_least(self, 1, "epochs")

    def initial(self) -> Parameters:
        """All zero."""
        rows = 1 if self.classes == 2 else self.classes
        return {"coefficients": np.zeros((rows, self.features)), "intercepts": np.zeros(rows)}

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        """Train for `epochs`. A table with a single class is fine."""
        from sklearn.linear_model import SGDClassifier

        model = SGDClassifier(
            loss="log_loss",
            alpha=self.alpha,
            learning_rate="constant",
            eta0=self.learning_rate,
            random_state=seed,
        )
        classes = np.arange(self.classes)
        model.classes_ = classes
        model.coef_ = parameters["coefficients"].copy()
        model.intercept_ = parameters["intercepts"].copy()
        model.t_ = 1.0
        model.n_features_in_ = self.features
        weights = np.asarray(self.class_weights)[table.labels] if self.class_weights else None
        for _ in range(self.epochs):
            model.partial_fit(table.features, table.labels, classes=classes, sample_weight=weights)
        return {"coefficients": model.coef_, "intercepts": model.intercept_}

    def scores(self, parameters: Parameters, table: Table) -> NDArray[np.float64]:
        """Return class probabilities, (rows, classes); more than two classes: softmax of the scores."""
        logits = table.features @ parameters["coefficients"].T + parameters["intercepts"]
        return softmax(np.column_stack([-logits / 2, logits / 2]) if self.classes == 2 else logits)

    def evaluate(self, parameters: Parameters, table: Table) -> Metrics:
        """Accuracy, and area under the ROC curve (more than two classes: mean of one against the rest).

        The area is NaN when all rows are of one class.
        """
        scores = self.scores(parameters, table)
        accuracy = float((scores.argmax(axis=1) == table.labels).mean())
        return {"accuracy": accuracy, "auc": float(np.mean(areas(table.labels, scores) or np.nan))}
