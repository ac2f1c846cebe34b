"""Low-rank adaptation: large matrices stay as they are, small factors are trained and uploaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import SettingError, TaskError
from fedcore.learner import Metrics, Parameters
from fedcore.learners.models import Examples, Model, classifier
from fedcore.names import select
from fedcore.settings import positive, require, settle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """A model whose matrices are base + (alpha / rank) A B (LoRA, Hu et al., ICLR 2022, section 4.1).

    model  whose gradient is used; base: all its parameters, which never change, equal at every site
    rank   columns of A and rows of B; alpha: scale of their product
    names  patterns of the matrices that are adapted; a matrix W of shape (n, m), as stored, gets
           `W.lora_a` of shape (n, rank) and `W.lora_b` of shape (rank, m)
    also   patterns of parameters that are trained in full, under their own names
    seed   of the initial A (variance 1 / n): every site must use the same; B starts at zero, so that
           training starts from the base
    raises SettingError

    `LocalSGD(model=LowRank(...))` is a learner that can be steered; its vectors hold the factors only.
    """

    model: Model
    base: Parameters
    rank: int
    names: tuple[str, ...]
    alpha: float = 1.0
    also: tuple[str, ...] = ()
    seed: int = 0
    _adapted: tuple[str, ...] = field(init=False, repr=False)
    _full: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "alpha")
        require(bool(self.names), "names", "at least one pattern", self.names)
        adapted, full = select(self.base, self.names, "names"), select(self.base, self.also, "also")
        if both := sorted(adapted & full):
            raise SettingError(f"also: {both[0]} is adapted already, by names")
        for name in sorted(adapted):
            shape = self.base[name].shape
            if len(shape) != 2:
                raise SettingError(f"names: {name} must be a matrix, is of shape {shape}")
            require(1 <= self.rank <= min(shape), "rank", f"in 1..{min(shape)} for {name}", self.rank)
            if taken := {f"{name}.lora_a", f"{name}.lora_b"} & self.base.keys():
                raise SettingError(f"names: {min(taken)} is a parameter of the base")
        object.__setattr__(self, "base", {name: array.copy() for name, array in self.base.items()})
        object.__setattr__(self, "_adapted", tuple(sorted(adapted)))
        object.__setattr__(self, "_full", tuple(sorted(full)))

    def initial(self) -> Parameters:
        """Random A, B of zeros; what is trained in full as in the base."""
        rng = np.random.default_rng(self.seed)
        out = {name: self.base[name].copy() for name in self._full}
        for name in self._adapted:
            rows, columns = self.base[name].shape
            out[f"{name}.lora_a"] = rng.normal(0, 1 / math.sqrt(rows), (rows, self.rank))
            out[f"{name}.lora_b"] = np.zeros((self.rank, columns))
        return out

    def merge(self, parameters: Parameters) -> Parameters:
        """Return parameters of the inner model, with its names and shapes. Raises TaskError."""
        wanted = self._shapes()
        if (given := {name: array.shape for name, array in parameters.items()}) != wanted:
            raise TaskError(f"parameters: must be of shapes {wanted}, are {given}")
        out = {name: array.copy() for name, array in self.base.items()}
        out.update({name: parameters[name].copy() for name in self._full})
        for name in self._adapted:
            out[name] += self.alpha / self.rank * parameters[f"{name}.lora_a"] @ parameters[f"{name}.lora_b"]
        return out

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {name: self.base[name].shape for name in self._full}
        for name in self._adapted:
            rows, columns = self.base[name].shape
            shapes |= {f"{name}.lora_a": (rows, self.rank), f"{name}.lora_b": (self.rank, columns)}
        return shapes

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Apply the chain rule to the inner gradient G: (alpha / rank) G B^T, and (alpha / rank) A^T G."""
        inner = self.model.gradient(self.merge(parameters), rows)
        out = {name: inner[name] for name in self._full}
        for name in self._adapted:
            scaled = self.alpha / self.rank * inner[name]
            out[f"{name}.lora_a"] = scaled @ parameters[f"{name}.lora_b"].T
            out[f"{name}.lora_b"] = parameters[f"{name}.lora_a"].T @ scaled
        return out

    def loss(self, parameters: Parameters, rows: Examples) -> float:
        """Return the inner model's, at the merged parameters."""
        return self.model.loss(self.merge(parameters), rows)

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Return the inner model's, at the merged parameters."""
        return self.model.evaluate(self.merge(parameters), rows)

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities. Raises TaskError for models that have none."""
        return classifier(self.model).scores(self.merge(parameters), rows)
