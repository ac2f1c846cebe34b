"""The journal of rounds, its leases and its spool, on both kinds of database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secagg import ParameterError
from secagg.cli import app
from secagg.store import LeaseLostError, StoreDamagedError, StoreError
from secagg.store.sql import (
    Database,
    DatabaseSpool,
    FolderSpool,
    Journal,
    Kept,
    Leases,
    MemorySpool,
    Spool,
    SpoolError,
    SpoolMissingError,
    State,
    purge,
    spool_of,
    sweep_unknown,
)
from tests.postgresql import Cluster

PLACE, ROUND = "icu/first", bytes(range(16))
NAME = ROUND.hex()


@pytest.fixture(params=["folder", "database", "memory"])
def spool(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Spool:
    if request.param == "folder":
        return FolderSpool(tmp_path / "spool")
    return DatabaseSpool(database) if request.param == "database" else MemorySpool()


def journal_of(database: Database, spool: Spool, holder: str = "one") -> Journal:
    leases = Leases(database, holder=holder)
    lease = leases.take(PLACE)
    assert lease is not None
    return Journal(database, spool, leases, lease)


def kept(number: int, spooled: str | None = None) -> Kept:
    return Kept(bytes([number]) * 32, 1, bytes(32), None if spooled else b"frame %d" % number, spooled)


def test_a_spool_keeps_what_was_committed_and_nothing_else(spool: Spool) -> None:
    one = spool.create(f"{NAME}.upload-1")
    one.write(b"abc")
    assert spool.names() == []
    one.write(bytes(3 << 20))
    one.commit()
    assert spool.names() == [f"{NAME}.upload-1"]
    assert bytes(spool.open(f"{NAME}.upload-1")) == b"abc" + bytes(3 << 20)
    two = spool.create(f"{NAME}.upload-1")
    two.write(b"newer")
    two.abandon()
    assert bytes(spool.open(f"{NAME}.upload-1"))[:3] == b"abc"
    three = spool.create(f"{NAME}.upload-1")
    three.write(b"newest")
    three.commit()
    assert bytes(spool.open(f"{NAME}.upload-1")) == b"newest"
    spool.remove([f"{NAME}.upload-1", f"{NAME}.none"])
    with pytest.raises(SpoolMissingError):
        spool.open(f"{NAME}.upload-1")


@pytest.mark.parametrize(
    "name", ["", "x", "../../etc/passwd", f"{NAME}.", f"{NAME}./x", f"{NAME}.A", "a" * 200]
)
def test_a_name_is_a_round_and_a_word(spool: Spool, name: str) -> None:
    with pytest.raises(ParameterError, match="a name is ROUND.WORD"):
        spool.create(name)
    with pytest.raises(ParameterError, match="a name is ROUND.WORD"):
        spool.open(name)


def test_a_folder_that_is_gone_is_no_missing_file(tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(StoreError) as caught:
        spool.open(f"{NAME}.upload-1")
    assert not isinstance(caught.value, SpoolMissingError)


def test_a_round_is_its_checkpoint_and_what_was_taken_since(database: Database, spool: Spool) -> None:
    journal = journal_of(database, spool)
    journal.begin(ROUND, b"header", ticket=b"t", opened=1.0)
    journal.keep(f"{NAME}.checkpoint1", b"session")
    assert journal.checkpoint(ROUND, f"{NAME}.checkpoint1") == []
    journal.keep(f"{NAME}.upload-2", b"vector")
    journal.take(ROUND, [kept(1), kept(2, f"{NAME}.upload-2")])
    journal.take(ROUND, [kept(3)])
    assert [one.sender[0] for one in journal.since_checkpoint(ROUND)] == [1, 2, 3]
    (found,) = journal.open_rounds()
    assert (found.header, found.ticket, found.checkpoint) == (b"header", b"t", f"{NAME}.checkpoint1")
    journal.keep(f"{NAME}.checkpoint2", b"session")
    gone = journal.checkpoint(ROUND, f"{NAME}.checkpoint2", 77)
    assert sorted(gone) == [f"{NAME}.checkpoint1", f"{NAME}.upload-2"]
    assert journal.since_checkpoint(ROUND) == []
    journal.end(ROUND, State.COMPLETED, b"outcome", 2.0)
    assert journal.open_rounds() == []
    ended = journal.by_ticket(b"t")
    assert ended is not None
    assert (ended.state, ended.outcome, ended.checkpoint) == (State.COMPLETED, b"outcome", None)


def test_nothing_is_accepted_twice(database: Database) -> None:
    journal = journal_of(database, MemorySpool())
    journal.begin(ROUND, b"", opened=1.0)
    journal.take(ROUND, [kept(1)])
    with pytest.raises(StoreError):
        journal.take(ROUND, [kept(2), kept(1)])
    assert [one.sender[0] for one in journal.since_checkpoint(ROUND)] == [1]
    with pytest.raises(ParameterError, match="was used before"):
        journal.begin(ROUND, b"", opened=1.0)
    journal.end(ROUND, State.ABORTED, b"", 2.0)
    with pytest.raises(ParameterError, match="no open round"):
        journal.take(ROUND, [kept(3)])


def test_what_nothing_names_is_swept(database: Database, spool: Spool) -> None:
    journal = journal_of(database, spool)
    journal.begin(ROUND, b"", opened=1.0)
    for word in ("checkpoint1-1", "checkpoint1-2", "upload1-1", "upload1-2", "payload", "total"):
        journal.keep(f"{NAME}.{word}", b"x")
    journal.checkpoint(ROUND, f"{NAME}.checkpoint1-2")
    journal.take(ROUND, [kept(1, f"{NAME}.upload1-2")])
    swept = journal.sweep()  # the sum of a round that did not come to its end is made again
    assert sorted(swept) == [f"{NAME}.{word}" for word in ("checkpoint1-1", "total", "upload1-1")]
    assert sorted(spool.names()) == [f"{NAME}.{word}" for word in ("checkpoint1-2", "payload", "upload1-2")]
    journal.keep(f"{NAME}.total", b"x")
    journal.end(ROUND, State.COMPLETED, b"", 2.0)
    journal.sweep()
    assert spool.names() == [f"{NAME}.total"]


def test_what_was_announced_and_never_began_is_swept(database: Database, spool: Spool) -> None:
    """Its server died between spool and database; one of another run may be about to begin there."""
    leases = Leases(database, holder="one")
    here, there = leases.take(PLACE), leases.take("ward/second")
    assert here is not None
    assert there is not None
    journal, other = Journal(database, spool, leases, here), Journal(database, spool, leases, there)
    never, began, elsewhere = (bytes([i]) * 16 for i in range(1, 4))
    for one, where in ((never, journal), (began, journal), (elsewhere, other)):
        where.announce(one)
        where.keep(f"{one.hex()}.payload", b"x")
    journal.begin(began, b"", opened=1.0)
    journal.announce(began)  # once more, which its server found out too late
    assert journal.sweep() == [f"{never.hex()}.payload"]
    assert sorted(spool.names()) == [f"{began.hex()}.payload", f"{elsewhere.hex()}.payload"]
    assert journal.sweep() == []
    other.begin(elsewhere, b"", opened=1.0)
    journal.announce(elsewhere)
    journal.recall(elsewhere)
    journal.announce(elsewhere)
    assert journal.sweep() == []
    assert sorted(spool.names()) == [f"{began.hex()}.payload", f"{elsewhere.hex()}.payload"]


def test_what_a_round_elsewhere_has_just_spooled_is_left_alone(database: Database, spool: Spool) -> None:
    """Another run goes on while this one is opened: its uploads and checkpoints are not named yet."""
    leases = Leases(database, holder="one")
    here, there = leases.take(PLACE), leases.take("ward/second")
    assert here is not None
    assert there is not None
    other = Journal(database, spool, leases, there)
    other.begin(ROUND, b"", opened=1.0)
    beginning = bytes(16).hex()  # and one that the database is about to have
    names = sorted([f"{NAME}.upload1-1", f"{NAME}.checkpoint1-1", f"{beginning}.payload"])
    for name in names:
        other.keep(name, b"x")
    assert Journal(database, spool, leases, here).sweep() == []
    assert sorted(spool.names()) == names
    assert sweep_unknown(database, spool) == [f"{beginning}.payload"]  # where nobody can be beginning one


def test_files_that_were_never_finished_are_swept_once_they_do_not_grow(tmp_path: Path) -> None:
    spool = FolderSpool(tmp_path / "spool")
    for number in range(2):
        spool.create(f"{NAME}.upload1-{number}").write(b"x")
    one, _ = (tmp_path / "spool").iterdir()
    os.utime(one, (0, 0))
    assert spool.sweep_stale(3600.0) == 1
    assert not one.exists()
    assert spool.sweep_stale() == 1


def test_an_upload_that_was_never_finished_goes_when_its_round_is_opened_again(
    database: Database, tmp_path: Path
) -> None:
    """It is a masked update: it must not outlive its round, whoever shares the folder."""
    spool = FolderSpool(tmp_path / "spool")
    journal = journal_of(database, spool)
    journal.begin(ROUND, b"", opened=1.0)
    elsewhere = f"{bytes(16).hex()}.upload1-1"
    stopped = spool.create(f"{NAME}.upload1-1")  # by a server that led before, and still runs
    for writer in (stopped, spool.create(elsewhere)):
        writer.write(b"x")
    journal.sweep()
    assert [path.name.startswith(elsewhere) for path in (tmp_path / "spool").iterdir()] == [True]
    with pytest.raises(StoreError):
        stopped.commit()
    assert spool.names() == []


def test_what_is_abandoned_after_it_was_committed_is_gone(spool: Spool) -> None:
    """A stream that is cancelled while its upload goes to disk has nobody to tell the name."""
    writer = spool.create(f"{NAME}.upload1-1")
    writer.write(b"x")
    writer.commit()
    writer.abandon()
    assert spool.names() == []
    with pytest.raises(SpoolMissingError):
        spool.open(f"{NAME}.upload1-1")


def test_the_newest_sums_stay(database: Database, spool: Spool) -> None:
    journal = journal_of(database, spool)
    for number in range(5):
        round_id = bytes([number]) * 16
        journal.begin(round_id, b"", opened=float(number))
        journal.keep(f"{round_id.hex()}.total", b"sum")
        journal.end(round_id, State.COMPLETED, b"", float(number))
    journal.retain(2)
    assert spool.names() == [f"{(bytes([number]) * 16).hex()}.total" for number in (3, 4)]


def test_old_rounds_are_purged_and_those_that_go_on_stay(database: Database, spool: Spool) -> None:
    journal = journal_of(database, spool)
    for number in range(4):
        round_id = bytes([number]) * 16
        journal.begin(round_id, b"", opened=0.0)
        journal.keep(f"{round_id.hex()}.total", b"sum")
        if number < 3:
            journal.end(round_id, State.COMPLETED, b"", float(number))
    assert purge(database, spool, 2.0) == (2, 2)
    assert spool.names() == [f"{(bytes([number]) * 16).hex()}.total" for number in (2, 3)]
    assert journal.find(bytes([1]) * 16) is None
    assert journal.find(bytes([2]) * 16) is not None
    assert [one.round_id[0] for one in journal.open_rounds()] == [3]


def test_the_command_purges_a_store(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    with Database(path) as database:
        journal = journal_of(database, spool_of(database))
        journal.begin(ROUND, b"", opened=0.0)
        journal.keep(f"{NAME}.total", b"sum")
        journal.end(ROUND, State.COMPLETED, b"", 1.0)
    done = CliRunner().invoke(app, ["purge", "--store", str(path), "--json"])
    assert (done.exit_code, done.output) == (0, '{"rounds": 1, "sums": 1}\n')
    done = CliRunner().invoke(app, ["purge", "--store", str(path)])
    assert "forgot 0 rounds and 0 sums" in done.output
    assert not list((tmp_path / "server.db.spool").iterdir())
    with pytest.raises(ParameterError, match="there is no database"):
        CliRunner().invoke(app, ["purge", "--store", "nowhere.db"], catch_exceptions=False)


def test_a_lease_has_one_holder_and_who_lost_it_writes_nothing(
    postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.new_database()
    with Database(url) as first, Database(url) as second:
        one = Leases(first, holder="one", lease_s=0.3)
        two = Leases(second, holder="two", lease_s=30)
        lease = one.take(PLACE)
        assert lease is not None
        journal = Journal(first, MemorySpool(), one, lease)
        journal.begin(ROUND, b"", opened=1.0)
        assert two.take(PLACE) is None
        with monkeypatch.context() as patch:  # it was free at a look, and taken since
            patch.setattr(two, "_is_held", {}.get)
            assert two.take(PLACE) is None
        one.renew(lease)
        assert one.take(PLACE) == lease
        while (taken := two.take(PLACE)) is None:  # once it has run out
            pass
        assert taken.epoch == lease.epoch + 1
        with pytest.raises(LeaseLostError, match="another server leads here"):
            one.renew(lease)
        for write in (
            lambda: journal.begin(bytes(16), b"", opened=1.0),
            lambda: journal.take(ROUND, [kept(1)]),
            lambda: journal.checkpoint(ROUND, f"{NAME}.checkpoint1"),
            lambda: journal.end(ROUND, State.ABORTED, b"", 1.0),
        ):
            with pytest.raises(LeaseLostError):
                write()
        one.give_back(lease)  # it is not ours to give
        assert one.take(PLACE) is None
        two.give_back(taken)
        assert one.take(PLACE) is not None


def test_the_holder_of_a_file_that_was_killed_is_gone(tmp_path: Path) -> None:
    """Whoever opens a file of SQLite has it alone: nobody waits for a lease in it."""
    with Database(tmp_path / "server.db") as database:
        assert Leases(database, holder="one", lease_s=1000).take(PLACE) is not None
    with Database(tmp_path / "server.db") as database:
        lease = Leases(database, holder="two", lease_s=1000).take(PLACE)
        assert lease is not None
        assert lease.epoch == 2


def test_a_folder_that_was_taken_away_is_waited_for(tmp_path: Path) -> None:
    """What is in it may come back: nothing is given up for it."""
    folder = tmp_path / "spool"
    spool = FolderSpool(folder)
    with pytest.raises(SpoolMissingError):
        spool.open(f"{NAME}.total")
    folder.rename(tmp_path / "elsewhere")
    folder.mkdir(mode=0o700)  # where it was mounted
    with pytest.raises(SpoolError, match="another folder") as caught:
        spool.open(f"{NAME}.total")
    assert not isinstance(caught.value, StoreDamagedError)


def test_in_memory_the_spool_is_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Database("sqlite://") as database:
        assert isinstance(spool_of(database), MemorySpool)
    assert not list(tmp_path.iterdir())


def test_a_heartbeat_waits_for_no_transaction(postgresql: Cluster) -> None:
    """A large value that another server writes must not cost this one its lease."""
    url = postgresql.new_database()
    with Database(url) as one, Database(url) as two:
        leases = Leases(one, holder="one", lease_s=30.0)
        lease = leases.take(PLACE)
        assert lease is not None
        with two.transaction():
            leases.renew(lease)
        other = Leases(two, holder="two")
        assert other.take(PLACE) is None
