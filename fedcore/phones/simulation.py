"""Training over phones by the one-upload protocol, on a simulated clock: buffered, or in synchronous rounds.

Every sum is a real one: a certificate, uploads, decryptors, decoding; only ML-KEM is left out, which hides a
record from later. The clock is simulated: events are the ends of what phones do, in order, and nobody waits.
Of the terms a simulation uses the questions, weights, norm and codec. It asks for no statistics, and
the model moves by `server_rate` times the mean update, whatever the strategy.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from fedcore.errors import CodecError, SettingError
from fedcore.learner import Metrics, Parameters, flatten, unflatten
from fedcore.phones.buffer import FedBuff
from fedcore.phones.phone import Phone
from fedcore.rounds.questions import Train
from fedcore.rounds.task import Task
from fedcore.rounds.terms import Terms
from secagg import LocalCommittee, LocalUpload, RoundAbortedError, context_digest

Evaluator: TypeAlias = Callable[[Parameters], Metrics]


@dataclass(frozen=True, slots=True)
class Moment:
    """The model after a sum, and when that was.

    seconds  of the simulated clock
    behind   mean number of models that the updates in the sum were behind when it was opened; they weigh by
             what they were behind when they came
    uploads  in the sum; left_out: those that came and are in none; reason: of a sum without a result
    zeros    of the uploads, how many are of phones in trouble, which sent zeros
    """

    seconds: float
    version: int
    metrics: Metrics
    uploads: int
    left_out: int = 0
    behind: float = 0.0
    reason: str = ""
    zeros: int = 0


@dataclass(slots=True)
class Run:
    """What became of a simulation.

    late     uploads about models that were too old when they came, or after the goal was reached
    vanished phones that worked and never uploaded
    waiting  uploads in a buffer that was not full, or full and not opened, when the run ended
    """

    moments: list[Moment] = field(default_factory=list)
    parameters: Parameters = field(default_factory=dict)
    late: int = 0
    vanished: int = 0
    waiting: int = 0

    def seconds_to(self, metric: str, value: float) -> float:
        """Return when a metric first reached a value, in seconds; infinity: it never did.

        raises  KeyError: the evaluator gives no such metric
        """
        reached = (moment.seconds for moment in self.moments if moment.metrics[metric] >= value)
        return next(reached, float("inf"))


@dataclass(frozen=True, slots=True, order=True)
class _Came:
    """An upload: about which model, and how many there were behind it when it was made."""

    phone: int
    version: int
    behind: int = 0


class _Server:
    """The models so far, and what moves them."""

    def __init__(
        self,
        terms: Terms,
        phones: Sequence[Phone],
        initial: Parameters,
        evaluator: Evaluator,
        settings: FedBuff,
    ) -> None:
        if terms.plan.clients < settings.goal:
            least = f"at least goal = {settings.goal}, the updates of a sum"
            raise SettingError(f"plan.clients: must be {least}, is {terms.plan.clients}")
        self.terms, self.phones, self.evaluator, self.settings = terms, phones, evaluator, settings
        self.run = Run(parameters=dict(initial))
        self.tasks: list[Task] = []
        self.contexts: list[bytes] = []
        self._next()
        self.committee = LocalCommittee(len(phones), post_quantum=False)

    def close(self) -> None:
        """Wipe the committee's secrets."""
        self.committee.close()

    @property
    def version(self) -> int:
        """The newest model, from 0."""
        return len(self.tasks) - 1

    def _next(self) -> None:
        task = self.terms.task(Train(number=len(self.tasks) + 1, model=self.run.parameters))
        self.tasks.append(task)
        self.contexts.append(context_digest(task.encode()))

    def sum(self, came: Sequence[_Came], seconds: float) -> None:
        """Sum what phones have uploaded, and move the model."""
        if not came:
            self._note(seconds, 0, 0, 0.0, "nobody uploaded")
            return
        settings, newest = self.settings, self.version
        encoding = self.tasks[newest].encoding
        given = [
            LocalUpload(
                one.phone,
                self.contexts[one.version],
                self.phones[one.phone].site.faded_answer(self.tasks[one.version], settings.fade(one.behind)),
            )
            for one in came
        ]
        try:
            result, inside = self.committee.sum(
                given,
                length=encoding.length,
                ring_bits=encoding.codec.ring_bits,
                maximum_uploads=settings.goal,
                minimum_per_context=settings.smallest,
            )
            mean = encoding.codec.decode(result.total, len(inside))
        except (RoundAbortedError, CodecError) as error:
            self._note(seconds, 0, len(given), 0.0, str(error))
            return
        update, _ = encoding.shaping.restore(mean.mean, encoding.dimension)
        parameters = self.run.parameters
        moved = flatten(parameters) + settings.server_rate * update
        self.run.parameters = unflatten(moved, parameters)
        summed = [one for one in came if one.phone in inside]
        for one in summed:
            site = self.phones[one.phone].site
            site.state.count(self.tasks[one.version].name, [site.name])
        behind = float(np.mean([newest - one.version for one in summed]))
        zeros = sum(bool(self.phones[one.phone].site.trouble) for one in summed)
        self._next()
        self._note(seconds, len(inside), len(given) - len(inside), behind, "", zeros)

    def _note(
        self, seconds: float, uploads: int, left_out: int, behind: float, reason: str, zeros: int = 0
    ) -> None:
        metrics = self.evaluator(self.run.parameters)
        self.run.moments.append(
            Moment(seconds, self.version, metrics, uploads, left_out, behind, reason, zeros)
        )


