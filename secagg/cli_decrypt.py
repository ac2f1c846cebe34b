"""The command `secagg decrypt`: a member of committees of the one-upload protocol, always on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secagg.cli_party import check_addresses, credentials_of, printer, sealed
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from secagg.service import Decryptor
    from secagg.store import Store

_HOUR_S = 3600.0
_LOOK_S = 0.5  # at whether there is a server


def decrypt(
    *,
    server: Annotated[
        list[str], typer.Option("--server", help="HOST:PORT, repeatable: of servers of one database.")
    ],
    key: Annotated[Path, typer.Option(help="Identity of this decryptor, of `secagg keygen`.")],
    registry: Annotated[Path, typer.Option(help="Registry file: whose uploads it helps to sum.")],
    decryptors: Annotated[
        Path | None,
        typer.Option(help="Registry file: who may be in a committee; default: the role in --registry."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="The server's certificate (PEM).")] = None,
    party: Annotated[
        Path | None, typer.Option(help="Instead: folder that `secagg enroll` made, with an own certificate.")
    ] = None,
    place: Annotated[str, typer.Option(help="FEDERATION/RUN, as the server calls it.")] = "default/default",
    store: Annotated[
        Path | None,
        typer.Option(help="File for epochs and rounds, sealed; without it a restart has forgotten them."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Seal the store by this passphrase; default: by --key.")
    ] = None,
    minimum_decryptors: Annotated[
        int, typer.Option(min=3, help="Fewest candidates, and members, of a committee.")
    ] = 4,
    minimum_uploads: Annotated[int, typer.Option(min=2, help="Fewest uploads in a sum.")] = 3,
    corrupt: Annotated[float, typer.Option(help="Share of the decryptors that may collude.")] = 0.1,
    epoch_hours: Annotated[
        float, typer.Option(help="Forget an epoch after so long, whatever the server says.")
    ] = 48.0,
    post_quantum: Annotated[bool, typer.Option(help="Refuse committees without ML-KEM-768.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Help to open sums of uploads, and never one upload: until the server says that it is over.

    Runs until it is stopped. Whoever has the stores of more than T decryptors of an epoch can open each of
    its uploads: no two of them on one machine, and no backups of a store.
    """
    from secagg import OneShotPolicy
    from secagg.service import Decryptor, Registry, read_identity

    check_addresses(server)
    signer = read_identity(key)
    clients = Registry.load(registry)
    members = Registry.load(decryptors or registry, role="decryptor")
    if signer.identity not in members.identities:
        raise ParameterError(f"--key: the identity in {key} is no decryptor of {decryptors or registry}")
    if decryptors is None and members == clients:
        raise ParameterError("--decryptors: is needed where --registry has no roles (no signed registry)")
    policy = OneShotPolicy(
        known=clients.identities,
        decryptors=members.identities,
        minimum_candidates=minimum_decryptors,
        minimum_committee=minimum_decryptors,
        minimum_corrupt=corrupt,
        minimum_survivors=minimum_uploads,
        minimum_per_context=min(minimum_uploads, 3),
        require_post_quantum=post_quantum,
    )
    say = printer(as_json=as_json)
    if store is None:
        say("WARNING: without --store, a restart has forgotten its epochs")
    with _store(store, key, passphrase_file) as kept:
        one = Decryptor(
            address=server,
            credentials=credentials_of(party, certificate),
            signer=signer,
            policy=policy,
            store=kept,
            place=place,
            on_event=say,
            on_refusal=lambda text: say(f"refused: {text}"),
            patience_s=float("inf"),
            epoch_s=epoch_hours * _HOUR_S,
        )
        say(f"decryptor {members.name_of(signer.identity)} of {place}, {len(members.names)} enrolled")
        asyncio.run(_serve(one, say))


async def _serve(one: Decryptor, say: Callable[[str], None]) -> None:
    watching = asyncio.create_task(_watch(one, say))
    try:
        await one.serve()
    finally:
        watching.cancel()
    say("over: the server has no more rounds")


async def _watch(one: Decryptor, say: Callable[[str], None]) -> None:
    """Say when there is no server, and when there is one again."""
    before: str | None = ""
    while True:
        trouble = one.trouble
        if trouble not in {before, ""}:
            say("connected" if trouble is None else f"waits for the server at {trouble}")
            before = trouble
        await asyncio.sleep(_LOOK_S)


@contextmanager
def _store(path: Path | None, key: Path, passphrase_file: Path | None) -> Iterator[Store]:
    """Open the store, sealed; None: in memory."""
    from secagg.store import MemoryStore, SqliteStore

    if path is None:
        yield MemoryStore()
    else:
        with SqliteStore(path) as beneath:
            yield sealed(beneath, key, passphrase_file)
