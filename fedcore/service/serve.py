"""A training run as a service: rounds over gRPC, and a record of them in a folder."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fedcore.data.schema import Schema
from fedcore.history import History
from fedcore.privacy.accounting import BudgetExceededError
from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.consent import Run
from fedcore.rounds.federation import Federation
from fedcore.rounds.model import SUFFIX, Model, pack_model, save_model
from fedcore.rounds.questions import Train
from fedcore.rounds.state import RunState
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.task import Task
from secagg import (
    Identity,
    ParameterError,
    RoundAbortedError,
    RoundParameters,
    Signer,
    ThreatModel,
    choose_parameters,
)
from secagg.service import (
    AggregationServer,
    Deadlines,
    Event,
    LedgerNoted,
    MessageRefused,
    PhaseDone,
    Registry,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    ServerCredentials,
    TranscriptFailed,
    Transcripts,
    TranscriptSealed,
    UploadTaken,
    round_context,
)
from secagg.store import ConcernKind, LedgerError, MemoryStore, ParticipationLedger, Store, floor_for

# Clients between two streams come back after half a second and hear then that the run is over.
_FAREWELL_S = 10.0
CHECKPOINT = "checkpoint.safetensors"


Show: TypeAlias = Callable[[dict[str, Any]], None]


def _show_nothing(_event: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What a server is started with.

    start_s  how long the first round waits for clients that are still starting
    show     gets every event of the history as it is written
    signer   the server's own identity: it signs a transcript of every round, in out/transcripts
    keep_inputs  with the masked vectors in it
    run      what all parties agreed on
    store    keeps who was summed with whom; None: in memory
    resume    a run's folder is gone on with from its checkpoint instead of being refused
    """

    address: str
    credentials: ServerCredentials = field(repr=False)
    registry: Registry
    run: Run
    out: Path
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    minimum_cohort: int
    minimum_survivors: int = 3
    start_s: float = 60.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    show: Show = _show_nothing
    signer: Signer | None = None
    keep_inputs: bool = False
    resume: bool = False
    store: Store | None = None

    def __post_init__(self) -> None:
        """Refuse before anybody waits what every round would refuse."""
        model, privacy = self.threat_model, self.run.plan.privacy
        if privacy is not None and self.minimum_survivors < privacy.smallest:
            raise ParameterError(
                f"minimum_survivors: must be at least privacy.smallest, {privacy.smallest}, "
                f"is {self.minimum_survivors}"
            )
        enrolled = len(self.registry.identities)
        if self.minimum_cohort > enrolled:
            raise ParameterError(
                f"minimum_cohort: must be at most the {enrolled} enrolled, is {self.minimum_cohort}"
            )
        replace(self.deadlines, advertise_s=self.start_s)
        self.parameters(vector_length=1, ring_bits=1, context=bytes(32))
        choose_parameters(
            clients=self.minimum_cohort,
            corrupt=model.corrupt,
            dropout=model.dropout,
            adversary=model.adversary,
            security_bits=model.security_bits,
            correctness_bits=model.correctness_bits,
            grinding_bits=model.grinding_bits,
        )

    def parameters(self, *, vector_length: int, ring_bits: int, context: bytes) -> RoundParameters:
        """Return the parameters of a new round."""
        return RoundParameters(
            round_id=os.urandom(16),
            vector_length=vector_length,
            ring_bits=ring_bits,
            context=context,
            threat_model=self.threat_model,
            minimum_cohort=self.minimum_cohort,
            minimum_survivors=self.minimum_survivors,
        )


