"""Gradients in which no single row weighs more than a bound: what privacy of persons within sites needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.shaping import Shaping
from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters, flatten, unflatten
from fedcore.learners.models import Examples, Model, classifier
from fedcore.settings import positive


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonClipped:
    """A learner whose gradient is the sum of the rows' own, each clipped, over a public number of rows.

    model     of one row each
    clip      L2 norm of a row's gradient (Abadi et al., CCS 2016, algorithm 1)
    expected  rows that the sum is divided by, the same at every site: the true number stays private
    One row changes the site's vector by `sensitivity` at most. Only updates that are gradients make sense.
    raises    SettingError
    """

    model: Model
    clip: float
    expected: float

    def __post_init__(self) -> None:
        positive(self, "clip", "expected")

    @property
    def sensitivity(self) -> float:
        """L2 norm of what one row adds to a site's vector."""
        return self.clip / self.expected

    def initial(self) -> Parameters:
        """Return the model's."""
        return self.model.initial()

    def fit(self, parameters: Parameters, rows: Examples, seed: int) -> Parameters:
        """Refuse: local training bounds no row. Raises TaskError."""
        raise TaskError("fit: rows are clipped in gradients only; ask for updates that are gradients")

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the sum of clipped gradients over the expected rows.

        A row whose gradient is not finite counts nothing: it must not decide whether there is a sum.
        """
        total = np.zeros(flatten(parameters).size)
        for i in range(len(rows)):
            one = flatten(self.model.gradient(parameters, rows.take(np.array([i]))))
            if np.isfinite(one).all():
                total += Shaping(norm=self.clip).clip(one)[0]
        return unflatten(total / self.expected, parameters)

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Return the model's metrics."""
        return self.model.evaluate(parameters, rows)

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities. Raises TaskError for models that have none."""
        return classifier(self.model).scores(parameters, rows)
