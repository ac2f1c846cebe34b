"""Check a transcript offline: its seal, every client's signature in it, what follows from its messages.

Clients sign their keys, that they accept the roster, their uploads with U1, and S. They sign neither the
shares that they deal and reveal nor the commitment to their seed: a server that makes those up can seal
another sum, or blame, than came out. What it cannot make up is who took part, uploaded what and survived.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from secagg.errors import RemoteProtocolError
from secagg.kernels import UIntArray
from secagg.messages import decode
from secagg.params import Identity, RoundParameters
from secagg.primitives.signatures import verify as verify_signature
from secagg.transcript.entries import (
    DIGEST_BYTES,
    LENGTH_BYTES,
    MAGIC,
    Entry,
    EntryKind,
    Seal,
    address,
    seal_text,
    transcript_digest,
)
from secagg.transcript.replay import Facts, Replay, WrongEntryError

_MOST_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. place: the entry, from 0; None: the transcript as a whole."""

    place: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.place is None else f"entry {self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a transcript, recomputed; it can be believed when there are no findings."""

    transcript: bytes  # its address
    server: Identity | None  # who signed it
    entries: int
    facts: Facts
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    @property
    def parameters(self) -> RoundParameters | None:
        """The parameters of the round; None when the transcript does not say."""
        return self.facts.parameters

    @property
    def total(self) -> UIntArray | None:
        """The sum, recomputed; None without masked inputs, or for a round without result."""
        return self.facts.total


def verify(
    file: BinaryIO,
    *,
    server: Identity | None = None,
    known: frozenset[Identity] | None = None,
    threads: int = 1,
    memory_limit: int = 2**32,
) -> Report:
    """Verify a transcript.

    file          open for reading bytes, seekable
    server        whose transcript it must be; None: whoever signed it is believed to be the server
    known         the registry; None: whoever was admitted is believed to be a party
    memory_limit  bytes; a round whose vectors or shares need more is not replayed

    returns  a report; whatever the bytes are, nothing is raised for them
    """
    replay = Replay(known, threads, memory_limit)
    read = Verifier(file, MAGIC, replay).run(server)
    return Report(read.transcript, replay.facts.server, read.entries, replay.facts, read.findings)


class Replayed(Protocol):
    """Takes the entries of a transcript in their order.

    running  until the outcome; begun: after the header; signer: whose transcript it is, by its header
    """

    @property
    def running(self) -> bool: ...
    @property
    def begun(self) -> bool: ...
    @property
    def signer(self) -> Identity | None: ...
    def take(self, entry: Entry) -> None:
        """Take one entry. Raises WrongEntryError, RemoteProtocolError."""


@dataclass(frozen=True, slots=True)
class Read:
    """A transcript that was read: its address, its entries, what is wrong with it."""

    transcript: bytes
    entries: int
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class Verifier:
    """Reads a file of entries behind the line `magic`; whatever the bytes are, nothing is raised for them."""

    file: BinaryIO
    magic: bytes
    replay: Replayed
    findings: list[Finding] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)
    seal: Seal | None = None
    unread: int = 0  # entries that follow no header

    def run(self, server: Identity | None) -> Read:
        """Read everything. server: who must have sealed it; None: whoever the header names."""
        replay = self.replay
        left = self.file.seek(0, 2)
        self.file.seek(0)
        if self.file.read(len(self.magic)) != self.magic:
            self.findings.append(Finding(None, "the first line is not that of a transcript"))
        left -= len(self.magic)
        while left > 0 and self.seal is None and len(self.findings) + self.unread < _MOST_FINDINGS:
            place = len(self.addresses)
            length = int.from_bytes(self.file.read(LENGTH_BYTES), "big")
            left -= LENGTH_BYTES
            if length > left:
                self._find(place, f"announces {length} bytes, {max(left, 0)} are left")
                break
            self._entry(place, self.file.read(length), replay)
            left -= length
        if self.seal is not None and left:
            self._find(len(self.addresses), f"{left} bytes follow the seal")
        if len(self.findings) + self.unread >= _MOST_FINDINGS:
            self.findings.append(Finding(None, "too much is wrong to go on"))
        self._check_seal(replay.signer, server)
        if self.unread:
            self.findings.append(Finding(None, f"{self.unread} entries cannot be replayed without a header"))
        if replay.running:
            self.findings.append(Finding(None, "the record ends before the round"))
        order = sorted(self.findings, key=lambda f: (f.place is None, f.place or 0))
        return Read(transcript_digest(self.addresses), len(self.addresses), tuple(order))

    def _entry(self, place: int, data: bytes, replay: Replayed) -> None:
        try:
            entry = decode(Entry, data)
            if entry.kind == EntryKind.SEAL:
                if entry.party:
                    self._find(place, "a seal has no party")
                self.seal = decode(Seal, entry.content)
                return
        except RemoteProtocolError as error:
            self._find(place, error.detail)
            self.addresses.append(address(data))
            return
        self.addresses.append(address(data))
        if place and self.findings and not replay.begun and entry.kind != EntryKind.HEADER:
            self.unread += 1  # what is wrong is the header: one cause, one line
            return
        try:
            replay.take(entry)
        except WrongEntryError as error:
            self._find(place, str(error))
        except RemoteProtocolError as error:
            self._find(place, f"{error.reason}: {error.detail}")

    def _check_seal(self, signer: Identity | None, server: Identity | None) -> None:
        if server is not None and signer != server:
            self.findings.append(Finding(None, "the transcript is not that of the server asked for"))
        if self.seal is None:
            self.findings.append(Finding(None, "there is no seal"))
            return
        place = len(self.addresses)
        sealed = bytes(self.seal.addresses)
        named = [sealed[at : at + DIGEST_BYTES] for at in range(0, len(sealed), DIGEST_BYTES)]
        if signer is None or not verify_signature(
            signer, seal_text(transcript_digest(named)), self.seal.signature
        ):
            self._find(place, "the seal's signature is not the server's")
        if len(named) != place:
            self._find(place, f"the seal is over {len(named)} entries, there are {place}")
        for i, (is_, must) in enumerate(zip(self.addresses, named, strict=False)):
            if is_ != must and len(self.findings) < 2 * _MOST_FINDINGS:
                self._find(i, "its content is not what was sealed")

    def _find(self, place: int, what: str) -> None:
        self.findings.append(Finding(place, what))
