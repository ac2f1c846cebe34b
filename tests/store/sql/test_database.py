"""The database as a store of named values, its migrations, and what happens when it fails."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from secagg import ParameterError
from secagg.store import (
    ParticipationLedger,
    SqliteStore,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreGoneError,
)
from secagg.store.sql import Database, Leases
from secagg.store.sql.tables import metadata
from tests.postgresql import Cluster


def test_what_was_put_is_there_for_the_next_process(url: str) -> None:
    with Database(url) as database:
        database.put({"a/1": b"x", "a/2": b"", "b": b"\x00\xff", "a/é": b"y", "A/1": b"z"})
        database.put({"a/1": b"new", "b": None})
    with Database(url) as database:
        assert [database.get(name) for name in ("a/1", "a/2", "b", "A/1")] == [b"new", b"", None, b"z"]
        assert database.names("a/") == ["a/1", "a/2", "a/é"]
        assert database.names("") == ["A/1", "a/1", "a/2", "a/é"]


def test_a_transaction_keeps_everything_or_nothing(database: Database) -> None:
    database.put({"a": b"1"})
    with pytest.raises(RuntimeError), database.transaction():
        database.put({"a": b"2", "b": b"2"})
        with database.transaction():
            database.put({"c": b"3"})
        assert database.get("c") == b"3"
        raise RuntimeError
    assert [database.get(name) for name in "abc"] == [b"1", None, None]


def test_threads_take_turns(database: Database) -> None:
    database.put({"count": b"0"})

    def rise() -> None:
        for _ in range(20):
            with database.transaction():
                database.put({"count": b"%d" % (int(database.get("count") or b"0") + 1)})

    threads = [threading.Thread(target=rise) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.get("count") == b"80"


def test_the_tables_are_those_that_the_migrations_make(database: Database) -> None:
    with database.connection() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_a_file_of_the_version_before_is_migrated_with_its_data(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    with SqliteStore(path) as before:
        ledger = ParticipationLedger(before)
        ledger.signed(b"s" * 32, b"r" * 16, [b"a" * 32, b"b" * 32])
        before.put({"accepted/1": b"\1"})
    with Database(path) as database:
        (found,) = ParticipationLedger(database).participations(b"a" * 32)
        assert found.round_id == b"r" * 16
        assert database.get("accepted/1") == b"\1"


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_a_database_of_a_version_before_is_migrated_with_its_data(revision: str, url: str) -> None:
    with monkeypatched_head(revision), Database(url) as database, database.connection() as db:
        database.put({"accepted/1": b"\1"})
        if revision > "0001":  # a lease says where its holder is
            db.exec_driver_sql(
                "INSERT INTO leases (place, holder, address, epoch, until) "
                "VALUES ('icu/first', '', 'a:1', 7, 0)"
            )
    with Database(url) as database:
        assert database.get("accepted/1") == b"\1"
        lease = Leases(database, holder="me").take("icu/first")
        assert lease is not None
        assert lease.epoch == (8 if revision > "0001" else 1)
        with database.connection() as db:
            assert compare_metadata(MigrationContext.configure(db), metadata) == []


@contextmanager
def monkeypatched_head(revision: str) -> Iterator[None]:
    """Let databases be made by a program of an earlier version."""
    original = command.upgrade

    def upgrade(config: Any, _head: str) -> None:
        original(config, revision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "upgrade", upgrade)
        yield


def test_several_rows_are_sent_without_a_pipeline(
    postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is stopped in a pipeline holds the lock of all others, and no time ends that."""
    import psycopg

    def pipelined(*_: object, **__: object) -> None:
        pytest.fail("executemany is a pipeline")

    monkeypatch.setattr(psycopg.Cursor, "executemany", pipelined)
    with Database(postgresql.new_database()) as database:
        database.put({f"n/{i}": b"%d" % i for i in range(3000)})
        database.put({f"n/{i}": b"new" for i in range(1000)})
        assert database.get("n/999") == b"new"
        assert database.get("n/2999") == b"2999"


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    with Database(url) as database, database.connection() as db:
        db.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="has schema 9999, this program knows up to"):
        Database(url)


def test_a_database_of_something_else_is_refused_and_not_changed(
    url: str, request: pytest.FixtureRequest
) -> None:
    if "://" in url:
        cluster: Cluster = request.getfixturevalue("postgresql")
        cluster.execute("CREATE TABLE patients (name text)", url.rpartition("/")[2])
    else:
        with sqlite3.connect(url) as db:
            db.execute("CREATE TABLE patients (name text)")
        db.close()
        Path(url).chmod(0o600)
    with pytest.raises(StoreError, match="something else"):
        Database(url)


