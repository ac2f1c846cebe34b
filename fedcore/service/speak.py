"""A site that speaks once a round: it may vanish after every upload, and come back for the next."""

from __future__ import annotations

from fedcore.rounds.model import Model
from fedcore.service.join import JoinOptions, Part, Say
from secagg import ParameterError
from secagg.service import OneShotClient


async def speak(options: JoinOptions, say: Say, *, once: bool = False) -> Model | None:
    """Upload to rounds until the run is over; returns the final model, as the server says.

    once     end after one upload that was acknowledged, or was in vain; None is returned then
    raises   ParameterError: receipts, or a phase to hold in, which are of the pairwise protocol;
             ServiceError when the server cannot be reached or refuses us
    """
    for name in ("receipts", "hold"):
        if getattr(options, name) is not None:
            raise ParameterError(
                f"{name}: is of the pairwise protocol, here a site has gone before a round ends"
            )
    part = Part.of(options, say)
    client = OneShotClient(
        address=options.address,
        credentials=options.credentials,
        signer=options.signer,
        policy=options.run.oneshot_policy(),
        store=part.store,
        ledger=part.ledger,
        agreement=options.run.digest,
        on_refusal=part.refused,
        patience_s=options.patience_s,
        most_bytes=options.run.most_bytes,
    )

    async def upload() -> bytes | None:
        said = await client.contribute(part.compute)
        if said.finished:
            return said.payload
        if said.payload:
            part.consent.presumed(said.payload)
        name = part.name_of(said.payload) or "an upload of before"
        part.told(name, "uploaded" if said.acknowledged else said.reason)
        return None

    return await part.rounds(client, upload, once=once)
