"""Members of a committee that lie: in complaints, signatures and openings, in their keys, after restarts.

A committee of 8 has T = 3, rho = 1, T' = R = 1; one of 16 T = 6, rho = 2, T' = 2, R = 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nacl import bindings

from secagg.effects import (
    Aborted,
    AbortReason,
    BlameReason,
    CommitteeAccepted,
    Completed,
    OneShotAggregate,
    RefusalReason,
    Refused,
    RosterAccepted,
    Send,
    SignWanted,
)
from secagg.kernels import LATTICE_FIELD, RING, LatticeSecret, lattice_values, mask_apply, unpack_add
from secagg.messages.oneshot import (
    Acceptance,
    CommitteeAnnouncement,
    CommitteeKey,
    Complaint,
    Dealings,
    Opening,
    Review,
    SumProposal,
    SumSignature,
    committee_to_wire,
)
from secagg.params import Adversary, Identity, ThreatModel
from secagg.params_oneshot import OneShotPhase
from secagg.primitives.packed_sharing import (
    Words,
    added,
    dealing_matrix,
    pack_words,
    rows,
    secret_of,
    unpack_words,
)
from secagg.primitives.signatures import IdentityKey, verify
from secagg.protocol.oneshot import CommitteeSession, Contributor, DecryptorSession
from secagg.protocol.oneshot.view import (
    CommitteeView,
    OneShotView,
    committee_parameters_digest,
    key_text,
    sum_digest,
)
from tests.attacks.oneshot.liar import (
    Lies,
    at,
    base_points,
    certificate,
    dealing,
    deliver,
    digest_of,
    epoch_of,
    flipped,
    lying_opening,
    lying_upload,
    member_refuses,
    opening,
    proposal,
    reasons_of,
    request,
    server_refuses,
    shifted,
    signature,
    signer_of,
    standing_at,
    state_of,
    with_epoch,
)
from tests.protocol.network import CONTEXT, CounterEntropy
from tests.protocol.oneshot.network import (
    EPOCH_ID,
    ROUND_ID,
    Epoch,
    Round,
    committee_parameters_of,
    framed,
    keys,
    message_of,
    policy_of,
)

R = RefusalReason
Q = LATTICE_FIELD.modulus


def taken(one: Round) -> list[bytes]:
    """The digests of all uploads that the server has, ascending."""
    return sorted(upload.digest for upload in one.server._uploads.values())


def aggregate(one: Round) -> OneShotAggregate:
    assert isinstance(one.outcome, OneShotAggregate), one.outcome
    return one.outcome


# --- complaints


Said = Callable[[list[bytes]], list[tuple[bytes, int]]]


def complaining(one: Round, members: Collection[int], said: Said) -> None:
    """These members complain about uploads, whatever they found."""

    def change(member: Identity, frame: bytes) -> list[bytes]:
        message = message_of(frame)
        if not isinstance(message, Review) or one.committee.index[member] not in members:
            return [frame]
        complaints = tuple(Complaint(digest, reason) for digest, reason in sorted(said(taken(one))))
        return [framed(ROUND_ID, replace(message, complaints=complaints))]

    one.change_answer = change


@pytest.mark.parametrize("reason", range(1, 6))
def test_a_member_that_complains_about_everybody_is_not_listened_to(reason: int) -> None:
    one = Round(5, 8)
    complaining(one, {3}, lambda uploads: [(digest, reason) for digest in uploads])
    one.play()
    one.exact(range(5))
    assert aggregate(one).blamed == ()
    assert one.server._chosen().silent == {3}
    assert 3 not in one.server._openings


def test_two_of_sixteen_that_complain_about_everybody_are_not_listened_to() -> None:
    one = Round(5, 16)
    complaining(one, {0, 9}, lambda uploads: [(digest, 1) for digest in uploads])
    one.play()
    one.exact(range(5))
    assert aggregate(one).blamed == ()


def test_complaints_about_a_few_put_them_out_and_name_nobody() -> None:
    one = Round(20, 16)
    complaining(one, {0, 9}, lambda uploads: [(digest, 4) for digest in uploads[:2]])
    one.play()
    lost = {upload.identity for upload in one.server._order if upload.digest in taken_before(one)[:2]}
    one.exact(client for client in range(20) if one.signers[client].identity not in lost)
    assert aggregate(one).blamed == ()
    assert set(aggregate(one).left_out) == lost


def taken_before(one: Round) -> list[bytes]:
    return sorted(upload.digest for upload in one.server._order)


def test_a_false_complaint_beside_colluding_clients_costs_no_honest_upload() -> None:
    """Two clients lie to one honest member each, so that the liar's complaints stand beside theirs."""
    one = Round(6, 8)
    one.start(range(4))
    for client, victim in ((4, 0), (5, 1)):
        frame = lying_upload(one, client, Lies(boxes=at((victim,), flipped)))
        one.carry(one.server.receive(one.signers[client].identity, frame))
    complaining(one, {7}, lambda uploads: [(digest, 1) for digest in uploads])
    one.close()
    one.exact(range(4))  # both liars have two complaints, their own one and the member's
    assert {blame.client for blame in aggregate(one).blamed} == {one.signers[i].identity for i in (4, 5)}
    assert one.server._chosen().silent == {7}


def test_honest_members_to_whom_clients_lied_are_not_named_and_the_sum_goes_on() -> None:
    """Colluding clients lie to member 0 alone, and another member complains about fewer honest ones."""
    one = Round(8, 8)
    one.start(range(5))
    for client in (5, 6, 7):
        frame = lying_upload(one, client, Lies(boxes=at((0,), flipped)))
        one.carry(one.server.receive(one.signers[client].identity, frame))
    honest = sorted(upload.digest for upload in one.server._order[:2])
    complaining(one, {7}, lambda _: [(digest, 1) for digest in honest])
    one.close()
    one.exact(range(2, 8))  # member 0 does not open; what the other one complained about is left out
    assert aggregate(one).blamed == ()
    assert not aggregate(one).unprotected


