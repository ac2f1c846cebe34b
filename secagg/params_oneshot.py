"""Frozen values of the one-upload protocol that every layer may know (PROTOCOL.md, part 2, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from math import isqrt

from secagg.errors import ParameterError
from secagg.params import (
    DIGEST_BYTES,
    MAXIMUM_SECURITY_BITS,
    ROUND_ID_BYTES,
    Adversary,
    Identity,
    ThreatModel,
    require,
)

ONESHOT_VERSION = 2
CHECKS = 16  # zeros behind every vector
MAXIMUM_UPLOAD_BITS = 44


class EpochPhase(IntEnum):
    """The phases of an epoch's start."""

    KEYS = 0
    ACCEPTANCE = 1


class OneShotPhase(IntEnum):
    """The phases of a round of the one-upload protocol (PROTOCOL.md, part 2, sections 4 and 5)."""

    UPLOAD = 0
    REVIEW = 1
    FETCH = 2  # with edges: packed vectors that are not in the sum
    AGREE = 3
    OPEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitteeParameters:
    """Public parameters of an epoch: the demands on its committee of decryptors.

    threat_model        of the committee
    minimum_candidates  fewest parties of which it is drawn
    minimum_committee   fewest members
    committee_size      most members wanted
    post_quantum        whether shares are sealed under ML-KEM-768 as well
    raises              ParameterError
    """

    epoch_id: bytes  # 16 random bytes, never reused
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    minimum_candidates: int = 4
    minimum_committee: int = 4
    committee_size: int = 256
    post_quantum: bool = True

    def __post_init__(self) -> None:
        require(len(self.epoch_id) == ROUND_ID_BYTES, "epoch_id", "16 bytes", len(self.epoch_id))
        size, minimum = self.committee_size, self.minimum_committee
        require(3 <= size <= 256, "committee_size", "in 3..256", size)
        require(3 <= minimum <= size, "minimum_committee", f"in 3..{size}", minimum)
        candidates = self.minimum_candidates
        require(minimum <= candidates <= 2**16, "minimum_candidates", f"in {minimum}..2^16", candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotParameters:
    """Public parameters of a round of the one-upload protocol.

    contexts             1 to 16 digests of what uploads may be about, ascending; one in a synchronous round
    maximum_uploads      the noise is dimensioned for so many
    minimum_survivors    fewest uploads in a sum
    minimum_per_context  fewest of each context that occurs in it; 0: minimum_survivors
    colluding            clients that collude with the server, at most; at least 1 where clients see the sum
    raises               ParameterError
    """

    round_id: bytes  # 16 random bytes, never reused
    committee_digest: bytes
    vector_length: int
    ring_bits: int
    contexts: tuple[bytes, ...]
    maximum_uploads: int
    minimum_survivors: int = 3
    minimum_per_context: int = 0
    colluding: int = 1

    def __post_init__(self) -> None:
        require(len(self.round_id) == ROUND_ID_BYTES, "round_id", "16 bytes", len(self.round_id))
        digest = self.committee_digest
        require(len(digest) == DIGEST_BYTES, "committee_digest", "32 bytes", len(digest))
        require(1 <= self.vector_length <= 2**27, "vector_length", "in 1..2^27", self.vector_length)
        require(1 <= self.ring_bits <= 40, "ring_bits", "in 1..40", self.ring_bits)
        require(1 <= len(self.contexts) <= 16, "contexts", "1 to 16 digests", len(self.contexts))
        for context in self.contexts:
            require(len(context) == DIGEST_BYTES, "contexts", "digests of 32 bytes", len(context))
        ascending = list(self.contexts) == sorted(set(self.contexts))
        require(ascending, "contexts", "ascending", [context.hex()[:12] for context in self.contexts])
        most = self.maximum_uploads
        require(2 <= most <= 2**20, "maximum_uploads", "in 2..2^20", most)
        require(self.minimum_survivors >= 2, "minimum_survivors", "at least 2", self.minimum_survivors)
        if self.minimum_per_context == 0:
            object.__setattr__(self, "minimum_per_context", self.minimum_survivors)
        per_context = self.minimum_per_context
        require(per_context >= 1, "minimum_per_context", "at least 1", per_context)
        require(0 <= self.colluding <= 2**20 - 2, "colluding", "in 0..2^20 - 2", self.colluding)
        for name, value in (
            ("effective minimum", self.effective_minimum),
            ("effective minimum per context", self.effective_minimum_per_context),
        ):
            require(value <= most, name, f"at most maximum_uploads = {most}", value)
        noise_bits(self.ring_bits, most)

    @property
    def effective_minimum(self) -> int:
        """Fewest uploads in a sum, two of them of clients that do not collude."""
        return max(self.minimum_survivors, self.colluding + 2)

    @property
    def effective_minimum_per_context(self) -> int:
        """Fewest uploads of a context that occurs in a sum."""
        return max(self.minimum_per_context, self.colluding + 2)

    @property
    def upload_bits(self) -> int:
        """b': bits of an entry on the wire."""
        return self.ring_bits + noise_bits(self.ring_bits, self.maximum_uploads)

    @property
    def entries(self) -> int:
        """Entries of an upload: the vector's and the checks."""
        return self.vector_length + CHECKS


def noise_bits(ring_bits: int, maximum_uploads: int) -> int:
    """g: bits below the vector's that the noise of so many uploads takes (PROTOCOL.md, part 2, section 2).

    raises  ParameterError
    """
    spread = min(maximum_uploads, isqrt(12 * maximum_uploads) + 1)
    for bits in range(1, MAXIMUM_UPLOAD_BITS - ring_bits + 1):
        if 2 ** (bits - 1) >= spread + (3 * maximum_uploads >> 51 - ring_bits - bits) + 4:
            return bits
    raise ParameterError(
        f"ring_bits, maximum_uploads: must leave room for the noise in {MAXIMUM_UPLOAD_BITS} bits, are "
        f"{ring_bits} and {maximum_uploads}: lower one of them, or use the pairwise protocol"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotPolicy:
    """The demands of a client, or of a decryptor, on committee and round, checked before it takes part.

    known               clients enrolled in its own registry; None: it has none
    decryptors          identities that may be candidates; None: it has no registry of its own
    minimum_candidates  so many that `corrupt` of them are at least the decryptors believed to collude
    minimum_colluding   the clients believed to collude, at least 1 where clients see the sum
    require_post_quantum  whether shares must be sealed under ML-KEM-768, too
    adversary           "active": a passive committee is refused
    the rest            bounds on the field of committee or round that they are named after
    raises              ParameterError
    """

    known: frozenset[Identity] | None
    decryptors: frozenset[Identity] | None
    minimum_candidates: int = 4
    minimum_committee: int = 4
    minimum_corrupt: float = 0.1
    minimum_security_bits: int = 40
    minimum_grinding_bits: int = 40
    minimum_survivors: int = 3
    minimum_per_context: int = 3
    minimum_colluding: int = 1
    maximum_vector_length: int = 2**27
    maximum_ring_bits: int = 40
    maximum_uploads: int = 2**20
    require_post_quantum: bool = True
    adversary: Adversary = "active"

    def __post_init__(self) -> None:
        require(self.minimum_committee >= 3, "minimum_committee", "at least 3", self.minimum_committee)
        least = f"at least minimum_committee = {self.minimum_committee}"
        candidates = self.minimum_candidates
        require(candidates >= self.minimum_committee, "minimum_candidates", least, candidates)
        require(0 <= self.minimum_corrupt < 1, "minimum_corrupt", "in [0, 1)", self.minimum_corrupt)
        for name in ("minimum_security_bits", "minimum_grinding_bits"):
            bits = getattr(self, name)
            require(0 <= bits <= MAXIMUM_SECURITY_BITS, name, f"in 0..{MAXIMUM_SECURITY_BITS}", bits)
        require(self.minimum_survivors >= 2, "minimum_survivors", "at least 2", self.minimum_survivors)
        require(self.minimum_per_context >= 1, "minimum_per_context", "at least 1", self.minimum_per_context)
        require(self.minimum_colluding >= 0, "minimum_colluding", "at least 0", self.minimum_colluding)
        require(self.adversary in {"passive", "active"}, "adversary", "'passive' or 'active'", self.adversary)
