"""Local training by stochastic gradient descent, with everything that strategies may ask of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import LocalFit, Metrics, Parameters, Steering
from fedcore.learners.models import Classifier, Model, Rows
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
        """Take the steps. Raises TaskError when there are no rows."""
        if not len(rows):
            raise TaskError("rows: there are none to train on")
        now = {name: array.copy() for name, array in parameters.items()}
        speed = {name: np.zeros_like(array) for name, array in parameters.items()}
        correction = steering.correction or {}
        reach, inertia, taken, rate = 0.0, 0.0, 0, self.rate * steering.rate
        for batch in self._batches(len(rows), seed):
            part = rows if batch is None else rows.take(batch)
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
            inertia = self.momentum * inertia + 1
            reach += inertia
            taken += 1
        if steering.proximal:  # FedNova, section 4.1: the same as a decay of what was gathered
            decay = 1 - rate * steering.proximal
            reach = sum(decay**i for i in range(taken)) if not self.momentum else reach
        return LocalFit(now, reach, rate)

    def _batches(self, count: int, seed: int) -> list[NDArray[np.int64] | None]:
        """Return the rows of each step, ascending shuffles of all rows epoch by epoch; None: all rows."""
        size = self.batch_size or count
        if size >= count:
            return [None] * (self.steps or self.epochs)
        rng = np.random.default_rng(seed)
        batches: list[NDArray[np.int64] | None] = []
        epochs = self.epochs if self.steps is None else -(-self.steps * size // count)
        for _ in range(epochs):
            order = rng.permutation(count)
            batches.extend(order[at : at + size] for at in range(0, count, size))
        return batches[: self.steps] if self.steps is not None else batches

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
