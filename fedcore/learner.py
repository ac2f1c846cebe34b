"""What training needs of a model: parameters by name, fit, evaluate. Anything with numpy arrays fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.tables import Table

Parameters: TypeAlias = dict[str, NDArray[np.float64]]
Metrics: TypeAlias = dict[str, float]


class Learner(Protocol):
    """A model that can be trained on one site's rows."""

    def initial(self) -> Parameters:
        """Return the parameters that training starts from, equal at every site."""

    def fit(self, parameters: Parameters, table: Table, seed: int) -> Parameters:
        """Return parameters trained on `table`, starting from `parameters`, which stay as they are."""

    def evaluate(self, parameters: Parameters, table: Table) -> Metrics:
        """Return metrics by name, such as accuracy and auc."""


def flatten(parameters: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Put all values into one vector (d,), ordered by name."""
    return np.concatenate([parameters[name].ravel() for name in sorted(parameters)])


def unflatten(vector: NDArray[np.float64], like: Mapping[str, NDArray[np.float64]]) -> Parameters:
    """Undo `flatten`. Raises TaskError when the lengths differ."""
    size = sum(array.size for array in like.values())
    if len(vector) != size:
        raise TaskError(f"parameters: {size} values are needed, got {len(vector)}")
    out, at = {}, 0
    for name in sorted(like):
        array = like[name]
        out[name] = vector[at : at + array.size].reshape(array.shape).copy()
        at += array.size
    return out
