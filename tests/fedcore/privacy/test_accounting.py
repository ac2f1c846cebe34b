from __future__ import annotations

import json
import math
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore import FedcoreError
from fedcore.privacy.accounting import (
    DEFAULT_ORDERS,
    Accountant,
    Budget,
    BudgetExceededError,
    Mechanism,
    Release,
    calibrate,
    l1_bound,
    tau,
)
from secagg import ParameterError
from tests.lazy import Lazy

special: Any = Lazy("scipy.special")

DELTA = 1e-5
GRID_ORDERS = (1.05, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 8, 16)
SHIFTS = (1, 2, 3, 7)


def release(mechanism: Mechanism = Mechanism.SKELLAM, **changed: Any) -> Release:
    fields: dict[str, Any] = {"l2": 10.0, "l1": 60.0, "dimension": 100, "variance": 50.0, "parties": 8}
    return Release(mechanism=mechanism, **(fields | changed))


def gaussian(z: float) -> Release:
    return release(Mechanism.GAUSSIAN, l2=1.0, variance=z * z, parties=1)


# The divergences themselves, in one dimension, from the masses of the sum; natural logarithms throughout.


def log_discrete_gaussian(variance: float, reach: int) -> NDArray[np.float64]:
    k = np.arange(-reach, reach + 1)
    logs: NDArray[np.float64] = -(k**2) / (2 * variance)
    logs -= special.logsumexp(logs)
    return logs


