"""What the commands share: options, the clock, and how they answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from secagg import Identity, ParameterError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
KeyOption = Annotated[Path, typer.Option("--key", help="Key file of the operator's identity.")]
RegistryArgument = Annotated[Path, typer.Argument(metavar="REGISTRY", help="Registry file.")]
AUTHORITY_CRT, AUTHORITY_KEY = "authority.crt", "authority.key"


def now_ms() -> int:
    """Return milliseconds since 1970, by this machine's clock."""
    return time.time_ns() // 1_000_000


def answer(as_json: bool, facts: dict[str, Any], *lines: str) -> None:
    """Print what was done: facts for a program, lines for a person."""
    typer.echo(json.dumps(facts, indent=2) if as_json else "\n".join(lines))


def identity_of(text: str, option: str) -> Identity:
    """Return an identity from its 64 hexadecimal digits. Raises ParameterError, which names the option."""
    from secagg import check_identity

    try:
        return check_identity(bytes.fromhex(text))
    except ValueError:
        raise ParameterError(f"{option}: must be an identity, 64 hexadecimal digits") from None


def read(path: Path) -> str:
    """Return a file's text. Raises ParameterError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ParameterError(f"{path}: is no text") from None


def replace(path: Path, data: bytes) -> None:
    """Write a file that is not secret and that is whole whenever somebody reads it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
