"""Size of the uploads of a training round, before anybody trains: the command `fedcore upload`."""

from __future__ import annotations

from typing import Any

from fedcore.rounds.instructions import Asks, Weighting
from fedcore.rounds.plan import TrainingPlan
from fedcore.rounds.upload import UploadPlan, plan_upload
from fedcore.settings import require

ROWS = {
    "values": "values of the update",
    "entries": "entries of the masked vector",
    "ring_bits": "bits of an entry in the ring",
    "bytes": "bytes of the masked vector",
    "bytes_per_value": "bytes a value",
    "net_bytes_per_value": "bytes a value, net of the ring's growth",
    "float32_bytes": "bytes in float32, in the clear",
    "ratio": "of the float32 bytes",
}


def upload(plan: TrainingPlan, weighting: Weighting, parameters: int) -> UploadPlan:
    """Plan the upload of a round about so many parameters. Raises SettingError."""
    require(parameters >= 1, "parameters", "at least 1", parameters)
    return plan_upload(plan, Asks(weighting=weighting), parameters)


def as_json(planned: UploadPlan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    names = ("values", "entries", "ring_bits", "bytes", "bytes_per_value", "net_bytes_per_value")
    return {name: getattr(planned, name) for name in (*names, "value_bits", "float32_bytes")} | {
        "ratio": planned.bytes / planned.float32_bytes
    }


def show(planned: UploadPlan, console: Any) -> None:  # noqa: ANN401 - rich's Console
    """Print the plan as a table."""
    from rich.table import Table

    table = Table(title="upload of a client in one training round", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in as_json(planned).items():
        if name in ROWS:
            shown = f"{value:.3f}" if isinstance(value, float) else f"{value:,}".replace(",", " ")
            table.add_row(ROWS[name], shown)
    console.print(table)
