"""Gradients in which no person weighs more than a bound: what privacy of persons within sites needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError
from fedcore.learner import Metrics, Parameters, flatten, size_of, unflatten
from fedcore.learners.models import Examples, Model, RowGradients, classifier, regression
from fedcore.settings import positive, settle

_AT_ONCE = 1 << 22  # values of gradients of single rows
_TINY = 1e-300


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonClipped:
    """A learner whose gradient is the sum of the persons' own, each clipped, over a public number of rows.

    model     of one row each
    clip      L2 norm of the sum of a person's gradients (Abadi et al., CCS 2016, algorithm 1)
    expected  rows that the sum is divided by, the same at every site: the true number stays private
    Rows say whose they are (`Table.persons`); where they do not, each row is a person. One person changes the
    site's vector by `sensitivity` at most. Only updates that are gradients make sense.
    raises    SettingError
    """

    model: Model
    clip: float
    expected: float

    def __post_init__(self) -> None:
        settle(self)
        positive(self, "clip", "expected")

    @property
    def sensitivity(self) -> float:
        """L2 norm of what one person adds to a site's vector."""
        return self.clip / self.expected

    def initial(self) -> Parameters:
        """Return the model's."""
        return self.model.initial()

    def fit(self, parameters: Parameters, rows: Examples, seed: int) -> Parameters:
        """Refuse: local training bounds no row. Raises TaskError."""
        raise TaskError("fit: rows are clipped in gradients only; ask for updates that are gradients")

    def gradient(self, parameters: Parameters, rows: Examples) -> Parameters:
        """Return the sum of clipped gradients over the expected rows.

        A person whose gradient is not finite counts nothing: it must not decide whether there is a sum.
        """
        total = np.zeros(size_of(parameters))
        given = getattr(rows, "persons", None)
        persons = np.arange(len(rows)) if given is None else np.asarray(given)
        order = np.argsort(persons, kind="stable")
        starts = np.flatnonzero(np.diff(persons[order], prepend=-1))  # numbers of persons are not negative
        at_once = max(1, _AT_ONCE // total.size)
        for first in range(0, len(starts), at_once):
            begins = starts[first : first + at_once]
            end = starts[first + at_once] if first + at_once < len(starts) else len(order)
            part = rows.take(order[begins[0] : end])
            with np.errstate(all="ignore"):
                sums = np.add.reduceat(self._by_row(parameters, part), begins - begins[0], axis=0)
                norms = np.sqrt((sums**2).sum(axis=1))
            endless = ~np.isfinite(norms)
            sums[endless], norms[endless] = 0.0, 0.0
            total += (sums * np.minimum(1.0, self.clip / np.maximum(norms, _TINY))[:, None]).sum(axis=0)
        return unflatten(total / self.expected, parameters)

    def _by_row(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return gradients of single rows, (rows, values)."""
        if isinstance(self.model, RowGradients):
            found = self.model.row_gradients(parameters, rows)
            return np.concatenate([found[name].reshape(len(rows), -1) for name in sorted(found)], axis=1)
        single = (rows.take(np.array([i])) for i in range(len(rows)))
        return np.stack([flatten(self.model.gradient(parameters, one)) for one in single])

    def evaluate(self, parameters: Parameters, rows: Examples) -> Metrics:
        """Return the model's metrics."""
        return self.model.evaluate(parameters, rows)

    def scores(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return class probabilities. Raises TaskError for models that have none."""
        return classifier(self.model).scores(parameters, rows)

    def predict(self, parameters: Parameters, rows: Examples) -> NDArray[np.float64]:
        """Return predicted numbers, (rows,). Raises TaskError for classifiers."""
        return regression(self.model).predict(parameters, rows)
