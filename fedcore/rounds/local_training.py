"""A site's part of a training round, in real numbers: vector, precise values, weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import LearnerFailedError, TaskError
from fedcore.learner import (
    Abilities,
    Learner,
    LocalFit,
    Parameters,
    Rows,
    Steering,
    check_parameters,
    difference,
    flatten,
    size_of,
    unflatten,
)
from fedcore.names import matches
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting, sent
from fedcore.rounds.questions import Train
from fedcore.rounds.task import Task

# A vector's weight in a pass of the geometric median is its weight times a share of this.
GRAIN = 1024


@dataclass(slots=True)
class SiteState:
    """State of a site from round to round. It becomes part of it only when its vector counted.

    control   c_i of SCAFFOLD, flat; residual: what sparsification has not sent yet, flat
    personal  parameters that stay here
    update    (round, vector) of the last training round: later passes sum it again; None: it said nothing
    pending   (round, changes) that wait for the next round
    counted   members of the sum that the pending vector is in, by what its own session proved
    members   of the sum that the rest comes from
    """

    control: NDArray[np.float64] | None = field(default=None, repr=False)
    residual: NDArray[np.float64] | None = field(default=None, repr=False)
    personal: Parameters = field(default_factory=dict, repr=False)
    update: tuple[str, Update | None] | None = field(default=None, repr=False)
    pending: tuple[str, dict[str, Any]] | None = field(default=None, repr=False)
    counted: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    def propose(self, name: str, changes: dict[str, Any]) -> None:
        """Keep what a round would change, until it is known whether its vector counted."""
        self.pending, self.counted = (name, changes) if changes else None, ()

    def count(self, name: str, members: Collection[str]) -> None:
        """Learn that the vector of a round is in a sum over these."""
        if self.pending is not None and self.pending[0] == name:
            self.counted = tuple(sorted(members))

    def go_on(self, name: str) -> None:
        """Begin a round: what the one before it changed becomes part of this, if it counted."""
        if self.pending is None or self.pending[0] == name:
            return
        if self.counted:
            for field_name, value in self.pending[1].items():
                setattr(self, field_name, value)
            self.members = self.counted
        self.pending, self.counted = None, ()

    def own(self) -> Parameters:
        """Return the personal parameters after the last round that counted."""
        changes = self.pending[1] if self.pending is not None and self.counted else {}
        personal: Parameters = changes.get("personal", self.personal)
        return personal

    def carried(self, asks: Asks, *, residual: bool) -> bool:
        """Tell whether a vector with these instructions is made of more than rows and the task."""
        return bool(
            (asks.control and self.control is not None)
            or (residual and self.residual is not None)
            or (asks.personal and self.personal)
        )

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint needs of this site."""
        names = ("control", "residual", "personal", "pending", "counted", "members")
        return {name: value for name in names if (value := getattr(self, name)) is not None and len(value)}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take back what `kept` returned."""
        for name, value in kept.items():
            setattr(self, name, value)


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """A site's part in a training round before it is shaped and encoded.

    values   (d,), as the task's dimension says, float32 where the learner's parameters are: an array of its
             own, that whoever is its last reader may write over
    steps    of local training
    changes  of the site's state, once the vector counts
    """

    values: NDArray[np.floating[Any]] = field(repr=False)
    steps: float
    changes: dict[str, Any] = field(repr=False)


def training(learner: Learner[Any], task: Task, state: SiteState) -> Callable[[Rows, int, str], Update]:
    """Return what makes an update of rows, a seed and the site's name, as the task asks.

    raises  TaskError, whatever the rows are; what is returned raises LearnerFailedError
    """
    question, asks = _train(task), task.encoding.asks
    before = starting_point(learner, question.model, asks, state)
    shared = sent(before, asks)
    gives = _gradient if asks.update is UpdateKind.GRADIENT else _trained
    on_rows = gives(learner, question, asks, before, shared, state)

    def train(rows: Rows, seed: int, site: str) -> Update:
        try:
            return on_rows(rows, seed)
        except TaskError as error:
            raise LearnerFailedError(str(error)) from error
        except Exception as error:  # a learner is foreign code
            raise LearnerFailedError(f"{site}: the learner failed with {type(error).__name__}") from error

    return train


def _train(task: Task) -> Train:
    if not isinstance(task.question, Train):
        raise TaskError(f"task.kind: must be train, is {task.kind}")
    return task.question


def check_dimension(learner: Learner[Any], task: Task, state: SiteState) -> None:
    """Raise TaskError unless the task is about as many values as this learner's updates have."""
    encoding = task.encoding
    size = size_of(sent(starting_point(learner, _train(task).model, encoding.asks, state), encoding.asks))
    if encoding.dimension != size * (2 if encoding.asks.control else 1):
        raise TaskError(f"task.dimension: {encoding.dimension}, this site has {size} parameters to send")


def starting_point(learner: Learner[Any], model: Parameters, asks: Asks, state: SiteState) -> Parameters:
    """Return the round's parameters, with this site's own in place of personal ones."""
    try:
        given = learner.initial()
    except Exception as error:  # a learner is foreign code
        raise TaskError(f"task.model: the learner failed with {type(error).__name__}") from error
    initial = check_parameters(given, "learner.initial")
    personal = {name for name in initial if name not in model}
    parameters = {
        name: model[name].copy() if name in model else state.personal.get(name, initial[name])
        for name in initial
    }
    if model.keys() - initial.keys() or _shapes(parameters) != _shapes(initial):
        raise TaskError("task.model: not the shapes of this site's learner")
    if personal != {name for name in initial if matches(name, asks.personal)}:
        raise TaskError("task.model: not the shapes of this site's learner: names are missing")
    return parameters


def _shapes(parameters: Parameters) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in parameters.items()}


