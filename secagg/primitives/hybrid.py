"""The hybrid suite, X25519 and ML-KEM-768: keys of a root, sealing keys, contributions (PROTOCOL.md, 3.7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from secagg.params import Secret
from secagg.primitives import kem
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.labels import encode
from secagg.primitives.sealing import hkdf, seal, unseal


@dataclass(frozen=True, slots=True)
class MaskKeys:
    """The two mask keys that follow from a root; the root is what is shared and rebuilt."""

    agreement: bytes = field(repr=False)  # X25519 private key
    kem: kem.KemSecret = field(repr=False)

    @classmethod
    def of(cls, root: Secret, parameters_digest: bytes) -> MaskKeys:
        """Derive both, each under its own label. Raises ParameterError: there is no ML-KEM here."""
        d, z = (hkdf(bytes(root), parameters_digest, encode(label)) for label in ("mask-kem-d", "mask-kem-z"))
        return cls(mask_secret(root, parameters_digest), kem.KemSecret(d + z))

    @property
    def public(self) -> tuple[bytes, bytes]:
        """The X25519 key (32 bytes) and the ML-KEM key (1184 bytes)."""
        return public_key(self.agreement), self.kem.public

    def __reduce__(self) -> NoReturn:
        raise TypeError("MaskKeys are not pickled")


def mask_secret(root: Secret, parameters_digest: bytes) -> bytes:
    """Return the X25519 mask private key of a root."""
    return hkdf(bytes(root), parameters_digest, encode("mask-key"))


def sealing_key(
    agreed: Secret, kem_public: bytes, roster_digest: bytes, dealer: bytes, holder: bytes
) -> tuple[bytes, bytes]:
    """Return the key of the one message from a dealer to a holder, 32 bytes, and its KEM ciphertext, 1088.

    agreed      by their agreement keys
    kem_public  the holder's, usable
    """
    ciphertext, kem_secret = kem.encapsulate(kem_public)
    return _sealing_key(agreed, kem_secret, ciphertext, roster_digest, dealer, holder), ciphertext


def opening_key(
    agreed: Secret,
    secret: kem.KemSecret,
    ciphertext: bytes,
    roster_digest: bytes,
    dealer: bytes,
    holder: bytes,
) -> bytes:
    """Return the same key for the holder; of a ciphertext that is not for it, one that opens nothing."""
    return _sealing_key(agreed, secret.decapsulate(ciphertext), ciphertext, roster_digest, dealer, holder)


def _sealing_key(
    agreed: Secret, kem_secret: bytes, ciphertext: bytes, roster_digest: bytes, dealer: bytes, holder: bytes
) -> bytes:
    info = encode("share-key", dealer, holder, ciphertext)
    return hkdf(bytes(agreed) + kem_secret, roster_digest, info)


def contribution(root: Secret, roster_digest: bytes, sender: bytes, receiver: bytes) -> bytes:
    """Return what the sender's root adds to the seed of the pair, 32 bytes."""
    return hkdf(bytes(root), roster_digest, encode("contribution", sender, receiver))


def seal_contribution(
    value: bytes,
    mask_secret: bytes,
    mask_public: bytes,
    kem_public: bytes,
    roster_digest: bytes,
    sender: bytes,
    receiver: bytes,
) -> tuple[bytes, bytes]:
    """Return KEM ciphertext, 1088 bytes, and sealed contribution, 48 bytes.

    mask_secret              the sender's X25519 mask key
    mask_public, kem_public  the receiver's mask keys, usable
    """
    ciphertext, kem_secret = kem.encapsulate(kem_public)
    agreed = agree(mask_secret, mask_public)
    key = _contribution_key(agreed, kem_secret, ciphertext, roster_digest, sender, receiver)
    return ciphertext, seal(key, value, _contribution_label(roster_digest, sender, receiver))


def open_contribution(
    keys: MaskKeys,
    mask_public: bytes,
    ciphertext: bytes,
    sealed: bytes,
    roster_digest: bytes,
    sender: bytes,
    receiver: bytes,
) -> bytes | None:
    """Return a contribution, or None when it is not authentic.

    keys         the receiver's
    mask_public  the sender's X25519 mask key
    """
    agreed, kem_secret = agree(keys.agreement, mask_public), keys.kem.decapsulate(ciphertext)
    key = _contribution_key(agreed, kem_secret, ciphertext, roster_digest, sender, receiver)
    return unseal(key, sealed, _contribution_label(roster_digest, sender, receiver))


def _contribution_key(
    agreed: bytes, kem_secret: bytes, ciphertext: bytes, roster_digest: bytes, sender: bytes, receiver: bytes
) -> bytes:
    # The agreement is in it so that nobody but these two, the server least of all, makes one up.
    info = encode("contribution-key", sender, receiver, ciphertext)
    return hkdf(agreed + kem_secret, roster_digest, info)


def _contribution_label(roster_digest: bytes, sender: bytes, receiver: bytes) -> bytes:
    return encode("contribution", roster_digest, sender, receiver)
