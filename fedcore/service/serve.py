"""A training run as a service: rounds over gRPC, and a record of them in a folder."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from fedcore.privacy.accounting import BudgetExceededError
from fedcore.rounds.federation import Federation, refuse_other
from fedcore.rounds.levers import drowned
from fedcore.rounds.model import pack_model
from fedcore.rounds.state import RunState
from fedcore.service.oneshot_sums import OneShotSum
from fedcore.service.options import ServeOptions
from fedcore.service.recorder import CHECKPOINT, Recorder
from fedcore.service.sums import ServiceSum
from secagg import SecAggError, ThreatModel
from secagg.service import (
    AggregationServer,
    OneShotRun,
    OneShotSettings,
    Registry,
    RunSettings,
    ServedRun,
    Transcripts,
    accept_file,
)
from secagg.store import ParticipationLedger
from secagg.store.sql import Database

# Clients between two streams come back after half a second and hear then that the run is over.
_FAREWELL_S = 10.0
_SLOWEST_S = 600.0  # for a model over a slow line
_LOOK_S = 0.1
_REGISTRY_S = 1.0  # between two looks at its file
_KEPT_SUMS = 64  # of the groups and passes of a round, which a server that was killed in it asks for again


async def serve(options: ServeOptions) -> RunState:
    """Run a whole training run. Raises RoundAbortedError, ParameterError, CodecError."""
    recorder = Recorder(
        options.out,
        options.run,
        options.show,
        resume=options.resume,
        keep=options.keep,
        names=options.registry.names.values(),
    )
    store = Database("sqlite://") if options.database is None else options.database
    try:
        return await _serve(options, recorder, store)
    finally:
        recorder.close()
        if options.database is None:
            store.close()


async def _serve(options: ServeOptions, recorder: Recorder, store: Database) -> RunState:
    transcripts = None
    if options.signer is not None:
        folder = options.out / "transcripts"
        folder.mkdir(exist_ok=True)
        transcripts = Transcripts(folder=folder, signer=options.signer, keep_inputs=options.keep_inputs)
    ledger = ParticipationLedger(store)
    kept = options.out / CHECKPOINT
    resume = RunState.load(kept) if options.resume and kept.exists() else None
    if resume is not None:  # before anybody hears of it
        refuse_other(resume, options.run.stands_on(), options.run.plan)
    server = AggregationServer(
        address=options.address,
        credentials=options.credentials,
        authority=options.authority,
        database=store,
        spool=options.spool,
        auditor=options.signer,
    )
    await server.start()
    try:
        loop = asyncio.get_running_loop()
        if options.decryptors is not None and options.run.one_shot:
            settings = _oneshot_settings(options, options.decryptors, recorder, ledger, transcripts)
            speaking = await server.open_oneshot(settings)
            once = OneShotSum(served=speaking, **_shared(options, recorder, loop))
            return await _train(options, recorder, store, server, speaking, once, resume)
        served = await server.open(
            RunSettings(
                registry=options.registry,
                observer=recorder.on_event,
                transcripts=transcripts,
                ledger=ledger,
                agreement=options.run.digest,
                keep_sums=_KEPT_SUMS,
            )
        )
        sums = ServiceSum(
            served=served,
            gone=recorder.gone,
            subjects=options.run.subjects(store),
            ledger=ledger,
            **_shared(options, recorder, loop),
        )
        return await _train(options, recorder, store, server, served, sums, resume)
    finally:
        await server.stop()


def _shared(options: ServeOptions, recorder: Recorder, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """Return what sums of either protocol are made with."""
    return {
        "loop": loop,
        "options": options,
        "instance": recorder.instance,
        "on_task": recorder.on_task,
        "on_waiting": recorder.on_waiting,
        "on_warning": lambda text: recorder.write("warning", text=text),
    }


def _oneshot_settings(
    options: ServeOptions,
    decryptors: Registry,
    recorder: Recorder,
    ledger: ParticipationLedger,
    transcripts: Transcripts | None,
) -> OneShotSettings:
    security = options.run.security
    return OneShotSettings(
        registry=options.registry,
        decryptors=decryptors,
        edges=Registry({}) if options.edges is None else options.edges,
        threat_model=ThreatModel(corrupt=security.corrupt, dropout=security.dropout),
        minimum_candidates=security.minimum_decryptors,
        minimum_committee=security.minimum_decryptors,
        post_quantum=security.post_quantum,
        transcripts=transcripts,
        epoch_s=options.epoch_s,
        agreement=options.run.digest,
        observer=recorder.on_event,
        ledger=ledger,
        keep_sums=_KEPT_SUMS,
    )


async def _watch_registry(
    options: ServeOptions,
    store: Database,
    served: ServedRun | OneShotRun,
    recorder: Recorder,
    aggregator: ServiceSum | OneShotSum,
) -> None:
    """Let go of parties that the registry's file has no more; who is new there has a part in the next run."""
    path = options.registry_file
    if path is None:
        return
    seen: tuple[int, int] | None = None  # it may have changed since it was read
    while True:
        await asyncio.sleep(_REGISTRY_S)
        if (now := _changed(path)) == seen:
            continue
        seen = now
        try:
            found = await asyncio.to_thread(_accepted, path, store)
            names = {one: name for one, name in options.registry.names.items() if one in found.identities}
            gone = sorted(name for one, name in served.registry.names.items() if one not in names)
            await served.enrol(Registry(names))
            aggregator.leave_out(options.registry.identities - served.registry.identities)
        except SecAggError as error:
            recorder.write("warning", text=f"goes on with the registry of before: {error}")
            continue
        if gone:
            text = f"{', '.join(gone)}: not in {path} any more: no part in this run from now on"
            recorder.write("warning", text=text)


