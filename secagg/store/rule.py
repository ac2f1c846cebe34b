"""The rule for sums about one subject: which may come out, and why no combination isolates a member.

Several sums over the same vectors are a system of linear equations: what is learned is their row span, not
their pairwise differences. Over S1 = {v} + X + Y, S2 = X + Z, S3 = Y + Z', S4 = Z + Z', for instance,
S1 - S2 - S3 + S4 is v alone, though each pair differs by many and nobody is in more than two of them. The
promise is that of a single sum: whatever is learned is about the vectors of two honest members or more.

*Who can object.* A sum over S comes out when more than (n + A) / 2 of a roster of n signed S; A bounds the
colluders, who sign anything. So more than half of the honest members of S signed: of s of them, (s + 1) / 2
or more. The others uploaded, were perhaps never asked to sign, and know no S. That is why comparing pairs
is not enough even where only S1 > S2 with a large difference is allowed: from S1 = P + W + {v}, S2 = P,
S3 = F + W, S4 = F, with majorities P and F, the server learns v = S1 - S2 - S3 + S4; P has seen a
difference of W + {v}, F one of W, and W and v, in whose interest it is, were never asked. What protects
them must be settled before they upload. There are two ways; a ledger stays with one for each subject.

*One set (no cohort).* A member signs one S about a subject, and that one as often as it likes.
    Suppose that k >= 2 different sums, in a combination that needs each of them, leave the vectors of h
    honest members. Every other honest member in them is in two or more, for it cancels: their sizes add up
    to 2u - h at least, of u honest members in all. The signatures of the honest add up to half of this and
    k / 2 at least, u + (k - h) / 2, and nobody gave two. So h >= k >= 2. For k = 1, S itself has at least
    A + 2 members. (By induction nothing depends on rosters, on the order of rounds, on who was asked.)

*Whole cells of a cohort.* Before it uploads about a subject, a member knows the cohort K and the floor f, and
that everybody whose vector is in the sum has the same: they are in the round's context, or K is the set U1
of a round whose context says so, and f follows from parameters and K. A member has one K for a subject,
for good, and signs an S only when S is made of whole cells of K (`deal`), of f >= A + 2 members each.
    Honest members of one sum have the same K, so that sums with different K share none, and nothing honest
    cancels between them. Sums with the same K are constant on each cell, for an honest signer looked. So is
    every combination of them: what it leaves is made of whole cells, two honest members in each.
    Here members may leave and come back, and a sum that somebody spoiled may be dealt into groups; who drops
    out takes the rest of its cell along, A + 1 members where cells are smallest.

Sets that share no member never matter to each other: of the members of one, nothing is in the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from secagg.params import MILLION, ThreatModel
from secagg.store.concerns import Concern, ConcernKind
from secagg.store.deal import Members, cells, whole_cells

DEALT = b"cohort"  # cells follow from cohort and floor alone: not everybody may know a subject by one name


def floor_for(model: ThreatModel, clients: int) -> int:
    """Return A + 2: fewest members of which two are honest, in a roster or cohort of so many clients."""
    return -(-model.corrupt_ppm * clients // MILLION) + 2


@dataclass(frozen=True, slots=True)
class Cohort:
    """The clients that are summed about a subject, in cells of at least `floor` members."""

    members: Members
    floor: int


@dataclass(frozen=True, slots=True)
class Past:
    """The past of a subject: its cohort, and the sums that were signed or came out, by round."""

    subject: bytes
    cohort: Cohort | None
    sums: tuple[tuple[bytes, Members], ...]

    def cells(self) -> tuple[Members, ...]:
        """Deal the cohort; without one, nothing."""
        if self.cohort is None:
            return ()
        return cells(DEALT, self.cohort.members, floor=self.cohort.floor)


def objections(past: Past, members: Members, floor: int, *, same: bool) -> Iterator[Concern]:
    """Yield what speaks against a sum over these members.

    same  whether it must be over the members of every earlier one, whole cells or not
    """
    if len(members) < floor:
        detail = f"it is over {len(members)}, at least {floor} are needed: wait until more are here"
        yield Concern(ConcernKind.TOO_FEW, tuple(sorted(members)), detail)
    if past.cohort is not None:
        yield from _broken_cells(past, past.cohort, members, floor)
    if past.cohort is None or same:
        yield from _other_sets(past, members, floor)


def _other_sets(past: Past, members: Members, floor: int) -> Iterator[Concern]:
    seen: set[Members] = set()
    for round_id, others in past.sums:
        apart = others ^ members
        if not apart or others.isdisjoint(members) or others in seen:
            continue
        seen.add(others)
        detail = (
            f"differs from the sum of round {round_id.hex()} by {len(apart)} members: with other sums, fewer "
            f"than {floor} could be told apart. Sum over the same members again{_away(others - members)}, or "
            f"agree on a cohort before the first upload, and leave out whole cells of it"
        )
        yield Concern(ConcernKind.DIFFERENCING, tuple(sorted(apart)), detail)


def _away(missing: Members) -> str:
    return f" (wait for {len(missing)} of them)" if missing else ""


def _broken_cells(past: Past, cohort: Cohort, members: Members, floor: int) -> Iterator[Concern]:
    if floor > cohort.floor:
        detail = f"its cells are of {cohort.floor} members or more, at least {floor} are needed"
        yield Concern(ConcernKind.COHORT, tuple(sorted(members)), detail)
    if strangers := members - cohort.members:
        detail = f"{len(strangers)} members are not of the cohort of {len(cohort.members)}: leave them out"
        yield Concern(ConcernKind.COHORT, tuple(sorted(strangers)), detail)
    broken = (members & cohort.members) - whole_cells(past.cells(), members)
    if not broken:
        return
    missing = [cell - members for cell in past.cells() if cell & broken]
    after = f"after the sum of round {past.sums[-1][0].hex()}, " if past.sums else ""
    detail = (
        f"{after}{sum(map(len, missing))} members are missing from {len(missing)} cells of which "
        f"{len(broken)} are in it, at least {cohort.floor} must leave together: wait for those missing, "
        f"or leave out these {len(broken)}, too"
    )
    yield Concern(ConcernKind.DIFFERENCING, tuple(sorted(broken)), detail)
