"""A site: its rows, its learner, and the vector it contributes to each round."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.errors import CodecError, LearnerFailedError, TaskError
from fedcore.evaluation import federated as evaluation
from fedcore.learner import Abilities, Learner, Rows
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.local_training import (
    SiteState,
    Update,
    check_dimension,
    starting_point,
    train,
    weight_of,
    weiszfeld_weight,
)
from fedcore.rounds.task import Task, TaskKind
from fedcore.statistics import sums as analytics
from fedcore.statistics.standardizer import Standardizer
from secagg.kernels import UIntArray

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """What a site adds to a sum, in real numbers: shaped coordinates, precise values, and the weight.

    coordinates  (m,); precise: (e,) in [-1, 1]
    """

    coordinates: NDArray[np.float64] = field(repr=False)
    precise: NDArray[np.float64] = field(repr=False)
    weight: int = field(repr=False)


@dataclass(slots=True)
class Site:
    """One party's data and model.

    table     its rows
    schema    of the rows; None: no statistics, no standardization
    seed      makes training, rounding and noise repeatable, for drills; None: fresh randomness for every
              round. Under a guard rounding and noise are always fresh.
    held_out  rows for evaluation; None: the training rows
    guard     this site's own account of the privacy it spends: tasks without enough noise are refused,
              whatever the server says, and so are statistics and evaluation, which have none. Where
              training fails on the rows, zeros are sent under the noise: a refusal would tell that it did
    """

    name: str
    table: Rows = field(repr=False)
    schema: Schema | None
    learner: Learner[Any]
    seed: int | None = field(default=None, repr=False)
    held_out: Rows | None = field(default=None, repr=False)
    guard: PrivacyGuard | None = field(default=None, repr=False)
    state: SiteState = field(default_factory=SiteState, repr=False)

    def contribute(self, task: Task) -> UIntArray:
        """Return this site's encoded vector (task.length,). Raises TaskError, CodecError."""
        if self.guard is None:
            return self._encoded(task, self.compute(task))
        self._check_sensitivity(self.guard)
        self.guard.demand(task)
        try:
            return self._encoded(task, self.compute(task))
        except (LearnerFailedError, CodecError) as error:
            _LOG.warning("%s: %s: sends zeros under its noise: %s", self.name, task.name, error)
            return self._encoded(task, self._nothing(task))

    def _encoded(self, task: Task, real: Contribution) -> UIntArray:
        seed = self._randomness(task, "rounding")
        if task.noise is not None:
            return task.noise.encode(task.codec, real.coordinates, real.weight, seed, real.precise)
        return task.codec.encode(real.coordinates, real.weight, seed, real.precise)

    def _nothing(self, task: Task) -> Contribution:
        """Return what a site whose rows are protected as a whole is like without them."""
        check_dimension(self.learner, task, self.state)
        sent = task.shaping.length(task.dimension) + task.hidden
        return Contribution(np.zeros(sent), np.zeros(0), 1)

    def _check_sensitivity(self, guard: PrivacyGuard) -> None:
        """Refuse to serve when the learner says that persons move more than the plan promises."""
        promised, moves = guard.plan.sensitivity, Abilities.of(self.learner).sensitivity
        if promised is not None and moves is not None and not moves <= promised * (1 + 1e-9):
            raise TaskError(f"sensitivity: the plan promises {promised:.6g}, the learner's is {moves:.6g}")

    def compute(self, task: Task) -> Contribution:
        """Return what `contribute` encodes. Raises TaskError."""
        self._check(task)
        self.state.go_on(task.name)
        if task.kind is TaskKind.TRAIN:
            return self._training(task)
        rows = self._rows(task)
        match task.kind:
            case TaskKind.EVALUATE | TaskKind.SITES:
                parameters = starting_point(self.learner, task, self.state)
                values = evaluation.compute(task, self.learner, parameters, rows)
            case _:
                if not isinstance(rows, Table):
                    raise TaskError(f"{self.name}: statistics need a table, not a {type(rows).__name__}")
                values = analytics.compute(task, rows, self._known_schema())
        self._fits(task, values)
        weight = weight_of(task.asks, len(rows), task.codec.weight_cap)
        return Contribution(values, np.zeros(0), weight)

    def _training(self, task: Task) -> Contribution:
        update = self._update(task)
        values = self._whole(update, task)
        self._fits(task, values)
        if not np.isfinite(values).all():  # also where it is not sent now: it would be sent some day
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise CodecError(f"update[{bad}]: must be finite")
        shaped, within = task.shaping.shape(values, task.asks.quantile if task.hidden else 0.0)
        if task.passes == 0:
            changes = dict(update.changes)
            if task.shaping.keep < 1:
                changes["residual"] = task.shaping.left(values)
            self.state.propose(task.name, changes)
        rows = len(self.table)
        if task.asks.smoothing:
            weight = weiszfeld_weight(task, task.shaping.restore(shaped, task.dimension)[0], rows)
        else:
            weight = weight_of(task.asks, rows, task.codec.weight_cap)
        precise = {"steps": 2 * update.steps / task.asks.steps_cap - 1, "within": 1.0 if within else -1.0}
        return Contribution(shaped, np.array([precise[name] for name in task.precise]), weight)

    def _update(self, task: Task) -> Update:
        """Train, or take what was computed for the first pass of this round."""
        if task.passes:
            if self.state.update is None or self.state.update[0] != task.name:
                raise TaskError(f"task.passes: {self.name} has no update of {task.name}")
            return self.state.update[1]
        seed = int.from_bytes(self._randomness(task, "training")[:4], "little") >> 1
        update = train(self.learner, task, self._rows(task), self.state, seed, self.name)
        self.state.update = (task.name, update) if task.asks.smoothing else None
        return update

    def _whole(self, update: Update, task: Task) -> NDArray[np.float64]:
        """Add what earlier rounds have not sent."""
        residual = self.state.residual
        if task.shaping.keep == 1 or residual is None or residual.shape != update.values.shape:
            return update.values
        return update.values + residual

    def _fits(self, task: Task, values: NDArray[np.float64]) -> None:
        if len(values) != task.dimension:
            raise TaskError(f"task.dimension: {task.dimension}, this site has {len(values)} values")

    def _check(self, task: Task) -> None:
        columns: tuple[tuple[str, float, float], ...] = ()
        classes = task.classes
        if self.schema is not None:
            columns = tuple((column.name, column.low, column.high) for column in self.schema.columns)
            classes = self.schema.classes
        if task.columns != columns or task.classes != classes:
            raise TaskError("task.columns, task.classes: not those of this site's schema")
        if task.kind is not TaskKind.TRAIN and (task.hidden or task.shaping.keep < 1):
            raise TaskError(f"task.shaping, task.asks.quantile: {task.kind} has none")
        for name, array in task.arrays.items():
            if not np.isfinite(array).all():
                raise TaskError(f"task.arrays: {name} must be finite")

    def _known_schema(self) -> Schema:
        if self.schema is None:
            raise TaskError(f"{self.name}: statistics need a schema with public bounds")
        return self.schema

    def _rows(self, task: Task) -> Rows:
        """Return the rows that a task is about, standardized as it says."""
        about_model = task.kind in {TaskKind.TRAIN, TaskKind.EVALUATE, TaskKind.SITES}
        evaluates = about_model and task.kind is not TaskKind.TRAIN
        rows = self.held_out if evaluates and self.held_out is not None else self.table
        if not len(rows):
            raise TaskError(f"{self.name}: has no rows")
        if about_model and task.arrays.keys() & {"mean", "deviation"}:
            if not isinstance(rows, Table):
                raise TaskError(f"{self.name}: only tables can be standardized")
            return Standardizer(
                analytics.by_column(task, "mean"), analytics.by_column(task, "deviation")
            ).apply(rows)
        return rows

    def _randomness(self, task: Task, purpose: str) -> bytes:
        """32 bytes for one purpose in one round."""
        if self.seed is None or (self.guard is not None and purpose == "rounding"):
            return os.urandom(32)  # also where tasks repeat: two sums with the same noise would cancel it
        again = f"/{task.passes}" if task.passes else ""
        text = f"{self.seed}/{self.name}/{task.name}/{purpose}{again}"
        return hashlib.sha256(text.encode()).digest()
