"""One sum over sites, in the clear or under secure aggregation: the same interface, the same result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import WeightedMean
from fedcore.errors import FedcoreError, SpoiledError, TaskError
from fedcore.evaluation.federated import Evaluation, SiteSpread, to_evaluation, to_spread
from fedcore.rounds.site import Contribution, Site
from fedcore.rounds.task import Task
from fedcore.stream import permutation
from secagg import AbortReason, ParameterError, Phase, RoundAbortedError, Suite, ThreatModel, aggregate
from secagg.kernels import lane_dtype, ring_mask


@dataclass(frozen=True, slots=True, eq=False)
class GroupSum:
    """A sum over those who answered, and what it says.

    task       that was asked
    total      (task.encoding.length,), below 2^ring_bits; empty where sums are taken in real numbers
    survivors  names, ascending; groups: those of each sum, where this is made of several
    """

    task: Task
    total: NDArray[np.unsignedinteger[Any]]
    survivors: tuple[str, ...]
    mean: WeightedMean
    bytes_up: int = 0
    bytes_down: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)  # sites that say nothing, and why
    round_id: bytes = b""
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def fewest(self) -> int:
        """Sites that hide each other: of the smallest sum that this is made of."""
        return min(map(len, self.groups or (self.survivors,)))

    def evaluation(self) -> Evaluation:
        """Return what a sum over held-out rows says. Raises TaskError: no site could evaluate."""
        encoding, mean = self.task.encoding, self.mean
        target = None if encoding.schema is None else encoding.schema.target
        bound = encoding.codec.error_bound(len(self.survivors), max(mean.weight, 1))
        return to_evaluation(mean.mean, mean.weight, len(encoding.classes), target, bound)

    def spread(self) -> SiteSpread:
        """Return what a sum of votes of the sites says."""
        return to_spread(self.mean.mean, len(self.survivors))

    @classmethod
    def decoded(
        cls,
        task: Task,
        total: NDArray[np.unsignedinteger[Any]],
        survivors: Sequence[str],
        **rest: Any,  # noqa: ANN401 - the other fields
    ) -> GroupSum:
        """Decode a sum. Raises SpoiledSumError, which tells who is in it; CodecError."""
        try:
            mean = task.encoding.codec.decode(total, len(survivors))
        except SpoiledError as error:
            raise SpoiledSumError(str(error), tuple(survivors), rest.get("failures", {})) from error
        return cls(task, total, tuple(survivors), mean, **rest)


class SpoiledSumError(SpoiledError):
    """A sum over `survivors` makes no sense; it was opened all the same."""

    def __init__(self, text: str, survivors: tuple[str, ...], failures: Mapping[str, str]) -> None:
        self.survivors = survivors
        self.failures = dict(failures)
        super().__init__(text)


class SumAggregator(Protocol):
    """Asks every site for its vector and returns the sum over those who answered."""

    @property
    def names(self) -> Sequence[str]:
        """All sites, ascending."""

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Sum the vectors of the sites, or of some. Raises RoundAbortedError, SpoiledSumError, TaskError."""

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        """Deal those of a spoiled sum into groups, as their own ledgers expect it."""


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

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        """Deal into groups of even sizes, in an order that follows from the members."""
        seed = hashlib.sha256("\n".join(sorted(members)).encode()).digest()
        order = [sorted(members)[i] for i in permutation(seed, len(members))]
        return [tuple(sorted(order[i::groups])) for i in range(groups)]

    def ask(
        self, task: Task, among: Sequence[str] | None, question: Callable[[Site, Task], T]
    ) -> tuple[dict[str, T], dict[str, str]]:
        """Return answers by site, and why some say nothing: a failing site costs only itself the round.

        raises  TaskError: nobody has anything to say; RoundAbortedError: fewer than the noise needs
        """
        answers, failures = {}, {}
        asked = set(self.sites if among is None else among) - self.absent.get(task.name, frozenset())
        for name in sorted(asked):
            site = self.sites[name]
            try:
                answers[name] = question(site, task)
            except (FedcoreError, ParameterError) as error:
                failures[name] = str(error)
            else:
                if site.trouble:
                    failures[name] = site.trouble
        if failures.keys() >= asked:
            raise TaskError(f"{task.name}: no site could contribute: {_reasons(failures)}")
        noise = task.encoding.noise
        if noise is not None and len(answers) < noise.smallest:
            raise RoundAbortedError(
                AbortReason.TOO_FEW_SURVIVORS,
                f"{len(answers)} of at least {noise.smallest} whose noise is needed",
            )
        return answers, failures

    def counted(self, task: Task, survivors: Sequence[str]) -> None:
        """Tell the sites of a sum that their vectors counted, as the service's sessions do."""
        for name in survivors:
            self.sites[name].state.count(task.name, survivors)


