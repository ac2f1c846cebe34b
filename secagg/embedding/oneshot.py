"""A node in the one-upload protocol: it uploads once, and where it is a decryptor it helps to open sums.

Requests are bundles, each with all that its answer needs beside the epoch's secrets: a node whose process
ended in between goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from secagg.effects import (
    CommitteeAccepted,
    Effect,
    InputWanted,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.embedding.given import Consent, Given, told
from secagg.embedding.keeping import Means, Question, counter_name
from secagg.embedding.replies import Declining, LossReason
from secagg.errors import ConsentError, ParameterError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    CommitteeAnnouncement,
    CommitteeParametersMessage,
    OneShotParametersMessage,
    OpenRequest,
    ReviewRequest,
    SumProposal,
    committee_from_wire,
    decode_oneshot,
)
from secagg.params import ROUND_ID_BYTES, Buffer, Identity, RoundParameters, require
from secagg.params_oneshot import OneShotParameters, OneShotPolicy
from secagg.protocol.oneshot import Contributor, DecryptorSession, read_parameters
from secagg.protocol.oneshot.policy import check_committee_policy
from secagg.store import LedgerError, ParticipationLedger, StoredIds

_log = logging.getLogger("secagg.embedding")
_EPOCHS = "epoch/"
_KEPT_EPOCHS = 4
_KEPT_ROUNDS = 4  # of an epoch: of more, the oldest are left
_ROUNDS = 10_000  # of an epoch in all
_UPLOADS, _KEYS = "uploads/", "epochs/keys"
_KEYS_AN_HOUR, _HOUR_MS = 120, 3_600_000  # a server that asks for more would fill our store
_TIME_BYTES = 8
_WHY = {
    RefusalReason.CONTEXT_MISMATCH: "its model, mean or configuration is not what we were given",
    RefusalReason.CONTEXT_REPEATED: "we uploaded about this model before, and that must be presumed summed: "
    "another sum needs another model (again= of Participant, if you know why it is safe)",
}


class OneShotNode:
    """One node's uploads, and its part in committees.

    means    what the node brings to every round
    policy   what it demands of committees and rounds
    again    upload about a subject that was uploaded about before
    consent  as of `Participant`
    epoch_s  after which the secrets of an epoch are forgotten: who steals those of more than T members can
             open every upload of it
    rounds   so many uploads are kept, to be sent again

    `upload` may be called for several rounds at once, `help_to_open` not.
    """

    def __init__(
        self,
        means: Means,
        policy: OneShotPolicy,
        *,
        question_of: Callable[[RoundParameters], Question],
        again: bool,
        consent: Consent | None,
        epoch_s: float,
        rounds: int,
    ) -> None:
        require(epoch_s > 0, "epoch_s", "above 0", epoch_s)
        self._means, self._policy, self._again, self._question_of = means, policy, again, question_of
        self._consent, self._epoch_s, self._rounds = consent, epoch_s, rounds
        self._held: dict[bytes, _Epoch] = {}

    # --- the client

    def upload(self, frames: list[Buffer], given: Given) -> bytes:
        """Answer a certificate and the parameters of a round by the one upload.

        raises  Declining; StoreError; what the vector's maker raises
        """
        means, parameters = self._means, read_parameters(frames[-1])
        counted, name = counter_name(parameters.round_id), f"{_UPLOADS}{parameters.round_id.hex()}"
        if kept := means.store.get(name):
            _, effects = Contributor.restore(kept[_TIME_BYTES:], signer=means.signer, policy=self._policy)
            return _sent(effects)
        if means.counter.value(counted):
            raise Declining(LossReason.FORGOTTEN, "we uploaded in this round, and have forgotten the upload")
        about = told(given.context)
        subject = self._subject(parameters, about) if given.subject is None else told(given.subject)
        session = Contributor(
            signer=means.signer,
            context=about,
            policy=self._policy,
            entropy=means.entropy,
            told=_Told(means.ledger, subject, means.signer.identity),
            again=self._again,
            threads=means.threads,
        )
        wanted = [effect for frame in frames for effect in session.receive(frame)]
        for effect in wanted:
            if isinstance(effect, Refused):
                raise Declining(effect.reason, _WHY.get(effect.reason, effect.detail))
        if not any(isinstance(effect, InputWanted) for effect in wanted):
            raise Declining(RefusalReason.WRONG_PHASE, "no parameters of a round came")
        if often := means.ledger.too_often([means.signer.identity], means.wall()):
            raise Declining(LossReason.LEDGER, str(LedgerError(often)))
        effects = session.submit(given.vector(parameters))
        now = means.wall()
        try:
            # First the ledger: whatever becomes of this process, the vector must be presumed summed.
            means.ledger.spend(subject, parameters.round_id, means.signer.identity, now, again=self._again)
            with means.store.transaction():
                means.counter.advance(counted, 1)  # of two processes that made one, one passes
                began = int(now * 1000).to_bytes(_TIME_BYTES, "big")
                means.store.put({**self._without_oldest(), name: began + session.snapshot()})
        except LedgerError as error:
            raise Declining(LossReason.LEDGER, str(error)) from error
        except ParameterError as error:
            raise Declining(LossReason.SET_BACK, str(error)) from error
        return _sent(effects)

    def _subject(self, parameters: OneShotParameters, about: bytes) -> bytes:
        """Return what the ledger is to know the question by, as for a pairwise round about the same."""
        view = RoundParameters(
            round_id=parameters.round_id,
            vector_length=parameters.vector_length,
            ring_bits=parameters.ring_bits,
            context=about,
        )
        return self._question_of(view).subject

    def _without_oldest(self) -> dict[str, bytes | None]:
        """Return the uploads that make room for another one."""
        store = self._means.store
        began = {name: (store.get(name) or b"")[:_TIME_BYTES] for name in store.names(_UPLOADS)}
        oldest = sorted(began, key=lambda one: (began[one], one))[: max(len(began) - self._rounds + 1, 0)]
        return dict.fromkeys(oldest)

    # --- the decryptor

    def help_to_open(self, frames: list[Buffer]) -> bytes:
        """Answer what a decryptor is asked: for keys, about a committee, about a round.

        raises  Declining; StoreError; RemoteProtocolError: not frames of the protocol
        """
        envelope = ONESHOT_FRAMES.open(frames[0])
        message = decode_oneshot(envelope)
        decryptors = self._policy.decryptors
        if decryptors is not None and self._means.signer.identity not in decryptors:
            raise Declining(LossReason.NO_MEMBER)
        if isinstance(message, OneShotParametersMessage) and len(message.contexts) != 1:
            raise Declining(RefusalReason.POLICY, "OneShotParameters.contexts: must be one")
        epoch = self._epoch_of(envelope.round_id, message)
        *before, last = frames
        for frame in before:  # what is out of place by now was taken before
            self._step(epoch, epoch.session.receive(frame))
        effects = self._step(epoch, epoch.session.receive(last))
        for effect in effects:
            if isinstance(effect, CommitteeAccepted) and not effect.member:
                self._forget(epoch)
                raise Declining(LossReason.NO_MEMBER)
        noted = any(isinstance(effect, CommitteeAccepted) for effect in effects)
        if noted and not any(isinstance(effect, Send) for effect in effects):
            raise Declining(LossReason.NOTED)  # a passive committee: nobody signs it
        return _sent(effects)

    def _step(self, epoch: _Epoch, effects: list[Effect]) -> list[Effect]:
        """Keep what follows from a frame; sums are consented to in between."""
        for effect in effects:
            if isinstance(effect, RosterAccepted):
                self._make_room(epoch, effect.round_id)
        self._keep(epoch, effects)
        for effect in effects:
            if isinstance(effect, SignWanted):
                self._consents(epoch, effect)
                effects = epoch.session.sign(effect.round_id)
                self._keep(epoch, effects)
        return effects

    def _consents(self, epoch: _Epoch, wanted: SignWanted) -> None:
        """Ask caller and ledger about a sum; the ledger by what it is about: its subject clients know."""
        parameters = epoch.session.parameters(wanted.round_id)
        if parameters is None:
            return
        try:
            if self._consent is not None:
                self._consent(parameters, wanted.finished, wanted.survivors)
            self._means.ledger.sign(
                parameters.contexts[0],
                parameters.round_id,
                wanted.survivors,
                floor=parameters.colluding + 2,
            )
        except LedgerError as error:
            raise Declining(LossReason.LEDGER, str(error)) from error
        except ConsentError as error:
            raise Declining(LossReason.CONSENT, str(error)) from error

    def _make_room(self, epoch: _Epoch, round_id: bytes) -> None:
        """Leave the oldest rounds of an epoch, and the epochs before it: the server goes on with this."""
        if epoch.taken >= _ROUNDS:
            epoch.session.forget_round(round_id)  # or it would be one of those that go on
            raise Declining(RefusalReason.POLICY, f"epoch: {_ROUNDS} rounds were taken in it, no more are")
        epoch.taken += 1
        epoch.rounds.append(round_id)
        for one in sorted(epoch.session.rounds - {*epoch.rounds[-_KEPT_ROUNDS:]}):
            epoch.session.forget_round(one)  # `decrypted` keeps its id
        del epoch.rounds[:-_KEPT_ROUNDS]
        for other in self._epochs():
            if other is not epoch and other.began <= epoch.began:
                self._forget(other)

    # --- epochs

    def _epoch_of(self, round_id: bytes, message: object) -> _Epoch:
        match message:
            case CommitteeParametersMessage():
                if (found := self._kept(round_id)) is None:
                    check_committee_policy(committee_from_wire(message), self._policy)
                    return self._new_epoch(round_id)
            case CommitteeAnnouncement():
                found = self._kept(round_id)
            case OneShotParametersMessage(committee_digest=digest):
                views = ((one, one.session.view) for one in self._epochs())
                found = next((one for one, view in views if view and view.committee_digest == digest), None)
            case _:
                raise Declining(RefusalReason.WRONG_PHASE, f"{type(message).__name__} comes first")
        if found is None:
            raise Declining(LossReason.FORGOTTEN, "the committee is not known here, or not any more")
        return found

    def _new_epoch(self, epoch_id: bytes) -> _Epoch:
        means = self._means
        if means.counter.value(_counter_of(epoch_id)):
            raise Declining(
                LossReason.FORGOTTEN, "we had a part in this epoch, and have forgotten its secrets"
            )
        now = int(means.wall() * 1000)
        packed = means.store.get(_KEYS) or b""
        made = [packed[at : at + _TIME_BYTES] for at in range(0, len(packed), _TIME_BYTES)]
        made = [one for one in made if now - int.from_bytes(one, "big") < _HOUR_MS]
        if len(made) >= _KEYS_AN_HOUR:
            raise Declining(RefusalReason.POLICY, f"asked for keys {_KEYS_AN_HOUR} times in an hour")
        means.store.put({_KEYS: b"".join((*made, now.to_bytes(_TIME_BYTES, "big")))})
        for old in sorted(self._epochs(), key=lambda one: one.began)[: 1 - _KEPT_EPOCHS]:
            self._forget(old)
        session = DecryptorSession(
            signer=means.signer, policy=self._policy, entropy=means.entropy, **self._ids
        )
        return _Epoch(epoch_id, session, means.wall())

    @property
    def _ids(self) -> dict[str, Container[bytes]]:
        """Which epochs and rounds are taken no more."""
        store = self._means.store
        return {"epochs": StoredIds(store, "epochs"), "rounds": StoredIds(store, "decrypted")}

    def _keep(self, epoch: _Epoch, effects: list[Effect]) -> None:
        """Keep what must not be forgotten before anything is released. Raises StoreError, Declining."""
        store, counter = self._means.store, self._means.counter
        values: dict[str, bytes | None] = {}
        for effect in effects:
            if isinstance(effect, CommitteeAccepted):
                values[f"epochs/{epoch.epoch_id.hex()}"] = b"\1"
            elif isinstance(effect, RosterAccepted):
                values[f"decrypted/{effect.round_id.hex()}"] = b"\1"
        if epoch.session.releases == epoch.released and not values:
            return
        if not epoch.session.over:
            values[epoch.name] = epoch.dump()
        try:
            with store.transaction():
                if epoch.session.releases > epoch.released:
                    counter.advance(_counter_of(epoch.epoch_id), epoch.session.releases)
                store.put(values)
        except ParameterError as error:  # another process made this step
            self._held.pop(epoch.epoch_id, None)
            epoch.session.close()
            raise Declining(LossReason.SET_BACK, str(error)) from error
        epoch.released = epoch.session.releases
        self._held[epoch.epoch_id] = epoch

    def _kept(self, epoch_id: bytes) -> _Epoch | None:
        """Return an epoch that we have secrets of, as it was when something was last released."""
        means = self._means
        released, name = means.counter.value(_counter_of(epoch_id)), f"{_EPOCHS}{epoch_id.hex()}"
        data, held = means.store.get(name), self._held.get(epoch_id)
        if held is not None and held.released == released and data is not None:
            return held
        if held is not None:  # another process went on with it, or has forgotten it
            self._held.pop(epoch_id).session.close()
        if data is None:
            return None
        began, taken, rounds, snapshot = _loaded(data)
        try:
            session, _ = DecryptorSession.restore(
                snapshot, signer=means.signer, policy=self._policy, releases=released, **self._ids
            )
        except ParameterError as error:
            _log.warning("epoch %s cannot be gone on with: %s", epoch_id.hex()[:8], error)
            means.store.put({name: None})
            return None
        if session.silent:
            _log.warning("epoch %s: its state was set back: we sign nothing in it", epoch_id.hex()[:8])
        epoch = _Epoch(epoch_id, session, began, max(session.releases, released), taken, rounds)
        self._held[epoch_id] = epoch
        return epoch

    def _epochs(self) -> Iterator[_Epoch]:
        """Yield those that we have secrets of; what is only in memory, and not in the store, is wiped."""
        there = {bytes.fromhex(name.removeprefix(_EPOCHS)) for name in self._means.store.names(_EPOCHS)}
        for epoch_id in sorted(there | self._held.keys()):
            if (one := self._kept(epoch_id)) is not None:
                yield one

    def forget_old(self) -> None:
        """Forget the epochs whose time is over. Raises StoreError."""
        store, now = self._means.store, self._means.wall()
        for name in list(store.names(_EPOCHS)):
            if now - _began(store.get(name) or bytes(_TIME_BYTES)) >= self._epoch_s:
                store.put({name: None})
        for epoch_id, held in list(self._held.items()):
            if now - held.began >= self._epoch_s or store.get(held.name) is None:
                self._held.pop(epoch_id).session.close()

    def _forget(self, epoch: _Epoch) -> None:
        """Wipe an epoch's secrets, in memory and in the store."""
        epoch.session.close()
        self._held.pop(epoch.epoch_id, None)
        self._means.store.put({epoch.name: None})

    def close(self) -> None:
        """Wipe what is in memory."""
        for epoch in self._held.values():
            epoch.session.close()
        self._held.clear()