@pytest.mark.parametrize("minimum", ["survivors", "per_context"])
def test_one_lying_member_does_not_end_a_round_that_has_just_enough(minimum: str) -> None:
    """Section 6: with at most min(T', R) liars there is a result."""
    one = Round(10, 8, changes={f"minimum_{minimum}": 10})
    assert one.committee.numbers.corrected == one.committee.numbers.liars == 1
    complaining(one, {3}, lambda uploads: [(uploads[0], 1)])
    one.play()
    one.exact(range(10))


@pytest.mark.parametrize("members", [{3}, {3, 5}, {3, 5, 6}])
def test_unknown_clients_are_out_and_never_guilty(members: set[int]) -> None:
    one = Round(5, 8)
    complaining(one, members, lambda uploads: [(digest, 5) for digest in uploads[:2]])
    one.play()
    outcome = aggregate(one)
    if len(members) == 1:
        one.exact(range(5))
        assert outcome.blamed == ()
    else:
        assert len(outcome.left_out) == 2
        assert [blame.guilty for blame in outcome.blamed] == [False, False]


def test_one_proof_beside_a_registry_that_lags_is_not_enough() -> None:
    one = Round(5, 8)

    def said(uploads: list[bytes]) -> list[tuple[bytes, int]]:
        return [(uploads[0], 5)]

    complaining(one, {3}, said)
    other = one.change_answer

    def change(member: Identity, frame: bytes) -> Iterable[bytes]:
        message = message_of(frame)
        if isinstance(message, Review) and one.committee.index[member] == 4:
            return [framed(ROUND_ID, replace(message, complaints=(Complaint(taken(one)[0], 1),)))]
        return other(member, frame)

    one.change_answer = change
    one.play()
    (blame,) = aggregate(one).blamed
    assert not blame.guilty


def test_complaints_about_uploads_that_nobody_made_change_nothing() -> None:
    one = Round(5, 8)
    complaining(one, range(8), lambda _: [(bytes([i] * 32), 1 + i % 5) for i in range(40)])
    one.play()
    one.exact(range(5))
    assert aggregate(one).blamed == ()
    assert aggregate(one).left_out == ()
    assert one.server._chosen().silent == frozenset()


def test_a_review_of_other_dealings_gets_them_again_once_and_then_is_refused() -> None:
    one = Round(5, 8)
    held = standing_at(one, "ReviewRequest")
    member = one.epoch.members[0]
    (answer,) = one.answers(member, held[member])
    short = framed(ROUND_ID, replace(message_of(answer), count=4))
    effects = one.server.receive(member, short)
    assert [type(message_of(bytes(e.frame))).__name__ for e in effects if isinstance(e, Send)] == [
        "Dealings",
        "ReviewRequest",
    ]
    server_refuses(one.server, member, short, R.NOT_INCLUDED)
    assert one.server.receive(member, answer) == []
    other = framed(ROUND_ID, replace(message_of(answer), complaints=(Complaint(taken(one)[0], 1),)))
    server_refuses(one.server, member, other, R.EQUIVOCATION)
    assert one.server.receive(member, answer) == []
    deliver(one, {who: frame for who, frame in held.items() if who != member})
    one.close()
    one.exact(range(5))


@pytest.mark.parametrize("reason", [6, 2**31])
def test_a_reason_that_there_is_not_is_malformed(reason: int) -> None:
    one = Round(5, 8)
    one.start()
    one.close(until=OneShotPhase.REVIEW)
    said = Review(5, one.view.reviewed(taken(one)), (Complaint(taken(one)[0], reason),))
    server_refuses(one.server, one.epoch.members[0], framed(ROUND_ID, said), R.MALFORMED)


def test_a_complaint_without_a_reason_is_malformed() -> None:
    one = Round(5, 8)
    one.start()
    held = standing_at(one, "ReviewRequest")
    said = Review(5, one.view.reviewed(taken(one)), (Complaint(taken(one)[0], 0),))
    for member in held:
        server_refuses(one.server, member, framed(ROUND_ID, said), R.MALFORMED)


# --- signatures and messages in another's name


def test_a_signature_of_another_sum_or_in_another_s_name_is_refused() -> None:
    one = Round(5, 8)
    held = standing_at(one, "SumProposal")
    member = one.epoch.members[1]
    uploads = taken(one)
    stranger = keys("nobody", 1)[0]
    for said in (
        signature(one, 1, uploads[1:]),
        signature(one, 0, uploads),
        signature(one, 1, uploads, by=0),
        SumSignature(200, signature(one, 1, uploads).signature),
        SumSignature(1, bytes(64)),
        SumSignature(1, stranger.sign(b"sum")),
    ):
        server_refuses(one.server, member, framed(ROUND_ID, said), R.BAD_SIGNATURE)
    right = framed(ROUND_ID, signature(one, 1, uploads))
    server_refuses(one.server, stranger.identity, right, R.UNKNOWN_SENDER)
    deliver(one, held)
    one.close()
    one.exact(range(5))


def test_members_that_were_not_asked_have_no_say() -> None:
    one = Round(5, 8)
    silent = one.epoch.members[2]
    one.lost = {silent: OneShotPhase.REVIEW}
    held = standing_at(one, "SumProposal")
    said = framed(ROUND_ID, signature(one, 2, taken(one)))
    server_refuses(one.server, silent, said, R.UNKNOWN_SENDER)
    late = framed(ROUND_ID, Review(5, one.view.reviewed(taken(one)), ()))
    server_refuses(one.server, silent, late, R.WRONG_PHASE)
    deliver(one, held)
    one.close(until=OneShotPhase.OPEN)
    early = framed(ROUND_ID, opening(one, 2, bytes(one.view.opening_bytes)))
    server_refuses(one.server, silent, early, R.UNKNOWN_SENDER)
    one.close()
    one.exact(range(5))


