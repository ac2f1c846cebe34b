"""Flower itself, in one process: run by `make test-hosts` in environments of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: make test-hosts")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower

from fedcore.errors import SettingError
from fedcore.integrations.flower import InProcessGrid, SecAggMod, SecAggStrategy, state_of
from secagg import RoundAbortedError
from secagg.embedding import AnyRound, Committee, LossReason, Patience, Registry, conformance, declined
from tests.embedding.cohort import Cohort
from tests.embedding.models import MEAN, MODEL, Nodes, expected

pytestmark = pytest.mark.host

PATIENCE = Patience(first_s=20, input_s=20, phase_s=20)
EVALUATION = MEAN.evaluation({"accuracy": (0, 1)})


def record(arrays: Any = MODEL) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def client_app(node: Callable[[Context], Any]) -> ClientApp:
    """What a user writes, and the two mods."""
    app = ClientApp()

    @app.train(mods=[SecAggMod(MEAN, node)])
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        arrays = {
            name: Array(np.add(array.numpy(), i / 10, dtype=array.numpy().dtype))
            for name, array in message.content["arrays"].items()
        }
        metrics = MetricRecord({"num-examples": 10 * (i + 1), "loss": float(i)})
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @app.evaluate(mods=[SecAggMod(EVALUATION, node)])
    def evaluate(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": 10 * (i + 1), "accuracy": i / 10})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def wrapped(registry: Registry, inner: Any = None, **others: Any) -> SecAggStrategy:
    others = {"patience": PATIENCE, "attempts": 1, "poll_s": 0.01, **others}
    inner = inner or flower.FedAvg(min_available_nodes=4, min_train_nodes=4, min_evaluate_nodes=4)
    return SecAggStrategy(inner, MEAN, registry=registry, **others)


def in_process(nodes: Nodes, registry: Registry, committee: Committee | None) -> AnyRound[Any]:
    grid = InProcessGrid(
        client_app(lambda context: nodes[int(context.node_config["partition-id"])]), len(nodes)
    )
    strategy = wrapped(registry, committee=committee)
    strategy.configure_train(1, record(), ConfigRecord({"lr": 0.1}), grid)
    assert strategy.last is not None
    return strategy.last[0]


@pytest.mark.parametrize("case", conformance.CASES, ids=str)
def test_flower_passes(case: conformance.Case) -> None:
    conformance.check(case, in_process)


def kept_in_flower(cohort: Cohort) -> Callable[[Context], Any]:
    """Nodes whose rounds are in Flower's state, and whose counters are not."""

    def node(context: Context) -> Any:
        return cohort.participant(int(context.node_config["partition-id"]), store=state_of(context))

    return node


def test_a_run_of_flower_is_a_run_of_means() -> None:
    cohort = Cohort()
    grid = InProcessGrid(client_app(kept_in_flower(cohort)), 5)
    strategy = wrapped(cohort.registry, evaluation=EVALUATION)
    result = strategy.start(grid, record(), num_rounds=3, train_config=ConfigRecord({"lr": 0.1}))
    change, loss, weight = expected(range(5))
    for name, array in MODEL.items():
        np.testing.assert_allclose(result.arrays[name].numpy(), array + 3 * change, atol=1e-3)
    assert list(result.arrays) == list(MODEL)
    assert set(result.train_metrics_clientapp) == {1, 2, 3}
    assert result.train_metrics_clientapp[3]["loss"] == pytest.approx(loss, abs=1e-3)
    assert strategy.last is not None
    assert strategy.last_evaluation is not None
    assert set(strategy.last_evaluation[1].metrics) == {"accuracy"}
    accuracy = sum(10 * (i + 1) * i / 10 for i in range(5)) / weight
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(accuracy, abs=1e-3)
    kept = grid.contexts[1].state["secagg"]  # sealed: Flower's server may see it
    assert not any(cohort.keys[0].seed in value for value in kept.values())


def test_nobody_is_asked_about_a_model_where_there_is_no_mean_of_it() -> None:
    cohort = Cohort()
    asked: list[str] = []
    inside = client_app(kept_in_flower(cohort))

    def app(message: Message, context: Context) -> Message:
        asked.append(message.metadata.message_type)
        return inside(message, context)

    wrapped(cohort.registry).start(InProcessGrid(app, 5), record(), num_rounds=1)
    assert set(asked) == {"train"}


def test_a_plain_request_is_refused_by_a_node_that_has_masks_on() -> None:
    cohort = Cohort()
    trained: list[int] = []
    inside = client_app(kept_in_flower(cohort))
    grid = InProcessGrid(inside, 5)
    plain = flower.FedAvg(min_available_nodes=4, min_train_nodes=4)
    messages = list(plain.configure_train(1, record(), ConfigRecord({}), grid))
    replies = list(grid.send_and_receive(messages))
    assert len(replies) == 5
    assert all(reply.has_error() for reply in replies)
    assert {reply.error.reason for reply in replies} == {"PlainRequestError"}
    assert not trained