@dataclass(slots=True)
class _Epoch:
    """An epoch that we have secrets of. began: seconds since 1970; released: steps that were counted."""

    epoch_id: bytes
    session: DecryptorSession
    began: float
    released: int = 0
    taken: int = 0  # rounds, ever
    rounds: list[bytes] = field(default_factory=list)  # the last of them, in the order in which they came

    @property
    def name(self) -> str:
        return f"{_EPOCHS}{self.epoch_id.hex()}"

    def dump(self) -> bytes:
        head = int(self.began * 1000).to_bytes(_TIME_BYTES, "big") + self.taken.to_bytes(4, "big")
        return head + bytes([len(self.rounds)]) + b"".join(self.rounds) + self.session.snapshot()


def _began(data: bytes) -> float:
    """Return when an epoch began, as `_Epoch.dump` has it."""
    return int.from_bytes(data[:_TIME_BYTES], "big") / 1000


def _loaded(data: bytes) -> tuple[float, int, list[bytes], bytes]:
    """Return when an epoch began, its rounds, the last of them, and the snapshot."""
    taken, count, at = int.from_bytes(data[_TIME_BYTES:][:4], "big"), data[_TIME_BYTES + 4], _TIME_BYTES + 5
    end = at + count * ROUND_ID_BYTES
    rounds = [data[i : i + ROUND_ID_BYTES] for i in range(at, end, ROUND_ID_BYTES)]
    return _began(data), taken, rounds, data[end:]


class _Told:
    """Whether a vector about the subject was uploaded before, whatever context is asked about."""

    def __init__(self, ledger: ParticipationLedger, subject: bytes, client: Identity) -> None:
        self._ledger, self._subject, self._client = ledger, subject, client

    def __contains__(self, _context: object) -> bool:
        return self._ledger.told(self._subject, self._client)


def is_for_decryptors(last: Buffer) -> bool:
    """Whether the last frame of a bundle asks a decryptor. Raises RemoteProtocolError."""
    message = decode_oneshot(ONESHOT_FRAMES.open(last))
    asks = CommitteeParametersMessage, CommitteeAnnouncement, ReviewRequest, SumProposal, OpenRequest
    return isinstance(message, asks)


def _sent(effects: list[Effect]) -> bytes:
    """Return the frame that is to be sent. Raises Declining: there is none."""
    for effect in effects:
        if isinstance(effect, Send):
            return bytes(effect.frame)
        if isinstance(effect, Refused):
            raise Declining(effect.reason, effect.detail)
    raise Declining(RefusalReason.WRONG_PHASE)


def _counter_of(epoch_id: bytes) -> str:
    return f"epochs/{epoch_id.hex()}"