def test_an_opening_in_another_s_name_a_second_one_and_shapes_are_refused() -> None:
    one = Round(5, 7)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[1]
    (right,) = one.answers(member, held[member])
    said = message_of(right)
    assert isinstance(said, Opening)
    other = lying_opening(one, 1, right, shifted(1))
    for index, by in ((0, 0), (0, 1), (1, 0), (7, 1)):
        forged = replace(opening(one, min(index, 6), bytes(said.values), signed_by=by), index=index)
        server_refuses(one.server, member, framed(ROUND_ID, forged), R.BAD_SIGNATURE)
    for values in (b"", bytes(said.values)[:-1], bytes(said.values) + b"\0"):
        server_refuses(one.server, member, framed(ROUND_ID, opening(one, 1, values)), R.WRONG_LENGTH)
    shares = pack_words(np.zeros(one.view.rows + 2, np.uint64))  # with the blinding rows
    server_refuses(one.server, member, framed(ROUND_ID, opening(one, 1, shares)), R.WRONG_LENGTH)
    assert one.server.receive(member, right) == []
    server_refuses(one.server, member, other, R.EQUIVOCATION)
    assert one.server.receive(member, right) == []
    deliver(one, {who: frame for who, frame in held.items() if who != member})
    one.close()
    one.exact(range(5))


def test_spare_bits_of_an_opening_are_refused() -> None:
    model = ThreatModel(corrupt=0.05, dropout=0.05)
    one = Round(5, 24, epoch_changes={"threat_model": model})
    assert one.committee.numbers.packing == 3  # 683 rows; 2048 and 1024 of them leave no spare bits
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    (right,) = one.answers(member, held[member])
    values = bytes(message_of(right).values)
    spare = values[:-1] + bytes([values[-1] | 0x80])
    server_refuses(one.server, member, framed(ROUND_ID, opening(one, 0, spare)), R.MALFORMED)
    deliver(one, held)
    one.close()
    one.exact(range(5))


# --- openings


def opened(one: Round, lies: dict[int, Callable[[Words], Words]]) -> Round:
    """Play the round with these members' openings changed."""

    def change(member: Identity, frame: bytes) -> list[bytes]:
        index = one.committee.index[member]
        if one.server.phase is OneShotPhase.OPEN and index in lies:
            return [lying_opening(one, index, frame, lies[index])]
        return [frame]

    one.change_answer = change
    one.play()
    return one


def beyond_q(words: Words) -> Words:
    out = words.copy()
    out[5] = Q
    return out


def test_words_out_of_range_are_wrong_openings_like_others() -> None:
    one = opened(Round(5, 16), {2: beyond_q, 7: shifted(1), 9: shifted(2, 1000)})
    one.exact(range(5))
    assert [(blame.client, blame.guilty, blame.reason) for blame in aggregate(one).blamed] == [
        (one.epoch.members[index], True, BlameReason.WRONG_OPENING) for index in (2, 7, 9)
    ]


def test_liars_that_agree_with_one_another_frame_nobody() -> None:
    """Their openings lie on one polynomial that is another than the honest ones'."""
    for liars in ((0, 1), (3, 15), (4, 5, 6)):
        lies = {liar: shifted(liar + 1) for liar in liars}  # a polynomial of degree 1 apart
        one = opened(Round(5, 16), lies)
        one.exact(range(5))
        assert {blame.client for blame in aggregate(one).blamed} == {one.epoch.members[i] for i in liars}


def test_two_liars_among_the_fewest_openings_frame_no_honest_member() -> None:
    """With T + rho + T' + 1 openings one wrong one is corrected; two that aim at one honest member are not.

    They lie on the polynomial that goes through all honest openings but one, and through theirs.
    """
    one = Round(5, 16)
    base, liars = one.committee.numbers.base, one.committee.numbers.liars
    asked = range(base + liars + 1)
    one.lost = dict.fromkeys(one.epoch.members[len(asked) :], OneShotPhase.OPEN)
    kept = [member for member in asked if member not in {0, 1, 2}]  # 0 and 1 lie, 2 is the victim
    points = np.array([member + 1 for member in kept[: base - 1]], np.uint64)
    bump = np.ones(1, object)
    shift = {}
    for liar in (0, 1):  # the product of (X - point) is zero at base - 1 honest members
        value = int(bump[0])
        for point in points:
            value = value * (liar + 1 - int(point)) % Q
        shift[liar] = value
    opened(one, {liar: shifted(by) for liar, by in shift.items()})
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.DECODE_FAILED
    assert one.outcome.blamed == ()


def encoded(value: int, bits: int) -> int:
    """A value of the vector, scaled to Z_q."""
    return ((value << (50 - bits)) - ((value * 16383) >> bits)) % Q


def secret_that_adds(view: OneShotView, value: int) -> list[int]:
    """The secret whose mask adds a value to the first entry and nothing to all others: value / a."""
    words = np.zeros(RING, np.uint64)
    mask_apply(words, view.lattice_seed, np.ones(1, np.int8))
    a = [int(word) & (1 << 50) - 1 for word in words]
    constant = encoded(value, view.parameters.ring_bits)  # a constant has one value at all points
    return [constant * pow(word % Q, -1, Q) % Q for word in a]


