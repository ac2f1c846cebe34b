"""A network that loses, repeats, reorders, cuts, changes, mixes up and replays frames."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    BlameReason,
    Effect,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
)
from secagg.messages import (
    KINDS,
    MaskedInput,
    SharedKeys,
    UnmaskingResponse,
    decode_frame,
    encode,
    encode_frame,
)
from secagg.params import Adversary, Phase
from secagg.protocol import ServerSession
from tests.messages.raw import field
from tests.protocol.network import (
    Cohort,
    CounterEntropy,
    flipped,
    opened,
    refused_by_client,
    refused_by_server,
    total_of,
)

CLIENTS = 5  # threshold 3, quorum 4
ME = 1
PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.name)
BOTH = pytest.mark.parametrize("adversary", ["active", "passive"])
Fate = tuple[str, str]  # who stops a frame, and why


def phases_of(adversary: Adversary) -> list[Phase]:
    return [p for p in Phase if adversary == "active" or p is not Phase.CONSISTENCY_CHECK]


EITHER: tuple[Adversary, ...] = ("active", "passive")
ALL = pytest.mark.parametrize(
    ("phase", "adversary"),
    [(phase, adversary) for adversary in EITHER for phase in phases_of(adversary)],
    ids=lambda value: value.name if isinstance(value, Phase) else value,
)


def exact(cohort: Cohort, *lost: int) -> Aggregate:
    """The round ended well: the sum is that over all but the lost."""
    outcome = cohort.outcome
    assert isinstance(outcome, Aggregate), outcome
    members = [i for i in range(len(cohort.signers)) if i not in lost]
    assert outcome.survivors == tuple(cohort.identities[i] for i in members)
    assert total_of(outcome) == cohort.sum_over(members)
    return outcome


# --- one frame, changed


@cache
def _asked(phase: Phase, adversary: Adversary) -> tuple[Cohort, tuple[bytes, ...]]:
    """A round whose requests of a phase are out, and the right answers to them."""
    cohort = Cohort(CLIENTS, adversary=adversary, minimum_cohort=4).advance(phase)
    answers = Cohort(CLIENTS, adversary=adversary, minimum_cohort=4).advance(phase).ask_all().answers
    return cohort, tuple(answer for answer in answers if answer is not None)


def asked(phase: Phase, adversary: Adversary = "active") -> Cohort:
    """Shared by many tests: only `fate_down` and `fate_up` tell its sessions anything, as copies."""
    return _asked(phase, adversary)[0]


def right_answer(phase: Phase, adversary: Adversary = "active", i: int = ME) -> bytes:
    return _asked(phase, adversary)[1][i]


def fate_up(cohort: Cohort, frame: bytes, i: int = ME) -> RefusalReason | None:
    """Why the server refuses a frame of a client; None: it takes it."""
    kept = cohort.server
    snapshot = kept.snapshot()
    effects = kept.receive(cohort.identities[i], frame)
    if effects:
        (effect,) = effects
        assert isinstance(effect, Refused), effect
        return effect.reason
    cohort.server, _ = ServerSession.restore(snapshot)
    return None


def fate_down(cohort: Cohort, frame: bytes, i: int = ME) -> Fate:
    """Who stops a frame to a client and why; ("taken", ""): the server takes the client's answer to it."""
    kept = cohort.clients[i]
    if cohort.server.phase is Phase.ADVERTISE_KEYS:
        cohort.clients[i] = cohort.fresh_client(i)
    else:
        cohort.restart_client(i)
    cohort.submitted.discard(i)
    effects = cohort.ask(i, frame)
    cohort.clients[i] = kept
    cohort.client_aborts.pop(i, None)
    for effect in effects:
        if isinstance(effect, Refused):
            assert len(effects) == 1
            return "refused", effect.reason
        if isinstance(effect, Aborted):
            assert len(effects) == 1
            return "aborted", effect.reason
    reason = fate_up(cohort, cohort.answer(i), i)
    return ("taken", "") if reason is None else ("answer refused", reason)


def bits(frame: bytes) -> range:
    """Every bit of a small frame; of a larger one every 19th, so that each bit of a byte has its turn."""
    return range(0, 8 * len(frame), 1 if len(frame) < 130 else 19)


