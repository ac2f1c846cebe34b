"""Accuracy against bytes: bits, rotation and sparsification on two tasks.

Sums are taken in the clear by the same codec, which gives the same bits as the protocol (tested); bytes are
those of the packed vector, with the growth of the ring and without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as View

from fedcore.codec.clipping import AdaptiveClip
from fedcore.data import digits, dirichlet, hold_out, mnist_writers
from fedcore.data.schema import Schema
from fedcore.data.table import Table
from fedcore.evaluation.baselines import Mode, Trial, run
from fedcore.learner import flatten
from fedcore.learners import LocalSGD, Perceptron, SoftmaxRegression
from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.upload import plan_upload
from fedcore.strategies import FedAvg

ASK = Asks(weighting=Weighting.UNIFORM)


@dataclass(frozen=True, slots=True)
class Bed:
    """A task to try codecs on."""

    name: str
    rows: dict[str, Table]
    test: Table
    schema: Schema | None
    learner: LocalSGD
    rounds: int
    cohort: int | None = None
    classes: tuple[str, ...] = tuple("0123456789")


def beds(*, quick: bool) -> list[Bed]:
    """Digits with a perceptron, writers with softmax regression."""
    data = digits()
    train, test = hold_out(data.table, 0.25, 0)
    tables = dirichlet(train.labels, 10, 0.3, 0, minimum_rows=10).tables(train)
    perceptron = LocalSGD(model=Perceptron(64, 10, hidden=(64,)), epochs=2, batch_size=16, rate=0.05)
    found = [Bed("digits", tables, test, data.schema, perceptron, 3 if quick else 50)]
    if not quick:
        writers = mnist_writers()
        softmax = LocalSGD(model=SoftmaxRegression(784, 10), epochs=1, batch_size=10, rate=0.1)
        by_writer = writers.train_by_writer.tables(writers.train)
        found.append(Bed("writers", by_writer, writers.test, None, softmax, 60, 60))
    return found


def codecs(*, quick: bool) -> list[tuple[str, dict[str, Any]]]:
    """Name and options of the plans that are compared."""
    bits = (2, 8) if quick else (1, 2, 3, 4, 6, 8, 12, 16)
    found: list[tuple[str, dict[str, Any]]] = [(f"{b} bits", {"bits": b}) for b in bits if b > 2]
    found += [(f"{b} bits, rotated", {"bits": b, "rotate": True}) for b in bits]
    found += [("8 bits, rotated, a quarter", {"bits": 8, "rotate": True, "keep": 0.25})]
    return found


def measure(bed: Bed, options: dict[str, Any] | None) -> dict[str, float]:
    """Train; returns accuracy, and bytes a value; no options: in real numbers."""
    plan = TrainingPlan(
        rounds=bed.rounds,
        clients=bed.cohort or len(bed.rows),
        norm=AdaptiveClip(norm=2.0, quantile=0.9),
        weight_cap=1000,
        standardize=bed.schema is not None,
        cohort=bed.cohort,
        **(options or {}),
    )
    trial = Trial(
        rows=bed.rows,
        held_out=(bed.test,),
        schema=bed.schema,
        learner=bed.learner,
        plan=plan,
        strategy=FedAvg(ask=ASK),
        classes=bed.classes,
    )
    found = run(trial, Mode.PLAIN if options is None else Mode.QUANTIZED)
    metrics, size = found.metrics, flatten(bed.learner.initial()).size
    upload = plan_upload(plan, ASK, size)
    return {
        "accuracy": metrics["accuracy"],
        "bytes_per_value": 4.0 if options is None else upload.bytes_per_value,
        "net_bytes_per_value": 4.0 if options is None else upload.net_bytes_per_value,
        "ring_bits": 32.0 if options is None else float(upload.ring_bits),
    }


def main(
    console: Console, *, quick: bool = False, show: Callable[[str], None] = lambda _line: None
) -> list[dict[str, Any]]:
    """Print the table; returns its rows."""
    rows: list[dict[str, Any]] = []
    for bed in beds(quick=quick):
        tried: list[tuple[str, dict[str, Any] | None]] = [("float32", None), *codecs(quick=quick)]
        for name, options in tried:
            rows.append({"task": bed.name, "codec": name, **measure(bed, options)})
            show(f"{bed.name}, {name}: {rows[-1]['accuracy']:.4f}")
    view = View(title="accuracy against bytes")
    for column in ("task", "codec", "ring bits", "bytes a value", "net", "accuracy"):
        view.add_column(column)
    for row in rows:
        view.add_row(
            row["task"],
            row["codec"],
            f"{row['ring_bits']:.0f}",
            f"{row['bytes_per_value']:.3f}",
            f"{row['net_bytes_per_value']:.3f}",
            f"{row['accuracy']:.4f}",
        )
    console.print(view)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against bytes a value, one panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = sorted({row["task"] for row in rows})
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        mine = [row for row in rows if row["task"] == name]
        for label, wanted in (("rotated", True), ("plain", False)):
            points = sorted(
                (row["bytes_per_value"], row["accuracy"])
                for row in mine
                if ("rotated" in row["codec"]) == wanted and row["codec"] != "float32"
            )
            axis.plot(*zip(*points, strict=True), marker="o", label=label)
        whole = next(row["accuracy"] for row in mine if row["codec"] == "float32")
        axis.axhline(whole, linestyle="--", color="gray", linewidth=1, label="real numbers")
        axis.set(title=name, xlabel="bytes a value uploaded", ylabel="accuracy")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
