"""The registry as names of identities: who is enrolled now. What servers and clients work with.

It comes from a TOML file that the server and every client hold, either without signatures,

[[party]]
name = "hospital-3"
identity = "<64 hexadecimal digits>"

or as a signed document (`secagg.registry.file`), of which it is the active participants.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from secagg.errors import ParameterError, RegistryError
from secagg.params import Identity
from secagg.primitives.signatures import check_identity
from secagg.store.errors import StoreBusyError, StoreError
from secagg.store.lock import FileLock

_PATIENCE_S, _POLL_S = 10.0, 0.02  # for another process that enrols
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def signed(path: Path) -> bool:
    """Return whether a file is a signed document. Raises RegistryError."""
    try:
        return is_document(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not a registry: {error}") from error


def check_name(name: str) -> None:
    """Raise RegistryError unless a party may be called so."""
    if not _NAME.fullmatch(name):
        raise RegistryError(f"party.name: letters, digits, '.', '_' and '-', up to 64, is {name!r}")


@dataclass(frozen=True, slots=True)
class Registry:
    """Names of the enrolled identities; both are unique."""

    names: dict[Identity, str]
    identities: frozenset[Identity] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identities", frozenset(self.names))

    @classmethod
    def of(cls, parties: Iterable[tuple[str, bytes]]) -> Registry:
        """Check (name, identity) pairs. Raises RegistryError, which names the entry."""
        names: dict[Identity, str] = {}
        for name, raw in parties:
            check_name(name)
            try:
                identity = check_identity(raw)
            except ParameterError as error:
                raise RegistryError(f"party {name}: {error}") from error
            if identity in names or name in names.values():
                raise RegistryError(f"party {name}: name or identity is in the registry twice")
            names[identity] = name
        return cls(names)

    @classmethod
    def load(cls, path: Path, role: str = "participant") -> Registry:
        """Read the file; of a signed document, who is active in a role. Raises RegistryError."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise RegistryError(f"{path}: is not there: who is enrolled must be in it") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"{path}: not a registry: {error}") from error
        if signed(path):
            from secagg.registry.file import load  # which knows what this module is about

            return load(path).registry(role)
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str = "registry") -> Registry:
        """Read the text of a file. Raises RegistryError."""
        try:
            table = tomllib.loads(text)
            if "party" not in table:
                raise RegistryError(f"{name}: not a registry: names no party ([[party]])")
            parties = [(str(party["name"]), bytes.fromhex(party["identity"])) for party in table["party"]]
        except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise RegistryError(f"{name}: not a registry: {error}") from error
        return cls.of(parties)

    @classmethod
    def enrol(cls, path: Path, name: str, make: Callable[[], Identity]) -> Registry:
        """Add a party to the file, which is made if it is not there, and return what it says then.

        One process at a time, the file whole or as it was. make: gives the identity, once the name is free.
        raises  RegistryError: the name is taken, the file is no registry, or it stays in use
        """
        if path.is_dir():
            raise RegistryError(f"{path}: not a registry: is a folder")
        lock = held(path)
        try:
            there = cls._load_plain(path) if path.exists() else cls({})
            check_name(name)
            if name in there.names.values():
                raise RegistryError(f"party {name}: is in {path} already")
            whole = cls.of([*((one, identity) for identity, one in there.names.items()), (name, make())])
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(whole.dump(), encoding="utf-8")
            partial.replace(path)
            return whole
        finally:
            lock.release()

    @classmethod
    def _load_plain(cls, path: Path) -> Registry:
        """Read a file that may be written again without a signature. Raises RegistryError."""
        registry = cls.load(path)
        if is_document(tomllib.loads(path.read_text(encoding="utf-8-sig"))):
            raise RegistryError(
                f"{path}: is a signed registry: its operator takes parties in by `secagg invite` and "
                f"`secagg admit`"
            )
        return registry

    def dump(self) -> str:
        """Return the text of the file."""
        entries = sorted((name, identity) for identity, name in self.names.items())
        return "".join(
            f'[[party]]\nname = "{name}"\nidentity = "{identity.hex()}"\n\n' for name, identity in entries
        )

    def named(self, names: Iterable[str]) -> frozenset[Identity]:
        """Return the identities of parties. Raises RegistryError: one is not enrolled."""
        by_name = {name: identity for identity, name in self.names.items()}
        found = {name: by_name.get(name) for name in names}
        if unknown := [name for name, identity in found.items() if identity is None]:
            raise RegistryError(f"party {min(unknown)}: is not in the registry")
        return frozenset(identity for identity in found.values() if identity is not None)

    def name_of(self, identity: bytes) -> str:
        """Return the name of an identity, or its first digits."""
        return self.names.get(Identity(identity), identity.hex()[:12])


def is_document(table: dict[str, object]) -> bool:
    """Return whether a TOML table means to be a signed document: also one that has lost a line.

    A registry without signatures may have keys of its own beside its parties.
    """
    return "signature" in table or table.keys() >= {"federation", "version"}


def held(path: Path) -> FileLock:
    """Wait for the registry's lock. Raises RegistryError: somebody keeps it."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return FileLock(path.with_name(f".{path.name}.lock"))
        except StoreBusyError:
            if time.monotonic() > until:
                raise RegistryError(f"{path}: another process holds it") from None
            time.sleep(_POLL_S)
        except StoreError as error:
            raise RegistryError(str(error)) from error
