import hashlib
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import PRIME, field_lagrange, field_weighted_sums, reference
from secagg.primitives import shamir
from secagg.primitives.shamir import (
    LIMBS,
    SHARE_BYTES,
    correct_shares,
    from_limbs,
    in_field,
    share_pairs,
    share_words,
    to_limbs,
)

elements = st.sampled_from([0, 1, 2, PRIME - 1, 2**60]) | st.integers(0, PRIME - 1)
secrets_ = st.binary(min_size=32, max_size=32)
ROSTER = bytes(range(200, 232))
SEED = bytes(range(32))


def deal(mask_secret: bytes, self_seed: bytes, t: int, n: int, share_seed: bytes = SEED) -> list[bytes]:
    return share_pairs(
        mask_secret, self_seed, share_seed=share_seed, roster_digest=ROSTER, threshold=t, holders=n
    )


def recover(points: list[int], shares: list[bytes]) -> bytes | None:
    weights = field_lagrange(np.array(points, np.uint64), np.zeros(1, np.uint64))
    return from_limbs(field_weighted_sums(weights, share_words(shares))[0])


def share_pairs_in_plain_python(
    mask_secret: bytes, self_seed: bytes, share_seed: bytes, roster_digest: bytes, t: int, n: int
) -> list[bytes]:
    """Design 3.2 and 3.4, from their words."""
    label = b"secagg/v1/share-seed\x00" + b"".join(
        len(part).to_bytes(4, "big") + part for part in (roster_digest, share_seed)
    )
    seed = hashlib.sha256(label).digest()
    stream = Cipher(algorithms.AES128(seed[:16]), modes.CTR(seed[16:28] + bytes(4))).encryptor()
    polynomials = []
    for secret in (mask_secret, self_seed):
        value = int.from_bytes(secret, "little")
        for _ in range(5):
            value, limb = divmod(value, 2**52)
            coefficients = [limb]
            while len(coefficients) < t:
                word = int.from_bytes(stream.update(bytes(8)), "little") % 2**61
                if word != PRIME:
                    coefficients.append(word)
            polynomials.append(coefficients)
    return [
        b"".join(
            (sum(c * x**power for power, c in enumerate(coefficients)) % PRIME).to_bytes(8, "little")
            for coefficients in polynomials
        )
        for x in range(1, n + 1)
    ]


@given(secret=secrets_)
def test_limbs_are_52_bits_lowest_first(secret: bytes) -> None:
    limbs = to_limbs(secret)
    assert len(limbs) == LIMBS
    assert all(0 <= limb < 2**52 for limb in limbs)
    assert limbs[-1] < 2**48
    assert sum(limb * 2 ** (52 * i) for i, limb in enumerate(limbs)) == int.from_bytes(secret, "little")
    assert from_limbs(np.array(limbs, np.uint64)) == secret


@pytest.mark.parametrize("place", range(5))
def test_limbs_out_of_range_are_no_secret(place: int) -> None:
    limit = 2**48 if place == 4 else 2**52
    limbs = np.array([2**52 - 1] * 4 + [2**48 - 1], np.uint64)
    assert from_limbs(limbs) == b"\xff" * 32
    for wrong in (limit, limit + 1, PRIME - 1):
        limbs[place] = wrong
        assert from_limbs(limbs) is None


@settings(max_examples=60)
@given(data=st.data(), mask_secret=secrets_, self_seed=secrets_, share_seed=secrets_, n=st.integers(1, 9))
def test_shares_equal_an_independent_computation(
    data: st.DataObject, mask_secret: bytes, self_seed: bytes, share_seed: bytes, n: int
) -> None:
    t = data.draw(st.integers(1, n))
    shares = deal(mask_secret, self_seed, t, n, share_seed)
    assert shares == share_pairs_in_plain_python(mask_secret, self_seed, share_seed, ROSTER, t, n)
    assert {len(pair) for pair in shares} == {2 * SHARE_BYTES}


@pytest.mark.parametrize("n", range(1, 7))
def test_any_threshold_of_shares_recovers_both_secrets(n: int) -> None:
    mask_secret, self_seed = bytes(range(1, 33)), b"\xff" * 32
    for t in range(1, n + 1):
        pairs = deal(mask_secret, self_seed, t, n)
        for size in range(t, n + 1):
            for chosen in combinations(range(n), size):
                points = [1 + holder for holder in chosen]
                assert recover(points, [pairs[h][:40] for h in chosen]) == mask_secret
                assert recover(points, [pairs[h][40:] for h in chosen]) == self_seed


@settings(max_examples=40)
@given(data=st.data(), mask_secret=secrets_, self_seed=secrets_, n=st.integers(7, 60))
def test_a_random_threshold_of_many_shares_recovers(
    data: st.DataObject, mask_secret: bytes, self_seed: bytes, n: int
) -> None:
    t = data.draw(st.integers(1, n))
    pairs = deal(mask_secret, self_seed, t, n)
    chosen = data.draw(st.permutations(range(n)))[:t]
    points = [1 + holder for holder in chosen]
    assert recover(points, [pairs[h][:40] for h in chosen]) == mask_secret
    assert recover(points, [pairs[h][40:] for h in chosen]) == self_seed


