from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import (
    Aborted,
    AbortReason,
    Completed,
    Effect,
    Frame,
    InputWanted,
    RefusalReason,
    RosterAccepted,
    Send,
)
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import (
    RoundParametersMessage,
    ShareDelivery,
    SurvivorSet,
    UnmaskingRequest,
    UnmaskingResponse,
    decode,
    encode,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Phase
from secagg.protocol import ClientSession
from secagg.protocol.client.snapshot import _Snapshot
from secagg.protocol.snapshot import checked_body, with_digest
from tests.protocol.network import CONTEXT, Cohort, changed, flipped, opened, refused_by_client

PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda p: p.name)


def answered(phase: Phase) -> Cohort:
    """Client 0 has answered in this phase."""
    cohort = Cohort(6).advance(phase)
    cohort.ask(0)
    return cohort


def restore(cohort: Cohort, data: bytes, upload: bytes | None = None) -> tuple[ClientSession, list[Effect]]:
    return ClientSession.restore(data, signer=cohort.signers[0], policy=cohort.policy, upload=upload)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_snapshot_raise_a_parameter_error(data: bytes) -> None:
    cohort = Cohort(4)
    with pytest.raises(ParameterError):
        restore(cohort, data)


@PHASES
def test_a_snapshot_of_another_version_or_phase_raises_a_parameter_error(phase: Phase) -> None:
    cohort = answered(phase)
    data = cohort.clients[0].snapshot()
    body = checked_body(data)
    assert data[:2] == b"\x08\x05"
    for version in (b"", b"\x08\x04", b"\x08\x06"):
        with pytest.raises(ParameterError, match="snapshot"):
            restore(cohort, with_digest(version + body[2:]))
    saved = decode(_Snapshot, body)
    for number in (0, 6):
        with pytest.raises(ParameterError, match="snapshot"):
            restore(cohort, with_digest(encode(replace(saved, phase=number))))


@PHASES
def test_a_damaged_snapshot_is_not_restored(phase: Phase) -> None:
    cohort = answered(phase)
    data = cohort.clients[0].snapshot()
    for bit in range(0, 8 * len(data), 13):
        with pytest.raises(ParameterError, match="cut or changed"):
            restore(cohort, flipped(data, bit))


@PHASES
def test_a_snapshot_cut_short_is_not_restored(phase: Phase) -> None:
    """One that lost its end forgot what it signed and answered."""
    cohort = answered(phase)
    data = cohort.clients[0].snapshot()
    for size in range(len(data)):
        with pytest.raises(ParameterError):
            restore(cohort, data[:size])


@PHASES
def test_a_restored_client_sends_its_last_frame_again(phase: Phase) -> None:
    cohort = answered(phase)
    last = cohort.answer(0)
    effects = cohort.restart_client(0)
    assert [bytes(effect.frame) for effect in effects if isinstance(effect, Send)] == [last]
    (again,) = cohort.clients[0].receive(cohort.request(0))
    assert isinstance(again, Send)
    assert bytes(again.frame) == last
    assert cohort.total() == [1] * 6


@PHASES
def test_a_client_restored_after_the_roster_says_again_which_round_id_to_keep(phase: Phase) -> None:
    """The process may have died between keeping the snapshot and keeping the round id."""
    cohort = answered(phase)
    effects = cohort.restart_client(0)
    kept = [effect for effect in effects if isinstance(effect, RosterAccepted)]
    assert kept == ([] if phase is Phase.ADVERTISE_KEYS else [RosterAccepted(cohort.parameters.round_id)])
    assert [type(effect) for effect in effects if effect not in kept] == (
        [Send, Completed] if phase is Phase.UNMASKING else [Send]
    )


@PHASES
def test_a_snapshot_of_another_identity_is_not_restored(phase: Phase) -> None:
    cohort = answered(phase)
    data = cohort.clients[0].snapshot()
    with pytest.raises(ParameterError, match="signer"):
        ClientSession.restore(data, signer=cohort.signers[1], policy=cohort.policy)


