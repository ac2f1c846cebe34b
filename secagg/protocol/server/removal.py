"""Remove the masks from the sum: self masks of survivors, pairwise masks shared with dropouts."""

from __future__ import annotations

import numpy as np

from secagg.kernels import UIntArray, map_in_threads, mask_apply, ring_mask
from secagg.primitives.masks import pairwise_seed
from secagg.protocol.server.masked import Masked, Pair
from secagg.protocol.server.recovery import Recovered


def remove_masks(masked: Masked, recovered: Recovered, threads: int) -> UIntArray:
    """Return the sum, every entry below 2^ring_bits; the masked sum stays: a failure can be retried."""
    view, secrets = masked.view, recovered.secrets
    seeds, signs, pairs = [], [], []
    for dealer, secret in secrets.items():
        if masked.in_survivors[dealer]:
            seeds.append(secret)
            signs.append(-1)
            continue
        around = masked.neighbors[dealer]
        pairs += [(dealer, i) for i in around[masked.in_survivors[around]].tolist()]

    def seed(pair: Pair) -> bytes:
        dealer, i = pair
        me, other = view.identities[dealer], view.identities[i]
        added = recovered.contributions[pair] if view.hybrid else b""
        return pairwise_seed(secrets[dealer], masked.mask_keys[i], view.roster_digest, me, other, added)

    seeds += map_in_threads(seed, pairs, threads=threads)
    # A survivor added the mask with its own sign; the order of indices is that of identities.
    signs += [1 if dealer < i else -1 for dealer, i in pairs]
    total = masked.total.copy()
    mask_apply(total, b"".join(seeds), np.array(signs, np.int8), threads=threads)
    total &= total.dtype.type(ring_mask(view.parameters.ring_bits))
    return total
