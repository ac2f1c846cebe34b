"""The material of masks: seeds, and commitments bound to the roster (PROTOCOL.md, 2)."""

from __future__ import annotations

from secagg.params import Secret
from secagg.primitives.agreement import agree
from secagg.primitives.labels import digest, encode
from secagg.primitives.sealing import hkdf


def pairwise_seed(
    mask_secret: Secret,
    mask_public: bytes,
    roster_digest: bytes,
    one: bytes,
    other: bytes,
    contribution: Secret = b"",
) -> bytes:
    """Seed of the mask that two clients share, 32 bytes; the order of the two identities does not matter.

    contribution  in the hybrid suite, of the smaller identity
    """
    smaller, larger = sorted((one, other))
    info = encode("pairwise-mask", smaller, larger)
    return hkdf(agree(mask_secret, mask_public) + contribution, roster_digest, info)


def sealing_keys(
    agreement_secret: Secret, agreement_public: bytes, roster_digest: bytes, me: bytes, other: bytes
) -> tuple[bytes, bytes]:
    """Keys of the one message from me to the other, and of the one back, 32 bytes each."""
    shared = agree(agreement_secret, agreement_public)
    return (
        hkdf(shared, roster_digest, encode("share-key", me, other)),
        hkdf(shared, roster_digest, encode("share-key", other, me)),
    )


def share_label(roster_digest: bytes, dealer: bytes, holder: bytes) -> bytes:
    """Associated data of a sealed share."""
    return encode("share", roster_digest, dealer, holder)


def seed_commitment(roster_digest: bytes, identity: bytes, seed: Secret) -> bytes:
    """Commit to a self-mask seed, 32 bytes; hiding because the seed is 32 random bytes."""
    return digest("self-seed", roster_digest, identity, seed)


def mask_sign(identity: bytes, neighbor: bytes) -> int:
    """Sign with which `identity` adds the mask it shares with `neighbor`: +1 when it is the smaller."""
    return 1 if identity < neighbor else -1
