"""Draws and orders behind the partitioners: numbers only, arguments already checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dirichlet_shares(
    rng: np.random.Generator, length: int, alpha: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw from the Dirichlet distribution; tiny alphas underflow, where the limit is one whole share."""
    alphas = np.broadcast_to(np.maximum(alpha, 1e-300), (length,))
    alphas = alphas / max(1.0, alphas.max() / 1e9)  # beyond, draws differ from the mean by 1e-4 at most
    with np.errstate(all="ignore"):
        drawn = rng.dirichlet(alphas)
    if np.isfinite(drawn).all() and abs(drawn.sum() - 1) < 1e-6:
        return drawn
    weights = alphas / alphas.max()
    whole = np.zeros(length)
    whole[rng.choice(length, p=weights / weights.sum())] = 1.0
    return whole


def split_by_shares(rows: NDArray[np.int64], shares: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Cut rows by shares that sum to one; nothing is lost to rounding."""
    ends = np.minimum(np.round(np.cumsum(shares)[:-1] * len(rows)).astype(int), len(rows))
    return np.split(rows, ends)


def draw_classes(
    rng: np.random.Generator, size: int, mix: NDArray[np.float64], left: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Draw how many rows of each class a client takes: by its mix, never more than there are.

    What could not be taken is drawn again by the mix of what is left; each turn empties a class.
    """
    taken = np.zeros(len(left), np.int64)
    while size:
        weights = np.where(left > taken, mix, 0.0)
        if weights.sum() < 1e-9:
            weights = (left - taken).astype(np.float64)
        drawn = rng.multinomial(size, weights / weights.sum())
        drawn = np.minimum(drawn, left - taken)
        taken += drawn
        size -= int(drawn.sum())
    return taken


def principal_scores(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """First principal component's scores (rows,); the largest loading is positive."""
    centered = matrix - matrix.mean(axis=0)
    deviation = centered.std(axis=0)
    scaled = centered / np.where(deviation > 1e-12 * np.abs(matrix).max(axis=0), deviation, np.inf)
    loading = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    return np.asarray(scaled @ (loading * np.sign(loading[np.argmax(np.abs(loading))])))
