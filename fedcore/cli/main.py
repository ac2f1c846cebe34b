"""The command line `fedcore`. One line and exit status 2 for bad input."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from fedcore.errors import needs

try:
    import typer
    from rich.console import Console

    if find_spec("msgspec") is None:
        raise ImportError("No module named 'msgspec'")  # noqa: TRY301 - loaded later, missed now
except ImportError as error:
    print(f"fedcore: {needs('this command', 'fedcore', error)}", file=sys.stderr)  # noqa: T201 - the command's own message
    sys.exit(2)

from fedcore.cli import models, service, tables
from fedcore.cli.account import account
from fedcore.cli.progress import Progress
from fedcore.cli.service import ClassesOption, LabelOption, classes_of
from fedcore.experiments.commands import add_commands
from secagg.cli import SETTINGS, VersionOption, run

app = typer.Typer(**SETTINGS)


@app.callback()
def _root(*, version: VersionOption = False) -> None:
    """Federated training under secure aggregation."""


@app.command()
def demo(
    *,
    dataset: Annotated[
        str, typer.Option(help="A named set, such as breast_cancer or digits.")
    ] = "breast_cancer",
    clients: Annotated[int | None, typer.Option(min=4, help="Hospitals; default 8, digits 10.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of training.")] = 12,
    drop: Annotated[
        str | None, typer.Option(help="[ROUND:]PHASE in which a process is killed, or none.")
    ] = None,
    kill_server: Annotated[
        bool,
        typer.Option("--kill-server", help="Kill the server, too, once in every phase, and start it again."),
    ] = False,
    protocol: Annotated[
        str,
        typer.Option(
            help="pairwise, or one-shot: sites speak once a round, some vanish then, a decryptor is killed."
        ),
    ] = "pairwise",
    suite: Annotated[
        str, typer.Option(help="x25519-mlkem768: what is recorded stays closed to quantum computers.")
    ] = "x25519",
    seed: Annotated[int, typer.Option(min=0, help="Of splits, training and rounding.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Folder: one table per hospital, and schema.toml, or schema.csv.")
    ] = None,
    label: LabelOption = None,
    classes: ClassesOption = None,
    out: Annotated[Path, typer.Option(help="Where the run's folder is made.")] = Path("runs"),
) -> None:
    """Train across hospitals, one of which is killed, and compare; every party is a process."""
    from fedcore.demo.report import print_result, write_report
    from fedcore.demo.run import DemoOptions, run_demo
    from secagg import Phase

    console = Console()
    options = DemoOptions(
        dataset=dataset,
        clients=clients if clients is not None else 10 if dataset == "digits" else 8,
        rounds=rounds,
        drop=None if protocol == "one-shot" and drop is None else _drop(drop, rounds),
        seed=seed,
        data=data,
        label=label,
        classes=classes_of(classes),
        out=out,
        kill_server=tuple(Phase) if kill_server else (),
        protocol=protocol,
        suite=suite,
    )
    with console.status("starting the processes") as status:
        shown = Progress(console, status)
        result = run_demo(options, shown.show)
        status.update("training the baselines")
        write_report(result)
    print_result(result, console)


def _drop(text: str | None, rounds: int) -> Any:  # noqa: ANN401 - Hold is imported late
    from fedcore.service.join import Hold

    if text == "none":
        return None
    from secagg import Phase

    text = text or Phase.MASKED_INPUT_COLLECTION.name.lower()
    return Hold.parse(text if ":" in text else f"{(rounds + 1) // 2}:{text}")


add_commands(app)
service.add_commands(app)
tables.add_commands(app)
models.add_commands(app)
app.command()(account)


def main() -> None:
    """Entry point of the command."""
    run(app, "fedcore")


if __name__ == "__main__":
    main()
