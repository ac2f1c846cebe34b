"""The server of a round inside another stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from secagg import AbortReason, Completed, DropReason, Identity, PhaseClosed, RefusalReason, ThreatModel
from secagg.embedding import (
    Loss,
    LossReason,
    MemoryStore,
    ParticipationLedger,
    Patience,
    Question,
    Round,
    retry,
)
from secagg.errors import InfeasibleParameters, LocalProtocolError, ParameterError, RoundAbortedError
from secagg.params import Phase
from secagg.store import Concern, ConcernKind, LedgerError
from tests.embedding.cohort import CONTEXT, Cohort, run


class Hands:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def step(cohort: Cohort, one: Round[int], *, until: Phase, each: Callable[[Any], None]) -> Round[int]:
    """Everybody answers up to a phase; there `each` is called with the ask, and afterwards as before."""
    for ask in one:
        if ask.name == until.name.replace("_", " ").lower():
            each(ask)
            continue
        for node, frame in ask.frames.items():
            ask.take(node, cohort.answer(node, frame))
    return one


# --- the course of a round


def test_a_round_is_five_trips_and_a_sum_over_its_survivors() -> None:
    cohort, events, names = Cohort(), list[Any](), list[str]()
    one = cohort.round(observer=events.append)
    for ask in one:
        names.append(ask.name)
        assert (ask.missing, ask.over) == (frozenset(ask.frames), False)
        assert ask.wants_vector == (ask.name == "masked input collection")
        for node, frame in ask.frames.items():
            if ask.wants_vector and node == 3:
                ask.lose(3, "unplugged")
            else:
                ask.take(node, cohort.answer(node, frame))
        assert ask.over
    assert names == [phase.name.replace("_", " ").lower() for phase in Phase]
    assert one.result.total.tolist() == cohort.sum_over([0, 1, 2, 4])
    assert set(one.survivors) == {0, 1, 2, 4}
    assert one.losses == {3: Loss(3, Phase.MASKED_INPUT_COLLECTION, LossReason.HOST, "unplugged")}
    assert one.error is None
    assert one.identities == {i: key.identity for i, key in enumerate(cohort.keys)}
    assert one.name_of(2) == "node-2"
    kinds = [type(event) for event in events]
    assert kinds.count(PhaseClosed) == 5
    assert (kinds.count(Loss), kinds[-1]) == (1, Completed)


def test_a_result_is_had_only_when_the_loop_has_ended() -> None:
    cohort = Cohort()
    one = cohort.round()
    with pytest.raises(LocalProtocolError, match="the round is not over"):
        _ = one.result
    for _ in one:
        break
    with pytest.raises(LocalProtocolError, match="the round is not over"):
        _ = one.result
    with pytest.raises(LocalProtocolError, match="iterated once"):
        next(iter(one))


def test_who_answers_nothing_is_lost_and_its_vector_is_not_in_the_sum() -> None:
    cohort = Cohort()

    def each(ask: Any) -> None:
        for node in (0, 1, 2, 4):
            ask.take(node, cohort.answer(node, ask.frames[node]))

    one = step(cohort, cohort.round(), until=Phase.MASKED_INPUT_COLLECTION, each=each)
    assert one.losses[3].reason is LossReason.SILENT
    assert one.result.total.tolist() == cohort.sum_over([0, 1, 2, 4])


def test_what_comes_when_a_trip_is_over_changes_nothing() -> None:
    cohort, late = Cohort(), list[Any]()
    one = cohort.round()
    for ask in one:
        for old, reply in late:
            old.take(4, reply)
            old.lose(3)
        for node, frame in ask.frames.items():
            reply = cohort.answer(node, frame)
            if ask.wants_vector and node == 4:
                late.append((ask, reply))
            else:
                ask.take(node, reply)
    assert one.result.total.tolist() == cohort.sum_over(range(4))
    assert set(one.losses) == {4}


def test_only_nodes_that_were_asked_answer() -> None:
    cohort = Cohort()
    ask = next(iter(cohort.round()))
    with pytest.raises(LocalProtocolError, match="node: must be one that was asked, is 7"):
        ask.take(7, b"")
    with pytest.raises(LocalProtocolError, match="node: must be one that was asked, is 7"):
        ask.lose(7)


def test_too_few_nodes_end_a_round_with_a_reason() -> None:
    cohort = Cohort()
    one = cohort.round()
    for ask in one:
        for node in (0, 1, 2):
            ask.take(node, cohort.answer(node, ask.frames[node]))
    said = r"4 are needed, 3 came; nodes lost: 2 \(no reply in time\)"
    with pytest.raises(RoundAbortedError, match=said) as caught:
        _ = one.result
    assert caught.value.reason is AbortReason.COHORT_TOO_SMALL
    assert one.error is caught.value


def test_a_round_that_cannot_be_is_refused_before_it_begins() -> None:
    cohort = Cohort()
    with pytest.raises(ParameterError, match="nodes: must be at least minimum_cohort = 4, is 3"):
        cohort.round(nodes=[0, 1, 2])
    hard = cohort.parameters(threat_model=ThreatModel(corrupt=0.45, dropout=0.45))
    with pytest.raises(InfeasibleParameters):
        cohort.round(parameters=hard)


# --- who is who


def test_of_two_nodes_with_one_identity_the_first_stands() -> None:
    cohort = Cohort(6)
    one = cohort.round()
    for ask in one:
        for node, frame in ask.frames.items():
            ask.take(node, cohort.answer(0 if node == 5 else node, frame))
    assert one.losses[5].reason is LossReason.TAKEN
    assert "node-0" in one.losses[5].detail
    assert one.result.total.tolist() == cohort.sum_over(range(5))


def test_who_is_excluded_has_no_part() -> None:
    cohort = Cohort(6)
    one = run(cohort, cohort.round(excluded=[cohort.keys[2].identity]))
    assert one.losses[2].reason is LossReason.STRANGER
    assert one.result.total.tolist() == cohort.sum_over([0, 1, 3, 4, 5])


def test_a_frame_of_another_node_is_not_taken_from_this_one() -> None:
    cohort = Cohort()

    def each(ask: Any) -> None:
        replies = {node: cohort.answer(node, frame) for node, frame in ask.frames.items()}
        replies[1] = replies[2]
        for node, reply in replies.items():
            ask.take(node, reply)

    one = step(cohort, cohort.round(), until=Phase.MASKED_INPUT_COLLECTION, each=each)
    assert one.losses[1].reason is RefusalReason.BAD_SIGNATURE
    assert one.result.total.tolist() == cohort.sum_over([0, 2, 3, 4])


def test_a_second_first_frame_of_a_node_changes_nothing() -> None:
    cohort = Cohort()
    one = cohort.round()
    for ask in one:
        for node, frame in ask.frames.items():
            ask.take(node, cohort.answer(node, frame))
            if ask.name == "advertise keys":
                ask.take(node, os.urandom(100) if node else cohort.answer(1, frame))
    assert not one.losses
    assert one.result.total.tolist() == cohort.sum_over(range(5))


# --- time


def test_every_phase_has_its_time_and_the_input_has_the_training_s() -> None:
    hands = Hands()
    cohort = Cohort()
    patience = Patience(first_s=100, input_s=5000, phase_s=10)
    one = cohort.round(patience=patience, clock=hands)
    times = []
    for ask in one:
        times.append(ask.left_s)
        hands.now += ask.left_s - 1
        assert ask.left_s == pytest.approx(1)
        for node, frame in list(ask.frames.items())[: None if len(times) != 3 else 4]:
            ask.take(node, cohort.answer(node, frame))
        hands.now += 1
        assert ask.over
        assert ask.left_s == 0
    assert times == [100, 10, 5000, 10, 10]
    assert len(one.survivors) == 4


def test_once_enough_have_answered_the_rest_have_the_grace() -> None:
    hands, cohort = Hands(), Cohort()
    one = cohort.round(patience=Patience(first_s=100, grace_s=5), clock=hands)
    for ask in one:
        answering = iter(ask.frames.items())
        for node, frame in answering:
            before = ask.left_s
            ask.take(node, cohort.answer(node, frame))
            if len(ask.missing) == 1 and ask.name == "advertise keys":
                assert before == 100
                assert ask.left_s == 5
                hands.now += 4
                assert ask.left_s == 1
    assert len(one.survivors) == 5


@pytest.mark.parametrize("wrong", [{"first_s": 0}, {"input_s": float("inf")}, {"grace_s": -1}])
def test_times_are_positive_and_finite(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Patience(**wrong)


# --- the ledger


def test_a_server_s_ledger_keeps_every_sum_and_refuses_one_that_would_tell_somebody_apart() -> None:
    cohort, ledger = Cohort(), ParticipationLedger(MemoryStore())
    assert run(cohort, cohort.round(ledger=ledger)).error is None
    assert all(ledger.told(CONTEXT, key.identity) for key in cohort.keys)
    assert not ledger.check_clients(CONTEXT, [key.identity for key in cohort.keys])
    asked = []
    one = cohort.round(ledger=ledger)
    for ask in one:
        asked.append(ask.name)
        for node, frame in ask.frames.items():
            if ask.wants_vector and node == 4:
                ask.lose(4)
            else:
                ask.take(node, cohort.answer(node, frame))
    assert asked[-1] == "masked input collection"  # nobody was asked to sign
    with pytest.raises(LedgerError):
        _ = one.result
    assert ledger.check_clients(CONTEXT, [cohort.keys[0].identity])  # its upload went into no sum


def test_a_server_s_ledger_counts_rounds_and_warns_of_vectors_that_come_again() -> None:
    cohort, store, events = Cohort(), MemoryStore(), list[Any]()
    ledger = ParticipationLedger(store)

    def nobody_signs(ask: Any) -> None:
        for node in list(ask.frames):
            ask.lose(node)

    step(cohort, cohort.round(ledger=ledger), until=Phase.CONSISTENCY_CHECK, each=nobody_signs)
    one = cohort.round(ledger=ledger, observer=events.append)
    for ask in one:
        for node, frame in ask.frames.items():
            ask.take(node, cohort.answer(node, frame))
    concerns = [event for event in events if isinstance(event, Concern)]
    assert [concern.kind for concern in concerns] == [ConcernKind.REPEATED]
    strict = ParticipationLedger(store, rounds_per_day=1)
    again = run(cohort, cohort.round(ledger=strict))
    assert isinstance(again.error, LedgerError)


def test_a_question_of_a_cohort_is_settled_before_anybody_uploads() -> None:
    cohort, ledger = Cohort(), ParticipationLedger(MemoryStore())
    identities = frozenset(bytes(key.identity) for key in cohort.keys)
    question = Question(CONTEXT, identities)
    assert run(cohort, cohort.round(ledger=ledger, question_of=lambda _p: question)).error is None
    assert ledger.cohort(CONTEXT) == identities
    assert isinstance(run(cohort, cohort.round(ledger=ledger)).error, LedgerError)


# --- attempts


class Failed(Round[int]):
    """A round that ended with these guilty."""

    def __init__(self, *arguments: Any, error: Exception | None, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._outcome = error  # type: ignore[assignment]


def attempts(cohort: Cohort, errors: list[Exception | None], number: int) -> list[frozenset[Identity]]:
    seen: list[frozenset[Identity]] = []

    def make(excluded: frozenset[Identity]) -> Round[int]:
        seen.append(excluded)
        return Failed(
            cohort.parameters(), nodes=range(5), registry=cohort.registry, error=errors[len(seen) - 1]
        )

    for _ in retry(make, number):
        pass
    return seen


def aborted(guilty: list[int], likely: list[int], cohort: Cohort) -> RoundAbortedError:
    sure = tuple(cohort.keys[i].identity for i in guilty)
    perhaps = tuple(cohort.keys[i].identity for i in likely)
    return RoundAbortedError(AbortReason.COMPLAINTS, "", (*sure, *perhaps), sure, perhaps)


def test_the_guilty_are_left_out_of_the_next_attempt() -> None:
    cohort = Cohort()
    key = [key.identity for key in cohort.keys]
    errors: list[Exception | None] = [aborted([1], [2], cohort), aborted([], [3], cohort), None]
    assert attempts(cohort, errors, 5) == [frozenset(), {key[1]}, {key[1], key[3]}]


def test_attempts_end_with_a_sum_with_the_last_or_with_what_the_ledger_refuses() -> None:
    cohort = Cohort()
    failing: list[Exception | None] = [aborted([], [], cohort)] * 9
    assert len(attempts(cohort, failing, 3)) == 3
    assert len(attempts(cohort, [None], 3)) == 1
    assert len(attempts(cohort, [LedgerError([])], 3)) == 1
    with pytest.raises(ParameterError, match="attempts"):
        attempts(cohort, [], 0)


def test_an_attempt_has_a_round_id_of_its_own() -> None:
    cohort = Cohort()
    parameters = cohort.parameters()

    def make(_excluded: frozenset[Identity]) -> Round[int]:
        return Failed(parameters, nodes=range(5), registry=cohort.registry, error=aborted([], [], cohort))

    with pytest.raises(LocalProtocolError, match="round_id: must be fresh"):
        list(retry(make))


def test_a_round_of_nodes_that_lie_is_done_again_without_them() -> None:
    cohort = Cohort(6)
    for one in retry(lambda excluded: cohort.round(excluded=excluded)):
        run(cohort, one)
    assert one.result.total.tolist() == cohort.sum_over(range(6))


def test_drops_of_the_session_are_losses_with_its_reasons() -> None:
    cohort = Cohort()

    def each(ask: Any) -> None:
        for node, frame in ask.frames.items():
            ask.take(node, b"garbage" if node == 2 else cohort.answer(node, frame))

    one = step(cohort, cohort.round(), until=Phase.SHARE_KEYS, each=each)
    assert one.losses[2].reason is RefusalReason.MALFORMED
    assert not {loss.reason for loss in one.losses.values()} & set(DropReason)


def test_a_frame_that_comes_twice_is_not_taken_for_the_next_answer() -> None:
    cohort = Cohort()
    earlier: list[bytes] = []
    one = cohort.round()
    for ask in one:
        for node, frame in ask.frames.items():
            if node == 2 and earlier:
                ask.take(2, earlier[-1])  # delivered again
                assert 2 in ask.missing
            reply = cohort.answer(node, frame)
            ask.take(node, reply)
            if node == 2:
                earlier.append(reply)
    assert not one.losses
    assert one.result.total.tolist() == cohort.sum_over(range(5))
