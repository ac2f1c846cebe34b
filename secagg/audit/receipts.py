"""What one who holds a receipt, or a head that was seen before, can prove of the server: offline."""

from __future__ import annotations

from typing import TypeVar

from secagg.audit.chain import NO_HEAD, Countersignature, Receipt, SignedHead, next_head
from secagg.audit.entries import Content, Entry, Round, Start, content_of, survivors_of
from secagg.audit.errors import AuditError, CutError, ForkError, MalformedError, ReceiptError
from secagg.audit.log import Log
from secagg.errors import RemoteProtocolError
from secagg.messages import decode, encode
from secagg.params import Identity

RECEIPT_MAGIC = b"secagg audit receipt 1\n"
COUNTERSIGNATURE_MAGIC = b"secagg audit countersignature 1\n"
M = TypeVar("M")


def check_receipt(
    receipt: Receipt, *, server: Identity, party: Identity | None = None, round_id: bytes | None = None
) -> Content:
    """Check a receipt, from nothing but itself; returns the content of its entry.

    server    the identity that signed the log at that time
    party     whose input must be in the round's sum
    round_id  the round that it must be of, 16 bytes

    It proves that the server has signed a log whose entry `receipt.entry.index` is this one, at this time.
    It does not prove that the server shows others the same log: `receipt_in` does, of the log they are shown.

    raises  ReceiptError: what of it is not proved; MalformedError: its content is none
    """
    entry, signed = receipt.entry, receipt.signed
    if not signed.signed_by(server):
        raise ReceiptError(f"receipt: its head is not signed by {server.hex()}")
    if (signed.index, signed.time) != (entry.index, entry.time):
        raise ReceiptError(f"receipt: the signed head is of entry {signed.index}, the entry is {entry.index}")
    if signed.head != next_head(receipt.previous, encode(entry)):
        raise ReceiptError("receipt: the entry is not the one that was signed")
    content = content_of(entry)
    if (entry.index == 0) != isinstance(content, Start) or (entry.index == 0) != (
        receipt.previous == NO_HEAD
    ):
        raise ReceiptError("receipt: a log begins with its start, and nowhere else")
    if isinstance(content, Start) and (content.log_id, content.server) != (signed.log_id, server):
        raise ReceiptError("receipt: the start is that of another log")
    if round_id is not None and not (isinstance(content, Round) and content.round_id == round_id):
        raise ReceiptError(f"receipt: is not of the round {round_id.hex()}")
    if party is not None and party not in survivors_of(content):
        raise ReceiptError(f"receipt: {party.hex()} is not among the survivors of its round")
    return content


def receipt_in(receipt: Receipt, log: Log) -> Content:
    """Check that a log has the entry of a receipt; returns its content.

    raises  ForkError: the server has signed both, and they contradict each other; CutError: the log ends
            before it; ReceiptError: the receipt proves nothing of this log
    """
    signer = next((one for one in log.signers if receipt.signed.signed_by(one)), None)
    if signer is None:
        raise ReceiptError("receipt: its head is not signed by a server of this log")
    content = check_receipt(receipt, server=signer)
    check_growth(receipt.signed, log)
    return content


def check_growth(seen: SignedHead, log: Log) -> None:
    """Check that a log continues the one whose head was seen before: nothing was changed, nothing removed.

    raises  ForkError: it is another one, and the server signed both; CutError: it ends before;
            AuditError: the head is of another log, or of no server of this one
    """
    if seen.log_id != log.signed.log_id:
        raise AuditError(f"head: is of the log {seen.log_id.hex()}, this is {log.signed.log_id.hex()}")
    if not any(map(seen.signed_by, log.signers)):
        raise AuditError("head: is not signed by a server of this log")
    if seen.index > log.signed.index:
        if log.signed.time > seen.time:  # a log's times never fall: the one shown does not become the other
            raise ForkError("log: goes on without an entry that was signed before", seen, log.signed)
        raise CutError(seen, log.signed)
    if (log.head(seen.index), log.entries[seen.index].time) != (seen.head, seen.time):
        raise ForkError(f"log: entry {seen.index}, or one before, is not what it was", seen, log.signed)


def is_fork(one: SignedHead, other: SignedHead, *, server: Identity) -> bool:
    """Return whether two heads alone prove that a server led two logs under one name.

    So do heads of one index that differ, and times that fall where indexes rise. Receipts of two
    participants are compared like this when there is no log at hand.
    """
    if one.log_id != other.log_id or not (one.signed_by(server) and other.signed_by(server)):
        return False
    earlier, later = sorted((one, other), key=lambda head: head.index)
    if earlier.index == later.index:
        return (earlier.head, earlier.time) != (later.head, later.time)
    return earlier.time > later.time


def dump_receipt(receipt: Receipt) -> bytes:
    """Return the file of a receipt."""
    return RECEIPT_MAGIC + encode(receipt)


def load_receipt(data: bytes) -> Receipt:
    """Read the file of a receipt, which proves nothing before `check_receipt`. Raises MalformedError."""
    receipt = _load(RECEIPT_MAGIC, Receipt, "receipt", data)
    entry = receipt.entry
    own = Entry(entry.index, entry.time, entry.kind, bytes(entry.content))  # not a view of the file
    return Receipt(own, receipt.previous, receipt.signed)


def dump_countersignature(countersignature: Countersignature) -> bytes:
    """Return the file of a countersignature."""
    return COUNTERSIGNATURE_MAGIC + encode(countersignature)


def load_countersignature(data: bytes) -> Countersignature:
    """Read the file of a countersignature, which may be anybody's. Raises MalformedError."""
    return _load(COUNTERSIGNATURE_MAGIC, Countersignature, "countersignature", data)


def _load(magic: bytes, kind: type[M], name: str, data: bytes) -> M:
    if not data.startswith(magic):
        raise MalformedError(f"{name}: the first line is not that of one")
    try:
        return decode(kind, data[len(magic) :])
    except RemoteProtocolError as error:
        raise MalformedError(f"{name}: {error.detail}") from error
