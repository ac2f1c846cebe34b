"""Files of secrets, readable by their owner only, and the identity that a party keeps in one."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import BinaryIO

from secagg.errors import KeyFileError
from secagg.primitives.labels import digest
from secagg.primitives.signatures import IdentityKey

_FORMER = ".was-"  # and the beginning of its identity: behind the name of a key that was rotated


def write_private(path: Path, data: bytes) -> None:
    """Create a file with mode 0600. Raises KeyFileError when it exists."""
    try:
        file = create_private(path)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    with file:
        file.write(data)


def create_private(path: Path) -> BinaryIO:
    """Open a new file for writing that was never readable by others. Raises OSError, also when it exists."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def read_private(path: Path) -> bytes:
    """Read a file that nobody but its owner can read. Raises KeyFileError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(
                os.fstat(file.fileno()).st_mode
            )  # of what is read, whatever the path is by now
            if mode & 0o077:
                raise KeyFileError(f"{path}: mode must be 0600, is {mode:04o}")
            return file.read().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def write_identity(path: Path) -> IdentityKey:
    """Make a new identity and keep its seed, as hexadecimal text, in a new file."""
    key = IdentityKey.generate(os.urandom)
    write_private(path, key.seed.hex().encode("ascii") + b"\n")
    return key


def read_identity(path: Path) -> IdentityKey:
    """Read an identity's key file. Raises KeyFileError."""
    text = read_private(path)
    try:
        return IdentityKey.from_seed(bytes.fromhex(text.decode("ascii").strip()))
    except ValueError:  # its text would quote the key
        raise KeyFileError(f"{path}: must hold 64 hexadecimal digits") from None


def retire_key(path: Path) -> None:
    """Keep the identity that a party had so far beside its new one: it opens what it has sealed."""
    former = read_identity(path).identity.hex()[:16]
    path.replace(path.with_name(f"{path.name}{_FORMER}{former}"))


def former_keys(path: Path) -> list[Path]:
    """Return the files of the identities that a party had before the one in this file."""
    return sorted(path.parent.glob(f"{path.name}{_FORMER}*"))


def store_key(identity: IdentityKey) -> bytes:
    """Key for the store of a party (`secagg.store.SealedStore`), 32 bytes: who has its identity opens it."""
    return digest("store key", identity.seed)
