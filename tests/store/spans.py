"""What several sums tell together: linear algebra over the rationals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from itertools import combinations

Set = frozenset[int]


Row = list[Fraction]


def reduced(sums: Iterable[Set], seen: Sequence[int]) -> list[Row]:
    """Return the reduced row echelon form of the sums, as equations between the vectors of `seen`."""
    return echelon([[Fraction(member in one) for member in seen] for one in sums])


def echelon(equations: Iterable[Row]) -> list[Row]:
    """Return the reduced row echelon form of equations between vectors, one coefficient for each."""
    rows, done = [list(one) for one in equations], list[Row]()
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        pivot = [value / pivot[column] for value in pivot]

        def cleared(row: Row, pivot: Row = pivot, at: int = column) -> Row:
            return [value - row[at] * other for value, other in zip(row, pivot, strict=True)]

        rows, done = [cleared(row) for row in rows], [*map(cleared, done), pivot]
    return done


def alone(equations: Iterable[Row]) -> set[int]:
    """Which vectors follow from equations, by their columns.

    A unit vector of the span is a row of the reduced form: the span's vectors are determined by their pivots.
    """
    return {
        next(i for i, value in enumerate(row) if value)
        for row in echelon(equations)
        if sum(map(bool, row)) == 1
    }


def isolated(sums: Iterable[Set], honest: Collection[int]) -> set[int]:
    """Whose vector follows from the sums, for one who knows those of all that are not honest."""
    seen = sorted(honest)
    return {seen[i] for i in alone([[Fraction(member in one) for member in seen] for one in sums])}


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
