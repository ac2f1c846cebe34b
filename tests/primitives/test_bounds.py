"""Degree and threshold against the conditions of the specification in exact arithmetic."""

import math
import re
import time
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import InfeasibleParameters, ParameterError
from secagg.params import Adversary, GraphParameters, ThreatModel
from secagg.primitives import bounds
from secagg.primitives.bounds import (
    check_parameters,
    choose_for,
    choose_parameters,
    colluders,
    dropouts,
    effective_minimum,
    harary_parameters,
    likely_collusion,
    log2_disconnected,
    neighbor_collusion,
    quorum,
    stays_connected,
    upper_tail,
    window_collusion,
)

MILLION = 10**6
ROOM = 1 - Fraction(1, 2**20)  # the choosers work against bounds that much smaller


# --- the specification once more, in whole numbers -------------------------------------------------


@cache
def binomials(n: int) -> tuple[int, ...]:
    return tuple(math.comb(n, k) for k in range(n + 1))


def exact_tail(population: int, marked: int, draws: int, x: int) -> Fraction:
    """P[more than x of `draws` are marked], drawn without replacement."""
    ways = sum(
        binomials(marked)[j] * binomials(population - marked)[draws - j]
        for j in range(max(x + 1, 0, draws - (population - marked)), min(marked, draws) + 1)
    )
    return Fraction(ways, binomials(population)[draws])


def smallest_bound(population: int, marked: int, draws: int, bound: Fraction) -> int:
    """Smallest x with P[more than x marked] <= bound."""
    x = min(marked, draws)
    while x > 0 and exact_tail(population, marked, draws, x - 1) <= bound:
        x -= 1
    return x


def counts(n: int, model: ThreatModel) -> tuple[int, int]:
    return model.corrupt_ppm * n // MILLION, model.dropout_ppm * n // MILLION


def privacy_of(n: int, model: ThreatModel) -> Fraction:
    s = model.security_bits + (model.grinding_bits if model.adversary == "active" else 0)
    return Fraction(1, 2 ** (s + 1) * n)


def disconnected(n: int, k: int, removed: int) -> Fraction:
    """Union bound of condition (a)."""
    if removed < k:
        return Fraction(0)
    return Fraction(n * (n - k - 1), 2) * Fraction(binomials(n - k)[removed - k], binomials(n)[removed])


