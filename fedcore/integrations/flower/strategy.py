"""The server's side in Flower."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedcore.codec.mean import Mean, MeanResult
from fedcore.errors import SettingError
from fedcore.integrations.exchange import SecureMean
from fedcore.integrations.flower.mod import KEY, WEIGHT, arrays_of, only, told
from secagg.embedding import AnyRound, Ask, Registry

# Whose `aggregate_train` needs the mean alone; others look at single updates, or clip them at the server.
ALLOWED = ("FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "FedProx")
CLIENT_SIDE = "DifferentialPrivacyClientSideFixedClipping"  # a wrapper of one of them


class SecAggStrategy(Strategy):
    """Makes each round of training, and of evaluation, a secure mean; `inner` does with it what it does.

    inner       one of `ALLOWED`, or `CLIENT_SIDE` around one: it chooses nodes, and configures them
    evaluation  the mean of metrics of nodes whose evaluate function has a mod for it; None: nobody is asked
    secure      as `SecureMean`: patience, ledger, minimum_cohort, threat_model, attempts, observer
    poll_s      between two looks for replies
    raises      SettingError: a strategy that needs more than the mean. Rounds raise as `SecureMean.run`
    """

    def __init__(
        self,
        inner: Strategy,
        mean: Mean,
        *,
        registry: Registry,
        evaluation: Mean | None = None,
        poll_s: float = 0.2,
        **secure: Any,  # noqa: ANN401
    ) -> None:
        one: Any = inner.strategy if type(inner).__name__ == CLIENT_SIDE else inner
        owner = type(one).aggregate_train.__qualname__.partition(".")[0]
        if owner not in ALLOWED:
            known = ", ".join((*ALLOWED, CLIENT_SIDE))
            raise SettingError(f"inner: {type(one).__name__} needs more than the mean; these do not: {known}")
        if (key := getattr(one, "weighted_by_key", WEIGHT)) != WEIGHT:
            raise SettingError(f"inner: weighted_by_key must be {WEIGHT!r}, is {key!r}")
        self.inner, self._poll_s, self._replies = inner, poll_s, list[Message]()
        self._train = SecureMean(mean=mean, registry=registry, **secure)
        self._told = evaluation and SecureMean(mean=evaluation, registry=registry, **secure)
        self.last: tuple[AnyRound[int], MeanResult] | None = None  # of training
        self.last_evaluation: tuple[AnyRound[int], MeanResult] | None = None

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Message]:  # noqa: ANN401
        """Run the round: there is nothing left to send."""
        self._run(self._train, self.inner.configure_train(server_round, arrays, config, grid), grid)
        return []

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:  # noqa: ANN401
        """Hand the mean to the inner strategy."""
        return self.inner.aggregate_train(server_round, self._replies)

    def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Message]:  # noqa: ANN401
        """Run a round of metrics alone, where there is a mean of them."""
        self._replies = []
        if self._told:
            self._run(self._told, self.inner.configure_evaluate(server_round, arrays, config, grid), grid)
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> Any:  # noqa: ANN401
        """Hand the mean of the metrics to the inner strategy."""
        return self.inner.aggregate_evaluate(server_round, self._replies)

    def summary(self) -> None:
        """Log what the inner strategy does."""
        self.inner.summary()

    def _run(self, secure: SecureMean, configured: Iterable[Message], grid: Any) -> None:  # noqa: ANN401
        sent = {message.metadata.dst_node_id: message for message in configured}
        self._replies = []
        if not sent:
            return
        first = next(iter(sent.values()))
        content, record = first.content, only(first.content.array_records)[1]
        if any(one.content is not content and one.content != content for one in sent.values()):
            raise SettingError("inner: configures nodes differently, whose updates are in no sum together")

        one, result = secure.run(
            arrays_of(record), list(sent), lambda ask: self._carry(ask, first, grid), told(first)
        )
        if secure.mean.only_metrics:
            self.last_evaluation = one, result
        else:
            self.last = one, result
        shown = MetricRecord({**result.metrics, WEIGHT: result.weight / result.clients})
        mean = ArrayRecord({name: Array(result.arrays[name]) for name in record})
        for node in one.survivors:
            records = {"metrics": shown} if secure.mean.only_metrics else {"arrays": mean, "metrics": shown}
            self._replies.append(Message(RecordDict(records), reply_to=sent[node]))

    def _carry(self, ask: Ask[int], first: Message, grid: Any) -> None:  # noqa: ANN401
        """Send a request to each node, as the inner strategy's message, and hand in what comes back."""
        along = dict(first.content) if ask.wants_vector else {}
        messages = [
            Message(
                content=RecordDict({**along, KEY: ConfigRecord({"request": frame})}),
                message_type=first.metadata.message_type,
                dst_node_id=node,
                ttl=ask.left_s,
            )
            for node, frame in ask.frames.items()
        ]
        waiting: dict[str, int] = {}
        for name, node in zip(grid.push_messages(messages), ask.frames, strict=True):
            if name:
                waiting[name] = node
            else:
                ask.lose(node, "the message was not taken")
        while waiting and not ask.over:
            for reply in grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    ask.lose(node, "error reply")
                else:
                    ask.take(node, reply.content.config_records.get(KEY, {}).get("reply"))
            if not ask.over:
                time.sleep(min(self._poll_s, ask.left_s))
