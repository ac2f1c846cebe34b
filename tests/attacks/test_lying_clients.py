"""Clients that lie: what each attack gains them, and who notices."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.effects import (
    Aborted,
    AbortReason,
    Aggregate,
    BlameReason,
    Dropped,
    DropReason,
    Effect,
    RefusalReason,
    Refused,
    Send,
)
from secagg.errors import ParameterError
from secagg.kernels import PRIME, field_evaluate, field_lagrange, field_weighted_sums
from secagg.messages import (
    KINDS,
    Advertisement,
    MaskedInput,
    RevealedShare,
    SealedShare,
    SharedKeys,
    SurvivorSignature,
    UnmaskingResponse,
    decode_frame,
    encode,
    encode_frame,
)
from secagg.messages.fields import Kind, schema
from secagg.messages.frames import _FrameMessage
from secagg.params import Adversary, Buffer, Identity, Phase
from secagg.primitives.agreement import public_key
from secagg.primitives.shamir import to_limbs
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ServerSession
from secagg.protocol.round import advertisement_text, parameters_digest
from secagg.protocol.server import recovery
from secagg.protocol.server.answers import Answers
from secagg.protocol.server.blame import Suspicions
from tests.messages.raw import field, fields_of, joined, number
from tests.protocol.network import (
    Cohort,
    changed,
    flipped,
    opened,
    refused_by_server,
    server_state,
    sparse,
    total_of,
)

Make = Callable[[Cohort], bytes]
LIAR, HONEST = 3, 5
LOST = {6: Phase.MASKED_INPUT_COLLECTION}  # one drops, so that both kinds of shares are revealed
PHASES = pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.name)


# --- rounds


def played(phase: Phase, adversary: Adversary = "active") -> Cohort:
    """Eight clients, one of them lost with its upload; the answers of this phase wait to be told.

    27 bits of a vector leave five spare ones. Threshold 5, one colluder.
    """
    cohort = Cohort(8, adversary=adversary, ring_bits=3, vector_length=9, minimum_cohort=4)
    return cohort.advance(phase, LOST).ask_all(LOST)


@cache
def _stopped(phase: Phase) -> tuple[Cohort, bytes]:
    cohort = played(phase)
    return cohort, cohort.server.snapshot()


def standing(phase: Phase) -> Cohort:
    """Like `played`, but its clients are shared by many tests: only the server may be told anything."""
    cohort, snapshot = _stopped(phase)
    cohort.server, _ = ServerSession.restore(snapshot)
    return cohort


@cache
def recorded() -> Mapping[Phase, tuple[bytes | None, ...]]:
    """The answers of an honest round of the same eight clients."""
    return {phase: tuple(played(phase).answers) for phase in Phase}


def honest(phase: Phase) -> bytes:
    """The answer of the liar, when it was honest."""
    frame = recorded()[phase][LIAR]
    assert frame is not None
    return frame


def others(cohort: Cohort, *without: int) -> list[int]:
    return [i for i in range(len(cohort.signers)) if i not in without]


def ended(cohort: Cohort, lost: Mapping[int, Phase]) -> Aggregate | Aborted:
    return cohort.outcome or cohort.finish(lost)


def tell_honest(cohort: Cohort, liars: Collection[int], lost: Mapping[int, Phase] = LOST) -> None:
    phase = cohort.server.phase
    assert phase is not None
    for i in cohort.waiting():
        if i not in liars and lost.get(i, len(Phase)) > phase:
            assert cohort.tell(i) == []


def result(cohort: Cohort) -> Aggregate:
    assert isinstance(cohort.outcome, Aggregate), cohort.outcome
    return cohort.outcome


def blames(cohort: Cohort) -> dict[int, tuple[bool, BlameReason]]:
    """Of a round that ended well: who is suspected, whether guilty, and of what."""
    return {cohort.index[b.client]: (b.guilty, b.reason) for b in result(cohort).blamed}


def guilty(cohort: Cohort) -> set[int]:
    if isinstance(cohort.outcome, Aborted):
        return {cohort.index[identity] for identity in cohort.outcome.guilty}
    return {i for i, (is_guilty, _) in blames(cohort).items() if is_guilty}


def aborted(cohort: Cohort, reason: AbortReason) -> set[int]:
    """The round ended for this reason, without a result; the suspects."""
    assert isinstance(cohort.outcome, Aborted), cohort.outcome
    assert cohort.outcome.reason is reason
    assert cohort.server.phase is None
    return {cohort.index[identity] for identity in cohort.outcome.blamed}


def exact(cohort: Cohort, lost: Collection[int] = ()) -> None:
    """The sum is that over all but the lost."""
    members = others(cohort, *lost)
    assert result(cohort).survivors == tuple(cohort.identities[i] for i in members)
    assert total_of(result(cohort)) == cohort.sum_over(members)


# --- messages that a liar makes


def advertised(
    cohort: Cohort,
    *,
    agreement: bytes | None = None,
    mask: bytes | None = None,
    name: int = LIAR,
    signer: int = LIAR,
    round_id: bytes | None = None,
) -> bytes:
    """An advertisement of the liar, rightly signed unless said otherwise."""
    own = opened(Advertisement, cohort.answer(LIAR))
    unsigned = Advertisement(
        cohort.identities[name], agreement or own.agreement_key, mask or own.mask_key, bytes(64)
    )
    parameters = replace(cohort.parameters, round_id=round_id or cohort.parameters.round_id)
    text = advertisement_text(parameters_digest(parameters), unsigned)
    return cohort.frame(replace(unsigned, signature=cohort.signers[signer].sign(text)))


def shared(cohort: Cohort, **fields: object) -> bytes:
    return changed(cohort, SharedKeys, cohort.answer(LIAR), **fields)


def sealed(cohort: Cohort) -> list[SealedShare]:
    return list(opened(SharedKeys, cohort.answer(LIAR)).shares)


def uploaded(
    cohort: Cohort,
    packed: Buffer | None = None,
    complaints: Sequence[bytes] = (),
    *,
    liar: int = LIAR,
    signer: int | None = None,
    finished: Collection[int] | None = None,
) -> bytes:
    """An upload, signed for whatever it holds."""
    view = cohort.view()
    packed = opened(MaskedInput, cohort.answer(liar)).packed if packed is None else packed
    u1 = view.bitmap(range(view.clients) if finished is None else finished)
    text = view.upload_text(u1, hashlib.sha256(packed).digest())
    signature = cohort.signers[liar if signer is None else signer].sign(text)
    return cohort.frame(MaskedInput(packed, tuple(complaints), signature))


def vector(cohort: Cohort) -> bytes:
    return bytes(opened(MaskedInput, cohort.answer(LIAR)).packed)


def spare(cohort: Cohort, bit: int) -> bytes:
    packed = vector(cohort)
    return uploaded(cohort, packed[:-1] + bytes([packed[-1] | 1 << bit]))


def signed(
    cohort: Cohort,
    *,
    index: int = LIAR,
    signer: int = LIAR,
    finished: Collection[int] = range(8),
    survivors: Collection[int] = (0, 1, 2, 3, 4, 5, 7),
) -> bytes:
    view = cohort.view()
    text = view.survivors_text(view.bitmap(finished), view.bitmap(survivors))
    return cohort.frame(SurvivorSignature(index, cohort.signers[signer].sign(text)))


def revealed(cohort: Cohort, **fields: object) -> bytes:
    return changed(cohort, UnmaskingResponse, cohort.answer(LIAR), **fields)


def seeds(cohort: Cohort) -> list[RevealedShare]:
    return list(opened(UnmaskingResponse, cohort.answer(LIAR)).self_seed_shares)


def keys(cohort: Cohort) -> list[RevealedShare]:
    return list(opened(UnmaskingResponse, cohort.answer(LIAR)).mask_key_shares)


def by_dealer(shares: Sequence[RevealedShare]) -> tuple[RevealedShare, ...]:
    return tuple(sorted(shares, key=lambda share: share.dealer))


def by_peer(shares: Sequence[SealedShare]) -> tuple[SealedShare, ...]:
    return tuple(sorted(shares, key=lambda share: share.peer))


def kind_of(message: type) -> int:
    return KINDS.index(message) + 1


def raw(cohort: Cohort, kind: int, body: bytes, version: int = 1) -> bytes:
    """A frame of this round around any bytes."""
    return field(1, version) + field(2, cohort.parameters.round_id) + field(3, kind) + field(4, body)


# --- 1. messages that are refused: only their sender is lost

STRANGER = IdentityKey.from_seed(b"stranger" * 4)
P = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
BAD_POINTS = {
    "zero": 0,
    "one": 1,
    "order 4": P - 1,
    "order 8": ORDER_8[0],
    "order 8, the other": ORDER_8[1],
    "p for zero": P,
    "p + 1 for one": P + 1,
    "p + 9 for the base point": P + 9,
    "2^255 - 1": 2**255 - 1,
    "zero with the top bit": 2**255,
    "base point with the top bit": 2**255 + 9,
    "order 8 with the top bit": 2**255 + ORDER_8[0],
    "all ones": 2**256 - 1,
}


def _swapped(cohort: Cohort) -> bytes:
    own = opened(Advertisement, cohort.answer(LIAR))
    return changed(
        cohort,
        Advertisement,
        cohort.answer(LIAR),
        agreement_key=own.mask_key,
        mask_key=own.agreement_key,
    )


BAD_ADVERTISEMENTS: dict[str, tuple[Make, RefusalReason]] = {
    "another client's": (lambda c: c.answer(HONEST), RefusalReason.SENDER_MISMATCH),
    "in another's name, signed by itself": (
        lambda c: advertised(c, name=HONEST),
        RefusalReason.SENDER_MISMATCH,
    ),
    "in another's name, with the other's signature": (
        lambda c: advertised(c, name=HONEST, signer=HONEST),
        RefusalReason.SENDER_MISMATCH,
    ),
    "signed by another": (lambda c: advertised(c, signer=HONEST), RefusalReason.BAD_SIGNATURE),
    "signed for another round": (lambda c: advertised(c, round_id=bytes(16)), RefusalReason.BAD_SIGNATURE),
    "its keys swapped": (_swapped, RefusalReason.BAD_SIGNATURE),
    "another's keys, another's signature": (
        lambda c: changed(c, Advertisement, c.answer(HONEST), identity=c.identities[LIAR]),
        RefusalReason.BAD_SIGNATURE,
    ),
    "no signature": (
        lambda c: changed(c, Advertisement, c.answer(LIAR), signature=bytes(64)),
        RefusalReason.BAD_SIGNATURE,
    ),
}
for _name, _u in BAD_POINTS.items():
    _key = _u.to_bytes(32, "little")
    BAD_ADVERTISEMENTS[f"agreement key: {_name}"] = (
        partial(advertised, agreement=_key),
        RefusalReason.BAD_KEY,
    )
    BAD_ADVERTISEMENTS[f"mask key: {_name}"] = (partial(advertised, mask=_key), RefusalReason.BAD_KEY)

BAD_SHARED_KEYS: dict[str, tuple[Make, RefusalReason]] = {
    "another client's": (lambda c: c.answer(HONEST), RefusalReason.WRONG_NEIGHBORS),
    "a peer missing": (
        lambda c: shared(c, shares=tuple(sealed(c)[1:])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "no shares": (lambda c: shared(c, shares=()), RefusalReason.WRONG_NEIGHBORS),
    "a stranger for a peer": (
        lambda c: shared(c, shares=by_peer([replace(sealed(c)[0], peer=STRANGER.identity), *sealed(c)[1:]])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a stranger more": (
        lambda c: shared(c, shares=by_peer([*sealed(c), replace(sealed(c)[0], peer=STRANGER.identity)])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "itself among the peers": (
        lambda c: shared(c, shares=by_peer([*sealed(c), replace(sealed(c)[0], peer=c.identities[LIAR])])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a peer twice": (
        lambda c: shared(c, shares=(sealed(c)[0], *sealed(c))),
        RefusalReason.MALFORMED,
    ),
    "a peer twice, with another ciphertext": (
        lambda c: shared(c, shares=(replace(sealed(c)[0], ciphertext=bytes(96)), *sealed(c))),
        RefusalReason.MALFORMED,
    ),
    "in descending order": (
        lambda c: shared(c, shares=tuple(reversed(sealed(c)))),
        RefusalReason.MALFORMED,
    ),
    "a short ciphertext": (
        lambda c: shared(c, shares=(replace(sealed(c)[0], ciphertext=bytes(95)), *sealed(c)[1:])),
        RefusalReason.MALFORMED,
    ),
    "a long ciphertext": (
        lambda c: shared(c, shares=(*sealed(c)[:-1], replace(sealed(c)[-1], ciphertext=bytes(97)))),
        RefusalReason.MALFORMED,
    ),
    "acceptances of its own with every share": (
        lambda c: shared(c, shares=tuple(replace(s, acceptance=bytes(64)) for s in sealed(c))),
        RefusalReason.MALFORMED,
    ),
    "an acceptance with one share": (
        lambda c: shared(c, shares=(replace(sealed(c)[0], acceptance=bytes(64)), *sealed(c)[1:])),
        RefusalReason.MALFORMED,
    ),
    "no commitment": (lambda c: shared(c, seed_commitment=b""), RefusalReason.MALFORMED),
    "a short commitment": (lambda c: shared(c, seed_commitment=bytes(31)), RefusalReason.MALFORMED),
    "accepted by another": (
        lambda c: shared(c, acceptance=opened(SharedKeys, c.answer(HONEST)).acceptance),
        RefusalReason.BAD_SIGNATURE,
    ),
    "another roster accepted": (
        lambda c: shared(
            c, acceptance=c.signers[LIAR].sign(replace(c.view(), roster_digest=bytes(32)).acceptance_text())
        ),
        RefusalReason.BAD_SIGNATURE,
    ),
}

BAD_UPLOADS: dict[str, tuple[Make, RefusalReason]] = {
    "empty": (lambda c: uploaded(c, b""), RefusalReason.WRONG_LENGTH),
    "a byte short": (lambda c: uploaded(c, vector(c)[:-1]), RefusalReason.WRONG_LENGTH),
    "a byte long": (lambda c: uploaded(c, vector(c) + b"\0"), RefusalReason.WRONG_LENGTH),
    "a million bytes long": (lambda c: uploaded(c, bytes(10**6)), RefusalReason.WRONG_LENGTH),
    "signed by another": (lambda c: uploaded(c, signer=HONEST), RefusalReason.BAD_SIGNATURE),
    "another client's": (lambda c: c.answer(HONEST), RefusalReason.BAD_SIGNATURE),
    "not the vector that was signed": (
        lambda c: changed(c, MaskedInput, c.answer(LIAR), packed=flipped(vector(c), 1)),
        RefusalReason.BAD_SIGNATURE,
    ),
    "signed for another U1": (lambda c: uploaded(c, finished=range(7)), RefusalReason.BAD_SIGNATURE),
    "complains about itself": (
        lambda c: uploaded(c, complaints=c.identities[LIAR : LIAR + 1]),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "complains about a stranger": (
        lambda c: uploaded(c, complaints=(STRANGER.identity,)),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "complains about somebody and a stranger": (
        lambda c: uploaded(c, complaints=sorted((c.identities[0], STRANGER.identity))),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "complains twice about one": (
        lambda c: uploaded(c, complaints=(c.identities[0],) * 2),
        RefusalReason.MALFORMED,
    ),
    "complains in descending order": (
        lambda c: uploaded(c, complaints=(c.identities[1], c.identities[0])),
        RefusalReason.MALFORMED,
    ),
    "complains about a short name": (
        lambda c: uploaded(c, complaints=(c.identities[0][:31],)),
        RefusalReason.MALFORMED,
    ),
}
for _bit in range(3, 8):
    BAD_UPLOADS[f"spare bit {_bit} set"] = (
        partial(spare, bit=_bit),
        RefusalReason.OUT_OF_RANGE,
    )

BAD_SURVIVOR_SIGNATURES: dict[str, tuple[Make, RefusalReason]] = {
    "another client's": (lambda c: c.answer(HONEST), RefusalReason.SENDER_MISMATCH),
    "its own under another index": (lambda c: signed(c, index=HONEST), RefusalReason.SENDER_MISMATCH),
    "an index beyond the roster": (lambda c: signed(c, index=8), RefusalReason.SENDER_MISMATCH),
    "the largest index": (lambda c: signed(c, index=2**32 - 1), RefusalReason.SENDER_MISMATCH),
    "an index beyond 32 bits": (lambda c: signed(c, index=2**32), RefusalReason.MALFORMED),
    "another's signature": (lambda c: signed(c, signer=HONEST), RefusalReason.BAD_SIGNATURE),
    "of another S": (lambda c: signed(c, survivors=range(8)), RefusalReason.BAD_SIGNATURE),
    "of another U1": (lambda c: signed(c, finished=range(7)), RefusalReason.BAD_SIGNATURE),
    "U1 and S exchanged": (
        lambda c: signed(c, finished=(0, 1, 2, 3, 4, 5, 7), survivors=range(8)),
        RefusalReason.BAD_SIGNATURE,
    ),
}

BAD_RESPONSES: dict[str, tuple[Make, RefusalReason]] = {
    "another client's": (lambda c: c.answer(HONEST), RefusalReason.WRONG_NEIGHBORS),
    "nothing": (lambda c: c.frame(UnmaskingResponse((), ())), RefusalReason.WRONG_NEIGHBORS),
    "nothing, at length": (lambda c: raw(c, kind_of(UnmaskingResponse), b""), RefusalReason.MALFORMED),
    "a seed share missing": (
        lambda c: revealed(c, self_seed_shares=tuple(seeds(c)[1:])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "the key share missing": (
        lambda c: revealed(c, mask_key_shares=()),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "the kinds exchanged": (
        lambda c: revealed(c, self_seed_shares=tuple(keys(c)), mask_key_shares=tuple(seeds(c))),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "both kinds of a survivor": (
        lambda c: revealed(c, mask_key_shares=by_dealer([*keys(c), seeds(c)[0]])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "both kinds of a dropout": (
        lambda c: revealed(c, self_seed_shares=by_dealer([*seeds(c), *keys(c)])),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a share of its own": (
        lambda c: revealed(
            c, self_seed_shares=by_dealer([*seeds(c), replace(seeds(c)[0], dealer=c.identities[LIAR])])
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "of a stranger for a neighbor": (
        lambda c: revealed(
            c, self_seed_shares=by_dealer([replace(seeds(c)[0], dealer=STRANGER.identity), *seeds(c)[1:]])
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "of a stranger, too": (
        lambda c: revealed(
            c, self_seed_shares=by_dealer([*seeds(c), replace(seeds(c)[0], dealer=STRANGER.identity)])
        ),
        RefusalReason.WRONG_NEIGHBORS,
    ),
    "a dealer twice": (
        lambda c: revealed(c, self_seed_shares=(seeds(c)[0], *seeds(c))),
        RefusalReason.MALFORMED,
    ),
    "in descending order": (
        lambda c: revealed(c, self_seed_shares=tuple(reversed(seeds(c)))),
        RefusalReason.MALFORMED,
    ),
    "a short share": (
        lambda c: revealed(c, mask_key_shares=(replace(keys(c)[0], share=bytes(39)),)),
        RefusalReason.MALFORMED,
    ),
    "a long share": (
        lambda c: revealed(c, mask_key_shares=(replace(keys(c)[0], share=bytes(48)),)),
        RefusalReason.MALFORMED,
    ),
}

REFUSED: dict[Phase, dict[str, tuple[Make, RefusalReason]]] = {
    Phase.ADVERTISE_KEYS: BAD_ADVERTISEMENTS,
    Phase.SHARE_KEYS: BAD_SHARED_KEYS,
    Phase.MASKED_INPUT_COLLECTION: BAD_UPLOADS,
    Phase.CONSISTENCY_CHECK: BAD_SURVIVOR_SIGNATURES,
    Phase.UNMASKING: BAD_RESPONSES,
}


@pytest.mark.parametrize(
    ("phase", "case"),
    [(phase, case) for phase, cases in REFUSED.items() for case in cases],
    ids=lambda value: value.name if isinstance(value, Phase) else value,
)
def test_a_wrong_message_is_refused_and_changes_nothing(phase: Phase, case: str) -> None:
    make, reason = REFUSED[phase][case]
    cohort = standing(phase)
    refused_by_server(cohort, LIAR, make(cohort), reason)
    assert cohort.tell(LIAR) == []


@PHASES
def test_who_sends_only_what_is_refused_is_dropped_and_nobody_else_is_lost(phase: Phase) -> None:
    cohort = played(phase)
    for make, reason in REFUSED[phase].values():
        refused_by_server(cohort, LIAR, make(cohort), reason)
    tell_honest(cohort, {LIAR})
    lost = LOST | {LIAR: phase}
    assert Dropped(cohort.identities[LIAR], DropReason.REFUSED) in cohort.close()
    ended(cohort, lost)
    exact(cohort, [i for i, when in lost.items() if when <= Phase.MASKED_INPUT_COLLECTION])
    assert result(cohort).blamed == ()


@PHASES
def test_every_kind_of_message_outside_its_phase_is_refused(phase: Phase) -> None:
    cohort = played(phase)
    for asked in Phase:
        refused_by_server(cohort, LIAR, played(asked).request(LIAR), RefusalReason.WRONG_PHASE)
    for later in range(phase + 1, len(Phase)):
        refused_by_server(cohort, LIAR, honest(Phase(later)), RefusalReason.WRONG_PHASE)
    tell_honest(cohort, ())
    cohort.close()
    ended(cohort, LOST)
    exact(cohort, LOST)


# --- who may speak at all


@PHASES
def test_a_stranger_is_refused_before_its_bytes_are_looked_at_and_leaves_no_trace(phase: Phase) -> None:
    cohort = standing(phase)
    before = cohort.server.snapshot()
    for frame in (cohort.answer(LIAR), b"", b"\xff" * 100, cohort.request(LIAR)):
        (effect,) = cohort.server.receive(STRANGER.identity, frame)
        assert isinstance(effect, Refused)
        assert (effect.sender, effect.reason) == (STRANGER.identity, RefusalReason.UNKNOWN_SENDER)
    assert cohort.server.snapshot() == before


def identity_bytes(y: int, sign: int) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


@pytest.mark.parametrize("sign", [0, 1])
def test_an_identity_that_is_not_a_canonical_point_of_large_order_cannot_be_admitted(sign: int) -> None:
    """Of a point of small order a signature that anybody can make is right for many texts."""
    cohort = Cohort(4)
    bad = [identity_bytes(y, sign) for y in (0, 1, P - 1, 2, *range(P, 2**255))]
    for name in bad:
        with pytest.raises(ParameterError, match="identity"):
            ServerSession(cohort.parameters, admitted=[*cohort.identities, Identity(name)])


def without_liar(phase: Phase) -> tuple[Cohort, dict[int, Phase], list[Effect]]:
    """The round goes on after a phase in which the liar was silent."""
    cohort = played(phase)
    tell_honest(cohort, {LIAR})
    effects = cohort.close()
    return cohort, LOST | {LIAR: phase}, effects


@PHASES
def test_a_late_message_of_a_dropped_client_is_refused_for_good(phase: Phase) -> None:
    late = honest(phase)
    cohort, lost, effects = without_liar(phase)
    assert Dropped(cohort.identities[LIAR], DropReason.SILENT) in effects
    while cohort.server.phase is not None:
        refused_by_server(cohort, LIAR, late, RefusalReason.UNKNOWN_SENDER)
        cohort.ask_all(lost).tell_all(lost).close()
    (effect,) = cohort.server.receive(cohort.identities[LIAR], late)
    assert isinstance(effect, Refused)
    assert effect.reason is RefusalReason.WRONG_PHASE
    exact(cohort, [i for i, when in lost.items() if when <= Phase.MASKED_INPUT_COLLECTION])


@pytest.mark.parametrize("phase", list(Phase)[:-1], ids=lambda phase: phase.name)
def test_who_left_in_an_earlier_phase_cannot_speak_in_a_later_one(phase: Phase) -> None:
    """Not in the roster, not in U1, not in S, no signer: right frames of an honest round do not help."""
    cohort, lost, _ = without_liar(phase)
    while (now := cohort.server.phase) is not None:
        for later in range(now, len(Phase)):
            refused_by_server(cohort, LIAR, honest(Phase(later)), RefusalReason.UNKNOWN_SENDER)
        cohort.ask_all(lost).tell_all(lost).close()
    exact(cohort, [i for i, when in lost.items() if when <= Phase.MASKED_INPUT_COLLECTION])


@pytest.mark.parametrize("told", [False, True], ids=["before it answers", "after it answered"])
@PHASES
def test_a_client_given_up_is_not_heard_again_and_what_it_sent_stays(phase: Phase, told: bool) -> None:
    cohort = played(phase)
    me = cohort.identities[LIAR]
    if told:
        assert cohort.tell(LIAR) == []
    assert cohort.server.drop(me) == [Dropped(me, DropReason.GIVEN_UP)]
    assert cohort.server.drop(me) == []
    if not told:
        refused_by_server(cohort, LIAR, cohort.answer(LIAR), RefusalReason.UNKNOWN_SENDER)
    lost = LOST | {LIAR: Phase(phase + told) if phase + told in list(Phase) else Phase.UNMASKING}
    tell_honest(cohort, {LIAR})
    while (closing := cohort.server.phase) is not None:
        effects = cohort.close()
        assert not [e for e in effects if isinstance(e, Dropped | Send) and getattr(e, "to", None) == me]
        if (now := cohort.server.phase) is not None:
            assert now > closing
            assert LIAR not in cohort.waiting()
            refused_by_server(cohort, LIAR, honest(now), RefusalReason.UNKNOWN_SENDER)
            if told:  # the same once more: it is not asked again
                refused_by_server(cohort, LIAR, honest(phase), RefusalReason.UNKNOWN_SENDER)
            cohort.ask_all(lost).tell_all(lost)
    stays = phase > Phase.MASKED_INPUT_COLLECTION or (told and phase == Phase.MASKED_INPUT_COLLECTION)
    exact(cohort, LOST if stays else [*LOST, LIAR])
    assert result(cohort).blamed == ()


@pytest.mark.parametrize(
    ("phase", "told", "minimum", "reason"),
    [
        (Phase.ADVERTISE_KEYS, 3, 3, AbortReason.COHORT_TOO_SMALL),
        (Phase.SHARE_KEYS, 6, 7, AbortReason.TOO_FEW_SURVIVORS),
        (Phase.MASKED_INPUT_COLLECTION, 6, 7, AbortReason.TOO_FEW_SURVIVORS),
        (Phase.MASKED_INPUT_COLLECTION, 5, 3, AbortReason.TOO_FEW_SURVIVORS),  # four answers for each
        (Phase.CONSISTENCY_CHECK, 4, 3, AbortReason.NO_QUORUM),
        (Phase.CONSISTENCY_CHECK, 5, 3, AbortReason.TOO_FEW_ANSWERS),  # a quorum, four answers for each
        (Phase.UNMASKING, 5, 3, AbortReason.TOO_FEW_ANSWERS),
    ],
)
def test_more_silent_clients_than_may_drop_end_the_round_at_once_and_are_named(
    phase: Phase, told: int, minimum: int, reason: AbortReason
) -> None:
    """Threshold 5, quorum 5 of 8."""
    cohort = Cohort(8, minimum_cohort=4, minimum_survivors=minimum).advance(phase).ask_all()
    for i in range(told):
        assert cohort.tell(i) == []
    effects = cohort.close()
    suspects = aborted(cohort, reason)
    assert suspects == (set(range(told, 8)) if phase >= Phase.CONSISTENCY_CHECK else set())
    assert guilty(cohort) == set()
    dropped = [effect.client for effect in effects if isinstance(effect, Dropped)]
    assert dropped == list(cohort.identities[told:])


def test_silence_that_leaves_no_feasible_number_of_clients_ends_the_round() -> None:
    """Five and seven can be protected against a fifth that colludes and a fifth that drops, six cannot."""
    cohort = Cohort(7, corrupt=0.2, dropout=0.2, minimum_cohort=5).start().ask_all()
    for i in range(6):
        assert cohort.tell(i) == []
    cohort.close()
    assert aborted(cohort, AbortReason.INFEASIBLE_PARAMETERS) == set()


def test_silent_successive_places_on_the_circle_end_the_round() -> None:
    """A stretch of the circle that holds colluders only could be cut off from the others."""
    cohort = sparse_cohort().advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    view = cohort.view()
    silent = view.graph.circle[: view.roster.degree // 2 - 1]
    for i in range(view.clients):
        if i not in silent:
            assert cohort.tell(i) == []
    cohort.close()
    assert aborted(cohort, AbortReason.SURVIVOR_GAP) == set()


# --- equivocation

SECOND: dict[Phase, dict[str, Make]] = {
    Phase.ADVERTISE_KEYS: {
        "another agreement key": lambda c: advertised(c, agreement=public_key(b"\x05" * 32)),
        "another mask key": lambda c: advertised(c, mask=public_key(b"\x05" * 32)),
    },
    Phase.SHARE_KEYS: {
        "another commitment": lambda c: shared(c, seed_commitment=bytes(32)),
        "another ciphertext": lambda c: shared(
            c, shares=(replace(sealed(c)[0], ciphertext=bytes(96)), *sealed(c)[1:])
        ),
    },
    Phase.MASKED_INPUT_COLLECTION: {
        "another vector": lambda c: uploaded(c, bytes(4)),
        "another vector under the same signature": lambda c: changed(
            c, MaskedInput, c.answer(LIAR), packed=bytes(4)
        ),
        "another complaint": lambda c: uploaded(c, complaints=(c.identities[0],)),
        "another signature": lambda c: changed(c, MaskedInput, c.answer(LIAR), signature=bytes(64)),
    },
    Phase.CONSISTENCY_CHECK: {
        "another S": lambda c: signed(c, survivors=range(8)),
        "another index": lambda c: signed(c, index=HONEST),
    },
    Phase.UNMASKING: {
        "another share": lambda c: revealed(c, mask_key_shares=(replace(keys(c)[0], share=bytes(40)),)),
        "fewer shares": lambda c: revealed(c, mask_key_shares=()),
    },
}


@pytest.mark.parametrize(
    ("phase", "case"),
    [(phase, case) for phase, cases in SECOND.items() for case in cases],
    ids=lambda value: value.name if isinstance(value, Phase) else value,
)
def test_of_two_different_messages_the_first_stands_and_the_second_is_an_offence(
    phase: Phase, case: str
) -> None:
    cohort = played(phase)
    first, second = cohort.answer(LIAR), SECOND[phase][case](cohort)
    assert second != first
    assert cohort.tell(LIAR, first) == []
    refused_by_server(cohort, LIAR, second, RefusalReason.EQUIVOCATION)
    assert cohort.tell(LIAR, first) == []
    tell_honest(cohort, ())
    cohort.close()
    while cohort.server.phase is not None:
        refused_by_server(cohort, LIAR, second, RefusalReason.EQUIVOCATION)
        sent = [effect for effect in cohort.tell(LIAR, first) if isinstance(effect, Send)]
        assert [bytes(effect.frame) for effect in sent] == [cohort.request(LIAR)]
        cohort.ask_all(LOST).tell_all(LOST).close()
    (effect,) = cohort.server.receive(cohort.identities[LIAR], second)
    assert isinstance(effect, Refused)
    assert effect.reason is RefusalReason.EQUIVOCATION
    exact(cohort, LOST)
    assert result(cohort).blamed == ()


# --- encodings


def encodings(kind: type, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Other bytes that a lenient decoder would take for the same message, or one like it."""
    fields = fields_of(data)
    declared = {one.number: one for one in schema(kind)}

    def put(place: int, *instead: bytes) -> bytes:
        return joined(fields[:place]) + b"".join(instead) + joined(fields[place + 1 :])

    for place, (tag, content) in enumerate(fields):
        one, name = declared[tag], f"{kind.__name__}.{declared[tag].name}"
        yield f"{name} padded", put(place, field(tag, content, 1))
        yield f"{name} padded to ten bytes", put(place, field(tag, content, 8))
        yield f"{name} tag padded", put(place, number(fields_tag(tag, content), 1) + payload(content))
        yield f"{name} twice", put(place, field(tag, content), field(tag, content))
        yield f"{name} as a fixed number", put(place, number(tag << 3 | 1) + bytes(8))
        if place:
            yield (
                f"{name} moved ahead",
                (
                    joined(fields[: place - 1])
                    + field(tag, content)
                    + field(*fields[place - 1])
                    + joined(fields[place + 1 :])
                ),
            )
        if one.message is not None and isinstance(content, bytes):
            if place in {0, len(fields) - 1} or fields[place - 1][0] != fields[place][0]:
                for inner, body in encodings(one.message, content):
                    yield f"{kind.__name__}: {inner}", put(place, field(tag, body))
        elif isinstance(content, bytes):
            if one.sizes is not None:
                yield f"{name} a byte short", put(place, field(tag, content[:-1]))
                yield f"{name} a byte long", put(place, field(tag, content + b"\0"))
        else:
            yield f"{name} beyond its limit", put(place, field(tag, content + one.limit))
            yield f"{name} beyond 64 bits", put(place, field(tag, content + 2**64))
    for one in schema(kind):
        if one.number not in {tag for tag, _ in fields} and not one.repeated and one.message is None:
            default = 0 if one.limit else b""
            place = sum(tag < one.number for tag, _ in fields)
            yield (
                f"{kind.__name__}.{one.name} though a default",
                (joined(fields[:place]) + field(one.number, default) + joined(fields[place:])),
            )
    for extra in (field(15, 1), field(15, b"more"), field(0, 1), field(2**29 - 1, 1), b"\x0b\x0c", b"\0"):
        yield f"{kind.__name__} and {extra.hex()}", data + extra
        yield f"{kind.__name__} after {extra.hex()}", extra + data
    yield f"{kind.__name__} cut", data[:-1]