@pytest.mark.parametrize("more", [0, 1, 2])
def test_a_lie_that_passes_the_checks_is_unprotected_with_a_bare_threshold_and_named_with_more(
    more: int,
) -> None:
    """Member 0 shifts the sum of the secrets so that one entry changes and no check does."""
    one = Round(5, 8)
    base = one.committee.numbers.base
    one.lost = dict.fromkeys(one.epoch.members[base + more :], OneShotPhase.OPEN)
    wanted = secret_that_adds(one.view, 3)
    points = np.arange(1, base + 1, dtype=np.uint64)
    (weight,) = LATTICE_FIELD.lagrange(points, base_points(1))[0, :1]

    def lie(words: Words) -> Words:
        out = [
            (int(word) + delta * pow(int(weight), -1, Q)) % Q
            for word, delta in zip(words, wanted, strict=True)
        ]
        return np.array(out, np.uint64)

    opened(one, {0: lie})
    if more == 0:
        assert aggregate(one).unprotected
        assert aggregate(one).total.tolist() == [2**16 + 1 - 3, 2, 3, 4, 5]
        assert aggregate(one).blamed == ()
    elif more == 1:  # T + rho + T': one lie is noticed, nobody is found
        assert isinstance(one.outcome, Aborted)
        assert one.outcome.reason is AbortReason.DECODE_FAILED
        assert one.outcome.blamed == ()
    else:
        one.exact(range(5))
        assert [blame.client for blame in aggregate(one).blamed] == [one.epoch.members[0]]


@pytest.mark.parametrize("passive", [False, True])
def test_an_honest_round_with_a_bare_threshold_is_exact(passive: bool) -> None:
    adversary: Adversary = "passive" if passive else "active"
    one = Round(5, 8, adversary)
    base = one.committee.numbers.base
    one.lost = dict.fromkeys(one.epoch.members[base:], OneShotPhase.OPEN)
    one.play()
    one.exact(range(5))
    assert aggregate(one).unprotected is not passive


# --- more than T members


@pytest.mark.parametrize("members", [8, 16])
def test_shares_of_t_members_say_nothing_and_those_of_t_and_rho_say_everything(members: int) -> None:
    """For the shares of T members every secret has its randomness."""
    numbers = Round(2, members).committee.numbers
    threshold, packing, base = numbers.privacy_threshold, numbers.packing, numbers.base
    matrix = dealing_matrix(members, base)
    count = RING // packing
    draw = np.random.default_rng(1)

    def words(*shape: int) -> Words:
        return draw.integers(0, Q, shape, np.uint64)

    secret, random = words(RING), words(count * threshold)
    dealt = rows(secret, random, words(2 * base), packing, threshold)
    shares = LATTICE_FIELD.weighted_sums(matrix, dealt)[:, :count]
    for colluding in ([*range(threshold)], [*range(members)][-threshold:]):
        other = words(RING)  # any secret at all
        known = np.array([Q - k for k in range(1, packing + 1)] + [j + 1 for j in colluding], np.uint64)
        values = np.ascontiguousarray(np.concatenate([other.reshape(count, packing).T, shares[colluding]]))
        through = LATTICE_FIELD.weighted_sums(LATTICE_FIELD.lagrange(known, base_points(base)), values)
        assert np.array_equal(secret_of(through, packing), other)
        assert np.array_equal(LATTICE_FIELD.weighted_sums(matrix, through)[colluding], shares[colluding])
    everything = [*range(1, 1 + base)]
    points = np.array([j + 1 for j in everything], np.uint64)
    weights = LATTICE_FIELD.lagrange(points, base_points(base))
    found = LATTICE_FIELD.weighted_sums(weights, np.ascontiguousarray(shares[everything]))
    assert np.array_equal(secret_of(found, packing), secret)


def test_one_member_more_than_t_gives_one_equation_about_the_secrets_of_a_row() -> None:
    """A ramp: with rho = 2 one of two secrets is free, and the other one follows from it."""
    numbers = Round(2, 16).committee.numbers
    threshold, base = numbers.privacy_threshold, numbers.base
    assert (threshold, numbers.packing) == (6, 2)
    matrix, draw = dealing_matrix(16, base), np.random.default_rng(2)
    dealt = draw.integers(0, Q, (base, 1), np.uint64)
    shares = LATTICE_FIELD.weighted_sums(matrix, dealt)
    colluding = [*range(threshold + 1)]
    known = np.array([Q - 1] + [j + 1 for j in colluding], np.uint64)
    weights = LATTICE_FIELD.lagrange(known, base_points(base))
    seconds = set()
    for first in (0, 1, int(dealt[0, 0])):
        values = np.concatenate([np.array([[first]], np.uint64), shares[colluding]])
        through = LATTICE_FIELD.weighted_sums(weights, values)
        assert int(through[0, 0]) == first
        assert np.array_equal(LATTICE_FIELD.weighted_sums(matrix, through)[colluding], shares[colluding])
        seconds.add(int(through[1, 0]))
    assert len(seconds) == 3
    assert int(dealt[1, 0]) in seconds


def values_of(one: Round, shares: dict[int, Words], clients: Iterable[int]) -> list[int]:
    """What T + rho members' sums of shares, by member, make of the masked uploads of these clients."""
    members = sorted(shares)
    weights = LATTICE_FIELD.lagrange(
        np.array([i + 1 for i in members], np.uint64), base_points(one.committee.numbers.base)
    )
    rows_ = LATTICE_FIELD.weighted_sums(weights, np.stack([shares[i] for i in members]))
    uploads = [message_of(one.upload(client)) for client in clients]
    lanes, bits = np.zeros(one.view.parameters.entries, np.uint64), one.view.parameters.upload_bits
    for upload in uploads:
        unpack_add(lanes, bytes(upload.packed), bits)
    values = lattice_values(
        lanes,
        LatticeSecret(secret_of(rows_, one.committee.numbers.packing)),
        public_seed=one.view.lattice_seed,
        ring_bits=one.ring_bits,
        upload_bits=bits,
        uploads=len(uploads),
    )
    length = one.view.parameters.vector_length
    assert not values[length:].any()
    return [int(value) for value in values[:length]]


