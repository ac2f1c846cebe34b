"""A whole round of the one-upload protocol in one process: real sessions, real messages, no network."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from secagg.effects import (
    Aborted,
    AbortReason,
    CommitteeFormed,
    Completed,
    Effect,
    InputWanted,
    OneShotAggregate,
    Refused,
    Send,
    SignWanted,
)
from secagg.errors import LocalProtocolError, ParameterError, RemoteProtocolError, RoundAbortedError
from secagg.kernels import UIntArray, VectorSource, check_entries
from secagg.params import Entropy, Identity, Signer, ThreatModel, require
from secagg.params_oneshot import (
    CommitteeParameters,
    OneShotParameters,
    OneShotPhase,
    OneShotPolicy,
)
from secagg.primitives.kem import AVAILABLE
from secagg.primitives.labels import context_digest
from secagg.primitives.signatures import IdentityKey
from secagg.protocol.client.masked_input_collection import ArraySource, checked_source
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
    """Start an epoch with these decryptors; who fails has wiped their keys.

    raises  InfeasibleParameters, RoundAbortedError; RemoteProtocolError: a party refuses what another sent
    """
    decryptors = {
        signer.identity: DecryptorSession(signer=signer, policy=policy, entropy=entropy) for signer in signers
    }
    try:
        certificate = _certificate(CommitteeSession(parameters, candidates=list(decryptors)), decryptors)
        return LocalEpoch(certificate, read_certificate(certificate, policy), decryptors, policy)
    except BaseException:
        for decryptor in decryptors.values():
            decryptor.close()
        raise


def _certificate(server: CommitteeSession, decryptors: Mapping[Identity, DecryptorSession]) -> bytes:
    waiting: deque[Effect] = deque(server.start())
    while True:
        while waiting:
            match waiting.popleft():
                case CommitteeFormed(certificate=frame):
                    return bytes(frame)
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
    uploads: Iterable[tuple[Identity, bytes]],
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
    """Let a client speak: it gets certificate and parameters, and gives its one frame.

    raises  ParameterError: the vector; RemoteProtocolError: the client refuses a frame
    """
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
) -> tuple[OneShotAggregate, tuple[int, ...]]:
    """Sum vectors as `secagg.aggregate` does, with a committee of so many decryptors.

    returns  the result, and which vectors are in it
    """
    require(
        isinstance(committee, int) and 3 <= committee <= 256, "committee", "in 3..256 decryptors", committee
    )
    require(isinstance(post_quantum, bool), "post_quantum", "True or False", post_quantum)
    one = LocalCommittee(
        len(vectors), committee, post_quantum=post_quantum, threat_model=threat_model, entropy=entropy
    )
    context = context_digest(b"local")
    try:
        return one.sum(
            [LocalUpload(i, context, vector) for i, vector in enumerate(vectors) if i not in silent],
            length=length,
            ring_bits=ring_bits,
            maximum_uploads=len(vectors),
            lose_decryptors=lose_decryptors,
            threads=threads,
        )
    finally:
        one.close()


@dataclass(frozen=True, slots=True)
class LocalUpload:
    """An upload of a client of a LocalCommittee: what it is about, and its vector."""

    client: int
    context: bytes
    vector: UIntArray | VectorSource = field(repr=False)


class LocalCommittee:
    """Decryptors, and the keys of so many clients, for sums one after the other, all parties in this process.

    clients     numbered from 0
    decryptors  members of the committee, 3..256, as many as the threat model needs: by default at least 4
    post_quantum  whether shares are sealed under ML-KEM-768, too; by default where the library has it
    threat_model  by default ThreatModel()
    entropy     of all parties
    raises      ParameterError, InfeasibleParameters

    Close it: it holds the secrets of its epoch.
    """

    def __init__(
        self,
        clients: int,
        decryptors: int = 8,
        *,
        post_quantum: bool = AVAILABLE,
        threat_model: ThreatModel | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        require(clients >= 1, "clients", "at least 1", clients)
        self._entropy = entropy
        self._keys = [IdentityKey.generate(entropy) for _ in range(clients)]
        members = [IdentityKey.generate(entropy) for _ in range(decryptors)]
        model = threat_model or ThreatModel()
        policy = OneShotPolicy(
            known=frozenset(key.identity for key in self._keys),
            decryptors=frozenset(key.identity for key in members),
            minimum_candidates=decryptors,
            minimum_committee=decryptors,
            minimum_corrupt=model.corrupt,
            minimum_security_bits=model.security_bits,
            minimum_grinding_bits=model.grinding_bits,
            minimum_per_context=1,
            require_post_quantum=post_quantum,
            adversary=model.adversary,
        )
        parameters = CommitteeParameters(
            epoch_id=entropy(16),
            threat_model=model,
            minimum_candidates=decryptors,
            minimum_committee=decryptors,
            committee_size=decryptors,
            post_quantum=post_quantum,
        )
        self._epoch = form_committee(parameters, members, policy, entropy)
        self._told: list[set[bytes]] = [set() for _ in self._keys]
        self._closed = False

    def sum(
        self,
        uploads: Sequence[LocalUpload],
        *,
        length: int,
        ring_bits: int,
        maximum_uploads: int = 0,
        minimum_per_context: int = 0,
        lose_decryptors: Mapping[int, OneShotPhase] | None = None,
        threads: int = 1,
    ) -> tuple[OneShotAggregate, tuple[int, ...]]:
        """Sum uploads of different clients, each about a context that it has not uploaded for before.

        maximum_uploads      that the noise is for, at least as many as there are; 0: just these
        minimum_per_context  uploads about a context of fewer are left out, and always those of fewer than 3
        returns              the result, and the clients that are in it, ascending
        raises               ParameterError, LocalProtocolError: nothing was uploaded then, unless a
                             VectorSource gave an entry out of the ring;
                             RoundAbortedError: too few are left; RemoteProtocolError: a client uploads again
                             about the same. An upload that was made counts as told, whatever becomes of it
        """
        lose = lose_decryptors or {}
        self._check(uploads, length, ring_bits, lose)
        enough = maximum_uploads == 0 or maximum_uploads >= len(uploads)
        require(enough, "maximum_uploads", f"0, or at least the {len(uploads)} uploads", maximum_uploads)
        parameters = OneShotParameters(
            round_id=self._entropy(16),
            committee_digest=self._epoch.committee.committee_digest,
            vector_length=length,
            ring_bits=ring_bits,
            contexts=tuple(sorted({one.context for one in uploads})),
            maximum_uploads=max(maximum_uploads, len(uploads), 3),
            minimum_per_context=minimum_per_context,
        )
        server = OneShotServer(
            parameters, self._epoch.committee, known=self._epoch.policy.known, threads=threads
        )
        frames = [self._epoch.certificate, bytes(server.parameters_frame)]
        lost = {self._epoch.committee.members[i]: phase for i, phase in lose.items()}
        try:
            result = run_round(self._epoch, server, self._speak(uploads, frames, threads), lost)
        finally:  # who was lost, or has not opened, forgets its shares as well
            for decryptor in self._epoch.decryptors.values():
                decryptor.close_round(parameters.round_id)
        names = {key.identity: client for client, key in enumerate(self._keys)}
        return result, tuple(sorted(names[identity] for identity in result.survivors))

    def _check(
        self,
        uploads: Sequence[LocalUpload],
        length: int,
        ring_bits: int,
        lose: Mapping[int, OneShotPhase],
    ) -> None:
        """Raise for what can be known ahead of the first upload: one that was made counts as told."""
        if self._closed:
            raise LocalProtocolError("sum: the committee is closed")
        for i, one in enumerate(uploads):
            within = isinstance(one.client, int) and 0 <= one.client < len(self._keys)
            require(within, f"uploads[{i}].client", f"in 0..{len(self._keys) - 1}", one.client)
            try:
                source = checked_source(one.vector, length, ring_bits)
                if isinstance(source, ArraySource):
                    check_entries(source.array, ring_bits, 0)
            except ParameterError as error:
                raise ParameterError(f"uploads[{i}].{error}") from error
        if len(uploads) != len(clients := Counter(one.client for one in uploads)):
            twice = clients.most_common(1)[0][0]
            raise ParameterError(f"uploads: client {twice} has more than one, a client uploads once a round")
        members = len(self._epoch.committee.members)
        for i, phase in lose.items():
            within = isinstance(i, int) and 0 <= i < members
            require(within, "lose_decryptors", f"of decryptors in 0..{members - 1}", i)
            require(isinstance(phase, OneShotPhase), f"lose_decryptors[{i}]", "a OneShotPhase", phase)
        if not uploads:
            raise RoundAbortedError(AbortReason.TOO_FEW_SURVIVORS, "nobody uploaded")

    def _speak(
        self, uploads: Iterable[LocalUpload], frames: Sequence[bytes], threads: int
    ) -> Iterator[tuple[Identity, bytes]]:
        """Make one upload after the other: none is kept."""
        for one in uploads:
            key, told = self._keys[one.client], self._told[one.client]
            speaker = Contributor(
                signer=key,
                context=one.context,
                policy=self._epoch.policy,
                entropy=self._entropy,
                told=told,
                threads=threads,
            )
            upload = contribution(speaker, frames, one.vector)
            told.add(one.context)  # whatever becomes of it
            yield key.identity, upload

    def close(self) -> None:
        """Wipe what the members hold."""
        self._closed = True
        self._epoch.close()
