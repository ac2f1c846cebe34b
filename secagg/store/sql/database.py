"""One SQL database, SQLite or PostgreSQL, as the service uses it; also a store of named values."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, delete, event, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from secagg.errors import ParameterError
from secagg.store.errors import StoreBusyError, StoreError, StoreFullError, StoreGoneError
from secagg.store.lock import FileLock
from secagg.store.sql.tables import entries
from secagg.store.sqlite import APPLICATION, KINDS, SETTINGS, make_private, primary_code

_MEMORY = ":memory:"
_WANTED = "store: must be a path, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
_ALMOST = re.compile(r"(postgres(ql)?|sqlite)(\+\w+)?:(?!//)")
_FIRST = "0001"  # a SqliteStore's file, which Alembic has not seen yet
_BUSY_S = 5.0
_CONNECT_S = 5
# A connection that fell silent is found: nobody says that it is gone.
_SILENCE = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # ms
}
_STATEMENT_MS = 30_000  # also for a lock: whoever holds one is stuck
_IDLE_MS = 5_000  # in a transaction: a server that is stopped in one must not hold up the others
_ONE_AT_A_TIME = 0x5EC_A667  # PostgreSQL's lock for transactions of all servers


class Database:
    """Keeps what a server must not lose. Its repr shows no password and no value.

    url  a path or sqlite:///PATH: one file for one process at a time (WAL, mode 0600), made when missing;
         sqlite://: in memory, for tests; or postgresql://USER:PASSWORD@HOST/NAME, for several servers

    raises  StoreBusyError: another process has the file; StoreError: not ours, of a newer version, readable
            by others; StoreGoneError: cannot be reached; ParameterError: no such URL

    An older database is migrated when it is opened. Calls are blocking, may come from several threads, and
    raise StoreError of the kind that fits; what raised kept nothing, and a later call may succeed.
    """

    def __init__(self, url: str | Path) -> None:
        self._url = _parsed(url)
        self.shared = self._url.get_backend_name() == "postgresql"
        self.durable = self.shared or self._url.database != _MEMORY
        self.name = self._url.render_as_string(hide_password=True) if self.shared else str(self._path)
        self._lock = RLock()
        self._held: FileLock | None = None
        self._inode: int | None = None
        self._current: Connection | None = None
        self._when_kept: list[Callable[[], None]] = []  # of the transaction
        self._engine: Engine | None = None
        try:
            self._engine = self._postgresql() if self.shared else self._sqlite()
            with self._translated():
                self._migrate(self._engine)
        except BaseException:
            self.close()
            raise

    # --- transactions

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Give a transaction to this thread: all of it is kept, or nothing if it raises. May be nested."""
        with self._lock:
            if self._current is not None:  # of this thread: it has the lock
                with self._translated():
                    yield self._current
                return
            self._when_kept.clear()
            with self._translated(), self._opened().begin() as current:
                if self.shared:
                    current.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
                self._current = current
                try:
                    yield current
                    self._look_after()
                finally:
                    self._current = None
            for call in self._when_kept:
                call()

    @contextmanager
    def beside(self) -> Iterator[Connection]:
        """Give a transaction that waits for no other, if the database can: for what nobody else writes."""
        if not self.shared:
            with self.connection() as current:
                yield current
            return
        with self._translated(), self._opened().begin() as current:
            yield current

    def when_kept(self, call: Callable[[], None]) -> None:
        """Call this once the transaction that this thread is in is kept; never, if it is not."""
        self._when_kept.append(call)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let nobody else in until the end; keep everything that was put, or nothing if it raises."""
        with self.connection():
            yield

    def now(self) -> float:
        """Return the seconds since 1970 by the clock that all servers of this database share."""
        with self.connection() as db:
            return self.clock(db)

    def clock(self, db: Connection) -> float:
        """Return the same, within a transaction."""
        if not self.shared:
            return time.time()
        return float(db.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def forget_traces(self) -> None:
        """Overwrite what was removed, as far as the database lets us.

        SQLite: nothing of it is left in the file or its log. PostgreSQL keeps it in dead rows until VACUUM
        and in its log until that is recycled.
        """
        if self.shared or not self.durable:
            return
        with self._lock, self._translated():
            if self._current is None:  # not within a transaction: it is checkpointed with a later one
                pooled = self._opened().raw_connection()
                try:
                    cursor = pooled.cursor()
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    cursor.close()
                finally:
                    pooled.close()

    # --- named values (secagg.store.Store)

    def put(self, values: Mapping[str, bytes | None]) -> None:
        """Keep all values in one transaction; None removes a name. On disk when it returns."""
        removed = [name for name, value in values.items() if value is None]
        kept = [{"name": name, "value": bytes(value)} for name, value in values.items() if value is not None]
        insert = (postgresql if self.shared else sqlite).insert(entries)
        upsert = insert.on_conflict_do_update(
            index_elements=["name"], set_={"value": insert.excluded["value"]}
        )
        with self.connection() as db:
            if removed:
                db.execute(delete(entries).where(entries.c.name.in_(removed)))
            if kept:
                db.execute(upsert, kept)

    def get(self, name: str) -> bytes | None:
        """Return the value, or None."""
        with self.connection() as db:
            value = db.execute(select(entries.c.value).where(entries.c.name == name)).scalar_one_or_none()
        return None if value is None else bytes(value)

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`, ascending."""
        query = select(entries.c.name).where(
            entries.c.name >= prefix, entries.c.name < prefix + chr(0x10FFFF)
        )
        with self.connection() as db:
            return list(db.execute(query.order_by(entries.c.name)).scalars())

    # --- opening and closing

    @property
    def _path(self) -> Path:
        return Path(self._url.database or "")

    def _sqlite(self) -> Engine:
        if self.durable:
            path = self._path
            self._held = FileLock(path.with_name(path.name + ".lock"))
            make_private(path)
            self._inode = path.stat().st_ino
        engine = create_engine(
            self._url,
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": _BUSY_S, "isolation_level": None},
        )
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    def _prepare(self, connection: sqlite3.Connection, _record: object) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        if not empty and application != APPLICATION:
            raise StoreError(f"{self.name}: is a database of something else")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if self.durable and mode != ("wal",):
            raise StoreError(f"{self.name}: a write-ahead log is not possible here (journal mode {mode[0]})")
        for setting in SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")

    def _postgresql(self) -> Engine:
        settings = (
            f"-c statement_timeout={_STATEMENT_MS} -c lock_timeout={_STATEMENT_MS} "
            f"-c idle_in_transaction_session_timeout={_IDLE_MS} -c synchronous_commit=on"
        )
        engine = create_engine(
            self._url.set(drivername="postgresql+psycopg"),
            pool_size=4,
            pool_pre_ping=True,
            connect_args={"connect_timeout": _CONNECT_S, "options": settings, **_SILENCE},
        )
        event.listen(engine, "do_executemany", _one_by_one)
        return engine

    def _migrate(self, engine: Engine) -> None:
        config = Config()
        config.set_main_option("script_location", "secagg.store.sql:migrations")
        config.set_main_option("path_separator", "os")
        script = ScriptDirectory.from_config(config)
        known = {one.revision for one in script.walk_revisions()}
        with engine.begin() as db:
            if self.shared:
                db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
            there = MigrationContext.configure(db).get_current_revision()
            if there is not None and there not in known:
                raise StoreError(
                    f"{self.name}: has schema {there}, this program knows up to {script.get_current_head()}: "
                    "a newer program made it"
                )
            tables = set(inspect(db).get_table_names())
            if there is None and tables and not (tables == {"entries"} and not self.shared):
                others = ", ".join(sorted(tables))
                raise StoreError(f"{self.name}: is a database of something else ({others})")
            config.attributes["connection"] = db
            if there is None and tables:
                command.stamp(config, _FIRST)
            if there != script.get_current_head():
                command.upgrade(config, "head")

    def close(self) -> None:
        """Give the file to the next process; may be called again."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            if self._held is not None:
                self._held.release()
                self._held = None

    # --- what goes wrong

    def _opened(self) -> Engine:
        if self._engine is None:
            raise StoreError(f"{self.name}: is closed")
        return self._engine

    def _look_after(self) -> None:
        """Refuse to write into a file that nobody finds any more. Raises StoreGoneError."""
        if self._inode is None:
            return
        try:
            same = self._path.stat().st_ino == self._inode
        except OSError:
            same = False
        if not same:
            raise StoreGoneError(f"{self.name}: is gone: removed or replaced while in use; put it back")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the database raises into a StoreError that names it; no value, no password."""
        try:
            yield
        except DBAPIError as error:
            raise self._kind(error)(f"{self.name}: {_words(error)}") from error
        except sqlite3.Error as error:  # without SQLAlchemy around it
            raise _SQLITE.get(primary_code(error), StoreError)(f"{self.name}: {error}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"{self.name}: {type(error).__name__}") from error

    def _kind(self, error: DBAPIError) -> type[StoreError]:
        if isinstance(error.orig, sqlite3.Error):
            return _SQLITE.get(primary_code(error.orig), StoreError)
        state = getattr(error.orig, "sqlstate", None)
        if state is None or error.connection_invalidated:
            return StoreGoneError
        return next((kind for prefix, kind in _POSTGRESQL if state.startswith(prefix)), StoreError)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Database({self.name!r}{', closed' if self._engine is None else ''})"


_SQLITE: dict[int, type[StoreError]] = {**KINDS, sqlite3.SQLITE_CANTOPEN: StoreGoneError}
# By the beginning of SQLSTATE.
_POSTGRESQL: tuple[tuple[str, type[StoreError]], ...] = (
    ("53100", StoreFullError),
    ("55P03", StoreBusyError),  # a lock was not to be had in time
    ("57014", StoreBusyError),  # no answer in time
    ("08", StoreGoneError),
    ("57P", StoreGoneError),  # shut down, starting
    ("25P03", StoreGoneError),  # we were idle in a transaction
)


def _one_by_one(cursor: DBAPICursor, statement: str, rows: Iterable[Any], _context: object) -> bool:
    """Send rows one by one, not as psycopg's pipeline.

    A server that is stopped in a pipeline is not idle in its transaction, for PostgreSQL: no time-out ends
    it, and it holds the lock of all the others.
    """
    for row in rows:
        cursor.execute(statement, row)
    return True


def _words(error: DBAPIError) -> str:
    """Return the database's own line: not the statement, whose values may be secret."""
    return str(error.orig).strip().partition("\n")[0]


def _parsed(url: str | Path) -> URL:
    text_ = str(url)
    if isinstance(url, str) and _ALMOST.match(text_):  # it is not repeated: it may hold a password
        raise ParameterError(_WANTED)
    if "://" not in text_:
        return URL.create("sqlite", database=str(Path(text_).resolve()))
    try:
        parsed = make_url(text_)
    except (ArgumentError, ValueError):
        parsed = None
    backend = "" if parsed is None else parsed.get_backend_name()
    if backend == "sqlite" and parsed is not None and not parsed.database:
        return URL.create("sqlite", database=_MEMORY)
    if parsed is None or backend not in {"sqlite", "postgresql"} or not parsed.database:
        raise ParameterError(_WANTED)
    if backend == "sqlite":
        return URL.create("sqlite", database=str(Path(parsed.database).resolve()))
    return parsed
