"""The round of a transcript once more, from what the clients signed: every decision is taken anew."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from secagg.effects import Aborted, Aggregate, Completed, Traffic
from secagg.errors import ParameterError
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages import MaskedInput, decode, decode_frame, parameters_from_wire
from secagg.params import GraphParameters, Identity, Phase, RoundParameters
from secagg.primitives.bounds import choose_for
from secagg.primitives.kem import require_kem
from secagg.primitives.signatures import check_identity
from secagg.protocol.round import RoundEnded, listed, short
from secagg.protocol.server.advertise_keys import AdvertiseKeys
from secagg.protocol.server.consistency_check import ConsistencyCheck
from secagg.protocol.server.masked_input_collection import MaskedInputCollection
from secagg.protocol.server.phase import Result, ServerPhase, check_kind
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
    """Takes the entries of a transcript in their order.

    known         the registry, or None
    threads       to remove the masks
    memory_limit  bytes of vectors and of shares
    """

    def __init__(self, known: frozenset[Identity] | None, threads: int, memory_limit: int) -> None:
        self.facts = Facts()
        self.running = True  # until the outcome
        self._known = known
        self._threads = threads
        self._memory_limit = memory_limit
        self._heard: set[tuple[Identity, Phase]] = set()
        self._phase: ServerPhase | None = None
        self._gone: set[Identity] = set()
        self._end: Outcome | None = None  # what must have come out; the digest of a sum may not be known

    @property
    def begun(self) -> bool:
        """Return whether there was a header."""
        return self.facts.parameters is not None

    @property
    def signer(self) -> Identity | None:
        """The server, as the header names it."""
        return self.facts.server

    def take(self, entry: Entry) -> None:
        """Take one entry.

        raises  WrongEntryError; RemoteProtocolError for a message that the server had to refuse
        """
        if not self.running:
            raise WrongEntryError("an entry after the outcome")
        kind, party = kind_of(entry, begun=self.begun), Identity(entry.party)
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

    def _header(self, header: Header) -> None:
        if header.version != VERSION:
            raise WrongEntryError(f"version {header.version} is not known")
        parameters = parameters_from_wire(header.parameters)
        try:
            if parameters.hybrid:
                require_kem()
            admitted = frozenset(check_identity(identity) for identity in header.admitted)
            self.facts.server = check_identity(header.server)
            if len(admitted) < parameters.minimum_cohort:
                raise WrongEntryError(
                    f"{len(admitted)} clients were admitted, minimum_cohort is {parameters.minimum_cohort}"
                )
            choose_for(parameters.minimum_cohort, parameters.threat_model)
        except ParameterError as error:
            raise WrongEntryError(str(error)) from error
        if self.facts.server in admitted:
            raise WrongEntryError("the server signs with the identity of a client")
        self._fits(parameters.vector_length * lane_dtype(parameters.ring_bits).itemsize)
        self.facts.parameters, self.facts.admitted = parameters, admitted
        self._phase = AdvertiseKeys(parameters, admitted)
        if self._known is not None and (strangers := admitted - self._known):  # the rest can be replayed
            raise WrongEntryError(f"admitted: {listed(strangers)} not in the registry")

    def _asked(self, party: Identity) -> ServerPhase:
        phase = self._phase
        if phase is None:
            raise WrongEntryError("a message after the end of the round")
        if party in self._gone or party not in phase.asked:
            raise WrongEntryError(f"{short(party)} was not asked in {phase.phase.name}")
        if (party, phase.phase) in self._heard:
            raise WrongEntryError(f"{short(party)} has answered in {phase.phase.name} before")
        return phase

    def _fits(self, size: int) -> None:
        """Refuse what a hostile record would have this machine allocate."""
        if size > self._memory_limit:
            raise WrongEntryError(f"to replay it takes {size} bytes, {self._memory_limit} are allowed")

    def _taken(self, party: Identity, frame: bytes) -> None:
        round_id, message = decode_frame(frame)
        if self.facts.parameters is None or round_id != self.facts.parameters.round_id:
            raise WrongEntryError(f"{type(message).__name__} of another round")
        kept = isinstance(message, MaskedInput) and not message.unopened
        if kept and not self.facts.inputs_kept:
            raise WrongEntryError("some masked inputs are kept and others are not")
        phase = self._asked(party)
        check_kind(phase, type(message))
        phase.accept(party, message)
        self._heard.add((party, phase.phase))

    def _upload(self, party: Identity, upload: WithheldUpload) -> None:
        phase = self._asked(party)
        if not isinstance(phase, MaskedInputCollection):
            raise WrongEntryError(f"an upload in {phase.phase.name}")
        if phase.uploads and self.facts.inputs_kept:
            raise WrongEntryError("some masked inputs are kept and others are not")
        checked = phase.checked(party, upload.packed_digest, upload.complaints, upload.signature)
        self.facts.inputs_kept = False
        phase.take(party, checked)
        self._heard.add((party, phase.phase))

    def _given_up(self, party: Identity) -> None:
        if self._phase is None or party in self._gone or party not in self._phase.asked:
            raise WrongEntryError(f"{short(party)} cannot be given up")
        self._gone.add(party)

    def _close(self) -> None:
        phase, facts = self._phase, self.facts
        if phase is None:
            raise WrongEntryError("a phase is closed after the end of the round")
        if isinstance(phase, AdvertiseKeys):
            self._fits(_share_bytes(phase))
        try:
            following = self._unmasked(phase) if isinstance(phase, Unmasking) else phase.close()
        except RoundEnded as end:
            self._phase = None
            self._end = outcome_of(Aborted(end.reason, end.blamed, end.detail, end.guilty))
            return
        if isinstance(following, Result):
            self._phase = None
            facts.total = following.aggregate.total if facts.inputs_kept else None
            self._end = outcome_of(Completed(following.aggregate, frozenset(following.aggregate.survivors)))
            return
        _note(following, facts)
        self._phase = following

    def _unmasked(self, phase: Unmasking) -> Result:
        """Take off the masks; without masked inputs there is only the blame, and a sum of nothing."""
        _note_answers(phase, self.facts)
        phase.threads = self._threads
        if self.facts.inputs_kept:
            result = phase.close()
            if not isinstance(result, Result):
                raise TypeError("unmasking leads to the result")
            return result
        blamed = phase.recover().blamed
        return Result(Aggregate(np.zeros(0, phase.masked.total.dtype), (), blamed, Traffic()))

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
        if end is None:  # the server, or its ledger, ended the round: that it always may
            if outcome.total_digest or outcome.blamed or outcome.guilty:
                raise WrongEntryError("an outcome before the end of the round")
            facts.outcome = "ended by the server: " + bytes(outcome.reason).decode(errors="replace")
            return
        if bool(end.total_digest) != bool(outcome.total_digest) or end.reason != outcome.reason:
            said = "a sum" if end.total_digest else bytes(end.reason).decode()
            raise WrongEntryError(f"the outcome must be: {said}")
        if end.blamed != outcome.blamed or end.guilty != outcome.guilty:
            raise WrongEntryError("blame and guilt are not those that follow from the answers")
        if facts.inputs_kept and end.total_digest != outcome.total_digest:
            raise WrongEntryError("the sum is not that of the masked inputs")


def _share_bytes(phase: AdvertiseKeys) -> int:
    """Memory that the sealed and the revealed shares of all take, about."""
    n = len(phase.inbox)
    try:
        degree = choose_for(n, phase.parameters.threat_model).degree if n else 0
    except ParameterError:
        return 0
    return (2800 if phase.parameters.hybrid else 300) * n * degree


def _note(phase: ServerPhase, facts: Facts) -> None:
    """Note what is decided when this phase begins."""
    match phase:
        case ShareKeys(view=view):
            facts.graph, facts.roster = view.graph_parameters, view.identities
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


def kind_of(entry: Entry, *, begun: bool) -> EntryKind:
    """Check the form of an entry. Raises WrongEntryError."""
    try:
        kind = EntryKind(entry.kind)
    except ValueError:
        raise WrongEntryError(f"kind {entry.kind} is not known") from None
    has_party = kind in {EntryKind.TAKEN, EntryKind.UPLOAD, EntryKind.GIVEN_UP}
    if has_party != bool(entry.party):
        raise WrongEntryError(f"{kind.name} {'needs a' if has_party else 'has no'} party")
    if (kind is EntryKind.HEADER) == begun:
        raise WrongEntryError(f"{kind.name}: out of place")
    if kind in {EntryKind.CLOSED, EntryKind.GIVEN_UP} and len(entry.content):
        raise WrongEntryError(f"{kind.name} has no content")
    return kind
