"""The one-upload protocol in other stacks: nodes that upload once, decryptors without memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import (
    ConsentError,
    InfeasibleParameters,
    ParameterError,
    RoundAbortedError,
    ThreatModel,
    context_digest,
)
from secagg.effects import AbortReason, RefusalReason
from secagg.embedding import (
    Ask,
    Committee,
    LossReason,
    MemoryStore,
    OneShotPolicy,
    OneShotRound,
    Participant,
    ParticipationLedger,
    Patience,
    Question,
    Registry,
    decline,
    declined,
    write_key,
)
from secagg.embedding.conformance import phase_of
from secagg.embedding.replies import bundled, is_bundle, unbundled
from secagg.errors import RegistryError
from secagg.messages.oneshot import (
    ONESHOT_FRAMES,
    ReviewRequest,
    Upload,
    committee_to_wire,
    decode_oneshot,
    oneshot_to_wire,
)
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import read_parameters
from secagg.store import LedgerError
from tests.embedding.cohort import CONTEXT, Cohort

OTHER = context_digest(b"model 8")


class Uploading(Cohort):
    """Nodes that take both protocols; the first `decryptors` of them may open sums."""

    def __init__(self, nodes: int = 5, decryptors: int = 5) -> None:
        super().__init__(nodes)
        self.opening = [f"node-{i}" for i in range(decryptors)]
        known = self.registry.identities
        self.oneshot = OneShotPolicy(
            known=known, decryptors=self.registry.named(self.opening), require_post_quantum=False
        )
        self.one_committee = self.committee()

    def committee(self, **others: Any) -> Committee:
        return Committee(**{"decryptors": self.opening, "post_quantum": False, **others})

    def participant(self, i: int, **others: Any) -> Participant:
        return super().participant(i, **{"oneshot": self.oneshot, **others})

    def uploading(self, **others: Any) -> OneShotRound[int]:
        given: dict[str, Any] = {"nodes": range(len(self.keys)), "committee": self.one_committee}
        parameters = self.parameters(others.pop("context", CONTEXT))
        return OneShotRound(others.pop("parameters", parameters), registry=self.registry, **(given | others))


Answer = Callable[[int, bytes], bytes]


def carry(cohort: Cohort, one: OneShotRound[int], answer: Answer | None = None) -> list[tuple[str, set[int]]]:
    """Run a round; return who was asked in each trip. An answer of b"" is a node that is gone."""
    trips: list[tuple[str, set[int]]] = []
    for ask in one:
        trips.append((ask.name, set(ask.frames)))
        hand_in(ask, answer or (lambda i, request: cohort.answer(i, request, context=one.parameters.context)))
    return trips


def hand_in(ask: Ask[int], answer: Answer) -> None:
    for node, request in ask.frames.items():
        if reply := answer(node, request):
            ask.take(node, reply)
        else:
            ask.lose(node, "gone")


class Nodes(Uploading):
    """With the context of the request, whichever it is; what each was asked is kept."""

    def __init__(self, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.asked: dict[int, list[bytes]] = {i: [] for i in range(len(self.keys))}

    def answer(self, i: int, frame: bytes, **others: Any) -> bytes:
        context = others.pop("context", CONTEXT)
        self.asked[i].append(frame)
        return self.participant(i, **others).answer(frame, self.vector(i), context=context)


# --- a round


def test_a_node_is_asked_once_and_the_committee_is_formed_once() -> None:
    cohort = Nodes(8, decryptors=4)
    everybody, members = set(range(8)), set(range(4))
    first, second = cohort.uploading(), cohort.uploading(context=OTHER)
    opened = [("review", members), ("agree", members), ("open", members)]
    assert carry(cohort, first) == [
        ("keys", everybody), ("acceptance", members), ("upload", everybody), *opened
    ]  # fmt: skip
    assert first.result.total.tolist() == cohort.sum_over(range(8))
    assert carry(cohort, second) == [("upload", everybody), *opened]
    assert second.result.total.tolist() == cohort.sum_over(range(8))
    assert not first.losses
    assert not second.losses
    assert cohort.made == [2] * 8


def test_the_vector_is_wanted_in_one_trip() -> None:
    cohort = Nodes()
    wanted = {}
    one = cohort.uploading()
    for ask in one:
        wanted[ask.name] = ask.wants_vector
        hand_in(ask, cohort.answer)
    assert [name for name, wants in wanted.items() if wants] == ["upload"]


def test_a_node_that_is_no_decryptor_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Nodes(6, decryptors=4)
    one = cohort.uploading()
    carry(cohort, one)
    assert not one.losses
    assert len(one.survivors) == 6
    assert declined(cohort.answer(5, cohort.asked[5][0])) is LossReason.NO_MEMBER
    assert not caplog.records


def test_a_node_that_takes_itself_for_a_decryptor_is_told_apart_from_a_stranger() -> None:
    cohort = Nodes(6, decryptors=6)
    one = cohort.uploading(committee=cohort.committee(decryptors=[f"node-{i}" for i in range(5)]))
    carry(cohort, one)
    assert len(one.survivors) == 6
    assert one.losses[5].reason is LossReason.NO_MEMBER
    assert one.losses[5].detail == "node-5 is not in Committee.decryptors"


def test_whoever_vanishes_after_the_upload_is_in_the_sum() -> None:
    cohort = Nodes(8, decryptors=4)
    one = cohort.uploading()

    def answer(i: int, request: bytes) -> bytes:
        gone = i == 0 and phase_of(request) is OneShotPhase.REVIEW
        return b"" if gone else cohort.answer(i, request)

    carry(cohort, one, answer)
    assert len(one.survivors) == 8
    assert one.losses[0].phase is OneShotPhase.REVIEW


def test_a_committee_that_has_lost_too_many_is_formed_anew() -> None:
    cohort = Nodes(8, decryptors=8)  # bears one loss, so that none may be missing when a round begins
    carry(cohort, cohort.uploading())
    assert cohort.one_committee.serves(range(8))
    assert not cohort.one_committee.serves(range(7))

    def answer(i: int, request: bytes) -> bytes:
        lost = i == 3 and phase_of(request) is OneShotPhase.AGREE
        return b"" if lost else cohort.answer(i, request, context=OTHER)

    carry(cohort, cohort.uploading(context=OTHER), answer)
    assert not cohort.one_committee.serves(range(8))


def test_a_committee_has_its_time() -> None:
    cohort, now = Nodes(), [0.0]
    cohort.one_committee = cohort.committee(epoch_s=10, clock=lambda: now[0])
    carry(cohort, cohort.uploading())
    assert cohort.one_committee.serves(range(5))
    now[0] = 10.0
    assert not cohort.one_committee.serves(range(5))


def test_a_committee_that_cannot_be_is_said_before_anybody_uploads() -> None:
    cohort = Nodes(5, decryptors=3)
    with pytest.raises(ParameterError, match="Committee.decryptors: must be at least Committee.minimum = 4"):
        carry(cohort, cohort.uploading())
    cohort = Nodes(5)
    cohort.one_committee = cohort.committee(threat_model=ThreatModel(dropout=0.6))
    one = cohort.uploading()
    carry(cohort, one)
    assert isinstance(one.error, RoundAbortedError)
    assert one.error.reason is AbortReason.INFEASIBLE_PARAMETERS
    assert cohort.made == [0] * 5
    with pytest.raises(InfeasibleParameters):
        raise InfeasibleParameters(one.error.detail)


def test_too_few_uploads_are_no_sum_and_the_committee_stays() -> None:
    cohort = Nodes()

    def answer(i: int, request: bytes) -> bytes:
        return b"" if i > 1 and phase_of(request) is OneShotPhase.UPLOAD else cohort.answer(i, request)

    one = cohort.uploading()
    carry(cohort, one, answer)
    assert isinstance(one.error, RoundAbortedError)
    assert one.error.reason is AbortReason.TOO_FEW_SURVIVORS
    assert "nodes lost: 3 (lost by the host)" in one.error.detail
    assert cohort.one_committee.view is not None


def test_a_ring_without_room_for_the_noise_is_refused_at_once() -> None:
    cohort = Nodes()
    parameters = replace(cohort.parameters(), ring_bits=40)
    with pytest.raises(ParameterError, match="pairwise protocol"):
        cohort.uploading(parameters=parameters)


def test_fewer_nodes_than_a_sum_needs_are_refused_at_once() -> None:
    with pytest.raises(ParameterError, match="nodes: must be at least 3, the fewest in a sum"):
        Nodes().uploading(nodes=range(2))


# --- a node


def requests_of(cohort: Nodes, node: int) -> dict[str, bytes]:
    """By the phase's name: phases of two kinds are equal as numbers."""
    carry(cohort, cohort.uploading())
    return {phase_of(request).name: request for request in cohort.asked[node]}


