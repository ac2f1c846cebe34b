"""Phase 1, client: check the roster as if the server had made it up, then share two secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from secagg.effects import AbortReason, Breach, RefusalReason
from secagg.errors import ParameterError
from secagg.kernels import map_in_threads
from secagg.messages import (
    Advertisement,
    Roster,
    Rows,
    SealedContribution,
    SealedShare,
    SharedKeys,
    column,
    joined,
    split,
)
from secagg.params import Identity, Policy, RoundParameters, Signer
from secagg.primitives.agreement import agree
from secagg.primitives.bounds import check_parameters
from secagg.primitives.hybrid import contribution, mask_secret, seal_contribution, sealing_key
from secagg.primitives.kem import CIPHERTEXT_BYTES
from secagg.primitives.masks import sealing_keys, seed_commitment, share_label
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
    unusable_key,
)


def check_roster(
    parameters: RoundParameters,
    roster: Roster,
    neighbors: Sequence[Advertisement],
    own: Advertisement,
    policy: Policy,
) -> RoundView:
    """Return the view of a roster that stands every check.

    raises  RemoteProtocolError to refuse it; RoundEnded when a neighbor's key is unusable
    """
    names = split(column(roster.entries, "identity", 32))
    included = dict(zip(names, split(column(roster.entries, "advertisement_digest", 32)), strict=True))
    if included.get(own.identity) != advertisement_digest(own):
        raise refuse(RefusalReason.NOT_INCLUDED, "Roster: our own advertisement is missing or changed")
    if len(names) < parameters.minimum_cohort:
        raise refuse(
            RefusalReason.POLICY,
            f"Roster: must have at least {parameters.minimum_cohort} clients, has {len(names)}",
            (Breach("Roster.entries", parameters.minimum_cohort, len(names)),),
        )
    if policy.known is not None and (strangers := {*map(Identity, names)} - policy.known):
        raise refuse(RefusalReason.UNKNOWN_IDENTITY, f"Roster: {listed(strangers)} not in our registry")
    view_parameters = roster.degree, roster.threshold
    try:
        view = RoundView.build(parameters, roster)
        check_parameters(len(names), view.graph_parameters, parameters.threat_model)
    except ParameterError as error:
        raise refuse(RefusalReason.WEAK_PARAMETERS, f"Roster {view_parameters}: {error}") from error
    _check_neighbors(view, included, neighbors, Identity(own.identity))
    return view


def _check_neighbors(
    view: RoundView, included: Mapping[bytes, bytes], neighbors: Sequence[Advertisement], me: Identity
) -> None:
    """Check that these are the neighbors of the graph, with the keys and signatures of the roster."""
    wanted = view.graph.neighbors_of(view.index[me])
    if [neighbor.identity for neighbor in neighbors] != [view.identities[i] for i in wanted]:
        raise refuse(RefusalReason.WRONG_NEIGHBORS, "RosterAnnouncement.neighbors: not those of the graph")
    digest = parameters_digest(view.parameters)
    for neighbor in neighbors:
        if advertisement_digest(neighbor) != included[neighbor.identity]:
            raise refuse(
                RefusalReason.WRONG_NEIGHBORS,
                f"Advertisement of {short(neighbor.identity)}: not the roster's",
            )
        if not verify(neighbor.identity, advertisement_text(digest, neighbor), neighbor.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, f"Advertisement of {short(neighbor.identity)}")
    for neighbor in neighbors:
        if unusable_key(view.parameters, neighbor) is not None:
            raise RoundEnded(
                AbortReason.BAD_NEIGHBOR_KEY,
                f"the server let an unusable key of {short(neighbor.identity)} pass",
            )


def share_keys(
    view: RoundView, neighbors: Sequence[Advertisement], secrets: Secrets, signer: Signer, threads: int
) -> tuple[SharedKeys, dict[Identity, bytearray]]:
    """Share the mask private key (hybrid: the root) and the self-mask seed among the neighbors, sealed.

    returns  also the keys that open what the neighbors seal for us: agreed upon once for both ways. Hybrid:
             the agreed secrets, to which those of their KEM ciphertexts are still to come
    """
    digest, me = view.roster_digest, signer.identity
    shares = share_pairs(
        secrets.mask,
        secrets.self_seed,
        share_seed=secrets.share_seed,
        roster_digest=digest,
        threshold=view.roster.threshold,
        holders=len(neighbors),
    )

    def keys(neighbor: Advertisement) -> _Keys:
        if view.hybrid:
            agreed = agree(secrets.agreement, neighbor.agreement_key)
            key, ciphertext = sealing_key(agreed, neighbor.share_kem_key, digest, me, neighbor.identity)
            return _Keys(key, agreed, ciphertext)
        return _Keys(*sealing_keys(secrets.agreement, neighbor.agreement_key, digest, me, neighbor.identity))

    agreed = map_in_threads(keys, neighbors, threads=threads)
    sealed = [
        seal(one.sealing, share, share_label(digest, me, neighbor.identity))
        for neighbor, share, one in zip(neighbors, shares, agreed, strict=True)
    ]
    rows = Rows.build(
        SealedShare,
        len(sealed),
        peer=joined([neighbor.identity for neighbor in neighbors], 32),
        ciphertext=joined(sealed, 96),
        kem=joined([one.kem for one in agreed], CIPHERTEXT_BYTES if view.hybrid else 0),
    )
    commitment = seed_commitment(digest, me, secrets.self_seed)
    contributions = _contributions(view, neighbors, secrets, me, threads) if view.hybrid else ()
    message = SharedKeys(rows, commitment, signer.sign(view.acceptance_text()), contributions)
    opening = {Identity(n.identity): bytearray(one.opening) for n, one in zip(neighbors, agreed, strict=True)}
    return message, opening


class _Keys(NamedTuple):
    """For one neighbor."""

    sealing: bytes
    opening: bytes
    kem: bytes = b""


def _contributions(
    view: RoundView, neighbors: Sequence[Advertisement], secrets: Secrets, me: Identity, threads: int
) -> Sequence[SealedContribution]:
    """Seal what our root adds to the seeds of the pairs in which our identity is the smaller one."""
    digest = view.roster_digest
    mask = mask_secret(secrets.mask, parameters_digest(view.parameters))
    larger = [neighbor for neighbor in neighbors if me < neighbor.identity]

    def sealed(neighbor: Advertisement) -> tuple[bytes, bytes]:
        value = contribution(secrets.mask, digest, me, neighbor.identity)
        theirs = neighbor.mask_key, neighbor.mask_kem_key
        return seal_contribution(value, mask, *theirs, digest, me, neighbor.identity)

    made = map_in_threads(sealed, larger, threads=threads)
    return [SealedContribution(neighbor.identity, *one) for neighbor, one in zip(larger, made, strict=True)]
