import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg.effects import Aborted, AbortReason, OneShotAggregate, UploadTaken
from secagg.errors import InfeasibleParameters, RemoteProtocolError
from secagg.kernels import LatticeSecret, UIntArray, modq_words
from secagg.messages import encode
from secagg.messages.oneshot import ONESHOT_FRAMES, Dealings
from secagg.params import Adversary, Buffer, Identity, ThreatModel
from secagg.params_oneshot import OneShotPhase
from secagg.primitives.merkle import siblings
from secagg.primitives.packed_sharing import added, pack_words, unpack_words
from secagg.protocol.oneshot import (
    CommitteeSession,
    OneShotServer,
    dealing,
    read_certificate,
    read_parameters,
    server,
)
from secagg.protocol.oneshot.uploads import MemoryPacked
from secagg.protocol.oneshot.view import sha256, sum_digest
from tests.protocol.network import CONTEXT
from tests.protocol.oneshot.network import Round, changed, committee_parameters_of, keys, message_of

OTHER = bytes(31) + b"\1"


@pytest.mark.parametrize("adversary", ["active", "passive"])
@pytest.mark.parametrize("members", [3, 4, 5, 8, 16])
def test_a_sum_of_those_that_spoke(members: int, adversary: Adversary) -> None:
    epoch = {} if members > 3 else {"threat_model": model(adversary)}
    one = Round(7, members, adversary, epoch_changes=epoch)
    one.play(clients=[0, 2, 3, 6])
    one.exact([0, 2, 3, 6])
    assert isinstance(one.outcome, OneShotAggregate)
    assert one.outcome.blamed == ()
    assert one.outcome.left_out == ()
    assert not one.refused


def model(adversary: Adversary) -> ThreatModel:
    return ThreatModel(adversary=adversary, dropout=0.0)


@pytest.mark.parametrize(("ring_bits", "length"), [(1, 1), (16, 2032), (18, 2033), (32, 5000), (37, 4096)])
def test_any_ring_and_length(ring_bits: int, length: int) -> None:
    one = Round(5, 4, ring_bits=ring_bits, vector_length=length)
    one.play()
    one.exact(range(5))


def test_with_post_quantum_keys() -> None:
    one = Round(4, 4, epoch_changes={"post_quantum": True})
    one.play()
    one.exact(range(4))
    upload = message_of(one.upload(0))
    assert len(upload.sealed) == 4 * (1088 + one.view.blob_bytes + 16)


def test_members_that_vanish_at_any_time_cost_nothing_up_to_the_dropouts() -> None:
    for phase in OneShotPhase:
        one = Round(5, 8)
        one.lost = {one.epoch.members[3]: phase}
        one.play()
        one.exact(range(5))


def test_too_many_members_gone_end_the_round_and_say_so() -> None:
    for phase, reason in (
        (OneShotPhase.REVIEW, AbortReason.NO_QUORUM),
        (OneShotPhase.AGREE, AbortReason.NO_QUORUM),
        (OneShotPhase.OPEN, AbortReason.TOO_FEW_OPENINGS),
    ):
        one = Round(5, 8)
        one.lost = dict.fromkeys(one.epoch.members[:5], phase)
        outcome = one.play()
        assert isinstance(outcome, Aborted)
        assert outcome.reason is reason


def test_below_the_effective_minimum_there_is_no_sum() -> None:
    one = Round(5, 4, changes={"colluding": 2})
    outcome = one.play(clients=[0, 1, 2])
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.TOO_FEW_SURVIVORS
    assert "3 uploads, at least 4 are needed" in outcome.detail


def test_an_upload_counts_once_and_is_acknowledged_again() -> None:
    one = Round(4, 4)
    one.start()
    frame = one.upload(1)
    (effect,) = one.server.receive(one.signers[1].identity, frame)
    assert isinstance(effect, UploadTaken)
    assert effect.again
    one.close(until=OneShotPhase.REVIEW)
    (effect,) = one.server.receive(one.signers[1].identity, frame)
    assert isinstance(effect, UploadTaken)
    assert effect.again
    one.close()
    one.exact(range(4))


def test_contexts_below_their_minimum_are_left_out_whole() -> None:
    one = Round(7, 4, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 3})
    one.carry(one.server.start())
    for client in range(7):
        context = OTHER if client in {1, 2} else CONTEXT
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client, context=context)))
    one.close()
    one.exact([0, 3, 4, 5, 6])
    assert isinstance(one.outcome, OneShotAggregate)
    assert set(one.outcome.left_out) == {one.signers[1].identity, one.signers[2].identity}


def test_several_contexts_are_one_sum() -> None:
    one = Round(6, 4, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 2})
    one.carry(one.server.start())
    for client in range(6):
        context = OTHER if client % 2 else CONTEXT
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client, context=context)))
    one.close()
    one.exact(range(6))


