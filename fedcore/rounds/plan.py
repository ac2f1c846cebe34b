"""What a training run does, known to everybody before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedcore.codec.clipping import AdaptiveClip, FixedClip
from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.errors import TaskError
from fedcore.privacy.noise import Noise
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.local_training import GRAIN
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.stopping import Stopping
from fedcore.stream import choose, derive

STATISTICS_BITS = 32  # of a unit mean: finer than any measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How many rounds of what.

    rounds       of training, after the two of statistics
    clients      most sites of a sum: those enrolled, or the cohort of a round
    weight_cap   most rows that count for a site
    clip, bits   of the updates' coordinates, see Codec; the clip follows from the norm if there is one
    attempts     for a round that ends without a result
    smallest_group  fewest sites of a group that a spoiled round is dealt into
    norm         L2 norm that updates are clipped to: fixed or adaptive; None: coordinates alone are
    rotate       before rounding, and keep: share of the coordinates that are sent, see Shaping
    cohort       sites drawn for each round; None: all
    standardize  where there is a schema: by two secure sums, with privacy by its public bounds alone
    decay        factor of the local learning rate from round to round
    final_rate   factor of it that is reached linearly in the last round
    seed         public: cohorts, groups, rotations and kept coordinates follow from it
    privacy      noise and budget; None: none
    evaluate_every  rounds between federated evaluations; 0: never
    stopping     when to end before the last round
    raises       CodecError, TaskError
    """

    rounds: int
    clients: int
    weight_cap: int = 10_000
    clip: float = 1.0
    bits: int = 20
    attempts: int = 3
    smallest_group: int = 4
    norm: FixedClip | AdaptiveClip | None = None
    rotate: bool = False
    keep: float = 1.0
    cohort: int | None = None
    standardize: bool = True
    decay: float = 1.0
    final_rate: float = 1.0
    seed: int = 0
    privacy: PrivacyPlan | None = None
    evaluate_every: int = 0
    stopping: Stopping | None = None

    def __post_init__(self) -> None:
        self.codec(TaskKind.MEAN)
        self.codec(TaskKind.TRAIN)
        if isinstance(self.norm, int | float):
            raise TaskError(f"norm: must be FixedClip, AdaptiveClip or None, is {self.norm}")
        self.shaping(1)
        if self.attempts < 1 or self.rounds < 0:
            raise TaskError(f"attempts, rounds: at least 1 and 0, are {self.attempts}, {self.rounds}")
        if self.cohort is not None and not 1 <= self.cohort <= self.clients:
            raise TaskError(f"cohort: must be in 1..{self.clients}, is {self.cohort}")
        for name in ("decay", "final_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TaskError(f"{name}: must be positive and finite, is {value}")
        if self.evaluate_every < 0:
            raise TaskError(f"evaluate_every: must be at least 0, is {self.evaluate_every}")
        if self.stopping is not None and not self.evaluate_every:
            raise TaskError("stopping: needs evaluations, evaluate_every is 0")
        if self.privacy is not None:
            self._check_private(self.privacy)

    def _check_private(self, privacy: PrivacyPlan) -> None:
        if self.norm is None:
            raise TaskError("privacy: needs a norm, noise hides only what is bounded")
        asked = self.clients if self.cohort is None else self.cohort
        if privacy.smallest > asked:
            raise TaskError(f"privacy.smallest: must be at most the {asked} sites of a round")
        if privacy.sensitivity is not None and (isinstance(self.norm, AdaptiveClip) or self.keep < 1):
            raise TaskError(
                "privacy.sensitivity: a person also moves the bit of an adaptive norm, and what was not "
                "sent comes again; both pass what one update bounds"
            )

    def codec(self, kind: TaskKind) -> Codec:
        """Return the codec of a task: finer for statistics, whose values lie in [-1, 1]."""
        training = kind is TaskKind.TRAIN
        return Codec(
            clip=self.clip if training else 1.0,
            bits=self.bits if training else STATISTICS_BITS,
            weight_cap=1 if kind is TaskKind.SITES else self.weight_cap,
            clients=self.clients,
        )

    def round_seed(self, number: int, purpose: str) -> bytes:
        """Return 32 public bytes of a round."""
        return derive(self.seed.to_bytes(32, "big", signed=True), purpose, number)

    def shaping(self, number: int, norm: float | None = None) -> Shaping:
        """Return how the vectors of a round are shaped; norm: in force in this round."""
        return Shaping(
            norm=norm if norm is not None else self.norm.norm if self.norm is not None else None,
            rotate=self.rotate,
            keep=self.keep,
            seed=self.round_seed(number, "shaping") if self.rotate or self.keep < 1 else bytes(32),
        )

    def asks(self, asks: Asks, number: int) -> Asks:
        """Add what the plan asks. Raises TaskError where that and the strategy's exclude each other."""
        if self.decay != 1 or self.final_rate != 1:
            done = (number - 1) / max(self.rounds - 1, 1)
            factor = self.decay ** (number - 1) * (1 - done * (1 - self.final_rate))
            asks = replace(asks, rate=asks.rate * factor)
        if isinstance(self.norm, AdaptiveClip):
            asks = replace(asks, quantile=self.norm.share)
        if self.norm is not None and asks.update is UpdateKind.WEIGHTS:
            raise TaskError("norm: weights are not clipped to a norm, changes and gradients are")
        if self.keep < 1 and asks.update is UpdateKind.WEIGHTS:
            raise TaskError("keep: weights that are not sent would be taken for zeros; send changes")
        if self.privacy is not None:
            if asks.normalized or asks.smoothing:
                raise TaskError(
                    "privacy: steps (FedNova) and weights by distance (geometric median) travel beside "
                    "the noise, so they cannot be used with it"
                )
            asks = replace(asks, weighting=Weighting.UNIFORM)
        return asks

    def round_codec(self, asks: Asks, shaping: Shaping, dimension: int) -> tuple[Codec, Noise | None]:
        """Return the codec of a training round of `dimension` values, with room for its noise, and the noise.

        raises  CodecError, ParameterError: no noise is enough
        """
        cap = 1 if asks.weighting is Weighting.UNIFORM else self.weight_cap
        clip = shaping.coordinate_clip(dimension, self.bits)
        codec = replace(
            self.codec(TaskKind.TRAIN),
            clip=self.clip if clip is None else clip,
            weight_cap=cap * (GRAIN if asks.smoothing else 1),
            precise=int(asks.normalized) + int(bool(asks.quantile) and self.privacy is None),
        )
        if self.privacy is None or shaping.norm is None:
            return codec, None
        sent = shaping.length(dimension) + bool(asks.quantile)
        longest = shaping.norm * math.hypot(1.0, asks.quantile)
        noise = self.privacy.noise(codec, longest, sent, rotate=shaping.rotate)
        return replace(codec, headroom=noise.headroom(codec.clients)), noise

    def cohort_of(self, names: Sequence[str], number: int) -> tuple[str, ...]:
        """Return the sites that a round is about: all, or those that are drawn for it."""
        if self.cohort is None or self.cohort >= len(names):
            return tuple(names)
        return tuple(names[i] for i in choose(self.round_seed(number, "cohort"), len(names), self.cohort))
