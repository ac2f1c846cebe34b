"""How a client proves who it is: a signature over the server's certificate and the server's nonce."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.params import Buffer, Identity, Signer
from secagg.primitives.labels import encode
from secagg.primitives.signatures import verify
from secagg.service.errors import HelloError
from secagg.service.registry import Registry

NONCE_BYTES = 32
_SIZES = (32 + 64, 32 + 64 + 16)


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, and the round it wants to go on with, if any."""

    identity: Identity
    resume: bytes  # round id, or empty


def make_hello(signer: Signer, certificate_digest: bytes, nonce: bytes, resume: bytes = b"") -> bytes:
    """Content of a HELLO record. Signing the certificate binds it to this server: no relay can use it."""
    text = encode("hello", certificate_digest, nonce, signer.identity)
    return signer.identity + signer.sign(text) + resume


def check_hello(content: Buffer, certificate_digest: bytes, nonce: bytes, registry: Registry) -> Hello:
    """Return who speaks. Raises HelloError."""
    data = bytes(content)
    if len(data) not in _SIZES:
        raise HelloError(f"hello: must have {_SIZES} bytes, has {len(data)}")
    identity, signature, resume = Identity(data[:32]), data[32:96], data[96:]
    if identity not in registry.identities:
        raise HelloError(f"hello: {identity.hex()[:12]} is not enrolled")
    if not verify(identity, encode("hello", certificate_digest, nonce, identity), signature):
        raise HelloError(f"hello: bad signature of {registry.name_of(identity)}")
    return Hello(identity, resume)
