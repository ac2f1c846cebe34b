"""Reconstruction of inputs from gradients, as an adversary who sees one would try it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcore.learner import Parameters
from fedcore.learners.models import softmax

Array = NDArray[np.float64]


def quotients(weights: Array, biases: Array) -> Array:
    """Rows (units, features): the weights' gradient by the biases', unit by unit.

    For one example the gradient of a dense layer is x (outer) e and that of its biases e, so every quotient
    is x (Phong et al., IEEE TIFS 2018, section 3). For several it is a mean weighted by e.
    """
    used = np.abs(biases) > 1e-6 * np.abs(biases).max()
    return np.asarray((weights[:, used] / biases[used]).T)


def differences(weights: Array, biases: Array) -> Array:
    """Quotients of the differences between all pairs of units.

    A softmax with all parameters zero gives each column the same share of all inputs less the inputs of
    its own class: differences of columns are differences of sums by class.
    """
    one, two = np.triu_indices(len(biases), 1)
    return quotients(weights[:, one] - weights[:, two], biases[one] - biases[two])


def matched(
    target: Parameters, model: Parameters, labels: NDArray[np.int64], starts: int, seed: int
) -> Array:
    """Return inputs (rows, features) in [0, 1] whose mean gradient is the target (Zhu et al., NeurIPS 2019).

    For softmax regression, with the labels given to the attacker; the best of several starts by L-BFGS.
    """
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    shape = (len(labels), len(target["coefficients"]))
    best, least = np.zeros(shape), np.inf
    for _ in range(starts):
        found = minimize(
            _distance,
            rng.uniform(size=shape).ravel(),
            (target, model, labels),
            method="L-BFGS-B",
            jac=True,
            bounds=[(0.0, 1.0)] * (shape[0] * shape[1]),
            options={"maxiter": 200, "ftol": 1e-15, "gtol": 1e-10},
        )
        if found.fun < least:
            best, least = found.x.reshape(shape), found.fun
    return best


def _distance(
    flat: Array, target: Parameters, model: Parameters, labels: NDArray[np.int64]
) -> tuple[float, Array]:
    """Squared distance between the gradients, times 1000, and its slope by the inputs."""
    rows, weights = len(labels), model["coefficients"]
    inputs = flat.reshape(rows, -1)
    scores = softmax(inputs @ weights + model["intercepts"])
    errors = (scores - np.eye(scores.shape[1])[labels]) / rows
    wrong = inputs.T @ errors - target["coefficients"]
    off = errors.sum(axis=0) - target["intercepts"]
    by_errors = (inputs @ wrong + off) / rows
    by_logits = scores * (by_errors - (scores * by_errors).sum(axis=1, keepdims=True))
    slope = 2 * (errors @ wrong.T + by_logits @ weights.T)
    return 1000 * float((wrong**2).sum() + (off**2).sum()), 1000 * slope.ravel()


def correlations(found: Array, inputs: Array) -> Array:
    """Pearson correlation of every reconstruction with every input, (found, inputs); constants give 0."""

    def normal(rows: Array) -> Array:
        centered = rows - rows.mean(axis=1, keepdims=True)
        return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-12))

    return np.asarray(normal(found) @ normal(inputs).T)
