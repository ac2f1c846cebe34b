"""One round on the server: feeds the session, keeps deadlines, remembers what each client was sent last."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np

from secagg.effects import (
    Aborted,
    Aggregate,
    Completed,
    Dropped,
    Effect,
    Frame,
    PhaseClosed,
    Progress,
    Refused,
    Send,
)
from secagg.errors import InfeasibleParameters, RoundAbortedError
from secagg.kernels import lane_dtype, packed_bytes, ring_mask, unpack_add, usable_cpus
from secagg.messages import MaskedInput, decode_frame
from secagg.params import Buffer, Identity, Phase, RoundParameters, require
from secagg.protocol import ServerSession
from secagg.service.clock import Clock
from secagg.service.errors import StreamError
from secagg.service.events import (
    LedgerNoted,
    MessageRefused,
    Observer,
    PhaseDone,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    TranscriptFailed,
    TranscriptSealed,
    UploadTaken,
)
from secagg.service.registry import Registry
from secagg.service.tasks import end_tasks
from secagg.service.transcripts import Transcripts
from secagg.store import Concern, LedgerError, ParticipationLedger, Store, floor_for
from secagg.transcript import RecordedServerSession

_SHOWN = 8  # elements of an upload that observers see
_REFUSALS = 16  # frames of one client in one round: a client that means well needs none


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time a phase waits for those who have not answered, in seconds of the service's clock.

    advertise_s  for AdvertiseKeys: clients may still be starting; phase_s: for the other phases
    grace_s      once enough have answered for the round to go on, at most so long for the rest
    advertise_grace_s  the same for AdvertiseKeys
    """

    advertise_s: float = 60.0
    phase_s: float = 30.0
    grace_s: float | None = None
    advertise_grace_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("advertise_s", "phase_s", "grace_s", "advertise_grace_s"):
            seconds = getattr(self, name)
            if seconds is not None:
                require(math.isfinite(seconds) and seconds > 0, name, "positive and finite", seconds)


