"""One sum over sites, in the clear or under secure aggregation: the same interface, the same result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import WeightedMean
from fedcore.errors import CodecError, FedcoreError, TaskError
from fedcore.rounds.site import Contribution, Site
from fedcore.rounds.task import Task
from secagg import AbortReason, ParameterError, Phase, RoundAbortedError, ThreatModel, aggregate
from secagg.kernels import UIntArray, lane_dtype, ring_mask


@dataclass(frozen=True, slots=True, eq=False)
class GroupSum:
    """A sum over those who answered.

    total      (task.length,), values below 2^ring_bits; empty where sums are taken in real numbers
    survivors  names, ascending
    mean       what the sum says, where it is not to be decoded from the total
    """

    total: NDArray[np.unsignedinteger[Any]]
    survivors: tuple[str, ...]
    bytes_up: int = 0
    bytes_down: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)  # sites that could not contribute, and why
    mean: WeightedMean | None = None
    round_id: bytes = b""


class SumAggregator(Protocol):
    """Asks every site for its vector and returns the sum over those who answered."""

    @property
    def names(self) -> Sequence[str]:
        """All sites, ascending."""

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Sum the vectors of the sites, or of some. Raises RoundAbortedError, TaskError."""


T = TypeVar("T")
_NAMED = 5  # sites that a message lists


@dataclass(slots=True)
class _InProcess:
    """Sites of this process, by name; absent: those that are left out, by task name."""

    sites: Mapping[str, Site]
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        """All sites, ascending."""
        return sorted(self.sites)

    def ask(
        self, task: Task, among: Sequence[str] | None, question: Callable[[Site, Task], T]
    ) -> tuple[dict[str, T], dict[str, str]]:
        """Return answers by site, and why the others have none: a failing site costs only itself the round.

        raises  TaskError: nobody answered; RoundAbortedError: fewer than the noise needs
        """
        answers, failures = {}, {}
        asked = set(self.sites if among is None else among) - self.absent.get(task.name, frozenset())
        for name in sorted(asked):
            try:
                answers[name] = question(self.sites[name], task)
            except (FedcoreError, ParameterError) as error:
                failures[name] = str(error)
        if not answers:
            raise TaskError(f"{task.name}: no site could contribute: {_reasons(failures)}")
        if task.noise is not None and len(answers) < task.noise.smallest:
            raise RoundAbortedError(
                AbortReason.TOO_FEW_SURVIVORS,
                f"{len(answers)} of at least {task.noise.smallest} whose noise is needed",
            )
        return answers, failures


def _counted(sites: Mapping[str, Site], task: Task, survivors: Sequence[str]) -> None:
    """Tell the sites of a sum that their vectors counted, as the service's sessions do."""
    for name in survivors:
        sites[name].state.count(task.name, survivors)


def _contribute(site: Site, task: Task) -> UIntArray:
    """Ask the site itself: a subclass may answer otherwise."""
    return site.contribute(task)


@dataclass(slots=True)
class PlainSum(_InProcess):
    """Sums in the clear: the reference, and the baseline.

    absent  sites that are left out, by task name
    """

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Add up what the sites send."""
        vectors, failures = self.ask(task, among, _contribute)
        ring_bits = task.codec.ring_bits
        total = np.zeros(task.length, lane_dtype(ring_bits))
        for vector in vectors.values():
            total += vector
        total &= total.dtype.type(ring_mask(ring_bits))
        _counted(self.sites, task, tuple(vectors))
        return GroupSum(total, tuple(vectors), failures=failures)


@dataclass(slots=True)
class FloatSum(_InProcess):
    """Means in real numbers, without rounding or noise: what quantized sums are compared with.

    absent  sites that are left out, by task name
    """

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Average what the sites compute."""
        real, failures = self.ask(task, among, _compute)
        _counted(self.sites, task, tuple(real))
        return GroupSum(
            np.zeros(0, np.uint16), tuple(real), failures=failures, mean=real_mean(list(real.values()))
        )


def _compute(site: Site, task: Task) -> Contribution:
    """Compute, and refuse what a codec refuses."""
    one = site.compute(task)
    if not np.isfinite(one.coordinates).all():
        raise CodecError(f"update[{int(np.flatnonzero(~np.isfinite(one.coordinates))[0])}]: must be finite")
    if not 1 <= one.weight <= task.codec.weight_cap:
        raise CodecError(f"weight: must be in 1..{task.codec.weight_cap}, is {one.weight}")
    return one


def real_mean(contributions: Sequence[Contribution]) -> WeightedMean:
    """Weighted mean of what sites computed, before any rounding."""
    weight = sum(one.weight for one in contributions)
    mean, precise = (np.zeros_like(part) for part in (contributions[0].coordinates, contributions[0].precise))
    for one in contributions:
        mean += one.weight * one.coordinates
        precise += one.weight * one.precise
    return WeightedMean(mean / weight, weight, precise / weight)


@dataclass(slots=True)
class SecureSum(_InProcess):
    """Sums through the real protocol, all parties in this process.

    absent  sites that drop out after they shared their keys, by task name
    """

    threat_model: ThreatModel = field(default_factory=ThreatModel)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round; a site that cannot contribute is a dropout."""
        names = sorted(self.sites if among is None else among)
        vectors, failures = self.ask(task, names, _contribute)
        ring_bits = task.codec.ring_bits
        empty = np.zeros(task.length, lane_dtype(ring_bits))
        result = aggregate(
            [vectors.get(name, empty) for name in names],
            ring_bits=ring_bits,
            drop={i: Phase.MASKED_INPUT_COLLECTION for i, name in enumerate(names) if name not in vectors},
            threat_model=self.threat_model,
        )
        survivors = tuple(names[i] for i in result.clients)
        _counted(self.sites, task, survivors)
        return GroupSum(
            result.total,
            survivors,
            sum(result.traffic.up.values()),
            sum(result.traffic.down.values()),
            failures,
        )


def _reasons(failures: dict[str, str]) -> str:
    """Say each reason once, with who gave it; a site's own name in it is left out."""
    by_reason: dict[str, list[str]] = {}
    for name, text in failures.items():
        by_reason.setdefault(text.removeprefix(f"{name}: "), []).append(name)
    return "; ".join(f"{_some(names)}: {text}" for text, names in by_reason.items())


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
