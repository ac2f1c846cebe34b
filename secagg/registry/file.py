"""A registry document as a file: TOML that people can read and compare, with its signatures.

Digest and signatures are of the canonical encoding, so comments, blanks and the order of keys do not
matter. Whatever else is changed is refused when the file is read. The operator's own file has a folder
beside it, NAME.history, in which every version stays: who missed some can be given them.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from secagg.errors import RegistryError
from secagg.params import Identity
from secagg.registry.chain import check_chain, check_successor
from secagg.registry.document import (
    Countersignature,
    Former,
    Party,
    RegistryDocument,
    State,
    in_order,
    parse_roles,
)
from secagg.registry.errors import RollbackError
from secagg.registry.names import held, is_document
from secagg.store import replace_file

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_HEAD = ("federation", "version", "before", "time", "operator", "signature")
_PARTY = ("name", "identity", "roles", "state", "since")
_FORMER = ("until", "identity", "proof", "possession")
_COUNTERSIGNATURE = ("identity", "signature")


# --- text


def dump(document: RegistryDocument) -> str:
    """Return a document as the text of its file."""
    head: dict[str, object] = {
        "federation": document.federation,
        "version": document.version,
        "before": document.before,
        "time": document.time_ms,
        "operator": document.operator,
    }
    if document.next_operator is not None:
        head["next_operator"] = document.next_operator
    lines = [
        "# A secagg registry. `secagg registry show` prints it, `secagg registry verify` checks it.",
        *_lines({**head, "signature": document.signature}),
    ]
    for party in document.parties:
        lines += ("", "[[party]]")
        lines += _lines({"name": party.name, "identity": party.identity, "roles": in_order(party.roles)})
        lines += _lines({"state": str(party.state), "since": party.since})
        for one in party.former:
            lines += ("", "[[party.former]]")
            lines += _lines({name: getattr(one, name) for name in _FORMER})
    for signed in document.countersignatures:
        lines += ("", "[[countersignature]]")
        lines += _lines({"identity": signed.identity, "signature": signed.signature})
    return "\n".join(lines) + "\n"


def _lines(values: dict[str, object]) -> Iterator[str]:
    for name, value in values.items():
        match value:
            case bytes():
                text = f'"{value.hex()}"'
            case list():
                text = "[" + ", ".join(f'"{item}"' for item in value) + "]"
            case int() if name == "time":
                text = _date(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            case int():
                text = str(value)
            case _:
                text = f'"{value}"'  # a name: none of its characters means anything in TOML
        yield f"{name} = {text}"


def _date(time_ms: int) -> dt.datetime:
    return _EPOCH + time_ms * _MILLISECOND


def parse(text: str) -> RegistryDocument:
    """Read the text of a file, and check what the document proves by itself (`RegistryDocument.check`).

    raises  RegistryError: not a registry document, the message names what is wrong; DocumentError
    """
    try:
        table = tomllib.loads(text)
        if not is_document(table):
            raise RegistryError("no signed registry: has no signature")
        document = _document(table)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise RegistryError(f"no signed registry: {reason}") from error
    document.check()
    return document


def _document(table: dict[str, Any]) -> RegistryDocument:
    _only(table, _HEAD, ("next_operator", "party", "countersignature"))
    follower = table.get("next_operator")
    return RegistryDocument(
        federation=_text(table["federation"]),
        version=_number(table["version"]),
        before=_bytes(table["before"]),
        time_ms=_time_ms(table["time"]),
        operator=Identity(_bytes(table["operator"])),
        next_operator=None if follower is None else Identity(_bytes(follower)),
        parties=tuple(map(_party, table.get("party", ()))),
        signature=_bytes(table["signature"]),
        countersignatures=tuple(map(_countersignature, table.get("countersignature", ()))),
    )


def _party(table: dict[str, Any]) -> Party:
    _only(table, _PARTY, ("former",))
    roles = [_text(role) for role in table["roles"]]
    parsed = parse_roles(roles)
    if roles != in_order(parsed):
        raise ValueError(f"party {table['name']}: roles are written as {in_order(parsed)}")
    return Party(
        name=_text(table["name"]),
        identity=Identity(_bytes(table["identity"])),
        roles=parsed,
        since=_number(table["since"]),
        state=State(_text(table["state"])),
        former=tuple(map(_former, table.get("former", ()))),
    )


def _former(table: dict[str, Any]) -> Former:
    _only(table, _FORMER)
    return Former(
        until=_number(table["until"]),
        identity=Identity(_bytes(table["identity"])),
        proof=_bytes(table["proof"]),
        possession=_bytes(table["possession"]),
    )


def _countersignature(table: dict[str, Any]) -> Countersignature:
    _only(table, _COUNTERSIGNATURE)
    return Countersignature(Identity(_bytes(table["identity"])), _bytes(table["signature"]))


def _only(table: dict[str, Any], needed: tuple[str, ...], others: tuple[str, ...] = ()) -> None:
    """Raise ValueError for a key that nobody signed: somebody could read it, and believe it."""
    if not isinstance(table, dict):
        raise TypeError(f"must be a table, is {table!r}")
    if unknown := table.keys() - set(needed) - set(others):
        raise ValueError(f"{', '.join(sorted(unknown))}: is nothing that a registry tells")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, is {value!r}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"must be a number, is {value!r}")
    return value


def _bytes(value: object) -> bytes:
    return bytes.fromhex(_text(value))


def _time_ms(value: object) -> int:
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise TypeError(f"time: must be a date with a time zone, is {value}")
    time_ms, rest = divmod(value - _EPOCH, _MILLISECOND)
    if rest:
        raise ValueError("time: is finer than a millisecond")
    return time_ms


# --- files


def load(path: Path) -> RegistryDocument:
    """Read a file, and check what it proves by itself. Raises RegistryError, which names the file."""
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path}: no signed registry: {error}") from error
    except RegistryError as error:
        raise type(error)(f"{path}: {error}") from error


class RegistryFile:
    """The operator's own copy of a registry: the newest version in a file, all of them in a folder.

    One process at a time changes it; the file is whole, or as it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = path.with_name(f"{path.name}.history")

    def create(self, document: RegistryDocument) -> None:
        """Write the first version. Raises RegistryError: there is a file already."""
        with self._held():
            if self.path.exists():
                raise RegistryError(f"{self.path}: exists")
            self._write(document)

    def document(self) -> RegistryDocument:
        """Return the newest version. Raises RegistryError."""
        return load(self.path)

    def chain(self) -> tuple[RegistryDocument, ...]:
        """Return all versions that are here, ascending, each checked against the one before.

        raises  RegistryError; DocumentError
        """
        newest = self.document()
        self._check_newest(newest)
        by_version = {one.version: one for one in map(load, self._kept())} | {newest.version: newest}
        chain = tuple(by_version[version] for version in sorted(by_version))
        check_chain(chain[0], chain)
        return chain

    def edit(self, change: Callable[[RegistryDocument], RegistryDocument]) -> RegistryDocument:
        """Replace the newest version by what `change` makes of it, and return that.

        change  returns its successor, or a copy with other countersignatures; nothing is written if it raises

        raises  RegistryError; DocumentError: what `change` made does not follow
        """
        with self._held():
            present = self.document()
            self._check_newest(present)
            self._keep(present)  # an earlier process may have ended between the file and the folder
            made = change(present)
            check_successor(present, made)
            self._write(made)
            return made

    def _kept(self) -> list[Path]:
        return sorted(self.history.glob("*.toml")) if self.history.is_dir() else []

    def _check_newest(self, document: RegistryDocument) -> None:
        """Raise RollbackError where the folder has more: a version made now would be there twice."""
        numbered = [path for path in self._kept() if path.stem.isdecimal()]
        later = [path for path in numbered if int(path.stem) > document.version]
        if later:
            raise RollbackError(
                f"{self.path}: is version {document.version}, and {later[-1]} is there: the file was set "
                f"back; put the newest in its place"
            )

    def _write(self, document: RegistryDocument) -> None:
        """Write the file first: what is in the folder has been the newest, and is never made again."""
        _replace(self.path, dump(document))
        self._keep(document)

    def _keep(self, document: RegistryDocument) -> None:
        self.history.mkdir(exist_ok=True)
        path = self.history / f"{document.version:06d}.toml"
        text = dump(document)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            _replace(path, text)

    def _held(self) -> _Held:
        return _Held(self.path)


class _Held:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._lock = held(self._path)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _replace(path: Path, text: str) -> None:
    """Write a file that is whole whenever somebody reads it, and on disk afterwards."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}") from error
