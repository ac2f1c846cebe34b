"""The commands `secagg audit`: look at the audit log of a server, in its database or in an exported file.

Exit status 1: what was looked at is not as it should be; 2: bad input.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer
from rich.console import Console

from secagg import audit
from secagg.errors import ParameterError
from secagg.params import ROUND_ID_BYTES, Identity
from secagg.primitives.signatures import check_identity
from secagg.store import sync_file, sync_folder

if TYPE_CHECKING:
    from secagg.store.sql import AuditLog

__all__ = ["app"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TEXTS = {"place", "federation", "reason"}
_IN_MEMORY_BYTES = 2**24  # of a log that is read from a database; a longer one goes to a temporary file

app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

LogArgument = Annotated[Path | None, typer.Argument(help="Exported log; or give --store.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        help="The server's database: a path or sqlite:///PATH, while no server uses it; or "
        "postgresql://USER:PASSWORD@HOST/NAME."
    ),
]
ServerOption = Annotated[
    str | None, typer.Option(help="Identity that must be the server's, 64 hexadecimal digits.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _root() -> None:
    """Look at the audit log of a server: in its database, or offline in an exported file."""


@app.command("list")
def list_(
    log: LogArgument = None,
    *,
    store: StoreOption = None,
    first: Annotated[int, typer.Option(min=0, help="First entry.")] = 0,
    last: Annotated[int | None, typer.Option(min=0, help="Last entry; default: the newest.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the entries of a log that has nothing wrong with it.

    Example: secagg audit list hearts.log --first 100

    Example: secagg audit list --store server.db --json
    """
    with _source(log, store) as file:
        entries = audit.read_log(file).entries
    entries = entries[first : None if last is None else last + 1]
    if as_json:
        _print_json([_fields(entry) for entry in entries])
        return
    for entry in entries:
        content = audit.content_of(entry)
        _say(f"{entry.index:>6}  {_moment(entry.time)}  {_word(content):<10}  {_summary(content)}")


@app.command()
def show(
    index: Annotated[int, typer.Argument(min=0, help="Number of the entry.")],
    log: LogArgument = None,
    *,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all of one entry.

    Example: secagg audit show 12 hearts.log

    Example: secagg audit show 12 --store server.db
    """
    with _source(log, store) as file:
        entries = audit.read_log(file).entries
    if index >= len(entries):
        raise ParameterError(f"INDEX: must be in 0..{len(entries) - 1}, is {index}")
    _print_fields(_fields(entries[index]), as_json)


@app.command()
def verify(
    log: LogArgument = None,
    *,
    store: StoreOption = None,
    server: ServerOption = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="Identity that must have countersigned; repeatable.")
    ] = None,
    receipt: Annotated[
        list[Path] | None, typer.Option(help="Receipt whose entry must be in the log; repeatable.")
    ] = None,
    before: Annotated[
        list[Path] | None, typer.Option(help="Older log that this one must continue; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a log, offline; exit status 1 when anything is wrong.

    Example: secagg audit verify hearts.log --server 8a88... --receipt round-7.receipt --before last-week.log
    """
    expected, witnesses = (
        _identity("--server", server),
        [_identity("--witness", one) for one in witness or ()],
    )
    receipts = [(path, audit.load_receipt(path.read_bytes())) for path in receipt or ()]
    wrong: list[str] = []
    forks: list[audit.ForkError] = []
    with _source(log, store) as file:
        report = audit.verify_log(
            file, server=expected, witnesses=[one for one in witnesses if one is not None]
        )
        wrong += map(str, report.findings)
        if report.ok and (receipts or before):
            whole = audit.read_log(file)
            for path, kept in receipts:
                with _found(path, wrong, forks):
                    audit.receipt_in(kept, whole)
            for path in before or ():
                with _found(path, wrong, forks), path.open("rb") as older:
                    audit.check_growth(audit.read_log(older).signed, whole)
    if as_json:
        fields = {
            "ok": not wrong,
            "log_id": report.log_id.hex(),
            "entries": report.entries,
            "rounds": report.rounds,
            "signers": [one.hex() for one in report.signers],
            "head": None if report.signed is None else _head(report.signed),
            "witnessed": {one.hex(): index for one, index in report.witnessed.items()},
            "findings": wrong,
            "forks": [{"seen": _head(one.seen), "shown": _head(one.shown)} for one in forks],
        }
        _print_json(fields)
    else:
        _say(f"log: {report.log_id.hex() or 'unknown'}, {report.entries} entries, {report.rounds} rounds")
        if report.signed is not None:
            signed = report.signed
            _say(f"head: entry {signed.index}, {signed.head.hex()}, {_moment(signed.time)}")
        trusted = "" if expected else " (believed: --server says whose log it must be)"
        _say(f"signed by: {', '.join(one.hex() for one in report.signers) or 'nobody'}{trusted}")
        for name, index in report.witnessed.items():
            _say(f"countersigned up to entry {index} by {name.hex()}")
        for what in wrong:
            _say(f"wrong: {what}")
        _say("the log is wrong" if wrong else "the log is in order")
    if wrong:
        raise typer.Exit(1)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="New file.")],
    *,
    store: Annotated[str, typer.Option(help="The server's database.")],
    as_json: JsonOption = False,
) -> None:
    """Write a server's log to a file that anybody can verify.

    Example: secagg audit export hearts.log --store postgresql://secagg@db.example.org/secagg
    """
    with _database(store) as log, _new(path) as file:
        signed = log.export(file)
    _print_fields({"log": str(path), **_head(signed)}, as_json)


