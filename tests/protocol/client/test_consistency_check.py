from __future__ import annotations

from collections.abc import Callable

import pytest

from secagg.effects import RefusalReason, Send
from secagg.messages import SurvivorSet, SurvivorSignature, encode_frame
from secagg.params import Phase
from secagg.primitives.signatures import verify
from tests.protocol.network import Cohort, opened, refused_by_client, sparse

LOST = {5: Phase.SHARE_KEYS}


def asked(clients: int = 7, corrupt: float = 0.1) -> Cohort:
    """Seven clients, the one of index 5 not in U1."""
    return Cohort(clients, corrupt=corrupt).advance(Phase.CONSISTENCY_CHECK, LOST)


def proposing(*survivors: int) -> Callable[[Cohort], bytes]:
    return lambda cohort: cohort.frame(SurvivorSet(cohort.view().bitmap(survivors)))


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "without us": (proposing(1, 2, 3, 4, 6), RefusalReason.NOT_INCLUDED),
    "with one outside U1": (proposing(0, 1, 2, 3, 4, 5, 6), RefusalReason.NOT_INCLUDED),
    "too few": (proposing(0, 1), RefusalReason.TOO_FEW_SURVIVORS),
    "we alone": (proposing(0), RefusalReason.TOO_FEW_SURVIVORS),
    "a spare bit": (lambda c: c.frame(SurvivorSet(b"\x8f")), RefusalReason.MALFORMED),
    "too short": (lambda c: c.frame(SurvivorSet(b"")), RefusalReason.MALFORMED),
    "too long": (lambda c: c.frame(SurvivorSet(b"\x0f\x00")), RefusalReason.MALFORMED),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_set_is_not_signed_and_a_right_one_may_follow(case: str) -> None:
    cohort = asked()
    frame, reason = REFUSED[case]
    refused_by_client(cohort, 0, frame(cohort), reason)
    assert cohort.total(LOST) == [1, 1, 1, 1, 1, 0, 1]


def test_the_effective_minimum_counts_the_colluders_of_the_roster() -> None:
    """corrupt 0.3 of seven are three colluders: a sum over four may show a single honest update."""
    cohort = asked(corrupt=0.3)
    assert cohort.parameters.minimum_survivors == 3
    refused_by_client(cohort, 0, proposing(0, 1, 2, 3)(cohort), RefusalReason.TOO_FEW_SURVIVORS)
    *_, effect = cohort.ask(0, proposing(0, 1, 2, 3, 4)(cohort))
    assert isinstance(effect, Send)


def test_the_signature_is_over_u1_and_s() -> None:
    cohort = asked().ask_all()
    view = cohort.view()
    for i in (0, 3, 6):
        message = opened(SurvivorSignature, cohort.answer(i))
        assert message.index == i
        text = view.survivors_text(b"\x5f", b"\x5f")
        assert verify(cohort.identities[i], text, message.signature)


def test_a_client_signs_one_set_only() -> None:
    cohort = asked()
    cohort.ask(0)
    refused_by_client(cohort, 0, proposing(0, 1, 2, 3, 4)(cohort), RefusalReason.EQUIVOCATION)
    (again,) = cohort.clients[0].receive(cohort.request(0))
    assert isinstance(again, Send)
    assert bytes(again.frame) == cohort.answer(0)


def test_the_first_set_that_stands_the_checks_is_signed_whatever_came_before() -> None:
    cohort = asked()
    for _ in range(2):
        refused_by_client(cohort, 0, proposing(0, 1)(cohort), RefusalReason.TOO_FEW_SURVIVORS)
    *_, effect = cohort.ask(0, proposing(0, 1, 2, 3)(cohort))
    assert isinstance(effect, Send)
    refused_by_client(cohort, 0, cohort.request(0), RefusalReason.EQUIVOCATION)


def test_nothing_is_signed_before_the_upload() -> None:
    cohort = Cohort(5).advance(Phase.MASKED_INPUT_COLLECTION)
    refused_by_client(cohort, 0, proposing(0, 1, 2, 3, 4)(cohort), RefusalReason.WRONG_PHASE)
    cohort.clients[0].receive(cohort.request(0))
    refused_by_client(cohort, 0, proposing(0, 1, 2, 3, 4)(cohort), RefusalReason.WRONG_PHASE)
    assert cohort.total() == [1] * 5


def test_nothing_is_signed_in_a_passive_round() -> None:
    cohort = Cohort(5, adversary="passive").advance(Phase.UNMASKING)
    refused_by_client(cohort, 0, proposing(0, 1, 2, 3, 4)(cohort), RefusalReason.WRONG_PHASE)
    assert cohort.total() == [1] * 5


def test_nothing_is_signed_after_the_answer() -> None:
    cohort = Cohort(5).advance(Phase.UNMASKING)
    cohort.ask(0)
    refused_by_client(cohort, 0, proposing(0, 1, 2, 3)(cohort), RefusalReason.EQUIVOCATION)


def gap(cohort: Cohort, missing: int) -> bytes:
    """Everybody but `missing` successive clients of the circle, far from client 0."""
    circle = cohort.view().graph.circle
    start = circle.index(0) + 20
    out = {circle[(start + j) % len(circle)] for j in range(missing)}
    return proposing(*(set(range(len(circle))) - out))(cohort)


def test_a_gap_on_the_circle_is_not_signed_and_a_set_without_one_may_follow() -> None:
    cohort = sparse(70, "active").advance(Phase.CONSISTENCY_CHECK)
    assert cohort.view().roster.degree == 8
    refused_by_client(cohort, 0, gap(cohort, 4), RefusalReason.SURVIVOR_GAP)
    refused_by_client(cohort, 0, gap(cohort, 3), RefusalReason.SURVIVOR_GAP)
    *_, effect = cohort.ask(0, gap(cohort, 2))
    assert isinstance(effect, Send)


def test_a_gap_does_not_matter_on_the_complete_graph() -> None:
    cohort = Cohort(40, vector_length=2, corrupt=0.05).advance(Phase.CONSISTENCY_CHECK)
    circle = cohort.view().graph.circle
    start = circle.index(0)
    present = {circle[(start + j) % 40] for j in range(cohort.view().effective_minimum)}
    *_, effect = cohort.ask(0, proposing(*present)(cohort))
    assert isinstance(effect, Send)


def test_a_set_of_the_wrong_round_is_refused() -> None:
    cohort = asked()
    frame = bytes(encode_frame(bytes(16), opened(SurvivorSet, cohort.request(0))))
    refused_by_client(cohort, 0, frame, RefusalReason.WRONG_ROUND)
    assert cohort.ask(0)
