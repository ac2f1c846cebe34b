"""A Flower grid in one process: a client app, so many nodes, no Ray, no sockets. For tests, simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid


class InProcessGrid(Grid):
    """Calls the client app for each message that is pushed; an exception is an error reply.

    client_app  a `ClientApp`, or a function of (message, context)
    nodes       how many; node i has `partition-id` i and `num-partitions` in its configuration, and a state
    """

    def __init__(self, client_app: Callable[[Message, Context], Message], nodes: int) -> None:
        self._app, self._names = client_app, itertools.count(1)
        self._replies: dict[str, Message] = {}
        self.contexts = {
            i + 1: Context(
                run_id=1,
                node_id=i + 1,
                node_config={"partition-id": i, "num-partitions": nodes},
                state=RecordDict(),
                run_config={},
            )
            for i in range(nodes)
        }
        with suppress(ImportError):  # of versions that want to know who makes a message
            from flwr.supercore.task_identity import TaskIdentity

            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1

    def set_run(self, run: Any) -> None:  # noqa: ANN401
        """There is one run."""

    @property
    def run(self) -> Any:  # noqa: ANN401
        """There is one run."""
        return None

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Name all nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterator[str]:
        """Let each node answer."""
        names = []
        for message in messages:
            name = str(next(self._names))
            message.metadata.__dict__["_message_id"] = name
            context = self.contexts[message.metadata.dst_node_id]
            try:
                reply = self._app(message, context)
            except Exception as error:  # noqa: BLE001 - as a node's: its server hears that there was one
                reply = Message(Error(code=0, reason=type(error).__name__), reply_to=message)
            self._replies[name] = reply
            names.append(name)
        return iter(names)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push and pull."""
        return self.pull_messages(list(self.push_messages(messages)))
