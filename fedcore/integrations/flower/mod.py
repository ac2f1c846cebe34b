"""The client's side in Flower."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedcore.codec.mean import Arrays, Mean
from fedcore.integrations.exchange import PlainRequestError, Trained, answer_mean
from secagg.embedding import LossReason, MappingStore, decline

KEY, WEIGHT = "secagg", "num-examples"
NO_ROUND = bytes(16)
_log = logging.getLogger("fedcore.integrations")


def state_of(context: Context) -> MappingStore:
    """Return a store in the node's Flower state, which Flower may set back: keep the counter elsewhere."""
    return MappingStore(context.state.setdefault(KEY, ConfigRecord()))


class SecAggMod:
    """Answers requests of `SecAggStrategy`; a message without one is refused (PlainRequestError).

    mean  the same as the strategy's, for train functions its `mean`, for evaluate functions its `evaluation`
    node  makes this node's `Participant` for a message: of a folder (`Participant.open`), or with `state_of`
    """

    def __init__(self, mean: Mean, node: Callable[[Context], Any]) -> None:
        self._mean, self._node = mean, node

    def __call__(self, message: Message, context: Context, call_next: Callable[..., Message]) -> Message:
        """Answer a message; `call_next` trains, or evaluates. What goes wrong is told in no words of ours."""
        if KEY not in message.content:
            raise PlainRequestError
        request = message.content.pop(KEY).get("request")

        def train(model: Arrays) -> Trained:
            content = call_next(message, context).content
            metrics = dict(only(content.metric_records)[1])
            arrays = model if self._mean.only_metrics else arrays_of(only(content.array_records)[1])
            return Trained(arrays, self._weight(metrics.pop(WEIGHT, None)), metrics)

        try:
            with closing(self._node(context)) as participant:
                reply = answer_mean(
                    participant,
                    self._mean,
                    request,
                    model=lambda: arrays_of(only(message.content.array_records)[1]),
                    train=train,
                    config=told(message),
                )
        except Exception:  # noqa: BLE001 - Flower would send its words
            _log.exception("this node has no answer")
            reply = decline(NO_ROUND, LossReason.FAILED)
        return Message(RecordDict({KEY: ConfigRecord({"reply": reply})}), reply_to=message)

    def _weight(self, given: Any) -> int:  # noqa: ANN401
        """Return a weight as an integer: none is made up, and none is rounded."""
        if given is None and self._mean.weight_cap == 1:
            return 1
        if not isinstance(given, int | float) or given != int(given):
            raise ValueError(f"{WEIGHT}: must be a whole number beside the metrics, is {given!r}")
        return int(given)


def told(message: Message) -> dict[str, Any]:
    """Return all that a message tells a train function beside its arrays: it is in the round's context.

    raises  ValueError: it has more than one record of a kind, or other records
    """
    content = message.content
    if content.metric_records or len(content.config_records) > 1:
        raise ValueError(f"a request must have arrays, and one configuration at most, has {sorted(content)}")
    arrays, record = only(content.array_records) if content.array_records else ("", {})
    configs = {name: dict(config) for name, config in content.config_records.items()}
    kind = message.metadata.message_type
    return {"type": kind, "arrays": arrays, "order": list(record), "configs": configs}


def only(records: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the one record of its kind, and its name. Raises ValueError: there are others, or none."""
    if len(records) != 1:
        raise ValueError(f"a message must have one record of each kind, has {sorted(records)}")
    return next(iter(records.items()))


def arrays_of(record: Any) -> Arrays:  # noqa: ANN401
    return {name: array.numpy() for name, array in record.items()}
