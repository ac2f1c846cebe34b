"""A node of another stack: one request in, one reply out, everything kept in the one right order."""

from __future__ import annotations

import logging
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import AbortReason, ConsentError, IdentityKey, Policy, RefusalReason, context_digest
from secagg.embedding import (
    LossReason,
    MappingStore,
    MemoryStore,
    Participant,
    ParticipationLedger,
    Question,
    StoredCounter,
    decline,
    declined,
    participant,
    write_key,
)
from secagg.errors import KeyFileError, ParameterError, RegistryError
from secagg.kernels import UIntArray
from secagg.messages import KINDS, MaskedInput, ShareDelivery, UnmaskingRequest, open_frame
from secagg.store import LedgerError, SealedStore, StoreBusyError, StoreFullError
from tests.embedding.cohort import CONTEXT, Cohort, requests, run


def _given(vector: UIntArray, _parameters: object) -> UIntArray:
    return vector


def upto(cohort: Cohort, kind: type) -> bytes:
    """Return the request of a kind to node 0; it has answered all before."""
    for request in requests(cohort, 0):
        if KINDS[open_frame(request).kind] is kind:
            return request
    raise AssertionError(kind)


def test_the_nodes_of_a_round_need_nothing_but_their_keys_and_what_was_kept() -> None:
    cohort = Cohort()
    assert run(cohort, cohort.round()).result.total.tolist() == cohort.sum_over(range(5))
    assert cohort.made == [1] * 5


# --- state


def test_a_repeated_request_gets_the_same_reply_and_no_second_vector() -> None:
    cohort = Cohort()
    for request in requests(cohort, 0):
        first = cohort.answer(0, request)
        assert declined(first) is None
        assert cohort.answer(0, request) == first
    assert cohort.made[0] == 1


def test_a_node_whose_state_was_set_back_masks_no_second_vector(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)
    before = dict(cohort.states[0])
    assert declined(cohort.answer(0, request)) is None
    cohort.states[0].clear()
    cohort.states[0].update(before)
    assert declined(cohort.answer(0, request)) is LossReason.SET_BACK
    assert cohort.made[0] == 1
    assert "must be the newest" in caplog.text


def test_of_two_processes_with_one_state_one_answers_and_what_it_sent_is_what_it_sends_again() -> None:
    cohort, other = Cohort(), list[bytes]()
    request = upto(cohort, ShareDelivery)

    def slow(_parameters: object) -> UIntArray:
        other.append(cohort.answer(0, request))  # the other process is quicker
        return np.array([7, 7, 7], np.uint32)

    assert declined(cohort.participant(0).answer(request, slow, context=CONTEXT)) is LossReason.SET_BACK
    assert declined(other[0]) is None
    assert cohort.answer(0, request) == other[0]


def test_without_a_counter_elsewhere_a_state_that_is_set_back_is_not_noticed_and_that_is_said() -> None:
    cohort = Cohort()
    participant._warned = False
    for missing in ({"counter": None}, {"ledger": None}):
        participant._warned = False
        with pytest.warns(UserWarning, match="no counter, or no ledger, outside of its store") as caught:
            cohort.participant(0, **missing)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort.participant(0, counter=None)  # once
    request = upto(cohort, ShareDelivery)
    frames = set()
    for entry in (1, 2):  # why it is said
        before = dict(cohort.states[0])
        node = cohort.participant(0, counter=StoredCounter(MappingStore({})))
        vector = np.full(3, entry, np.uint32)
        frames.add(node.answer(request, partial(_given, vector), context=CONTEXT))
        cohort.states[0] = before
    assert len(frames) == 2
    assert not any(map(declined, frames))


def test_a_node_that_lost_its_state_stays_out_of_the_round() -> None:
    cohort = Cohort()
    first, second = (request for request, _ in zip(requests(cohort, 0), range(2), strict=False))
    cohort.states[0].clear()
    assert declined(cohort.answer(0, second)) is LossReason.FORGOTTEN
    assert declined(cohort.answer(0, first)) is LossReason.FORGOTTEN


def test_the_secrets_of_a_round_are_sealed_and_gone_when_others_begin() -> None:
    cohort = Cohort()
    for request in requests(cohort, 0):
        cohort.answer(0, request)
    state = cohort.states[0]
    kept = [name for name in state if name.endswith("/session")]
    assert len(kept) == 1
    assert not any(cohort.keys[0].seed in value for value in state.values())
    assert all(CONTEXT not in value for value in state.values())
    for _ in range(4):
        next(requests(cohort, 0))
        one = cohort.round()
        ask = next(iter(one))
        cohort.answer(0, ask.frames[0])
    left = [name for name in cohort.states[0] if name.endswith("/session")]
    assert kept[0] not in left
    assert len(left) == 4


