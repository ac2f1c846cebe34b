"""A server that wants a new subject for nearly the same vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.errors import DataError
from fedcore.rounds.questions import Train
from fedcore.rounds.subjects import Subjects
from fedcore.rounds.task import Task
from fedcore.stream import choose
from secagg.store import LedgerError, MemoryStore, Store
from tests.attacks.training.test_consent import (
    MEMBERS,
    consent_of,
    first_of,
    parameters_of,
    run_of,
    sign,
)
from tests.fedcore.sites import asked, model_of

COORDINATES = 100_000  # of which a site compares some thousand


def subjects_of(store: Store, near: float = 1e-3) -> Subjects:
    return Subjects(store, bytes(32), bytes(32), near, strict=False)


def about(vector: NDArray[np.float64], number: int) -> Task:
    question = Train(model={"weights": vector}, number=number)
    return replace(first_of(run_of()), question=question)


def test_a_site_does_not_forget_a_model_because_it_is_asked_about_another_one() -> None:
    store, run = MemoryStore(), run_of()
    first = first_of(run)
    consent = consent_of(run, store)
    sign(consent, first, MEMBERS)
    far = asked(first, model={name: array + 10.0 for name, array in model_of(first).items()})
    with pytest.raises(DataError, match="train 1: was asked about another model before"):
        consent.question_of(far.encode(), parameters_of(far))
    with pytest.raises(LedgerError, match="differs from the sum"):
        sign(consent_of(run_of(name="again"), store), first, MEMBERS[:-1])


def test_a_server_that_guesses_which_coordinates_are_compared_changes_too_few_of_them() -> None:
    subjects = subjects_of(MemoryStore())
    vector = np.random.default_rng(0).normal(size=COORDINATES)
    one = subjects.of(about(vector, 1))
    for number, guess in enumerate((bytes(32), b"\1" * 32), 2):
        changed = vector.copy()
        changed[choose(guess, COORDINATES, 4096)] += 100.0
        assert subjects.of(about(changed, number)) == one


def test_the_coordinates_that_are_compared_stay_the_same_after_a_restart() -> None:
    store = MemoryStore()
    vector = np.random.default_rng(0).normal(size=COORDINATES)
    one = subjects_of(store).of(about(vector, 1))
    assert subjects_of(store).of(about(vector, 2)) == one


def test_models_are_as_near_as_was_agreed() -> None:
    vector = np.random.default_rng(0).normal(size=50)
    for near, same in ((0.1, True), (0.001, False)):
        subjects = subjects_of(MemoryStore(), near)
        assert (subjects.of(about(vector, 1)) == subjects.of(about(vector * 1.05, 2))) is same


def test_where_only_equal_models_are_near_a_model_is_near_itself() -> None:
    """It is kept in single precision, and the server knows no number of it better than the site."""
    subjects = subjects_of(MemoryStore(), near=0.0)
    vector = np.random.default_rng(0).normal(size=50)
    assert subjects.of(about(vector, 1)) == subjects.of(about(vector, 2)) == subjects.of(about(vector, 1))