class RoundDriver:
    """Owns the session of one round. `deliver` is called for every frame or refusal that goes out.

    subject, cohort, floor  what the ledger is to know the round by, as in `ParticipationLedger.join`;
                            default: its context, no cohort, `floor_for` the cohort or roster
    """

    def __init__(
        self,
        parameters: RoundParameters,
        *,
        registry: Registry,
        clock: Clock,
        store: Store,
        observer: Observer,
        deliver: Callable[[Identity, Frame | Refused], None],
        ledger: ParticipationLedger,
        excluded: Collection[Identity] = (),
        transcripts: Transcripts | None = None,
        subject: bytes | None = None,
        cohort: Collection[Identity] | None = None,
        floor: int = 0,
    ) -> None:
        self.parameters = parameters
        self._subject = parameters.context if subject is None else subject
        self._cohort, self._floor = cohort, floor
        self._roster = 0  # clients that advertised keys
        self._ledger = ledger
        self._transcripts = transcripts
        self._observer = observer
        self._registry = registry
        admitted = registry.identities - frozenset(excluded)
        for concern in ledger.too_often(admitted, clock.wall()):
            self._noted(concern)
            admitted -= frozenset(map(Identity, concern.clients))
        if transcripts is None:
            self.session = ServerSession(parameters, admitted=admitted, threads=usable_cpus())
        else:
            self.session = transcripts.session(parameters, admitted, usable_cpus())
        self.latest: dict[Identity, Frame] = {}  # the last frame for each client
        self._clock = clock
        self._store = store
        self._deliver = deliver
        self._changed = asyncio.Event()
        self._refusals: Counter[Identity] = Counter()
        self._up = self._down = 0  # bytes of the current phase
        self._name = f"rounds/{parameters.round_id.hex()}/server"

    def receive(self, sender: Identity, frame: Buffer) -> None:
        """Feed a frame of an authenticated client. Raises StreamError when it sent too much nonsense."""
        if self.shuns(sender):
            raise StreamError(f"frame: {_REFUSALS} of yours were refused in this round, no more are read")
        before = self.session.taken
        self._carry_out(self.session.receive(sender, frame))
        if self.session.taken > before:
            self._up += memoryview(frame).nbytes
            self._changed.set()
            if self.session.phase is Phase.MASKED_INPUT_COLLECTION:
                self._ledger.uploaded(self._subject, self.parameters.round_id, sender, self._clock.wall())
                self._observer(self._upload_seen(sender, frame))

    def shuns(self, client: Identity) -> bool:
        """Return whether too many frames of a client were refused to hear it any more in this round."""
        return self._refusals[client] >= _REFUSALS

    def _upload_seen(self, sender: Identity, frame: Buffer) -> UploadTaken:
        message = decode_frame(frame)[1]
        if not isinstance(message, MaskedInput):
            raise TypeError("an upload is a MaskedInput")
        bits = self.parameters.ring_bits
        first = np.zeros(min(_SHOWN, self.parameters.vector_length), lane_dtype(bits))
        unpack_add(first, message.packed[: packed_bytes(first.size, bits)], bits)
        first &= first.dtype.type(ring_mask(bits))
        return UploadTaken(
            self.parameters.round_id, self._registry.name_of(sender), tuple(int(v) for v in first)
        )

    def begin(self) -> None:
        """Open the round. Raises InfeasibleParameters, LedgerError."""
        try:
            floor = self._floor or floor_for(self.parameters.threat_model, len(self._cohort or ()))
            warnings = self._ledger.join(self._subject, cohort=self._cohort, floor=floor)
            for concern in warnings + self._ledger.check_clients(self._subject, self.session.admitted):
                self._noted(concern)
            opening = self.session.start()
        except (LedgerError, InfeasibleParameters):
            self.leave()
            raise
        self._observer(
            RoundOpened(self.parameters.round_id, self.parameters.vector_length, self.parameters.ring_bits)
        )
        self._carry_out(opening)

    async def run(self, deadlines: Deadlines) -> Aggregate:
        """Take the round through its phases. Raises RoundAbortedError."""
        try:
            while True:
                started = self._clock.now()
                await self._wait(deadlines)
                result = self._close(started)
                if result is not None:
                    return result
        finally:
            self.leave()

    def leave(self) -> None:
        """Forget the round; its transcript stays if the round came to an end."""
        self._store.put({self._name: None})
        if self._transcripts is not None and isinstance(self.session, RecordedServerSession):
            self._sealed(self._transcripts, self.session)

    def _sealed(self, transcripts: Transcripts, session: RecordedServerSession) -> None:
        try:
            path = transcripts.finish(session)
        except OSError as error:
            self._observer(TranscriptFailed(self.parameters.round_id, str(error)))
            return
        if path is not None:
            self._observer(TranscriptSealed(self.parameters.round_id, path.name, session.transcript))

    async def _wait(self, deadlines: Deadlines) -> None:
        """Return when everybody asked has answered, or the phase's time is over."""
        advertising = self.session.phase is Phase.ADVERTISE_KEYS
        until = self._clock.now() + (deadlines.advertise_s if advertising else deadlines.phase_s)
        grace_s = deadlines.advertise_grace_s if advertising else deadlines.grace_s
        while not (progress := self.session.progress).complete:
            if grace_s is not None and progress.ready:
                until, grace_s = min(until, self._clock.now() + grace_s), None
            left = until - self._clock.now()
            if left <= 0:
                return
            self._changed.clear()
            alarm = asyncio.create_task(self._clock.sleep(left))
            change = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({alarm, change}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_tasks(alarm, change)

    def _close(self, started: float) -> Aggregate | None:
        before = self.session.progress
        up, down = self._up, self._down
        self._up = self._down = 0
        effects = self.session.close_phase()
        if self.session.phase is not None:  # persist first, then release effects
            self._store.put({self._name: self.session.snapshot()})
        self._report(before, effects, up, down, started)
        if before.phase is Phase.ADVERTISE_KEYS:
            self._roster = before.received
        if before.phase is Phase.MASKED_INPUT_COLLECTION and self.session.survivors:
            self._check_sum(self.session.survivors)  # before anybody is asked to sign or to open it
        return self._carry_out(effects)

    def _check_sum(self, survivors: frozenset[Identity]) -> None:
        """Keep that a sum over these clients may come out. Raises RoundAbortedError when it must not."""
        round_id = self.parameters.round_id
        floor = self._floor or floor_for(self.parameters.threat_model, self._roster)
        try:
            concerns = self._ledger.sign(self._subject, round_id, survivors, floor=floor)
        except LedgerError as error:
            kind, detail = error.concerns[0].kind, str(error)
            self._observer(RoundFailed(round_id, str(kind), detail, ()))
            if isinstance(self.session, RecordedServerSession):
                self.session.end(str(kind))
            raise RoundAbortedError(kind, detail) from error
        for concern in concerns:
            self._noted(concern)

    def _noted(self, concern: Concern) -> None:
        names = self._names(map(Identity, concern.clients))
        self._observer(LedgerNoted(self.parameters.round_id, str(concern.kind), concern.detail, names))

    def _report(self, before: Progress, effects: list[Effect], up: int, down: int, started: float) -> None:
        if before.phase is None or not any(isinstance(effect, PhaseClosed) for effect in effects):
            return
        self._observer(
            PhaseDone(
                self.parameters.round_id,
                before.phase,
                before.received,
                before.expected,
                self._names(effect.client for effect in effects if isinstance(effect, Dropped)),
                up,
                down,
                self._clock.now() - started,
            )
        )

    def _carry_out(self, effects: list[Effect]) -> Aggregate | None:
        """Deliver what goes out. Returns the result; raises RoundAbortedError."""
        round_id = self.parameters.round_id
        for effect in effects:
            match effect:
                case Send(to=bytes() as client, frame=frame):
                    self.latest[Identity(client)] = frame
                    self._down += frame.size
                    self._deliver(Identity(client), frame)
                case Refused(sender=bytes() as sender, reason=reason, detail=detail):
                    self._refusals[Identity(sender)] += 1
                    name = self._registry.name_of(sender)
                    self._observer(MessageRefused(round_id, name, str(reason), detail))
                    self._deliver(Identity(sender), effect)
                case Completed(result=Aggregate() as result):
                    self._ledger.released(self._subject, round_id, result.survivors)
                    suspects = self._names(blame.client for blame in result.blamed)
                    self._observer(RoundCompleted(round_id, self._names(result.survivors), suspects))
                    return result
                case Aborted(reason=reason, blamed=blamed, detail=detail) as end:
                    self._observer(RoundFailed(round_id, str(reason), detail, self._names(blamed)))
                    raise RoundAbortedError(reason, detail, blamed, end.guilty, end.likely)
                case _:
                    pass
        return None

    def _names(self, identities: Iterable[Identity]) -> tuple[str, ...]:
        return tuple(sorted(self._registry.name_of(identity) for identity in identities))
