"""Clients that lie: which complaints a lie meets, who is named, and that the others' sum goes on.

A committee of 8 has T = 3, rho = 1 and T' = 1: an upload with two complaints is out and its client guilty;
one with a single complaint is left out where it is one of ten, and otherwise who complained does not open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg.effects import Aborted, AbortReason, BlameReason, OneShotAggregate, RefusalReason, UploadTaken
from secagg.kernels import LATTICE_FIELD, RING, LatticeSecret, lattice_values, pack, unpack_add
from secagg.messages.oneshot import (
    Dealings,
    Opening,
    Packed,
    PartialSum,
    Review,
    SumSignature,
    Upload,
)
from secagg.params_oneshot import OneShotPhase
from secagg.primitives.agreement import SMALL_ORDER
from secagg.primitives.packed_sharing import Words, pack_words, unpack_words
from tests.attacks.oneshot.liar import (
    OTHER,
    Lies,
    at,
    dealing,
    flipped,
    lying_upload,
    member_refuses,
    reasons_of,
    server_refuses,
    shifted,
    signed,
)
from tests.protocol.network import CONTEXT
from tests.protocol.oneshot.network import ROUND_ID, Round, changed, framed, keys, message_of

R = RefusalReason
LIAR = 4


def test_a_liar_that_tells_no_lies_makes_the_upload_of_a_contributor() -> None:
    for ring_bits, members in ((16, 4), (30, 16)):
        one = Round(5, members, ring_bits=ring_bits)
        for client in range(5):
            assert lying_upload(one, client) == one.upload(client)


# --- lies that members find


def on_shares(members: tuple[int, ...], row: int) -> Callable[[Words], Words]:
    """Another value in these members' shares."""

    def change(shares: Words) -> Words:
        for member in members:
            shares[member] = shifted(1 + member, row)(shares[member])
        return shares

    return change


def high_degree(shares: Words) -> Words:
    """The first row on a polynomial of the highest degree that so many points can have."""
    points = np.arange(1, len(shares) + 1, dtype=np.uint64)
    coefficients = np.arange(3, 3 + len(shares), dtype=np.uint64)
    shares[:, 0] = LATTICE_FIELD.evaluate(np.ascontiguousarray(coefficients[:, None]), points)[:, 0]
    return shares


def beyond_q(blob: bytes) -> bytes:
    return b"\xff" * 6 + b"\xff" + blob[7:]


def spare(blob: bytes) -> bytes:
    return blob[:-1] + bytes([blob[-1] | 0x80])


Two = tuple[Lies, list[int]]
FOUND: dict[str, Two] = {
    "wrong share": (Lies(shares=on_shares((2, 5), 0)), [0, 0, 4, 0, 0, 4, 0, 0]),
    "wrong last share": (Lies(shares=on_shares((2, 5), 2047)), [0, 0, 4, 0, 0, 4, 0, 0]),
    "wrong first blinding share": (Lies(shares=on_shares((2, 5), 2048)), [0, 0, 4, 0, 0, 4, 0, 0]),
    "wrong second blinding share": (Lies(shares=on_shares((2, 5), 2049)), [0, 0, 4, 0, 0, 4, 0, 0]),
    "box that does not open": (Lies(boxes=at((0, 7), flipped)), [1, 0, 0, 0, 0, 0, 0, 1]),
    "empty shares": (Lies(sealed=at((0, 7), lambda blob: bytes(len(blob)))), [2, 0, 0, 0, 0, 0, 0, 2]),
    "another's leaf": (Lies(leaves=at((1, 3), flipped)), [0, 2, 0, 2, 0, 0, 0, 0]),
    "leaves and boxes": (
        Lies(leaves=at((1,), flipped), boxes=at((1, 2), flipped)),
        [0, 1, 1, 0, 0, 0, 0, 0],
    ),
    "word not below q": (Lies(blobs=at((4, 6), beyond_q)), [0, 0, 0, 0, 3, 0, 3, 0]),
    "spare bit": (Lies(blobs=at((4, 6), spare)), [0, 0, 0, 0, 3, 0, 3, 0]),
    "high degree": (Lies(shares=high_degree), [4] * 8),
    "high degree, tests fitted to some": (
        Lies(shares=high_degree, fit=(0, 2, 4, 6)),
        [0, 4, 0, 4, 0, 4, 0, 4],
    ),
    "other tests": (
        Lies(tests=lambda tests: pack_words(shifted(1)(words_of(tests, 8)))),
        [4] * 8,
    ),
    "second test wrong": (
        Lies(tests=lambda tests: pack_words(shifted(1, 7)(words_of(tests, 8)))),
        [4] * 8,
    ),
    "boxes of others": (Lies(boxes=lambda boxes: [boxes[1], boxes[0], *boxes[2:]]), [1, 1, *[0] * 6]),
    "leaves of others": (Lies(leaves=lambda leaves: [leaves[1], leaves[0], *leaves[2:]]), [2, 2, *[0] * 6]),
}


