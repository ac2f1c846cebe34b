"""Numbers by counter: known answers, distributions, and that no order matters."""

from __future__ import annotations

import hashlib
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcore.errors import SettingError
from fedcore.simulation.draws import (
    CELLS,
    Draws,
    Purpose,
    Quantiles,
    _exponential_table,
    exponential,
    philox,
    shares_of,
    uniform,
)

MANY = np.arange(200_000)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # of Random123, the authors' library: kat_vectors, philox4x32, 10 rounds
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    got = philox([np.array([one], np.uint64) for one in counter], key)
    assert tuple(int(one[0]) for one in got) == words


@given(
    st.integers(0, 2**64 - 1),
    st.sampled_from(Purpose),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_who_else_is_asked_changes_nothing(
    seed: int, purpose: Purpose, index: list[int], number: int
) -> None:
    draws = Draws(seed)
    alone = [int(draws.bits(purpose, np.array([one]), number)[0]) for one in index]
    assert draws.bits(purpose, np.array(index), number).tolist() == alone
    assert draws.bits(purpose, np.array(index), np.full(len(index), number)).tolist() == alone


def test_purposes_numbers_and_seeds_share_nothing() -> None:
    seen = np.concatenate(
        [Draws(seed).bits(purpose, MANY[:500], n) for seed in (0, 1) for purpose in Purpose for n in range(3)]
    )
    assert len(np.unique(seen)) == len(seen)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed: int) -> None:
    with pytest.raises(SettingError, match="seed: must be in 0"):
        Draws(seed)


def test_moments() -> None:
    bits = Draws(3).bits(Purpose.SPEED, MANY)
    even, decay = uniform(bits), exponential(bits)
    assert even.min() >= 0
    assert even.max() < 1
    assert even.mean() == pytest.approx(1 / 2, abs=0.004)
    assert decay.mean() == pytest.approx(1, abs=0.01)
    assert decay.var() == pytest.approx(1, abs=0.03)
    assert (decay > np.log(CELLS)).mean() == pytest.approx(1 / CELLS, rel=0.5)  # beyond the table
    spread = Quantiles.log_normal(5.0, 0.7)
    logs = np.log(spread.draw(bits))
    assert logs.mean() == pytest.approx(np.log(5.0), abs=0.01)
    assert logs.std() == pytest.approx(0.7, abs=0.01)
    assert spread.mean == pytest.approx(5.0 * exp(0.7**2 / 2), rel=0.005)


def test_the_tail_of_an_exponential_has_no_memory() -> None:
    top = np.array([(CELLS - 1) << 52, ((CELLS - 1) << 52) | ((CELLS - 1) << 40)], np.uint64)
    assert exponential(top).tolist() == pytest.approx([np.log(CELLS), 2 * np.log(CELLS)])
    assert exponential(np.array([2**64 - 1], np.uint64))[0] == pytest.approx(4 * np.log(CELLS))


def test_tables_are_the_same_everywhere() -> None:
    """A last digit that another machine's logarithm has otherwise is rounded away."""
    tables = [_exponential_table()[0], Quantiles.log_normal(1.0, 1.0).values]
    digests = [hashlib.sha256(table.astype("<f8").tobytes()).hexdigest()[:16] for table in tables]
    assert digests == ["f4050c42e1f5bca2", "472abacf788ef639"]


def test_measured_values_come_as_often_as_they_were_measured() -> None:
    samples = [1.0, 2.0, 2.0, 10.0]
    drawn = Quantiles.measured(samples).draw(Draws(1).bits(Purpose.UP, MANY))
    assert drawn.min() >= 1
    assert drawn.max() <= 10
    assert np.median(drawn) == pytest.approx(2.0, abs=0.05)
    assert (drawn == 2.0).mean() == pytest.approx(1 / 3, abs=0.01)


def test_survival_is_that_of_what_is_drawn() -> None:
    spread = Quantiles.log_normal(2.0, 1.0)
    drawn = spread.draw(Draws(1).bits(Purpose.UP, MANY))
    at = np.array([0.5, 2.0, 9.0])
    share = np.array([(drawn > one).mean() for one in at])
    assert share == pytest.approx(spread.survival(at), abs=4 * sqrt(0.25 / len(MANY)))
    assert spread.survival(np.array([0.0, 1e9])).tolist() == [1.0, 0.0]


def test_shares() -> None:
    drawn = shares_of(Draws(1).bits(Purpose.CLASS, MANY), [0.5, 0.2, 0.3])
    assert np.bincount(drawn) / len(MANY) == pytest.approx([0.5, 0.2, 0.3], abs=0.005)
    with pytest.raises(SettingError, match="share: must be up to 256 that sum to 1"):
        shares_of(np.zeros(1, np.uint64), [0.5, 0.4])


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Quantiles([1.0]), "must be 4097 quantiles"),
        (lambda: Quantiles([0.0] * CELLS + [-1.0]), "must not fall"),
        (lambda: Quantiles.measured([]), "samples: must be one at least"),
        (lambda: Quantiles.log_normal(0.0, 1.0), "median must be above 0"),
    ],
)
def test_what_is_no_distribution(make: object, what: str) -> None:
    with pytest.raises(SettingError, match=what):
        make()  # type: ignore[operator]
