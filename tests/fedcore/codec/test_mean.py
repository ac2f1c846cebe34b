"""Means of models as one secure sum."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcore import CodecError, ImpreciseWarning, Mean, MeanResult
from fedcore.errors import SettingError, SpoiledError
from secagg import Aggregate, Identity, RoundParameters, Traffic
from secagg.kernels import lane_dtype, ring_mask

MODEL: dict[str, NDArray[Any]] = {
    "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "b": np.zeros(3),
    "steps": np.array(7, np.int64),
}
STEPS = frozenset({"steps"})
MEAN = Mean(
    clip=0.5,
    bits=20,
    weight_cap=1000,
    metrics={"loss": (0, 10), "accuracy": (0, 1)},
    keep=STEPS,
)
Part = tuple[Mapping[str, NDArray[Any]], int, dict[str, float]]


def moved(change: float) -> dict[str, NDArray[Any]]:
    return {name: (array + array.dtype.type(change)).astype(array.dtype) for name, array in MODEL.items()}


def ring_sum(mean: Mean, parameters: RoundParameters, parts: list[Part]) -> Aggregate:
    total = np.zeros(parameters.vector_length, np.uint64)
    for update, weight, metrics in parts:
        source = mean.source(parameters, MODEL, update, weight=weight, metrics=metrics)
        out = np.empty(source.length, lane_dtype(parameters.ring_bits))
        source.read(0, out)
        total += out
    total &= np.uint64(ring_mask(parameters.ring_bits))
    names = tuple(Identity(bytes([i]) * 32) for i in range(len(parts)))
    return Aggregate(total.astype(lane_dtype(parameters.ring_bits)), names, (), Traffic())


def result_of(mean: Mean, parts: list[Part]) -> MeanResult:
    parameters = mean.round(MODEL, clients=len(parts))
    return mean.decode(parameters, MODEL, ring_sum(mean, parameters, parts))


TOLD = {"loss": 2.5, "accuracy": 0.75}


def test_the_mean_of_models_is_weighted_and_so_are_the_metrics() -> None:
    parts: list[Part] = [
        (moved(0.1), 100, {"loss": 1.0, "accuracy": 0.5}),
        (moved(-0.2), 300, {"loss": 5.0, "accuracy": 1.0}),
    ]
    result = result_of(MEAN, parts)
    for name in ("w", "b"):
        np.testing.assert_allclose(result.arrays[name], MODEL[name] - 0.125, atol=1e-5)
        assert result.arrays[name].dtype == MODEL[name].dtype
    assert result.arrays["steps"] == 7
    assert (result.weight, result.clients) == (400, 2)
    assert result.metrics == pytest.approx({"loss": 4.0, "accuracy": 0.875}, abs=1e-5)
    assert result.counts == {"updates_clipped": 0, "weights_capped": 0, "metrics_clipped": 0}
    assert result.noise < 0.01


def test_the_decoded_model_leaves_the_one_it_started_from_alone() -> None:
    before = {name: array.copy() for name, array in MODEL.items()}
    result_of(MEAN, [(moved(0.1), 1000, TOLD)])
    for name, array in before.items():
        assert (MODEL[name] == array).all()


def test_what_does_not_fit_is_cut_to_what_was_agreed_on_and_counted() -> None:
    parts: list[Part] = [
        (moved(0.9), 5000, {"loss": 99.0, "accuracy": 0.5}),  # clipped, capped, out of range
        (moved(0.1), 1000, TOLD),
        (moved(-0.7), 1000, TOLD),
    ]
    result = result_of(MEAN, parts)
    assert result.counts == {"updates_clipped": 2, "weights_capped": 1, "metrics_clipped": 1}
    assert result.weight == 3000
    np.testing.assert_allclose(result.arrays["b"], (0.5 + 0.1 - 0.5) / 3, atol=1e-5)
    assert result.metrics["loss"] == pytest.approx((10 + 2.5 + 2.5) / 3, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-0.5, 0.5, width=32), st.integers(0, 1000)), min_size=2, max_size=6),
    st.integers(8, 30),
)
def test_the_mean_is_that_of_floats_within_its_bound(parts: list[tuple[float, int]], bits: int) -> None:
    weight = sum(weight for _, weight in parts)
    if not weight:
        return
    mean = Mean(clip=0.5, bits=bits, weight_cap=1000, keep=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImpreciseWarning)
        result = result_of(mean, [(moved(change), w, {}) for change, w in parts])
    wanted = sum(change * w for change, w in parts) / weight
    step = 0.5 / (2 ** (bits - 1) - 1) * 1000 / weight
    assert result.weight == weight
    np.testing.assert_allclose(result.arrays["b"], wanted, atol=len(parts) * step + 1e-6)


def test_where_the_cap_is_one_all_count_alike() -> None:
    mean = Mean(clip=0.5, keep=STEPS)
    result = result_of(mean, [(moved(0.1), 1, {}), (moved(0.3), 50, {})])
    np.testing.assert_allclose(result.arrays["b"], 0.2, atol=1e-3)
    assert result.counts["weights_capped"] == 1
    assert result.weight == 2


def test_a_mean_that_is_mostly_rounding_warns() -> None:
    mean = Mean(clip=100.0, bits=8, keep=STEPS)
    with pytest.warns(ImpreciseWarning, match=r"clip = 100 is far above the updates"):
        result = result_of(mean, [(moved(0.01), 1, {}), (moved(0.01), 1, {})])
    assert result.noise > 0.5


def test_what_a_round_is_about_changes_with_everything_that_is_agreed_on() -> None:
    others: list[dict[str, Any]] = [
        {"metrics": {}},
        {"metrics": {"loss": (0, 9), "accuracy": (0, 1)}},
        {"clip": 0.4},
        {"bits": 21},
        {"weight_cap": 999},
        {"keep": STEPS | {"b"}},
        {"only_metrics": True},
    ]
    contexts = {replace(MEAN, **other).context(MODEL) for other in others}
    contexts |= {MEAN.context(MODEL), MEAN.context(MODEL, b"lr = 0.1"), MEAN.context(moved(0.1))}
    assert len(contexts) == len(others) + 3
    swapped = replace(MEAN, metrics={"accuracy": (0, 1), "loss": (0, 10)})
    assert swapped.context(dict(reversed(MODEL.items()))) == MEAN.context(MODEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"update": {**moved(0), "x": np.zeros(1)}}, "update: x is in the update only"),
        ({"update": {"w": MODEL["w"]}}, "update: b is in the model only"),
        ({"update": {**moved(0), "w": np.zeros((4, 3))}}, r"update: w must have shape \(3, 4\)"),
        ({"update": {**moved(0), "b": np.zeros(3) + 0.5j}}, "update: b must be of floats, is of complex128"),
        ({"update": {**moved(0), "b": np.array(["1", "2", "3"])}}, "update: b must be of floats, is of <U1"),
        ({"metrics": {"loss": "2", "accuracy": 0.5}}, "metrics: loss must be a number, is '2'"),
        ({"metrics": {"loss": None, "accuracy": 0.5}}, "metrics: loss must be a number, is None"),
        ({"metrics": {"loss": 1.0}}, "metrics: accuracy is missing, agreed on are accuracy, loss"),
        ({"metrics": {**TOLD, "auc": 1.0}}, "metrics: auc is unknown"),
        ({"metrics": {"loss": float("nan"), "accuracy": 0.5}}, "metrics: loss must be finite"),
        ({"weight": -1}, "weight: must be an integer of at least 0"),
        ({"weight": 1.5}, "weight: must be an integer of at least 0"),
        ({"model": {"steps": MODEL["steps"]}}, "model: has no entry to average"),
        ({"model": {name: MODEL[name] for name in "wb"}}, "keep: steps is not in the model"),
    ],
)
def test_a_part_that_is_not_of_the_mean_is_refused(change: dict[str, Any], message: str) -> None:
    parameters = MEAN.round(MODEL, clients=3)
    arguments: dict[str, Any] = {"model": MODEL, "update": moved(0.1), "weight": 1, "metrics": TOLD} | change
    with pytest.raises(CodecError, match=message):
        MEAN.source(parameters, arguments.pop("model"), arguments.pop("update"), **arguments)


def test_an_array_of_integers_is_named_with_the_cure() -> None:
    with pytest.raises(CodecError, match="steps must be of floats, is of int64: name it in `keep`"):
        Mean(clip=1.0).round(MODEL, clients=3)


def test_a_round_that_is_not_of_this_mean_is_refused() -> None:
    parameters = MEAN.round(MODEL, clients=3)
    other = Mean(clip=0.5, bits=12, weight_cap=1000, metrics=MEAN.metrics, keep=MEAN.keep)
    with pytest.raises(CodecError, match="vector_length, ring_bits"):
        other.source(parameters, MODEL, moved(0), metrics=TOLD)
    narrow = RoundParameters(round_id=bytes(16), vector_length=5, ring_bits=9, context=bytes(32))
    with pytest.raises(CodecError, match="ring_bits: 9 hold no value of 20 bits"):
        MEAN.source(narrow, MODEL, moved(0), metrics=TOLD)


@pytest.mark.parametrize("clients", [2, 3, 5, 8, 100, 1000, 4095, 4096, 2**20])
def test_a_node_needs_to_know_no_number_of_nodes(clients: int) -> None:
    parameters = MEAN.round(MODEL, clients=clients)
    assert MEAN.source(parameters, MODEL, moved(0), metrics=TOLD).length == parameters.vector_length


def test_counts_that_cannot_be_are_somebody_s_lie() -> None:
    parameters = MEAN.round(MODEL, clients=2)
    result = ring_sum(MEAN, parameters, [(moved(0.1), 10, TOLD), (moved(0.1), 10, TOLD)])
    result.total[-2] = 3
    with pytest.raises(SpoiledError, match="weights_capped is 3, of 2 clients"):
        MEAN.decode(parameters, MODEL, result)


def test_a_round_of_evaluation_tells_metrics_alone() -> None:
    mean = MEAN.evaluation({"accuracy": (0, 1)})
    parameters = mean.round(MODEL, clients=2)
    assert parameters.vector_length < 12
    assert parameters.context != MEAN.context(MODEL)
    result = result_of(mean, [(MODEL, 100, {"accuracy": 1.0}), ({}, 300, {"accuracy": 0.0})])
    assert result.metrics == pytest.approx({"accuracy": 0.25}, abs=1e-5)
    assert all((result.arrays[name] == MODEL[name]).all() for name in MODEL)
    with pytest.raises(SettingError, match="metrics: must be named"):
        Mean(clip=1.0).evaluation()


def test_a_parameter_of_one_number_stays_an_array() -> None:
    model, mean = {"scale": np.array(1.0, np.float32)}, Mean(clip=1.0)
    parameters = mean.round(model, clients=2)
    part = mean.source(parameters, model, {"scale": np.array(1.25, np.float32)})
    out = np.empty(part.length, lane_dtype(parameters.ring_bits))
    part.read(0, out)
    names = tuple(Identity(bytes([i]) * 32) for i in range(2))
    total = (out + out) & out.dtype.type(ring_mask(parameters.ring_bits))
    result = mean.decode(parameters, model, Aggregate(total, names, (), Traffic()))
    assert isinstance(result.arrays["scale"], np.ndarray)
    assert result.arrays["scale"].shape == ()
    assert result.arrays["scale"].dtype == np.float32
    assert float(result.arrays["scale"]) == pytest.approx(1.25, abs=1e-3)


def test_settings_that_are_equal_have_one_context() -> None:
    one = Mean(clip=1, metrics={"loss": (0, 10)}, keep=STEPS)
    other = Mean(clip=np.float64(1.0), metrics={"loss": (np.float64(0), 10.0)}, keep=STEPS)
    assert one == other
    assert one.context(MODEL) == other.context(MODEL)


def test_where_all_count_alike_nobody_counts_as_nothing() -> None:
    mean = Mean(clip=1.0, keep=STEPS)
    with pytest.raises(CodecError, match="weight: must be an integer of at least 1, is 0"):
        mean.source(mean.round(MODEL, clients=2), MODEL, moved(0.1), weight=0)


def test_a_weight_of_numpy_is_a_weight() -> None:
    weight: Any = np.int64(4)
    assert MEAN.source(MEAN.round(MODEL, clients=2), MODEL, moved(0.1), weight=weight, metrics=TOLD)


def test_a_ledger_knows_a_model_and_not_what_else_is_told_about_it() -> None:
    assert MEAN.subject(MODEL) == MEAN.context(MODEL) != MEAN.context(MODEL, b"round 1")
    assert MEAN.subject(MODEL) != MEAN.evaluation().subject(MODEL)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    update = moved(0.1)
    update["b"] = np.array([0.0, value, 0.0])
    with pytest.raises(CodecError, match="update: b must be finite, entry 1 minus the model's is"):
        MEAN.source(MEAN.round(MODEL, clients=3), MODEL, update, metrics=TOLD)
    with pytest.raises(CodecError, match="model: b must be finite"):
        MEAN.round({**MODEL, "b": update["b"]}, clients=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metrics": {"loss": 10}}, r"metrics.loss: must be a range \(low, high\), is 10"),
        ({"metrics": {"loss": "01"}}, r"metrics.loss: must be a range \(low, high\), is '01'"),
        ({"metrics": {"loss": (0, 10, 1)}}, r"metrics.loss: must be a range"),
        ({"metrics": ["loss"]}, "metrics: must be ranges by name, is .'loss'."),
        ({"clip": "x"}, "clip: must be a number, is 'x'"),
        ({"clip": None}, "clip: must be a number, is None"),
        ({"bits": "16"}, "bits: must be a whole number, is '16'"),
        ({"weight_cap": 1.5}, "weight_cap: must be a whole number, is 1.5"),
        ({"keep": "steps"}, "keep: must be a set of names, is 'steps'"),
    ],
)
def test_settings_of_another_kind_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Mean(**{"clip": 1.0, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"bits": 1}, {"bits": 41}, {"clip": 0.0}, {"weight_cap": 0}, {"metrics": {"loss": (1, 1)}}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Mean(**{"clip": 1.0, **wrong})


def test_two_rounds_about_one_model_have_two_ids_and_one_context() -> None:
    one, other = MEAN.round(MODEL, clients=3), MEAN.round(MODEL, clients=3, entropy=os.urandom)
    assert one.round_id != other.round_id
    assert one.context == other.context == MEAN.context(MODEL)
