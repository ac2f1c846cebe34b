"""Weighted means of models as dictionaries of arrays, by one secure sum: what adapters of other stacks use.

A node's part is: its update minus the model that it was given, clipped, scaled by its weight and rounded;
behind it the metrics and the weight as exact numbers, and behind those three counts of what did not fit.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import Codec, EncodedVector
from fedcore.errors import CodecError, SpoiledError
from fedcore.settings import require
from secagg import (
    Aggregate,
    Entropy,
    OneShotParameters,
    RoundParameters,
    ThreatModel,
    arrays_digest,
    context_digest,
)
from secagg.kernels import UIntArray

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
COUNTS = ("updates_clipped", "weights_capped", "metrics_clipped")
_PURPOSE = b"fedcore mean 1"
_NOISY = 0.01  # of the mean's norm


class ImpreciseWarning(UserWarning):
    """What rounding may have done to a mean is more than a hundredth of it."""


@dataclass(frozen=True, slots=True)
class MeanResult:
    """What a round of means tells.

    arrays     the model moved by the weighted mean of the nodes' updates
    weight     sum of the weights; clients: how many are in it
    metrics    weighted means, by name
    counts     clients whose update had coordinates that were clipped, whose weight was above the cap and
               counts as the cap, whose metrics were outside their range
    noise      root mean square of what rounding adds to the mean, at most, over its norm
    """

    arrays: dict[str, NDArray[Any]]
    weight: int
    clients: int
    metrics: dict[str, float]
    counts: dict[str, int]
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The weighted mean of models, the same at the server and at every node.

    clip        largest change of a coordinate in a round; larger ones are clipped, and counted
    bits        of a rounded coordinate, 2..40
    weight_cap  largest weight of a node, such as its number of examples; a larger one counts as the cap. 1:
                all nodes count alike, and no weight travels
    metrics     what nodes tell beside: the range of each, by name. Means of them, by weight, are exact to
                2^-23 of the range
    keep        names of arrays that are not averaged: they stay as the server has them, such as counters of a
                normalisation layer
    only_metrics  no array is averaged, as in a round of evaluation; see `evaluation`
    raises      SettingError
    """

    clip: float
    bits: int = 16
    weight_cap: int = 1
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    keep: frozenset[str] = frozenset()
    only_metrics: bool = False

    def __post_init__(self) -> None:
        for name in ("bits", "weight_cap"):
            whole = isinstance(getattr(self, name), int) and not isinstance(getattr(self, name), bool)
            require(whole, name, "a whole number", getattr(self, name))
        require(2 <= self.bits <= 40, "bits", "in 2..40", self.bits)
        require(_is_number(self.clip), "clip", "a number", self.clip)
        object.__setattr__(self, "clip", float(self.clip))  # 1 and 1.0 are one setting, and one context
        require(isinstance(self.metrics, Mapping), "metrics", "ranges by name", self.metrics)
        ranges = {name: _range(name, value) for name, value in self.metrics.items()}
        object.__setattr__(self, "metrics", MappingProxyType(dict(sorted(ranges.items()))))
        require(not isinstance(self.keep, str), "keep", "a set of names", self.keep)
        object.__setattr__(self, "keep", frozenset(self.keep))
        require(
            bool(self.metrics) or not self.only_metrics, "metrics", "named, where nothing else is told", {}
        )
        self._codec(2)

    def _codec(self, clients: int) -> Codec:
        return Codec(
            clip=self.clip,
            bits=self.bits,
            weight_cap=self.weight_cap,
            clients=clients,
            precise=len(self.metrics),
        )

    def evaluation(self, metrics: Mapping[str, tuple[float, float]] | None = None) -> Mean:
        """Return the mean of these metrics alone, or of ours: of a model that is evaluated."""
        return replace(self, metrics=self.metrics if metrics is None else metrics, only_metrics=True)

    # --- what both ends agree on

    def context(self, model: Arrays, about: bytes = b"") -> bytes:
        """Return what a round of means is about, 32 bytes: this model, these settings, and `about`.

        about  what else nodes are told, and must be told alike: the configuration of the training

        raises  CodecError: an array that cannot be averaged
        """
        self._names(model)
        ranges = [part for name, range_ in self.metrics.items() for part in (name.encode(), _text(*range_))]
        kept = [name.encode() for name in sorted(self.keep)]
        settings = context_digest(
            _text(self.clip, self.bits, self.weight_cap, int(self.only_metrics)),
            context_digest(*ranges),
            context_digest(*kept),
        )
        return context_digest(_PURPOSE, settings, arrays_digest(model), about)

    def subject(self, model: Arrays) -> bytes:
        """Return what a node's ledger knows such rounds by: whatever else nodes are told about this model."""
        return self.context(model)

    def round(
        self,
        model: Arrays,
        *,
        clients: int,
        about: bytes = b"",
        threat_model: ThreatModel | None = None,
        entropy: Entropy = os.urandom,
        **others: Any,  # noqa: ANN401 - of RoundParameters
    ) -> RoundParameters:
        """Return the parameters of a round about a model, with a fresh id.

        clients  at most so many are summed
        others   as `RoundParameters`: minimum_cohort, minimum_survivors, suite
        """
        codec = self._codec(clients)
        for name in self._names(model):
            if not np.isfinite(model[name]).all():
                raise CodecError(f"model: {name} must be finite, has {np.asarray(model[name]).min()}")
        return RoundParameters(
            round_id=entropy(16),
            vector_length=codec.length(self._size(model)) + len(COUNTS),
            ring_bits=codec.ring_bits,
            context=self.context(model, about),
            threat_model=threat_model or ThreatModel(),
            **others,
        )

    def _names(self, model: Arrays) -> list[str]:
        """Return the names that are averaged, in their one order. Raises CodecError."""
        if self.only_metrics:
            return []
        names = sorted(set(model) - self.keep)
        for name in names:
            if np.asarray(model[name]).dtype.kind != "f":
                kind = np.asarray(model[name]).dtype
                raise CodecError(
                    f"model: {name} must be of floats, is of {kind}: name it in `keep`, and it stays as the "
                    f"server has it"
                )
        if missing := self.keep - set(model):
            raise CodecError(f"keep: {min(missing)} is not in the model")
        if not any(np.asarray(model[name]).size for name in names):
            raise CodecError("model: has no entry to average")
        return names

    def _size(self, model: Arrays) -> int:
        return sum(int(np.asarray(model[name]).size) for name in self._names(model))

    # --- a node

    def source(
        self,
        parameters: RoundParameters | OneShotParameters,
        model: Arrays,
        update: Arrays,
        *,
        weight: int = 1,
        metrics: Mapping[str, float] = MappingProxyType({}),
        entropy: Entropy = os.urandom,
    ) -> EncodedVector:
        """Return a node's part of the sum: a source that a session masks chunk by chunk.

        model    as the node was given it; update: the arrays after its training, of the same shapes
        weight   at least 0, or 1 where all count alike; above the cap it counts as the cap
        metrics  a value for each that was agreed on

        raises   CodecError: other names or shapes, a metric that is missing or unknown, a value that is not
                 finite (of the update: when it is read), a round that is not of such means
        """
        names = self._names(model)
        self._check_update(names, model, update)
        parts = [
            np.ravel(np.asarray(update[name])).astype(np.float32 if _single(model[name]) else np.float64)
            - np.ravel(np.asarray(model[name]))
            for name in names
        ]
        for name, part in zip(names, parts, strict=True):
            if not np.isfinite(part).all():
                at = int(np.argmin(np.isfinite(part)))
                raise CodecError(f"update: {name} must be finite, entry {at} minus the model's is {part[at]}")
        delta = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        clipped = bool(np.max(np.abs(delta), initial=0.0) > self.clip)
        precise, outside = self._scaled(metrics)
        weight = self._checked_weight(weight)
        counts = [int(clipped), int(weight > self.weight_cap), int(outside)]
        codec = self._codec_of(parameters, delta.size)
        source = codec.source(delta, min(weight, self.weight_cap), entropy(32), precise)
        return source.followed_by(counts)

    def _checked_weight(self, weight: object) -> int:
        least = 1 if self.weight_cap == 1 else 0  # where all count alike nobody counts as nothing
        if isinstance(weight, bool | float) or not hasattr(weight, "__index__") or weight.__index__() < least:
            raise CodecError(f"weight: must be an integer of at least {least}, is {weight!r}")
        return int(weight.__index__())

    def _codec_of(self, parameters: RoundParameters | OneShotParameters, size: int) -> Codec:
        """Return the codec for the ring of a round: its clients are as many as fit."""
        most = (2 ** (parameters.ring_bits - 1) - 1) // (2 ** (self.bits - 1) - 1)
        if most < 1:
            raise CodecError(f"ring_bits: {parameters.ring_bits} hold no value of {self.bits} bits")
        codec = self._codec(most)
        length = codec.length(size) + len(COUNTS)
        if (codec.ring_bits, length) != (parameters.ring_bits, parameters.vector_length):
            raise CodecError(
                f"vector_length, ring_bits: the round has {parameters.vector_length} and "
                f"{parameters.ring_bits}, a mean of this model {length} and {codec.ring_bits}"
            )
        return codec

    def _check_update(self, names: list[str], model: Arrays, update: Arrays) -> None:
        if self.only_metrics:
            return
        for there, lacking, in_which in (
            (set(names), set(update), "model"),
            (set(update), set(names), "update"),
        ):
            if other := there - lacking - self.keep:
                raise CodecError(f"update: {min(other)} is in the {in_which} only, names must be the same")
        for name in names:
            kind = np.asarray(update[name]).dtype
            if kind.kind not in "fiub":
                raise CodecError(f"update: {name} must be of floats, is of {kind}")
            if np.shape(update[name]) != np.shape(model[name]):
                raise CodecError(
                    f"update: {name} must have shape {np.shape(model[name])}, has {np.shape(update[name])}"
                )

    def _scaled(self, metrics: Mapping[str, float]) -> tuple[NDArray[np.float64], bool]:
        """Return the metrics in [-1, 1], and whether one was outside its range."""
        known = ", ".join(self.metrics) or "none"
        for other, what in (
            (set(self.metrics) - set(metrics), "missing"),
            (set(metrics) - set(self.metrics), "unknown"),
        ):
            if other:
                raise CodecError(f"metrics: {min(other)} is {what}, agreed on are {known}")
        for name in self.metrics:
            if not _is_number(metrics[name]):
                raise CodecError(f"metrics: {name} must be a number, is {metrics[name]!r}")
        values = np.array([float(metrics[name]) for name in self.metrics])
        if not np.isfinite(values).all():
            name = list(self.metrics)[int(np.argmin(np.isfinite(values)))]
            raise CodecError(f"metrics: {name} must be finite, is {metrics[name]}")
        low, high = np.array(list(self.metrics.values())).reshape(-1, 2).T
        scaled = 2 * (values - low) / (high - low) - 1
        return np.clip(scaled, -1, 1), bool((np.abs(scaled) > 1).any())

    # --- the server

    def decode(self, parameters: RoundParameters, model: Arrays, result: Aggregate) -> MeanResult:
        """Decode the sum of a round about this model. Warns (ImpreciseWarning) when rounding is seen.

        raises  SpoiledError: a sum that cannot be; CodecError
        """
        return self.decode_sum(parameters, model, result.total, len(result.survivors))

    def decode_sum(
        self, parameters: RoundParameters, model: Arrays, total: UIntArray, clients: int
    ) -> MeanResult:
        """Decode a sum over so many clients, as `decode`. total: (vector_length,)."""
        names, size = self._names(model), self._size(model)
        codec = self._codec_of(parameters, size)
        decoded = codec.decode(total[: -len(COUNTS)], clients)
        counts = dict(zip(COUNTS, map(int, total[-len(COUNTS) :]), strict=True))
        for name, count in counts.items():
            if count > clients:
                raise SpoiledError(f"total: {name} is {count}, of {clients} clients")
        arrays = {name: np.array(model[name]) for name in model}
        at = 0
        for name in names:
            old = arrays[name]
            moved = old.astype(np.float64) + decoded.mean[at : at + old.size].reshape(old.shape)
            arrays[name], at = np.asarray(moved, old.dtype), at + old.size
        ranges = self.metrics.values()
        metrics = {
            name: low + (float(value) + 1) * (high - low) / 2
            for name, value, (low, high) in zip(self.metrics, decoded.precise, ranges, strict=True)
        }
        noise = self._noise(decoded.mean, decoded.weight, clients)
        return MeanResult(arrays, decoded.weight, clients, metrics, counts, noise)

    def _noise(self, mean: NDArray[np.float64], weight: int, clients: int) -> float:
        """Return what rounding adds, over the norm of the mean; warn when it is seen.

        Stochastic rounding to a step has a variance of a quarter of its square at most, at each client.
        """
        if not mean.size:
            return 0.0
        step = self.clip / (2 ** (self.bits - 1) - 1) * self.weight_cap / weight
        norm = float(np.linalg.norm(mean))
        added = 0.5 * step * float(np.sqrt(clients * mean.size))
        noise = min(added / norm, 1.0) if norm else 1.0
        if noise > _NOISY:
            warnings.warn(
                f"rounding is up to {noise:.0%} of this mean: clip = {self.clip:g} is far above the updates, "
                f"or weight_cap = {self.weight_cap} above the weights; lower them, or raise bits from "
                f"{self.bits}",
                ImpreciseWarning,
                stacklevel=4,
            )
        return noise


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf"
    )


def _range(name: str, value: object) -> tuple[float, float]:
    """Return the range of a metric. Raises SettingError."""
    right = isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))
    low, high = map(float, value) if right else (0.0, 0.0)  # type: ignore[call-overload]
    finite = bool(np.isfinite(low) and np.isfinite(high))
    require(finite and low < high, f"metrics.{name}", "a range (low, high)", value)
    return low, high


def _single(array: NDArray[Any]) -> bool:
    return np.asarray(array).dtype.itemsize <= 4


def _text(*numbers: float) -> bytes:
    return ",".join(repr(number) for number in numbers).encode()