def lie(one: Round, frame: bytes, member: Identity, *, add: int = 1) -> bytes:
    """A member's opening with another first value, signed by it."""
    signer = next(s for s in one.epoch.signers if s.identity == member)

    def change(message: Any) -> Any:
        values = unpack_words(message.values, one.view.rows)
        assert values is not None
        shift = np.zeros(values.size, np.uint64)
        shift[0] = add
        packed = pack_words(added(values, shift))
        chosen = one.server._chosen().uploads
        text = one.view.opening_text(sum_digest(chosen), sha256(packed))
        return type(message)(message.index, packed, signer.sign(text))

    return changed(frame, change)


def lying(one: Round, liars: set[Identity]) -> None:
    def change(member: Identity, frame: bytes) -> list[bytes]:
        opening = one.server.phase is OneShotPhase.OPEN and member in liars
        return [lie(one, frame, member) if opening else frame]

    one.change_answer = change


@pytest.mark.parametrize("liars", range(4))
def test_wrong_openings_are_corrected_and_named(liars: int) -> None:
    one = Round(5, 16)
    assert one.committee.numbers.corrected == 3
    wrong = set(one.epoch.members[4 : 4 + liars])
    lying(one, wrong)
    one.play()
    one.exact(range(5))
    assert isinstance(one.outcome, OneShotAggregate)
    assert {blame.client for blame in one.outcome.blamed} == wrong
    assert all(blame.guilty for blame in one.outcome.blamed)
    assert not one.outcome.unprotected


def test_one_wrong_opening_more_than_can_be_corrected_ends_the_round() -> None:
    one = Round(5, 16)
    lying(one, set(one.epoch.members[:5]))
    outcome = one.play()
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.DECODE_FAILED


def test_with_a_bare_threshold_of_openings_the_sum_is_marked_and_a_lie_fails_the_checks() -> None:
    for liars in (0, 1):
        one = Round(5, 8)
        base = one.committee.numbers.base
        one.lost = dict.fromkeys(one.epoch.members[base:], OneShotPhase.OPEN)
        lying(one, set(one.epoch.members[:liars]))
        outcome = one.play()
        if liars:
            assert isinstance(outcome, Aborted)
            assert outcome.reason is AbortReason.CHECK_FAILED
        else:
            one.exact(range(5))
            assert isinstance(outcome, OneShotAggregate)
            assert outcome.unprotected


@pytest.mark.parametrize("place", [0, -1])
def test_nonsense_of_a_client_fails_the_checks(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """A vector that is masked wrongly, in its secret's blocks, dealt and signed rightly."""
    one = Round(5, 4, vector_length=2040)
    one.start(range(4))
    right = LatticeSecret

    def wrong(words: Any) -> Any:
        words = words.copy()
        words[place] ^= 1
        return right(words)

    with monkeypatch.context() as patch:
        patch.setattr(dealing, "LatticeSecret", wrong)
        frame = one.upload(4)
    one.carry(one.server.receive(one.signers[4].identity, frame))
    one.close()
    assert isinstance(one.outcome, Aborted)
    assert one.outcome.reason is AbortReason.CHECK_FAILED
    assert one.outcome.guilty == ()


class Failing(MemoryPacked):
    """A PackedStore whose disk is full from time to time."""

    def __init__(self) -> None:
        super().__init__()
        self.full, self.got = False, 0

    def put(self, digest: bytes, packed: Buffer) -> None:
        if self.full:
            raise OSError(28, "no space left")
        super().put(digest, packed)

    def get(self, digest: bytes) -> Buffer:
        self.got += 1
        if self.full and self.got == 2:
            raise OSError(5, "input/output error")
        return super().get(digest)


def test_a_store_that_fails_changes_nothing_and_the_round_goes_on_when_it_heals() -> None:
    one, packed = (
        Round(6, 8, contexts=(CONTEXT, OTHER), changes={"minimum_per_context": 3}),
        Failing(),
    )
    known = [signer.identity for signer in one.signers]
    one.server = OneShotServer(one.parameters, one.committee, known=known, packed=packed)
    one.start([0, 1, 2])
    for client, context in ((3, CONTEXT), (4, OTHER), (5, OTHER)):
        sender, frame = one.signers[client].identity, one.upload(client, context=context)
        before, packed.full = one.server.snapshot(), True
        with pytest.raises(OSError, match="no space left"):
            one.server.receive(sender, frame)
        packed.full = False
        assert one.server.snapshot() == before
        one.carry(one.server.receive(sender, frame))
    one.close(until=OneShotPhase.OPEN)
    packed.full = True
    with pytest.raises(OSError, match="input/output"):  # the second of two that are left out
        one.server.close_phase()
    packed.full = False
    one.close()
    one.exact(range(4))


def test_dealings_may_come_in_any_pieces() -> None:
    one = Round(6, 4)
    one.carry(one.server.start())
    for client in range(6):
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client)))
        if client % 2:
            one.carry(one.server.deal())
    one.close()
    one.exact(range(6))


