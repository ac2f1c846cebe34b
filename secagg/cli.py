"""The command line `secagg`. Needs the extra `service`; one line and exit status 2 for bad input."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from secagg import InfeasibleParameters, ParameterError, SecAggError
from secagg.params import SUITES, Suite

if TYPE_CHECKING:
    from secagg import Plan
    from secagg.planning_oneshot import Comparison
    from secagg.transcript import OneShotReport, Report

try:
    import typer
    from rich.console import Console
except ImportError as error:
    extra = "the extra [service], in a checkout: pip install '.[service]'"
    print(f"secagg: this command needs {extra} ({error})", file=sys.stderr)  # noqa: T201 - the command's own message
    sys.exit(2)

__all__ = ["SETTINGS", "VersionOption", "app", "main", "run"]

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors are ours to tell, in one line

_DAY_S = 86_400
_MEASURE_S = 0.02  # per figure of `plan`

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(**SETTINGS)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"secagg {version('secagg')}")  # noqa: T201 - the result
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
]


@app.callback()
def _root(*, version: VersionOption = False) -> None:
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
    from secagg.service import Registry, ServerCredentials, check_name, write_identity

    console = Console()
    if server:
        if name or registry:
            raise typer.BadParameter("--server takes neither --name nor --registry")
        path.mkdir(parents=True, exist_ok=True)
        credentials = ServerCredentials.generate(host or ("localhost", "127.0.0.1"))
        credentials.write(path / "server.crt", path / "server.key")
        console.print(
            f"certificate: {path / 'server.crt'}  SHA-256 {credentials.digest.hex()}", soft_wrap=True
        )
        return
    if (name is None) != (registry is None):
        raise typer.BadParameter("--name and --registry go together")
    called = path.stem if name is None else name
    if registry is None:
        check_name(called)
        identity = write_identity(path).identity
    else:
        enrolled = Registry.enrol(registry, called, lambda: write_identity(path).identity)
        identity = next(one for one, known in enrolled.names.items() if known == called)
    console.print(Registry.of([(called, identity)]).dump().strip(), highlight=False, markup=False)


@app.command()
def info() -> None:
    """Print the kernel variant in use and those that this machine can run."""
    from secagg import kernels

    usable = ", ".join(kernels.runnable())
    Console().print(
        f"kernel variant: {kernels.variant()}; this machine can run: {usable}; "
        f"this build has: {', '.join(kernels.VARIANTS)}"
    )


SuiteOption = Annotated[
    str, typer.Option(help="x25519-mlkem768: what is recorded stays closed to quantum computers.")
]


def _suite(name: str) -> Suite:
    """Check --suite. Raises ParameterError."""
    for suite in SUITES:
        if suite == name:
            return suite
    raise ParameterError(f"--suite: must be one of {', '.join(SUITES)}, is {name!r}")


@app.command()
def plan(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Clients that take part.")],
    length: Annotated[int, typer.Option(min=1, help="Entries of a vector.")],
    value_bits: Annotated[int, typer.Option(min=1, help="Bits of an entry.")] = 16,
    weight: Annotated[int, typer.Option(min=1, help="Largest weight of a client.")] = 1,
    noise: Annotated[int, typer.Option(min=0, help="Largest noise that a client adds to an entry.")] = 0,
    corrupt: Annotated[float, typer.Option(help="Share of the cohort that may collude.")] = 0.1,
    dropout: Annotated[float, typer.Option(help="Share of the cohort that may drop out.")] = 0.1,
    minimum_survivors: Annotated[int, typer.Option(min=1, help="Fewest clients in a sum.")] = 3,
    security_bits: Annotated[int, typer.Option(help="A promise is broken with 2^-this.")] = 40,
    correctness_bits: Annotated[int, typer.Option(help="An honest round fails with 2^-this.")] = 20,
    grinding_bits: Annotated[int, typer.Option(help="Work of a lying server on the graph, 2^this.")] = 40,
    suite: SuiteOption = "x25519",
    decryptors: Annotated[
        int | None,
        typer.Option(min=3, help="Compare with the one-upload protocol, with so many decryptors."),
    ] = None,
    committee_size: Annotated[int, typer.Option(min=3, max=256, help="Most of them in a committee.")] = 256,
    post_quantum: Annotated[bool, typer.Option(help="Shares are sealed under ML-KEM-768, too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what a round needs, against a passive and against an active server, and compare protocols."""
    from secagg.costs import UnitCosts
    from secagg.reports import plans_as_json, show_comparison, show_plans

    demands: dict[str, Any] = {
        "clients": clients,
        "vector_length": length,
        "value_bits": value_bits,
        "maximum_weight": weight,
        "noise_bound": noise,
        "minimum_survivors": minimum_survivors,
        "corrupt": corrupt,
        "dropout": dropout,
        "security_bits": security_bits,
        "correctness_bits": correctness_bits,
        "grinding_bits": grinding_bits,
    }
    from secagg import Plan
    from secagg import plan as plan_round

    plans: list[Plan | InfeasibleParameters] = []
    for adversary in ("passive", "active"):
        try:
            bits = plan_round(**demands, adversary=adversary, suite=_suite(suite)).ring_bits
            costs = UnitCosts.measured(_seconds, length=min(length, 1 << 20), ring_bits=bits)
            plans.append(plan_round(**demands, adversary=adversary, suite=_suite(suite), costs=costs))
        except InfeasibleParameters as error:
            plans.append(error)
    refusals = list(dict.fromkeys(str(one) for one in plans if isinstance(one, InfeasibleParameters)))
    if not any(isinstance(one, Plan) for one in plans):
        raise InfeasibleParameters("; ".join(refusals))
    comparison = None
    if decryptors is not None:
        said = {"decryptors": decryptors, "committee_size": committee_size, "post_quantum": post_quantum}
        comparison = _comparison(plans[-1], demands | said)
    if as_json:
        print(plans_as_json(plans, comparison))  # noqa: T201 - for programs
    else:
        show_plans(plans, Console())
        if comparison is not None:
            show_comparison(comparison, Console())