def fields_tag(tag: int, content: int | bytes) -> int:
    return tag << 3 | (0 if isinstance(content, int) else 2)


def payload(content: int | bytes) -> bytes:
    return number(content) if isinstance(content, int) else number(len(content)) + content


def framed(cohort: Cohort, frame: bytes) -> Iterator[tuple[str, bytes]]:
    """Other encodings of a frame and of the message in it."""
    yield from encodings(_FrameMessage, frame)
    kind, body = next((k, b) for (_, k), (_, b) in [fields_of(frame)[2:4]])
    assert isinstance(kind, int)
    assert isinstance(body, bytes)
    for name, other in encodings(KINDS[kind - 1], body):
        yield name, raw(cohort, kind, other)


@pytest.mark.parametrize("client", [0, LIAR])
@PHASES
def test_a_message_has_one_encoding_and_every_other_one_is_refused(phase: Phase, client: int) -> None:
    cohort = played(phase)
    frame = cohort.answer(client)
    if phase is Phase.MASKED_INPUT_COLLECTION:
        frame = uploaded(cohort, complaints=cohort.identities[1:3], liar=client)
    before = server_state(cohort.server)
    tried = dict(framed(cohort, frame))
    assert len(tried) > 50
    for name, other in tried.items():
        if other == frame:
            continue
        effects = cohort.server.receive(cohort.identities[client], other)
        assert [type(effect) for effect in effects] == [Refused], name
        (effect,) = effects
        assert isinstance(effect, Refused)
        assert effect.reason is RefusalReason.MALFORMED, (name, effect)
    assert server_state(cohort.server) == before
    assert cohort.tell(client, frame) == []


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_another_version_is_refused(version: int) -> None:
    cohort = played(Phase.ADVERTISE_KEYS)
    body = encode(opened(Advertisement, cohort.answer(LIAR)))
    frame = raw(cohort, kind_of(Advertisement), body, version)
    if not version:
        frame = frame.removeprefix(field(1, 0))
    refused_by_server(cohort, LIAR, frame, RefusalReason.UNSUPPORTED_VERSION)


