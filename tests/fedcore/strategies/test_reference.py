"""Every strategy does what its paper says: the formulas in plain numpy beside it, through all three sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest

from fedcore.rounds.instructions import Asks, UpdateKind, Weighting
from fedcore.strategies import (
    STRATEGIES,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedNova,
    FedProx,
    FedTrimmedMean,
    FedYogi,
    GeometricMedian,
    Scaffold,
    Strategy,
)
from tests.fedcore.strategies.toys import (
    ABSENT,
    RATE,
    Ran,
    Runner,
    Toy,
    Vector,
    average,
    make_toys,
    present,
    toy_plan,
)

ROUNDS = 5
Toys: TypeAlias = Mapping[str, Toy]
Reference: TypeAlias = Callable[[Toys, Ran], list[Vector]]  # the run says who was in which group, no more
ZERO = np.zeros(4)


def fedavg(
    weigh: Callable[[int], float] = float, *, mu: float = 0.0, kind: str = "delta", rate: float = 1.0
) -> Reference:
    """McMahan et al. 2017, algorithm 1; FedSGD for gradients; Li et al. 2020, algorithm 2, for mu > 0."""

    def run(toys: Toys, _ran: Ran) -> list[Vector]:
        w, path = ZERO, []
        for number in range(1, ROUNDS + 1):
            inside = [toys[name] for name in present(toys, number)]
            weights = [weigh(toy.rows) for toy in inside]
            if kind == "gradient":
                w = w - rate * average([toy.gradient(w) for toy in inside], weights)
            else:
                mean = average([toy.train(w, mu=mu) for toy in inside], weights)
                w = (1 - rate) * w + rate * mean
            path.append(w)
        return path

    return run


def deltas(toys: Toys, w: Vector, number: int) -> Vector:
    inside = [toys[name] for name in present(toys, number)]
    return average([toy.train(w) - w for toy in inside], [toy.rows for toy in inside])


def momentum(toys: Toys, _ran: Ran) -> list[Vector]:
    """Hsu, Qi, Brown 2019, section 4.3."""
    w, v, path = ZERO, ZERO, []
    for number in range(1, ROUNDS + 1):
        v = 0.8 * v + deltas(toys, w, number)
        w = w + 0.7 * v
        path.append(w)
    return path


def adaptive(which: str, beta1: float) -> Reference:
    """Reddi et al. 2021, algorithm 2, line by line."""

    def run(toys: Toys, _ran: Ran) -> list[Vector]:
        eta, beta2, tau = 0.05, 0.95, 0.01
        w, m, v, path = ZERO, ZERO, np.full(4, tau**2), []
        for number in range(1, ROUNDS + 1):
            delta = deltas(toys, w, number)
            m = beta1 * m + (1 - beta1) * delta
            if which == "adagrad":
                v = v + delta**2
            elif which == "yogi":
                v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
            else:
                v = beta2 * v + (1 - beta2) * delta**2
            w = w + eta * m / (np.sqrt(v) + tau)
            path.append(w)
        return path

    return run


def nova(toys: Toys, _ran: Ran) -> list[Vector]:
    """Wang et al. 2020, equation 9 with tau_eff = sum p_i tau_i and a_i of plain SGD."""
    w, path = ZERO, []
    for number in range(1, ROUNDS + 1):
        inside = [toys[name] for name in present(toys, number)]
        p = np.array([toy.rows for toy in inside]) / sum(toy.rows for toy in inside)
        d = [(w - toy.train(w)) / (RATE * toy.steps) for toy in inside]
        tau_eff = sum(pi * toy.steps for pi, toy in zip(p, inside, strict=True))
        w = w - tau_eff * RATE * average(d, list(p))
        path.append(w)
    return path


def scaffold(toys: Toys, _ran: Ran) -> list[Vector]:
    """Karimireddy et al. 2020, algorithm 1, option II."""
    x, c = ZERO, ZERO
    ci = dict.fromkeys(toys, ZERO)
    path = []
    for number in range(1, ROUNDS + 1):
        S = present(toys, number)
        dy, dc = [], []
        for name in S:
            toy = toys[name]
            y = toy.train(x, correction=c - ci[name])
            plus = ci[name] - c + (x - y) / (toy.steps * RATE)
            dy.append(y - x)
            dc.append(plus - ci[name])
            ci[name] = plus
        x = x + 0.9 * np.mean(dy, axis=0)
        c = c + len(S) / len(toys) * np.mean(dc, axis=0)
        path.append(x)
    return path


def grouped(middle: Callable[[Vector], Vector]) -> Reference:
    def run(toys: Toys, ran: Ran) -> list[Vector]:
        w, path = ZERO, []
        for number in range(1, ROUNDS + 1):
            groups = ran.groups(number)
            assert sorted(sum(groups, ())) == present(toys, number)
            means = [
                average([toys[name].train(w) - w for name in group], [toys[name].rows for name in group])
                for group in groups
            ]
            w = w + middle(np.array(means))
            path.append(w)
        return path

    return run


def trimmed(means: Vector) -> Vector:
    out = []
    for column in means.T:
        kept = sorted(column)[1:-1]
        out.append(sum(kept) / len(kept))
    return np.array(out)


def geometric(toys: Toys, _ran: Ran) -> list[Vector]:
    """Pillutla et al. 2022, algorithm 2; weights in steps of 1 / 1024."""
    w, nu, path = ZERO, 0.05, []
    for number in range(1, ROUNDS + 1):
        inside = [toys[name] for name in present(toys, number)]
        x = [toy.train(w) - w for toy in inside]
        v = average(x, [toy.rows for toy in inside])
        for _ in range(4):
            beta = [
                round(1024 * toy.rows * min(1.0, nu / float(np.linalg.norm(v - xi))))
                for toy, xi in zip(inside, x, strict=True)
            ]
            v = average(x, beta)
        w = w + v
        path.append(w)
    return path


CAPPED, UNIFORM = Asks(weighting=Weighting.ROWS), Asks(weighting=Weighting.UNIFORM)
ADAPTIVE: dict[str, Any] = {"server_rate": 0.05, "beta2": 0.95, "tau": 0.01}
# strategy, reference, cap, sites, and how much a step may enlarge an error of the mean
CASES: dict[str, tuple[Strategy, Reference, int, int, float]] = {
    "FedAvg": (FedAvg(), fedavg(), 100, 7, 1),
    "FedAvg rate": (FedAvg(server_rate=0.5), fedavg(rate=0.5), 100, 7, 1),
    "FedAvg capped": (FedAvg(ask=CAPPED), fedavg(lambda rows: min(rows, 15)), 15, 7, 1),
    "FedAvg uniform": (FedAvg(ask=UNIFORM), fedavg(lambda _: 1.0), 100, 7, 1),
    "FedAvg weights": (FedAvg(ask=Asks(update=UpdateKind.WEIGHTS)), fedavg(), 100, 7, 1),
    "FedAvg weights mixed": (
        FedAvg(ask=Asks(update=UpdateKind.WEIGHTS), server_rate=0.3),
        fedavg(rate=0.3),
        *(100, 7, 1),
    ),
    "FedSGD": (
        FedAvg(ask=Asks(update=UpdateKind.GRADIENT), server_rate=0.2),
        fedavg(kind="gradient", rate=0.2),
        *(100, 7, 1),
    ),
    "FedAvgM": (FedAvgM(server_rate=0.7, momentum=0.8), momentum, 100, 7, 5),
    "FedProx": (FedProx(mu=0.7), fedavg(mu=0.7), 100, 7, 1),
    "FedNova": (FedNova(ask=Asks(steps_cap=8)), nova, 100, 7, 8),
    "FedAdam": (FedAdam(**ADAPTIVE), adaptive("adam", 0.9), 100, 7, 50),
    "FedYogi": (FedYogi(**ADAPTIVE), adaptive("yogi", 0.9), 100, 7, 50),
    "FedAdagrad": (FedAdagrad(**ADAPTIVE), adaptive("adagrad", 0.0), 100, 7, 50),
    "Scaffold": (Scaffold(sites=7, server_rate=0.9, control_scale=0.1), scaffold, 100, 7, 20),
    "FedMedian": (FedMedian(groups=3), grouped(lambda m: np.sort(m, axis=0)[1]), 100, 12, 1),
    "FedTrimmedMean": (FedTrimmedMean(groups=3), grouped(trimmed), 100, 12, 1),
    "GeometricMedian": (GeometricMedian(smoothing=0.05, passes=4), geometric, 100, 7, 30),
}
every = pytest.mark.parametrize("name", CASES)


def both(name: str, *kinds: str) -> tuple[list[Ran], list[Vector]]:
    strategy, reference, cap, count, _ = CASES[name]
    toys = make_toys(count)
    runs = [Runner(toys, ABSENT).run(kind, strategy, toy_plan(weight_cap=cap)) for kind in kinds]
    return runs, reference(toys, runs[0])


def test_every_strategy_has_a_reference() -> None:
    assert {type(strategy) for strategy, *_ in CASES.values()} == set(STRATEGIES.values())


@every
def test_in_real_numbers_a_strategy_follows_its_paper(name: str) -> None:
    (ran,), wanted = both(name, "float")
    assert len(ran.path) == ROUNDS
    for after, reference in zip(ran.path, wanted, strict=True):
        assert after == pytest.approx(reference, abs=1e-9, rel=1e-9)
    steps = np.abs(np.diff([ZERO, *wanted], axis=0)).max(axis=1)
    assert steps.min() > 1e-4  # there was something to follow


@every
def test_secure_and_clear_sums_agree_bit_for_bit_and_with_the_paper_but_for_rounding(name: str) -> None:
    (plain, secure), wanted = both(name, "plain", "secure")
    assert [after.tobytes() for after in plain.path] == [after.tobytes() for after in secure.path]
    for one, other in zip(plain.records, secure.records, strict=True):
        assert one.task.encode() == other.task.encode()
        assert one.result is not None
        assert other.result is not None
        assert np.array_equal(one.result.total, other.result.total)
        assert one.result.survivors == other.result.survivors
    bound = 0.0
    for record in plain.records:
        assert record.result is not None
        bound += record.task.encoding.codec.error_bound(len(record.result.survivors), record.weight)
    bound += ROUNDS * 8 / 2**23 if name == "FedNova" else 0.0  # the mean of the steps, precise to 2^-23
    assert np.abs(plain.flat - wanted[-1]).max() <= bound * CASES[name][4]


@every
def test_who_dropped_out_is_in_no_sum_of_that_round(name: str) -> None:
    (ran,), _ = both(name, "plain")
    toys = make_toys(CASES[name][3])
    for number in range(1, ROUNDS + 1):
        inside = {site for group in ran.groups(number) for site in group}
        assert sorted(inside) == present(toys, number)