def test_a_round_about_something_else_leaves_nothing_behind() -> None:
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)
    reply = cohort.participant(0).answer(
        request, cohort.vector(0), context=lambda: context_digest(b"another model")
    )
    assert str(declined(reply)) == str(AbortReason.CONTEXT_MISMATCH)
    assert not [name for name in cohort.states[0] if name.startswith("embedding/")]


def test_a_round_that_was_left_leaves_nothing_behind() -> None:
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)
    reply = cohort.participant(0).answer(request, lambda _p: np.zeros(9, np.uint32), context=CONTEXT)
    assert declined(reply) is LossReason.FAILED
    assert not [name for name in cohort.states[0] if name.startswith("embedding/")]
    assert declined(cohort.answer(0, request)) is LossReason.FORGOTTEN
    assert cohort.made[0] == 0


def test_a_store_that_takes_nothing_is_a_reason_and_the_round_goes_on_when_it_does_again() -> None:
    cohort = Cohort()

    class Full(MemoryStore):
        full = False

        def put(self, values: Any) -> None:
            if self.full:
                raise StoreFullError("disk full of secrets")
            super().put(values)

    store = Full()
    request = next(iter(cohort.round())).frames[0]
    sealed = SealedStore(store, bytes(32))
    node = cohort.participant(0, store=sealed, counter=StoredCounter(sealed))
    store.full = True
    assert declined(node.answer(request, cohort.vector(0), context=CONTEXT)) is LossReason.STORE
    store.full = False
    assert declined(node.answer(request, cohort.vector(0), context=CONTEXT)) is None


def test_a_step_that_was_counted_and_not_kept_is_lost_and_not_made_again() -> None:
    """As when a process is killed between a counter elsewhere and its store: nothing is masked twice."""
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)

    class Dying(MappingStore):
        def put(self, values: Any) -> None:
            if any(name.endswith("/upload") and value for name, value in values.items()):
                raise StoreFullError("no room")
            super().put(values)

    node = cohort.participant(0, store=Dying(cohort.states[0]))
    assert declined(node.answer(request, cohort.vector(0), context=CONTEXT)) is LossReason.STORE
    assert declined(cohort.answer(0, request)) is LossReason.SET_BACK
    assert cohort.made[0] == 1


def test_of_two_processes_that_keep_at_once_only_one_snapshot_ever_exists() -> None:
    """Both have passed every check when the first begins to write: the second is stopped by the counter."""
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)
    at_once, replies = threading.Barrier(2), list[bytes]()
    held = cohort.elsewhere[0]

    class Meeting(MemoryStore):
        """The other process's view of the same store and counter: no lock is shared."""

        def put(self, values: Any) -> None:
            MappingStore(cohort.states[0]).put(values)

        def get(self, name: str) -> bytes | None:
            return cohort.states[0].get(name)

        def names(self, prefix: str) -> list[str]:
            return MappingStore(cohort.states[0]).names(prefix)

    def process(entry: int) -> None:
        def vector(_parameters: object) -> UIntArray:
            return np.full(3, entry, np.uint32)

        node = cohort.participant(0, store=Meeting(), counter=StoredCounter(held))
        at_once.wait()
        replies.append(node.answer(request, vector, context=CONTEXT))

    threads = [threading.Thread(target=process, args=(entry,)) for entry in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = {reply for reply in replies if declined(reply) is None}
    assert len(frames) <= 1
    again = cohort.answer(0, request)
    assert {again} == frames or declined(again) is not None


# --- what a liar gains


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_get_a_reply_without_a_frame(request: bytes) -> None:
    cohort = Cohort(1)
    assert declined(cohort.answer(0, request)) is not None
    assert cohort.made == [0]


@pytest.mark.parametrize("request_", [None, "text", 7, ["frame"]])
def test_a_request_that_is_no_bytes_gets_a_reply_without_a_frame(request_: Any) -> None:
    assert declined(Cohort(1).answer(0, request_)) is RefusalReason.MALFORMED


def test_a_state_that_fails_when_a_round_is_forgotten_raises_nothing() -> None:
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)

    class Failing(MappingStore):
        def put(self, values: Any) -> None:
            if not any(values.values()):
                raise OSError("/home/patient-4711: gone")
            super().put(values)

    def fail(_parameters: object) -> Any:
        raise ValueError

    reply = cohort.participant(0, store=Failing(cohort.states[0])).answer(request, fail, context=CONTEXT)
    assert declined(reply) is LossReason.FAILED


def test_a_context_that_is_none_is_this_node_s_fault() -> None:
    cohort = Cohort()
    request = next(iter(cohort.round())).frames[0]
    assert (
        declined(cohort.participant(0).answer(request, cohort.vector(0), context=b"x")) is LossReason.FAILED
    )


