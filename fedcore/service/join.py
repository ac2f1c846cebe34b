"""A site of a training run: takes part in rounds until the server says that there are no more."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from fedcore.errors import DataError, FedcoreError, TaskError
from fedcore.learner import Rows
from fedcore.rounds.agreement import Run
from fedcore.rounds.consent import Consent
from fedcore.rounds.levers import drowned, levers
from fedcore.rounds.model import Model, unpack_model
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site, with_cause
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from secagg import OneShotParameters, ParameterError, Phase, RoundParameters, Signer
from secagg.audit import AuditError, Round, content_of, load_receipt
from secagg.kernels import UIntArray, VectorSource, lane_dtype
from secagg.service import (
    AggregationClient,
    OneShotClient,
    PartyCredentials,
    ServerCredentials,
    StreamError,
    write_private,
)
from secagg.store import MemoryStore, ParticipationLedger, Store, replace_file

Say = Callable[[str], None]
_T = TypeVar("_T")
QUIET_S = 60.0  # after which a waiting site says what for
_AGAIN_S = 5.0  # between two causes of the same wait
_SETTLES_S = 2.0  # without a word, after which a site says that it is connected
_LOOK_S = 0.5
_REST_S = 1.0  # after a round that this site sat out
_FALSE_ENDS = 10  # running: a server that never has a model of this run is not asked for ever
_CHUNK = 1 << 16  # entries of a plain update that are written at a time


@dataclass(frozen=True, slots=True)
class Hold:
    """A drill: stop before answering a phase of a training round, and do not go on."""

    number: int
    phase: Phase

    @classmethod
    def parse(cls, text: str) -> Hold:
        """Read "ROUND:PHASE", such as "5:masked_input_collection". Raises ParameterError."""
        number, _, phase = text.partition(":")
        try:
            return cls(int(number), Phase[phase.upper()])
        except (KeyError, ValueError):
            phases = ", ".join(phase.name.lower() for phase in Phase)
            raise ParameterError(f"hold: must be ROUND:PHASE with one of {phases}, is {text!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """Options of a site: its run, identity, server, rows and store.

    run     what this site agreed to: it takes part in nothing else
    store   keeps what it answered, signed and accepted; None: in memory, and forgotten with the process
    patience_s  how long to try to reach the server, without a word of it; math.inf: for ever
    renew   called before a question that was never answered: rows to go on with, if there are new ones
    receipts  folder for the server's receipts, one a round; None: they are not kept
    reveal  private folder for the quantized updates, so that a drill can check the sums; None: never
    """

    address: str | Sequence[str]
    credentials: ServerCredentials | PartyCredentials = field(repr=False)
    signer: Signer
    site: Site
    run: Run
    store: Store | None = None
    receipts: Path | None = None
    reveal: Path | None = None
    hold: Hold | None = None
    renew: Callable[[], Rows | None] = lambda: None
    patience_s: float = math.inf

    def __post_init__(self) -> None:
        if self.reveal is not None:
            self.reveal.mkdir(mode=0o700, parents=True, exist_ok=True)


async def join(options: JoinOptions, say: Say) -> Model:
    """Take part until the run is over; returns the final model, as the server says.

    A task that this site refuses costs it that round only.
    raises  ServiceError when the server cannot be reached or refuses us
    """
    part = Part.of(options, say)
    drill, consent = _Drill(options.hold, part.say, options.run), part.consent
    client = AggregationClient(
        address=options.address,
        credentials=options.credentials,
        signer=options.signer,
        policy=options.run.policy(),
        store=part.store,
        ledger=part.ledger,
        agreement=options.run.digest,
        question_of=consent.question_of,
        before_answer=drill.before_answer,
        before_sign=lambda parameters, payload, _finished, survivors: consent.signs(
            payload, parameters, survivors
        ),
        on_refusal=part.refused,
        patience_s=options.patience_s,
        most_bytes=options.run.most_bytes,
    )

    async def take_part() -> bytes | None:
        outcome = await client.take_part(part.compute)
        if outcome.finished:
            return outcome.payload
        if outcome.survivors and outcome.payload:
            consent.counted(outcome.payload, outcome.survivors)
        if outcome.receipt and options.receipts is not None:
            _keep_receipt(options.receipts, outcome.receipt, part.say)
        name = part.name_of(outcome.payload) or "a round"
        part.told(name, "done" if outcome.survivors else _told(outcome.reason))
        return None

    final = await part.rounds(client, take_part)
    if final is None:
        raise RuntimeError("a site takes part until the run is over")
    return final


@dataclass(frozen=True, slots=True)
class Part:
    """A site's part in a run, whichever protocol it speaks: what it keeps, consents to and says."""

    options: JoinOptions
    talk: Talk
    store: Store
    ledger: ParticipationLedger
    consent: Consent

    @classmethod
    def of(cls, options: JoinOptions, say: Say) -> Self:
        """Begin, and say what was agreed on and what remains to a liar."""
        store = MemoryStore() if options.store is None else options.store
        ledger, run, talk = ParticipationLedger(store), options.run, Talk(say)
        part = cls(options, talk, store, ledger, Consent(run, options.site, store, ledger))
        opening = f", {len(run.decryptors)} decryptors" if run.one_shot else ""
        part.say(f"agreed: {run.digest.hex()[:16]}, {len(run.members)} members{opening}")
        for warning in _warnings(options, store):
            part.say(f"WARNING: {warning}")
        return part

    def say(self, text: str) -> None:
        """Print a line on this site's console."""
        self.talk.say(text)

    def refused(self, text: str) -> None:
        """Say what became of a message, and what helps where that is known."""
        self.say(_refusal(self.options.run, text))

    def name_of(self, payload: bytes) -> str:
        """Return what a payload asks; "": nothing."""
        return _task(self.options.run, payload).name if payload else ""

    def told(self, name: str, became: str) -> None:
        """Say what became of a task, and what only this site knows of its answer."""
        site = self.options.site
        if site.trouble:  # nobody else hears of it
            self.say(f"{name}: sends zeros: {site.cause}")
        lost = f" ({'; '.join(site.notes)})" if site.notes else ""
        self.say(f"{name}: {became}{lost}")

    def compute(
        self, payload: bytes, parameters: RoundParameters | OneShotParameters
    ) -> UIntArray | VectorSource:
        """Return this site's answer to a task. Raises FedcoreError, ParameterError: it does not consent."""
        return self.talk.busy(lambda: _compute(self.options, self.consent, payload, parameters))

    async def rounds(
        self,
        client: AggregationClient | OneShotClient,
        one: Callable[[], Awaitable[bytes | None]],
        *,
        once: bool = False,
    ) -> Model | None:
        """Take part, round by round, until `one` returns the last payload; once: in one round.

        raises  ServiceError when the server cannot be reached or refuses us
        """
        waiting = asyncio.create_task(self.talk.waits(client))
        try:
            return await self._rounds(one, once=once)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _rounds(self, one: Callable[[], Awaitable[bytes | None]], *, once: bool) -> Model | None:
        false_ends = 0
        while True:
            try:
                last = await one()
                if last is not None:
                    false_ends += 1
                    return _final(self.options, last)
                false_ends = 0
                if once:
                    return None
            except (FedcoreError, ParameterError) as error:
                if false_ends == _FALSE_ENDS:
                    raise StreamError(
                        f"the server ended the run {false_ends} times without its model: {error}"
                    ) from error
                self.say(f"sits this round out: {with_cause(str(error), error)}")
                await asyncio.sleep(_REST_S)


