"""Proof of a client's identity: a signature over the server's certificate, its nonce and the run it wants."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from secagg.errors import ParameterError
from secagg.params import Buffer, Identity, Signer
from secagg.primitives.labels import encode
from secagg.primitives.signatures import verify
from secagg.service.errors import HelloError

NONCE_BYTES = 32
HELLO_BYTES = 768
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAG, MOST_TAGS = re.compile(r"[A-Za-z0-9._-]{1,24}"), 8
DEFAULT_PLACE = "default/default"


def check_place(place: str) -> str:
    """Return FEDERATION/RUN. Raises ParameterError unless both are names."""
    if not _PLACE.fullmatch(place):
        raise ParameterError(
            "place: must be FEDERATION/RUN, each of letters, digits, '.', '_' and '-', up to 64, "
            f"is {place!r}"
        )
    return place


@dataclass(frozen=True, slots=True)
class Hello:
    """The client that speaks, the run it wants a part in, and the round it goes on with, if any."""

    identity: Identity
    place: str
    resume: bytes  # round id, or empty
    signature: bytes
    tags: tuple[str, ...] = ()  # what it says of itself


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    identity: bytes
    place: str
    resume: bytes
    tags: list[str]
    signature: bytes


def check_tags(tags: Collection[str]) -> tuple[str, ...]:
    """Return tags, ascending. Raises ParameterError: too many, or one that is no word."""
    if len(tags) > MOST_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise ParameterError(
            f"tags: up to {MOST_TAGS} words of letters, digits, '.', '_' and '-', up to 24, are "
            f"{sorted(tags)[:MOST_TAGS]}"
        )
    return tuple(sorted(set(tags)))


def _text(
    certificate_digest: bytes,
    nonce: bytes,
    identity: bytes,
    place: str,
    resume: bytes,
    tags: Collection[str],
) -> bytes:
    said = (tag.encode() for tag in tags)
    return encode("hello", certificate_digest, nonce, identity, place.encode(), resume, *said)


def make_hello(
    signer: Signer,
    certificate_digest: bytes,
    nonce: bytes,
    *,
    place: str = DEFAULT_PLACE,
    resume: bytes = b"",
    tags: Collection[str] = (),
) -> bytes:
    """Content of a HELLO record. Signing the certificate binds it to this server: no relay can use it."""
    text = _text(certificate_digest, nonce, signer.identity, place, resume, tags)
    return msgspec.msgpack.encode(_Wire(signer.identity, place, resume, list(tags), signer.sign(text)))


def read_hello(content: Buffer) -> Hello:
    """Return what a hello says; nothing of it is proved yet. Raises HelloError."""
    try:
        wire = msgspec.msgpack.decode(content, type=_Wire)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HelloError("hello: is none of this version") from error
    sizes = len(wire.identity), len(wire.signature), len(wire.resume)
    if sizes not in {(32, 64, 0), (32, 64, 16)} or not _PLACE.fullmatch(wire.place):
        raise HelloError("hello: a field has a wrong length, or no run is called so")
    try:
        tags = check_tags(wire.tags)
    except ParameterError as error:
        raise HelloError("hello: a tag is no word") from error
    return Hello(Identity(wire.identity), wire.place, wire.resume, wire.signature, tags)


def check_hello(
    hello: Hello, certificate_digest: bytes, nonce: bytes, enrolled: frozenset[Identity] | None
) -> None:
    """Raise HelloError unless an enrolled party speaks. enrolled: of its run; None: that is not here.

    The error goes to a stranger: it neither names a party nor tells who is enrolled.
    """
    text = _text(certificate_digest, nonce, hello.identity, hello.place, hello.resume, hello.tags)
    # Both are looked at: how long the answer takes says no more than its words.
    proved = verify(hello.identity, text, hello.signature)
    if hello.identity not in (enrolled or frozenset()) or not proved:
        raise HelloError(
            "hello: the identity is not enrolled, or its signature over this certificate is wrong"
        )
