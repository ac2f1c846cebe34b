"""The numbers of a committee against the specification in exact fractions; its members by hand."""

import hashlib
from fractions import Fraction
from math import comb
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from secagg.errors import InfeasibleParameters, ParameterError
from secagg.params import Identity, ThreatModel
from secagg.primitives.committee import (
    CommitteeNumbers,
    committee_parameters,
    members_of,
    smallest_bound,
)

MILLION = 10**6
ROOM = 1 - Fraction(1, 2**20)  # the tails are compared with bounds that much smaller
TENTHS = ThreatModel(corrupt=0.1, dropout=0.1)


# --- the specification once more -------------------------------------------------------------------


def tail(population: int, marked: int, draws: int, x: int) -> Fraction:
    """P[more than x of `draws` are marked], drawn without replacement."""
    ways = sum(
        comb(marked, j) * comb(population - marked, draws - j) for j in range(x + 1, min(marked, draws) + 1)
    )
    return Fraction(ways, comb(population, draws))


def smallest(population: int, marked: int, draws: int, bits: int) -> int:
    bound = Fraction(1, 2**bits) * ROOM
    return next(x for x in range(draws + 1) if tail(population, marked, draws, x) <= bound)


class Specified(NamedTuple):
    m: int
    T: int
    rho: int
    quorum: int
    liars: int
    dropouts: int
    R: int


