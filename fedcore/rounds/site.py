"""A site: its rows, its learner, and the vector it contributes to each round."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.codec.codec import EncodedVector
from fedcore.codec.tiles import beyond, not_finite
from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.errors import CodecError, FedcoreError, TaskError
from fedcore.evaluation import federated
from fedcore.learner import Abilities, Learner, Rows, flatten
from fedcore.privacy.guard import PrivacyGuard
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.instructions import UpdateKind, Weighting, sent
from fedcore.rounds.local_training import (
    SiteState,
    Update,
    check_dimension,
    starting_point,
    training,
    weight_of,
    weiszfeld_weight,
)
from fedcore.rounds.questions import STATISTICS, AboutModel, Moments, TaskKind, Train
from fedcore.rounds.task import Task
from fedcore.settings import require
from fedcore.statistics import sums
from fedcore.statistics.moments import moments_norm
from secagg.kernels import UIntArray, lane_dtype

_LOG = logging.getLogger(__name__)
_WORDS = 300  # characters of a foreign exception


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """A site's part of a sum, in real numbers: shaped coordinates, precise values, and the weight.

    coordinates  (m,); precise: (e,) in [-1, 1]
    """

    coordinates: NDArray[np.floating[Any]] = field(repr=False)
    precise: NDArray[np.float64] = field(repr=False)
    weight: int = field(repr=False)


def whole(answer: UIntArray | EncodedVector, task: Task) -> UIntArray:
    """Read a vector to its end, (task.encoding.length,)."""
    if not isinstance(answer, EncodedVector):
        return answer
    out = np.empty(answer.length, lane_dtype(task.encoding.codec.ring_bits))
    answer.read(0, out)
    return out


def _faded(real: Contribution, fade: float) -> Contribution:
    """Return a contribution that weighs less: at least 1, so that it does not tell how much it weighed."""
    return replace(real, weight=max(round(real.weight * fade), 1)) if fade < 1 and real.weight else real


def with_cause(said: str, error: BaseException) -> str:
    """Return what was said of an error, with the words of foreign code behind it: for a site's own log."""
    cause = error.__cause__ if isinstance(error, FedcoreError) else error
    words = "" if cause is None or isinstance(cause, FedcoreError) else " ".join(str(cause).split())
    return f"{said}: {words[:_WORDS]}" if words else said