@dataclass(slots=True)
class ServiceSum:
    """A SumAggregator whose sites are clients of an aggregation server. Called outside its event loop."""

    server: AggregationServer
    loop: asyncio.AbstractEventLoop
    options: ServeOptions
    traffic: dict[bytes, tuple[int, int]]
    on_task: Callable[[Task, bytes], None]
    subjects: Subjects
    ledger: ParticipationLedger
    _started: bool = False
    _guilty: set[Identity] = field(default_factory=set)  # left out from then on

    @property
    def names(self) -> Sequence[str]:
        registry = self.options.registry
        return sorted(registry.name_of(identity) for identity in registry.identities)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round, with everybody or some. Raises RoundAbortedError, SpoiledSumError."""
        registry = self.options.registry
        left_out = {
            identity
            for identity in registry.identities
            if among is not None and registry.name_of(identity) not in among
        }
        options, payload = self.options, task.encode()
        if among is not None and len(among) < options.minimum_cohort:
            options = replace(options, minimum_cohort=len(among))
        encoding = task.encoding
        subject = None if encoding.noise is not None else self.subjects.of(task)
        absent = self._guilty | left_out
        if subject is not None:
            absent |= self._not_allowed(subject, registry.identities - absent, task)
        parameters = options.parameters(
            vector_length=encoding.length,
            ring_bits=encoding.codec.ring_bits,
            context=round_context(payload, options.run.digest),
        )
        deadlines = options.deadlines
        if not self._started:  # everybody is still starting: wait for all
            self._started = True
            deadlines = replace(deadlines, advertise_s=options.start_s, advertise_grace_s=None)
        self.on_task(task, parameters.round_id)
        future = asyncio.run_coroutine_threadsafe(
            self.server.run_round(parameters, payload, deadlines, excluded=absent, subject=subject), self.loop
        )
        try:
            result = future.result()
        except RoundAbortedError as error:
            self._guilty.update(map(Identity, error.guilty))
            raise
        except LedgerError as error:
            raise RoundAbortedError(error.concerns[0].kind, str(error)) from error
        self._guilty.update(blame.client for blame in result.blamed if blame.guilty)
        names = sorted(options.registry.name_of(identity) for identity in result.survivors)
        up, down = self.traffic.get(parameters.round_id, (0, 0))
        return GroupSum.decoded(
            task, result.total, names, bytes_up=up, bytes_down=down, round_id=parameters.round_id
        )

    def deal(self, members: Sequence[str], groups: int) -> list[tuple[str, ...]]:
        """Deal nothing: the members' ledgers sign one set."""
        return []

    def _not_allowed(
        self, subject: bytes, candidates: frozenset[Identity], task: Task
    ) -> frozenset[Identity]:
        """Return who must not be asked beside the earlier sums of a subject: their ledgers would refuse.

        raises  RoundAbortedError: the members of the earlier sum must be waited for
        """
        options = self.options
        floor = floor_for(options.threat_model, len(candidates))
        advice = self.ledger.advice(subject, candidates, floor=min(floor, len(candidates)))
        if advice.wait:
            raise RoundAbortedError(
                ConcernKind.DIFFERENCING,
                f"{task.name}: {advice.sentence(lambda client: options.registry.name_of(Identity(client)))}",
            )
        return candidates - advice.members


class Recorder:
    """Writes the run's record: history.jsonl, sums/<round>.npy, models/<number>.safetensors."""

    def __init__(
        self, out: Path, schema: Schema, show: Show = _show_nothing, *, resume: bool = False
    ) -> None:
        past = out / "history.jsonl"
        if not resume and past.exists() and past.stat().st_size:  # empty: the server never listened
            raise ParameterError(f"out: {out} already holds a run; --resume goes on with it")
        self._out, self._schema = out, schema
        self._show = show
        for name in ("sums", "models"):
            (out / name).mkdir(parents=True, exist_ok=True)
        self._history = History(out / "history.jsonl")
        self._task = ""
        self._round_id = b""
        self._began = time.monotonic()
        self.traffic: dict[bytes, tuple[int, int]] = {}

    def write(self, event: str, **fields: object) -> None:
        """Append an event."""
        self._history.write(event, **fields)
        self._show({"event": event, **fields})

    def on_task(self, task: Task, round_id: bytes) -> None:
        """Begin a round."""
        self._task, self._round_id, self._began = task.name, round_id, time.monotonic()

    def on_event(self, event: Event) -> None:
        """Record a public fact of the service."""
        fields: dict[str, Any] = {"task": self._task, "round_id": event.round_id.hex()}
        match event:
            case RoundOpened(vector_length=length, ring_bits=bits):
                self.write("round_opened", **fields, vector_length=length, ring_bits=bits)
            case PhaseDone() as done:
                up, down = self.traffic.get(event.round_id, (0, 0))
                self.traffic[event.round_id] = (up + done.bytes_up, down + done.bytes_down)
                self.write(
                    "phase",
                    **fields,
                    phase=done.phase.name.lower(),
                    answered=done.answered,
                    expected=done.expected,
                    dropped=done.dropped,
                    bytes_up=done.bytes_up,
                    bytes_down=done.bytes_down,
                    milliseconds=round(1000 * done.seconds, 1),
                )
            case UploadTaken(client=client, first=first):
                self.write("upload", **fields, client=client, first=first)
            case MessageRefused(client=client, reason=reason, detail=detail):
                self.write("refused", **fields, client=client, reason=reason, detail=detail)
            case RoundCompleted(survivors=survivors, suspects=suspects):
                self.write("completed", **fields, survivors=survivors, suspects=suspects)
            case RoundFailed(reason=reason, detail=detail, suspects=suspects):
                self.write("failed", **fields, reason=reason, detail=detail, suspects=suspects)
            case LedgerNoted(concern=concern, detail=detail, clients=clients):
                self.write("ledger", **fields, concern=concern, detail=detail, clients=clients)
            case TranscriptSealed(file=file, address=address):
                self.write("transcript", **fields, file=file, address=address.hex())
            case TranscriptFailed(reason=reason):
                self.write("transcript_failed", **fields, reason=reason)

    def on_round(self, record: RoundRecord) -> None:
        """Keep the sum and the model after it."""
        task, result = record.task, record.result
        fields: dict[str, Any] = {"task": task.name, "kind": str(task.kind), "number": task.number}
        round_id = self._round_id if result is None else result.round_id
        fields |= {"round_id": round_id.hex(), "seconds": round(time.monotonic() - self._began, 3)}
        if result is None:
            self.write("round", **fields, completed=False, reason=record.reason)
            return
        np.save(self._out / "sums" / f"{round_id.hex()}.npy", result.total)
        if isinstance(task.question, Train):
            standardizer = task.question.standardizer
            model = Model.of(self._schema, record.parameters, standardizer, task.number)
            save_model(self._out / "models" / f"{task.number:03d}{SUFFIX}", model)
        self.write(
            "round",
            **fields,
            completed=True,
            survivors=result.survivors,
            weight=record.weight,
            ring_bits=task.encoding.codec.ring_bits,
            vector_length=task.encoding.length,
            bytes_up=result.bytes_up,
            bytes_down=result.bytes_down,
            **{
                name: value
                for name, value in (
                    ("epsilon", record.epsilon),
                    ("norm", record.norm),
                    ("within", record.within),
                )
                if value is not None
            },
        )

    def on_checkpoint(self, state: RunState) -> None:
        """Keep what a later run needs to go on."""
        state.save(self._out / CHECKPOINT)

    def close(self) -> None:
        """Close the history."""
        self._history.close()


