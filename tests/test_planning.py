from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import InfeasibleParameters, ParameterError, Phase, aggregate, choose_parameters, plan
from secagg.costs import UnitCosts
from secagg.params import Adversary, ThreatModel
from secagg.planning import exact_upper_tail, log2_of
from secagg.primitives.bounds import upper_tail

BOTH = pytest.mark.parametrize("adversary", ["passive", "active"])


@BOTH
@pytest.mark.parametrize("clients", [5, 70])
def test_the_bytes_are_those_of_a_round_in_which_everybody_stays(clients: int, adversary: Adversary) -> None:
    bits = {"corrupt": 0.03, "security_bits": 1, "correctness_bits": 1, "grinding_bits": 0}
    if clients == 5:
        bits = {}
    planned = plan(clients=clients, vector_length=100, value_bits=10, adversary=adversary, **bits)  # type: ignore[arg-type]
    model = ThreatModel(adversary=adversary, **bits)  # type: ignore[arg-type]
    vectors = [np.full(100, 2**10 - 1, np.uint32)] * clients
    result = aggregate(vectors, ring_bits=planned.ring_bits, threat_model=model)
    assert set(result.total.tolist()) == {clients * (2**10 - 1)}  # the ring is wide enough
    for phase in Phase:
        up, down = result.traffic.up.get(phase, 0), result.traffic.down.get(phase, 0)
        assert down == clients * planned.down[phase]
        if phase is Phase.CONSISTENCY_CHECK:  # counted for the longest index
            assert clients * (planned.up[phase] - 4) <= up <= clients * planned.up[phase]
        else:
            assert up == clients * planned.up[phase]


@BOTH
def test_the_parameters_are_those_that_rounds_use(adversary: Adversary) -> None:
    planned = plan(clients=1000, vector_length=10, value_bits=8, adversary=adversary)
    assert planned.graph == choose_parameters(clients=1000, adversary=adversary)
    assert (planned.colluders, planned.dropouts, planned.fewest_survivors) == (100, 100, 102)
    assert planned.quorum == (551 if adversary == "active" else 0)


@pytest.mark.parametrize("model", [{}, {"adversary": "passive"}, {"corrupt": 0.3, "dropout": 0.2}], ids=str)
@pytest.mark.parametrize("clients", [80, 300, 1000, 10_000])
def test_every_exact_risk_is_within_its_limit(clients: int, model: dict[str, object]) -> None:
    planned = plan(clients=clients, vector_length=1, value_bits=1, **model)  # type: ignore[arg-type]
    assert planned.risks
    for risk in planned.risks:
        assert risk.log2 <= risk.limit, risk


@given(st.integers(1, 60), st.data())
def test_the_exact_tail_is_that_of_counting_and_the_fast_one_agrees(
    population: int, data: st.DataObject
) -> None:
    marked, draws = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    x = data.draw(st.integers(-1, population))
    ways = sum(
        math.comb(marked, j) * math.comb(population - marked, draws - j)
        for j in range(max(x + 1, 0), draws + 1)
        if draws - j <= population - marked
    )
    exact = exact_upper_tail(population, marked, draws, x)
    assert exact == Fraction(ways, math.comb(population, draws))
    assert math.isclose(upper_tail(population, marked, draws, x), float(exact), rel_tol=1e-9, abs_tol=1e-14)


@pytest.mark.parametrize("exponent", [-5000, -81, -1, 0])
def test_logarithms_of_probabilities_of_any_size(exponent: int) -> None:
    assert log2_of(Fraction(2) ** exponent) == exponent
    assert log2_of(3 * Fraction(2) ** (exponent - 2)) == pytest.approx(exponent - 2 + math.log2(3))
    assert log2_of(Fraction(0)) == -math.inf


@given(
    clients=st.integers(3, 1000),
    value_bits=st.integers(1, 30),
    weight=st.integers(1, 1000),
    noise=st.integers(0, 10**6),
)
def test_the_ring_holds_every_sum_and_no_smaller_one_does(
    clients: int, value_bits: int, weight: int, noise: int
) -> None:
    try:
        planned = plan(
            clients=clients,
            vector_length=1,
            value_bits=value_bits,
            maximum_weight=weight,
            noise_bound=noise,
            corrupt=0.0,
            dropout=0.0,
        )
    except InfeasibleParameters:
        return
    largest = clients * ((2**value_bits - 1) * weight + 2 * noise)
    assert largest < 2**planned.ring_bits <= 2 * largest or planned.ring_bits == 1


