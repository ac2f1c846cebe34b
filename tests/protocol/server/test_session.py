"""What holds in every phase of the server."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import Aborted, Dropped, DropReason, PhaseClosed, RefusalReason, Refused, Send
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import decode_frame, encode_frame
from secagg.params import Adversary, Identity, Phase
from secagg.protocol import ServerSession
from tests.protocol.network import Cohort, flipped, refused_by_server, server_state

PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.name)


def answered(phase: Phase, adversary: Adversary = "active") -> Cohort:
    """Everybody's answer of the phase is ready to be told."""
    return Cohort(6, adversary=adversary, minimum_cohort=5).advance(phase).ask_all()


def test_nothing_is_heard_before_the_start() -> None:
    cohort = Cohort(5)
    (effect,) = cohort.server.receive(cohort.identities[0], cohort.parameters_frame())
    assert isinstance(effect, Refused)
    assert effect.reason is RefusalReason.WRONG_PHASE
    with pytest.raises(LocalProtocolError):
        cohort.server.close_phase()
    with pytest.raises(LocalProtocolError):
        cohort.server.snapshot()
    assert cohort.server.progress.phase is None
    assert cohort.server.phase is None


def test_a_round_starts_once() -> None:
    cohort = Cohort(5).start()
    with pytest.raises(LocalProtocolError, match="started"):
        cohort.server.start()
    cohort.finish()
    with pytest.raises(LocalProtocolError, match="started"):
        cohort.server.start()


@PHASES
def test_a_sender_that_is_not_admitted_is_refused(phase: Phase) -> None:
    cohort = answered(phase)
    before = server_state(cohort.server)
    stranger = Identity(bytes(32))
    (effect,) = cohort.server.receive(stranger, cohort.answer(0))
    assert isinstance(effect, Refused)
    assert (effect.sender, effect.reason) == (stranger, RefusalReason.UNKNOWN_SENDER)
    assert server_state(cohort.server) == before


@PHASES
def test_messages_of_every_other_phase_are_refused(phase: Phase) -> None:
    frames = {other: answered(other).answer(1) for other in Phase}
    cohort = answered(phase)
    for other, frame in frames.items():
        if other > phase:
            refused_by_server(cohort, 1, frame, RefusalReason.WRONG_PHASE)
        elif other < phase:  # the same bytes as in its own phase: the request again, or nothing more
            (effect,) = cohort.tell(1, frame)
            assert isinstance(effect, Send)
    assert cohort.total() == [1] * 6


@PHASES
def test_an_own_request_sent_back_is_refused(phase: Phase) -> None:
    cohort = answered(phase)
    refused_by_server(cohort, 0, cohort.request(0), RefusalReason.WRONG_PHASE)


@PHASES
def test_a_frame_of_another_round_is_refused(phase: Phase) -> None:
    cohort = answered(phase)
    frame = bytes(encode_frame(bytes(16), decode_frame(cohort.answer(0))[1]))
    refused_by_server(cohort, 0, frame, RefusalReason.WRONG_ROUND)
    assert cohort.total() == [1] * 6


