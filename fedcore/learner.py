"""Interface of a model to training: parameters by name, fit, evaluate. Anything with numpy arrays fits."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import TaskError

# Float32 is as good: what a site makes of a learner's parameters keeps their type, and takes half the memory.
Parameters: TypeAlias = dict[str, NDArray[np.float64]]
Metrics: TypeAlias = dict[str, float]


_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Rows(Sized, Protocol):
    """A site's examples, in whatever form its learner reads; `len` counts them."""


@runtime_checkable
class Labelled(Rows, Protocol):
    """Examples whose labels others than the learner may know: evaluation needs them."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return (rows,), as indices of the classes."""


RowsT_contra = TypeVar("RowsT_contra", bound=Rows, contravariant=True)


class Learner(Protocol[RowsT_contra]):
    """A model that can be trained on one site's rows."""

    def initial(self) -> Parameters:
        """Return the parameters that training starts from, equal at every site."""

    def fit(self, parameters: Parameters, rows: RowsT_contra, seed: int, /) -> Parameters:
        """Return parameters trained on `rows`, starting from `parameters`, which stay as they are."""

    def evaluate(self, parameters: Parameters, rows: RowsT_contra, /) -> Metrics:
        """Return metrics by name, such as accuracy and auc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Change of every local step by a strategy: gradient + correction + proximal * (w - w at the start).

    proximal    mu of FedProx (Li et al., MLSys 2020, section 3.2)
    correction  c - c_i of SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1), by name; names that
                are missing get none
    frozen      names of parameters that do not move
    rate        factor of the learning rate
    """

    proximal: float = 0.0
    correction: Mapping[str, NDArray[np.float64]] | None = None
    frozen: frozenset[str] = frozenset()
    rate: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LocalFit:
    """Result of steered training.

    parameters  after it
    steps       how far the steps reach together, in steps of plain SGD: ||a_i||_1 of FedNova (Wang et
                al., NeurIPS 2020, section 4.1); their number when there is no momentum
    rate        learning rate of a step
    """

    parameters: Parameters
    steps: float
    rate: float


@runtime_checkable
class SteerableLearner(Learner[RowsT_contra], Protocol[RowsT_contra]):
    """A learner whose local steps a strategy can change; FedProx, SCAFFOLD and FedNova need one."""

    def fit_steered(
        self, parameters: Parameters, rows: RowsT_contra, seed: int, steering: Steering, /
    ) -> LocalFit:
        """Train like `fit`, with `steering` in every step."""

    def gradient(self, parameters: Parameters, rows: RowsT_contra, /) -> Parameters:
        """Return the gradient of the mean loss over `rows`, by name."""


@runtime_checkable
class GradientLearner(Learner[RowsT_contra], Protocol[RowsT_contra]):
    """A learner that gives gradients; sums of gradients need no more."""

    def gradient(self, parameters: Parameters, rows: RowsT_contra, /) -> Parameters:
        """Return the gradient of the mean loss over `rows`, by name."""


@runtime_checkable
class RatedLearner(Learner[RowsT_contra], Protocol[RowsT_contra]):
    """A learner whose learning rate can follow a schedule, though its steps cannot be steered."""

    @property
    def rate(self) -> float:
        """Learning rate of the first round."""

    def at_rate(self, rate: float, /) -> Learner[RowsT_contra]:
        """Return the same learner with another learning rate."""


@runtime_checkable
class ScoringLearner(Learner[RowsT_contra], Protocol[RowsT_contra]):
    """A learner that says how sure it is; federated evaluation needs one."""

    def scores(self, parameters: Parameters, rows: RowsT_contra, /) -> NDArray[np.float64]:
        """Return class probabilities, (examples, classes)."""


