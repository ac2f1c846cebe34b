"""A whole round in one process: real sessions, real messages, no network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Literal

from secagg.effects import (
    Aborted,
    Aggregate,
    Completed,
    Effect,
    InputWanted,
    Refused,
    Send,
    SignWanted,
)
from secagg.errors import ParameterError, RemoteProtocolError, RoundAbortedError
from secagg.kernels import UIntArray, VectorSource
from secagg.local_oneshot import aggregate_oneshot
from secagg.params import Entropy, Identity, Phase, Policy, RoundParameters, Suite, ThreatModel, require
from secagg.params_oneshot import OneShotPhase
from secagg.primitives.kem import AVAILABLE
from secagg.primitives.labels import context_digest
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession, ServerSession


@dataclass(frozen=True, slots=True, eq=False)
class LocalAggregate(Aggregate):
    """An Aggregate that also says which of the given vectors are in the sum.

    clients      indices into `vectors`, ascending
    unprotected  "one-shot": too few decryptors opened it to notice one that lied (`OneShotAggregate`)
    """

    clients: tuple[int, ...]
    unprotected: bool = False


def aggregate(
    vectors: Sequence[UIntArray | VectorSource],
    *,
    ring_bits: int,
    drop: Mapping[int, Phase] | None = None,
    threat_model: ThreatModel | None = None,
    entropy: Entropy = os.urandom,
    threads: int = 1,
    suite: Suite = "x25519",
    protocol: Literal["pairwise", "one-shot"] = "pairwise",
    committee: int = 8,
    lose_decryptors: Mapping[int, OneShotPhase] | None = None,
    post_quantum: bool = AVAILABLE,
) -> LocalAggregate:
    """Sum vectors of one client each through the real protocol, all parties in this process.

    vectors       n arrays (d,) of unsigned integers below 2^ring_bits, or VectorSources, one per client
    drop          the phase before whose answer a client vanishes, by index into `vectors`
    threat_model  default: ThreatModel()
    threads       for agreements and masks
    suite         of "pairwise": "x25519-mlkem768" keeps what is recorded closed to quantum computers
    protocol      "one-shot": clients speak once, and a committee opens the sum (PROTOCOL.md, part 2); who
                  drops out from ConsistencyCheck on has spoken, so it is in the sum
    committee, lose_decryptors, post_quantum
                  of "one-shot": decryptors; the phase before whose answer one vanishes; whether shares are
                  sealed under ML-KEM-768, too

    returns  the sum modulo 2^ring_bits over those that uploaded, and the bytes per phase
    raises   InfeasibleParameters, ParameterError, LocalProtocolError for the arguments;
             RoundAbortedError when too many dropped out
    """
    drop = dict(drop or {})
    if outside := [i for i in drop if not 0 <= i < len(vectors)]:
        raise ParameterError(f"drop: client {outside[0]} is not in 0..{len(vectors) - 1}")
    for i, phase in drop.items():
        require(isinstance(phase, Phase), f"drop[{i}]", "a Phase", phase)
    if not len(vectors):
        raise ParameterError("vectors: must not be empty")
    require(protocol in {"pairwise", "one-shot"}, "protocol", "'pairwise' or 'one-shot'", protocol)
    if protocol == "one-shot":
        require(suite == "x25519", "suite", "given with protocol='pairwise' only", suite)
        summed, clients_in_it = aggregate_oneshot(
            vectors,
            _length(vectors[0]),
            ring_bits=ring_bits,
            silent={i for i, phase in drop.items() if phase <= Phase.MASKED_INPUT_COLLECTION},
            committee=committee,
            lose_decryptors=lose_decryptors or {},
            post_quantum=post_quantum,
            threat_model=threat_model,
            entropy=entropy,
            threads=threads,
        )
        return LocalAggregate(
            summed.total,
            summed.survivors,
            summed.blamed,
            summed.traffic,
            clients=clients_in_it,
            unprotected=summed.unprotected,
        )
    require(not lose_decryptors, "lose_decryptors", "given with protocol='one-shot' only", lose_decryptors)
    signers = [IdentityKey.generate(entropy) for _ in vectors]
    advertising = sum(phase is not Phase.ADVERTISE_KEYS for phase in map(drop.get, range(len(vectors))))
    parameters = RoundParameters(
        round_id=entropy(16),
        vector_length=_length(vectors[0]),
        ring_bits=ring_bits,
        context=context_digest(b"local"),
        threat_model=threat_model or ThreatModel(),
        minimum_cohort=max(3, advertising),
        suite=suite,
    )
    model = parameters.threat_model
    policy = Policy(
        known=frozenset(signer.identity for signer in signers),
        minimum_cohort=parameters.minimum_cohort,
        minimum_corrupt=model.corrupt,
        minimum_security_bits=model.security_bits,
        minimum_grinding_bits=model.grinding_bits,
        maximum_vector_length=parameters.vector_length,
        adversary=model.adversary,
    )
    server = ServerSession(parameters, admitted=[signer.identity for signer in signers], threads=threads)
    clients = {
        signer.identity: ClientSession(
            signer=signer, context=parameters.context, policy=policy, entropy=entropy, threads=threads
        )
        for signer in signers
    }
    index = {signer.identity: i for i, signer in enumerate(signers)}
    result = _run(server, clients, {signers[i].identity: phase for i, phase in drop.items()}, vectors, index)
    return LocalAggregate(
        result.total,
        result.survivors,
        result.blamed,
        result.traffic,
        clients=tuple(sorted(index[identity] for identity in result.survivors)),
    )


def _length(vector: UIntArray | VectorSource) -> int:
    return len(vector) if isinstance(vector, Sized) else vector.length


def _run(
    server: ServerSession,
    clients: Mapping[Identity, ClientSession],
    drop: Mapping[Identity, Phase],
    vectors: Sequence[UIntArray | VectorSource],
    index: Mapping[Identity, int],
) -> Aggregate:
    """Carry effects between the sessions until the server has the sum."""
    waiting = deque(server.start())
    while True:
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, Completed) and effect.result is not None:
                return effect.result
            if isinstance(effect, Aborted):
                suspects = effect.blamed, effect.guilty, effect.likely
                raise RoundAbortedError(effect.reason, effect.detail, *suspects)
            if isinstance(effect, Refused):
                raise RemoteProtocolError(effect.reason, effect.detail)
            if not isinstance(effect, Send) or effect.to is None:
                continue
            phase = server.phase
            if phase is not None and drop.get(effect.to, Phase.UNMASKING + 1) <= phase:
                continue
            vector = vectors[index[effect.to]]
            for frame in _answer(clients[effect.to], effect.frame.buffer(), vector):
                waiting.extend(server.receive(effect.to, frame))
        waiting.extend(server.close_phase())


def _answer(
    client: ClientSession, frame: bytes | memoryview, vector: UIntArray | VectorSource
) -> Iterable[bytes | memoryview]:
    effects: deque[Effect] = deque(client.receive(frame))
    while effects:
        match effects.popleft():
            case Send(frame=answer):
                yield answer.buffer()
            case InputWanted():
                effects.extend(client.submit(vector))
            case SignWanted():
                effects.extend(client.sign())
            case Refused() as refused:
                raise RemoteProtocolError(refused.reason, refused.detail)
            case _:  # an aborted client falls silent; the server counts it as a dropout
                pass