def words_of(packed: bytes, count: int) -> Words:
    words = unpack_words(packed, count)
    assert words is not None
    return words


def played(one: Round, frame: bytes, client: int = LIAR) -> Round:
    """The round with this upload in place of a client's."""
    one.start([other for other in range(one.clients) if other != client])
    one.carry(one.server.receive(one.signers[client].identity, frame))
    one.close()
    return one


@pytest.mark.parametrize("name", FOUND)
def test_more_complaints_than_liars_among_the_members_put_an_upload_out_and_name_its_client(
    name: str,
) -> None:
    lies, expected = FOUND[name]
    one = Round(5, 8)
    one.carry(one.server.start())
    frame = lying_upload(one, LIAR, lies)
    assert reasons_of(one, frame) == expected
    one = played(Round(5, 8), frame)
    one.exact(range(4))
    assert isinstance(one.outcome, OneShotAggregate)
    (blame,) = one.outcome.blamed
    assert (blame.client, blame.guilty) == (one.signers[LIAR].identity, True)
    assert blame.reason is BlameReason.BAD_DEALING
    assert one.outcome.left_out == (one.signers[LIAR].identity,)
    assert not one.refused


ONE_MEMBER = {
    "wrong share": (Lies(shares=on_shares((2,), 0)), 4),
    "wrong blinding share": (Lies(shares=on_shares((2,), 2048)), 4),
    "box that does not open": (Lies(boxes=at((2,), flipped)), 1),
    "another's leaf": (Lies(leaves=at((2,), flipped)), 2),
    "word not below q": (Lies(blobs=at((2,), beyond_q)), 3),
}


@pytest.mark.parametrize("clients", [5, 11])
@pytest.mark.parametrize("name", ONE_MEMBER)
def test_a_lie_to_one_member_names_nobody_and_spoils_nothing(name: str, clients: int) -> None:
    lies, reason = ONE_MEMBER[name]
    one = Round(clients, 8)
    one.carry(one.server.start())
    frame = lying_upload(one, LIAR, lies)
    assert reasons_of(one, frame) == [0, 0, reason, 0, 0, 0, 0, 0]
    one = played(Round(clients, 8), frame)
    assert isinstance(one.outcome, OneShotAggregate)
    assert one.outcome.blamed == ()
    if clients == 5:  # one of five: the member that complained does not open, and the upload is in
        one.exact(range(5))
        assert one.server._chosen().silent == {2}
    else:
        one.exact(client for client in range(clients) if client != LIAR)


def test_lies_to_members_one_by_one_lose_the_liars_uploads_only() -> None:
    """Each of four colluding clients lies to a member of its own: no member looks like a liar but one."""
    one = Round(40, 8)
    one.start(range(36))
    for client in range(36, 40):
        frame = lying_upload(one, client, Lies(boxes=at((client - 36,), flipped)))
        one.carry(one.server.receive(one.signers[client].identity, frame))
    one.close()
    one.exact(range(36))
    assert isinstance(one.outcome, OneShotAggregate)
    assert one.outcome.blamed == ()


# --- lies that nobody can find


def test_a_secret_that_is_not_the_mask_s_fails_the_checks_and_names_nobody() -> None:
    one = Round(5, 8)

    def other(base: Words) -> Words:
        base[0, 0] ^= 1
        return base

    played(one, lying_upload(one, LIAR, Lies(base=other)))
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.CHECK_FAILED
    assert one.outcome.blamed == ()


@pytest.mark.parametrize("what", ["all", "checks"])
def test_a_vector_of_nonsense_fails_the_checks(what: str) -> None:
    one = Round(5, 8)
    size = one.view.packed_size
    nonsense = {
        "all": lambda _: b"\x5a" * (size - 1) + b"\0",
        "checks": lambda packed: packed[:-8] + b"\x33" * 7 + b"\0",
    }[what]
    frame = lying_upload(one, LIAR, Lies(packed=nonsense))
    played(one, frame)
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.CHECK_FAILED
    assert one.outcome.guilty == ()


