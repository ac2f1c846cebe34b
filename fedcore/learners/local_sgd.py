"""Local training by stochastic gradient descent, with everything that strategies may ask of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import LocalFit, Metrics, Parameters, Steering
from fedcore.learners.models import Classifier, Model, Rows
from fedcore.learners.steering import batches, check_steering, reach
from secagg import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSGD:
    """A steerable learner over any `Model`.

    epochs      passes over the rows in a round; steps: so many steps instead, if given
    batch_size  rows of a step; None: all of them
    rate        learning rate, constant within a round
    momentum    heavy ball, starting from rest in every round
    raises      ParameterError
    """

    model: Model
    epochs: int = 1
    steps: int | None = None
    batch_size: int | None = 32
    rate: float = 0.1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ParameterError(f"rate: must be positive and finite, is {self.rate}")
        if not 0 <= self.momentum < 1:
            raise ParameterError(f"momentum: must be in [0, 1), is {self.momentum}")
        for name in ("epochs", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name}: must be at least 1, is {value}")

    def initial(self) -> Parameters:
        """Return the model's."""
        return self.model.initial()

    def fit(self, parameters: Parameters, rows: Rows, seed: int) -> Parameters:
        """Train without steering."""
        return self.fit_steered(parameters, rows, seed, Steering()).parameters

    def fit_steered(self, parameters: Parameters, rows: Rows, seed: int, steering: Steering) -> LocalFit:
        """Take the steps.

        Raises TaskError without rows, for steering that names no parameter, and when training diverges.
        """
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        check_steering(parameters, steering)
        now = {name: array.copy() for name, array in parameters.items()}
        speed = {name: np.zeros_like(array) for name, array in parameters.items()}
        correction = steering.correction or {}
        rate = self.rate * steering.rate
        plan = batches(len(rows), self.batch_size, seed, epochs=self.epochs, steps=self.steps)
        for batch in plan:
            part = rows if len(batch) == len(rows) else rows.take(batch)
            for name, gradient in self.model.gradient(now, part).items():
                if name in steering.frozen:
                    continue
                total = gradient
                if name in correction:
                    total = total + correction[name]
                if steering.proximal:
                    total = total + steering.proximal * (now[name] - parameters[name])
                if self.momentum:
                    speed[name] = total = self.momentum * speed[name] + total
                now[name] -= rate * total
        if not all(np.isfinite(array).all() for array in now.values()):
            raise TaskError(f"rate: parameters are not finite after {len(plan)} steps of {rate}")
        steps = reach(len(plan), momentum=self.momentum, decay=rate * steering.proximal)
        return LocalFit(now, steps, rate)

    def gradient(self, parameters: Parameters, rows: Rows) -> Parameters:
        """Return the model's gradient over all rows."""
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        return self.model.gradient(parameters, rows)

    def evaluate(self, parameters: Parameters, rows: Rows) -> Metrics:
        """Return the model's metrics."""
        return self.model.evaluate(parameters, rows)

    def scores(self, parameters: Parameters, rows: Rows) -> NDArray[np.float64]:
        """Return class probabilities. Raises TaskError for models that have none."""
        if not isinstance(self.model, Classifier):
            raise TaskError(f"scores: {type(self.model).__name__} is no classifier")
        return self.model.scores(parameters, rows)
