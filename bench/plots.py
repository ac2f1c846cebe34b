"""The plots of bench/README.md, made from the JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Report = dict[str, Any]


def draw(folder: Path) -> None:
    """Draw a PNG beside each JSON file that has a plot."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for name, plot in (("kernels", _kernels), ("phases", _phases), ("peers", _peers), ("scaling", _scaling)):
        path = folder / f"{name}.json"
        if path.exists():
            figure = plot(plt, json.loads(path.read_text(encoding="utf-8")))
            figure.tight_layout()
            figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
            plt.close(figure)


def _kernels(plt: Any, report: Report) -> Any:  # noqa: ANN401
    rows = [
        (f"{row['name']}, {row['threads']} thread(s)", row["median_ns"])
        for row in report["rows"]
        if "mask" in row["group"] or "AES" in row["group"]
    ]
    figure, axes = plt.subplots(figsize=(8, 5))
    axes.barh([name for name, _ in rows], [ns for _, ns in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ns per 32-bit entry and mask (less is better)")
    axes.set_title("Mask expansion and addition, and the AES issue limit")
    return figure


def _phases(plt: Any, report: Report) -> Any:  # noqa: ANN401
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True)
    for axes, side in zip(panels, ("client", "server"), strict=True):
        for graph in ("complete", "chosen"):
            for dropout in (0.0, 0.3):
                points = sorted(
                    (row["clients"], row[f"{side}_ms"]["median"])
                    for row in report["rows"]
                    if (row["length"], row["adversary"], row["graph"], row["dropout"])
                    == (100_000, "passive", graph, dropout)
                )
                if points:
                    label = f"ours, {graph}, {dropout:.0%} dropouts"
                    axes.plot(*zip(*points, strict=True), "o-", label=label)
        for dropout in (0.0, 0.3):
            points = [(e[1], e[7]) for e in report["published"] if (e[0], e[2]) == (side, dropout)]
            if points:
                axes.plot(*zip(*points, strict=True), "x--", label=f"CCS 2017, {dropout:.0%} dropouts")
        axes.set(xscale="log", yscale="log", xlabel="clients", title=f"{side}, d = 100 000, passive")
        axes.legend(fontsize=7)
    panels[0].set_ylabel("milliseconds, all phases")
    return figure


def _peers(plt: Any, report: Report) -> Any:  # noqa: ANN401
    rows = [(row["name"], row["stages"]["total"]) for row in (*report["ours"], *report["peers"])]
    figure, axes = plt.subplots(figsize=(8, 3.5))
    axes.barh([name for name, _ in rows], [seconds for _, seconds in rows])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="CPU seconds of the whole cohort and the server (log)")
    axes.set_title(f"n = {report['clients']}, d = {report['length']}")
    return figure


def _scaling(plt: Any, report: Report) -> Any:  # noqa: ANN401
    series = report["series"]
    figure, panels = plt.subplots(2, (len(series) + 1) // 2, figsize=(13, 6))
    for axes in panels.ravel()[len(series) :]:
        axes.axis("off")
    for axes, entry in zip(panels.ravel(), series, strict=False):
        axes.plot(entry["x"], entry["seconds"], "o-")
        side, _, name = entry["name"].partition(" against ")
        axes.set_title(
            side if entry["exponent"] is None else f"{side}: x^{entry['exponent']:.2f}", fontsize=9
        )
        axes.set_xlabel(name, fontsize=8)
        if entry["exponent"] is not None:
            axes.set(xscale="log", yscale="log")
    panels[0][0].set_ylabel("seconds")
    return figure