def _changed(path: Path) -> tuple[int, int]:
    """Return what tells a file from an earlier one; a file that is away for a moment from all others."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _accepted(path: Path, store: Database) -> Registry:
    if store.durable:
        accept_file(path, store)
    return Registry.load(path)


async def _train(
    options: ServeOptions,
    recorder: Recorder,
    store: Database,
    server: AggregationServer,
    served: ServedRun | OneShotRun,
    aggregator: ServiceSum | OneShotSum,
    resume: RunState | None,
) -> RunState:
    host = options.address.rsplit(":", 1)[0]
    listening = {"address": f"{host}:{server.port}", "pid": os.getpid()}
    recorder.write("listening", **listening, agreement=options.run.digest.hex(), durable=store.durable)
    if useless := drowned(options.run):
        recorder.write("warning", text=useless)
    if not store.durable:
        recorder.write("warning", text="without --store, what was summed is forgotten with this server")
    federation = Federation(
        aggregator,
        options.run.schema,
        options.run.learner,
        options.run.plan,
        options.run.strategy,
        on_round=recorder.on_round,
        on_checkpoint=recorder.on_checkpoint,
        every_sum=True,
        ready=aggregator.ready,
        known=aggregator.known,
        about=options.run.stands_on(),
        terms=options.run.terms,
    )
    watching = asyncio.create_task(_watch_registry(options, store, served, recorder, aggregator))
    try:
        try:
            model = await asyncio.to_thread(federation.run, resume)
        except BudgetExceededError as error:
            await _end_early(served, options, recorder, str(error))
            raise
        served.finish(_final(options, model))
        recorder.finish(model.number, model.stopped)
        await _farewell(served)
        await asyncio.to_thread(recorder.report)
        return model
    finally:
        aggregator.close()
        watching.cancel()


async def _end_early(
    server: ServedRun | OneShotRun, options: ServeOptions, recorder: Recorder, why: str
) -> None:
    """Hand out the model of the last round with a result: no later round of this run may be opened."""
    kept = options.out / CHECKPOINT
    if not kept.exists():
        return
    now = RunState.load(kept)
    server.finish(_final(options, now))
    recorder.finish(now.number, why)
    await _farewell(server)
    await asyncio.to_thread(recorder.report)


async def _farewell(server: ServedRun | OneShotRun) -> None:
    """Wait until everybody has heard that the run is over: not for ever, longer for who is being told."""
    told = asyncio.create_task(server.everybody_told())
    until = time.monotonic() + _FAREWELL_S
    slowest = until + _SLOWEST_S
    try:
        while not told.done() and time.monotonic() < (slowest if server.telling else until):
            await asyncio.wait({told}, timeout=_LOOK_S)
    finally:
        told.cancel()


def _final(options: ServeOptions, now: RunState) -> bytes:
    """Return the model as the payload that ends the run."""
    return pack_model(options.run.model_of(now, now.epsilon))
