"""Edges that lie, double, vanish or come late: what the root notices, and what of the sum is left.

An edge can shift the sum by any vector unnoticed, as a server can: its total is not signed by anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg.effects import (
    Aborted,
    AbortReason,
    OneShotAggregate,
    RefusalReason,
    Refused,
    Send,
    UploadTaken,
)
from secagg.errors import LocalProtocolError
from secagg.messages.oneshot import Complaint, Dealing, Packed, PackedRequest, PartialSum, Review
from secagg.params import Identity
from secagg.params_oneshot import OneShotPhase
from secagg.protocol.oneshot import EdgeServer
from secagg.protocol.oneshot.uploads import MemoryPacked, TakenUpload
from secagg.protocol.oneshot.view import sha256
from tests.attacks.oneshot.liar import (
    EDGE,
    OTHER,
    Lies,
    Tree,
    digest_of,
    edge_of,
    flipped,
    lying_upload,
    packed_of,
    sent_on,
    server_refuses,
    shifted_total,
    signed,
    with_edges,
)
from tests.protocol.network import CONTEXT
from tests.protocol.oneshot.network import ROUND_ID, Round, changed, framed, keys, message_of

R = RefusalReason
SECOND = Identity(bytes(31) + b"\x08")


def complaining(one: Round, member: int, about: Iterable[bytes]) -> None:
    """This member complains about these uploads."""
    complaints = tuple(Complaint(digest, 1) for digest in sorted(about))

    def change(who: Identity, frame: bytes) -> list[bytes]:
        message = message_of(frame)
        if isinstance(message, Review) and one.committee.index[who] == member:
            return [framed(ROUND_ID, replace(message, complaints=complaints))]
        return [frame]

    one.change_answer = change


def aggregate(one: Round) -> OneShotAggregate:
    assert isinstance(one.outcome, OneShotAggregate), one.outcome
    return one.outcome


# --- like one server


@pytest.mark.parametrize("members", [4, 16])
def test_the_sum_is_that_of_one_server_bit_for_bit(members: int) -> None:
    flat = Round(7, members, vector_length=2500)
    flat.start()
    tree = Tree(Round(7, members, vector_length=2500), {EDGE: (0, 1, 2), SECOND: (3, 4)})
    for edge in (SECOND, EDGE):
        tree.bring(edge)
    tree.direct(5, 6)
    assert tree.one.server._total.packed() == flat.server._total.packed()
    flat.close()
    tree.play().exact(range(7))
    assert not tree.asked
    assert aggregate(tree.one).total.tolist() == aggregate(flat).total.tolist()
    assert {one.digest for one in tree.one.server._order} == {one.digest for one in flat.server._order}


def test_an_upload_that_comes_through_two_edges_and_by_itself_counts_once() -> None:
    tree = Tree(Round(5, 4), {EDGE: (0, 1, 2), SECOND: (2, 3)})
    tree.bring(EDGE)
    tree.bring(SECOND)
    tree.direct(4, 3, 0)
    tree.play().exact(range(5))
    assert tree.asked == [SECOND]


@pytest.mark.parametrize("first", [True, False])
def test_another_upload_of_a_client_through_an_edge_is_taken_out_again(first: bool) -> None:
    one = Round(5, 4)
    other = lying_upload(one, 2, vector=one.vector(0))
    tree = Tree(one, {EDGE: (0, 1, 2), SECOND: (3,)})
    tree.edges[SECOND].receive(one.signers[2].identity, other)
    for edge in (EDGE, SECOND) if first else (SECOND, EDGE):
        tree.bring(edge)
    tree.direct(4)
    tree.play()
    assert tree.asked == [SECOND if first else EDGE]
    expected = one.expected(range(5)) if first else [2, 2, 0, 4, 5]
    assert aggregate(one).total.tolist() == expected
    assert set(aggregate(one).survivors) == {signer.identity for signer in one.signers}


def test_a_client_that_an_edge_lost_speaks_to_the_root_and_the_edge_may_come_back() -> None:
    tree = Tree(Round(5, 4), {EDGE: (0, 1, 2)})
    tree.direct(1, 2, 3, 4)  # the edge is away
    tree.bring(EDGE)
    tree.play().exact(range(5))
    assert tree.asked == [EDGE, EDGE]


def test_uploads_that_are_left_out_are_taken_out_of_an_edge_s_total() -> None:
    one = Round(6, 8, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 3})
    bad = lying_upload(one, 5, Lies(shares=lambda shares: shares ^ np.uint64(1)))
    frames = {0: one.upload(0, context=OTHER), 5: bad}
    tree = Tree(one, {EDGE: (0, 1, 5), SECOND: (2,)}, frames)
    tree.bring(EDGE)
    tree.bring(SECOND)
    tree.direct(3, 4)
    tree.play().exact(range(1, 5))
    assert tree.asked == [EDGE, EDGE]
    assert set(aggregate(one).left_out) == {one.signers[0].identity, one.signers[5].identity}
    assert [blame.client for blame in aggregate(one).blamed] == [one.signers[5].identity]


# --- edges that vanish


def test_an_edge_that_dies_ahead_of_its_partial_sum_loses_its_uploads_only() -> None:
    tree = Tree(Round(6, 4), {EDGE: (0, 1), SECOND: (2, 3)})
    tree.bring(EDGE)
    tree.direct(4, 5)
    tree.play().exact([0, 1, 4, 5])


def test_an_edge_that_does_not_answer_is_left_out_with_its_whole_total() -> None:
    tree = Tree(Round(7, 4), {EDGE: (0, 1, 4), SECOND: (2, 3)})
    tree.direct(4, 5, 6)
    tree.bring(EDGE)
    tree.bring(SECOND)
    tree.answer = lambda _edge, _frame: []
    tree.play().exact([2, 3, 4, 5, 6])
    assert tree.asked == [EDGE]


def test_an_edge_that_answers_a_part_is_left_out_with_what_it_answered() -> None:
    tree = Tree(Round(7, 4), {EDGE: (0, 1, 4, 5), SECOND: (2, 3)})
    tree.direct(4, 5, 6)
    tree.bring(EDGE)
    tree.bring(SECOND)
    answers = iter(range(9))
    tree.answer = lambda _edge, frame: [frame] if next(answers) == 0 else []
    tree.play().exact([2, 3, 4, 5, 6])


def test_an_edge_that_is_given_up_is_not_asked() -> None:
    tree = Tree(Round(7, 4), {EDGE: (0, 1, 4), SECOND: (2, 3)})
    tree.direct(4, 5, 6)
    tree.bring(EDGE)
    tree.bring(SECOND)
    tree.one.server.drop(EDGE)
    tree.play().exact([2, 3, 4, 5, 6])
    assert tree.asked == []


def test_an_edge_that_dies_after_the_proposal_costs_nothing() -> None:
    tree = Tree(Round(5, 4), {EDGE: (0, 1, 2)})
    tree.bring(EDGE)
    tree.direct(3, 4)
    while tree.one.server.phase is not OneShotPhase.AGREE:
        tree.carry(tree.one.server.close_phase())
    tree.one.server.drop(EDGE)
    del tree.edges[EDGE]
    tree.play().exact(range(5))


def test_leaving_an_edge_out_may_leave_too_few() -> None:
    tree = Tree(Round(5, 4, changes={"minimum_survivors": 4}), {EDGE: (0, 1, 3)})
    tree.direct(3, 4)
    tree.bring(EDGE)
    tree.answer = lambda _edge, _frame: []
    outcome = tree.play().outcome
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.TOO_FEW_SURVIVORS


def test_leaving_an_edge_out_may_leave_a_context_out_that_another_edge_has() -> None:
    """The second choice asks the other edge for what the first one left in."""
    one = Round(7, 4, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 3})
    frames = {client: one.upload(client, context=OTHER) for client in (0, 1, 2)}
    tree = Tree(one, {EDGE: (0, 3), SECOND: (1, 2, 4)}, frames)
    tree.direct(3, 5, 6)
    tree.bring(EDGE)
    tree.bring(SECOND)
    tree.answer = lambda edge, frame: [] if edge == EDGE else [frame]
    tree.play().exact([3, 4, 5, 6])
    assert tree.asked == [EDGE, SECOND, SECOND]


def test_leaving_an_edge_out_may_take_an_upload_in_again_that_was_fetched() -> None:
    """One complaint is at most a tenth of 19 uploads, but not of the 9 that are left without an edge.

    One lying member and one edge that does not answer, and an honest round fails.
    """
    one = Round(19, 8, changes={"maximum_uploads": 20})
    tree = Tree(one, {EDGE: range(11), SECOND: range(10, 19)})
    tree.bring(SECOND)
    tree.bring(EDGE)  # client 10 came through both, so that this edge is asked
    complaining(one, 7, [digest_of(one, tree.frames[12])])
    tree.answer = lambda edge, frame: [] if edge == EDGE else [frame]
    tree.play().exact(range(10, 19))


# --- edges that lie


def bad_partial(
    one: Round, change: Callable[[PartialSum], PartialSum], clients: Iterable[int] = (0, 1)
) -> bytes:
    return changed(sent_on(edge_of(one, clients)), change)


def with_dealing(change: Callable[[Dealing], Dealing]) -> Callable[[PartialSum], PartialSum]:
    def changed_(partial: PartialSum) -> PartialSum:
        first, *rest = partial.dealings
        return replace(partial, dealings=(change(first), *rest))

    return changed_


PARTIALS: dict[str, tuple[Callable[[PartialSum], PartialSum], RefusalReason]] = {
    "total cut": (lambda p: replace(p, total=bytes(p.total)[:-1]), R.WRONG_LENGTH),
    "total longer": (lambda p: replace(p, total=bytes(p.total) + b"\0"), R.WRONG_LENGTH),
    "no total": (lambda p: replace(p, total=b""), R.WRONG_LENGTH),
    "spare bits of the total": (
        lambda p: replace(p, total=bytes(p.total)[:-1] + bytes([bytes(p.total)[-1] | 0x80])),
        R.MALFORMED,
    ),
    "one upload twice": (lambda p: replace(p, dealings=(p.dealings[0], *p.dealings)), R.MALFORMED),
    "descending": (lambda p: replace(p, dealings=tuple(p.dealings)[::-1]), R.MALFORMED),
    "another's": (with_dealing(lambda d: replace(d, identity=bytes(32))), R.BAD_SIGNATURE),
    "context": (with_dealing(lambda d: replace(d, context=bytes(32))), R.MALFORMED),
    "packed_digest": (
        with_dealing(lambda d: replace(d, packed_digest=flipped(d.packed_digest))),
        R.BAD_SIGNATURE,
    ),
    "ephemeral_key": (
        with_dealing(lambda d: replace(d, ephemeral_key=flipped(d.ephemeral_key))),
        R.BAD_SIGNATURE,
    ),
    "ephemeral_key 1": (
        with_dealing(lambda d: replace(d, ephemeral_key=b"\1" + bytes(31))),
        R.MALFORMED,
    ),
    "tests": (with_dealing(lambda d: replace(d, tests=flipped(bytes(d.tests)))), R.BAD_SIGNATURE),
    "tests out of range": (with_dealing(lambda d: replace(d, tests=b"\xff" * len(d.tests))), R.MALFORMED),
    "tests short": (with_dealing(lambda d: replace(d, tests=bytes(d.tests)[1:])), R.WRONG_LENGTH),
    "no tests": (with_dealing(lambda d: replace(d, tests=b"")), R.WRONG_LENGTH),
    "signature": (with_dealing(lambda d: replace(d, signature=flipped(d.signature))), R.BAD_SIGNATURE),
    "sealed": (with_dealing(lambda d: replace(d, sealed=flipped(bytes(d.sealed)))), R.BAD_SIGNATURE),
    "sealed short": (with_dealing(lambda d: replace(d, sealed=bytes(d.sealed)[1:])), R.WRONG_LENGTH),
    "sealed of one member": (
        with_dealing(lambda d: replace(d, sealed=bytes(d.sealed)[: len(d.sealed) // 7])),
        R.WRONG_LENGTH,
    ),
    "no sealed": (with_dealing(lambda d: replace(d, sealed=b"")), R.WRONG_LENGTH),
    "leaves": (with_dealing(lambda d: replace(d, path=flipped(bytes(d.path)))), R.BAD_SIGNATURE),
    "leaves short": (with_dealing(lambda d: replace(d, path=bytes(d.path)[32:])), R.WRONG_LENGTH),
    "no leaves": (with_dealing(lambda d: replace(d, path=b"")), R.WRONG_LENGTH),
    "a sealed_path": (with_dealing(lambda d: replace(d, sealed_path=bytes(32))), R.WRONG_LENGTH),
}


@pytest.mark.parametrize("name", PARTIALS)
def test_a_partial_sum_malformed_in_any_field_changes_nothing(name: str) -> None:
    one = with_edges(Round(6, 7), [EDGE])
    assert one.view.parameters.entries * one.view.parameters.upload_bits % 8
    one.carry(one.server.start())
    change, reason = PARTIALS[name]
    server_refuses(one.server, EDGE, bad_partial(one, change), reason)
    assert one.server.uploads == frozenset()
    assert not any(isinstance(e, Refused) for e in one.server.receive(EDGE, sent_on(edge_of(one, range(6)))))
    one.close()
    one.exact(range(6))


def test_strangers_are_no_edges_and_an_edge_speaks_once() -> None:
    one = with_edges(Round(6, 4), [EDGE])
    one.carry(one.server.start())
    partial = sent_on(edge_of(one, (0, 1)))
    for stranger in (SECOND, one.signers[0].identity, one.epoch.members[0]):
        server_refuses(one.server, stranger, partial, R.WRONG_PHASE)
    assert all(isinstance(effect, UploadTaken) for effect in one.server.receive(EDGE, partial))
    server_refuses(one.server, EDGE, sent_on(edge_of(one, (2, 3))), R.EQUIVOCATION)
    one.carry(one.server.receive(one.signers[2].identity, one.upload(2)))
    one.close()
    one.exact(range(3))


def test_a_partial_sum_that_comes_late_or_is_too_much_is_refused() -> None:
    one = with_edges(Round(6, 4, changes={"maximum_uploads": 4}), [EDGE, SECOND])
    one.carry(one.server.start())
    fifth = message_of(sent_on(edge_of(one, (4,)))).dealings
    too_many = bad_partial(
        one,
        lambda p: replace(p, dealings=tuple(sorted([*p.dealings, *fifth], key=lambda d: d.identity))),
        (0, 1, 2, 3),
    )
    server_refuses(one.server, EDGE, too_many, R.ROUND_FULL)
    one.server.receive(EDGE, sent_on(edge_of(one, (0, 1, 2, 3))))
    one.close(until=OneShotPhase.REVIEW)
    server_refuses(one.server, SECOND, sent_on(edge_of(one, ())), R.WRONG_PHASE)
    one.close()
    one.exact(range(4))


def test_uploads_of_an_edge_that_find_no_room_are_taken_off_its_total() -> None:
    tree = Tree(Round(6, 4, changes={"maximum_uploads": 4}), {EDGE: (2, 3, 4, 5)})
    tree.direct(0, 1)
    taken = tree.bring(EDGE)
    room = sorted(tree.one.signers[i].identity for i in (2, 3, 4, 5))[:2]
    assert [one.client for one in taken] == room
    tree.play()
    assert tree.asked == [EDGE, EDGE]
    assert set(aggregate(tree.one).survivors) == {*room, *(tree.one.signers[i].identity for i in (0, 1))}
    numbers = [i for i in range(6) if tree.one.signers[i].identity in aggregate(tree.one).survivors]
    tree.one.exact(numbers)


@pytest.mark.parametrize("restored", [False, True])
def test_an_upload_that_is_not_admitted_at_the_root_costs_its_edge_one_vector(restored: bool) -> None:
    """An edge may not know of whoever was revoked, or has no part in this round."""
    tree = Tree(Round(6, 4), {EDGE: (0, 1, 2)})
    one = tree.one
    one.server._known = frozenset(signer.identity for signer in one.signers[1:])
    taken = tree.bring(EDGE)
    assert len(taken) == 2
    if restored:
        one.server, effects = type(one.server).restore(one.server.snapshot(), packed=MemoryPacked())
        one.carry(effects)
    assert one.server.receive(EDGE, tree.sent[EDGE]) == [replace(each, again=True) for each in taken]
    tree.direct(3, 4, 5)
    tree.play().exact(range(1, 6))
    assert tree.asked == [EDGE]


def test_an_edge_that_was_left_out_and_sends_its_sum_again_changes_nothing() -> None:
    tree = Tree(Round(7, 4), {EDGE: (0, 1, 2), SECOND: (2,)})
    (second,) = tree.bring(SECOND)
    tree.bring(EDGE)
    tree.direct(3, 4, 5, 6)
    tree.answer = lambda _, __: []
    one = tree.one
    while one.server.phase is not OneShotPhase.AGREE:
        tree.carry(one.server.close_phase())
    assert one.server.receive(EDGE, tree.sent[EDGE]) == [replace(second, again=True)]
    tree.play().exact(range(2, 7))


def test_an_upload_that_its_client_did_not_sign_is_in_no_partial_sum() -> None:
    one = with_edges(Round(6, 4), [EDGE])
    one.carry(one.server.start())
    stranger = keys("nobody", 1)[0]
    forged = signed(one.view, stranger, replace(message_of(one.upload(0)), identity=stranger.identity))
    edge = EdgeServer(one.parameters, one.committee, known=None)
    edge.receive(stranger.identity, framed(ROUND_ID, forged))
    unsigned = changed(sent_on(edge), with_dealing(lambda d: replace(d, identity=SECOND)))
    server_refuses(one.server, EDGE, unsigned, R.BAD_SIGNATURE)
    later = Round(6, 4, changes={"round_id": bytes(16)})
    moved = framed(ROUND_ID, message_of(sent_on(edge_of(later, (0, 1)))))
    server_refuses(one.server, EDGE, moved, R.BAD_SIGNATURE)


def test_a_shifted_total_is_a_wrong_sum_that_nobody_notices() -> None:
    """As a server can: by whole units a wrong sum, by less than half of one nothing, by half a wrong unit."""
    for by, expected in ((7 << 5, [8, 2, 3, 4, 5]), (1, [1, 2, 3, 4, 5]), (1 << 4, None)):
        one = with_edges(Round(5, 4), [EDGE])
        noise = one.view.parameters.upload_bits - one.ring_bits
        assert noise == 5
        one.carry(one.server.start())
        one.server.receive(EDGE, bad_partial(one, shifted_total(one, 0, by), range(5)))
        one.close()
        if expected is not None:
            assert aggregate(one).total.tolist() == expected
        assert aggregate(one).blamed == ()


def test_an_edge_without_uploads_shifts_the_sum_as_well() -> None:
    one = with_edges(Round(5, 4), [EDGE])
    one.start()
    lie = bad_partial(one, shifted_total(one, 0, 7 << 5), ())
    assert one.server.receive(EDGE, lie) == []
    one.close()
    assert aggregate(one).total.tolist() == [8, 2, 3, 4, 5]


@pytest.mark.parametrize("place", [-16, -1])
def test_a_total_that_is_shifted_in_its_checks_fails_them(place: int) -> None:
    one = with_edges(Round(5, 4), [EDGE])
    one.carry(one.server.start())
    one.server.receive(EDGE, bad_partial(one, shifted_total(one, place, 1 << 7), range(5)))
    one.close()
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.CHECK_FAILED
    assert one.outcome.blamed == ()


@pytest.mark.parametrize("what", ["less", "more", "nothing"])
def test_a_total_of_other_uploads_than_are_named_fails_the_checks(what: str) -> None:
    one = with_edges(Round(6, 4), [EDGE])
    one.carry(one.server.start())
    totals = {"less": (0, 1), "more": (0, 1, 2, 3), "nothing": ()}[what]
    total = message_of(sent_on(edge_of(one, totals))).total
    lie = bad_partial(one, lambda partial: replace(partial, total=bytes(total)), (0, 1, 2))
    one.server.receive(EDGE, lie)
    for client in (4, 5):
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client)))
    one.close()
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.CHECK_FAILED


def test_another_packed_vector_than_the_signed_one_is_refused_and_the_right_one_taken() -> None:
    tree = Tree(Round(6, 4), {EDGE: (0, 1, 2)})
    one = tree.one
    tree.direct(2, 3, 4, 5)
    tree.bring(EDGE)
    digest, right = digest_of(one, tree.frames[2]), bytes(message_of(tree.frames[2]).packed)
    other = bytes(message_of(tree.frames[1]).packed)

    def answer(_: Identity, frame: bytes) -> list[bytes]:
        server = one.server
        server_refuses(server, EDGE, packed_of(one, digest, flipped(right)), R.BAD_SIGNATURE)
        server_refuses(server, EDGE, packed_of(one, digest, other), R.BAD_SIGNATURE)
        server_refuses(server, EDGE, packed_of(one, digest, right[:-1]), R.BAD_SIGNATURE)
        server_refuses(server, EDGE, packed_of(one, digest, b""), R.BAD_SIGNATURE)
        spare = right[:-1] + bytes([right[-1] | 0x80])
        server_refuses(server, EDGE, packed_of(one, digest, spare), R.BAD_SIGNATURE)
        inside = digest_of(one, tree.frames[0])
        server_refuses(server, EDGE, packed_of(one, inside, other), R.NOT_INCLUDED)
        server_refuses(server, SECOND, packed_of(one, digest, right), R.WRONG_PHASE)
        before = server._total.packed()
        assert server.receive(EDGE, frame) == []
        assert server._total.packed() != before
        server_refuses(server, EDGE, frame, R.NOT_INCLUDED)  # it is taken out once
        return []

    tree.answer = answer
    tree.play().exact(range(6))


def test_packed_vectors_that_were_not_asked_for_change_nothing() -> None:
    tree = Tree(Round(5, 4), {EDGE: (0, 1, 2)})
    one = tree.one
    tree.bring(EDGE)
    tree.direct(3, 4)
    digest, packed = digest_of(one, tree.frames[0]), bytes(message_of(tree.frames[0]).packed)
    for phase in (OneShotPhase.UPLOAD, OneShotPhase.REVIEW, OneShotPhase.AGREE):
        one.close(until=phase)
        server_refuses(one.server, EDGE, packed_of(one, digest, packed), R.WRONG_PHASE)
    tree.play().exact(range(5))


def test_an_edge_with_spare_bits_in_a_client_s_vector_takes_out_what_it_put_in() -> None:
    """Edge and client together: the vector that is signed has a spare bit; it is no entry's."""
    one = Round(6, 4)
    assert one.view.parameters.entries * one.view.parameters.upload_bits % 8
    frame = lying_upload(one, 2, Lies(packed=lambda packed: packed[:-1] + bytes([packed[-1] | 0x80])))
    honest = edge_of(one, (0, 1))
    (refused,) = honest.receive(one.signers[2].identity, frame)
    assert isinstance(refused, Refused)
    assert refused.reason is R.MALFORMED
    tree = Tree(one, {EDGE: (0, 1, 2)})
    tree.direct(2, 3, 4, 5)
    dealings = {d.identity: d for d in message_of(sent_on(tree.edges[EDGE])).dealings}
    upload = message_of(frame)
    dealings[upload.identity] = replace(
        dealings[upload.identity],
        packed_digest=sha256(upload.packed),
        ephemeral_key=upload.ephemeral_key,
        tests=bytes(upload.tests),
        signature=upload.signature,
        sealed=bytes(upload.sealed),
        path=bytes(upload.leaves),
    )
    total = tree.edges[EDGE]._total.packed()
    lie = framed(ROUND_ID, PartialSum(total, tuple(dealings[name] for name in sorted(dealings))))
    one.server.receive(EDGE, lie)
    tree.answer = lambda _, __: [packed_of(one, digest_of(one, frame), bytes(upload.packed))]
    while one.outcome is None:
        for effect in one.server.close_phase():
            if isinstance(effect, Send) and effect.to == EDGE:
                assert one.server.receive(EDGE, tree.answer(EDGE, b"")[0]) == []
            else:
                one.carry([effect])
    one.exact(range(6))


