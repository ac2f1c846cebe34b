"""Packed sharing against plain Lagrange interpolation, its degree test and its decoding."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import LATTICE_FIELD, RING, reference
from secagg.primitives.packed_sharing import (
    TESTS,
    Rebuilt,
    added,
    dealing_matrix,
    degree_tests,
    elements,
    in_range,
    pack_words,
    passes_tests,
    rebuild,
    rows,
    rows_of,
    secret_of,
    unpack_words,
    words_bytes,
)

Words = NDArray[np.uint64]
Q = LATTICE_FIELD.modulus
words_below_q = st.sampled_from([0, 1, 2, Q - 1, 2**49]) | st.integers(0, Q - 1)
any_words = words_below_q | st.integers(Q, 2**50 - 1)


@dataclass
class Deal:
    """An upload's sharing: base values (T + rho, B + TESTS), a share (B + TESTS,) for each member."""

    members: int
    threshold: int
    packing: int
    secret: Words
    base_values: Words
    shares: Words

    @property
    def base(self) -> int:
        return self.threshold + self.packing

    @property
    def count(self) -> int:
        return rows_of(self.packing)

    @property
    def openings(self) -> Words:
        """What members open of one upload: blinding rows stay closed."""
        return np.ascontiguousarray(self.shares[:, : self.count])


def drawn(rng: np.random.Generator, *shape: int) -> Words:
    return rng.integers(0, Q, shape, np.uint64)


def deal(members: int, threshold: int, packing: int, seed: int = 0) -> Deal:
    rng = np.random.default_rng(seed)
    base, count = threshold + packing, rows_of(packing)
    secret = drawn(rng, RING)
    base_values = rows(secret, drawn(rng, count * threshold), drawn(rng, TESTS * base), packing, threshold)
    shares = LATTICE_FIELD.weighted_sums(dealing_matrix(members, base), base_values)
    return Deal(members, threshold, packing, secret, base_values, shares)


def gamma_of(seed: int = 1) -> Words:
    return drawn(np.random.default_rng(seed), 4096)


def opened(one: Deal, who: list[int], openings: Words, correct: int, seed: int = 1) -> Rebuilt | None:
    points = np.array([index + 1 for index in who], np.uint64)
    return rebuild(points, openings, one.base, correct, lambda words: gamma_of(seed)[:words])


# small committees: members, T, rho
shapes = st.tuples(st.integers(1, 5), st.integers(128, 700), st.integers(0, 9)).map(
    lambda drawn_: (drawn_[0] + drawn_[1] + drawn_[2], drawn_[0], drawn_[1])
)
SMALL = (14, 3, 4)  # o - base up to 7: three wrong ones


# --- dealing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packing", "count"), [(1, 2048), (2, 1024), (3, 683), (8, 256), (25, 82), (256, 8), (2048, 1)]
)
def test_so_many_rows_carry_a_secret(packing: int, count: int) -> None:
    assert rows_of(packing) == count


def test_a_row_has_secrets_then_randomness_and_blinding_rows_come_last() -> None:
    packing, threshold = 700, 2  # three rows, the last with zeros behind
    secret = np.arange(1, RING + 1, dtype=np.uint64)
    randomness = np.array([11, 12, 21, 22, 31, 32], np.uint64) * np.uint64(10_000)
    blinding = np.arange(TESTS * (packing + threshold), dtype=np.uint64) + np.uint64(10**6)
    out = rows(secret, randomness, blinding, packing, threshold)
    assert out.shape == (702, 3 + TESTS)
    assert out[:, 0].tolist() == [*range(1, 701), 110_000, 120_000]
    assert out[:, 1].tolist() == [*range(701, 1401), 210_000, 220_000]
    assert out[:, 2].tolist() == [*range(1401, 2049), *[0] * 52, 310_000, 320_000]
    assert out[:, 3].tolist() == [*range(10**6, 10**6 + 702)]
    assert out[:, 4].tolist() == [*range(10**6 + 702, 10**6 + 1404)]


