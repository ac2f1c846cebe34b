"""Ed25519 identities. libsodium's rules throughout, because libraries differ on small-order keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from nacl import bindings
from nacl.exceptions import BadSignatureError

from secagg.errors import ParameterError
from secagg.params import Entropy, Identity

SIGNATURE_BYTES = 64
SEED_BYTES = 32
_FIELD = 2**255 - 19
_IDENTITY_ELEMENT = (1).to_bytes(32, "little")


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """A long-lived Ed25519 key pair held in memory. Its seed never shows in a repr and is not pickled."""

    identity: Identity
    _secret: bytes = field(repr=False)  # libsodium's form: seed || public key

    @classmethod
    def from_seed(cls, seed: bytes) -> IdentityKey:
        """Key pair of a 32-byte seed (RFC 8032). Raises ParameterError."""
        if len(seed) != SEED_BYTES:
            raise ParameterError(f"seed: must be {SEED_BYTES} bytes, is {len(seed)}")
        public, secret = bindings.crypto_sign_seed_keypair(seed)
        return cls(Identity(public), secret)

    @classmethod
    def generate(cls, entropy: Entropy) -> IdentityKey:
        """Make a new key pair from 32 bytes of entropy."""
        return cls.from_seed(entropy(SEED_BYTES))

    @property
    def seed(self) -> bytes:
        """The secret 32 bytes, for a key file."""
        return self._secret[:SEED_BYTES]

    def sign(self, text: bytes) -> bytes:
        """Signature of `text`, 64 bytes."""
        return bytes(bindings.crypto_sign(text, self._secret)[:SIGNATURE_BYTES])

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an IdentityKey is not pickled")


def verify(identity: bytes, text: bytes, signature: bytes) -> bool:
    """Return whether `signature` (64 bytes) is that of `identity` (32 bytes) over `text`."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + text, identity)
    except BadSignatureError:
        return False
    return True


def check_identity(identity: bytes) -> Identity:
    """Return an identity fit for enrolment: a canonical point of the curve that is not of small order.

    Raises ParameterError. (Eight times a point of small order is the neutral element.)
    """
    if len(identity) != 32:
        raise ParameterError(f"identity: must be 32 bytes, is {len(identity)}")
    if int.from_bytes(identity, "little") % 2**255 >= _FIELD:
        raise ParameterError(f"identity: {identity.hex()} is not canonical")
    try:
        point = identity
        for _ in range(3):
            point = bindings.crypto_core_ed25519_add(point, point)
    except Exception as error:  # libsodium's refusal has no class of its own
        raise ParameterError(f"identity: {identity.hex()} is not on the curve") from error
    if point == _IDENTITY_ELEMENT:
        raise ParameterError(f"identity: {identity.hex()} is of small order")
    return Identity(identity)
