"""The commands `secagg audit`: on files and on databases, for people and for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

import secagg.cli
from secagg.audit import Log, dump_receipt, read_log
from secagg.primitives.signatures import IdentityKey
from secagg.service import write_identity
from secagg.store.sql import AuditLog, Database
from tests.audit.helpers import (
    CONTENTS,
    NEXT,
    OTHER,
    PARTIES,
    SERVER,
    WITNESSES,
    Writer,
    completed,
    round_id,
    written,
)

COMMANDS = ("list", "show", "verify", "export", "countersign", "receipt")


def invoke(*arguments: object) -> str:
    """A command that succeeds."""
    done = CliRunner().invoke(
        secagg.cli.app, ["audit", *map(str, arguments)], env={"COLUMNS": "200"}, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def invoke_json(*arguments: object) -> Any:
    return json.loads(invoke(*arguments, "--json"))


@dataclass
class Outcome:
    status: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run the program as its script does: errors become one line."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["secagg", "audit", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            secagg.cli.main()
        assert isinstance(caught.value.code, int)
        return Outcome(caught.value.code, *capfd.readouterr())

    return run


def refused(done: Outcome, status: int, message: str) -> None:
    assert done.status == status, done
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("secagg: ")
    assert message in line


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "hearts.log"
    writer = written()
    writer.witness(WITNESSES[0])
    path.write_bytes(writer.file())
    return path


@pytest.fixture
def store(url: str) -> str:
    with Database(url) as database:
        kept = AuditLog(database, SERVER, lambda: 1_700_000_000.0)
        for content in CONTENTS:
            kept.append(content)
    return url


def read(path: Path) -> Log:
    return read_log(io.BytesIO(path.read_bytes()))


def test_every_command_has_help_with_an_example() -> None:
    assert all(f" {name} " in invoke("--help") for name in COMMANDS)
    for name in COMMANDS:
        assert f"Example: secagg audit {name}" in invoke(name, "--help")


def test_list_has_a_line_for_each_entry(log: Path) -> None:
    lines = invoke("list", log).splitlines()
    assert len(lines) == 7
    assert lines[2].split() == [
        *("2", "2023-11-14T22:13:22.000+00:00", "round", "hearts/run-1", round_id(1).hex()),
        *("completed,", "4", "survivors"),
    ]
    assert lines[3].endswith("aborted: too few survivors")
    assert lines[4].endswith(f"hearts without {PARTIES[4].hex()}")
    assert [line.split()[2] for line in lines] == [
        *("start", "registry", "round", "round", "withdrawal", "registry", "round")
    ]
    assert invoke("list", log, "--first", 2, "--last", 3).splitlines() == lines[2:4]
    assert invoke("list", log, "--first", 50) == ""


def test_programs_get_the_same_as_json(log: Path) -> None:
    entries = invoke_json("list", log)
    assert [one["index"] for one in entries] == list(range(7))
    assert entries[2] == {
        "index": 2,
        "time": "2023-11-14T22:13:22.000+00:00",
        "kind": "round",
        "place": "hearts/run-1",
        "round_id": round_id(1).hex(),
        "outcome": "completed",
        "reason": None,
        "transcript": "02" * 32,
        "total_digest": "01" * 32,
        "survivors": [one.hex() for one in sorted(PARTIES[:4])],
    }
    assert invoke_json("show", 3, log)["reason"] == "too few survivors"


def test_show_has_every_field(log: Path) -> None:
    shown = invoke("show", 2, log)
    assert "outcome: completed" in shown
    assert "survivors: 4" in shown
    for party in PARTIES[:4]:
        assert f"  {party.hex()}" in shown
    assert "reason" not in shown


def test_a_change_of_key_is_listed(tmp_path: Path) -> None:
    writer = written(CONTENTS[:1])
    writer.change_key(NEXT)
    path = tmp_path / "log"
    path.write_bytes(writer.file())
    assert invoke("list", path).splitlines()[2].endswith(f"signed by {NEXT.identity.hex()} from now on")


def test_a_log_that_is_in_order_is_said_to_be(log: Path) -> None:
    shown = invoke("verify", log, "--server", SERVER.identity.hex(), "--witness", WITNESSES[0].identity.hex())
    assert "the log is in order" in shown
    assert f"countersigned up to entry 6 by {WITNESSES[0].identity.hex()}" in shown
    assert "believed" not in shown
    assert "believed: --server says whose" in invoke("verify", log)
    fields = invoke_json("verify", log)
    assert (fields["ok"], fields["entries"], fields["rounds"], fields["findings"]) == (True, 7, 3, [])
    assert fields["head"]["index"] == 6


def test_verify_says_all_that_is_wrong(log: Path, call: Call) -> None:
    data = bytearray(log.read_bytes())
    data[200] ^= 1
    log.write_bytes(data)
    done = call("verify", log, "--server", OTHER.identity.hex())
    assert done.status == 1
    assert done.err == ""
    told = [line for line in done.out.splitlines() if line.startswith("wrong: ")]
    assert len(told) >= 2
    assert done.out.splitlines()[-1] == "the log is wrong"
    done = call("verify", log, "--json")
    assert done.status == 1
    assert json.loads(done.out)["ok"] is False
    for command in (("list", log), ("show", 1, log)):
        refused(call(*command), 1, "log: the entries are not those that were signed")


def test_verify_compares_with_receipts_and_older_logs(tmp_path: Path, call: Call) -> None:
    honest = written(CONTENTS[:3])
    older = tmp_path / "older.log"
    older.write_bytes(honest.file())
    lying = honest.copy()
    honest.append(completed(7))
    lying.append(completed(8))
    paths = {name: tmp_path / name for name in ("honest", "lying", "receipt", "old")}
    paths["honest"].write_bytes(honest.file())
    paths["lying"].write_bytes(lying.file())
    paths["receipt"].write_bytes(dump_receipt(honest.receipts[-1]))
    paths["old"].write_bytes(dump_receipt(honest.receipts[1]))
    compared = ("--before", older, "--receipt", paths["receipt"], "--receipt", paths["old"])
    assert "in order" in invoke("verify", paths["honest"], *compared)
    done = call("verify", paths["lying"], *compared, "--before", paths["honest"], "--json")
    assert done.status == 1
    fields = json.loads(done.out)
    assert len(fields["findings"]) == 2
    assert all("entry 4, or one before, is not what it was" in what for what in fields["findings"])
    assert fields["forks"][0]["seen"]["head"] == honest.receipts[-1].signed.head.hex()
    assert fields["forks"][0]["shown"]["head"] == lying.receipts[-1].signed.head.hex()
    done = call("verify", older, "--before", paths["honest"])
    assert done.status == 1
    assert "older copy" in done.out


def test_commands_look_into_a_database_as_into_a_file(store: str, tmp_path: Path) -> None:
    out = tmp_path / "hearts.log"
    assert "index: 6" in invoke("export", out, "--store", store)
    assert invoke("list", "--store", store) == invoke("list", out)
    assert invoke("show", 4, "--store", store) == invoke("show", 4, out)
    assert invoke_json("verify", "--store", store) == invoke_json("verify", out)
    assert len(read(out).entries) == 7


def test_a_database_that_was_changed_is_one_line_and_status_1(store: str, tmp_path: Path, call: Call) -> None:
    with Database(store) as database, database.connection() as db:
        db.execute(text("DELETE FROM audit WHERE number = 2"))
    for command in (("list",), ("verify",), ("show", 1), ("export", tmp_path / "out")):
        refused(call(*command, "--store", store), 1, "audit entry 2: is missing")
    assert not (tmp_path / "out").exists()


def test_a_receipt_is_written_and_checked_offline(store: str, tmp_path: Path, call: Call) -> None:
    path, out = tmp_path / "round-1.receipt", tmp_path / "hearts.log"
    assert "outcome: completed" in invoke("receipt", path, "--store", store, "--round", round_id(1).hex())
    server = ("--server", SERVER.identity.hex())
    demands = (*server, "--round", round_id(1).hex(), "--party", PARTIES[0].hex())
    assert invoke_json("receipt", path, *demands)["index"] == 2
    invoke("export", out, "--store", store)
    assert "index: 2" in invoke("receipt", path, *demands, "--log", out)
    refused(call("receipt", path, *server, "--party", PARTIES[4].hex()), 1, "is not among the survivors")
    refused(call("receipt", path, *server, "--round", "00" * 16), 1, "is not of the round")
    refused(call("receipt", path, "--server", OTHER.identity.hex()), 1, "is not signed by")
    refused(call("receipt", path, "--store", store, "--round", round_id(1).hex()), 2, "File exists")
    refused(call("receipt", tmp_path / "new", "--store", store, "--round", "00" * 16), 2, "is not in the log")
    assert not (tmp_path / "new").exists()
    path.write_bytes(path.read_bytes()[:-1])
    refused(call("receipt", path, *server), 1, "receipt: ")


def witness_key(tmp_path: Path) -> tuple[Path, IdentityKey]:
    path = tmp_path / "witness.key"
    return path, write_identity(path)


def test_a_witness_countersigns_and_the_server_keeps_it(store: str, tmp_path: Path) -> None:
    key, witness = witness_key(tmp_path)
    out, signature = tmp_path / "hearts.log", tmp_path / "head.sig"
    invoke("export", out, "--store", store)
    shown = invoke("countersign", out, "--key", key, "--out", signature, "--server", SERVER.identity.hex())
    assert f"witness: {witness.identity.hex()}" in shown
    assert invoke_json("countersign", signature, "--store", store) == {
        "witness": witness.identity.hex(),
        "index": 6,
    }
    again = tmp_path / "again.log"
    invoke("export", again, "--store", store)
    assert "in order" in invoke("verify", again, "--witness", witness.identity.hex())
    later = tmp_path / "later.sig"
    invoke("countersign", again, "--key", key, "--out", later, "--before", out)
    assert later.read_bytes() == signature.read_bytes()


def test_a_witness_signs_no_log_that_does_not_continue_the_one_before(tmp_path: Path, call: Call) -> None:
    key, _ = witness_key(tmp_path)
    before, lying, out = (tmp_path / name for name in ("before", "lying", "out"))
    before.write_bytes(written().file())
    lying.write_bytes(written((*CONTENTS[:-1], completed(9))).file())
    refused(
        call("countersign", lying, "--key", key, "--out", out, "--before", before), 1, "is not what it was"
    )
    refused(
        call("countersign", before, "--key", key, "--out", out, "--server", OTHER.identity.hex()),
        1,
        "not signed by the server asked for",
    )
    refused(call("countersign", before, "--key", key, "--out", out), 2, "needs --server, or --before")
    assert not out.exists()


def test_a_countersignature_of_another_log_is_not_kept(store: str, tmp_path: Path, call: Call) -> None:
    key, _ = witness_key(tmp_path)
    path, signature = tmp_path / "other.log", tmp_path / "head.sig"
    path.write_bytes(Writer(log_id=bytes(32)).file())
    invoke("countersign", path, "--key", key, "--out", signature, "--server", SERVER.identity.hex())
    refused(call("countersign", signature, "--store", store), 2, "countersignature: is not that of")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list",), "log: give either an exported log or --store"),
        (("list", "{log}", "--store", "x.db"), "log: give either an exported log or --store"),
        (("list", "{log}.missing"), "No such file"),
        (("list", "--store", "{log}.missing"), "--store: there is no database"),
        (("list", "--store", "sqlite:///{log}.missing"), "--store: there is no database"),
        (("list", "--store", "mysql://x/y"), "store: must be a path"),
        (("show", "7", "{log}"), "INDEX: must be in 0..6, is 7"),
        (("verify", "{log}", "--server", "zz"), "--server: must be 64 hexadecimal digits"),
        (("verify", "{log}", "--server", "00" * 32), "--server: identity: "),
        (("verify", "{log}", "--witness", "00"), "--witness: must be 64 hexadecimal digits"),
        (("receipt", "{log}"), "receipt: needs --server"),
        (("receipt", "{log}", "--store", "x.db"), "--store: goes with --round"),
        (("receipt", "{log}", "--round", "00"), "--round: must be 32 hexadecimal digits"),
        (("countersign", "{log}"), "countersign: needs --key and --out"),
        (("countersign", "{log}", "--store", "x.db", "--key", "k"), "--store: takes neither"),
        (("export", "{log}"), "Missing option"),
        (("export", "{log}", "--store", "{log}.missing"), "--store: there is no database"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: tuple[str, ...], message: str, log: Path, call: Call
) -> None:
    refused(call(*(one.replace("{log}", str(log)) for one in arguments)), 2, message)


def test_a_database_without_a_log_and_one_in_use_are_told(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "server.db"
    with Database(path):
        refused(call("list", "--store", path), 2, "is in use")
    refused(call("list", "--store", path), 2, "there is no audit log")


def test_nothing_hostile_reaches_the_terminal(log: Path, call: Call) -> None:
    log.write_bytes(log.read_bytes().replace(b"hearts/run-1", b"hearts/\x1b[2J1"))
    for command in (("list", log), ("verify", log), ("show", 2, log)):
        done = call(*command)
        assert done.status == 1
        assert "\x1b" not in done.out + done.err
