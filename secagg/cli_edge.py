"""The command `secagg edge`: a server near some of the clients of the one-upload protocol, always on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secagg.cli_party import check_addresses, credentials_of, printer
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from secagg.service import AggregationServer, EdgeSettings, Event

_LOOK_S = 0.5  # at whether there is a root


def edge(
    *,
    server: Annotated[
        list[str], typer.Option("--server", help="HOST:PORT of the root, repeatable: of one database.")
    ],
    key: Annotated[Path, typer.Option(help="Identity of this edge, of `secagg keygen`.")],
    registry: Annotated[Path, typer.Option(help="Registry file: whose uploads it takes.")],
    own_certificate: Annotated[Path, typer.Option(help="TLS certificate of this edge, for clients.")],
    own_key: Annotated[Path, typer.Option(help="The private key of that certificate.")],
    certificate: Annotated[Path | None, typer.Option(help="The root's certificate (PEM).")] = None,
    party: Annotated[
        Path | None, typer.Option(help="Instead: folder that `secagg enroll` made, with an own certificate.")
    ] = None,
    listen: Annotated[str, typer.Option(help="Address for clients, host:port; port 0: any.")] = "127.0.0.1:0",
    place: Annotated[str, typer.Option(help="FEDERATION/RUN, as the root calls it.")] = "default/default",
    store: Annotated[
        Path | None,
        typer.Option(help="File of what was acknowledged; without it a restart has forgotten that."),
    ] = None,
    collect: Annotated[float, typer.Option(help="Seconds that uploads of a round are taken.")] = 60.0,
    goal: Annotated[int, typer.Option(min=0, help="Uploads that are enough; 0: everybody's.")] = 0,
    grace: Annotated[
        float | None, typer.Option(help="Seconds that the rest has once --goal came; default: none.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Take uploads near the clients, and send one sum of them on: until the root says that it is over.

    Runs until it is stopped. It reads nothing, and can spoil the sum, as a server can. --collect must be less
    than the time that the root gives a round.
    """
    from secagg.service import (
        AggregationServer,
        EdgeSettings,
        Registry,
        ServerCredentials,
        host_and_port,
        read_identity,
    )
    from secagg.store.sql import Database, spool_of

    check_addresses(server)
    host_and_port(listen, "--listen")
    signer, clients = read_identity(key), Registry.load(registry)
    if signer.identity in clients.identities:
        raise ParameterError(f"--key: the identity in {key} is a client of {registry}, and no edge")
    own = ServerCredentials.load(own_certificate, own_key)
    say = printer(as_json=as_json)
    settings = EdgeSettings(
        root=server,
        credentials=credentials_of(party, certificate),
        signer=signer,
        registry=clients,
        place=place,
        upload_s=collect,
        grace_s=grace,
        goal=goal,
        observer=lambda event: _tell(event, say),
        on_refusal=lambda text: say(f"refused: {text}"),
    )
    with ExitStack() as stack:
        database = None if store is None else stack.enter_context(Database(store))
        if database is None:
            say("WARNING: without --store, a restart has forgotten what was acknowledged")
        spool = None if database is None else spool_of(database)
        one = AggregationServer(address=listen, credentials=own, database=database, spool=spool)
        asyncio.run(_serve(one, settings, host_and_port(listen)[0], say))


async def _serve(
    one: AggregationServer, settings: EdgeSettings, host: str, say: Callable[[str], None]
) -> None:
    finished: asyncio.Task[bytes] | None = None
    await one.start()
    try:
        run = await one.open_edge(settings)
        say(f"listening on {host}:{one.port}, for {len(settings.registry.names)} clients of {settings.place}")
        finished = asyncio.create_task(run.finished())
        before: str | None = ""
        while not finished.done():
            trouble = run.trouble
            if trouble not in {before, ""}:
                say("connected" if trouble is None else f"waits for the root at {trouble}")
                before = trouble
            await asyncio.wait({finished}, timeout=_LOOK_S)
        finished.result()
    finally:
        if finished is not None:
            finished.cancel()
        await one.stop()
    say("over: the root has no more rounds")


def _tell(event: Event, say: Callable[[str], None]) -> None:
    from secagg.service import RoundCompleted, RoundFailed, RoundOpened, StoreFailed

    match event:
        case RoundOpened(round_id=round_id):
            say(f"round {round_id.hex()[:12]}")
        case RoundCompleted(round_id=round_id, survivors=clients):
            say(f"round {round_id.hex()[:12]}: {len(clients)} uploads of ours were handed on, the sum is out")
        case RoundFailed(round_id=round_id, detail=detail):
            say(f"round {round_id.hex()[:12]}: {detail}")
        case StoreFailed(reason=reason):
            say(f"the store: {reason}")
        case _:
            pass
