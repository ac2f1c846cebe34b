"""report.md and the terminal's tables of an experiment, from what its folder has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from fedcore.evaluation.baselines import FEDERATED
from fedcore.evaluation.metrics import lower_is_better
from fedcore.experiments.results import (
    MODES,
    NAMES,
    Outcome,
    label_of,
    of_point,
    points,
    read_outcomes,
)
from fedcore.history import read_history

_WORST = "each site alone, worst"
_SHORT = {mode: mode for mode in MODES} | {"local": "local mean", _WORST: "local worst"}
HEAD = ("training", "", "rounds", "masked vector", "bytes up", "bytes down", "float32", "epsilon", "seconds")


def settings(folder: Path) -> tuple[str, str]:
    """Return name and metric of the experiment."""
    first = next(read_history(folder / "results.jsonl"))
    return str(first["name"]), str(first["metric"])


def table_rows(
    outcomes: Sequence[Outcome], point: int, metric: str, names: Mapping[str, str] = NAMES
) -> list[tuple[str, ...]]:
    """Return the comparison at one point: a row for each mode, means over the seeds, as HEAD says."""
    rows: list[tuple[str, ...]] = []
    for mode in MODES:
        found = of_point(outcomes, point, mode)
        ended = [one for one in found if metric in one.metrics]
        if not found:
            continue
        rows.append(_row(names[mode], [one.metrics[metric] for one in ended], found))
        worst = [one.worst[metric] for one in found if metric in one.worst]
        if worst:
            rows.append((names.get(_WORST, _WORST), spread(worst), *[""] * (len(HEAD) - 2)))
    return rows


def _row(name: str, values: list[float], found: list[Outcome]) -> tuple[str, ...]:
    federated, secure = found[0].mode in FEDERATED, found[0].mode == "secure"
    epsilons = [one.epsilon for one in found if one.epsilon is not None]
    return (
        name,
        spread(values),
        _number([one.rounds for one in found]),
        _number([one.upload_bytes for one in found]) if secure else "",
        _number([one.bytes_up for one in found]) if secure else "",
        _number([one.bytes_down for one in found]) if secure else "",
        _number([one.float32_bytes for one in found]) if federated else "",
        f"{max(epsilons):.3g}" if epsilons else "",
        f"{mean(one.seconds for one in found):.2f}",
    )


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation over the seeds."""
    if not values:
        return "-"
    return f"{mean(values):.4f} ± {pstdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def _number(values: Sequence[float]) -> str:
    return f"{mean(values):.0f}"


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what went wrong, and what stopped early."""
    out = []
    for one in outcomes:
        where = f"{NAMES[one.mode]}, seed {one.seed}" + (f", {one.changes}" if one.changes else "")
        if one.failure:
            out.append(f"{where}: ended after round {one.rounds}: {one.failure}")
        elif one.stopped:
            out.append(f"{where}: stopped after round {one.rounds}: {one.stopped}")
    return out


def equal_models(outcomes: Sequence[Outcome]) -> str | None:
    """Say whether secure training and the same arithmetic in the clear ended in the same parameters."""
    models: dict[str, dict[tuple[int, int], str]] = {
        mode: {(one.point, one.seed): one.digest for one in outcomes if one.mode == mode}
        for mode in ("quantized", "secure")
    }
    both = models["quantized"].keys() & models["secure"].keys()
    if not both:
        return None
    equal = sum(models["quantized"][key] == models["secure"][key] for key in both)
    return (
        f"{equal} of {len(both)} secure models equal those of the quantized sums in the clear, bit for bit."
    )


def write_report(folder: Path) -> Path:
    """Write report.md, accuracy.png and, with a grid, bytes.png; return the report's path."""
    from fedcore.experiments.plots import plot_bytes, plot_rounds

    name, metric = settings(folder)
    outcomes = read_outcomes(folder)
    seeds = sorted({one.seed for one in outcomes})
    lines = [f"# {name}", "", f"Metric: {metric} on common held-out rows; mean ± standard deviation over "]
    lines[-1] += f"{len(seeds)} seed{'s' * (len(seeds) > 1)}."
    lines += [
        "Bytes: for each survivor and training round. Masked vector: as planned; up and down: measured,"
    ]
    lines += ["all phases of the protocol, without the model that the task carries; float32: the update"]
    lines += ["in the clear."]
    for point in points(outcomes):
        label = label_of(outcomes, point)
        lines += ["", *([f"## {label}", ""] if label else [])]
        lines += _markdown((HEAD[0], metric, *HEAD[2:]), table_rows(outcomes, point, metric))
    notes = [*failures(outcomes), *([said] if (said := equal_models(outcomes)) else [])]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    plots: list[tuple[str, Callable[..., bool]]] = [("accuracy", plot_rounds), ("bytes", plot_bytes)]
    for file, plot in plots:
        if plot(folder, outcomes, metric, folder / f"{file}.png"):
            lines += ["", f"![{metric}: {file}]({file}.png)"]
    path = folder / "report.md"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def print_report(folder: Path, console: Any) -> None:  # noqa: ANN401 - rich's Console
    """Print the tables and notes on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import JustifyMethod
    from rich.table import Table

    name, metric = settings(folder)
    outcomes = read_outcomes(folder)
    better = "lower" if lower_is_better(metric) else "higher"
    for point in points(outcomes):
        title = ": ".join(filter(None, (name, label_of(outcomes, point))))
        table = Table(
            title=title,
            caption=f"{metric}: {better} is better",
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for head in (HEAD[0], metric, *HEAD[2:-1]):
            side: JustifyMethod = "left" if head == HEAD[0] else "right"
            table.add_column(head, justify=side, no_wrap=" " not in head)
        for row in table_rows(outcomes, point, metric, _SHORT):
            table.add_row(*row[:-1])
        console.print(table)
    for note in failures(outcomes):
        console.print(note, highlight=False, markup=False)
