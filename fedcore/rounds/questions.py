"""Questions to sites: one frozen type per kind, with the public arrays of it and nothing else.

How the answer is encoded does not stand here: it follows from what the parties agreed on (`rounds.terms`).
.github/CONTRIBUTING.md, "Where to add what", names the places that a new kind touches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import Parameters
from fedcore.rounds.model import PREFIX, model_arrays
from fedcore.statistics.standardizer import Standardizer

Arrays: TypeAlias = dict[str, NDArray[Any]]


class TaskKind(StrEnum):
    """Kind of a question: a statistic, an update, a further pass over it, or an evaluation."""

    MEAN = "mean"  # of the columns, in units of their bounds
    DEVIATION = "deviation"  # mean squared deviation, likewise
    MOMENTS = "moments"  # of the columns, with noise: the standardizer under a budget
    CUMULATIVE = "cumulative"  # share of rows at or below given edges, by column
    COVARIANCE = "covariance"  # mean products of deviations, upper triangle, in units of the bounds
    COUNT = "count"  # share of rows with given values in given columns
    TRAIN = "train"  # what local training gives, as the strategy asks
    EVALUATE = "evaluate"  # confusion matrix, log loss and binned scores of held-out rows
    SITES = "sites"  # in which bin a site's own accuracy lies


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """Base of the kinds. number: which one of its kind in the run, from 1; of a round: the round's."""

    kind: ClassVar[TaskKind]
    number: int = 1

    @property
    def name(self) -> str:
        """Name of the round in the history, such as "train 3"."""
        return f"{self.kind} {self.number}"

    @property
    def passes(self) -> int:
        """Number of earlier sums over the same vectors (geometric median)."""
        return 0

    def first(self) -> Self:
        """Return the question of the first pass."""
        return self

    def arrays(self) -> Arrays:
        """Return the public arrays, by the names they travel under."""
        return {}

    def header(self) -> dict[str, Any]:
        """Return what travels beside the arrays, but for the kind."""
        return {"number": self.number}

    @classmethod
    def read(cls, header: Mapping[str, Any], arrays: Arrays) -> Self:  # noqa: ARG003 - of subclasses
        """Undo `header` and `arrays`, which are left empty of what was read. Raises TaskError."""
        return cls(number=_integer(header, "number"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mean(Question):
    """Means of the columns."""

    kind = TaskKind.MEAN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments(Question):
    """Offsets and squares of the columns, with noise (`fedcore.statistics.moments`)."""

    kind = TaskKind.MOMENTS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _AboutOneArray(Question):
    """Base of what is asked with one array: the name that it travels under, and its dimensions."""

    array: ClassVar[str]
    dimensions: ClassVar[int]

    def arrays(self) -> Arrays:
        return {self.array: getattr(self, self.array)}

    @classmethod
    def read(cls, header: Mapping[str, Any], arrays: Arrays) -> Self:
        given = {cls.array: _take(arrays, cls.array, cls.dimensions)}
        return cls(number=_integer(header, "number"), **given)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deviation(_AboutOneArray):
    """Mean squared deviations of the columns from a mean, (columns,), in units of the table."""

    kind, array, dimensions = TaskKind.DEVIATION, "mean", 1
    mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Covariance(_AboutOneArray):
    """Mean products of deviations from a mean, (columns,), in units of the table."""

    kind, array, dimensions = TaskKind.COVARIANCE, "mean", 1
    mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cumulative(_AboutOneArray):
    """Rows at or below edges, (columns, edges)."""

    kind, array, dimensions = TaskKind.CUMULATIVE, "edges", 2
    edges: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Count(_AboutOneArray):
    """Rows with a value in a column; cells: (k, 2) of column, value."""

    kind, array, dimensions = TaskKind.COUNT, "cells", 2
    cells: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AboutModel(Question):
    """Base of what is asked about a model: its parameters, and the standardization that it expects."""

    model: Parameters
    standardizer: Standardizer = field(default_factory=Standardizer.none)

    def arrays(self) -> Arrays:
        return model_arrays(self.model, self.standardizer)

    @classmethod
    def read(cls, header: Mapping[str, Any], arrays: Arrays) -> Self:
        model, standardizer = take_model(arrays)
        return cls(number=_integer(header, "number"), model=model, standardizer=standardizer)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluate(AboutModel):
    """Metrics of a model over held-out rows."""

    kind = TaskKind.EVALUATE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sites(AboutModel):
    """One vote of every site: the bin of its own accuracy."""

    kind = TaskKind.SITES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Train(AboutModel):
    """Local training from a model.

    norm     that updates are clipped to where it adapts; else None: the agreement has it
    control  c of SCAFFOLD, flat; center: of a later pass of the geometric median, flat
    again    how often the vectors of this round were summed before
    """

    kind = TaskKind.TRAIN
    norm: float | None = None
    control: NDArray[np.float64] | None = None
    center: NDArray[np.float64] | None = None
    again: int = 0

    @property
    def passes(self) -> int:
        return self.again

    def first(self) -> Self:
        return replace(self, center=None, again=0)

    def arrays(self) -> Arrays:
        extra = {"control": self.control, "center": self.center}
        out = model_arrays(self.model, self.standardizer)
        return out | {name: array for name, array in extra.items() if array is not None}

    def header(self) -> dict[str, Any]:
        return {"number": self.number, "norm": self.norm, "again": self.again}

    @classmethod
    def read(cls, header: Mapping[str, Any], arrays: Arrays) -> Self:
        model, standardizer = take_model(arrays)
        norm = header.get("norm")
        if norm is not None and (not isinstance(norm, float) or not 0 < norm < np.inf):
            raise TaskError(f"task.norm: must be positive and finite, is {norm!r}")
        extra = {name: _take(arrays, name, 1) for name in ("control", "center") if name in arrays}
        return cls(
            number=_integer(header, "number"),
            model=model,
            standardizer=standardizer,
            norm=norm,
            again=_integer(header, "again"),
            **extra,
        )


QUESTIONS: dict[TaskKind, type[Question]] = {
    one.kind: one for one in (Mean, Deviation, Moments, Cumulative, Covariance, Count, Train, Evaluate, Sites)
}
STATISTICS = frozenset(one.kind for one in QUESTIONS.values() if not issubclass(one, AboutModel))


def take_model(arrays: Arrays) -> tuple[Parameters, Standardizer]:
    """Undo `model_arrays`, taking what it gave out of `arrays`. Raises TaskError."""
    names = [name for name in arrays if name.startswith(PREFIX)]
    parameters = {name.removeprefix(PREFIX): _number(name, arrays.pop(name)) for name in names}
    given = {"mean", "deviation"} & arrays.keys()
    if not given:
        return parameters, Standardizer.none()
    mean, deviation = (_take(arrays, name, 1) for name in ("mean", "deviation"))
    return parameters, Standardizer(mean, deviation)


def _take(arrays: Arrays, name: str, dimensions: int) -> NDArray[np.float64]:
    if name not in arrays:
        raise TaskError(f"task.arrays: {name} is missing")
    array = _number(name, arrays.pop(name))
    if array.ndim != dimensions:
        raise TaskError(f"task.arrays: {name} must have {dimensions} dimensions, has {array.ndim}")
    return array


def _number(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype not in {np.dtype(np.float64), np.dtype(np.float32)}:
        raise TaskError(f"task.arrays: {name} must be float64 or float32, is {array.dtype}")
    if not np.isfinite(array).all():
        raise TaskError(f"task.arrays: {name} must be finite")
    return array


def _integer(header: Mapping[str, Any], name: str) -> int:
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise TaskError(f"task.{name}: must be an integer from 0 on, is {str(value)[:20]!r}")
    return value