class Talk:
    """This site's console: what happens and, where nothing does, a line a minute of what it waits for."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._spoke = time.monotonic()
        self._computing = 0

    def say(self, text: str) -> None:
        self._spoke = time.monotonic()
        self._say(text)

    def busy(self, compute: Callable[[], _T]) -> _T:
        self._computing += 1
        try:
            return compute()
        finally:
            self._computing -= 1

    async def waits(self, client: AggregationClient | OneShotClient) -> None:
        """Say now and then what it waits for, as long as it does."""
        before: str | None = ""
        connected = False
        while True:
            trouble = client.trouble
            if trouble is None and not connected and time.monotonic() - self._spoke >= _SETTLES_S:
                connected = True
                self.say("is connected, and waits for the others")
            new = bool(trouble) and trouble != before
            new = new and (not before or time.monotonic() - self._spoke >= _AGAIN_S)
            if new or (trouble != "" and time.monotonic() - self._spoke >= QUIET_S):
                mine = "its own computation" if self._computing else "the others"
                self.say(f"waits for {f'the server at {trouble}' if trouble else mine}")
            before, connected = trouble, connected and trouble is None
            await asyncio.sleep(_LOOK_S)


def _refusal(run: Run, text: str) -> str:
    """Say what became of a message, and what helps where that is known."""
    if text.startswith("our ledger warns"):
        return text
    if "another context" in text:
        text += (
            f"; this site agreed to {run.digest.hex()[:16]}: compare registry, schema, training file, "
            "options, --name and --rows with the server's"
        )
    return f"refused: {text}"


def _told(reason: str) -> str:
    """Return why a round is over for this site."""
    if "our ledger refuses" in reason:
        return f"{reason}; about other rows, or with other members: agree on another --rows"
    return reason or "over, without this site"


def _warnings(options: JoinOptions, store: Store) -> Iterator[str]:
    if options.reveal is not None:
        yield f"this site writes its plain updates to {options.reveal}"
    if not store.durable:
        yield "without --store, what this site signed is forgotten when it ends"
    if useless := drowned(options.run):
        yield useless
    if options.run.plan.privacy is not None:
        return
    for lever in levers(options.run):
        if lever.remains:
            remedy = f" (remedy: {lever.remedy})" if lever.remedy else ""
            yield f"no [privacy]: {lever.name}: a liar's gain: {lever.remains}{remedy}"


def _task(run: Run, payload: bytes) -> Task:
    return Task.decode(payload, run.terms.encoding)


def _final(options: JoinOptions, payload: bytes) -> Model:
    """Return the model that ends a run, with what this site knows of it; of the server are the numbers alone.

    raises  DataError, TaskError: not one of this learner
    """
    run, model, guard = options.run, unpack_model(payload), options.site.guard
    theirs, ours = model.agreement[:16], run.digest.hex()[:16]
    if theirs not in {"", ours}:
        raise StreamError(f"the server's run has another agreement, {theirs}, and no model of ours, {ours}")
    if not run.fits(model.parameters):
        raise TaskError("the final model: not the shapes of this site's learner")
    if fault := model.fault(run.schema):
        raise TaskError(f"the final model: {fault}")
    now = RunState.of(model.number or 0, model.parameters, model.standardizer)
    return run.model_of(now, None if guard is None else guard.accountant.epsilon)


def _compute(
    options: JoinOptions, consent: Consent, payload: bytes, parameters: RoundParameters | OneShotParameters
) -> UIntArray | VectorSource:
    task = consent.admit(payload, parameters)
    # New rows wait for a question that was never answered: its sums say nothing beside those of the old ones.
    if not consent.answered_before(task) and (rows := options.renew()) is not None:
        options.site.renew(rows)
    consent.fix_rows(task)
    answer = options.site.answer(task)
    if options.reveal is not None:
        _reveal(options.reveal, parameters, answer)
    return answer


def _keep_receipt(folder: Path, receipt: bytes, say: Say) -> None:
    """Keep a receipt under its round; what it proves, `secagg audit verify --receipt` says."""
    try:
        content = content_of(load_receipt(receipt).entry)
    except AuditError as error:
        say(f"the server's receipt is none: {error}")
        return
    if isinstance(content, Round):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{content.round_id.hex()}.receipt"
        if path.exists() and path.read_bytes() != receipt:  # what was kept stays: both together prove a lie
            path = path.with_suffix(f".{hashlib.sha256(receipt).hexdigest()[:16]}.receipt")
            say(f"the server gave another receipt of a round that it gave one of before: kept as {path}")
        replace_file(path, receipt)


def _reveal(
    folder: Path, parameters: RoundParameters | OneShotParameters, answer: UIntArray | VectorSource
) -> None:
    """Write a plain update where only its owner reads it, a chunk at a time."""
    path = folder / f"{parameters.round_id.hex()}.npy"
    if path.exists():
        raise DataError(f"{path}: exists")
    write_private(path, b"")
    chunk = np.empty(_CHUNK, lane_dtype(parameters.ring_bits))
    about = {"descr": chunk.dtype.str, "fortran_order": False, "shape": (parameters.vector_length,)}
    with path.open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, about)
        for first in range(0, parameters.vector_length, chunk.size):
            part = chunk[: min(chunk.size, parameters.vector_length - first)]
            if isinstance(answer, np.ndarray):
                part[:] = answer[first : first + part.size]
            else:
                answer.read(first, part)
            file.write(part.data)


class _Drill:
    """Stops at the phase that was asked for."""

    def __init__(self, hold: Hold | None, say: Say, run: Run) -> None:
        self._hold, self._run = hold, run
        self._say = say

    async def before_answer(self, phase: Phase, payload: bytes) -> None:
        if self._hold is None or phase is not self._hold.phase:
            return
        task = _task(self._run, payload)
        if task.kind is TaskKind.TRAIN and task.number == self._hold.number:
            self._say(f"holding before {phase.name.lower()} of {task.name}")
            await asyncio.Event().wait()
