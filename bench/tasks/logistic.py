"""Logistic regression for experiment files, from zeros or from the weights that torch draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcore.learner import Parameters
from fedcore.learners import LocalSGD, LogisticRegression


@dataclass(frozen=True, slots=True)
class TorchStart(LogisticRegression):
    """Starts from the weights that torch draws for a linear layer, as FLamby's models do."""

    seed: int = 0

    def initial(self) -> Parameters:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            layer = torch.nn.Linear(self.features, 1)
        return {
            "coefficients": layer.weight.detach().numpy()[0].astype(np.float64),
            "intercept": layer.bias.detach().numpy().astype(np.float64),
        }


def make(
    *,
    features: int,
    classes: int,
    seed: int,
    torch: bool = False,
    penalty: float = 0.0,
    **options: Any,  # noqa: ANN401
) -> LocalSGD:
    """The learner of `kind = "bench.tasks.logistic:make"`; options: of LocalSGD."""
    if classes != 2:
        raise ValueError(f"classes: must be 2, are {classes}")
    model = TorchStart(features, penalty, seed) if torch else LogisticRegression(features, penalty)
    return LocalSGD(model=model, **options)
