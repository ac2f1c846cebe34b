"""One round of the one-upload protocol as the store has it; see `secagg.service.durable`.

There are no checkpoints: what was taken is fed to a new session again, in its order, and phases are closed
where they were. A checkpoint would hold the dealings of all uploads, as often as one is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from secagg.effects import Aggregate, Effect, Refused, UploadTaken
from secagg.errors import LocalProtocolError
from secagg.kernels import usable_cpus
from secagg.messages.oneshot import ONESHOT_FRAMES, Packed, Upload, decode_oneshot
from secagg.params import Buffer, Identity
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import CommitteeView, OneShotServer
from secagg.protocol.oneshot.view import sha256
from secagg.service.durable import leading_numbers
from secagg.service.events import PartialSumTaken, RoundOpened, RoundResumed, TranscriptFailed
from secagg.service.events import UploadTaken as UploadSeen
from secagg.service.kept import load_oneshot
from secagg.service.oneshot.plan import OneShotPlan
from secagg.service.stored import Incoming, Services, Standing, Step, StoredRound
from secagg.service.transcripts import Recording
from secagg.store import StoreDamagedError, StoreError
from secagg.store.sql import Journal, Kept, KeptRound, SpoolMissingError

CLOSED = 1 << 10  # kind of the note that a phase was closed, of nobody; no frame has it
_AGAIN = 1 << 16  # added to the kind of a second Review, for which a member is asked when the first is wrong


class OneShotRound(StoredRound[OneShotServer]):
    """A round of the one-upload protocol.

    committee  that opens it
    payload    what the newest of its contexts is about
    """

    def __init__(
        self,
        plan: OneShotPlan,
        committee: CommitteeView,
        services: Services,
        payload: Buffer,
        *,
        kept: bool,
        ticket: bytes,
    ) -> None:
        super().__init__(plan.round_id, services, payload, kept=kept, ticket=ticket)
        self._plan, self._committee = plan, committee
        self._packed = FramesAsPacked(services.journal)
        self._kinds: set[tuple[bytes, int]] = set()  # that are kept

    # --- beginning

    def _new_session(self, step: Step) -> OneShotServer:
        """Return a session, recorded if that is possible: whoever goes on records everything once more."""
        plan, transcripts, threads = self._plan, self._services.transcripts, usable_cpus()
        self._packed, self._kinds = FramesAsPacked(self._journal), set()
        known, edges, packed = plan.admitted, plan.edges, self._packed
        if transcripts is not None:
            try:
                return transcripts.oneshot(
                    plan.parameters,
                    self._committee,
                    plan.certificate,
                    known=known,
                    edges=edges,
                    packed=packed,
                    threads=threads,
                    epoch=self._journal.epoch,
                )
            except OSError as error:
                step.events.append(TranscriptFailed(self._id, str(error)))
        return OneShotServer(
            plan.parameters, self._committee, known=known, edges=edges, packed=packed, threads=threads
        )

    def _begin(self) -> Step:
        plan, services, step = self._plan, self._services, Step()
        session = self._new_session(step)
        recording = Recording(services.transcripts, session)
        try:
            step.effects = session.start()
            self._journal.announce(self._id)
            self._journal.keep(f"{self._name}.payload", self._payload)
            self._journal.begin(self._id, plan.dump(), ticket=self._ticket, opened=services.clock.wall())
        except BaseException as error:
            if not (isinstance(error, StoreError) and self._is_there()):
                recording.close()
                self.discard([f"{self._name}.payload"])
                self._recall()
                self._forget_record()
                raise
        self.known, self._session, self._recording = True, session, recording
        step.events.append(RoundOpened(self._id, plan.parameters.vector_length, plan.parameters.ring_bits))
        return step

    def _resume(self, _kept: KeptRound) -> Step:
        step = Step()
        session = self._new_session(step)
        recording = Recording(self._services.transcripts, session)
        try:
            self._repeat_all(session, step)
        except BaseException:
            recording.close()
            raise
        phase = session.phase
        if phase is None:
            raise LocalProtocolError("a kept session is in a round")
        self._session, self._recording = session, recording
        session.deal()  # everybody is sent everything
        for party in (*session.members, *sorted(self._plan.edges)):
            step.effects += session.resend(party)
        step.events.append(RoundResumed(self._id, phase, session.progress.received))
        return step

    def _repeat_all(self, session: OneShotServer, step: Step) -> None:
        """Feed what was taken, close phases that were closed. Raises StoreDamagedError, StoreError."""
        session.start()
        for one in self._journal.since_checkpoint(self._id):
            self._kinds.add((one.sender, one.kind))
            if one.sender:
                step.effects += self._repeat(session, one)
            else:
                session.close_phase()

    def _repeat(self, session: OneShotServer, kept: Kept) -> list[Effect]:
        """Feed a message that was taken before. Raises StoreDamagedError: it is not that one any more."""
        before = session.taken
        try:
            frame = self._frame_of(Incoming(Identity(kept.sender), kept.frame, kept.spooled))
        except SpoolMissingError as error:  # it was acknowledged: nobody can be asked for it again
            raise StoreDamagedError(f"round {self._name}: {error}") from error
        effects = self._feed(session, Identity(kept.sender), frame, kept.spooled)
        if session.taken == before or sha256(frame) != kept.digest:
            raise StoreDamagedError(f"round {self._name}: a message is another one than was taken")
        return [one for one in effects if isinstance(one, UploadTaken)]

    def _feed(
        self, session: OneShotServer, sender: Identity, frame: Buffer, spooled: str | None
    ) -> list[Effect]:
        self._packed.arrives(frame, spooled)
        return session.receive(sender, frame)

    # --- going on

    def take(self, batch: Sequence[Incoming]) -> Step:
        """Feed frames, see `StoredRound`; an `Incoming` without one is of a member: it gets all again."""
        session, step = self._live, Step()
        kept: list[Kept] = []
        uploads: list[tuple[bytes, Identity]] = []  # context, client
        for arrived in batch:
            if arrived.frame is None and arrived.spooled is None:
                step.effects += session.resend(arrived.sender)
                step.standings.append(Standing.STANDS)
                continue
            before = session.taken
            try:
                frame = self._frame_of(arrived)
            except SpoolMissingError:
                step.standings.append(Standing.LOST)
                continue
            effects = self._feed(session, arrived.sender, frame, arrived.spooled)
            step.effects += effects
            if session.taken == before:
                self.discard([arrived.spooled])
                refused = any(isinstance(effect, Refused) for effect in effects)
                step.standings.append(Standing.REFUSED if refused else Standing.STANDS)
                continue
            step.up += memoryview(frame).nbytes
            envelope = ONESHOT_FRAMES.open(frame)
            kind = self._unused(arrived.sender, envelope.kind)
            kept.append(Kept(arrived.sender, kind, sha256(frame), arrived.frame, arrived.spooled))
            step.standings.append(Standing.TAKEN)
            if session.phase is OneShotPhase.UPLOAD:
                fresh = [one for one in effects if isinstance(one, UploadTaken) and not one.again]
                uploads += [(self._context_of(one.client), one.client) for one in fresh]
                step.events.append(self._seen(arrived.sender, fresh))
        if kept:
            ledger, now = self._services.ledger, self._services.clock.wall()
            with self._journal.transaction():
                for context, client in uploads:
                    ledger.uploaded(context, self._id, client, now)
                self._journal.take(self._id, kept)
        if session.phase is OneShotPhase.UPLOAD:
            step.effects += session.deal()  # members learn of what is durable
        return step

    def _unused(self, sender: bytes, kind: int) -> int:
        """Return the kind under which a message is kept: of one sender and kind the store takes one."""
        while (sender, kind) in self._kinds:
            kind += _AGAIN
        self._kinds.add((sender, kind))
        return kind

    def close_phase(self) -> Step:
        session, step = self._live, Step()
        step.effects = session.close_phase()
        if session.phase is None:
            self._finish(step)
        else:
            self._journal.take(self._id, [Kept(b"", self._unused(b"", CLOSED), b"", None)])
        return step

    # --- ending

    @staticmethod
    def loaded(kept: KeptRound, total: Buffer) -> Aggregate:
        return load_oneshot(kept.outcome, total, OneShotPlan.load(kept.header).parameters)

    def _released(self, result: Aggregate) -> None:
        """Tell the ledger by context: no vector about it goes into a sum again."""
        contexts: dict[bytes, list[Identity]] = {}
        for client in result.survivors:
            contexts.setdefault(self._context_of(client), []).append(client)
        for context, clients in contexts.items():
            self._services.ledger.released(context, self._id, clients)

    def _context_of(self, client: Identity) -> bytes:
        taken = self._live.upload_of(client)
        if taken is None:
            raise LocalProtocolError("an upload that was taken is there")
        return taken.dealing.context

    def _seen(self, sender: Identity, taken: Sequence[UploadTaken]) -> UploadSeen | PartialSumTaken:
        """Return what is told of an upload, or of an edge's partial sum."""
        name, parameters = self._services.registry().name_of(sender), self._plan.parameters
        if sender in self._plan.edges:
            return PartialSumTaken(self._id, name, self._names(one.client for one in taken))
        packed = self._packed.get(taken[0].digest)
        return UploadSeen(self._id, name, leading_numbers(packed, parameters.entries, parameters.upload_bits))


class FramesAsPacked:
    """A PackedStore of a round whose frames are kept anyway: by digest, where the frame of a vector is."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._arrived: bytes | str = b""
        self._frames: dict[bytes, bytes | str] = {}

    def arrives(self, frame: Buffer, spooled: str | None) -> None:
        """Note the frame that is fed next."""
        self._arrived = spooled if spooled is not None else bytes(frame)

    def put(self, digest: bytes, _packed: Buffer) -> None:
        """Note which frame has this vector."""
        self._frames[digest] = self._arrived

    def get(self, digest: bytes) -> Buffer:
        """Return a vector. Raises StoreError."""
        where = self._frames[digest]
        frame = where if isinstance(where, bytes) else self._journal.open(where)
        message = decode_oneshot(ONESHOT_FRAMES.open(frame))
        if not isinstance(message, Upload | Packed):
            raise TypeError("vectors come in uploads, and from edges")
        return message.packed

    def clear(self) -> None:
        """Forget them: the frames go with the round."""
        self._frames.clear()
