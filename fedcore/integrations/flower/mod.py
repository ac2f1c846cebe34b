"""The client's side in Flower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedcore.codec.mean import Arrays, Mean
from fedcore.integrations.exchange import PlainRequestError, Trained, answer_mean
from secagg.embedding import MappingStore

KEY, WEIGHT = "secagg", "num-examples"


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
        """Answer a message; `call_next` trains, or evaluates."""
        if KEY not in message.content:
            raise PlainRequestError
        request = message.content.pop(KEY)["request"]

        def train(model: Arrays) -> Trained:
            content = call_next(message, context).content
            metrics = dict(only(content.metric_records))
            arrays = model if self._mean.only_metrics else arrays_of(only(content.array_records))
            return Trained(arrays, int(metrics.pop(WEIGHT, 1)), metrics)

        with closing(self._node(context)) as participant:
            reply = answer_mean(
                participant,
                self._mean,
                request,
                model=lambda: arrays_of(only(message.content.array_records)),
                train=train,
                config=dict(next(iter(message.content.config_records.values()), {})),
            )
        return Message(RecordDict({KEY: ConfigRecord({"reply": reply})}), reply_to=message)


def only(records: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the one record of its kind. Raises ValueError: there are others, or none."""
    if len(records) != 1:
        raise ValueError(f"a message must have one record of each kind, has {sorted(records)}")
    return next(iter(records.values()))


def arrays_of(record: Any) -> Arrays:  # noqa: ANN401
    return {name: array.numpy() for name, array in record.items()}
