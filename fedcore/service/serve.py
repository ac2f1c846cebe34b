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
from fedcore.learner import Learner
from fedcore.privacy.accounting import BudgetExceededError
from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.federation import Federation
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.strategies import FedAvg, Strategy
from secagg import (
    Identity,
    ParameterError,
    RoundAbortedError,
    RoundParameters,
    Signer,
    ThreatModel,
    choose_parameters,
    context_digest,
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
)

# Clients between two streams come back after half a second and hear then that the run is over.
_FAREWELL_S = 10.0
CHECKPOINT = "checkpoint.npz"


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
    strategy  what sites are asked for, and the server's step
    resume    a run's folder is gone on with from its checkpoint.npz instead of being refused
    """

    address: str
    credentials: ServerCredentials = field(repr=False)
    registry: Registry
    schema: Schema
    learner: Learner[Any]
    plan: TrainingPlan
    out: Path
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    minimum_cohort: int
    minimum_survivors: int = 3
    start_s: float = 60.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    show: Show = _show_nothing
    signer: Signer | None = None
    keep_inputs: bool = False
    strategy: Strategy = field(default_factory=FedAvg)
    resume: bool = False

    def __post_init__(self) -> None:
        """Refuse before anybody waits what every round would refuse."""
        model, privacy = self.threat_model, self.plan.privacy
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
    _started: bool = False
    _guilty: set[Identity] = field(default_factory=set)  # left out from then on

    @property
    def names(self) -> Sequence[str]:
        registry = self.options.registry
        return sorted(registry.name_of(identity) for identity in registry.identities)

    def sum(self, task: Task, among: Sequence[str] | None = None) -> GroupSum:
        """Run one round about this task, with everybody or some. Raises RoundAbortedError."""
        registry = self.options.registry
        left_out = {
            identity
            for identity in registry.identities
            if among is not None and registry.name_of(identity) not in among
        }
        options, payload = self.options, task.encode()
        if among is not None and len(among) < options.minimum_cohort:
            options = replace(options, minimum_cohort=len(among))
        parameters = options.parameters(
            vector_length=task.length,
            ring_bits=task.codec.ring_bits,
            context=context_digest(payload),
        )
        deadlines = options.deadlines
        if not self._started:  # everybody is still starting: wait for all
            self._started = True
            deadlines = replace(deadlines, advertise_s=options.start_s, advertise_grace_s=None)
        self.on_task(task, parameters.round_id)
        future = asyncio.run_coroutine_threadsafe(
            self.server.run_round(parameters, payload, deadlines, excluded=self._guilty | left_out), self.loop
        )
        try:
            result = future.result()
        except RoundAbortedError as error:
            self._guilty.update(map(Identity, error.guilty))
            raise
        self._guilty.update(blame.client for blame in result.blamed if blame.guilty)
        names = sorted(options.registry.name_of(identity) for identity in result.survivors)
        up, down = self.traffic.get(parameters.round_id, (0, 0))
        return GroupSum(result.total, tuple(names), up, down, round_id=parameters.round_id)


class Recorder:
    """Writes the run's record: history.jsonl, sums/<round>.npy, models/<task>.npz."""

    def __init__(self, out: Path, show: Show = _show_nothing, *, resume: bool = False) -> None:
        past = out / "history.jsonl"
        if not resume and past.exists() and past.stat().st_size:  # empty: the server never listened
            raise ParameterError(f"out: {out} already holds a run; --resume goes on with it")
        self._out = out
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
        if task.kind is TaskKind.TRAIN:
            save_model(self._out / "models" / f"{task.number:03d}.npz", record)
        self.write(
            "round",
            **fields,
            completed=True,
            survivors=result.survivors,
            weight=record.weight,
            ring_bits=task.codec.ring_bits,
            vector_length=task.length,
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

    def on_checkpoint(self, checkpoint: RunState) -> None:
        """Keep what a later run needs to go on."""
        checkpoint.save(self._out / CHECKPOINT)

    def close(self) -> None:
        """Close the history."""
        self._history.close()


def save_model(path: Path, record: RoundRecord) -> None:
    """Write the parameters after a round, with the standardization they expect."""
    arrays: dict[str, Any] = {f"model.{name}": array for name, array in record.parameters.items()}
    arrays |= {name: record.task.arrays[name] for name in ("mean", "deviation") if name in record.task.arrays}
    np.savez(path, **arrays)


async def serve(options: ServeOptions) -> RunState:
    """Run a whole training run. Raises RoundAbortedError, ParameterError, CodecError."""
    recorder = Recorder(options.out, options.show, resume=options.resume)
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
    server = AggregationServer(
        address=options.address,
        credentials=options.credentials,
        registry=options.registry,
        observer=recorder.on_event,
        transcripts=transcripts,
    )
    await server.start()
    host = options.address.rsplit(":", 1)[0]
    recorder.write("listening", address=f"{host}:{server.port}", pid=os.getpid())
    loop = asyncio.get_running_loop()
    aggregator = ServiceSum(server, loop, options, recorder.traffic, recorder.on_task)
    federation = Federation(
        aggregator,
        options.schema,
        options.learner,
        options.plan,
        options.strategy,
        on_round=recorder.on_round,
        on_checkpoint=recorder.on_checkpoint,
    )
    kept = options.out / CHECKPOINT
    resume = RunState.load(kept) if options.resume and kept.exists() else None
    try:
        try:
            model = await asyncio.to_thread(federation.run, resume)
        except BudgetExceededError as error:
            await _end_early(server, options, recorder, str(error))
            raise
        server.finish(_final(options, model).encode())
        recorder.write("finished", rounds=options.plan.rounds)
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
    model = RunState(now.parameters, now.standardizer, now.weight, now.number)
    server.finish(_final(options, model).encode())
    recorder.write("finished", rounds=now.number, reason=why)
    await _farewell(server)


async def _farewell(server: AggregationServer) -> None:
    """Wait until everybody has heard that the run is over, but not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await server.everybody_told()
    await asyncio.sleep(0.5)  # for the last streams to drain


def _final(options: ServeOptions, model: RunState) -> Task:
    """Return the model as the payload that ends the run."""
    arrays = {}
    if model.standardizer.mean.size:
        arrays = {"mean": model.standardizer.mean, "deviation": model.standardizer.deviation}
    arrays |= {f"model.{name}": array for name, array in model.parameters.items()}
    return Task(
        kind=TaskKind.TRAIN,
        number=options.plan.rounds + 1,
        dimension=sum(array.size for array in model.parameters.values()),
        codec=options.plan.codec(TaskKind.TRAIN),
        columns=tuple((column.name, column.low, column.high) for column in options.schema.columns),
        classes=options.schema.classes,
        arrays=arrays,
    )
