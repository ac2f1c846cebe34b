"""What several sums tell together: linear algebra over the rationals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from itertools import combinations

Set = frozenset[int]


def reduced(sums: Iterable[Set], seen: Sequence[int]) -> list[list[Fraction]]:
    """Return the reduced row echelon form of the sums, as equations between the vectors of `seen`."""
    rows = [[Fraction(member in one) for member in seen] for one in sums]
    done: list[list[Fraction]] = []
    for column in range(len(seen)):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        pivot = [value / pivot[column] for value in pivot]

        def cleared(row: list[Fraction], pivot: list[Fraction] = pivot, at: int = column) -> list[Fraction]:
            return [value - row[at] * other for value, other in zip(row, pivot, strict=True)]

        rows, done = [cleared(row) for row in rows], [*map(cleared, done), pivot]
    return done


def isolated(sums: Iterable[Set], honest: Collection[int]) -> set[int]:
    """Whose vector follows from the sums, for one who knows those of all that are not honest.

    A unit vector of the span is a row of the reduced form: the span's vectors are determined by their pivots.
    """
    seen = sorted(honest)
    rows = reduced([one & frozenset(seen) for one in sums], seen)
    return {seen[row.index(Fraction(1))] for row in rows if sum(map(bool, row)) == 1}


def smallest_support(sums: Collection[Set], members: Collection[int], below: int) -> int:
    """Fewest vectors that a combination of the sums is about, or `below`."""
    whole = len(reduced(sums, sorted(members)))
    for size in range(1, below):
        for few in combinations(sorted(members), size):
            others = [member for member in members if member not in few]
            if len(reduced(sums, others)) < whole:  # a combination vanishes outside of these few
                return size
    return below


def quorum(roster: int, colluders: int) -> int:
    """As in the protocol (PROTOCOL.md, 3.5)."""
    return (roster + colluders) // 2 + 1


def signed_by_nobody_twice(sums: Sequence[Set], colluding: Set, most: int) -> bool:
    """Whether quorums exist for all these sums such that no honest member gives two signatures.

    Hall's condition, with the smallest roster, and colluders that sign everything that they are in.
    """
    wanted = [quorum(len(one), most) - len(one & colluding) for one in sums]
    return all(
        sum(wanted[i] for i in some) <= len(frozenset().union(*(sums[i] for i in some)) - colluding)
        for size in range(1, len(sums) + 1)
        for some in combinations(range(len(sums)), size)
    )


def take(*groups: int) -> list[Set]:
    """Disjoint groups of these sizes."""
    out, at = [], 0
    for size in groups:
        out.append(frozenset(range(at, at + size)))
        at += size
    return out
