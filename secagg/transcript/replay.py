"""The round of a transcript once more, from what the clients signed: every decision is taken anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from secagg.effects import Aborted, Aggregate, Completed, Traffic
from secagg.errors import ParameterError
from secagg.kernels import UIntArray
from secagg.messages import MaskedInput, decode, decode_frame, parameters_from_wire
from secagg.params import GraphParameters, Identity, RoundParameters
from secagg.primitives.signatures import check_identity
from secagg.protocol.round import RoundEnded, RoundView, short
from secagg.protocol.server.advertise_keys import AdvertiseKeys
from secagg.protocol.server.consistency_check import ConsistencyCheck
from secagg.protocol.server.masked_input_collection import MaskedInputCollection
from secagg.protocol.server.phase import Result, ServerPhase
from secagg.protocol.server.share_keys import ShareKeys
from secagg.protocol.server.unmasking import Unmasking
from secagg.transcript.entries import (
    VERSION,
    Entry,
    EntryKind,
    Header,
    Outcome,
    WithheldUpload,
    outcome_of,
)


class WrongEntryError(Exception):
    """An entry that does not follow from those before it."""


@dataclass(slots=True)
class Facts:
    """The public facts of a round, recomputed. Clients are named by their identities."""

    server: Identity | None = None
    parameters: RoundParameters | None = None
    admitted: frozenset[Identity] = frozenset()
    graph: GraphParameters | None = None
    roster: tuple[Identity, ...] = ()
    shared_keys: frozenset[Identity] = frozenset()  # U1
    survivors: frozenset[Identity] = frozenset()  # S
    signed: frozenset[Identity] = frozenset()  # the set S
    answered: dict[Identity, tuple[int, int]] = field(default_factory=dict)  # self-seed, mask-key shares
    blamed: tuple[Identity, ...] = ()
    guilty: tuple[Identity, ...] = ()
    outcome: str = "unknown"
    total_digest: bytes = b""
    inputs_kept: bool = True
    total: UIntArray | None = None  # the sum, when masked inputs were kept


class Replay:
    """Takes the entries of a transcript in their order. threads: to remove the masks."""

    def __init__(self, threads: int = 1) -> None:
        self.facts = Facts()
        self.running = True  # until the outcome
        self._threads = threads
        self._phase: ServerPhase | None = None
        self._gone: set[Identity] = set()
        self._end: Outcome | None = None  # what must have come out; the digest of a sum may not be known

    def take(self, entry: Entry) -> None:
        """Take one entry.

        raises  WrongEntryError; RemoteProtocolError for a message that the server had to refuse
        """
        kind, party = self._kind(entry), Identity(entry.party)
        match kind:
            case EntryKind.HEADER:
                self._header(decode(Header, entry.content))
            case EntryKind.TAKEN:
                self._taken(party, bytes(entry.content))
            case EntryKind.UPLOAD:
                self._upload(party, decode(WithheldUpload, entry.content))
            case EntryKind.GIVEN_UP:
                self._given_up(party)
            case EntryKind.CLOSED:
                self._close()
            case EntryKind.OUTCOME:
                self._outcome(decode(Outcome, entry.content))
            case EntryKind.SEAL:
                raise WrongEntryError("SEAL: comes last")

    def _kind(self, entry: Entry) -> EntryKind:
        """Check the form of an entry."""
        try:
            kind = EntryKind(entry.kind)
        except ValueError:
            raise WrongEntryError(f"kind {entry.kind} is not known") from None
        has_party = kind in {EntryKind.TAKEN, EntryKind.UPLOAD, EntryKind.GIVEN_UP}
        if has_party != bool(entry.party):
            raise WrongEntryError(f"{kind.name} {'needs a' if has_party else 'has no'} party")
        if (kind is EntryKind.HEADER) != (self.facts.parameters is None):
            raise WrongEntryError(f"{kind.name}: out of place")
        if kind in {EntryKind.CLOSED, EntryKind.GIVEN_UP} and len(entry.content):
            raise WrongEntryError(f"{kind.name} has no content")
        return kind

    def _header(self, header: Header) -> None:
        if header.version != VERSION:
            raise WrongEntryError(f"version {header.version} is not known")
        parameters = parameters_from_wire(header.parameters)
        try:
            admitted = frozenset(check_identity(identity) for identity in header.admitted)
            self.facts.server = check_identity(header.server)
        except ParameterError as error:
            raise WrongEntryError(str(error)) from error
        self.facts.parameters, self.facts.admitted = parameters, admitted
        self._phase = AdvertiseKeys(parameters, admitted)

    def _asked(self, party: Identity) -> ServerPhase:
        phase = self._phase
        if phase is None:
            raise WrongEntryError("a message after the end of the round")
        if party in self._gone or party not in phase.asked:
            raise WrongEntryError(f"{short(party)} was not asked in {phase.phase.name}")
        if party in phase.answered:
            raise WrongEntryError(f"{short(party)} has answered in {phase.phase.name} before")
        return phase

    def _taken(self, party: Identity, frame: bytes) -> None:
        round_id, message = decode_frame(frame)
        if self.facts.parameters is None or round_id != self.facts.parameters.round_id:
            raise WrongEntryError(f"{type(message).__name__} of another round")
        if isinstance(message, MaskedInput) and not self.facts.inputs_kept:
            raise WrongEntryError("some masked inputs are kept and others are not")
        self._asked(party).accept(party, message)

    def _upload(self, party: Identity, upload: WithheldUpload) -> None:
        phase = self._asked(party)
        if not isinstance(phase, MaskedInputCollection):
            raise WrongEntryError(f"an upload in {phase.phase.name}")
        if phase.uploads and self.facts.inputs_kept:
            raise WrongEntryError("some masked inputs are kept and others are not")
        checked = phase.checked(party, upload.packed_digest, upload.complaints, upload.signature)
        self.facts.inputs_kept = False
        phase.take(party, checked)

    def _given_up(self, party: Identity) -> None:
        if self._phase is None or party in self._gone or party not in self._phase.asked:
            raise WrongEntryError(f"{short(party)} cannot be given up")
        self._gone.add(party)

    def _close(self) -> None:
        phase, facts = self._phase, self.facts
        if phase is None:
            raise WrongEntryError("a phase is closed after the end of the round")
        if isinstance(phase, Unmasking):
            _note_answers(phase, facts)
        try:
            if isinstance(phase, Unmasking) and not facts.inputs_kept:
                blamed = phase.recover()[1]
                following: ServerPhase | Result = Result(Aggregate(phase.masked.total, (), blamed, Traffic()))
            else:
                if isinstance(phase, Unmasking):
                    phase.threads = self._threads
                following = phase.close()
        except RoundEnded as end:
            self._phase = None
            self._end = outcome_of(Aborted(end.reason, end.blamed, end.detail, end.guilty))
            return
        except MemoryError:
            raise WrongEntryError(f"{facts.parameters}: too large for this machine") from None
        if isinstance(following, Result):
            self._phase = None
            self._end = outcome_of(Completed(following.aggregate))
            facts.total = following.aggregate.total if facts.inputs_kept else None
            return
        _note(following, facts)
        self._phase = following

    def _outcome(self, outcome: Outcome) -> None:
        """Compare what the server says came out with what must have."""
        self.running = False
        facts = self.facts
        facts.blamed, facts.guilty = (tuple(map(Identity, n)) for n in (outcome.blamed, outcome.guilty))
        facts.total_digest = outcome.total_digest
        facts.outcome = "aborted: " + bytes(outcome.reason).decode(errors="replace")
        if outcome.total_digest:
            facts.outcome = "completed"
        end = self._end
        if end is None:
            raise WrongEntryError("an outcome before the end of the round")
        if bool(end.total_digest) != bool(outcome.total_digest) or end.reason != outcome.reason:
            said = "a sum" if end.total_digest else bytes(end.reason).decode()
            raise WrongEntryError(f"the outcome must be: {said}")
        if end.blamed != outcome.blamed or end.guilty != outcome.guilty:
            raise WrongEntryError("blame and guilt are not those that follow from the answers")
        if facts.inputs_kept and end.total_digest != outcome.total_digest:
            raise WrongEntryError("the sum is not that of the masked inputs")


def _note(phase: ServerPhase, facts: Facts) -> None:
    """Note what is decided when this phase begins."""

    def note_view(view: RoundView) -> None:
        facts.graph, facts.roster = view.graph_parameters, view.identities

    match phase:
        case ShareKeys(view=view):
            note_view(view)
        case MaskedInputCollection(view=view):
            facts.shared_keys = view.named(phase.finished)
        case ConsistencyCheck(masked=masked):
            facts.survivors = masked.view.named(masked.survivors)
        case Unmasking(masked=masked, signatures=signatures):
            facts.survivors = masked.view.named(masked.survivors)
            facts.signed = masked.view.named(signatures)
        case _:
            pass


def _note_answers(phase: Unmasking, facts: Facts) -> None:
    masked = phase.masked
    for holder in sorted(phase.answers.holders):
        alive = masked.in_survivors[masked.dealers_of(holder)]
        kinds = int(alive.sum()), int((~alive).sum())
        facts.answered[masked.view.identities[holder]] = kinds
