"""The commands about rows: `fedcore init`, `fedcore schema`, `fedcore check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as Lines
from rich.text import Text

from fedcore.cli.service import ClassesOption, LabelOption, SchemaOption, TrainingOption, classes_of

if TYPE_CHECKING:
    from fedcore.data.check import Findings

_SHOWN = 20  # faults


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(init)
    app.command()(schema)
    app.command()(check)


def init(
    folder: Annotated[Path, typer.Argument(help="New or empty folder.")],
) -> None:
    """Write a sample set: five hospitals, a schema, an agreement, and a README that leads to a model in use.

    Example: fedcore init trial
    """
    from fedcore.data.sample import write_sample

    write_sample(folder)
    Console().print(
        f"written to {folder}: go on as {folder / 'README.md'} says", soft_wrap=True, markup=False
    )


def schema(
    rows: Annotated[Path, typer.Argument(help="CSV file with a header.")],
    *,
    label: Annotated[str, typer.Option(help="Column to be predicted.")],
    id_column: Annotated[str | None, typer.Option("--id", help="Column of persons.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; printed if it is not given.")] = None,
) -> None:
    """Draft a schema from a file, to be edited before it is shared: bounds are rounded outward.

    Example: fedcore schema rows.csv --label outcome --id patient --out schema.toml
    """
    from fedcore.data.draft import draft

    text = draft(rows, label, id_column)
    if out is None:
        print(text)  # noqa: T201 - the result
        return
    with out.open("x", encoding="utf-8") as file:
        file.write(text)
    Console().print(
        f"written to {out}: read it, edit the bounds, then share it", soft_wrap=True, markup=False
    )


def check(
    rows: Annotated[Path, typer.Argument(help="This party's rows (.csv, .parquet, .npz).")],
    *,
    schema: SchemaOption,
    training: TrainingOption = None,
    label: LabelOption = None,
    classes: ClassesOption = None,
    answers: Annotated[
        bool, typer.Option("--label-column/--no-label-column", help="Whether the file has the label.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a file has, what the schema's rules do, and all that is wrong. Exit status 1: something is.

    Shows values of this party's rows: it is for this party's eyes.
    Example: fedcore check rows.csv --schema schema.toml --training agreement.toml
    """
    from fedcore.data.check import look
    from fedcore.data.files import inspect
    from fedcore.data.schema import Schema
    from fedcore.rounds.agreement import Agreement

    columns = Schema.load(schema, classes_of(classes))
    cap = None
    if training is not None:
        cap = Agreement.load(training).tried(columns).plan.weight_cap
    reading = inspect(rows, columns, columns.label_column(label), answers=answers)
    found = look(reading, columns, cap, answers=answers)
    if as_json:
        print(json.dumps(found.to_json()))  # noqa: T201 - the result
    else:
        _show(found, Console())
    if found.reading.faults or not len(found.reading.table):
        raise typer.Exit(1)


def _show(found: Findings, console: Console) -> None:
    def say(text: str, style: str | None = None) -> None:
        console.print(Text(text), style=style, soft_wrap=True)

    reading = found.reading
    say(f"{reading.source}: {reading.rows} rows, {len(reading.table)} can be used")
    for line in (*found.facts, *reading.rules()):
        say(f"  {line}")
    for warning in found.warnings:
        say(f"  note: {warning}", "yellow")
    if not reading.faults:
        return
    table = Lines(
        "line" if reading.faults[0].lines else "row",
        "column",
        "rows",
        "values",
        "what is wrong",
        "what helps",
    )
    for fault in reading.faults[:_SHOWN]:
        place = fault.lines or fault.rows
        where = ", ".join(map(str, place[:3])) + (" ..." if len(place) > 3 else "")
        cells: tuple[Any, ...] = (where, fault.column, len(place), ", ".join(map(repr, fault.values)))
        table.add_row(*(Text(str(cell), overflow="fold") for cell in (*cells, fault.problem, fault.cure)))
    console.print(table)
    if len(reading.faults) > _SHOWN:
        say(f"and {len(reading.faults) - _SHOWN} more")