def log_convolve(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(len(left) + len(right) - 1, -np.inf)
    for i, log in enumerate(right):
        out[i : i + len(left)] = np.logaddexp(out[i : i + len(left)], left + log)
    return out


def log_sum_of_discrete_gaussians(variance: float, parties: int, reach: int = 60) -> NDArray[np.float64]:
    one = total = log_discrete_gaussian(variance, reach)
    for _ in range(parties - 1):
        total = log_convolve(total, one)
    return total


def log_skellam(variance: float, reach: int) -> NDArray[np.float64]:
    """exp(-mu) I_k(mu), by the ratios I_(k+1) / I_k from far out, where they vanish: stable in the tails."""
    ratios, ratio = np.zeros(reach), 0.0
    for k in range(reach + 60, -1, -1):
        ratio = 1 / (2 * (k + 1) / variance + ratio)
        if k < reach:
            ratios[k] = ratio
    half = np.log(special.ive(0, variance)) + np.concatenate([[0.0], np.cumsum(np.log(ratios))])
    return np.concatenate([half[:0:-1], half])


def divergence(logs: NDArray[np.float64], shift: int, order: float) -> float:
    """Renyi divergence of the law from itself moved by `shift`."""
    return float(special.logsumexp(order * logs[shift:] + (1 - order) * logs[:-shift]) / (order - 1))


@pytest.mark.parametrize("parties", [1, 2, 3, 8])
@pytest.mark.parametrize("variance", [0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0, 6.0])
def test_no_sum_of_discrete_gaussians_reveals_more_than_its_bound(variance: float, parties: int) -> None:
    logs, checked = log_sum_of_discrete_gaussians(variance, parties), 0
    for shift in SHIFTS:
        for order in (order for order in GRID_ORDERS if order * shift < 0.5 * len(logs) / 2):
            bound = release(
                Mechanism.DISCRETE_GAUSSIAN,
                l2=shift,
                l1=shift,
                dimension=1,
                variance=variance,
                parties=parties,
            ).rdp(order)
            found = divergence(logs, shift, order)
            assert found <= bound * (1 + 1e-9)
            assert found > (0.99 if variance >= 1 else 0.75 if parties == 1 else 0.2) * bound
            checked += 1
    assert checked > 25


@pytest.mark.parametrize("parties", [1, 2, 3, 8, 1000])
@pytest.mark.parametrize("variance", [0.05, 0.1, 0.199, 0.201, 0.25, 0.5, 1.0, 3.0])
def test_tau_bounds_the_range_and_stays_below_the_published_one(variance: float, parties: int) -> None:
    k = np.arange(1, parties)
    published = 10 * np.exp(-2 * np.pi**2 * variance * k / (k + 1)).sum()
    assert tau(variance, parties) <= published if variance >= 0.25 else math.isfinite(tau(variance, parties))
    if parties > 8:
        return
    logs = log_sum_of_discrete_gaussians(variance, parties)
    ratio = logs - log_discrete_gaussian(parties * variance, len(logs) // 2)
    middle = ratio[len(ratio) // 2 - 20 : len(ratio) // 2 + 21]
    found = float(np.ptp(middle))
    assert found <= tau(variance, parties) + 1e-10
    if parties == 2:  # there it is exact
        assert math.isclose(found, tau(variance, 2), rel_tol=1e-6, abs_tol=1e-11)


def test_the_published_form_of_theorem_1_fails_where_the_bound_here_does_not() -> None:
    variance, order = 0.05, 1.1
    published = 10 * math.exp(-(math.pi**2) * variance)
    concentrated = min(1 / (2 * variance) + published / 2, (1 / math.sqrt(2 * variance) + published) ** 2)
    found = divergence(log_sum_of_discrete_gaussians(variance, 2), 1, order)
    assert found > 1.2 * order / 2 * concentrated
    fields: dict[str, Any] = {"l2": 1.0, "l1": 1.0, "dimension": 1, "variance": variance, "parties": 2}
    assert found <= release(Mechanism.DISCRETE_GAUSSIAN, **fields).rdp(order)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.1, 3),
    st.integers(1, 4),
    st.lists(st.integers(-4, 4), min_size=1, max_size=6),
    st.floats(1.05, 6),
)
def test_the_bound_holds_for_vectors(variance: float, parties: int, vector: list[int], order: float) -> None:
    """Coordinates are independent, so that their divergences add up."""
    law = log_sum_of_discrete_gaussians(variance, parties, 40)
    skellam = log_skellam(parties * variance, 120)
    norm = math.sqrt(sum(x * x for x in vector))
    fields: dict[str, Any] = {
        "l2": norm,
        "l1": sum(map(abs, vector)),
        "dimension": len(vector),
        "parties": parties,
    }
    for mechanism, logs in [(Mechanism.DISCRETE_GAUSSIAN, law), (Mechanism.SKELLAM, skellam)]:
        found = sum(divergence(logs, abs(x), order) for x in vector if x)
        tight, loose = (
            release(mechanism, variance=variance, **(fields | {"l1": l1})).rdp(order)
            for l1 in (fields["l1"], l1_bound(norm, len(vector)) * (1 + 1e-12))
        )
        assert found <= tight * (1 + 1e-9) + 1e-12
        assert tight <= loose


@pytest.mark.parametrize("mu", [0.1, 0.3, 1.0, 2.0, 5.0, 20.0, 100.0, 1000.0])
def test_no_skellam_reveals_more_than_its_bound(mu: float) -> None:
    for shift in (*SHIFTS, 30):
        logs = log_skellam(mu, int(64 * shift + 40 * math.sqrt(mu) + 200))
        for order in (*GRID_ORDERS, 64):
            fields: dict[str, Any] = {"l2": shift, "l1": shift, "dimension": 1}
            bound = release(variance=mu / 4, parties=4, **fields).rdp(order)
            found = divergence(logs, shift, order)
            assert found <= bound * (1 + 1e-9)
            if mu >= 100 and order in {2, 3, 4, 8} and order * shift <= mu / 4:
                assert found > 0.97 * bound


def test_orders_between_whole_ones_are_bounded_by_the_chord_and_keep_rising() -> None:
    orders = np.linspace(1.01, 9, 800)
    curve = release(variance=0.5).rdp(orders)
    assert np.all(np.diff(curve) >= -1e-12 * curve[1:])
    scaled = (orders - 1) * curve
    assert np.all(np.diff(scaled, 2) >= -1e-9 * scaled[2:])
    l2, mu = 10.0, 4.0
    whole = 3 * l2**2 / (2 * mu) + min((5 * l2**2 + 6 * 60) / (4 * mu**2), 3 * 60 / (2 * mu))
    assert math.isclose(release(variance=0.5).rdp(3.0), whole)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30))