def test_a_second_server_on_one_file_is_refused_by_name(tmp_path: Path) -> None:
    with Database(tmp_path / "server.db"), pytest.raises(StoreBusyError, match=r"server\.db: is in use"):
        Database(tmp_path / "server.db")


@pytest.mark.parametrize(
    "url", ["mysql://h/x", "postgresql://", "postgresql://host", "nonsense://", "sqlite:/x://"]
)
def test_what_is_no_url_of_ours_is_refused(url: str) -> None:
    with pytest.raises(ParameterError, match="store: must be"):
        Database(url)


def test_a_password_is_in_no_error_and_no_repr(postgresql: Cluster) -> None:
    url = postgresql.new_database()
    with Database(url) as database:
        assert "not-a-secret" not in repr(database) + database.name
    with pytest.raises(StoreGoneError) as caught:
        Database(url.replace("not-a-secret", "quite-a-secret"))
    assert "quite-a-secret" not in str(caught.value)
    with pytest.raises(StoreGoneError) as caught:
        Database(f"postgresql://secagg:quite-a-secret@127.0.0.1:1/{url.rpartition('/')[2]}")
    assert "quite-a-secret" not in str(caught.value)


def test_a_file_that_vanishes_takes_nothing_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    with Database(path) as database:
        database.put({"a": b"1"})
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(StoreGoneError, match="put it back"):
            database.put({"a": b"2"})
        path.touch(0o600)  # another one is no better
        with pytest.raises(StoreGoneError, match="put it back"):
            database.put({"a": b"3"})
        (tmp_path / "elsewhere").rename(path)
        assert database.get("a") == b"1"
        database.put({"a": b"4"})
        assert database.get("a") == b"4"


def test_a_full_disk_is_told_and_heals(tmp_path: Path) -> None:
    with Database(tmp_path / "server.db") as database:
        database.put({"a": b"1"})
        with database.connection() as db:
            pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        with database.connection() as db:
            db.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFullError, match="full"):
            database.put({"b": bytes(1 << 20)})
        assert database.get("b") is None
        with database.connection() as db:
            db.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1000}")
        database.put({"b": bytes(1 << 20)})


def test_a_read_only_database_is_told_and_heals(tmp_path: Path) -> None:
    with Database(tmp_path / "server.db") as database:
        with database.connection() as db:
            db.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match="readonly"):
            database.put({"b": b"1"})
        database._opened().raw_connection().cursor().execute("PRAGMA query_only = OFF")
        database.put({"b": b"1"})


def test_a_file_that_something_else_locks_is_busy_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secagg.store.sql.database._BUSY_S", 0.1)
    with Database(tmp_path / "server.db") as database:
        other = sqlite3.connect(tmp_path / "server.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="locked"):
            database.put({"a": b"1"})
        other.execute("ROLLBACK")
        other.close()
        database.put({"a": b"1"})


def test_a_statement_that_takes_too_long_is_told_from_one_that_is_wrong(
    postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting may mend the first."""
    monkeypatch.setattr("secagg.store.sql.database._STATEMENT_MS", 100)
    with Database(postgresql.new_database()) as database:
        with pytest.raises(StoreBusyError, match="statement timeout"), database.connection() as db:
            db.exec_driver_sql("SELECT pg_sleep(20)")
        with pytest.raises(StoreError) as caught, database.connection() as db:
            db.exec_driver_sql("SELECT 1 / 0")
        assert type(caught.value) is StoreError
        database.put({"a": b"1"})


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_goes_away_is_told_and_what_was_kept_is_there_when_it_is_back(
    postgresql: Cluster, how: signal.Signals
) -> None:
    with Database(postgresql.new_database()) as database:
        database.put({"a": b"1"})
        postgresql.stop(how)
        try:
            with pytest.raises(StoreGoneError):
                database.put({"a": b"2"})
        finally:
            postgresql.start()
        assert database.get("a") == b"1"
        database.put({"a": b"3"})


def test_a_session_that_the_server_ends_is_told_and_the_next_one_works(postgresql: Cluster) -> None:
    url = postgresql.new_database()
    name = url.rpartition("/")[2]
    with Database(url) as database:
        with pytest.raises(StoreError), database.transaction():
            database.put({"a": b"1"})
            postgresql.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            database.put({"b": b"1"})
        assert database.names("") == []
        database.put({"a": b"2"})


def test_what_was_removed_is_not_left_in_the_files(tmp_path: Path) -> None:
    with Database(tmp_path / "server.db") as database:
        secret = os.urandom(4000)
        database.put({"share": secret, "other": b"x"})
        database.put({"share": None})
        database.forget_traces()
        for path in tmp_path.iterdir():
            assert secret[:32] not in path.read_bytes()
            assert secret[-32:] not in path.read_bytes()
