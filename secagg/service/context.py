"""The context of a round: a digest of the payload and of what all parties agreed on before."""

from __future__ import annotations

from secagg.primitives.labels import context_digest


def round_context(payload: bytes, agreement: bytes = b"") -> bytes:
    """Return the context of a round about a payload, 32 bytes; agreement: a digest, or nothing."""
    return context_digest(agreement, payload) if agreement else context_digest(payload)