def share_of(one: Round, member: int, digest: bytes) -> Words:
    """What a member holds of an upload."""
    share = one.epoch.decryptors[one.epoch.members[member]]._rounds[ROUND_ID].taken[digest].share
    assert share is not None
    return share[: one.view.rows]


def test_more_than_t_members_read_an_upload_that_nobody_opened() -> None:
    """The cliff of section 6: what they hold in an epoch is a secret per upload, and its vector."""
    one = Round(3, 16)
    one.start()
    one.carry(one.server.deal())
    digest = digest_of(one, one.upload(1))
    shares = {i: share_of(one, i, digest) for i in range(one.committee.numbers.base)}
    assert values_of(one, shares, [1]) == one.vector(1).tolist()


def test_in_a_passive_round_a_server_that_lies_reads_a_vector_with_members_that_collude() -> None:
    """No signatures: two honest members open two sets, each with the same T colluding ones."""
    one = Round(4, 8, "passive")
    one.start()
    one.carry(one.server.deal())
    numbers = one.committee.numbers
    colluding = range(numbers.privacy_threshold)
    assert len(colluding) == 2 * numbers.base - numbers.members == 6
    digests = [digest_of(one, one.upload(client)) for client in range(4)]
    sums = []
    for honest, clients in ((6, range(4)), (7, range(3))):
        uploads = [digests[client] for client in clients]
        shares: dict[int, Words] = {}
        for i in colluding:
            total = np.zeros(one.view.rows, np.uint64)
            for digest in uploads:
                total = added(total, share_of(one, i, digest))
            shares[i] = total
        proposal = framed(ROUND_ID, SumProposal(b"".join(sorted(uploads))))
        (answer,) = one.answers(one.epoch.members[honest], proposal)
        opened = unpack_words(message_of(answer).values, one.view.rows)
        assert opened is not None
        shares[honest] = opened
        sums.append(values_of(one, shares, clients))
    everybody, all_but_the_victim = sums
    assert everybody == one.expected(range(4))
    victim = [a - b for a, b in zip(everybody, all_but_the_victim, strict=True)]
    assert victim == one.vector(3).tolist()


# --- keys


def test_a_copied_agreement_key_opens_nothing_for_who_copied_it() -> None:
    copied: dict[str, CommitteeKey] = {}

    def first(key: CommitteeKey) -> CommitteeKey:
        copied["key"] = key
        return key

    def copy(key: CommitteeKey) -> CommitteeKey:
        return replace(key, agreement_key=copied["key"].agreement_key, kem_key=copied["key"].kem_key)

    for post_quantum in (False, True):
        one = Round(5, 8)
        epoch = epoch_of(8, one.signers, change={0: first, 1: copy}, post_quantum=post_quantum)
        one = with_epoch(one, epoch)
        one.start()
        one.carry(one.server.deal())
        thief = one.epoch.decryptors[one.epoch.members[1]]
        assert {found.reason for found in thief._rounds[ROUND_ID].taken.values()} == {1}
        stolen = framed(ROUND_ID, Dealings((dealing(one, one.upload(0), 0),)))
        member_refuses(thief, stolen, R.BAD_SIGNATURE)  # the one that it could not open anyway
        one.close()
        one.exact(range(5))
        assert one.server._chosen().silent == {1}


KEM_Q = 3329


def too_large(key: bytes) -> bytes:
    """A KEM key whose first entry is q' (12 bits each, little-endian)."""
    return bytes([KEM_Q & 0xFF, (KEM_Q >> 8) | (key[1] & 0xF0)]) + key[2:]


BAD_CANDIDATES: dict[
    str, tuple[bool, Callable[[CommitteeKey], CommitteeKey], RefusalReason, RefusalReason]
] = {
    "KEM entry of q'": (True, lambda key: replace(key, kem_key=too_large(key.kem_key)), R.BAD_KEY, R.BAD_KEY),
    "KEM entries of 4095": (
        True,
        lambda key: replace(key, kem_key=b"\xff" * 1152 + key.kem_key[1152:]),
        R.BAD_KEY,
        R.BAD_KEY,
    ),
    "no KEM key": (True, lambda key: replace(key, kem_key=b""), R.WRONG_LENGTH, R.WRONG_LENGTH),
    "KEM key cut": (True, lambda key: replace(key, kem_key=key.kem_key[:-1]), R.MALFORMED, R.MALFORMED),
    "KEM key not asked for": (
        False,
        lambda key: replace(key, kem_key=bytes(1184)),
        R.WRONG_LENGTH,
        R.WRONG_LENGTH,
    ),
    "agreement key 0": (False, lambda key: replace(key, agreement_key=bytes(32)), R.BAD_KEY, R.BAD_KEY),
    "agreement key not canonical": (
        False,
        lambda key: replace(key, agreement_key=(2**255 - 10).to_bytes(32, "little")),
        R.BAD_KEY,
        R.BAD_KEY,
    ),
}