@pytest.mark.parametrize("kind", [0, len(KINDS) + 1, 2**32 - 1])
def test_a_kind_that_does_not_exist_is_refused(kind: int) -> None:
    cohort = played(Phase.UNMASKING)
    body = encode(opened(UnmaskingResponse, cohort.answer(LIAR)))
    frame = field(1, 1) + field(2, cohort.parameters.round_id) + (field(3, kind) if kind else b"")
    refused_by_server(cohort, LIAR, frame + field(4, body), RefusalReason.MALFORMED)


def _deep(levels: int) -> bytes:
    out = b""
    for _ in range(levels):
        out = field(1, out)
    return out


LENGTHS = (2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**70)


OPAQUE = [kind for kind in KINDS if schema(kind)[0].kind is Kind.OCTETS and schema(kind)[0].sizes is None]


def bombs(cohort: Cohort) -> dict[str, bytes]:
    """Small frames that a careless decoder answers with much memory, or never."""
    head = field(1, 1) + field(2, cohort.parameters.round_id)
    out = {}
    for kind in KINDS:
        start = head + field(3, kind_of(kind))
        for length in LENGTHS:
            bomb = number(1 << 3 | 2) + number(length)
            name = f"{kind.__name__} of {length:x}"
            out[f"a body: {name}"] = start + number(4 << 3 | 2) + number(length) + b"body"
            out[f"a field: {name}"] = start + field(4, bomb + b"content")
            out[f"a number: {name}"] = start + field(4, number(1 << 3) + number(length))
            out[f"a second item: {name}"] = start + field(4, field(1, field(1, bytes(32))) + bomb)
            if kind not in OPAQUE:
                out[f"a field of an item: {name}"] = start + field(4, field(1, bomb))
        if kind not in OPAQUE:
            out[f"deep: {kind.__name__}"] = start + field(4, _deep(1500))
        out[f"many empty items: {kind.__name__}"] = start + field(4, field(1, b"") * 2000)
        out[f"many fields: {kind.__name__}"] = start + field(4, field(15, 1) * 2000)
    out["endless number"] = b"\x08" + b"\xff" * 100_000
    out["endless tag"] = b"\xff" * 100_000
    out["endless zeros"] = b"\x80" * 4000
    out["nothing"] = b""
    out["a long round id"] = field(1, 1) + number(2 << 3 | 2) + number(2**40) + bytes(16)
    return out


