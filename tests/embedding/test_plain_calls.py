"""The shortest adapter."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from fedcore import Mean
from fedcore.errors import CodecError, SettingError
from fedcore.integrations.exchange import Trained, answer_packed, canonical, packed, with_model
from fedcore.integrations.plain_calls import average, node
from secagg import RoundAbortedError
from secagg.embedding import AnyRound, Committee, LossReason, Registry, conformance
from secagg.params_oneshot import OneShotPhase
from tests.embedding.cohort import Cohort
from tests.embedding.models import CONFIG, MEAN, MODEL, Nodes, expected, secure, train
from tests.embedding.test_oneshot import Uploading


def over_calls(nodes: Nodes, registry: Registry, committee: Committee | None) -> AnyRound[Any]:
    return average(
        secure(registry, committee=committee),
        MODEL,
        {i: node(one, MEAN, train(i)) for i, one in enumerate(nodes)},
        CONFIG,
    )[0]


@pytest.mark.parametrize("case", conformance.CASES, ids=str)
def test_plain_calls_pass(case: conformance.Case) -> None:
    conformance.check(case, over_calls)


def test_the_mean_is_that_of_the_nodes() -> None:
    cohort = Cohort()
    nodes = {f"n{i}": node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    one, result = average(secure(cohort.registry), MODEL, nodes, CONFIG)
    change, loss, weight = expected(range(5))
    np.testing.assert_allclose(result.arrays["w"], MODEL["w"] + change, atol=1e-4)
    assert result.metrics["loss"] == pytest.approx(loss, abs=1e-3)
    assert (result.weight, result.clients) == (weight, 5)
    assert set(one.survivors) == set(nodes)


def test_what_did_not_fit_is_logged_by_the_server(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Cohort()
    far = Trained({name: array + 5 for name, array in MODEL.items()}, weight=999, metrics={"loss": 99.0})
    nodes = {i: node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    nodes[0] = node(cohort.participant(0), MEAN, lambda _model: far)
    average(secure(cohort.registry), MODEL, nodes, CONFIG)
    for said in ("updates clipped: 1 of 5 nodes", "weights capped: 1 of 5", "metrics clipped: 1 of 5"):
        assert said in caplog.text


def test_a_node_that_was_told_another_configuration_is_not_in_the_sum() -> None:
    cohort = Cohort()
    nodes = {i: node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    right = nodes[3]
    nodes[3] = lambda request, model, config: right(request, model, {**config, "lr": 9.9})
    one, result = average(secure(cohort.registry), MODEL, nodes, CONFIG)
    assert str(one.losses[3].reason) == "another context"
    assert result.clients == 4


@pytest.mark.parametrize(
    "trained",
    [
        Trained({"w": MODEL["w"]}),
        Trained(dict(MODEL)),  # without its loss
        Trained({**MODEL, "b": np.array([np.nan, 0, 0])}, metrics={"loss": 1.0}),
    ],
)
def test_a_node_that_cannot_make_its_vector_is_lost_alone(trained: Trained) -> None:
    cohort = Cohort()
    nodes = {i: node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    nodes[2] = node(cohort.participant(2), MEAN, lambda _model: trained)
    one, result = average(secure(cohort.registry), MODEL, nodes, CONFIG)
    assert one.losses[2].reason is LossReason.FAILED
    assert result.clients == 4


@pytest.mark.parametrize("committee", [None, Committee(post_quantum=False)], ids=["pairs", "one upload"])
def test_training_may_change_the_model_that_it_is_given(committee: Committee | None) -> None:
    cohort = Uploading()

    def in_place(model: Any) -> Trained:
        for array in model.values():
            np.add(array, 0.5, out=array)
        return Trained(model, weight=10, metrics={"loss": 1.0})

    before = {name: array.copy() for name, array in MODEL.items()}
    nodes = {i: node(cohort.participant(i), MEAN, in_place) for i in range(5)}
    _, result = average(secure(cohort.registry, committee=committee), MODEL, nodes, CONFIG)
    for name, array in before.items():
        np.testing.assert_allclose(result.arrays[name], array + 0.5, atol=1e-4)
        np.testing.assert_array_equal(MODEL[name], array)


def test_what_a_train_function_must_return_is_said(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Cohort()
    nodes = {i: node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    nodes[0] = node(cohort.participant(0), MEAN, dict)  # type: ignore[arg-type]
    one, _ = average(secure(cohort.registry), MODEL, nodes, CONFIG)
    assert one.losses[0].reason is LossReason.FAILED
    assert "train: must return Trained, returned dict" in caplog.text


def test_a_committee_that_is_none_is_refused() -> None:
    cohort = Cohort()
    with pytest.raises(SettingError, match="committee: must be a Committee, is True"):
        average(secure(cohort.registry, committee=True), MODEL, {}, CONFIG)


def test_a_sum_that_too_few_opened_is_said(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Uploading()

    def gone(i: int) -> Any:
        inside = node(cohort.participant(i), MEAN, train(i))

        def call(request: bytes, model: Any, config: Any) -> bytes:
            if i and conformance.phase_of(request) is OneShotPhase.OPEN:
                raise conformance.Vanished
            return inside(request, model, config)

        return call

    nodes = {i: gone(i) if i > 1 else node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    committee = Committee(post_quantum=False)
    _, result = average(secure(cohort.registry, committee=committee), MODEL, nodes, CONFIG)
    assert result.clients == 5
    assert "too few decryptors opened the sum to notice one that lied" in caplog.text


def test_too_few_nodes_are_no_mean() -> None:
    cohort = Cohort()

    def gone(*_: Any) -> bytes:
        raise conformance.Vanished

    nodes = {i: node(cohort.participant(i), MEAN, train(i)) if i < 3 else gone for i in range(5)}
    with pytest.raises(RoundAbortedError, match="4 are needed, 3 came"):
        average(secure(cohort.registry), MODEL, nodes, CONFIG)


def test_a_model_that_cannot_be_averaged_is_refused_before_anybody_is_asked() -> None:
    cohort = Cohort()
    with pytest.raises(CodecError, match="n must be of floats"):
        average(secure(cohort.registry), {"n": np.arange(3)}, {i: partial(print) for i in range(5)}, CONFIG)  # type: ignore[misc]


def test_a_configuration_has_one_form() -> None:
    assert canonical({"b": 1, "a": [1.5, "x"]}) == b'{"a":[1.5,"x"],"b":1}'
    assert canonical({"a": np.int64(3), "k": b"\1"}) == b'{"a":3,"k":{"bytes":"01"}}'
    for wrong in ({"a": {1}}, {"a": {"bytes": "01"}}, {"a": {1: 2}}):
        with pytest.raises(SettingError, match="config: must be of texts, numbers and bytes"):
            canonical(wrong)


@pytest.mark.parametrize(
    "model",
    [
        {"a": np.zeros(3), "a.npy": np.ones(2, np.float32), "x/y": np.array(2.0), "n": np.zeros((0, 3))},
        {"w": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "\u00e9\n": np.arange(3, dtype=">i4")},
    ],
)
def test_what_was_packed_arrives_as_it_was(model: dict[str, Any]) -> None:
    seen: list[Any] = []

    class Seeing:
        def answer(self, request: bytes, vector: Any, *, context: Any, subject: Any) -> bytes:
            assert request == b"request"
            seen.extend((context(), subject()))
            return b"reply"

    mean = Mean(clip=1.0, keep=frozenset(name for name, one in model.items() if one.dtype.kind == "i"))
    config = {"k": b"\1\2", "lr": 0.1, "list": [1, {"a": b"x"}]}
    assert answer_packed(
        Seeing(), mean, lambda _m: Trained({}), with_model(b"request", packed(model, config))
    )
    assert seen == [mean.context(model, canonical(config)), mean.subject(model)]


def test_a_model_that_grows_when_it_is_read_is_not_read() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, np.zeros(10**6))
    head = json.dumps({"config": {}, "names": ["w"]}).encode()
    message = with_model(b"request", len(head).to_bytes(8, "big") + head + file.getvalue())
    assert len(message) < 10_000

    class Asking:
        def answer(self, request: bytes, vector: Any, *, context: Any, subject: Any) -> bytes:
            with pytest.raises(ValueError, match="must be stored as it is"):
                context()
            return b"reply"

    assert answer_packed(Asking(), Mean(clip=1.0), lambda _m: Trained({}), message) == b"reply"


@pytest.mark.parametrize("reply", [None, "text", 3, memoryview(bytes(100))[::2]])
def test_a_reply_that_is_no_bytes_costs_its_node_alone(reply: Any) -> None:
    cohort = Cohort()
    nodes = {i: node(cohort.participant(i), MEAN, train(i)) for i in range(5)}
    nodes[1] = lambda *_: reply
    one, result = average(secure(cohort.registry), MODEL, nodes, CONFIG)
    assert one.losses[1].reason is LossReason.MALFORMED
    assert result.clients == 4


def test_two_rounds_about_one_model_are_one_question_whatever_else_is_told() -> None:
    """Or a sum over one node less, about a changed configuration, would tell that node's metrics."""
    cohort = Cohort()
    mean = MEAN.evaluation()
    ends = {i: node(cohort.participant(i), mean, train(i)) for i in range(5)}
    told = replace(secure(cohort.registry), mean=mean)
    assert average(told, MODEL, ends, {"server-round": 1})[1].clients == 5

    def gone(request: bytes, model: Any, config: Any) -> bytes:
        if model is not None:
            raise conformance.Vanished
        return right(request, model, config)

    right, ends[4] = ends[4], gone
    with pytest.raises(RoundAbortedError):
        average(told, MODEL, ends, {"server-round": 2})
