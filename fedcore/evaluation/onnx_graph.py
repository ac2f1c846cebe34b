"""A model as an ONNX graph: features in, prediction and probabilities out. Extra: secagg[export]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError
from fedcore.evaluation.prediction import Predictor
from fedcore.learner import Parameters
from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.models import (
    LARGEST_LOG,
    LinearRegression,
    Perceptron,
    PoissonRegression,
    SoftmaxRegression,
)
from fedcore.learners.per_person import PersonClipped
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner

_OPSET = 17
Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]  # weights (inputs, outputs), biases (outputs,)


def layers_of(predictor: Predictor) -> tuple[Layers, str]:
    """Return affine layers, rectified units between them, and what follows the last: Softmax, Exp, or "".

    raises  DataError: a learner of one's own
    """
    given = predictor.model.parameters
    match predictor.learner:
        case LogisticRegressionLearner(classes=classes):
            weights, biases = given["coefficients"].T, given["intercepts"]
            if classes == 2:  # the logistic function is the softmax of the logit and 0
                weights = np.column_stack([np.zeros(len(weights)), weights])
                biases = np.concatenate([[0.0], biases])
            return [(weights, biases)], "Softmax"
        case LocalSGD(model=model) | PersonClipped(model=model):
            return _of_model(model, given)
        case other:
            raise DataError(f"{type(other).__name__}: has no ONNX graph here")


def _of_model(model: object, given: Parameters) -> tuple[Layers, str]:
    match model:
        case SoftmaxRegression():
            return [(given["coefficients"], given["intercepts"])], "Softmax"
        case Perceptron(hidden=hidden):
            names = range(len(hidden) + 1)
            return [(given[f"layer{i}.weights"], given[f"layer{i}.biases"]) for i in names], "Softmax"
        case LinearRegression() | PoissonRegression():
            layer = given["coefficients"][:, None], given["intercept"]
            return [layer], "Exp" if isinstance(model, PoissonRegression) else ""
        case other:
            raise DataError(f"{type(other).__name__}: has no ONNX graph here")


def to_onnx(predictor: Predictor) -> bytes:
    """Return a serialized graph.

    input    features: float64 (rows, features), in the order of the schema, NaN where a value is missing that
             becomes the mean of all sites
    outputs  prediction: texts of the classes, or float64 numbers, (rows,); probabilities: float64
             (rows, classes), of classes only
    raises   DataError
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    layers, last = layers_of(predictor)
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[Any] = []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(name: str, value: NDArray[Any]) -> str:
        constants[name] = value
        return name

    now = _standardized(predictor, add, constant)
    for i, (weights, biases) in enumerate(layers):
        now = add("MatMul", [now, constant(f"weights{i}", weights)], f"product{i}")
        now = add("Add", [now, constant(f"biases{i}", biases)], f"layer{i}")
        if i + 1 < len(layers):
            now = add("Relu", [now], f"units{i}")
    classes = predictor.schema.classes
    outputs = []
    if classes:
        add(last, [now], "probabilities", axis=1)
        best = add("ArgMax", ["probabilities"], "best", axis=1, keepdims=0)
        add("Gather", [constant("classes", np.array(classes, object)), best], "prediction")
        shape: list[str | int | None] = ["rows", len(classes)]
        outputs.append(helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, shape))
    else:
        if last:
            now = add("Min", [now, constant("largest", np.array(LARGEST_LOG))], "line")
            now = add(last, [now], "mean")
        flat = constant("flat", np.array([-1], np.int64))
        add("Reshape", [now, flat], "prediction")
    kind = TensorProto.STRING if classes else TensorProto.DOUBLE
    outputs.insert(0, helper.make_tensor_value_info("prediction", kind, ["rows"]))
    columns = len(predictor.schema.columns)
    features = helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["rows", columns])
    held = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "secagg", [features], outputs, held)
    names = ", ".join(column.name for column in predictor.schema.columns)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], doc_string=names)
    model.ir_version = 8  # that of the opset: older runtimes read it, too
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _standardized(predictor: Predictor, add: Any, constant: Any) -> str:  # noqa: ANN401 - of `to_onnx`
    """Add the nodes that fill, standardize, and drop columns without spread."""
    standardizer = predictor.model.standardizer
    if not standardizer.mean.size:
        return "features"
    used = standardizer.deviation > 0
    mean = constant("means", standardizer.mean)
    missing = add("IsNaN", ["features"], "missing")
    filled = add("Where", [missing, mean, "features"], "filled")
    centred = add("Sub", [filled, mean], "centred")
    scale = constant("scale", np.where(used, 1 / np.where(used, standardizer.deviation, 1.0), 0.0))
    return str(add("Mul", [centred, scale], "scaled"))
