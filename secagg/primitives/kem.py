"""ML-KEM-768 (FIPS 203), as `cryptography` has it from release 48 on."""

from __future__ import annotations

from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm

from secagg.errors import ParameterError
from secagg.params import Secret

try:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

    MLKEM768PrivateKey.from_seed_bytes(bytes(64))
except (ImportError, UnsupportedAlgorithm):  # an older release, or an older OpenSSL: everything else works
    AVAILABLE = False
else:
    AVAILABLE = True

SEED_BYTES = 64  # d || z
KEY_BYTES = 1184
CIPHERTEXT_BYTES = 1088


def require_kem() -> None:
    """Raise ParameterError where `cryptography` has no ML-KEM."""
    if not AVAILABLE:
        raise ParameterError(
            "ML-KEM-768: needs cryptography >= 48, and its OpenSSL; install it, or do without: "
            "post_quantum=False in the one-upload protocol, suite='x25519' in the pairwise one"
        )


class KemSecret:
    """A decapsulation key; the library's copy of it goes with the object. Raises ParameterError.

    seed  64 bytes, d || z
    """

    __slots__ = ("_key",)

    def __init__(self, seed: Secret) -> None:
        require_kem()
        self._key = MLKEM768PrivateKey.from_seed_bytes(bytes(seed))

    @property
    def public(self) -> bytes:
        """The encapsulation key, 1184 bytes."""
        return self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return 32 bytes: of a ciphertext that was not made for this key, ones that nobody else knows.

        raises  ValueError unless the ciphertext has 1088 bytes
        """
        return self._key.decapsulate(ciphertext)

    def __repr__(self) -> str:
        return "KemSecret()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KemSecret is not pickled")


def is_usable(key: bytes) -> bool:
    """Return whether an encapsulation key has its size and canonical entries (FIPS 203, 7.2)."""
    require_kem()
    try:
        MLKEM768PublicKey.from_public_bytes(key)
    except ValueError:
        return False
    return True


def encapsulate(key: bytes) -> tuple[bytes, bytes]:
    """Return ciphertext, 1088 bytes, and secret, 32 bytes, with the library's randomness (FIPS 203).

    key  usable, see `is_usable`, and so of a machine that has ML-KEM: nothing is raised then
    """
    secret, ciphertext = MLKEM768PublicKey.from_public_bytes(key).encapsulate()
    return ciphertext, secret
