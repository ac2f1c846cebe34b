"""A torch module as a `Model`, so that `LowRank` and `LocalSGD` take it. Extra: secagg[torch]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.learner import Metrics, Parameters
from fedcore.learners.models import Examples
from fedcore.learners.torch.learner import TorchLearner


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A learner's module and loss as a `Model`; optimizer, rate and epochs do not matter here.

    `LowRank` adapts the module's matrices as they are stored: of a linear layer, (outputs, inputs).
    Buffers that follow the data do not move under `LocalSGD`: let the learner refuse them.
    """

    learner: TorchLearner

    def initial(self) -> Parameters:
        """Return the module's."""
        return self.learner.initial()

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the gradient of the mean loss."""
        return self.learner.gradient(parameters, rows)

    def loss(self, parameters: Parameters, rows: Examples) -> float:
        """Return the mean loss, and weight decay as a penalty."""
        return self.learner.mean_loss(parameters, rows)

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Return the learner's metrics."""
        return self.learner.evaluate(parameters, rows)

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities. Raises TaskError for a regression."""
        return self.learner.scores(parameters, rows)
