"""The record of a training run in a folder: its history, its sums, its models, what it goes on from."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from fedcore.errors import DataError
from fedcore.history import History
from fedcore.learner import Metrics
from fedcore.rounds.aggregation import GroupSum
from fedcore.rounds.agreement import Run
from fedcore.rounds.attempts import RoundRecord
from fedcore.rounds.model import SUFFIX, save_model
from fedcore.rounds.questions import TaskKind, Train
from fedcore.rounds.state import RunState
from fedcore.rounds.task import Task
from fedcore.service.options import Show, show_nothing
from fedcore.service.report import write_report
from secagg import ParameterError
from secagg.service import (
    CommitteeFailed,
    CommitteeReady,
    Event,
    LedgerNoted,
    MessageLost,
    MessageRefused,
    PartialSumTaken,
    PhaseDone,
    RoundCompleted,
    RoundFailed,
    RoundOpened,
    RoundResumed,
    StoreFailed,
    TranscriptFailed,
    TranscriptSealed,
    UploadTaken,
)
from secagg.store import FileLock, replace_file

CHECKPOINT = "checkpoint.safetensors"


def _finite(metrics: Metrics) -> dict[str, float | None]:
    """Return metrics as JSON values, which know no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


class Recorder:
    """Writes the run's record: history.jsonl, sums/<round>.npy, models/<number>.safetensors, report.md.

    keep    models and sums that stay, the newest; None: all
    names   of all sites, for the report
    raises  ParameterError: the folder holds a run; StoreBusyError: another server writes there
    """

    def __init__(
        self,
        out: Path,
        run: Run,
        show: Show = show_nothing,
        *,
        resume: bool = False,
        keep: int | None = None,
        names: Collection[str] = (),
    ) -> None:
        for name in ("sums", "models"):
            (out / name).mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(out / ".lock")
        past = out / "history.jsonl"
        if resume and not past.exists():
            self._lock.release()
            raise ParameterError(f"--resume: {out} has no run to go on with")
        if not resume and past.exists() and past.stat().st_size:  # empty: the server never listened
            self._lock.release()
            raise ParameterError(f"out: {out} already holds a run; --resume goes on with it")
        self._out, self._run, self._keep, self._names = out, run, keep, names
        self._show = show
        self._history = History(out / "history.jsonl")
        self._task = ""
        self._round_id = b""
        self._began = time.monotonic()
        self.instance = self._named(out / ".instance")
        self.gone: dict[bytes, set[str]] = {}  # who dropped out of a round

    def _named(self, path: Path) -> bytes:
        """Return what tells this run from another one with the same agreement: drawn once, for its folder."""
        if not path.exists():
            replace_file(path, os.urandom(16).hex().encode())
        return bytes.fromhex(path.read_text(encoding="ascii"))

    def write(self, event: str, **fields: object) -> None:
        """Append an event."""
        self._history.write(event, **fields)
        self._show({"event": event, **fields})

    def on_waiting(self, here: list[str], missing: list[str], needed: int) -> None:
        """Record that a round waits for sites."""
        self.write("waiting", here=here, missing=missing, needed=needed)

    def on_task(self, task: Task, round_id: bytes) -> None:
        """Begin a round."""
        self._task, self._round_id, self._began = task.name, round_id, time.monotonic()

    def on_event(self, event: Event) -> None:
        """Record a public fact of the service."""
        fields: dict[str, Any] = {"task": self._task, "round_id": event.round_id.hex()}
        match event:
            case RoundOpened(vector_length=length, ring_bits=bits):
                self.write("round_opened", **fields, vector_length=length, ring_bits=bits)
            case PhaseDone() as done:
                self.gone.setdefault(event.round_id, set()).update(done.dropped)
                self.write(
                    "phase",
                    **fields,
                    phase=done.phase.name.lower(),
                    answered=done.answered,
                    expected=done.expected,
                    dropped=done.dropped,
                    bytes_up=done.bytes_up,
                    bytes_down=done.bytes_down,
                    milliseconds=round(1000 * done.seconds, 1),
                )
            case UploadTaken(client=client, first=first):
                self.write("upload", **fields, client=client, first=first)
            case PartialSumTaken(edge=edge, clients=clients):
                self.write("partial", **fields, edge=edge, clients=clients)
            case MessageRefused(client=client, reason=reason, detail=detail):
                self.write("refused", **fields, client=client, reason=reason, detail=detail)
            case RoundCompleted(survivors=survivors, suspects=suspects):
                self.write("completed", **fields, survivors=survivors, suspects=suspects)
            case RoundFailed(reason=reason, detail=detail, suspects=suspects):
                self.write("failed", **fields, reason=reason, detail=detail, suspects=suspects)
            case _:
                self._on_trouble(event, fields)

    def _on_trouble(self, event: Event, fields: dict[str, Any]) -> None:
        """Record what an operator should look at, and what became of transcripts."""
        match event:
            case LedgerNoted(concern=concern, detail=detail, clients=clients):
                self.write("ledger", **fields, concern=concern, detail=detail, clients=clients)
            case TranscriptSealed(file=file, address=address):
                self.write("transcript", **fields, file=file, address=address.hex())
            case TranscriptFailed(reason=reason):
                self.write("transcript_failed", **fields, reason=reason)
            case RoundResumed(phase=phase, taken=taken):
                self.write("resumed", **fields, phase=phase.name.lower(), taken=taken)
            case MessageLost(client=client, reason=reason):
                self.write("lost", **fields, client=client, reason=reason)
            case CommitteeReady(members=members, threshold=threshold, losses=losses):
                self.write("committee", **fields, members=members, threshold=threshold, losses=losses)
            case CommitteeFailed(reason=reason):
                self.write("committee_failed", **fields, reason=reason)
            case StoreFailed(reason=reason):
                self.write("store_failed", **fields, reason=reason)
            case _:
                pass

    def on_round(self, record: RoundRecord) -> None:
        """Keep the sum and the model after it."""
        task, result = record.task, record.result
        fields: dict[str, Any] = {"task": task.name, "kind": str(task.kind), "number": task.number}
        round_id = self._round_id if result is None else result.round_id
        fields |= {"round_id": round_id.hex(), "seconds": round(time.monotonic() - self._began, 3)}
        if result is None:
            self.write("round", **fields, completed=False, reason=record.reason)
            return
        path = self._out / "sums" / f"{round_id.hex()}.npy"
        try:
            np.save(path, result.total)
        except OSError as error:  # NumPy does not say which file
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
        if isinstance(task.question, Train):
            now = RunState.of(task.number, record.parameters, task.question.standardizer)
            model = self._run.model_of(now, record.epsilon)
            save_model(self._out / "models" / f"{task.number:03d}{SUFFIX}", model)
        self._forget()
        self.write(
            "round",
            **fields,
            completed=True,
            survivors=result.survivors,
            weight=record.weight,
            ring_bits=task.encoding.codec.ring_bits,
            vector_length=task.encoding.length,
            bytes_up=result.bytes_up,
            bytes_down=result.bytes_down,
            **self._metrics(record, result),
            **{
                name: value
                for name, value in (
                    ("epsilon", record.epsilon),
                    ("norm", record.norm),
                    ("within", record.within),
                )
                if value is not None
            },
        )

    def _metrics(self, record: RoundRecord, result: GroupSum) -> dict[str, Any]:
        """Return what an evaluation says."""
        if record.task.kind is TaskKind.EVALUATE:
            found = result.evaluation()
            return {"metrics": _finite(found.metrics), "rows": found.rows}
        if record.task.kind is TaskKind.SITES:
            spread = result.spread()
            return {"metrics": {"worst site": spread.worst, "median site": spread.median}}
        return {}

    def on_checkpoint(self, state: RunState) -> None:
        """Keep what a later run needs to go on."""
        state.save(self._out / CHECKPOINT)

    def finish(self, rounds: int, reason: str = "") -> None:
        """Record the end of the run, and why it ended early."""
        early = {"reason": reason} if reason else {}
        self.write("finished", rounds=rounds, planned=self._run.plan.rounds, **early)

    def report(self) -> None:
        """Write report.md and its plot; without them the run is as good."""
        try:
            for path in write_report(self._out, self._run, self._names):
                self._show({"event": "report", "file": str(path)})
        except Exception as error:  # noqa: BLE001 - of a plot, a font, a disk
            self.write("warning", text=f"there is no report: {type(error).__name__}: {error}")

    def _forget(self) -> None:
        """Remove models and sums but the last ones, where that is wanted."""
        if self._keep is None:
            return
        for folder in ("sums", "models"):
            kept = sorted((self._out / folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
            for path in kept[: -self._keep]:
                path.unlink()

    def close(self) -> None:
        """Close the history, and let another server write here."""
        self._history.close()
        self._lock.release()
