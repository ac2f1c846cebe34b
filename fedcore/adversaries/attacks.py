"""Attacks on a site's rows, on its update, and on its vector in the ring; see `adversaries`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.learner import Parameters, ScoringLearner
from fedcore.privacy.noise import signed
from fedcore.rounds.task import Task
from secagg import ParameterError
from secagg.kernels import UIntArray, ring_mask

Vector: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Base of the attacks: by itself an honest site, but for these two lies.

    boasts        claims the largest weight that the codec takes, in every pass
    ignores_norm  does not clip its vector to the norm of the round, and adds no noise
    """

    boasts: bool = False
    ignores_norm: bool = False

    def poisoned(self, rows: Any, classes: int | None, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """Return what the site has instead of its rows. Raises ParameterError."""
        return rows

    def vector(self, honest: Vector, rng: np.random.Generator) -> Vector:
        """Return (d,), what is sent instead of the change that honest training gave."""
        return honest

    def on_the_wire(self, encoded: UIntArray, task: Task) -> UIntArray:
        """Return ring elements (task.length,) in place of the encoded ones."""
        return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFlip(Attack):
    """Train on flipped labels (Biggio et al., ICML 2012; in federations: Tolpegin et al., ESORICS 2020).

    source, target  rows of one class become another; without both, every label y becomes classes - 1 - y
    classes         how many; None: the schema's
    raises          ParameterError
    """

    source: int | None = None
    target: int | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None):
            raise ParameterError(f"source, target: both or none, are {self.source}, {self.target}")
        if self.classes is not None and self.classes < 2:
            raise ParameterError(f"classes: must be at least 2, is {self.classes}")

    def poisoned(self, rows: Any, classes: int | None, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """Flip the labels."""
        _check(rows)
        count = self.classes if self.classes is not None else classes
        if count is None:
            raise ParameterError("classes: must be given where the site has no schema")
        for name, value in (("source", self.source), ("target", self.target)):
            if value is not None and not 0 <= value < count:
                raise ParameterError(f"{name}: must be in 0..{count - 1}, is {value}")
        if self.target is None:
            return replace(rows, labels=count - 1 - rows.labels)
        return replace(rows, labels=np.where(rows.labels == self.source, self.target, rows.labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignFlip(Attack):
    """Send -scale times the update (Blanchard et al., NeurIPS 2017; Li et al., AAAI 2019, section 5)."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _positive("scale", self.scale)

    def vector(self, honest: Vector, rng: np.random.Generator) -> Vector:
        """Turn around."""
        return -self.scale * honest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling(Attack):
    """Model replacement: the update times a factor (Bagdasaryan et al., AISTATS 2020, equation 3).

    factor  the sum of all weights by the site's own replaces the model by what this site trained
    of      the attack whose update is boosted; an honest one by default
    """

    factor: float = 10.0
    of: Attack = field(default_factory=Attack)

    def __post_init__(self) -> None:
        _positive("factor", self.factor)

    def poisoned(self, rows: Any, classes: int | None, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """Poison as the inner attack does."""
        return self.of.poisoned(rows, classes, rng)

    def vector(self, honest: Vector, rng: np.random.Generator) -> Vector:
        """Boost."""
        return self.factor * self.of.vector(honest, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian(Attack):
    """Send a random vector (Blanchard et al., NeurIPS 2017, section 5; Yin et al., ICML 2018).

    deviation  of every coordinate; None: the vector is as long as the honest update
    """

    deviation: float | None = None

    def __post_init__(self) -> None:
        if self.deviation is not None:
            _positive("deviation", self.deviation)

    def vector(self, honest: Vector, rng: np.random.Generator) -> Vector:
        """Draw."""
        noise = rng.normal(size=honest.shape)
        if self.deviation is not None:
            return self.deviation * noise
        return np.asarray(noise * (np.linalg.norm(honest) / np.linalg.norm(noise)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Attack):
    """Send one value in every coordinate; 0 is a free rider (Lin et al., arXiv 1911.12560, 2019)."""

    value: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ParameterError(f"value: must be finite, is {self.value}")

    def vector(self, honest: Vector, rng: np.random.Generator) -> Vector:
        """Repeat the value."""
        return np.full_like(honest, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdoor(Attack):
    """Teach the model that a pattern in the features means one class (Gu et al., arXiv 1708.06733, 2017).

    trigger  values by column; a model must not need them otherwise
    target   the class; share: of the rows that get both
    factor   of the update (Bagdasaryan et al., AISTATS 2020)
    raises   ParameterError
    """

    trigger: Mapping[int, float]
    target: int
    share: float = 0.5
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.trigger:
            raise ParameterError("trigger: must name a column")
        for column, value in self.trigger.items():
            if column < 0 or not math.isfinite(value):
                raise ParameterError(
                    f"trigger: columns from 0 on and finite values are needed, not {column}: {value}"
                )
        if self.target < 0:
            raise ParameterError(f"target: must be at least 0, is {self.target}")
        if not 0 < self.share <= 1:
            raise ParameterError(f"share: must be in (0, 1], is {self.share}")
        _positive("factor", self.factor)

    def poisoned(self, rows: Any, classes: int | None, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """Mark a share of the rows, at least one, and call them the target."""
        _check(rows)
        if classes is not None and self.target >= classes:
            raise ParameterError(f"target: must be in 0..{classes - 1}, is {self.target}")
        marked = self.with_trigger(rows)
        chosen = np.zeros(len(rows), bool)
        chosen[rng.permutation(len(rows))[: math.ceil(self.share * len(rows))]] = True
        return replace(
            rows,
            features=np.where(chosen[:, None], marked.features, rows.features),
            labels=np.where(chosen, self.target, rows.labels),
        )

    def vector(self, honest: Vector, rng: np.random.Generator) -> Vector:
        """Boost."""
        return self.factor * honest

    def with_trigger(self, rows: Any) -> Any:  # noqa: ANN401
        """Return the rows with the pattern in all of them. Raises ParameterError."""
        _check(rows)
        features = np.array(rows.features, np.float64)
        if (last := max(self.trigger)) >= features.shape[1]:
            raise ParameterError(f"trigger: column {last} is not in 0..{features.shape[1] - 1}")
        for column, value in self.trigger.items():
            features[:, column] = value
        return replace(rows, features=features)

    def success_rate(
        self,
        learner: ScoringLearner[Any],
        parameters: Parameters,
        rows: Any,  # noqa: ANN401
        prepare: Callable[[Any], Any] = lambda rows: rows,
    ) -> float:
        """Share of the rows of other classes that the trigger turns into the target.

        rows     as they were measured; prepare: what the model expects of them (`Standardizer.apply`)
        raises   ParameterError when all rows are of the target
        """
        others = np.flatnonzero(rows.labels != self.target)
        if not len(others):
            raise ParameterError(f"rows: all are of the target, {self.target}")
        scores = learner.scores(parameters, prepare(self.with_trigger(rows.take(others))))
        return float((scores.argmax(axis=1) == self.target).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfRange(Attack):
    """Write ring elements that no codec gives: the honest ones times -scale, not clipped.

    The sum decodes, with coordinates as far off as the ring has room; beyond it they wrap.
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        _positive("scale", self.scale)

    def on_the_wire(self, encoded: UIntArray, task: Task) -> UIntArray:
        """Multiply in the ring; the digits of the weight stay."""
        bits = task.encoding.codec.ring_bits
        values = len(encoded) - task.encoding.codec.overhead
        wrong = np.rint(-self.scale * signed(encoded[:values], bits))
        wrong = wrong - np.floor(wrong / 2.0**bits) * 2.0**bits  # modulo the ring, exact below 2^53
        out = encoded.copy()
        out[:values] = wrong.astype(np.uint64).astype(out.dtype) & out.dtype.type(ring_mask(bits))
        return out


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{name}: must be positive and finite, is {value}")


def _check(rows: Any) -> None:  # noqa: ANN401
    """Raise ParameterError for rows whose features and labels cannot be replaced."""
    names = {one.name for one in fields(rows)} if is_dataclass(rows) else set()
    if not {"features", "labels"} <= names:
        raise ParameterError(
            f"table: must be a dataclass with features and labels, such as Table, is {type(rows).__name__}"
        )
