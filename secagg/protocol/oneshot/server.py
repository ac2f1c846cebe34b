"""The server of a round: uploads as they come, review, agree, open, decode (part 2, sections 4 and 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Self

import numpy as np

from secagg.effects import (
    Aborted,
    AbortReason,
    Blame,
    BlameReason,
    Completed,
    Dropped,
    DropReason,
    Effect,
    Frame,
    OneShotAggregate,
    RefusalReason,
    Refused,
    Send,
    Traffic,
    UploadTaken,
)
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.kernels import LatticeSecret, UIntArray, lattice_values, spare_bits_clear
from secagg.messages import encode_list
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    Dealings,
    OneShotMessage,
    Opening,
    OpenRequest,
    Packed,
    PackedRequest,
    PartialSum,
    Review,
    ReviewRequest,
    SumProposal,
    SumSignature,
    Upload,
    decode_oneshot,
    oneshot_to_wire,
)
from secagg.params import Buffer, Identity, require
from secagg.params_oneshot import OneShotParameters, OneShotPhase
from secagg.primitives.packed_sharing import WORD_BITS, Words
from secagg.primitives.signatures import verify
from secagg.protocol.oneshot import server_snapshot as snapshots
from secagg.protocol.oneshot.decoding import decode_openings
from secagg.protocol.oneshot.progress import OneShotProgress
from secagg.protocol.oneshot.proposal import Proposal, propose
from secagg.protocol.oneshot.server_snapshot import OneShotState, Partial
from secagg.protocol.oneshot.uploads import (
    MemoryPacked,
    PackedStore,
    TakenUpload,
    Total,
    check_forwarded,
    check_upload,
    taken_again,
)
from secagg.protocol.oneshot.view import CommitteeView, OneShotView, require_committee, sha256
from secagg.protocol.round import RoundEnded, refuse
from secagg.protocol.snapshot import parts_must_fit

_DEALINGS_PER_FRAME = 64


class OneShotServer:
    """One round, server side. Deterministic, without socket, clock, thread or file.

    parameters  of the round
    committee   whose digest is in them
    known       the enrolled clients; None: whoever signs
    edges       the enrolled edges whose partial sums are taken
    packed      where vectors are kept until the sum is out; None: in memory
    threads     for taking the masks off

    The caller authenticates senders, and decides with `progress` when to close a phase.
    """

    def __init__(
        self,
        parameters: OneShotParameters,
        committee: CommitteeView,
        *,
        known: Collection[Identity] | None,
        edges: Collection[Identity] = (),
        packed: PackedStore | None = None,
        threads: int = 1,
    ) -> None:
        require(threads >= 1, "threads", "at least 1", threads)
        require_committee(parameters, committee)
        self._view = OneShotView.build(parameters, committee)
        self._known = None if known is None else frozenset(known)
        self._edges = frozenset(edges)
        self._packed: PackedStore = MemoryPacked() if packed is None else packed
        self._threads = threads
        self._phase: OneShotPhase | None = None
        self._started = False
        self._total = Total(self._view)
        self._uploads: dict[Identity, TakenUpload] = {}  # the first of a client stands
        self._order: list[TakenUpload] = []  # as members get them
        self._dealt: Counter[int] = Counter()  # by member, how many of them
        self._partial: dict[Identity, Partial] = {}  # by edge
        self._wanted: dict[Identity, set[bytes]] = {}  # packed vectors to fetch from edges
        self._reviews: dict[int, Review] = {}
        self._reviewed = -1, b""  # of how many Dealings the digest is that members send
        self._again: set[int] = set()  # members that got everything a second time
        self._proposal: Proposal | None = None
        self._signatures: dict[int, SumSignature] = {}
        self._openings: dict[int, Opening] = {}
        self._taken = 0
        self._gone: set[Identity] = set()
        self._refused: set[Identity] = set()
        self._up: Counter[OneShotPhase] = Counter()
        self._down: Counter[OneShotPhase] = Counter()

    @property
    def parameters(self) -> OneShotParameters:
        """The parameters of the round."""
        return self._view.parameters

    @property
    def parameters_frame(self) -> Frame:
        """The frame that members and clients get first."""
        return ONESHOT_FRAMES.encode(self.parameters.round_id, oneshot_to_wire(self.parameters))

    @property
    def phase(self) -> OneShotPhase | None:
        """The phase; None before start() and after the end."""
        return self._phase

    @property
    def members(self) -> tuple[Identity, ...]:
        """The members of the committee."""
        return self._view.committee.members

    @property
    def uploads(self) -> frozenset[Identity]:
        """The clients whose uploads were taken."""
        return frozenset(self._uploads)

    @property
    def taken(self) -> int:
        """The number of frames that changed something since the session was made, or restored."""
        return self._taken

    @property
    def proposed(self) -> frozenset[Identity]:
        """The clients whose uploads are to be summed, once the members have reviewed."""
        chosen = frozenset(() if self._proposal is None else self._proposal.uploads)
        return frozenset(one.identity for one in self._uploads.values() if one.digest in chosen)

    def upload_of(self, client: Identity) -> TakenUpload | None:
        """Return the upload of a client that was taken, without its vector."""
        return self._uploads.get(client)

    @property
    def progress(self) -> OneShotProgress:
        """The standing of the current phase, to decide about close_phase() by.

        While uploads come nobody is missing: clients come when they like.
        """
        phase = self._phase
        if phase is None:
            return OneShotProgress(None, 0, 0, 0, ready=False, missing=frozenset())
        if phase is OneShotPhase.UPLOAD:
            count, least = len(self._uploads), self.parameters.effective_minimum
            return OneShotProgress(phase, count, count, least, ready=count >= least, missing=frozenset())
        answered, missing = self._answered(), self._asked() - self._answered() - self._gone
        needed = 0 if phase is OneShotPhase.FETCH else self._needed()
        return OneShotProgress(
            phase,
            expected=len(answered) + len(missing),
            received=len(answered),
            needed=needed,
            ready=len(answered) >= needed,
            missing=missing,
        )

    def start(self) -> list[Effect]:
        """Open the round: members get the parameters. Raises LocalProtocolError when called twice."""
        if self._started:
            raise LocalProtocolError("start: the round has been started")
        self._started = True
        self._phase = OneShotPhase.UPLOAD
        return [self._send(member, self.parameters_frame) for member in self._view.committee.members]

    def receive(self, sender: Identity, frame: Buffer) -> list[Effect]:
        """Feed one frame of an authenticated sender. Never raises for a peer's bytes.

        returns  UploadTaken for an upload, to be acknowledged once it is durable; Refused for a frame that
                 fails its checks and counts as not sent
        """
        try:
            envelope = ONESHOT_FRAMES.open(frame)
            if envelope.round_id != self.parameters.round_id:
                raise refuse(RefusalReason.WRONG_ROUND, "Frame.round_id: not this round's")
            if self._phase is None:
                raise refuse(RefusalReason.WRONG_PHASE, "the round is over or has not begun")
            phase = self._phase
            effects = self._take(sender, decode_oneshot(envelope))
        except RemoteProtocolError as error:
            self._refused.add(sender)
            return [Refused(sender, RefusalReason(str(error.reason)), error.detail)]
        self._up[phase] += memoryview(frame).nbytes
        return effects

    def deal(self) -> list[Effect]:
        """Send the members what they have not got of the uploads so far. May be called as they come.

        `close_phase` sends the rest. Nothing is sent outside a round.
        """
        if self._phase is None:
            return []
        members = enumerate(self._view.committee.members)
        since = {index: self._dealt[index] for index, member in members if member not in self._gone}
        self._dealt |= Counter(dict.fromkeys(since, len(self._order)))
        return self._deal_to(since, len(self._order))

    def resend(self, *parties: Identity) -> list[Effect]:
        """Everything that members, or edges, must get again when they were restarted.

        Dealings for several members at once cost as much as those for one.
        """
        if self._phase is None:
            return []
        known = self._view.committee.index
        members = {one: known[one] for one in parties if one in known and one not in self._wanted}
        effects: list[Effect] = [self._send(member, self.parameters_frame) for member in members]
        for dealt in sorted({self._dealt[index] for index in members.values()}):
            since = {index: 0 for index in members.values() if self._dealt[index] == dealt}
            effects += self._deal_to(since, dealt)
        for party in parties:
            effects += self._request_again(party)
        return effects

    def _request_again(self, member: Identity) -> list[Effect]:
        index = self._view.committee.index.get(member)
        if self._phase is OneShotPhase.FETCH and member in self._wanted:
            return self._request(member, self._phase)
        effects: list[Effect] = []
        if self._phase is not None and index in self._asked_indices():
            if self._phase is OneShotPhase.OPEN:  # which sum it is that it signed
                effects += self._request(member, OneShotPhase.AGREE)
            if self._view.committee.active or self._phase is not OneShotPhase.OPEN:
                effects += self._request(member, self._phase)
        return effects

    def drop(self, party: Identity) -> list[Effect]:
        """Give a member, or an edge, up: it is not waited for and not asked again."""
        if self._phase is None or party in self._gone:
            return []
        if party not in self._view.committee.index and party not in self._edges:
            return []
        self._gone.add(party)
        return [Dropped(party, DropReason.GIVEN_UP)]

    def close_phase(self) -> list[Effect]:
        """Leave the current phase with what has come. Raises LocalProtocolError outside a round."""
        phase = self._phase
        if phase is None:
            raise LocalProtocolError("close_phase: the round is over or has not begun")
        silent: list[Effect] = []
        if phase is not OneShotPhase.UPLOAD:
            silent = [
                Dropped(one, DropReason.REFUSED if one in self._refused else DropReason.SILENT)
                for one in sorted(self._asked() - self._answered() - self._gone)
            ]
        self._refused.clear()
        try:
            return silent + self._close(phase)
        except RoundEnded as end:
            self._phase = None
            self._packed.clear()
            blamed, guilty = set(end.blamed), set(end.guilty)
            for one in self._proposal.blamed if self._proposal else ():
                blamed.add(one.client)
                guilty.update([one.client] if one.guilty else [])
            named = tuple(sorted(blamed)), end.detail, tuple(sorted(guilty)), end.likely
            return [*silent, Aborted(end.reason, *named)]

    def snapshot(self) -> bytes:
        """Return the state, without packed vectors. Raises LocalProtocolError outside a round."""
        if self._phase is None:
            raise LocalProtocolError("snapshot: there is no round to keep")
        return snapshots.save(
            OneShotState(
                view=self._view,
                phase=self._phase,
                known=self._known,
                edges=self._edges,
                total=self._total.packed(),
                uploads=self._uploads,
                order=self._order,
                partial=self._partial,
                dealt=self._dealt,
                again=self._again,
                reviews=self._reviews,
                signatures=self._signatures,
                openings=self._openings,
                gone=self._gone,
                refused=self._refused,
                up=self._up,
                down=self._down,
            )
        )

    @classmethod
    def restore(cls, data: bytes, *, packed: PackedStore, threads: int = 1) -> tuple[Self, list[Effect]]:
        """Continue from a snapshot: the session, and the requests of the phase to send again.

        packed  with the vectors that were put
        raises  ParameterError
        """
        with parts_must_fit():
            state = snapshots.load(data)
            parameters, committee = state.view.parameters, state.view.committee
            session = cls(
                parameters, committee, known=state.known, edges=state.edges, packed=packed, threads=threads
            )
            session._started, session._phase = True, state.phase
            session._total.add(state.total)
            session._uploads, session._order, session._partial = state.uploads, state.order, state.partial
            session._dealt, session._again = state.dealt, state.again
            session._reviews, session._signatures = state.reviews, state.signatures
            session._openings, session._gone, session._refused = state.openings, state.gone, state.refused
            session._up, session._down = state.up, state.down
            if state.phase > OneShotPhase.REVIEW:
                session._proposal = session._proposed()
                if state.phase is OneShotPhase.FETCH:
                    session._wanted = session._to_fetch(set(session._proposal.uploads))
            return session, session._requests_again()

    def _requests_again(self) -> list[Effect]:
        phase = self._phase or OneShotPhase.UPLOAD
        waiting = sorted(self._asked() - self._answered() - self._gone)
        return [effect for party in waiting for effect in self._request(party, phase)]

    # --- what comes in

    def _take(self, sender: Identity, message: OneShotMessage) -> list[Effect]:
        phase = self._phase
        match message:
            case Upload():
                return self._on_upload(sender, message)
            case PartialSum() if sender in self._edges:
                return self._on_partial(sender, message)
            case Packed() if phase is OneShotPhase.FETCH and sender in self._edges:
                return self._on_packed(sender, message)
            case Review() if phase is OneShotPhase.REVIEW:
                return self._on_review(self._member(sender), message)
            case SumSignature() if phase is OneShotPhase.AGREE:
                self._on_signature(self._member(sender), message)
            case Opening() if phase is OneShotPhase.OPEN:
                self._on_opening(self._member(sender), message)
            case _:
                name = "no phase" if phase is None else phase.name
                raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in {name}")
        return []

    def _member(self, sender: Identity) -> int:
        index = self._view.committee.index.get(sender)
        if index is None or index not in self._asked_indices():
            raise refuse(RefusalReason.UNKNOWN_SENDER, "sender: no member that was asked")
        return index

    def _on_upload(self, sender: Identity, message: Upload) -> list[Effect]:
        former = self._uploads.get(sender)
        if former is None and self._phase is not OneShotPhase.UPLOAD:
            raise refuse(RefusalReason.WRONG_PHASE, "Upload: the round takes no more")
        if former is None and len(self._uploads) >= self.parameters.maximum_uploads:
            raise refuse(
                RefusalReason.ROUND_FULL, f"Upload: maximum_uploads = {self.parameters.maximum_uploads} came"
            )
        taken = check_upload(self._view, sender, message, self._known)
        if former is not None:
            return [taken_again(former, taken)]
        self._packed.put(taken.digest, message.packed)
        self._total.add(message.packed)
        self._uploads[sender] = taken
        self._order.append(taken)
        self._taken += 1
        return [UploadTaken(sender, taken.digest)]

    def _on_partial(self, edge: Identity, message: PartialSum) -> list[Effect]:
        former = self._partial.get(edge)
        if former is not None and former.is_of(message):
            return [UploadTaken(one.identity, one.digest, again=True) for one in self._counted(former.taken)]
        if self._phase is not OneShotPhase.UPLOAD:
            raise refuse(RefusalReason.WRONG_PHASE, "PartialSum: the round takes no more")
        if former is not None:
            raise refuse(RefusalReason.EQUIVOCATION, "PartialSum: one of this edge was taken before")
        if memoryview(message.total).nbytes != self._view.packed_size:
            raise refuse(RefusalReason.WRONG_LENGTH, "PartialSum.total")
        if not spare_bits_clear(message.total, self.parameters.entries, self.parameters.upload_bits):
            raise refuse(RefusalReason.MALFORMED, "PartialSum.total: spare bits are set")
        if len(message.dealings) > (most := self.parameters.maximum_uploads):
            raise refuse(RefusalReason.ROUND_FULL, f"PartialSum.dealings: more than maximum_uploads = {most}")
        # An honest edge may have more than counts here; what does not is fetched, and taken off its total.
        taken = tuple(check_forwarded(self._view, edge, dealing) for dealing in message.dealings)
        fresh = [one for one in taken if one.identity not in self._uploads and self._is_known(one.identity)]
        fresh = fresh[: most - len(self._uploads)]
        self._taken += 1
        self._partial[edge] = Partial(bytes(message.total), taken)
        self._total.add(message.total)
        for one in fresh:
            self._uploads[one.identity] = one
            self._order.append(one)
        new = {one.digest for one in fresh}
        return [
            UploadTaken(one.identity, one.digest, again=one.digest not in new) for one in self._counted(taken)
        ]

    def _counted(self, taken: Iterable[TakenUpload]) -> Iterator[TakenUpload]:
        """Yield what counts: who uploaded something else before is not told that this was taken."""
        for one in taken:
            counts = self._uploads.get(one.identity)
            if counts is not None and counts.digest == one.digest:
                yield one

    def _is_known(self, client: Identity) -> bool:
        return self._known is None or client in self._known

    def _on_packed(self, edge: Identity, message: Packed) -> list[Effect]:
        wanted = self._wanted.get(edge, set())
        if message.upload not in wanted:
            raise refuse(RefusalReason.NOT_INCLUDED, "Packed.upload: was not asked for")
        one = next(one for one in self._partial[edge].taken if one.digest == message.upload)
        size = memoryview(message.packed).nbytes
        if size != self._view.packed_size or sha256(message.packed) != one.dealing.packed_digest:
            raise refuse(RefusalReason.BAD_SIGNATURE, "Packed.packed: not what the client signed")
        self._packed.put(message.upload, message.packed)  # it may fail: then nothing has changed
        self._total.subtract(message.packed)
        self._partial[edge].fetched.add(message.upload)
        wanted.discard(message.upload)
        self._taken += 1
        return []

    def _on_review(self, member: int, message: Review) -> list[Effect]:
        if (former := self._reviews.get(member)) is not None and former != message:
            raise refuse(RefusalReason.EQUIVOCATION, "Review: another one was taken before")
        if any(complaint.reason == 0 for complaint in message.complaints):
            raise refuse(RefusalReason.MALFORMED, "Complaint.reason: must be in 1..5, is 0")
        if former is not None:
            return []
        if self._reviewed[0] != len(self._order):
            mine = [one.digest for one in self._order]
            self._reviewed = len(mine), self._view.reviewed(mine)
        if (message.count, message.digest) != self._reviewed:
            identity = self._view.committee.members[member]
            if member in self._again:
                raise refuse(RefusalReason.NOT_INCLUDED, "Review: not of the Dealings that were sent")
            self._again.add(member)
            self._taken += 1
            effects = self._deal_to({member: 0}, len(self._order))
            return effects + self._request(identity, OneShotPhase.REVIEW)
        self._reviews[member] = message
        self._taken += 1
        return []

    def _on_signature(self, member: int, message: SumSignature) -> None:
        if member in self._signatures:
            return  # the first stands: a member can make any number of right ones
        text = self._view.sum_text(self._sum_digest())
        identity = self._view.committee.members[member]
        if message.index != member or not verify(identity, text, message.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "SumSignature.signature")
        self._signatures[member] = message
        self._taken += 1

    def _on_opening(self, member: int, message: Opening) -> None:
        if (former := self._openings.get(member)) is not None and former != message:
            raise refuse(RefusalReason.EQUIVOCATION, "Opening: another one was taken before")
        if former is not None:
            return
        if memoryview(message.values).nbytes != self._view.opening_bytes:
            raise refuse(
                RefusalReason.WRONG_LENGTH, f"Opening.values: must have {self._view.opening_bytes} bytes"
            )
        text = self._view.opening_text(self._sum_digest(), sha256(message.values))
        identity = self._view.committee.members[member]
        if message.index != member or not verify(identity, text, message.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "Opening.signature")
        if not spare_bits_clear(message.values, self._view.rows, WORD_BITS):
            raise refuse(RefusalReason.MALFORMED, "Opening.values: spare bits are set")
        self._openings[member] = Opening(member, bytes(message.values), message.signature)
        self._taken += 1

    # --- phases

    def _asked_indices(self) -> frozenset[int]:
        committee = self._view.committee
        match self._phase:
            case OneShotPhase.REVIEW:
                return frozenset(range(len(committee.members)))
            case OneShotPhase.AGREE:
                return frozenset(self._reviews)
            case OneShotPhase.OPEN if self._proposal is not None:
                ready = self._signatures if committee.active else self._reviews
                return frozenset(ready) - self._proposal.silent
            case _:
                return frozenset()

    def _asked(self) -> frozenset[Identity]:
        if self._phase is OneShotPhase.FETCH:
            return frozenset(self._wanted)
        return frozenset(self._view.committee.members[i] for i in self._asked_indices())

    def _answered(self) -> frozenset[Identity]:
        if self._phase is OneShotPhase.FETCH:
            return frozenset(edge for edge, wanted in self._wanted.items() if not wanted)
        got: Collection[int] = {
            OneShotPhase.REVIEW: self._reviews.keys(),
            OneShotPhase.AGREE: self._signatures.keys(),
            OneShotPhase.OPEN: self._openings.keys(),
        }.get(self._phase or OneShotPhase.UPLOAD, ())
        return frozenset(self._view.committee.members[i] for i in got)

    def _needed(self) -> int:
        numbers = self._view.committee.numbers
        if self._phase is OneShotPhase.OPEN or not self._view.committee.active:
            return numbers.base
        return numbers.quorum

    def _close(self, phase: OneShotPhase) -> list[Effect]:
        if phase is OneShotPhase.UPLOAD:
            self._must_have(len(self._uploads))
            effects = self.deal()
            return effects + self._enter(OneShotPhase.REVIEW)
        if phase is OneShotPhase.REVIEW:
            return self._choose()
        if phase is OneShotPhase.FETCH:
            return self._leave_edges_out()
        if phase is OneShotPhase.AGREE:
            if len(self._signatures) < self._needed():
                raise RoundEnded(
                    AbortReason.NO_QUORUM,
                    f"{len(self._signatures)} members signed the sum, a quorum is {self._needed()}",
                )
            return self._enter(OneShotPhase.OPEN)
        return self._finish()

    def _must_have(self, uploads: int) -> None:
        least = self.parameters.effective_minimum
        if uploads < least:
            detail = f"{uploads} uploads, at least {least} are needed"
            raise RoundEnded(AbortReason.TOO_FEW_SURVIVORS, detail)

    def _choose(self) -> list[Effect]:
        numbers = self._view.committee.numbers
        least = max(self._needed(), numbers.base)
        if len(self._reviews) < least:
            raise RoundEnded(
                AbortReason.NO_QUORUM, f"{len(self._reviews)} members reviewed, at least {least} must"
            )
        self._proposal = self._proposed()
        self._must_have(len(self._proposal.uploads))
        inside = set(self._proposal.uploads)
        self._take_in_again(inside)
        self._wanted = self._to_fetch(inside)
        if self._wanted:
            return self._enter(OneShotPhase.FETCH)
        return self._enter(OneShotPhase.AGREE if self._view.committee.active else OneShotPhase.OPEN)

    def _proposed(self) -> Proposal:
        uploads = {one.digest: (one.identity, one.dealing.context) for one in self._uploads.values()}
        complaints = {
            member: {complaint.upload: complaint.reason for complaint in said.complaints}
            for member, said in self._reviews.items()
        }
        return propose(self._view, uploads, complaints)

    def _take_in_again(self, inside: set[bytes]) -> None:
        """Add what an edge's total had, was fetched for an earlier choice, and is in the sum now."""
        for partial in self._partial.values():
            if partial.lost:
                continue
            for one in partial.taken:
                chosen = one.digest in inside and self._uploads.get(one.identity) is one
                if chosen and one.digest in partial.fetched:
                    self._total.add(self._packed.get(one.digest))
                    partial.fetched.discard(one.digest)

    def _to_fetch(self, inside: set[bytes]) -> dict[Identity, set[bytes]]:
        """Return the uploads that edges have in their totals and that are not in the sum, by edge."""
        wanted = {}
        for edge, partial in self._partial.items():
            if partial.lost:
                continue
            outside = {
                one.digest
                for one in partial.taken
                if one.digest not in inside or self._uploads.get(one.identity) is not one
            } - partial.fetched
            if outside:
                wanted[edge] = outside
        return wanted

    def _leave_edges_out(self) -> list[Effect]:
        """Leave out edges that did not answer with everything, with their whole totals; choose again."""
        for edge in (edge for edge, wanted in self._wanted.items() if wanted):
            partial = self._partial[edge]
            for digest in partial.fetched:
                self._total.add(self._packed.get(digest))
            self._total.subtract(partial.total)
            partial.lost = True
            for one in partial.taken:
                if self._uploads.get(one.identity) is one:
                    del self._uploads[one.identity]
        return self._choose()

    def _enter(self, phase: OneShotPhase) -> list[Effect]:
        self._phase = phase
        effects: list[Effect] = []
        for party in sorted(self._asked() - self._gone):
            effects += self._request(party, phase)
        return effects

    def _request(self, party: Identity, phase: OneShotPhase) -> list[Effect]:
        round_id = self.parameters.round_id
        if phase is OneShotPhase.REVIEW:
            messages: list[object] = [ReviewRequest()]
        elif phase is OneShotPhase.FETCH:
            messages = [PackedRequest(digest) for digest in sorted(self._wanted.get(party, ()))]
        elif phase is OneShotPhase.AGREE or not self._view.committee.active:
            messages = [SumProposal(b"".join(self._chosen().uploads))]
        else:
            quorum = sorted(self._signatures)[: self._view.committee.numbers.quorum]
            messages = [OpenRequest(tuple(self._signatures[i] for i in quorum))]
        return [self._send(party, ONESHOT_FRAMES.encode(round_id, message)) for message in messages]

    def _deal_to(self, since: Mapping[int, int], until: int) -> list[Effect]:
        """Send members the Dealings of the uploads in `_order` from `since`, by member, to `until`."""
        effects: list[Effect] = []
        for at in range(min(since.values(), default=until), until, _DEALINGS_PER_FRAME):
            uploads = self._order[at : min(at + _DEALINGS_PER_FRAME, until)]
            places = sorted(range(len(uploads)), key=lambda i: uploads[i].identity)
            encoded = [(at + i, uploads[i].for_members(self._view)) for i in places]
            for member, first in since.items():
                if rows := [dealings[member] for place, dealings in encoded if place >= first]:
                    listed = encode_list(Dealings, "dealings", np.stack(rows))
                    dealings = Dealings(listed)  # type: ignore[arg-type]
                    frame = ONESHOT_FRAMES.encode(self.parameters.round_id, dealings)
                    effects.append(self._send(self._view.committee.members[member], frame))
        return effects

    def _send(self, to: Identity, frame: Frame) -> Send:
        self._down[self._phase or OneShotPhase.UPLOAD] += frame.size
        return Send(to, frame)

    def _chosen(self) -> Proposal:
        if self._proposal is None:
            raise LocalProtocolError("there is no proposal yet")
        return self._proposal

    def _sum_digest(self) -> bytes:
        return self._chosen().digest

    # --- the sum

    def _finish(self) -> list[Effect]:
        view, proposal = self._view, self._chosen()
        decoded = decode_openings(view, self._openings, self._sum_digest())
        chosen = set(proposal.uploads)
        survivors = {one.digest: one for one in self._uploads.values() if one.digest in chosen}
        outside = [
            self._packed.get(one.digest)  # all of them first: one that fails changes nothing
            for one in self._uploads.values()
            if one.digest not in survivors and one.edge is None
        ]
        for packed in outside:
            self._total.subtract(packed)
        values = self._values(decoded.secret, len(survivors))
        members = view.committee.members
        blamed = (
            *proposal.blamed,
            *(Blame(members[i], True, BlameReason.WRONG_OPENING) for i in decoded.wrong),
        )
        length = view.parameters.vector_length
        if values[length:].any():
            raise RoundEnded(
                AbortReason.CHECK_FAILED,
                f"of {len(survivors)} uploads; whoever lied is not known",
                [one.client for one in blamed],
                [one.client for one in blamed if one.guilty],
            )
        self._phase = None
        self._packed.clear()
        inside = tuple(sorted(one.identity for one in survivors.values()))
        result = OneShotAggregate(
            np.ascontiguousarray(values[:length]),
            inside,
            blamed,
            Traffic.of(self._up, self._down),
            decoded.unprotected,
            tuple(sorted(self._uploads.keys() - set(inside))),
        )
        return [Completed(result, frozenset(inside))]

    def _values(self, secret: Words, uploads: int) -> UIntArray:
        """Take the masks of so many uploads off the total."""
        key = LatticeSecret(secret)
        values = lattice_values(
            self._total.lanes,
            key,
            public_seed=self._view.lattice_seed,
            ring_bits=self.parameters.ring_bits,
            upload_bits=self.parameters.upload_bits,
            uploads=uploads,
            threads=self._threads,
        )
        key.wipe()
        return values

    def __repr__(self) -> str:
        phase = None if self._phase is None else self._phase.name
        return f"OneShotServer(phase={phase}, uploads={len(self._uploads)})"
