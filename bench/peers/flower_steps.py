"""What a server's aggregation costs in Flower and in fedcore: bytes of n clients in, parameters out.

CPU seconds of one thread, the three taken in turn:

- `flower`: `aggregate_train` of Flower's own strategy on replies of float32 that it holds as bytes. Its
  checks are in it, receiving and protobuf are not.
- `real`: fedcore's weighted mean of real numbers (float64, no bytes to read), and the strategy's step.
- `ring`: vectors of 20 bits, packed as clients send them: added by the server's kernel, decoded, and the
  step. Masks are taken off besides: the suite "phases" has that.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import cpu_seconds
from bench.peers.flower_strategies import Case, cases, configure, replies
from fedcore.codec.codec import Codec
from fedcore.rounds.aggregation import real_mean
from fedcore.rounds.instructions import UpdateKind
from fedcore.rounds.site import Contribution
from fedcore.strategies import RoundUpdate, State, Strategy
from secagg.kernels import lane_dtype, pack, ring_mask, unpack_add

NAMES = ("FedAvg", "FedAdam")
_BITS = 20


def steps(clients: int, dimension: int, repeats: int, *, flower: bool) -> list[dict[str, Any]]:
    """Return one row per strategy: median CPU seconds by way; ratios are over ours."""
    rng = np.random.default_rng(1)
    changes = rng.normal(0, 0.01, (clients, dimension)).astype(np.float32)
    weights = rng.integers(1, 101, clients)
    rows = []
    for case in (case for case in cases(clients) if case.theirs in NAMES):
        ways: dict[str, Callable[[], Callable[[], object]]] = {
            "real": _real(case.ours, changes, weights),
            "ring": _ring(case.ours, changes, weights),
        }
        if flower:
            ways["flower"] = _flower(case, changes, weights)
        rows.append(
            {
                "strategy": case.theirs,
                "clients": clients,
                "parameters": dimension,
                "seconds": _in_turn(ways, repeats),
            }
        )
    return rows


def _in_turn(ways: dict[str, Callable[[], Callable[[], object]]], repeats: int) -> dict[str, float]:
    """Median CPU seconds; calls are prepared outside the clock, and the first of each warms up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, prepare in ways.items():
            call = prepare()
            seconds, _ = cpu_seconds(call)
            if number or repeats == 1:
                taken[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _flower(
    case: Case, changes: NDArray[np.float32], weights: NDArray[np.int64]
) -> Callable[[], Callable[[], object]]:
    received = replies(changes, weights)  # parameters before the round are zero

    def prepare() -> Callable[[], object]:
        strategy = case.flower()
        configure(strategy, 1, np.zeros(changes.shape[1], np.float32), len(weights))
        return lambda: strategy.aggregate_train(1, received)

    return prepare


def _real(
    ours: Strategy, changes: NDArray[np.float32], weights: NDArray[np.int64]
) -> Callable[[], Callable[[], object]]:
    none = np.zeros(0)
    given = [
        Contribution(row.astype(np.float64), none, int(weight))
        for row, weight in zip(changes, weights, strict=True)
    ]
    before, state = _start(ours, changes.shape[1])

    def run() -> object:
        mean = real_mean(given)
        return ours.step(before, _update(mean.mean, mean.weight, len(given)), state)

    return lambda: run


def _ring(
    ours: Strategy, changes: NDArray[np.float32], weights: NDArray[np.int64]
) -> Callable[[], Callable[[], object]]:
    codec = Codec(clip=0.1, bits=_BITS, weight_cap=100, clients=len(weights))
    rows = [
        codec.encode(row.astype(np.float64), int(weight), bytes(32))
        for row, weight in zip(changes, weights, strict=True)
    ]
    packed, length, bits = [pack(row, codec.ring_bits) for row in rows], rows[0].size, codec.ring_bits
    before, state = _start(ours, changes.shape[1])

    def run() -> object:
        total = np.zeros(length, lane_dtype(bits))
        for row in packed:
            unpack_add(total, row, bits)
        total &= total.dtype.type(ring_mask(bits))
        mean = codec.decode(total, len(packed))
        return ours.step(before, _update(mean.mean, mean.weight, len(packed)), state)

    return lambda: run


def _start(ours: Strategy, dimension: int) -> tuple[NDArray[np.float64], State]:
    return np.zeros(dimension), ours.start(dimension)


def _update(mean: NDArray[np.float64], weight: int, clients: int) -> RoundUpdate:
    return RoundUpdate(UpdateKind.DELTA, mean, weight, clients)
