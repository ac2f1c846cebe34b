"""The one function behind every hash input, key, signed text and associated data (PROTOCOL.md, 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from secagg.params import Buffer, Secret


@dataclass(frozen=True, slots=True)
class Labels:
    """The texts of one protocol; `version` keeps those of two apart."""

    version: bytes

    def encode(self, purpose: str, *parts: Buffer | Secret) -> bytes:
        """ASCII version || purpose || 00 || each part behind its length, 4 bytes big-endian."""
        out = [self.version, purpose.encode("ascii"), b"\0"]
        for part in parts:
            body = bytes(part)  # of a view, its items may be wider than a byte
            out += (len(body).to_bytes(4, "big"), body)
        return b"".join(out)

    def digest(self, purpose: str, *parts: Buffer | Secret) -> bytes:
        """H(...) of the specification: SHA-256 of `encode(...)`, 32 bytes."""
        return hashlib.sha256(self.encode(purpose, *parts)).digest()


PAIRWISE = Labels(b"secagg/v1/")
ONESHOT = Labels(b"secagg/v2/")
encode = PAIRWISE.encode
digest = PAIRWISE.digest


def digests(purpose: str, common: bytes, lasts: Iterable[bytes], size: int) -> list[bytes]:
    """Return [digest(purpose, common, last) for last in lasts], every last of `size` bytes."""
    head = encode(purpose, common, bytes(size))[: -size or None]
    return [hashlib.sha256(head + last).digest() for last in lasts]


def context_digest(*parts: Buffer | Secret) -> bytes:
    """Digest of what a round is about, each party computes it itself: model, configuration, weighting.

    32 bytes; every part shorter than 2^32 bytes.
    """
    return digest("context", *parts)
