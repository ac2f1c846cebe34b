"""Phase 4, client: answer once, one kind of share per neighbor, to a request that a quorum signed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from secagg.effects import RefusalReason
from secagg.messages import RevealedShare, UnmaskingRequest, UnmaskingResponse
from secagg.params import Identity
from secagg.primitives.signatures import verify
from secagg.protocol.client.consistency_check import check_survivors
from secagg.protocol.client.vault import ShareKind, Vault
from secagg.protocol.round import RoundView, refuse


@dataclass(frozen=True, slots=True)
class Demand:
    """The content of a valid request: S, by roster index, and the kind of share asked of each neighbor."""

    members: frozenset[int]
    survived: tuple[Identity, ...]  # their self-mask seeds
    dropped: tuple[Identity, ...]  # their mask keys


def check_request(
    view: RoundView,
    request: UnmaskingRequest,
    finished: frozenset[int],
    neighbors: Iterable[Identity],
    vault: Vault,
    me: Identity,
) -> Demand:
    """Return what may be revealed; nothing is, yet.

    vault   the opened shares; a neighbor without one was complained about
    raises  RemoteProtocolError when the request fails a check
    """
    survivors = bytes(request.survivors)
    members = check_survivors(view, "UnmaskingRequest", survivors, finished, view.index[me])
    if not view.active and not view.leaves_no_gap(members):
        raise refuse(
            RefusalReason.SURVIVOR_GAP, "UnmaskingRequest.survivors: so many are gone that the sum may split"
        )
    dealers = [identity for identity in neighbors if view.index[identity] in finished]
    present = {identity for identity in dealers if view.index[identity] in members}
    if not {proof.identity for proof in request.uploads} <= present:
        raise refuse(RefusalReason.WRONG_NEIGHBORS, "UnmaskingRequest.uploads: of others than neighbors in S")
    finished_bitmap = view.bitmap(finished)
    _check_quorum(view, request, finished_bitmap, survivors)
    proved = {
        Identity(proof.identity)
        for proof in request.uploads
        if verify(proof.identity, view.upload_text(finished_bitmap, proof.packed_digest), proof.signature)
    }
    return Demand(
        members,
        tuple(dealer for dealer in dealers if dealer in proved and dealer in vault),
        tuple(dealer for dealer in dealers if dealer not in present and dealer in vault),
    )


def answer(demand: Demand, vault: Vault) -> UnmaskingResponse:
    """Reveal shares: the self-mask seed of survivors, the mask key of dropouts. They leave the vault."""
    seeds = [(dealer, vault.release(dealer, ShareKind.SELF_SEED)) for dealer in demand.survived]
    keys = [(dealer, vault.release(dealer, ShareKind.MASK_KEY)) for dealer in demand.dropped]
    return UnmaskingResponse(
        tuple(RevealedShare(dealer, share) for dealer, share in seeds),
        tuple(RevealedShare(dealer, share) for dealer, share in keys),
    )


def _check_quorum(view: RoundView, request: UnmaskingRequest, finished: bytes, survivors: bytes) -> None:
    if not view.active:
        if request.signatures:
            raise refuse(RefusalReason.MALFORMED, "UnmaskingRequest.signatures: none in a passive round")
        return
    if request.signatures and request.signatures[-1].index >= view.clients:
        raise refuse(
            RefusalReason.MALFORMED,
            f"UnmaskingRequest.signatures: index must be below {view.clients}, "
            f"is {request.signatures[-1].index}",
        )
    text = view.survivors_text(finished, survivors)
    right = 0
    for signature in request.signatures:
        right += verify(view.identities[signature.index], text, signature.signature)
    if right < view.quorum:
        raise refuse(
            RefusalReason.NO_QUORUM,
            f"UnmaskingRequest.signatures: {right} are right, {view.quorum} are needed",
        )
