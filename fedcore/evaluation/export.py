"""Models for other tools: a scikit-learn pipeline, the parameters of a torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError, needs
from fedcore.evaluation.prediction import Predictor
from fedcore.learner import Parameters
from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.models import LinearRegression, Perceptron, PoissonRegression, SoftmaxRegression
from fedcore.learners.per_person import PersonClipped
from fedcore.learners.sklearn_epochs import LogisticRegressionLearner

SUFFIXES = (".joblib", ".skops", ".pt", ".onnx")


def to_pipeline(predictor: Predictor) -> Any:  # noqa: ANN401 - of scikit-learn, which has no types
    """Return a fitted Pipeline of features to predictions: fill with the mean, standardize, predict.

    Its input are features, (rows, features), NaN where a value is missing that becomes the mean of all sites.
    raises  DataError: a learner that scikit-learn does not know
    """
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    mean, deviation = _scale(predictor)
    fill = SimpleImputer(strategy="mean", keep_empty_features=True)
    fill.fit(np.stack([mean, mean]))
    scale = StandardScaler()
    scale.mean_, scale.scale_, scale.var_ = mean, np.where(deviation > 0, deviation, 1.0), deviation**2
    scale.n_features_in_, scale.n_samples_seen_ = len(mean), 1
    return Pipeline([("fill", fill), ("scale", scale), ("predict", _estimator(predictor, deviation > 0))])


def _scale(predictor: Predictor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    standardizer, columns = predictor.model.standardizer, len(predictor.schema.columns)
    if standardizer.mean.size:
        return standardizer.mean, standardizer.deviation
    return np.zeros(columns), np.ones(columns)


def _estimator(predictor: Predictor, used: NDArray[np.bool_]) -> Any:  # noqa: ANN401
    """Return a fitted estimator; columns without spread have no coefficient."""
    from sklearn import linear_model, neural_network

    given, classes = predictor.model.parameters, np.array(predictor.schema.classes)
    match predictor.learner:
        case LogisticRegressionLearner():
            made = linear_model.LogisticRegression()
            made.coef_, made.intercept_ = given["coefficients"] * used, given["intercepts"]
        case LocalSGD(model=SoftmaxRegression()) | PersonClipped(model=SoftmaxRegression()):
            made = linear_model.LogisticRegression()
            slopes, starts = given["coefficients"].T * used, given["intercepts"]
            if len(classes) == 2:  # the logistic function of the difference is the softmax of both
                slopes, starts = slopes[1:] - slopes[:1], starts[1:] - starts[:1]
            made.coef_, made.intercept_ = slopes, starts
        case LocalSGD(model=LinearRegression()) | PersonClipped(model=LinearRegression()):
            made = linear_model.LinearRegression()
            made.coef_, made.intercept_ = given["coefficients"] * used, float(given["intercept"][0])
        case LocalSGD(model=PoissonRegression()) | PersonClipped(model=PoissonRegression()):
            made = linear_model.PoissonRegressor()
            made.coef_, made.intercept_ = given["coefficients"] * used, float(given["intercept"][0])
            made._base_loss = made._get_loss()  # noqa: SLF001 - `predict` needs it, and `fit` alone makes it
        case LocalSGD(model=Perceptron()) | PersonClipped(model=Perceptron()):
            made = neural_network.MLPClassifier()
            _fill_perceptron(made, given, used, classes)
        case other:
            raise DataError(f"{type(other).__name__}: scikit-learn has no such estimator")
    made.n_features_in_ = len(used)
    if classes.size:
        made.classes_ = classes
    return made


def _fill_perceptron(
    made: Any,  # noqa: ANN401
    given: Parameters,
    used: NDArray[np.bool_],
    classes: NDArray[Any],
) -> None:
    from sklearn.preprocessing import LabelBinarizer

    layers = len(given) // 2
    weights = [given[f"layer{i}.weights"] for i in range(layers)]
    biases = [given[f"layer{i}.biases"] for i in range(layers)]
    weights[0] = weights[0] * used[:, None]
    if len(classes) == 2:  # one output there
        weights[-1], biases[-1] = weights[-1][:, 1:] - weights[-1][:, :1], biases[-1][1:] - biases[-1][:1]
    made.hidden_layer_sizes = tuple(matrix.shape[1] for matrix in weights[:-1])
    made.coefs_, made.intercepts_ = weights, biases
    made.n_layers_, made.n_outputs_ = layers + 1, weights[-1].shape[1]
    made.out_activation_ = "logistic" if len(classes) == 2 else "softmax"
    names = LabelBinarizer().fit(np.arange(len(classes)))
    names.classes_ = classes  # in our order
    made._label_binarizer = names  # noqa: SLF001 - as `fit` would


def export(predictor: Predictor, path: Path) -> None:
    """Write a model for another tool, told by the suffix.

    .joblib  scikit-learn pipeline; loading it runs code: for files that you made yourself
    .skops   the same, loaded safely by skops.io.load(FILE, trusted=["numpy.dtype"])
    .onnx    graph of features to prediction and probabilities (`fedcore.evaluation.onnx_graph`)
    .pt      {"state_dict", "mean", "deviation"} for torch.load(weights_only=True): the parameters, and what
             the features are standardized by
    raises   DataError
    """
    try:
        if path.suffix == ".joblib":
            import joblib

            joblib.dump(to_pipeline(predictor), path)
        elif path.suffix == ".skops":
            import skops.io

            skops.io.dump(to_pipeline(predictor), path)
        elif path.suffix == ".pt":
            import torch

            model = predictor.model
            named = {name: torch.from_numpy(array) for name, array in model.parameters.items()}
            scale = {
                name: torch.from_numpy(getattr(model.standardizer, name)) for name in ("mean", "deviation")
            }
            torch.save({"state_dict": named, **scale}, path)
        elif path.suffix == ".onnx":
            from fedcore.evaluation.onnx_graph import to_onnx

            path.write_bytes(to_onnx(predictor))
        else:
            raise DataError(f"{path}: must end in one of {', '.join(SUFFIXES)}")
    except ImportError as error:
        extra = "torch" if path.suffix == ".pt" else "export"
        raise DataError(f"{path}: {needs(path.suffix, extra, error)}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
