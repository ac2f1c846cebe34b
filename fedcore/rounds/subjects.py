"""Subjects of sums, for a ledger: sums about the same vectors, however much their payloads differ.

Two sums over members that differ by one give that one away when they ask the same of the same rows. So all
statistics of the rows have one subject. Updates and evaluations have one as long as the model is nearly the
same, also in another run; a site holds a model against its own earlier ones, by coordinates that it drew in
secret: a server that changes a few numbers, or all of them by little, does not get a new subject. It does get
one by moving most of them by more than that, or by other numbers for the same function, as where hidden units
change places. With `strict_cohorts` everything that is asked about the rows has one subject.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError
from fedcore.learner import flatten
from fedcore.rounds.questions import AboutModel
from fedcore.rounds.task import Task
from fedcore.stream import choose
from secagg import context_digest
from secagg.store import Store

_SAMPLE = 4096  # coordinates that are compared
_DIGEST = 32  # bytes
_SPARED = 16  # one in so many may change by any amount


@dataclass(frozen=True, slots=True)
class Subjects:
    """Names the subjects of one run.

    run     digest of what was agreed on; rows: of the schema and the state of the rows, across runs
    near    relative distance up to which models count as the same; strict: all of a run do
    store   keeps what models were asked about
    """

    store: Store
    run: bytes
    rows: bytes
    near: float
    strict: bool

    def of(self, task: Task) -> bytes:
        """Return the subject of a task, 32 bytes; a model that is asked about is remembered."""
        return self.all_of(task)[0]

    def all_of(self, task: Task) -> tuple[bytes, ...]:
        """Return every subject that a task is about: more than one where its model is near to several.

        Models are near by a chain, too: each was near to one that counts as the subject's.
        """
        question = task.question
        if self.strict:
            return (context_digest(b"subject", b"strict", self.rows),)
        if not isinstance(question, AboutModel):
            return (context_digest(b"subject", b"statistics", self.rows),)
        kind = str(task.kind).encode()
        own = context_digest(b"subject", kind, self.rows, self.run, task.number.to_bytes(8, "big"))
        folder, sample = f"subjects/{self.rows.hex()}/{task.kind}/", self._sample(question)
        kept = self.store.get(folder + own.hex())
        if kept is not None and not _near(sample, _read(kept), self.near):
            raise DataError(f"{task.name}: was asked about another model before")
        found = set[bytes]()
        for name in self.store.names(folder):
            entry = self.store.get(name) or b""
            if _near(sample, _read(entry), self.near):
                found.update(_split(entry))
        subjects = tuple(sorted(found)) or (own,)
        if kept is None:
            packed = len(subjects).to_bytes(2, "big") + b"".join(subjects)
            self.store.put({folder + own.hex(): packed + sample.astype("<f4").tobytes()})
        return subjects

    def _sample(self, question: AboutModel) -> NDArray[np.float64]:
        """Return some coordinates of the model; which, only this party knows."""
        vector = flatten(question.model)
        if len(vector) > _SAMPLE:
            if (secret := self.store.get("subjects/secret")) is None:
                secret = os.urandom(32)
                self.store.put({"subjects/secret": secret})
            vector = vector[choose(secret, len(vector), _SAMPLE)]
        return vector.astype(np.float64)


def _split(entry: bytes) -> list[bytes]:
    """Return the subjects of a model that was kept."""
    return [entry[2 + _DIGEST * i : 2 + _DIGEST * (i + 1)] for i in range(int.from_bytes(entry[:2], "big"))]


def _read(entry: bytes) -> NDArray[np.float64]:
    """Return the coordinates of a model that was kept."""
    return np.frombuffer(entry[2 + _DIGEST * len(_split(entry)) :], "<f4").astype(np.float64)


def _near(one: NDArray[np.float64], other: NDArray[np.float64], near: float) -> bool:
    """Tell whether two vectors are within the relative distance, but for the coordinates that differ most."""
    if one.shape != other.shape:
        return False
    apart = np.sort(np.abs(one - other))[: max(1, len(one) - math.ceil(len(one) / _SPARED))]
    size = max(float(np.linalg.norm(one)), float(np.linalg.norm(other)))
    return float(np.linalg.norm(apart)) <= max(near, 2.0**-22) * size
