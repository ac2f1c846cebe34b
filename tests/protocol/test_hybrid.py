"""Rounds of the hybrid suite: the sums of the other one, whoever vanishes, whoever is started again."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

from secagg import aggregate
from secagg.effects import Aborted, AbortReason, Dropped, DropReason, PhaseClosed, RefusalReason, Send
from secagg.errors import ParameterError
from secagg.messages import (
    Advertisement,
    MaskedInput,
    RosterAnnouncement,
    ShareDelivery,
    SharedKeys,
)
from secagg.params import HYBRID, Adversary, Phase, Policy, Suite, ThreatModel
from secagg.primitives.kem import KemSecret
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.client.phases import MaskedInputCollection, ShareKeys, Uploaded
from secagg.transcript import RecordedServerSession, verify
from tests.protocol.network import (
    Cohort,
    CounterEntropy,
    changed,
    flipped,
    opened,
    refused_by_client,
    refused_by_server,
)

BAD = "contribution that does not open"


def cohort(clients: int = 10, adversary: Adversary = "active", suite: Suite = HYBRID) -> Cohort:
    return Cohort(clients, adversary=adversary, dropout=0.2, ring_bits=11, minimum_cohort=8, suite=suite)


@pytest.mark.parametrize(
    ("adversary", "phase"),
    [
        *(("active", phase) for phase in (None, *Phase)),
        *(("passive", phase) for phase in (None, *Phase) if phase is not Phase.CONSISTENCY_CHECK),
    ],
)
def test_the_sum_is_exact_whoever_vanishes(adversary: Adversary, phase: Phase | None) -> None:
    lost = {} if phase is None else {0: phase, 9: phase}
    c = cohort(adversary=adversary)
    uploaded = {i for i in range(10) if i not in lost or lost[i] > Phase.MASKED_INPUT_COLLECTION}
    assert c.total(lost) == c.sum_over(uploaded)


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_on_a_sparse_graph_too(adversary: Adversary) -> None:
    model = ThreatModel(
        corrupt=0.03, dropout=0.1, adversary=adversary, security_bits=1, correctness_bits=1, grinding_bits=0
    )
    vectors = [np.full(5, i, np.uint32) for i in range(60)]
    drop = {3: Phase.MASKED_INPUT_COLLECTION, 30: Phase.MASKED_INPUT_COLLECTION, 59: Phase.UNMASKING}
    got = aggregate(vectors, ring_bits=20, drop=drop, threat_model=model, suite=HYBRID)
    assert got.total.tolist() == [sum(i for i in range(60) if i not in {3, 30})] * 5


HOOKS: dict[str, Callable[[Cohort], object]] = {
    "server": Cohort.restart_server,
    "clients": lambda c: [c.restart_client(i) for i in range(10) if c.clients[i].parameters is not None],
}


@pytest.mark.parametrize("who", HOOKS)
def test_whoever_is_started_again_goes_on(who: str) -> None:
    lost = {2: Phase.SHARE_KEYS, 4: Phase.MASKED_INPUT_COLLECTION, 7: Phase.UNMASKING}
    c = cohort().start()
    while c.server.phase is not None:
        for i in c.waiting():
            if lost.get(i, len(Phase)) > c.server.phase:
                c.ask(i)
                HOOKS[who](c)
                c.tell(i)
                if who == "server":
                    before = c.server.snapshot()
                    HOOKS[who](c)
                    assert c.server.snapshot() == before
        c.close()
    assert c.outcome is not None
    assert not isinstance(c.outcome, Aborted)
    assert c.outcome.total.tolist() == c.sum_over(set(range(10)) - {2, 4})


def test_each_client_has_two_kem_keys_of_its_own_and_seals_each_share_under_one() -> None:
    c = cohort().advance(Phase.SHARE_KEYS)
    announced = opened(RosterAnnouncement, c.request(0)).neighbors
    keys = [key for one in announced for key in (one.share_kem_key, one.mask_kem_key)]
    assert len(set(keys)) == len(keys) == 18
    assert all(KemSecret(c.secrets(i + 1).kem).public == one.share_kem_key for i, one in enumerate(announced))
    c.ask_all()
    for i in range(10):
        shared = opened(SharedKeys, c.answer(i))
        assert len({share.kem for share in shared.shares}) == 9
        assert [c.index[one.peer] for one in shared.contributions] == list(range(i + 1, 10))  # type: ignore[index]
    c.tell_all().close()
    for i in range(10):
        delivered = opened(ShareDelivery, c.request(i))
        assert [c.index[one.peer] for one in delivered.contributions] == list(range(i))  # type: ignore[index]


def test_what_is_not_needed_any_more_is_wiped() -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    sharing = c.clients[9]._phase
    assert isinstance(sharing, ShareKeys)
    kem, agreed = sharing.secrets.kem, list(sharing.opening.values())
    assert any(kem)
    c.clients[9].receive(c.request(9))
    assert kem == bytes(64)
    assert agreed == [bytes(32)] * 9
    collecting = c.clients[9]._phase
    assert isinstance(collecting, MaskedInputCollection)
    added, root = list(collecting.contributions.values()), collecting.secrets.mask
    assert len(added) == 9
    assert any(root)
    c.clients[9].submit(c.vector(9))
    assert isinstance(c.clients[9]._phase, Uploaded)
    assert added == [bytes(32)] * 9
    assert root == bytes(32)


def test_a_client_that_closes_its_session_wipes_them_too() -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    c.clients[9].receive(c.request(9))
    phase = c.clients[9]._phase
    assert isinstance(phase, MaskedInputCollection)
    added = list(phase.contributions.values())
    c.clients[9].close()
    assert added == [bytes(32)] * 9


def test_suites_do_not_mix() -> None:
    other_suite: dict[Suite, tuple[Suite, RefusalReason, str]] = {
        HYBRID: ("x25519", RefusalReason.BAD_KEY, "must be there"),
        "x25519": (HYBRID, RefusalReason.WRONG_LENGTH, "at most 1024 bytes"),
    }
    for suite, (theirs_suite, reason, said) in other_suite.items():
        one, other = cohort(suite=suite).start(), cohort(suite=theirs_suite).start()
        other.ask(0)
        theirs = opened(Advertisement, other.answer(0))
        (refused,) = one.server.receive(one.identities[0], one.frame(theirs))
        assert refused.reason is reason  # type: ignore[union-attr]
        assert said in refused.detail  # type: ignore[union-attr]


def test_a_client_takes_part_in_the_suite_that_it_demands() -> None:
    plain = cohort(suite="x25519").start()
    demanding = Policy(known=None, minimum_cohort=3, require_post_quantum=True)
    plain.clients[0] = plain.fresh_client(0, policy=demanding)
    effects = plain.clients[0].receive(plain.request(0))
    (refused,) = effects
    assert refused.reason is RefusalReason.POLICY  # type: ignore[union-attr]
    assert refused.breaches[0].field == "suite"  # type: ignore[union-attr]
    assert "suite: must be x25519-mlkem768, is x25519" in refused.detail  # type: ignore[union-attr]
    hybrid = cohort().start()
    hybrid.clients[0] = hybrid.fresh_client(0, policy=demanding)
    assert [type(one) for one in hybrid.clients[0].receive(hybrid.request(0))] == [Send]


def test_where_there_is_no_ml_kem_nobody_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    c = cohort().start()
    monkeypatch.setattr("secagg.primitives.kem.AVAILABLE", False)
    refused_by_client(c, 0, c.request(0), RefusalReason.POLICY)
    with pytest.raises(ParameterError, match="ML-KEM-768"):
        ServerSession(c.parameters, admitted=c.identities).start()


# --- contributions that do not open


def with_bad(sender: int, *receivers: int, c: Cohort | None = None) -> Cohort:
    """A cohort up to MaskedInputCollection of which one sent these receivers nonsense."""
    c = cohort() if c is None else c
    c.advance(Phase.SHARE_KEYS).ask_all()
    message = opened(SharedKeys, c.answer(sender))
    bad = tuple(
        type(one)(one.peer, one.kem, flipped(one.ciphertext, 9)) if c.index[one.peer] in receivers else one  # type: ignore[index]
        for one in message.contributions
    )
    c.answers[sender] = changed(c, SharedKeys, c.answer(sender), contributions=bad)
    c.tell_all().close()
    return c


def collect(c: Cohort, *, absent: tuple[int, ...] = ()) -> Cohort:
    """Everybody but these answers; who leaves says so."""
    for i in c.waiting():
        if i not in absent:
            c.ask(i)
            assert c.tell(i) == []
    return c


def test_who_gets_a_contribution_that_does_not_open_leaves_and_says_about_whom() -> None:
    c = with_bad(2, 5)
    effects = c.ask(5)
    assert [type(one) for one in effects] == [Send, Aborted]
    assert c.client_aborts == {5: AbortReason.BAD_CONTRIBUTION}
    said = opened(MaskedInput, c.answer(5))
    assert (said.unopened, bytes(said.packed), said.complaints) == ((c.identities[2],), b"", ())
    again = c.clients[5].receive(c.request(5))
    assert [bytes(one.frame) for one in again if isinstance(one, Send)] == [c.answer(5)]
    restored, effects = ClientSession.restore(c.clients[5].snapshot(), signer=c.signers[5], policy=c.policy)
    assert [bytes(one.frame) for one in effects if isinstance(one, Send)] == [c.answer(5)]
    assert restored.phase is None


def test_the_sender_of_nonsense_is_proved_guilty_and_the_next_attempt_does_without_it() -> None:
    c = with_bad(2, 5)
    outcome = collect(c).finish()
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.BAD_CONTRIBUTION
    assert outcome.guilty == outcome.blamed == (c.identities[2],)
    assert outcome.likely == ()


def test_where_the_sender_of_nonsense_is_gone_the_sum_comes_out_and_it_is_guilty() -> None:
    c = with_bad(2, 5)
    collect(c, absent=(2,)).close()
    outcome = c.finish()
    assert not isinstance(outcome, Aborted)
    assert outcome.total.tolist() == c.sum_over(set(range(10)) - {2, 5})
    assert [(one.client, one.guilty, str(one.reason)) for one in outcome.blamed] == [
        (c.identities[2], True, "lied about a contribution to a mask")
    ]


def leave(c: Cohort, i: int, *accused: int) -> bytes:
    """The frame with which client i leaves because of these, whatever they sent."""
    view, names = c.view(), tuple(c.identities[j] for j in sorted(accused))
    finished = view.bitmap(c.server._phase.finished)  # type: ignore[union-attr]
    got = [one for one in opened(ShareDelivery, c.request(i)).contributions if one.peer in names]
    text = view.departure_text(finished, got)
    return c.frame(MaskedInput(b"", (), c.signers[i].sign(text), names))


def test_who_leaves_without_a_reason_is_proved_guilty_and_the_sum_comes_out() -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    assert c.tell(5, leave(c, 5, 2, 3)) == []
    outcome = collect(c).finish()
    assert not isinstance(outcome, Aborted)
    assert outcome.total.tolist() == c.sum_over(set(range(10)) - {5})
    assert [(one.client, one.guilty) for one in outcome.blamed] == [(c.identities[5], True)]


def test_who_left_is_not_waited_for_and_not_in_the_sum() -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    before = c.server.progress
    assert c.tell(5, leave(c, 5, 2)) == []
    now = c.server.progress
    assert (now.received, now.expected) == (before.received, before.expected - 1)
    assert c.identities[5] not in now.missing
    assert c.tell(5, leave(c, 5, 2)) == []  # it stands
    refused_by_server(c, 5, leave(c, 5, 3), RefusalReason.EQUIVOCATION)
    c.restart_server()
    assert c.server.progress == now
    collect(c)
    effects = c.close()
    assert [(one.client, one.reason) for one in effects if isinstance(one, Dropped)] == [
        (c.identities[5], DropReason.LEFT)
    ]
    (closed,) = (one for one in effects if isinstance(one, PhaseClosed))
    assert c.identities[5] not in closed.remaining


def test_so_many_who_leave_that_nothing_comes_out_are_enough_to_know_because_of_whom() -> None:
    c = with_bad(0, *range(1, 10))
    outcome = collect(c).finish()
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.TOO_FEW_SURVIVORS
    assert outcome.guilty == (c.identities[0],)
    assert set(outcome.blamed) == set(c.identities)


@pytest.mark.parametrize("keep", [False, True])
def test_a_recorded_round_in_which_somebody_leaves_is_verified(keep: bool) -> None:
    c, file, signer = cohort(), io.BytesIO(), IdentityKey.generate(CounterEntropy("server"))
    c.server = RecordedServerSession(
        c.parameters, admitted=c.identities, file=file, signer=signer, keep_inputs=keep
    )
    with_bad(2, 5, c=c)
    collect(c, absent=(2,)).close()
    c.finish()
    file.seek(0)
    report = verify(file, known=frozenset(c.identities), server=signer.identity)
    assert report.findings == ()
    assert report.facts.guilty == (c.identities[2],)


def test_the_frames_are_as_large_as_planned() -> None:
    from secagg import plan

    c = Cohort(10, ring_bits=11, vector_length=20, suite=HYBRID)
    outcome = c.finish()
    assert not isinstance(outcome, Aborted)
    planned = plan(clients=10, vector_length=20, value_bits=7, suite=HYBRID)
    sent = sum(outcome.traffic.up.values()), sum(outcome.traffic.down.values())
    wanted = 10 * sum(planned.up.values()), 10 * sum(planned.down.values())
    assert sent == pytest.approx(wanted, rel=0.05)  # one has nine neighbors
