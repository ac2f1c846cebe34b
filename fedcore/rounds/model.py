"""A model as named arrays, and as one file that says what it is: tasks, checkpoints and models name alike."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore import arrays
from fedcore.data.layout import Layout
from fedcore.data.schema import Column, Schema
from fedcore.errors import DataError
from fedcore.learner import Parameters
from fedcore.statistics.standardizer import Standardizer

SUFFIX = ".safetensors"
PREFIX = "model."


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Parameters, the standardization that they expect, and what else the file says.

    number     of the round that they are from; None: not said
    schema     of the rows, with the layout of their files; None: not said
    learner    its kind and options, JSON; "": not said
    agreement  digest of the run, hex; epsilon: that the run has spent, where it added noise
    """

    parameters: Parameters
    standardizer: Standardizer
    number: int | None = None
    schema: Schema | None = None
    learner: str = ""
    agreement: str = ""
    epsilon: float | None = None

    def fault(self, schema: Schema) -> str:
        """Return why this is no model for rows of a schema; empty: it may be one."""
        if not all(np.isfinite(array).all() for array in self.parameters.values()):
            return "its parameters must be finite"
        return self.standardizer.impossible(schema) if self.standardizer.mean.size else ""


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
    header = {
        "number": model.number,
        "schema": None if model.schema is None else _said(model.schema),
        "learner": model.learner,
        "agreement": model.agreement,
        "epsilon": model.epsilon,
    }
    return model_arrays(model.parameters, model.standardizer), {"kind": "model", **header}


def _said(schema: Schema) -> dict[str, Any]:
    """Return a schema as JSON values; a layout says everything else."""
    if schema.layout is not None:
        return {"layout": schema.layout.dump()}
    columns = [(one.name, one.low, one.high) for one in schema.columns]
    target = None if schema.target is None else (schema.target.name, schema.target.low, schema.target.high)
    return {"columns": columns, "classes": list(schema.classes), "target": target}


def _schema(said: Mapping[str, Any]) -> Schema:
    if "layout" in said:
        return Schema.of(Layout.parse(tomllib.loads(said["layout"])))
    target = None if said["target"] is None else _column(*said["target"])
    columns = tuple(_column(*column) for column in said["columns"])
    return Schema(columns, tuple(map(str, said["classes"])), target)


def _column(name: object, low: Any, high: Any) -> Column:  # noqa: ANN401 - of a file
    return Column(str(name), float(low), float(high))


def _whole(path: str, named: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Model:
    try:
        if header["kind"] != "model":
            raise DataError(f"{path}: not a model but {header['kind']!r}")
        schema = None if header["schema"] is None else _schema(header["schema"])
        epsilon = None if header["epsilon"] is None else float(header["epsilon"])
        learner, agreement = str(header["learner"]), str(header["agreement"])
        number = None if header["number"] is None else int(header["number"])
        return Model(*model_of(named), number, schema, learner, agreement, epsilon)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not a model: {error}") from error