@runtime_checkable
class PredictingLearner(Learner[RowsT_contra], Protocol[RowsT_contra]):
    """A learner of labels that are numbers."""

    def predict(self, parameters: Parameters, rows: RowsT_contra, /) -> NDArray[np.float64]:
        """Return the predicted labels, (examples,)."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """Abilities of a learner beside `fit` and `evaluate`: the learner itself under each, or None.

    sensitivity  L2 norm of what one person adds to its gradient; None: nothing bounds it
    """

    steerable: SteerableLearner[Any] | None
    gradients: GradientLearner[Any] | None
    rated: RatedLearner[Any] | None
    scoring: ScoringLearner[Any] | None
    predicting: PredictingLearner[Any] | None
    sensitivity: float | None

    @classmethod
    def of(cls, learner: Learner[Any]) -> Self:
        """Look them up: methods that are there are meant."""
        return cls(
            steerable=learner if isinstance(learner, SteerableLearner) else None,
            gradients=learner if isinstance(learner, GradientLearner) else None,
            rated=learner if isinstance(learner, RatedLearner) else None,
            scoring=learner if isinstance(learner, ScoringLearner) else None,
            predicting=learner if isinstance(learner, PredictingLearner) else None,
            sensitivity=getattr(learner, "sensitivity", None),
        )


def check_parameters(parameters: object, what: str) -> Parameters:
    """Return the same parameters. Raises TaskError: not float32 or float64 arrays by name, or none.

    Sums of others would be wrong without a word: a change from 5 to 3 of an unsigned integer is 254, and
    the norm of large float16 values is infinite.
    """
    if not isinstance(parameters, Mapping):
        raise TaskError(f"{what}: must be arrays by name, are {type(parameters).__name__}")
    if not parameters:
        raise TaskError(f"{what}: must be arrays by name, there are none")
    for name, array in parameters.items():
        if not isinstance(name, str):
            raise TaskError(f"{what}: names must be texts, one is {name!r}")
        if not isinstance(array, np.ndarray):
            raise TaskError(f"{what}: {name} must be an array of numpy, is {type(array).__name__}")
        if array.dtype not in _FLOATS:
            raise TaskError(
                f"{what}: {name} must be float32 or float64, is {array.dtype}: convert it where the learner "
                "gives its parameters, or leave it out of them"
            )
    return dict(parameters)


def size_of(parameters: Mapping[str, NDArray[Any]]) -> int:
    """Return how many values there are."""
    return sum(array.size for array in parameters.values())


def flatten(parameters: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Put all values into one vector (d,), ordered by name."""
    out = np.empty(size_of(parameters), np.result_type(*(array.dtype for array in parameters.values())))
    at = 0
    for name in sorted(parameters):
        array = parameters[name]
        out[at : at + array.size].reshape(array.shape)[...] = array
        at += array.size
    return out


def difference(
    after: Mapping[str, NDArray[np.floating[Any]]], before: Mapping[str, NDArray[np.floating[Any]]]
) -> NDArray[np.floating[Any]]:
    """Return flatten(after) - flatten(before), array by array: nothing else as long as the result is made.

    returns  (d,) float32 where all of `after` is, rounded once also where `before` is float64; else float64
    """
    single = all(after[name].dtype == np.float32 for name in before)
    out: NDArray[np.floating[Any]] = np.empty(size_of(before), np.float32 if single else np.float64)
    at = 0
    for name in sorted(before):
        array = before[name]
        part = out[at : at + array.size].reshape(array.shape)
        np.subtract(after[name], array, out=part, dtype=None if single else np.float64, casting="same_kind")
        at += array.size
    return out


def unflatten(vector: NDArray[np.float64], like: Mapping[str, NDArray[np.float64]]) -> Parameters:
    """Undo `flatten`. Raises TaskError when the lengths differ."""
    size = size_of(like)
    if len(vector) != size:
        raise TaskError(f"parameters: {size} values are needed, got {len(vector)}")
    out, at = {}, 0
    for name in sorted(like):
        array = like[name]
        out[name] = vector[at : at + array.size].reshape(array.shape).copy()
        at += array.size
    return out