@pytest.mark.parametrize(("members", "threshold", "packing"), [(4, 1, 1), (16, 6, 2), (12, 3, 700)])
def test_a_share_is_the_value_of_the_polynomial_through_the_base_values(
    members: int, threshold: int, packing: int
) -> None:
    one = deal(members, threshold, packing)
    points = [Q - k for k in range(1, one.base + 1)]
    for j in (1, 2, members):
        weights = reference.lagrange(points, j, Q)
        for r in (0, one.count - 1, one.count, one.count + 1):
            column = one.base_values[:, r].tolist()
            expected = sum(w * v for w, v in zip(weights, column, strict=True)) % Q
            assert int(one.shares[j - 1, r]) == expected


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32), data=st.data())
def test_any_t_plus_rho_shares_rebuild_the_secret(
    shape: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    one = deal(*shape, seed)
    who = sorted(data.draw(st.permutations(range(one.members)))[: one.base])
    found = opened(one, who, one.openings[who], 0)
    assert found is not None
    assert not found.wrong.any()
    assert (found.values == one.base_values[:, : one.count]).all()
    assert (secret_of(found.values, one.packing) == one.secret).all()
    assert opened(one, who[1:], one.openings[who[1:]], 0) is None


def test_every_set_of_enough_members_rebuilds() -> None:
    one = deal(7, 2, 3)
    for who in combinations(range(7), one.base):
        found = opened(one, list(who), one.openings[list(who)], 0)
        assert found is not None
        assert (secret_of(found.values, 3) == one.secret).all()


def test_sums_of_shares_are_shares_of_the_sum() -> None:
    first, second = deal(*SMALL, 1), deal(*SMALL, 2)
    total = added(first.openings, second.openings)
    found = opened(first, list(range(14)), total, 3)
    assert found is not None
    assert (secret_of(found.values, 4) == added(first.secret, second.secret)).all()


@settings(max_examples=25, deadline=None)
@given(
    threshold=st.integers(1, 6),
    packing=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_t_shares_are_those_of_any_secret(
    threshold: int, packing: int, seed: int, data: st.DataObject
) -> None:
    """For every other secret there is one randomness that gives T members the very same shares."""
    rng = np.random.default_rng(seed)
    base, members = threshold + packing, threshold + packing + 3
    row = drawn(rng, base)
    shares = LATTICE_FIELD.weighted_sums(dealing_matrix(members, base), row[:, None])[:, 0]
    who = sorted(data.draw(st.permutations(range(members)))[:threshold])
    other = drawn(rng, packing)
    known = np.array([Q - k for k in range(1, packing + 1)] + [index + 1 for index in who], np.uint64)
    wanted = np.array([Q - k for k in range(packing + 1, base + 1)], np.uint64)
    randomness = LATTICE_FIELD.weighted_sums(
        LATTICE_FIELD.lagrange(known, wanted), np.concatenate([other, shares[who]])[:, None]
    )
    again = np.concatenate([other[:, None], randomness])
    told = LATTICE_FIELD.weighted_sums(dealing_matrix(members, base), again)[:, 0]
    assert told[who].tolist() == shares[who].tolist()
    assert again[:packing, 0].tolist() == other.tolist()
    assert told.tolist() != shares.tolist()


# --- wrong openings --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), there=st.integers(7, 14))
def test_as_many_wrong_openings_as_there_is_surplus_for_are_corrected_and_named(
    data: st.DataObject, seed: int, there: int
) -> None:
    one, rng = deal(*SMALL), np.random.default_rng(seed)
    who = sorted(data.draw(st.permutations(range(one.members)))[:there])
    openings = one.openings[who].copy()
    most = (there - one.base) // 2
    liars = data.draw(st.permutations(range(there)))[: data.draw(st.integers(0, most))]
    for place in liars:
        if data.draw(st.booleans()):  # one word, or all
            openings[place, int(rng.integers(one.count))] ^= np.uint64(1)
        else:
            openings[place] = drawn(rng, one.count)
    found = opened(one, who, openings, most, seed)
    assert found is not None
    assert np.flatnonzero(found.wrong).tolist() == sorted(liars)
    assert (secret_of(found.values, one.packing) == one.secret).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), there=st.integers(7, 14))
def test_one_wrong_opening_more_gives_nothing(data: st.DataObject, seed: int, there: int) -> None:
    one, rng = deal(*SMALL), np.random.default_rng(seed)
    who = sorted(data.draw(st.permutations(range(one.members)))[:there])
    openings = one.openings[who].copy()
    most = (there - one.base) // 2
    if there == one.base:
        return  # no surplus: nothing shows
    for place in data.draw(st.permutations(range(there)))[: most + 1]:
        openings[place] = drawn(rng, one.count)
    assert opened(one, who, openings, most, seed) is None
    assert opened(one, who, openings, there, seed) is None


