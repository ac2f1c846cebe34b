"""The client's side in declearn, and the messages."""

# No `from __future__ import annotations`: declearn's parser of configurations reads them.
import asyncio
import dataclasses
from contextlib import closing
from typing import Any, ClassVar

import numpy as np
from declearn import messaging
from declearn.main import FederatedClient
from declearn.messaging import Message, SerializedMessage
from declearn.secagg.api import SecaggConfigClient, SecaggSetupQuery

from fedcore.codec.mean import Arrays, Mean
from fedcore.errors import SettingError
from fedcore.integrations.exchange import Trained, answer_packed
from secagg import IdentityKey
from secagg.embedding import Participant

REQUEST, UPDATES, LOSS = "request", "updates", "loss"


@dataclasses.dataclass
class SecAggRequest(SecaggSetupQuery):
    """A request of a round (of losses, if it evaluates) and its number; the body is that of `with_model`."""

    typekey = "secagg_request"
    number: int
    evaluates: bool
    body: bytes


@dataclasses.dataclass
class SecAggReply(Message):
    """A client's answer to the request of this number."""

    typekey = "secagg_reply"
    number: int
    body: bytes


def mean_of(clipval: float, bitsize: int, weight_cap: int, loss_limit: float, *, evaluates: bool) -> Mean:
    """Return what is summed: of updates, by steps; of losses."""
    mean = Mean(clip=clipval, bits=bitsize, weight_cap=weight_cap, keep=frozenset({REQUEST}))
    return mean.evaluation({LOSS: (0.0, loss_limit)}) if evaluates else mean


@dataclasses.dataclass
class SecAggConfigClient(SecaggConfigClient):
    """A client's masks. The folder has `registry.toml`, and gets what the client keeps.

    What follows it is agreed on with the server: it is in the context of every round.
    """

    secagg_type: ClassVar[str] = "secagg-v1"
    folder: str = ""
    bitsize: int = 20
    clipval: float = 1.0
    weight_cap: int = 1000
    loss_limit: float = 100.0
    minimum_cohort: int = 4
    one_upload: bool = False  # all clients are decryptors

    def participant(self) -> Any:  # noqa: ANN401 - or what stands for one, in tests
        """Return this client's participant, for one request."""
        key = IdentityKey.from_seed(self.id_keys.prv_key.private_bytes_raw())
        decryptors: Any = "all" if self.one_upload else ()
        agreed = {"minimum_cohort": self.minimum_cohort, "decryptors": decryptors}
        return Participant.open(self.folder, signer=key, **agreed)

    async def setup_encrypter(self, netwk: Any, query: Any) -> Any:  # noqa: ANN401
        """Answer a request. No encrypter comes of it, so that plain requests stay refused."""
        request = query.deserialize()
        reply = await asyncio.to_thread(self._answer, request)
        await netwk.send_message(SecAggReply(request.number, reply))

    def _answer(self, request: SecAggRequest) -> bytes:
        agreed = self.clipval, self.bitsize, self.weight_cap, self.loss_limit
        with closing(self.participant()) as one:
            return answer_packed(one, mean_of(*agreed, evaluates=request.evaluates), self.train, request.body)

    def train(self, model: Arrays) -> Trained:
        """Do what declearn asks for; `SecAggClient` says how. Raises SettingError: it is another client."""
        raise SettingError("secagg: needs SecAggClient in the place of FederatedClient")


class SecAggClient(FederatedClient):
    """declearn's client, whose training the masks call."""

    def __init__(self, *arguments: Any, **others: Any) -> None:  # noqa: ANN401 - declearn's
        super().__init__(*arguments, **others)
        if not isinstance(self.secagg, SecAggConfigClient):
            raise SettingError(f"secagg: must be a SecAggConfigClient, is {type(self.secagg).__name__}")
        self.secagg.train = self._train  # type: ignore[method-assign]

    def _train(self, model: Arrays) -> Trained:
        message = SerializedMessage.from_bin_message(model[REQUEST].tobytes()).deserialize()
        if isinstance(message, messaging.EvaluationRequest):
            reply = _made(self.trainmanager.evaluation_round(message), messaging.EvaluationReply)
            return Trained({}, max(int(reply.n_steps), 1), {LOSS: float(reply.loss)})
        if not isinstance(message, messaging.TrainRequest):
            raise TypeError(f"request: must be to train or to evaluate, is {type(message).__name__}")
        reply = _made(self.trainmanager.training_round(message), messaging.TrainReply)
        if reply.aux_var:
            raise SettingError(
                f"optimizer: {min(reply.aux_var)} sends more than updates, which is not carried"
            )
        updates = np.array(reply.updates.updates.flatten()[0]) / reply.updates.weights
        return Trained({UPDATES: updates}, int(reply.updates.weights))


def _made(reply: Message, kind: type) -> Any:  # noqa: ANN401
    """Return what declearn made. Raises RuntimeError with its own words, which stay in this client's log."""
    if not isinstance(reply, kind):
        raise RuntimeError(getattr(reply, "message", type(reply).__name__))  # noqa: TRY004 - not of its type
    return reply
