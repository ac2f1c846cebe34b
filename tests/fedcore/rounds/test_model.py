"""Models as files: what was written comes back, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedcore import arrays
from fedcore.data.layout import Category, Layout, Missing, Notation, Number
from fedcore.data.schema import Column, Schema
from fedcore.errors import DataError
from fedcore.rounds.model import Model, load_model, pack_model, save_model, unpack_model
from fedcore.statistics.standardizer import Standardizer

PARAMETERS = {"weights": np.arange(6.0).reshape(2, 3), "bias": np.zeros(0)}
PLAIN = Schema((Column("age", 0, 120),), ("no", "yes"))
NUMBER = Schema((Column("age", 0, 120),), (), Column("days", 0, 365))
WITH_LAYOUT = Schema.of(
    Layout(
        columns=(
            Number(name="age", low=0, high=120, unit="years", missing=Missing.MEAN),
            Category(name="sex", categories=("F", "M"), missing=Missing.CATEGORY),
        ),
        label=Category(name="died", categories=("no", "yes")),
        id="who",
        notation=Notation(delimiter=";"),
    )
)
HEADER: dict[str, object] = {
    "kind": "model", "number": 1, "schema": None, "learner": "", "agreement": "", "epsilon": None
}  # fmt: skip
SCALE = Standardizer(np.array([1.0, 2.0]), np.array([0.5, 4.0]))


def test_a_model_comes_back_with_what_it_was_saved_with(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for schema in (PLAIN, WITH_LAYOUT, NUMBER, None):
        given = Model(PARAMETERS, SCALE, 3, schema, '{"kind": "own"}', "ab" * 32, 1.5)
        save_model(path, given)
        for model in (load_model(path), unpack_model(pack_model(given))):
            check(model)
            assert model.schema == schema
            assert (model.learner, model.agreement, model.epsilon) == ('{"kind": "own"}', "ab" * 32, 1.5)
    assert sorted(load_file(path)) == ["deviation", "mean", "model.bias", "model.weights"]


def check(model: Model) -> None:
    assert {name: array.tolist() for name, array in model.parameters.items()} == {
        "weights": [[0, 1, 2], [3, 4, 5]],
        "bias": [],
    }
    assert (model.standardizer.mean.tolist(), model.standardizer.deviation.tolist()) == ([1, 2], [0.5, 4])
    assert model.number == 3


def test_a_model_without_standardization_has_none(tmp_path: Path) -> None:
    save_model(tmp_path / "a", Model(PARAMETERS, Standardizer.none()))
    model = load_model(tmp_path / "a")
    assert not model.standardizer.mean.size
    assert (model.number, model.schema, model.learner, model.epsilon) == (None, None, "", None)


@pytest.mark.parametrize(
    ("named", "header", "message"),
    [
        ({}, {}, "not a model"),
        ({}, {"kind": "checkpoint"}, "not a model but 'checkpoint'"),
        ({"mean": np.zeros(2)}, HEADER, "deviation"),
        ({}, HEADER | {"schema": {"columns": [["age"]], "classes": [], "target": None}}, "not a model"),
        ({}, HEADER | {"schema": {"layout": "id = 3"}}, "not a model: column: must be given"),
        ({}, HEADER | {"epsilon": "little"}, "not a model"),
        ({}, HEADER | {"number": "three"}, "not a model"),
    ],
)
def test_other_files_are_data_errors(
    tmp_path: Path, named: dict[str, np.ndarray], header: dict[str, object], message: str
) -> None:
    arrays.write(tmp_path / "a", named, header)
    with pytest.raises(DataError, match=message):
        load_model(tmp_path / "a")