def buffered(
    phones: Sequence[Phone],
    terms: Terms,
    initial: Parameters,
    evaluator: Evaluator,
    settings: FedBuff,
    *,
    concurrency: int,
    sums: int,
    open_s: float = 1.0,
    seed: int = 0,
) -> Run:
    """Train with a buffer: phones upload when they are ready, and the model moves when the buffer is full.

    terms        of training, for sums of so many phones
    concurrency  phones that are at work at a time
    sums         how many buffers are summed; fewer where no phone is left that could speak: one speaks once
                 about a model, and sums without a result make no new one
    open_s       seconds that the committee takes for a sum; the next buffer fills meanwhile
    raises       SettingError; TaskError: a site cannot answer at all
    """
    _check("concurrency", concurrency, settings.goal, len(phones), open_s)
    with closing(_Server(terms, phones, initial, evaluator, settings)) as server:
        return _buffered(server, concurrency, sums, open_s, seed)


def _buffered(server: _Server, concurrency: int, sums: int, open_s: float, seed: int) -> Run:
    phones, settings, rng = server.phones, server.settings, np.random.default_rng(seed)
    at_work: list[tuple[float, int, int, bool]] = []  # (when, phone, version, whether it uploads)
    last = dict.fromkeys(range(len(phones)), -1)  # the version that it was last asked about
    busy: set[int] = set()
    buffer: list[_Came] = []
    opening: list[tuple[float, list[_Came]]] = []
    done = 0

    def ask(now: float) -> None:
        spoken = busy.union(one.phone for one in buffer)  # one upload of each in a buffer
        free = [phone for phone in range(len(phones)) if phone not in spoken and last[phone] < server.version]
        rng.shuffle(free)
        for phone in free[: concurrency - len(busy)]:
            seconds, speaks = phones[phone].takes(rng)
            busy.add(phone)
            last[phone] = server.version
            heapq.heappush(at_work, (now + seconds, phone, server.version, speaks))

    ask(0.0)
    while done < sums and (at_work or opening):
        if opening and (not at_work or opening[0][0] <= at_work[0][0]):
            now, came = heapq.heappop(opening)
            server.sum(came, now)
            done += 1
            ask(now)
            continue
        now, phone, version, speaks = heapq.heappop(at_work)
        busy.discard(phone)
        if not speaks:
            server.run.vanished += 1
            last[phone] = -1  # it has uploaded nothing, and may be asked about the same model again
        elif server.version - version >= settings.versions:
            server.run.late += 1  # it makes a new update, and never sends this one
        else:
            buffer.append(_Came(phone, version, server.version - version))
        if len(buffer) >= settings.goal:
            heapq.heappush(opening, (now + open_s, buffer))
            buffer = []
        ask(now)
    server.run.waiting = len(buffer) + sum(len(came) for _, came in opening)
    return server.run


def synchronous(
    phones: Sequence[Phone],
    terms: Terms,
    initial: Parameters,
    evaluator: Evaluator,
    settings: FedBuff,
    *,
    asked: int,
    sums: int,
    open_s: float = 1.0,
    seed: int = 0,
) -> Run:
    """Train in rounds: so many phones are asked, and the first `goal` that upload are summed.

    asked   phones of a round, more than the goal (over-selection): who comes later has worked for nothing.
            After a sum without a result only those that have not uploaded about this model
    raises  SettingError; TaskError: a site cannot answer at all
    """
    _check("asked", asked, settings.goal, len(phones), open_s)
    with closing(_Server(terms, phones, initial, evaluator, settings)) as server:
        return _synchronous(server, asked, sums, open_s, seed)


def _synchronous(server: _Server, asked: int, sums: int, open_s: float, seed: int) -> Run:
    phones, settings, rng = server.phones, server.settings, np.random.default_rng(seed)
    told = dict.fromkeys(range(len(phones)), -1)  # the version that it last uploaded about
    now = 0.0
    for _ in range(sums):
        came: list[tuple[float, int]] = []
        longest = 0.0
        free = [phone for phone in range(len(phones)) if told[phone] < server.version]
        for phone in rng.permutation(free)[:asked].tolist():
            seconds, speaks = phones[phone].takes(rng)
            longest = max(longest, seconds)
            if speaks:
                came.append((seconds, phone))
            else:
                server.run.vanished += 1
        came.sort()
        first = came[: settings.goal]
        server.run.late += len(came) - len(first)
        now += (first[-1][0] if len(first) == settings.goal else longest) + open_s
        told.update((phone, server.version) for _, phone in first)
        server.sum([_Came(phone, server.version) for _, phone in first], now)
    return server.run


def _check(name: str, number: int, goal: int, phones: int, open_s: float) -> None:
    if not goal <= number <= phones:
        rule = f"in {goal}..{phones}, from the goal to all phones"
        raise SettingError(f"{name}: must be {rule}, is {number}")
    if not 0 <= open_s < float("inf"):
        raise SettingError(f"open_s: must be seconds, at least 0, is {open_s}")
