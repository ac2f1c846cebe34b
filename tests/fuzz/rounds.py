"""Recorded rounds: sessions at every moment of a round as snapshots, and the frames that they wait for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from secagg.effects import InputWanted, SignWanted
from secagg.messages import (
    Advertisement,
    MaskedInput,
    RosterAnnouncement,
    RosterEntry,
    ShareDelivery,
    SharedKeys,
    SurvivorSignature,
    UnmaskingRequest,
    decode_frame,
)
from secagg.params import Adversary, Identity, Phase
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.round import RoundView, advertisement_digest, advertisement_text, parameters_digest
from tests.protocol.network import Cohort, changed, opened, sparse

ME = 0  # the client that gets the frames
_COMPLETE, _SPARSE = 5, 66


@dataclass(frozen=True, slots=True)
class Moment:
    """A session that waits for something, and inputs of which it takes, or has taken, the first."""

    name: str
    snapshot: bytes | None  # None: nothing to keep yet
    inputs: tuple[tuple[int, bytes], ...]  # sender (a client's session: always 0), frame
    over: bool = False  # server: close the phase after restoring


@dataclass(frozen=True, slots=True)
class Recording:
    """One round."""

    wide: bool  # on a sparse graph
    cohort: Cohort  # as it was at the end
    view: RoundView
    finished: bytes  # U1
    survivors: bytes  # S
    clients: tuple[Moment, ...]
    servers: tuple[Moment, ...]
    advertisements: Mapping[bytes, Advertisement]

    def client(self, moment: Moment) -> ClientSession:
        """Build the client's session at this moment."""
        if moment.snapshot is None:
            return self.cohort.fresh_client(ME)
        return ClientSession.restore(
            moment.snapshot, signer=self.cohort.signers[ME], policy=self.cohort.policy
        )[0]

    def server(self, moment: Moment) -> ServerSession:
        """Build the server's session at this moment."""
        if moment.snapshot is None:
            return ServerSession(self.cohort.parameters, admitted=self.cohort.identities)
        server = ServerSession.restore(moment.snapshot)[0]
        if moment.over:
            server.close_phase()
        return server

    def mended(self, message: Any, sender: int) -> Any:
        """Return the message with the signatures, and digests, that its authors would put on it now.

        So what stands behind a check of signatures is reached, too.
        """
        match message:
            case Advertisement():
                return self._advertised(message)
            case RosterAnnouncement():
                return self._announced(message)
            case SharedKeys():
                text = self.view.acceptance_text()
                return replace(message, acceptance=self._sign(sender, text))
            case ShareDelivery():
                text = self.view.acceptance_text()
                shares = (replace(one, acceptance=self._of(one.peer, text)) for one in message.shares)
                return replace(message, shares=tuple(shares))
            case MaskedInput():
                text = self.view.upload_text(self.finished, hashlib.sha256(message.packed).digest())
                return replace(message, signature=self._sign(sender, text))
            case SurvivorSignature():
                text = self.view.survivors_text(self.finished, self.survivors)
                return replace(message, signature=self._sign(sender, text))
            case UnmaskingRequest():
                return self._requested(message)
            case _:
                return message

    def _sign(self, index: int, text: bytes) -> bytes:
        return self.cohort.signers[index % len(self.cohort.signers)].sign(text)

    def _of(self, identity: bytes, text: bytes) -> bytes:
        """Sign as a client, if it is one; else anyhow."""
        return self._sign(self.cohort.index.get(Identity(identity), 0), text)

    def _advertised(self, message: Advertisement) -> Advertisement:
        text = advertisement_text(parameters_digest(self.cohort.parameters), message)
        return replace(message, signature=self._of(message.identity, text))

    def _announced(self, message: RosterAnnouncement) -> RosterAnnouncement:
        """Let the roster's digests be those of the neighbors, and the neighbors be those of its graph."""
        here = {one.identity: one for one in message.neighbors}
        entries = tuple(
            RosterEntry(entry.identity, advertisement_digest(here[entry.identity]))
            if entry.identity in here
            else entry
            for entry in message.roster.entries
        )
        roster = replace(message.roster, entries=entries)
        names = [entry.identity for entry in entries]
        me = self.cohort.identities[ME]
        if me not in names or not roster.degree < len(names):
            return replace(message, roster=roster)
        view = RoundView.build(self.cohort.parameters, roster)
        around = (names[i] for i in view.graph.neighbors_of(names.index(me)))
        known = {**self.advertisements, **here}
        neighbors = tuple(self._advertised(known[name]) for name in around if name in known)
        return RosterAnnouncement(roster, neighbors)

    def _requested(self, message: UnmaskingRequest) -> UnmaskingRequest:
        text = self.view.survivors_text(self.finished, bytes(message.survivors))
        uploads = tuple(
            replace(
                one, signature=self._of(one.identity, self.view.upload_text(self.finished, one.packed_digest))
            )
            for one in message.uploads
        )
        signatures = tuple(replace(one, signature=self._sign(one.index, text)) for one in message.signatures)
        return replace(message, uploads=uploads, signatures=signatures)


