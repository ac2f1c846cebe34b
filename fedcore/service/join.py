"""A site of a training run: takes part in rounds until the server says that there are no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedcore.errors import DataError, FedcoreError, TaskError
from fedcore.rounds.questions import TaskKind
from fedcore.rounds.site import Site
from fedcore.rounds.task import Task
from secagg import ParameterError, Phase, Policy, RoundParameters, Signer
from secagg.kernels import UIntArray
from secagg.service import AggregationClient, ServerCredentials, write_private
from secagg.store import MemoryStore

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Hold:
    """A drill: stop before answering a phase of a training round, and do not go on."""

    number: int
    phase: Phase

    @classmethod
    def parse(cls, text: str) -> Hold:
        """Read "ROUND:PHASE", such as "5:masked_input_collection". Raises ParameterError."""
        number, _, phase = text.partition(":")
        try:
            return cls(int(number), Phase[phase.upper()])
        except (KeyError, ValueError):
            phases = ", ".join(phase.name.lower() for phase in Phase)
            raise ParameterError(f"hold: must be ROUND:PHASE with one of {phases}, is {text!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """What a site is started with.

    reveal  private folder for the quantized updates, so that a drill can check the sums; None: never
    """

    address: str
    credentials: ServerCredentials = field(repr=False)
    signer: Signer
    policy: Policy
    site: Site
    reveal: Path | None = None
    hold: Hold | None = None
    patience_s: float = 60.0


async def join(options: JoinOptions, say: Say) -> Task:
    """Take part until the run is over; returns the last task, which holds the final model.

    A round that this site cannot serve (its learner fails, a task it refuses) costs it that round only.
    raises  ServiceError when the server cannot be reached or refuses us
    """
    drill = _Drill(options.hold, say)
    client = AggregationClient(
        address=options.address,
        credentials=options.credentials,
        signer=options.signer,
        policy=options.policy,
        store=MemoryStore(),
        before_answer=drill.before_answer,
        on_refusal=lambda text: say(f"refused: {text}"),
        patience_s=options.patience_s,
    )
    if options.reveal is not None:
        options.reveal.mkdir(mode=0o700, parents=True, exist_ok=True)
        say(f"WARNING: this site writes its plain updates to {options.reveal}")
    while True:
        try:
            outcome = await client.take_part(
                lambda payload, parameters: _compute(options, payload, parameters)
            )
            if outcome.finished:
                return Task.decode(outcome.payload)
            name = Task.decode(outcome.payload).name if outcome.payload else "a round"
            say(f"{name}: {'done' if outcome.completed else outcome.reason}")
        except (FedcoreError, ParameterError) as error:
            say(f"sits this round out: {error}")
            await asyncio.sleep(1.0)


def _compute(options: JoinOptions, payload: bytes, parameters: RoundParameters) -> UIntArray:
    task = Task.decode(payload)
    wanted = task.length, task.codec.ring_bits
    if (parameters.vector_length, parameters.ring_bits) != wanted:
        raise TaskError(
            f"parameters: vector length and ring bits must be {wanted} for this task, "
            f"are {parameters.vector_length, parameters.ring_bits}"
        )
    if len(options.policy.known or ()) > task.codec.clients:
        raise TaskError(
            f"task.codec.clients: {task.codec.clients} are fewer than are enrolled: sums could wrap"
        )
    if task.noise is not None and parameters.minimum_survivors < task.noise.smallest:
        raise TaskError(
            f"parameters.minimum_survivors: must be at least {task.noise.smallest}, whose noise hides each "
            f"vector, is {parameters.minimum_survivors}"
        )
    vector = options.site.contribute(task)
    if options.reveal is not None:
        _reveal(options.reveal, parameters.round_id, vector)
    return vector


def _reveal(folder: Path, round_id: bytes, vector: UIntArray) -> None:
    """Write a plain update where only its owner reads it."""
    header = np.lib.format
    path = folder / f"{round_id.hex()}.npy"
    if path.exists():
        raise DataError(f"{path}: exists")
    write_private(path, b"")
    with path.open("r+b") as file:
        header.write_array(file, vector, allow_pickle=False)


class _Drill:
    """Stops at the phase that was asked for."""

    def __init__(self, hold: Hold | None, say: Say) -> None:
        self._hold = hold
        self._say = say

    async def before_answer(self, phase: Phase, payload: bytes) -> None:
        if self._hold is None or phase is not self._hold.phase:
            return
        task = Task.decode(payload)
        if task.kind is TaskKind.TRAIN and task.number == self._hold.number:
            self._say(f"holding before {phase.name.lower()} of {task.name}")
            await asyncio.Event().wait()


def save_final(path: Path, task: Task) -> None:
    """Write the model of the last task, with the standardization it expects."""
    np.savez(path, **task.arrays)  # type: ignore[arg-type]
