"""Peer libraries, run through their own code on the work of our rounds.

Every adapter here is a module that follows `Peer`. It measures CPU seconds of this process, all its threads
included (`time.process_time`), never wall time, and it checks the result that the peer arrives at. Encoding
for the network is outside every figure; it would only add to them. `upload_bytes` is what the peer's own
encoder makes.

A stage of a client is the median over `sample` clients that ran it; `total` is that median times the number
of clients that take part in the stage, plus the server. The whole of a peer's round may cost minutes.

An adapter imports its peer when it is called, so that this package needs none of them, nor our kernels.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Settings = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Workload:
    """One round: who takes part, what they bring, who vanishes before the upload."""

    clients: int
    length: int  # entries of a vector
    dropouts: int
    value_bits: int = 18  # of one client's quantized entry
    threshold: int | None = None  # shares that rebuild a secret; None: more than two thirds
    seed: int = 1
    degree: int | None = None  # neighbors of a client; None: the complete graph

    def __post_init__(self) -> None:
        if self.clients < 3 or self.length < 1:
            raise ValueError(f"clients, length: must be at least 3 and 1, got {self.clients}, {self.length}")
        if not 0 <= self.dropouts <= self.clients - 2:
            raise ValueError(f"dropouts: at least two clients must stay, got {self.dropouts}")
        if not 1 <= self.value_bits <= 22:  # float32 inputs carry 24 bits
            raise ValueError(f"value_bits: must be in 1..22, got {self.value_bits}")
        if self.degree is not None and (self.degree % 2 or not 2 <= self.degree < self.clients):
            raise ValueError(f"degree: must be even, in 2..{self.clients - 1}, got {self.degree}")
        if not 2 <= self.shares_needed <= self.shares:
            raise ValueError(f"threshold: must be in 2..{self.shares}, got {self.shares_needed}")

    @property
    def shares(self) -> int:
        """Return the shares of one secret: one per neighbor and the client's own."""
        return self.clients if self.degree is None else self.degree + 1

    @property
    def shares_needed(self) -> int:
        return self.shares * 2 // 3 + 1 if self.threshold is None else self.threshold

    @property
    def survivors(self) -> int:
        return self.clients - self.dropouts

    def vector(self, client: int) -> NDArray[np.float32]:
        """Return what a client brings: float32, uniform in [-1, 1)."""
        rng = np.random.default_rng([self.seed, client])
        return rng.uniform(-1, 1, self.length).astype(np.float32)


class Peer(Protocol):
    """What a module here offers."""

    NAME: str

    def available(self) -> str | None:
        """Return None when the peer can be imported, else one line that says what is missing."""

    def settings(self, workload: Workload) -> Settings:
        """Return what exactly is run: the version, the parameters, what is extrapolated."""

    def measure(self, workload: Workload, *, sample: int) -> dict[str, float]:
        """Return CPU seconds by stage, and `upload_bytes` of a client.

        raises  RuntimeError when the peer's result is not the sum (or average) of what went in
        """


def missing(*modules: str) -> str | None:
    """Return None when all modules can be imported, else one line; their import warnings are dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"{module} cannot be imported ({error}): install the extra bench-peers"
    return None


def cpu_seconds(call: Callable[[], T]) -> tuple[float, T]:
    """Return the CPU seconds a call took, and its result."""
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def check(result: NDArray[np.float64], expected: NDArray[np.float64], *, tolerance: float, peer: str) -> None:
    """Compare every entry; a mask that stayed in, or a value left out, is far beyond any tolerance."""
    worst = float(np.abs(result - expected).max()) if result.shape == expected.shape else float("inf")
    if not worst <= tolerance:  # also true for NaN
        raise RuntimeError(f"{peer}: the result is off by {worst}, more than {tolerance}")
