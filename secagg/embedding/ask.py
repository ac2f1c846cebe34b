"""One trip to the nodes: what goes out, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from secagg.embedding.replies import LossReason
from secagg.errors import LocalProtocolError

Node = TypeVar("Node", bound=object)


class Ask(Generic[Node]):
    """The requests of one phase. Carry `frames`, and hand in what comes of each, until `over`.

    frames        the request of each node, the same bytes for many
    name          of the phase, for people
    wants_vector  whether the nodes make their vectors now: send the model along, if they do not have it
    """

    def __init__(
        self,
        frames: Mapping[Node, bytes],
        name: str,
        *,
        wants_vector: bool,
        take: Callable[[Node, bytes], bool],
        lose: Callable[[Node, LossReason, str], object],
        ready: Callable[[], bool],
        clock: Callable[[], float],
        time_s: float,
        grace_s: float | None,
    ) -> None:
        self.frames, self.name, self.wants_vector = dict(frames), name, wants_vector
        self._take, self._lose, self._ready = take, lose, ready
        self._clock, self._grace_s = clock, grace_s
        self._until = clock() + time_s
        self._missing = set(frames)
        self._closed = False

    @property
    def missing(self) -> frozenset[Node]:
        """The nodes that are waited for."""
        return frozenset(self._missing)

    @property
    def left_s(self) -> float:
        """Seconds for the nodes that are missing; 0: no more, whoever is missing is lost."""
        if self._grace_s is not None and self._ready():
            self._until, self._grace_s = min(self._until, self._clock() + self._grace_s), None
        return max(self._until - self._clock(), 0.0)

    @property
    def over(self) -> bool:
        """Whether nobody is waited for any more."""
        return self._closed or not self._missing or self.left_s == 0

    def take(self, node: Node, reply: object) -> None:
        """Hand in what a node answered, whatever it is; what comes when it is over is too late.

        What is no bytes costs the node the round; a repetition of an earlier answer changes nothing.

        node    as it stands in `frames`: the host says who sent what, as far as it knows
        raises  LocalProtocolError: a node that was not asked
        """
        self._check(node)
        if self._closed:
            return
        if not isinstance(reply, bytes | bytearray | memoryview):
            self._missing.discard(node)
            self._lose(node, LossReason.MALFORMED, type(reply).__name__)
        elif self._take(node, bytes(reply)):
            self._missing.discard(node)

    def lose(self, node: Node, why: str = "") -> None:
        """Give a node up: the host knows that it does not answer. why: for our own log."""
        self._check(node)
        if not self._closed and node in self._missing:
            self._missing.discard(node)
            self._lose(node, LossReason.HOST, why)

    def close(self) -> None:
        """Wait no longer: whoever is missing is lost. Called by the round when the loop goes on."""
        for node in () if self._closed else self.missing:
            self._lose(node, LossReason.SILENT, "")
        self._missing.clear()
        self._closed = True

    def _check(self, node: Node) -> None:
        if node not in self.frames:
            raise LocalProtocolError(f"node: must be one that was asked, is {node!r}")

    def __repr__(self) -> str:
        return f"Ask({self.name}, nodes={len(self.frames)}, missing={len(self._missing)})"
