"""A training run as a service: rounds over gRPC, and a record of them in a folder."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from fedcore.privacy.accounting import BudgetExceededError
from fedcore.rounds.federation import Federation, refuse_other
from fedcore.rounds.levers import drowned
from fedcore.rounds.model import pack_model
from fedcore.rounds.state import RunState
from fedcore.service.options import ServeOptions
from fedcore.service.recorder import CHECKPOINT, Recorder
from fedcore.service.sums import ServiceSum
from secagg.service import AggregationServer, Transcripts
from secagg.store import MemoryStore, ParticipationLedger

# Clients between two streams come back after half a second and hear then that the run is over.
_FAREWELL_S = 10.0


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
    kept = options.out / CHECKPOINT
    resume = RunState.load(kept) if options.resume and kept.exists() else None
    if resume is not None:  # before anybody hears of it
        refuse_other(resume, options.run.stands_on(), options.run.plan)
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
    if useless := drowned(options.run):
        recorder.write("warning", text=useless)
    if not store.durable:
        recorder.write("warning", text="without --store, what was summed is forgotten with this server")
    loop = asyncio.get_running_loop()
    aggregator = ServiceSum(
        server,
        loop,
        options,
        traffic=recorder.traffic,
        gone=recorder.gone,
        on_task=recorder.on_task,
        subjects=options.run.subjects(store),
        ledger=ledger,
        on_waiting=recorder.on_waiting,
        on_warning=lambda text: recorder.write("warning", text=text),
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
        ready=aggregator.ready,
        about=options.run.stands_on(),
        terms=options.run.terms,
    )
    try:
        try:
            model = await asyncio.to_thread(federation.run, resume)
        except BudgetExceededError as error:
            await _end_early(server, options, recorder, str(error))
            raise
        server.finish(_final(options, model))
        recorder.finish(model.number, model.stopped)
        await _farewell(server)
        await asyncio.to_thread(recorder.report)
        return model
    finally:
        aggregator.close()
        await server.stop()


async def _end_early(server: AggregationServer, options: ServeOptions, recorder: Recorder, why: str) -> None:
    """Hand out the model of the last round with a result: no later round of this run may be opened."""
    kept = options.out / CHECKPOINT
    if not kept.exists():
        return
    now = RunState.load(kept)
    server.finish(_final(options, now))
    recorder.finish(now.number, why)
    await _farewell(server)
    await asyncio.to_thread(recorder.report)


async def _farewell(server: AggregationServer) -> None:
    """Wait until everybody has heard that the run is over, but not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_S):
            await server.everybody_told()
    await asyncio.sleep(0.5)  # for the last streams to drain


def _final(options: ServeOptions, now: RunState) -> bytes:
    """Return the model as the payload that ends the run."""
    return pack_model(options.run.model_of(now, now.epsilon))