def test_bombs_are_refused_with_little_memory() -> None:
    cohort = Cohort(4).start()
    sender = cohort.identities[0]
    cohort.server.receive(sender, b"")  # what is made once
    for name, frame in bombs(cohort).items():
        cohort.server.receive(sender, frame)
        tracemalloc.start()
        effects = cohort.server.receive(sender, frame)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        (effect,) = effects
        assert isinstance(effect, Refused), name
        before_decoding = {RefusalReason.WRONG_PHASE, RefusalReason.WRONG_LENGTH}
        assert effect.reason in {RefusalReason.MALFORMED, *before_decoding}, (name, effect)
        assert len(effect.detail) < 200, name
        assert peak < 2**16, (name, peak)
    cohort.finish()
    exact(cohort)


def test_a_frame_that_cannot_be_right_is_refused_before_its_body_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of another kind than is wanted, or longer than a right one can be: lists of nothing are not read."""
    cohort = Cohort(4).start()
    sender, round_id = cohort.identities[0], cohort.server.parameters.round_id

    def fail(_envelope: object) -> object:
        raise AssertionError("the body was decoded")

    monkeypatch.setattr("secagg.protocol.server.session.decode_body", fail)
    junk = MaskedInput(b"", tuple(i.to_bytes(32, "big") for i in range(5000)), bytes(64))
    (effect,) = cohort.server.receive(sender, encode_frame(round_id, junk).buffer())
    assert isinstance(effect, Refused)
    assert (effect.reason, effect.detail) == (RefusalReason.WRONG_PHASE, "MaskedInput in AdvertiseKeys")
    right = Advertisement(sender, bytes(32), bytes(32), bytes(64))
    head = bytes(encode_frame(round_id, right)).removesuffix(encode(right))
    (effect,) = cohort.server.receive(sender, head[:-2] + b"\xa0\x1f" + bytes(4000))
    assert isinstance(effect, Refused)
    assert effect.reason is RefusalReason.WRONG_LENGTH
    assert "at most 1024 bytes, has 4000" in effect.detail


@pytest.mark.parametrize(
    "message",
    [
        MaskedInput(bytes(2**22), (), bytes(64)),
        SharedKeys(
            [SealedShare(i.to_bytes(32, "big"), bytes(96), b"") for i in range(2000)], bytes(32), bytes(64)
        ),
        UnmaskingResponse([RevealedShare(i.to_bytes(32, "big"), bytes(40)) for i in range(2000)], ()),
        MaskedInput(b"", tuple(i.to_bytes(32, "big") for i in range(2000)), bytes(64)),
    ],
    ids=["a long vector", "many shares", "many answers", "many complaints"],
)
def test_a_long_message_takes_a_small_multiple_of_its_own_size(message: object) -> None:
    cohort = Cohort(4).start()
    frame = cohort.frame(message)
    cohort.server.receive(cohort.identities[0], frame)
    tracemalloc.start()
    (effect,) = cohort.server.receive(cohort.identities[0], frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(effect, Refused)
    assert effect.reason is RefusalReason.WRONG_PHASE
    assert peak < (2**16 if len(frame) > 2**22 else 8 * len(frame))


# --- wrong answers


def limbs_plus_p(share: bytes) -> bytes:
    """The same elements of the field by words that are not below p."""
    words = np.frombuffer(share, "<u8") + np.uint64(PRIME)
    return bytes(words.astype("<u8").tobytes())


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda _: bytes(40),
    "ones": lambda _: b"\xff" * 40,
    "p": lambda share: PRIME.to_bytes(8, "little") + share[8:],
    "p in the last word": lambda share: share[:32] + PRIME.to_bytes(8, "little"),
    "right modulo p": limbs_plus_p,
    "a bit": lambda share: flipped(share, 65),
    "the largest element": lambda share: share[:32] + (PRIME - 1).to_bytes(8, "little"),
    "words exchanged": lambda share: share[8:16] + share[:8] + share[16:],
}


def instead(_share: bytes, lie: bytes) -> bytes:
    return lie


def answering(
    cohort: Cohort, liar: int, wrong: Callable[[bytes], bytes], dealers: Collection[int] | None = None
) -> bytes:
    """The answer of a liar with wrong shares of these dealers, or of all."""
    message = opened(UnmaskingResponse, cohort.answer(liar))

    def lie(shares: Sequence[RevealedShare]) -> tuple[RevealedShare, ...]:
        return tuple(
            replace(share, share=wrong(share.share))
            if dealers is None or cohort.index[Identity(share.dealer)] in dealers
            else share
            for share in shares
        )

    return cohort.frame(UnmaskingResponse(lie(message.self_seed_shares), lie(message.mask_key_shares)))


def unmasked(make: Make, lost: Mapping[int, Phase] = LOST) -> Cohort:
    """The liar's answer is what `make` makes; the round is brought to its end."""
    cohort = played(Phase.UNMASKING)
    assert cohort.tell(LIAR, make(cohort)) == []
    tell_honest(cohort, {LIAR}, lost)
    cohort.close()
    return cohort


