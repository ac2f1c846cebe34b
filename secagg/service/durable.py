"""One round as the store has it: the steps of its session, each kept before anybody hears of it.

For a thread, one step at a time. A message counts once the store has it. When the store fails, the session
is thrown away and made anew from what the store holds: there is one way back, after a crash and after a full
disk; and there is one way to end a round, whatever ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from secagg.effects import Aggregate, Effect, Refused, Send
from secagg.errors import LocalProtocolError, ParameterError, RoundAbortedError
from secagg.kernels import lane_dtype, ring_mask, unpack_add, usable_cpus
from secagg.kernels import packed_bytes as packed_size
from secagg.messages import MaskedInput, decode_frame
from secagg.params import Buffer, Identity, Phase
from secagg.protocol import ServerSession
from secagg.service.checkpoints import Checkpoints
from secagg.service.events import (
    LedgerNoted,
    MessageLost,
    RoundOpened,
    RoundResumed,
    TranscriptFailed,
    UploadTaken,
)
from secagg.service.kept import RoundPlan, load_result
from secagg.service.stored import (
    Incoming,
    Services,
    Standing,
    Step,
    StoredRound,
)
from secagg.service.transcripts import Recording
from secagg.store import (
    Concern,
    LedgerError,
    StoreDamagedError,
    StoreError,
    floor_for,
)
from secagg.store.sql import Kept, KeptRound, SpoolMissingError

_SHOWN = 8  # elements of an upload that observers see


class DurableRound(StoredRound[ServerSession]):
    """A round of the pairwise protocol."""

    def __init__(
        self, plan: RoundPlan, services: Services, payload: Buffer, *, kept: bool, ticket: bytes
    ) -> None:
        super().__init__(plan.round_id, services, payload, kept=kept, ticket=ticket)
        self._plan, self._parameters = plan, plan.parameters
        self._checkpoints = Checkpoints(services.journal, self._id)

    # --- beginning

    def _begin(self) -> Step:
        plan, services, step = self._plan, self._services, Step()
        session = self._new_session(step)
        recording = Recording(services.transcripts, session)
        try:
            step.effects = session.start()
            self._journal.announce(self._id)
            self._journal.keep(f"{self._name}.payload", self._payload)
            state = self._write_state(session, recording)
            floor = plan.floor or floor_for(plan.parameters.threat_model, len(plan.cohort or ()))
            with self._journal.transaction():
                warnings = services.ledger.join(plan.subject, cohort=plan.cohort, floor=floor)
                warnings += services.ledger.check_clients(plan.subject, session.admitted)
                self._journal.begin(self._id, plan.dump(), ticket=self._ticket, opened=services.clock.wall())
                self._journal.checkpoint(self._id, *state)
        except BaseException as error:
            if not (isinstance(error, StoreError) and self._is_there()):
                recording.close()
                self._leave_nothing()
                raise
            warnings = ()  # a store that failed when it said that it had kept it
        self._checkpoints.settled()
        self.known, self._session, self._recording = True, session, recording
        step.events += [self._noted(concern) for concern in warnings]
        step.events.append(RoundOpened(self._id, plan.parameters.vector_length, plan.parameters.ring_bits))
        return step

    def _new_session(self, step: Step) -> ServerSession:
        """Return a session, recorded if that is possible. Raises InfeasibleParameters."""
        services, threads = self._services, usable_cpus()
        if services.transcripts is not None:
            try:
                return services.transcripts.session(
                    self._parameters, self._plan.admitted, threads, self._journal.epoch
                )
            except OSError as error:
                step.events.append(TranscriptFailed(self._id, str(error)))
        return ServerSession(self._parameters, admitted=self._plan.admitted, threads=threads)

    def _leave_nothing(self) -> None:
        """Remove what was written of a round that has not begun."""
        self.discard([f"{self._name}.payload", self._checkpoints.loose])
        self._recall()
        self._forget_record()

    def _resume(self, kept: KeptRound) -> Step:
        step = Step()
        if kept.checkpoint is None:
            raise StoreDamagedError(f"round {self._name}: the store has no checkpoint of it")
        snapshot = self._checkpoints.read(kept.checkpoint)
        session, step.effects = self._restored(snapshot, kept.record, step)
        recording = Recording(self._services.transcripts, session)
        try:
            self._repeat_all(session, recording, step)
        except BaseException:
            recording.close()
            raise
        self._session, self._recording = session, recording
        missing = session.progress.missing
        step.effects = [one for one in step.effects if isinstance(one, Send) and one.to in missing]
        phase = session.phase
        if phase is None:
            raise LocalProtocolError("a kept session is in a round")
        step.events.append(RoundResumed(self._id, phase, session.progress.received))
        return step

    def _restored(self, snapshot: bytes, record: int, step: Step) -> tuple[ServerSession, list[Effect]]:
        transcripts, threads = self._services.transcripts, usable_cpus()
        try:
            if transcripts is not None and record:
                try:
                    return transcripts.resume(self._id, snapshot, record, threads, self._journal.epoch)
                except (OSError, ParameterError) as error:
                    step.events.append(TranscriptFailed(self._id, str(error)))
            return ServerSession.restore(snapshot, threads=threads)
        except ParameterError as error:
            raise StoreDamagedError(f"round {self._name}: its checkpoint is damaged: {error}") from error

    def _repeat_all(self, session: ServerSession, recording: Recording, step: Step) -> None:
        """Feed what was taken since the checkpoint; what cannot be read any more is asked for again."""
        lost = 0
        for one in self._journal.since_checkpoint(self._id):
            if (why := self._repeat(session, one)) is not None:
                name = self._services.registry().name_of(one.sender)
                step.events.append(MessageLost(self._id, name, why))
                lost += 1
        if lost:  # what is not in the session must not be in the store
            gone = self._journal.checkpoint(self._id, *self._write_state(session, recording))
            self._checkpoints.settled()
            self.discard(gone)

    def _repeat(self, session: ServerSession, kept: Kept) -> str | None:
        """Feed a message that was taken before; returns why it cannot be."""
        before = session.taken
        try:
            if kept.frame is not None:
                frame: Buffer = kept.frame
            else:
                frame = self._journal.open(kept.spooled or "")
                self._checkpoints.uploaded(memoryview(frame).nbytes)
        except SpoolMissingError as error:
            return str(error)
        refused = session.receive(Identity(kept.sender), frame)
        newest = session.newest
        if session.taken == before or newest is None:
            return "; ".join(one.detail for one in refused if isinstance(one, Refused)) or "it is damaged"
        if newest.fingerprint != kept.digest:
            raise StoreDamagedError(f"round {self._name}: a message is another one than was taken")
        return None

    # --- going on

    def take(self, batch: Sequence[Incoming]) -> Step:
        services, session, step = self._services, self._live, Step()
        kept: list[Kept] = []
        uploads: list[Identity] = []
        uploading = session.phase is Phase.MASKED_INPUT_COLLECTION
        for arrived in batch:
            before = session.taken
            try:
                frame = self._frame_of(arrived)
            except SpoolMissingError:
                step.standings.append(Standing.LOST)
                continue
            effects = session.receive(arrived.sender, frame)
            # Who repeats itself has had the request: on this stream, or when it came back with a new one.
            step.effects += [one for one in effects if not isinstance(one, Send)]
            newest = session.newest
            if session.taken == before or newest is None:
                self.discard([arrived.spooled])
                refused = any(isinstance(effect, Refused) for effect in effects)
                step.standings.append(Standing.REFUSED if refused else Standing.STANDS)
                continue
            size = memoryview(frame).nbytes
            step.up += size
            kept.append(Kept(arrived.sender, newest.kind, newest.fingerprint, arrived.frame, arrived.spooled))
            step.standings.append(Standing.TAKEN)
            if uploading:
                self._checkpoints.uploaded(size)
            if uploading and (seen := self._upload_seen(arrived.sender, frame)) is not None:
                uploads.append(arrived.sender)
                step.events.append(seen)
        if kept:
            with self._journal.transaction():
                for sender in uploads:
                    services.ledger.uploaded(self._plan.subject, self._id, sender, services.clock.wall())
                self._journal.take(self._id, kept)
        if self._checkpoints.due:
            gone = self._journal.checkpoint(self._id, *self._write_state(session, self._recording))
            self._journal.remove(gone)
            self._checkpoints.settled()
        return step

    def _write_state(self, session: ServerSession, recording: Recording | None) -> tuple[str, int]:
        """Spool the session as it is; returns the checkpoint's name, and the length of the record then."""
        return self._checkpoints.write(session), 0 if recording is None else recording.length()

    def close_phase(self) -> Step:
        session, step = self._live, Step()
        opened = session.phase is Phase.MASKED_INPUT_COLLECTION
        step.effects = session.close_phase()
        try:
            if session.phase is None:
                self._finish(step)
                return step
            state = self._write_state(session, self._recording)
            with self._journal.transaction():
                if opened and session.survivors:  # before anybody is asked to sign or to open it
                    step.events += [self._noted(one) for one in self._check_sum(session)]
                gone = self._journal.checkpoint(self._id, *state)
            self._checkpoints.settled()
            self._journal.remove(gone)
        except LedgerError as error:
            kind, detail = error.concerns[0].kind, str(error)
            if self._recording is not None:
                self._recording.end(str(kind))
            step.effects = [one for one in step.effects if not isinstance(one, Send)]
            failure = RoundAbortedError(kind, detail)
            failure.__cause__ = error
            self._end(step, failure)
        return step

    def _check_sum(self, session: ServerSession) -> tuple[Concern, ...]:
        """Keep that a sum over the survivors may come out. Raises LedgerError when it must not."""
        floor = self._plan.floor or floor_for(self._parameters.threat_model, session.roster)
        return self._services.ledger.sign(self._plan.subject, self._id, session.survivors, floor=floor)

    # --- ending

    @staticmethod
    def loaded(kept: KeptRound, total: Buffer) -> Aggregate:
        return load_result(kept.outcome, total, RoundPlan.load(kept.header).parameters)

    def _released(self, result: Aggregate) -> None:
        self._services.ledger.released(self._plan.subject, self._id, result.survivors)

    # --- leaving

    def leave(self, spooled: Iterable[str | None]) -> None:
        self._checkpoints.drop_loose()
        super().leave(spooled)

    # --- what observers are told

    def _upload_seen(self, sender: Identity, frame: Buffer) -> UploadTaken | None:
        """Return what is told of an upload; None: its sender leaves the round instead."""
        message = decode_frame(frame)[1]
        if not isinstance(message, MaskedInput):
            raise TypeError("an upload is a MaskedInput")
        if message.unopened:
            return None
        first = leading_numbers(message.packed, self._parameters.vector_length, self._parameters.ring_bits)
        return UploadTaken(self._id, self._services.registry().name_of(sender), first)

    def _noted(self, concern: Concern) -> LedgerNoted:
        names = self._names(map(Identity, concern.clients))
        return LedgerNoted(self._id, str(concern.kind), concern.detail, names)


def leading_numbers(packed: Buffer, length: int, bits: int) -> tuple[int, ...]:
    """Return the first elements of a masked vector, for observers."""
    first = np.zeros(min(_SHOWN, length), lane_dtype(bits))
    unpack_add(first, memoryview(packed)[: packed_size(first.size, bits)], bits)
    first &= first.dtype.type(ring_mask(bits))
    return tuple(int(v) for v in first)
