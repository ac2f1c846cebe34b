"""Remove the masks from the sum: self masks of survivors, pairwise masks shared with dropouts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from secagg.kernels import mask_apply, ring_mask
from secagg.primitives.masks import mask_sign, pairwise_seed
from secagg.protocol.server.masked import Masked


def remove_masks(masked: Masked, secrets: Mapping[int, bytes]) -> None:
    """Turn the masked sum into the sum, in place, every entry below 2^ring_bits.

    secrets  self-mask seeds of S and mask private keys of its dropped neighbors, by roster index
    """
    view = masked.view
    seeds, signs = [], []
    for dealer, secret in secrets.items():
        if dealer in masked.uploads:
            seeds.append(secret)
            signs.append(-1)
            continue
        me = view.identities[dealer]
        for i in masked.neighbors[dealer]:
            if i in masked.uploads:
                other = view.identities[i]
                seeds.append(pairwise_seed(secret, masked.mask_keys[i], view.roster_digest, me, other))
                signs.append(-mask_sign(other, me))  # the survivor added it with this sign
    mask_apply(masked.total, b"".join(seeds), np.array(signs, np.int8))
    masked.total &= masked.total.dtype.type(ring_mask(view.parameters.ring_bits))
