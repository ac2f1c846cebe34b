"""Holders and dealers that lie: corrected with the surplus, suspected, and guilty only beyond the bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import Aborted, AbortReason, Aggregate, BlameReason
from secagg.kernels import PRIME
from secagg.messages import MaskedInput, RevealedShare, SharedKeys, UnmaskingResponse
from secagg.params import Adversary, Identity, Phase
from secagg.primitives.shamir import Correction, correct_shares
from secagg.protocol.server import recovery
from tests.protocol.network import Cohort, changed, flipped, opened, total_of

Spoil = Callable[[bytes], bytes]


def beyond_the_field(share: bytes) -> bytes:
    return PRIME.to_bytes(8, "little") + share[8:]


def all_ones(_share: bytes) -> bytes:
    return b"\xff" * 40


def zeros(_share: bytes) -> bytes:
    return bytes(40)


def last_word(share: bytes) -> bytes:
    return flipped(share, 8 * 32)


SPOILED: dict[str, Spoil] = {
    "word equal to p": beyond_the_field,
    "words of ones": all_ones,
    "zeros": zeros,
    "one bit of one limb": last_word,
}


def spoiled(cohort: Cohort, holder: int, spoil: Spoil, dealers: set[int] | None = None) -> bytes:
    """The holder's answer with wrong shares of these dealers (of everybody)."""
    message = opened(UnmaskingResponse, cohort.answer(holder))

    def change(shares: Sequence[RevealedShare]) -> tuple[RevealedShare, ...]:
        return tuple(
            replace(share, share=spoil(share.share))
            if dealers is None or cohort.index[Identity(share.dealer)] in dealers
            else share
            for share in shares
        )

    return cohort.frame(UnmaskingResponse(change(message.self_seed_shares), change(message.mask_key_shares)))


def result(cohort: Cohort) -> Aggregate:
    assert isinstance(cohort.outcome, Aggregate), cohort.outcome
    return cohort.outcome


def blamed(cohort: Cohort) -> dict[int, tuple[bool, BlameReason]]:
    return {cohort.index[b.client]: (b.guilty, b.reason) for b in result(cohort).blamed}


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("lost", [{}, {7: Phase.MASKED_INPUT_COLLECTION}], ids=["all stay", "one drops"])
@pytest.mark.parametrize("name", SPOILED)
def test_wrong_shares_of_a_holder_are_corrected_and_it_is_guilty(
    name: str, lost: dict[int, Phase], adversary: Adversary
) -> None:
    cohort = Cohort(8, adversary=adversary).advance(Phase.UNMASKING, lost).ask_all(lost)
    assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (5, 1)
    if lost:
        # six neighbors each: the surplus of one corrects a word beyond the field, or leaves one holder out
        assert cohort.server.progress.expected == 7
    assert cohort.tell(3, spoiled(cohort, 3, SPOILED[name])) == []
    cohort.tell_all(lost).close()
    assert total_of(result(cohort)) == cohort.sum_over(set(range(8)) - set(lost))
    others = {i: (False, BlameReason.WRONG_SHARE) for i in range(8) if i != 3}
    assert blamed(cohort) == others | {3: (True, BlameReason.WRONG_SHARE)}


def test_a_wrong_share_of_one_pair_makes_two_suspects_and_nobody_guilty() -> None:
    cohort = Cohort(8).advance(Phase.UNMASKING).ask_all()
    cohort.tell(3, spoiled(cohort, 3, all_ones, {5}))
    cohort.tell_all().close()
    assert total_of(result(cohort)) == [1] * 8
    assert blamed(cohort) == {
        3: (False, BlameReason.WRONG_SHARE),
        5: (False, BlameReason.WRONG_SHARE),
    }


