"""Frozen values that every layer may know: parameters, policy, phases. Checked when constructed.

Messages quote the field, its limit and the offending value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NewType, Protocol, TypeAlias, get_args

from secagg.errors import ParameterError

Buffer: TypeAlias = bytes | memoryview
Secret: TypeAlias = bytes | bytearray  # bytearrays can be wiped
Entropy: TypeAlias = Callable[[int], bytes]
Identity = NewType("Identity", bytes)
Adversary: TypeAlias = Literal["passive", "active"]
Suite: TypeAlias = Literal["x25519", "x25519-mlkem768"]

FRAME_VERSION = 1
HYBRID: Suite = "x25519-mlkem768"
SUITES: tuple[Suite, ...] = get_args(Suite)
IDENTITY_BYTES = 32
ROUND_ID_BYTES = 16
DIGEST_BYTES = 32
MILLION = 1_000_000
_ROUNDING_BITS = 30
MAXIMUM_SECURITY_BITS = 256
MAXIMUM_KEYSTREAM_BYTES = 2**36


class Phase(IntEnum):
    """The phases of a round, named as in Bonawitz et al., CCS 2017."""

    ADVERTISE_KEYS = 0
    SHARE_KEYS = 1
    MASKED_INPUT_COLLECTION = 2
    CONSISTENCY_CHECK = 3
    UNMASKING = 4


class Signer(Protocol):
    """A long-lived Ed25519 identity that can sign; `IdentityKey` is one, a hardware token may be.

    identity  public key, 32 bytes
    sign      returns the Ed25519 signature of `text` (RFC 8032), 64 bytes
    """

    @property
    def identity(self) -> Identity: ...
    def sign(self, text: bytes) -> bytes: ...


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise ParameterError "name: must be rule, is value" unless the condition holds."""
    if not condition:
        raise ParameterError(f"{name}: must be {rule}, is {value!r}")


