"""Models as files: what was written comes back, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedcore import arrays
from fedcore.errors import DataError
from fedcore.rounds.model import Model, load_model, pack_model, save_model, unpack_model
from fedcore.statistics.standardizer import Standardizer

PARAMETERS = {"weights": np.arange(6.0).reshape(2, 3), "bias": np.zeros(0)}
SCALE = Standardizer(np.array([1.0, 2.0]), np.array([0.5, 4.0]))


def test_a_model_comes_back_with_what_it_was_saved_with(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    given = Model(PARAMETERS, SCALE, 3, ("no", "yes"), (("age", 0, 120),))
    save_model(path, given)
    for model in (load_model(path), unpack_model(pack_model(given))):
        check(model)
    assert sorted(load_file(path)) == ["deviation", "mean", "model.bias", "model.weights"]


def check(model: Model) -> None:
    assert {name: array.tolist() for name, array in model.parameters.items()} == {
        "weights": [[0, 1, 2], [3, 4, 5]],
        "bias": [],
    }
    assert (model.standardizer.mean.tolist(), model.standardizer.deviation.tolist()) == ([1, 2], [0.5, 4])
    assert (model.number, model.classes, model.columns) == (3, ("no", "yes"), (("age", 0.0, 120.0),))


def test_a_model_without_standardization_has_none(tmp_path: Path) -> None:
    save_model(tmp_path / "a", Model(PARAMETERS, Standardizer.none()))
    model = load_model(tmp_path / "a")
    assert not model.standardizer.mean.size
    assert model.number is None


@pytest.mark.parametrize(
    ("named", "header", "message"),
    [
        ({}, {}, "not a model"),
        ({}, {"kind": "checkpoint"}, "not a model but 'checkpoint'"),
        ({"mean": np.zeros(2)}, {"kind": "model", "number": 1, "classes": [], "columns": []}, "deviation"),
        ({}, {"kind": "model", "number": 1, "classes": [], "columns": [["age"]]}, "not a model"),
    ],
)
def test_other_files_are_data_errors(
    tmp_path: Path, named: dict[str, np.ndarray], header: dict[str, object], message: str
) -> None:
    arrays.write(tmp_path / "a", named, header)
    with pytest.raises(DataError, match=message):
        load_model(tmp_path / "a")
