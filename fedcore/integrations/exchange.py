"""The two ends of every adapter: a server that has rounds of means, a node that trains when asked to."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import zipfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from fedcore.codec.mean import Arrays, Mean, MeanResult
from fedcore.errors import SettingError
from secagg import (
    Identity,
    OneShotAggregate,
    OneShotParameters,
    RoundParameters,
    SecAggError,
    ThreatModel,
    arrays_digest,
)
from secagg.embedding import (
    AnyRound,
    Ask,
    Committee,
    Loss,
    MakeVector,
    Node,
    Observer,
    OneShotRound,
    ParticipationLedger,
    Patience,
    Registry,
    Round,
    Vector,
    retry,
)

_log = logging.getLogger("fedcore.integrations")
_SIZE = 8  # bytes of a length
_BYTES = "bytes"  # the key of what stands for bytes


class PlainRequestError(SecAggError):
    """A node that has masks on was asked to train without them."""

    def __init__(self) -> None:
        super().__init__(
            "this node takes part in secure aggregation only: a request without it is refused; the server "
            "needs the strategy of this adapter"
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """What a node's training made.

    arrays   of the same names and shapes as the model
    weight   such as the number of examples
    metrics  those that the mean agreed on; others stay at the node
    """

    arrays: Arrays
    weight: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)


class Answering(Protocol):
    """A `secagg.embedding.Participant`, or what stands for one."""

    def answer(
        self,
        request: bytes,
        vector: MakeVector,
        *,
        context: Callable[[], bytes],
        subject: Callable[[], bytes],
    ) -> bytes: ...


Train: TypeAlias = Callable[[Arrays], Trained]


def canonical(config: Mapping[str, Any]) -> bytes:
    """Return a configuration as bytes that are the same at every node: JSON with sorted keys.

    raises  SettingError: a key that is no text, a value that is neither text, number, bytes, list nor table
            of those, a table with the one key "bytes", which stands for bytes
    """
    return json.dumps(_plain(dict(config)), sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping) and value.keys() != {_BYTES} and all(isinstance(key, str) for key in value):
        return {key: _plain(one) for key, one in value.items()}
    raise SettingError(f"config: must be of texts, numbers and bytes, has {type(value).__name__}")


def _told(value: Any) -> Any:  # noqa: ANN401
    """Undo `_plain`."""
    if isinstance(value, dict):
        if value.keys() == {_BYTES}:
            return bytes.fromhex(value[_BYTES])
        return {key: _told(one) for key, one in value.items()}
    return [_told(one) for one in value] if isinstance(value, list) else value


def answer_mean(
    participant: Answering,
    mean: Mean,
    request: bytes,
    *,
    model: Callable[[], Arrays],
    train: Train,
    config: Mapping[str, Any] | None = None,
) -> bytes:
    """Answer a request of a round of means. Nothing raises, whatever the server sends: see `Participant`.

    model   returns the model as this node was given it; called when the vector is wanted
    train   trains on a copy of it; called once in a round
    config  what else the node was told: it is in the round's context, so that all were told the same

    For the ledger all rounds of such means of one model are one question, whatever the configuration.
    """
    given: list[Arrays] = []

    def context() -> bytes:
        given.append(model())
        return mean.context(given[0], canonical(config or {}))

    def vector(parameters: RoundParameters | OneShotParameters) -> Vector:
        # A copy: most training changes what it is given.
        trained = train({name: np.array(array) for name, array in given[0].items()})
        if not isinstance(trained, Trained):
            raise TypeError(f"train: must return Trained, returned {type(trained).__name__}")
        told = {name: trained.metrics[name] for name in mean.metrics if name in trained.metrics}
        return mean.source(parameters, given[0], trained.arrays, weight=trained.weight, metrics=told)

    return participant.answer(request, vector, context=context, subject=lambda: mean.subject(given[0]))


def packed(model: Arrays, config: Mapping[str, Any] | None = None) -> bytes:
    """Return a model and a configuration as bytes, for hosts that carry bytes: JSON, then numpy's .npz.

    raises  ParameterError: an array that is not of numbers
    """
    arrays_digest(model)  # refuses what has no one form
    told = {"config": _plain(dict(config or {})), "names": list(model)}
    head, file = json.dumps(told).encode(), io.BytesIO()
    np.savez(file, *model.values())  # numbered: a name is no file's name
    return len(head).to_bytes(_SIZE, "big") + head + file.getvalue()


def with_model(request: bytes, along: bytes) -> bytes:
    """Return a request, and what `packed` returned, as one message for `answer_packed`."""
    return len(request).to_bytes(_SIZE, "big") + request + along


def answer_packed(participant: Answering, mean: Mean, train: Train, message: bytes) -> bytes:
    """Answer a message of `with_model`, as `answer_mean`. Nothing in it is unpickled, or inflated."""
    end, config = _SIZE + int.from_bytes(message[:_SIZE], "big"), dict[str, Any]()

    def model() -> Arrays:
        if len(message) <= end:
            raise ValueError("the request that wants a vector brought no model")
        start = end + _SIZE + int.from_bytes(message[end : end + _SIZE], "big")
        told, file = json.loads(message[end + _SIZE : start]), io.BytesIO(message[start:])
        with zipfile.ZipFile(file) as members:
            infos = members.infolist()
            sizes = sum(info.file_size for info in infos)
            if sizes > len(message) or any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ValueError(f"model: must be stored as it is, has {sizes} bytes in {len(message)}")
        file.seek(0)
        config.update(_told(told["config"]))
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[f"arr_{i}"] for i, name in enumerate(told["names"])}

    return answer_mean(participant, mean, message[_SIZE:end], model=model, train=train, config=config)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureMean:
    """The server's end: rounds of means over the nodes of a host.

    mean              what is summed; every node has the same
    registry          who is enrolled
    minimum_cohort    fewest nodes with which a round begins
    minimum_survivors fewest nodes in a sum
    attempts          rounds about one model until one has a sum; the guilty are left out of the next
    committee         rounds are of the one-upload protocol, and this opens their sums: a node is asked once,
                      and uploads about one model once, so that there is one attempt. Default: pairwise
    observer          told of losses and of everything else, as by `Round`; losses are logged in any case
    """

    mean: Mean
    registry: Registry
    minimum_cohort: int = 4
    minimum_survivors: int = 3
    threat_model: ThreatModel = field(default_factory=ThreatModel)
    patience: Patience = field(default_factory=Patience)
    ledger: ParticipationLedger | None = None
    attempts: int = 2
    committee: Committee | None = None
    threads: int = 1
    observer: Observer[Any] | None = None

    def rounds(
        self, model: Arrays, nodes: Collection[Node], config: Mapping[str, Any] | None = None
    ) -> Iterator[AnyRound[Node]]:
        """Yield rounds about a model, each to be iterated, until one has a sum."""
        if not isinstance(self.committee, Committee | None):
            raise SettingError(f"committee: must be a Committee, is {self.committee!r}")

        def make(excluded: frozenset[Identity]) -> AnyRound[Node]:
            parameters = self.mean.round(
                model,
                clients=len(nodes),
                about=canonical(config or {}),
                threat_model=self.threat_model,
                minimum_cohort=self.minimum_cohort,
                minimum_survivors=self.minimum_survivors,
            )
            kind: Callable[..., AnyRound[Node]] = Round
            if self.committee is not None:
                kind = partial(OneShotRound, committee=self.committee)
            return kind(
                parameters,
                nodes=nodes,
                registry=self.registry,
                patience=self.patience,
                excluded=excluded,
                ledger=self.ledger,
                observer=self._observe,
                threads=self.threads,
            )

        return retry(make, 1 if self.committee else self.attempts)

    def _observe(self, event: Any) -> None:  # noqa: ANN401 - whatever happens
        if isinstance(event, Loss):
            phase = event.phase.name.replace("_", " ").lower()
            why = f"{event.reason}: {event.detail}" if event.detail else event.reason
            _log.warning("node %s is lost in %s: %s", event.node, phase, why)
        if self.observer is not None:
            self.observer(event)

    def run(
        self,
        model: Arrays,
        nodes: Collection[Node],
        carry: Callable[[Ask[Node]], None],
        config: Mapping[str, Any] | None = None,
    ) -> tuple[AnyRound[Node], MeanResult]:
        """Run rounds over a host until one has a sum.

        carry   takes the requests of an `Ask` to the nodes, and hands in what comes back until it is over

        returns the round, and what it tells
        raises  RoundAbortedError, LedgerError: none has a sum; ParameterError; SpoiledError
        """
        for one in self.rounds(model, nodes, config):
            for ask in one:
                carry(ask)
        return one, self._decoded(one, model)

    async def run_async(
        self,
        model: Arrays,
        nodes: Collection[Node],
        carry: Callable[[Ask[Node]], Awaitable[None]],
        config: Mapping[str, Any] | None = None,
    ) -> tuple[AnyRound[Node], MeanResult]:
        """Run as `run`, on an event loop; what takes long is done in threads."""
        for one in self.rounds(model, nodes, config):
            asks = iter(one)
            while isinstance(ask := await asyncio.to_thread(next, asks, None), Ask):
                await carry(ask)
        return one, self._decoded(one, model)

    def _decoded(self, one: AnyRound[Node], model: Arrays) -> MeanResult:
        """Decode the sum, and log what of it did not fit what was agreed on."""
        result = self.mean.decode(one.parameters, model, one.result)
        if isinstance(one.result, OneShotAggregate) and one.result.unprotected:
            _log.warning(
                "too few decryptors opened the sum to notice one that lied: believe it as far as them"
            )
        for name, count in result.counts.items():
            if count:
                _log.warning("%s: %s of %s nodes", name.replace("_", " "), count, result.clients)
        return result