def _comparison(pairwise: Plan | InfeasibleParameters, demands: dict[str, Any]) -> Comparison:
    """Compare with the one-upload protocol, both against an active server."""
    from secagg import Plan
    from secagg.costs_oneshot import OneShotCosts
    from secagg.planning_oneshot import compare, load_of, plan_oneshot

    there = pairwise if isinstance(pairwise, Plan) else None
    try:
        costs = OneShotCosts.measured(_seconds, load_of(plan_oneshot(**demands)))
        refused = str(pairwise) if isinstance(pairwise, InfeasibleParameters) else ""
        return compare(there, plan_oneshot(**demands, costs=costs), refused=refused)
    except InfeasibleParameters as error:
        if there is None:
            raise
        return compare(there, None, refused=str(error))


@app.command()
def explain(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Clients that take part.")],
    length: Annotated[int, typer.Option(min=1, help="Entries of a vector.")] = 1,
    value_bits: Annotated[int, typer.Option(min=1, help="Bits of an entry.")] = 16,
    corrupt: Annotated[float, typer.Option(help="Share of the cohort that may collude.")] = 0.1,
    dropout: Annotated[float, typer.Option(help="Share of the cohort that may drop out.")] = 0.1,
    minimum_survivors: Annotated[int, typer.Option(min=1, help="Fewest clients in a sum.")] = 3,
    passive: Annotated[
        bool, typer.Option("--passive", help="Trust the server to follow the protocol.")
    ] = False,
    colluding: Annotated[
        int | None, typer.Option(min=0, help="Clients that collude; default: as many as planned for.")
    ] = None,
    keep_inputs: Annotated[
        bool, typer.Option("--keep-inputs", help="Transcripts hold the masked vectors.")
    ] = False,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="The links are not encrypted.")] = False,
    suite: SuiteOption = "x25519",
    decryptors: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="The one-upload protocol with so many decryptors; the shares and --colluding are of them.",
        ),
    ] = None,
) -> None:
    """Print what each party of a round learns, and the test that backs each statement."""
    from secagg import explain as explain_plan
    from secagg import plan as plan_round
    from secagg.explanation_oneshot import explain_oneshot
    from secagg.planning_oneshot import plan_oneshot
    from secagg.reports import show_statements

    demands: dict[str, Any] = {
        "clients": clients,
        "vector_length": length,
        "value_bits": value_bits,
        "corrupt": corrupt,
        "dropout": dropout,
        "minimum_survivors": minimum_survivors,
        "adversary": "passive" if passive else "active",
    }
    if decryptors is not None and _suite(suite) != "x25519":
        raise ParameterError("--suite: is of the pairwise protocol, without --decryptors")
    told: dict[str, Any] = {"colluding": colluding, "keep_inputs": keep_inputs, "encrypted": not plaintext}
    if decryptors is None:
        planned = plan_round(**demands, suite=_suite(suite))
        show_statements(planned, explain_plan(planned, **told), Console())
    else:
        one = plan_oneshot(**demands, decryptors=decryptors)
        show_statements(one, explain_oneshot(one, **told), Console())


