"""X25519 key agreement (RFC 7748). Private keys are 32 bytes as drawn; the library clamps its copy."""

from __future__ import annotations

from nacl import bindings

from secagg.params import Secret

_FIELD = 2**255 - 19
# u-coordinates below p of order 1, 2, 4 and 8, on the curve and on its twist; a test has the library
# refuse each. (Bernstein, "Curve25519", 2006; RFC 7748, section 6.1.)
SMALL_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _FIELD - 1,
    }
)


def public_key(secret: Secret) -> bytes:
    """Public key of a 32-byte private key."""
    return bytes(bindings.crypto_scalarmult_base(bytes(secret)))


def is_usable(key: bytes) -> bool:
    """Return whether a 32-byte public key is canonical and not of small order."""
    u = int.from_bytes(key, "little")
    return u < _FIELD and u not in SMALL_ORDER


def agree(secret: Secret, public: bytes) -> bytes:
    """Return the shared secret, 32 bytes. `public` must be usable, or the library raises."""
    return bytes(bindings.crypto_scalarmult(bytes(secret), public))