WRONG_SHARE = (False, BlameReason.WRONG_SHARE)
GUILTY_SHARE = (True, BlameReason.WRONG_SHARE)
COMPLAINT = (False, BlameReason.COMPLAINT)
GUILTY_COMPLAINT = (True, BlameReason.COMPLAINT)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shares_of_everybody_are_corrected_and_their_holder_is_guilty(name: str) -> None:
    cohort = unmasked(lambda c: answering(c, LIAR, WRONG[name]))
    exact(cohort, LOST)
    assert blames(cohort) == dict.fromkeys(others(cohort, LIAR), WRONG_SHARE) | {LIAR: GUILTY_SHARE}


@pytest.mark.parametrize("dealer", [0, *LOST], ids=["of a survivor", "of a dropout"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_share_of_one_dealer_is_corrected_and_makes_two_suspects(name: str, dealer: int) -> None:
    cohort = unmasked(lambda c: answering(c, LIAR, WRONG[name], {dealer}))
    exact(cohort, LOST)
    assert blames(cohort) == {dealer: WRONG_SHARE, LIAR: WRONG_SHARE}


def test_shares_of_two_dealers_exchanged_are_both_wrong() -> None:
    def swap(cohort: Cohort) -> bytes:
        a, b, *rest = seeds(cohort)
        pair = (replace(a, share=b.share), replace(b, share=a.share))
        return revealed(cohort, self_seed_shares=(*pair, *rest))

    cohort = unmasked(swap)
    exact(cohort, LOST)
    assert blames(cohort) == {0: WRONG_SHARE, 1: WRONG_SHARE, LIAR: GUILTY_SHARE}


def test_a_key_share_in_place_of_a_seed_share_is_wrong() -> None:
    def other_kind(cohort: Cohort) -> bytes:
        first, *rest = seeds(cohort)
        key_share = cohort.share_plaintexts(0)[LIAR][:40]
        return revealed(cohort, self_seed_shares=(replace(first, share=key_share), *rest))

    cohort = unmasked(other_kind)
    exact(cohort, LOST)
    assert blames(cohort) == {0: WRONG_SHARE, LIAR: WRONG_SHARE}


def test_one_share_for_all_dealers_is_right_only_for_its_own() -> None:
    def same(cohort: Cohort) -> bytes:
        first = seeds(cohort)[0].share
        return revealed(cohort, self_seed_shares=tuple(replace(s, share=first) for s in seeds(cohort)))

    cohort = unmasked(same)
    exact(cohort, LOST)
    wrong = others(cohort, 0, LIAR, *LOST)
    assert blames(cohort) == dict.fromkeys(wrong, WRONG_SHARE) | {LIAR: GUILTY_SHARE}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_holder_is_guilty_from_one_dealer_more_than_collude(count: int) -> None:
    cohort = Cohort(13).advance(Phase.UNMASKING).ask_all()
    assert cohort.view().suspicion_limit == 2
    dealers = range(1, 1 + count)
    cohort.tell(0, answering(cohort, 0, WRONG["a bit"], dealers))
    cohort.tell_all().close()
    exact(cohort)
    assert blames(cohort) == dict.fromkeys(dealers, WRONG_SHARE) | {
        0: GUILTY_SHARE if count > 2 else WRONG_SHARE
    }


@pytest.mark.parametrize("liars", [1, 2, 3, 4])
def test_more_wrong_answers_than_the_surplus_end_the_round_without_a_sum(liars: int) -> None:
    """Threshold 5, seven answers: one is corrected, and leaving holders out finds no more."""
    cohort = Cohort(8).advance(Phase.UNMASKING).ask_all()
    for i in range(liars):
        cohort.tell(i, answering(cohort, i, WRONG["a bit" if i % 2 else "words exchanged"], {7}))
    cohort.tell_all().close()
    if liars < 2:
        exact(cohort)
    else:
        assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) >= {7, *range(liars)}
    # Two are more than the one declared: the rule holds the dealer for the liar then.
    assert guilty(cohort) == (set() if liars < 2 else {7})


def test_colluders_that_agree_on_a_secret_of_their_own_frame_no_dealer() -> None:
    """Two of 20 know the shares of ten others, and answer on a polynomial through these.

    With thirteen answers this is the only polynomial that the surplus finds, and it fails the check.
    Twelve answers lie on it, one less than would prove that the dealer shared it.
    """
    cohort = Cohort(20).advance(Phase.UNMASKING).ask_all()
    view = cohort.view()
    threshold, limit = view.roster.threshold, view.suspicion_limit
    assert (threshold, limit) == (11, 2)
    victim, liars, known = 19, (0, 1), range(2, threshold + 1)
    right = {holder: share[40:] for holder, share in cohort.share_plaintexts(victim).items()}
    words = {holder: np.frombuffer(share, "<u8").astype(np.uint64) for holder, share in right.items()}
    own = words[0] ^ np.uint64(1)
    points = np.array([1 + i for i in (0, *known)], np.uint64)  # of holders of the client of highest index
    weights = field_lagrange(points, np.array([2], np.uint64))
    other = field_weighted_sums(weights, np.stack([own, *(words[i] for i in known)]))[0]
    for liar, lie in zip(liars, (own, other), strict=True):
        share = lie.astype("<u8").tobytes()
        cohort.tell(liar, answering(cohort, liar, partial(instead, lie=share), {victim}))
    for i in range(2, threshold + limit):
        cohort.tell(i)
    cohort.tell(victim)
    cohort.close()
    suspects = aborted(cohort, AbortReason.UNRECOVERABLE_SECRET)
    assert {victim, *liars} <= suspects
    assert guilty(cohort) == set()


# --- dealers


def dealt(
    make: Make, clients: int = 8, corrupt: float = 0.1, adversary: Adversary = "active", **more: Any
) -> Cohort:
    """A round up to phase 2 in which client 0 deals what `make` makes."""
    cohort = Cohort(clients, corrupt=corrupt, adversary=adversary, **more)
    cohort.advance(Phase.SHARE_KEYS).ask_all()
    assert cohort.tell(0, make(cohort)) == []
    cohort.tell_all().close()
    return cohort


def ciphertexts(change: Callable[[list[bytes]], list[bytes]]) -> Make:
    """The dealer's message with other ciphertexts."""

    def make(cohort: Cohort) -> bytes:
        message = opened(SharedKeys, cohort.answer(0))
        changed_to = change([share.ciphertext for share in message.shares])
        shares = tuple(replace(s, ciphertext=c) for s, c in zip(message.shares, changed_to, strict=True))
        return cohort.frame(replace(message, shares=shares))

    return make


def spoiled(holders: Collection[int]) -> Make:
    """Ciphertexts that do not open for these holders."""
    return ciphertexts(
        lambda all_: [bytes(96) if holder in holders else c for holder, c in enumerate(all_, 1)]
    )


def off(holders: Collection[int]) -> Make:
    """Shares of both secrets that open and are not on the polynomial of the others."""

    def make(cohort: Cohort) -> bytes:
        right = cohort.share_plaintexts(0)
        return cohort.dealt(0, {h: flipped(flipped(right[h], h), 320 + h) for h in holders})

    return make


def polynomial(
    mask: Sequence[int], seed: Sequence[int], degree: int | None = None, holders: int = 7
) -> Callable[[Cohort], dict[int, bytes]]:
    """A sharing of any limbs; of the threshold's degree unless said otherwise."""

    def make(cohort: Cohort) -> dict[int, bytes]:
        rng = np.random.default_rng(7)
        terms = cohort.view().roster.threshold if degree is None else degree + 1
        coefficients = rng.integers(0, PRIME, (terms, 10), np.uint64)
        coefficients[0] = [*mask, *seed]
        points = np.arange(1, holders + 1, dtype=np.uint64)
        shares = field_evaluate(coefficients, points)
        return {h: row.astype("<u8").tobytes() for h, row in enumerate(shares, 1)}

    return make


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_garbage_for_some_holders_is_complained_about(count: int) -> None:
    """Threshold 8 of 12: up to two may be colluders that complain falsely, of three one is honest."""
    cohort = dealt(spoiled(range(1, 1 + count)), 13)
    assert cohort.view().suspicion_limit == 2
    cohort.finish()
    exact(cohort)
    holders = dict.fromkeys(range(1, 1 + count), COMPLAINT)
    assert blames(cohort) == holders | {0: GUILTY_COMPLAINT if count > 2 else COMPLAINT}


@pytest.mark.parametrize("drops", [False, True], ids=["it stays", "it drops"])
@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        (lambda c: [c[1], c[0], *c[2:]], 2),
        (lambda c: [c[0]] * len(c), 6),
        (lambda c: [*c[1:], c[0]], 7),
        (lambda c: [bytes(96)] * len(c), 7),
    ],
    ids=["two exchanged", "one for all", "shifted by one", "zeros"],
)
def test_ciphertexts_dealt_to_other_holders_do_not_open(
    change: Callable[[list[bytes]], list[bytes]], complaints: int, drops: bool
) -> None:
    lost = {0: Phase.MASKED_INPUT_COLLECTION} if drops else {}
    cohort = dealt(ciphertexts(change))
    cohort.ask_all(lost)
    named = [i for i in range(1, 8) if opened(MaskedInput, cohort.answer(i)).complaints]
    assert len(named) == complaints
    cohort.tell_all(lost).close()
    if complaints == 2:
        ended(cohort, lost)
        exact(cohort, lost)
        assert blames(cohort) == {0: GUILTY_COMPLAINT, 1: COMPLAINT, 2: COMPLAINT}
    else:
        assert aborted(cohort, AbortReason.COMPLAINTS) == {0, *named}
    assert guilty(cohort) == {0}


