"""The server's side of an epoch: it forms a committee of decryptors (PROTOCOL.md, part 2, section 3)."""

from __future__ import annotations

from collections.abc import Collection

from secagg.effects import (
    Aborted,
    AbortReason,
    CommitteeFormed,
    Dropped,
    DropReason,
    Effect,
    RefusalReason,
    Refused,
    Send,
)
from secagg.errors import InfeasibleParameters, LocalProtocolError, RemoteProtocolError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Acceptance,
    CommitteeAnnouncement,
    CommitteeKey,
    OneShotMessage,
    committee_to_wire,
    decode_oneshot,
)
from secagg.params import Buffer, Identity, require
from secagg.params_oneshot import CommitteeParameters, EpochPhase
from secagg.primitives.kem import require_kem
from secagg.primitives.signatures import check_identity, verify
from secagg.protocol.oneshot.progress import OneShotProgress
from secagg.protocol.oneshot.view import (
    CommitteeView,
    check_key,
    committee_parameters_digest,
    numbers_for,
)
from secagg.protocol.round import refuse


class CommitteeSession:
    """One epoch's start, server side. Deterministic, without socket, clock, thread or file.

    parameters  of the epoch
    candidates  the enrolled identities that may be decryptors

    The caller authenticates senders, and decides with `progress` when to close a phase.
    """

    def __init__(self, parameters: CommitteeParameters, *, candidates: Collection[Identity]) -> None:
        if parameters.post_quantum:
            require_kem()
        self._parameters = parameters
        self._asked = frozenset(check_identity(identity) for identity in candidates)
        least = parameters.minimum_candidates
        require(
            len(self._asked) >= least,
            "candidates",
            f"at least minimum_candidates = {least} identities",
            len(self._asked),
        )
        self._parameters_hash = committee_parameters_digest(parameters)
        self._phase: EpochPhase | None = None
        self._started = False
        self._keys: dict[Identity, CommitteeKey] = {}
        self._gone: set[Identity] = set()
        self._refused: set[Identity] = set()
        self._view: CommitteeView | None = None
        self._acceptances: dict[int, Acceptance] = {}

    @property
    def phase(self) -> EpochPhase | None:
        """The phase; None before start() and after the end."""
        return self._phase

    @property
    def view(self) -> CommitteeView | None:
        """The committee, once it is announced."""
        return self._view

    @property
    def progress(self) -> OneShotProgress:
        """The standing of the current phase, to decide about close_phase() by."""
        if self._phase is None:
            return OneShotProgress(None, 0, 0, 0, ready=False, missing=frozenset())
        answered = self._answered()
        missing = self._wanted() - answered - self._gone
        needed = self._parameters.minimum_candidates if self._view is None else self._view.numbers.quorum
        return OneShotProgress(
            self._phase,
            expected=len(missing) + len(answered),
            received=len(answered),
            needed=needed,
            ready=len(answered) >= needed,
            missing=missing,
        )

    def start(self) -> list[Effect]:
        """Ask everybody for keys. Raises LocalProtocolError (twice), InfeasibleParameters."""
        if self._started:
            raise LocalProtocolError("start: the epoch has been started")
        fewest = self._parameters.minimum_candidates
        try:
            numbers_for(self._parameters, fewest)
        except InfeasibleParameters as error:
            raise InfeasibleParameters(f"with minimum_candidates = {fewest}: {error}") from error
        self._started = True
        self._phase = EpochPhase.KEYS
        frame = ONESHOT_FRAMES.encode(self._parameters.epoch_id, committee_to_wire(self._parameters))
        return [Send(candidate, frame) for candidate in sorted(self._asked)]

    def receive(self, sender: Identity, frame: Buffer) -> list[Effect]:
        """Feed one frame of an authenticated sender. Never raises for a peer's bytes."""
        try:
            if sender not in self._asked:
                raise refuse(RefusalReason.UNKNOWN_SENDER, "sender: no candidate of this epoch")
            envelope = ONESHOT_FRAMES.open(frame)
            if envelope.round_id != self._parameters.epoch_id:
                raise refuse(RefusalReason.WRONG_ROUND, "Frame.round_id: not this epoch's")
            self._take(sender, decode_oneshot(envelope))
        except RemoteProtocolError as error:
            self._refused.add(sender)
            return [Refused(sender, RefusalReason(str(error.reason)), error.detail)]
        return []

    def drop(self, candidate: Identity) -> list[Effect]:
        """Give a candidate up: it is not waited for; what it sent stays."""
        if candidate not in self._wanted() or candidate in self._gone:
            return []
        self._gone.add(candidate)
        return [Dropped(candidate, DropReason.GIVEN_UP)]

    def close_phase(self) -> list[Effect]:
        """Announce the committee, or certify it. Raises LocalProtocolError outside an epoch's start."""
        if self._phase is None:
            raise LocalProtocolError("close_phase: the committee is formed, or the epoch has not begun")
        silent: list[Effect] = [
            Dropped(one, DropReason.REFUSED if one in self._refused else DropReason.SILENT)
            for one in sorted(self._wanted() - self._answered() - self._gone)
        ]
        self._refused.clear()
        return silent + (self._announce() if self._view is None else self._certify(self._view))

    def _wanted(self) -> frozenset[Identity]:
        return self._asked if self._view is None else frozenset(self._view.members)

    def _answered(self) -> frozenset[Identity]:
        if self._view is None:
            return frozenset(self._keys)
        return frozenset(self._view.members[i] for i in self._acceptances)

    def _take(self, sender: Identity, message: OneShotMessage) -> None:
        match message:
            case CommitteeKey() if self._phase is EpochPhase.KEYS:
                if message.identity != sender:
                    raise refuse(RefusalReason.SENDER_MISMATCH, "CommitteeKey.identity: not the sender's")
                if (known := self._keys.get(sender)) is not None and known != message:
                    raise refuse(RefusalReason.EQUIVOCATION, "CommitteeKey: another one was taken before")
                check_key(self._parameters, self._parameters_hash, message)
                self._keys[sender] = message
            case Acceptance(index=index) if self._phase is EpochPhase.ACCEPTANCE and self._view is not None:
                if self._view.index.get(sender) != index:
                    raise refuse(RefusalReason.SENDER_MISMATCH, "Acceptance.index: not the sender's")
                if not self._view.active or not verify(
                    sender, self._view.acceptance_text(), message.signature
                ):
                    raise refuse(RefusalReason.BAD_SIGNATURE, "Acceptance.signature")
                self._acceptances[index] = message
            case _:
                phase = "no phase" if self._phase is None else self._phase.name
                raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in {phase}")

    def _announce(self) -> list[Effect]:
        try:
            if len(self._keys) < self._parameters.minimum_candidates:
                return self._end(
                    AbortReason.COHORT_TOO_SMALL,
                    f"{len(self._keys)} candidates, at least {self._parameters.minimum_candidates} must be",
                )
            view = CommitteeView.form(self._parameters, list(self._keys.values()))
        except InfeasibleParameters as error:
            return self._end(AbortReason.INFEASIBLE_PARAMETERS, str(error))
        self._view = view
        announcement = CommitteeAnnouncement(view.committee, view.keys)
        frame = ONESHOT_FRAMES.encode(self._parameters.epoch_id, announcement)
        sends: list[Effect] = [Send(one, frame) for one in sorted(self._keys.keys() - self._gone)]
        if view.active:
            self._phase = EpochPhase.ACCEPTANCE
            return sends
        return sends + self._certify(view)

    def _certify(self, view: CommitteeView) -> list[Effect]:
        quorum = view.numbers.quorum
        if len(self._acceptances) < quorum:
            detail = f"{len(self._acceptances)} members accepted the committee, a quorum is {quorum}"
            return self._end(AbortReason.NO_QUORUM, detail)
        self._phase = None
        acceptances = [self._acceptances[i] for i in sorted(self._acceptances)[:quorum]]
        certificate = view.certificate(acceptances)
        return [CommitteeFormed(ONESHOT_FRAMES.encode(self._parameters.epoch_id, certificate))]

    def _end(self, reason: AbortReason, detail: str) -> list[Effect]:
        self._phase = None
        return [Aborted(reason, (), detail)]

    def __repr__(self) -> str:
        phase = None if self._phase is None else self._phase.name
        return f"CommitteeSession(phase={phase}, candidates={len(self._asked)})"
