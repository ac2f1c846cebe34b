"""Snapshots carry their digest, so that a damaged one is never taken for a session."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager

from secagg.errors import ParameterError

_DIGEST_BYTES = 32


def with_digest(body: bytes) -> bytes:
    """Append the SHA-256 digest of a snapshot's body."""
    return body + hashlib.sha256(body).digest()


def checked_body(data: bytes) -> bytes:
    """Return the body. Raises ParameterError when the snapshot was cut or changed."""
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if not hmac.compare_digest(hashlib.sha256(body).digest(), digest):
        raise ParameterError("snapshot: its digest is wrong; it was cut or changed")
    return body


@contextmanager
def parts_must_fit() -> Iterator[None]:
    """Turn what contradictory parts of a well-formed snapshot lead to into ParameterError."""
    try:
        yield
    except ParameterError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ParameterError("snapshot: its parts do not fit together") from error
