from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from secagg.effects import (
    Aborted,
    AbortReason,
    Dropped,
    DropReason,
    PhaseClosed,
    RefusalReason,
    Send,
)
from secagg.errors import InfeasibleParameters, ParameterError, RemoteProtocolError
from secagg.messages import (
    Advertisement,
    MaskedInput,
    RosterAnnouncement,
    RoundParametersMessage,
    SharedKeys,
    encode_frame,
    parameters_to_wire,
)
from secagg.messages.frames import PAIRWISE_FRAMES
from secagg.params import Identity, Phase
from secagg.primitives.agreement import SMALL_ORDER
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ServerSession, parameters_frame, sender_of
from secagg.protocol.round import advertisement_digest, advertisement_text, parameters_digest
from tests.protocol.network import (
    Cohort,
    CounterEntropy,
    changed,
    flipped,
    opened,
    refused_by_server,
)


def advertised(clients: int = 5, minimum_cohort: int | None = None) -> Cohort:
    return Cohort(clients, minimum_cohort=minimum_cohort).start().ask_all()


def signed(cohort: Cohort, i: int, **fields: bytes) -> bytes:
    """Client i's advertisement with other fields and a right signature."""
    message = replace(opened(Advertisement, cohort.answer(i)), **fields)
    text = advertisement_text(parameters_digest(cohort.parameters), message)
    return cohort.frame(replace(message, signature=cohort.signers[i].sign(text)))


def bad_signature(cohort: Cohort) -> bytes:
    message = opened(Advertisement, cohort.answer(0))
    return changed(cohort, Advertisement, cohort.answer(0), signature=flipped(message.signature, 9))


def for_other_parameters(cohort: Cohort) -> bytes:
    message = opened(Advertisement, cohort.answer(0))
    other = replace(cohort.parameters, vector_length=cohort.parameters.vector_length + 1)
    text = advertisement_text(parameters_digest(other), message)
    return cohort.frame(replace(message, signature=cohort.signers[0].sign(text)))


REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "bad signature": (bad_signature, RefusalReason.BAD_SIGNATURE),
    "signed for other parameters": (for_other_parameters, RefusalReason.BAD_SIGNATURE),
    "agreement key not the signed one": (
        lambda c: changed(c, Advertisement, c.answer(0), agreement_key=bytes([9]) + bytes(31)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "keys swapped": (
        lambda c: changed(
            c,
            Advertisement,
            c.answer(0),
            agreement_key=opened(Advertisement, c.answer(0)).mask_key,
            mask_key=opened(Advertisement, c.answer(0)).agreement_key,
        ),
        RefusalReason.BAD_SIGNATURE,
    ),
    "another client's": (lambda c: c.answer(1), RefusalReason.SENDER_MISMATCH),
    "a stranger's name": (
        lambda c: signed(c, 0, identity=IdentityKey.generate(CounterEntropy("stranger")).identity),
        RefusalReason.SENDER_MISMATCH,
    ),
    "another round": (
        lambda c: bytes(encode_frame(bytes(16), opened(Advertisement, c.answer(0)))),
        RefusalReason.WRONG_ROUND,
    ),
    "unknown version": (lambda c: b"\x08\x02" + c.answer(0)[2:], RefusalReason.UNSUPPORTED_VERSION),
    "no version": (lambda c: c.answer(0)[2:], RefusalReason.UNSUPPORTED_VERSION),
    "cut": (lambda c: c.answer(0)[:-1], RefusalReason.MALFORMED),
    "trailing byte": (lambda c: c.answer(0) + b"\0", RefusalReason.MALFORMED),
    "nothing": (lambda _: b"", RefusalReason.MALFORMED),
    "parameters from a client": (
        lambda c: c.frame(parameters_to_wire(c.parameters)),
        RefusalReason.WRONG_PHASE,
    ),
    "a message of phase 1": (
        lambda c: c.frame(SharedKeys((), bytes(32), bytes(64))),
        RefusalReason.WRONG_PHASE,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_advertisement_is_refused_and_a_right_one_may_follow(case: str) -> None:
    cohort = advertised()
    frame, reason = REFUSED[case]
    refused_by_server(cohort, 0, frame(cohort), reason)
    assert cohort.tell(0) == []
    assert cohort.server.progress.received == 1


@pytest.mark.parametrize("field", ["agreement_key", "mask_key"])
@pytest.mark.parametrize(
    "u", [*sorted(SMALL_ORDER), 2**255 - 19, 2**255 - 18, 2**255 - 1, 2**255 + 9, 2**256 - 1]
)
def test_a_key_that_is_not_canonical_or_of_small_order_is_refused(field: str, u: int) -> None:
    cohort = advertised()
    frame = signed(cohort, 0, **{field: u.to_bytes(32, "little")})
    refused_by_server(cohort, 0, frame, RefusalReason.BAD_KEY)
    assert cohort.tell(0) == []


def test_who_is_not_admitted_is_refused() -> None:
    cohort = advertised()
    stranger = IdentityKey.generate(CounterEntropy("stranger"))
    text = advertisement_text(
        parameters_digest(cohort.parameters),
        message := replace(opened(Advertisement, cohort.answer(0)), identity=stranger.identity),
    )
    frame = cohort.frame(replace(message, signature=stranger.sign(text)))
    before = cohort.server.progress
    (effect,) = cohort.server.receive(stranger.identity, frame)
    assert getattr(effect, "reason", None) is RefusalReason.UNKNOWN_SENDER
    assert cohort.server.progress == before


def test_the_same_advertisement_twice_is_taken_once() -> None:
    cohort = advertised()
    assert cohort.tell(0) == []
    before = cohort.server.snapshot()
    assert cohort.tell(0) == []
    assert cohort.server.snapshot() == before


def test_of_two_different_advertisements_the_first_stands() -> None:
    cohort = advertised()
    first = opened(Advertisement, cohort.answer(0))
    cohort.tell_all()
    other = signed(cohort, 0, mask_key=bytes([9]) + bytes(31))
    refused_by_server(cohort, 0, other, RefusalReason.EQUIVOCATION)
    cohort.close()
    roster = opened(RosterAnnouncement, cohort.request(1)).roster
    assert roster.entries[0].advertisement_digest == advertisement_digest(first)


def test_a_cohort_below_the_minimum_ends_the_round() -> None:
    cohort = advertised(minimum_cohort=5)
    for i in range(4):
        cohort.tell(i)
    assert not cohort.server.progress.ready
    effects = cohort.close()
    assert effects[0] == Dropped(cohort.identities[4], DropReason.SILENT)
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.COHORT_TOO_SMALL
    assert cohort.server.phase is None


def infeasible_eleven() -> Cohort:
    """Corrupt 0.1 and dropout 0.4 have parameters for ten clients and none for eleven."""
    return Cohort(11, corrupt=0.1, dropout=0.4, minimum_cohort=10).start().ask_all().tell_all()


def test_a_number_of_clients_without_parameters_ends_the_round_with_advice() -> None:
    cohort = infeasible_eleven()
    cohort.close()
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.reason is AbortReason.INFEASIBLE_PARAMETERS
    assert "12 clients" in cohort.outcome.detail or "corrupt=" in cohort.outcome.detail


def test_a_phase_is_not_ready_where_closing_it_would_end_the_round() -> None:
    assert not infeasible_eleven().server.progress.ready


def test_a_minimum_cohort_without_parameters_does_not_start() -> None:
    with pytest.raises(InfeasibleParameters, match="11 clients"):
        Cohort(11, corrupt=0.1, dropout=0.4, minimum_cohort=11).start()


def test_fewer_admitted_than_the_minimum_cohort_are_no_round() -> None:
    cohort = Cohort(5)
    with pytest.raises(ParameterError, match="admitted"):
        ServerSession(cohort.parameters, admitted=cohort.identities[:4])


@pytest.mark.parametrize("weak", [(1).to_bytes(32, "little"), bytes(32), b"\xff" * 32, b"short"])
def test_an_identity_unfit_for_enrolment_is_not_admitted(weak: bytes) -> None:
    cohort = Cohort(5)
    with pytest.raises(ParameterError, match="identity"):
        ServerSession(cohort.parameters, admitted=[*cohort.identities, Identity(weak)])


def test_everybody_admitted_gets_the_parameters() -> None:
    cohort = Cohort(5)
    effects = cohort.server.start()
    assert [e.to for e in effects if isinstance(e, Send)] == list(cohort.identities)
    for effect in effects:
        assert isinstance(effect, Send)
        assert opened(RoundParametersMessage, effect.frame.buffer()) == parameters_to_wire(cohort.parameters)


def test_the_roster_holds_those_that_advertised_in_the_order_of_their_identities() -> None:
    cohort = advertised(6, minimum_cohort=5)
    order = [4, 0, 5, 1, 3]
    for i in order:
        assert cohort.tell(i) == []
    effects = cohort.close()
    assert Dropped(cohort.identities[2], DropReason.SILENT) in effects
    remaining = frozenset(cohort.identities[i] for i in order)
    assert PhaseClosed(Phase.ADVERTISE_KEYS, remaining) in effects
    for i in order:
        announcement = opened(RosterAnnouncement, cohort.request(i))
        entries = announcement.roster.entries
        assert [e.identity for e in entries] == sorted(remaining)
        assert announcement.roster.degree == 4
        assert announcement.roster.threshold == 3
        assert [n.identity for n in announcement.neighbors] == sorted(remaining - {cohort.identities[i]})
        for neighbor in announcement.neighbors:
            assert neighbor == opened(Advertisement, cohort.answer(cohort.index[Identity(neighbor.identity)]))
    assert not [e for e in effects if isinstance(e, Send) and e.to == cohort.identities[2]]


def test_a_client_whose_message_was_refused_is_dropped_as_such() -> None:
    cohort = advertised(6, minimum_cohort=5)
    for i in range(5):
        cohort.tell(i)
    refused_by_server(cohort, 5, b"", RefusalReason.MALFORMED)
    assert Dropped(cohort.identities[5], DropReason.REFUSED) in cohort.close()


# --- the first frame names its sender


def test_the_first_frame_names_its_sender_by_its_signature() -> None:
    cohort = advertised()
    for i, identity in enumerate(cohort.identities):
        assert sender_of(cohort.parameters, cohort.answer(i)) == identity
    assert bytes(parameters_frame(cohort.parameters)) == cohort.request(0)


UNSIGNED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "another identity": (
        lambda c: changed(c, Advertisement, c.answer(0), identity=bytes(c.identities[1])),
        RefusalReason.BAD_SIGNATURE,
    ),
    "no identity": (
        lambda c: changed(c, Advertisement, c.answer(0), identity=bytes(32)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "bad signature": (bad_signature, RefusalReason.BAD_SIGNATURE),
    "signed for another round": (for_other_parameters, RefusalReason.BAD_SIGNATURE),
    "another round": (
        lambda c: bytes(encode_frame(bytes(16), opened(Advertisement, c.answer(0)))),
        RefusalReason.WRONG_ROUND,
    ),
    "another kind": (lambda c: c.request(0), RefusalReason.WRONG_PHASE),
    "cut": (lambda c: c.answer(0)[:-1], RefusalReason.MALFORMED),
    "garbage": (lambda _c: b"garbage", RefusalReason.MALFORMED),
}


@pytest.mark.parametrize(("made", "reason"), UNSIGNED.values(), ids=UNSIGNED)
def test_nobody_is_named_by_a_frame_that_nobody_signed(
    made: Callable[[Cohort], bytes], reason: RefusalReason
) -> None:
    cohort = advertised()
    with pytest.raises(RemoteProtocolError) as caught:
        sender_of(cohort.parameters, made(cohort))
    assert caught.value.reason is reason


def test_a_first_frame_that_is_too_long_is_refused_before_it_is_decoded() -> None:
    cohort = advertised()
    long = PAIRWISE_FRAMES.encode(cohort.parameters.round_id, MaskedInput(bytes(2000), (), bytes(64)))
    kind = bytes(long).replace(b"\x18\x06", b"\x18\x02", 1)
    with pytest.raises(RemoteProtocolError, match="no longer than one"):
        sender_of(cohort.parameters, kind)
