"""Two real ends: a cohort of clients and one server, joined by hand or by a link that loses and lies."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar, cast

import numpy as np

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    Completed,
    Effect,
    InputWanted,
    RefusalReason,
    Refused,
    Send,
    SignWanted,
)
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages import (
    Message,
    SharedKeys,
    UnmaskingResponse,
    decode,
    decode_frame,
    encode,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Adversary, Buffer, Identity, Phase, Policy, RoundParameters, Suite, ThreatModel
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.hybrid import opening_key
from secagg.primitives.kem import KemSecret
from secagg.primitives.masks import sealing_keys, share_label
from secagg.primitives.sealing import seal
from secagg.primitives.shamir import share_pairs
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.round import RoundView
from secagg.protocol.server import snapshot as server_snapshot
from secagg.protocol.server.advertise_keys import AdvertiseKeys
from secagg.protocol.snapshot import checked_body

M = TypeVar("M")
CONTEXT = hashlib.sha256(b"context of the tests").digest()
NEVER: Mapping[int, Phase] = {}


class CounterEntropy:
    """SHA-256(seed || counter), counter 8 bytes big-endian: the same bytes in every run."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._counter = 0
        self._ready = b""
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        while len(self._ready) < size:
            self._ready += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        out, self._ready = self._ready[:size], self._ready[size:]
        self.drawn += size
        return out


