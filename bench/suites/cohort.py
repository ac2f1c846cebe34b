"""A cohort that costs little beside what is measured: a few real clients, the rest stand-ins.

The server and the sampled clients are the real sessions, and every message passes through them. A stand-in
has real keys, real signatures and real Shamir shares; it saves only what nobody can see in the figures:
- what it seals for other stand-ins is random bytes, for nobody opens it;
- it leaves out the masks it shares with surviving stand-ins, for they cancel in the sum;
- it checks nothing.
The sum is compared with the plain sum at the end.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar, cast
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from secagg import (
    ClientSession,
    GraphParameters,
    IdentityKey,
    Phase,
    Policy,
    RoundParameters,
    ServerSession,
    ThreatModel,
)
from secagg.effects import Aborted, Completed, Effect, Frame, InputWanted, Send, SignWanted
from secagg.kernels import UIntArray, mask_apply, pack, ring_mask
from secagg.messages import (
    MaskedInput,
    RevealedShare,
    Rows,
    SealedShare,
    SharedKeys,
    SurvivorSignature,
    UnmaskingResponse,
    decode_frame,
    encode_frame,
    joined,
)
from secagg.messages.types import Message
from secagg.params import Adversary, Identity
from secagg.primitives.bounds import colluders
from secagg.primitives.labels import context_digest
from secagg.primitives.masks import mask_sign, pairwise_seed, sealing_keys, seed_commitment, share_label
from secagg.primitives.sealing import seal, unseal
from secagg.primitives.shamir import SHARE_BYTES, share_pairs
from secagg.protocol.client.advertise_keys import Secrets, advertise
from secagg.protocol.round import RoundView
from secagg.protocol.server.share_keys import ShareKeys

T = TypeVar("T")
RING_BITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One round. `dropout` is the share that vanishes before it uploads; a tenth at least is planned for."""

    clients: int
    length: int
    dropout: float = 0.1
    adversary: Adversary = "active"
    complete: bool = False  # everybody is everybody's neighbor
    sample: int = 3  # clients that are real and timed
    threads: int = 1

    @property
    def dropouts(self) -> int:
        return int(self.clients * self.dropout)

    @property
    def model(self) -> ThreatModel:
        return ThreatModel(dropout=max(self.dropout, 0.1), adversary=self.adversary)


@dataclass(slots=True)
class Account:
    """Seconds and bytes by phase. `client` holds one list per phase, an entry per sampled client."""

    server: dict[Phase, float] = field(default_factory=lambda: defaultdict(float))
    client: dict[Phase, dict[Identity, float]] = field(default_factory=lambda: defaultdict(dict))
    up: dict[Phase, int] = field(default_factory=dict)  # of one client
    down: dict[Phase, int] = field(default_factory=dict)