# --- at the edge


def test_an_edge_refuses_what_the_server_would() -> None:
    one = Round(5, 4)
    edge = EdgeServer(one.parameters, one.committee, known=[s.identity for s in one.signers[:4]])

    def refuses(client: int, frame: bytes, reason: RefusalReason) -> None:
        before = edge._total.packed()
        (refused,) = edge.receive(one.signers[client].identity, frame)
        assert isinstance(refused, Refused)
        assert refused.reason is reason
        assert edge._total.packed() == before

    refuses(4, one.upload(4), R.UNKNOWN_IDENTITY)
    refuses(1, one.upload(0), R.SENDER_MISMATCH)
    refuses(0, changed(one.upload(0), lambda u: replace(u, signature=bytes(64))), R.BAD_SIGNATURE)
    refuses(0, changed(one.upload(0), lambda u: replace(u, packed=bytes(u.packed)[1:])), R.WRONG_LENGTH)
    refuses(0, framed(bytes(16), message_of(one.upload(0))), R.WRONG_ROUND)
    refuses(0, framed(ROUND_ID, PackedRequest(bytes(32))), R.WRONG_PHASE)
    refuses(0, framed(ROUND_ID, Packed(bytes(32), b"1")), R.WRONG_PHASE)
    for client in range(4):
        assert isinstance(edge.receive(one.signers[client].identity, one.upload(client))[0], UploadTaken)
    refuses(0, lying_upload(one, 0, entropy="again"), R.EQUIVOCATION)
    sent_on(edge)
    (again,) = edge.receive(one.signers[0].identity, one.upload(0))
    assert isinstance(again, UploadTaken)
    assert again.again
    with pytest.raises(LocalProtocolError):
        edge.send_on()


