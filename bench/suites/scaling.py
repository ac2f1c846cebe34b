"""Suite "scaling": how costs grow with n, d, k, dropouts and threads, with the exponent of a power law."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bench.harness import FULL, TINY, Effort, measure
from bench.suites.cohort import Cohort, Workload
from secagg.kernels import mask_apply, usable_cpus

BASE = Workload(clients=500, length=100_000, dropout=0.1)


def run(effort: Effort) -> dict[str, Any]:
    """Return series of (x, seconds) and the exponent fitted to each."""
    base, counts = BASE, [100, 200, 500, 1000, 2000]
    lengths, dropouts = [10_000, 100_000, 1_000_000, 4_000_000], [0.0, 0.05, 0.1, 0.2, 0.3]
    if effort == FULL:
        counts.append(5000)
    if effort == TINY:
        base = replace(BASE, clients=70, length=1000, sample=1)
        counts, lengths, dropouts = [70, 100], [1000, 2000], [0.0, 0.1]
    series = [
        *_rounds("clients n", counts, lambda n: replace(base, clients=n)),
        *_rounds("entries d", lengths, lambda d: replace(base, length=d)),
        *_rounds("dropout rate", dropouts, lambda r: replace(base, dropout=r), fit=False),
        _masks("masks k (one client, 1 000 000 entries)", effort),
        _threads("threads (64 masks of 4 000 000 entries)", effort),
    ]
    return {
        "series": series,
        "base": {"clients": base.clients, "length": base.length, "dropout": base.dropout},
    }


def _rounds(name: str, values: Sequence[float], work: Any, *, fit: bool = True) -> list[dict[str, Any]]:  # noqa: ANN401
    sides: dict[str, list[float]] = {"client": [], "server": []}
    for value in values:
        cohort = Cohort(work(value))
        cohort.run()
        account = cohort.account
        sides["server"].append(sum(account.server.values()))
        sides["client"].append(sum(statistics.median(s.values()) for s in account.client.values()))
    return [_series(f"{side} against {name}", list(values), seconds, fit) for side, seconds in sides.items()]


def _masks(name: str, effort: Effort) -> dict[str, Any]:
    length = max(int(1_000_000 * effort.scale), 4096)
    acc = np.zeros(length, np.uint32)
    counts = [1, 4, 16, 64, 256]
    seconds = [
        measure(partial(mask_apply, acc, bytes(32 * k), np.ones(k, np.int8), threads=1), effort).median
        for k in counts
    ]
    return _series(f"mask_apply against {name}", counts, seconds, fit=True)


def _threads(name: str, effort: Effort) -> dict[str, Any]:
    length = max(int(4_000_000 * effort.scale), 4096)
    acc = np.zeros(length, np.uint32)
    counts = sorted({1, 2, usable_cpus()})
    seconds = [
        measure(partial(mask_apply, acc, bytes(32 * 64), np.ones(64, np.int8), threads=t), effort).median
        for t in counts
    ]
    return _series(f"mask_apply against {name}", counts, seconds, fit=True)


def _series(name: str, x: Sequence[float], seconds: list[float], fit: bool) -> dict[str, Any]:
    """Fit a power law to the whole series, and to its last two points, where fixed costs weigh least."""

    def exponent(count: int) -> float | None:
        return float(np.polyfit(np.log(x[-count:]), np.log(seconds[-count:]), 1)[0]) if fit else None

    return {
        "name": name,
        "x": list(x),
        "seconds": seconds,
        "exponent": exponent(len(x)),
        "last_exponent": exponent(2),
    }
