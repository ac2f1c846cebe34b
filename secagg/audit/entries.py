"""The entries of the audit log: what happened, in the canonical encoding of section 4.3 of PROTOCOL.md.

An entry says nothing of a party but its identity, and nothing of a sum but its digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from secagg.audit.errors import MalformedError
from secagg.errors import ParameterError, RemoteProtocolError
from secagg.messages import decode, encode
from secagg.messages.fields import large_octets, octets, octets_list, uint
from secagg.params import DIGEST_BYTES, IDENTITY_BYTES, ROUND_ID_BYTES, Buffer, Identity
from secagg.primitives.labels import digest

VERSION = 1
LOG_ID_BYTES = 32
SIGNATURE_BYTES = 64
NAME_BYTES = 200  # of a place or a federation, UTF-8
REASON_BYTES = 1000
ENTRY_BYTES = 2**25  # most of an entry: nearly a million survivors
TIME_LIMIT = 253_402_300_800_000  # ms since 1970: the year 10000, which no calendar of Python shows
_NAME_SIZES = tuple(range(1, NAME_BYTES + 1))


class EntryKind(IntEnum):
    """What an entry tells of."""

    START = 1
    ROUND = 2
    REGISTRY = 3
    WITHDRAWAL = 4
    KEY = 5


class RoundOutcome(IntEnum):
    """How a round ended."""

    COMPLETED = 1
    ABORTED = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of the log."""

    index: int = uint(1)  # from 0, without gaps
    time: int = uint(2, TIME_LIMIT)  # ms since 1970, never earlier than that of the entry before
    kind: int = uint(3)  # of EntryKind
    content: Buffer = large_octets(4)  # the encoding of one of the classes below


@dataclass(frozen=True, slots=True)
class Start:
    """The first entry, and no other."""

    version: int = uint(1)
    log_id: bytes = octets(2, LOG_ID_BYTES)  # random: no other log has it
    server: bytes = octets(3, IDENTITY_BYTES)  # signs the heads


@dataclass(frozen=True, slots=True)
class Round:
    """A round that ended. Made by `completed` and `aborted`."""

    place: bytes = octets(1, *_NAME_SIZES)  # FEDERATION/RUN, UTF-8
    round_id: bytes = octets(2, ROUND_ID_BYTES)
    outcome: int = uint(3, 3)  # of RoundOutcome
    reason: bytes = octets(4, *range(REASON_BYTES + 1))  # of an abort, UTF-8
    transcript: bytes = octets(5, 0, DIGEST_BYTES)  # its address; empty: none was kept
    total_digest: bytes = octets(6, 0, DIGEST_BYTES)  # of the sum, as in the transcript
    survivors: tuple[bytes, ...] = octets_list(7, IDENTITY_BYTES)  # whose inputs are in the sum

    @classmethod
    def completed(
        cls,
        place: str,
        round_id: bytes,
        *,
        total_digest: bytes,
        survivors: Iterable[bytes],
        transcript: bytes = b"",
    ) -> Round:
        """Return the entry of a round with a sum.

        place         FEDERATION/RUN
        total_digest  32 bytes, of `secagg.transcript`
        survivors     identities, in any order
        transcript    address of the transcript, 32 bytes, or nothing when none was kept
        """
        names = tuple(sorted(map(bytes, survivors)))
        return cls(_octets(place), round_id, RoundOutcome.COMPLETED, b"", transcript, total_digest, names)

    @classmethod
    def aborted(
        cls,
        place: str,
        round_id: bytes,
        *,
        reason: str,
        survivors: Iterable[bytes] = (),
        transcript: bytes = b"",
    ) -> Round:
        """Return the entry of a round without a sum; the reason is cut, and made printable, to fit."""
        fit = "".join(letter if letter.isprintable() else " " for letter in reason) or "unknown"
        fitting = fit.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore").encode()
        names = tuple(sorted(map(bytes, survivors)))
        return cls(_octets(place), round_id, RoundOutcome.ABORTED, fitting, transcript, b"", names)


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """A federation has a new registry. Made by `of`."""

    federation: bytes = octets(1, *_NAME_SIZES)  # UTF-8
    version: int = uint(2)  # rises with every change
    document_digest: bytes = octets(3, DIGEST_BYTES)

    @classmethod
    def of(cls, federation: str, version: int, document: bytes) -> RegistryChange:
        """Return the entry of a registry's document, whose bytes are whatever the service keeps."""
        return cls(_octets(federation), version, registry_digest(document))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A party left a federation. Made by `of`."""

    federation: bytes = octets(1, *_NAME_SIZES)  # UTF-8
    identity: bytes = octets(2, IDENTITY_BYTES)

    @classmethod
    def of(cls, federation: str, identity: bytes) -> Withdrawal:
        """Return the entry of a party that left."""
        return cls(_octets(federation), identity)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A new identity signs the heads that follow; the old one signs this entry's. Made by `hand_over`."""

    server: bytes = octets(1, IDENTITY_BYTES)  # the new identity
    handover: bytes = octets(2, SIGNATURE_BYTES)  # by the old one, over the head before and the new one
    acceptance: bytes = octets(
        3, SIGNATURE_BYTES
    )  # by the new one: nobody is made the signer of a log unasked


