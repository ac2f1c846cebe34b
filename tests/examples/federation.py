"""The smallest federation there is: sites train, and the mean of their changes is the round's."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from fedcore import Learner, Parameters


def federate(learner: Learner[Any], sites: list[Any], rounds: int) -> Parameters:
    """Train for some rounds; sites weigh alike."""
    parameters = learner.initial()
    for number in range(rounds):
        results = [learner.fit(parameters, rows, number) for rows in sites]
        for name, before in parameters.items():
            deltas = [result[name] - before for result in results]
            parameters = parameters | {name: before + np.mean(deltas, axis=0)}
    return parameters


def lines_of(thing: type) -> int:
    """Lines of a class, with its decorator and docstrings, without empty ones."""
    return sum(bool(line.strip()) for line in inspect.getsource(thing).splitlines())
