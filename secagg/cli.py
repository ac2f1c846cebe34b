"""The command line `secagg`. Needs the extra `service`; one line and exit status 2 for bad input."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from secagg.errors import SecAggError

try:
    import typer
    from rich.console import Console
except ImportError:
    sys.exit("secagg: this command needs the extra: pip install 'secagg[service]'")

__all__ = ["app", "main", "run"]

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are ours to tell, in one line

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Secure aggregation: keys, certificates, information."""


@app.command()
def keygen(
    path: Annotated[
        Path, typer.Argument(help="New key file; with --server: folder for server.crt, server.key.")
    ],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the party in the registry.")] = None,
    registry: Annotated[Path | None, typer.Option(help="Registry file to add the party to.")] = None,
    server: Annotated[
        bool, typer.Option("--server", help="Make a server's TLS certificate instead.")
    ] = False,
    host: Annotated[
        list[str] | None, typer.Option(help="Host of the server, repeatable; default: localhost, 127.0.0.1.")
    ] = None,
) -> None:
    """Make a party's identity, or a server's certificate."""
    from secagg.service import Registry, RegistryError, ServerCredentials, check_name, write_identity

    console = Console()
    if server:
        if name or registry:
            raise typer.BadParameter("--server takes neither --name nor --registry")
        path.mkdir(parents=True, exist_ok=True)
        credentials = ServerCredentials.generate(host or ("localhost", "127.0.0.1"))
        credentials.write(path / "server.crt", path / "server.key")
        console.print(f"certificate: {path / 'server.crt'}  SHA-256 {credentials.digest.hex()}")
        return
    if (name is None) != (registry is None):
        raise typer.BadParameter("--name and --registry go together")
    enrolled = Registry.load(registry) if registry is not None and registry.exists() else Registry({})
    if name in enrolled.names.values():
        raise RegistryError(f"party {name}: is in {registry} already")
    called = path.stem if name is None else name
    check_name(called)
    key = write_identity(path)
    entry = Registry.of([(called, key.identity)])
    if registry is not None:
        parties = [(n, i) for i, n in (*enrolled.names.items(), *entry.names.items())]
        registry.write_text(Registry.of(parties).dump(), encoding="utf-8")
    console.print(entry.dump().strip(), highlight=False, markup=False)


@app.command()
def info() -> None:
    """Print the kernel variant in use and those that this machine can run."""
    from secagg import kernels

    usable = ", ".join(kernels.runnable())
    Console().print(
        f"kernel variant: {kernels.variant()}; this machine can run: {usable}; "
        f"this build has: {', '.join(kernels.VARIANTS)}"
    )


# Typer's usage errors; their class is click's, which newer versions of Typer carry within themselves.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def run(application: typer.Typer, program: str) -> None:
    """Run a Typer application; bad input becomes one line and exit status 2, never a traceback."""
    try:
        status = application(prog_name=program, standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            _complain(program, error.format_message())
        sys.exit(2)
    except (SecAggError, OSError) as error:
        _complain(program, str(error))
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(program: str, message: str) -> None:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - the command's own message


def main() -> None:
    """Entry point of the command."""
    run(app, "secagg")


if __name__ == "__main__":
    main()
