"""The record of a round of the one-upload protocol, and its verification.

Clients sign their uploads, members the sum and their openings: whoever reads a record that holds the masked
vectors computes the sum from signed data alone. It has the form of every transcript, with a first line and a
header of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import BinaryIO, NoReturn

import numpy as np

from secagg.effects import Aborted, AbortReason, Completed, Effect, OneShotAggregate, Refused
from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.kernels import UIntArray, lane_dtype
from secagg.messages import decode, encode
from secagg.messages.fields import large_octets, message, octets, octets_list, uint
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    ONESHOT_KINDS,
    Dealing,
    OneShotParametersMessage,
    Upload,
    oneshot_from_wire,
    oneshot_to_wire,
)
from secagg.params import Buffer, Identity, Signer, require
from secagg.params_oneshot import OneShotParameters, OneShotPhase
from secagg.primitives.packed_sharing import Words
from secagg.primitives.signatures import check_identity
from secagg.protocol.oneshot import ANY_COMMITTEE, OneShotServer
from secagg.protocol.oneshot.certificate import read_certificate
from secagg.protocol.oneshot.uploads import PackedStore, TakenUpload, check_forwarded
from secagg.protocol.oneshot.view import CommitteeView
from secagg.transcript.entries import (
    Entry,
    EntryKind,
    Outcome,
    Seal,
    address,
    framed,
    outcome_of,
    seal_text,
    total_digest,
    transcript_digest,
)
from secagg.transcript.replay import WrongEntryError, kind_of
from secagg.transcript.verify import Finding, Verifier

ONESHOT_MAGIC = b"secagg transcript 2\n"
_VERSION = 2


@dataclass(frozen=True, slots=True)
class OneShotHeader:
    """The round that is recorded, its committee, and the server that records it."""

    version: int = uint(1)
    server: bytes = octets(2, 32)
    parameters: OneShotParametersMessage = message(3, OneShotParametersMessage)
    certificate: Buffer = large_octets(4)  # the frame
    edges: tuple[bytes, ...] = octets_list(5, 32)


class RecordedOneShotServer(OneShotServer):
    """A OneShotServer whose transcript goes to `file` as the round runs, sealed when it ends.

    certificate  the frame of the committee's certificate
    file         open for writing bytes; the caller makes it durable and closes it. When writing fails, the
                 round goes on without a record, and the attribute `failure` says why
    signer       the server's own Ed25519 identity
    keep_inputs  also keep the masked vectors: then anybody can recompute the sum
    raises       ParameterError, RemoteProtocolError: the certificate is not that of the committee
    """

    def __init__(
        self,
        parameters: OneShotParameters,
        committee: CommitteeView,
        *,
        certificate: bytes,
        file: BinaryIO,
        signer: Signer,
        keep_inputs: bool = False,
        known: Collection[Identity] | None,
        edges: Collection[Identity] = (),
        packed: PackedStore | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(parameters, committee, known=known, edges=edges, packed=packed, threads=threads)
        certified = (
            read_certificate(certificate, ANY_COMMITTEE).committee_digest == committee.committee_digest
        )
        require(certified, "certificate", "the committee's", "another one's")
        self.sealed = False
        self.failure: OSError | ValueError | None = None
        self.file = file
        self._signer, self._keep_inputs = signer, keep_inputs
        self._addresses: list[bytes] = []
        self._put(ONESHOT_MAGIC)
        header = OneShotHeader(
            _VERSION, signer.identity, oneshot_to_wire(parameters), certificate, tuple(sorted(set(edges)))
        )
        self._write(EntryKind.HEADER, content=encode(header))

    @classmethod
    def restore(cls, data: bytes, *, packed: PackedStore, threads: int = 1) -> NoReturn:  # noqa: ARG003
        """Raise LocalProtocolError: a record does not outlive its server."""
        raise LocalProtocolError(
            "restore: a recorded round cannot be gone on with; OneShotServer.restore does, without a record"
        )

    @property
    def transcript(self) -> bytes:
        """Address of the transcript so far, 32 bytes; final once the round is over."""
        return transcript_digest(self._addresses)

    def receive(self, sender: Identity, frame: Buffer) -> list[Effect]:
        """Feed one frame; one that is taken is written down."""
        taken = self.taken
        effects = super().receive(sender, frame)
        if self.taken == taken:
            return effects
        kind = ONESHOT_KINDS[ONESHOT_FRAMES.open(frame).kind]
        withheld = self.upload_of(sender) if kind is Upload and not self._keep_inputs else None
        if withheld is not None:
            self._write(EntryKind.UPLOAD, sender, encode(withheld.dealing))
        else:
            self._write(EntryKind.TAKEN, sender, frame)
        return effects

    def drop(self, party: Identity) -> list[Effect]:
        """Give a party up, and write it down."""
        effects = super().drop(party)
        if effects:
            self._write(EntryKind.GIVEN_UP, party)
        return effects

    def close_phase(self) -> list[Effect]:
        """Leave the current phase; when the round ends, its outcome is written down and everything sealed."""
        effects = super().close_phase()
        self._write(EntryKind.CLOSED)
        end = effects[-1] if effects else None  # of FETCH, when everybody who would be asked is gone
        if isinstance(end, Completed | Aborted):
            self._write(EntryKind.OUTCOME, content=encode(outcome_of(end)))
            signature = self._signer.sign(seal_text(self.transcript))
            self._write(EntryKind.SEAL, content=encode(Seal(b"".join(self._addresses), signature)))
            self.sealed = self.failure is None
        return effects

    def _write(self, kind: EntryKind, party: bytes = b"", content: Buffer = b"") -> None:
        length, entry = framed(kind, party, content)
        self._put(length, entry)
        if kind is not EntryKind.SEAL:
            self._addresses.append(address(entry))

    def _put(self, *parts: bytes) -> None:
        if self.failure is not None:
            return
        try:
            for part in parts:
                self.file.write(part)
        except (OSError, ValueError) as error:  # full, or closed: the round goes on without its record
            self.failure = error


@dataclass(slots=True)
class OneShotFacts:
    """What follows from the entries of a transcript.

    edges        whose totals are in the sum: these are not signed, so that the sum is what they say
    inputs_kept  whether the vectors of all that did not come through an edge are there
    total        the sum, recomputed; None without the masked vectors, or for a round without result
    """

    server: Identity | None = None
    parameters: OneShotParameters | None = None
    committee: CommitteeView | None = None
    uploads: frozenset[Identity] = frozenset()
    edges: frozenset[Identity] = frozenset()
    survivors: tuple[Identity, ...] = ()
    blamed: tuple[Identity, ...] = ()
    guilty: tuple[Identity, ...] = ()
    outcome: str = "none"
    unprotected: bool = False
    inputs_kept: bool = True
    total: UIntArray | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class OneShotReport:
    """The content of a transcript, recomputed; it can be believed when there are no findings."""

    transcript: bytes
    entries: int
    facts: OneShotFacts
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings


def is_oneshot(file: BinaryIO) -> bool:
    """Return whether a file, seekable, begins as a transcript of the one-upload protocol."""
    file.seek(0)
    found = file.read(len(ONESHOT_MAGIC)) == ONESHOT_MAGIC
    file.seek(0)
    return found


def verify_oneshot(
    file: BinaryIO,
    *,
    server: Identity | None = None,
    known: frozenset[Identity] | None = None,
    decryptors: frozenset[Identity] | None = None,
    threads: int = 1,
    memory_limit: int = 2**32,
) -> OneShotReport:
    """Verify a transcript of the one-upload protocol.

    file          open for reading bytes, seekable
    server        whose transcript it must be; None: whoever signed it is believed to be the server
    known         the registry of clients; decryptors: of possible members; None: whoever signs is believed
    memory_limit  bytes; a round whose vectors need more is not replayed

    returns  a report; whatever the bytes are, nothing is raised for them
    """
    replay = _Replay(known, decryptors, threads, memory_limit)
    read = Verifier(file, ONESHOT_MAGIC, replay).run(server)
    return OneShotReport(read.transcript, read.entries, replay.facts, read.findings)


class _Withheld(OneShotServer):
    """A server that may take uploads without their vectors; then it has no sum, but everything else."""

    withheld = False
    _nothing: bytes | None = None  # instead of every vector

    @property
    def edges(self) -> frozenset[Identity]:
        """The edges whose totals count."""
        return frozenset(edge for edge, partial in self._partial.items() if not partial.lost)

    def take_withheld(self, client: Identity, dealing: Dealing) -> None:
        """Take an upload without its vector. Raises RemoteProtocolError."""
        if self._phase is not OneShotPhase.UPLOAD or client in self._uploads:
            raise WrongEntryError("an upload out of place")
        if dealing.identity != client:
            raise WrongEntryError("an upload of another client")
        if not self._is_known(client):
            raise WrongEntryError("an upload of a client that is not enrolled")
        taken: TakenUpload = check_forwarded(self._view, None, dealing)
        self._uploads[client] = taken
        self._order.append(taken)
        if self._nothing is None:
            self._nothing = bytes(self._view.packed_size)
        self._packed.put(taken.digest, self._nothing)
        self.withheld = True

    def _values(self, secret: Words, uploads: int) -> UIntArray:
        if not self.withheld:
            return super()._values(secret, uploads)
        return np.zeros(self.parameters.entries, lane_dtype(self.parameters.ring_bits))


class _Replay:
    """Feeds a server session what the transcript says that it took."""

    def __init__(
        self,
        known: frozenset[Identity] | None,
        decryptors: frozenset[Identity] | None,
        threads: int,
        memory_limit: int,
    ) -> None:
        self.facts = OneShotFacts()
        self.running = True
        self._known, self._decryptors = known, decryptors
        self._threads, self._memory_limit = threads, memory_limit
        self._held = 0  # bytes of what was taken
        self._session: _Withheld | None = None
        self._end: Completed | Aborted | None = None

    @property
    def begun(self) -> bool:
        """Return whether there was a header."""
        return self._session is not None

    @property
    def signer(self) -> Identity | None:
        """The server, as the header names it."""
        return self.facts.server

    def take(self, entry: Entry) -> None:
        """Take one entry. Raises WrongEntryError, RemoteProtocolError."""
        if not self.running:
            raise WrongEntryError("an entry after the outcome")
        kind, party = kind_of(entry, begun=self.begun), Identity(entry.party)
        if kind is EntryKind.HEADER:
            self._header(decode(OneShotHeader, entry.content))
            return
        session = self._live()
        if kind in {EntryKind.TAKEN, EntryKind.UPLOAD}:
            self._hold(entry.content)
        match kind:
            case EntryKind.TAKEN:
                self._taken(session, party, entry.content)
            case EntryKind.UPLOAD:
                self.facts.inputs_kept = False
                session.take_withheld(party, decode(Dealing, entry.content))
            case EntryKind.GIVEN_UP:
                if not session.drop(party):
                    raise WrongEntryError("cannot be given up")
            case EntryKind.CLOSED:
                self._closed(session)
            case EntryKind.OUTCOME:
                self._outcome(decode(Outcome, entry.content))
            case _:
                raise WrongEntryError("SEAL: comes last")

    def _live(self) -> _Withheld:
        if self._session is None:
            raise WrongEntryError("an entry before the header")
        return self._session

    def _header(self, header: OneShotHeader) -> None:
        if header.version != _VERSION:
            raise WrongEntryError(f"version {header.version} is not known")
        try:
            self.facts.server = check_identity(header.server)
        except ValueError as error:
            raise WrongEntryError(str(error)) from error
        parameters = oneshot_from_wire(header.parameters)
        committee = read_certificate(header.certificate, ANY_COMMITTEE)
        if parameters.committee_digest != committee.committee_digest:
            raise WrongEntryError("the certificate is that of another committee")
        if self._decryptors is not None and committee.candidates - self._decryptors:
            raise WrongEntryError("a candidate may be no decryptor")
        needed = 3 * 8 * parameters.entries
        if needed > self._memory_limit:
            raise WrongEntryError(f"to replay it takes {needed} bytes, {self._memory_limit} are allowed")
        session = _Withheld(
            parameters,
            committee,
            known=self._known,
            edges=tuple(map(Identity, header.edges)),
            threads=self._threads,
        )
        session.start()
        self._session, self.facts.parameters, self.facts.committee = session, parameters, committee

    def _hold(self, content: Buffer) -> None:
        self._held += memoryview(content).nbytes
        if self._held > self._memory_limit:
            raise WrongEntryError(
                f"to replay it takes more than {self._memory_limit} bytes, which are allowed: memory_limit"
            )

    def _taken(self, session: _Withheld, party: Identity, content: Buffer) -> None:
        for effect in session.receive(party, bytes(content)):
            if isinstance(effect, Refused):
                raise RemoteProtocolError(effect.reason, effect.detail)

    def _closed(self, session: _Withheld) -> None:
        if session.phase is None:
            raise WrongEntryError("a phase is closed after the end of the round")
        self.facts.uploads = session.uploads
        last = session.close_phase()[-1:]
        self.facts.edges = session.edges
        if last and isinstance(last[0], Completed | Aborted):
            self._end = last[0]

    def _outcome(self, told: Outcome) -> None:
        self.running, facts, end = False, self.facts, self._end
        if end is None:
            raise WrongEntryError("the outcome comes before the end of the round")
        found = outcome_of(end)
        facts.blamed, facts.guilty = (tuple(map(Identity, who)) for who in (found.blamed, found.guilty))
        facts.outcome = bytes(found.reason).decode() or "completed"
        if isinstance(end, Completed) and isinstance(end.result, OneShotAggregate):
            facts.survivors, facts.unprotected = end.result.survivors, end.result.unprotected
            if facts.inputs_kept:
                facts.total = end.result.total
                if told.total_digest != total_digest(end.result.total):
                    raise WrongEntryError("the digest is not that of the sum")
        failed = str(AbortReason.CHECK_FAILED).encode()
        unknown = not facts.inputs_kept and bytes(told.reason) == failed and isinstance(end, Completed)
        if unknown:  # whether that is so only the sum says
            facts.outcome, facts.survivors, found = failed.decode(), (), replace(found, reason=told.reason)
            found = replace(found, total_digest=b"")
        if bytes(told.reason) != bytes(found.reason) or bool(told.total_digest) != bool(found.total_digest):
            raise WrongEntryError(f"the outcome is {facts.outcome!r}")
        if (told.blamed, told.guilty) != (found.blamed, found.guilty):
            raise WrongEntryError("others are blamed than follows")
