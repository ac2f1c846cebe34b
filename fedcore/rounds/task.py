"""Task of one round, as bytes: the payload whose digest is in the round's context.

A task carries where in the run it stands, and the public arrays of its question. Everything else - how the
answer is clipped, shaped, rounded, weighted, hidden by noise - is derived by each party from the terms that
it agreed to, so that a server cannot choose it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from fedcore import arrays
from fedcore.errors import DataError, SettingError, TaskError
from fedcore.rounds.encoding import Encoding
from fedcore.rounds.questions import QUESTIONS, Question, TaskKind
from secagg import ParameterError

_VERSION = 4
_PLACE = ("step", "attempt", "group")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One secure sum.

    question  what is asked; encoding: the form of the answer, which does not travel
    step      where in the run: rises strictly; 0: outside of a run that was agreed on
    attempt   from 1; a later attempt of a step asks the same question
    group     0: the whole cohort; else the group, from 1, that the cohort was dealt into
    cohort    among whom the step is summed in whole cells, as the agreement names it in hex; "": not named
    """

    question: Question
    encoding: Encoding
    step: int = 0
    attempt: int = 1
    group: int = 0
    cohort: str = ""

    @property
    def kind(self) -> TaskKind:
        """Kind of the question."""
        return self.question.kind

    @property
    def number(self) -> int:
        """Position among those of its kind."""
        return self.question.number

    @property
    def name(self) -> str:
        """Name of the round in the history."""
        return self.question.name

    def encode(self) -> bytes:
        """Return the payload."""
        header = {"version": _VERSION, "kind": str(self.kind)}
        header |= {name: getattr(self, name) for name in (*_PLACE, "cohort")}
        return arrays.pack(self.question.arrays(), header | self.question.header())

    @classmethod
    def decode(cls, payload: bytes, encoding: Callable[[Question], Encoding]) -> Task:
        """Read a payload; `encoding` derives the form of the answer. Raises TaskError, CodecError."""
        try:
            found, header = arrays.unpack(payload)
        except DataError as error:
            raise TaskError(f"task: {error}") from error
        if (version := header.get("version")) != _VERSION:
            raise TaskError(f"task.version: must be {_VERSION}, is {str(version)[:20]}")
        kind = header.get("kind")
        if kind not in list(TaskKind):
            raise TaskError(f"task.kind: must be one of {', '.join(TaskKind)}")
        for name in _PLACE:
            value = header.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
                raise TaskError(f"task.{name}: must be an integer from 0 on")
        if not isinstance(cohort := header.get("cohort"), str):
            raise TaskError("task.cohort: must be a text")
        question = QUESTIONS[TaskKind(kind)].read(header, found)
        if found:
            raise TaskError(f"task.arrays: {min(found)!r} is not known")
        if unknown := header.keys() - {"version", "kind", "cohort", *_PLACE} - question.header().keys():
            raise TaskError(f"task: {min(unknown)!r} is not known")
        try:
            form = encoding(question)
        except (SettingError, ParameterError) as error:
            raise TaskError(f"task: {error}") from error
        place = {name: header[name] for name in _PLACE}
        return cls(question=question, encoding=form, cohort=cohort, **place)

    @property
    def digest(self) -> bytes:
        """Of what is asked, whatever the attempt, the group and the pass; 32 bytes."""
        first = replace(self, question=self.question.first(), attempt=0, group=0)
        return hashlib.sha256(first.encode()).digest()