def test_nonsense_that_passes_the_checks_spoils_the_sum_as_in_any_protocol() -> None:
    one = Round(5, 8)
    bits = one.view.parameters.upload_bits
    noise = bits - one.ring_bits

    def shift(packed: bytes) -> bytes:
        lanes = np.zeros(one.view.parameters.entries, np.uint64)
        unpack_add(lanes, packed, bits)
        lanes[0] += np.uint64(7 << noise)
        return bytes(pack(lanes & np.uint64((1 << bits) - 1), bits))

    played(one, lying_upload(one, LIAR, Lies(packed=shift)))
    assert isinstance(one.outcome, OneShotAggregate)
    assert one.outcome.total.tolist() == [1 + 7, 2, 3, 4, 5]
    assert one.outcome.blamed == ()


# --- copies


def test_another_s_upload_under_my_name_opens_for_nobody() -> None:
    one = Round(5, 8)
    one.carry(one.server.start())
    victim = message_of(one.upload(0))
    copy = framed(
        ROUND_ID,
        signed(one.view, one.signers[LIAR], replace(victim, identity=one.signers[LIAR].identity)),
    )
    assert reasons_of(one, copy) == [1] * 8
    one = played(Round(5, 8), copy)
    one.exact(range(4))
    assert isinstance(one.outcome, OneShotAggregate)
    assert [(blame.client, blame.guilty) for blame in one.outcome.blamed] == [
        (one.signers[LIAR].identity, True)
    ]


def test_parts_of_another_s_upload_are_refused_or_complained_about() -> None:
    one = Round(5, 8)
    one.carry(one.server.start())
    victim = message_of(one.upload(0))

    def copies(**fields: Any) -> bytes:
        return lying_upload(one, LIAR, Lies(said=lambda upload: replace(upload, **fields)))

    assert reasons_of(one, copies(packed=victim.packed)) == [4] * 8
    assert reasons_of(one, copies(ephemeral_key=victim.ephemeral_key)) == [1] * 8
    assert reasons_of(one, copies(leaves=victim.leaves)) == [1] * 8
    assert reasons_of(one, copies(tests=victim.tests)) == [4] * 8
    assert reasons_of(one, copies(sealed=victim.sealed)) == [1] * 8
    mine = one.signers[LIAR].identity
    server_refuses(one.server, mine, copies(identity=victim.identity), R.SENDER_MISMATCH)
    stolen = framed(ROUND_ID, replace(victim, identity=mine))
    server_refuses(one.server, mine, stolen, R.BAD_SIGNATURE)
    server_refuses(one.server, mine, one.upload(0), R.SENDER_MISMATCH)


def test_repeated_entropy_does_not_repeat_a_mask_for_another_vector() -> None:
    one = Round(4, 4)
    zeros, other = one.vector(0) * 0, one.vector(1)
    frames = [one.upload(0, vector=vector, entropy="broken") for vector in (zeros, other, zeros)]
    assert frames[0] == frames[2]
    first, second = (message_of(frame) for frame in frames[:2])
    assert first.ephemeral_key == second.ephemeral_key
    for name in ("packed", "leaves", "tests", "sealed"):
        assert bytes(getattr(first, name)) != bytes(getattr(second, name))
    lanes = np.zeros((2, one.view.parameters.entries), np.uint64)
    bits = one.view.parameters.upload_bits
    for row, upload in enumerate((first, second)):
        unpack_add(lanes[row], bytes(upload.packed), bits)
    noise = np.uint64(bits - one.ring_bits)
    apart = ((lanes[1] - lanes[0]) & np.uint64((1 << bits) - 1)) >> noise
    assert (apart[4:] != 0).any()  # the masks of the zeros behind the vector are others
    later = Round(4, 4, changes={"round_id": bytes(16)})
    assert message_of(later.upload(0, vector=zeros, entropy="broken")).packed != first.packed
    elsewhere = Round(4, 4, contexts=(CONTEXT, OTHER))
    pair = [
        message_of(elsewhere.upload(0, context=context, vector=zeros, entropy="broken"))
        for context in (CONTEXT, OTHER)
    ]
    assert pair[0].packed != pair[1].packed


def test_an_upload_alone_shows_nothing_of_its_vector_without_the_secret() -> None:
    """Taken off with another secret, what is left is no vector: the mask is a one-time pad here."""
    one = Round(4, 4)
    lanes = np.zeros(one.view.parameters.entries, np.uint64)
    unpack_add(lanes, bytes(message_of(one.upload(3)).packed), one.view.parameters.upload_bits)
    values = lattice_values(
        lanes,
        LatticeSecret(np.zeros(RING, np.uint64)),
        public_seed=one.view.lattice_seed,
        ring_bits=16,
        upload_bits=one.view.parameters.upload_bits,
        uploads=1,
    )
    assert values[4:].any()


