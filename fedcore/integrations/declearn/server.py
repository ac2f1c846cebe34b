"""The server's side in declearn."""

# No `from __future__ import annotations`: declearn's parser of configurations reads them.
import asyncio
import dataclasses
from typing import Any, ClassVar

import numpy as np
from declearn import messaging
from declearn.aggregator import ModelUpdates
from declearn.main import FederatedServer
from declearn.messaging import Message
from declearn.model.api import Vector
from declearn.secagg.api import SecaggConfigServer

from fedcore.codec.mean import Arrays, MeanResult
from fedcore.errors import SettingError
from fedcore.integrations.declearn.client import LOSS, REQUEST, UPDATES, SecAggReply, SecAggRequest, mean_of
from fedcore.integrations.exchange import SecureMean, packed, with_model
from secagg.embedding import AnyRound, Ask, Committee, Patience, read_registry


@dataclasses.dataclass
class SecAggConfigServer(SecaggConfigServer):
    """A server's masks: who is enrolled, how long to wait, and what is agreed on with the clients."""

    secagg_type: ClassVar[str] = "secagg-v1"
    registry: str = "registry.toml"
    weight_cap: int = 1000
    loss_limit: float = 100.0
    minimum_cohort: int = 4
    input_s: float = 3600.0
    phase_s: float = 60.0
    one_upload: bool = False  # all clients are decryptors

    def __post_init__(self) -> None:
        self.committee = Committee() if self.one_upload else None

    def secure(self, *, evaluates: bool) -> SecureMean:
        """Return the server's end of a round."""
        agreed = self.clipval, self.bitsize, self.weight_cap, self.loss_limit
        return SecureMean(
            mean=mean_of(*agreed, evaluates=evaluates),
            registry=read_registry(self.registry),
            minimum_cohort=self.minimum_cohort,
            committee=self.committee,
            patience=Patience(first_s=self.phase_s, input_s=self.input_s, phase_s=self.phase_s),
        )

    def prepare_secagg_setup_query(self) -> Any:  # noqa: ANN401
        """There is no setup: rounds begin by themselves."""
        raise SettingError("secagg: needs SecAggServer in the place of FederatedServer")

    async def finalize_secagg_setup(self, netwk: Any, clients: Any = None) -> Any:  # noqa: ANN401
        """There is no setup, either."""
        return self.prepare_secagg_setup_query()


class _Trips:
    """The trips of a round: a request to each client, and the reply that has its number."""

    def __init__(self, netwk: Any, config: SecAggConfigServer, model: Arrays, *, evaluates: bool) -> None:  # noqa: ANN401
        self._netwk, self._config, self._model, self._evaluates = netwk, config, model, evaluates
        self._number = 0

    async def carry(self, ask: Ask[str]) -> None:
        """Send every request, and hand in what comes back."""
        self._number += 1
        along = packed(self._model) if ask.wants_vector else b""
        agreed = self._config.bitsize, self._config.clipval, self._number, self._evaluates
        tasks = {}
        for client, frame in ask.frames.items():
            message = SecAggRequest(*agreed, with_model(frame, along))
            tasks[asyncio.create_task(self._trip(client, message, ask.left_s))] = client
        while tasks and not ask.over:
            done, _ = await asyncio.wait(tasks, timeout=ask.left_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                client = tasks.pop(task)
                if task.exception() is None and (body := task.result()) is not None:
                    ask.take(client, body)
                else:
                    ask.lose(client, repr(task.exception()))
        for task in tasks:
            task.cancel()

    async def _trip(self, client: str, message: SecAggRequest, left_s: float) -> bytes | None:
        await self._netwk.send_message(message, client)
        while True:
            got, _ = await self._netwk.wait_for_messages_with_timeout(left_s, {client})
            if client not in got or not issubclass(got[client].message_cls, SecAggReply):
                return None
            reply = got[client].deserialize()
            if reply.number == message.number:  # or it is late, of an earlier request
                return bytes(reply.body)


async def average(
    netwk: Any,  # noqa: ANN401 - a NetworkServer
    config: SecAggConfigServer,
    request: Message,
    clients: set[str],
    arrays: Arrays | None = None,
) -> tuple[AnyRound[str], MeanResult]:
    """Run a round about a request of declearn over its network; arrays: of zeros, as the updates will be.

    raises  as `SecureMean.run`
    """
    model = {REQUEST: np.frombuffer(request.serialize(), np.uint8), **(arrays or {})}
    trips = _Trips(netwk, config, model, evaluates=not arrays)
    return await config.secure(evaluates=not arrays).run_async(model, sorted(clients), trips.carry)


class SecAggServer(FederatedServer):
    """declearn's server, whose rounds of training and evaluation are secure means."""

    def __init__(self, *arguments: Any, **others: Any) -> None:  # noqa: ANN401 - declearn's
        super().__init__(*arguments, **others)
        if not isinstance(self.secagg, SecAggConfigServer):
            raise SettingError(f"secagg: must be a SecAggConfigServer, is {type(self.secagg).__name__}")
        if self.aggrg.name != "averaging":
            name = self.aggrg.name
            raise SettingError(f"aggregator: {name!r} needs more than the mean, 'averaging' does not")

    async def training_round(self, round_i: int, train_cfg: Any, clients: set[str]) -> None:  # noqa: ANN401
        """Train on all clients, and step by their mean."""
        weights, aux = self.model.get_weights(trainable=True), self.optim.collect_aux_var()
        if aux:
            raise SettingError(f"optimizer: {min(aux)} needs more than updates, which is not carried")
        request = messaging.TrainRequest(round_i, weights, aux, **train_cfg.message_params)
        values, spec = weights.flatten()
        one, result = await average(
            self.netwk, self.secagg, request, clients, {UPDATES: np.zeros(len(values))}
        )
        mean = Vector.build_from_specs(result.arrays[UPDATES].tolist(), spec)
        reply = messaging.TrainReply(0, result.weight, 0.0, ModelUpdates(mean, 1), {})
        self.client_sampler.update(dict.fromkeys(one.survivors, reply), self.model)
        self._conduct_global_update({"aggregated": reply})

    async def evaluation_round(
        self,
        round_i: int,
        valid_cfg: Any,  # noqa: ANN401
        clients: set[str],
        force_run: bool = False,
    ) -> None:
        """Evaluate on all clients: the mean of their losses, by steps."""
        if (round_i % valid_cfg.frequency) and not force_run:
            return
        weights = self.model.get_weights(trainable=True)
        request = messaging.EvaluationRequest(round_i, weights, **valid_cfg.message_params)
        _, result = await average(self.netwk, self.secagg, request, clients)
        self._losses.append(result.metrics[LOSS])
        if self._losses[-1] == min(self._losses):
            self._best = weights
