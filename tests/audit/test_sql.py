"""The log in a database, on SQLite and PostgreSQL: what is appended, by whom, and what is changed beneath."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from secagg.audit import (
    AuditError,
    BrokenLogError,
    Countersignature,
    EntryKind,
    KeyChange,
    Log,
    RegistryChange,
    Start,
    Withdrawal,
    check_growth,
    check_receipt,
    content_of,
    read_log,
    receipt_in,
)
from secagg.errors import LocalProtocolError, ParameterError
from secagg.store import StoreError
from secagg.store.sql import AuditChangedError, AuditLog, Database
from tests.audit.helpers import (
    CONTENTS,
    NEXT,
    OTHER,
    PARTIES,
    SERVER,
    WITNESSES,
    aborted,
    completed,
    round_id,
)
from tests.postgresql import Cluster
from tests.protocol.network import CounterEntropy


def opened(database: Database, signer: object = SERVER, start_s: float = 1_700_000_000.0) -> AuditLog:
    times = iter(range(100_000))
    return AuditLog(database, signer, lambda: start_s + next(times), entropy=CounterEntropy("log"))  # type: ignore[arg-type]


def exported(log: AuditLog) -> Log:
    file = io.BytesIO()
    log.export(file)
    return read_log(file, server=SERVER.identity)


def filled(database: Database) -> AuditLog:
    log = opened(database)
    for content in CONTENTS:
        log.append(content)
    return log


def change(database: Database, statement: str, **values: object) -> None:
    """Change the database as whoever can write to it might."""
    with database.connection() as db:
        db.execute(text(statement), values)


def test_what_was_appended_is_there_for_the_next_process(url: str) -> None:
    with Database(url) as database:
        receipts = [opened(database).append(content) for content in CONTENTS]
    with Database(url) as database:
        log = opened(database, None)
        assert [content_of(entry) for entry in log.entries(1)] == list(CONTENTS)
        assert log.head() == receipts[-1].signed
        assert log.receipt_of(round_id(1)) == receipts[1]
        assert log.receipt_of(round_id(9)) is None
        assert log.receipt(4) == receipts[3]
        check_receipt(receipts[1], server=SERVER.identity, party=PARTIES[0], round_id=round_id(1))
        shown = exported(log)
        for receipt in receipts:
            receipt_in(receipt, shown)


def test_a_log_begins_by_itself_and_only_once(database: Database) -> None:
    with pytest.raises(StoreError, match="there is no audit log"):
        opened(database, None)
    first = opened(database).head()
    assert first.index == 0
    assert opened(database, SERVER).head() == first
    assert [type(content_of(one)) for one in opened(database).entries()] == [Start]


def test_times_are_milliseconds_and_do_not_fall(database: Database) -> None:
    log = opened(database, start_s=1000.5)
    assert log.head().time == 1_000_500
    earlier = opened(database, start_s=10.0)
    assert earlier.append(completed(1)).entry.time == 1_000_500


def test_an_entry_is_kept_with_the_rest_of_its_transaction_or_not_at_all(database: Database) -> None:
    log = filled(database)
    before = exported(log)
    with pytest.raises(RuntimeError), database.connection():
        log.append(completed(7))
        database.put({"a": b"1"})
        log.append(completed(8))
        raise RuntimeError
    assert exported(log) == before
    with database.connection():
        log.append(completed(7))
        database.put({"a": b"1"})
        assert log.receipt_of(round_id(7)) is not None
        log.append(Withdrawal.of("hearts", PARTIES[0]))
    assert [one.kind for one in log.entries(7)] == [EntryKind.ROUND, EntryKind.WITHDRAWAL]
    check_growth(before.signed, exported(log))


def test_a_transaction_that_failed_does_not_concern_other_logs_of_the_database(database: Database) -> None:
    log, other = filled(database), opened(database)
    with pytest.raises(RuntimeError), database.connection():
        log.append(completed(7))
        other.append(completed(8))
        assert other.head().index == 8
        raise RuntimeError
    assert other.append(completed(9)).entry.index == 7
    assert log.append(completed(10)).entry.index == 8
    exported(log)


def test_an_entry_is_not_appended_within_a_savepoint(database: Database) -> None:
    log = filled(database)
    with database.connection() as db:
        with db.begin_nested(), pytest.raises(LocalProtocolError, match="within a savepoint"):
            log.append(completed(7))
        assert log.append(completed(8)).entry.index == 7
    assert exported(log).signed.index == 7


def test_what_may_not_be_in_a_log_is_refused_and_nothing_kept(database: Database) -> None:
    log = filled(database)
    before = log.head()
    for content, what in (
        (completed(1), r"Round.round_id: .* is entry 2 of the log already"),
        (completed(7, place="hearts"), "Round.place"),
        (RegistryChange.of("hearts", 2, b""), "RegistryChange.version: must be above 2"),
        (Start(1, bytes(32), SERVER.identity), "content: a Start is not appended"),
        (KeyChange(NEXT.identity, bytes(64), bytes(64)), "content: a KeyChange is not appended"),
    ):
        with pytest.raises(ParameterError, match=what):
            log.append(content)
    assert log.head() == before


def test_threads_and_two_servers_append_one_after_the_other(postgresql: Cluster, tmp_path: Path) -> None:
    for name in (postgresql.new_database(), str(tmp_path / "one.db")):
        with Database(name) as first:
            second = Database(name) if first.shared else first
            logs = [opened(first), opened(second)]
            failed: list[BaseException] = []

            def work(log: AuditLog, base: int, failed: list[BaseException] = failed) -> None:
                try:
                    for i in range(12):
                        receipt = log.append(aborted(base + i))
                        check_receipt(receipt, server=SERVER.identity, round_id=round_id(base + i))
                except BaseException as error:  # noqa: BLE001 - told by the test
                    failed.append(error)

            threads = [threading.Thread(target=work, args=(logs[i % 2], 1000 * (i + 1))) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failed == []
            shown = exported(logs[0])
            assert len(shown.entries) == 49
            assert {content_of(one).round_id for one in shown.entries[1:]} == {  # type: ignore[union-attr]
                round_id(1000 * base + i) for base in (1, 2, 3, 4) for i in range(12)
            }
            assert logs[1].head() == shown.signed
            second.close()


# --- keys


def test_another_server_cannot_append(database: Database) -> None:
    filled(database)
    with pytest.raises(ParameterError, match="signer: must be"):
        opened(database, OTHER)
    with pytest.raises(ParameterError, match="signer: is needed"):
        opened(database, None).append(completed(7))


def test_a_key_is_changed_and_the_next_one_signs(database: Database) -> None:
    log, stale = filled(database), opened(database)
    changed = log.change_key(NEXT)
    assert changed.signed.signed_by(SERVER.identity)
    after = log.append(completed(7))
    assert after.signed.signed_by(NEXT.identity)
    with pytest.raises(ParameterError, match="who signs .* by now"):
        stale.append(completed(8))
    with pytest.raises(ParameterError, match="who signs .* by now"):
        opened(database, SERVER)
    again = opened(database, NEXT)
    assert again.receipt(1).signed.signed_by(SERVER.identity)
    assert exported(again).signers == (SERVER.identity, NEXT.identity)


def test_a_key_that_was_not_changed_after_all_still_signs(database: Database) -> None:
    log = filled(database)
    with pytest.raises(RuntimeError), database.connection():
        log.change_key(NEXT)
        log.append(completed(7))
        raise RuntimeError
    assert log.append(completed(7)).signed.signed_by(SERVER.identity)
    exported(log)


# --- witnesses


def test_signatures_of_witnesses_are_kept_and_exported(database: Database) -> None:
    log = filled(database)
    shown = exported(log)
    for key in WITNESSES:
        log.countersign(Countersignature.sign(shown.signed, key))
    log.countersign(Countersignature.sign(shown.signed, WITNESSES[0]))  # again: nothing happens
    log.append(completed(7))
    log.countersign(Countersignature.sign(log.head(), WITNESSES[0]))
    assert {(one.index, one.witness) for one in exported(log).countersignatures} == {
        *((6, key.identity) for key in WITNESSES),
        (7, WITNESSES[0].identity),
    }
    assert [one.index for one in log.countersignatures(6)] == [6, 6]


def test_what_is_no_countersignature_of_this_log_is_not_kept(database: Database) -> None:
    log = filled(database)
    right = Countersignature.sign(log.head(), WITNESSES[0])
    for wrong in (
        replace(right, index=5),
        replace(right, index=99),
        replace(right, index=-1),
        replace(right, witness=WITNESSES[1].identity),
        replace(right, witness=b""),
        replace(right, signature=bytes(64)),
        replace(right, signature=b""),
    ):
        with pytest.raises(ParameterError, match="countersignature: is not that of"):
            log.countersign(wrong)
    assert log.countersignatures() == []


# --- a database that was changed

CHANGES: dict[str, tuple[int, Callable[[Database], None]]] = {
    "an entry": (
        3,
        lambda db: change(db, "UPDATE audit SET entry = :x WHERE number = 3", x=b"\x08\x03\x18\x02"),
    ),
    "the bytes of the newest": (
        6,
        lambda db: change(db, "UPDATE audit SET entry = :x WHERE number = 6", x=b""),
    ),
    "a head": (2, lambda db: change(db, "UPDATE audit SET head = :x WHERE number = 2", x=bytes(32))),
    "the newest head": (6, lambda db: change(db, "UPDATE audit SET head = :x WHERE number = 6", x=bytes(32))),
    "the newest signature": (
        6,
        lambda db: change(db, "UPDATE audit SET signature = :x WHERE number = 6", x=bytes(64)),
    ),
    "a signature's length": (
        6,
        lambda db: change(db, "UPDATE audit SET signature = :x WHERE number = 6", x=b""),
    ),
    "an entry that is gone": (2, lambda db: change(db, "DELETE FROM audit WHERE number = 2")),
    "the first that is gone": (0, lambda db: change(db, "DELETE FROM audit WHERE number = 0")),
    "a number": (4, lambda db: change(db, "UPDATE audit SET number = 40 WHERE number = 4")),
    "two that changed places": (
        3,
        lambda db: change(
            db,
            "UPDATE audit SET entry = other.entry, head = other.head, signature = other.signature "
            "FROM audit AS other WHERE audit.number + other.number = 7 AND audit.number IN (3, 4)",
        ),
    ),
    "an entry before the first": (
        0,
        lambda db: change(
            db, "INSERT INTO audit (number, entry, head, signature) VALUES (-1, :x, :x, :x)", x=b"x"
        ),
    ),
    "a round that is not found any more": (
        2,
        lambda db: change(db, "UPDATE audit SET round_id = NULL WHERE number = 2"),
    ),
    "a round that is another": (
        2,
        lambda db: change(db, "UPDATE audit SET round_id = :x WHERE number = 2", x=bytes(16)),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_database_that_was_changed_is_refused_by_the_entry(database: Database, name: str) -> None:
    filled(database)
    index, does = CHANGES[name]
    does(database)
    for signer in (SERVER, None):
        with pytest.raises(StoreError, match=f"audit entry {index}: .*the database was changed") as caught:
            opened(database, signer)
        assert isinstance(caught.value, AuditChangedError)
        assert (caught.value.index, caught.value.exit_status) == (index, 1)


@pytest.mark.parametrize("number", range(7))
def test_any_changed_byte_of_an_entry_is_found_by_its_place(database: Database, number: int) -> None:
    filled(database)
    with database.connection() as db:
        entry = bytes(
            db.execute(text("SELECT entry FROM audit WHERE number = :n"), {"n": number}).scalar_one()
        )
    for at in {0, 1, len(entry) // 2, len(entry) - 1}:
        wrong = entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :]
        change(database, "UPDATE audit SET entry = :x WHERE number = :n", x=wrong, n=number)
        with pytest.raises(AuditChangedError) as caught:
            opened(database)
        assert caught.value.index == number


def test_a_server_that_runs_notices_that_its_log_was_cut_or_replaced(database: Database) -> None:
    log = filled(database)
    change(database, "DELETE FROM audit WHERE number = 6")
    for use in (lambda: log.append(completed(7)), log.head, lambda: log.receipt_of(round_id(1))):
        with pytest.raises(AuditChangedError, match="audit entry 6: is gone or not what it was"):
            use()
    assert opened(database).append(aborted(70)).entry.index == 6  # one that starts now cannot know
    with pytest.raises(AuditChangedError, match="audit entry 6"):
        log.append(completed(7))


def test_entries_that_another_wrote_without_the_key_are_not_continued(database: Database) -> None:
    log = filled(database)
    with database.connection() as db:
        db.execute(
            text("INSERT INTO audit (number, entry, head, signature) VALUES (7, :x, :x, :x)"),
            {"x": b"x" * 64},
        )
    with pytest.raises(AuditChangedError, match="audit entry 7"):
        log.append(completed(7))


def test_what_is_changed_while_a_server_runs_does_not_leave_it(database: Database) -> None:
    log = filled(database)
    change(database, "UPDATE audit SET signature = :x WHERE number = 2", x=bytes(64))
    with pytest.raises(AuditChangedError, match="audit entry 2: its signature"):
        log.receipt_of(round_id(1))
    change(database, "UPDATE audit SET entry = :x WHERE number = 3", x=b"\x08\x03\x18\x02")
    with pytest.raises(AuditChangedError, match="audit entry 3: is not what it was"):
        log.export(io.BytesIO())
    with pytest.raises(AuditChangedError, match="audit entry 3: is not what it was"):
        list(log.entries(3))
    assert len(list(log.entries(4))) == 3
    change(database, "DELETE FROM audit WHERE number = 4")
    with pytest.raises(AuditChangedError, match="audit entry 4: is missing"):
        list(log.entries(4))
    with pytest.raises(AuditChangedError, match="audit entry 4: is missing"):
        list(log.entries(5))


def test_a_witness_that_was_made_up_in_the_database_is_found_in_the_export(database: Database) -> None:
    log = filled(database)
    change(
        database,
        "INSERT INTO countersignatures (number, witness, signature) VALUES (6, :w, :s)",
        w=WITNESSES[0].identity,
        s=bytes(64),
    )
    with pytest.raises(BrokenLogError, match="countersignature 0: is not that of"):
        exported(log)


# --- the rest


def test_a_long_log_is_checked_in_batches(database: Database) -> None:
    log = opened(database)
    with database.connection():
        log.append(completed(1))
    with database.connection() as db:  # as many as three batches, without checking each time
        chain = log._follow(db)
        for i in range(600):
            chain, _ = log._append(db, chain, aborted(1000 + i))
    again = opened(database)
    assert again.head().index == 601
    assert [one.index for one in again.entries(250, 520)] == list(range(250, 521))
    assert len(exported(again).entries) == 602
    assert list(again.entries(5, 4)) == []
    with pytest.raises(ParameterError, match=r"index: must be in 0\.\.601, is 602"):
        again.receipt(602)


def test_a_log_that_is_changed_while_it_is_exported_is_no_valid_file(database: Database) -> None:
    log = filled(database)
    file = io.BytesIO()
    change(database, "UPDATE audit SET entry = :x WHERE number = 5", x=b"")
    with pytest.raises(AuditChangedError):
        log.export(file)
    with pytest.raises(AuditError):
        read_log(file)


def test_the_repr_says_where_and_how_much(database: Database) -> None:
    assert repr(filled(database)).endswith("entries)")