def lying(cohort: Cohort, lie: Callable[[Message, int], None]) -> AnyRound[Any]:
    """A server that tells node 0 something beside what it tells the others."""
    inside = client_app(kept_in_flower(cohort))

    def app(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        if "arrays" in message.content:
            content = RecordDict(dict(message.content))
            changed = Message(content, dst_node_id=1, message_type=message.metadata.message_type)
            changed.metadata.__dict__.update(message.metadata.__dict__)
            lie(changed, i)
            return inside(changed, context)
        return inside(message, context)

    strategy = wrapped(cohort.registry)
    strategy.configure_train(1, record(), ConfigRecord({"lr": 0.1}), InProcessGrid(app, 5))
    assert strategy.last is not None
    return strategy.last[0]


def second_configuration(message: Message, i: int) -> None:
    message.content["agreed"] = message.content.pop("config")
    message.content["config"] = ConfigRecord({"lr": float(i == 0), "server-round": 1})


def renamed_configuration(message: Message, i: int) -> None:
    if i == 0:
        message.content["other"] = message.content.pop("config")


def more_metrics(message: Message, i: int) -> None:
    if i == 0:
        message.content["extra"] = MetricRecord({"victim": 1})


def other_order(message: Message, i: int) -> None:
    if i == 0:
        arrays = dict(message.content.pop("arrays"))
        message.content["arrays"] = ArrayRecord(dict(reversed(arrays.items())))


@pytest.mark.parametrize(
    "lie", [renamed_configuration, more_metrics, other_order], ids=lambda lie: lie.__name__
)
def test_a_node_that_is_told_something_else_than_the_others_is_in_no_sum_with_them(
    lie: Callable[[Message, int], None],
) -> None:
    one = lying(Cohort(), lie)
    assert set(one.losses) == {1}
    assert len(one.survivors) == 4


@pytest.mark.parametrize("weight", [None, 50.5, 0.9])
def test_a_weight_that_is_none_costs_its_node_the_round(weight: float | None) -> None:
    cohort = Cohort()
    app = ClientApp()

    @app.train(mods=[SecAggMod(MEAN, kept_in_flower(cohort))])
    def train(message: Message, context: Context) -> Message:
        given = weight if context.node_config["partition-id"] == 0 else 5.0
        metrics = {"loss": 1.0} | ({} if given is None else {"num-examples": given})
        records = {"arrays": message.content["arrays"], "metrics": MetricRecord(metrics)}
        return Message(RecordDict(records), reply_to=message)

    strategy = wrapped(cohort.registry)
    with pytest.warns(UserWarning, match="rounding"):  # of a mean that is nothing
        strategy.configure_train(1, record(), ConfigRecord({}), InProcessGrid(app, 5))
    assert strategy.last is not None
    assert strategy.last[0].losses[1].reason is LossReason.FAILED
    assert strategy.last[1].weight == 20


def test_a_key_of_weights_that_nobody_sends_is_refused() -> None:
    with pytest.raises(SettingError, match="weighted_by_key must be 'num-examples', is 'n'"):
        wrapped(Cohort().registry, flower.FedAvg(weighted_by_key="n"))


def test_a_second_configuration_is_taken_by_nobody() -> None:
    """Or the train function would read one, and the context the other."""
    with pytest.raises(RoundAbortedError):
        lying(Cohort(), second_configuration)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"other": ConfigRecord({})},
        {"secagg": ConfigRecord({})},
        {"secagg": ConfigRecord({"reply": "text"})},
        {"secagg": MetricRecord({"reply": 1})},
    ],
)
def test_a_node_that_answers_something_else_costs_its_own_part(content: Any) -> None:
    cohort = Cohort()
    inside = client_app(kept_in_flower(cohort))

    def app(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 3:
            return Message(RecordDict(content), reply_to=message)
        return inside(message, context)

    strategy = wrapped(cohort.registry)
    strategy.configure_train(1, record(), ConfigRecord({}), InProcessGrid(app, 5))
    assert strategy.last is not None
    assert set(strategy.last[0].losses) == {4}


def test_a_node_whose_folder_is_gone_says_so_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def node(_context: Context) -> Any:
        raise OSError("/srv/patients/4711: no such folder")

    message = Message(
        RecordDict({"secagg": ConfigRecord({"request": b"x"})}), dst_node_id=1, message_type="train"
    )
    reply = client_app(node)(message, InProcessGrid(client_app(node), 1).contexts[1])
    assert declined(reply.content["secagg"]["reply"]) is LossReason.FAILED
    assert "4711" in caplog.text


@pytest.mark.parametrize(
    "inner",
    [
        flower.FedAvg(),
        flower.FedAvgM(server_learning_rate=1.0, server_momentum=0.0),
        flower.FedAdam(),
        flower.FedAdagrad(),
        flower.FedYogi(),
        flower.FedProx(proximal_mu=0.1),
        flower.DifferentialPrivacyClientSideFixedClipping(flower.FedAvg(), 0.0, 10.0, 4),
    ],
    ids=lambda inner: type(inner).__name__,
)
def test_strategies_that_need_the_mean_alone_get_it_once_for_each_survivor(inner: Any) -> None:
    cohort = Cohort()
    inside = client_app(kept_in_flower(cohort))

    def app(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 4 and "arrays" in message.content:
            raise RuntimeError("gone when its vector is wanted")
        return inside(message, context)

    strategy = wrapped(cohort.registry, inner)
    grid = InProcessGrid(app, 5)
    strategy.configure_train(1, record(), ConfigRecord({}), grid)
    assert len(strategy._replies) == 4
    arrays, metrics = strategy.aggregate_train(1, [])
    change, loss, _ = expected(range(4))
    assert metrics["loss"] == pytest.approx(loss, abs=1e-3)
    if type(inner).__name__ in {"FedAvg", "FedAvgM", "FedProx", "DifferentialPrivacyClientSideFixedClipping"}:
        np.testing.assert_allclose(arrays["b"].numpy(), MODEL["b"] + change, atol=1e-3)
    else:
        assert (arrays["b"].numpy() != MODEL["b"]).all()
    assert strategy.last is not None
    assert strategy.last[0].losses[5].reason is LossReason.HOST


@pytest.mark.parametrize(
    "inner",
    [
        flower.FedMedian(),
        flower.FedTrimmedAvg(),
        flower.Krum(num_malicious_nodes=1),
        flower.QFedAvg(client_learning_rate=0.1),
        flower.FedXgbBagging(),
        flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(), 1.0, 1.0, 4),
        flower.DifferentialPrivacyClientSideFixedClipping(flower.FedMedian(), 1.0, 1.0, 4),
    ],
    ids=lambda inner: type(inner).__name__,
)
def test_strategies_that_need_more_than_the_mean_are_refused_with_the_reason(inner: Any) -> None:
    with pytest.raises(SettingError, match="needs more than the mean"):
        wrapped(Cohort().registry, inner)


def test_a_subclass_that_aggregates_as_its_base_is_as_good() -> None:
    class Mine(flower.FedAvg):
        pass

    class Median(flower.FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return None

    wrapped(Cohort().registry, Mine())
    with pytest.raises(SettingError, match="Median needs more than the mean"):
        wrapped(Cohort().registry, Median())


def test_too_few_nodes_end_the_run_with_the_reason() -> None:
    cohort = Cohort()
    inside = client_app(kept_in_flower(cohort))

    def app(message: Message, context: Context) -> Message:
        if int(context.node_config["partition-id"]) > 2:
            raise RuntimeError("away")
        return inside(message, context)

    with pytest.raises(RoundAbortedError, match="4 are needed, 3 came"):
        wrapped(cohort.registry).start(InProcessGrid(app, 5), record(), num_rounds=1)


def test_flower_s_state_that_is_set_back_is_met_by_the_counter() -> None:
    cohort = Cohort()
    inside = client_app(kept_in_flower(cohort))
    replies: list[Message] = []

    def app(message: Message, context: Context) -> Message:
        first = context.node_config["partition-id"] == 0 and "arrays" in message.content
        if not first:
            return inside(message, context)
        before, request = dict(context.state["secagg"]), message.content["secagg"]
        replies.append(inside(message, context))
        context.state["secagg"] = ConfigRecord(before)  # the process ended before Flower saved it
        message.content["secagg"] = request
        again = inside(message, context)
        assert again.content["secagg"]["reply"] != replies[0].content["secagg"]["reply"]
        replies.append(again)
        return replies[0]

    strategy = wrapped(cohort.registry)
    strategy.configure_train(1, record(), ConfigRecord({}), InProcessGrid(app, 5))
    assert declined(replies[1].content["secagg"]["reply"]) is LossReason.SET_BACK


def test_five_hundred_nodes_in_one_process() -> None:
    cohort = Cohort(500)
    strategy = wrapped(cohort.registry, minimum_cohort=400)
    grid = InProcessGrid(client_app(kept_in_flower(cohort)), 500)
    clipped = strategy.configure_train(1, record(), ConfigRecord({}), grid)
    assert list(clipped) == []
    assert strategy.last is not None
    assert len(strategy.last[0].survivors) == 500
