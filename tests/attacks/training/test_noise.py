"""Noise that a sum keeps: it does not wrap the ring, but for a chance that is computed here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skellam

from fedcore.codec.codec import Codec
from fedcore.privacy.accounting import Mechanism
from fedcore.privacy.noise import Noise, signed
from fedcore.privacy.plan import PrivacyPlan
from fedcore.privacy.samplers import STEPS_LIMIT
from fedcore.rounds.instructions import Asks
from tests.fedcore.sites import make_plan

BOTH = (Mechanism.DISCRETE_GAUSSIAN, Mechanism.SKELLAM)
BITS = 100  # a sum wraps with a chance below 2^-100
# log E[exp(slope X)] of one site's noise X
LogMoment = Callable[[float, float], float]


def of_gaussian(variance: float, slope: float) -> float:
    """By the masses themselves, in steps that are fine for the spread: exp(slope k - k^2 / (2 variance)).

    Beyond a variance of 100 both sums are those of the density, but for a factor 1 + 2 exp(-2 pi^2 100).
    """
    if variance > 100:
        return slope * slope * variance / 2 + 1e-9
    reach = math.ceil(slope * variance + 60 * math.sqrt(variance) + 60)
    k = np.arange(-reach, reach + 1, dtype=np.float64)
    plain = -k * k / (2 * variance)
    return float(np.logaddexp.reduce(plain + slope * k) - np.logaddexp.reduce(plain))


def of_skellam(variance: float, slope: float) -> float:
    """Of a difference of two Poisson numbers of mean variance / 2: variance (cosh slope - 1)."""
    return 2 * variance * math.sinh(slope / 2) ** 2


def chance_bits(mechanism: Mechanism, variance: float, clients: int, beyond: int) -> float:
    """By Chernoff: P[|sum over the clients| > beyond] is at most 2^-bits."""
    total, least = clients * variance, beyond + 1
    if mechanism is Mechanism.SKELLAM:
        slope, moment = math.asinh(least / total), of_skellam
    else:
        slope, moment = least / total, of_gaussian
    return (slope * least - clients * moment(variance, slope)) / math.log(2) - 1


@pytest.mark.parametrize("mechanism", BOTH)
@given(clients=st.integers(2, 20_000), exponent=st.floats(-4, math.log10(STEPS_LIMIT**2)))
@settings(deadline=None, max_examples=200)
def test_the_noise_of_a_sum_over_all_is_within_its_headroom_but_for_a_chance_of_2_to_the_minus_100(
    mechanism: Mechanism, clients: int, exponent: float
) -> None:
    noise = Noise(mechanism=mechanism, variance=10.0**exponent, sensitivity=1.0)
    assert chance_bits(mechanism, noise.variance, clients, noise.headroom(clients)) > BITS


@pytest.mark.parametrize("mechanism", BOTH)
@pytest.mark.parametrize("clients", [2, 3, 5, 100, 10_000])
def test_so_it_is_for_noise_of_every_size(mechanism: Mechanism, clients: int) -> None:
    for variance in np.geomspace(1e-6, STEPS_LIMIT**2, 150):
        noise = Noise(mechanism=mechanism, variance=float(variance), sensitivity=1.0)
        assert chance_bits(mechanism, noise.variance, clients, noise.headroom(clients)) > BITS


def test_half_the_deviations_would_wrap_once_in_some_hundred_million_coordinates() -> None:
    """What is asked for is no artefact of the bound: the exact chance beyond 6 deviations is far above it."""
    exact = 2 * skellam.sf(6 * 1000, 5e5, 5e5)
    assert 2.0**-30 < exact < 2.0 ** -chance_bits(Mechanism.SKELLAM, 1e4, 100, 6 * 1000)


@pytest.mark.parametrize("mechanism", BOTH)
def test_the_ring_has_room_for_the_headroom_beside_all_vectors(mechanism: Mechanism) -> None:
    """The largest vectors and the largest noise that was promised, of all, come back as they are."""
    noise = Noise(mechanism=mechanism, variance=1e6, sensitivity=1.0)
    codec = Codec(clip=1.0, bits=4, weight_cap=1, clients=50)
    codec = replace(codec, headroom=noise.headroom(50))
    most = 50 * codec.levels + noise.headroom(50)
    for total in (most, -most):
        wrapped = np.array([total % 2**codec.ring_bits], np.uint64)
        assert signed(wrapped, codec.ring_bits)[0] == total


def test_a_ring_of_a_private_run_has_that_room() -> None:
    privacy = PrivacyPlan(epsilon=1.0, delta=1e-6, rounds=10, smallest=4)
    plan = replace(make_plan(clients=6), norm=1.0, bits=10, privacy=privacy)
    codec, noise = plan.round_codec(plan.asks(Asks(), 1), plan.shaping(1), 50)
    assert noise is not None
    assert 2 ** (codec.ring_bits - 1) > 6 * codec.levels + noise.headroom(6)