def rounded_up(ppm: int, n: int) -> int:
    return int(-(Fraction(-ppm * n, MILLION) // 1))


def specified(n: int, size: int, model: ThreatModel) -> Specified:
    """Without the demands at the end, which some numbers fail."""
    colluding, lost = rounded_up(model.corrupt_ppm, n), rounded_up(model.dropout_ppm, n)
    everybody = n <= size
    m = n if everybody else size
    if everybody:
        T = liars = max(1, colluding)
        dropouts = lost
    else:
        T = max(
            1,
            smallest(n, colluding, m, model.security_bits + (model.grinding_bits if model.active else 0)),
        )
        liars = max(1, smallest(n, colluding, m, model.correctness_bits))
        dropouts = smallest(n, lost, m, model.correctness_bits)
    if not model.active:
        liars = 0
    rho = max(1, m - dropouts - T - 3 * liars)
    if everybody:
        cut = max(1, min(rho, m // 8))
        whole = T + rho - cut
        T = min(whole, max(T, m - 2 * dropouts - 2 * liars - 1)) if model.active else whole
        rho = cut
    quorum = max((m + T) // 2 + 1, m - dropouts - liars) if model.active else 0
    R = (m - dropouts - T - rho) // 2 if model.active else 0
    return Specified(m, T, rho, quorum, liars, dropouts, R)


def of(numbers: CommitteeNumbers) -> Specified:
    return Specified(
        numbers.members,
        numbers.privacy_threshold,
        numbers.packing,
        numbers.quorum,
        numbers.liars,
        numbers.dropouts,
        numbers.corrected,
    )


def feasible(one: Specified) -> bool:
    there = one.m - one.dropouts
    return there >= one.T + one.rho and there >= one.quorum


rates = st.integers(0, 400_000).map(lambda ppm: ppm / MILLION)
models = st.builds(
    ThreatModel,
    corrupt=rates,
    dropout=rates,
    adversary=st.sampled_from(["passive", "active"]),
    security_bits=st.integers(0, 60),
    correctness_bits=st.integers(0, 40),
    grinding_bits=st.integers(0, 60),
)


# --- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m", "T", "rho", "quorum", "L"),
    [
        (4, 4, 1, 1, 3, 1),
        (8, 8, 3, 1, 6, 1),
        (16, 16, 6, 2, 12, 2),
        (64, 64, 28, 8, 50, 7),
        (200, 200, 95, 25, 160, 20),
    ],
)
def test_the_examples_of_the_specification(n: int, m: int, T: int, rho: int, quorum: int, L: int) -> None:
    numbers = committee_parameters(n, 256, 4, TENTHS)
    assert (numbers.members, numbers.privacy_threshold, numbers.packing) == (m, T, rho)
    assert (numbers.quorum, numbers.dropouts) == (quorum, L)
    assert numbers.base == T + rho
    assert numbers.corrected == (m - L - T - rho) // 2


@pytest.mark.parametrize(("dropout", "rho"), [(0.05, 19), (0.1, 1)])
def test_a_sample_of_256_of_a_thousand_costs_packing(dropout: float, rho: int) -> None:
    model = ThreatModel(corrupt=0.1, dropout=dropout)
    numbers = committee_parameters(1000, 256, 4, model)
    assert numbers.packing == rho
    assert of(numbers) == specified(1000, 256, model)


@settings(max_examples=150, deadline=None)
@given(n=st.integers(3, 120), size=st.integers(3, 40), model=models)
def test_the_numbers_are_those_of_the_specification(n: int, size: int, model: ThreatModel) -> None:
    expected = specified(n, size, model)
    assume(expected.m >= 3)
    if feasible(expected):
        assert of(committee_parameters(n, size, 3, model)) == expected
        return
    with pytest.raises(InfeasibleParameters):
        committee_parameters(n, size, 3, model)


@settings(max_examples=300)
@given(n=st.integers(3, 256), model=models)
def test_the_numbers_of_a_committee_of_everybody_are_those_of_the_specification(
    n: int, model: ThreatModel
) -> None:
    expected = specified(n, 256, model)
    assume(feasible(expected))
    assert of(committee_parameters(n, 256, 3, model)) == expected


@settings(max_examples=300, deadline=None)
@given(n=st.integers(3, 300), size=st.integers(3, 256), model=models)
def test_what_the_promise_rests_on_holds(n: int, size: int, model: ThreatModel) -> None:
    try:
        found = committee_parameters(n, size, 3, model)
    except InfeasibleParameters:
        return
    m, T = found.members, found.privacy_threshold
    assert 1 <= T < m
    assert found.packing >= 1
    assert T + found.packing <= m - found.dropouts
    if not model.active:
        assert found.quorum == found.liars == found.corrected == 0
        return
    assert 2 * found.quorum > m + T  # two quorums have an honest member in common
    assert found.quorum <= m - found.dropouts  # and there is one without those that were lost
    assert found.liars >= 1
    assert found.corrected == (m - found.dropouts - found.base) // 2
    if n <= size:
        assert rounded_up(model.corrupt_ppm, n) <= T
        assert found.packing <= max(1, m // 8)


@settings(max_examples=200)
@given(n=st.integers(3, 256), model=models)
def test_cutting_the_packing_asks_for_no_more_openings(n: int, model: ThreatModel) -> None:
    """T rises by no more than what the packing falls."""
    try:
        found = committee_parameters(n, 256, 3, model)
    except InfeasibleParameters:
        return
    colluding, lost = rounded_up(model.corrupt_ppm, n), rounded_up(model.dropout_ppm, n)
    before = max(1, colluding)
    uncut = max(1, n - lost - before - (3 * before if model.active else 0))
    assert before <= found.privacy_threshold
    assert found.base <= before + uncut


def test_ten_thousand_candidates_are_quick_and_exact() -> None:
    model = ThreatModel(corrupt=0.1, dropout=0.02)
    found = committee_parameters(10_000, 256, 4, model)
    bound = Fraction(1, 2**80) * ROOM
    assert tail(10_000, 1000, 256, found.privacy_threshold) <= bound
    assert tail(10_000, 1000, 256, found.privacy_threshold - 1) > bound
    loose = Fraction(1, 2**20) * ROOM
    assert tail(10_000, 200, 256, found.dropouts) <= loose < tail(10_000, 200, 256, found.dropouts - 1)
    assert tail(10_000, 1000, 256, found.liars) <= loose < tail(10_000, 1000, 256, found.liars - 1)


# --- tails -----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(data=st.data(), population=st.integers(1, 150), bits=st.integers(0, 100))
def test_a_bound_is_the_smallest_by_exact_fractions(data: st.DataObject, population: int, bits: int) -> None:
    marked, draws = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    assert smallest_bound(population, marked, draws, bits) == smallest(population, marked, draws, bits)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_tail_of_exactly_the_bound_is_too_much(bits: int) -> None:
    """One of 2^bits is marked, one is drawn: the margin of 2^-20 decides."""
    assert tail(2**bits, 1, 1, 0) == Fraction(1, 2**bits)
    assert smallest_bound(2**bits, 1, 1, bits) == 1
    assert smallest_bound(2**bits, 1, 1, bits - 1) == 0


def test_nobody_marked_and_nobody_drawn_give_zero() -> None:
    assert smallest_bound(100, 0, 20, 80) == smallest_bound(100, 30, 0, 80) == 0


def test_where_everybody_is_marked_everybody_drawn_is() -> None:
    assert smallest_bound(50, 50, 20, 10) == 20


def test_a_bound_of_no_bits_still_refuses_certainty() -> None:
    """2^-0 = 1, and with the margin a certain event is above it."""
    assert smallest_bound(10, 10, 3, 0) == 3
    assert smallest_bound(10, 1, 1, 0) == 0


# --- demands that cannot be met --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "minimum", "model", "says"),
    [
        (3, 256, 4, TENTHS, r"^a committee of 3, minimum_committee is 4: wait for more candidates$"),
        (
            10,
            256,
            4,
            ThreatModel(corrupt=0.9, dropout=0.1),
            r"^9 of 10 members stay, 10 openings are needed: lower corrupt or dropout, or have more candid",
        ),
        (
            10,
            256,
            4,
            ThreatModel(corrupt=0.5, dropout=0.5, adversary="passive"),
            r"^5 of 10 members stay, 6 openings are needed: lower corrupt or dropout, or have more candid",
        ),
        (
            3,
            256,
            3,
            TENTHS,
            r"^2 of 3 members stay, a quorum is 3: lower dropout or corrupt, or have more candidates$",
        ),
    ],
)
def test_what_is_infeasible_names_the_demand_to_relax(
    n: int, size: int, minimum: int, model: ThreatModel, says: str
) -> None:
    with pytest.raises(InfeasibleParameters, match=says):
        committee_parameters(n, size, minimum, model)


def test_three_members_do_where_none_is_lost() -> None:
    numbers = committee_parameters(3, 256, 3, ThreatModel(corrupt=0.1, dropout=0.0))
    assert of(numbers) == Specified(3, 1, 1, 3, 1, 0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"candidates": 0}, r"candidates: must be in 1\.\.65536, is 0"),
        ({"candidates": 2**16 + 1}, r"candidates: must be in 1\.\.65536, is 65537"),
        ({"committee_size": 2}, r"committee_size: must be in 3\.\.256, is 2"),
        ({"committee_size": 257}, r"committee_size: must be in 3\.\.256, is 257"),
        ({"minimum_committee": 2}, r"minimum_committee: must be in 3\.\.committee_size, is 2"),
        ({"minimum_committee": 21}, r"minimum_committee: must be in 3\.\.committee_size, is 21"),
    ],
)
def test_sizes_out_of_range_are_refused(change: dict[str, Any], says: str) -> None:
    right: dict[str, Any] = {"candidates": 20, "committee_size": 20, "minimum_committee": 4, "model": TENTHS}
    committee_parameters(**right)
    with pytest.raises(ParameterError, match=f"^{says}$"):
        committee_parameters(**(right | change))


# --- members ---------------------------------------------------------------------------------------

identity_lists = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=30, unique=True).map(
    lambda many: [Identity(one) for one in sorted(many)]
)
digests = st.binary(min_size=32, max_size=32)