def exact_threshold(n: int, k: int, model: ThreatModel, room: Fraction = ROOM) -> int | None:
    """Threshold for degree k, or None where a condition of (a) to (d) does not hold."""
    C, D = counts(n, model)
    privacy, correctness = privacy_of(n, model) * room, Fraction(1, 2**model.correctness_bits * n) * room
    if model.adversary == "passive" and disconnected(n, k, C + D) >= privacy * n:
        return None
    t = max(smallest_bound(n, C, k, privacy) + 1, 2)
    if exact_tail(n, D, k, k - t) > correctness:  # fewer than t survive: more than k - t drop out
        return None
    if model.adversary == "active":
        w = smallest_bound(n, C, k // 2, privacy)
        if exact_tail(n, D, k // 2, k // 2 - w - 1) > correctness or n - D < (n + C) // 2 + 1:
            return None
    return t


def exact_harary(n: int, model: ThreatModel) -> tuple[int, int] | None:
    if model.corrupt_ppm + model.dropout_ppm > 900_000:
        return None
    for k in range(2, n - 1, 2):
        t = exact_threshold(n, k, model)
        if t is not None:
            return k, t
    return None


def exact_complete(n: int, model: ThreatModel) -> tuple[int, int] | None:
    A, D = (math.ceil(Fraction(ppm * n, MILLION)) for ppm in (model.corrupt_ppm, model.dropout_ppm))
    k = n - 1
    t = max(2, A + 1, min((k + A) // 2 + 1, k - D))
    quorum_stays = model.adversary == "passive" or n - D >= (n + A) // 2 + 1
    return (k, t) if t <= k - D and quorum_stays else None


def arguments(model: ThreatModel) -> dict[str, Any]:
    names = ("corrupt", "dropout", "adversary", "security_bits", "correctness_bits", "grinding_bits")
    return {name: getattr(model, name) for name in names}


def pair(graph: GraphParameters) -> tuple[int, int]:
    return graph.degree, graph.threshold


def model_of(corrupt: float, dropout: float, adversary: Adversary, *bits: int) -> ThreatModel:
    security, correctness, grinding = bits or (40, 20, 40)
    return ThreatModel(
        corrupt=corrupt,
        dropout=dropout,
        adversary=adversary,
        security_bits=security,
        correctness_bits=correctness,
        grinding_bits=grinding,
    )


MODELS = [
    model_of(0.05, 0.05, "passive"),
    model_of(0.1, 0.1, "passive"),
    model_of(0.1, 0.3, "passive"),
    model_of(0.0, 0.0, "passive"),
    model_of(0.3, 0.6, "passive", 10, 3, 40),
    model_of(0.0, 0.5, "passive", 60, 0, 0),  # condition (a) decides
    model_of(0.5, 0.45, "passive"),
    model_of(0.05, 0.05, "active"),
    model_of(0.1, 0.1, "active"),
    model_of(0.1, 0.3, "active"),
    model_of(0.3, 0.1, "active", 30, 10, 10),
    model_of(0.2, 0.0, "active", 60, 20, 0),
    model_of(0.0, 0.3, "active", 0, 0, 0),
    model_of(0.3, 0.25, "active"),
    model_of(0.2, 0.45, "active"),
]
SIZES = [65, 80, 100, 150, 200]


def test_the_table_of_cases_has_feasible_and_infeasible_ones() -> None:
    found = [exact_harary(n, model) for n in SIZES for model in MODELS]
    assert sum(graph is None for graph in found) > 10
    assert sum(graph is not None for graph in found) > 30


# --- tails ---------------------------------------------------------------------------------------


@given(data=st.data(), population=st.integers(1, 400))
def test_tails_are_exact_within_the_room_of_the_choosers(data: st.DataObject, population: int) -> None:
    marked = data.draw(st.integers(0, population))
    draws = data.draw(st.integers(0, population))
    x = data.draw(st.integers(-2, draws + 2))
    exact = exact_tail(population, marked, draws, x)
    assert abs(Fraction(upper_tail(population, marked, draws, x)) - exact) <= exact * Fraction(1, 2**22)


@given(data=st.data(), n=st.integers(5, 300))
def test_the_bound_of_condition_a_is_exact_within_the_room_of_the_choosers(
    data: st.DataObject, n: int
) -> None:
    k = 2 * data.draw(st.integers(1, (n - 3) // 2))
    removed = data.draw(st.integers(0, n - 1))
    exact = disconnected(n, k, removed)
    bound = log2_disconnected(n, k, removed)
    if exact == 0:
        assert bound == -math.inf
    else:
        logarithm = math.log2(exact.numerator) - math.log2(exact.denominator)
        assert bound == pytest.approx(logarithm, abs=2**-21)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", SIZES)
def test_t1_and_w_are_the_smallest_under_the_plain_bounds(n: int, model: ThreatModel) -> None:
    C, _ = counts(n, model)
    for k in range(2, n - 1, 6):
        assert neighbor_collusion(n, k, model) == smallest_bound(n, C, k, privacy_of(n, model))
        assert window_collusion(n, k, model) == smallest_bound(n, C, k // 2, privacy_of(n, model))


@given(n=st.integers(1, 10_000), corrupt=st.integers(0, 999_999), data=st.data())
def test_counts_of_colluders_are_rounded_against_us_on_the_complete_graph(
    n: int, corrupt: int, data: st.DataObject
) -> None:
    model = ThreatModel(corrupt=corrupt / MILLION)
    rate = Fraction(corrupt, MILLION)
    k = data.draw(st.integers(0, n - 1))
    C = math.ceil(rate * n) if k == n - 1 else math.floor(rate * n)
    assert colluders(n, k, model) == C
    assert quorum(n, k, model) == math.floor(Fraction(n + C, 2)) + 1
    assert 2 * quorum(n, k, model) - n > C  # two quorums share an honest client
    asked = data.draw(st.integers(1, 2 * n))
    assert effective_minimum(n, k, model, asked) == max(asked, C + 2)
    if k == n - 1:
        assert neighbor_collusion(n, k, model) == C


# --- the choosers --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", SIZES)
def test_harary_parameters_are_the_smallest_that_exact_arithmetic_allows(n: int, model: ThreatModel) -> None:
    expected = exact_harary(n, model)
    if expected is None:
        with pytest.raises(InfeasibleParameters):
            harary_parameters(clients=n, **arguments(model))
        return
    k, t = pair(harary_parameters(clients=n, **arguments(model)))
    assert (k, t) == expected
    # what the room is for: under the plain bounds the choice holds as well
    plain = exact_threshold(n, k, model, Fraction(1))
    assert plain is not None
    assert plain <= t


@pytest.mark.parametrize("room", [Fraction(1, 2), Fraction(1, 1024)])
def test_the_choosers_leave_their_room_in_every_condition(
    monkeypatch: pytest.MonkeyPatch, room: Fraction
) -> None:
    monkeypatch.setattr(bounds, "_MARGIN", float(room))  # 2^-20 would show in no case small enough to try
    for n in SIZES:
        for model in MODELS:
            choices = range(2, n - 1, 2) if model.corrupt + model.dropout <= 0.9 else ()
            pairs = ((k, exact_threshold(n, k, model, room)) for k in choices)
            expected = next(((k, t) for k, t in pairs if t is not None), None)
            try:
                graph = harary_parameters(clients=n, **arguments(model))
            except InfeasibleParameters:
                assert expected is None
            else:
                assert pair(graph) == expected


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "k", "t"),
    [
        (1_000, 0.05, 0.05, 30, 17),
        (1_000, 0.1, 0.1, 48, 27),
        (1_000, 0.1, 0.3, 88, 36),
        (10_000, 0.05, 0.05, 34, 20),
        (10_000, 0.1, 0.1, 54, 31),
        (10_000, 0.1, 0.3, 108, 44),
    ],
)
def test_published_examples_passive(n: int, corrupt: float, dropout: float, k: int, t: int) -> None:
    graph = harary_parameters(clients=n, corrupt=corrupt, dropout=dropout, adversary="passive")
    assert pair(graph) == (k, t)
    check_parameters(n, graph, model_of(corrupt, dropout, "passive"))


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "k", "t", "w"),
    [
        (100, 0.05, 0.05, 22, 6, 5),
        (100, 0.1, 0.1, 42, 11, 10),
        (100, 0.1, 0.3, 66, 11, 10),
        (1_000, 0.05, 0.05, 78, 34, 25),
        (1_000, 0.1, 0.1, 128, 56, 40),
        (1_000, 0.1, 0.3, 234, 73, 52),
        (10_000, 0.05, 0.05, 94, 42, 30),
        (10_000, 0.1, 0.1, 152, 69, 47),
        (10_000, 0.1, 0.3, 300, 100, 67),
        (100_000, 0.05, 0.05, 102, 44, 32),
        (100_000, 0.1, 0.1, 164, 73, 50),
        (100_000, 0.1, 0.3, 326, 108, 72),
    ],
)
def test_published_examples_active(n: int, corrupt: float, dropout: float, k: int, t: int, w: int) -> None:
    model = model_of(corrupt, dropout, "active")
    graph = harary_parameters(clients=n, corrupt=corrupt, dropout=dropout)
    assert pair(graph) == (k, t)
    assert window_collusion(n, k, model) == w
    check_parameters(n, graph, model)


@pytest.mark.parametrize("adversary", ["passive", "active"])
def test_a_million_clients_are_answered_in_seconds(adversary: Adversary) -> None:
    start = time.process_time()
    graph = harary_parameters(clients=10**6, adversary=adversary)
    assert time.process_time() - start < 10
    check_parameters(10**6, graph, model_of(0.1, 0.1, adversary))
    smaller = harary_parameters(clients=10**5, adversary=adversary)
    assert smaller.degree <= graph.degree < 2 * smaller.degree


RATES = [0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.95]


@pytest.mark.parametrize("adversary", ["passive", "active"])
@pytest.mark.parametrize("corrupt", RATES)
def test_small_cohorts_take_the_complete_graph_of_the_specification(
    corrupt: float, adversary: Adversary
) -> None:
    for n in range(1, 65):
        for dropout in RATES:
            model = model_of(corrupt, dropout, adversary)
            expected = exact_complete(n, model)
            if expected is None:
                with pytest.raises(InfeasibleParameters):
                    choose_for(n, model)
            else:
                graph = choose_for(n, model)
                assert pair(graph) == expected, (n, dropout)
                check_parameters(n, graph, model)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", SIZES)
def test_larger_cohorts_take_the_harary_graph_or_else_the_complete_one(n: int, model: ThreatModel) -> None:
    expected = exact_harary(n, model) or exact_complete(n, model)
    if expected is None:
        with pytest.raises(InfeasibleParameters):
            choose_parameters(clients=n, **arguments(model))
    else:
        graph = choose_parameters(clients=n, **arguments(model))
        assert pair(graph) == expected
        check_parameters(n, graph, model)


def test_the_complete_graph_ends_at_64_clients() -> None:
    assert choose_parameters(clients=64).degree == 63
    assert choose_parameters(clients=65).degree < 64


@pytest.mark.parametrize("chooser", [harary_parameters, choose_parameters])
def test_arguments_out_of_range_are_refused(chooser: Callable[..., GraphParameters]) -> None:
    for bad in (
        {"clients": 0},
        {"clients": -5},
        {"corrupt": 1.0},
        {"corrupt": -0.1},
        {"dropout": 1.0},
        {"adversary": "bored"},
        {"security_bits": 257},
        {"correctness_bits": -1},
        {"grinding_bits": 1000},
    ):
        (name,) = bad
        with pytest.raises(ParameterError, match=f"^{name}: must be") as caught:
            chooser(**{"clients": 100} | bad)
        assert not isinstance(caught.value, InfeasibleParameters)


# --- the check -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, 10, 63, 64])
def test_small_cohorts_need_the_complete_graph(n: int) -> None:
    model = model_of(0.1, 0.0, "active")
    for degree in range(-1, n + 2):
        if degree != n - 1:
            with pytest.raises(ParameterError, match=f"degree: must be {n - 1} for {n} clients, is {degree}"):
                check_parameters(n, GraphParameters(degree=degree, threshold=2), model)


@pytest.mark.parametrize("degree", [-2, 0, 1, 7, 71, 97, 100, 102, 1000])
def test_degrees_that_no_graph_has_are_refused(degree: int) -> None:
    with pytest.raises(ParameterError, match=rf"degree: must be even and in 2\.\.98, is {degree}"):
        check_parameters(100, GraphParameters(degree=degree, threshold=2), model_of(0.1, 0.1, "active"))


@pytest.mark.parametrize("model", [*MODELS, model_of(0.0, 0.0, "active")])
@pytest.mark.parametrize("n", [3, 5, 20, 64, 65, 100, 200])
def test_the_threshold_lies_above_the_colluders_and_within_the_degree(n: int, model: ThreatModel) -> None:
    tried = 0
    for k in {n - 1, 4 * (n // 5)} if n > 64 and n % 5 == 0 else {n - 1}:
        if k == n - 1:
            lowest = max(2, math.ceil(Fraction(model.corrupt_ppm * n, MILLION)) + 1)
        else:
            C, D = counts(n, model)
            if model.adversary == "passive" and disconnected(n, k, C + D) >= privacy_of(n, model) * n:
                continue
            lowest = max(2, smallest_bound(n, C, k, privacy_of(n, model)) + 1)
        tried += 1
        for t in (lowest, k):
            if lowest <= t <= k:
                check_parameters(n, GraphParameters(degree=k, threshold=t), model)
        for t in (-1, 0, 1, lowest - 1, k + 1, 10 * n):
            with pytest.raises(ParameterError, match=rf"threshold: must be in {lowest}\.\.{k}, is {t}"):
                check_parameters(n, GraphParameters(degree=k, threshold=t), model)
    assert tried


@pytest.mark.parametrize("model", [model for model in MODELS if model.adversary == "passive"])
@pytest.mark.parametrize("n", SIZES)
def test_a_passive_graph_that_may_fall_apart_is_refused(n: int, model: ThreatModel) -> None:
    C, D = counts(n, model)
    for k in range(2, n - 1, 2):
        graph = GraphParameters(degree=k, threshold=k)
        if smallest_bound(n, C, k, privacy_of(n, model)) >= k:
            continue
        if disconnected(n, k, C + D) < privacy_of(n, model) * n:
            check_parameters(n, graph, model)
        else:
            with pytest.raises(ParameterError, match="degree: must be large enough for"):
                check_parameters(n, graph, model)


def test_an_announced_choice_for_a_weaker_model_is_refused() -> None:
    for n in (100, 1000):
        weak = choose_parameters(clients=n, corrupt=0.05)
        with pytest.raises(ParameterError, match="threshold: must be in"):
            check_parameters(n, weak, model_of(0.1, 0.1, "active"))


# --- advice --------------------------------------------------------------------------------------


@cache
def infeasible_cases() -> list[tuple[int, ThreatModel, str]]:
    """Cohorts of every small size, and some larger ones, that no choice protects, with the message."""
    cases = []
    for n in [*range(1, 65), 65, 100, 333]:
        for corrupt in RATES:
            for dropout in RATES:
                for model in (model_of(corrupt, dropout, "passive"), model_of(corrupt, dropout, "active")):
                    try:
                        choose_for(n, model)
                    except InfeasibleParameters as error:
                        cases.append((n, model, str(error)))
    assert len(cases) > 1000
    return cases


def still_infeasible(n: int, model: ThreatModel, **change: float) -> bool:
    try:
        choose_parameters(**{"clients": n} | arguments(model) | change)
    except InfeasibleParameters:
        return True
    return False


def test_messages_say_what_was_asked() -> None:
    for n, model, message in infeasible_cases():
        assert message.startswith(
            f"{n} clients cannot meet corrupt={model.corrupt:g}, dropout={model.dropout:g}, "
            f"adversary={model.adversary!r}; what helps: "
        )


def test_where_everybody_must_stay_it_helps_and_is_said() -> None:
    said = 0
    for n, model, message in infeasible_cases():
        advised = "dropout=0 (everybody must stay)" in message
        if n <= 64:
            assert advised is (not still_infeasible(n, model, dropout=0.0)), message
        elif advised:
            assert not still_infeasible(n, model, dropout=0.0), message
        said += advised
    assert said > 100


def test_more_clients_that_are_advised_help() -> None:
    said = 0
    for n, model, message in infeasible_cases():
        advised = re.search(r"(?:: |or )(\d+) clients", message)
        if advised:
            more = int(advised[1])
            assert more > n
            assert not still_infeasible(more, model), message
            assert all(still_infeasible(fewer, model) for fewer in range(n + 1, more)), message
        said += advised is not None
    assert said > 100


def test_fewer_colluders_that_are_advised_help() -> None:
    said, wrong = 0, []
    for n, model, message in infeasible_cases():
        advised = re.search(r"corrupt=([0-9.e-]+) \((\d+) colluders\)", message)
        if advised:
            said += 1
            relaxed = float(advised[1])
            right_count = colluders(n, n - 1, ThreatModel(corrupt=relaxed)) == int(advised[2])
            if not right_count or still_infeasible(n, model, corrupt=relaxed):
                wrong.append(message)
    assert said > 100
    assert not wrong, f"{len(wrong)} of {said} do not help, the first: {wrong[0]}"


@pytest.mark.slow
def test_without_single_advice_no_single_change_helps() -> None:
    seen = 0
    for n, model, message in infeasible_cases():
        if message.endswith("what helps: fewer colluders and dropouts"):
            seen += 1
            assert still_infeasible(n, model, dropout=0.0), message
            assert still_infeasible(n, model, corrupt=0.0), message
            assert all(still_infeasible(more, model) for more in range(n + 1, 65)), message
    assert seen > 10


def harary_fails(demand: dict[str, Any]) -> str | None:
    """Message of InfeasibleParameters, or None."""
    try:
        harary_parameters(**demand)
    except InfeasibleParameters as error:
        return str(error)
    return None


def test_too_large_a_sum_of_rates_names_both() -> None:
    demand: dict[str, Any] = {"clients": 1000, "corrupt": 0.45, "dropout": 0.46, "adversary": "passive"}
    message = harary_fails(demand)
    assert message == "corrupt + dropout = 0.91 is above 0.9: lower corrupt or dropout"
    assert harary_fails(demand | {"corrupt": 0.1}) is None
    assert harary_fails(demand | {"dropout": 0.1}) is None


def test_the_limit_of_the_sum_is_itself_allowed() -> None:
    for n in (65, 10_000):
        message = harary_fails({"clients": n, "corrupt": 0.3, "dropout": 0.6, "adversary": "passive"})
        assert message is None or "is above" not in message


def test_a_missing_quorum_names_dropout_and_corrupt() -> None:
    demand: dict[str, Any] = {"clients": 1000, "corrupt": 0.2, "dropout": 0.45}
    message = harary_fails(demand)
    assert message == (
        "550 of 1000 clients stay, a quorum against 200 colluders needs 601: lower dropout or corrupt"
    )
    assert harary_fails(demand | {"dropout": 0.1}) is None
    assert harary_fails(demand | {"corrupt": 0.05}) is None


def test_a_missing_degree_names_every_demand_and_each_of_them_helps() -> None:
    demand: dict[str, Any] = {"clients": 200, "corrupt": 0.3, "dropout": 0.25}
    message = harary_fails(demand)
    assert message is not None
    assert message.startswith("no degree below 199 meets the demands for 200 clients: lower ")
    helps: dict[str, Any] = {
        "corrupt": 0.1,
        "dropout": 0.05,
        "security_bits": 0,
        "correctness_bits": 0,
        "clients": 1000,
    }
    for name, value in helps.items():
        assert name in message
        assert harary_fails(demand | {name: value}) is None, name


@settings(max_examples=30)
@given(n=st.integers(65, 400), corrupt=st.floats(0, 0.4), dropout=st.floats(0, 0.4), active=st.booleans())
def test_every_choice_passes_the_check(n: int, corrupt: float, dropout: float, active: bool) -> None:
    model = model_of(corrupt, dropout, "active" if active else "passive")
    for chooser in (harary_parameters, choose_parameters):
        try:
            graph = chooser(clients=n, **arguments(model))
        except InfeasibleParameters:
            continue
        check_parameters(n, graph, model)


@pytest.mark.parametrize("clients", [0, -1, 10.5, 8.0])
@pytest.mark.parametrize("chooser", [harary_parameters, choose_parameters])
def test_a_number_of_clients_that_is_none_is_refused(
    chooser: Callable[..., GraphParameters], clients: float
) -> None:
    with pytest.raises(ParameterError, match="clients: must be an integer, at least 1"):
        chooser(clients=clients)


@pytest.mark.parametrize(
    ("clients", "corrupt", "bits"), [(80, 0.1, 1), (100, 1 / 7, 2), (150, 0.2, 3), (100, 1 / 3, 4)]
)
def test_an_honest_client_hardly_ever_has_so_many_colluding_neighbors_that_it_looks_guilty(
    clients: int, corrupt: float, bits: int
) -> None:
    """Measured: the share of circles on which any honest client could be framed as likely to be guilty."""
    model = ThreatModel(
        corrupt=corrupt, dropout=0.02, security_bits=10, correctness_bits=bits, grinding_bits=0
    )
    degree = choose_for(clients, model).degree
    assert degree < clients - 1
    c, limit = colluders(clients, degree, model), likely_collusion(clients, degree, model)
    rng, half = np.random.default_rng(4), degree // 2
    circles, framed = 3000, 0
    for _ in range(circles):
        bad = rng.permutation(clients) < c
        sums = np.concatenate([[0], np.concatenate([bad[-half:], bad, bad[:half]]).cumsum()])
        counts = sums[2 * half + 1 :] - sums[:clients]  # among the neighbors of each place
        framed += bool((counts[~bad] > limit).any())
    measured = framed / circles
    assert measured <= 2.0**-bits + 3 * (2.0**-bits / circles) ** 0.5
    # And the limit is no larger than the bound asks for.
    exact = clients * upper_tail(clients - 1, c, degree, limit)
    assert exact <= 2.0**-bits < clients * upper_tail(clients - 1, c, degree, limit - 1)
    assert measured <= 1.2 * exact + 0.01
    assert measured > exact / 20


def test_on_the_complete_graph_nothing_is_left_to_chance() -> None:
    model = ThreatModel(corrupt=0.2)
    assert likely_collusion(10, 9, model) == neighbor_collusion(10, 9, model) == colluders(10, 9, model) == 2


@given(
    clients=st.integers(65, 2000),
    corrupt=st.integers(0, 400_000),
    dropout=st.integers(0, 400_000),
    security_bits=st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_what_was_declared_to_drop_out_never_counts_as_a_cohort_fallen_apart(
    clients: int, corrupt: int, dropout: int, security_bits: int
) -> None:
    model = ThreatModel(
        corrupt=corrupt / 10**6, dropout=dropout / 10**6, adversary="passive", security_bits=security_bits
    )
    try:
        degree = choose_for(clients, model).degree
    except InfeasibleParameters:
        return
    if degree < clients - 1:
        gone = colluders(clients, degree, model) + dropouts(clients, degree, model)
        assert stays_connected(clients, degree, model, gone)
        assert all(stays_connected(clients, degree, model, fewer) for fewer in range(0, gone, 7))
        assert not stays_connected(clients, degree, model, clients)
