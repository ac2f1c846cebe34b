"""A committee, its clients and a server, joined by hand: frames can be read, lost and changed on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from secagg.effects import (
    Aborted,
    CommitteeFormed,
    Completed,
    Effect,
    OneShotAggregate,
    RefusalReason,
    Refused,
    Send,
    SignWanted,
)
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages.oneshot import ONESHOT_FRAMES, OneShotMessage, Upload, decode_oneshot
from secagg.params import Adversary, Buffer, Identity, ThreatModel
from secagg.params_oneshot import CommitteeParameters, OneShotParameters, OneShotPhase, OneShotPolicy
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.oneshot import CommitteeSession, Contributor, DecryptorSession, OneShotServer
from secagg.protocol.oneshot.certificate import read_certificate
from secagg.protocol.oneshot.dealing import UploadTrees
from secagg.protocol.oneshot.view import CommitteeView, OneShotView
from tests.protocol.network import CONTEXT, CounterEntropy

EPOCH_ID = bytes(range(16))
ROUND_ID = bytes(range(16, 32))


def keys(seed: str, count: int) -> tuple[IdentityKey, ...]:
    """Signers by identity."""
    entropy = CounterEntropy(seed)
    return tuple(sorted((IdentityKey.generate(entropy) for _ in range(count)), key=lambda key: key.identity))


@dataclass
class Epoch:
    """A committee that was formed; member i has the i-th smallest identity of the members."""

    parameters: CommitteeParameters
    signers: tuple[IdentityKey, ...]
    policy: OneShotPolicy
    decryptors: dict[Identity, DecryptorSession]
    certificate: bytes
    committee: CommitteeView

    @property
    def members(self) -> tuple[Identity, ...]:
        return self.committee.members


def committee_parameters_of(members: int, **changes: Any) -> CommitteeParameters:
    given = {
        "epoch_id": EPOCH_ID,
        "minimum_candidates": members,
        "minimum_committee": min(members, 3),
        "committee_size": 256,
        "post_quantum": False,
    }
    return CommitteeParameters(**{**given, **changes})


def policy_of(
    decryptors: Collection[IdentityKey], clients: Collection[IdentityKey], **changes: Any
) -> OneShotPolicy:
    given = {
        "known": frozenset(client.identity for client in clients),
        "decryptors": frozenset(one.identity for one in decryptors),
        "minimum_candidates": 3,
        "minimum_committee": 3,
        "minimum_survivors": 2,
        "minimum_per_context": 1,
        "minimum_colluding": 0,
        "require_post_quantum": False,
        "minimum_corrupt": 0.0,
    }
    return OneShotPolicy(**{**given, **changes})


def form(
    members: int,
    clients: Collection[IdentityKey] = (),
    *,
    adversary: Adversary = "active",
    seed: str = "epoch",
    **changes: Any,
) -> Epoch:
    """Form a committee of so many candidates."""
    signers = keys(f"{seed}/decryptors", members)
    model = changes.pop("threat_model", ThreatModel(adversary=adversary))
    demands = changes.pop("policy", {})
    parameters = committee_parameters_of(members, threat_model=model, **changes)
    policy = policy_of(signers, clients, adversary=adversary, **demands)
    decryptors = {
        signer.identity: DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy(f"{seed}/{i}"))
        for i, signer in enumerate(signers)
    }
    server = CommitteeSession(parameters, candidates=list(decryptors))
    waiting: deque[Effect] = deque(server.start())
    while True:
        while waiting:
            match waiting.popleft():
                case CommitteeFormed(certificate=frame):
                    certificate = bytes(frame)
                    view = read_certificate(certificate, policy)
                    return Epoch(parameters, signers, policy, decryptors, certificate, view)
                case Send(to=to, frame=frame) if to is not None:
                    for effect in decryptors[to].receive(bytes(frame)):
                        if isinstance(effect, Send):
                            waiting.extend(server.receive(to, bytes(effect.frame)))
                        assert not isinstance(effect, Refused), effect
                case effect:
                    assert not isinstance(effect, Refused | Aborted), effect
        waiting.extend(server.close_phase())


@dataclass
class Round:
    """A round of the clients and decryptors of an epoch. Client i contributes (i + 1) e_i.

    change  is given every frame of the server to a member, and may return another one, or none
    """

    clients: int
    members: int = 4
    adversary: Adversary = "active"
    ring_bits: int = 16
    vector_length: int | None = None
    contexts: tuple[bytes, ...] = (CONTEXT,)
    seed: str = "round"
    epoch_changes: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.signers = keys(f"{self.seed}/clients", self.clients)
        self.epoch = form(
            self.members, self.signers, adversary=self.adversary, seed=self.seed, **self.epoch_changes
        )
        given = {
            "round_id": ROUND_ID,
            "committee_digest": self.epoch.committee.committee_digest,
            "vector_length": self.vector_length or self.clients,
            "ring_bits": self.ring_bits,
            "contexts": tuple(sorted(self.contexts)),
            "maximum_uploads": max(self.clients, 4),
            "minimum_survivors": 2,
            "colluding": 0,
        }
        self.parameters = OneShotParameters(**{**given, **self.changes})
        self.view = OneShotView.build(self.parameters, self.epoch.committee)
        self.server = OneShotServer(
            self.parameters, self.epoch.committee, known=[signer.identity for signer in self.signers]
        )
        self.outcome: OneShotAggregate | Aborted | None = None
        self.sent: dict[Identity, list[bytes]] = {member: [] for member in self.epoch.members}
        self.refused: list[Refused] = []  # by members or by the server
        self.lost: dict[Identity, OneShotPhase] = {}
        self.change: Callable[[Identity, bytes], Iterable[bytes]] = lambda _, frame: [frame]
        self.change_answer: Callable[[Identity, bytes], Iterable[bytes]] = lambda _, frame: [frame]

    @property
    def committee(self) -> CommitteeView:
        return self.epoch.committee

    def vector(self, client: int) -> UIntArray:
        out = np.zeros(self.parameters.vector_length, lane_dtype(self.ring_bits))
        out[client % out.size] = (client + 1) % 2**self.ring_bits
        return out

    def contributor(
        self, client: int, *, context: bytes = CONTEXT, entropy: str = "", **changes: Any
    ) -> Contributor:
        return Contributor(
            signer=self.signers[client],
            context=context,
            policy=self.epoch.policy,
            entropy=CounterEntropy(entropy or f"{self.seed}/client/{client}"),
            **changes,
        )

    def upload(
        self, client: int, *, context: bytes = CONTEXT, entropy: str = "", vector: UIntArray | None = None
    ) -> bytes:
        """The frame of a client."""
        session = self.contributor(client, context=context, entropy=entropy)
        for frame in (self.epoch.certificate, bytes(self.server.parameters_frame)):
            effects = session.receive(frame)
            assert not any(isinstance(effect, Refused) for effect in effects), effects
        effects = session.submit(self.vector(client) if vector is None else vector)
        (sent,) = (effect for effect in effects if isinstance(effect, Send))
        return bytes(sent.frame)

    def start(self, clients: Iterable[int] | None = None) -> None:
        """Open the round and take the uploads of these clients, by default all."""
        self.carry(self.server.start())
        for client in range(self.clients) if clients is None else clients:
            self.carry(self.server.receive(self.signers[client].identity, self.upload(client)))

    def carry(self, effects: Iterable[Effect]) -> None:
        """Carry frames until nobody says anything any more."""
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            match effect:
                case Completed(result=OneShotAggregate() as result):
                    self.outcome = result
                case Aborted():
                    self.outcome = effect
                case Refused():
                    self.refused.append(effect)
                case Send(to=to, frame=frame) if to is not None and to in self.epoch.decryptors:
                    phase = self.server.phase
                    if phase is None or self.lost.get(to, OneShotPhase.OPEN + 1) <= phase:
                        continue
                    for changed in self.change(to, bytes(frame)):
                        self.sent[to].append(changed)
                        for answer in self.answers(to, changed):
                            for one in self.change_answer(to, answer):
                                waiting.extend(self.server.receive(to, one))
                case _:
                    pass

    def answers(self, member: Identity, frame: bytes) -> list[bytes]:
        """Everything that a member says to a frame, with consent to every sum."""
        out, effects = [], deque(self.epoch.decryptors[member].receive(frame))
        while effects:
            effect = effects.popleft()
            if isinstance(effect, Send):
                out.append(bytes(effect.frame))
            elif isinstance(effect, SignWanted):
                effects.extend(self.epoch.decryptors[member].sign(effect.round_id))
            elif isinstance(effect, Refused):
                self.refused.append(effect)
        return out

    def close(self, *, until: OneShotPhase | None = None) -> None:
        """Close phases until the round is over, or in this phase."""
        while self.outcome is None and self.server.phase is not until:
            self.carry(self.server.close_phase())

    def play(self, clients: Iterable[int] | None = None) -> OneShotAggregate | Aborted:
        """The whole round."""
        self.start(clients)
        self.close()
        assert self.outcome is not None
        return self.outcome

    def expected(self, clients: Iterable[int]) -> list[int]:
        total = np.zeros(self.parameters.vector_length, np.uint64)
        for client in clients:
            total += self.vector(client)
        return [int(value) % 2**self.ring_bits for value in total]

    def exact(self, clients: Iterable[int]) -> None:
        """The outcome is the sum over exactly these clients."""
        clients = list(clients)
        assert isinstance(self.outcome, OneShotAggregate), self.outcome
        assert self.outcome.survivors == tuple(sorted(self.signers[i].identity for i in clients))
        assert self.outcome.total.tolist() == self.expected(clients)


def message_of(frame: Buffer) -> Any:
    """The message of a frame."""
    return decode_oneshot(ONESHOT_FRAMES.open(frame))


def framed(round_id: bytes, message: OneShotMessage) -> bytes:
    """A message in a frame."""
    return bytes(ONESHOT_FRAMES.encode(round_id, message))


def changed(frame: bytes, change: Callable[[Any], Any]) -> bytes:
    """The frame with another message."""
    envelope = ONESHOT_FRAMES.open(frame)
    return framed(envelope.round_id, change(decode_oneshot(envelope)))


def signed_again(view: OneShotView, signer: IdentityKey, upload: Upload) -> Upload:
    """An upload whose signature is right for what it says."""
    return replace(upload, signature=signer.sign(UploadTrees.of(view, upload).part.text(view)))


def reasons(refused: Iterable[Refused]) -> list[RefusalReason]:
    return [one.reason for one in refused]


@cache
def standing(clients: int, members: int) -> Round:
    """A round whose uploads are taken: read only."""
    out = Round(clients, members)
    out.start()
    return out