def test_a_sum_that_no_ring_holds_is_refused_with_what_to_lower() -> None:
    with pytest.raises(InfeasibleParameters, match="need 67 bits, 64 is the limit: lower value_bits by 3"):
        plan(clients=100, vector_length=10, value_bits=60)


@pytest.mark.parametrize(
    ("demand", "helps"),
    [
        ({"clients": 10, "minimum_survivors": 10}, "lower minimum_survivors"),
        ({"clients": 5, "minimum_survivors": 50}, "lower minimum_survivors"),
        ({"clients": 100, "dropout": 0.5}, "dropout=0.44"),
        ({"clients": 1000, "corrupt": 0.5, "dropout": 0.3}, "dropout=0.249"),
        ({"clients": 5, "dropout": 0.5}, "dropout=0"),
        ({"clients": 2}, "clients"),
    ],
    ids=str,
)
def test_an_infeasible_plan_says_what_to_relax_and_that_helps(demand: dict[str, float], helps: str) -> None:
    with pytest.raises(InfeasibleParameters) as caught:
        plan(vector_length=10, value_bits=8, **demand)  # type: ignore[arg-type]
    assert helps in str(caught.value)


@pytest.mark.parametrize("name", ["dropout", "corrupt"])
def test_the_largest_rate_that_is_named_is_feasible_and_the_next_is_not(name: str) -> None:
    demand = {"clients": 200, "corrupt": 0.4, "dropout": 0.4}
    with pytest.raises(InfeasibleParameters) as caught:
        choose_parameters(**demand)  # type: ignore[arg-type]
    rate = float(str(caught.value).split(f"{name}=")[-1].split(" ")[0])
    choose_parameters(**(demand | {name: rate}))  # type: ignore[arg-type]
    with pytest.raises(InfeasibleParameters):
        choose_parameters(**(demand | {name: rate + 1.0 / 200}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("demand", "text"),
    [
        ({"noise_bound": 2**62}, "lower the product of all by a factor of 2^3"),
        ({"value_bits": 1, "maximum_weight": 2**63}, "lower the product of all by a factor of 2^3"),
        ({"value_bits": 62}, "lower value_bits by 2, or the product"),
    ],
    ids=str,
)
def test_only_what_helps_is_advised_about_a_ring(demand: dict[str, int], text: str) -> None:
    with pytest.raises(InfeasibleParameters, match=re.escape(text)):
        plan(**({"clients": 10, "vector_length": 1, "value_bits": 8} | demand))  # type: ignore[arg-type]


def test_the_longest_vectors_and_largest_cohorts_are_planned_without_their_memory() -> None:
    long = plan(clients=10, vector_length=2**33, value_bits=40)
    assert long.up[Phase.MASKED_INPUT_COLLECTION] == -(-(2**33) * 44 // 8) + 102
    assert plan(clients=200_000, vector_length=1, value_bits=1).quorum == 110_001


@pytest.mark.parametrize(
    "wrong",
    [
        {"value_bits": 0},
        {"noise_bound": 1.5},
        {"security_bits": 40.5},
        {"minimum_survivors": 2.5},
        {"maximum_weight": 0},
        {"noise_bound": -1},
        {"clients": 0},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        plan(**({"clients": 10, "vector_length": 1, "value_bits": 8} | wrong))  # type: ignore[arg-type]


def test_predicted_seconds_grow_with_the_work() -> None:
    def timer(call: Callable[[], object], calls: int) -> float:
        call()
        return 1e-3 / calls

    costs = UnitCosts.measured(timer, length=1000, ring_bits=20)
    small, large = (plan(clients=100, vector_length=d, value_bits=8, costs=costs) for d in (1000, 100_000))
    assert small.client_s is not None
    assert small.server_s is not None
    assert large.client_s is not None
    assert large.server_s is not None
    assert 0 < small.client_s < large.client_s
    assert 0 < small.server_s < large.server_s
    assert plan(clients=100, vector_length=10, value_bits=8).client_s is None
