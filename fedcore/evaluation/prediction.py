"""Use of a model: predictions for rows of a file, by what the model's own file says of itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedcore.data.files import inspect, inspect_records
from fedcore.data.reading import Reading
from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.errors import DataError, SettingError, TaskError
from fedcore.learner import Abilities, Learner, Metrics, size_of
from fedcore.learners.kinds import learner_of
from fedcore.rounds.model import Model, load_model


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Of rows: class probabilities and the likeliest class, or numbers.

    rows    position of each in its file, from 0
    scores  (rows, classes), none for numbers; values: (rows,), positions of classes or numbers
    """

    rows: NDArray[np.int64]
    classes: tuple[str, ...]
    scores: NDArray[np.float64]
    values: NDArray[np.float64]

    def said(self, i: int) -> dict[str, Any]:
        """Return one as JSON values: `prediction`, and of classes their `probabilities`."""
        if not self.classes:
            return {"prediction": float(self.values[i])}
        shares = dict(zip(self.classes, map(float, self.scores[i]), strict=True))
        return {"prediction": self.classes[int(self.values[i])], "probabilities": shares}


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A model with its schema and its learner."""

    model: Model
    schema: Schema
    learner: Learner[Any]

    @classmethod
    def of(cls, model: Model, learner: Learner[Any] | None = None) -> Self:
        """Make the learner that the model's file names; learner: instead, for those of other modules.

        raises  DataError: the file does not say enough, or the parameters are not those of the learner
        """
        schema = model.schema
        if schema is None:
            raise DataError("the model does not say of which columns it is")
        if fault := model.fault(schema):
            raise DataError(f"the model cannot be used: {fault}")
        if learner is None:
            sizes = {"features": len(schema.columns), "classes": len(schema.classes)}
            try:
                learner = learner_of(json.loads(model.learner), size=size_of(model.parameters), **sizes)
            except (SettingError, ValueError, AttributeError, RecursionError) as error:
                raise DataError(f"the model's learner cannot be made from its file: {error}") from error
        wanted = {name: array.shape for name, array in learner.initial().items()}
        found = {name: array.shape for name, array in model.parameters.items()}
        if wanted != found:
            raise DataError(f"the model's parameters are {found}, those of its learner {wanted}")
        return cls(model, schema, learner)

    @classmethod
    def load(cls, path: Path, learner: Learner[Any] | None = None) -> Self:
        """Read a model's file. Raises DataError."""
        try:
            return cls.of(load_model(path), learner)
        except DataError as error:
            text = str(error)
            raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from error

    def read(self, path: Path, label: str = "label", *, answers: bool = False) -> Reading:
        """Read rows, without their label unless `answers`. Raises DataError."""
        return inspect(path, self.schema, label, answers=answers)

    def read_records(self, records: Sequence[Mapping[str, Any]]) -> Reading:
        """Read rows of values by column, such as JSON objects, without their label. Raises DataError."""
        return inspect_records(records, self.schema)

    def scaled(self, table: Table) -> Table:
        """Return rows as the model wants them."""
        return self.model.standardizer.apply(table)

    def predict(self, table: Table, threshold: float | None = None) -> Predictions:
        """Return predictions for rows of a table.

        threshold  of two classes: probability of the second from which on it is predicted; None: 1/2
        raises     DataError: the learner gives neither scores nor numbers; a threshold that is none
        """
        self.schema.check(table.features, "rows")
        able, parameters = Abilities.of(self.learner), self.model.parameters
        rows, classes = np.arange(len(table)), self.schema.classes
        if threshold is not None and (len(classes) != 2 or not 0 <= threshold <= 1):
            raise DataError(f"threshold: must be in 0..1, of two classes, is {threshold}")
        if self.schema.target is not None:
            if able.predicting is None:
                raise DataError(f"{type(self.learner).__name__} predicts no numbers")
            try:
                values = able.predicting.predict(parameters, self.scaled(table))
            except TaskError as error:
                raise DataError(str(error)) from error
            return Predictions(rows, (), np.zeros((len(table), 0)), np.asarray(values))
        if able.scoring is None:
            raise DataError(f"{type(self.learner).__name__} gives no class probabilities")
        try:
            scores = np.asarray(able.scoring.scores(parameters, self.scaled(table)))
        except TaskError as error:
            raise DataError(str(error)) from error
        likeliest = scores.argmax(axis=1) if threshold is None else (scores[:, 1] >= threshold).astype(int)
        return Predictions(rows, classes, scores, likeliest.astype(np.float64))

    def evaluate(self, table: Table) -> Metrics:
        """Return the metrics on rows with labels."""
        return self.learner.evaluate(self.model.parameters, self.scaled(table))


def write_predictions(path: Path, reading: Reading, found: Predictions, name: str) -> None:
    """Write a CSV file with a line for each row of the file that was read, empty without a prediction.

    name    of the label. Raises DataError.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(_lines(reading, found, name))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _lines(reading: Reading, found: Predictions, name: str) -> Iterator[list[str]]:
    yield ["row", name, *(f"P({one})" for one in found.classes)]
    at = {int(row): i for i, row in enumerate(reading.kept)}
    for row in range(reading.rows):
        if (i := at.get(row)) is None:
            yield [str(row + 1), "", *("" for _ in found.classes)]
            continue
        value = found.values[i]
        said = found.classes[int(value)] if found.classes else repr(float(value))
        yield [str(row + 1), said, *(f"{score:.6f}" for score in found.scores[i])]
