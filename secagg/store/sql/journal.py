"""The journal of rounds: what was accepted, in order, so that a round outlives its server.

A round is its header, its newest checkpoint (the session with all that came before) and the messages taken
since. Everything is written in transactions that are fenced by a lease: a server that lost its place writes
nothing any more. Knows nothing of the protocol: headers, frames and outcomes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from secagg.errors import ParameterError
from secagg.params import Buffer
from secagg.store.sql.database import Database
from secagg.store.sql.leases import Lease, Leases
from secagg.store.sql.spool import Spool, SpoolWriter
from secagg.store.sql.tables import messages, rounds

_BEGINS = "begins/"  # rounds that are not in the table yet


class State(StrEnum):
    """The state of a round."""

    OPEN = "open"
    COMPLETED = "completed"
    ABORTED = "aborted"


_STAYS = {State.OPEN: "payload", State.COMPLETED: "total"}  # in the spool, beside what is named


@dataclass(frozen=True, slots=True)
class Kept:
    """A message that was taken: its frame, or the name of one in the spool."""

    sender: bytes
    kind: int
    digest: bytes
    frame: bytes | None
    spooled: str | None = None


@dataclass(frozen=True, slots=True)
class KeptRound:
    """A round as the database has it.

    ticket      that its caller knows it by, or nothing
    record      bytes of its transcript at the checkpoint
    """

    round_id: bytes
    place: str
    ticket: bytes
    state: State
    opened: float
    header: bytes
    checkpoint: str | None
    record: int
    outcome: bytes


class Journal:
    """The rounds of one place, which this server leads."""

    def __init__(self, database: Database, spool: Spool, leases: Leases, lease: Lease) -> None:
        self._database, self._spool = database, spool
        self._leases, self._lease = leases, lease

    @property
    def place(self) -> str:
        """The run whose rounds these are."""
        return self._lease.place

    @property
    def epoch(self) -> int:
        """Of the lease: it tells what this server writes from what others wrote."""
        return self._lease.epoch

    # --- reading

    def find(self, round_id: bytes) -> KeptRound | None:
        """Return a round of this place."""
        query = select(rounds).where(rounds.c.round_id == round_id, rounds.c.place == self.place)
        with self._database.connection() as db:
            row = db.execute(query).one_or_none()
        return None if row is None else _kept(row)

    def by_ticket(self, ticket: bytes) -> KeptRound | None:
        """Return the newest round that was opened with a ticket."""
        query = select(rounds).where(rounds.c.place == self.place, rounds.c.ticket == ticket)
        with self._database.connection() as db:
            row = db.execute(query.order_by(rounds.c.opened.desc()).limit(1)).one_or_none()
        return None if row is None else _kept(row)

    def open_rounds(self) -> list[KeptRound]:
        """Return the rounds that have not ended, oldest first."""
        query = select(rounds).where(rounds.c.place == self.place, rounds.c.state == State.OPEN)
        with self._database.connection() as db:
            return [_kept(row) for row in db.execute(query.order_by(rounds.c.opened))]

    def since_checkpoint(self, round_id: bytes) -> list[Kept]:
        """Return what was taken since the checkpoint, in order."""
        query = select(messages).where(messages.c.round_id == round_id)
        with self._database.connection() as db:
            return [
                Kept(
                    bytes(row.sender),
                    row.kind,
                    bytes(row.digest),
                    None if row.frame is None else bytes(row.frame),
                    row.spooled,
                )
                for row in db.execute(query.order_by(messages.c.place_in_round))
            ]

    # --- the spool

    def create(self, name: str) -> SpoolWriter:
        """Begin to spool a value."""
        return self._spool.create(name)

    def keep(self, name: str, content: Buffer) -> None:
        """Spool a value that is at hand."""
        writer = self._spool.create(name)
        try:
            writer.write(content)
            writer.commit()
        except BaseException:
            writer.abandon()
            raise

    def open(self, name: str) -> Buffer:
        """Return a spooled value. Raises SpoolMissingError."""
        return self._spool.open(name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove spooled values; those that are not there do not matter."""
        self._spool.remove(names)

    def names_of(self, round_id: bytes) -> list[str]:
        """Return the names of all spooled values of a round."""
        return [name for name in self._spool.names() if name.startswith(f"{round_id.hex()}.")]

    # --- writing

    def announce(self, round_id: bytes) -> None:
        """Note that a round is about to begin: what is spooled of it is swept when it does not.

        raises  LeaseLostError
        """
        self.note(_BEGINS + round_id.hex(), b"\1")

    def recall(self, round_id: bytes) -> None:
        """Take a note of `announce` back: the round does not begin, and nothing of it is spooled."""
        with self._database.transaction():
            self._leases.fence(self._lease)
            self._database.put({self._place_of(_BEGINS + round_id.hex()): None})

    def begin(self, round_id: bytes, header: bytes, *, ticket: bytes = b"", opened: float) -> None:
        """Keep a new round. Raises ParameterError when there is one of this id."""
        with self._database.connection() as db:
            self._leases.fence(self._lease)
            if db.execute(select(rounds.c.place).where(rounds.c.round_id == round_id)).one_or_none():
                raise ParameterError(f"round_id: {round_id.hex()} was used before")
            db.execute(
                insert(rounds).values(
                    round_id=round_id,
                    place=self.place,
                    ticket=ticket,
                    opened=opened,
                    state=State.OPEN,
                    header=header,
                    record=0,
                )
            )
            self._database.put({self._place_of(_BEGINS + round_id.hex()): None})

    def take(self, round_id: bytes, kept: Sequence[Kept]) -> None:
        """Keep messages that were taken: all of them, or none."""
        with self._database.connection() as db:
            self._fence(round_id)
            last = db.execute(
                select(func.max(messages.c.place_in_round)).where(messages.c.round_id == round_id)
            ).scalar_one()
            first = 0 if last is None else last + 1
            db.execute(
                insert(messages),
                [
                    {
                        "round_id": round_id,
                        "place_in_round": first + number,
                        "sender": one.sender,
                        "kind": one.kind,
                        "digest": one.digest,
                        "frame": one.frame,
                        "spooled": one.spooled,
                    }
                    for number, one in enumerate(kept)
                ],
            )

    def checkpoint(self, round_id: bytes, name: str, record: int = 0) -> list[str]:
        """Let a spooled session stand in place of what was taken before; returns what may be removed."""
        with self._database.connection() as db:
            before = self._fence(round_id)
            spooled = select(messages.c.spooled).where(messages.c.round_id == round_id)
            gone = [
                one for one in (before, *db.execute(spooled).scalars()) if one is not None and one != name
            ]
            db.execute(delete(messages).where(messages.c.round_id == round_id))
            db.execute(
                update(rounds).where(rounds.c.round_id == round_id).values(checkpoint=name, record=record)
            )
        return gone

    def end(self, round_id: bytes, state: State, outcome: bytes, ended: float) -> None:
        """Keep how a round ended; what it was made of is forgotten with it."""
        with self._database.connection() as db:
            self._fence(round_id)
            db.execute(delete(messages).where(messages.c.round_id == round_id))
            db.execute(
                update(rounds)
                .where(rounds.c.round_id == round_id)
                .values(state=state, outcome=outcome, ended=ended, checkpoint=None)
            )

    def retain(self, sums: int) -> None:
        """Remove the spooled sums of all rounds but the newest so many."""
        query = select(rounds.c.round_id).where(
            rounds.c.place == self.place, rounds.c.state == State.COMPLETED
        )
        with self._database.connection() as db:
            old = db.execute(query.order_by(rounds.c.ended.desc()).offset(sums)).scalars()
            there = set(self._spool.names())
            gone = [name for name in (f"{bytes(one).hex()}.total" for one in old) if name in there]
        self._spool.remove(gone)

    def note(self, name: str, value: bytes) -> None:
        """Keep something of the place itself, in place of what was noted under this name.

        raises  LeaseLostError
        """
        with self._database.transaction():
            self._leases.fence(self._lease)
            self._database.put({self._place_of(name): value})

    def noted(self, name: str) -> bytes | None:
        """Return what was noted of the place."""
        return self._database.get(self._place_of(name))

    def _place_of(self, name: str) -> str:
        return f"places/{self.place}/{name}"

    def transaction(self) -> AbstractContextManager[None]:
        """Put several of these into one transaction."""
        return self._database.transaction()

    def sweep(self) -> list[str]:
        """Remove what rounds of this place have in the spool and do not name; returns what was whole of it.

        That is also all of rounds that were announced here, and that no place has. A server that ended
        between spool and database leaves it, and what it was writing. Before a round of the place goes on
        here: what a round that goes on has just spooled is not named yet; rounds of other places may go on.
        """
        with self._database.connection() as db:
            here = rounds.c.place == self.place
            found = {bytes(row.round_id).hex(): row for row in db.execute(select(rounds).where(here))}
            named = {row.checkpoint for row in found.values()}
            named |= set(db.execute(select(messages.c.spooled)).scalars())
        announced = self._database.names(self._place_of(_BEGINS))
        never = self._never_begun(announced)
        gone = [name for one in never for name in self.names_of(one)]
        for name in self._spool.names():
            round_id, _, word = name.partition(".")
            if (row := found.get(round_id)) is None or name in named:
                continue
            if word != _STAYS.get(State(row.state)):
                gone.append(name)
        self._spool.remove(gone)
        # A server that led before and was only stopped commits none of it.
        self._spool.sweep(found.keys() | {one.hex() for one in never})
        with self._database.transaction():
            self._leases.fence(self._lease)
            self._database.put(dict.fromkeys(announced))
        return gone

    def _never_begun(self, announced: Iterable[str]) -> list[bytes]:
        """Return rounds that were announced, and that no place has."""
        ids = [bytes.fromhex(name.rpartition("/")[2]) for name in announced]
        with self._database.connection() as db:
            query = select(rounds.c.round_id).where(rounds.c.round_id.in_(ids))
            begun = {bytes(one) for one in db.execute(query).scalars()}
        return [one for one in ids if one not in begun]

    def _fence(self, round_id: bytes) -> str | None:
        """Return the round's checkpoint. Raises LeaseLostError; ParameterError unless it is here and open."""
        self._leases.fence(self._lease)
        query = select(rounds.c.checkpoint, rounds.c.state, rounds.c.place).where(
            rounds.c.round_id == round_id
        )
        with self._database.connection() as db:
            found = db.execute(query).one_or_none()
        if found is None or (found.state, found.place) != (State.OPEN, self.place):
            raise ParameterError(f"round_id: no open round {round_id.hex()} in {self.place}")
        return None if found.checkpoint is None else str(found.checkpoint)


