"""What masks are made of: seeds and commitments bound to the roster (PROTOCOL.md, 2)."""

from __future__ import annotations

from secagg.primitives.agreement import agree
from secagg.primitives.labels import digest, encode
from secagg.primitives.sealing import hkdf


def pairwise_seed(
    mask_secret: bytes, mask_public: bytes, roster_digest: bytes, one: bytes, other: bytes
) -> bytes:
    """Seed of the mask that two clients share, 32 bytes; the order of the two identities does not matter."""
    smaller, larger = sorted((one, other))
    info = encode("pairwise-mask", smaller, larger)
    return hkdf(agree(mask_secret, mask_public), roster_digest, info)


def sealing_key(
    agreement_secret: bytes, agreement_public: bytes, roster_digest: bytes, dealer: bytes, holder: bytes
) -> bytes:
    """Key that seals the one message of dealer to holder, 32 bytes; both can compute it."""
    info = encode("share-key", dealer, holder)
    return hkdf(agree(agreement_secret, agreement_public), roster_digest, info)


def share_label(roster_digest: bytes, dealer: bytes, holder: bytes) -> bytes:
    """Associated data of a sealed share."""
    return encode("share", roster_digest, dealer, holder)


def seed_commitment(roster_digest: bytes, identity: bytes, seed: bytes) -> bytes:
    """Commit to a self-mask seed, 32 bytes; hiding because the seed is 32 random bytes."""
    return digest("self-seed", roster_digest, identity, seed)


def mask_sign(identity: bytes, neighbor: bytes) -> int:
    """Sign with which `identity` adds the mask it shares with `neighbor`: +1 when it is the smaller."""
    return 1 if identity < neighbor else -1
