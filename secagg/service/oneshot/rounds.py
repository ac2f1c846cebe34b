"""One round of the one-upload protocol as the store has it; see `secagg.service.durable`.

There are no checkpoints: what was taken is fed to a new session again, in its order, and phases are closed
where they were. A checkpoint would hold the dealings of all uploads, as often as one is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from secagg.effects import Aggregate, Effect, Refused, UploadTaken
from secagg.errors import LocalProtocolError
from secagg.kernels import usable_cpus
from secagg.messages.oneshot import ONESHOT_FRAMES, Upload, decode_oneshot
from secagg.params import Buffer, Identity
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import OneShotProgress, OneShotServer
from secagg.protocol.oneshot.view import sha256
from secagg.service.durable import leading_numbers
from secagg.service.events import RoundOpened, RoundResumed
from secagg.service.events import UploadTaken as UploadSeen
from secagg.service.kept import dump_result, load_failure, load_oneshot
from secagg.service.oneshot.plan import OneShotPlan, view_of
from secagg.service.stored import Ended, Incoming, Services, Standing, Step, StoredRound, receipt_of
from secagg.store import StoreDamagedError, StoreError
from secagg.store.sql import AuditLog, Journal, Kept, KeptRound, SpoolMissingError, State

OVER = OneShotProgress(None, 0, 0, 0, ready=False, missing=frozenset())
_CLOSED = 1 << 10  # kind of the note that a phase was closed, of nobody; no frame has it
_AGAIN = 1 << 16  # added to the kind of a second Review, for which a member is asked when the first is wrong


class OneShotRound(StoredRound):
    """A round between its session and the store. For a thread, one step at a time.

    payload  what the newest of its contexts is about
    kept     whether the store has the round; else it is a new one, of `ticket`
    """

    def __init__(
        self, plan: OneShotPlan, services: Services, payload: Buffer, *, kept: bool, ticket: bytes
    ) -> None:
        super().__init__(plan.round_id, services, known=kept)
        self._plan, self._payload, self._ticket = plan, payload, ticket
        self._session: OneShotServer | None = None
        self._packed = _FramesAsPacked(services.journal)
        self._kinds: set[tuple[bytes, int]] = set()  # that are kept

    @property
    def live(self) -> bool:
        """Whether there is a session at the moment."""
        return self._session is not None

    @property
    def progress(self) -> OneShotProgress:
        """Of the session."""
        return OVER if self._session is None else self._session.progress

    # --- beginning

    def open(self) -> Step:
        """Begin the round, or make its session anew from what the store holds.

        raises  StoreError; StoreDamagedError: waiting does not mend it
        """
        return self._resume() if self.known else self._begin()

    def _new_session(self) -> OneShotServer:
        plan = self._plan
        self._packed, self._kinds = _FramesAsPacked(self._journal), set()
        return OneShotServer(
            plan.parameters,
            view_of(plan).committee,
            known=plan.admitted,
            packed=self._packed,
            threads=usable_cpus(),
        )

    def _begin(self) -> Step:
        plan, services, step = self._plan, self._services, Step()
        session = self._new_session()
        step.effects = session.start()
        try:
            self._journal.announce(self._id)
            self._journal.keep(f"{self._name}.payload", self._payload)
            self._journal.begin(self._id, plan.dump(), ticket=self._ticket, opened=services.clock.wall())
        except BaseException as error:
            if not (isinstance(error, StoreError) and self._is_there()):
                self.discard([f"{self._name}.payload"])
                self._recall()
                raise
        self.known, self._session = True, session
        step.events.append(RoundOpened(self._id, plan.parameters.vector_length, plan.parameters.ring_bits))
        return step

    def _resume(self) -> Step:
        step, journal = Step(), self._journal
        kept = journal.find(self._id)
        if kept is not None and kept.state is not State.OPEN:  # it was kept, though the store said it failed
            return self._ended_before(kept, step)
        if kept is None:
            raise StoreDamagedError(f"round {self._name}: the store does not have it any more")
        session = self._new_session()
        session.start()
        for one in journal.since_checkpoint(self._id):
            self._kinds.add((one.sender, one.kind))
            if one.sender:
                step.effects += self._repeat(session, one)
            else:
                session.close_phase()
        phase = session.phase
        if phase is None:
            raise LocalProtocolError("a kept session is in a round")
        self._session = session
        session.deal()  # everybody is sent everything
        for member in session.members:
            step.effects += session.resend(member)
        step.events.append(RoundResumed(self._id, phase, session.progress.received))
        return step

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
        """Feed frames; those that are taken are kept, all of them in one transaction. Raises StoreError.

        An `Incoming` without a frame is a member that came back: it gets everything again.
        """
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
            taken = session.upload_of(arrived.sender)
            if taken is not None and session.phase is OneShotPhase.UPLOAD:
                uploads.append((taken.dealing.context, arrived.sender))
                step.events.append(self._upload_seen(arrived.sender, self._packed.get(taken.digest)))
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
        """Leave the phase: what follows from it is kept before anybody hears of it. Raises StoreError."""
        session, step = self._live, Step()
        step.effects = session.close_phase()
        if session.phase is None:
            self._finish(step)
        else:
            self._journal.take(self._id, [Kept(b"", self._unused(b"", _CLOSED), b"", None)])
        return step

    # --- ending

    def _dumped(self, result: Aggregate) -> tuple[bytes, Buffer]:
        return dump_result(result)

    def _ended(self, kept: KeptRound) -> Ended:
        return ended_oneshot(kept, self._journal, self._services.audit)

    def _released(self, result: Aggregate) -> None:
        """Tell the ledger by context: no vector about it goes into a sum again."""
        contexts: dict[bytes, list[Identity]] = {}
        for client in result.survivors:
            if (taken := self._live.upload_of(client)) is not None:
                contexts.setdefault(taken.dealing.context, []).append(client)
        for context, clients in contexts.items():
            self._services.ledger.released(context, self._id, clients)

    def forget_session(self) -> None:
        """Throw the session away: what it took and the store did not must not count."""
        self._session = None

    def leave(self, spooled: Iterable[str | None]) -> None:
        """Let go of everything; what was spooled for the round and is not kept goes."""
        self.forget_session()
        self.discard(spooled)

    @property
    def _live(self) -> OneShotServer:
        if self._session is None:
            raise LocalProtocolError("the round has no session at the moment")
        return self._session

    def _upload_seen(self, sender: Identity, packed: Buffer) -> UploadSeen:
        parameters = self._plan.parameters
        name = self._services.registry().name_of(sender)
        return UploadSeen(self._id, name, leading_numbers(packed, parameters.entries, parameters.upload_bits))


class _FramesAsPacked:
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
        if not isinstance(message, Upload):
            raise TypeError("vectors come in uploads")
        return message.packed

    def clear(self) -> None:
        """Forget them: the frames go with the round."""
        self._frames.clear()


def ended_oneshot(kept: KeptRound, journal: Journal, log: AuditLog | None) -> Ended:
    """Return how a round ended. Raises StoreError; StoreDamagedError: its sum is gone."""
    shown = receipt_of(kept.round_id, log)
    if kept.state is State.ABORTED:
        return Ended(load_failure(kept.outcome), shown)
    total = journal.open(f"{kept.round_id.hex()}.total")
    return Ended(load_oneshot(kept.outcome, total, OneShotPlan.load(kept.header).parameters), shown)