@pytest.mark.parametrize("name", BAD_CANDIDATES)
def test_bad_keys_that_are_signed_rightly_are_refused_by_server_members_and_clients(name: str) -> None:
    post_quantum, change, at_server, at_others = BAD_CANDIDATES[name]
    signers = keys("candidates", 4)
    parameters = committee_parameters_of(4, post_quantum=post_quantum, threat_model=ThreatModel())
    policy = policy_of(signers, [])
    sessions, sent = [], []
    for i, signer in enumerate(signers):
        session = DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy(str(i)))
        (effect,) = session.receive(framed(EPOCH_ID, committee_to_wire(parameters)))
        assert isinstance(effect, Send)
        sessions.append(session)
        sent.append(message_of(bytes(effect.frame)))
    bad = change(sent[0])
    text = key_text(committee_parameters_digest(parameters), bad)
    bad = replace(bad, signature=signers[0].sign(text))
    server = CommitteeSession(parameters, candidates=[signer.identity for signer in signers])
    server.start()
    (refused,) = server.receive(signers[0].identity, framed(EPOCH_ID, bad))
    assert isinstance(refused, Refused)
    assert refused.reason is at_server
    assert not server.progress.received
    view = CommitteeView.form(parameters, [bad, *sent[1:]])  # of a server that looks away
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(view.committee, view.keys))
    for session in sessions[1:]:
        member_refuses(session, announcement, at_others)
    epoch = Epoch(parameters, signers, policy, {}, b"", view)
    signatures = [Acceptance(i, signers[i].sign(view.acceptance_text())) for i in range(view.numbers.quorum)]
    client = Contributor(signer=signers[0], context=CONTEXT, policy=policy, entropy=CounterEntropy(""))
    (refused,) = client.receive(certificate(epoch, view, signatures))
    assert isinstance(refused, Refused)
    assert refused.reason is at_others
    for signer, key in zip(signers, sent, strict=True):
        assert server.receive(signer.identity, framed(EPOCH_ID, key)) == []


def test_candidates_speak_for_themselves_and_once() -> None:
    one = Round(2, 4)
    parameters, signers = one.epoch.parameters, one.epoch.signers
    server = CommitteeSession(parameters, candidates=[signer.identity for signer in signers[:4]])
    sent = list(one.committee.keys)
    stranger = keys("nobody", 1)[0]

    def says(sender: Identity, message: Any, reason: RefusalReason, epoch: bytes = EPOCH_ID) -> None:
        received = server.progress.received
        (refused,) = server.receive(sender, framed(epoch, message))
        assert isinstance(refused, Refused)
        assert refused.reason is reason
        assert server.progress.received == received

    says(signers[0].identity, sent[0], R.WRONG_PHASE)  # before the start
    server.start()
    says(stranger.identity, sent[0], R.UNKNOWN_SENDER)
    says(signers[1].identity, sent[0], R.SENDER_MISMATCH)
    says(signers[0].identity, replace(sent[0], identity=signers[1].identity), R.SENDER_MISMATCH)
    says(signers[0].identity, sent[0], R.WRONG_ROUND, bytes(16))
    says(signers[0].identity, replace(sent[0], signature=bytes(64)), R.BAD_SIGNATURE)
    says(signers[0].identity, replace(sent[0], agreement_key=sent[1].agreement_key), R.BAD_SIGNATURE)
    for key in sent:
        assert server.receive(Identity(key.identity), framed(EPOCH_ID, key)) == []
    other = replace(sent[0], agreement_key=sent[1].agreement_key)
    text = key_text(committee_parameters_digest(parameters), other)
    other = replace(other, signature=signers[0].sign(text))
    says(signers[0].identity, other, R.EQUIVOCATION)
    assert server.receive(signers[0].identity, framed(EPOCH_ID, sent[0])) == []
    says(signers[0].identity, Acceptance(0, bytes(64)), R.WRONG_PHASE)
    server.close_phase()
    view = server.view
    assert view is not None
    text = view.acceptance_text()
    says(signers[0].identity, Acceptance(1, signers[0].sign(text)), R.SENDER_MISMATCH)
    says(signers[0].identity, Acceptance(0, signers[1].sign(text)), R.BAD_SIGNATURE)
    says(signers[0].identity, Acceptance(0, signers[0].sign(b"another committee")), R.BAD_SIGNATURE)
    says(signers[0].identity, Acceptance(9, signers[0].sign(text)), R.SENDER_MISMATCH)
    says(signers[0].identity, sent[0], R.WRONG_PHASE)
    for i in (0, 1):
        assert (
            server.receive(signers[i].identity, framed(EPOCH_ID, Acceptance(i, signers[i].sign(text)))) == []
        )
    effects = server.close_phase()
    assert isinstance(effects[-1], Aborted)
    assert effects[-1].reason is AbortReason.NO_QUORUM


# --- restarts


def restored(one: Round, kept: bytes, member: int, *, releases: int | None) -> DecryptorSession:
    session, effects = DecryptorSession.restore(
        kept, signer=signer_of(one, member), policy=one.epoch.policy, releases=releases
    )
    assert effects[0] == CommitteeAccepted(EPOCH_ID, member=True)
    one.epoch.decryptors[one.epoch.members[member]] = session
    return session


def test_a_restart_between_signature_and_opening_opens_the_same_sum_and_no_other() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    before = one.epoch.decryptors[member]
    after = restored(one, before.snapshot(), 0, releases=before.releases)
    assert after.rounds == {ROUND_ID}
    member_refuses(after, proposal(one, taken(one)[1:]), R.EQUIVOCATION)
    other = request(one, [signature(one, index, taken(one)[1:]) for index in range(3)])
    member_refuses(after, other, R.BAD_SIGNATURE)
    one.carry(one.server.resend(member))
    assert 0 in one.server._openings
    deliver(one, {who: frame for who, frame in held.items() if who != member})
    one.close()
    one.exact(range(5))


def test_a_restarted_member_without_the_dealings_of_the_sum_does_not_open() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    before = one.epoch.decryptors[member]
    after = restored(one, before.snapshot(), 0, releases=before.releases)
    assert len(after.receive(proposal(one, taken(one)))) == 1
    frames = [dealing(one, one.upload(client), 0) for client in range(5)]
    after.receive(framed(ROUND_ID, Dealings(tuple(frames[1:]))))
    member_refuses(after, held[member], R.NOT_INCLUDED)
    after.receive(framed(ROUND_ID, Dealings(tuple(frames[:1]))))
    deliver(one, held)
    one.close()
    one.exact(range(5))