@app.command()
def countersign(
    path: Annotated[Path, typer.Argument(help="Exported log; with --store: the file of a countersignature.")],
    *,
    key: Annotated[Path | None, typer.Option(help="The witness's key file.")] = None,
    out: Annotated[Path | None, typer.Option(help="New file for the countersignature.")] = None,
    server: ServerOption = None,
    before: Annotated[
        Path | None, typer.Option(help="The log that was countersigned last: this one must continue it.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Keep a witness's countersignature in this database of the server.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Countersign the head of a log as a witness; or keep, as the server, what a witness signed.

    The witness verifies the log first, and keeps it: a witness that does not compare proves nothing.

    Example: secagg audit countersign hearts.log --key witness.key --out head.sig --before last-week.log

    Example: secagg audit countersign head.sig --store server.db
    """
    if store is not None:
        if key or out or server or before:
            raise ParameterError("--store: takes neither --key, --out, --server nor --before")
        one = audit.load_countersignature(path.read_bytes())
        with _database(store) as log:
            log.countersign(one)
        _print_fields({"witness": one.witness.hex(), "index": one.index}, as_json)
        return
    if key is None or out is None:
        raise ParameterError("countersign: needs --key and --out, or --store")
    if server is None and before is None:
        raise ParameterError("countersign: needs --server, or --before: a witness knows whose log it signs")
    from secagg.service import read_identity

    witness = read_identity(key)
    with path.open("rb") as file:
        whole = audit.read_log(file, server=_identity("--server", server))
    if before is not None:
        with before.open("rb") as file:
            audit.check_growth(audit.read_log(file).signed, whole)
    with _new(out) as made:
        made.write(audit.dump_countersignature(audit.Countersignature.sign(whole.signed, witness)))
    _print_fields({"witness": witness.identity.hex(), **_head(whole.signed)}, as_json)


@app.command()
def receipt(
    path: Annotated[Path, typer.Argument(help="File of a receipt; with --store: a new one.")],
    *,
    store: Annotated[
        str | None, typer.Option(help="Write the receipt of --round from this database of the server.")
    ] = None,
    round_: Annotated[str | None, typer.Option("--round", help="Round, 32 hexadecimal digits.")] = None,
    server: ServerOption = None,
    party: Annotated[
        str | None, typer.Option(help="Identity that must be among the survivors, 64 hexadecimal digits.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Exported log that must have the entry.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that a round is in the server's chain, and a party's input in its sum: offline, by its receipt.

    Example: secagg audit receipt round-7.receipt --server 8a88... --party 03a1...

    Example: secagg audit receipt round-7.receipt --store server.db --round 5d41402abc4b2a76b9719d911017c592
    """
    round_id = None if round_ is None else _octets("--round", round_, ROUND_ID_BYTES)
    if store is not None:
        if round_id is None or server or party or log:
            raise ParameterError("--store: goes with --round, and neither --server, --party nor --log")
        with _database(store) as kept:
            made = kept.receipt_of(round_id)
            if made is None:
                raise ParameterError(f"--round: {round_id.hex()} is not in the log")
        with _new(path) as file:
            file.write(audit.dump_receipt(made))
        _print_fields(_fields(made.entry), as_json)
        return
    expected = _identity("--server", server)
    if expected is None:
        raise ParameterError("receipt: needs --server, who signed it; or --store to write one")
    given = audit.load_receipt(path.read_bytes())
    audit.check_receipt(given, server=expected, party=_identity("--party", party), round_id=round_id)
    if log is not None:
        with log.open("rb") as shown:
            audit.receipt_in(given, audit.read_log(shown, server=expected))
    _print_fields(_fields(given.entry), as_json)


# --- where logs come from, and where they go


@contextmanager
def _source(log: Path | None, store: str | None) -> Iterator[BinaryIO]:
    """Open an exported log; that of a database is exported first, and looked at in the same way."""
    if (log is None) == (store is None):
        raise ParameterError("log: give either an exported log or --store")
    if log is not None:
        with log.open("rb") as given:
            yield given
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as spooled:
        file = cast("BinaryIO", spooled)
        with _database(cast("str", store)) as kept:
            kept.export(file)
        yield file


@contextmanager
def _database(store: str) -> Iterator[AuditLog]:
    """Open the log of a database that is there. Raises StoreError, ParameterError."""
    from secagg.store.sql import AuditLog, Database

    name = store.removeprefix("sqlite:///")
    if "://" not in name and not Path(name).is_file():  # opening would make it
        raise ParameterError(f"--store: there is no database {name}")
    with Database(store) as database:
        yield AuditLog(database, None, database.now)


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing: afterwards all of it is on disk, or there is none. Raises OSError."""
    file = path.open("xb")
    try:
        with file:
            yield file
            sync_file(file)
        sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _found(path: Path, wrong: list[str], forks: list[audit.ForkError]) -> Iterator[None]:
    """Collect what is wrong between a log and a receipt, or an older log."""
    try:
        yield
    except audit.AuditError as error:
        wrong.append(f"{path}: {error}")
        if isinstance(error, audit.ForkError):
            forks.append(error)


def _octets(name: str, text: str, size: int) -> bytes:
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b""
    if len(octets) != size:
        raise ParameterError(f"{name}: must be {2 * size} hexadecimal digits, is {text!r}")
    return octets


def _identity(name: str, text: str | None) -> Identity | None:
    if text is None:
        return None
    try:
        return check_identity(_octets(name, text, 32))
    except ParameterError as error:
        raise ParameterError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error


# --- what is shown


def _moment(time_ms: int) -> str:
    return (_EPOCH + dt.timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds")


def _word(content: audit.Content) -> str:
    return audit.kind_of(content).name.lower()


def _summary(content: audit.Content) -> str:
    match content:
        case audit.Start(log_id=log_id, server=server):
            return f"log {log_id.hex()}, signed by {server.hex()}"
        case audit.Round(
            place=place, round_id=round_id, outcome=audit.RoundOutcome.COMPLETED, survivors=survivors
        ):
            return f"{place.decode()} {round_id.hex()} completed, {len(survivors)} survivors"
        case audit.Round(place=place, round_id=round_id, reason=reason):
            return f"{place.decode()} {round_id.hex()} aborted: {reason.decode()}"
        case audit.RegistryChange(federation=federation, version=version, document_digest=document):
            return f"{federation.decode()} version {version}, document {document.hex()}"
        case audit.Withdrawal(federation=federation, identity=identity):
            return f"{federation.decode()} without {identity.hex()}"
        case audit.KeyChange(server=server):
            return f"signed by {server.hex()} from now on"


def _fields(entry: audit.Entry) -> dict[str, Any]:
    """Return an entry for JSON: bytes as hexadecimal digits, texts as texts, null for what there is not."""
    content = audit.content_of(entry)
    fields: dict[str, Any] = {"index": entry.index, "time": _moment(entry.time), "kind": _word(content)}
    for field in dataclasses.fields(content):
        value = getattr(content, field.name)
        if field.name == "outcome":
            fields[field.name] = audit.RoundOutcome(value).name.lower()
        elif isinstance(value, bytes):
            fields[field.name] = (value.decode() if field.name in _TEXTS else value.hex()) or None
        elif isinstance(value, Iterable):
            fields[field.name] = [one.hex() for one in value]
        else:
            fields[field.name] = value
    return fields


def _head(signed: audit.SignedHead) -> dict[str, Any]:
    return {
        "log_id": signed.log_id.hex(),
        "index": signed.index,
        "time_ms": signed.time,
        "head": signed.head.hex(),
        "signature": signed.signature.hex(),
    }


def _print_fields(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(fields)
        return
    for name, value in fields.items():
        if isinstance(value, list):
            _say(f"{name}: {len(value)}")
            for one in value:
                _say(f"  {one}")
        elif value is not None:
            _say(f"{name}: {value}")


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201 - for programs


def _say(line: str) -> None:
    Console().print(line, highlight=False, markup=False, soft_wrap=True)