@cache
def recordings() -> tuple[Recording, ...]:
    """Record rounds on the complete and on a sparse graph, active and passive."""
    return tuple(_record(adversary, wide) for wide in (False, True) for adversary in _ADVERSARIES)


_ADVERSARIES: tuple[Adversary, ...] = ("active", "passive")


def _record(adversary: Adversary, wide: bool) -> Recording:
    if wide:
        cohort = sparse(_SPARSE, adversary)
    else:
        cohort = Cohort(_COMPLETE, adversary=adversary, dropout=0.2, vector_length=3)
    lost = {len(cohort.identities) - 1: Phase.MASKED_INPUT_COLLECTION}
    clients: list[Moment] = []
    servers = [] if wide else [Moment("not started", None, ((ME, b""),))]
    earlier: list[bytes] = []  # the frames that ME got
    cohort.start()
    view: RoundView | None = None
    advertised: dict[bytes, Advertisement] = {}
    while (phase := cohort.server.phase) is not None:
        if phase is Phase.SHARE_KEYS:
            view = cohort.view()
        clients += _client_moments(cohort, earlier)
        waiting = [i for i in cohort.waiting() if lost.get(i, len(Phase)) > phase]
        cohort.ask_all({**lost, ME: phase})
        inputs = tuple((i, cohort.answer(i)) for i in waiting)
        if phase is Phase.ADVERTISE_KEYS:
            advertised = {cohort.identities[i]: opened(Advertisement, frame) for i, frame in inputs}
        for told, left in ((0, waiting[:2]), (2, waiting[2:-1]), (len(waiting) - 1, waiting[-1:])):
            rotated = (*inputs[told:], *inputs[:told])[:3]
            if told or not wide:
                servers.append(Moment(f"{phase.name}, {told} told", cohort.server.snapshot(), rotated))
            for i in left:
                cohort.tell(i)
        if phase is Phase.UNMASKING and not wide:
            servers.append(Moment("over", cohort.server.snapshot(), inputs[:1], over=True))
        cohort.close()
    assert view is not None
    clients.append(Moment("over", cohort.clients[ME].snapshot(), ((0, earlier[-1]),)))
    clients.append(_given_up(cohort, clients))
    delivery = next(opened(ShareDelivery, f) for f in earlier if _is(ShareDelivery, f))
    request = opened(UnmaskingRequest, earlier[-1])
    return Recording(
        wide=wide,
        cohort=cohort,
        view=view,
        finished=bytes(delivery.finished),
        survivors=bytes(request.survivors),
        clients=tuple(clients),
        servers=tuple(servers),
        advertisements=advertised,
    )


def _is(kind: type, frame: bytes) -> bool:
    return isinstance(decode_frame(frame)[1], kind)


def _client_moments(cohort: Cohort, earlier: list[bytes]) -> list[Moment]:
    """Hand ME its newest request; the moment before it, and those between it and the answer."""
    client, request = cohort.clients[ME], cohort.request(ME)
    assert cohort.server.phase is not None
    name = cohort.server.phase.name
    before = None if client.parameters is None else client.snapshot()
    inputs = ((0, request), *((0, frame) for frame in reversed(earlier)))
    out = [Moment(name, before, inputs)]
    if cohort.server.phase is Phase.MASKED_INPUT_COLLECTION and before is not None:
        early = cohort.fresh_client(ME).restore(before, signer=cohort.signers[ME], policy=cohort.policy)[0]
        early.submit(cohort.vector(ME))
        out.append(Moment(f"{name}, input given early", early.snapshot(), inputs))
    effects = client.receive(request)
    if any(isinstance(effect, InputWanted) for effect in effects):
        out.append(Moment(f"{name}, input wanted", client.snapshot(), ((0, request),)))
    if any(isinstance(effect, SignWanted) for effect in effects):
        out.append(Moment(f"{name}, consent wanted", client.snapshot(), inputs))
    cohort.take_client(ME, effects)
    earlier.append(request)
    return out


def _given_up(cohort: Cohort, clients: list[Moment]) -> Moment:
    """Return the moment after an end that the client brought about."""
    before = next(one for one in clients if one.name == Phase.MASKED_INPUT_COLLECTION.name)
    assert before.snapshot is not None
    client, _ = ClientSession.restore(before.snapshot, signer=cohort.signers[ME], policy=cohort.policy)
    (_, delivery), *_ = before.inputs
    without_me = changed(cohort, ShareDelivery, delivery, finished=bytes(_spare(cohort)))
    client.receive(without_me)
    assert client.phase is None
    return Moment("given up", client.snapshot(), ((0, without_me), (0, delivery)))


def _spare(cohort: Cohort) -> int:
    return (len(cohort.identities) + 7) // 8