class Cohort:
    """Runs one round; see `account`, `view` and `frames` afterwards."""

    def __init__(self, workload: Workload, *, keep_frames: bool = False) -> None:
        self.workload = workload
        self.account = Account()
        self.frames: list[tuple[Identity, bytes] | None] | None = [] if keep_frames else None  # None: close
        n = workload.clients
        self.signers = {key.identity: key for key in (IdentityKey.generate(os.urandom) for _ in range(n))}
        self.secrets = {identity: Secrets.draw(os.urandom) for identity in self.signers}
        self.parameters = RoundParameters(
            round_id=os.urandom(16),
            vector_length=workload.length,
            ring_bits=RING_BITS,
            context=context_digest(b"bench"),
            threat_model=workload.model,
            minimum_cohort=n,
        )
        policy = Policy(known=frozenset(self.signers), minimum_cohort=n, adversary=workload.adversary)
        names = list(self.signers)
        self.dropped = frozenset(names[: workload.dropouts])
        self.real = {
            name: ClientSession(
                signer=self.signers[name],
                context=self.parameters.context,
                policy=policy,
                entropy=os.urandom,
                threads=workload.threads,
            )
            for name in names[workload.dropouts : workload.dropouts + workload.sample]
        }
        self.server = ServerSession(self.parameters, admitted=names, threads=workload.threads)
        self.vector = np.random.default_rng(1).integers(0, 2**RING_BITS, workload.length, np.uint64)
        self.vector = self.vector.astype(np.uint32)
        self.shares: dict[Identity, list[bytes]] = {}  # of stand-ins, by holder's place
        self.keys: dict[Identity, tuple[bytes, bytes]] = {}  # public agreement and mask keys
        self.back: dict[tuple[Identity, Identity], bytes] = {}  # (stand-in, real dealer) -> opening key
        self.sealed: dict[Identity, dict[bytes, bytes]] = {}  # of real dealers, by holder
        self.view: RoundView

    def run(self) -> UIntArray:
        """Run the round; returns the sum. Raises RuntimeError when it is wrong or the round ends early."""
        effects = self._timed(Phase.ADVERTISE_KEYS, self.server.start)
        with ExitStack() as patches:
            if self.workload.complete:
                patches.enter_context(
                    mock.patch("secagg.protocol.server.advertise_keys.choose_for", complete_graph)
                )
            while True:
                phase = self.server.phase
                for effect in effects:
                    if isinstance(effect, Completed) and effect.result is not None:
                        return self._checked(effect.result.total)
                    if isinstance(effect, Aborted):
                        raise RuntimeError(f"the round ended: {effect.reason}: {effect.detail}")  # noqa: TRY004
                    if phase is not None and isinstance(effect, Send) and effect.to is not None:
                        self._deliver(phase, effect.to, effect.frame)
                if phase is None:
                    raise RuntimeError("the round ended without a result")
                if self.frames is not None:
                    self.frames.append(None)
                effects = self._timed(phase, self.server.close_phase)
                sharing = self.server._phase  # noqa: SLF001
                if isinstance(sharing, ShareKeys):
                    self.view = sharing.view
                    self.keys = {
                        Identity(entry.identity): (entry.agreement_key, entry.mask_key)
                        for entry in sharing.advertisements
                    }
                    self.neighbors = self.view.graph.neighbors()
                    self.positions = self.view.graph.positions()

    def _timed(self, phase: Phase, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        out = call()
        self.account.server[phase] += time.perf_counter() - began
        return out

    def _deliver(self, phase: Phase, client: Identity, frame: Frame) -> None:
        if client in self.dropped and phase >= Phase.MASKED_INPUT_COLLECTION:
            return
        if client in self.real:
            answers = self._real(phase, client, frame)
        else:
            answers = [encode_frame(self.parameters.round_id, self._stand_in(phase, client))]
        for answer in answers:
            data = answer.buffer()
            if self.frames is not None:
                self.frames.append((client, bytes(data)))
            refused = self._timed(phase, lambda data=data: self.server.receive(client, data))  # type: ignore[misc]
            if refused:
                raise RuntimeError(f"refused: {refused}")

    def _real(self, phase: Phase, client: Identity, frame: Frame) -> list[Frame]:
        session, data = self.real[client], frame.buffer()
        self.account.down[phase] = frame.size
        began = time.perf_counter()
        effects: list[Effect] = session.receive(data)
        if any(isinstance(effect, InputWanted) for effect in effects):
            effects = session.submit(self.vector)
        if any(isinstance(effect, SignWanted) for effect in effects):
            effects = session.sign()
        spent = time.perf_counter() - began
        self.account.client[phase][client] = spent
        sent = [effect.frame for effect in effects if isinstance(effect, Send)]
        if not sent:
            raise RuntimeError(f"a client did not answer in {phase.name}: {effects}")
        self.account.up[phase] = sent[0].size
        if phase is Phase.SHARE_KEYS:
            self._keep_real_shares(client, sent[0])
        return sent

    def _stand_in(self, phase: Phase, me: Identity) -> Message:
        signer, secrets = self.signers[me], self.secrets[me]
        match phase:
            case Phase.ADVERTISE_KEYS:
                return advertise(self.parameters, signer, secrets)
            case Phase.SHARE_KEYS:
                return self._shared(me)
            case Phase.MASKED_INPUT_COLLECTION:
                packed = pack(self._masked(me), RING_BITS)
                everybody = self.view.bitmap(range(self.view.clients))
                text = self.view.upload_text(everybody, hashlib.sha256(packed).digest())
                return MaskedInput(memoryview(packed), (), signer.sign(text))
            case Phase.CONSISTENCY_CHECK:
                everybody = self.view.bitmap(range(self.view.clients))
                text = self.view.survivors_text(everybody, self.view.bitmap(self._survivors()))
                return SurvivorSignature(self.view.index[me], signer.sign(text))
            case _:
                return self._revealed(me)

    def _survivors(self) -> list[int]:
        return [i for i, name in enumerate(self.view.identities) if name not in self.dropped]

    def _around(self, me: Identity) -> list[Identity]:
        return [self.view.identities[i] for i in self.neighbors[self.view.index[me]]]

    def _shared(self, me: Identity) -> SharedKeys:
        """Real shares; sealed for real clients, random bytes for stand-ins."""
        around, digest, secrets = self._around(me), self.view.roster_digest, self.secrets[me]
        self.shares[me] = share_pairs(
            secrets.mask,
            secrets.self_seed,
            share_seed=secrets.share_seed,
            roster_digest=digest,
            threshold=self.view.roster.threshold,
            holders=len(around),
        )
        sealed = np.frombuffer(os.urandom(96 * len(around)), np.uint8).reshape(-1, 96).copy()
        for place, holder in enumerate(around):
            if holder in self.real:
                key, back = sealing_keys(secrets.agreement, self.keys[holder][0], digest, me, holder)
                ciphertext = seal(key, self.shares[me][place], share_label(digest, me, holder))
                sealed[place] = np.frombuffer(ciphertext, np.uint8)
                self.back[me, holder] = back
        names = joined(around, 32)
        return SharedKeys(
            Rows.build(SealedShare, len(around), peer=names, ciphertext=sealed),
            seed_commitment(digest, me, secrets.self_seed),
            self.signers[me].sign(self.view.acceptance_text()),
        )

    def _masked(self, me: Identity) -> UIntArray:
        """Add the self mask and the masks shared with dropouts and real clients: the others cancel."""
        secrets = self.secrets[me]
        seeds, signs = [bytes(secrets.self_seed)], [1]
        for other in self._around(me):
            if other in self.dropped or other in self.real:
                seeds.append(
                    pairwise_seed(secrets.mask, self.keys[other][1], self.view.roster_digest, me, other)
                )
                signs.append(mask_sign(me, other))
        masked = self.vector.copy()
        mask_apply(masked, b"".join(seeds), np.array(signs, np.int8))
        return masked

    def _revealed(self, me: Identity) -> UnmaskingResponse:
        around = self._around(me)
        places = self.positions[self.view.index[me]].tolist()
        shares = [
            self._open(dealer, me) if dealer in self.real else self.shares[dealer][place]
            for dealer, place in zip(around, places, strict=True)
        ]
        words = joined(shares, 2 * SHARE_BYTES)
        alive = np.array([dealer not in self.dropped for dealer in around])
        names = joined(around, 32)

        def rows(chosen: NDArray[np.bool_], part: slice) -> Rows[RevealedShare]:
            return Rows.build(
                RevealedShare, int(chosen.sum()), dealer=names[chosen], share=words[chosen, part]
            )

        return UnmaskingResponse(
            rows(alive, slice(SHARE_BYTES, None)), rows(~alive, slice(None, SHARE_BYTES))
        )

    def _keep_real_shares(self, dealer: Identity, frame: Frame) -> None:
        """Keep what a real client sealed, until stand-ins reveal it."""
        shared = cast("SharedKeys", decode_frame(frame.buffer())[1])
        self.sealed[dealer] = {share.peer: share.ciphertext for share in shared.shares}

    def _open(self, dealer: Identity, me: Identity) -> bytes:
        ciphertext = self.sealed[dealer][me]
        plaintext = unseal(
            self.back[me, dealer], ciphertext, share_label(self.view.roster_digest, dealer, me)
        )
        if plaintext is None:
            raise RuntimeError("a stand-in cannot open a real client's share")
        return plaintext

    def _checked(self, total: UIntArray) -> UIntArray:
        survivors = self.workload.clients - len(self.dropped)
        if not np.array_equal(total, self.vector * np.uint32(survivors) & np.uint32(ring_mask(RING_BITS))):
            raise RuntimeError("the sum is wrong")
        return total


def complete_graph(clients: int, model: ThreatModel) -> GraphParameters:
    """Threshold of the complete graph, by the rule of choose_parameters, for any n."""
    degree, a = clients - 1, colluders(clients, clients - 1, model)
    d = -(-model.dropout_ppm * clients // 10**6)
    threshold = max(2, a + 1, min((degree + a) // 2 + 1, degree - d))
    return GraphParameters(degree=degree, threshold=threshold)