@pytest.mark.parametrize("dealings", [False, True])
def test_a_restarted_member_opens_nothing_before_it_saw_the_sum_again(dealings: bool) -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    before = one.epoch.decryptors[member]
    after = restored(one, before.snapshot(), 0, releases=before.releases)
    if dealings:
        frames = [dealing(one, one.upload(client), 0) for client in range(5)]
        after.receive(framed(ROUND_ID, Dealings(tuple(frames))))
    state = state_of(after)
    (refused,) = after.receive(held[member])
    assert isinstance(refused, Refused)
    assert state_of(after) == state
    deliver(one, {who: frame for who, frame in held.items() if who != member})
    one.carry(one.server.resend(member))
    assert not one.server.progress.missing
    one.close()
    one.exact(range(5))


@pytest.mark.parametrize("releases", [None, 3, 1000])
def test_a_member_from_an_older_state_signs_no_sum_and_no_committee(releases: int | None) -> None:
    one = Round(5, 4)
    one.start()
    old = one.epoch.decryptors[one.epoch.members[0]].snapshot()
    held = standing_at(one, "SumProposal")
    member = one.epoch.members[0]
    assert len(one.answers(member, held[member])) == 1
    count = one.epoch.decryptors[member].releases
    assert count == 3  # keys, committee, sum
    after = restored(one, old, 0, releases=releases)
    one.carry(one.server.resend(member))
    assert len(after._rounds[ROUND_ID].taken) == 5
    for uploads in (taken(one), taken(one)[1:]):
        member_refuses(after, proposal(one, uploads), R.POLICY)
    quorum = request(one, [signature(one, index, taken(one)) for index in range(3)])
    member_refuses(after, quorum, R.WRONG_PHASE)
    announcement = framed(EPOCH_ID, CommitteeAnnouncement(one.committee.committee, one.committee.keys))
    assert after.receive(announcement) == [CommitteeAccepted(EPOCH_ID, member=True)]
    with pytest.raises(Exception, match="takes one call after SignWanted"):
        after.sign(ROUND_ID)


def test_a_member_whose_state_is_the_newest_signs() -> None:
    one = Round(5, 4)
    one.start()
    member = one.epoch.members[0]
    before = one.epoch.decryptors[member]
    after = restored(one, before.snapshot(), 0, releases=before.releases)
    held = standing_at(one, "SumProposal")
    (asked,) = after.receive(held[member])
    assert isinstance(asked, SignWanted)
    deliver(one, held)
    one.close()
    one.exact(range(5))


def test_a_member_from_an_older_state_stays_silent_after_another_restart() -> None:
    """It signed two sums; put back between them, it opens the first again, and counts as it did before."""
    one, two = Round(5, 4), Round(5, 4, changes={"round_id": bytes(16)})
    two.epoch = one.epoch
    assert two.view.committee.committee_digest == one.committee.committee_digest
    two.start()
    second = standing_at(two, "SumProposal")
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    old = session.snapshot()  # one sum is signed
    assert len(one.answers(member, second[member])) == 1  # the other one, too
    count = session.releases
    quiet = restored(one, old, 0, releases=count)
    other = proposal(two, taken(two)[1:])
    one.carry(one.server.resend(member))  # it opens the first sum: that was signed, and harmless
    assert 0 in one.server._openings
    two.carry(two.server.resend(member))
    member_refuses(quiet, other, R.POLICY)
    again = restored(one, quiet.snapshot(), 0, releases=max(count, quiet.releases))
    again.receive(two.sent[member][0])
    for frame in two.sent[member]:
        if isinstance(message_of(frame), Dealings):
            again.receive(frame)
    member_refuses(again, other, R.POLICY)
    deliver(one, held)


def test_a_restarted_member_that_opened_sends_the_same_bytes_and_takes_no_dealings() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    (sent,) = one.answers(member, held[member])
    before = one.epoch.decryptors[member]
    after = restored(one, before.snapshot(), 0, releases=before.releases)
    assert one.answers(member, held[member]) == [sent]
    deal = framed(ROUND_ID, Dealings((dealing(one, one.upload(0), 0),)))
    member_refuses(after, deal, R.WRONG_PHASE)
    lie = framed(ROUND_ID, opening(one, 0, bytes(one.view.opening_bytes)))
    assert one.server.receive(member, sent) == []
    server_refuses(one.server, member, lie, R.EQUIVOCATION)
    deliver(one, {who: frame for who, frame in held.items() if who != member})
    one.close()
    one.exact(range(5))


def test_a_candidate_put_back_before_the_committee_does_not_accept_another_one() -> None:
    signers = keys("candidates", 5)
    parameters = committee_parameters_of(4, threat_model=ThreatModel())
    policy = policy_of(signers, [])
    sent, sessions = [], []
    for i, signer in enumerate(signers):
        session = DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy(str(i)))
        (effect,) = session.receive(framed(EPOCH_ID, committee_to_wire(parameters)))
        assert isinstance(effect, Send)
        sessions.append(session)
        sent.append(message_of(bytes(effect.frame)))
    first, second = (CommitteeView.form(parameters, some) for some in (sent, sent[:4]))
    old = sessions[0].snapshot()
    effects = sessions[0].receive(framed(EPOCH_ID, CommitteeAnnouncement(first.committee, first.keys)))
    assert isinstance(effects[-1], Send)
    after, _ = DecryptorSession.restore(old, signer=signers[0], policy=policy, releases=sessions[0].releases)
    other = framed(EPOCH_ID, CommitteeAnnouncement(second.committee, second.keys))
    assert after.receive(other) == [CommitteeAccepted(EPOCH_ID, member=True)]  # and no signature
    kept, _ = DecryptorSession.restore(
        old, signer=signers[0], policy=policy, epochs={EPOCH_ID}, releases=sessions[0].releases
    )
    member_refuses(kept, other, R.ROUND_REUSED)


