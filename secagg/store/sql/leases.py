"""Leases: which of several servers leads a run. Held by heartbeat, fenced by an epoch that only rises."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from secagg.errors import ParameterError
from secagg.store.errors import LeaseLostError
from secagg.store.sql.database import Database
from secagg.store.sql.tables import leases

LEASE_S = 10.0
_LOST = "{}: another server leads here by now"


@dataclass(frozen=True, slots=True)
class Lease:
    """A place that a server leads, under the epoch in which it took it."""

    place: str
    holder: str
    epoch: int


class Leases:
    """Takes, renews and gives back. Times are those of the database's clock, which all servers share.

    holder   names this process, as no other
    lease_s  after which a holder that said nothing has lost its place
    """

    def __init__(self, database: Database, *, holder: str, lease_s: float = LEASE_S) -> None:
        if not holder or not lease_s > 0:
            raise ParameterError("leases: a holder has a name, and a lease lasts longer than 0 s")
        self._database = database
        self._holder = holder
        self.lease_s = lease_s

    def take(self, place: str) -> Lease | None:
        """Return the lease, a new one or again ours; None: somebody else has it."""
        if self._is_held(place):  # told without a lock that others wait for: somebody looks twice a second
            return None
        with self._database.connection() as db:
            now = self._database.now()
            # Locked: its holder renews it beside other transactions.
            row = db.execute(select(leases).where(leases.c.place == place).with_for_update()).one_or_none()
            ours = row is not None and row.holder == self._holder
            held = row is not None and row.holder and row.until > now and not ours
            if held and self._database.shared:  # the file of SQLite is ours alone: that holder is gone
                return None
            epoch = 1 if row is None else row.epoch if ours else row.epoch + 1
            values = {
                "place": place,
                "holder": self._holder,
                "epoch": epoch,
                "until": now + self.lease_s,
            }
            if row is None:
                db.execute(insert(leases).values(values))
            else:
                db.execute(update(leases).where(leases.c.place == place).values(values))
        return Lease(place, self._holder, epoch)

    def _is_held(self, place: str) -> bool:
        """Whether somebody else holds a place, at a look; of SQLite's file we are the only holder."""
        if not self._database.shared:
            return False
        with self._database.beside() as db:
            row = db.execute(select(leases).where(leases.c.place == place)).one_or_none()
            if row is None or row.holder in {"", self._holder}:
                return False
            return bool(row.until > self._database.clock(db))

    def renew(self, lease: Lease) -> None:
        """Hold a lease for another while. Raises LeaseLostError."""
        ours = (leases.c.place == lease.place) & (leases.c.holder == lease.holder)
        with self._database.beside() as db:  # no other transaction holds a heartbeat up
            kept = update(leases).where(ours, leases.c.epoch == lease.epoch)
            if not db.execute(kept.values(until=self._database.clock(db) + self.lease_s)).rowcount:
                raise LeaseLostError(_LOST.format(lease.place))

    def fence(self, lease: Lease) -> None:
        """Raise LeaseLostError unless this transaction is still the holder's: for every write of a round."""
        with self._database.connection() as db:
            found = db.execute(
                select(leases.c.holder, leases.c.epoch).where(leases.c.place == lease.place)
            ).one_or_none()
        if found is None or (found.holder, found.epoch) != (lease.holder, lease.epoch):
            raise LeaseLostError(_LOST.format(lease.place))

    def give_back(self, lease: Lease) -> None:
        """Let the next one in at once; nothing happens when it was lost."""
        ours = (leases.c.place == lease.place) & (leases.c.holder == lease.holder)
        with self._database.connection() as db:
            db.execute(update(leases).where(ours, leases.c.epoch == lease.epoch).values(holder=""))
