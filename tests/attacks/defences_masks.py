"""Defences that keep a vector hidden in its upload; test_hiding fails without each of them."""

from __future__ import annotations

from tests.attacks.defence import Defence

DEFENCES: tuple[Defence, ...] = (
    Defence(
        "self mask",
        "secagg.protocol.client.masked_input_collection",
        "seeds = [bytes(secrets.self_seed), *",
        "seeds = [bytes(32), *",
        "an upload stays hidden when its pairwise masks are known",
    ),
    Defence(
        "pairwise masks",
        "secagg.protocol.client.masked_input_collection",
        "seeds = [bytes(secrets.self_seed), *map_in_threads(seed, present, threads=threads)]",
        "seeds, present = [bytes(secrets.self_seed)], []",
        "an upload stays hidden when its self mask is known",
    ),
    Defence(
        "sign of a mask",
        "secagg.primitives.masks",
        "return 1 if identity < neighbor else -1",
        "return 1",
        "pairwise masks cancel",
    ),
    Defence(
        "roster in the pairwise seed",
        "secagg.primitives.masks",
        "return hkdf(agree(mask_secret, mask_public) + contribution, roster_digest, info)",
        'return hkdf(agree(mask_secret, mask_public) + contribution, b"", info)',
        "masks of two rosters differ, also between the same keys",
    ),
    Defence(
        "key agreement",
        "secagg.primitives.masks",
        "return hkdf(agree(mask_secret, mask_public) + contribution, roster_digest, info)",
        "return hkdf(bytes(32) + contribution, roster_digest, info)",
        "nobody but the two computes their mask",
    ),
    Defence(
        "position in the keystream",
        "secagg.kernels.upload",
        "mask_apply(chunk, seeds, signs, first=at, threads=1)",
        "mask_apply(chunk, seeds, signs, first=0, threads=1)",
        "no part of a keystream masks two entries",
    ),
)