def test_an_answer_from_within_an_answer_of_its_round_does_not_wait_for_itself() -> None:
    cohort, inner = Cohort(), list[bytes]()
    request = upto(cohort, ShareDelivery)
    node = cohort.participant(0)

    def again(_parameters: object) -> UIntArray:
        inner.append(node.answer(request, again, context=CONTEXT))
        return np.array([1, 0, 0], np.uint32)

    assert declined(node.answer(request, again, context=CONTEXT)) is None
    assert [declined(one) for one in inner] == [RefusalReason.WRONG_PHASE]


def test_a_round_that_was_forgotten_while_its_vector_was_made_is_counted_again() -> None:
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)

    def others(_parameters: object) -> UIntArray:
        for _ in range(4):
            cohort.answer(0, next(iter(cohort.round())).frames[0])
        return np.array([1, 0, 0], np.uint32)

    cohort.participant(0).answer(request, others, context=CONTEXT)
    for _ in range(5):
        cohort.answer(0, next(iter(cohort.round())).frames[0])
    left = [name for name in cohort.states[0] if name.startswith("embedding/")]
    assert len({name.split("/")[1] for name in left}) == 4


def test_a_first_request_leaves_nothing_in_the_ledger() -> None:
    cohort = Cohort()
    for _ in range(3):
        cohort.answer(0, next(iter(cohort.round())).frames[0])
    assert not cohort.elsewhere[0].names("ledger/")


def test_what_an_exception_says_is_logged_here_and_does_not_travel(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Cohort()
    request = upto(cohort, ShareDelivery)

    def fail(_parameters: object) -> Any:
        raise ValueError("patient 4711 has no age")

    reply = cohort.participant(0).answer(request, fail, context=CONTEXT)
    assert declined(reply) is LossReason.FAILED
    assert b"4711" not in reply
    assert "4711" in caplog.text


def test_a_round_about_something_else_is_refused_at_once_where_the_node_knows_what_it_is_about() -> None:
    cohort = Cohort()
    request = next(iter(cohort.round())).frames[0]
    reply = cohort.participant(0).answer(request, cohort.vector(0), context=context_digest(b"model 8"))
    assert declined(reply) is RefusalReason.CONTEXT_MISMATCH
    assert cohort.states[0].keys() <= {"sealed/check"}


def test_a_round_about_something_else_is_left_when_the_vector_is_wanted_where_it_does_not() -> None:
    cohort = Cohort()
    asked: list[bool] = []

    def context() -> bytes:
        asked.append(True)
        return context_digest(b"model 8")

    one = cohort.round()
    for ask in one:
        for node, frame in ask.frames.items():
            if node:
                ask.take(node, cohort.answer(node, frame))
                continue
            assert not asked
            reply = cohort.participant(0).answer(frame, cohort.vector(0), context=context)
            ask.take(0, reply)
            if ask.wants_vector:
                assert asked == [True]
                assert declined(reply) == AbortReason.CONTEXT_MISMATCH
    assert one.losses[0].reason == AbortReason.CONTEXT_MISMATCH
    assert cohort.made[0] == 0  # it did not even train
    assert one.result.total.tolist() == cohort.sum_over(range(1, 5))


def test_a_policy_of_the_node_s_own_decides(caplog: pytest.LogCaptureFixture) -> None:
    cohort = Cohort()
    request = next(iter(cohort.round())).frames[0]
    strict = Policy(known=cohort.registry.identities, minimum_cohort=50)
    assert declined(cohort.answer(0, request, policy=strict)) is RefusalReason.POLICY
    assert "minimum_cohort" in caplog.text


def test_a_sum_that_the_ledger_refuses_is_not_signed() -> None:
    cohort = Cohort()
    assert run(cohort, cohort.round()).survivors
    again = run(cohort, cohort.round(), gone=[4])  # about the same, over others: one could be told apart
    assert {loss.reason for node, loss in again.losses.items() if node != 4} == {LossReason.LEDGER}
    assert again.error is not None
    assert run(cohort, cohort.round(parameters=cohort.parameters())).error is None  # the same set again


def test_more_rounds_a_day_than_the_ledger_allows_are_refused() -> None:
    cohort = Cohort()
    ledger = ParticipationLedger(cohort.elsewhere[0], rounds_per_day=1)
    assert run(cohort, cohort.round()).survivors
    request = upto(cohort, ShareDelivery)
    assert declined(cohort.answer(0, request, ledger=ledger)) is LossReason.LEDGER
    assert cohort.made[0] == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ConsentError("not these"), LossReason.CONSENT), (LedgerError([]), LossReason.LEDGER)],
)
def test_a_sum_that_the_node_does_not_consent_to_is_not_signed(error: Exception, reason: LossReason) -> None:
    cohort, asked = Cohort(), list[int]()

    def consent(_parameters: object, _finished: frozenset[bytes], survivors: frozenset[bytes]) -> None:
        asked.append(len(survivors))
        raise error

    one = cohort.round()
    for ask in one:
        for node, frame in ask.frames.items():
            others: dict[str, Any] = {"consent": consent} if node == 0 else {}
            ask.take(node, cohort.answer(node, frame, **others))
    assert asked == [5]
    assert one.losses[0].reason is reason
    assert one.result.total.tolist() == cohort.sum_over(range(5))  # over others' signatures