def test_fewer_are_corrected_where_the_caller_says_so() -> None:
    one = deal(*SMALL)
    openings = one.openings.copy()
    openings[5, 7] ^= np.uint64(1)
    openings[6] = 0
    who = list(range(14))
    assert opened(one, who, openings, 2) is not None
    assert opened(one, who, openings, 1) is None
    assert opened(one, who, openings, 0) is None


def test_with_no_surplus_a_wrong_opening_does_not_show() -> None:
    one = deal(*SMALL)
    who = list(range(one.base))
    openings = one.openings[who].copy()
    openings[2, 5] ^= np.uint64(1)
    found = opened(one, who, openings, 0)
    assert found is not None
    assert not found.wrong.any()
    assert (secret_of(found.values, one.packing) != one.secret).any()


def test_a_lie_that_the_combination_hides_is_found_on_the_rows() -> None:
    """Who knew gamma could lie so; it hangs on all openings, therefore nobody does."""
    one = deal(*SMALL)
    gamma = gamma_of()
    openings = one.openings.copy()
    # x gamma_0 + y gamma_1 = 0
    x, y = int(gamma[1]), Q - int(gamma[0])
    openings[3, 0] = (int(openings[3, 0]) + x) % Q
    openings[3, 1] = (int(openings[3, 1]) + y) % Q
    assert opened(one, list(range(14)), openings, 3) is None


def test_colluding_liars_on_another_polynomial_are_corrected() -> None:
    one, other = deal(*SMALL, 1), deal(*SMALL, 2)
    openings = one.openings.copy()
    liars = [0, 6, 13]
    openings[liars] = other.openings[liars]
    found = opened(one, list(range(14)), openings, 3)
    assert found is not None
    assert np.flatnonzero(found.wrong).tolist() == liars
    assert (secret_of(found.values, one.packing) == one.secret).all()


# --- the test of the degree ------------------------------------------------------------------------


def gamma_for(one: Deal) -> Words:
    return drawn(np.random.default_rng(9), TESTS, one.count)


def passing(one: Deal, shares: Words, tests: Words, gamma: Words) -> list[int]:
    weights = dealing_matrix(one.members, one.base)
    return [j for j in range(one.members) if passes_tests(shares[j], tests, gamma, weights[j])]


@settings(max_examples=20, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32))
def test_honest_shares_pass_the_tests(shape: tuple[int, int, int], seed: int) -> None:
    one = deal(*shape, seed)
    gamma = gamma_for(one)
    tests = degree_tests(one.base_values, gamma)
    assert tests.shape == (TESTS, one.base)
    assert passing(one, one.shares, tests, gamma) == list(range(one.members))


def test_test_polynomials_by_hand() -> None:
    one = deal(*SMALL)
    gamma = gamma_for(one)
    tests = degree_tests(one.base_values, gamma)
    for t in range(TESTS):
        for k in (0, 3, one.base - 1):
            total = int(one.base_values[k, one.count + t])
            for r in range(one.count):
                total += int(gamma[t, r]) * int(one.base_values[k, r])
            assert int(tests[t, k]) == total % Q


@settings(max_examples=40, deadline=None)
@given(data=st.data(), by=st.integers(1, Q - 1))
def test_one_changed_word_of_a_share_fails_for_its_member_alone(data: st.DataObject, by: int) -> None:
    one = deal(*SMALL)
    gamma = gamma_for(one)
    tests = degree_tests(one.base_values, gamma)
    member = data.draw(st.integers(0, one.members - 1))
    place = data.draw(st.integers(0, one.count + TESTS - 1))
    shares = one.shares.copy()
    shares[member, place] = (int(shares[member, place]) + by) % Q
    assert passing(one, shares, tests, gamma) == [j for j in range(one.members) if j != member]


@settings(max_examples=20, deadline=None)
@given(row=st.integers(0, 511), factor=st.integers(1, Q - 1))
def test_a_row_of_higher_degree_fails_for_every_member(row: int, factor: int) -> None:
    """X (X + 1) .. vanishes at the base points, so the client's tests do not see it; all members do."""
    one = deal(*SMALL)
    gamma = gamma_for(one)
    tests = degree_tests(one.base_values, gamma)
    shares = one.shares.copy()
    for j in range(1, one.members + 1):
        vanishing = factor
        for k in range(1, one.base + 1):
            vanishing = vanishing * (j + k) % Q
        shares[j - 1, row] = (int(shares[j - 1, row]) + vanishing) % Q
    assert passing(one, shares, tests, gamma) == []