def test_asked_again_a_node_sends_the_same_and_makes_no_second_vector() -> None:
    cohort = Nodes()
    asked = requests_of(cohort, 2)
    assert declined(cohort.answer(2, asked.pop("KEYS"))) is RefusalReason.WRONG_PHASE
    assert declined(cohort.answer(2, asked.pop("REVIEW"))) is RefusalReason.WRONG_PHASE
    for phase, request in asked.items():
        first, second = (cohort.answer(2, request) for _ in range(2))
        assert declined(first) is None, phase
        assert first == second, phase
    assert cohort.made[2] == 1


def test_a_node_that_forgot_its_upload_makes_no_other() -> None:
    cohort = Nodes()
    asked = requests_of(cohort, 2)
    cohort.states[2].clear()
    assert declined(cohort.answer(2, asked["UPLOAD"])) is LossReason.FORGOTTEN
    assert cohort.made[2] == 1


def test_a_decryptor_whose_state_was_set_back_signs_and_opens_nothing() -> None:
    cohort = Nodes()
    kept: dict[str, dict[str, bytes]] = {}

    def answer(i: int, request: bytes) -> bytes:
        if i == 2:
            kept[phase_of(request).name] = dict(cohort.states[2])
        return cohort.answer(i, request)

    carry(cohort, cohort.uploading(), answer)
    asked = {phase_of(request).name: request for request in cohort.asked[2]}
    cohort.states[2] = kept["AGREE"]
    assert declined(cohort.answer(2, asked["AGREE"])) is RefusalReason.POLICY
    cohort.states[2] = kept["ACCEPTANCE"]
    assert declined(cohort.answer(2, asked["ACCEPTANCE"])) is not None
    cohort.states[2] = {}
    assert declined(cohort.answer(2, asked["KEYS"])) is LossReason.FORGOTTEN


