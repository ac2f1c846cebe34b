"""A whole round of the one-upload protocol in one process: real sessions, real messages, no network."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from secagg.effects import (
    Aborted,
    Aggregate,
    CommitteeFormed,
    Completed,
    Effect,
    InputWanted,
    OneShotAggregate,
    Refused,
    Send,
    SignWanted,
)
from secagg.errors import ParameterError, RemoteProtocolError, RoundAbortedError
from secagg.kernels import UIntArray, VectorSource
from secagg.params import Entropy, Identity, Signer, ThreatModel, require
from secagg.params_oneshot import (
    CommitteeParameters,
    OneShotParameters,
    OneShotPhase,
    OneShotPolicy,
)
from secagg.primitives.labels import context_digest
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.oneshot import CommitteeSession, Contributor, DecryptorSession, OneShotServer
from secagg.protocol.oneshot.certificate import read_certificate
from secagg.protocol.oneshot.view import CommitteeView


@dataclass(slots=True)
class LocalEpoch:
    """A committee whose members are all in this process."""

    certificate: bytes
    committee: CommitteeView
    decryptors: dict[Identity, DecryptorSession]
    policy: OneShotPolicy

    def close(self) -> None:
        """Wipe what the members hold."""
        for decryptor in self.decryptors.values():
            decryptor.close()


def form_committee(
    parameters: CommitteeParameters, signers: Sequence[Signer], policy: OneShotPolicy, entropy: Entropy
) -> LocalEpoch:
    """Start an epoch with these decryptors. Raises InfeasibleParameters, RoundAbortedError."""
    server = CommitteeSession(parameters, candidates=[signer.identity for signer in signers])
    decryptors = {
        signer.identity: DecryptorSession(signer=signer, policy=policy, entropy=entropy) for signer in signers
    }
    waiting = deque(server.start())
    while True:
        while waiting:
            match waiting.popleft():
                case CommitteeFormed(certificate=frame):
                    certificate = bytes(frame)
                    view = read_certificate(certificate, policy)
                    return LocalEpoch(certificate, view, decryptors, policy)
                case Aborted() as end:
                    raise RoundAbortedError(end.reason, end.detail)
                case Send(to=to, frame=frame) if to is not None:
                    for effect in decryptors[to].receive(frame.buffer()):
                        if isinstance(effect, Send):
                            waiting.extend(server.receive(to, effect.frame.buffer()))
                        _must_not_be_refused(effect)
                case effect:
                    _must_not_be_refused(effect)
        waiting.extend(server.close_phase())


def run_round(
    epoch: LocalEpoch,
    server: OneShotServer,
    uploads: Collection[tuple[Identity, bytes]],
    lost: Mapping[Identity, OneShotPhase],
) -> OneShotAggregate:
    """Carry frames between the server and the members until there is a sum.

    uploads  the frames of the clients that speak
    lost     members that vanish before they answer in a phase
    raises   RoundAbortedError, RemoteProtocolError
    """
    waiting: deque[Effect] = deque(server.start())
    for client, upload in uploads:
        for effect in server.receive(client, upload):
            _must_not_be_refused(effect)
    while True:
        while waiting:
            match waiting.popleft():
                case Completed(result=OneShotAggregate() as result):
                    return result
                case Aborted() as end:
                    raise RoundAbortedError(end.reason, end.detail, end.blamed, end.guilty, end.likely)
                case Send(to=to, frame=frame) if to is not None:
                    phase = server.phase
                    if phase is not None and lost.get(to, OneShotPhase.OPEN + 1) <= phase:
                        continue
                    for answer in _answers(epoch.decryptors[to], frame.buffer()):
                        waiting.extend(server.receive(to, answer))
                case effect:
                    _must_not_be_refused(effect)
        waiting.extend(server.close_phase())


def _answers(decryptor: DecryptorSession, frame: bytes | memoryview) -> list[bytes | memoryview]:
    out, effects = [], deque(decryptor.receive(frame))
    while effects:
        match effects.popleft():
            case Send(frame=answer):
                out.append(answer.buffer())
            case SignWanted(round_id=round_id):
                effects.extend(decryptor.sign(round_id))
            case effect:
                _must_not_be_refused(effect)
    return out


def contribution(
    contributor: Contributor, frames: Sequence[bytes], vector: UIntArray | VectorSource
) -> bytes:
    """Let a client speak: it gets certificate and parameters, and gives its one frame."""
    for frame in frames:
        for effect in contributor.receive(frame):
            _must_not_be_refused(effect)
            if isinstance(effect, InputWanted):
                (sent,) = (one for one in contributor.submit(vector) if isinstance(one, Send))
                return bytes(sent.frame.buffer())
    raise ParameterError("frames: must end with the parameters of a round")


def _must_not_be_refused(effect: Effect) -> None:
    if isinstance(effect, Refused):
        raise RemoteProtocolError(effect.reason, effect.detail)


def aggregate_oneshot(
    vectors: Sequence[UIntArray | VectorSource],
    length: int,
    *,
    ring_bits: int,
    silent: Collection[int],
    committee: int,
    lose_decryptors: Mapping[int, OneShotPhase],
    post_quantum: bool,
    threat_model: ThreatModel | None,
    entropy: Entropy,
    threads: int,
) -> tuple[Aggregate, tuple[int, ...]]:
    """Sum vectors as `secagg.aggregate` does, with a committee of so many decryptors.

    returns  the result, and which vectors are in it
    """
    require(3 <= committee <= 256, "committee", "in 3..256 decryptors", committee)
    if outside := [i for i in lose_decryptors if not 0 <= i < committee]:
        raise ParameterError(f"lose_decryptors: decryptor {outside[0]} is not in 0..{committee - 1}")
    for i, phase in lose_decryptors.items():
        require(isinstance(phase, OneShotPhase), f"lose_decryptors[{i}]", "a OneShotPhase", phase)
    clients = [IdentityKey.generate(entropy) for _ in vectors]
    members = [IdentityKey.generate(entropy) for _ in range(committee)]
    model = threat_model or ThreatModel()
    policy = OneShotPolicy(
        known=frozenset(client.identity for client in clients),
        decryptors=frozenset(member.identity for member in members),
        minimum_candidates=committee,
        minimum_committee=committee,
        minimum_corrupt=model.corrupt,
        minimum_security_bits=model.security_bits,
        minimum_grinding_bits=model.grinding_bits,
        minimum_colluding=1,
        require_post_quantum=post_quantum,
        adversary=model.adversary,
    )
    epoch = form_committee(
        CommitteeParameters(
            epoch_id=entropy(16),
            threat_model=model,
            minimum_candidates=committee,
            minimum_committee=committee,
            committee_size=committee,
            post_quantum=post_quantum,
        ),
        members,
        policy,
        entropy,
    )
    context = context_digest(b"local")
    parameters = OneShotParameters(
        round_id=entropy(16),
        committee_digest=epoch.committee.committee_digest,
        vector_length=length,
        ring_bits=ring_bits,
        contexts=(context,),
        maximum_uploads=max(len(vectors), 3),
    )
    server = OneShotServer(parameters, epoch.committee, known=policy.known, threads=threads)
    frames = [epoch.certificate, bytes(server.parameters_frame)]
    uploads = []
    for i, (client, vector) in enumerate(zip(clients, vectors, strict=True)):
        if i not in silent:
            speaker = Contributor(
                signer=client, context=context, policy=policy, entropy=entropy, threads=threads
            )
            uploads.append((client.identity, contribution(speaker, frames, vector)))
    lost = {members[i].identity: phase for i, phase in lose_decryptors.items()}
    try:
        result = run_round(epoch, server, uploads, lost)
    finally:
        epoch.close()
    index = {client.identity: i for i, client in enumerate(clients)}
    return result, tuple(sorted(index[identity] for identity in result.survivors))
