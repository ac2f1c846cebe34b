"""The shortest adapter."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from fedcore.errors import CodecError
from fedcore.integrations.exchange import Trained, canonical
from fedcore.integrations.plain_calls import average, node
from secagg import RoundAbortedError
from secagg.embedding import LossReason, Registry, Round, conformance
from tests.embedding.cohort import Cohort
from tests.embedding.models import CONFIG, MEAN, MODEL, Nodes, expected, secure, train


def over_calls(nodes: Nodes, registry: Registry) -> Round[Any]:
    return average(
        secure(registry), MODEL, {i: node(one, MEAN, train(i)) for i, one in enumerate(nodes)}, CONFIG
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
    with pytest.raises(TypeError, match="config: must be of texts, numbers and bytes, has set"):
        canonical({"a": {1}})