@PHASES
def test_every_cut_frame_is_refused(phase: Phase) -> None:
    cohort = answered(phase)
    frame = cohort.answer(0)
    for size in {0, 1, 2, 17, len(frame) // 2, len(frame) - 1}:
        effects = cohort.server.receive(cohort.identities[0], frame[:size])
        assert [type(effect) for effect in effects] == [Refused]
    assert cohort.total() == [1] * 6


@PHASES
def test_a_client_given_up_is_reported_once_and_not_waited_for(phase: Phase) -> None:
    cohort = answered(phase)
    me = cohort.identities[0]
    assert me in cohort.server.progress.missing
    expected = cohort.server.progress.expected
    assert cohort.server.drop(me) == [Dropped(me, DropReason.GIVEN_UP)]
    assert me not in cohort.server.progress.missing
    assert cohort.server.progress.expected == expected - 1
    refused_by_server(cohort, 0, cohort.answer(0), RefusalReason.UNKNOWN_SENDER)
    assert cohort.server.drop(Identity(bytes(32))) == []
    cohort.tell_all()
    assert cohort.server.progress.complete
    effects = cohort.close()
    assert not [effect for effect in effects if isinstance(effect, Dropped)]


@PHASES
def test_the_silent_and_the_refused_are_dropped_with_their_reasons(phase: Phase) -> None:
    cohort = Cohort(8, minimum_cohort=4).advance(phase).ask_all()
    refused_by_server(cohort, 1, b"", RefusalReason.MALFORMED)
    refused_by_server(cohort, 2, b"", RefusalReason.MALFORMED)
    for i in range(2, 8):
        assert cohort.tell(i) == []
    effects = cohort.close()
    assert [effect for effect in effects if isinstance(effect, Dropped | PhaseClosed)] == [
        Dropped(cohort.identities[0], DropReason.SILENT),
        Dropped(cohort.identities[1], DropReason.REFUSED),
        PhaseClosed(phase, frozenset(cohort.identities[2:])),
    ]


@pytest.mark.parametrize("phase", list(Phase)[:-1], ids=lambda p: p.name)
def test_a_refusal_in_one_phase_is_forgotten_in_the_next(phase: Phase) -> None:
    cohort = answered(phase)
    refused_by_server(cohort, 0, b"", RefusalReason.MALFORMED)
    cohort.tell_all().close()
    for i in range(1, 6):
        cohort.ask(i)
        cohort.tell(i)
    drops = [effect for effect in cohort.close() if isinstance(effect, Dropped)]
    assert drops == [Dropped(cohort.identities[0], DropReason.SILENT)]


def test_progress_counts_what_came_and_what_is_needed() -> None:
    """Four signatures are a quorum; five make four holders, the threshold, for each of the signers."""
    cohort = answered(Phase.CONSISTENCY_CHECK)
    for i in range(6):
        progress = cohort.server.progress
        assert (progress.phase, progress.expected, progress.received) == (Phase.CONSISTENCY_CHECK, 6, i)
        assert progress.needed == 4
        assert progress.ready == (i >= 5)
        assert progress.missing == frozenset(cohort.identities[i:])
        assert not progress.complete
        cohort.tell(i)
    assert cohort.server.progress.complete


@pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.name)
def test_ready_says_whether_closing_lets_the_round_go_on(phase: Phase) -> None:
    for told in range(7):
        cohort = answered(phase)
        for i in range(told):
            cohort.tell(i)
        ready = cohort.server.progress.ready
        cohort.close()
        over = isinstance(cohort.outcome, Aborted)
        if phase is not Phase.SHARE_KEYS:
            assert ready != over
        elif ready:  # and the next phase can be closed, too
            cohort.ask_all().tell_all().close()
            assert not isinstance(cohort.outcome, Aborted)
        else:  # it goes on, and ends with the uploads at the latest
            assert not over or told < 3


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Phase)), st.binary(max_size=80), st.integers(0, 5))
def test_no_bytes_of_a_peer_raise_or_change_anything(phase: Phase, data: bytes, sender: int) -> None:
    cohort = _RECORDED.setdefault(phase, answered(phase))
    (effect,) = cohort.server.receive(cohort.identities[sender], data)
    assert isinstance(effect, Refused)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Phase)), st.integers(0, 2**20), st.integers(0, 2**20))
def test_flipped_bits_of_a_frame_are_refused_or_taken_and_never_raise(
    phase: Phase, one: int, two: int
) -> None:
    recorded = _RECORDED.setdefault(phase, answered(phase))
    frame = flipped(flipped(recorded.answer(0), one), two)
    before = server_state(recorded.server)
    server, _ = type(recorded.server).restore(recorded.server.snapshot())
    effects = server.receive(recorded.identities[0], frame)
    if effects:
        assert [type(effect) for effect in effects] == [Refused]
        assert server_state(server) == before


_RECORDED: dict[Phase, Cohort] = {}


def test_what_the_server_sends_does_not_depend_on_the_order_of_arrival() -> None:
    orders = ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2])
    requests = []
    for order in orders:
        cohort = Cohort(6).start()
        seen = []
        while cohort.server.phase is not None:
            cohort.ask_all()
            for i in order:
                assert cohort.tell(i) == []
            cohort.close()
            seen.append(list(cohort.requests))
        requests.append(seen)
        assert cohort.outcome is not None
    assert requests[0] == requests[1]


def test_a_repr_shows_phase_and_numbers_only() -> None:
    cohort = answered(Phase.MASKED_INPUT_COLLECTION)
    cohort.server.drop(cohort.identities[0])
    assert repr(cohort.server) == (
        f"ServerSession(phase=MASKED_INPUT_COLLECTION, admitted=6, gone={cohort.identities[0].hex()[:12]})"
    )


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads: int) -> None:
    cohort = Cohort(4)
    with pytest.raises(ParameterError, match=f"threads: must be at least 1, is {threads}"):
        ServerSession(cohort.parameters, admitted=cohort.identities, threads=threads)
