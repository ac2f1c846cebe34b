"""Checks of a finished demonstration: exact sums, and transcripts that anybody can verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedcore.errors import FedcoreError
from secagg import Identity
from secagg.kernels import ring_mask
from secagg.transcript import is_oneshot, verify, verify_oneshot


class DemoError(FedcoreError):
    """A process of the demonstration failed, or a check did."""


def completed_rounds(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rounds with a result, in order."""
    return [event for event in events if event["event"] == "round" and event["completed"]]


def check_sums(folder: Path, events: list[dict[str, Any]]) -> int:
    """Compare every secure sum with the sum of the sites' own files, element by element.

    returns  how many sums were compared; raises DemoError at the first difference
    """
    rounds = completed_rounds(events)
    for event in rounds:
        secure = np.load(folder / "sums" / f"{event['round_id']}.npy")
        clear = np.zeros_like(secure)
        for name in event["survivors"]:
            clear += np.load(revealed_file(folder, name, event["round_id"]))
        clear &= clear.dtype.type(ring_mask(event["ring_bits"]))
        if not np.array_equal(secure, clear):
            different = int(np.flatnonzero(secure != clear)[0])
            raise DemoError(f"{event['task']}: the secure sum differs at element {different}")
    return len(rounds)


def revealed_file(folder: Path, name: str, round_id: str) -> Path:
    """Where a site of the demonstration keeps its plain update."""
    return folder / "private" / name / "revealed" / f"{round_id}.npy"


def check_transcripts(folder: Path, events: list[dict[str, Any]], server: Identity) -> int:
    """Verify the transcript of every round; each recomputed sum must be the one that the server kept.

    returns  how many transcripts were verified; raises DemoError at the first finding
    """
    sealed = [event for event in events if event["event"] == "transcript"]
    for event in sealed:
        with (folder / "transcripts" / event["file"]).open("rb") as file:
            one = verify_oneshot if is_oneshot(file) else verify
            report = one(file, server=server)
        if report.findings:
            raise DemoError(f"{event['file']}: {report.findings[0]}")
        kept, total = folder / "sums" / f"{event['round_id']}.npy", report.facts.total
        if kept.exists() and (total is None or not np.array_equal(np.load(kept), total)):
            raise DemoError(f"{event['file']}: the recomputed sum is not the one that was kept")
    return len(sealed)
