"""Proof of a client's identity: a signature over the server's certificate and the server's nonce."""

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
    """The client that speaks, and the round it wants to go on with, if any."""

    identity: Identity
    resume: bytes  # round id, or empty


def make_hello(signer: Signer, certificate_digest: bytes, nonce: bytes, resume: bytes = b"") -> bytes:
    """Content of a HELLO record. Signing the certificate binds it to this server: no relay can use it."""
    text = encode("hello", certificate_digest, nonce, signer.identity)
    return signer.identity + signer.sign(text) + resume


def check_hello(content: Buffer, certificate_digest: bytes, nonce: bytes, registry: Registry) -> Hello:
    """Return who speaks. Raises HelloError.

    The error goes to a stranger: it neither names a party nor tells who is enrolled.
    """
    data = bytes(content)
    if len(data) not in _SIZES:
        raise HelloError(f"hello: must have {_SIZES} bytes, has {len(data)}")
    identity, signature, resume = Identity(data[:32]), data[32:96], data[96:]
    text = encode("hello", certificate_digest, nonce, identity)
    # Both are looked at: how long the answer takes says no more than its words.
    proved = verify(identity, text, signature)
    if identity not in registry.identities or not proved:
        raise HelloError(
            "hello: the identity is not enrolled, or its signature over this certificate is wrong"
        )
    return Hello(identity, resume)
