from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from secagg.effects import Aborted, AbortReason, Dropped, DropReason, PhaseClosed, RefusalReason, Send
from secagg.messages import SealedShare, SharedKeys
from secagg.params import Identity, Phase
from secagg.primitives.labels import encode as label
from tests.protocol.network import Cohort, changed, flipped, opened, refused_by_server, sparse


def shared(clients: int = 5, lost: dict[int, Phase] | None = None) -> Cohort:
    return Cohort(clients, minimum_cohort=4).advance(Phase.SHARE_KEYS, lost or {}).ask_all()


def message(cohort: Cohort) -> SharedKeys:
    return opened(SharedKeys, cohort.answer(0))


def with_shares(cohort: Cohort, *shares: SealedShare) -> bytes:
    ordered = tuple(sorted(shares, key=lambda share: share.peer))
    return changed(cohort, SharedKeys, cohort.answer(0), shares=ordered)


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "a neighbor is missing": (
        lambda c: with_shares(c, *message(c).shares[1:]),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "no shares": (with_shares, RefusalReason.WRONG_NEIGHBORS),
    "a share for itself": (
        lambda c: with_shares(c, *message(c).shares, SealedShare(c.identities[0], bytes(96), b"")),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a share for a stranger": (
        lambda c: with_shares(c, *message(c).shares[1:], SealedShare(bytes(32), bytes(96), b"")),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "an acceptance in a share": (
        lambda c: with_shares(
            c, replace(message(c).shares[0], acceptance=message(c).acceptance), *message(c).shares[1:]
        ),
        RefusalReason.MALFORMED,
    ),
    "bad acceptance": (
        lambda c: changed(c, SharedKeys, c.answer(0), acceptance=flipped(message(c).acceptance, 77)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "acceptance of another roster": (
        lambda c: changed(
            c, SharedKeys, c.answer(0), acceptance=c.signers[0].sign(label("accept", bytes(32)))
        ),
        RefusalReason.BAD_SIGNATURE,
    ),
    "another client's acceptance": (
        lambda c: changed(c, SharedKeys, c.answer(0), acceptance=opened(SharedKeys, c.answer(1)).acceptance),
        RefusalReason.BAD_SIGNATURE,
    ),
    "another client's message": (lambda c: c.answer(1), RefusalReason.WRONG_NEIGHBORS),
    "a sealed share that is too short": (
        lambda c: with_shares(c, replace(message(c).shares[0], ciphertext=bytes(95)), *message(c).shares[1:]),
        RefusalReason.MALFORMED,
    ),
    "shares out of order": (
        lambda c: changed(c, SharedKeys, c.answer(0), shares=message(c).shares[::-1]),
        RefusalReason.MALFORMED,
    ),
    "an own request": (lambda c: c.request(0), RefusalReason.WRONG_PHASE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_shared_keys_are_refused_and_right_ones_may_follow(case: str) -> None:
    cohort = shared()
    frame, reason = REFUSED[case]
    refused_by_server(cohort, 0, frame(cohort), reason)
    assert cohort.tell(0) == []
    assert cohort.tell_all().close()
    assert cohort.total() == [1] * 5


def test_who_did_not_advertise_is_not_asked_for_shares() -> None:
    cohort = shared(lost={4: Phase.ADVERTISE_KEYS})
    frame = changed(cohort, SharedKeys, cohort.answer(0), acceptance=bytes(64))
    refused_by_server(cohort, 4, frame, RefusalReason.UNKNOWN_SENDER)


def test_a_late_advertisement_is_refused() -> None:
    cohort = Cohort(5, minimum_cohort=4).start().ask_all()
    for i in range(4):
        cohort.tell(i)
    cohort.close()
    refused_by_server(cohort, 4, cohort.answer(4), RefusalReason.UNKNOWN_SENDER)


def test_a_client_that_was_given_up_is_not_heard_nor_asked_again() -> None:
    cohort = shared()
    me = cohort.identities[0]
    assert cohort.server.drop(me) == [Dropped(me, DropReason.GIVEN_UP)]
    assert cohort.server.drop(me) == []
    refused_by_server(cohort, 0, cohort.answer(0), RefusalReason.UNKNOWN_SENDER)
    effects = cohort.tell_all().close()
    assert me not in {effect.to for effect in effects if isinstance(effect, Send)}
    assert not [effect for effect in effects if isinstance(effect, Dropped)]
    assert cohort.total() == [0, 1, 1, 1, 1]


def test_what_a_client_sent_stays_when_it_is_given_up() -> None:
    cohort = shared().tell_all()
    cohort.server.drop(cohort.identities[0])
    effects = cohort.close()
    assert PhaseClosed(Phase.SHARE_KEYS, frozenset(cohort.identities[1:])) in effects
    assert cohort.total() == [0, 1, 1, 1, 1]


def test_the_same_shared_keys_twice_are_taken_once() -> None:
    cohort = shared()
    assert cohort.tell(0) == []
    before = cohort.server.snapshot()
    assert cohort.tell(0) == []
    assert cohort.server.snapshot() == before


def test_different_second_shared_keys_are_an_offence_and_the_first_stand() -> None:
    cohort = shared()
    assert cohort.tell(0) == []
    other = changed(cohort, SharedKeys, cohort.answer(0), seed_commitment=bytes(32))
    refused_by_server(cohort, 0, other, RefusalReason.EQUIVOCATION)
    cohort.tell_all().close()
    assert cohort.total() == [1] * 5


def test_an_advertisement_repeated_in_time_for_the_roster_gets_the_roster() -> None:
    cohort = Cohort(5).start().ask_all().tell_all()
    advertisement = cohort.answer(0)
    cohort.close()
    (effect,) = cohort.tell(0, advertisement)
    assert isinstance(effect, Send)
    assert (effect.to, bytes(effect.frame)) == (cohort.identities[0], cohort.request(0))
    cohort.ask(0)
    cohort.tell(0)
    refused_by_server(cohort, 0, advertisement, RefusalReason.WRONG_PHASE)


@pytest.mark.parametrize("minimum_survivors", [3, 5])
def test_too_few_that_share_keys_end_the_round(minimum_survivors: int) -> None:
    cohort = Cohort(6, minimum_survivors=minimum_survivors).advance(Phase.SHARE_KEYS).ask_all()
    for i in range(minimum_survivors - 1):
        cohort.tell(i)
    assert cohort.server.progress.needed == minimum_survivors
    assert not cohort.server.progress.ready
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.TOO_FEW_SURVIVORS


def test_the_effective_minimum_holds_two_honest_clients() -> None:
    """corrupt 0.3 of seven clients are three colluders: five survivors at least, whatever was asked for."""
    cohort = Cohort(7, corrupt=0.3, minimum_survivors=2).advance(Phase.SHARE_KEYS)
    assert cohort.server.progress.needed == 5


def test_on_a_sparse_graph_shares_go_to_the_neighbors_only() -> None:
    cohort = sparse(70, "active").advance(Phase.SHARE_KEYS)
    cohort.ask(0)
    graph = cohort.view().graph
    sent = opened(SharedKeys, cohort.answer(0))
    assert [cohort.index[Identity(share.peer)] for share in sent.shares] == list(graph.neighbors_of(0))
    assert len(sent.shares) == 8
    stranger = next(i for i in range(1, 70) if i not in graph.neighbors_of(0))
    moved = replace(sent.shares[0], peer=cohort.identities[stranger])
    shares = tuple(sorted((moved, *sent.shares[1:]), key=lambda share: share.peer))
    frame = changed(cohort, SharedKeys, cohort.answer(0), shares=shares)
    refused_by_server(cohort, 0, frame, RefusalReason.WRONG_NEIGHBORS)
    assert cohort.tell(0) == []
