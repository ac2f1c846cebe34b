"""Phase 2, client: open the neighbors' shares, mask the vector with everybody in U1, upload it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from secagg.effects import AbortReason
from secagg.kernels import UIntArray, mask_apply, pack
from secagg.messages import Advertisement, MaskedInput, ShareDelivery
from secagg.params import Identity, Signer
from secagg.primitives.masks import mask_sign, pairwise_seed, sealing_key, share_label
from secagg.primitives.sealing import unseal
from secagg.primitives.shamir import in_field, share_words
from secagg.primitives.signatures import verify
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.round import RoundEnded, RoundView, short


def check_delivery(
    view: RoundView, delivery: ShareDelivery, neighbors: Mapping[Identity, Advertisement], me: Identity
) -> None:
    """Check U1 and that each neighbor in it dealt us a share and accepted our roster.

    raises  RemoteProtocolError for a malformed bitmap; RoundEnded otherwise
    """
    finished = view.members("ShareDelivery.finished", bytes(delivery.finished))
    if view.index[me] not in finished:
        raise RoundEnded(AbortReason.NOT_FINISHED, "we are not in U1")
    dealers = [identity for identity in neighbors if view.index[identity] in finished]
    if len(dealers) < view.roster.threshold:
        raise RoundEnded(
            AbortReason.TOO_FEW_NEIGHBORS,
            f"{len(dealers)} neighbors shared keys, the threshold is {view.roster.threshold}",
        )
    if [share.peer for share in delivery.shares] != dealers:
        raise RoundEnded(AbortReason.WRONG_SHARES, "not exactly one share per neighbor in U1")
    for share in delivery.shares:
        if not verify(share.peer, view.acceptance_text(), share.acceptance):
            raise RoundEnded(
                AbortReason.WRONG_SHARES, f"{short(share.peer)} did not accept the roster that we accepted"
            )


def open_shares(
    view: RoundView,
    delivery: ShareDelivery,
    neighbors: Mapping[Identity, Advertisement],
    agreement_secret: bytes,
    me: Identity,
) -> dict[Identity, bytes]:
    """Return the shares (80 bytes) that open and are in range; the others are complained about."""
    held = {}
    for share in delivery.shares:
        dealer = Identity(share.peer)
        key = sealing_key(agreement_secret, neighbors[dealer].agreement_key, view.roster_digest, dealer, me)
        plaintext = unseal(key, share.ciphertext, share_label(view.roster_digest, dealer, me))
        if plaintext is not None and in_field(share_words([plaintext])).all():
            held[dealer] = plaintext
    return held


def mask_vector(
    view: RoundView,
    vector: UIntArray,
    finished: frozenset[int],
    neighbors: Mapping[Identity, Advertisement],
    secrets: Secrets,
    me: Identity,
    threads: int,
) -> None:
    """Add the self mask and the pairwise masks of exactly the neighbors in U1, in place."""
    seeds, signs = [secrets.self_seed], [1]
    for identity, neighbor in neighbors.items():
        if view.index[identity] in finished:
            seeds.append(pairwise_seed(secrets.mask, neighbor.mask_key, view.roster_digest, me, identity))
            signs.append(mask_sign(me, identity))
    mask_apply(vector, b"".join(seeds), np.array(signs, np.int8), threads=threads)


def upload(
    view: RoundView, masked: UIntArray, finished: bytes, complaints: tuple[Identity, ...], signer: Signer
) -> MaskedInput:
    """Pack the masked vector and sign that it was masked for this U1."""
    packed = pack(masked, view.parameters.ring_bits)
    text = view.upload_text(finished, hashlib.sha256(packed).digest())
    return MaskedInput(memoryview(packed).toreadonly(), complaints, signer.sign(text))
