"""A decryptor: a member of committees, which waits for sums to open, as long as its process lives."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeAlias

from secagg.effects import (
    CommitteeAccepted,
    Completed,
    Effect,
    Frame,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.errors import ConsentError, ParameterError, RemoteProtocolError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    CommitteeParametersMessage,
    OneShotParametersMessage,
    decode_oneshot,
)
from secagg.params import Entropy, Identity, Signer
from secagg.params_oneshot import OneShotParameters, OneShotPolicy
from secagg.protocol.oneshot import DecryptorSession, read_parameters
from secagg.service.authority import PartyCredentials
from secagg.service.clock import Clock, SystemClock
from secagg.service.errors import StreamError
from secagg.service.hello import DEFAULT_PLACE, MOST_TAGS
from secagg.service.keys import ServerCredentials
from secagg.service.line import Line, Stream, print_nothing, read_outcome, read_rounds
from secagg.service.oneshot.epochs import tag_of
from secagg.service.oneshot.run import DECRYPTORS
from secagg.service.records import Record, RecordType
from secagg.service.tasks import end_tasks, on_thread
from secagg.store import (
    Counter,
    LedgerError,
    MemoryStore,
    SealedStore,
    Store,
    StoredCounter,
    StoredIds,
    StoreError,
)

_DAY_S = 86_400.0
_LOOK_S = 1.0  # at epochs that are too old
_KEYS_AN_HOUR = 120  # a server that asks for more keys than that would fill our store
_ROUNDS, _ROUNDS_AT_ONCE = 10_000, 64  # of an epoch
_RECORD_BYTES = 64 << 20  # of the server: a proposal of 2^20 uploads has half of it
_HOUR_S = 3600.0
_TIME_BYTES = 8

# (parameters, clients whose uploads came, those in the sum)
BeforeSum: TypeAlias = Callable[[OneShotParameters, frozenset[Identity], frozenset[Identity]], None]


class Decryptor:
    """Takes part in the committees of one server's run.

    address, credentials, place, on_refusal, patience_s
                 as of `AggregationClient`
    policy       what it demands of committees and rounds; both registries are its own
    entropy      for the keys of each epoch
    store        keeps epoch and round ids; a `SealedStore` also the epochs with their secrets: a decryptor
                 that was killed goes on with them, without it has forgotten them. No copies of it within an
                 epoch: with an older one it signs nothing more in that epoch
    counter      counts what was released; default: in the store, which does not notice that it was set back
    before_sum   called in a thread before it signs a sum (passive: before it opens it). A LedgerError or
                 ConsentError that it raises leaves that round unsigned
    on_event     told what happens, a line each: for the operator
    epoch_s      after which it forgets an epoch, whatever the server says: as long as it has the secrets, who
                 steals more than T of them can open every upload of the epoch
    """

    def __init__(
        self,
        *,
        address: str | Sequence[str],
        credentials: ServerCredentials | PartyCredentials,
        signer: Signer,
        policy: OneShotPolicy,
        entropy: Entropy = os.urandom,
        store: Store | None = None,
        counter: Counter | None = None,
        place: str = DEFAULT_PLACE,
        clock: Clock | None = None,
        before_sum: BeforeSum | None = None,
        on_event: Callable[[str], None] = print_nothing,
        on_refusal: Callable[[str], None] = print_nothing,
        patience_s: float = 60.0,
        epoch_s: float = 2 * _DAY_S,
    ) -> None:
        if not epoch_s > 0:
            raise ParameterError(f"epoch_s: must be above 0, is {epoch_s}")
        self._clock = clock or SystemClock()
        self._line = Line(
            address=address,
            credentials=credentials,
            signer=signer,
            place=place + DECRYPTORS,
            clock=clock,
            on_refusal=on_refusal,
            patience_s=patience_s,
            most_bytes=_RECORD_BYTES,
        )
        self._signer, self._policy, self._entropy = signer, policy, entropy
        self._store = store or MemoryStore()
        self._counter = counter or StoredCounter(self._store)
        self._resumes = isinstance(self._store, SealedStore)
        self._place, self._epoch_s = place, epoch_s
        self._before_sum, self._on_event, self._on_refusal = before_sum, on_event, on_refusal
        self._epochs: dict[bytes, _Epoch] = {}  # oldest first
        self._keys: deque[float] = deque()  # when they were made
        self._working = asyncio.Lock()
        self.heard = False
        self._finished: bytes | None = None

    @property
    def trouble(self) -> str | None:
        """Why there is no stream at the moment; "": not known yet; None: there is one."""
        return self._line.trouble

    @property
    def epochs(self) -> int:
        """The number of epochs whose secrets it has."""
        return len(self._epochs)

    async def serve(self) -> bytes:
        """Take part until there are no more rounds; returns the last word of the server.

        raises  ConnectionLostError: with the cause; HelloError, StreamError; StoreError: what was not kept
                was not sent, a later call goes on
        """
        self._line.check()
        await on_thread(None, self._restore)
        ageing = asyncio.create_task(self._age())
        try:
            await self._line.hold(self)
        finally:
            await end_tasks(ageing)
            for epoch in self._epochs.values():
                epoch.session.close()  # in memory; what is sealed stays
            self._epochs.clear()
        for name in self._store.names(self._kept_prefix):
            self._store.put({name: None})
        return self._finished or b""

    # --- what the line wants

    @property
    def tags(self) -> tuple[str, ...]:
        """The newest epochs in whose committee it is: the server counts on it for these alone."""
        held = [tag_of(one.epoch_id) for one in self._epochs.values() if one.session.view is not None]
        return tuple(held[-MOST_TAGS:])

    @property
    def over(self) -> bool:
        """Whether there are no more rounds."""
        return self._finished is not None

    @property
    def round_id(self) -> bytes:
        """Nothing: the server sends everything again by itself."""
        return b""

    async def go_on(self, _stream: Stream) -> None:
        """Wait for what the server sends."""
        self.heard = True

    async def speak(self, _stream: Stream) -> None:
        """Say nothing unasked."""
        await asyncio.Event().wait()

    async def _age(self) -> None:
        """Forget epochs in time, whether there is a server or not."""
        while True:
            await asyncio.sleep(min(_LOOK_S, self._epoch_s))
            async with self._working:
                with suppress(StoreError):  # it is tried again
                    await on_thread(None, self._forget_old)

    async def on_record(self, record: Record, stream: Stream) -> None:
        """Take a record of the server. Raises StreamError, StoreError."""
        match record.type:
            case RecordType.FRAME:
                self.heard = True
                async with self._working:
                    answers = await on_thread(None, self._answers, bytes(record.content))
                for answer in answers:
                    await stream.send(answer)
            case RecordType.ENDED:
                async with self._working:
                    await on_thread(None, self._close_round, read_outcome(record.content).round_id)
            case RecordType.ROUNDS:
                going_on = read_rounds(record.content)
                async with self._working:
                    await on_thread(None, self._close_others, going_on)
            case RecordType.FINISHED:
                self._finished = bytes(record.content)
            case _:
                raise StreamError(f"record: {record.type.name} goes to clients only")

    # --- on a thread, one at a time

    def _answers(self, frame: bytes) -> list[Frame]:
        """Feed a frame; returns what is kept by now, and may leave. Raises StoreError."""
        self._forget_old()
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            message = decode_oneshot(envelope)
            epoch = self._epoch_for(envelope.round_id, message, frame)
        except RemoteProtocolError as error:
            self._on_refusal(f"{error.reason}: {error.detail}")
            return []
        if epoch is None:
            self._on_refusal(f"{type(message).__name__}: of no epoch, or no round, of ours")
            return []
        out = self._carry_out(epoch, epoch.session.receive(frame))
        if epoch.session.over:
            self._drop(epoch)
        return out

    def _epoch_for(self, round_id: bytes, message: object, frame: bytes) -> _Epoch | None:
        if (epoch := self._epochs.get(round_id)) is not None:
            return epoch
        if isinstance(message, CommitteeParametersMessage):
            return self._new_epoch(round_id)
        if isinstance(message, OneShotParametersMessage):
            digest = read_parameters(frame).committee_digest
            for one in self._epochs.values():
                if one.session.view is not None and one.session.view.committee_digest == digest:
                    return self._with_room(one, round_id)
        for one in self._epochs.values():
            if round_id in one.session.rounds:
                return one
        return None

    def _with_room(self, epoch: _Epoch, round_id: bytes) -> _Epoch | None:
        """Return the epoch unless it has too many rounds for another one."""
        rounds, going_on = epoch.session.rounds, epoch.session.open_rounds
        full = len(rounds) >= _ROUNDS or len(going_on) >= _ROUNDS_AT_ONCE
        return None if full and round_id not in rounds else epoch

    def _new_epoch(self, epoch_id: bytes) -> _Epoch | None:
        now = self._clock.wall()
        while self._keys and self._keys[0] <= now - _HOUR_S:
            self._keys.popleft()
        if self._counter.value(self._count(epoch_id)):
            self._on_refusal(
                f"epoch {epoch_id.hex()[:12]}: we had a part in it, and have forgotten its secrets"
            )
            return None
        if len(self._keys) >= _KEYS_AN_HOUR:
            self._on_refusal(f"asked for keys {_KEYS_AN_HOUR} times in an hour: no more for now")
            return None
        self._keys.append(now)
        for one in [one for one in self._epochs.values() if one.session.view is None]:
            self._drop(one)  # it was never announced to us
        session = DecryptorSession(
            signer=self._signer,
            policy=self._policy,
            entropy=self._entropy,
            epochs=StoredIds(self._store, "epochs"),
            rounds=StoredIds(self._store, "decrypted"),
        )
        return _Epoch(epoch_id, session, now)

    def _carry_out(self, epoch: _Epoch, effects: list[Effect]) -> list[Frame]:
        """Keep what follows from a frame, then release it; sums are consented to in between."""
        out: list[Frame] = []
        waiting = deque(effects)
        self._keep(epoch, effects)
        while waiting:
            match waiting.popleft():
                case Send(frame=frame):
                    out.append(frame)
                case SignWanted() as wanted:
                    if self._consents(epoch, wanted):
                        signed = epoch.session.sign(wanted.round_id)
                        self._keep(epoch, signed)
                        waiting.extend(signed)
                case CommitteeAccepted(member=True):
                    self._on_event(f"member of the committee of epoch {epoch.epoch_id.hex()[:12]}")
                case RosterAccepted(round_id=round_id):
                    self._on_event(f"round {round_id.hex()[:12]}")
                    self._leave_behind(epoch)
                case Completed(survivors=survivors):
                    self._on_event(f"opened a sum of {len(survivors)} uploads")
                case Refused(reason=reason, detail=detail):
                    self._on_refusal(f"{reason}: {detail}")
                case _:
                    pass
        return out

    def _consents(self, epoch: _Epoch, wanted: SignWanted) -> bool:
        parameters = epoch.session.parameters(wanted.round_id)
        if self._before_sum is None or parameters is None:
            return True
        try:
            self._before_sum(parameters, wanted.finished, wanted.survivors)
        except (LedgerError, ConsentError) as error:
            self._on_event(f"round {wanted.round_id.hex()[:12]}: not signed: {error}")
            return False
        return True

    def _keep(self, epoch: _Epoch, effects: list[Effect]) -> None:
        """Keep what must not be forgotten before anything is released. Raises StoreError."""
        values: dict[str, bytes | None] = {}
        for effect in effects:
            if isinstance(effect, CommitteeAccepted):
                values[f"epochs/{epoch.epoch_id.hex()}"] = b"\1"
            elif isinstance(effect, RosterAccepted):
                values[f"decrypted/{effect.round_id.hex()}"] = b"\1"
        releases = epoch.session.releases
        if releases == epoch.released and not values:
            return
        self._epochs[epoch.epoch_id] = epoch
        if self._resumes and not epoch.session.over:
            values[self._kept(epoch)] = epoch.dump()
        if values:
            self._store.put(values)
        if releases > self._counter.value(self._count(epoch.epoch_id)):
            self._counter.advance(self._count(epoch.epoch_id), releases)  # after the snapshot
        epoch.released = releases

    def _close_round(self, round_id: bytes) -> None:
        """Forget the shares of a round that the server says is over. Raises StoreError."""
        for epoch in self._epochs.values():
            if round_id in epoch.session.rounds:
                epoch.session.close_round(round_id)
                if self._resumes:
                    self._store.put({self._kept(epoch): epoch.dump()})

    def _close_others(self, going_on: Collection[bytes]) -> None:
        """Forget the shares of rounds whose end we missed. Raises StoreError."""
        for epoch in self._epochs.values():
            for round_id in epoch.session.open_rounds - frozenset(going_on):
                self._close_round(round_id)

    def _leave_behind(self, newest: _Epoch) -> None:
        """Forget the epochs before one that a round is opened in: the server opens none in those."""
        for one in list(self._epochs.values()):
            if one is not newest and one.began <= newest.began:
                self._drop(one)

    def _forget_old(self) -> None:
        now = self._clock.wall()
        for one in [one for one in self._epochs.values() if now - one.began >= self._epoch_s]:
            self._drop(one)
            self._on_event(f"epoch {one.epoch_id.hex()[:12]}: over, its secrets are gone")

    def _drop(self, epoch: _Epoch) -> None:
        """Wipe an epoch's secrets, in memory and in the store. Raises StoreError."""
        epoch.session.close()
        if self._resumes:
            self._store.put({self._kept(epoch): None})
        self._epochs.pop(epoch.epoch_id, None)  # only now: what the store still has is tried again

    # --- what is kept

    @property
    def _kept_prefix(self) -> str:
        return f"decryptor/{self._place}/"

    def _kept(self, epoch: _Epoch) -> str:
        return f"{self._kept_prefix}{epoch.epoch_id.hex()}"

    def _count(self, epoch_id: bytes) -> str:
        return f"epochs/{epoch_id.hex()}"

    def _restore(self) -> None:
        """Take up the epochs of an earlier process of ours. Raises StoreError."""
        if not self._resumes:
            return
        for name in self._store.names(self._kept_prefix):
            data = self._store.get(name)
            if data is None:
                continue
            epoch_id = bytes.fromhex(name.rpartition("/")[2])
            began = int.from_bytes(data[:_TIME_BYTES], "big") / 1000
            try:
                session, _ = DecryptorSession.restore(
                    data[_TIME_BYTES:],
                    signer=self._signer,
                    policy=self._policy,
                    epochs=StoredIds(self._store, "epochs"),
                    rounds=StoredIds(self._store, "decrypted"),
                    releases=self._counter.value(self._count(epoch_id)),
                )
            except ParameterError as error:
                self._on_refusal(f"an epoch cannot be gone on with: {error}")
                self._store.put({name: None})
                continue
            if session.silent:
                self._on_refusal(
                    f"epoch {epoch_id.hex()[:12]}: its state is older than what was sent: signs nothing in it"
                )
            epoch = _Epoch(epoch_id, session, began)
            epoch.released = session.releases
            if session.releases > self._counter.value(self._count(epoch_id)):
                self._counter.advance(self._count(epoch_id), session.releases)  # we ended between the two
            self._epochs[epoch_id] = epoch
        self._epochs = dict(sorted(self._epochs.items(), key=lambda item: item[1].began))
        self._forget_old()


class _Epoch:
    """An epoch that we have secrets of. began: seconds since 1970; released: steps that were counted."""

    def __init__(self, epoch_id: bytes, session: DecryptorSession, began: float) -> None:
        self.epoch_id, self.session, self.began = epoch_id, session, began
        self.released = 0

    def dump(self) -> bytes:
        return int(self.began * 1000).to_bytes(_TIME_BYTES, "big") + self.session.snapshot()