class Cohort:
    """One server and its clients. Client i has the i-th smallest identity, so i is its roster index.

    Client i contributes the unit vector e_i: a lost input shows as 0, a double count as 2.
    """

    def __init__(
        self,
        clients: int,
        *,
        adversary: Adversary = "active",
        corrupt: float = 0.1,
        dropout: float = 0.1,
        security_bits: int = 40,
        correctness_bits: int = 20,
        grinding_bits: int = 40,
        vector_length: int | None = None,
        ring_bits: int = 16,
        minimum_cohort: int | None = None,
        minimum_survivors: int = 3,
        suite: Suite = "x25519",
        seed: str = "cohort",
    ) -> None:
        enrolment = CounterEntropy(f"{seed}/identities")
        self.signers = tuple(
            sorted((IdentityKey.generate(enrolment) for _ in range(clients)), key=lambda s: s.identity)
        )
        self.identities = tuple(signer.identity for signer in self.signers)
        self.index = {identity: i for i, identity in enumerate(self.identities)}
        self.seed = seed
        self.parameters = RoundParameters(
            round_id=CounterEntropy(f"{seed}/round")(16),
            vector_length=vector_length or clients,
            ring_bits=ring_bits,
            context=CONTEXT,
            threat_model=ThreatModel(
                corrupt=corrupt,
                dropout=dropout,
                adversary=adversary,
                security_bits=security_bits,
                correctness_bits=correctness_bits,
                grinding_bits=grinding_bits,
            ),
            minimum_cohort=minimum_cohort or clients,
            minimum_survivors=minimum_survivors,
            suite=suite,
        )
        self.policy = Policy(
            known=frozenset(self.identities),
            minimum_cohort=3,
            minimum_survivors=2,
            minimum_corrupt=corrupt,
            minimum_security_bits=security_bits,
            minimum_grinding_bits=grinding_bits,
            adversary=adversary,
        )
        self.server = ServerSession(self.parameters, admitted=self.identities)
        self.clients = [
            ClientSession(
                signer=signer, context=CONTEXT, policy=self.policy, entropy=CounterEntropy(f"{seed}/{i}")
            )
            for i, signer in enumerate(self.signers)
        ]
        self.requests: list[bytes | None] = [None] * clients  # the newest frame to each client
        self.answers: list[bytes | None] = [None] * clients  # the newest frame of each client
        self.submitted: set[int] = set()
        self.accepted_rosters: Counter[int] = Counter()
        self.client_aborts: dict[int, AbortReason] = {}
        self.outcome: Aggregate | Aborted | None = None
        self.released: dict[int, tuple[set[int], set[int]]] = {
            i: (set(), set()) for i in range(clients)
        }  # by dealer: holders whose seed share left them, holders whose key share left them

    # --- what everybody knows

    def vector(self, i: int) -> UIntArray:
        d = self.parameters.vector_length
        out = np.zeros(d, lane_dtype(self.parameters.ring_bits))
        out[i % d] = 1
        return out

    def sum_over(self, survivors: Iterable[int]) -> list[int]:
        total = [0] * self.parameters.vector_length
        for i in survivors:
            total[i % len(total)] += 1
        return [value % 2**self.parameters.ring_bits for value in total]

    def secrets(self, i: int) -> Secrets:
        """Draw what client i draws."""
        return Secrets.draw(CounterEntropy(f"{self.seed}/{i}"), hybrid=self.parameters.hybrid)

    def view(self) -> RoundView:
        """The view of the server, from phase 1 on."""
        phase: Any = self.server._phase
        assert not isinstance(phase, AdvertiseKeys)
        view = phase.view if hasattr(phase, "view") else phase.masked.view
        assert isinstance(view, RoundView)
        return view

    def fresh_client(self, i: int, **changes: object) -> ClientSession:
        """A new session of client i, with other arguments where given."""
        arguments: dict[str, object] = {
            "signer": self.signers[i],
            "context": CONTEXT,
            "policy": self.policy,
            "entropy": CounterEntropy(f"{self.seed}/{i}"),
        }
        return ClientSession(**cast("dict[str, Any]", arguments | changes))

    def frame(self, message: object) -> bytes:
        """A frame of this round."""
        return bytes(encode_frame(self.parameters.round_id, cast("Message", message)))

    def parameters_frame(self) -> bytes:
        """The first frame of the round."""
        return self.frame(parameters_to_wire(self.parameters))

    def request(self, i: int) -> bytes:
        frame = self.requests[i]
        assert frame is not None
        return frame

    def answer(self, i: int) -> bytes:
        frame = self.answers[i]
        assert frame is not None
        return frame

    # --- the round

    def start(self) -> Cohort:
        self.take_server(self.server.start())
        return self

    def ask(self, i: int, frame: bytes | None = None) -> list[Effect]:
        """Hand a frame, or the newest request, to client i; a wanted input or signature is given."""
        return self.take_client(i, self.clients[i].receive(self.request(i) if frame is None else frame))

    def tell(self, i: int, frame: bytes | None = None) -> list[Effect]:
        """Hand a frame of client i, or its newest answer, to the server."""
        frame = self.answer(i) if frame is None else frame
        return self.take_server(self.server.receive(self.identities[i], frame))

    def close(self) -> list[Effect]:
        return self.take_server(self.server.close_phase())

    def ask_all(self, lost: Mapping[int, Phase] = NEVER) -> Cohort:
        """Everybody asked and not lost by now gets the newest request; answers wait in `answers`."""
        phase = self.server.phase
        assert phase is not None
        for i in self.waiting():
            if lost.get(i, len(Phase)) > phase:
                effects = self.ask(i)
                assert not [e for e in effects if isinstance(e, Refused | Aborted)], effects
        return self

    def tell_all(self, lost: Mapping[int, Phase] = NEVER) -> Cohort:
        phase = self.server.phase
        assert phase is not None
        for i in self.waiting():
            if lost.get(i, len(Phase)) > phase:
                assert self.tell(i) == []
        return self

    def waiting(self) -> list[int]:
        """Clients that the server waits for."""
        return sorted(self.index[identity] for identity in self.server.progress.missing)

    def advance(self, to: Phase, lost: Mapping[int, Phase] = NEVER) -> Cohort:
        """Run the round up to the requests of a phase. lost: the phase before whose answer one vanishes."""
        if self.server.phase is None:
            self.start()
        while self.server.phase is not None and self.server.phase < to:
            self.ask_all(lost).tell_all(lost).close()
        assert self.server.phase is to, self.outcome
        return self

    def finish(self, lost: Mapping[int, Phase] = NEVER) -> Aggregate | Aborted:
        """Run the round to its end."""
        if self.server.phase is None:
            self.start()
        while self.server.phase is not None:
            self.ask_all(lost).tell_all(lost).close()
        assert self.outcome is not None
        return self.outcome

    def total(self, lost: Mapping[int, Phase] = NEVER) -> list[int]:
        """Run the round to its end; the sum."""
        return total_of(self.finish(lost))

    # --- effects

    def take_server(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            match effect:
                case Send(to=to, frame=frame) if to is not None:
                    self.requests[self.index[to]] = bytes(frame)
                case Completed(result=result):
                    assert self.outcome is None
                    assert result is not None
                    self.outcome = result
                case Aborted():
                    assert self.outcome is None
                    self.outcome = effect
                case _:
                    pass
        return effects

    def take_client(self, i: int, effects: list[Effect]) -> list[Effect]:
        out = list(effects)
        for effect in effects:
            match effect:
                case Send(frame=frame):
                    self.answers[i] = bytes(frame)
                    self._record(i, bytes(frame))
                case InputWanted() if i not in self.submitted:
                    self.submitted.add(i)
                    untold = self.clients[i]._context is None
                    submitted = self.clients[i].submit(self.vector(i), context=CONTEXT if untold else None)
                    out += self.take_client(i, submitted)
                case SignWanted():
                    out += self.take_client(i, self.clients[i].sign())
                case Aborted(reason=reason):
                    self.client_aborts[i] = reason
                case _:
                    pass
        return out

    def _record(self, holder: int, frame: bytes) -> None:
        message = decode_frame(frame)[1]
        if isinstance(message, UnmaskingResponse):
            for share in message.self_seed_shares:
                self.released[self.index[Identity(share.dealer)]][0].add(holder)
            for share in message.mask_key_shares:
                self.released[self.index[Identity(share.dealer)]][1].add(holder)

    # --- restarts

    def restart_server(self) -> None:
        """The server process dies and comes back with its newest snapshot."""
        self.server, effects = ServerSession.restore(self.server.snapshot())
        self.take_server(effects)

    def restart_client(self, i: int) -> list[Effect]:
        """The process of client i dies and comes back with its newest snapshot."""
        kept = self.clients[i].upload
        self.clients[i], effects = ClientSession.restore(
            self.clients[i].snapshot(),
            signer=self.signers[i],
            policy=self.policy,
            upload=None if kept is None else bytes(kept),
        )
        return self.take_client(i, effects)

    # --- dealers that lie

    def share_plaintexts(self, dealer: int) -> dict[int, bytes]:
        """What the dealer seals, 80 bytes by holder, from phase 1 on."""
        view, secrets = self.view(), self.secrets(dealer)
        holders = view.graph.neighbors_of(dealer)
        shares = share_pairs(
            secrets.mask,
            secrets.self_seed,
            share_seed=secrets.share_seed,
            roster_digest=view.roster_digest,
            threshold=view.roster.threshold,
            holders=len(holders),
        )
        return dict(zip(holders, shares, strict=True))

    def dealt(self, dealer: int, plaintexts: Mapping[int, bytes]) -> bytes:
        """The dealer's SharedKeys frame with these plaintexts in place of the right ones."""
        message = opened(SharedKeys, self.answer(dealer))
        digest, me, secrets = self.view().roster_digest, self.identities[dealer], self.secrets(dealer)
        shares = []
        for share in message.shares:
            holder = self.index[Identity(share.peer)]
            if holder in plaintexts:
                theirs = self.secrets(holder)
                key = sealing_keys(secrets.agreement, public_key(theirs.agreement), digest, me, share.peer)[0]
                if self.parameters.hybrid:
                    agreed = agree(secrets.agreement, public_key(theirs.agreement))
                    key = opening_key(agreed, KemSecret(theirs.kem), share.kem, digest, me, share.peer)
                ciphertext = seal(key, plaintexts[holder], share_label(digest, me, share.peer))
                shares.append(replace(share, ciphertext=ciphertext))
            else:
                shares.append(share)
        return self.frame(replace(message, shares=tuple(shares)))


def sparse(clients: int, adversary: Adversary) -> Cohort:
    """A cohort on a sparse graph, cheap because it promises little."""
    return Cohort(
        clients,
        adversary=adversary,
        corrupt=0.03,
        security_bits=1,
        correctness_bits=1,
        grinding_bits=0,
        vector_length=4,
        minimum_cohort=clients,
    )


def total_of(outcome: Aggregate | Aborted) -> list[int]:
    """The sum of a round that ended well."""
    assert isinstance(outcome, Aggregate), outcome
    return [int(value) for value in outcome.total]


# --- frames as messages and back


def opened(kind: type[M], frame: Buffer) -> M:
    """The message of a frame."""
    message = decode_frame(frame)[1]
    assert isinstance(message, kind)
    return message


def changed(cohort: Cohort, kind: type[M], frame: Buffer, **fields: object) -> bytes:
    """The frame with other values in some fields of its message."""
    return cohort.frame(replace(cast("Any", opened(kind, frame)), **cast("dict[str, Any]", fields)))


def flipped(data: bytes, bit: int) -> bytes:
    """One bit changed."""
    bit %= 8 * len(data)
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


# --- refusals


def server_state(server: ServerSession) -> bytes:
    """The snapshot without the bookkeeping of whose message was refused."""
    saved = decode(server_snapshot._Snapshot, checked_body(server.snapshot()))
    return encode(replace(saved, refused=()))


def refused_by_server(cohort: Cohort, i: int, frame: bytes, reason: RefusalReason) -> None:
    """The server refuses client i's frame for this reason, and nothing changes."""
    before = server_state(cohort.server)
    effects = cohort.server.receive(cohort.identities[i], frame)
    assert [(type(e), getattr(e, "reason", None), getattr(e, "sender", None)) for e in effects] == [
        (Refused, reason, cohort.identities[i])
    ], effects
    assert server_state(cohort.server) == before


def refused_by_client(cohort: Cohort, i: int, frame: bytes, reason: RefusalReason) -> None:
    """Client i refuses the server's frame for this reason, and nothing changes."""
    client = cohort.clients[i]
    idle = client.parameters is None
    before = None if idle else client.snapshot()
    effects = client.receive(frame)
    assert [(type(e), getattr(e, "reason", None), getattr(e, "sender", ...)) for e in effects] == [
        (Refused, reason, None)
    ], effects
    assert (client.parameters is None) == idle
    assert before is None or client.snapshot() == before


def aborted_by_client(cohort: Cohort, i: int, frame: bytes, reason: AbortReason) -> None:
    """Client i gives the round up for this reason, says nothing more and takes nothing more."""
    client = cohort.clients[i]
    effects = client.receive(frame)
    assert [(type(e), getattr(e, "reason", None)) for e in effects] == [(Aborted, reason)], effects
    assert client.phase is None
    for again in (frame, cohort.request(i)):
        assert [type(e) for e in client.receive(again)] == [Refused]


# --- a link that loses and lies


class Fault(Enum):
    """What can happen to a frame in flight."""

    NONE = "delivered"
    LOSE = "lost"
    LOSE_REPLY = "delivered, and what it causes is lost"
    DUPLICATE = "delivered, and once more later"
    DELAY = "overtaken by all others"
    FLIP = "one bit changed"
    TRUNCATE = "cut off"
    REPLAY = "delivered, then an old frame of the same direction again"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A frame between the server and a client."""

    client: int
    up: bool
    frame: bytes


class Link:
    """Everything between a cohort's two ends."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.in_flight: list[Envelope] = []
        self.seen: list[Envelope] = []
        self.flipped = 0  # frames that arrived with another bit

    def start(self) -> None:
        self._send_down(self.cohort.take_server(self.cohort.server.start()))

    def close(self) -> None:
        self._send_down(self.cohort.close())

    def resend(self, client: int, *, up: bool) -> None:
        """An end that heard nothing sends its newest frame again."""
        frame = (self.cohort.answers if up else self.cohort.requests)[client]
        if frame is not None:
            self.in_flight.append(Envelope(client, up, frame))

    def deliver(self, index: int, fault: Fault = Fault.NONE, choice: int = 0) -> None:
        """Let one frame in flight arrive, or not."""
        envelope = self.in_flight.pop(index % len(self.in_flight))
        match fault:
            case Fault.NONE:
                self._arrive(envelope)
            case Fault.LOSE:
                pass
            case Fault.LOSE_REPLY:
                waiting = list(self.in_flight)
                self._arrive(envelope)
                self.in_flight = waiting
            case Fault.DUPLICATE:
                self._arrive(envelope)
                self.in_flight.append(envelope)
            case Fault.DELAY:
                self.in_flight.append(envelope)
            case Fault.FLIP:
                self.flipped += 1
                self._arrive(replace(envelope, frame=flipped(envelope.frame, choice)), honest=False)
            case Fault.TRUNCATE:
                cut = choice % len(envelope.frame)
                self._arrive(replace(envelope, frame=envelope.frame[:cut]), honest=False)
            case Fault.REPLAY:
                self._arrive(envelope)
                if old := [e for e in self.seen if e.up == envelope.up]:  # the client may know no round yet
                    self._arrive(old[choice % len(old)])

    def restart_client(self, i: int) -> None:
        if self.cohort.clients[i].parameters is not None:
            self._send_up(i, self.cohort.restart_client(i))

    def restart_server(self) -> None:
        if self.cohort.server.phase is not None:
            self.cohort.restart_server()

    def settle(self) -> None:
        """Let everything arrive."""
        while self.in_flight:
            self.deliver(0)

    def _arrive(self, envelope: Envelope, *, honest: bool = True) -> None:
        if honest:
            self.seen.append(envelope)
        if envelope.up:
            self._send_down(self.cohort.tell(envelope.client, envelope.frame))
        else:
            self._send_up(envelope.client, self.cohort.ask(envelope.client, envelope.frame))

    def _send_down(self, effects: list[Effect]) -> None:
        self.in_flight += [
            Envelope(self.cohort.index[effect.to], up=False, frame=bytes(effect.frame))
            for effect in effects
            if isinstance(effect, Send) and effect.to is not None
        ]

    def _send_up(self, client: int, effects: list[Effect]) -> None:
        self.in_flight += [
            Envelope(client, up=True, frame=bytes(effect.frame))
            for effect in effects
            if isinstance(effect, Send)
        ]