def prefixes(frame: bytes) -> list[bytes]:
    """All but the one that ends before the body: a right frame around an empty message."""
    body = encode(decode_frame(frame)[1])
    head = frame.removesuffix(field(4, body))
    return [frame[:size] for size in range(len(frame)) if size != len(head)]


@PHASES
def test_every_prefix_of_a_frame_is_refused_by_the_server(phase: Phase) -> None:
    frame = right_answer(phase)
    for prefix in prefixes(frame):
        assert fate_up(asked(phase), prefix) is RefusalReason.MALFORMED
    assert fate_up(asked(phase), frame) is None


@PHASES
def test_every_prefix_of_a_frame_is_refused_by_the_client(phase: Phase) -> None:
    cohort = asked(phase)
    frame = cohort.request(ME)
    for prefix in prefixes(frame):
        (effect,) = cohort.clients[ME].receive(prefix)
        assert isinstance(effect, Refused)
        assert effect.reason is RefusalReason.MALFORMED
    assert fate_down(cohort, frame) == ("taken", "")


@pytest.mark.parametrize("more", [b"\0", b"\x08\x01", field(5, b"more"), field(15, 1), b"\xff" * 12])
@PHASES
def test_bytes_after_a_frame_are_refused(phase: Phase, more: bytes) -> None:
    cohort = asked(phase)
    assert fate_up(cohort, right_answer(phase) + more) is RefusalReason.MALFORMED
    assert fate_down(cohort, cohort.request(ME) + more) == ("refused", RefusalReason.MALFORMED)


def cut_bodies(frame: bytes) -> Iterator[bytes]:
    """The frame around every prefix of its message, with right lengths."""
    round_id, message = decode_frame(frame)
    body = encode(message)
    head = field(1, 1) + field(2, round_id) + field(3, KINDS.index(type(message)) + 1)
    for size in range(len(body)):
        yield head + (field(4, body[:size]) if size else b"")


@PHASES
def test_a_message_cut_within_a_right_frame_is_refused_by_the_server(phase: Phase) -> None:
    for frame in cut_bodies(right_answer(phase)):
        reason = fate_up(asked(phase), frame)
        if phase is Phase.UNMASKING:  # cut between two shares it is a right encoding of fewer
            assert reason in {RefusalReason.MALFORMED, RefusalReason.WRONG_NEIGHBORS}
        else:
            assert reason is RefusalReason.MALFORMED


@ALL
def test_a_message_to_a_client_cut_within_a_right_frame_comes_to_nothing(
    phase: Phase, adversary: Adversary
) -> None:
    cohort = asked(phase, adversary)
    fates = Counter(fate_down(cohort, frame) for frame in cut_bodies(cohort.request(ME)))
    malformed = ("refused", RefusalReason.MALFORMED)
    cut_between_items: dict[Phase, set[Fate]] = {
        Phase.ADVERTISE_KEYS: set(),
        Phase.SHARE_KEYS: {("refused", RefusalReason.WRONG_NEIGHBORS)},
        Phase.MASKED_INPUT_COLLECTION: {("aborted", AbortReason.WRONG_SHARES)},
        Phase.CONSISTENCY_CHECK: set(),
        Phase.UNMASKING: {
            ("refused", RefusalReason.NO_QUORUM),
            ("refused", RefusalReason.EQUIVOCATION),  # not the S that it signed
        }
        if adversary == "active"
        else {("answer refused", RefusalReason.WRONG_NEIGHBORS)},
    }
    assert set(fates) == {malformed} | cut_between_items[phase]


@PHASES
def test_of_a_client_s_frame_only_unsigned_bits_can_be_changed(phase: Phase) -> None:
    """Ciphertexts, commitment and revealed shares carry no signature: what they hold is checked later."""
    cohort, frame = asked(phase), right_answer(phase)
    taken = 0
    for bit in bits(frame):
        changed_to = flipped(frame, bit)
        if fate_up(cohort, changed_to) is None:
            taken += 1
            assert _signed_part(changed_to) == _signed_part(frame)
    assert bool(taken) == (phase in {Phase.SHARE_KEYS, Phase.UNMASKING})


