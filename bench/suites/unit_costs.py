"""The unit costs of `secagg.costs`, measured with the harness of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable

from bench.harness import Effort, measure
from bench.suites.cohort import RING_BITS, Workload
from secagg import GraphParameters
from secagg.costs import Load, UnitCosts
from secagg.primitives.bounds import quorum


def measured(effort: Effort, length: int = 1_000_000) -> UnitCosts:
    """Measure every primitive on its own, one thread."""

    def timer(call: Callable[[], object], calls: int) -> float:
        return measure(call, effort, calls=calls).median

    return UnitCosts.measured(timer, length=max(int(length * effort.scale), 4096), ring_bits=RING_BITS)


def load_of(work: Workload, graph: GraphParameters) -> Load:
    """What a workload has to do."""
    signatures = quorum(work.clients, graph.degree, work.model) if work.adversary == "active" else 0
    return Load(
        clients=work.clients,
        dropouts=work.dropouts,
        length=work.length,
        ring_bits=RING_BITS,
        graph=graph,
        quorum=signatures,
    )
