"""The commands about finished models: `fedcore predict`, `fedcore model show|export|compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Lines
from rich.text import Text

from fedcore.cli.service import LabelOption

ModelArgument = Annotated[Path, typer.Argument(help="File of a model (safetensors).")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(predict)
    model = typer.Typer(no_args_is_help=True, help="What a model is, for other tools, and beside another.")
    model.command()(show)
    model.command()(export)
    model.command()(compare)
    app.add_typer(model, name="model")


def predict(
    model: ModelArgument,
    rows: Annotated[Path, typer.Argument(help="Rows (.csv, .parquet, .npz); labels are not needed.")],
    *,
    out: Annotated[Path, typer.Option(help="CSV file to write, a line for each row.")] = Path(
        "predictions.csv"
    ),
    threshold: Annotated[
        float | None, typer.Option(help="Of two classes: probability from which on the second is said; 0.5.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as JSON.")] = False,
) -> None:
    """Predict with a model, by what its own file says: columns, rules for missing values, standardization.

    Example: fedcore predict model.safetensors new.csv --out predictions.csv
    """
    from fedcore.errors import DataError
    from fedcore.evaluation.prediction import Predictor, write_predictions

    predictor = Predictor.load(model)
    reading = predictor.read(rows)
    table = reading.complete()
    found = predictor.predict(table, threshold)
    if out.exists():
        raise DataError(f"{out}: exists")
    layout = predictor.schema.layout
    write_predictions(out, reading, found, "prediction" if layout is None else layout.label.name)
    if as_json:
        counts = {name: dict(getattr(reading, name)) for name in ("dropped", "filled", "clipped")}
        said = {"file": str(out), "rows": reading.rows, "predicted": len(table), **counts}
        print(json.dumps(said))  # noqa: T201 - the result
        return
    console = Console()
    for line in reading.rules():
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"{len(table)} of {reading.rows} rows predicted, in {out}", soft_wrap=True, markup=False)


def show(
    model: ModelArgument,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a model is: columns, classes, learner, round, agreement, privacy.

    Example: fedcore model show model.safetensors
    """
    from fedcore.errors import DataError
    from fedcore.rounds.model import load_model
    from fedcore.settings import to_json

    found = load_model(model)
    schema = found.schema
    if schema is not None and (fault := found.fault(schema)):
        raise DataError(f"{model}: {fault}")
    try:
        learner = json.loads(found.learner) if found.learner else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{model}: not a model: learner: {error}") from error
    said = {
        "round": found.number,
        "learner": learner,
        "agreement": found.agreement or None,
        "epsilon": found.epsilon,
        "parameters": {name: list(array.shape) for name, array in found.parameters.items()},
        "schema": None if schema is None else to_json(schema),
    }
    if as_json:
        print(json.dumps(said))  # noqa: T201 - the result
        return
    console = Console()
    for name in ("round", "learner", "agreement", "epsilon"):
        if said[name] is not None:
            console.print(f"{name}: {said[name]}", soft_wrap=True, markup=False, highlight=False)
    if schema is None:
        return
    label = "a number" if schema.target is not None else ", ".join(schema.classes)
    console.print(f"predicts: {label}", soft_wrap=True, markup=False, highlight=False)
    table = Lines("feature", "low", "high", "mean", "deviation", "missing values")
    standard = found.standardizer
    for i, column in enumerate(schema.columns):
        scale = (
            (f"{standard.mean[i]:.6g}", f"{standard.deviation[i]:.6g}") if standard.mean.size else ("", "")
        )
        gap = "become the mean" if i in schema.filled else ""
        table.add_row(Text(column.name, overflow="fold"), f"{column.low:g}", f"{column.high:g}", *scale, gap)
    console.print(table)


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(help="File: .joblib, .skops (scikit-learn), .onnx, .pt (torch).")],
) -> None:
    """Write a model for another tool, which takes the features of `fedcore model show`, in their order.

    Loading .joblib runs code; skops.io.load(FILE, trusted=["numpy.dtype"]) and torch.load do not.

    Example: fedcore model export model.safetensors model.skops
    """
    from fedcore.errors import DataError
    from fedcore.evaluation.export import export as write
    from fedcore.evaluation.prediction import Predictor

    if out.exists():
        raise DataError(f"{out}: exists")
    write(Predictor.load(model), out)
    Console().print(f"written to {out}", soft_wrap=True, markup=False)


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def compare(
    first: ModelArgument,
    second: Annotated[Path, typer.Argument(help="File of another model.")],
    rows: Annotated[Path, typer.Argument(help="Rows with labels (.csv, .parquet, .npz).")],
    *,
    label: LabelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Evaluate two models on the same rows.

    Example: fedcore model compare first.safetensors second.safetensors rows.csv
    """
    from fedcore.errors import DataError
    from fedcore.evaluation.prediction import Predictor

    predictors = [Predictor.load(path) for path in (first, second)]
    if predictors[0].schema != predictors[1].schema:
        raise DataError(f"{second}: is of another schema than {first}, there are no rows for both")
    table = predictors[0].read(rows, predictors[0].schema.label_column(label), answers=True).complete()
    found = [one.evaluate(table) for one in predictors]
    if as_json:
        said = {"rows": len(table), "metrics": [_finite(one) for one in found]}
        print(json.dumps(said))  # noqa: T201 - the result
        return
    lines = Lines("metric", *(escape(str(path)) for path in (first, second)))
    for name in found[0]:
        lines.add_row(name, *(f"{one.get(name, float('nan')):.4f}" for one in found))
    console = Console()
    console.print(f"{len(table)} rows", highlight=False)
    console.print(lines)
