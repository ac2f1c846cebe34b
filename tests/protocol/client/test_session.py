"""What holds in every phase of a client."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import Aborted, Completed, InputWanted, RefusalReason, Refused, Send
from secagg.errors import ParameterError
from secagg.messages import decode_frame, encode_frame
from secagg.params import Phase
from secagg.protocol import ClientSession
from tests.protocol.network import Cohort, flipped, refused_by_client

PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.name)
LATER = pytest.mark.parametrize("phase", list(Phase)[1:], ids=lambda p: p.name)


def asked(phase: Phase) -> Cohort:
    """The server has asked in this phase; nobody has answered."""
    return Cohort(6).advance(phase)


@PHASES
def test_the_phase_of_a_client_is_that_of_the_paper(phase: Phase) -> None:
    cohort = asked(phase)
    cohort.ask(0)
    expected = {
        Phase.ADVERTISE_KEYS: Phase.ADVERTISE_KEYS,
        Phase.SHARE_KEYS: Phase.SHARE_KEYS,
        Phase.MASKED_INPUT_COLLECTION: Phase.CONSISTENCY_CHECK,  # for that it waits
        Phase.CONSISTENCY_CHECK: Phase.UNMASKING,
        Phase.UNMASKING: None,
    }
    assert cohort.clients[0].phase == expected[phase]
    assert cohort.clients[0].parameters == cohort.parameters


@LATER
def test_requests_of_later_phases_are_refused_and_so_are_those_of_earlier_ones(phase: Phase) -> None:
    frames = {other: asked(other).request(0) for other in Phase}
    cohort = asked(phase)
    for other, frame in frames.items():
        if other > phase:
            if (phase, other) != (Phase.CONSISTENCY_CHECK, Phase.UNMASKING):
                refused_by_client(cohort, 0, frame, RefusalReason.WRONG_PHASE)
        elif other < phase:
            if frame == cohort.request(0) or other == phase - 1:
                continue  # the newest that it answered: it answers again
            refused_by_client(cohort, 0, frame, RefusalReason.WRONG_PHASE)
    assert cohort.total() == [1] * 6


@LATER
def test_a_frame_of_another_round_is_refused(phase: Phase) -> None:
    cohort = asked(phase)
    frame = bytes(encode_frame(bytes(16), decode_frame(cohort.request(0))[1]))
    refused_by_client(cohort, 0, frame, RefusalReason.WRONG_ROUND)
    assert cohort.total() == [1] * 6


@PHASES
def test_an_identical_retransmission_gets_the_same_answer(phase: Phase) -> None:
    cohort = asked(phase)
    cohort.ask(0)
    for _ in range(2):
        effects = cohort.clients[0].receive(cohort.request(0))
        assert [bytes(effect.frame) for effect in effects if isinstance(effect, Send)] == [cohort.answer(0)]
        assert not [effect for effect in effects if isinstance(effect, Completed | InputWanted | Aborted)]
    assert cohort.total() == [1] * 6


@pytest.mark.parametrize("phase", list(Phase)[:-1], ids=lambda p: p.name)
def test_a_message_after_a_newer_one_was_answered_is_refused(phase: Phase) -> None:
    cohort = asked(phase)
    old = cohort.request(0)
    cohort.ask_all().tell_all().close()
    cohort.ask(0)
    refused_by_client(cohort, 0, old, RefusalReason.WRONG_PHASE)
    assert cohort.total() == [1] * 6


@PHASES
def test_what_the_client_sends_is_refused_when_it_comes_back(phase: Phase) -> None:
    cohort = asked(phase)
    cohort.ask(0)
    refused_by_client(cohort, 0, cohort.answer(0), RefusalReason.WRONG_PHASE)


_RECORDED: dict[Phase, Cohort] = {}


def restored(phase: Phase) -> tuple[Cohort, ClientSession]:
    cohort = _RECORDED.setdefault(phase, asked(phase))
    client, _ = ClientSession.restore(
        cohort.clients[0].snapshot(), signer=cohort.signers[0], policy=cohort.policy
    )
    return cohort, client


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Phase)[1:]), st.binary(max_size=80))
def test_no_bytes_of_the_server_raise_or_change_anything(phase: Phase, data: bytes) -> None:
    cohort, client = restored(phase)
    (effect,) = client.receive(data)
    assert isinstance(effect, Refused)
    assert client.snapshot() == cohort.clients[0].snapshot()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Phase)[1:]), st.integers(0, 2**20), st.integers(0, 2**20))
def test_flipped_bits_of_a_frame_are_refused_or_judged_and_never_raise(
    phase: Phase, one: int, two: int
) -> None:
    cohort, client = restored(phase)
    effects = client.receive(flipped(flipped(cohort.request(0), one), two))
    if [type(effect) for effect in effects] == [Refused]:
        assert client.snapshot() == cohort.clients[0].snapshot()
    else:
        assert not [effect for effect in effects if isinstance(effect, Refused)]


def test_a_repr_shows_the_phase_and_no_secret() -> None:
    cohort = asked(Phase.SHARE_KEYS)
    assert repr(cohort.clients[0]) == "ClientSession(phase=<Phase.ADVERTISE_KEYS: 0>)"
    shown = repr(cohort.clients[0]._phase)
    secrets = cohort.secrets(0)
    for secret in (secrets.mask, secrets.agreement, secrets.self_seed, secrets.share_seed):
        assert repr(secret) not in shown
        assert secret.hex() not in shown


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads: int) -> None:
    with pytest.raises(ParameterError, match=f"threads: must be at least 1, is {threads}"):
        Cohort(4).fresh_client(0, threads=threads)