def test_the_l1_bound_holds_for_integer_vectors(vector: list[int]) -> None:
    norm = math.sqrt(sum(x * x for x in vector))
    assert sum(map(abs, vector)) <= l1_bound(norm, len(vector)) * (1 + 1e-12)


def test_central_gaussian_releases_cost_what_dp_accounting_says() -> None:
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    theirs, ours = RdpAccountant(DEFAULT_ORDERS), Accountant(DELTA)
    assert ours.epsilon == 0.0
    for z in (1.0, 2.5, 0.7):
        theirs.compose(GaussianDpEvent(z))
        ours.spend(gaussian(z))
        assert math.isclose(ours.epsilon, theirs.get_epsilon(DELTA), rel_tol=1e-12)
    assert ours.rounds == 3


def test_one_gaussian_release_of_noise_multiplier_one() -> None:
    accountant = Accountant(DELTA)
    accountant.spend(gaussian(1.0))
    assert 4.7 < accountant.epsilon < 4.8  # by RDP; the exact value, by the normal distribution, is 4.377


@pytest.mark.parametrize("mechanism", [Mechanism.DISCRETE_GAUSSIAN, Mechanism.SKELLAM])
def test_integer_noise_approaches_the_gaussian_as_the_steps_become_fine(mechanism: Mechanism) -> None:
    ratios = []
    for scale in (1, 4, 16, 64, 256):
        fields = {
            "l2": float(scale),
            "l1": l1_bound(scale, 1000),
            "dimension": 1000,
            "variance": scale**2 / 8,
        }
        noisy, reference = Accountant(DELTA, range(2, 60)), Accountant(DELTA, range(2, 60))
        noisy.spend(release(mechanism, **fields))
        reference.spend(release(Mechanism.GAUSSIAN, **fields))
        ratios.append(noisy.epsilon / reference.epsilon)
    assert all(left >= right - 1e-9 for left, right in pairwise(ratios))
    assert ratios[0] > 1.1
    assert 1 <= ratios[-1] < 1.001


@pytest.mark.parametrize("mechanism", list(Mechanism))
def test_epsilon_rises_with_rounds_and_falls_with_noise_parties_and_delta(mechanism: Mechanism) -> None:
    accountant, seen = Accountant(DELTA), [0.0]
    for _ in range(5):
        ahead = accountant.after(release(mechanism))
        accountant.spend(release(mechanism))
        assert accountant.epsilon == ahead
        seen.append(ahead)
    assert all(left < right for left, right in pairwise(seen))
    empty = Accountant(DELTA)
    base = empty.after(release(mechanism))
    assert empty.after(release(mechanism, variance=60.0)) < base
    assert empty.after(release(mechanism, parties=9)) < base
    assert empty.after(release(mechanism, l2=11.0)) > base
    assert Accountant(1e-6).after(release(mechanism)) > base
    assert empty.rounds == 0


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(Mechanism)), st.floats(0.1, 20), st.integers(1, 60), st.integers(1, 500))
def test_calibration_undoes_accounting(
    mechanism: Mechanism, epsilon: float, rounds: int, parties: int
) -> None:
    fields: dict[str, Any] = {
        "l2": 40.0,
        "l1": 800.0,
        "dimension": 1000,
        "parties": 1 if mechanism == "gaussian" else parties,
    }
    variance = calibrate(mechanism, epsilon=epsilon, delta=DELTA, rounds=rounds, **fields)
    budget, accountant = Budget(epsilon, DELTA), Accountant(DELTA)
    for _ in range(rounds):
        one = release(mechanism, variance=variance, **fields)
        accountant.require(one, budget)
        accountant.spend(one)
    assert accountant.epsilon <= epsilon
    less = Accountant(DELTA)
    for _ in range(rounds):
        less.spend(release(mechanism, variance=variance / 1.0011, **fields))
    assert less.epsilon > epsilon