async def serve(options: ServeOptions) -> RunState:
    """Run a whole training run. Raises RoundAbortedError, ParameterError, CodecError."""
    recorder = Recorder(options.out, options.run.schema, options.show, resume=options.resume)
    try:
        return await _serve(options, recorder)
    finally:
        recorder.close()


async def _serve(options: ServeOptions, recorder: Recorder) -> RunState:
    transcripts = None
    if options.signer is not None:
        folder = options.out / "transcripts"
        folder.mkdir(exist_ok=options.resume)
        transcripts = Transcripts(folder=folder, signer=options.signer, keep_inputs=options.keep_inputs)
    store = MemoryStore() if options.store is None else options.store
    ledger = ParticipationLedger(store)
    server = AggregationServer(
        address=options.address,
        credentials=options.credentials,
        registry=options.registry,
        observer=recorder.on_event,
        transcripts=transcripts,
        store=store,
        ledger=ledger,
        agreement=options.run.digest,
    )
    await server.start()
    host = options.address.rsplit(":", 1)[0]
    listening = {"address": f"{host}:{server.port}", "pid": os.getpid()}
    recorder.write("listening", **listening, agreement=options.run.digest.hex(), durable=store.durable)
    loop = asyncio.get_running_loop()
    aggregator = ServiceSum(
        server, loop, options, recorder.traffic, recorder.on_task, options.run.subjects(store), ledger
    )
    federation = Federation(
        aggregator,
        options.run.schema,
        options.run.learner,
        options.run.plan,
        options.run.strategy,
        on_round=recorder.on_round,
        on_checkpoint=recorder.on_checkpoint,
        every_sum=True,
        terms=options.run.terms,
    )
    kept = options.out / CHECKPOINT
    resume = RunState.load(kept) if options.resume and kept.exists() else None
    try:
        try:
            model = await asyncio.to_thread(federation.run, resume)
        except BudgetExceededError as error:
            await _end_early(server, options, recorder, str(error))
            raise
        server.finish(_final(options, model))
        recorder.write("finished", rounds=options.run.plan.rounds)
        await _farewell(server)
        return model
    finally:
        await server.stop()


async def _end_early(server: AggregationServer, options: ServeOptions, recorder: Recorder, why: str) -> None:
    """Hand out the model of the last round with a result: no later round of this run may be opened."""
    kept = options.out / CHECKPOINT
    if not kept.exists():
        return
    now = RunState.load(kept)
    server.finish(_final(options, now))
    recorder.write("finished", rounds=now.number, reason=why)
    await _farewell(server)


async def _farewell(server: AggregationServer) -> None:
    """Wait until everybody has heard that the run is over, but not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await server.everybody_told()
    await asyncio.sleep(0.5)  # for the last streams to drain


def _final(options: ServeOptions, now: RunState) -> bytes:
    """Return the model as the payload that ends the run."""
    return pack_model(Model.of(options.run.schema, now.parameters, now.standardizer, now.number))