def test_a_candidate_put_back_does_not_accept_another_committee_after_another_restart() -> None:
    signers = keys("candidates", 5)
    parameters = committee_parameters_of(4, threat_model=ThreatModel())
    policy = policy_of(signers, [])
    sent, sessions = [], []
    for i, signer in enumerate(signers):
        session = DecryptorSession(signer=signer, policy=policy, entropy=CounterEntropy(str(i)))
        (effect,) = session.receive(framed(EPOCH_ID, committee_to_wire(parameters)))
        assert isinstance(effect, Send)
        sessions.append(session)
        sent.append(message_of(bytes(effect.frame)))
    first, second = (CommitteeView.form(parameters, some) for some in (sent, sent[:4]))
    old = sessions[0].snapshot()
    sessions[0].receive(framed(EPOCH_ID, CommitteeAnnouncement(first.committee, first.keys)))
    count = sessions[0].releases
    other = framed(EPOCH_ID, CommitteeAnnouncement(second.committee, second.keys))
    after, _ = DecryptorSession.restore(old, signer=signers[0], policy=policy, releases=count)
    after.receive(other)
    again, _ = DecryptorSession.restore(after.snapshot(), signer=signers[0], policy=policy, releases=count)
    assert again.receive(other) == [CommitteeAccepted(EPOCH_ID, member=True)]


# --- small messages that cost much


def test_a_review_that_is_sent_many_times_costs_the_server_one_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Round(5, 4)
    held = standing_at(one, "ReviewRequest")
    member = one.epoch.members[0]
    (answer,) = one.answers(member, held[member])
    right, calls = OneShotView.reviewed, [0]

    def counted(view: OneShotView, digests: Any) -> bytes:
        calls[0] += 1
        return right(view, digests)

    monkeypatch.setattr(OneShotView, "reviewed", counted)
    wrong = framed(ROUND_ID, Review(4, bytes(32), ()))
    for _ in range(20):
        one.server.receive(member, answer)
        one.server.receive(one.epoch.members[1], wrong)
    assert calls[0] <= 2


def test_signatures_that_are_sent_many_times_cost_the_server_one_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Round(5, 4)
    held = standing_at(one, "SumProposal")
    member = one.epoch.members[0]
    (answer,) = one.answers(member, held[member])
    right, calls = sum_digest, [0]

    def counted(uploads: Any) -> bytes:
        calls[0] += 1
        return right(uploads)

    monkeypatch.setattr("secagg.protocol.oneshot.proposal.sum_digest", counted)
    for _ in range(20):
        one.server.receive(member, answer)
        one.server.receive(member, framed(ROUND_ID, SumSignature(0, bytes(64))))
    assert calls[0] <= 2


def signed_anew(signer: IdentityKey, text: bytes, number: int) -> bytes:
    """A right signature with a nonce of one's choice: RFC 8032 fixes it, nobody can check that."""
    digest = hashlib.sha512(signer.seed).digest()
    secret = bytes([digest[0] & 248, *digest[1:31], digest[31] & 127 | 64])
    nonce = number.to_bytes(32, "little")
    point = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)
    hashed = hashlib.sha512(point + signer.identity + text).digest()
    challenge = bindings.crypto_core_ed25519_scalar_reduce(hashed)
    secret = bindings.crypto_core_ed25519_scalar_reduce(secret + bytes(32))
    product = bindings.crypto_core_ed25519_scalar_mul(challenge, secret)
    return bytes(point + bindings.crypto_core_ed25519_scalar_add(nonce, product))


def test_a_member_that_signs_again_and_again_is_counted_once() -> None:
    """Each would be one more message that the server keeps."""
    one = Round(5, 4)
    standing_at(one, "SumProposal")
    text = one.view.sum_text(sum_digest(sorted(taken(one))))
    before = one.server.taken
    for number in range(1, 6):
        said = SumSignature(1, signed_anew(signer_of(one, 1), text, number))
        assert verify(one.epoch.members[1], text, said.signature)
        assert not one.server.receive(one.epoch.members[1], framed(ROUND_ID, said))
    assert one.server.taken == before + 1


def test_the_reasons_of_a_liar_are_its_own() -> None:
    """What a member finds depends on its own share only; honest uploads get no complaint from anybody."""
    one = Round(5, 8)
    one.carry(one.server.start())
    for client in range(5):
        assert reasons_of(one, one.upload(client)) == [0] * 8


def test_members_forget_shares_when_they_open_and_when_the_epoch_ends() -> None:
    one = Round(5, 4)
    held = standing_at(one, "OpenRequest")
    member = one.epoch.members[0]
    session = one.epoch.decryptors[member]
    shares = [found.share for found in session._rounds[ROUND_ID].taken.values()]
    effects = session.receive(held[member])
    assert [type(effect) for effect in effects] == [Send, Completed]
    assert all(share is not None and not share.any() for share in shares)
    other = one.epoch.decryptors[one.epoch.members[1]]
    shares = [found.share for found in other._rounds[ROUND_ID].taken.values()]
    secrets = other._phase.secrets  # type: ignore[union-attr]
    other.close()
    assert all(share is not None and not share.any() for share in shares)
    assert not any(secrets.agreement)
    assert other.over


def test_what_is_restored_knows_its_rounds() -> None:
    one = Round(5, 4)
    one.start()
    session = one.epoch.decryptors[one.epoch.members[0]]
    _, effects = DecryptorSession.restore(
        session.snapshot(), signer=signer_of(one, 0), policy=one.epoch.policy, releases=session.releases
    )
    assert effects == [CommitteeAccepted(EPOCH_ID, member=True), RosterAccepted(ROUND_ID)]
