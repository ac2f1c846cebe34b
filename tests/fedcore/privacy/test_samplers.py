from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore import stream
from fedcore.privacy import samplers as sampling
from fedcore.privacy.samplers import DiscreteGaussian, Skellam
from secagg import ParameterError
from tests.lazy import Lazy

stats: Any = Lazy("scipy.stats")

Pmf = Callable[[float], tuple[NDArray[np.int64], NDArray[np.float64]]]
Law = type[DiscreteGaussian] | type[Skellam]

SEED = bytes(range(32))
VARIANCES = [0.05, 0.25, 1.0, 7.3, 100.0, 2.0**20]
GAUSSIAN_100 = [-22, -20, -13, -7, -10, 10, 16, 24]
SKELLAM_100 = [-8, 8, 10, 10, 12, 13, 20, 5]


def gaussian_pmf(variance: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    reach = int(12 * math.sqrt(variance)) + 12
    k = np.arange(-reach, reach + 1)
    masses = np.exp(-(k**2) / (2 * variance))
    return k, masses / masses.sum()


def skellam_pmf(variance: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    reach = int(12 * math.sqrt(variance)) + 30
    k = np.arange(-reach, reach + 1)
    return k, stats.skellam.pmf(k, variance / 2, variance / 2)


def poisson_pmf(mean: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    k = np.arange(int(mean + 12 * math.sqrt(mean)) + 30)
    return k, stats.poisson.pmf(k, mean)


def p_value(drawn: NDArray[np.int64], k: NDArray[np.int64], masses: NDArray[np.float64]) -> float:
    """Chi-square over bins of at least 50 expected draws, all of them between the ends of k."""
    assert drawn.min() >= k[0]
    assert drawn.max() <= k[-1]
    counts = np.bincount(drawn - k[0], minlength=len(k))
    bins = (np.cumsum(masses) * len(drawn) / 50).astype(int)
    _, bins = np.unique(np.minimum(bins, bins.max() - 1), return_inverse=True)
    seen, expected = np.bincount(bins, counts), np.bincount(bins, masses * len(drawn))
    if len(seen) > 200:  # fewer and larger ones see a wrong scale better
        group = np.arange(len(seen)) * 100 // len(seen)
        seen, expected = np.bincount(group, seen), np.bincount(group, expected)
    assert len(seen) >= 2
    return float(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)


LAWS = [(DiscreteGaussian, gaussian_pmf), (Skellam, skellam_pmf)]


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize(("law", "pmf"), LAWS)
def test_draws_follow_the_exact_masses(law: Law, pmf: Pmf, variance: float) -> None:
    drawn = law(variance).sample(SEED, 400_000)
    assert drawn.dtype == np.int64
    assert p_value(drawn, *pmf(variance)) > 1e-4


@pytest.mark.parametrize(("law", "pmf"), LAWS)
def test_the_chi_square_would_see_a_variance_that_is_wrong_by_two_percent(law: Law, pmf: Pmf) -> None:
    assert p_value(law(102.0).sample(SEED, 400_000), *pmf(100.0)) < 1e-4


@pytest.mark.parametrize("variance", [*VARIANCES, 2.0**32])
@pytest.mark.parametrize(("law", "pmf"), LAWS)
def test_moments_are_those_of_the_law(law: Law, pmf: Pmf, variance: float) -> None:
    count = 200_000
    drawn = law(variance).sample(SEED, count).astype(float)
    if variance < 2**30:
        k, masses = pmf(variance)
        second, fourth = float(k**2 @ masses), float(k.astype(float) ** 4 @ masses)
    else:
        second, fourth = variance, 3 * variance**2
    assert abs(drawn.mean()) < 4.5 * math.sqrt(second / count)
    assert abs((drawn**2).mean() - second) < 4.5 * math.sqrt((fourth - second**2) / count)


def test_noise_is_independent_between_entries_signs_and_seeds() -> None:
    laws: tuple[DiscreteGaussian | Skellam, ...] = (DiscreteGaussian(50.0), Skellam(50.0))
    for law in laws:
        one, two = law.sample(SEED, 200_000), law.sample(stream.derive(SEED, 1), 200_000)
        for left, right in [(one[1:], one[:-1]), (one, two), (np.sign(one), np.abs(one))]:
            assert abs(np.corrcoef(left, right)[0, 1]) < 4.5 / math.sqrt(len(left))


def test_a_sum_of_skellams_is_the_skellam_of_the_summed_variance() -> None:
    drawn = Skellam(1.5).sample(SEED, 300_000) + Skellam(4.0).sample(stream.derive(SEED, 2), 300_000)
    assert p_value(drawn, *skellam_pmf(5.5)) > 1e-4


def test_a_seed_repeats_its_draws_on_every_machine() -> None:
    assert DiscreteGaussian(100.0).sample(SEED, 8).tolist() == GAUSSIAN_100
    assert Skellam(100.0).sample(SEED, 8).tolist() == SKELLAM_100


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 1e4), st.integers(0, 400), st.binary(min_size=1, max_size=40))
def test_a_shorter_sample_is_a_prefix_of_a_longer_one(variance: float, count: int, seed: bytes) -> None:
    for law in (DiscreteGaussian(variance), Skellam(Fraction(variance))):
        drawn = law.sample(seed, 401)
        assert np.array_equal(law.sample(seed, count), drawn[:count])
        assert law.variance == variance


def test_chunks_do_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = (DiscreteGaussian(9.0), Skellam(9.0))
    whole = [law.sample(SEED, 1000) for law in laws]
    monkeypatch.setattr(sampling, "_CHUNK", 64)
    for law, drawn in zip(laws, whole, strict=True):
        assert np.array_equal(law.sample(SEED, 1000), drawn)


@pytest.mark.parametrize("law", [DiscreteGaussian, Skellam])
@pytest.mark.parametrize("variance", [0, -1.0, math.nan, math.inf, 2.0**32 * 1.001, Fraction(-1, 3)])
def test_variances_without_a_sampler_are_refused(law: Law, variance: float) -> None:
    with pytest.raises(ParameterError, match=r"variance: must be"):
        law(variance)


@pytest.mark.parametrize("law", [DiscreteGaussian, Skellam])
def test_a_negative_count_is_refused(law: Law) -> None:
    with pytest.raises(ParameterError, match="count"):
        law(1.0).sample(SEED, -1)


def fine_table(variance: Fraction, pmf: str) -> Callable[[int], sampling.Table]:
    return {
        "gaussian": lambda bits: sampling._gaussian_table(variance, bits),
        "poisson": lambda bits: sampling._poisson_table(variance, bits),
    }[pmf]


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("variance", [0.25, 7.3, 50.0])
def test_with_words_of_few_bits_most_draws_are_refined_and_the_law_is_the_same(
    variance: float, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refined: list[int] = []
    refine = sampling._refine

    def counted(*arguments: Any) -> int:
        refined.append(1)
        return refine(*arguments)

    monkeypatch.setattr(sampling, "_refine", counted)
    count = 20_000
    words = stream.words(SEED, count) >> np.uint64(64 - bits)
    for name, (k, masses) in [("poisson", poisson_pmf(variance)), ("gaussian", gaussian_pmf(variance))]:
        refined.clear()
        drawing = sampling._Inversion(fine_table(Fraction(variance), name), bits)
        drawn = drawing.draw(words, sampling._bits_of(SEED, 0))
        if name == "gaussian":
            drawn *= 1 - 2 * (stream.words(SEED, count, count) & np.uint64(1)).astype(np.int64)
        assert p_value(drawn, k, masses) > 1e-4
        assert len(refined) >= 0.45 * count * 2 ** -(bits - 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 8, 16, 32]), st.sampled_from(["gaussian", "poisson"]))