def _signed_part(frame: bytes) -> object:
    """The message without what no signature covers."""
    message = decode_frame(frame)[1]
    if isinstance(message, SharedKeys):
        return [share.peer for share in message.shares], message.acceptance
    if isinstance(message, UnmaskingResponse):
        return [[s.dealer for s in shares] for shares in (message.self_seed_shares, message.mask_key_shares)]
    return message


@ALL
def test_a_bit_of_a_frame_to_a_client_comes_to_nothing_or_to_a_complaint(
    phase: Phase, adversary: Adversary
) -> None:
    cohort = asked(phase, adversary)
    frame = cohort.request(ME)
    fates: Counter[Fate] = Counter()
    for bit in bits(frame):
        fate = fate_down(cohort, flipped(frame, bit))
        fates[fate] += 1
        if fate[0] == "taken":
            assert phase is Phase.MASKED_INPUT_COLLECTION, bit
            assert len(opened(MaskedInput, cohort.answer(ME)).complaints) == 1
    reasons: dict[Phase, set[Fate]] = {
        Phase.ADVERTISE_KEYS: {
            ("refused", RefusalReason.CONTEXT_MISMATCH),
            ("refused", RefusalReason.WRONG_ROUND),
            ("refused", RefusalReason.POLICY),
            ("answer refused", RefusalReason.BAD_SIGNATURE),
        },
        Phase.SHARE_KEYS: {
            ("refused", RefusalReason.UNKNOWN_IDENTITY),
            ("refused", RefusalReason.NOT_INCLUDED),
            ("refused", RefusalReason.WRONG_NEIGHBORS),
            ("refused", RefusalReason.BAD_SIGNATURE),
        },
        Phase.MASKED_INPUT_COLLECTION: {("aborted", AbortReason.WRONG_SHARES), ("taken", "")},
        Phase.CONSISTENCY_CHECK: {
            ("refused", RefusalReason.NOT_INCLUDED),
            ("answer refused", RefusalReason.BAD_SIGNATURE),
        },
        Phase.UNMASKING: {
            ("refused", RefusalReason.NO_QUORUM),
            ("answer refused", RefusalReason.WRONG_NEIGHBORS),
        }
        if adversary == "active"
        else {("answer refused", RefusalReason.WRONG_NEIGHBORS)},
    }
    assert set(fates) >= reasons[phase], reasons[phase] - set(fates)


@pytest.mark.parametrize("drops", [False, True], ids=["nobody drops", "one drops"])
@BOTH
def test_a_bit_of_a_revealed_share_is_corrected(adversary: Adversary, drops: bool) -> None:
    lost = {4: Phase.MASKED_INPUT_COLLECTION} if drops else {}
    clients = 7 if drops else CLIENTS
    cohort = Cohort(clients, adversary=adversary, dropout=0.1).advance(Phase.UNMASKING, lost).ask_all(lost)
    for i in cohort.waiting():
        if i != ME:
            cohort.tell(i)
    frame, snapshot = cohort.answer(ME), cohort.server.snapshot()
    corrected = 0
    for bit in range(3, 8 * len(frame), 29):
        cohort.server, _ = ServerSession.restore(snapshot)
        cohort.outcome = None
        if not cohort.tell(ME, flipped(frame, bit)):
            cohort.close()
            blamed = exact(cohort, *lost).blamed
            assert len(blamed) == 2
            assert cohort.identities[ME] in {entry.client for entry in blamed}
            assert not any(entry.guilty for entry in blamed)
            corrected += 1
    assert corrected > 20


