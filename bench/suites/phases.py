"""Suite "phases": the classic table of the literature, milliseconds and bytes by phase and side."""

from __future__ import annotations

import statistics
import time
from itertools import product
from typing import Any

from bench.harness import FULL, TINY, Effort, figure
from bench.suites.cohort import Cohort, Workload
from bench.suites.replay import server_bytes
from bench.suites.unit_costs import load_of, measured
from secagg import GraphParameters, Phase
from secagg.costs import UnitCosts
from secagg.params import Adversary

# Bonawitz et al., CCS 2017: Java, one thread, d = 100 000, milliseconds (as in the paper's tables):
# side, n, dropouts, AdvertiseKeys, ShareKeys, MaskedInputCollection, Unmasking, total.
CCS_2017 = (
    ("client", 500, 0.0, 1, 154, 694, 1, 849),
    ("server", 500, 0.0, 1, 26, 723, 1268, 2018),
    ("server", 500, 0.1, 1, 29, 623, 61586, 62239),
    ("server", 500, 0.3, 1, 28, 514, 142847, 143389),
    ("client", 1000, 0.0, 1, 336, 1357, 5, 1699),
    ("server", 1000, 0.0, 6, 148, 1481, 3253, 4887),
    ("server", 1000, 0.1, 6, 143, 1406, 179320, 180875),
    ("server", 1000, 0.3, 8, 143, 1169, 412446, 413767),
)
BOTH: tuple[Adversary, ...] = ("passive", "active")
_REPEAT_WITHIN = 5.0  # seconds of repeats of one configuration


def workloads(effort: Effort) -> list[Workload]:
    """Return the rounds of the table."""
    if effort == TINY:
        return [
            Workload(clients=70, length=1000, adversary=adversary, complete=complete, sample=1)
            for adversary, complete in product(BOTH, (False, True))
        ]
    sizes, dropouts = (100, 500, 1000), (0.0, 0.1, 0.3)
    rounds = [
        Workload(clients=n, length=100_000, dropout=dropout, adversary=adversary, complete=complete)
        for complete, n, dropout, adversary in product((False, True), sizes, dropouts, BOTH)
    ]
    rounds += [
        Workload(clients=n, length=1_000_000, dropout=dropout, adversary=adversary)
        for n, dropout, adversary in product(sizes, dropouts, BOTH)
        if effort == FULL or n == 100 or dropout == 0.1
    ]
    # The round of the budgets in bench/README.md.
    rounds += [Workload(clients=1000, length=1_000_000, dropout=0.05, adversary=one) for one in BOTH]
    if effort == FULL:
        rounds += [
            Workload(clients=n, length=1_000_000, dropout=dropout, adversary=adversary, complete=True)
            for n, dropout, adversary in product(sizes, dropouts, BOTH)
        ]
        rounds += [
            Workload(clients=10_000, length=100_000, dropout=dropout, adversary=adversary)
            for dropout, adversary in product(dropouts, BOTH)
        ]
    return rounds


def run(effort: Effort) -> dict[str, Any]:
    """Measure every workload, with the sum of its primitives beside it; some also for memory."""
    costs = measured(effort)
    rows = [row(workload, effort, costs) for workload in workloads(effort)]
    if effort == TINY:
        watched = [Workload(clients=70, length=1000)]
    else:
        watched = [Workload(clients=n, length=100_000) for n in (100, 500, 1000)]
        watched += [
            Workload(clients=100, length=1_000_000),
            Workload(clients=500, length=100_000, complete=True),
        ]
    memory = []
    for workload in watched:
        grown = server_bytes(workload)
        memory.append({**_describe(workload), "server_bytes": grown, "vector_bytes": 4 * workload.length})
    return {"rows": rows, "memory": memory, "published": [list(entry) for entry in CCS_2017]}


def row(workload: Workload, effort: Effort, costs: UnitCosts) -> dict[str, Any]:
    """Run a workload a few times; medians over runs (server) and over runs and clients (client)."""
    began = time.perf_counter()
    cohorts = [_once(workload)]
    while len(cohorts) < min(effort.repeats, 5) and time.perf_counter() - began < _REPEAT_WITHIN:
        cohorts.append(_once(workload))
    accounts = [cohort.account for cohort in cohorts]
    view = cohorts[0].view
    graph = GraphParameters(degree=view.roster.degree, threshold=view.roster.threshold)
    load = load_of(workload, graph)
    server = [sum(account.server.values()) for account in accounts]
    client = [
        sum(seconds[name] for seconds in account.client.values())
        for account in accounts
        for name in account.client[Phase.ADVERTISE_KEYS]
    ]
    last = accounts[-1]
    return {
        **_describe(workload),
        "degree": graph.degree,
        "threshold": graph.threshold,
        "repeats": len(accounts),
        "client_ms": _milliseconds(client),
        "server_ms": _milliseconds(server),
        "client_phases_ms": {
            phase.name: statistics.median(s for a in accounts for s in a.client[phase].values()) * 1e3
            for phase in last.client
        },
        "server_phases_ms": {
            phase.name: statistics.median(a.server[phase] for a in accounts) * 1e3 for phase in last.server
        },
        "client_primitives_ms": costs.client_seconds(load) * 1e3,
        "server_primitives_ms": costs.server_seconds(load) * 1e3,
        "up_bytes": {phase.name: size for phase, size in last.up.items()},
        "down_bytes": {phase.name: size for phase, size in last.down.items()},
    }


def _once(workload: Workload) -> Cohort:
    cohort = Cohort(workload)
    cohort.run()
    return cohort


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    taken = figure([1e3 * value for value in seconds])
    return {"median": taken.median, "low": taken.low, "high": taken.high}


def _describe(workload: Workload) -> dict[str, Any]:
    return {
        "clients": workload.clients,
        "length": workload.length,
        "dropout": workload.dropout,
        "adversary": workload.adversary,
        "graph": "complete" if workload.complete else "chosen",
    }
