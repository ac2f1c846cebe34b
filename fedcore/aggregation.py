"""One sum over sites, in the clear or under secure aggregation: the same interface, the same result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import FedcoreError, TaskError
from fedcore.site import Site
from fedcore.task import Task
from secagg import Phase, ThreatModel, aggregate
from secagg.kernels import UIntArray, lane_dtype, ring_mask


@dataclass(frozen=True, slots=True, eq=False)
class GroupSum:
    """A sum over those who answered.

    total      (d + 1,), values below 2^ring_bits
    survivors  names, ascending
    """

    total: NDArray[np.unsignedinteger[Any]]
    survivors: tuple[str, ...]
    bytes_up: int = 0
    bytes_down: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)  # sites that could not contribute, and why


class SumAggregator(Protocol):
    """Asks every site for its vector and returns the sum over those who answered."""

    def sum(self, task: Task) -> GroupSum:
        """Sum the sites' vectors. Raises RoundAbortedError, TaskError."""


def _contributions(
    sites: Mapping[str, Site], task: Task, absent: frozenset[str]
) -> tuple[dict[str, UIntArray], dict[str, str]]:
    """Vectors by site, and why the others have none: a failing site costs only itself the round."""
    vectors, failures = {}, {}
    for name in sorted(sites.keys() - absent):
        try:
            vectors[name] = sites[name].contribute(task)
        except FedcoreError as error:
            failures[name] = str(error)
    if not vectors:
        raise TaskError(f"{task.name}: no site could contribute: {failures}")
    return vectors, failures


@dataclass(slots=True)
class PlainSum:
    """Sums in the clear: the reference, and the baseline.

    absent  sites that are left out, by task name
    """

    sites: Mapping[str, Site]
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def sum(self, task: Task) -> GroupSum:
        """Add up what the sites send."""
        absent = self.absent.get(task.name, frozenset())
        vectors, failures = _contributions(self.sites, task, absent)
        ring_bits = task.codec.ring_bits
        total = np.zeros(task.codec.length(task.dimension), lane_dtype(ring_bits))
        for vector in vectors.values():
            total += vector
        total &= total.dtype.type(ring_mask(ring_bits))
        return GroupSum(total, tuple(vectors), failures=failures)


@dataclass(slots=True)
class SecureSum:
    """Sums through the real protocol, all parties in this process.

    absent  sites that drop out after they shared their keys, by task name
    """

    sites: Mapping[str, Site]
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    threat_model: ThreatModel = field(default_factory=ThreatModel)

    def sum(self, task: Task) -> GroupSum:
        """Run one round; a site that cannot contribute is a dropout."""
        absent = self.absent.get(task.name, frozenset())
        vectors, failures = _contributions(self.sites, task, absent)
        ring_bits = task.codec.ring_bits
        names = sorted(self.sites)
        empty = np.zeros(task.codec.length(task.dimension), lane_dtype(ring_bits))
        result = aggregate(
            [vectors.get(name, empty) for name in names],
            ring_bits=ring_bits,
            drop={i: Phase.MASKED_INPUT_COLLECTION for i, name in enumerate(names) if name not in vectors},
            threat_model=self.threat_model,
        )
        return GroupSum(
            result.total,
            tuple(names[i] for i in result.clients),
            sum(result.traffic.up.values()),
            sum(result.traffic.down.values()),
            failures,
        )
