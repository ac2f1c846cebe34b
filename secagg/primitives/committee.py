"""Who is in a committee, and its numbers (PROTOCOL.md, part 2, section 2). Everything in exact integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb

from secagg.errors import InfeasibleParameters
from secagg.params import MILLION, Identity, ThreatModel, require
from secagg.primitives.labels import ONESHOT

MAXIMUM_CANDIDATES = 2**16
MAXIMUM_COMMITTEE = 256
_MARGIN_BITS = 20


@dataclass(frozen=True, slots=True)
class CommitteeNumbers:
    """What follows from candidates, committee size and threat model.

    members            m
    privacy_threshold  T: so many members learn nothing
    packing            rho: secrets in one polynomial
    quorum             signatures that rule out another sum; 0: passive
    liars              T', the members whose lies are expected at most; 0: passive
    dropouts           L, the members that may be lost over the epoch
    """

    members: int
    privacy_threshold: int
    packing: int
    quorum: int
    liars: int
    dropouts: int

    @property
    def base(self) -> int:
        """T + rho: openings that give the sum."""
        return self.privacy_threshold + self.packing

    @property
    def corrected(self) -> int:
        """R: wrong openings that are corrected with all dropouts gone; passive: 0."""
        return (self.members - self.dropouts - self.base) // 2 if self.quorum else 0


@lru_cache(maxsize=256)
def committee_parameters(
    candidates: int, committee_size: int, minimum_committee: int, model: ThreatModel
) -> CommitteeNumbers:
    """Numbers of a committee that so many candidates form.

    raises  ParameterError; InfeasibleParameters, which says which demand to relax
    """
    require(1 <= candidates <= MAXIMUM_CANDIDATES, "candidates", f"in 1..{MAXIMUM_CANDIDATES}", candidates)
    limit = f"in 3..{MAXIMUM_COMMITTEE}"
    require(3 <= committee_size <= MAXIMUM_COMMITTEE, "committee_size", limit, committee_size)
    require(
        3 <= minimum_committee <= committee_size,
        "minimum_committee",
        "in 3..committee_size",
        minimum_committee,
    )
    n, m, active = candidates, min(candidates, committee_size), model.active
    corrupt, gone = _ceiling(model.corrupt_ppm, n), _ceiling(model.dropout_ppm, n)
    if n <= committee_size:
        threshold = liars = max(1, corrupt)
        dropouts = gone
    else:
        strength = model.security_bits + (model.grinding_bits if active else 0)
        threshold = max(1, smallest_bound(n, corrupt, m, strength))
        liars = max(1, smallest_bound(n, corrupt, m, model.correctness_bits))
        dropouts = smallest_bound(n, gone, m, model.correctness_bits)
    packing = max(1, m - dropouts - threshold - (3 * liars if active else 0))
    if n <= committee_size:
        whole, packing = packing, max(1, min(packing, m // 8))
        raised = threshold + whole - packing
        threshold = min(raised, max(threshold, m - 2 * dropouts - 2 * liars - 1)) if active else raised
    quorum = max((m + threshold) // 2 + 1, m - dropouts - liars) if active else 0
    found = CommitteeNumbers(m, threshold, packing, quorum, liars if active else 0, dropouts)
    _check(found, minimum_committee)
    return found


def _check(numbers: CommitteeNumbers, minimum_committee: int) -> None:
    m, there = numbers.members, numbers.members - numbers.dropouts
    if m < minimum_committee:
        raise InfeasibleParameters(
            f"a committee of {m}, minimum_committee is {minimum_committee}: wait for more candidates"
        )
    if there < numbers.base:
        raise InfeasibleParameters(
            f"{there} of {m} members stay, {numbers.base} openings are needed: lower corrupt or dropout, or "
            "have more candidates"
        )
    if there < numbers.quorum:
        raise InfeasibleParameters(
            f"{there} of {m} members stay, a quorum is {numbers.quorum}: lower dropout or corrupt, or have "
            "more candidates"
        )


def _ceiling(ppm: int, n: int) -> int:
    return -(-ppm * n // MILLION)


def smallest_bound(population: int, marked: int, draws: int, bits: int) -> int:
    """Smallest x with P[more than x of `draws` drawn without replacement are marked] <= 2^-bits, nearly.

    The tail is multiplied by 2^20 / (2^20 - 1), so that whoever computes it otherwise agrees.
    """
    bound = ((1 << _MARGIN_BITS) - 1) * comb(population, draws)
    tail, x = 0, min(marked, draws)
    while x > 0:
        tail += comb(marked, x) * comb(population - marked, draws - x)
        if tail << (bits + _MARGIN_BITS) > bound:
            break
        x -= 1
    return x


def members_of(candidates: Sequence[Identity], candidates_digest: bytes, size: int) -> tuple[int, ...]:
    """Return indices, ascending, of the `size` candidates of smallest place; all when there are no more.

    candidates  by identity
    """
    if len(candidates) <= size:
        return tuple(range(len(candidates)))
    places = [ONESHOT.digest("committee-place", candidates_digest, identity) for identity in candidates]
    return tuple(sorted(sorted(range(len(candidates)), key=places.__getitem__)[:size]))