# --- what the server refuses


def sizes(name: str) -> list[Callable[[Upload], Upload]]:
    def cut(upload: Upload) -> Upload:
        return replace(upload, **{name: bytes(getattr(upload, name))[:-1]})

    def longer(upload: Upload) -> Upload:
        return replace(upload, **{name: bytes(getattr(upload, name)) + b"\0"})

    def none(upload: Upload) -> Upload:
        return replace(upload, **{name: b""})

    def double(upload: Upload) -> Upload:
        return replace(upload, **{name: bytes(getattr(upload, name)) * 2})

    return [cut, longer, none, double]


@pytest.mark.parametrize("post_quantum", [False, True])
@pytest.mark.parametrize("name", ["packed", "leaves", "tests", "sealed"])
def test_a_field_of_a_wrong_size_is_refused_with_any_signature(name: str, post_quantum: bool) -> None:
    one = Round(5, 4, epoch_changes={"post_quantum": post_quantum})
    one.start(range(4))
    me = one.signers[LIAR].identity
    for change in sizes(name):
        for lies in (Lies(said=change), Lies(signed=change)):
            server_refuses(one.server, me, lying_upload(one, LIAR, lies), R.WRONG_LENGTH)
    one.carry(one.server.receive(me, one.upload(LIAR)))
    one.close()
    one.exact(range(5))


@pytest.mark.parametrize("name", ["identity", "context", "ephemeral_key", "signature"])
def test_a_key_or_digest_of_a_wrong_size_is_malformed(name: str) -> None:
    one = Round(5, 4)
    one.start(range(4))
    for change in sizes(name):
        frame = changed(one.upload(LIAR), change)
        server_refuses(one.server, one.signers[LIAR].identity, frame, R.MALFORMED)


P = 2**255 - 19
BAD_KEYS = [*sorted(SMALL_ORDER), P, P + 1, P + 9, 2**255 - 1, 2**255 + 9, 2**256 - 1]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_an_ephemeral_key_of_small_order_or_not_canonical_is_refused_by_server_and_members(key: int) -> None:
    one = Round(5, 4)
    one.start(range(4))
    raw = key.to_bytes(32, "little")
    frame = lying_upload(one, LIAR, Lies(said=lambda upload: replace(upload, ephemeral_key=raw)))
    server_refuses(one.server, one.signers[LIAR].identity, frame, R.MALFORMED)
    right = dealing(one, one.upload(LIAR), 0)
    session = one.epoch.decryptors[one.epoch.members[0]]
    deal = framed(ROUND_ID, Dealings((replace(right, ephemeral_key=raw),)))
    member_refuses(session, deal, R.MALFORMED)