@pytest.mark.parametrize("members", [3, 8, 20])
@pytest.mark.parametrize("post_quantum", [False, True])
def test_dealings_are_encoded_for_all_members_as_for_one(members: int, post_quantum: bool) -> None:
    epoch = {"post_quantum": post_quantum, "threat_model": model("active")}
    one = Round(4, members, epoch_changes=epoch)
    one.start(clients=[2])
    taken = one.server.upload_of(one.signers[2].identity)
    assert taken is not None
    whole, size, tree = taken.dealing, one.view.sealed_bytes, taken.trees
    for member, row in enumerate(taken.for_members(one.view)):
        beside, sealed_beside = (siblings(levels_)[member] for levels_ in (tree.leaves, tree.sealed_leaves))
        expected = replace(
            whole,
            sealed=bytes(whole.sealed)[size * member : size * (member + 1)],
            path=tree.leaves[0][member] + beside.tobytes(),
            sealed_path=sealed_beside.tobytes(),
        )
        assert row.tobytes() == encode(expected)


def test_more_dealings_than_a_frame_holds_reach_every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was dealt a part of a frame gets the rest of it."""
    monkeypatch.setattr(server, "_DEALINGS_PER_FRAME", 3)
    one = Round(8, 4)
    one.carry(one.server.start())
    for client in range(8):
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client)))
        if client in {1, 2, 6}:
            one.carry(one.server.deal())
    one.close(until=OneShotPhase.REVIEW)
    assert one.server.deal() == []
    for member in one.epoch.members:
        sent = [message_of(frame) for frame in one.sent[member]]
        counts = [len(message.dealings) for message in sent if isinstance(message, Dealings)]
        assert counts == [2, 1, 3, 1, 1]
    one.close()
    one.exact(range(8))


def test_a_member_that_got_nothing_is_sent_everything_again() -> None:
    one = Round(6, 4)
    one.carry(one.server.start())
    deaf = one.epoch.members[2]
    lost = itertools.count()

    def change(member: Identity, frame: bytes) -> list[bytes]:
        dealings = type(message_of(frame)).__name__ == "Dealings"
        return [] if member == deaf and dealings and next(lost) == 0 else [frame]

    one.change = change
    for client in range(6):
        one.carry(one.server.receive(one.signers[client].identity, one.upload(client)))
    one.close()
    one.exact(range(6))
    assert next(lost) == 2


def test_parameters_and_committee_are_read_from_frames() -> None:
    one = Round(5, 4)
    frame = bytes(one.server.parameters_frame)
    assert read_parameters(frame) == one.parameters
    assert read_certificate(one.epoch.certificate, one.epoch.policy).committee_digest == (
        one.parameters.committee_digest
    )
    with pytest.raises(RemoteProtocolError, match="CommitteeCertificate in place of OneShotParameters"):
        read_parameters(one.epoch.certificate)
    other = bytes(ONESHOT_FRAMES.encode(bytes(16), message_of(frame)))
    with pytest.raises(RemoteProtocolError, match="round_id is not the frame's"):
        read_parameters(other)


def test_nothing_is_dealt_outside_a_round() -> None:
    one = Round(5, 4)
    assert one.server.deal() == []
    one.play()
    assert one.server.deal() == []


def test_a_committee_that_cannot_be_says_of_how_many_candidates() -> None:
    model = ThreatModel(dropout=0.26)
    parameters = committee_parameters_of(4, threat_model=model)
    server = CommitteeSession(parameters, candidates=[signer.identity for signer in keys("many", 12)])
    with pytest.raises(InfeasibleParameters, match="with minimum_candidates = 4: "):
        server.start()


class Torn:
    """A source that can be read for the digest, and not for the mask."""

    length = 5

    def __init__(self) -> None:
        self.reads = 0

    def read(self, start: int, out: UIntArray) -> None:
        self.reads += 1
        if self.reads > 1:
            raise OSError(5, "input/output error")
        out[:] = start


def test_a_source_that_fails_leaves_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    one, kept = Round(5, 4), dict[str, Any]()

    def secret(values: Any) -> LatticeSecret:
        kept["key"] = key = LatticeSecret(values)
        return key

    def words(seed: bytes, count: int) -> Any:
        kept["words"] = modq_words(seed, count)
        assert kept["words"].any()
        return kept["words"]

    monkeypatch.setattr(dealing, "LatticeSecret", secret)
    monkeypatch.setattr(dealing, "modq_words", words)
    session = one.contributor(1)
    for frame in (one.epoch.certificate, bytes(one.server.parameters_frame)):
        session.receive(frame)
    with pytest.raises(OSError, match="input/output"):
        session.submit(Torn())
    assert not session.uploaded
    assert not kept["words"].any()
    assert not kept["key"].prepared.any()
