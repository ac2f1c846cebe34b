"""report.md and report.png of a demonstration, and what the terminal shows."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from fedcore.demo.checks import completed_rounds
from fedcore.demo.run import DemoResult, accuracy_by_round
from fedcore.evaluation.baselines import Mode

_FLOAT32_BYTES = 4
_FEDERATED = {
    "federated, secure": Mode.SECURE,
    "federated, in the clear": Mode.QUANTIZED,
    "pooled": Mode.POOLED,
}
_SHOWN = 6  # words of an upload, so that a line fits a terminal


def comparison_rows(result: DemoResult) -> list[tuple[str, float, float]]:
    """(who, accuracy, AUC) on the same held-out rows."""
    local = result.comparison[Mode.LOCAL]
    rows = {"each hospital alone, mean": local.metrics, "each hospital alone, worst": local.worst}
    rows |= {name: result.comparison[mode].metrics for name, mode in _FEDERATED.items()}
    return [(name, metrics["accuracy"], metrics["auc"]) for name, metrics in rows.items()]


def summary_lines(result: DemoResult) -> list[str]:
    """Sentences with the figures of the run."""
    rows = {name: (accuracy, area) for name, accuracy, area in comparison_rows(result)}
    secure, pooled = rows["federated, secure"], rows["pooled"]
    alone, worst = rows["each hospital alone, mean"], rows["each hospital alone, worst"]
    over = [f"{secure[i] - other[i]:+.3f}" for other in (alone, worst) for i in (0, 1)]
    identical = "equals" if result.identical else "differs from"
    lines = [
        (
            f"Federated against alone: accuracy {over[0]}, AUC {over[1]} over the mean hospital; "
            f"{over[2]}, {over[3]} over the worst."
        ),
        f"Federated against pooled: AUC {secure[1] - pooled[1]:+.4f}.",
        (
            f"{result.checked_sums} secure sums equal the sums of the sites' quantized updates, "
            f"element by element; the final model {identical} that of the same training in the clear."
        ),
    ]
    if result.transcripts:
        lines.append(
            f"{result.transcripts} transcripts verify offline, each with its sum recomputed bit for bit."
        )
    if result.near:
        lines.append(f"{', '.join(result.near)}: their uploads came through an edge, as one sum.")
    if result.vanishing:
        lines.append(
            f"{', '.join(result.vanishing)}: gone after every upload, a new process for the next; "
            f"{result.lost} was killed for good."
        )
    if result.victim is not None:
        lines.append(f"{result.victim} was killed and came back; {_after_kill(result)}.")
    return lines


def _after_kill(result: DemoResult) -> str:
    killed = next(
        (i for i, e in enumerate(result.events) if e["event"] == "killed" and e["client"] == result.victim),
        None,
    )
    if killed is None:
        return "no kill happened"
    later = completed_rounds(result.events[killed:])
    back = next((e["task"] for e in later[1:] if result.victim in e["survivors"]), "no later round")
    failed = sum(e["event"] == "round" and not e["completed"] for e in result.events)
    return f"rounds without a result: {failed}; it took part again from {back} on"


def print_result(result: DemoResult, console: Console) -> None:
    """Table, panel and sentences."""
    table = Table(title=f"{result.setting.name}: {len(result.setting.held_out)} held-out rows")
    table.add_column("training")
    table.add_column("accuracy", justify="right")
    table.add_column("AUC", justify="right")
    for name, accuracy, area in comparison_rows(result):
        table.add_row(name, f"{accuracy:.3f}", f"{area:.4f}")
    console.print(table)
    client, seen, hidden = result.seen
    words = "\n".join(
        f"{label:<14}" + "".join(f"{value:>10}" for value in values[:_SHOWN])
        for label, values in (("masked upload", seen), ("hides update", hidden))
    )
    console.print(Panel(words, title=f"what the server saw of {client}", expand=False), highlight=False)
    for line in summary_lines(result):
        console.print(line, highlight=False)
    console.print(f"{result.folder}: report.md, report.png, history.jsonl ({result.seconds:.0f} s)")


def write_report(result: DemoResult) -> None:
    """Write report.md and report.png into the run's folder."""
    _plot(result)
    client, seen, hidden = result.seen
    lines = [f"# Federated training on {result.setting.name}", ""]
    lines += [f"- {line}" for line in summary_lines(result)]
    lines += ["", "| training | accuracy | AUC |", "|---|---|---|"]
    lines += [f"| {name} | {accuracy:.3f} | {area:.4f} |" for name, accuracy, area in comparison_rows(result)]
    lines += ["", "| site | rows | share of each class |", "|---|---|---|"]
    for name, rows in result.setting.tables.items():
        shares = (f"{(rows.labels == i).mean():.2f}" for i in range(len(result.setting.schema.classes)))
        lines.append(f"| {name} | {len(rows)} | {' / '.join(shares)} |")
    lines += ["", f"## What the server saw of {client}", ""]
    lines += [f"- masked upload: {seen} ...", f"- quantized update that it hides: {hidden} ..."]
    lines += ["", "## Rounds", "", "| round | survivors | bytes up | bytes down | seconds |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {event['task']} | {len(event['survivors'])} | {event['bytes_up']} | {event['bytes_down']} "
        f"| {event['seconds']} |"
        for event in completed_rounds(result.events)
    ]
    lines += ["", "![accuracy and bytes per round](report.png)", ""]
    (result.folder / "report.md").write_text("\n".join(lines), encoding="utf-8")


def _plot(result: DemoResult) -> None:
    """Accuracy by round with the drop marked; bytes up per site against plain float32."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rounds = [event for event in completed_rounds(result.events) if event["kind"] == "train"]
    numbers = [event["number"] for event in rounds]
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(numbers, accuracy_by_round(result), marker="o", label="federated, secure")
    for name, accuracy, _area in comparison_rows(result):
        if name.startswith(("each hospital alone, mean", "pooled")):
            left.axhline(accuracy, linestyle="--", linewidth=1, color="gray")
            left.annotate(name, (numbers[-1], accuracy), fontsize=8, va="bottom", ha="right")
    if (dropped := _drop_number(result.events)) is not None:
        left.axvline(dropped, color="tab:red", linewidth=1, label=f"{result.victim} killed")
    left.margins(y=0.1)
    left.set(xlabel="round", ylabel="accuracy on held-out rows")
    left.legend(fontsize=8, loc="lower right")
    up = [event["bytes_up"] / len(event["survivors"]) for event in rounds]
    plain = [_FLOAT32_BYTES * event["vector_length"] for event in rounds]
    right.plot(numbers, up, marker="o", label="secure, all phases")
    right.plot(numbers, plain, linestyle="--", label="plain float32")
    right.set(xlabel="round", ylabel="bytes up per survivor", yscale="log")
    right.legend(fontsize=8)
    figure.savefig(result.folder / "report.png", dpi=120)


def _drop_number(events: list[dict[str, Any]]) -> int | None:
    """Return the training round in which a process was killed."""
    for i, event in enumerate(events):
        if event["event"] == "killed":
            later = (e for e in events[i:] if e["event"] == "round" and e["kind"] == "train")
            return next((int(e["number"]) for e in later), None)
    return None
