"""Long vectors a tile at a time: nothing here makes another array as long as its argument."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 1 << 16  # values: within the cache


def tiles(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the parts of a vector and where they begin."""
    for at in range(0, len(values), TILE):
        yield at, values[at : at + TILE]


def not_finite(values: NDArray[np.floating[Any]]) -> int | None:
    """Return the place of the first value that is NaN or infinite."""
    for at, tile in tiles(values):
        finite = np.isfinite(tile)
        if not finite.all():
            return at + int(finite.argmin())
    return None


def beyond(values: NDArray[np.floating[Any]], limit: float) -> int:
    """Count the values whose magnitude is above a limit."""
    return sum(int(np.count_nonzero(np.abs(tile) > limit)) for _, tile in tiles(values))


def norm(values: NDArray[np.floating[Any]]) -> float:
    """L2 norm, also where the squares are too large for numbers; of float32 in the precision of float64."""
    with np.errstate(over="ignore"):
        if values.dtype == np.float32:
            wide = (tile.astype(np.float64) for _, tile in tiles(values))
            return math.sqrt(sum(float(tile @ tile) for tile in wide))
        length = float(np.linalg.norm(values))
    if length != math.inf:
        return length
    peak = float(np.abs(values).max())
    return peak * float(np.linalg.norm(values / peak)) if math.isfinite(peak) else peak