def _seconds(call: Callable[[], object], calls: int) -> float:
    """Seconds of one call: the median of a few measurements."""
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 3 or (time.perf_counter() - began < _MEASURE_S and len(taken) < 25):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) / calls)
    return statistics.median(taken)


@app.command()
def verify(
    transcript: Annotated[Path, typer.Argument(help="Transcript of a round.")],
    *,
    server: Annotated[
        str | None, typer.Option(help="Identity that must have signed it, 64 hexadecimal digits.")
    ] = None,
    registry: Annotated[Path | None, typer.Option(help="Registry file: who may be in it.")] = None,
    decryptors: Annotated[
        Path | None,
        typer.Option(help="Registry file: who may be in the committee; default: --registry names them, too."),
    ] = None,
) -> None:
    """Verify the transcript of a round, offline; exit status 1 when anything in it is wrong."""
    from secagg import check_identity
    from secagg.kernels import usable_cpus
    from secagg.reports import show_oneshot_transcript, show_transcript
    from secagg.service import Registry
    from secagg.transcript import is_oneshot, verify_oneshot
    from secagg.transcript import verify as verify_transcript

    expected = None
    if server is not None:
        try:
            expected = check_identity(bytes.fromhex(server))
        except ValueError:
            raise ParameterError("--server: must be an identity, 64 hexadecimal digits") from None
    known = None if registry is None else Registry.load(registry).identities
    members = known if decryptors is None else Registry.load(decryptors, role="decryptor").identities
    told = {"server_known": expected is not None, "parties_known": known is not None}
    report: Report | OneShotReport
    with transcript.open("rb") as file:
        threads = usable_cpus()
        if is_oneshot(file):
            report = verify_oneshot(file, server=expected, known=known, decryptors=members, threads=threads)
            show_oneshot_transcript(report, Console(), **told)
        else:
            report = verify_transcript(file, server=expected, known=known, threads=threads)
            show_transcript(report, Console(), **told)
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="Example: secagg purge --store server.db --older-than 30")
def purge(
    *,
    store: Annotated[
        str, typer.Option(help="File (SQLite) or postgresql://USER:PASSWORD@HOST/NAME of a server.")
    ],
    older_than: Annotated[float, typer.Option(min=0, help="Days since the round ended.")] = 30.0,
    spool: Annotated[
        Path | None, typer.Option(help="Folder of uploads and sums; default: as `serve` has it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forget rounds that ended long ago, and their sums. What opened them is gone since each one's end."""
    from secagg.store.sql import Database, spool_of
    from secagg.store.sql import purge as purge_rounds

    if "://" not in store and not Path(store).exists():
        raise ParameterError(f"--store: there is no database {store}")
    with Database(store) as database:
        before = database.now() - older_than * _DAY_S
        rounds, sums = purge_rounds(database, spool_of(database, spool), before)
    if as_json:
        print(json.dumps({"rounds": rounds, "sums": sums}))  # noqa: T201 - for programs
    else:
        Console().print(f"forgot {rounds} rounds and {sums} sums; ledgers and the audit log stay")


# Typer's usage errors; their class is click's, which newer versions of Typer carry within themselves.
_UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does at the moment: an event loop then ends by itself, not cut off in the middle."""
    current = signal.getsignal(signal.SIGINT)
    if not callable(current):
        raise KeyboardInterrupt
    current(number, frame)


def run(application: typer.Typer, program: str) -> None:
    """Run a Typer application; an error becomes one line, never a traceback.

    Exit status 0: done; 1: what was looked at is not as it should be; 2: bad input; 3: bad luck, such as a
    server that cannot be reached or a round without result; 130: interrupted.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: what is open is closed
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
        sys.exit(getattr(error, "exit_status", 2))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(program: str, message: str) -> None:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - the command's own message


# Only now that Typer is known to be there.
from secagg.cli_audit import app as _audit  # noqa: E402
from secagg.cli_decrypt import decrypt as _decrypt  # noqa: E402
from secagg.cli_edge import edge as _edge  # noqa: E402
from secagg.cli_registry import add_to  # noqa: E402

app.command("decrypt")(_decrypt)
app.command("edge")(_edge)
app.add_typer(_audit, name="audit")
add_to(app)


def main() -> None:
    """Entry point of the command."""
    run(app, "secagg")


if __name__ == "__main__":
    main()