Content: TypeAlias = Start | Round | RegistryChange | Withdrawal | KeyChange

KINDS: dict[EntryKind, type[Content]] = {
    EntryKind.START: Start,
    EntryKind.ROUND: Round,
    EntryKind.REGISTRY: RegistryChange,
    EntryKind.WITHDRAWAL: Withdrawal,
    EntryKind.KEY: KeyChange,
}


def kind_of(content: Content) -> EntryKind:
    """Return the kind of entry that has such content."""
    return next(kind for kind, one in KINDS.items() if isinstance(content, one))


def registry_digest(document: bytes) -> bytes:
    """Digest of a registry's document, 32 bytes."""
    return digest("audit-registry", document)


def address(entry: Buffer) -> bytes:
    """Address of an encoded entry, 32 bytes."""
    return digest("audit-entry", entry)


def check_content(content: Content) -> None:
    """Raise ParameterError, which names the field and its limit, unless this may be in a log."""
    try:
        again = decode(type(content), encode(content))
    except RemoteProtocolError as error:
        raise ParameterError(error.detail) from error
    if again != content:  # a number that no encoding has
        raise ParameterError(f"{type(content).__name__}: a number is below 0")
    if wrong := _wrong(again):
        raise ParameterError(wrong)


def decode_entry(data: bytes) -> Entry:
    """Decode an entry. Raises MalformedError for anything but the canonical encoding of one."""
    if len(data) > ENTRY_BYTES:
        raise MalformedError(f"entry: must have up to {ENTRY_BYTES} bytes, has {len(data)}")
    try:
        entry = decode(Entry, data)
    except RemoteProtocolError as error:
        raise MalformedError(error.detail) from error
    return Entry(entry.index, entry.time, entry.kind, bytes(entry.content))


def content_of(entry: Entry) -> Content:
    """Decode the content of an entry. Raises MalformedError, which names the field."""
    if entry.kind not in KINDS:
        raise MalformedError(f"Entry.kind: must be in 1..{max(KINDS)}, is {entry.kind}")
    try:
        content = decode(KINDS[EntryKind(entry.kind)], entry.content)
    except RemoteProtocolError as error:
        raise MalformedError(error.detail) from error
    if wrong := _wrong(content):
        raise MalformedError(wrong)
    return content


def survivors_of(content: Content) -> frozenset[Identity]:
    """Return whose inputs are in the sum of a round; nobody's for other entries."""
    return frozenset(map(Identity, content.survivors)) if isinstance(content, Round) else frozenset()


def _octets(text: str) -> bytes:
    """Return a text's bytes; what has none becomes what `check_content` refuses."""
    return text.encode(errors="surrogatepass")


def _wrong(content: Content) -> str | None:
    """Return what the encoding cannot tell: the field, and its rule."""
    match content:
        case Start(version=version) if version != VERSION:
            return f"Start.version: must be {VERSION}, is {version}: a newer program made it"
        case Round():
            return _wrong_round(content)
        case RegistryChange(federation=federation) | Withdrawal(federation=federation):
            return _unprintable(f"{type(content).__name__}.federation", federation)
        case _:
            return None


def _wrong_round(content: Round) -> str | None:
    for name in ("place", "reason"):
        if wrong := _unprintable(f"Round.{name}", getattr(content, name)):
            return wrong
    if not all(parts := content.place.partition(b"/")) or b"/" in parts[2]:
        return f"Round.place: must be FEDERATION/RUN, is {content.place.decode()!r}"
    if content.outcome not in set(RoundOutcome):
        return f"Round.outcome: must be in 1..{max(RoundOutcome)}, is {content.outcome}"
    completed = content.outcome == RoundOutcome.COMPLETED
    if completed != bool(content.total_digest) or (completed and not content.survivors):
        return "Round.total_digest: a completed round, and no other, has the digest of a sum and survivors"
    if completed == bool(content.reason):
        return "Round.reason: an aborted round, and no other, has one"
    return None


def _unprintable(name: str, text: bytes) -> str | None:
    """Return what is wrong with a text: it is shown on terminals, which control characters would steer."""
    try:
        fine = text.decode().isprintable()
    except UnicodeDecodeError:
        fine = False
    return None if fine else f"{name}: must be printable UTF-8, is {text!r}"
