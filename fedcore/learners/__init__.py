"""Learners: numpy models under local SGD, wrappers of them, and PyTorch modules; scikit-learn apart.

`TorchLearner` is imported when it is asked for: it needs secagg[torch].
"""

from typing import TYPE_CHECKING, Any

from fedcore.learners.local_sgd import LocalSGD
from fedcore.learners.logistic import LogisticRegression
from fedcore.learners.low_rank import LowRank
from fedcore.learners.models import (
    Classifier,
    Examples,
    LinearRegression,
    Model,
    Perceptron,
    SoftmaxRegression,
)
from fedcore.learners.per_person import PersonClipped

if TYPE_CHECKING:
    from fedcore.learners.torch.learner import TorchLearner as TorchLearner  # not in __all__: needs torch

__all__ = [
    "Classifier",
    "Examples",
    "LinearRegression",
    "LocalSGD",
    "LogisticRegression",
    "LowRank",
    "Model",
    "Perceptron",
    "PersonClipped",
    "SoftmaxRegression",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class whose module is heavy
    if name == "TorchLearner":
        from fedcore.learners.torch.learner import TorchLearner

        return TorchLearner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