def test_shares_dealt_to_each_other_are_wrong_shares_and_corrected() -> None:
    def swap(cohort: Cohort) -> bytes:
        right = cohort.share_plaintexts(0)
        return cohort.dealt(0, {1: right[2], 2: right[1]})

    cohort = dealt(swap, 13)
    assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (8, 2)
    cohort.finish()
    exact(cohort)
    assert blames(cohort) == dict.fromkeys((0, 1, 2), WRONG_SHARE)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_off_the_polynomial_are_corrected_up_to_the_surplus(count: int) -> None:
    """Threshold 11, nineteen answers: four are corrected; a fifth can be left out only when no other is."""
    cohort = dealt(off(range(1, 1 + count)), 20)
    cohort.finish()
    if count > 4:
        assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(20))
        assert guilty(cohort) <= {0}
        return
    exact(cohort)
    holders = dict.fromkeys(range(1, 1 + count), WRONG_SHARE)
    assert blames(cohort) == holders | {0: GUILTY_SHARE if count > 2 else WRONG_SHARE}


def random_limbs(seed: int) -> list[int]:
    return to_limbs(random.Random(seed).randbytes(32))


TOO_LARGE = [PRIME - 1] * 5
SECRETS: dict[str, Callable[[Cohort], dict[int, bytes]]] = {
    "another secret": polynomial(random_limbs(1), random_limbs(2)),
    "zero": polynomial([0] * 5, [0] * 5),
    "limbs beyond 256 bits": polynomial(TOO_LARGE, TOO_LARGE),
    "a last limb beyond 256 bits": polynomial([0, 0, 0, 0, 2**48], [0, 0, 0, 0, 2**48]),
    "another client's shares": lambda c: dict(zip(range(1, 8), c.share_plaintexts(1).values(), strict=True)),
    "the kinds exchanged": lambda c: {h: s[40:] + s[:40] for h, s in c.share_plaintexts(0).items()},
}


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("drops", [False, True], ids=["its seed", "its mask key"])
@pytest.mark.parametrize("name", SECRETS)
def test_a_dealer_of_a_wrong_secret_is_guilty_and_there_is_no_partial_sum(
    name: str, drops: bool, adversary: Adversary
) -> None:
    """All answers lie on one polynomial, so the dealer shared it; commitment or public key tell it apart."""
    lost = {0: Phase.MASKED_INPUT_COLLECTION} if drops else {}
    cohort = dealt(lambda c: c.dealt(0, SECRETS[name](c)), adversary=adversary)
    cohort.finish(lost)
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(8))
    assert guilty(cohort) == {0}


def wide(cohort: Cohort) -> dict[int, bytes]:
    """The dealer's right secrets, with limbs that carry into each other."""
    secrets = cohort.secrets(0)
    mask, seed = to_limbs(secrets.mask), to_limbs(secrets.self_seed)
    for limbs in (mask, seed):
        place = next(i for i in range(1, 5) if limbs[i])
        limbs[place] -= 1
        limbs[place - 1] += 2**52
    return polynomial(mask, seed)(cohort)


@pytest.mark.parametrize("drops", [False, True], ids=["its seed", "its mask key"])
def test_a_secret_has_one_sharing_limbs_that_carry_are_refused(drops: bool) -> None:
    lost = {0: Phase.MASKED_INPUT_COLLECTION} if drops else {}
    cohort = dealt(lambda c: c.dealt(0, wide(c)))
    cohort.finish(lost)
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(8))
    assert guilty(cohort) == {0}


def test_a_commitment_to_another_seed_makes_its_dealer_guilty() -> None:
    cohort = dealt(lambda c: changed(c, SharedKeys, c.answer(0), seed_commitment=bytes(32)))
    cohort.finish()
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(8))
    assert guilty(cohort) == {0}


def test_a_commitment_copied_from_another_client_makes_its_dealer_guilty() -> None:
    """It binds the name: not even with the other's seed would it open."""

    def copy(cohort: Cohort) -> bytes:
        commitment = opened(SharedKeys, cohort.answer(1)).seed_commitment
        plaintexts = dict(zip(range(1, 8), cohort.share_plaintexts(1).values(), strict=True))
        frame = cohort.dealt(0, plaintexts)
        return changed(cohort, SharedKeys, frame, seed_commitment=commitment)

    cohort = dealt(copy)
    cohort.finish()
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(8))
    assert guilty(cohort) == {0}


def test_a_wrong_secret_is_proved_by_the_threshold_and_the_colluders_together() -> None:
    """Threshold 11, limit 2, thirteen answers: all of them agree, or all but one."""
    for wrong, expected in ((0, {0}), (1, set())):

        def make(cohort: Cohort, wrong: int = wrong) -> bytes:
            plaintexts = polynomial(random_limbs(1), random_limbs(2), holders=19)(cohort)
            for holder in range(1, 1 + wrong):
                plaintexts[holder] = flipped(flipped(plaintexts[holder], holder), 320 + holder)
            return cohort.dealt(0, plaintexts)

        cohort = dealt(make, 20)
        assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (11, 2)
        answered(cohort, range(1, 14))
        assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) >= {*range(14)}
        assert guilty(cohort) == expected


def answered(cohort: Cohort, holders: Iterable[int], lost: dict[int, Phase] | None = None) -> None:
    """The rest of a round in which only these holders answer at last."""
    lost = lost or {}
    cohort.advance(Phase.UNMASKING, lost).ask_all(lost)
    for i in holders:
        assert cohort.tell(i) == []
    cohort.close()


def too_high(clients: int, degree: int | None = None) -> Make:
    """Client 0 deals on a polynomial of the highest degree, or of this one."""
    holders = clients - 1
    make = polynomial(random_limbs(1), random_limbs(2), degree=degree or holders - 1, holders=holders)
    return lambda cohort: cohort.dealt(0, make(cohort))


@pytest.mark.parametrize("drops", [False, True], ids=["its seed", "its mask key"])
@pytest.mark.parametrize("clients", [8, 40])
def test_a_sharing_of_too_high_degree_ends_the_round_and_its_dealer_is_guilty(
    clients: int, drops: bool
) -> None:
    """As many wrong answers as there are colluders would have been corrected."""
    lost = {0: Phase.MASKED_INPUT_COLLECTION} if drops else {}
    cohort = dealt(too_high(clients), clients)
    cohort.finish(lost)
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(clients))
    assert guilty(cohort) == {0}


def test_a_sharing_of_a_degree_that_is_one_too_high_makes_its_dealer_guilty() -> None:
    cohort = dealt(too_high(20, 11), 20)
    assert cohort.view().roster.threshold == 11
    cohort.finish()
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == set(range(20))
    assert guilty(cohort) == {0}


