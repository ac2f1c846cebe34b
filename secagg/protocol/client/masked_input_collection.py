"""Phase 2, client: open the neighbors' shares, mask the vector with everybody in U1, upload it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from secagg.effects import AbortReason
from secagg.errors import ParameterError
from secagg.kernels import UIntArray, VectorSource, check_entries, map_in_threads, pack_masked
from secagg.messages import Advertisement, MaskedInput, SealedContribution, ShareDelivery
from secagg.params import Identity, Secret, Signer
from secagg.primitives.hybrid import contribution, mask_secret, open_contribution, opening_key
from secagg.primitives.kem import KemSecret
from secagg.primitives.masks import mask_sign, pairwise_seed, share_label
from secagg.primitives.sealing import unseal
from secagg.primitives.shamir import LIMBS, in_field, share_words
from secagg.primitives.signatures import verify
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.round import RoundEnded, RoundView, parameters_digest, short


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
    senders = [dealer for dealer in dealers if dealer < me] if view.hybrid else []
    if [one.peer for one in delivery.contributions] != senders:
        raise RoundEnded(AbortReason.WRONG_SHARES, "not exactly the contributions of smaller neighbors in U1")
    if any(bool(share.kem) != view.hybrid for share in delivery.shares):
        raise RoundEnded(
            AbortReason.WRONG_SHARES, f"shares are not sealed as suite {view.parameters.suite} does"
        )
    for share in delivery.shares:
        if not verify(share.peer, view.acceptance_text(), share.acceptance):
            raise RoundEnded(
                AbortReason.WRONG_SHARES, f"{short(share.peer)} did not accept the roster that we accepted"
            )


def open_shares(
    view: RoundView,
    delivery: ShareDelivery,
    opening: Mapping[Identity, Secret],
    me: Identity,
    kem: KemSecret | None = None,
) -> dict[Identity, bytes]:
    """Return the shares (80 bytes) that open and are in range; the others are complained about.

    opening  keys by dealer; hybrid: the agreed secrets
    kem      hybrid: what opens the KEM ciphertexts
    """
    opened = {}
    for share in delivery.shares:
        dealer = Identity(share.peer)
        key = opening[dealer]
        if kem is not None:
            key = opening_key(key, kem, share.kem, view.roster_digest, dealer, me)
        plaintext = unseal(key, share.ciphertext, share_label(view.roster_digest, dealer, me))
        if plaintext is not None:
            opened[dealer] = plaintext
    pairs = share_words(list(opened.values())).reshape(len(opened), 2 * LIMBS)
    return {
        dealer: plaintext
        for (dealer, plaintext), right in zip(opened.items(), in_field(pairs), strict=True)
        if right
    }


def open_contributions(
    view: RoundView,
    delivery: ShareDelivery,
    neighbors: Mapping[Identity, Advertisement],
    secrets: Secrets,
    me: Identity,
) -> tuple[dict[Identity, bytearray], tuple[SealedContribution, ...]]:
    """Return what smaller neighbors add to the seeds of the pairs, and what of it does not open."""
    if not delivery.contributions:
        return {}, ()
    keys = secrets.mask_keys(view.parameters)
    opened: dict[Identity, bytearray] = {}
    unopened: list[SealedContribution] = []
    for one in delivery.contributions:
        sender = Identity(one.peer)
        mask_key = neighbors[sender].mask_key
        value = open_contribution(keys, mask_key, one.kem, one.ciphertext, view.roster_digest, sender, me)
        if value is None:
            unopened.append(one)
        else:
            opened[sender] = bytearray(value)
    return opened, tuple(unopened)


def departure(
    view: RoundView, finished: frozenset[int], unopened: tuple[SealedContribution, ...], signer: Signer
) -> MaskedInput:
    """Say why we leave: no mask that we share with these would cancel."""
    text = view.departure_text(view.bitmap(finished), unopened)
    return MaskedInput(b"", (), signer.sign(text), tuple(one.peer for one in unopened))


class ArraySource:
    """A vector in memory as a VectorSource; it checks only what a cast would hide from the reader."""

    def __init__(self, array: UIntArray, ring_bits: int) -> None:
        self.array = array
        self._ring_bits = ring_bits

    @property
    def length(self) -> int:
        """Entries."""
        return self.array.size

    def read(self, first: int, out: UIntArray) -> None:
        """Copy entries first .. first + out.size - 1. Raises ParameterError for one out of the ring."""
        chunk = self.array[first : first + out.size]
        if chunk.dtype != out.dtype:
            check_entries(chunk, self._ring_bits, first)
        np.copyto(out, chunk, casting="unsafe")


def checked_source(vector: UIntArray | VectorSource, length: int, ring_bits: int) -> VectorSource:
    """Check type and shape; the entries are checked as they are read. Raises ParameterError."""
    if hasattr(vector, "read") and hasattr(vector, "length"):
        source = cast("VectorSource", vector)
        if source.length != length:
            raise ParameterError(f"vector: must have {length} entries, has {source.length}")
        return source
    array: NDArray[np.integer[Any]] = np.asarray(vector)
    if array.dtype.kind not in "ui":
        raise ParameterError(f"vector: must be of integers, is of {array.dtype}")
    if array.shape != (length,):
        raise ParameterError(f"vector: must have shape ({length},), has {array.shape}")
    return ArraySource(cast("UIntArray", array), ring_bits)


def upload(
    view: RoundView,
    source: VectorSource,
    finished: frozenset[int],
    complaints: tuple[Identity, ...],
    neighbors: Mapping[Identity, Advertisement],
    secrets: Secrets,
    contributions: Mapping[Identity, Secret],
    signer: Signer,
    threads: int,
) -> MaskedInput:
    """Add the self mask and the pairwise masks of exactly the neighbors in U1, pack, sign for this U1.

    contributions  hybrid: of the smaller neighbors; ours follow from the root
    """
    me, digest = signer.identity, view.roster_digest
    mask: Secret = secrets.mask
    if view.hybrid:
        mask = mask_secret(mask, parameters_digest(view.parameters))
    present = [neighbor for identity, neighbor in neighbors.items() if view.index[identity] in finished]

    def seed(neighbor: Advertisement) -> bytes:
        other = Identity(neighbor.identity)
        added: Secret = b""
        if view.hybrid:
            added = contributions[other] if other < me else contribution(secrets.mask, digest, me, other)
        return pairwise_seed(mask, neighbor.mask_key, digest, me, other, added)

    seeds = [bytes(secrets.self_seed), *map_in_threads(seed, present, threads=threads)]
    signs = [1, *(mask_sign(me, neighbor.identity) for neighbor in present)]
    packed = pack_masked(
        source, b"".join(seeds), np.array(signs, np.int8), view.parameters.ring_bits, threads=threads
    )
    text = view.upload_text(view.bitmap(finished), hashlib.sha256(packed).digest())
    return MaskedInput(memoryview(packed).toreadonly(), complaints, signer.sign(text))
