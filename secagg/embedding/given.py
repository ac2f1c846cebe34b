"""What a node's caller brings to a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from secagg.kernels import UIntArray, VectorSource
from secagg.params import DIGEST_BYTES, Identity, require

Vector: TypeAlias = UIntArray | VectorSource
# Both are called with RoundParameters, or with OneShotParameters by a node that takes both protocols.
MakeVector: TypeAlias = Callable[[Any], Vector]
# (parameters, U1, S): U1 who began the round, or whose uploads came; raises ConsentError, or LedgerError
Consent: TypeAlias = Callable[[Any, frozenset[Identity], frozenset[Identity]], None]
Context: TypeAlias = bytes | Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Given:
    """What a node brings to a request; see `Participant.answer`."""

    vector: MakeVector
    context: Context
    subject: Context | None


def told(value: Context) -> bytes:
    """Return 32 bytes that were given, or what a function makes of it now. Raises ParameterError."""
    made = value if isinstance(value, bytes) else value()
    require(isinstance(made, bytes) and len(made) == DIGEST_BYTES, "context", "32 bytes", made)
    return made