@pytest.mark.parametrize("lost", [{}, {ME: Phase.MASKED_INPUT_COLLECTION}], ids=["it stays", "it drops"])
def test_a_bit_of_what_a_dealer_sends_is_complained_about_or_fails_its_check(lost: dict[int, Phase]) -> None:
    """Shares are sealed, so each bit of one is seen; a bit of the commitment speaks against its dealer."""
    base = Cohort(CLIENTS).advance(Phase.SHARE_KEYS).ask_all()
    frame = base.answer(ME)
    fates = set()
    for bit in range(5, 8 * len(frame), 8 * 37 + 1):
        cohort = Cohort(CLIENTS).advance(Phase.SHARE_KEYS).ask_all()
        if cohort.tell(ME, flipped(frame, bit)):
            continue
        cohort.tell_all().close()
        outcome = cohort.finish(lost)
        same_shares = list(opened(SharedKeys, frame).shares) == list(
            opened(SharedKeys, flipped(frame, bit)).shares
        )
        if same_shares and not lost:
            assert isinstance(outcome, Aborted)
            assert outcome.reason is AbortReason.UNRECOVERABLE_SECRET
            assert outcome.guilty == (cohort.identities[ME],)
            fates.add("commitment")
        else:
            blamed = exact(cohort, *lost).blamed
            assert {entry.reason for entry in blamed} <= {BlameReason.COMPLAINT}
            assert len(blamed) == (0 if same_shares else 2)
            assert not any(entry.guilty for entry in blamed)
            fates.add("share")
    assert fates == {"share"} if lost else {"share", "commitment"}


