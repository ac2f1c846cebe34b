"""Noise that a trusted server adds: what distributed noise is compared with. For simulations only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedcore.codec.codec import WeightedMean
from fedcore.errors import TaskError
from fedcore.privacy.accounting import Mechanism, calibrate
from fedcore.rounds.aggregation import FloatSum, GroupSum
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task


@dataclass(slots=True)
class CentralGaussianSum:
    """Means in real numbers with Gaussian noise on training rounds (McMahan et al., ICLR 2018).

    epsilon, delta  of `rounds` rounds; sensitivity: of a vector; None: the round's norm
    smallest        survivors that the mean is divided by at least: its sensitivity is public
    seed            of numpy's generator: the noise is not fit for anything but comparison
    """

    sites: Mapping[str, Site]
    epsilon: float
    delta: float
    rounds: int
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sensitivity: float | None = None
    seed: int = 0

    @property
    def names(self) -> Sequence[str]:
        return sorted(self.sites)

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        """Deal as the sum without noise does."""
        return FloatSum(self.sites).deal(members, groups)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Average, and add the noise of a whole sum."""
        result = FloatSum(self.sites, self.absent).sum(task, among)
        if task.kind is not TaskKind.TRAIN:
            return result
        norm = self.sensitivity if self.sensitivity is not None else task.encoding.shaping.norm
        if norm is None or task.encoding.codec.weight_cap != 1:
            raise TaskError("noise: needs a norm and uniform weights")
        count = len(result.mean.mean)
        variance = calibrate(
            Mechanism.GAUSSIAN,
            epsilon=self.epsilon,
            delta=self.delta,
            rounds=self.rounds,
            l2=1.0,
            l1=1.0,
            dimension=count,
            parties=1,
        )
        rng = np.random.default_rng([self.seed, task.number])
        noise = rng.normal(0, norm * np.sqrt(variance), count) / len(result.survivors)
        return replace(result, mean=WeightedMean(result.mean.mean + noise, result.mean.weight))