def test_a_budget_that_no_variance_keeps_is_refused() -> None:
    fields: dict[str, Any] = {"l2": 2.0**20, "l1": 2.0**25, "dimension": 2**10, "parties": 10}
    with pytest.raises(ParameterError, match="needs a variance above"):
        calibrate(Mechanism.SKELLAM, epsilon=0.01, delta=DELTA, rounds=100, **fields)


def test_the_budget_refuses_exactly_the_round_that_passes_it() -> None:
    one = release(variance=2000.0)
    probe = Accountant(DELTA)
    for _ in range(5):
        probe.spend(one)
    budget, accountant = Budget(probe.epsilon, DELTA), Accountant(DELTA)
    for _ in range(5):
        accountant.require(one, budget)
        accountant.spend(one)
    before = accountant.state()
    with pytest.raises(BudgetExceededError, match=r"after 5 rounds, would be .* limit"):
        accountant.require(one, budget)
    assert accountant.state() == before


def test_a_budget_for_another_delta_is_refused() -> None:
    with pytest.raises(ParameterError, match="delta"):
        Accountant(1e-5).require(release(), Budget(100.0, 1e-6))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.5, 1e4), max_size=6), st.floats(0.5, 1e4))
def test_a_restored_accountant_goes_on_bit_by_bit_alike(variances: list[float], last: float) -> None:
    accountant = Accountant(DELTA)
    for variance in variances:
        accountant.spend(release(variance=variance))
    again = Accountant.restore(json.loads(json.dumps(accountant.state(), allow_nan=False)))
    for one in (accountant, again):
        one.spend(release(Mechanism.DISCRETE_GAUSSIAN, variance=last))
    assert again.state() == accountant.state()
    assert (again.epsilon, again.rounds, again.delta) == (accountant.epsilon, accountant.rounds, DELTA)


@pytest.mark.parametrize(
    "changed",
    [
        {"rdp": [0.0]},
        {"rdp": [-1.0, 0.0]},
        {"rdp": [math.nan, 0.0]},
        {"rounds": -1},
        {"delta": 0},
        {"orders": "x"},
    ],
)
def test_a_state_that_is_none_is_refused(changed: dict[str, Any]) -> None:
    good = {"delta": DELTA, "rounds": 2, "orders": [2.0, 3.0], "rdp": [0.1, 0.2]}
    assert Accountant.restore(good).rounds == 2
    with pytest.raises(ParameterError):
        Accountant.restore(good | changed)
    for name in good:
        with pytest.raises(ParameterError, match="state"):
            Accountant.restore({key: value for key, value in good.items() if key != name})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("l2", -1.0),
        ("l2", math.nan),
        ("l1", math.inf),
        ("dimension", 0),
        ("variance", 0.0),
        ("variance", math.nan),
        ("variance", 2.0**33),
        ("parties", 0),
    ],
)
def test_a_release_with_a_number_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ParameterError, match=f"{field}: must be"):
        release(Mechanism.SKELLAM, **{field: value})


@pytest.mark.parametrize("bad", [(0.0, 1e-5), (math.inf, 1e-5), (1.0, 0.0), (1.0, 1.0), (1.0, math.nan)])
def test_a_budget_out_of_range_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ParameterError):
        Budget(*bad)


def test_orders_must_be_above_one() -> None:
    with pytest.raises(ParameterError, match="orders"):
        release().rdp([1.0, 2.0])
    with pytest.raises(ParameterError, match="orders"):
        Accountant(DELTA, [])


@pytest.mark.parametrize("mechanism", [Mechanism.DISCRETE_GAUSSIAN, Mechanism.SKELLAM])
def test_noise_that_bounds_nothing_cannot_be_spent(mechanism: Mechanism) -> None:
    accountant = Accountant(DELTA)
    with pytest.raises(ParameterError, match="bounds nothing"):
        accountant.spend(release(mechanism, variance=1e-310))
    assert accountant.rounds == 0


def test_without_dp_accounting_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting.rdp.rdp_privacy_accountant", None)
    with pytest.raises(FedcoreError, match=r"pip install '\.\[dp\]'") as caught:
        Accountant(DELTA)
    assert "\n" not in str(caught.value)
    assert isinstance(release().rdp([2.0]), np.ndarray)
