"""Shared parts of learners that follow a `Steering`: batches, the reach of steps, checks of names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import Steering


def batches(
    count: int, size: int | None, seed: int, *, epochs: int, steps: int | None = None
) -> list[NDArray[np.int64]]:
    """Return the rows of each step: shuffles of all rows, cut into batches, epoch by epoch.

    count   rows of the site; size: rows of a batch, None or more than there are: all, unshuffled
    epochs  passes over the rows; steps: so many batches instead, if given
    """
    size = min(size or count, count)
    if size == count:
        return [np.arange(count)] * (steps or epochs)
    rng = np.random.default_rng(seed)
    if steps is not None:
        epochs = -(-steps * size // count)
    out: list[NDArray[np.int64]] = []
    for _ in range(epochs):
        order = rng.permutation(count)
        out.extend(order[at : at + size] for at in range(0, count, size))
    return out[:steps]


def without_single(plan: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Return the same batches, but a single row at an epoch's end is joined to the batch before it.

    The statistics of a batch (Ioffe and Szegedy, ICML 2015) need two rows; where all batches are of one row
    there is nothing to join.
    """
    size = max(map(len, plan), default=0)
    out: list[NDArray[np.int64]] = []
    for batch in plan:
        if len(batch) == 1 and size > 1 and out and len(out[-1]) == size:
            out[-1] = np.concatenate([out[-1], batch])
        else:
            out.append(batch)
    return out


def reach(steps: int, *, momentum: float = 0.0, decay: float = 0.0) -> float:
    """Return the length of `steps` steps of SGD together, in plain steps: ||a_i||_1 of FedNova.

    steps     taken
    momentum  of a heavy ball that starts from rest
    decay     rate * proximal: what a step takes back of the way from the start

    Entry k of a_i is what a gradient has moved, k steps later, in units of the rate. With momentum rho
    alone the sum is (steps - rho (1 - rho^steps) / (1 - rho)) / (1 - rho), with decay alone it is that of
    the powers of |1 - decay| (Wang et al., NeurIPS 2020, section 4.1).
    """
    total, place, speed = 0.0, 0.0, 1.0
    for _ in range(steps):
        place += speed
        total += abs(place)
        speed = momentum * speed - decay * place
    return total


def check_steering(parameters: Mapping[str, NDArray[np.float64]], steering: Steering) -> None:
    """Raise TaskError for names that are no parameter's, and corrections of another shape."""
    correction = steering.correction or {}
    for field, names in (("frozen", steering.frozen), ("correction", correction.keys())):
        if unknown := sorted(set(names) - parameters.keys()):
            raise TaskError(f"steering.{field}: {unknown[0]} is no parameter")
    for name, array in correction.items():
        if array.shape != parameters[name].shape:
            raise TaskError(
                f"steering.correction: {name} must be of shape {parameters[name].shape}, is {array.shape}"
            )
    if not (np.isfinite(steering.proximal) and steering.proximal >= 0):
        raise TaskError(f"steering.proximal: must be finite and at least 0, is {steering.proximal}")
    if not (np.isfinite(steering.rate) and steering.rate > 0):
        raise TaskError(f"steering.rate: must be positive and finite, is {steering.rate}")
