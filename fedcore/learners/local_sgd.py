"""Local training by stochastic gradient descent, with everything that strategies may ask of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import LocalFit, Metrics, Parameters, Steering
from fedcore.learners.models import Examples, Model, classifier, regression
from fedcore.learners.steering import batches, check_steering, reach
from fedcore.settings import at_least, positive, require, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSGD:
    """A steerable learner over any `Model`.

    epochs      passes over the rows in a round; steps: so many steps instead, if given
    batch_size  rows of a step; None: all of them
    rate        learning rate, constant within a round
    momentum    heavy ball, starting from rest in every round
    raises      SettingError
    """

    model: Model
    epochs: int = 1
    steps: int | None = None
    batch_size: int | None = 32
    rate: float = 0.1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "rate")
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        at_least(self, 1, "epochs", "steps", "batch_size")

    def initial(self) -> Parameters:
        """Return the model's."""
        return self.model.initial()

    def fit(self, parameters: Parameters, rows: Examples, seed: int) -> Parameters:
        """Train without steering."""
        return self.fit_steered(parameters, rows, seed, Steering()).parameters

    def fit_steered(self, parameters: Parameters, rows: Examples, seed: int, steering: Steering) -> LocalFit:
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

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the model's gradient over all rows."""
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        return self.model.gradient(parameters, rows)

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Return the model's metrics."""
        return self.model.evaluate(parameters, rows)

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities. Raises TaskError for models that have none."""
        return classifier(self.model).scores(parameters, rows)

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return predicted numbers. Raises TaskError for classifiers."""
        return regression(self.model).predict(parameters, rows)