def test_the_question_of_a_round_is_what_the_ledger_knows_it_by() -> None:
    cohort = Cohort()
    question = Question(context_digest(b"patients"))
    for request in requests(cohort, 0):
        cohort.answer(0, request, question_of=lambda _parameters: question)
    ledger = ParticipationLedger(cohort.elsewhere[0])
    assert ledger.told(question.subject, cohort.keys[0].identity)


# --- replies


@pytest.mark.parametrize("reason", [*LossReason, *RefusalReason, *AbortReason])
def test_a_reason_is_understood_by_the_other_end(reason: Any) -> None:
    assert str(declined(decline(bytes(16), reason))) == str(reason)


def test_a_reason_that_nobody_knows_is_none() -> None:
    class Other(str):
        __slots__ = ()

    assert declined(decline(bytes(16), Other("<script>"))) is LossReason.MALFORMED  # type: ignore[arg-type]
    assert declined(decline(bytes(16), Other("x" * 300))) is None  # type: ignore[arg-type]
    assert declined(b"") is None


def test_the_upload_is_a_frame_and_not_a_reason() -> None:
    cohort = Cohort()
    reply = cohort.answer(0, upto(cohort, ShareDelivery))
    assert KINDS[open_frame(reply).kind] is MaskedInput


# --- setting up


def test_a_signer_without_a_seed_needs_a_key_for_the_store() -> None:
    class Token:
        identity = IdentityKey.from_seed(bytes(32)).identity

        def sign(self, text: bytes) -> bytes:
            return bytes(64)

    policy, store = Policy(known=None, minimum_cohort=4), MappingStore({})
    kept = {"counter": StoredCounter(MemoryStore()), "ledger": ParticipationLedger(MemoryStore())}
    with pytest.raises(ParameterError, match="key: must be given"):
        Participant(Token(), policy, store=store, **kept)  # type: ignore[arg-type]
    Participant(Token(), policy, store=store, key=bytes(32), **kept)  # type: ignore[arg-type]


def folder(tmp_path: Path) -> tuple[Path, Cohort]:
    cohort, home = Cohort(), tmp_path / "node"
    home.mkdir()
    key = write_key(home / "party.key")
    cohort.keys[0] = key
    cohort.registry = type(cohort.registry).of((f"n{i}", one.identity) for i, one in enumerate(cohort.keys))
    cohort.policy = Policy(known=cohort.registry.identities, minimum_cohort=4)
    (home / "registry.toml").write_text(cohort.registry.dump(), encoding="utf-8")
    return home, cohort


def test_a_node_s_folder_is_all_that_it_needs(tmp_path: Path) -> None:
    home, cohort = folder(tmp_path)
    one = cohort.round()
    for ask in one:
        for node, frame in ask.frames.items():
            if node:
                ask.take(node, cohort.answer(node, frame))
                continue
            with Participant.open(home, minimum_cohort=4) as opened:  # a process for each request
                assert opened.identity == cohort.keys[0].identity
                ask.take(0, opened.answer(frame, cohort.vector(0), context=CONTEXT))
    assert one.result.total.tolist() == cohort.sum_over(range(5))


def test_a_node_s_folder_is_one_process_s(tmp_path: Path) -> None:
    home, _ = folder(tmp_path)
    with Participant.open(home, minimum_cohort=4), pytest.raises(StoreBusyError):
        Participant.open(home, minimum_cohort=4)
    state: dict[str, bytes] = {}
    with Participant.open(home, minimum_cohort=4, store=MappingStore(state)):
        assert state  # sealed
    assert not (home / "nothing").exists()


def test_a_folder_without_key_or_registry_says_which(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"party\.key"):
        Participant.open(tmp_path, minimum_cohort=4)
    write_key(tmp_path / "party.key")
    with pytest.raises(RegistryError, match=r"registry\.toml"):
        Participant.open(tmp_path, minimum_cohort=4)


def test_nothing_secret_is_in_what_is_printed_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cohort = Cohort()
    request = upto(cohort, UnmaskingRequest)
    one = cohort.participant(0)
    one.answer(request, cohort.vector(0), context=CONTEXT)
    seed = cohort.keys[0].seed.hex()
    assert seed not in repr(one)
    assert seed not in caplog.text