def _kept(row: Row[Any]) -> KeptRound:
    return KeptRound(
        bytes(row.round_id),
        row.place,
        bytes(row.ticket),
        State(row.state),
        row.opened,
        bytes(row.header),
        row.checkpoint,
        row.record,
        bytes(row.outcome or b""),
    )


def sweep_unknown(database: Database, spool: Spool) -> list[str]:
    """Remove what is spooled of rounds that the database has never had; returns it.

    Only where nobody begins a round meanwhile: it is spooled before the database has it.
    """
    with database.connection() as db:
        known = {bytes(one).hex() for one in db.execute(select(rounds.c.round_id)).scalars()}
    gone = [name for name in spool.names() if name.partition(".")[0] not in known]
    spool.remove(gone)
    return gone


def purge(database: Database, spool: Spool, before: float) -> tuple[int, int]:
    """Forget rounds that ended before a time, with their sums; returns how many rounds, how many sums.

    before  seconds since 1970. Rounds that go on stay, whatever their age, and so do ledgers and audit log

    raises  StoreError
    """
    old = (rounds.c.state != State.OPEN) & (rounds.c.ended < before)
    with database.connection() as db:
        gone = {bytes(one).hex() for one in db.execute(select(rounds.c.round_id).where(old)).scalars()}
        # First: a row that is there still leads to them when this ends in between.
        names = [name for name in spool.names() if name.partition(".")[0] in gone]
        spool.remove(names)
        spool.sweep(gone)
        db.execute(delete(rounds).where(old))
    database.forget_traces()
    return len(gone), len(names)
