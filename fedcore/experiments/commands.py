"""The commands `fedcore run`, `fedcore convergence` and `fedcore plan`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from fedcore.experiments.usual import CLIP, KEEP, PLAN, WEIGHTING
from secagg import ParameterError

OutOption = Annotated[Path, typer.Option(help="Where the run's folder is made.")]
_EVERY_S = 10.0  # between two lines of progress, without a terminal
Number = TypeVar("Number", int, float)


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(name="run")(run)
    app.command()(convergence)
    app.command(name="plan")(upload)


def run(
    experiment: Annotated[Path, typer.Argument(help="Experiment file (TOML).")],
    *,
    out: OutOption = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="Go on in this folder of an interrupted run of the same file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Run an experiment: every point of its grid and every seed; report.md compares.

    Exit status 1: a run ended with an error of its own, such as a budget that was used up.
    """
    from fedcore.experiments.config import load_experiment
    from fedcore.experiments.report import print_report, write_report
    from fedcore.experiments.results import read_outcomes
    from fedcore.experiments.run import check_tools, new_folder, run_experiment

    read = load_experiment(experiment)
    if resume is not None and not resume.is_dir():
        raise ParameterError(f"--resume: must name a folder, {resume} is none")
    check_tools(read)
    folder = new_folder(out) if resume is None else resume
    console = Console(stderr=as_json)
    console.print(f"in {folder} (after an interruption: --resume {folder})", highlight=False, soft_wrap=True)
    with console.status("loading") as status:
        shown = _Shown(read.metric, console, status)
        run_experiment(read, folder, _print_json if as_json else shown.show)
    report = write_report(folder)
    if as_json:
        if any(outcome.failure for outcome in read_outcomes(folder)):
            raise typer.Exit(1)
        return
    print_report(folder, console)
    console.print(f"{report}: report; results.jsonl beside it", highlight=False, soft_wrap=True)
    if any(outcome.failure for outcome in read_outcomes(folder)):
        raise typer.Exit(1)  # the table says which and why


def _print_json(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)  # noqa: T201 - the result


class _Shown:
    """A line for each point and outcome; rounds in the status line, or every few seconds without one."""

    def __init__(self, metric: str, console: Console, status: Any) -> None:  # noqa: ANN401 - rich's
        self._metric, self._console, self._status = metric, console, status
        self._last = time.monotonic()

    def show(self, event: dict[str, Any]) -> None:
        """Show an event of `run_experiment`."""
        match event["event"]:
            case "cell":
                label = f"{event['label']}, " if event["label"] else ""
                self._line(f"{label}seed {event['seed']}, {event['sites']} sites")
            case "result":
                shown = self._value(event["metrics"]) or "no model"
                seconds = f"{event['seconds']:.1f} s"
                self._line(f"  {event['mode']:<10}{shown}  {seconds}  {event['failure']}".rstrip())
            case _:
                text = f"{event['mode']}: round {event['number']}/{event['rounds']}  {self._value(event)}"
                self._status.update(text)
                if not self._console.is_terminal and time.monotonic() - self._last > _EVERY_S:
                    self._line(f"  {text}")

    def _value(self, metrics: dict[str, Any]) -> str:
        value = metrics.get(self._metric)
        return "" if value is None else f"{self._metric} {value:.4f}"

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def convergence(
    *,
    clients: Annotated[str, typer.Option(help="Numbers of sites; the first while others vary.")] = "10,5,20",
    alpha: Annotated[str, typer.Option(help="Dirichlet concentrations: small is unlike.")] = "1,0.1,100",
    dropout: Annotated[str, typer.Option(help="Shares that drop out of every round.")] = "0.1,0,0.2",
    bits: Annotated[str, typer.Option(help="Bits of a value.")] = "8,4,16",
    target: Annotated[float, typer.Option(help="Accuracy on held-out rows to reach.")] = 0.9,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at most.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds that means are taken over.")] = 1,
    dataset: Annotated[str, typer.Option(help="A set that an experiment file may name.")] = "digits",
    strategy: Annotated[str, typer.Option(help="A strategy without options of its own.")] = "FedAvg",
    rate: Annotated[float, typer.Option(help="Local learning rate.")] = 0.05,
    out: OutOption = Path("runs"),
) -> None:
    """Measure rounds and bytes to a target accuracy, one setting varied at a time."""
    from fedcore.experiments.convergence import Study, plot_study, print_study, run_study
    from fedcore.experiments.run import new_folder

    study = Study(
        clients=_numbers("clients", clients, int),
        alpha=_numbers("alpha", alpha, float),
        dropout=_numbers("dropout", dropout, float),
        bits=_numbers("bits", bits, int),
        target=target,
        rounds=rounds,
        seeds=tuple(range(seeds)),
        dataset=dataset,
        strategy=strategy,
        rate=rate,
    )
    study.check()
    folder = new_folder(out)
    console = Console()
    with console.status("training") as status:
        results = run_study(study, folder, lambda one: status.update(f"{one.varied}: {one.rounds:g} rounds"))
    plot_study(study, results, folder / "convergence.png")
    print_study(study, results, console)
    console.print(f"{folder}: convergence.jsonl, convergence.png", highlight=False, soft_wrap=True)