@PHASES
def test_a_restored_client_draws_nothing_and_takes_no_other_parameters(phase: Phase) -> None:
    cohort = answered(phase)
    cohort.restart_client(0)
    wire = parameters_to_wire(cohort.parameters)
    other = cohort.frame(replace(wire, minimum_survivors=4))
    refused_by_client(cohort, 0, other, RefusalReason.EQUIVOCATION)
    new_round = bytes(encode_frame(bytes(16), replace(wire, round_id=bytes(16))))
    refused_by_client(cohort, 0, new_round, RefusalReason.WRONG_ROUND)
    if phase is Phase.ADVERTISE_KEYS:
        # Even with its memory of the parameters lost, it has no entropy to draw from.
        entropy = cohort.clients[0]._entropy
        assert entropy is None
        assert opened(RoundParametersMessage, cohort.request(0)) == wire


def test_a_restored_client_waits_for_its_input_where_none_was_given() -> None:
    cohort = Cohort(6).advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.clients[0].receive(cohort.request(0))
    cohort.clients[0], effects = restore(cohort, cohort.clients[0].snapshot())
    assert effects == [RosterAccepted(cohort.parameters.round_id), InputWanted(6, 16)]
    cohort.take_client(0, effects)
    assert cohort.total() == [1] * 6


@pytest.mark.parametrize("phase", [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS], ids=lambda p: p.name)
def test_a_vector_given_early_is_kept_and_a_second_one_refused(phase: Phase) -> None:
    cohort = answered(phase)
    cohort.clients[0].submit(cohort.vector(0))
    cohort.submitted.add(0)
    cohort.restart_client(0)
    with pytest.raises(LocalProtocolError, match="one vector per round"):
        cohort.clients[0].submit(cohort.vector(1))
    assert cohort.total() == [1] * 6


@pytest.mark.parametrize(
    "phase",
    [Phase.MASKED_INPUT_COLLECTION, Phase.CONSISTENCY_CHECK, Phase.UNMASKING],
    ids=lambda p: p.name,
)
def test_a_restored_client_masks_no_second_vector(phase: Phase) -> None:
    cohort = answered(phase)
    cohort.restart_client(0)
    with pytest.raises(LocalProtocolError, match="one vector per round"):
        cohort.clients[0].submit(cohort.vector(0))


def test_a_restored_client_signs_no_second_set() -> None:
    cohort = answered(Phase.CONSISTENCY_CHECK)
    cohort.restart_client(0)
    refused_by_client(cohort, 0, cohort.frame(SurvivorSet(b"\x1f")), RefusalReason.EQUIVOCATION)


def test_a_restored_client_answers_no_second_request() -> None:
    cohort = answered(Phase.UNMASKING)
    assert opened(UnmaskingResponse, cohort.answer(0)).self_seed_shares
    cohort.restart_client(0)
    other = changed(cohort, UnmaskingRequest, cohort.request(0), uploads=())
    refused_by_client(cohort, 0, other, RefusalReason.EQUIVOCATION)


def test_a_client_that_gave_up_stays_so() -> None:
    cohort = Cohort(6).advance(Phase.SHARE_KEYS)
    cohort.ask_all().tell_all().close()
    cohort.ask(0, changed(cohort, ShareDelivery, cohort.request(0), finished=b"\x3e"))
    assert cohort.clients[0].phase is None
    cohort.clients[0], effects = restore(cohort, cohort.clients[0].snapshot())
    assert not [effect for effect in effects if isinstance(effect, Send)]
    assert cohort.clients[0].phase is None
    refused_by_client(cohort, 0, cohort.request(0), RefusalReason.WRONG_PHASE)


def test_the_share_seed_is_not_kept_after_sharing() -> None:
    cohort = answered(Phase.ADVERTISE_KEYS)
    secrets = cohort.secrets(0)
    assert secrets.share_seed in cohort.clients[0].snapshot()
    cohort.ask_all().tell_all().close()
    cohort.ask(0)
    data = cohort.clients[0].snapshot()
    assert secrets.share_seed not in data
    assert secrets.mask in data