def test_as_many_wrong_shares_as_half_the_surplus_are_corrected() -> None:
    cohort = Cohort(11, corrupt=0.19).advance(Phase.UNMASKING).ask_all()
    threshold, answers = cohort.view().roster.threshold, 10
    assert threshold == 7
    liars = range((answers - threshold) // 2)
    for i in liars:
        cohort.tell(i, spoiled(cohort, i, last_word))
    cohort.tell_all().close()
    assert total_of(result(cohort)) == [1] * 11


def test_one_wrong_share_beyond_half_the_surplus_is_found_by_leaving_holders_out() -> None:
    """Six answers, threshold five: no error can be located, but the commitment tells who to leave out."""
    cohort = Cohort(8).advance(Phase.UNMASKING).ask_all()
    for i in range(7):
        cohort.tell(i, spoiled(cohort, i, last_word) if i == 0 else None)
    cohort.close()
    assert total_of(result(cohort)) == [1] * 8
    assert blamed(cohort)[0] == (True, BlameReason.WRONG_SHARE)
    assert not any(guilty for i, (guilty, _) in blamed(cohort).items() if i != 0)


def test_holders_that_spoil_different_limbs_are_each_suspected_and_nobody_else() -> None:
    """Each limb has one error, the pairs have three: more than the surplus of two."""
    cohort = Cohort(10, corrupt=0.3).advance(Phase.UNMASKING).ask_all()
    assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (7, 3)
    for liar in range(3):
        cohort.tell(liar, spoiled(cohort, liar, partial(flipped, bit=64 * liar), {9}))
    cohort.tell_all().close()
    assert total_of(result(cohort)) == [1] * 10
    assert blamed(cohort) == dict.fromkeys((0, 1, 2, 9), (False, BlameReason.WRONG_SHARE))


def test_too_many_wrong_shares_end_the_round_and_name_the_suspects() -> None:
    cohort = Cohort(8).advance(Phase.UNMASKING).ask_all()
    for liar in range(4):
        cohort.tell(liar, spoiled(cohort, liar, all_ones, {7}))
    cohort.tell_all().close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert cohort.outcome.blamed == cohort.identities  # whoever answered for client 7, and client 7
    assert cohort.outcome.guilty == (cohort.identities[7],)  # contradicted by more than collude


# --- dealers


def dealing(clients: int, dealer: int, spoil: Callable[[Cohort], bytes], corrupt: float = 0.1) -> Cohort:
    """A round up to phase 2 whose dealer sends what `spoil` makes of its SharedKeys."""
    cohort = Cohort(clients, corrupt=corrupt).advance(Phase.SHARE_KEYS).ask_all()
    assert cohort.tell(dealer, spoil(cohort)) == []
    cohort.tell_all().close()
    return cohort


def unsealed(dealer: int, holders: set[int]) -> Callable[[Cohort], bytes]:
    """Ciphertexts that do not open for these holders."""

    def spoil(cohort: Cohort) -> bytes:
        message = opened(SharedKeys, cohort.answer(dealer))
        shares = tuple(
            replace(share, ciphertext=flipped(share.ciphertext, 5))
            if cohort.index[Identity(share.peer)] in holders
            else share
            for share in message.shares
        )
        return cohort.frame(replace(message, shares=shares))

    return spoil


def off_the_polynomial(dealer: int, holders: set[int]) -> Callable[[Cohort], bytes]:
    """Shares that open and are not those of the others."""

    def spoil(cohort: Cohort) -> bytes:
        right = cohort.share_plaintexts(dealer)
        return cohort.dealt(dealer, {holder: flipped(flipped(right[holder], 3), 403) for holder in holders})

    return spoil


@pytest.mark.parametrize("lost", [{}, {0: Phase.MASKED_INPUT_COLLECTION}], ids=["it stays", "it drops"])
@pytest.mark.parametrize("lie", [unsealed, off_the_polynomial])
def test_one_holder_without_a_right_share_is_suspected_like_its_dealer(
    lie: Callable[[int, set[int]], Callable[[Cohort], bytes]], lost: dict[int, Phase]
) -> None:
    cohort = dealing(8, 0, lie(0, {4}))
    assert cohort.total(lost) == cohort.sum_over(set(range(8)) - set(lost))
    reason = BlameReason.COMPLAINT if lie is unsealed else BlameReason.WRONG_SHARE
    assert blamed(cohort) == {0: (False, reason), 4: (False, reason)}


def test_a_dealer_contradicted_by_more_holders_than_collude_is_guilty() -> None:
    cohort = dealing(11, 0, unsealed(0, {1, 2, 3}))
    assert cohort.view().suspicion_limit == 2
    assert cohort.total() == [1] * 11
    suspects = dict.fromkeys((1, 2, 3), (False, BlameReason.COMPLAINT))
    assert blamed(cohort) == suspects | {0: (True, BlameReason.COMPLAINT)}


def test_complaints_and_wrong_shares_count_together() -> None:
    def spoil(cohort: Cohort) -> bytes:
        right = cohort.share_plaintexts(0)
        plaintexts = {1: b"\xff" * 80, 2: b"\xff" * 80, 3: flipped(right[3], 400)}
        return cohort.dealt(0, plaintexts)

    cohort = dealing(13, 0, spoil)
    assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (8, 2)
    assert cohort.total() == [1] * 13
    assert blamed(cohort)[0] == (True, BlameReason.WRONG_SHARE)
    assert {i for i, (guilty, _) in blamed(cohort).items() if guilty} == {0}


def test_a_dealer_whose_shares_open_for_too_few_ends_the_round_when_uploads_close() -> None:
    cohort = dealing(8, 0, unsealed(0, {1, 2, 3}))
    cohort.ask_all()
    assert [opened(MaskedInput, cohort.answer(i)).complaints for i in range(8)] == [
        (cohort.identities[0],) if i in {1, 2, 3} else () for i in range(8)
    ]
    cohort.tell_all().close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.COMPLAINTS
    assert cohort.outcome.blamed == cohort.identities[:4]


def test_a_dealer_whose_polynomial_fails_its_commitment_is_guilty() -> None:
    """All agree on one polynomial, so most of them are honest, so the dealer shared it."""

    def spoil(cohort: Cohort) -> bytes:
        return changed(cohort, SharedKeys, cohort.answer(0), seed_commitment=bytes(32))

    cohort = dealing(8, 0, spoil)
    cohort.finish()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert cohort.outcome.blamed == cohort.identities
    assert cohort.outcome.guilty == (cohort.identities[0],)


def test_a_dealer_of_a_wrong_secret_is_guilty_though_a_few_shares_do_not_agree() -> None:
    """Nine answers, threshold six: seven agree on a secret that fails its check, so six honest ones do."""

    def spoil(cohort: Cohort) -> bytes:
        right = cohort.share_plaintexts(0)
        wrong = {holder: flipped(right[holder], 403) for holder in (1, 2)}
        return changed(cohort, SharedKeys, cohort.dealt(0, wrong), seed_commitment=bytes(32))

    cohort = dealing(10, 0, spoil)
    assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (6, 1)
    cohort.finish()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert cohort.outcome.guilty == (cohort.identities[0],)


def test_a_commitment_is_not_needed_for_a_dealer_that_drops() -> None:
    cohort = dealing(8, 0, lambda c: changed(c, SharedKeys, c.answer(0), seed_commitment=bytes(32)))
    assert cohort.total({0: Phase.MASKED_INPUT_COLLECTION}) == [0] + [1] * 7


def test_a_dealer_that_shared_another_key_than_it_advertised_is_guilty_when_it_drops() -> None:
    def spoil(cohort: Cohort) -> bytes:
        others = cohort.share_plaintexts(1)  # a right sharing, of another client's secrets
        plaintexts = dict(zip(range(1, 8), others.values(), strict=True))
        return cohort.dealt(0, plaintexts)

    cohort = dealing(8, 0, spoil)
    cohort.finish({0: Phase.MASKED_INPUT_COLLECTION})
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert cohort.outcome.guilty == (cohort.identities[0],)


def test_an_inconsistent_sharing_ends_the_round_and_names_its_dealer() -> None:
    cohort = dealing(8, 0, off_the_polynomial(0, {1, 2, 3, 4}))
    cohort.finish()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert cohort.identities[0] in cohort.outcome.blamed
    assert set(cohort.outcome.guilty) <= {cohort.identities[0]}


def test_the_complaints_of_a_liar_alone_blame_nobody_else_as_guilty() -> None:
    cohort = Cohort(8).advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    frame = changed(cohort, MaskedInput, cohort.answer(0), complaints=cohort.identities[1:])
    cohort.tell(0, frame)
    cohort.tell_all().close()
    cohort.ask_all().tell_all().close()
    for i in range(8):
        cohort.ask(i)
    assert cohort.tell(0, cohort.frame(UnmaskingResponse((), ()))) == []
    cohort.tell_all().close()
    assert total_of(result(cohort)) == [1] * 8
    assert {i for i, (guilty, _) in blamed(cohort).items() if guilty} == {0}


# --- whoever lies within the bound


@st.composite
def lies(draw: st.DrawFn) -> dict[str, Any]:
    """A cohort, and what its colluders do wrong."""
    clients, corrupt = draw(st.sampled_from([(5, 0.1), (8, 0.1), (10, 0.2), (10, 0.3), (12, 0.25)]))
    bound = -(-round(corrupt * 100) * clients // 100)
    liars = draw(st.sets(st.integers(0, clients - 1), min_size=1, max_size=bound))
    pairs = st.sets(st.integers(0, clients - 1), max_size=clients)
    kinds = ("unsealed", "off", "commitment", "complaints", "shares", "silent")
    return {
        "clients": clients,
        "corrupt": corrupt,
        "adversary": draw(st.sampled_from(["active", "passive"])),
        "bound": bound,
        "lies": {
            liar: {kind: draw(pairs) for kind in draw(st.sets(st.sampled_from(kinds), max_size=3))}
            for liar in liars
        },
        "spoil": draw(st.sampled_from(sorted(SPOILED))),
        "lost": draw(
            st.dictionaries(
                st.integers(0, clients - 1),
                st.sampled_from([Phase.MASKED_INPUT_COLLECTION, Phase.UNMASKING]),
                max_size=1,
            )
        ),
    }


def run_with(case: dict[str, Any]) -> Cohort:
    """Play the lies; every refused message is followed by nothing."""
    cohort = Cohort(case["clients"], corrupt=case["corrupt"], adversary=case["adversary"])
    told: dict[int, dict[str, set[int]]] = case["lies"]
    lost: dict[int, Phase] = case["lost"]
    cohort.advance(Phase.SHARE_KEYS).ask_all()
    for liar, kinds in told.items():
        frame = cohort.answer(liar)
        right = cohort.share_plaintexts(liar)
        wrong = {h: flipped(flipped(right[h], h), 320 + h) for h in kinds.get("off", ()) if h != liar}
        wrong |= {h: b"\xff" * 80 for h in kinds.get("unsealed", ()) if h != liar}
        frame = cohort.dealt(liar, wrong)
        if "commitment" in kinds:
            frame = changed(cohort, SharedKeys, frame, seed_commitment=bytes(32))
        assert cohort.tell(liar, frame) == []
    cohort.tell_all().close()
    cohort.ask_all(lost)
    about: dict[int, set[Identity]] = {}
    for liar, kinds in told.items():
        if "complaints" in kinds and lost.get(liar) is not Phase.MASKED_INPUT_COLLECTION:
            message = opened(MaskedInput, cohort.answer(liar))
            named = {cohort.identities[i] for i in kinds["complaints"] if i != liar}
            about[liar] = {Identity(c) for c in message.complaints} | named
            complaints = tuple(sorted(about[liar]))
            assert cohort.tell(liar, cohort.frame(replace(message, complaints=complaints))) == []
    cohort.tell_all(lost).close()
    if cohort.server.phase is Phase.CONSISTENCY_CHECK:
        cohort.ask_all(lost).tell_all(lost).close()
    if cohort.server.phase is Phase.UNMASKING:
        cohort.ask_all(lost)
        for liar, kinds in told.items():
            if lost.get(liar) is not None:
                continue
            if "silent" in kinds:
                cohort.server.drop(cohort.identities[liar])
                continue
            frame = cohort.answer(liar)
            if "shares" in kinds:
                frame = spoiled(cohort, liar, SPOILED[case["spoil"]], kinds["shares"])
            answer = opened(UnmaskingResponse, frame)
            kept = {
                name: tuple(s for s in getattr(answer, name) if s.dealer not in about.get(liar, ()))
                for name in ("self_seed_shares", "mask_key_shares")
            }
            assert cohort.tell(liar, cohort.frame(UnmaskingResponse(**kept))) == []
        cohort.tell_all(lost).close()
    return cohort


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(lies())
def test_nobody_innocent_is_guilty_and_a_sum_is_exact(case: dict[str, Any]) -> None:
    cohort = run_with(case)
    liars = {cohort.identities[i] for i in case["lies"]}
    assert cohort.outcome is not None
    if isinstance(cohort.outcome, Aborted):
        assert set(cohort.outcome.guilty) <= liars
        return
    gone = {i for i, phase in case["lost"].items() if phase is Phase.MASKED_INPUT_COLLECTION}
    assert total_of(cohort.outcome) == cohort.sum_over(set(range(case["clients"])) - gone)
    assert {entry.client for entry in cohort.outcome.blamed if entry.guilty} <= liars
    for entry in cohort.outcome.blamed:  # every suspicion has a liar at one end
        assert entry.client in liars or liars & {other.client for other in cohort.outcome.blamed}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_few_holders_answer_the_sum_is_exact(data: st.DataObject) -> None:
    """Nine answers, threshold six: one liar with any words, to any dealers."""
    cohort = Cohort(10).advance(Phase.UNMASKING).ask_all()
    liar = data.draw(st.integers(0, 9))
    message = opened(UnmaskingResponse, cohort.answer(liar))
    shares = tuple(
        replace(share, share=data.draw(st.one_of(st.just(share.share), st.binary(min_size=40, max_size=40))))
        for share in message.self_seed_shares
    )
    cohort.tell(liar, cohort.frame(replace(message, self_seed_shares=shares)))
    cohort.tell_all().close()
    assert total_of(result(cohort)) == [1] * 10
    wrong = {
        cohort.index[Identity(new.dealer)]
        for new, old in zip(shares, message.self_seed_shares, strict=True)
        if new != old
    }
    assert set(blamed(cohort)) == (wrong | {liar} if wrong else set())
    assert {i for i, (guilty, _) in blamed(cohort).items() if guilty} == ({liar} if len(wrong) > 1 else set())


def test_without_a_surplus_of_one_more_no_holder_left_out_helps() -> None:
    """With an even surplus, what decodes without one holder decodes with all."""
    rng = np.random.default_rng(3)
    for size, threshold in ((5, 3), (6, 2), (7, 3)):
        points = np.arange(1, size + 1, dtype=np.uint64)
        for _ in range(60):
            shares = rng.integers(0, 4, (size, 5), dtype=np.uint64)  # small values agree by chance often
            if correct_shares(points, shares, threshold) is not None:
                continue
            for out in range(size):
                rest = correct_shares(np.delete(points, out), np.delete(shares, out, axis=0), threshold)
                assert rest is None


def test_garbage_of_many_dealers_costs_a_bounded_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(*_: object) -> Correction | None:
        nonlocal calls
        calls += 1
        return None

    monkeypatch.setattr(recovery, "correct_shares", counted)
    effort = recovery._Effort()
    points, words = np.arange(1, 1002, dtype=np.uint64), np.ones((1001, 5), np.uint64)
    for _ in range(5):
        secret, _agreed = recovery._correct(points, words, 500, lambda _: True, effort)
        assert secret is None
    assert 5 < calls < 5 + 2**28 // (5 * 1001**2) + 1