def test_of_two_processes_of_a_decryptor_one_signs() -> None:
    cohort = Nodes()
    both = [cohort.participant(2) for _ in range(2)]
    replies: list[bytes] = []

    def answer(i: int, request: bytes) -> bytes:
        if i != 2:
            return cohort.answer(i, request)
        made = [one.answer(request, cohort.vector(2), context=CONTEXT) for one in both]
        if phase_of(request) is OneShotPhase.AGREE:
            replies.extend(made)
        return made[0]

    carry(cohort, cohort.uploading(), answer)
    assert len({one for one in replies if declined(one) is None}) == 1


def test_a_node_uploads_about_a_subject_once(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Nodes()
    carry(cohort, cohort.uploading())
    again = cohort.uploading()
    carry(cohort, again)
    assert {str(loss.reason) for loss in again.losses.values()} == {str(RefusalReason.CONTEXT_REPEATED)}
    assert "another sum needs another model" in caplog.text
    third = cohort.uploading()
    carry(cohort, third, lambda i, request: cohort.answer(i, request, again=True))
    assert len(third.survivors) == 5


def test_what_was_uploaded_once_is_in_no_sum_of_pairs() -> None:
    """Its server may have opened a sum of it, and say that there is none."""
    cohort = Nodes()
    carry(cohort, cohort.uploading())
    one = cohort.round()
    for ask in one:
        hand_in(ask, cohort.answer)
    assert {loss.reason for loss in one.losses.values()} == {LossReason.LEDGER}
    assert cohort.made == [1] * 5


def test_what_was_in_a_sum_of_pairs_is_not_uploaded() -> None:
    cohort = Nodes()
    one = cohort.round()
    for ask in one:
        hand_in(ask, cohort.answer)
    assert len(one.survivors) == 5
    other = cohort.uploading()
    carry(cohort, other)
    assert {str(loss.reason) for loss in other.losses.values()} == {str(RefusalReason.CONTEXT_REPEATED)}


def test_decryptors_sign_no_two_sums_that_differ_by_one() -> None:
    """Whatever the clients agree to: here they upload again."""
    cohort = Nodes(8, decryptors=5)
    carry(cohort, cohort.uploading())

    def answer(i: int, request: bytes) -> bytes:
        left_out = i == 7 and phase_of(request) is OneShotPhase.UPLOAD
        return b"" if left_out else cohort.answer(i, request, again=True)

    one = cohort.uploading()
    carry(cohort, one, answer)
    assert isinstance(one.error, RoundAbortedError)
    assert one.error.reason is AbortReason.NO_QUORUM
    assert {one.losses[i].reason for i in range(5)} == {LossReason.LEDGER}


def test_a_decryptor_consents_or_not() -> None:
    cohort = Nodes()
    seen: list[Any] = []

    def consent(parameters: Any, taken: Collection[Any], survivors: Collection[Any]) -> None:
        seen.append((parameters.contexts, len(taken), len(survivors)))
        raise ConsentError("not today")

    one = cohort.uploading()
    carry(
        cohort, one, lambda i, request: cohort.answer(i, request, **({"consent": consent} if i == 1 else {}))
    )
    assert seen == [((CONTEXT,), 5, 5)]
    assert one.losses[1].reason is LossReason.CONSENT
    assert len(one.survivors) == 5


def test_more_rounds_a_day_than_the_ledger_allows_are_refused() -> None:
    cohort = Nodes()
    ledgers = [ParticipationLedger(store, rounds_per_day=1) for store in cohort.elsewhere]
    carry(cohort, cohort.uploading(), lambda i, request: cohort.answer(i, request, ledger=ledgers[i]))
    one = cohort.uploading(context=OTHER)
    carry(cohort, one, lambda i, request: cohort.answer(i, request, ledger=ledgers[i], context=OTHER))
    assert {loss.reason for loss in one.losses.values()} == {LossReason.LEDGER}


def test_a_node_without_a_policy_for_it_takes_no_request_of_it() -> None:
    cohort = Nodes()
    one = cohort.uploading()
    carry(cohort, one, lambda i, request: cohort.answer(i, request, oneshot=None))
    assert {loss.reason for loss in one.losses.values()} == {RefusalReason.POLICY}


def test_a_node_refuses_a_committee_that_its_policy_does_not_allow() -> None:
    cohort = Nodes()
    careful = replace(cohort.oneshot, minimum_candidates=5, minimum_committee=5, minimum_colluding=2)
    one = cohort.uploading()
    carry(
        cohort,
        one,
        lambda i, request: cohort.answer(i, request, oneshot=careful if i == 0 else cohort.oneshot),
    )
    assert one.losses[0].reason is RefusalReason.POLICY
    assert len(one.survivors) == 4


def test_the_secrets_of_an_epoch_are_sealed_and_gone_in_time() -> None:
    cohort, now = Nodes(), [1000.0]
    long = {"epoch_s": 50.0, "wall": lambda: now[0]}
    carry(cohort, cohort.uploading(), lambda i, request: cohort.answer(i, request, **long))
    (epoch,) = [name for name in cohort.states[1] if name.startswith("epoch/")]
    request = cohort.asked[1][-1]
    assert declined(cohort.answer(1, request, **long)) is None
    now[0] += 50
    assert declined(cohort.answer(1, request, **long)) is LossReason.FORGOTTEN
    assert epoch not in cohort.states[1]


def test_an_epoch_does_not_grow_with_its_rounds() -> None:
    cohort = Nodes()
    sizes = []
    for number in range(9):
        about = context_digest(b"model", str(number).encode())
        carry(
            cohort,
            cohort.uploading(context=about),
            lambda i, request, about=about: cohort.answer(i, request, context=about),  # type: ignore[misc]
        )
        sizes.append(sum(len(cohort.states[0][name]) for name in cohort.states[0] if "epoch/" in name))
    assert sizes[8] - sizes[5] < 2000  # an opening has 12 800 bytes


def test_a_decryptor_leaves_the_epochs_before_the_one_that_is_used() -> None:
    cohort = Nodes()
    carry(cohort, cohort.uploading())
    first = cohort.asked[1][-1]
    cohort.one_committee = cohort.committee()
    carry(
        cohort, cohort.uploading(context=OTHER), lambda i, request: cohort.answer(i, request, context=OTHER)
    )
    assert declined(cohort.answer(1, first)) is LossReason.FORGOTTEN


def test_a_round_with_several_contexts_is_signed_by_nobody_here() -> None:
    """The ledger could not tell which sums are about what."""
    cohort = Nodes()
    one = cohort.uploading()
    make = one._parameters_of

    def several(digest: bytes) -> Any:
        return replace(make(digest), contexts=tuple(sorted((CONTEXT, OTHER))))

    one._parameters_of = several  # type: ignore[method-assign, assignment]
    carry(cohort, one)
    assert isinstance(one.error, RoundAbortedError)
    assert {loss.reason for loss in one.losses.values()} == {RefusalReason.POLICY}


# --- what an attack found


def test_a_vector_that_is_spent_while_a_round_of_pairs_trains_is_not_masked() -> None:
    """Both at once would give two sums: that of pairs less the other is the vector of who was left out."""
    cohort = Nodes(6, decryptors=6)
    pairs, one = cohort.round(), cohort.uploading()
    trips = iter(pairs)
    for ask in trips:
        if ask.wants_vector:
            break
        hand_in(ask, cohort.answer)
    wanted = dict(ask.frames)
    for i, request in sorted(wanted.items()):
        participant = cohort.participant(i)

        def while_it_trains(parameters: Any, i: int = i) -> Any:
            if i == 0:
                carry(cohort, one, lambda j, frame: b"" if j == 5 else cohort.answer(j, frame))
            return cohort.vector(i)(parameters)

        reply = participant.answer(request, while_it_trains, context=CONTEXT)
        if i == 5:
            ask.take(i, reply)
        else:
            assert declined(reply) is LossReason.LEDGER
    assert len(one.survivors) == 5


def test_a_node_s_minimum_cohort_says_how_many_collude() -> None:
    cohort = Nodes(30, decryptors=8)
    careful = replace(cohort.oneshot, minimum_colluding=3)  # a tenth of 30
    one = cohort.uploading(parameters=replace(cohort.parameters(), minimum_cohort=30))
    carry(cohort, one, lambda i, request: cohort.answer(i, request, oneshot=careful))
    assert len(one.survivors) == 30
    lying = cohort.uploading(context=OTHER)  # of 4: one colludes
    carry(cohort, lying, lambda i, request: cohort.answer(i, request, oneshot=careful, context=OTHER))
    assert {str(loss.reason) for loss in lying.losses.values()} == {str(RefusalReason.POLICY)}


def test_the_grace_begins_when_those_who_should_be_there_are() -> None:
    cohort = Nodes(20, decryptors=8)
    one = cohort.uploading(
        parameters=replace(cohort.parameters(), minimum_cohort=20), patience=Patience(grace_s=1e-9)
    )
    for ask in one:
        for node, request in ask.frames.items():
            if ask.over:
                break
            ask.take(node, cohort.answer(node, request))
    assert len(one.survivors) == 18  # a tenth may be missing


def test_a_node_that_fails_at_training_is_a_decryptor_all_the_same() -> None:
    cohort = Nodes()

    def answer(i: int, request: bytes) -> bytes:
        fails = i > 2 and phase_of(request) is OneShotPhase.UPLOAD
        return decline(bytes(16), LossReason.FAILED) if fails else cohort.answer(i, request)

    one = cohort.uploading()
    trips = carry(cohort, one, answer)
    assert trips[-1] == ("open", set(range(5)))
    assert set(one.survivors) == {0, 1, 2}
    assert cohort.one_committee.serves(range(5))


def test_epochs_end_in_memory_and_unasked() -> None:
    cohort, now = Nodes(), [1000.0]
    one = cohort.participant(1, epoch_s=50.0, wall=lambda: now[0])
    carry(
        cohort,
        cohort.uploading(),
        lambda i, request: (
            one.answer(request, cohort.vector(1), context=CONTEXT) if i == 1 else cohort.answer(i, request)
        ),
    )
    assert one._oneshot is not None
    (held,) = one._oneshot._held.values()
    secrets = held.session._phase.secrets  # type: ignore[union-attr]
    now[0] += 50
    one.answer(b"", cohort.vector(1), context=CONTEXT)  # whatever it is asked
    assert held.name in cohort.states[1]  # no request at all
    ask = next(iter(cohort.round()))
    one.answer(ask.frames[1], cohort.vector(1), context=CONTEXT)  # of the other protocol
    assert not one._oneshot._held
    assert not any(secrets.agreement)
    assert held.name not in cohort.states[1]


def test_an_epoch_that_its_host_hides_is_not_gone_on_with() -> None:
    cohort = Nodes()
    one = cohort.participant(1)
    carry(
        cohort,
        cohort.uploading(),
        lambda i, request: (
            one.answer(request, cohort.vector(1), context=CONTEXT) if i == 1 else cohort.answer(i, request)
        ),
    )
    assert one._oneshot is not None
    (held,) = one._oneshot._held.values()
    del cohort.states[1][held.name]
    one.forget_old()
    assert held.session.over
    assert not one._oneshot._held


def test_a_server_fills_no_node_s_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secagg.embedding.oneshot._ROUNDS", 3)
    monkeypatch.setattr("secagg.embedding.oneshot._KEYS_AN_HOUR", 5)
    cohort = Nodes()
    carry(cohort, cohort.uploading())
    review = next(request for request in cohort.asked[1] if phase_of(request) is OneShotPhase.REVIEW)
    envelope = is_bundle(review)
    assert envelope is not None
    frames = [bytes(frame) for frame in unbundled(envelope)]
    parameters = read_parameters(frames[0])
    replies: list[Any] = []
    again: list[Any] = []
    for _ in range(4):
        fresh = replace(parameters, round_id=os.urandom(16))
        frame = bytes(ONESHOT_FRAMES.encode(fresh.round_id, oneshot_to_wire(fresh)))
        asks = bytes(ONESHOT_FRAMES.encode(fresh.round_id, ReviewRequest()))
        replies.append(declined(cohort.answer(1, bundled(fresh.round_id, [frame, asks]))))
        again.append(declined(cohort.answer(1, bundled(fresh.round_id, [frame, asks]))))
    assert replies == [None, None, RefusalReason.POLICY, RefusalReason.POLICY]
    assert again == replies
    kept = len(cohort.states[1])
    asked = []
    for _ in range(6):
        epoch = cohort.committee().parameters()
        frame = bytes(ONESHOT_FRAMES.encode(epoch.epoch_id, committee_to_wire(epoch)))
        asked.append(declined(cohort.answer(1, bundled(epoch.epoch_id, [frame]))))
    assert asked == [None] * 4 + [RefusalReason.POLICY] * 2  # one was used before
    assert len(cohort.states[1]) <= kept + 4


def test_the_question_of_a_round_is_what_the_ledger_knows_it_by() -> None:
    cohort = Nodes()

    def question(_parameters: Any) -> Question:
        return Question(bytes(31) + b"q")

    carry(cohort, cohort.uploading(), lambda i, request: cohort.answer(i, request, question_of=question))
    one = cohort.uploading(context=OTHER)
    carry(cohort, one, lambda i, request: cohort.answer(i, request, question_of=question, context=OTHER))
    assert {str(loss.reason) for loss in one.losses.values()} == {str(RefusalReason.CONTEXT_REPEATED)}


def test_a_passive_committee_works_where_its_nodes_allow_it() -> None:
    cohort = Nodes()
    cohort.one_committee = cohort.committee(threat_model=ThreatModel(adversary="passive"))
    trusting = replace(cohort.oneshot, adversary="passive")
    one = cohort.uploading()
    trips = carry(cohort, one, lambda i, request: cohort.answer(i, request, oneshot=trusting))
    assert [name for name, _ in trips] == ["keys", "acceptance", "upload", "review", "open"]
    assert one.result.total.tolist() == cohort.sum_over(range(5))
    assert not one.losses


def test_a_decryptor_that_refuses_a_sum_is_not_lost_for_the_next() -> None:
    cohort = Nodes()

    def consent(*_: Any) -> None:
        raise ConsentError("not today")

    carry(
        cohort,
        cohort.uploading(),
        lambda i, request: cohort.answer(i, request, **({"consent": consent} if i == 1 else {})),
    )
    assert cohort.one_committee.serves(range(5))


def test_who_is_excluded_has_no_part_in_the_committee() -> None:
    cohort = Nodes()
    carry(cohort, cohort.uploading())
    excluded = [cohort.keys[0].identity]
    one = cohort.uploading(context=OTHER, excluded=excluded)
    trips = carry(cohort, one, lambda i, request: cohort.answer(i, request, context=OTHER))
    assert trips[0][0] == "keys"
    assert trips[-1] == ("open", {1, 2, 3, 4})
    assert one.losses[0].reason is LossReason.STRANGER
    with pytest.raises(ParameterError, match="beside those who are excluded, is 3"):
        cohort.uploading(excluded=[key.identity for key in cohort.keys[:2]])


def test_a_node_hands_in_one_upload() -> None:
    """It has those of nodes that were not asked: the round has no room for them beside the others'."""
    cohort = Nodes(8, decryptors=5)
    one = cohort.uploading(nodes=range(5))
    for ask in one:
        for node, request in ask.frames.items():
            if node == 0 and ask.wants_vector:
                for other in (5, 6, 7):
                    ask.take(0, cohort.answer(other, request))
            ask.take(node, cohort.answer(node, request))
    assert set(one.survivors) == set(range(5))
    assert {one.identities[i] for i in range(1, 5)} == {key.identity for key in cohort.keys[1:5]}
    assert not one.losses


# --- liars


@given(
    st.lists(st.binary(max_size=200), max_size=4),
    st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_any_bundle_gets_a_reply(frames: list[bytes], cut: int) -> None:
    cohort = Nodes(4, decryptors=4)
    request = bundled(os.urandom(16), frames)
    for mangled in (request, request[: len(request) - cut]):
        assert declined(cohort.participant(0).answer(mangled, cohort.vector(0), context=CONTEXT)) is not None
    assert cohort.made[0] == 0


@pytest.mark.parametrize("drop", [0, 1, -1])
def test_a_bundle_that_lacks_a_frame_gets_a_reply(drop: int) -> None:
    cohort = Nodes()
    for phase, request in requests_of(cohort, 2).items():
        envelope = is_bundle(request)
        assert envelope is not None
        frames = [bytes(frame) for frame in unbundled(envelope)]
        del frames[drop if -len(frames) <= drop < len(frames) else 0]
        reply = cohort.answer(2, bundled(envelope.round_id, frames))
        assert isinstance(reply, bytes), phase
    assert cohort.made[2] == 1


def test_the_upload_of_another_node_is_that_node_s() -> None:
    """A node hands in what another one made: it is lost, and the other is in the sum."""
    cohort = Nodes()
    made: dict[int, bytes] = {}

    def answer(i: int, request: bytes) -> bytes:
        made[i] = cohort.answer(i, request)
        stolen = i == 4 and phase_of(request) is OneShotPhase.UPLOAD
        return made[1] if stolen else made[i]

    one = cohort.uploading()
    carry(cohort, one, answer)
    assert set(one.survivors) == {0, 1, 2, 3}
    assert one.losses[4].reason is LossReason.TAKEN


def test_a_name_without_a_signature_moves_nobody() -> None:
    """A liar's upload names node 1: its part in the committee stays where it is."""
    cohort = Nodes()

    def answer(i: int, request: bytes) -> bytes:
        reply = cohort.answer(i, request)
        if i != 0 or phase_of(request) is not OneShotPhase.UPLOAD:
            return reply
        envelope = ONESHOT_FRAMES.open(reply)
        message = decode_oneshot(envelope)
        assert isinstance(message, Upload)
        lie = replace(message, identity=cohort.keys[1].identity)
        return bytes(ONESHOT_FRAMES.encode(envelope.round_id, lie))

    one = cohort.uploading()
    carry(cohort, one, answer)
    assert set(one.survivors) == {1, 2, 3, 4}
    assert one.losses[0].reason is RefusalReason.BAD_SIGNATURE


def test_the_server_s_ledger_takes_a_node_s_vector_about_a_subject_once() -> None:
    cohort = Nodes()
    ledger = ParticipationLedger(MemoryStore())
    carry(cohort, cohort.uploading(ledger=ledger))
    one = cohort.uploading(ledger=ledger)
    carry(cohort, one, lambda i, request: cohort.answer(i, request, again=True))
    assert {loss.reason for loss in one.losses.values()} == {LossReason.LEDGER}


def test_the_server_s_ledger_is_asked_before_anybody_signs() -> None:
    cohort = Nodes(6, decryptors=5)
    ledger = ParticipationLedger(MemoryStore())
    ledger.join(CONTEXT, cohort=[key.identity for key in cohort.keys], floor=3)

    def answer(i: int, request: bytes) -> bytes:
        gone = i == 5 and phase_of(request) is OneShotPhase.UPLOAD
        return b"" if gone else cohort.answer(i, request)

    one = cohort.uploading(ledger=ledger)
    trips = carry(cohort, one, answer)
    assert isinstance(one.error, LedgerError)  # five are no whole cells
    assert trips[-1][0] == "review"


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Nodes()
    with caplog.at_level(logging.DEBUG):
        carry(cohort, cohort.uploading())
    text = caplog.text + repr(cohort.participant(0)) + repr(cohort.one_committee) + repr(cohort.uploading())
    for key in cohort.keys:
        assert key.seed.hex() not in text
    assert "certificate" not in repr(cohort.one_committee)


# --- a folder


def test_a_folder_names_its_decryptors(tmp_path: Any) -> None:
    cohort = Uploading()
    own = write_key(tmp_path / "party.key").identity
    (tmp_path / "registry.toml").write_text(cohort.registry.dump(), encoding="utf-8")
    with pytest.raises(RegistryError, match=f"must have this node, its identity is {own.hex()}"):
        Participant.open(tmp_path, minimum_cohort=4)
    parties = [("me", own), *((name, identity) for identity, name in cohort.registry.names.items())]
    registry = Registry.of(parties)
    (tmp_path / "registry.toml").write_text(registry.dump(), encoding="utf-8")
    with Participant.open(tmp_path, minimum_cohort=4, decryptors="all") as one:
        assert one._oneshot is not None
        assert one._oneshot._policy.decryptors == registry.identities
    with Participant.open(tmp_path, minimum_cohort=4) as one:
        assert one._oneshot is None
    demands = {"minimum_survivors": 5, "minimum_colluding": 2, "require_post_quantum": False}
    with Participant.open(tmp_path, minimum_cohort=4, decryptors=["node-1"] * 4, demands=demands) as one:
        assert one._oneshot is not None
        assert one._oneshot._policy.minimum_colluding == 2
        assert one._means.policy.minimum_survivors == 5
    with pytest.raises(RegistryError, match="decryptors: party nobody: is not in the registry"):
        Participant.open(tmp_path, minimum_cohort=4, decryptors=["nobody"])
    with pytest.raises(ParameterError, match="decryptors: must be names, or 'all', is 'node-1'"):
        Participant.open(tmp_path, minimum_cohort=4, decryptors="node-1")
    with pytest.raises(ParameterError, match="decryptors: must be names, or 'all', is 'node-1'"):
        Committee(decryptors="node-1")
    with pytest.raises(RegistryError, match="Committee.decryptors: party nobody"):
        Committee(decryptors=["nobody"]).candidates(registry)
    with pytest.raises(ParameterError, match="demands: minimum_coluding is of neither"):
        Participant.open(tmp_path, minimum_cohort=4, demands={"minimum_coluding": 2})
