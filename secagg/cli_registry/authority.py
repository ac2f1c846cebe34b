"""`secagg authority`: the operator's certificate authority, and servers' certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secagg.cli_registry.common import AUTHORITY_CRT, AUTHORITY_KEY, JsonOption, answer

app = typer.Typer(no_args_is_help=True, help="The operator's certificate authority.")


@app.command(epilog="Example: secagg authority new authority")
def new(
    folder: Annotated[Path, typer.Argument(help="Folder for authority.crt and authority.key.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Make the authority that lets parties in. Its key stays with the operator; no server needs it."""
    from secagg.cli_registry.common import now_ms
    from secagg.service.authority import Authority

    folder.mkdir(parents=True, exist_ok=True)
    made = Authority.make(now_ms() / 1000)
    made.write(folder / AUTHORITY_CRT, folder / AUTHORITY_KEY)
    answer(
        as_json,
        {"certificate": str(folder / AUTHORITY_CRT), "sha256": made.fingerprint.hex()},
        f"authority: {folder / AUTHORITY_CRT}  SHA-256 {made.fingerprint.hex()}",
        f"keep {folder / AUTHORITY_KEY} to yourself; a server needs only the certificate",
    )


@app.command(
    epilog="Example: secagg authority server authority server-2026 --host sum.example.org. "
    "Who trusts the authority takes a server's next certificate without being told."
)
def server(
    folder: Annotated[Path, typer.Argument(help="Folder of the authority.")],
    out: Annotated[Path, typer.Argument(help="New folder for server.crt and server.key.")],
    *,
    host: Annotated[
        list[str] | None, typer.Option(help="Host of the server, repeatable; default: localhost, 127.0.0.1.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long it holds.")] = 825,
    as_json: JsonOption = False,
) -> None:
    """Issue a server's certificate: the first, or the one after it."""
    from secagg.cli_registry.common import now_ms
    from secagg.service.authority import Authority

    authority = Authority.load(folder / AUTHORITY_CRT, folder / AUTHORITY_KEY)
    made = authority.issue_server(now_ms() / 1000, hosts=host or ("localhost", "127.0.0.1"), days=days)
    out.mkdir(parents=True, exist_ok=True)
    made.write(out / "server.crt", out / "server.key")
    answer(
        as_json,
        {"certificate": str(out / "server.crt"), "sha256": made.digest.hex()},
        f"certificate: {out / 'server.crt'}  SHA-256 {made.digest.hex()}",
    )
