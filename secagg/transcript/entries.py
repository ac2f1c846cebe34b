"""The parts of a transcript: entries, each addressed by its digest, and a seal over the addresses.

A file is the line MAGIC and then entries, each behind its length (8 bytes, big-endian), in the canonical
encoding of section 4.3 of PROTOCOL.md: there is no byte in it that may be changed without a trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from secagg.effects import Aborted, Completed
from secagg.kernels import UIntArray
from secagg.messages import RoundParametersMessage, encode
from secagg.messages.fields import large_octets, message, octets, octets_list, uint
from secagg.params import Buffer
from secagg.primitives.labels import digest
from secagg.primitives.labels import encode as label

MAGIC = b"secagg transcript 1\n"
VERSION = 1
LENGTH_BYTES = 8
DIGEST_BYTES = 32


class EntryKind(IntEnum):
    """The content of an entry."""

    HEADER = 1  # Header
    TAKEN = 2  # a frame that the server took, as it came; party: who sent it
    UPLOAD = 3  # the same without the masked vector: WithheldUpload
    GIVEN_UP = 4  # party: a client that is not waited for any more
    CLOSED = 5  # the phase was closed
    OUTCOME = 6  # Outcome
    SEAL = 7  # Seal


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of a round."""

    kind: int = uint(1)
    party: bytes = octets(2, 0, 32)
    content: Buffer = large_octets(3)


@dataclass(frozen=True, slots=True)
class Header:
    """The round that is recorded, and the server that records it."""

    version: int = uint(1)
    server: bytes = octets(2, 32)  # Ed25519 identity that signs the seal
    parameters: RoundParametersMessage = message(3, RoundParametersMessage)
    admitted: tuple[bytes, ...] = octets_list(4, 32)


@dataclass(frozen=True, slots=True)
class WithheldUpload:
    """A MaskedInput whose vector is not kept; its signature covers the vector's digest."""

    packed_digest: bytes = octets(1, 32)
    complaints: tuple[bytes, ...] = octets_list(2, 32)
    signature: bytes = octets(3, 64)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of the round: with the digest of the sum, or with a reason."""

    total_digest: bytes = octets(1, 0, 32)
    reason: Buffer = large_octets(2)
    blamed: tuple[bytes, ...] = octets_list(3, 32)
    guilty: tuple[bytes, ...] = octets_list(4, 32)


@dataclass(frozen=True, slots=True)
class Seal:
    """The addresses of all entries before it, and the server's signature under their digest."""

    addresses: Buffer = large_octets(1)
    signature: bytes = octets(2, 64)


def address(entry: Buffer) -> bytes:
    """Address of an encoded entry, 32 bytes."""
    return digest("transcript-entry", entry)


def transcript_digest(addresses: Iterable[bytes]) -> bytes:
    """Address of a whole transcript, 32 bytes: the digest of the addresses of its entries."""
    return digest("transcript", b"".join(addresses))


def seal_text(root: bytes) -> bytes:
    """Text of the server's signature."""
    return label("seal", root)


def total_digest(total: UIntArray) -> bytes:
    """Digest of a sum: its entries in their lane, little-endian."""
    return digest("total", total.astype(total.dtype.newbyteorder("<")).tobytes())


def outcome_of(effect: Completed | Aborted) -> Outcome:
    """Return what a transcript says of the end of a round."""
    if isinstance(effect, Aborted):
        blamed, guilty = (tuple(sorted(names)) for names in (effect.blamed, effect.guilty))
        return Outcome(b"", str(effect.reason).encode(), blamed, guilty)
    if effect.result is None:
        raise TypeError("a server completes with a result")
    blames = effect.result.blamed
    return Outcome(
        total_digest(effect.result.total),
        b"",
        tuple(sorted(blame.client for blame in blames)),
        tuple(sorted(blame.client for blame in blames if blame.guilty)),
    )


def framed(kind: EntryKind, party: bytes = b"", content: Buffer = b"") -> tuple[bytes, bytes]:
    """Encode an entry: its length, which goes before it, and the entry."""
    entry = encode(Entry(kind, party, content))
    return len(entry).to_bytes(LENGTH_BYTES, "big"), entry