def test_a_bit_or_the_end_of_a_long_upload_is_missed_by_nobody() -> None:
    cohort = Cohort(4, vector_length=40_000, ring_bits=13)
    cohort.advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    frame = cohort.answer(ME)
    rng = random.Random(3)
    for place in [*range(40), *(rng.randrange(8 * len(frame)) for _ in range(60))]:
        (effect,) = cohort.server.receive(cohort.identities[ME], flipped(frame, place))
        assert isinstance(effect, Refused)
    for size in [0, 1, 30, 4095, 4096, 4097, len(frame) // 2, len(frame) - 65, len(frame) - 1]:
        refused_by_server(cohort, ME, frame[:size], RefusalReason.MALFORMED)
    cohort.tell_all().close()
    cohort.finish()
    exact(cohort)


# --- loss, repetition, order

SUBSETS = [set(some) for size in range(4) for some in combinations(range(CLIENTS), size)]


@ALL
def test_whoever_is_lost_the_sum_is_exact_or_there_is_none(phase: Phase, adversary: Adversary) -> None:
    """Of five any one may be lost, its input with it until it is uploaded; two end the round."""
    for gone in SUBSETS:
        cohort = Cohort(CLIENTS, adversary=adversary, minimum_cohort=4).advance(phase).ask_all()
        for i in range(CLIENTS):
            if i not in gone:
                assert cohort.tell(i) == []
        cohort.close()
        while cohort.server.phase is not None:
            for i in cohort.waiting():  # clients may end the round for themselves
                if [e for e in cohort.ask(i) if isinstance(e, Send)]:
                    cohort.tell(i)
            cohort.close()
        if len(gone) <= 1:
            assert exact(cohort, *(gone if phase <= Phase.MASKED_INPUT_COLLECTION else ())).blamed == ()
        else:
            assert isinstance(cohort.outcome, Aborted)
            assert cohort.outcome.guilty == ()


@ALL
def test_a_lost_request_or_a_lost_reply_is_made_good_by_the_same_bytes(
    phase: Phase, adversary: Adversary
) -> None:
    for lost_ones in ({ME}, set(range(CLIENTS))):
        cohort = Cohort(CLIENTS, adversary=adversary).advance(phase)
        requests, answers = list(cohort.requests), []
        for i in range(CLIENTS):
            if i not in lost_ones:
                cohort.ask(i)
                cohort.tell(i)
        for i in lost_ones:  # the request is lost, comes again, its answer is lost, and so on
            cohort.restart_server()
            assert cohort.request(i) == requests[i]
            cohort.ask(i)
            answers.append(cohort.answer(i))
            cohort.ask(i)
            assert cohort.answer(i) == answers[-1]
            assert cohort.tell(i) == []
            assert cohort.tell(i) == []
        cohort.close()
        if cohort.outcome is None:
            cohort.finish()
        exact(cohort)


@pytest.mark.parametrize("seed", range(3))
@BOTH
def test_a_storm_of_old_and_repeated_frames_in_any_order_changes_nothing(
    adversary: Adversary, seed: int
) -> None:
    rng = random.Random(seed)
    cohort = Cohort(6, adversary=adversary).start()
    down: list[tuple[int, bytes]] = []
    up: list[tuple[int, bytes]] = []
    while cohort.server.phase is not None:
        new = [(i, cohort.request(i)) for i in range(6)]
        for i, frame in rng.sample(flood := [*new * 2, *down * 2], len(flood)):
            old = frame != cohort.request(i)
            effects = cohort.ask(i, frame)
            assert not [effect for effect in effects if isinstance(effect, Aborted)]
            assert repeated(effects) if old else not refused(effects)
        down += new
        new = [(i, cohort.answer(i)) for i in range(6)]
        for i, frame in rng.sample(flood := [*new * 2, *up * 2], len(flood)):
            effects = cohort.tell(i, frame)
            if frame == cohort.answer(i):
                assert effects == []
            elif not refused(effects):
                (effect,) = effects  # the request once more
                assert isinstance(effect, Send)
                assert bytes(effect.frame) == cohort.request(i)
        up += new
        cohort.close()
    assert exact(cohort).blamed == ()
    for i, frame in down:
        assert repeated(cohort.ask(i, frame))
    for i, frame in up:
        assert refused(cohort.tell(i, frame))


def refused(effects: list[Effect]) -> bool:
    """A repetition that comes too late is told so."""
    return [getattr(effect, "reason", None) for effect in effects] == [RefusalReason.WRONG_PHASE]


def repeated(effects: list[Effect]) -> bool:
    """What was answered before gets the newest answer, if that is its own, or a refusal."""
    return refused(effects) or [type(effect) for effect in effects] == [Send]


@ALL
def test_a_request_that_overtakes_another_is_refused_and_taken_in_its_turn(
    phase: Phase, adversary: Adversary
) -> None:
    cohort = asked(phase, adversary)
    for before in phases_of(adversary)[: phases_of(adversary).index(phase)]:
        if (before, phase) == (Phase.CONSISTENCY_CHECK, Phase.UNMASKING):
            continue  # a quorum's signatures are enough
        fate = fate_down(asked(before, adversary), cohort.request(ME))
        assert fate == ("refused", RefusalReason.WRONG_PHASE)
    assert fate_down(cohort, cohort.request(ME)) == ("taken", "")


# --- frames of others

SWAPPED_UP = {
    Phase.ADVERTISE_KEYS: RefusalReason.SENDER_MISMATCH,
    Phase.SHARE_KEYS: RefusalReason.WRONG_NEIGHBORS,
    Phase.MASKED_INPUT_COLLECTION: RefusalReason.BAD_SIGNATURE,
    Phase.CONSISTENCY_CHECK: RefusalReason.SENDER_MISMATCH,
    Phase.UNMASKING: RefusalReason.WRONG_NEIGHBORS,
}
SWAPPED_DOWN = {
    Phase.SHARE_KEYS: ("refused", RefusalReason.WRONG_NEIGHBORS),
    Phase.MASKED_INPUT_COLLECTION: ("aborted", AbortReason.WRONG_SHARES),
    Phase.UNMASKING: ("refused", RefusalReason.WRONG_NEIGHBORS),
}


@ALL
def test_frames_delivered_for_another_client_are_refused(phase: Phase, adversary: Adversary) -> None:
    cohort = asked(phase, adversary)
    for i in range(CLIENTS):
        if i == ME:
            continue
        assert fate_up(cohort, right_answer(phase, adversary, i)) is SWAPPED_UP[phase]
        if phase in SWAPPED_DOWN:
            assert fate_down(cohort, cohort.request(i)) == SWAPPED_DOWN[phase]
        else:  # everybody gets the same
            assert cohort.request(i) == cohort.request(ME)


# --- frames of other rounds


def another_round(adversary: Adversary = "active", clients: int = CLIENTS) -> Cohort:
    """A round of the same clients under another id."""
    cohort = Cohort(clients, adversary=adversary, minimum_cohort=4)
    cohort.parameters = replace(cohort.parameters, round_id=CounterEntropy("another round")(16))
    cohort.server = ServerSession(cohort.parameters, admitted=cohort.identities)
    cohort.clients = [cohort.fresh_client(i, entropy=CounterEntropy(f"another/{i}")) for i in range(clients)]
    return cohort


@cache
def recording(adversary: Adversary) -> tuple[dict[Phase, list[bytes]], dict[Phase, list[bytes]]]:
    """Requests and answers of a round in which everybody stays but the last, who uploads nothing."""
    lost = {CLIENTS - 1: Phase.MASKED_INPUT_COLLECTION}
    cohort = Cohort(CLIENTS, adversary=adversary, minimum_cohort=4)
    down, up = {}, {}
    for phase in phases_of(adversary):
        cohort.advance(phase, lost)
        down[phase] = [cohort.request(i) for i in range(CLIENTS - 1)]
        cohort.ask_all(lost)
        up[phase] = [cohort.answer(i) for i in range(CLIENTS - 1)]
    cohort.finish(lost)
    exact(cohort, *lost)
    return down, up


def readdressed(cohort: Cohort, frame: bytes) -> bytes:
    """The frame with this round's id on its envelope."""
    return bytes(encode_frame(cohort.parameters.round_id, decode_frame(frame)[1]))


@ALL
def test_no_frame_of_another_round_is_taken(phase: Phase, adversary: Adversary) -> None:
    cohort = another_round(adversary).advance(phase).ask_all()
    down, up = recording(adversary)
    for other in phases_of(adversary):
        for i in range(CLIENTS - 1):
            refused_by_server(cohort, i, up[other][i], RefusalReason.WRONG_ROUND)
            refused_by_client(cohort, i, down[other][i], RefusalReason.WRONG_ROUND)
    cohort.tell_all().close()
    if cohort.outcome is None:
        cohort.finish()
    assert exact(cohort).blamed == ()


@ALL
def test_a_client_s_frame_of_another_round_is_refused_under_this_round_s_id(
    phase: Phase, adversary: Adversary
) -> None:
    cohort = another_round(adversary).advance(phase).ask_all()
    frames = recording(adversary)[1]
    for other in phases_of(adversary):
        if other is phase:
            continue
        reason = RefusalReason.EQUIVOCATION if other < phase else RefusalReason.WRONG_PHASE
        refused_by_server(cohort, ME, readdressed(cohort, frames[other][ME]), reason)
    frame = readdressed(cohort, frames[phase][ME])
    reason = RefusalReason.WRONG_NEIGHBORS if phase is Phase.UNMASKING else RefusalReason.BAD_SIGNATURE
    refused_by_server(cohort, ME, frame, reason)
    cohort.tell_all().close()
    if cohort.outcome is None:
        cohort.finish()
    assert exact(cohort).blamed == ()


@BOTH
def test_shares_revealed_in_another_round_are_wrong_shares_in_this_one(adversary: Adversary) -> None:
    """Answers carry no signature: on a link that lets them be changed they speak against their sender."""
    cohort = another_round(adversary, 8).advance(Phase.UNMASKING).ask_all()
    other = Cohort(8, adversary=adversary).advance(Phase.UNMASKING).ask_all()
    assert cohort.tell(ME, readdressed(cohort, other.answer(ME))) == []
    cohort.tell_all().close()
    blamed = exact(cohort).blamed
    assert {cohort.index[entry.client] for entry in blamed if entry.guilty} == {ME}


REQUESTS_OF_ANOTHER_ROUND: dict[Phase, Fate] = {
    Phase.ADVERTISE_KEYS: ("refused", RefusalReason.WRONG_ROUND),
    Phase.SHARE_KEYS: ("refused", RefusalReason.NOT_INCLUDED),
    Phase.MASKED_INPUT_COLLECTION: ("aborted", AbortReason.WRONG_SHARES),
    Phase.CONSISTENCY_CHECK: ("answer refused", RefusalReason.BAD_SIGNATURE),  # it signs, for this round
}


@ALL
def test_a_request_of_another_round_comes_to_nothing_under_this_round_s_id(
    phase: Phase, adversary: Adversary
) -> None:
    cohort = another_round(adversary).advance(phase)
    frames = recording(adversary)[0]
    expected = REQUESTS_OF_ANOTHER_ROUND.get(phase)
    if phase is Phase.UNMASKING:
        expected = (
            ("refused", RefusalReason.EQUIVOCATION)
            if adversary == "active"
            else ("answer refused", RefusalReason.WRONG_NEIGHBORS)
        )
    assert fate_down(cohort, readdressed(cohort, frames[phase][ME])) == expected
    for other in phases_of(adversary):
        if other > phase:
            fate = fate_down(cohort, readdressed(cohort, frames[other][ME]))
            unsigned_yet = (phase, other) == (Phase.CONSISTENCY_CHECK, Phase.UNMASKING)
            reason = RefusalReason.NO_QUORUM if unsigned_yet else RefusalReason.WRONG_PHASE
            assert fate == ("refused", reason)
    cohort.finish()
    assert exact(cohort).blamed == ()


def test_a_quorum_of_another_round_opens_nothing_in_this_one() -> None:
    """The same S, so that only the signatures differ."""
    recorded = Cohort(CLIENTS, minimum_cohort=4).advance(Phase.UNMASKING)
    cohort = another_round().advance(Phase.UNMASKING)
    frame = readdressed(cohort, recorded.request(ME))
    assert fate_down(cohort, frame) == ("refused", RefusalReason.NO_QUORUM)
    cohort.finish()
    exact(cohort)


# --- a recording, replayed later


def played_and_recorded(adversary: Adversary) -> tuple[list[bytes], list[bytes], dict[int, set[bytes]]]:
    """All requests and answers of a round by client 0, and the round ids that each client keeps."""
    cohort = Cohort(CLIENTS, adversary=adversary, minimum_cohort=4).start()
    down, up = [], []
    seen: dict[int, set[bytes]] = {i: set() for i in range(CLIENTS)}
    while cohort.server.phase is not None:
        for i in range(CLIENTS):
            for effect in cohort.ask(i):
                if isinstance(effect, RosterAccepted):
                    seen[i].add(effect.round_id)
        down.append(cohort.request(0))
        up.append(cohort.answer(0))
        cohort.tell_all().close()
    exact(cohort)
    return down, up, seen


@BOTH
def test_a_whole_round_replayed_to_a_fresh_client_is_refused_at_its_first_frame(
    adversary: Adversary,
) -> None:
    down, _, seen = played_and_recorded(adversary)
    cohort = Cohort(CLIENTS, adversary=adversary)
    for i in range(CLIENTS):
        cohort.clients[i] = cohort.fresh_client(i, seen=seen[i], entropy=CounterEntropy(f"days later/{i}"))
        refused_by_client(cohort, i, down[0], RefusalReason.ROUND_REUSED)
        for frame in down[1:]:
            refused_by_client(cohort, i, frame, RefusalReason.WRONG_PHASE)


@BOTH
def test_a_recording_opens_nothing_even_to_a_client_that_kept_nothing(adversary: Adversary) -> None:
    """It draws new keys, and the old roster does not hold them."""
    down, _, _ = played_and_recorded(adversary)
    cohort = Cohort(CLIENTS, adversary=adversary)
    cohort.clients[0] = cohort.fresh_client(0, entropy=CounterEntropy("days later"))
    effects: list[Effect] = cohort.ask(0, down[0])
    assert [type(effect) for effect in effects] == [Send]
    refused_by_client(cohort, 0, down[1], RefusalReason.NOT_INCLUDED)
    for frame in down[2:]:
        refused_by_client(cohort, 0, frame, RefusalReason.WRONG_PHASE)


@BOTH
def test_a_whole_round_replayed_to_a_server_in_a_new_round_is_refused(adversary: Adversary) -> None:
    _, up, _ = played_and_recorded(adversary)
    cohort = another_round(adversary).start()
    while (phase := cohort.server.phase) is not None:
        for frame in up:
            refused_by_server(cohort, 0, frame, RefusalReason.WRONG_ROUND)
        assert cohort.server.phase is phase
        cohort.ask_all().tell_all().close()
    assert exact(cohort).blamed == ()