def to_ppm(rate: float) -> int:
    """Return a rate in parts per million, rounded up: 1/3 is 333334. Rates travel and are compared so.

    Rounded down, n/3 clients of n would be more than the floor of n times the rate. An excess below
    2^-30 ppm is the rounding of a float (0.1 is a hair more than a tenth, and 100000 ppm) and no share of
    fewer than 2^30 clients: j/n is a whole number of ppm, or at least 1/n ppm away from one.
    """
    numerator, denominator = float(rate).as_integer_ratio()
    return -((denominator - (numerator * MILLION << _ROUNDING_BITS)) // (denominator << _ROUNDING_BITS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreatModel:
    """The dangers that a round withstands, and how sure it is to finish (PROTOCOL.md, 1).

    corrupt, dropout   largest shares of the cohort that collude with the server; that drop out
    adversary          "passive": the server follows the protocol and is curious; "active": it may lie
    security_bits      the promise fails with probability 2^-security_bits at most
    correctness_bits   an honest round fails, with `dropout` gone, with probability 2^-correctness_bits
    grinding_bits      work (log2) an active adversary spends on moving places of the graph
    """

    corrupt: float = 0.1
    dropout: float = 0.1
    adversary: Adversary = "active"
    security_bits: int = 40
    correctness_bits: int = 20
    grinding_bits: int = 40

    def __post_init__(self) -> None:
        for name in ("corrupt", "dropout"):
            rate = getattr(self, name)
            require(0 <= rate < 1 and to_ppm(rate) < MILLION, name, "in [0, 1)", rate)
        require(self.adversary in {"passive", "active"}, "adversary", "'passive' or 'active'", self.adversary)
        for name in ("security_bits", "correctness_bits", "grinding_bits"):
            value = getattr(self, name)
            require(0 <= value <= MAXIMUM_SECURITY_BITS, name, f"in 0..{MAXIMUM_SECURITY_BITS}", value)

    @property
    def corrupt_ppm(self) -> int:
        """Return `corrupt` in parts per million, rounded up."""
        return to_ppm(self.corrupt)

    @property
    def dropout_ppm(self) -> int:
        """Return `dropout` in parts per million, rounded up."""
        return to_ppm(self.dropout)

    @property
    def active(self) -> bool:
        """Return whether the server may lie."""
        return self.adversary == "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphParameters:
    """Degree of the neighbor graph and threshold of the secret sharing among the neighbors."""

    degree: int
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundParameters:
    """Public parameters of one round, equal for the server and every client.

    minimum_cohort     fewest clients with which the round begins
    minimum_survivors  fewest clients in a sum
    suite              "x25519-mlkem768": what is recorded now stays closed to quantum computers
                       (PROTOCOL.md, 3.7); every client needs ML-KEM-768 (cryptography >= 48)
    raises             ParameterError
    """

    round_id: bytes  # 16 random bytes, never reused
    vector_length: int  # entries
    ring_bits: int  # sums live in the integers modulo 2^ring_bits
    context: bytes  # 32 bytes: digest of what the round is about
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    minimum_cohort: int = 4
    minimum_survivors: int = 3
    suite: Suite = "x25519"

    def __post_init__(self) -> None:
        require(self.suite in SUITES, "suite", "'x25519' or 'x25519-mlkem768'", self.suite)
        require(len(self.round_id) == ROUND_ID_BYTES, "round_id", "16 bytes", len(self.round_id))
        require(len(self.context) == DIGEST_BYTES, "context", "32 bytes", len(self.context))
        require(1 <= self.ring_bits <= 64, "ring_bits", "in 1..64", self.ring_bits)
        lane = 2 if self.ring_bits <= 16 else 4 if self.ring_bits <= 32 else 8
        limit = MAXIMUM_KEYSTREAM_BYTES // lane
        require(1 <= self.vector_length <= limit, "vector_length", f"in 1..{limit}", self.vector_length)
        require(1 <= self.minimum_cohort < 2**32, "minimum_cohort", "in 1..2^32 - 1", self.minimum_cohort)
        require(
            1 <= self.minimum_survivors < 2**32, "minimum_survivors", "in 1..2^32 - 1", self.minimum_survivors
        )

    @property
    def hybrid(self) -> bool:
        """Return whether keys are of X25519 and of ML-KEM-768."""
        return self.suite == HYBRID


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The demands of a client on a round, checked before it takes part (PROTOCOL.md, 5).

    known             identities enrolled in the client's own registry; None: it has none, and every
                      identity of a roster is believed
    minimum_cohort    at least the colluders believed to be enrolled, divided by `corrupt`
    contexts          what rounds may be about, digests of 32 bytes; None: whatever the session's context is
    require_post_quantum  whether the suite must be "x25519-mlkem768"
    lengths and ring  bound what a server can make the client compute and send
    """

    known: frozenset[Identity] | None
    minimum_cohort: int
    minimum_survivors: int = 3
    minimum_corrupt: float = 0.1
    minimum_security_bits: int = 40
    minimum_grinding_bits: int = 40
    minimum_vector_length: int = 1
    maximum_vector_length: int = 2**27
    minimum_ring_bits: int = 1
    maximum_ring_bits: int = 64
    adversary: Adversary = "active"
    contexts: frozenset[bytes] | None = None
    require_post_quantum: bool = False

    def __post_init__(self) -> None:
        require(self.minimum_cohort >= 3, "minimum_cohort", "at least 3", self.minimum_cohort)
        require(self.minimum_survivors >= 2, "minimum_survivors", "at least 2", self.minimum_survivors)
        require(0 <= self.minimum_corrupt < 1, "minimum_corrupt", "in [0, 1)", self.minimum_corrupt)
        for name in ("minimum_security_bits", "minimum_grinding_bits"):
            bits = getattr(self, name)
            require(0 <= bits <= MAXIMUM_SECURITY_BITS, name, f"in 0..{MAXIMUM_SECURITY_BITS}", bits)
        for name, most in (("vector_length", 2**36), ("ring_bits", 64)):
            low, high = getattr(self, f"minimum_{name}"), getattr(self, f"maximum_{name}")
            require(1 <= low <= most, f"minimum_{name}", f"in 1..{most}", low)
            require(low <= high <= most, f"maximum_{name}", f"in {low}..{most}", high)
        require(self.adversary in {"passive", "active"}, "adversary", "'passive' or 'active'", self.adversary)
        for context in self.contexts or ():
            require(len(context) == DIGEST_BYTES, "contexts", "digests of 32 bytes", len(context))
