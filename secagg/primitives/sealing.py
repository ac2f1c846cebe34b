"""HKDF-SHA256 and one-message ChaCha20-Poly1305."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secagg.params import Secret

SEALED_TAG_BYTES = 16  # that a sealed text is longer

# Safe because every key seals exactly one message: it is derived from fresh key pairs, the roster
# and the ordered pair (dealer, holder).
_NONCE = bytes(12)


def hkdf(ikm: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes."""
    return HKDF(SHA256(), 32, salt, info).derive(ikm)


def seal(key: Secret, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate; 16 bytes longer than the plaintext. One message per key."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, associated)


def unseal(key: Secret, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Return the plaintext, or None when the ciphertext is not authentic."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, associated)
    except InvalidTag:
        return None
