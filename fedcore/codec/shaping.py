"""Between an update and the codec: clip its norm, drop coordinates, rotate.

All but the clip is linear, so that it can be undone on a sum.

What everybody must do alike, which coordinates are kept and how is rotated, follows from a public
seed of the round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.tiles import norm
from fedcore.settings import positive, require, settle
from fedcore.stream import choose, derive
from secagg.kernels import hadamard

Values: TypeAlias = NDArray[np.floating[Any]]

# A rotated unit vector of d values has entries of deviation below sqrt(2 / d). Beyond so many of them
# values are clipped: with few bits the rounding of all costs more than clipping the largest.
_DEVIATIONS = 4.5
_FEWEST, _PER_BIT = 1.2, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """The shaping of a round's vectors before quantization.

    norm    L2 norm to which a vector is scaled down when it is longer; None: any length
    rotate  randomized Hadamard transform (Suresh et al., ICML 2017, section 3): flattens the vector, so
            that few bits a value are enough. Two overlapping transforms cover any length.
    keep    share of the coordinates that are sent, the same at every site (shared-seed sparsification,
            Konecny et al. 2016, section 3); what is dropped is kept back by the site and added to its
            next update (error feedback, Stich et al., NeurIPS 2018)
    seed    32 bytes, public, another in every round
    raises  SettingError
    """

    norm: float | None = None
    rotate: bool = False
    keep: float = 1.0
    seed: bytes = bytes(32)

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "norm")
        require(0 < self.keep <= 1, "keep", "in (0, 1]", self.keep)
        require(len(self.seed) == 32, "seed", "of 32 bytes", len(self.seed))

    def length(self, dimension: int) -> int:
        """Coordinates that are sent of `dimension`."""
        return max(1, math.ceil(self.keep * dimension)) if self.keep < 1 else dimension

    def shape(self, values: Values, quantile: float = 0.0, *, overwrite: bool = False) -> tuple[Values, bool]:
        """Return the coordinates to encode, (length(d),), and whether the vector (d,) was within the norm.

        quantile   if not 0, that answer follows as one more coordinate: +- this share of the norm
        overwrite  the caller needs `values` no more: they may become the result; dropped ones stay in them
        returns    the type of the values, float32 where they are rotated
        """
        kept, ours = (values, overwrite) if self.keep == 1 else (values[self._kept(len(values))], True)
        kept, scale = self.clip(kept, overwrite=ours)
        within = scale == 1.0
        if quantile:
            answer = (quantile if within else -quantile) * (self.norm or 1.0)
            kept, ours = np.append(kept, kept.dtype.type(answer)), True
        return (self._rotated(kept, inverse=False, overwrite=ours) if self.rotate else kept), within

    def restore(
        self, mean: Values, dimension: int, quantile: float = 0.0
    ) -> tuple[NDArray[np.float64], float]:
        """Return (d,) from a mean of shaped vectors, 0 where nothing was sent; the share within the norm."""
        kept = np.asarray(self._rotated(mean, inverse=True) if self.rotate else mean, np.float64)
        share = float("nan")
        if quantile:
            share = 0.5 + float(kept[-1]) / (2 * quantile * (self.norm or 1.0))
            kept = kept[:-1]
        if self.keep == 1:
            return kept, share
        out = np.zeros(dimension)
        out[self._kept(dimension)] = kept
        return out, share

    def clip(self, values: Values, *, overwrite: bool = False) -> tuple[Values, float]:
        """Return the vector within the norm, and the factor. What is not finite stays as it is."""
        if self.norm is None:
            return values, 1.0
        length = norm(values)
        if not math.isfinite(length) or length <= self.norm:
            return values, 1.0
        scale = self.norm / length
        return np.multiply(values, scale, out=values if overwrite else None), scale

    def left(self, values: Values, *, overwrite: bool = False) -> Values:
        """Return what of a vector is not sent, (d,); overwrite: in its place."""
        out = values if overwrite else values.copy()
        out[self._kept(len(values))] = 0.0
        return out

    def coordinate_clip(self, dimension: int, bits: int) -> float | None:
        """Return where coordinates of a shaped vector are clipped; None: it does not follow from the norm."""
        if self.norm is None:
            return None
        if not self.rotate:
            return self.norm
        deviations = min(_DEVIATIONS, _FEWEST + _PER_BIT * bits)
        return self.norm * min(1.0, deviations * math.sqrt(2 / self.length(dimension)))

    def _kept(self, dimension: int) -> NDArray[np.int64]:
        return choose(derive(self.seed, "keep"), dimension, self.length(dimension))

    def _rotated(self, values: Values, *, inverse: bool, overwrite: bool = False) -> NDArray[np.float32]:
        """Transform the first and then the last power of two of the values; together, all of them."""
        out = values.astype(np.float32, copy=not overwrite)
        size = 1 << (len(out).bit_length() - 1)
        ends = [(0, size), (len(out) - size, len(out))] if size < len(out) else [(0, size)]
        for first, last in reversed(ends) if inverse else ends:
            hadamard(out[first:last], seed=derive(self.seed, "rotate", first), inverse=inverse)
        return out
