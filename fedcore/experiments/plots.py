"""Plots of experiments, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from fedcore.evaluation.baselines import FEDERATED
from fedcore.experiments.results import (
    NAMES,
    Outcome,
    label_of,
    of_point,
    points,
    read_rounds,
)


def figure_with(columns: int) -> tuple[Any, Any]:
    """Return a figure on the Agg canvas and its axes, one beside the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4.5 * columns, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def plot_rounds(folder: Path, outcomes: Sequence[Outcome], metric: str, path: Path) -> bool:
    """Plot the metric by round, means over the seeds. Returns whether there was anything to plot."""
    figure, (axes,) = figure_with(1)
    drawn = False
    for point in points(outcomes):
        for mode in map(str, FEDERATED):
            series = [
                {
                    line["step"]: line[metric]
                    for line in read_rounds(folder, point, one.seed, mode)
                    if metric in line
                }
                for one in of_point(outcomes, point, mode)
            ]
            steps = sorted(set.intersection(*map(set, series))) if series else []
            if steps:
                label = ", ".join(filter(None, (NAMES[mode], label_of(outcomes, point))))
                values = [mean(one[step] for one in series) for step in steps]
                style = "-" if mode == "secure" else "--"
                axes.plot(steps, values, style, marker=".", label=label)
                drawn = True
    if drawn:
        for mode in ("local", "pooled"):
            found = [one.metrics[metric] for one in outcomes if one.mode == mode and metric in one.metrics]
            if found:
                axes.axhline(mean(found), color="gray", linewidth=1, linestyle=":")
                axes.annotate(NAMES[mode], (1, mean(found)), fontsize=7, va="bottom")
        axes.set(xlabel="round", ylabel=f"{metric} on held-out rows")
        axes.legend(fontsize=7)
        figure.savefig(path, dpi=120)
    return drawn


def plot_bytes(_folder: Path, outcomes: Sequence[Outcome], metric: str, path: Path) -> bool:
    """Plot the metric against bytes up over the points of a grid. Returns whether there was a grid."""
    found = {point: of_point(outcomes, point, "secure") for point in points(outcomes)}
    found = {p: [o for o in ones if metric in o.metrics] for p, ones in found.items()}
    found = {point: ones for point, ones in found.items() if ones}
    if len(found) < 2:
        return False
    figure, (axes,) = figure_with(1)
    for point, ones in found.items():
        sent = mean(one.upload_bytes for one in ones)
        value = mean(one.metrics[metric] for one in ones)
        axes.plot([sent], [value], "o")
        axes.annotate(label_of(outcomes, point), (sent, value), fontsize=7, va="bottom")
    axes.axvline(
        mean(one.float32_bytes for ones in found.values() for one in ones),
        color="gray",
        linewidth=1,
        linestyle=":",
        label="float32 in the clear",
    )
    axes.margins(0.15)
    axes.set(xlabel="bytes of a masked vector", ylabel=f"{metric} on held-out rows")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    return True
