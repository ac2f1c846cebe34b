"""The named sets: what an experiment's [data] table, the demonstration and the benchmarks can ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedcore.data.dataset import Dataset
from fedcore.data.sets import bundled
from fedcore.data.sets.heart import heart_disease
from fedcore.data.sets.real import breast_homo, mnist_writers
from fedcore.errors import DataError


@dataclass(frozen=True, slots=True)
class KnownSet:
    """Facts about a set, known before anything is read.

    natural  it has parts of its own
    test     it has rows to evaluate on
    """

    load: Callable[[], Dataset]
    natural: bool = False
    test: bool = False


def load_set(name: str) -> Dataset:
    """Load a set by its name. Raises DataError: there is no such set, or SECAGG_DATA does not hold it."""
    if name not in SETS:
        raise DataError(f"dataset: must be one of {', '.join(SETS)}, is {name!r}")
    return SETS[name].load()


def _heart() -> Dataset:
    made = heart_disease()
    return Dataset("heart_disease", made.train, made.schema, test=made.test)


def _flamby_heart() -> Dataset:
    made = heart_disease().standardized()
    return Dataset("flamby_heart", made.train, made.schema, test=made.test)


def _mnist() -> Dataset:
    made = mnist_writers()
    parts = made.train_by_writer.tables(made.train)
    return Dataset("mnist_writers", parts, made.schema, test={"writers": made.test})


def _breast() -> Dataset:
    made = breast_homo()
    return Dataset("breast_homo", {"guest": made.guest, "host": made.host}, made.schema, "y", {"": made.test})


def _departments() -> Dataset:
    """Each party's rows halved in the order of its file: two parties cannot hide from each other in a sum."""
    made = _breast()
    parts = {
        f"{name}-{i}": table.take(rows)
        for name, table in made.parts.items()
        for i, rows in enumerate(np.array_split(np.arange(len(table)), 2), 1)
    }
    return Dataset("breast_departments", parts, made.schema, "y", made.test)


SETS = {
    "breast_cancer": KnownSet(bundled.breast_cancer),
    "digits": KnownSet(bundled.digits),
    "heart_disease": KnownSet(_heart, natural=True, test=True),
    "flamby_heart": KnownSet(_flamby_heart, natural=True, test=True),
    "mnist_writers": KnownSet(_mnist, natural=True, test=True),
    "breast_homo": KnownSet(_breast, natural=True, test=True),
    "breast_departments": KnownSet(_departments, natural=True, test=True),
}