MALFORMED: dict[str, Lies] = {
    "spare bits of packed": Lies(packed=spare),
    "a word of tests not below q": Lies(tests=beyond_q),
    "spare bits of tests": Lies(tests=spare),
    "a context of no round": Lies(said=lambda upload: replace(upload, context=bytes(32))),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_bits_and_words_that_cannot_be_are_refused(name: str) -> None:
    one = Round(6, 7)  # so that packed and tests have spare bits
    assert one.view.parameters.entries * one.view.parameters.upload_bits % 8
    one.start([client for client in range(6) if client != LIAR])
    if name == "spare bits of tests":
        assert one.view.committee.numbers.base * 100 % 8
    me = one.signers[LIAR].identity
    server_refuses(one.server, me, lying_upload(one, LIAR, MALFORMED[name]), R.MALFORMED)
    one.carry(one.server.receive(me, one.upload(LIAR)))
    one.close()
    one.exact(range(6))


def test_a_second_upload_is_refused_and_the_first_one_stands() -> None:
    one = Round(5, 4)
    one.start()
    me = one.signers[LIAR].identity
    other = one.upload(LIAR, vector=one.vector(0))
    for phase in (OneShotPhase.UPLOAD, OneShotPhase.REVIEW, OneShotPhase.AGREE):
        one.close(until=phase)
        server_refuses(one.server, me, other, R.EQUIVOCATION)
        (again,) = one.server.receive(me, one.upload(LIAR))
        assert isinstance(again, UploadTaken)
        assert again.again
    one.close()
    one.exact(range(5))


def test_strangers_latecomers_and_too_many_are_refused() -> None:
    one = Round(5, 4, changes={"maximum_uploads": 4})
    stranger = keys("nobody", 1)[0]
    server_refuses_stranger = one.upload(0)
    one.start(range(3))
    forged = framed(
        ROUND_ID,
        signed(one.view, stranger, replace(message_of(server_refuses_stranger), identity=stranger.identity)),
    )
    server_refuses(one.server, stranger.identity, forged, R.UNKNOWN_IDENTITY)
    one.carry(one.server.receive(one.signers[3].identity, one.upload(3)))
    server_refuses(one.server, one.signers[4].identity, one.upload(4), R.ROUND_FULL)
    one.close(until=OneShotPhase.REVIEW)
    server_refuses(one.server, one.signers[4].identity, one.upload(4), R.WRONG_PHASE)
    one.close()
    one.exact(range(4))
    (late,) = one.server.receive(one.signers[4].identity, one.upload(4))
    assert getattr(late, "reason", None) is R.WRONG_PHASE


def test_an_upload_for_another_round_or_committee_is_refused() -> None:
    one = Round(5, 4)
    one.start(range(4))
    me = one.signers[LIAR].identity
    later = Round(5, 4, changes={"round_id": bytes(16)})
    server_refuses(one.server, me, later.upload(LIAR), R.WRONG_ROUND)
    moved = framed(ROUND_ID, message_of(later.upload(LIAR)))
    server_refuses(one.server, me, moved, R.BAD_SIGNATURE)
    epoch = Round(5, 4, epoch_changes={"epoch_id": bytes(16)})
    server_refuses(one.server, me, epoch.upload(LIAR), R.BAD_SIGNATURE)


def test_a_client_says_nothing_that_is_a_member_s_or_an_edge_s() -> None:
    one = Round(5, 4)
    me = one.signers[LIAR].identity
    one.start()
    digest = bytes(32)
    says: list[tuple[Any, OneShotPhase, RefusalReason]] = [
        (Review(5, digest, ()), OneShotPhase.REVIEW, R.UNKNOWN_SENDER),
        (SumSignature(0, bytes(64)), OneShotPhase.AGREE, R.UNKNOWN_SENDER),
        (Opening(0, b"1", bytes(64)), OneShotPhase.OPEN, R.UNKNOWN_SENDER),
    ]
    for message, phase, reason in says:
        server_refuses(one.server, me, framed(ROUND_ID, message), R.WRONG_PHASE)
        one.close(until=phase)
        server_refuses(one.server, me, framed(ROUND_ID, message), reason)
        for edge in (PartialSum(b"1", ()), Packed(digest, b"1")):
            server_refuses(one.server, me, framed(ROUND_ID, edge), R.WRONG_PHASE)
    one.close()
    one.exact(range(5))


def test_ciphertexts_that_were_made_for_nobody_do_not_open() -> None:
    one = Round(5, 4, epoch_changes={"post_quantum": True})
    one.carry(one.server.start())
    frame = b""
    for change in (flipped, lambda box: bytes(1088) + box[1088:], lambda box: b"\xff" * 1088 + box[1088:]):
        frame = lying_upload(one, LIAR, Lies(boxes=at((1, 2), change)))
        assert reasons_of(one, frame) == [0, 1, 1, 0]
    played(Round(5, 4, epoch_changes={"post_quantum": True}), frame).exact(range(4))


def test_clients_that_lie_in_many_ways_at_once_lose_their_own_uploads() -> None:
    one = Round(12, 8)
    one.start(range(4))
    for client, name in zip(range(4, 12), FOUND, strict=False):
        frame = lying_upload(one, client, FOUND[name][0])
        one.carry(one.server.receive(one.signers[client].identity, frame))
    one.close()
    one.exact(range(4))
    assert isinstance(one.outcome, OneShotAggregate)
    assert {blame.client for blame in one.outcome.blamed} == {one.signers[i].identity for i in range(4, 12)}


def test_too_few_honest_uploads_end_the_round_and_name_the_guilty() -> None:
    one = Round(5, 8, changes={"minimum_survivors": 5})
    played(one, lying_upload(one, LIAR, FOUND["high degree"][0]))
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.TOO_FEW_SURVIVORS
    assert one.outcome.guilty == (one.signers[LIAR].identity,)


@pytest.mark.parametrize("phase", [OneShotPhase.AGREE, OneShotPhase.OPEN])
def test_whoever_is_guilty_is_named_however_the_round_ends(phase: OneShotPhase) -> None:
    one = Round(5, 8)
    one.lost = dict.fromkeys(one.epoch.members[:5], phase)
    played(one, lying_upload(one, LIAR, FOUND["high degree"][0]))
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason in {AbortReason.NO_QUORUM, AbortReason.TOO_FEW_OPENINGS}
    assert one.outcome.guilty == (one.signers[LIAR].identity,)
