"""Adaptive server optimizers (Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2).

The mean change is taken as a pseudo-gradient: m = beta1 m + (1 - beta1) mean, v by the method,
x += rate m / (sqrt(v) + tau), with v = tau^2 before the first round and no bias correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcore.rounds.instructions import UpdateKind
from fedcore.strategies.base import RoundUpdate, State, Strategy, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adaptive(Strategy):
    server_rate: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def start(self, dimension: int) -> State:
        """No momentum, second moment tau^2."""
        return {"first": np.zeros(dimension), "second": np.full(dimension, self.tau**2)}

    def step(self, parameters: Vector, update: RoundUpdate, state: State) -> tuple[Vector, State]:
        """Return the next parameters and moments."""
        mean = update.of(UpdateKind.DELTA)
        first = self.beta1 * state["first"] + (1 - self.beta1) * mean
        second = self._second(state["second"], mean**2)
        after = parameters + self.server_rate * first / (np.sqrt(second) + self.tau)
        return after, {"first": first, "second": second}

    def _second(self, before: Vector, square: Vector) -> Vector:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdagrad(_Adaptive):
    """v += mean^2. Reveals to the server: what FedAvg does."""

    beta1: float = 0.0

    def _second(self, before: Vector, square: Vector) -> Vector:
        return before + square


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(_Adaptive):
    """v = beta2 v + (1 - beta2) mean^2. Reveals to the server: what FedAvg does."""

    def _second(self, before: Vector, square: Vector) -> Vector:
        return self.beta2 * before + (1 - self.beta2) * square


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(_Adaptive):
    """v -= (1 - beta2) mean^2 sign(v - mean^2). Reveals to the server: what FedAvg does."""

    def _second(self, before: Vector, square: Vector) -> Vector:
        return before - (1 - self.beta2) * square * np.sign(before - square)