def _numbers(name: str, text: str, kind: type[Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(one) for one in text.split(","))
    except ValueError:
        raise ParameterError(f"--{name}: must be numbers with commas between, is {text!r}") from None


def upload(
    *,
    parameters: Annotated[int, typer.Option(min=1, help="Parameters of the model.")],
    clients: Annotated[int, typer.Option(min=1, help="Sites of a sum at most.")],
    bits: Annotated[int, typer.Option(help="Bits of a rounded value.")] = PLAN["bits"],
    weighting: Annotated[str, typer.Option(help="rows or uniform.")] = WEIGHTING,
    weight_cap: Annotated[int, typer.Option(min=1, help="Most rows that count for a site.")] = PLAN[
        "weight_cap"
    ],
    clip: Annotated[float, typer.Option(help="Largest change of a parameter in a round.")] = CLIP,
    norm: Annotated[
        float | None, typer.Option(help="L2 norm of an update; with --epsilon 1, if not given.")
    ] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Rotate before rounding.")] = False,
    keep: Annotated[float, typer.Option(help="Share of the coordinates that are sent.")] = KEEP,
    epsilon: Annotated[float | None, typer.Option(help="Privacy of all rounds together.")] = None,
    delta: Annotated[float, typer.Option(help="Belongs to --epsilon.")] = 1e-5,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that share the privacy.")] = PLAN["rounds"],
    smallest: Annotated[
        int | None, typer.Option(help="Fewest survivors, for --epsilon; default: 90 % of the clients.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print what a client uploads in a training round."""
    from fedcore.experiments import upload as planning
    from fedcore.privacy.plan import PrivacyPlan
    from fedcore.rounds.instructions import Weighting
    from fedcore.rounds.plan import TrainingPlan
    from fedcore.settings import convert

    privacy = None
    if epsilon is not None:
        fewest = max(1, int(0.9 * clients)) if smallest is None else smallest
        privacy = PrivacyPlan(epsilon=epsilon, delta=delta, rounds=rounds, smallest=fewest)
    plan = TrainingPlan(
        rounds=rounds,
        clients=clients,
        weight_cap=weight_cap,
        clip=clip,
        bits=bits,
        norm=None if norm is None and privacy is None else 1.0 if norm is None else norm,
        rotate=rotate,
        keep=keep,
        privacy=privacy,
    )
    planned = planning.upload(plan, convert(weighting, Weighting, "weighting"), parameters)
    console = Console()
    if as_json:
        console.print_json(json.dumps(planning.as_json(planned)))
    else:
        planning.show(planned, console)
