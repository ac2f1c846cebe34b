"""Dealing a cohort into cells: groups that are summed whole or not at all. Pure functions of public values.

Everybody who knows subject, cohort and floor deals alike. The cells are the smallest groups, as many as
there can be with `floor` members each; level l puts neighboring cells together into 2^l groups, so that a
group of one level is made of whole groups of the next. (Groups halved by members instead would be of more
even sizes, and larger at the bottom: one member that is lost would take up to twice as many along.)
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from secagg.params import require
from secagg.primitives.labels import digest, digests

Members = frozenset[bytes]


def cells(subject: bytes, cohort: Collection[bytes], *, floor: int) -> tuple[Members, ...]:
    """Deal a cohort into cells of at least `floor` members, sizes differ by at most one.

    The order is that of H("deal", subject, H("cohort", members), member): nobody chooses a place without
    choosing another cohort.

    raises  ParameterError when the cohort has fewer members than one cell
    """
    members = sorted(set(cohort))
    require(floor >= 1, "floor", "at least 1", floor)
    require(len(members) >= floor, "cohort", f"at least {floor} members", len(members))
    common = digest("deal", subject, digest("cohort", *members))
    places = dict(zip(members, digests("place in a deal", common, members, len(members[0])), strict=True))
    return _contiguous(sorted(members, key=places.__getitem__), len(members) // floor)


def deal(subject: bytes, cohort: Collection[bytes], level: int, *, floor: int) -> tuple[Members, ...]:
    """Deal a cohort into 2^level groups of whole cells, or into the cells where there are no more of them.

    raises  ParameterError
    """
    require(level >= 0, "level", "at least 0", level)
    dealt = cells(subject, cohort, floor=floor)
    groups = min(1 << min(level, 32), len(dealt))
    return tuple(frozenset().union(*dealt[first:last]) for first, last in _bounds(len(dealt), groups))


def is_cell(subject: bytes, larger: Collection[bytes], smaller: Collection[bytes], *, floor: int) -> bool:
    """Return whether `smaller` is, whole, one of the groups that `larger` is dealt into at some level."""
    wanted = frozenset(smaller)
    if len(set(larger)) < floor:
        return False
    deepest = (len(set(larger)) // floor).bit_length()
    return any(wanted in deal(subject, larger, level, floor=floor) for level in range(deepest + 1))


def whole_cells(dealt: Collection[Members], members: Collection[bytes]) -> Members:
    """Return who of these is in a cell that is here as a whole."""
    here = frozenset(members)
    return frozenset().union(*(cell for cell in dealt if cell <= here))


def _contiguous(order: list[bytes], groups: int) -> tuple[Members, ...]:
    return tuple(frozenset(order[first:last]) for first, last in _bounds(len(order), groups))


def _bounds(length: int, groups: int) -> list[tuple[int, int]]:
    return list(pairwise(i * length // groups for i in range(groups + 1)))