@pytest.mark.parametrize(("answers", "expected"), [(15, {0}), (14, set())])
def test_without_surplus_for_all_colluders_a_sharing_of_too_high_degree_proves_nothing(
    answers: int, expected: set[int]
) -> None:
    """Threshold 11, limit 2: of fifteen answers two wrong ones would have been corrected, of fourteen one."""
    cohort = dealt(too_high(20), 20)
    assert (cohort.view().roster.threshold, cohort.view().suspicion_limit) == (11, 2)
    answered(cohort, range(1, 1 + answers))
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) >= {*range(1 + answers)}
    assert guilty(cohort) == expected
    assert isinstance(cohort.outcome, Aborted)
    assert cohort.outcome.likely == ()  # on the complete graph it is no matter of chance


def test_a_dealer_that_only_improbably_many_colluders_could_frame_is_named() -> None:
    """Of 26 neighbors eight would have to collude: possible by the bound of guilt, but hardly ever so."""
    cohort = dealt(
        too_high_among(range(1, 27)), 100, dropout=0.02, correctness_bits=5, grinding_bits=0, vector_length=2
    )
    view = cohort.view()
    assert (view.roster.degree, view.roster.threshold) == (26, 11)
    assert (view.likely_limit, view.suspicion_limit) == (7, 10)
    cohort.finish()
    assert aborted(cohort, AbortReason.UNRECOVERABLE_SECRET) == {0, *view.graph.neighbors_of(0)}
    assert isinstance(cohort.outcome, Aborted)
    assert (cohort.outcome.guilty, cohort.outcome.likely) == ((), (cohort.identities[0],))


def too_high_among(points: Sequence[int]) -> Make:
    """On a sparse graph: client 0 deals random shares to its neighbors."""

    def make(cohort: Cohort) -> bytes:
        rng = np.random.default_rng(5)
        words = rng.integers(0, PRIME, (len(points), 10), np.uint64)
        around = cohort.view().graph.neighbors_of(0)
        return cohort.dealt(0, {h: w.astype("<u8").tobytes() for h, w in zip(around, words, strict=True)})

    return make


@pytest.mark.parametrize(("garbage", "expected"), [(0, set()), (1, {0})])
def test_whoever_complained_about_a_dealer_lies_no_second_time_in_its_defence(
    garbage: int, expected: set[int]
) -> None:
    """Threshold 11, limit 2: with one complaint, one more liar would have been corrected."""

    def make(cohort: Cohort) -> bytes:
        plaintexts = polynomial(random_limbs(1), random_limbs(2), degree=18, holders=19)(cohort)
        for holder in range(1, 1 + garbage):
            plaintexts[holder] = b"\xff" * 80
        return cohort.dealt(0, plaintexts)

    cohort = dealt(make, 20)
    answered(cohort, range(1, 15 + garbage))
    aborted(cohort, AbortReason.UNRECOVERABLE_SECRET)
    assert guilty(cohort) == expected


def test_whatever_colluding_holders_answer_no_honest_dealer_is_guilty_or_likely_to_be() -> None:
    """As many liars as collude, any lies, any other holders silent: one dealer, many times."""
    cohort = dealt(too_high(20, 10), 20).advance(Phase.UNMASKING).ask_all()
    masked = cast("Any", cohort.server._phase).masked
    view, rng = cohort.view(), random.Random(6)
    victim, limit, t = 19, view.suspicion_limit, view.roster.threshold
    right = {h: share[40:] for h, share in cohort.share_plaintexts(victim).items()}
    seen: Counter[str] = Counter()
    for _ in range(300):
        liars = rng.sample(range(19), limit)
        quiet = {*rng.sample(range(19), rng.randint(0, 19 - t))}
        complaining = {i for i in liars if rng.random() < 0.2} - quiet
        answers = Answers(masked.neighbors, masked.positions)
        for holder in sorted({*range(19)} - quiet - complaining):
            share = rng.randbytes(40) if rng.random() < 0.5 else flipped(right[holder], rng.randrange(320))
            share = share if holder in liars else right[holder]
            one = np.frombuffer(share, np.uint8).reshape(1, -1)
            answers.add(holder, np.array([victim], np.int32), one)
        suspicions = Suspicions({(victim, i) for i in complaining})
        secret = recovery._recover(
            masked, victim, answers, suspicions, recovery._weight_cache(), recovery._Effort()
        )
        honest = {view.identities[i] for i in range(20) if i not in liars}
        assert not honest & {blame.client for blame in suspicions.blame(view) if blame.guilty}
        assert not honest & suspicions.likely(view)
        seen["opened" if secret is not None else "not"] += 1
    assert min(seen["opened"], seen["not"]) > 20, seen


@pytest.mark.parametrize("adversary", ["active", "passive"])
def test_where_nobody_is_thought_to_collude_one_contradiction_proves_nothing(adversary: Adversary) -> None:
    for count, expected in ((1, set()), (2, {0})):
        cohort = dealt(off(range(1, 1 + count)), 12, corrupt=0.0, adversary=adversary)
        assert cohort.view().colluders == 0
        cohort.finish()
        exact(cohort)
        assert guilty(cohort) == expected