@settings(max_examples=40)
@given(data=st.data(), secret=secrets_, n=st.integers(2, 12))
def test_fewer_shares_are_consistent_with_every_secret(data: st.DataObject, secret: bytes, n: int) -> None:
    t = data.draw(st.integers(2, n))
    shares = [pair[:40] for pair in deal(secret, secret, t, n)]
    chosen = data.draw(st.permutations(range(n)))[: t - 1]
    other = data.draw(secrets_)
    for limb, claimed in enumerate(to_limbs(other)):
        points = [0, *(1 + holder for holder in chosen)]
        values = [claimed, *(int(share_words([shares[h]])[0, limb]) for h in chosen)]
        polynomial = reference.interpolate(points, values)
        assert len(polynomial) <= t  # a sharing of `other` that these holders cannot tell apart


def test_fewer_shares_do_not_recover() -> None:
    for t in range(2, 7):
        pairs = deal(SEED, SEED, t, 7)
        for chosen in combinations(range(7), t - 1):
            assert recover([1 + h for h in chosen], [pairs[h][:40] for h in chosen]) != SEED


@given(one=secrets_, other=secrets_)
def test_another_share_seed_gives_other_shares(one: bytes, other: bytes) -> None:
    same = deal(SEED, SEED, 3, 4, one) == deal(SEED, SEED, 3, 4, other)
    assert same is (one == other)


def test_another_roster_gives_other_shares() -> None:
    one, other = (
        share_pairs(SEED, SEED, share_seed=SEED, roster_digest=roster, threshold=2, holders=3)
        for roster in (bytes(32), ROSTER)
    )
    assert not set(one) & set(other)


def test_all_coefficients_differ_so_equal_secrets_have_unequal_shares() -> None:
    words = share_words(
        [part for pair in deal(bytes(32), bytes(32), 2, 3) for part in (pair[:40], pair[40:])]
    )
    assert np.unique(words).size == words.size


def test_words_equal_to_the_prime_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2^-61 each: no seed will show it, so a keystream with such words stands in.
    stream = np.array([7, PRIME, PRIME | 5 << 61, 2**64 - 1, 8, 1 << 61, 9, 10, PRIME, 11], np.uint64)

    def keystream(acc: NDArray[np.uint64], *_: object) -> None:
        acc += stream[: acc.size]

    monkeypatch.setattr(shamir, "mask_apply", keystream)
    assert shamir._coefficients(SEED, 1).tolist() == [7]
    assert shamir._coefficients(SEED, 3).tolist() == [7, 8, 0]
    assert shamir._coefficients(SEED, 6).tolist() == [7, 8, 0, 9, 10, 11]


def test_words_out_of_the_field_are_told() -> None:
    shares = [
        b"".join(word.to_bytes(8, "little") for word in words)
        for words in ([0, 1, 2, 3, PRIME - 1], [PRIME, 0, 0, 0, 0], [0, 0, 2**64 - 1, 0, 0])
    ]
    words = share_words(shares)
    assert words.shape == (3, LIMBS)
    assert words[0].tolist() == [0, 1, 2, 3, PRIME - 1]
    assert in_field(words).tolist() == [True, False, False]


def test_shares_are_carried_to_other_points() -> None:
    pairs = deal(SEED, SEED, 3, 6)
    weights = field_lagrange(np.array([2, 5, 6], np.uint64), np.array([1, 3, 4], np.uint64))
    assert weights.shape == (3, 3)
    carried = field_weighted_sums(weights, share_words([pairs[h][:40] for h in (1, 4, 5)]))
    assert carried.tolist() == share_words([pairs[h][:40] for h in (0, 2, 3)]).tolist()


@settings(max_examples=60)
@given(data=st.data(), t=st.integers(1, 5), surplus=st.integers(0, 6))
def test_shares_are_corrected_and_their_holders_named(data: st.DataObject, t: int, surplus: int) -> None:
    m = t + surplus
    polynomials = data.draw(st.lists(st.lists(elements, min_size=t, max_size=t), min_size=5, max_size=5))
    points = data.draw(st.lists(st.integers(1, 200), min_size=m, max_size=m, unique=True))
    shares = [[reference.evaluate(limb, x) for limb in polynomials] for x in points]
    wrong = data.draw(st.permutations(range(m)))[: data.draw(st.integers(0, surplus // 2))]
    for place in wrong:
        limb = data.draw(st.integers(0, 4))
        shares[place][limb] = (shares[place][limb] + data.draw(st.integers(1, PRIME - 1))) % PRIME
    corrected = correct_shares(np.array(points, np.uint64), np.array(shares, np.uint64), t)
    assert corrected is not None
    assert corrected.secret.tolist() == [limb[0] for limb in polynomials]
    assert set(np.flatnonzero(corrected.wrong).tolist()) == set(wrong)


def test_wrong_limbs_of_different_holders_are_corrected_limb_by_limb() -> None:
    points = np.arange(1, 5, dtype=np.uint64)
    shares = np.stack([5 + points, 6 + points, 7 + points], axis=1)  # degree 1: each limb can lose one
    for place in range(3):
        shares[place, place] += np.uint64(1)
    corrected = correct_shares(points, shares, 2)
    assert corrected is not None
    assert corrected.secret.tolist() == [5, 6, 7]
    assert corrected.wrong.tolist() == [True, True, True, False]


def test_too_many_wrong_shares_give_none() -> None:
    points = np.arange(1, 6, dtype=np.uint64)
    shares = (5 + points)[:, None]
    shares[0] += np.uint64(10)
    shares[3] += np.uint64(77)
    assert correct_shares(points, shares, 2) is None
    assert correct_shares(points[:1], shares[:1], 2) is None