def test_how_many_bits_a_word_has_does_not_change_what_is_drawn(number: int, bits: int, name: str) -> None:
    """U is the same real each time; only how much of it is known at first differs."""
    tail = int.from_bytes(stream.derive(SEED, number) * 8, "big")  # 2048 bits of U
    tables = fine_table(Fraction(73, 10), name)

    def drawn(bits: int) -> int:
        def more(_: int, count: int) -> int:
            return tail >> (2048 - bits - count) & ((1 << count) - 1)

        return int(
            sampling._Inversion(tables, bits).draw(np.array([tail >> (2048 - bits)], np.uint64), more)[0]
        )

    assert drawn(bits) == drawn(63)


@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_a_word_on_an_entry_is_decided_by_the_bits_after_it(name: str) -> None:
    tables = fine_table(Fraction(100), name)
    source = tables(63)
    words = np.array(source.floors[1:-1:37], np.uint64)
    drawing = sampling._Inversion(tables, 63)
    lowest = drawing.draw(words, lambda _, __: 0)
    highest = drawing.draw(words, lambda _, count: (1 << count) - 1)
    assert np.array_equal(highest, lowest + 1)
    assert np.array_equal(lowest, source.first + 1 + 37 * np.arange(len(words)))


@pytest.mark.parametrize("name", ["gaussian", "poisson"])
def test_the_first_and_the_last_word_reach_into_the_tails(name: str) -> None:
    tables = fine_table(Fraction(100), name)
    drawing = sampling._Inversion(tables, 63)
    half = lambda _, count: 1 << (count - 1)  # noqa: E731
    low, high = drawing.draw(np.array([0, 2**63 - 1], np.uint64), half)
    masses = {"gaussian": lambda k: 2 * stats.norm.sf(k / 10), "poisson": lambda k: stats.poisson.sf(k, 100)}
    assert 1e-21 < masses[name](high) < 2.0**-63
    assert low == 0 if name == "gaussian" else stats.poisson.cdf(low - 1, 100) < 2.0**-63