def place(digest: bytes, identity: bytes) -> bytes:
    text = b"secagg/v2/committee-place\0"
    for part in (digest, identity):
        text += len(part).to_bytes(4, "big") + part
    return hashlib.sha256(text).digest()


@given(identities=identity_lists, digest=digests, size=st.integers(1, 32))
def test_members_are_the_candidates_of_smallest_place(
    identities: list[Identity], digest: bytes, size: int
) -> None:
    found = members_of(identities, digest, size)
    assert list(found) == sorted(found)
    assert len(found) == min(size, len(identities))
    chosen = sorted(identities, key=lambda identity: place(digest, identity))[:size]
    assert {identities[i] for i in found} == set(chosen)


@given(identities=identity_lists, digest=digests)
def test_a_larger_committee_keeps_the_members_of_a_smaller_one(
    identities: list[Identity], digest: bytes
) -> None:
    before: set[int] = set()
    for size in range(1, len(identities) + 1):
        now = set(members_of(identities, digest, size))
        assert before < now
        before = now


@given(identities=identity_lists, digest=digests, spare=st.integers(0, 5))
def test_everybody_is_a_member_where_there_is_room(
    identities: list[Identity], digest: bytes, spare: int
) -> None:
    count = len(identities)
    assert members_of(identities, digest, count + spare) == tuple(range(count))


def test_other_candidates_have_other_members() -> None:
    """Nobody can know its place before all candidates are known."""
    identities = [Identity(bytes([i]) * 32) for i in range(40)]
    drawn = {members_of(identities, bytes([i]) * 32, 5) for i in range(50)}
    assert len(drawn) > 45
    assert set().union(*map(set, drawn)) == set(range(40))
