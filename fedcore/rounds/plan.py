"""Plan of a training run, known to everybody before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedcore.codec.clipping import AdaptiveClip
from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.errors import SettingError
from fedcore.privacy.noise import Noise
from fedcore.privacy.plan import PrivacyPlan
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.rounds.local_training import GRAIN
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.stopping import Stopping
from fedcore.settings import at_least, positive, require, settle
from fedcore.stream import choose, derive

STATISTICS_BITS = 32  # of a unit mean: finer than any measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Numbers of rounds and passes: [plan] of a file, but for `clients` and `privacy`.

    clients      most sites of a sum: those enrolled, or the cohort of a round
    rounds       of training, after the two of statistics
    weight_cap   most rows that count for a site
    clip, bits   of the updates' coordinates, see Codec; the clip follows from the norm if there is one
    attempts     for a round that ends without a result
    smallest_group  fewest sites of a group that a spoiled round is dealt into
    norm         L2 norm that updates are clipped to: a number, or adaptive; None: coordinates alone are
    rotate       before rounding, and keep: share of the coordinates that are sent, see Shaping
    cohort       sites drawn for each round; None: all
    standardize  where there is a schema: by two secure sums, with privacy by one with noise, or by the bounds
    decay        factor of the local learning rate from round to round
    final_rate   factor of it that is reached linearly in the last round
    seed         public: cohorts, groups, rotations and kept coordinates follow from it
    privacy      noise and budget; None: none
    evaluate_every  rounds between federated evaluations; 0: never
    stopping     when to end before the last round
    raises       SettingError
    """

    clients: int
    rounds: int = 10
    weight_cap: int = 10_000
    clip: float = 1.0
    bits: int = 20
    attempts: int = 3
    smallest_group: int = 4
    norm: float | AdaptiveClip | None = None
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
        settle(self)
        self.codec(TaskKind.MEAN)
        self.codec(TaskKind.TRAIN)
        self.shaping(1)
        at_least(self, 1, "attempts")
        at_least(self, 0, "rounds", "evaluate_every")
        asked = 1 if self.cohort is None else self.cohort
        require(1 <= asked <= self.clients, "cohort", f"in 1..{self.clients}", asked)
        positive(self, "decay", "final_rate")
        if self.stopping is not None and not self.evaluate_every:
            raise SettingError("stopping: needs evaluations, evaluate_every is 0")
        if self.privacy is not None:
            self._check_private(self.privacy)

    def _check_private(self, privacy: PrivacyPlan) -> None:
        if privacy.statistics and not self.standardize:
            raise SettingError("privacy.statistics: is for plan.standardize, which is false")
        if self.norm is None:
            raise SettingError("privacy: needs a norm, noise hides only what is bounded")
        asked = self.clients if self.cohort is None else self.cohort
        rule = f"at most the {asked} sites of a round"
        require(privacy.smallest <= asked, "privacy.smallest", rule, privacy.smallest)
        if privacy.sensitivity is not None and (isinstance(self.norm, AdaptiveClip) or self.keep < 1):
            raise SettingError(
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
            norm=self.first_norm if norm is None else norm,
            rotate=self.rotate,
            keep=self.keep,
            seed=self.round_seed(number, "shaping") if self.rotate or self.keep < 1 else bytes(32),
        )

    @property
    def first_norm(self) -> float | None:
        """Norm of the first round."""
        return self.norm.norm if isinstance(self.norm, AdaptiveClip) else self.norm

    def next_norm(self, norm: float, within: float) -> float:
        """Return the norm of the next round, from this one's and the share of sites within it."""
        return self.norm.following(norm, within) if isinstance(self.norm, AdaptiveClip) else norm

    def rate(self, number: int) -> float:
        """Return the factor of the local learning rate in a round."""
        done = (number - 1) / max(self.rounds - 1, 1)
        return self.decay ** (number - 1) * (1 - done * (1 - self.final_rate))

    def asks(self, asks: Asks, number: int) -> Asks:
        """Add what the plan asks. Raises SettingError where that and the strategy's exclude each other."""
        if (factor := self.rate(number)) != 1:
            asks = replace(asks, rate=asks.rate * factor)
        if isinstance(self.norm, AdaptiveClip):
            asks = replace(asks, quantile=self.norm.share)
        if self.norm is not None and asks.update is UpdateKind.WEIGHTS:
            raise SettingError("norm: weights are not clipped to a norm, changes and gradients are")
        if self.keep < 1 and asks.update is UpdateKind.WEIGHTS:
            raise SettingError("keep: weights that are not sent would be taken for zeros; send changes")
        if self.privacy is not None:
            if asks.normalized or asks.smoothing:
                raise SettingError(
                    "privacy: steps (FedNova) and weights by distance (geometric median) travel beside "
                    "the noise, so they cannot be used with it"
                )
            asks = replace(asks, weighting=Weighting.UNIFORM)
        return asks

    def round_codec(self, asks: Asks, shaping: Shaping, dimension: int) -> tuple[Codec, Noise | None]:
        """Return the codec of a training round of `dimension` values, with room for its noise, and the noise.

        raises  SettingError; ParameterError: no noise is enough
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

    def moments_codec(self, norm: float, dimension: int, expected: float) -> tuple[Codec, Noise]:
        """Return the codec of the noisy sum of moments, and the noise; see `round_codec`."""
        if self.privacy is None:
            raise SettingError("privacy: is missing, moments are summed with noise")
        codec = replace(self.codec(TaskKind.TRAIN), clip=norm, weight_cap=1)
        noise = self.privacy.of_moments(norm, expected).noise(codec, norm, dimension)
        return replace(codec, headroom=noise.headroom(codec.clients)), noise

    def cohort_of(self, names: Sequence[str], number: int) -> tuple[str, ...]:
        """Return the sites that a round is about: all, or those that are drawn for it."""
        if self.cohort is None or self.cohort >= len(names):
            return tuple(names)
        return tuple(names[i] for i in choose(self.round_seed(number, "cohort"), len(names), self.cohort))