@dataclass(slots=True)
class Site:
    """One party's data and model.

    table     its rows
    schema    of the rows; None: no statistics, no standardization
    seed      makes training, rounding and noise repeatable, for drills; None: fresh randomness for every
              round. Under a guard rounding and noise are always fresh.
    held_out  rows for evaluation; None: the training rows
    guard     this site's own account of the privacy it spends: tasks without enough noise are refused,
              whatever the server says, and so are statistics and evaluation, which have none
    raises    DataError, OutOfBoundsError: rows that do not fit the schema
    trouble   why its last vector says nothing; for its own log: whether it does may tell about the rows
    cause     the same with the words of a learner's own exception, which may quote rows
    notes     what was lost of its last vector, and how much; likewise
    trained   training sums that its vectors are in, by what its own session proved; silent: of these, those
              in which they say nothing

    A task is accepted or refused on grounds that do not depend on rows. Once it is accepted a vector is
    sent: where the computation fails or gives what is not finite, no change under the site's usual weight,
    so that neither a missing vector nor the sum of the weights tells that it did.
    """

    name: str
    table: Rows = field(repr=False)
    schema: Schema | None
    learner: Learner[Any]
    seed: int | None = field(default=None, repr=False)
    held_out: Rows | None = field(default=None, repr=False)
    guard: PrivacyGuard | None = field(default=None, repr=False)
    state: SiteState = field(default_factory=SiteState, repr=False)
    trouble: str = field(default="", repr=False)
    cause: str = field(default="", repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    trained: int = field(default=0, repr=False)
    silent: int = field(default=0, repr=False)
    _version: bytes = field(default=b"", init=False, repr=False)

    def __post_init__(self) -> None:
        for rows, what in ((self.table, self.name), (self.held_out, f"{self.name}, held out")):
            if self.schema is not None and isinstance(rows, Table):
                self.schema.check_table(rows, what)

    def renew(self, rows: Rows) -> None:
        """Go on with other rows of the same party, under the same account. Raises as the constructor does."""
        if self.schema is not None and isinstance(rows, Table):
            self.schema.check_table(rows, self.name)
        self.table, self._version = rows, b""

    def version(self, task: Task) -> bytes:
        """Return what tells the rows that a task is about from others; b"" where they are no table."""
        rows = self._rows(task)
        if not (isinstance(rows, Table) and isinstance(rows.features, np.ndarray)):
            return b""
        if rows is not self.table:
            return rows.digest()
        if not self._version:
            self._version = rows.digest()
        return self._version

    def contribute(self, task: Task) -> UIntArray:
        """Return this site's encoded vector, (task.encoding.length,). Raises TaskError, CodecError."""
        return whole(self.answer(task), task)

    def answer(self, task: Task) -> UIntArray | EncodedVector:
        """Return this site's vector as it is read chunk by chunk; whole under noise. Raises TaskError."""
        return self.faded_answer(task, 1.0)

    def faded_answer(self, task: Task, fade: float) -> UIntArray | EncodedVector:
        """Return an answer about a model that is not the newest any more: its weight times `fade`, in (0, 1].

        raises  as `answer`; SettingError
        """
        require(0 < fade <= 1, "fade", "in (0, 1]", fade)
        compute = self.accept(task)
        state = self.state
        if self.guard is not None:
            self._check_sensitivity(self.guard)
            self.guard.demand(task, self._expected)
        try:
            return self._encoded(task, _faded(compute(), fade))
        except CodecError as error:  # no rounding within the norm
            self._in_trouble(task, error, state)
            return self._encoded(task, _faded(self._nothing(task), fade))

    def _check_sensitivity(self, guard: PrivacyGuard) -> None:
        """Refuse to serve when the learner says that persons move more than the plan promises."""
        promised, moves = guard.plan.sensitivity, Abilities.of(self.learner).sensitivity
        if promised is not None and moves is not None and not moves <= promised * (1 + 1e-9):
            raise TaskError(f"sensitivity: the plan promises {promised:.6g}, the learner's is {moves:.6g}")

    def compute(self, task: Task) -> Contribution:
        """Return what `contribute` encodes. Raises TaskError: the task is refused."""
        return self.accept(task)()

    def accept(self, task: Task) -> Callable[[], Contribution]:
        """Refuse a task by a TaskError, whatever the rows are, or return what computes the answer."""
        self._check(task)
        # A copy for this task: what a computation keeps whose round was given up meanwhile is kept nowhere.
        self.state = state = copy(self.state)
        state.go_on(task.name)
        ours = copy(self)  # its rows stay those of this task, whatever comes in meanwhile
        compute = ours._computation(task)  # noqa: SLF001 - it is we

        def answer() -> Contribution:
            self.trouble, self.cause, self.notes = "", "", ()
            try:
                found = ours._sound(task, compute)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody hears that there was any
                self._in_trouble(task, error, state)
            else:
                self.notes = ours.notes
                return found
            return ours._nothing(task)  # noqa: SLF001 - once the error has let go of what was computed

        return answer

    def _computation(self, task: Task) -> Callable[[], Contribution]:
        if isinstance(task.question, Train):
            return self._training(task, task.question)
        if isinstance(task.question, AboutModel):
            return self._evaluation(task, task.question)
        return self._statistic(task)

    def _sound(self, task: Task, compute: Callable[[], Contribution]) -> Contribution:
        """Compute. Raises TaskError: there are no rows; CodecError: what came out is not finite."""
        if not len(self._rows(task)):
            raise TaskError("has no rows")
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
            found = compute()
        if not_finite(found.coordinates) is not None:
            raise CodecError("update: must be finite")
        if isinstance(task.question, Train):
            self.notes = tuple(self._losses(task.encoding, found))
        return found

    def _losses(self, encoding: Encoding, found: Contribution) -> Iterator[str]:
        """Say what of an update does not reach the sum."""
        codec, rows = encoding.codec, len(self.table)
        if cut := beyond(found.coordinates, codec.clip):
            yield f"{cut} of {len(found.coordinates)} values are cut at {codec.clip:.3g}: plan.clip"
        if encoding.asks.weighting is Weighting.ROWS and rows > codec.weight_cap:
            yield f"{rows} rows count as {codec.weight_cap}: plan.weight_cap"
        if codec.bits > 1 and found.weight * codec.levels < codec.weight_cap and encoding.noise is None:
            yield (
                f"a value at plan.clip is less than one step with {found.weight} of {codec.weight_cap} rows: "
                "more plan.bits or a lower plan.weight_cap keep more of it"
            )

    def _in_trouble(self, task: Task, error: Exception, state: SiteState) -> None:
        """Say why, and keep what this round began from: its vector says nothing."""
        said = str(error) if isinstance(error, FedcoreError) else f"failed with {type(error).__name__}"
        self.trouble = said.removeprefix(f"{self.name}: ")
        self.cause = with_cause(self.trouble, error)
        _LOG.warning("%s: %s: sends zeros: %s", self.name, task.name, self.trouble)
        if isinstance(task.question, Train) and not task.question.again:
            state.propose(task.name, {})
            state.update = (task.name, None) if task.encoding.asks.smoothing else None

    def _nothing(self, task: Task) -> Contribution:
        """Return the vector of a site whose training changes nothing, in no steps; zeros for other kinds."""
        encoding, rows = task.encoding, len(self._rows(task))
        values = np.zeros(encoding.dimension)
        if isinstance(task.question, Train) and encoding.asks.update is UpdateKind.WEIGHTS:
            before = starting_point(self.learner, task.question.model, encoding.asks, self.state)
            start = flatten(sent(before, encoding.asks))
            values[: start.size] = start
        shaped, _ = encoding.shaping.shape(values, encoding.quantile)
        precise = {"steps": -1.0, "within": 1.0}
        weight = self._weight(task, shaped, rows) if rows else int(encoding.codec.weight_cap == 1)
        return Contribution(shaped, np.array([precise[name] for name in encoding.precise]), weight)

    def _encoded(self, task: Task, real: Contribution) -> UIntArray | EncodedVector:
        seed, codec, noise = self._randomness(task, "rounding"), task.encoding.codec, task.encoding.noise
        if noise is not None:
            return noise.encode(codec, real.coordinates, real.weight, seed, real.precise)
        return codec.source(real.coordinates, real.weight, seed, real.precise)

    def _check(self, task: Task) -> None:
        encoding = task.encoding
        classes = encoding.classes if self.schema is None else self.schema.classes
        if encoding.schema != self.schema or encoding.classes != classes:
            raise TaskError("task: its schema and classes are not those of this site")
        if not isinstance(task.question, Train) and (encoding.hidden or encoding.shaping.keep < 1):
            raise TaskError(f"task.shaping, task.asks.quantile: {task.kind} has none")
        standardizer = getattr(task.question, "standardizer", None)
        if standardizer is not None and standardizer.mean.size:
            if not isinstance(self._rows(task), Table):
                raise TaskError(f"{self.name}: only tables can be standardized")
            columns = 0 if self.schema is None else len(self.schema.columns)
            if {standardizer.mean.shape, standardizer.deviation.shape} != {(columns,)}:
                raise TaskError("task.arrays: mean, deviation must have one value per column")

    def _training(self, task: Task, question: Train) -> Callable[[], Contribution]:
        state, encoding = self.state, task.encoding
        check_dimension(self.learner, task, state)
        if question.again:
            kept = state.update
            if kept is None or kept[0] != task.name:
                raise TaskError(f"task.again: {self.name} has no update of {task.name}")
            if question.center is None or question.center.shape != (encoding.dimension,):
                raise TaskError(f"task.arrays: center with {encoding.dimension} values is missing")
        train = training(self.learner, task, state)

        def compute() -> Contribution:
            update, ours = self._update(task, train, state), not encoding.asks.smoothing  # else it is kept
            values = self._whole(update, task, state, overwrite=ours)
            bad = not_finite(values)
            if bad is not None:  # also where it is not sent now: it would be sent some day
                raise CodecError(f"update[{bad}]: must be finite")
            if encoding.noise is not None:  # its bounds are for norms clipped in float64
                values = values.astype(np.float64, copy=False)
            shaped, within = encoding.shaping.shape(values, encoding.quantile, overwrite=ours)
            if not question.again:
                changes = dict(update.changes)
                if encoding.shaping.keep < 1:
                    changes["residual"] = encoding.shaping.left(values, overwrite=ours)
                state.propose(task.name, changes)
            weight = self._weight(task, shaped, len(self.table))
            steps = 2 * update.steps / encoding.asks.steps_cap - 1
            precise = {"steps": steps, "within": 1.0 if within else -1.0}
            return Contribution(shaped, np.array([precise[name] for name in encoding.precise]), weight)

        return compute

    def _update(self, task: Task, train: Callable[[Any, int, str], Update], state: SiteState) -> Update:
        """Train, or take what was computed for the first pass of this round."""
        if task.question.passes:
            if state.update is None or state.update[1] is None:
                raise TaskError("had nothing to say in the first sum")
            return state.update[1]
        seed = int.from_bytes(self._randomness(task, "training")[:4], "little") >> 1
        update = train(self._standardized(task), seed, self.name)
        state.update = (task.name, update) if task.encoding.asks.smoothing else None
        return update

    def _whole(
        self, update: Update, task: Task, state: SiteState, *, overwrite: bool
    ) -> NDArray[np.floating[Any]]:
        """Add what earlier rounds have not sent; overwrite: to the update itself."""
        residual = state.residual
        if task.encoding.shaping.keep == 1 or residual is None or residual.shape != update.values.shape:
            return update.values
        out = update.values if overwrite else update.values.copy()
        out += residual
        return out

    def _evaluation(self, task: Task, question: AboutModel) -> Callable[[], Contribution]:
        parameters = starting_point(self.learner, question.model, task.encoding.asks, self.state)
        encoding = task.encoding
        target = None if encoding.schema is None else encoding.schema.target
        compute = federated.answer(question.kind, self.learner, parameters, len(encoding.classes), target)
        return lambda: self._weighted(task, compute(self._standardized(task)))

    def _statistic(self, task: Task) -> Callable[[], Contribution]:
        if self.schema is None:
            raise TaskError(f"{self.name}: statistics need a schema with public bounds")
        if not isinstance(table := self.table, Table):
            kind = type(table).__name__
            raise TaskError(f"{self.name}: statistics need a table, not a {kind}")
        if isinstance(task.question, Moments) and task.encoding.shaping.norm != moments_norm(self.schema):
            raise TaskError("task.shaping.norm: not that of rows within the bounds of this site's schema")
        compute = sums.answer(task.question, self.schema, self._expected)
        shape = task.encoding.shaping.shape  # within a norm, where there is one
        return lambda: self._weighted(task, shape(compute(table))[0])

    @property
    def _expected(self) -> float:
        """Rows of a site, publicly, by which sums are divided where the part of a person is bounded."""
        return float(getattr(self.learner, "expected", 0.0))

    def _weighted(self, task: Task, values: NDArray[np.floating[Any]]) -> Contribution:
        return Contribution(values, np.zeros(0), self._weight(task, values, len(self._rows(task))))

    def _weight(self, task: Task, shaped: NDArray[np.floating[Any]], rows: int) -> int:
        """Return the usual weight of a vector, as it is in the sum."""
        encoding = task.encoding
        if not (isinstance(task.question, Train) and encoding.asks.smoothing):
            return weight_of(encoding.asks, rows, encoding.codec.weight_cap)
        values = encoding.shaping.restore(shaped, encoding.dimension)[0]
        return weiszfeld_weight(encoding, task.question.center, values, rows)

    def evaluates_apart(self, task: Task) -> bool:
        """Tell whether a task is about rows that are held out."""
        evaluates = task.kind is not TaskKind.TRAIN and task.kind not in STATISTICS
        return evaluates and self.held_out is not None

    def _rows(self, task: Task) -> Rows:
        """Return the rows that a task is about."""
        return self.held_out if self.held_out is not None and self.evaluates_apart(task) else self.table

    def _standardized(self, task: Task) -> Rows:
        rows = self._rows(task)
        if isinstance(task.question, AboutModel) and task.question.standardizer.mean.size:
            return task.question.standardizer.apply(rows)
        return rows

    def _randomness(self, task: Task, purpose: str) -> bytes:
        """32 bytes for one purpose in one round."""
        if self.seed is None or (self.guard is not None and purpose == "rounding"):
            return os.urandom(32)  # also where tasks repeat: two sums with the same noise would cancel it
        again = f"/{task.question.passes}" if task.question.passes else ""
        text = f"{self.seed}/{self.name}/{task.name}/{purpose}{again}"
        return hashlib.sha256(text.encode()).digest()