def test_an_edge_is_full_and_takes_nothing_after_its_partial_sum() -> None:
    one = Round(5, 4, changes={"maximum_uploads": 4})
    edge = edge_of(one, range(4))
    (full,) = edge.receive(one.signers[4].identity, one.upload(4))
    assert isinstance(full, Refused)
    assert full.reason is R.ROUND_FULL
    edge = edge_of(one, range(3))
    sent_on(edge)
    (late,) = edge.receive(one.signers[3].identity, one.upload(3))
    assert isinstance(late, Refused)
    assert late.reason is R.WRONG_PHASE


def test_an_edge_gives_the_root_what_it_has_and_nothing_else() -> None:
    one = Round(5, 4)
    edge = edge_of(one, range(3))
    (refused,) = edge.receive(None, framed(ROUND_ID, PackedRequest(bytes(32))))
    assert isinstance(refused, Refused)
    assert refused.reason is R.NOT_INCLUDED
    (refused,) = edge.receive(None, one.upload(3))
    assert isinstance(refused, Refused)
    assert refused.reason is R.WRONG_PHASE
    (sent,) = edge.receive(None, framed(ROUND_ID, PackedRequest(digest_of(one, one.upload(1)))))
    assert isinstance(sent, Send)
    assert bytes(message_of(bytes(sent.frame)).packed) == bytes(message_of(one.upload(1)).packed)