def _trained(
    learner: Learner[Any],
    question: Train,
    asks: Asks,
    before: Parameters,
    shared: Parameters,
    state: SiteState,
) -> Callable[[Rows, int], Update]:
    """Return what makes an update of rows by local training. Raises TaskError, whatever the rows are."""
    fit = _fit(learner, question, asks, before, shared, state)
    return lambda rows, seed: _update(question, asks, before, shared, fit(rows, seed), state)


def _fit(
    learner: Learner[Any],
    question: Train,
    asks: Asks,
    before: Parameters,
    shared: Parameters,
    state: SiteState,
) -> Callable[[Rows, int], LocalFit]:
    """Return what trains, steered if the strategy asks for it."""
    frozen = frozenset(n for n in before if n not in shared and not matches(n, asks.personal))
    correction = None
    if asks.control:
        size = size_of(shared)
        own = state.control if state.control is not None else np.zeros(size)
        correction = unflatten(_control(question, size) - own, shared)
    only_rate = not (asks.proximal or correction or frozen or asks.normalized)
    if only_rate and asks.rate == 1:
        return lambda rows, seed: LocalFit(learner.fit(before, rows, seed), float("nan"), float("nan"))
    able = Abilities.of(learner)
    if (steerable := able.steerable) is not None:
        steering = Steering(proximal=asks.proximal, correction=correction, frozen=frozen, rate=asks.rate)
        return lambda rows, seed: steerable.fit_steered(before, rows, seed, steering)
    if only_rate and able.rated is not None:
        slower = able.rated.at_rate(able.rated.rate * asks.rate)
        return lambda rows, seed: LocalFit(slower.fit(before, rows, seed), float("nan"), float("nan"))
    raise TaskError(
        f"asks: {type(learner).__name__} cannot be steered; proximal terms, control variates, "
        "normalized updates, frozen parameters and changing rates need a learner with fit_steered"
    )


def _gradient(
    learner: Learner[Any],
    _question: Train,
    asks: Asks,
    before: Parameters,
    shared: Parameters,
    _state: SiteState,
) -> Callable[[Rows, int], Update]:
    """Return what makes an update of rows by their gradient. Raises TaskError, whatever the rows are."""
    gradients = Abilities.of(learner).gradients
    if gradients is None:
        raise TaskError(f"asks.update: {type(learner).__name__} gives no gradients")
    if any(matches(name, asks.personal) for name in before):
        raise TaskError("asks.update: gradients train nothing that stays at the site")

    def on_rows(rows: Rows, _seed: int) -> Update:
        slopes = check_parameters(gradients.gradient(before, rows), "the learner's gradient")
        if _shapes(slopes) != _shapes(before):
            raise TaskError("the learner returned a gradient of other shapes")
        return Update(_vector(slopes, shared), 1.0, {})

    return on_rows


def _update(
    question: Train, asks: Asks, before: Parameters, shared: Parameters, fit: LocalFit, state: SiteState
) -> Update:
    """Turn trained parameters into the vector that was asked for, the only one of its length that is made.

    Control variates are an exception: they come in float64, and take a few vectors more.
    """
    check_parameters(fit.parameters, "the learner's result")
    if _shapes(fit.parameters) != _shapes(before):
        raise TaskError("the learner returned parameters of other shapes")
    changes: dict[str, Any] = {}
    if asks.personal:
        changes["personal"] = {n: fit.parameters[n] for n in before if matches(n, asks.personal)}
        if not all(np.isfinite(array).all() for array in changes["personal"].values()):
            raise TaskError("asks.personal: the learner returned values that are not finite")
    weights = asks.update is UpdateKind.WEIGHTS
    values = _vector(fit.parameters, shared) if weights else difference(fit.parameters, shared)
    if asks.normalized:
        if not 0 < fit.steps <= asks.steps_cap:
            raise TaskError(f"steps: must be in (0, {asks.steps_cap:g}], are {fit.steps:g}")
        values /= fit.steps
    if asks.control:  # option II of SCAFFOLD's algorithm 1
        delta = difference(fit.parameters, shared)
        moved = -_control(question, delta.size) - delta / (fit.steps * fit.rate)
        own = state.control if state.control is not None else np.zeros(delta.size)
        changes["control"] = own + moved
        values = np.concatenate([values, moved * asks.control])
    return Update(values, fit.steps, changes)


def _vector(parameters: Parameters, shared: Parameters) -> NDArray[np.floating[Any]]:
    """Return what is sent of the parameters, in an array of its own."""
    return flatten({name: parameters[name] for name in shared})


def weight_of(asks: Asks, rows: int, cap: int) -> int:
    """Return a site's weight by its rows: at most the cap; 1 where sites count alike."""
    return 1 if asks.weighting is Weighting.UNIFORM else min(rows, cap)


def weiszfeld_weight(
    encoding: Encoding, center: NDArray[np.float64] | None, values: NDArray[np.float64], rows: int
) -> int:
    """Weight of a vector in a pass of the geometric median (Pillutla et al. 2022, algorithm 2).

    center   of the pass, (d,); None: the first sum, which has none
    values   (d,), as they are in the sum
    returns  w * min(1, nu / |x - v|) with v the center, in steps of 1 / GRAIN, at least one step
    """
    base = weight_of(encoding.asks, rows, encoding.codec.weight_cap // GRAIN)
    if center is None:
        return base * GRAIN
    distance = float(np.linalg.norm(values - center))
    share = min(1.0, encoding.asks.smoothing / distance) if distance > 0 else 1.0
    return max(1, round(base * GRAIN * share))


def _control(question: Train, size: int) -> NDArray[np.float64]:
    if question.control is None or question.control.shape != (size,):
        raise TaskError(f"task.arrays: control with {size} values is missing")
    return question.control
