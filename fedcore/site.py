"""A site: its rows, its learner, and the vector it contributes to each round."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import Learner, Parameters, flatten
from fedcore.schema import Schema
from fedcore.statistics import Standardizer, unit_deviations, unit_means
from fedcore.tables import Table
from fedcore.task import Task, TaskKind
from secagg.kernels import UIntArray


@dataclass(slots=True)
class Site:
    """One party's data and model.

    seed  makes training and rounding repeatable; None: fresh randomness for every round
    """

    name: str
    table: Table = field(repr=False)
    schema: Schema
    learner: Learner[Any]
    seed: int | None = None

    def contribute(self, task: Task) -> UIntArray:
        """Return this site's encoded vector (d + 1,) for a task. Raises TaskError, CodecError."""
        self._check(task)
        values = self._compute(task)
        if len(values) != task.dimension:
            raise TaskError(f"task.dimension: {task.dimension}, this site has {len(values)} values")
        return task.codec.encode(values, len(self.table), self._randomness(task, "rounding"))

    def _check(self, task: Task) -> None:
        columns = tuple((column.name, column.low, column.high) for column in self.schema.columns)
        if task.columns != columns or task.classes != self.schema.classes:
            raise TaskError("task.columns, task.classes: not those of this site's schema")
        for name, array in task.arrays.items():
            if not np.isfinite(array).all():
                raise TaskError(f"task.arrays: {name} must be finite")

    def _compute(self, task: Task) -> NDArray[np.float64]:
        match task.kind:
            case TaskKind.MEAN:
                return unit_means(self.table, self.schema)
            case TaskKind.DEVIATION:
                return unit_deviations(self.table, self.schema, _array(task, "mean"))
            case TaskKind.TRAIN:
                standardizer = Standardizer(_array(task, "mean"), _array(task, "deviation"))
                before = task.model
                wanted = {name: array.shape for name, array in self.learner.initial().items()}
                if {name: array.shape for name, array in before.items()} != wanted:
                    raise TaskError("task.model: not the shapes of this site's learner")
                return self._train(task, before, standardizer.apply(self.table))

    def _train(self, task: Task, before: Parameters, table: Table) -> NDArray[np.float64]:
        """Return the change of the parameters. Whatever the learner raises becomes a TaskError."""
        seed = int.from_bytes(self._randomness(task, "training")[:4], "little") >> 1
        try:
            after = self.learner.fit(before, table, seed)
        except Exception as error:  # a learner is foreign code
            raise TaskError(f"{self.name}: the learner failed with {type(error).__name__}") from error
        if {name: array.shape for name, array in after.items()} != {
            name: array.shape for name, array in before.items()
        }:
            raise TaskError(f"{self.name}: the learner returned parameters of other shapes")
        return flatten(after) - flatten(before)

    def _randomness(self, task: Task, purpose: str) -> bytes:
        """32 bytes for one purpose in one round."""
        if self.seed is None:
            return os.urandom(32)
        text = f"{self.seed}/{self.name}/{task.name}/{purpose}"
        return hashlib.sha256(text.encode()).digest()


def _array(task: Task, name: str) -> NDArray[np.float64]:
    array = task.arrays.get(name)
    if array is None or array.shape != (len(task.columns),):
        raise TaskError(f"task.arrays: {name} with one value per column is missing")
    return array