@dataclass(slots=True)
class PlainSum(_InProcess):
    """Sums in the clear: the reference, and the baseline.

    absent  sites that are left out, by task name
    """

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Add up what the sites send."""
        vectors, failures = self.ask(task, among, lambda site, asked: site.contribute(asked))
        ring_bits = task.encoding.codec.ring_bits
        total = np.zeros(task.encoding.length, lane_dtype(ring_bits))
        for vector in vectors.values():
            total += vector
        total &= total.dtype.type(ring_mask(ring_bits))
        self.counted(task, tuple(vectors))
        return GroupSum.decoded(task, total, tuple(vectors), failures=failures)


@dataclass(slots=True)
class FloatSum(_InProcess):
    """Means in real numbers, without rounding or noise: what quantized sums are compared with.

    absent  sites that are left out, by task name
    """

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Average what the sites compute."""
        real, failures = self.ask(task, among, lambda site, asked: site.compute(asked))
        self.counted(task, tuple(real))
        mean = real_mean(list(real.values()))
        return GroupSum(task, np.zeros(0, np.uint16), tuple(real), mean, failures=failures)


def real_mean(contributions: Sequence[Contribution]) -> WeightedMean:
    """Weighted mean of what sites computed, before any rounding."""
    weight = sum(one.weight for one in contributions)
    mean, precise = (
        np.zeros(part.shape) for part in (contributions[0].coordinates, contributions[0].precise)
    )
    for one in contributions:
        mean += one.weight * one.coordinates.astype(np.float64, copy=False)
        precise += one.weight * one.precise
    return WeightedMean(mean / weight, weight, precise / weight)


@dataclass(slots=True)
class SecureSum(_InProcess):
    """Sums through the real protocol, all parties in this process.

    absent     sites that drop out after they shared their keys, by task name
    protocol   "one-shot": sites speak once, and `committee` decryptors open the sum
    suite      of "pairwise"
    """

    threat_model: ThreatModel = field(default_factory=ThreatModel)
    protocol: Literal["pairwise", "one-shot"] = "pairwise"
    committee: int = 8
    suite: Suite = "x25519"

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round; a site that refuses the task is a dropout."""
        names = sorted(self.sites if among is None else among)
        vectors, failures = self.ask(task, names, lambda site, asked: site.answer(asked))
        ring_bits = task.encoding.codec.ring_bits
        empty = np.zeros(task.encoding.length, lane_dtype(ring_bits))
        result = aggregate(
            [vectors.get(name, empty) for name in names],
            ring_bits=ring_bits,
            drop={i: Phase.MASKED_INPUT_COLLECTION for i, name in enumerate(names) if name not in vectors},
            threat_model=self.threat_model,
            protocol=self.protocol,
            committee=self.committee,
            suite=self.suite,
        )
        survivors = tuple(names[i] for i in result.clients)
        self.counted(task, survivors)
        return GroupSum.decoded(
            task,
            result.total,
            survivors,
            bytes_up=sum(result.traffic.up.values()),
            bytes_down=sum(result.traffic.down.values()),
            failures=failures,
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
