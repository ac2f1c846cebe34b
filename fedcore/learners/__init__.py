"""Learners: numpy models under local SGD here; scikit-learn, PyTorch and wrappers in their own modules."""

from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.logistic import LogisticRegression
from fedcore.learners.models import (
    Classifier,
    LinearRegression,
    Model,
    Perceptron,
    Rows,
    SoftmaxRegression,
)

__all__ = [
    "Classifier",
    "LinearRegression",
    "LocalSGD",
    "LogisticRegression",
    "Model",
    "Perceptron",
    "Rows",
    "SoftmaxRegression",
]
