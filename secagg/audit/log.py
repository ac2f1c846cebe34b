"""A log in a file: written by the server, verified by anybody, offline.

The line MAGIC; every entry behind its length (8 bytes, big-endian); a length of zero; and in the same way
the Tail and as many countersignatures as it says, ascending by index and witness. There is no byte in it that
may be changed without a trace. Countersignatures may be left out by whoever hands the file on: who needs
those of certain witnesses says so.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from secagg.audit.chain import Chain, Countersignature, SignedHead
from secagg.audit.entries import ENTRY_BYTES, Entry, Round
from secagg.audit.errors import BrokenLogError, MalformedError
from secagg.errors import RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import message, uint
from secagg.params import DIGEST_BYTES, Identity

MAGIC = b"secagg audit log 1\n"
LENGTH_BYTES = 8
LOG_BYTES = 2**30  # most of a log that is read into memory
_MOST_FINDINGS = 100
M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows the entries: the signed head of the last, and how many countersignatures there are."""

    signed: SignedHead = message(1, SignedHead)
    countersignatures: int = uint(2)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. place: the entry, from 0; None: the log as a whole."""

    place: int | None
    what: str

    def __str__(self) -> str:
        return self.what if self.place is None else f"entry {self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a log's file; it can be believed when there are no findings.

    log_id     32 bytes; empty when the log does not say
    entries    as many as there are
    rounds     those among them that are rounds
    signers    identities that signed its heads, in the order they did, and the one that signs from now on
    signed     the head, as the server signed it; None when there is none to be read
    witnessed  for each witness the newest entry under whose head its signature stands
    """

    log_id: bytes
    entries: int
    rounds: int
    signers: tuple[Identity, ...]
    signed: SignedHead | None
    witnessed: Mapping[Identity, int]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log that was verified when it was read; made by `read_log`."""

    entries: tuple[Entry, ...]
    heads: bytes = field(repr=False)  # of all entries, 32 bytes each
    signers: tuple[Identity, ...]
    signed: SignedHead
    countersignatures: tuple[Countersignature, ...]

    def head(self, index: int) -> bytes:
        """Return the head of an entry, 32 bytes."""
        return self.heads[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]


def write_log(
    file: BinaryIO,
    entries: Iterable[bytes],
    signed: SignedHead,
    countersignatures: Iterable[Countersignature] = (),
) -> None:
    """Write a log.

    file               open for writing bytes
    entries            all of them, encoded
    signed             the head of the last
    countersignatures  of this head and of earlier ones, in any order

    raises  OSError
    """
    file.write(MAGIC)
    for entry in entries:
        _write(file, entry)
    _write(file, b"")
    ordered = sorted(countersignatures, key=_order)
    _write(file, encode(Tail(signed, len(ordered))))
    for one in ordered:
        _write(file, encode(one))


def verify_log(
    file: BinaryIO, *, server: Identity | None = None, witnesses: Collection[Identity] = ()
) -> Report:
    """Verify a log.

    file       open for reading bytes, seekable
    server     an identity that must be among those that sign it; None: whoever signed is believed
    witnesses  who must have countersigned it, each at some entry: `Report.witnessed` says at which

    returns  a report; whatever the bytes are, nothing is raised for them, and memory stays within that of the
             largest entry and 56 bytes for each
    """
    return _Verifier(file).run(server, witnesses)


def read_log(
    file: BinaryIO,
    *,
    server: Identity | None = None,
    witnesses: Collection[Identity] = (),
    limit_bytes: int = LOG_BYTES,
) -> Log:
    """Read a whole log into memory, verified as `verify_log` does.

    limit_bytes  most of the file; a larger one can still be verified

    raises  BrokenLogError: with the report; MalformedError: the file is larger
    """
    size = file.seek(0, 2)
    if size > limit_bytes:
        raise MalformedError(
            f"log: must have up to {limit_bytes} bytes to be read whole, has {size}; verify it"
        )
    entries: list[Entry] = []
    verifier = _Verifier(file, entries)
    report = verifier.run(server, witnesses)
    if report.findings or report.signed is None:
        raise BrokenLogError(report)
    return Log(
        tuple(entries),
        bytes(verifier.heads),
        report.signers,
        report.signed,
        tuple(verifier.countersignatures),
    )


@dataclass(slots=True)
class _Verifier:
    file: BinaryIO
    kept: list[Entry] | None = None
    left: int = 0  # bytes of the file
    chain: Chain = field(default_factory=Chain)
    heads: bytearray = field(default_factory=bytearray)
    times: array[int] = field(default_factory=lambda: array("Q"))
    rounds: dict[bytes, int] = field(default_factory=dict)  # where each is
    tail: Tail | None = None
    countersignatures: list[Countersignature] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def run(self, server: Identity | None, witnesses: Collection[Identity]) -> Report:
        self.left = self.file.seek(0, 2)
        self.file.seek(0)
        magic = self.file.read(len(MAGIC))
        self.left -= len(magic)
        if magic != MAGIC:
            self._find(None, "the first line is not that of an audit log")
        else:
            self._read()
        if server is not None and server not in self.chain.signers:
            self._find(None, "the log is not signed by the server asked for")
        witnessed = {Identity(one.witness): one.index for one in self.countersignatures}  # the newest is last
        for witness in witnesses:
            if witness not in witnessed:
                self._find(None, f"the witness {witness.hex()} has countersigned nothing")
        return Report(
            self.chain.log_id,
            self.chain.index + 1,
            len(self.rounds),
            self.chain.signers,
            None if self.tail is None else self.tail.signed,
            witnessed,
            tuple(sorted(self.findings, key=lambda one: (one.place is None, one.place or 0))),
        )

    def _read(self) -> None:
        while (data := self._frame("entry")) and len(self.findings) < _MOST_FINDINGS:
            self._entry(data)
        if data != b"":  # given up, or cut short
            self._find(None, "too much is wrong to go on" if data else "the log ends without a signed head")
            return
        if self.chain.index < 0:
            self._find(None, "the log has no entries")
        self.tail = self._message(Tail, "the signed head")
        if self.tail is not None:
            self._check_head(self.tail.signed)
            self._countersignatures(self.tail.countersignatures)

    def _entry(self, data: bytes) -> None:
        step = self.chain.follow(data)
        self.chain = step.chain
        place = self.chain.index
        self.heads += self.chain.head
        self.times.append(self.chain.time)
        for what in step.wrong:
            self._find(place, what)
        if isinstance(step.content, Round):
            first = self.rounds.setdefault(step.content.round_id, place)
            if first != place:
                self._find(place, f"the round {step.content.round_id.hex()} is entry {first} already")
        if self.kept is not None and step.entry is not None:
            self.kept.append(step.entry)

    def _check_head(self, signed: SignedHead) -> None:
        chain = self.chain
        if chain.signer is None or not signed.signed_by(chain.signer):
            self._find(None, "the signature of the head is not the server's")
        if signed.log_id != chain.log_id:
            self._find(None, "the signed head is of another log")
        if signed.index != chain.index:
            self._find(None, f"the signed head is of entry {signed.index}, the last is {chain.index}")
        elif signed.head != chain.head:
            self._find(None, "the entries are not those that were signed")
        elif signed.time != chain.time:
            self._find(None, f"the signed head is of {signed.time} ms, its entry of {chain.time}")

    def _countersignatures(self, count: int) -> None:
        before = (-1, b"")
        for number in range(count):
            one = self._message(Countersignature, f"countersignature {number} of {count}")
            if one is None:
                return
            if _order(one) <= before:
                self._find(None, f"countersignature {number}: not ascending by index and witness")
            before = _order(one)
            if not self._stands(one):
                self._find(None, f"countersignature {number}: is not that of {one.witness.hex()} here")
            else:
                self.countersignatures.append(one)
            if len(self.findings) >= _MOST_FINDINGS:
                self._find(None, "too much is wrong to go on")
                return
        if self.left:
            self._find(None, f"{self.left} bytes follow the log")

    def _stands(self, one: Countersignature) -> bool:
        if one.index > self.chain.index:
            return False
        head = bytes(self.heads[DIGEST_BYTES * one.index : DIGEST_BYTES * (one.index + 1)])
        return one.over(SignedHead(self.chain.log_id, one.index, head, self.times[one.index], b""))

    def _message(self, kind: type[M], what: str) -> M | None:
        data = self._frame(what)
        if data is None:
            return None
        try:
            return decode(kind, data)
        except RemoteProtocolError as error:
            self._find(None, f"{what}: {error.detail}")
            return None

    def _frame(self, what: str) -> bytes | None:
        """Read what is behind the next length; None: the file does not have it."""
        place = self.chain.index + 1 if what == "entry" else None
        raw = self.file.read(LENGTH_BYTES)
        self.left -= len(raw)
        length = int.from_bytes(raw, "big")
        if len(raw) < LENGTH_BYTES or length > min(self.left, ENTRY_BYTES):
            of = f"{length} bytes are announced" if len(raw) == LENGTH_BYTES else "has no length"
            most = f"there are {max(self.left, 0)}, and at most {ENTRY_BYTES} allowed"
            self._find(place, f"{what}: {of}, {most}")
            return None
        data = self.file.read(length)
        self.left -= len(data)
        if len(data) < length:  # the file shrank meanwhile
            self._find(place, f"{what}: is cut short")
            return None
        return data

    def _find(self, place: int | None, what: str) -> None:
        self.findings.append(Finding(place, what))


def _order(one: Countersignature) -> tuple[int, bytes]:
    return one.index, one.witness


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(len(data).to_bytes(LENGTH_BYTES, "big"))
    file.write(data)
