"""The audit log in the service's database: only ever appended to, and checked by every server that opens it.

Whoever can write to the database can write to these tables as well. What they change is found: by hashes,
when the log is opened and before every append; what they cut off at the end by servers that are running, by
receipts, exported files and witnesses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, ClassVar

from sqlalchemy import Connection, Row, insert, select

from secagg.audit import Chain, Content, Countersignature, Entry, KeyChange, Receipt, Round, SignedHead, Start
from secagg.audit import write_log as write_file
from secagg.audit.chain import NO_HEAD, Step, next_head
from secagg.audit.entries import LOG_ID_BYTES, VERSION, content_of, decode_entry
from secagg.audit.errors import MalformedError
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import encode
from secagg.params import Entropy, Signer
from secagg.store.errors import StoreError
from secagg.store.sql.database import Database
from secagg.store.sql.tables import audit, countersignatures

_BATCH = 256  # rows
_MS = 1000
_APPENDED = "secagg.audit.appended"  # what Connection.info knows the transaction by that appended last


class AuditChangedError(StoreError):
    """The log in the database is not what the server wrote. index: the first entry of which that is known."""

    exit_status: ClassVar[int] = 1

    def __init__(self, name: str, index: int, what: str) -> None:
        super().__init__(
            f"{name}: audit entry {index}: {what}; the database was changed: compare it with an exported log"
        )
        self.index = index


class AuditLog:
    """The log of one database, which several servers may append to.

    database  where it is kept
    signer    the server's identity, with which a new log begins; None: only to read
    now       seconds since 1970, e.g. `database.now`
    entropy   for the name of a new log

    Opening checks the whole chain (some 100,000 entries take a few seconds) and begins a log that is not
    there. Calls may come from several threads.

    raises  AuditChangedError, which names the entry: the database was changed; StoreError, also when there is
            no log and no signer; ParameterError: another identity signs the log by now
    """

    def __init__(
        self,
        database: Database,
        signer: Signer | None,
        now: Callable[[], float],
        *,
        entropy: Entropy = os.urandom,
    ) -> None:
        self._database = database
        self._signers = {} if signer is None else {signer.identity: signer}
        self._now = now
        self._seen = Chain()  # checked, and kept whatever becomes of the current transaction
        chain = self._seen
        more = True
        while more:  # the lock is given back between batches: other servers work meanwhile
            with database.connection() as db:
                before, chain = chain, self._batch(db, chain)
                more = chain.index != before.index
                self._remember(db, chain)
                if not more and chain.index < 0:
                    if signer is None:
                        raise StoreError(f"{database.name}: there is no audit log")
                    chain, _ = self._append(db, chain, Start(VERSION, entropy(LOG_ID_BYTES), signer.identity))
        if signer is not None:
            self._signer(chain)

    # --- writing

    def append(self, content: Content) -> Receipt:
        """Append an entry, in the caller's transaction if there is one.

        content  a Round, RegistryChange or Withdrawal

        returns  its receipt, which must not leave the process before the transaction is kept: otherwise the
                 server may have signed two entries for one place, which proves it a liar
        raises   ParameterError, which names the field: may not be in a log, or is there already;
                 AuditChangedError; StoreError
        """
        if isinstance(content, Start | KeyChange):
            raise ParameterError(f"content: a {type(content).__name__} is not appended; see change_key")
        with self._database.connection() as db:
            chain = self._follow(db)
            if isinstance(content, Round) and (there := self._row_of(db, content.round_id)) is not None:
                raise ParameterError(
                    f"Round.round_id: {content.round_id.hex()} is entry {there.number} of the log already"
                )
            _, receipt = self._append(db, chain, content)
        return receipt

    def change_key(self, new: Signer) -> Receipt:
        """Let another identity sign all that follows; the one that signs so far agrees by signing this entry.

        Other servers of the database need the new one as well: theirs is refused from now on.

        returns, raises  as append
        """
        with self._database.connection() as db:
            chain = self._follow(db)
            _, receipt = self._append(db, chain, chain.hand_over(self._signer(chain), new))
        self._signers[new.identity] = new  # beside the old one: the caller's transaction may yet fail
        return receipt

    def countersign(self, countersignature: Countersignature) -> None:
        """Keep the signature of a witness; one of the same witness and entry that is there stays.

        raises  ParameterError: it is not one of a head of this log; StoreError
        """
        with self._database.connection() as db:
            chain = self._follow(db)
            index = countersignature.index
            there = 0 <= index <= chain.index
            if not there or not countersignature.over(self._receipt(db, chain, index).signed):
                raise ParameterError(
                    f"countersignature: is not that of {countersignature.witness.hex()} over head {index}"
                )
            where = (countersignatures.c.number == index) & (
                countersignatures.c.witness == countersignature.witness
            )
            if db.execute(select(countersignatures.c.number).where(where)).one_or_none() is None:
                db.execute(
                    insert(countersignatures).values(
                        number=index,
                        witness=countersignature.witness,
                        signature=countersignature.signature,
                    )
                )

    # --- reading

    def head(self) -> SignedHead:
        """Return the newest head. Raises AuditChangedError; StoreError."""
        with self._database.connection() as db:
            chain = self._follow(db)
            return self._receipt(db, chain, chain.index).signed

    def receipt(self, index: int) -> Receipt:
        """Return the receipt of an entry. Raises ParameterError: there is none; as head."""
        with self._database.connection() as db:
            chain = self._follow(db)
            if not 0 <= index <= chain.index:
                raise ParameterError(f"index: must be in 0..{chain.index}, is {index}")
            return self._receipt(db, chain, index)

    def receipt_of(self, round_id: bytes) -> Receipt | None:
        """Return the receipt of a round; None: it is not in the log. Raises as head."""
        with self._database.connection() as db:
            chain = self._follow(db)
            row = self._row_of(db, round_id)
            if row is None:
                return None
            receipt = self._receipt(db, chain, row.number)
            if _round_id(content_of(receipt.entry)) != round_id:
                raise self._changed(row.number, "is not of the round it stands for")
            return receipt

    def entries(self, first: int = 0, last: int | None = None) -> Iterator[Entry]:
        """Yield the entries first..last, both included; last None: to the newest there is at the beginning.

        No transaction is open between two of them. Raises as head.
        """
        newest = self.head().index
        for data in self._entries(first, newest if last is None else min(last, newest)):
            yield decode_entry(data)

    def export(self, file: BinaryIO) -> SignedHead:
        """Write the whole log for `secagg.audit.verify_log`; returns the head that it ends with.

        file    open for writing bytes; the caller makes it durable

        raises  OSError; as head. What was written by then is not a log
        """
        signed = self.head()
        write_file(file, self._entries(0, signed.index), signed, self.countersignatures(signed.index))
        return signed

    def countersignatures(self, last: int | None = None) -> list[Countersignature]:
        """Return the witnesses' signatures, up to an entry, ascending by entry and witness."""
        query = select(countersignatures).order_by(countersignatures.c.number, countersignatures.c.witness)
        if last is not None:
            query = query.where(countersignatures.c.number <= last)
        with self._database.connection() as db:
            return [
                Countersignature(row.number, bytes(row.witness), bytes(row.signature))
                for row in db.execute(query)
            ]

    # --- the chain

    def _follow(self, db: Connection) -> Chain:
        """Check what was appended since we looked last, by whichever server; returns the chain to its end."""
        chain = self._seen
        while (after := self._batch(db, chain)).index != chain.index:
            chain = after
        self._remember(db, chain)
        if chain.index < 0:
            raise StoreError(f"{self._database.name}: there is no audit log")
        return chain

    def _remember(self, db: Connection, chain: Chain) -> None:
        """Keep the chain as seen, unless some of it is of this transaction, which may be rolled back."""
        if db.info.get(_APPENDED) is not db.get_transaction():
            self._seen = chain

    def _batch(self, db: Connection, chain: Chain) -> Chain:
        """Check the rows after a chain, some of them, and that its last is still there; returns the chain."""
        query = select(audit).where(audit.c.number >= chain.index).order_by(audit.c.number).limit(_BATCH)
        rows = list(db.execute(query))
        if chain.index >= 0:
            if not rows or rows[0].number != chain.index or bytes(rows[0].head) != chain.head:
                raise self._changed(chain.index, "is gone or not what it was")
            del rows[0]
        for row in rows:
            chain = self._checked(chain, row).chain
        if rows:
            signed = self._signed(chain, chain.index, chain.head, chain.time, rows[-1])
            if chain.signer is None or not signed.signed_by(chain.signer):
                raise self._changed(chain.index, "its signature is not the server's")
        return chain

    def _checked(self, chain: Chain, row: Row[Any]) -> Step:
        due = chain.index + 1
        if row.number != due:
            raise self._changed(due, "is missing")
        step = chain.follow(bytes(row.entry))
        if step.wrong:
            raise self._changed(due, step.wrong[0])
        if step.chain.head != bytes(row.head):
            raise self._changed(due, "is not what it was")
        if _round_id(step.content) != (None if row.round_id is None else bytes(row.round_id)):
            raise self._changed(due, "is not of the round it stands for")
        return step

    def _append(self, db: Connection, chain: Chain, content: Content) -> tuple[Chain, Receipt]:
        first = isinstance(content, Start)
        signer = next(iter(self._signers.values())) if first else self._signer(chain)
        after, receipt = chain.extend(content, int(self._now() * _MS), signer)
        if db.in_nested_transaction():  # whether that is kept, nobody would tell us
            raise LocalProtocolError("append: is not called within a savepoint")
        db.info[_APPENDED] = db.get_transaction()
        db.execute(
            insert(audit).values(
                number=after.index,
                round_id=_round_id(content),
                entry=encode(receipt.entry),
                head=after.head,
                signature=receipt.signed.signature,
            )
        )
        self._database.when_kept(lambda: self._keep(after))
        return after, receipt

    def _keep(self, chain: Chain) -> None:
        self._seen = chain

    def _signer(self, chain: Chain) -> Signer:
        if not self._signers:
            raise ParameterError("signer: is needed to append")
        due = chain.signers[-1]
        if due not in self._signers:
            raise ParameterError(f"signer: must be {due.hex()}, who signs {self._database.name} by now")
        return self._signers[due]

    # --- rows

    def _row_of(self, db: Connection, round_id: bytes) -> Row[Any] | None:
        return db.execute(select(audit.c.number).where(audit.c.round_id == round_id)).one_or_none()

    def _receipt(self, db: Connection, chain: Chain, index: int) -> Receipt:
        """Return the receipt of an entry that is there, checked: a wrong one must not leave the server."""
        rows = db.execute(
            select(audit).where(audit.c.number.in_((index - 1, index))).order_by(audit.c.number)
        ).all()
        if [row.number for row in rows] != list(range(max(index - 1, 0), index + 1)):
            raise self._changed(index, "is missing, or the one before")
        previous, row = (bytes(rows[0].head) if index else NO_HEAD), rows[-1]
        entry = self._entry(row, previous)
        signed = self._signed(chain, index, bytes(row.head), entry.time, row)
        if not any(map(signed.signed_by, chain.signers)):
            raise self._changed(index, "its signature is not the server's")
        return Receipt(entry, previous, signed)

    def _signed(self, chain: Chain, index: int, head: bytes, time: int, row: Row[Any]) -> SignedHead:
        return SignedHead(chain.log_id, index, head, time, bytes(row.signature))

    def _entry(self, row: Row[Any], previous: bytes) -> Entry:
        try:
            entry = decode_entry(bytes(row.entry))
        except MalformedError as error:
            raise self._changed(row.number, str(error)) from error
        if bytes(row.head) != next_head(previous, bytes(row.entry)):
            raise self._changed(row.number, "is not what it was")
        return entry

    def _entries(self, first: int, last: int) -> Iterator[bytes]:
        """Yield encoded entries in batches, each checked against the head before it."""
        at = max(first, 0)
        previous: bytes | None = NO_HEAD if at == 0 else None
        while at <= last:
            wanted = audit.c.number.between(at - (previous is None), min(at + _BATCH - 1, last))
            with self._database.connection() as db:
                rows = list(db.execute(select(audit).where(wanted).order_by(audit.c.number)))
            if previous is None:
                if not rows or rows[0].number != at - 1:
                    raise self._changed(at - 1, "is missing")
                previous = bytes(rows.pop(0).head)
            if not rows:
                raise self._changed(at, "is missing")
            for row in rows:
                if row.number != at:
                    raise self._changed(at, "is missing")
                self._entry(row, previous)
                previous = bytes(row.head)
                yield bytes(row.entry)
                at += 1

    def _changed(self, index: int, what: str) -> AuditChangedError:
        return AuditChangedError(self._database.name, index, what)

    def __repr__(self) -> str:
        return f"AuditLog({self._database.name!r}, {self._seen.index + 1} entries)"


def _round_id(content: Content | None) -> bytes | None:
    return content.round_id if isinstance(content, Round) else None
