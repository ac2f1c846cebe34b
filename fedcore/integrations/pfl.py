"""What secure aggregation does to learning, in Apple's pfl-research (>= 0.5): the last of the postprocessors.

    backend = SimulatedBackend(users, users, [..., SecAggSum(Mean(clip=0.1, weight_cap=100), cohort=200)])

Updates are clipped, scaled by their weights, rounded at random and summed in the ring, users are lost on the
way, a round with too few of them (for `fewest`, or for the protocol that masks) has no sum: what the server's
optimizer sees is what it would see of a real federation. With masks="pairwise" or "one-shot" the sum is that
of the real protocol, all parties in this process: slower, and the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pfl.internal.ops.selector import get_default_framework_module
from pfl.metrics import Metrics, StringMetricName, Weighted
from pfl.postprocessor.base import Postprocessor

from fedcore.codec.codec import EncodedVector
from fedcore.codec.mean import Mean, MeanResult
from fedcore.errors import SettingError
from fedcore.settings import require
from secagg import Phase, RoundAbortedError, RoundParameters, aggregate
from secagg.kernels import lane_dtype


class SecAggSum(Postprocessor):
    """Replaces pfl's sum of updates by the sum of a secure aggregation.

    mean      how updates become vectors; `metrics` and `keep` have no use here
    cohort    most users of a round
    lost      share of the users whose upload does not arrive
    fewest    uploads in a sum; with fewer the round has none, and the model stays as it is
    masks     "none", or the protocol that masks the vectors
    seed      of who is lost, and of the rounding
    raises    SettingError; for a user: CodecError, and SettingError: a weight that is no whole number, more
              users than `cohort`, or several worker processes, whose sums pfl would add as they are

    Put it last: it sees the updates as they leave the device, and their sum before anybody else.
    """

    def __init__(
        self,
        mean: Mean,
        *,
        cohort: int,
        lost: float = 0.0,
        fewest: int = 3,
        masks: Literal["none", "pairwise", "one-shot"] = "none",
        seed: int = 0,
    ) -> None:
        require(cohort >= 2, "cohort", "at least 2", cohort)
        require(0 <= lost < 1, "lost", "in [0, 1)", lost)
        require(fewest >= 2, "fewest", "at least 2", fewest)
        require(masks in {"none", "pairwise", "one-shot"}, "masks", "none, pairwise or one-shot", masks)
        unused = not (mean.metrics or mean.keep or mean.only_metrics)
        require(unused, "mean", "without metrics and keep: pfl has its own", mean)
        self._mean, self._cohort, self._lost, self._fewest = mean, cohort, lost, fewest
        self._masks, self._chance = masks, np.random.default_rng(seed)
        self._round: _Round | None = None

    def postprocess_one_user(self, *, stats: Any, user_context: Any) -> tuple[Any, Metrics]:  # noqa: ANN401
        """Take a user's update into the sum, or lose it."""
        ops = get_default_framework_module()
        if ops.distributed.world_size > 1:
            raise SettingError("backend: must have one worker process")
        weight = float(stats.weight)
        if weight != int(weight) or weight < 1:
            raise SettingError(f"weight: must be a whole number of at least 1, is {weight}")
        update = {name: np.asarray(ops.to_numpy(value)) / weight for name, value in stats.items()}
        if self._round is None:
            self._round = _Round(self._mean, update, self._cohort, keep=self._masks != "none")
        arrives = bool(self._chance.random() >= self._lost)
        seed = self._chance.bytes(32)
        self._round.add(update, int(weight), seed, arrives=arrives)
        return stats, Metrics([(StringMetricName("secagg: users lost"), Weighted(int(not arrives), 1))])

    def postprocess_server(self, *, stats: Any, central_context: Any, aggregate_metrics: Any) -> Any:  # noqa: ANN401
        """Replace the sum."""
        one, self._round = self._round, None
        if one is None:
            raise SettingError("postprocessors: SecAggSum saw no user of this round")
        ops = get_default_framework_module()
        told: dict[str, float] = {"uploads summed": float(one.uploads)}
        result = one.result(self._masks) if one.uploads >= self._fewest else None
        if result is None:
            arrays, weight = {name: np.zeros_like(value) for name, value in one.model.items()}, 1
            told["uploads summed"] = 0.0
        else:
            arrays, weight = result.arrays, result.weight
            told |= {name.replace("_", " "): float(count) for name, count in result.counts.items()}
            told["rounding over norm"] = result.noise
        sums = [ops.to_tensor(np.asarray(arrays[name] * weight, np.float32)) for name in stats]
        metrics = Metrics([(StringMetricName(f"secagg: {name}"), value) for name, value in told.items()])
        return stats.from_weights(ops.to_tensor([float(weight)]), sums), metrics


class _Round:
    """The uploads of one round: their sum, and the vectors themselves where they are to be masked."""

    def __init__(self, mean: Mean, like: Mapping[str, NDArray[Any]], cohort: int, *, keep: bool) -> None:
        self.model = {name: np.zeros_like(value, dtype=np.float32) for name, value in like.items()}
        self.parameters: RoundParameters = mean.round(self.model, clients=cohort)
        self.uploads, self._mean, self._cohort = 0, mean, cohort
        self._total = np.zeros(self.parameters.vector_length, lane_dtype(self.parameters.ring_bits))
        self._sources: list[EncodedVector] | None = [] if keep else None
        self._silent: dict[int, Phase] = {}

    def add(self, update: Mapping[str, NDArray[Any]], weight: int, seed: bytes, *, arrives: bool) -> None:
        made = self._mean.source(
            self.parameters, self.model, update, weight=weight, entropy=lambda _count: seed
        )
        if self._sources is not None:
            if not arrives:
                self._silent[len(self._sources)] = Phase.MASKED_INPUT_COLLECTION
            self._sources.append(made)
        if arrives:
            self.uploads += 1
            if self.uploads > self._cohort:
                raise SettingError(f"cohort: must be at least the users of a round, is {self._cohort}")
        if arrives and self._sources is None:
            vector = np.empty_like(self._total)
            made.read(0, vector)
            self._total += vector  # of unsigned lanes: modulo their own size, which the ring divides

    def result(self, masks: str) -> MeanResult | None:
        """Return the mean; None: the protocol ends without a sum, too many were lost for it."""
        if self._sources is None:
            total = self._total & self._total.dtype.type(2**self.parameters.ring_bits - 1)
        else:
            protocol: Any = masks
            bits = self.parameters.ring_bits
            try:
                total = aggregate(self._sources, ring_bits=bits, drop=self._silent, protocol=protocol).total
            except RoundAbortedError:
                return None
        return self._mean.decode_sum(self.parameters, self.model, total, self.uploads)
