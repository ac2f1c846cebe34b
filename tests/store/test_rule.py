"""No combination of the sums about one subject isolates a member, whoever is asked to sign, in any order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import ThreatModel
from secagg.store import DEALT, LedgerError, MemoryStore, ParticipationLedger, cells, floor_for
from tests.store.spans import Set, isolated, quorum, signed_by_nobody_twice, smallest_support, take

SUBJECT = b"s" * 32


def name(member: int) -> bytes:
    return bytes([member]) * 32


def named(members: Iterable[int]) -> frozenset[bytes]:
    return frozenset(map(name, members))


class Server:
    """A server that lies as it likes, and honest members with their ledgers."""

    def __init__(self, honest: Collection[int], colluding: Set = frozenset()) -> None:
        self.floor = len(colluding) + 2
        self.honest, self.colluding = frozenset(honest), colluding
        self.ledgers = {member: ParticipationLedger(MemoryStore()) for member in honest}
        self.sums: list[Set] = []
        self._round = 0

    def sum(self, members: Set, asked: Sequence[int] = (), cohort: Collection[int] | None = None) -> bool:
        """Run a round with these; ask some to sign first, and no more than needed. Whether it comes out."""
        self._round += 1
        round_id = self._round.to_bytes(16, "big")
        among = None if cohort is None else named(cohort)
        for member in members & self.honest:
            try:
                self.ledgers[member].join(SUBJECT, cohort=among, floor=self.floor)
            except LedgerError:
                return False  # it does not upload
            self.ledgers[member].uploaded(SUBJECT, round_id, name(member), 0)
        signatures = len(members & self.colluding)
        for member in [*asked, *sorted(members - frozenset(asked))]:
            if signatures >= quorum(len(members), len(self.colluding)):
                break
            if member in self.honest & members:
                try:
                    self.ledgers[member].sign(SUBJECT, round_id, named(members), floor=self.floor)
                except LedgerError:
                    continue
                signatures += 1
        if signatures < quorum(len(members), len(self.colluding)):
            return False
        self.sums.append(members)
        return True

    def isolates(self) -> set[int]:
        return isolated(self.sums, self.honest)


def four_sums() -> tuple[Set, list[Set]]:
    """S1 - S2 - S3 + S4 = v; nobody is in more than two of them."""
    v, x, y, z, zz = take(1, 6, 6, 6, 6)
    return v, [v | x | y, x | z, y | zz, z | zz]


def two_nested_pairs() -> tuple[Set, list[Set], list[Set]]:
    """S1 - S2 - S3 + S4 = v; the majorities p and f sign, and each is shown one nested pair."""
    v, w, p, f = take(1, 3, 8, 8)
    return v, [p | w | v, p, f | w, f], [p, p, f, f]


def test_sums_of_which_each_pair_differs_by_many_isolate_a_member() -> None:
    v, sums = four_sums()
    everybody = frozenset().union(*sums)
    assert all(len(one ^ two) >= 10 for one, two in combinations(sums, 2))
    assert all(sum(member in one for one in sums) <= 2 for member in everybody)
    assert isolated(sums, everybody) == set(v)


def test_nested_sums_isolate_a_member_that_was_never_asked() -> None:
    """Each who signs sees two sets, the smaller more than half of the larger, apart by the floor."""
    v, sums, signers = two_nested_pairs()
    colluders = 1
    floor = colluders + 2
    for (larger, majority), (smaller, again) in (
        ((sums[0], signers[0]), (sums[1], signers[1])),
        ((sums[2], signers[2]), (sums[3], signers[3])),
    ):
        assert smaller < larger
        assert len(larger - smaller) >= floor
        assert 2 * len(smaller) > len(larger)
        for asked, one in ((majority, larger), (again, smaller)):
            assert asked <= one
            assert len(asked) >= quorum(len(one), colluders)
    assert not (signers[0] | signers[2]) & (v | (sums[0] & sums[2]))  # v and w never signed
    assert isolated(sums, frozenset().union(*sums)) == set(v)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_four_sums_do_not_all_come_out(order: tuple[int, ...]) -> None:
    _, sums = four_sums()
    server = Server(frozenset().union(*sums))
    for i in order:
        # whoever is in no later sum first
        later = [sums[j] for j in order[order.index(i) + 1 :]]
        asked = sorted(sums[i], key=lambda member: sum(member in one for one in later))
        server.sum(sums[i], asked)
    assert len(server.sums) < 4
    assert server.isolates() == set()


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_nested_pairs_do_not_all_come_out(order: tuple[int, ...]) -> None:
    _, sums, signers = two_nested_pairs()
    server = Server(frozenset().union(*sums))
    for i in order:
        server.sum(sums[i], sorted(signers[i]))
    assert len(server.sums) < 4
    assert server.isolates() == set()


@pytest.mark.parametrize("left_out", [1, 2, 3])
def test_who_is_left_out_with_colluders_or_alone_is_not_isolated(left_out: int) -> None:
    colluding = frozenset({0, 1})
    everybody = frozenset(range(10))
    server = Server(everybody - colluding, colluding)
    smaller = everybody - frozenset(range(3 - left_out, 3))  # member 2, and colluders
    assert server.sum(everybody, sorted(everybody))
    assert not server.sum(smaller, sorted(everybody, reverse=True))
    assert server.isolates() == set()


@pytest.mark.parametrize(("members", "most", "colluders"), [(5, 4, 0), (6, 3, 0), (5, 4, 1), (6, 3, 1)])
def test_no_family_that_isolates_a_member_has_quorums_in_which_nobody_signs_twice(
    members: int, most: int, colluders: int
) -> None:
    """Every family of up to `most` sets, exhaustively."""
    colluding, everybody = frozenset(range(colluders)), range(members)
    allowed = [
        frozenset(one) for size in range(colluders + 2, members + 1) for one in combinations(everybody, size)
    ]
    found = 0
    for size in range(1, most + 1):
        for sums in combinations(allowed, size):
            if len({one - colluding for one in sums}) < size:
                continue  # colluders know their own vectors: one of them is enough
            if signed_by_nobody_twice(sums, colluding, colluders):
                found += size > 1
                assert not isolated(sums, frozenset(everybody) - colluding), sums
    assert found > 10  # some do come out together


@pytest.mark.slow
@settings(deadline=None)
@given(st.data())
def test_a_server_that_asks_whom_it_likes_isolates_nobody(data: st.DataObject) -> None:
    """With and without cohorts, mixed, in any order; a lie about the cohort goes to everybody in a sum."""
    colluding = frozenset(range(data.draw(st.integers(0, 2), label="colluders")))
    everybody = frozenset(range(10 + len(colluding)))
    server = Server(everybody - colluding, colluding)
    half = len(everybody) // 2
    cohorts = [None, everybody, frozenset(range(half + 2)), everybody - frozenset(range(half - 2))]
    for _ in range(data.draw(st.integers(1, 8), label="rounds")):
        cohort = data.draw(st.sampled_from(cohorts))
        within = sorted(everybody if cohort is None else cohort)
        dealt: list[Set] = []
        if cohort is not None:
            dealt = [
                frozenset(one[0] for one in cell) for cell in cells(DEALT, named(cohort), floor=server.floor)
            ]
        free = st.frozensets(st.sampled_from(within), min_size=server.floor)
        whole = st.sets(st.sampled_from(dealt or [everybody]), min_size=1).map(
            lambda some: frozenset().union(*some)
        )
        members = data.draw(st.one_of(free, whole) if dealt else free)
        server.sum(members, data.draw(st.permutations(sorted(members))), cohort)
    assert server.isolates() == set()


@settings(deadline=None)
@given(
    st.integers(6, 9), st.integers(2, 3), st.lists(st.frozensets(st.integers(0, 8)), min_size=1, max_size=8)
)
def test_sums_within_a_cohort_never_tell_fewer_than_the_floor_apart(
    members: int, floor: int, wanted: list[Set]
) -> None:
    """All of them signed by one member's ledger; whatever is left of a combination has the floor."""
    book, everybody = ParticipationLedger(MemoryStore()), range(members)
    book.join(SUBJECT, cohort=named(everybody), floor=floor)
    sums = []
    for number, one in enumerate([*wanted, frozenset(everybody)]):
        inside = one & frozenset(everybody)
        for asked in (
            inside,
            frozenset(m[0] for m in book.advice(SUBJECT, named(inside), floor=floor).members),
        ):
            try:
                book.sign(SUBJECT, number.to_bytes(16, "big"), named(asked), floor=floor)
            except LedgerError:
                continue
            sums.append(asked)
    assert smallest_support(sums, everybody, floor) == floor


@pytest.mark.parametrize(
    ("corrupt", "clients", "floor"), [(0.0, 10, 2), (0.1, 10, 3), (0.1, 11, 4), (0.3, 7, 5)]
)
def test_the_floor_is_two_more_than_the_colluders(corrupt: float, clients: int, floor: int) -> None:
    assert floor_for(ThreatModel(corrupt=corrupt), clients) == floor
