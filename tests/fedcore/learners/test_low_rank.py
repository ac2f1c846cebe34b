"""Low-rank adaptation: starts as the base, learns in few numbers, and its gradient is that of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedcore.errors import SettingError, TaskError
from fedcore.learner import SteerableLearner, Steering, flatten
from fedcore.learners import Classifier, LinearRegression, LocalSGD, Perceptron
from fedcore.learners.low_rank import LowRank
from tests.fedcore.learners.numerics import assert_close, clouds, distance, jitter, numerical_gradient

INNER = Perceptron(4, 3, hidden=(6, 5), penalty=0.1)
BASE = jitter(INNER.initial(), scale=0.1)


def adapted(**changes: Any) -> LowRank:
    settings: dict[str, Any] = {"names": ("*.weights",), "rank": 2, "alpha": 3.0, "also": ("layer2.biases",)}
    return LowRank(model=INNER, base=BASE, **(settings | changes))


def test_it_starts_as_the_base() -> None:
    model = adapted()
    start = model.initial()
    merged = model.merge(start)
    assert merged.keys() == BASE.keys()
    assert all(np.array_equal(merged[name], BASE[name]) for name in BASE)
    assert np.array_equal(model.scores(start, clouds()), INNER.scores(BASE, clouds()))
    assert all(array.any() for name, array in start.items() if name.endswith("lora_a"))


def test_the_weight_is_the_base_and_the_scaled_product() -> None:
    model = adapted()
    now = jitter(model.initial())
    merged = model.merge(now)
    for i in range(3):
        name = f"layer{i}.weights"
        change = 3.0 / 2 * now[f"{name}.lora_a"] @ now[f"{name}.lora_b"]
        assert np.linalg.matrix_rank(change) == 2
        np.testing.assert_allclose(merged[name], BASE[name] + change)
    assert np.array_equal(merged["layer2.biases"], now["layer2.biases"])
    assert np.array_equal(merged["layer0.biases"], BASE["layer0.biases"])


@pytest.mark.parametrize("also", [(), ("*.biases",)])
@pytest.mark.parametrize("rank", [1, 3])
def test_the_gradient_is_that_of_the_loss(rank: int, also: tuple[str, ...]) -> None:
    model, rows = adapted(rank=rank, also=also), clouds()
    at = jitter(model.initial(), scale=0.2)
    assert_close(model.gradient(at, rows), numerical_gradient(lambda p: model.loss(p, rows), at), 1e-6)


def test_only_small_factors_travel_and_they_learn() -> None:
    big = Perceptron(50, 3, hidden=(40,))
    model = LowRank(model=big, base=big.initial(), rank=2, alpha=4.0, names=("layer0.weights",))
    learner = LocalSGD(model=model, epochs=20)
    start = learner.initial()
    assert set(start) == {"layer0.weights.lora_a", "layer0.weights.lora_b"}
    assert len(flatten(start)) == 2 * (50 + 40)
    assert len(flatten(big.initial())) > 2000
    after = learner.fit(start, clouds(3, 300, 50), 0)
    assert after.keys() == start.keys()
    assert model.loss(after, clouds(3, 300, 50)) < 0.5 * model.loss(start, clouds(3, 300, 50))
    assert learner.evaluate(after, clouds(3, 300, 50))["accuracy"] > 0.9


def test_it_is_steered_like_any_other() -> None:
    learner, rows = LocalSGD(model=adapted(), epochs=3), clouds()
    assert isinstance(learner, SteerableLearner)
    start = jitter(learner.initial())
    held = Steering(proximal=5.0, frozen=frozenset({"layer0.weights.lora_a"}))
    free, near = (learner.fit_steered(start, rows, 0, way).parameters for way in (Steering(), held))
    assert 0 < distance(start, near) < distance(start, free)
    assert np.array_equal(near["layer0.weights.lora_a"], start["layer0.weights.lora_a"])


def test_the_base_stays_as_it_was_given_and_is_not_shared() -> None:
    mine = {name: array.copy() for name, array in BASE.items()}
    model = LowRank(model=INNER, base=mine, rank=1, names=("layer0.weights",), also=("*.biases",))
    mine["layer0.weights"] += 1
    start = model.initial()
    start["layer0.biases"] += 1
    model.merge(start)["layer1.weights"] += 1
    LocalSGD(model=model).fit(start, clouds(), 0)
    assert all(np.array_equal(model.base[name], BASE[name]) for name in BASE)


def test_sites_start_alike_with_one_seed() -> None:
    one, same, other = (adapted(seed=seed).initial() for seed in (1, 1, 2))
    assert distance(one, same) == 0
    assert distance(one, other) > 0


def test_scores_need_a_classifier_inside() -> None:
    assert isinstance(adapted(), Classifier)
    base = {"coefficients": np.zeros((2, 1)), "intercept": np.zeros(1)}
    regression = LowRank(model=LinearRegression(2), base=base, rank=1, names=("coefficients",))
    with pytest.raises(TaskError, match="LinearRegression is no classifier"):
        regression.scores(regression.initial(), clouds(features=2))


@pytest.mark.parametrize("change", [{}, {"layer0.weights": np.zeros((4, 6))}])
def test_parameters_that_are_not_its_own_are_refused(change: Any) -> None:
    with pytest.raises(TaskError, match="parameters: must be of shapes"):
        adapted().merge({name: array[:1] for name, array in adapted().initial().items()} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("tail",)}, "names: 'tail' fits none"),
        ({"also": ("tail",)}, "also: 'tail' fits none"),
        ({"names": ()}, "names: must be at least one pattern"),
        (
            {"names": ("layer0.*",)},
            r"names: layer0.biases must be a matrix, is of shape \(6,\)",
        ),
        ({"also": ("*.weights",)}, "also: layer0.weights is adapted already"),
        ({"rank": 0}, r"rank: must be in 1..4 for layer0.weights, is 0"),
        ({"rank": 4}, r"rank: must be in 1..3 for layer2.weights, is 4"),
        ({"alpha": 0.0}, "alpha: must be positive and finite, is 0.0"),
        (
            {"base": BASE | {"layer0.weights.lora_b": np.zeros(1)}},
            "is a parameter of the base",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    settings: dict[str, Any] = {"model": INNER, "base": BASE, "rank": 2, "names": ("*.weights",)}
    with pytest.raises(SettingError, match=message):
        LowRank(**(settings | change))