# --- the upload stands beside the snapshot


def uploaded() -> tuple[Cohort, bytes, bytes]:
    """Client 0 of a cohort with vectors of 4 000 entries has uploaded: its snapshot and its upload."""
    cohort = Cohort(6, vector_length=4000, ring_bits=32).advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.ask(0)
    upload = cohort.clients[0].upload
    assert upload is not None
    return cohort, cohort.clients[0].snapshot(), bytes(upload)


def test_a_snapshot_does_not_hold_the_masked_vector() -> None:
    cohort, kept, upload = uploaded()
    assert len(upload) > 4 * 4000
    assert len(kept) < 4000
    for other in set(Phase) - {Phase.MASKED_INPUT_COLLECTION}:
        assert answered(other).clients[0].upload is None
    session, effects = restore(cohort, kept, upload)
    assert Send(None, Frame(upload)) in effects
    assert session.snapshot() == kept
    assert session.receive(cohort.request(0)) == [Send(None, Frame(upload))]


def test_without_its_upload_a_session_says_that_it_is_lost_and_goes_on() -> None:
    cohort, kept, upload = uploaded()
    cohort.clients[0], effects = restore(cohort, kept)
    assert not any(isinstance(effect, Send) for effect in effects)
    assert cohort.clients[0].snapshot() == kept
    refused_by_client(cohort, 0, cohort.request(0), RefusalReason.UPLOAD_LOST)
    cohort.tell(0, upload)  # the server has it: nothing is lost but a second copy
    cohort.ask_all()
    assert cohort.total()[:6] == [1] * 6


def test_another_upload_does_not_stand_in_for_the_one_that_was_kept() -> None:
    cohort, kept, upload = uploaded()
    with pytest.raises(ParameterError, match="upload: must be the frame that the session made"):
        restore(cohort, kept, flipped(upload, 8 * 100))


# --- the context is told with the vector


def without_context(phase: Phase) -> tuple[Cohort, ClientSession]:
    """Client 0, made without a context, has answered in this phase, but for its vector; restored."""
    cohort = Cohort(6)
    cohort.clients[0] = cohort.fresh_client(0, context=None)
    cohort.advance(phase)
    cohort.clients[0].receive(cohort.request(0))
    return cohort, restore(cohort, cohort.clients[0].snapshot())[0]


EARLY = pytest.mark.parametrize(
    "phase", [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT_COLLECTION], ids=lambda p: p.name
)


@EARLY
def test_a_session_without_a_context_masks_nothing_until_it_is_told_one(phase: Phase) -> None:
    cohort, session = without_context(phase)
    with pytest.raises(LocalProtocolError, match="needs a context"):
        session.submit(cohort.vector(0))
    effects = session.submit(cohort.vector(0), context=CONTEXT)
    sent = [effect for effect in effects if isinstance(effect, Send)]
    assert bool(sent) == (phase is Phase.MASKED_INPUT_COLLECTION)
    again, _ = restore(cohort, session.snapshot())  # which remembers that it was told
    with pytest.raises(LocalProtocolError, match="one vector per round"):
        again.submit(cohort.vector(0), context=CONTEXT)


@EARLY
def test_a_round_about_something_else_is_left_when_the_vector_is_wanted(phase: Phase) -> None:
    cohort, session = without_context(phase)
    effects = session.submit(cohort.vector(0), context=bytes(32))
    assert [type(effect) for effect in effects] == [Aborted]
    assert isinstance(effects[0], Aborted)
    assert effects[0].reason is AbortReason.CONTEXT_MISMATCH
    assert session.phase is None


def test_a_context_with_the_vector_must_be_that_of_the_session_too() -> None:
    cohort = Cohort(6).advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.clients[0].receive(cohort.request(0))
    effects = cohort.clients[0].submit(cohort.vector(0), context=bytes(32))
    assert [type(effect) for effect in effects] == [Aborted]
