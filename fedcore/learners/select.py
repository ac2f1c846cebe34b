"""Parts of the parameters by name: for partial updates, and for heads that stay with a site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import Parameters


def select(names: Iterable[str], patterns: Iterable[str]) -> frozenset[str]:
    """Return the names that match a pattern of the shell, such as "head.*"; case counts.

    Raises TaskError when a pattern matches nothing, for that is a slip of the pen.
    """
    names, chosen = list(names), set[str]()
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise TaskError(f"patterns: {pattern!r} matches none of {sorted(names)}")
        chosen.update(found)
    return frozenset(chosen)


def subset(parameters: Mapping[str, NDArray[np.float64]], patterns: Iterable[str]) -> Parameters:
    """Return copies of the parameters whose names match a pattern, in the order of `parameters`.

    Raises TaskError when a pattern matches nothing.
    """
    chosen = select(parameters, patterns)
    return {name: array.copy() for name, array in parameters.items() if name in chosen}


def merge(base: Mapping[str, NDArray[np.float64]], part: Mapping[str, NDArray[np.float64]]) -> Parameters:
    """Return copies of the parameters of `base`, with those of `part` in place of the ones they name.

    Raises TaskError when a name is not in `base`, or has another shape there.
    """
    for name, array in part.items():
        if name not in base:
            raise TaskError(f"part: {name} is not among {sorted(base)}")
        if array.shape != base[name].shape:
            raise TaskError(f"part: {name} must be of shape {base[name].shape}, is {array.shape}")
    return {name: part.get(name, array).copy() for name, array in base.items()}