def test_a_closed_edge_refuses_a_request() -> None:
    one = Round(5, 4)
    edge = edge_of(one, range(3))
    sent_on(edge)
    edge.close()
    (refused,) = edge.receive(None, framed(ROUND_ID, PackedRequest(digest_of(one, one.upload(1)))))
    assert isinstance(refused, Refused)


def test_an_edge_is_not_made_for_another_committee() -> None:
    one, other = Round(4, 4), Round(4, 4, epoch_changes={"epoch_id": bytes(16)})
    with pytest.raises(Exception, match="committee_digest"):
        EdgeServer(one.parameters, other.committee, known=None)


def test_another_upload_of_a_client_through_an_edge_is_not_acknowledged() -> None:
    one = Round(5, 4)
    tree = Tree(one, {EDGE: (0, 1)})
    other = lying_upload(one, 2, vector=one.vector(0))
    tree.edges[EDGE].receive(one.signers[2].identity, other)
    tree.direct(2, 3, 4)
    effects = one.server.receive(EDGE, sent_on(tree.edges[EDGE]))
    acknowledged = {effect.digest for effect in effects if isinstance(effect, UploadTaken)}
    assert digest_of(one, other) not in acknowledged


def test_a_partial_sum_does_not_lie_in_the_caller_s_buffer() -> None:
    one = with_edges(Round(5, 4), [EDGE])
    one.carry(one.server.start())
    frame = bytearray(sent_on(edge_of(one, range(5))))
    one.server.receive(EDGE, memoryview(frame))
    frame[:] = bytes(len(frame))
    one.close()
    one.exact(range(5))


def test_work_for_a_partial_sum_grows_as_its_uploads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No upload of it is compared with all others, and no set is made anew for each of them."""
    one = with_edges(Round(30, 4), [EDGE])
    compared = [0]

    def equal(first: object, second: object) -> bool:
        compared[0] += 1
        return first is second

    monkeypatch.setattr(TakenUpload, "__eq__", equal)
    one.carry(one.server.start())
    one.server.receive(EDGE, sent_on(edge_of(one, range(30))))
    assert compared[0] <= 30
    one.close(until=OneShotPhase.OPEN)
    read = [0]

    class Counting(tuple[bytes, ...]):
        __slots__ = ()

        def __iter__(self) -> Any:
            read[0] += 1
            return super().__iter__()

    chosen = one.server._chosen()
    one.server._proposal = replace(chosen, uploads=Counting(chosen.uploads))
    one.close()
    one.exact(range(30))
    assert read[0] <= 5