@settings(max_examples=60, deadline=None)
@given(st.fractions(Fraction(1, 100), 3000), st.integers(1, 80))
def test_tables_are_those_of_a_far_finer_table(variance: Fraction, bits: int) -> None:
    for name in ("gaussian", "poisson"):
        coarse, fine = fine_table(variance, name)(bits), fine_table(variance, name)(200)
        for i, floor in enumerate(coarse.floors):
            at = coarse.first + i - fine.first
            assert floor == (fine.floors[at] >> (200 - bits) if at >= 0 else 0)


def test_weights_hold_their_error_bounds() -> None:
    """Against the same recurrence at four times the precision."""
    for weigh in (sampling.gaussian_weights, sampling.poisson_weights):
        for value in (Fraction(1, 3), Fraction(2), Fraction(12345, 7)):
            coarse, fine = weigh(value, 100), weigh(value, 400)
            at = coarse.first - fine.first
            exact = [unit / Fraction(2) ** 300 for unit in fine.units]
            gaps = [e - c for e, c in zip(exact[at:], coarse.units, strict=False)]
            assert all(0 <= gap <= coarse.error for gap in gaps)
            assert sum(exact) - sum(exact[at : at + len(coarse.units)]) <= coarse.left_out


@given(st.fractions(0, 500).filter(lambda x: x > 0))
def test_the_exponential_lies_between_its_bounds(x: Fraction) -> None:
    low, high = sampling.exp_bounds(x, 256)
    fine_low, fine_high = sampling.exp_bounds(x, 1500)
    assert low << 1244 <= fine_low <= fine_high <= high << 1244
    assert high - low <= 2**20
    assert math.isclose(fine_low / 2**1500, math.exp(-x), rel_tol=1e-12)


def test_an_entry_that_the_error_leaves_open_is_worked_out_with_more_bits() -> None:
    asked: list[int] = []

    def blurred(precision: int) -> sampling.Weights:
        asked.append(precision)
        exact = sampling.poisson_weights(Fraction(5), precision)
        error = exact.error << 160 if len(asked) == 1 else exact.error
        return sampling.Weights(exact.first, exact.units, error, exact.left_out)

    assert sampling.table(blurred, 63) == sampling._poisson_table(Fraction(5), 63)
    assert len(asked) == 2
    assert asked[1] > asked[0]


def test_tables_are_quick_to_build_and_draws_quick_to_make() -> None:
    """Limits are ten times what was measured, for busy machines."""
    started = time.perf_counter()
    for law in (DiscreteGaussian(100.25**2), Skellam(100.25**2)):
        law.sample(SEED, 10**6)
    assert time.perf_counter() - started < 1.0
