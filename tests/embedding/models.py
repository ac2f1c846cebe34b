"""A model, nodes that train it, and the round of means that a conformance case is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore import Mean
from fedcore.integrations.exchange import SecureMean, Train, Trained
from secagg.embedding import Patience, Registry, conformance

MODEL: dict[str, NDArray[Any]] = {
    "w": np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5),
    "b": np.zeros(3),
}
MEAN = Mean(clip=1.0, bits=20, weight_cap=100, metrics={"loss": (0, 10)})
CONFIG = {"lr": 0.1, "server-round": 3}


def train(i: int) -> Train:
    """Node i moves every coordinate by i / 10."""

    def trained(model: Any) -> Trained:
        arrays = {
            name: (array + array.dtype.type(i / 10)).astype(array.dtype) for name, array in model.items()
        }
        return Trained(arrays, weight=10 * (i + 1), metrics={"loss": float(i)})

    return trained


def secure(registry: Registry, **others: Any) -> SecureMean:
    patience = others.pop("patience", Patience(first_s=20, input_s=20, phase_s=20))
    return SecureMean(mean=MEAN, registry=registry, attempts=1, patience=patience, **others)


def expected(nodes: Sequence[int]) -> tuple[float, float, int]:
    """Change of every coordinate, mean loss, weight."""
    weight = sum(10 * (i + 1) for i in nodes)
    return (
        sum(10 * (i + 1) * i / 10 for i in nodes) / weight,
        sum(10 * (i + 1) * i for i in nodes) / weight,
        weight,
    )


Nodes = Sequence[conformance.Node]