def test_a_client_that_makes_tests_for_bad_shares_pleases_t_plus_rho_members_only() -> None:
    one = deal(*SMALL)
    gamma = gamma_for(one)
    shares = drawn(np.random.default_rng(4), one.members, one.count + TESTS)
    liked = [1, 2, 4, 7, 8, 11, 13]
    combined = LATTICE_FIELD.weighted_sums(gamma, np.ascontiguousarray(shares[liked, : one.count].T))
    seen = added(combined, np.ascontiguousarray(shares[liked, one.count :].T))
    weights = LATTICE_FIELD.lagrange(
        np.array([j + 1 for j in liked], np.uint64),
        np.array([Q - k for k in range(1, one.base + 1)], np.uint64),
    )
    tests = np.ascontiguousarray(LATTICE_FIELD.weighted_sums(weights, np.ascontiguousarray(seen.T)).T)
    assert passing(one, shares, tests, gamma) == liked


def test_tests_say_nothing_that_the_blinding_rows_do_not_hide() -> None:
    """For every secret there are blinding rows that give the very same tests."""
    one, other = deal(*SMALL, 1), deal(*SMALL, 2)
    gamma = gamma_for(one)
    tests = degree_tests(one.base_values, gamma)
    without = other.base_values.copy()
    without[:, one.count :] = 0
    missing = (tests.astype(object) - degree_tests(without, gamma).astype(object)) % Q
    without[:, one.count :] = missing.astype(np.uint64).T
    assert (degree_tests(without, gamma) == tests).all()


# --- words -----------------------------------------------------------------------------------------


@given(a=st.lists(st.tuples(words_below_q, words_below_q), max_size=20))
def test_addition_is_modulo_q(a: list[tuple[int, int]]) -> None:
    one, other = (np.array([pair[i] for pair in a], np.uint64) for i in (0, 1))
    assert added(one, other).tolist() == [(x + y) % Q for x, y in a]


@given(values=st.lists(any_words, max_size=30))
def test_words_are_packed_to_50_bits_each(values: list[int]) -> None:
    packed = pack_words(np.array(values, np.uint64))
    assert len(packed) == words_bytes(len(values)) == -(-50 * len(values) // 8)
    whole = sum(value << 50 * i for i, value in enumerate(values))
    assert packed == whole.to_bytes(len(packed), "little")
    words = unpack_words(packed, len(values))
    assert words is not None
    assert words.tolist() == values
    fine = all(value < Q for value in values)
    assert in_range(words) is fine
    found = elements(memoryview(packed), len(values))
    assert (None if found is None else found.tolist()) == (values if fine else None)


def test_rows_are_packed_one_after_the_other() -> None:
    matrix = np.arange(12, dtype=np.uint64).reshape(3, 4)
    assert pack_words(matrix) == pack_words(np.arange(12, dtype=np.uint64))
    assert pack_words(matrix.T) == pack_words(np.array([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11], np.uint64))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 82])
def test_spare_bits_that_are_set_are_no_words(count: int) -> None:
    packed = bytearray(pack_words(np.full(count, Q - 1, np.uint64)))
    spare = 8 * len(packed) - 50 * count
    for bit in range(8 - spare, 8):
        changed = bytearray(packed)
        changed[-1] |= 1 << bit
        assert unpack_words(bytes(changed), count) is None
        assert elements(bytes(changed), count) is None
    assert elements(bytes(packed), count) is not None


@pytest.mark.parametrize("word", [Q, Q + 1, 2**50 - 1])
def test_words_that_are_not_below_q_are_no_elements(word: int) -> None:
    for place in range(3):
        values = [5, Q - 1, 0]
        values[place] = word
        assert elements(pack_words(np.array(values, np.uint64)), 3) is None


def test_a_rebuilt_sum_shows_in_no_repr() -> None:
    one = deal(*SMALL)
    found = opened(one, list(range(14)), one.openings, 0)
    assert found is not None
    assert str(int(found.values[0, 0])) not in repr(found)
    assert "values" not in repr(found)
