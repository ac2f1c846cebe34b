"""report.md and report.png of a run that was served: how good it is, who took part, what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedcore.history import read_history
from fedcore.rounds.agreement import Run

Event = dict[str, Any]
REPORT, PLOT = "report.md", "report.png"


def write_report(out: Path, run: Run, names: Collection[str] = ()) -> tuple[Path, ...]:
    """Write both files beside a run's history; returns their paths. names: of all sites."""
    events = list(read_history(out / "history.jsonl"))
    done = [event for event in events if event["event"] == "round" and event["completed"]]
    drawn = _plot(out / PLOT, done)
    text = "\n".join(_lines(events, done, run, names, drawn=drawn))
    (out / REPORT).write_text(text + "\n", encoding="utf-8")
    return (out / REPORT, out / PLOT) if drawn else (out / REPORT,)


def _lines(
    events: Sequence[Event], done: Sequence[Event], run: Run, names: Collection[str], *, drawn: bool
) -> Iterator[str]:
    last = next((event for event in reversed(events) if event["event"] == "finished"), None)
    yield "# Federated training"
    yield ""
    if last is not None:
        why = f": {last['reason']}" if "reason" in last else ""
        yield f"- {last['rounds']} of {last['planned']} rounds{why}"
    yield f"- agreement {run.digest.hex()}, {len(run.members)} members, {len(run.schema.columns)} columns"
    yield f"- {events[0]['at']} to {events[-1]['at']} (UTC)"
    spent = [event["epsilon"] for event in done if "epsilon" in event]
    if spent:
        yield f"- privacy spent: epsilon {spent[-1]:.4g}"
    without = sum(event["event"] == "round" and not event["completed"] for event in events)
    yield f"- {len(done)} sums, {without} attempts without a result"
    for text in dict.fromkeys(event["text"] for event in events if event["event"] == "warning"):
        yield f"- WARNING: {text}"
    yield from _evaluations(done)
    if drawn:
        yield from ("", f"![metrics and bytes by round]({PLOT})")
    yield from _participation(done, names)
    yield from (
        "",
        "## Sums",
        "",
        "| sum | sites | rows | bytes up | bytes down | seconds |",
        "|---|---|---|---|---|---|",
    )
    for event in done:
        counts = (event["bytes_up"], event["bytes_down"], event["seconds"])
        yield (
            f"| {event['task']} | {len(event['survivors'])} | {event['weight']} | "
            + " | ".join(map(str, counts))
            + " |"
        )
    yield from _troubles(events)


def _evaluations(done: Sequence[Event]) -> Iterator[str]:
    found = [event for event in done if event.get("metrics")]
    if not found:
        yield "- not evaluated: plan.evaluate_every, or [evaluation] overall, and sites with --held-out"
        return
    names = list(dict.fromkeys(name for event in found for name in event["metrics"]))
    yield from ("", "## How good it is", "", f"| after | {' | '.join(names)} | held-out rows |")
    yield "|---" * (len(names) + 2) + "|"
    for event in found:
        values = (_number(event["metrics"].get(name)) for name in names)
        yield f"| {event['task']} | {' | '.join(values)} | {event.get('rows', '')} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _participation(done: Sequence[Event], names: Collection[str]) -> Iterator[str]:
    counts = Counter(name for event in done if event["kind"] == "train" for name in event["survivors"])
    total = sum(event["kind"] == "train" for event in done)
    yield from ("", "## Who took part", "", f"| site | of {total} training sums |", "|---|---|")
    yield from (f"| {name} | {counts[name]} |" for name in sorted({*names, *counts}))


def _troubles(events: Sequence[Event]) -> Iterator[str]:
    said = Counter(
        f"{event['task']}: {event.get('reason', '')}"
        if event["event"] == "round"
        else f"{event['client']}: {event['reason']}: {event['detail']}"
        for event in events
        if event["event"] == "refused" or (event["event"] == "round" and not event["completed"])
    )
    if said:
        yield from ("", "## What went wrong", "")
        for text, count in said.items():
            line = " ".join(text.split()).replace("<", "&lt;")
            yield f"- {line}" + (f" ({count} times)" if count > 1 else "")


def _plot(path: Path, done: Sequence[Event]) -> bool:
    """Draw metrics of evaluations and bytes up of a site, by round; returns whether there is anything."""
    trained = [event for event in done if event["kind"] == "train"]
    found = [event for event in done if event["kind"] == "evaluate" and event.get("metrics")]
    if not trained:
        return False
    from fedcore.experiments.plots import figure_with

    figure, axes = figure_with(2 if found else 1)
    if found:
        for name in dict.fromkeys(name for event in found for name in event["metrics"]):
            points = [(event["number"], event["metrics"].get(name)) for event in found]
            known = [(number, value) for number, value in points if value is not None]
            if known:
                axes[0].plot(*zip(*known, strict=True), marker="o", label=name)
        axes[0].set(xlabel="round", ylabel="on held-out rows of all sites")
        axes[0].legend(fontsize=7)
    up = [event["bytes_up"] / len(event["survivors"]) / 1000 for event in trained]
    axes[-1].plot([event["number"] for event in trained], up, marker="o")
    axes[-1].set(xlabel="round", ylabel="kB up per site, all phases", ylim=(0, None))
    figure.savefig(path, dpi=120)
    return True
