"""The command `fedcore account`: what a site has spent of its privacy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def account(
    file: Annotated[Path, typer.Argument(help="File of the account (join --account).")],
    *,
    training: Annotated[
        Path | None, typer.Option(help="Training file with a budget: also say what is left of it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Say what a site has spent of its privacy, over all runs with this account.

    Example: fedcore account hospital-1.account --training agreement.toml
    """
    from fedcore.errors import DataError
    from fedcore.privacy.guard import read_account
    from fedcore.rounds.agreement import ANY_NUMBER, Agreement

    spent = read_account(file)
    said = {"epsilon": spent.epsilon, "delta": spent.delta, "sums": spent.rounds}
    if training is not None:
        privacy = Agreement.load(training).make_plan(ANY_NUMBER).privacy
        if privacy is None:
            raise DataError(f"{training}: has no [privacy]")
        if privacy.delta != spent.delta:
            raise DataError(f"{training}: is for delta {privacy.delta}, the account for {spent.delta}")
        said["budget"] = privacy.epsilon
    if as_json:
        print(json.dumps(said))  # noqa: T201 - the result
        return
    console = Console()
    console.print(
        f"{spent.rounds} noisy sums: epsilon {spent.epsilon:.4g} at delta {spent.delta:g}", highlight=False
    )
    console.print("counted with the fewest sites in a sum, and every attempt: a server may say less")
    if "budget" in said:
        left = max(0.0, said["budget"] - spent.epsilon)
        console.print(f"of epsilon {said['budget']:g}, {left:.4g} are left", highlight=False)
