"""A site that speaks once a round: it may vanish after every upload, and come back for the next."""

from __future__ import annotations

import asyncio

from fedcore.errors import FedcoreError
from fedcore.rounds.consent import Consent
from fedcore.rounds.levers import drowned
from fedcore.rounds.model import Model
from fedcore.rounds.site import with_cause
from fedcore.service.join import JoinOptions, Say, Talk, compute_answer, final_model, task_of
from secagg import ParameterError
from secagg.service import OneShotClient, StreamError
from secagg.store import MemoryStore, ParticipationLedger

_REST_S = 1.0  # after a round that this site sat out
_FALSE_ENDS = 10  # running: a server that never has a model of this run is not asked for ever


async def speak(options: JoinOptions, say: Say, *, once: bool = False) -> Model | None:
    """Upload to rounds until the run is over; returns the final model, as the server says.

    once     end after one upload that was acknowledged, or was in vain; None is returned then
    raises   ServiceError when the server cannot be reached or refuses us
    """
    talk = Talk(say)
    say = talk.say
    store = MemoryStore() if options.store is None else options.store
    ledger = ParticipationLedger(store)
    consent = Consent(options.run, options.site, store, ledger)
    client = OneShotClient(
        address=options.address,
        credentials=options.credentials,
        signer=options.signer,
        policy=options.run.oneshot_policy(),
        store=store,
        ledger=ledger,
        agreement=options.run.digest,
        on_refusal=lambda text: say(f"refused: {text}"),
        patience_s=options.patience_s,
        most_bytes=options.run.most_bytes,
    )
    run = options.run
    say(f"agreed: {run.digest.hex()[:16]}, {len(run.members)} members, {len(run.decryptors)} decryptors")
    if not store.durable:
        say("WARNING: without --store, what this site uploaded is forgotten when it ends")
    if useless := drowned(run):
        say(f"WARNING: {useless}")
    if run.plan.privacy is None:
        say(
            "WARNING: no [privacy]: sums of different rounds are not held against each other: who sees two "
            "of nearly the same sites about nearly the same model learns about those in one of them"
        )
    waiting = asyncio.create_task(talk.waits(client))
    try:
        return await _uploads(client, consent, options, talk, once=once)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _uploads(
    client: OneShotClient, consent: Consent, options: JoinOptions, talk: Talk, *, once: bool
) -> Model | None:
    say, false_ends = talk.say, 0
    while True:
        try:
            said = await client.contribute(
                lambda payload, parameters: talk.busy(
                    lambda: compute_answer(options, consent, payload, parameters)
                )
            )
            if said.finished:
                false_ends += 1
                return final_model(options, said.payload)
            false_ends = 0
            name = task_of(options.run, said.payload).name if said.payload else "an upload of before"
            if said.payload:
                consent.presumed(said.payload)
            if options.site.trouble:  # nobody else hears of it
                say(f"{name}: sends zeros: {options.site.cause}")
            lost = f" ({'; '.join(options.site.notes)})" if options.site.notes else ""
            say(f"{name}: {'uploaded' if said.acknowledged else said.reason}{lost}")
            if once:
                return None
        except (FedcoreError, ParameterError) as error:
            if false_ends == _FALSE_ENDS:
                raise StreamError(
                    f"the server ended the run {false_ends} times without its model: {error}"
                ) from error
            say(f"sits this round out: {with_cause(str(error), error)}")
            await asyncio.sleep(_REST_S)
