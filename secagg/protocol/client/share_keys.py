"""Phase 1, client: check the roster as if the server had made it up, then share two secrets."""

from __future__ import annotations

from secagg.effects import AbortReason, RefusalReason
from secagg.errors import ParameterError
from secagg.messages import Advertisement, RosterAnnouncement, SealedShare, SharedKeys
from secagg.params import Identity, Policy, RoundParameters, Signer
from secagg.primitives.agreement import is_usable
from secagg.primitives.bounds import check_parameters
from secagg.primitives.masks import sealing_key, seed_commitment, share_label
from secagg.primitives.sealing import seal
from secagg.primitives.shamir import share_pairs
from secagg.primitives.signatures import verify
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.round import (
    RoundEnded,
    RoundView,
    advertisement_digest,
    advertisement_text,
    listed,
    parameters_digest,
    refuse,
    short,
)


def check_roster(
    parameters: RoundParameters, announcement: RosterAnnouncement, own: Advertisement, policy: Policy
) -> RoundView:
    """Return the view of a roster that stands every check.

    raises  RemoteProtocolError to refuse it; RoundEnded when a neighbor's key is unusable
    """
    roster = announcement.roster
    entries = {Identity(entry.identity): entry.advertisement_digest for entry in roster.entries}
    if entries.get(Identity(own.identity)) != advertisement_digest(own):
        raise refuse(RefusalReason.NOT_INCLUDED, "Roster: our own advertisement is missing or changed")
    if len(entries) < parameters.minimum_cohort:
        raise refuse(
            RefusalReason.POLICY,
            f"Roster: must have at least {parameters.minimum_cohort} clients, has {len(entries)}",
        )
    if policy.known is not None and (strangers := entries.keys() - policy.known):
        raise refuse(RefusalReason.UNKNOWN_IDENTITY, f"Roster: {listed(strangers)} not in our registry")
    view_parameters = roster.degree, roster.threshold
    try:
        view = RoundView.build(parameters, roster)
        check_parameters(len(entries), view.graph_parameters, parameters.threat_model)
    except ParameterError as error:
        raise refuse(RefusalReason.WEAK_PARAMETERS, f"Roster {view_parameters}: {error}") from error
    _check_neighbors(view, announcement.neighbors, Identity(own.identity))
    return view


def _check_neighbors(view: RoundView, neighbors: tuple[Advertisement, ...], me: Identity) -> None:
    """Check that these are the neighbors of the graph, with the keys and signatures of the roster."""
    wanted = view.graph.neighbors_of(view.index[me])
    if [neighbor.identity for neighbor in neighbors] != [view.identities[i] for i in wanted]:
        raise refuse(RefusalReason.WRONG_NEIGHBORS, "RosterAnnouncement.neighbors: not those of the graph")
    digest = parameters_digest(view.parameters)
    for i, neighbor in zip(wanted, neighbors, strict=True):
        if advertisement_digest(neighbor) != view.roster.entries[i].advertisement_digest:
            raise refuse(
                RefusalReason.WRONG_NEIGHBORS,
                f"Advertisement of {short(neighbor.identity)}: not the roster's",
            )
        if not verify(neighbor.identity, advertisement_text(digest, neighbor), neighbor.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, f"Advertisement of {short(neighbor.identity)}")
    for neighbor in neighbors:
        if not (is_usable(neighbor.agreement_key) and is_usable(neighbor.mask_key)):
            raise RoundEnded(
                AbortReason.BAD_NEIGHBOR_KEY,
                f"the server let an unusable key of {short(neighbor.identity)} pass",
            )


def share_keys(
    view: RoundView, neighbors: tuple[Advertisement, ...], secrets: Secrets, signer: Signer
) -> SharedKeys:
    """Share the mask private key and the self-mask seed among the neighbors, sealed for each."""
    digest, me = view.roster_digest, signer.identity
    shares = share_pairs(
        secrets.mask,
        secrets.self_seed,
        share_seed=secrets.share_seed,
        roster_digest=digest,
        threshold=view.roster.threshold,
        holders=len(neighbors),
    )
    sealed = []
    for neighbor, share in zip(neighbors, shares, strict=True):
        key = sealing_key(secrets.agreement, neighbor.agreement_key, digest, me, neighbor.identity)
        ciphertext = seal(key, share, share_label(digest, me, neighbor.identity))
        sealed.append(SealedShare(neighbor.identity, ciphertext, b""))
    return SharedKeys(
        tuple(sealed), seed_commitment(digest, me, secrets.self_seed), signer.sign(view.acceptance_text())
    )
