"""A model as named arrays, and as one file that says what it is: tasks, checkpoints and models name alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from fedcore import arrays
from fedcore.data.schema import Schema
from fedcore.errors import DataError
from fedcore.learner import Parameters
from fedcore.statistics.standardizer import Standardizer

SUFFIX = ".safetensors"
PREFIX = "model."


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Parameters, the standardization that they expect, and what else the file says.

    number   of the round that they are from; None: not said
    classes  of the label, in the order of the scores; columns: (name, low, high) of the features
    """

    parameters: Parameters
    standardizer: Standardizer
    number: int | None = None
    classes: tuple[str, ...] = ()
    columns: tuple[tuple[str, float, float], ...] = ()

    @classmethod
    def of(cls, schema: Schema, parameters: Parameters, standardizer: Standardizer, number: int) -> Self:
        """Return the model of a round over rows of a schema."""
        columns = tuple((column.name, column.low, column.high) for column in schema.columns)
        return cls(parameters, standardizer, number, schema.classes, columns)


def model_arrays(parameters: Parameters, standardizer: Standardizer) -> dict[str, NDArray[Any]]:
    """Return the arrays "model.NAME", and "mean" and "deviation" where rows are standardized."""
    out: dict[str, NDArray[Any]] = {f"{PREFIX}{name}": array for name, array in parameters.items()}
    if standardizer.mean.size:
        out |= {"mean": standardizer.mean, "deviation": standardizer.deviation}
    return out


def model_of(named: Mapping[str, NDArray[Any]]) -> tuple[Parameters, Standardizer]:
    """Undo `model_arrays`; other arrays are left alone. Raises LookupError: a mean without deviation."""
    parameters = {
        name.removeprefix(PREFIX): array for name, array in named.items() if name.startswith(PREFIX)
    }
    if "mean" not in named:
        return parameters, Standardizer.none()
    return parameters, Standardizer(named["mean"], named["deviation"])


def save_model(path: Path, model: Model) -> None:
    """Write a model, whole or not at all. Raises DataError."""
    arrays.write(path, *_parts(model))


def load_model(path: Path) -> Model:
    """Read a file of `save_model`. Raises DataError."""
    return _whole(str(path), *arrays.read(path))


def pack_model(model: Model) -> bytes:
    """Return a model as it travels."""
    return arrays.pack(*_parts(model))


def unpack_model(data: bytes) -> Model:
    """Undo `pack_model`. Raises DataError."""
    return _whole("model", *arrays.unpack(data))


def _parts(model: Model) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    header = {"number": model.number, "classes": list(model.classes), "columns": list(model.columns)}
    return model_arrays(model.parameters, model.standardizer), {"kind": "model", **header}


def _whole(path: str, named: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Model:
    try:
        if header["kind"] != "model":
            raise DataError(f"{path}: not a model but {header['kind']!r}")
        columns = tuple((str(name), float(low), float(high)) for name, low, high in header["columns"])
        classes = tuple(map(str, header["classes"]))
        return Model(*model_of(named), header["number"], classes, columns)
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a model: {error}") from error
