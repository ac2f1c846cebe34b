"""A model's file is enough to use it: predictions and exports equal what training evaluated."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
import skops.io
import torch

from fedcore.data.layout import Category, Layout, Missing, Number
from fedcore.data.schema import Column, Schema
from fedcore.data.table import Table
from fedcore.errors import DataError
from fedcore.evaluation.export import export, to_pipeline
from fedcore.evaluation.prediction import Predictor, write_predictions
from fedcore.learners.kinds import learner_json, read_learner
from fedcore.rounds.model import Model, load_model, save_model
from fedcore.statistics.standardizer import Standardizer

COLUMNS = (
    Number(name="age", low=0, high=100, missing=Missing.MEAN),
    Category(name="ward", categories=("a", "b", "c"), missing=Missing.DROP),
)
TWO = Schema.of(Layout(columns=COLUMNS, label=Category(name="ill", categories=("no", "yes"))))
THREE = Schema.of(Layout(columns=COLUMNS, label=Category(name="ill", categories=("no", "a bit", "yes"))))
DAYS = Schema.of(Layout(columns=COLUMNS, label=Number(name="days", low=0, high=60)))
SCALE = Standardizer(np.array([50.0, 0.3, 0.3, 0.4]), np.array([20.0, 0.4, 0.4, 0.0]))
KINDS: list[tuple[dict[str, Any], Schema]] = [
    ({"kind": "logistic"}, TWO),
    ({"kind": "logistic"}, THREE),
    ({"kind": "softmax", "rate": 0.2}, TWO),
    ({"kind": "softmax"}, THREE),
    ({"kind": "perceptron", "hidden": [5, 4]}, TWO),
    ({"kind": "perceptron", "hidden": [6]}, THREE),
    ({"kind": "linear"}, DAYS),
    ({"kind": "poisson"}, DAYS),
    ({"kind": "softmax", "person_clip": 1.0, "expected": 50.0}, TWO),
]
NAMES = [f"{table['kind']}-{len(schema.classes)}-{len(table)}" for table, schema in KINDS]


def model_of(table: dict[str, Any], schema: Schema) -> Model:
    facts = {"features": len(schema.columns), "classes": len(schema.classes)}
    rng = np.random.default_rng(1)
    made = read_learner(table, **facts)
    parameters = {name: array + rng.normal(0, 0.4, array.shape) for name, array in made.initial().items()}
    return Model(parameters, SCALE, 3, schema, json.dumps(learner_json(table, **facts)), "ab" * 32)


def rows(count: int = 30) -> Table:
    rng = np.random.default_rng(2)
    wards = np.eye(3)[rng.integers(0, 3, count)]
    ages = rng.uniform(0, 100, count)
    ages[::5] = np.nan
    return Table(np.column_stack([ages, wards]), np.zeros(count, np.int64))


@pytest.mark.parametrize(("table", "schema"), KINDS, ids=NAMES)
def test_a_file_alone_predicts_what_the_learner_does(
    tmp_path: Path, table: dict[str, Any], schema: Schema
) -> None:
    model = model_of(table, schema)
    save_model(tmp_path / "a.safetensors", model)
    predictor = Predictor.load(tmp_path / "a.safetensors")
    learner = read_learner(table, features=4, classes=len(schema.classes))
    assert predictor.learner == learner
    found, scaled = predictor.predict(rows()), SCALE.apply(rows())
    if schema.target is not None:
        assert found.values.tolist() == learner.predict(model.parameters, scaled).tolist()  # type: ignore[attr-defined]
        return
    scores = learner.scores(model.parameters, scaled)  # type: ignore[attr-defined]
    assert found.scores.tolist() == scores.tolist()
    assert found.values.tolist() == scores.argmax(axis=1).tolist()


@pytest.mark.parametrize(("table", "schema"), KINDS, ids=NAMES)
def test_a_pipeline_of_scikit_learn_predicts_the_same(
    tmp_path: Path, table: dict[str, Any], schema: Schema
) -> None:
    predictor = Predictor.of(model_of(table, schema))
    found = predictor.predict(rows())
    export(predictor, tmp_path / "a.joblib")
    export(predictor, tmp_path / "a.skops")
    for pipeline in (
        to_pipeline(predictor),
        joblib.load(tmp_path / "a.joblib"),
        skops.io.load(tmp_path / "a.skops", trusted=["numpy.dtype"]),
    ):
        features = rows().features
        if schema.target is not None:
            assert pipeline.predict(features) == pytest.approx(found.values)
            continue
        assert pipeline.predict_proba(features) == pytest.approx(found.scores, abs=1e-9)
        assert pipeline.predict(features).tolist() == [schema.classes[int(one)] for one in found.values]


def test_parameters_are_a_state_dict_of_torch(tmp_path: Path) -> None:
    model = model_of(*KINDS[4])
    export(Predictor.of(model), tmp_path / "a.pt")
    whole = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (whole["mean"].tolist(), whole["deviation"].tolist()) == (
        SCALE.mean.tolist(),
        SCALE.deviation.tolist(),
    )
    state = whole["state_dict"]
    assert {name: tensor.numpy().tolist() for name, tensor in state.items()} == {
        name: array.tolist() for name, array in model.parameters.items()
    }
    with pytest.raises(DataError, match=r"a\.h5: must end in one of \.joblib, \.skops, \.pt, \.onnx"):
        export(Predictor.of(model), tmp_path / "a.h5")


@pytest.mark.parametrize(("table", "schema"), KINDS, ids=NAMES)
def test_an_onnx_graph_predicts_the_same(tmp_path: Path, table: dict[str, Any], schema: Schema) -> None:
    predictor = Predictor.of(model_of(table, schema))
    export(predictor, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    found = predictor.predict(rows())
    said, *scores = session.run(None, {"features": rows().features})
    if schema.target is not None:
        assert said == pytest.approx(found.values)
        return
    assert scores[0] == pytest.approx(found.scores, abs=1e-9)
    assert said.tolist() == [schema.classes[int(one)] for one in found.values]


def test_a_model_that_was_not_standardized_has_a_graph_too(tmp_path: Path) -> None:
    model = replace(model_of(*KINDS[2]), standardizer=Standardizer.none())
    predictor = Predictor.of(model)
    export(predictor, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    features = np.nan_to_num(rows().features) / 100
    found = predictor.predict(Table(features, np.zeros(len(features), np.int64)))
    assert session.run(["probabilities"], {"features": features})[0] == pytest.approx(found.scores, abs=1e-9)


def test_records_are_read_as_files_are() -> None:
    predictor = Predictor.of(model_of({"kind": "softmax"}, TWO))
    reading = predictor.read_records([{"ward": "a", "age": 30, "other": 1}, {"ward": "c"}, {"age": "40"}])
    assert (reading.kept.tolist(), reading.dropped, reading.filled) == ([0, 1], {"ward": 1}, {"age": 1})
    assert reading.unused == ("other",)
    for records, fault in (
        ([], "rows: has no rows"),
        ([{"ward": "z", "age": 1}], "rows, row 1, column ward: "),
        ([{"ward": "a", "age": 200}], "rows, row 1, column age: "),
        ([{"ward": "a"}, 3], "rows, row 2: must be values by column"),
    ):
        with pytest.raises(DataError, match=fault):
            predictor.read_records(records).complete()  # type: ignore[arg-type]


def test_rows_of_a_file_are_predicted_without_their_labels_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("ward,age\na,30\n,40\nc,\n", encoding="utf-8")
    predictor = Predictor.of(model_of({"kind": "softmax"}, TWO))
    reading = predictor.read(path)
    found = predictor.predict(reading.complete())
    write_predictions(tmp_path / "out.csv", reading, found, "ill")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["row", "ill", "P(no)", "P(yes)"]
    assert [line[0] for line in lines[1:]] == ["1", "2", "3"]
    assert lines[2][1:] == ["", "", ""]  # its ward is missing: the rule leaves the row out
    assert [line[1] in {"no", "yes"} for line in lines[1:]] == [True, False, True]
    assert dict(reading.dropped) == {"ward": 1}


def test_a_threshold_moves_the_second_of_two_classes() -> None:
    predictor = Predictor.of(model_of({"kind": "softmax"}, TWO))
    scores = predictor.predict(rows()).scores[:, 1]
    for threshold in (0.0, 0.3, 0.9):
        assert predictor.predict(rows(), threshold).values.tolist() == (scores >= threshold).tolist()
    for one, threshold in ((predictor, 1.5), (Predictor.of(model_of({"kind": "softmax"}, THREE)), 0.5)):
        with pytest.raises(DataError, match="threshold: must be in 0..1, of two classes"):
            one.predict(rows(), threshold)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": None}, "does not say of which columns"),
        ({"learner": ""}, "learner cannot be made from its file"),
        ({"learner": "[]"}, "learner cannot be made from its file"),
        (
            {"learner": '{"kind": "os:system", "options": {}}'},
            "learner.kind: must be one of logistic",
        ),
        (
            {"learner": '{"kind": "softmax", "options": {"model": {"features": 9, "classes": 2}}}'},
            "learner.features: must be 4, is 9",
        ),
        ({"learner": '{"kind": "softmax", "options": {"model": {"features": 4}}}'}, "learner.classes"),
    ],
)
def test_a_file_that_does_not_say_enough_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_model(tmp_path / "a.safetensors", replace(model_of({"kind": "softmax"}, TWO), **changes))
    with pytest.raises(DataError, match=message) as caught:
        Predictor.load(tmp_path / "a.safetensors")
    assert str(caught.value).startswith(str(tmp_path / "a.safetensors"))


def test_a_learner_of_another_module_is_given_and_not_named_by_the_file(tmp_path: Path) -> None:
    model = replace(model_of({"kind": "softmax"}, TWO), learner='{"kind": "mine:make", "options": {}}')
    save_model(tmp_path / "a.safetensors", model)
    learner = read_learner({"kind": "softmax"}, features=4, classes=2)
    found = Predictor.load(tmp_path / "a.safetensors", learner).predict(rows())
    assert found.scores.shape == (30, 2)


def test_models_of_a_plain_schema_predict_too(tmp_path: Path) -> None:
    schema = Schema((Column("x", 0, 1), Column("y", 0, 1)), ("no", "yes"))
    facts = {"features": 2, "classes": 2}
    words = json.dumps(learner_json({"kind": "softmax"}, **facts))
    learner = read_learner({"kind": "softmax"}, **facts)
    save_model(tmp_path / "a", Model(learner.initial(), Standardizer.none(), 1, schema, words))
    (tmp_path / "rows.csv").write_text("y,x\n0.5,1\n", encoding="utf-8")
    predictor = Predictor.load(tmp_path / "a")
    assert load_model(tmp_path / "a").schema == schema
    found = predictor.predict(predictor.read(tmp_path / "rows.csv").complete())
    assert found.scores.tolist() == [[0.5, 0.5]]


BIG = '{"kind": "perceptron", "options": {"model": {"features": 4, "classes": 2, "hidden": [%s]}}}'
LOGISTIC = '{"kind": "logistic", "options": {"features": %s, "classes": 2}}'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner": LOGISTIC % "-3"}, "learner.features: must be 4, is -3"),
        ({"learner": LOGISTIC % "1000000000000"}, "learner.features: must be 4"),
        ({"learner": BIG % "1000000000000"}, "learner.hidden: must be units, at most"),
        ({"learner": BIG % "9, 9, 9"}, "learner: must be of 10 parameters, is 245"),
        ({"learner": "[" * 100_000}, "cannot be made from its file"),
        (
            {"parameters": {"coefficients": np.full((4, 2), np.nan), "intercepts": np.zeros(2)}},
            "must be finite",
        ),
        ({"standardizer": Standardizer(np.zeros(1), np.ones(1))}, "one value per column"),
        ({"standardizer": Standardizer(np.full(4, np.nan), np.ones(4))}, "mean: must be within bounds"),
        ({"standardizer": Standardizer(np.full(4, 0.5), np.full(4, np.nan))}, "deviation: must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_file_is_refused_before_anything_is_made_of_it(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_model(tmp_path / "a.safetensors", replace(model_of({"kind": "softmax"}, TWO), **changes))
    with pytest.raises(DataError, match=message):
        Predictor.load(tmp_path / "a.safetensors")


def test_rows_that_do_not_fit_are_not_filled_in_silence() -> None:
    predictor = Predictor.of(model_of({"kind": "softmax"}, TWO))
    bad = Table(np.array([[50.0, np.nan, 0.0, 0.0]]), np.zeros(1, np.int64))
    with pytest.raises(DataError, match="rows, row 1, column ward=a: must be finite"):
        predictor.predict(bad)


def test_a_classifier_is_no_model_of_numbers() -> None:
    words = json.dumps(learner_json({"kind": "softmax"}, features=4, classes=2))
    with pytest.raises(DataError, match="learner.classes: must be 0, is 2"):
        Predictor.of(replace(model_of({"kind": "linear"}, DAYS), learner=words))


def test_a_graph_of_counts_is_as_bounded_as_the_model(tmp_path: Path) -> None:
    model = model_of({"kind": "poisson"}, DAYS)
    steep = {name: array * 100 for name, array in model.parameters.items()}
    predictor = Predictor.of(replace(model, parameters=steep))
    export(predictor, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (said,) = session.run(None, {"features": rows().features})
    assert said == pytest.approx(predictor.predict(rows()).values)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf")])
def test_numbers_that_no_bounds_hold_are_faults_of_their_row(value: float) -> None:
    predictor = Predictor.of(model_of({"kind": "softmax"}, TWO))
    with pytest.raises(DataError, match="rows, row 1, column age: "):
        predictor.read_records([{"ward": "a", "age": value}]).complete()


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x"])
def test_what_is_neither_number_nor_text_is_refused(value: Any) -> None:
    predictor = Predictor.of(model_of({"kind": "softmax"}, TWO))
    with pytest.raises(DataError, match="rows, row 1, column age: must be a number or a text"):
        predictor.read_records([{"ward": "a", "age": value}])
