"""Nothing is signed, or answered, for survivors that the session's caller has not consented to."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from secagg.effects import Aggregate, Completed, RefusalReason, RosterAccepted, Send, SignWanted
from secagg.errors import LocalProtocolError, ParameterError, StaleSnapshotError
from secagg.messages import (
    ShareDelivery,
    SurvivorSet,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
)
from secagg.params import Adversary, Identity, Phase
from secagg.protocol import ClientSession
from secagg.store import MemoryStore, StoredCounter
from tests.protocol.network import Cohort, changed, opened, refused_by_client

LOST = {5: Phase.SHARE_KEYS, 6: Phase.MASKED_INPUT_COLLECTION}
U1 = frozenset({0, 1, 2, 3, 4, 6, 7})
S = frozenset({0, 1, 2, 3, 4, 7})
ASKS: dict[Adversary, Phase] = {"active": Phase.CONSISTENCY_CHECK, "passive": Phase.UNMASKING}
BOTH = pytest.mark.parametrize("adversary", ["active", "passive"])


def asked(adversary: Adversary = "active") -> Cohort:
    """Client 0 has been sent what it must consent to."""
    return Cohort(8, adversary=adversary, dropout=0.25).advance(ASKS[adversary], LOST)


def wanted(cohort: Cohort, survivors: Collection[int] = S) -> SignWanted:
    names = cohort.identities
    return SignWanted(frozenset(names[i] for i in U1), frozenset(names[i] for i in survivors))


def of_another_set(cohort: Cohort) -> bytes:
    """The same question about a smaller set."""
    bitmap = cohort.view().bitmap(S - {7})
    if cohort.view().active:
        return cohort.frame(SurvivorSet(bitmap))
    uploads = opened(UnmaskingRequest, cohort.request(0)).uploads
    left = tuple(proof for proof in uploads if proof.identity != cohort.identities[7])
    return changed(cohort, UnmaskingRequest, cohort.request(0), survivors=bitmap, uploads=left)


def unmasking(cohort: Cohort, survivors: Collection[int] = S) -> bytes:
    """A request that everybody signed, without upload proofs."""
    view = cohort.view()
    text = view.survivors_text(view.bitmap(U1), view.bitmap(survivors))
    signatures = tuple(SurvivorSignature(i, cohort.signers[i].sign(text)) for i in range(8))
    return cohort.frame(UnmaskingRequest(view.bitmap(survivors), (), signatures))


@BOTH
def test_a_client_says_whom_a_sum_would_be_over_and_sends_nothing_before_its_caller_consents(
    adversary: Adversary,
) -> None:
    cohort = asked(adversary)
    client = cohort.clients[0]
    for _ in range(2):  # asked again, it asks again
        assert client.receive(cohort.request(0)) == [wanted(cohort)]
    sent, *completed = client.sign()
    assert isinstance(sent, Send)
    assert client.receive(cohort.request(0)) == [sent]
    survivors = wanted(cohort).survivors
    assert completed == ([] if adversary == "active" else [Completed(None, survivors)])
    cohort.answers[0] = bytes(sent.frame)
    assert cohort.tell(0) == []
    result = cohort.finish(LOST)
    assert isinstance(result, Aggregate)
    assert frozenset(result.survivors) == survivors


@BOTH
def test_both_ends_say_over_whom_the_sum_is(adversary: Adversary) -> None:
    cohort = asked(adversary)
    ends = []
    while cohort.server.phase is not None:
        for i in cohort.waiting():
            ends += [effect for effect in cohort.ask(i) if isinstance(effect, Completed)]
        cohort.tell_all()
        ends += [effect for effect in cohort.close() if isinstance(effect, Completed)]
    assert len(ends) == len(S) + 1
    assert {end.survivors for end in ends} == {wanted(cohort).survivors}
    assert isinstance(cohort.outcome, Aggregate)
    assert frozenset(cohort.outcome.survivors) == wanted(cohort).survivors


@BOTH
def test_another_set_is_refused_while_one_waits_for_consent_and_after_it(adversary: Adversary) -> None:
    cohort = asked(adversary)
    client = cohort.clients[0]
    client.receive(cohort.request(0))
    refused_by_client(cohort, 0, of_another_set(cohort), RefusalReason.EQUIVOCATION)
    if adversary == "active":
        refused_by_client(cohort, 0, unmasking(cohort, S - {7}), RefusalReason.EQUIVOCATION)
    assert client.receive(cohort.request(0)) == [wanted(cohort)]
    client.sign()
    refused_by_client(cohort, 0, of_another_set(cohort), RefusalReason.EQUIVOCATION)


def test_whoever_was_not_asked_to_sign_is_asked_before_it_answers() -> None:
    """However many others have consented: a lying server could leave out whom it wants an answer of."""
    cohort = asked()
    client = cohort.clients[0]
    assert client.receive(unmasking(cohort)) == [wanted(cohort)]
    assert client.answered_phase is Phase.MASKED_INPUT_COLLECTION
    sent, completed = client.sign()
    assert isinstance(sent, Send)
    assert {*opened(UnmaskingResponse, sent.frame.buffer()).mask_key_shares}
    assert completed == Completed(None, wanted(cohort).survivors)


def test_a_request_for_the_set_that_waits_for_consent_is_answered_with_it() -> None:
    cohort = asked()
    client = cohort.clients[0]
    client.receive(cohort.request(0))
    assert client.receive(unmasking(cohort)) == [wanted(cohort)]
    sent, _completed = client.sign()
    assert isinstance(sent, Send)
    opened(UnmaskingResponse, sent.frame.buffer())
    refused_by_client(cohort, 0, cohort.request(0), RefusalReason.WRONG_PHASE)  # an older frame


@BOTH
def test_a_caller_that_does_not_consent_leaves_and_nothing_is_sent(adversary: Adversary) -> None:
    cohort = asked(adversary)
    client = cohort.clients[0]
    client.receive(cohort.request(0))
    held = cohort.share_plaintexts(1)[0]
    client.close()
    assert held not in client.snapshot()
    with pytest.raises(LocalProtocolError, match="sign"):
        client.sign()
    for frame in (cohort.request(0), of_another_set(cohort)):
        assert not [effect for effect in client.receive(frame) if isinstance(effect, Send | SignWanted)]
    refused_by_client(cohort, 0, cohort.request(0), RefusalReason.WRONG_PHASE)


@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.name)
def test_there_is_nothing_to_consent_to_at_any_other_moment(phase: Phase) -> None:
    cohort = Cohort(6).advance(phase)
    with pytest.raises(LocalProtocolError, match="sign: takes one call after SignWanted"):
        cohort.clients[0].sign()
    cohort.ask(0)
    before = cohort.clients[0].snapshot()
    with pytest.raises(LocalProtocolError, match="sign"):
        cohort.clients[0].sign()
    assert cohort.clients[0].snapshot() == before
    assert cohort.total() == [1] * 6


@BOTH
def test_a_restored_session_asks_again_and_signs_nothing_by_itself(adversary: Adversary) -> None:
    cohort = asked(adversary)
    cohort.clients[0].receive(cohort.request(0))
    data = cohort.clients[0].snapshot()
    client, effects = ClientSession.restore(data, signer=cohort.signers[0], policy=cohort.policy)
    assert effects == [RosterAccepted(cohort.parameters.round_id), wanted(cohort)]
    assert client.snapshot() == data
    cohort.clients[0] = client
    refused_by_client(cohort, 0, of_another_set(cohort), RefusalReason.EQUIVOCATION)
    assert client.receive(cohort.request(0)) == [wanted(cohort)]
    cohort.take_client(0, client.sign())
    assert cohort.tell(0) == []
    assert isinstance(cohort.finish(LOST), Aggregate)


@BOTH
def test_a_client_restored_after_its_answer_says_again_over_whom_the_sum_is(adversary: Adversary) -> None:
    cohort = asked(adversary).advance(Phase.UNMASKING, LOST)
    cohort.ask(0)
    effects = cohort.restart_client(0)
    assert effects[-1] == Completed(None, wanted(cohort).survivors)
    cohort.clients[1].close()
    assert not [effect for effect in cohort.restart_client(1) if isinstance(effect, Completed)]


class Stubborn:
    """A signer that fails at first: a token that is not plugged in."""

    def __init__(self, cohort: Cohort) -> None:
        self._signer = cohort.signers[0]
        self.works = False

    @property
    def identity(self) -> Identity:
        return self._signer.identity

    def sign(self, text: bytes) -> bytes:
        if not self.works:
            raise OSError("not plugged in")
        return self._signer.sign(text)


def test_a_signer_that_fails_changes_nothing() -> None:
    cohort = asked()
    cohort.clients[0].receive(cohort.request(0))
    signer = Stubborn(cohort)
    client, _ = ClientSession.restore(cohort.clients[0].snapshot(), signer=signer, policy=cohort.policy)
    before = client.snapshot()
    with pytest.raises(OSError, match="not plugged in"):
        client.sign()
    assert client.snapshot() == before
    signer.works = True
    (sent,) = client.sign()
    assert isinstance(sent, Send)


def test_what_waits_for_consent_does_not_lie_in_the_caller_s_buffer() -> None:
    cohort = asked("passive")
    frame = bytearray(cohort.request(0))
    cohort.clients[0].receive(memoryview(frame))
    frame[:] = bytes(len(frame))
    sent, _completed = cohort.clients[0].sign()
    assert isinstance(sent, Send)
    assert len(opened(UnmaskingResponse, sent.frame.buffer()).self_seed_shares) == len(S) - 1


# --- forks: of two sessions of one snapshot only one goes on


def fork(cohort: Cohort, counter: StoredCounter) -> list[ClientSession]:
    """Two sessions of client 0 as it is now."""
    client = cohort.clients[0]
    if client.releases > counter.value("round"):
        counter.advance("round", client.releases)
    arguments = {"signer": cohort.signers[0], "policy": cohort.policy, "releases": counter.value("round")}
    return [ClientSession.restore(client.snapshot(), **arguments)[0] for _ in range(2)]  # type: ignore[arg-type]


def only_one(first: ClientSession, second: ClientSession, counter: StoredCounter, stale: bytes) -> None:
    """What both have just done, the counter lets one of them do; and nobody goes back behind it."""
    counter.advance("round", first.releases)
    with pytest.raises(ParameterError, match="must be above"):
        counter.advance("round", second.releases)
    with pytest.raises(StaleSnapshotError):
        ClientSession.restore(
            stale, signer=first._signer, policy=first._policy, releases=counter.value("round")
        )


def test_of_two_sessions_of_one_snapshot_only_one_takes_a_vector_early() -> None:
    cohort = Cohort(6).advance(Phase.SHARE_KEYS)
    counter, stale = StoredCounter(MemoryStore()), cohort.clients[0].snapshot()
    first, second = fork(cohort, counter)
    first.submit(cohort.vector(0))
    second.submit(cohort.vector(1))
    only_one(first, second, counter, stale)


def test_of_two_sessions_of_one_snapshot_only_one_wants_a_vector() -> None:
    """The server shows each another U1."""
    cohort = Cohort(6).advance(Phase.MASKED_INPUT_COLLECTION)
    counter, stale = StoredCounter(MemoryStore()), cohort.clients[0].snapshot()
    first, second = fork(cohort, counter)
    first.receive(cohort.request(0))
    delivery = opened(ShareDelivery, cohort.request(0))
    fewer = tuple(share for share in delivery.shares if share.peer != cohort.identities[5])
    second.receive(changed(cohort, ShareDelivery, cohort.request(0), finished=b"\x1f", shares=fewer))
    only_one(first, second, counter, stale)


def test_of_two_sessions_that_want_a_vector_only_one_masks_one() -> None:
    cohort = Cohort(6).advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.clients[0].receive(cohort.request(0))
    counter, stale = StoredCounter(MemoryStore()), cohort.clients[0].snapshot()
    first, second = fork(cohort, counter)
    first.submit(cohort.vector(0))
    second.submit(cohort.vector(1))
    only_one(first, second, counter, stale)


@BOTH
def test_of_two_sessions_of_one_snapshot_only_one_is_asked_about_a_set_and_only_one_signs(
    adversary: Adversary,
) -> None:
    cohort = asked(adversary)
    counter, stale = StoredCounter(MemoryStore()), cohort.clients[0].snapshot()
    first, second = fork(cohort, counter)
    assert first.receive(cohort.request(0)) == [wanted(cohort)]
    assert second.receive(of_another_set(cohort)) == [wanted(cohort, S - {7})]
    only_one(first, second, counter, stale)
    cohort.clients[0], stale = first, first.snapshot()
    first, second = fork(cohort, counter)
    first.sign()
    second.sign()
    only_one(first, second, counter, stale)