@pytest.mark.parametrize("reason", [AbortReason.TOO_FEW_SURVIVORS, AbortReason.SURVIVOR_GAP])
def test_guilt_that_complaints_have_proved_is_told_whatever_ends_the_round(reason: AbortReason) -> None:
    """Client 0 dealt garbage to more holders than collude; then too few upload, or leave a gap."""
    gap = reason is AbortReason.SURVIVOR_GAP
    cohort = sparse(70, "active") if gap else Cohort(8, minimum_survivors=7)
    cohort.advance(Phase.SHARE_KEYS).ask_all()
    view = cohort.view()
    around, circle = view.graph.neighbors_of(0), view.graph.circle
    garbage = around[: view.suspicion_limit + 1]
    assert cohort.tell(0, cohort.dealt(0, dict.fromkeys(garbage, b"\xff" * 80))) == []
    cohort.tell_all().close()
    far = (
        [circle[(circle.index(0) + 30 + place) % 70] for place in range(view.roster.degree // 2)]
        if gap
        else [6, 7]
    )
    cohort.finish(dict.fromkeys(far, Phase.MASKED_INPUT_COLLECTION))
    assert aborted(cohort, reason) == {0, *garbage}
    assert guilty(cohort) == {0}


def test_words_beyond_the_field_are_complained_about_like_shares_that_do_not_open() -> None:
    def make(cohort: Cohort) -> bytes:
        right = cohort.share_plaintexts(0)
        return cohort.dealt(
            0,
            {1: b"\xff" * 80, 2: right[2][:72] + PRIME.to_bytes(8, "little"), 3: b"\xff" * 8 + right[3][8:]},
        )

    cohort = dealt(make, 13)
    cohort.finish()
    exact(cohort)
    assert blames(cohort) == dict.fromkeys((1, 2, 3), COMPLAINT) | {0: GUILTY_COMPLAINT}


# --- complaints


def complaining(clients: int, complaints: Mapping[int, Collection[int]], make: Make | None = None) -> Cohort:
    """A round up to the next phase in which clients complain about others, besides what is wrong indeed."""
    cohort = Cohort(clients) if make is None else dealt(make, clients)
    cohort.advance(Phase.MASKED_INPUT_COLLECTION).ask_all()
    for liar, dealers in complaints.items():
        mine = {
            *opened(MaskedInput, cohort.answer(liar)).complaints,
            *(cohort.identities[i] for i in dealers),
        }
        assert cohort.tell(liar, uploaded(cohort, complaints=sorted(mine), liar=liar)) == []
    cohort.tell_all().close()
    return cohort


def answer_without(cohort: Cohort, liars: Mapping[int, Collection[int]]) -> None:
    """Bring the round to its end; who complained must answer without those dealers."""
    cohort.advance(Phase.UNMASKING).ask_all()
    for liar in liars:
        assert cohort.tell(liar, silent_about(cohort, liar, liars[liar])) == []
    cohort.tell_all().close()


def silent_about(cohort: Cohort, liar: int, dealers: Collection[int]) -> bytes:
    message = opened(UnmaskingResponse, cohort.answer(liar))
    left = {
        name: tuple(s for s in getattr(message, name) if cohort.index[Identity(s.dealer)] not in dealers)
        for name in ("self_seed_shares", "mask_key_shares")
    }
    return cohort.frame(UnmaskingResponse(**left))


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_false_complaints_of_one_client_speak_against_itself(count: int) -> None:
    lies = {0: range(1, 1 + count)}
    cohort = complaining(13, lies)
    answer_without(cohort, lies)
    exact(cohort)
    dealers = dict.fromkeys(range(1, 1 + count), COMPLAINT)
    assert blames(cohort) == dealers | {0: GUILTY_COMPLAINT if count > 2 else COMPLAINT}


@pytest.mark.parametrize("about", [1, 2, 3, 10])
def test_false_complaints_of_all_colluders_make_no_honest_dealer_guilty(about: int) -> None:
    dealers = range(2, 2 + about)
    lies = {0: dealers, 1: dealers}
    cohort = complaining(13, lies)
    answer_without(cohort, lies)
    exact(cohort)
    liars = dict.fromkeys((0, 1), GUILTY_COMPLAINT if about > 2 else COMPLAINT)
    assert blames(cohort) == liars | dict.fromkeys(dealers, COMPLAINT)


def test_who_complained_must_not_answer_for_the_dealer() -> None:
    lies = {0: [1]}
    cohort = complaining(8, lies)
    cohort.advance(Phase.UNMASKING).ask_all()
    refused_by_server(cohort, 0, cohort.answer(0), RefusalReason.WRONG_NEIGHBORS)
    assert cohort.tell(0, silent_about(cohort, 0, [1])) == []
    cohort.tell_all().close()
    exact(cohort)


def test_false_complaints_that_leave_a_dealer_too_few_holders_end_the_round() -> None:
    """Three complaints are more than the one colluder among eight: one of them is true, whoever made it."""
    cohort = complaining(8, {i: [7] for i in range(3)})
    assert aborted(cohort, AbortReason.COMPLAINTS) == {0, 1, 2, 7}
    assert guilty(cohort) == {7}


def test_colluders_cannot_frame_a_client_from_both_sides() -> None:
    """Two dealers cheat one holder, which complains rightly, and complain about it themselves.

    Two pairs name it as a holder and two as a dealer: neither is more than collude.
    """
    victim = 9

    def cheated(cohort: Cohort, dealer: int) -> bytes:
        message = opened(SharedKeys, cohort.answer(dealer))
        shares = tuple(
            replace(share, ciphertext=bytes(96)) if share.peer == cohort.identities[victim] else share
            for share in message.shares
        )
        return cohort.frame(replace(message, shares=shares))

    cohort = Cohort(13).advance(Phase.SHARE_KEYS).ask_all()
    for liar in (0, 1):
        assert cohort.tell(liar, cheated(cohort, liar)) == []
    cohort.tell_all().close()
    cohort.ask_all()
    for liar in (0, 1):
        assert cohort.tell(liar, uploaded(cohort, complaints=[cohort.identities[victim]], liar=liar)) == []
    cohort.tell_all().close()
    answer_without(cohort, {0: [victim], 1: [victim]})
    exact(cohort)
    assert blames(cohort) == dict.fromkeys((0, 1, victim), COMPLAINT)


# --- minorities


def noise(cohort: Cohort, liar: int) -> list[bytes]:
    """What is refused in every phase."""
    own, other = cohort.answer(liar), cohort.answer((liar + 1) % len(cohort.signers))
    return [
        b"",
        bytes(50),
        own[:-1],
        own + b"\0",
        other,
        cohort.request(liar),
        bytes(encode_frame(bytes(16), decode_frame(own)[1])),
        cohort.frame(SurvivorSignature(liar, bytes(64))),
        raw(cohort, 11, b"garbage"),
    ]


def be_noisy(cohort: Cohort, liars: Collection[int]) -> None:
    for liar in liars:
        for frame in noise(cohort, liar):
            (effect,) = cohort.server.receive(cohort.identities[liar], frame)
            assert isinstance(effect, Refused)


def minority(cohort: Cohort) -> list[int]:
    clients, model = len(cohort.signers), cohort.parameters.threat_model
    return sorted(random.Random(clients).sample(range(clients), model.corrupt_ppm * clients // 10**6))


def sparse_cohort() -> Cohort:
    return Cohort(
        70,
        dropout=0.2,
        security_bits=1,
        correctness_bits=1,
        grinding_bits=0,
        vector_length=4,
        minimum_cohort=50,
    )


@pytest.mark.parametrize("clients", [10, 20, 40, "sparse"])
def test_a_minority_that_lies_in_every_phase_changes_no_sum_and_frames_nobody(clients: int | str) -> None:
    """Noise in every phase, garbage for two holders, a false complaint, wrong answers, some silent."""
    cohort = sparse_cohort() if isinstance(clients, str) else Cohort(clients, dropout=0.2)
    liars = minority(cohort)
    silent = liars[::2][1:]
    cohort.start().ask_all()
    be_noisy(cohort, liars)
    cohort.tell_all().close()

    cohort.ask_all()
    be_noisy(cohort, liars)
    view = cohort.view()
    assert view.graph.complete == isinstance(clients, int)
    around = {liar: view.graph.neighbors_of(liar) for liar in liars}
    assert max(len({*liars} & {*view.graph.neighbors_of(i)}) for i in range(view.clients)) <= (
        view.suspicion_limit
    )
    for liar in liars:
        honest_ones = [i for i in around[liar] if i not in liars]
        right = cohort.share_plaintexts(liar)
        frame = cohort.dealt(
            liar,
            {honest_ones[0]: b"\xff" * 80, honest_ones[1]: flipped(flipped(right[honest_ones[1]], 9), 409)},
        )
        assert cohort.tell(liar, frame) == []
    cohort.tell_all().close()

    cohort.ask_all()
    be_noisy(cohort, liars)
    about = {}
    for liar in liars:
        true = {Identity(name) for name in opened(MaskedInput, cohort.answer(liar)).complaints}
        named = true | {next(cohort.identities[i] for i in reversed(around[liar]) if i not in liars)}
        about[liar] = {cohort.index[identity] for identity in named}
        assert cohort.tell(liar, uploaded(cohort, complaints=sorted(named), liar=liar)) == []
    cohort.tell_all().close()

    cohort.ask_all()
    be_noisy(cohort, liars)
    tell_honest(cohort, silent, {})
    cohort.close()

    cohort.ask_all()
    be_noisy(cohort, set(liars) - set(silent))
    for liar in set(liars) - set(silent):
        cohort.answers[liar] = silent_about(cohort, liar, about[liar])
        assert cohort.tell(liar, answering(cohort, liar, WRONG["words exchanged"])) == []
    tell_honest(cohort, silent, {})
    cohort.close()
    exact(cohort)
    assert guilty(cohort) <= set(liars)
    assert guilty(cohort) >= set(liars) - set(silent)
    assert set(blames(cohort)) >= set(liars)


@pytest.mark.parametrize("clients", [10, 20])
@PHASES
def test_a_minority_that_sends_only_garbage_in_one_phase_is_left_out(phase: Phase, clients: int) -> None:
    left_out(Cohort(clients, dropout=0.2, minimum_cohort=clients // 2), phase)


def test_a_minority_that_uploads_only_garbage_is_left_out_of_a_sparse_graph() -> None:
    left_out(sparse_cohort(), Phase.MASKED_INPUT_COLLECTION)


def left_out(cohort: Cohort, phase: Phase) -> None:
    """The minority sends noise in this phase, and is dropped."""
    liars = minority(cohort)
    cohort.advance(phase).ask_all()
    be_noisy(cohort, liars)
    tell_honest(cohort, liars, {})
    effects = cohort.close()
    assert [e for e in effects if isinstance(e, Dropped)] == [
        Dropped(cohort.identities[i], DropReason.REFUSED) for i in liars
    ]
    ended(cohort, dict.fromkeys(liars, phase))
    exact(cohort, liars if phase <= Phase.MASKED_INPUT_COLLECTION else ())
    assert result(cohort).blamed == ()


# --- any lies


@st.composite
def lies(draw: st.DrawFn) -> dict[str, Any]:
    """A cohort, its colluders, and to or about whom each of them lies."""
    clients, corrupt = draw(st.sampled_from([(6, 0.1), (8, 0.1), (9, 0.2), (11, 0.1), (12, 0.3)]))
    liars = draw(
        st.sets(st.integers(0, clients - 1), min_size=1, max_size=-(-round(10 * corrupt) * clients // 10))
    )
    some = st.sets(st.integers(0, clients - 1))
    return {
        "clients": clients,
        "corrupt": corrupt,
        "adversary": draw(st.sampled_from(["active", "passive"])),
        "garbage": {liar: draw(some) - {liar} for liar in liars},
        "off": {liar: draw(some) - {liar} for liar in liars},
        "commitment": draw(st.sets(st.sampled_from(sorted(liars)), max_size=1)),
        "complaints": {liar: draw(some) - {liar} for liar in liars},
        "wrong": {liar: (draw(st.sampled_from(sorted(WRONG))), draw(some)) for liar in liars},
        "lost": draw(st.none() | st.integers(0, clients - 1).filter(lambda i: i not in liars)),
    }


def lied(case: dict[str, Any]) -> Cohort:
    """Play the lies up to the end of the round."""
    cohort = Cohort(case["clients"], corrupt=case["corrupt"], adversary=case["adversary"])
    lost = {} if case["lost"] is None else {case["lost"]: Phase.MASKED_INPUT_COLLECTION}
    cohort.advance(Phase.SHARE_KEYS).ask_all()
    for liar, holders in case["garbage"].items():
        right = cohort.share_plaintexts(liar)
        wrong = {h: flipped(flipped(right[h], h), 320 + h) for h in case["off"][liar]}
        frame = cohort.dealt(liar, wrong | dict.fromkeys(holders, b"\xff" * 80))
        if liar in case["commitment"]:
            frame = changed(cohort, SharedKeys, frame, seed_commitment=bytes(32))
        assert cohort.tell(liar, frame) == []
    cohort.tell_all().close()
    cohort.ask_all(lost)
    about: dict[int, set[int]] = {}
    for liar, dealers in case["complaints"].items():
        true = opened(MaskedInput, cohort.answer(liar)).complaints
        about[liar] = dealers | {cohort.index[Identity(name)] for name in true}
        named = sorted(cohort.identities[i] for i in about[liar])
        assert cohort.tell(liar, uploaded(cohort, complaints=named, liar=liar)) == []
    cohort.tell_all(lost).close()
    if cohort.server.phase is Phase.CONSISTENCY_CHECK:
        cohort.ask_all(lost).tell_all(lost).close()
    if cohort.server.phase is Phase.UNMASKING:
        cohort.ask_all(lost)
        for liar, (kind, dealers) in case["wrong"].items():
            cohort.answers[liar] = silent_about(cohort, liar, about[liar])
            assert cohort.tell(liar, answering(cohort, liar, WRONG[kind], dealers)) == []
        cohort.tell_all(lost).close()
    return cohort


@settings(max_examples=60, derandomize=True, deadline=None)
@given(lies())
def test_whatever_colluders_do_nobody_innocent_is_guilty_and_no_sum_is_wrong(case: dict[str, Any]) -> None:
    cohort = lied(case)
    assert cohort.outcome is not None
    assert guilty(cohort) <= set(case["garbage"])
    if isinstance(cohort.outcome, Aborted):
        assert cohort.outcome.reason in {
            AbortReason.COMPLAINTS,
            AbortReason.UNRECOVERABLE_SECRET,
            AbortReason.TOO_FEW_ANSWERS,
        }
        assert {cohort.index[identity] for identity in cohort.outcome.blamed} & set(case["garbage"])
    else:
        exact(cohort, () if case["lost"] is None else (case["lost"],))
