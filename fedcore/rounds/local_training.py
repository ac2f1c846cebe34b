"""What a site computes in a training round, in real numbers: the vector, what follows it, and its weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import LearnerFailedError, TaskError
from fedcore.learner import Abilities, Learner, LocalFit, Parameters, Rows, Steering, flatten, unflatten
from fedcore.names import matches
from fedcore.rounds.instructions import Asks, UpdateKind, Weighting, sent
from fedcore.rounds.task import Task

# A vector's weight in a pass of the geometric median is its weight times a share of this.
GRAIN = 1024


@dataclass(slots=True)
class SiteState:
    """What a site keeps from round to round. It becomes part of it only when its vector counted.

    control   c_i of SCAFFOLD, flat; residual: what sparsification has not sent yet, flat
    personal  parameters that stay here
    update    (round, vector) of the last training round: later passes sum it again
    pending   (round, changes) that wait for the next round
    counted   members of the sum that the pending vector is in, by what its own session proved
    members   of the sum that the rest comes from
    """

    control: NDArray[np.float64] | None = field(default=None, repr=False)
    residual: NDArray[np.float64] | None = field(default=None, repr=False)
    personal: Parameters = field(default_factory=dict, repr=False)
    update: tuple[str, Update] | None = field(default=None, repr=False)
    pending: tuple[str, dict[str, Any]] | None = field(default=None, repr=False)
    counted: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    def propose(self, name: str, changes: dict[str, Any]) -> None:
        """Keep what a round would change, until it is known whether its vector counted."""
        self.pending, self.counted = (name, changes), ()

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

    values   (d,), as the task's dimension says; steps: of local training; size: of the model's part
    changes  of the site's state, once the vector counts
    """

    values: NDArray[np.float64] = field(repr=False)
    steps: float
    changes: dict[str, Any] = field(repr=False)


def train(
    learner: Learner[Any],
    task: Task,
    rows: Rows,
    state: SiteState,
    seed: int,
    site: str,
) -> Update:
    """Do what the task asks. Raises TaskError; whatever the learner raises becomes a LearnerFailedError."""
    before = starting_point(learner, task, state)
    shared = sent(before, task.asks)
    gives = _gradient if task.asks.update is UpdateKind.GRADIENT else _trained
    on_rows = gives(learner, task, before, shared, state, seed)
    try:
        return on_rows(rows)
    except TaskError as error:
        raise LearnerFailedError(str(error)) from error
    except Exception as error:  # a learner is foreign code
        raise LearnerFailedError(f"{site}: the learner failed with {type(error).__name__}") from error


def check_dimension(learner: Learner[Any], task: Task, state: SiteState) -> None:
    """Raise TaskError unless the task is about as many values as this learner's updates have."""
    size = flatten(sent(starting_point(learner, task, state), task.asks)).size
    if task.dimension != size * (2 if task.asks.control else 1):
        raise TaskError(f"task.dimension: {task.dimension}, this site has {size} parameters to send")


def starting_point(learner: Learner[Any], task: Task, state: SiteState) -> Parameters:
    """Return the round's parameters, with this site's own in place of personal ones."""
    try:
        initial = learner.initial()
        shapes = _shapes(initial)
    except Exception as error:  # a learner is foreign code
        raise TaskError(f"task.model: the learner failed with {type(error).__name__}") from error
    given = task.model
    personal = {name for name in initial if name not in given}
    parameters = {
        name: given[name].copy() if name in given else state.personal.get(name, initial[name])
        for name in initial
    }
    if given.keys() - initial.keys() or _shapes(parameters) != shapes:
        raise TaskError("task.model: not the shapes of this site's learner")
    if personal != {name for name in initial if matches(name, task.asks.personal)}:
        raise TaskError("task.model: not the shapes of this site's learner: names are missing")
    return parameters


def _shapes(parameters: Parameters) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in parameters.items()}


def _trained(
    learner: Learner[Any],
    task: Task,
    before: Parameters,
    shared: Parameters,
    state: SiteState,
    seed: int,
) -> Callable[[Rows], Update]:
    """Return what makes an update of rows by local training. Raises TaskError, whatever the rows are."""
    fit = _fit(learner, task, before, shared, state, seed)
    return lambda rows: _update(task.asks, before, shared, fit(rows), state, task)


def _fit(
    learner: Learner[Any],
    task: Task,
    before: Parameters,
    shared: Parameters,
    state: SiteState,
    seed: int,
) -> Callable[[Rows], LocalFit]:
    """Return what trains, steered if the strategy asks for it."""
    asks = task.asks
    frozen = frozenset(n for n in before if n not in shared and not matches(n, asks.personal))
    correction = None
    if asks.control:
        own = state.control if state.control is not None else np.zeros(flatten(shared).size)
        correction = unflatten(_array(task, "control", own.size) - own, shared)
    only_rate = not (asks.proximal or correction or frozen or asks.normalized)
    if only_rate and asks.rate == 1:
        return lambda rows: LocalFit(learner.fit(before, rows, seed), float("nan"), float("nan"))
    able = Abilities.of(learner)
    steerable, rated = able.steerable, able.rated
    if steerable is not None:
        steering = Steering(proximal=asks.proximal, correction=correction, frozen=frozen, rate=asks.rate)
        return lambda rows: steerable.fit_steered(before, rows, seed, steering)
    if only_rate and rated is not None:
        return lambda rows: LocalFit(
            rated.at_rate(rated.rate * asks.rate).fit(before, rows, seed), float("nan"), float("nan")
        )
    raise TaskError(
        f"asks: {type(learner).__name__} cannot be steered; proximal terms, control variates, "
        "normalized updates, frozen parameters and changing rates need a learner with fit_steered"
    )


def _gradient(
    learner: Learner[Any],
    task: Task,
    before: Parameters,
    shared: Parameters,
    _state: SiteState,
    _seed: int,
) -> Callable[[Rows], Update]:
    """Return what makes an update of rows by their gradient. Raises TaskError, whatever the rows are."""
    gradients = Abilities.of(learner).gradients
    if gradients is None:
        raise TaskError(f"asks.update: {type(learner).__name__} gives no gradients")
    if any(matches(name, task.asks.personal) for name in before):
        raise TaskError("asks.update: gradients train nothing that stays at the site")

    def on_rows(rows: Rows) -> Update:
        gradient = gradients.gradient(before, rows)
        return Update(flatten({name: gradient[name] for name in shared}), 1.0, {})

    return on_rows


def _update(
    asks: Asks, before: Parameters, shared: Parameters, fit: LocalFit, state: SiteState, task: Task
) -> Update:
    """Turn trained parameters into the vector that was asked for."""
    if _shapes(fit.parameters) != _shapes(before):
        raise TaskError("the learner returned parameters of other shapes")
    after = flatten({name: fit.parameters[name] for name in shared})
    start = flatten(shared)
    delta = after - start
    changes: dict[str, Any] = {}
    if asks.personal:
        changes["personal"] = {n: fit.parameters[n] for n in before if matches(n, asks.personal)}
        if not all(np.isfinite(array).all() for array in changes["personal"].values()):
            raise TaskError("asks.personal: the learner returned values that are not finite")
    values = after if asks.update is UpdateKind.WEIGHTS else delta
    if asks.normalized:
        if not 0 < fit.steps <= asks.steps_cap:
            raise TaskError(f"steps: must be in (0, {asks.steps_cap:g}], are {fit.steps:g}")
        values = values / fit.steps
    if asks.control:  # option II of SCAFFOLD's algorithm 1
        moved = -_array(task, "control", delta.size) - delta / (fit.steps * fit.rate)
        own = state.control if state.control is not None else np.zeros(delta.size)
        changes["control"] = own + moved
        values = np.concatenate([values, moved * asks.control])
    return Update(values, fit.steps, changes)


def weight_of(asks: Asks, rows: int, cap: int) -> int:
    """Return a site's weight by its rows; those beyond the cap do not count."""
    return 1 if asks.weighting is Weighting.UNIFORM else min(rows, cap)


def weiszfeld_weight(task: Task, values: NDArray[np.float64], rows: int) -> int:
    """Weight of a vector in a pass of the geometric median (Pillutla et al. 2022, algorithm 2).

    values   (d,), as they are in the sum
    returns  w * min(1, nu / |x - v|) with v the round's center, in steps of 1 / GRAIN, at least one step;
             w in the first sum, which has no center
    """
    base = weight_of(task.asks, rows, task.codec.weight_cap // GRAIN)
    if not task.passes:
        return base * GRAIN
    distance = float(np.linalg.norm(values - _array(task, "center", values.size)))
    share = min(1.0, task.asks.smoothing / distance) if distance > 0 else 1.0
    return max(1, round(base * GRAIN * share))


def _array(task: Task, name: str, size: int) -> NDArray[np.float64]:
    array = task.arrays.get(name)
    if array is None or array.shape != (size,):
        raise TaskError(f"task.arrays: {name} with {size} values is missing")
    return array
