from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from secagg.effects import AbortReason, Effect, InputWanted, RefusalReason, Send
from secagg.errors import LocalProtocolError, ParameterError
from secagg.kernels import PRIME, UIntArray, reference
from secagg.messages import MaskedInput, SealedShare, ShareDelivery
from secagg.params import Identity, Phase, Signer
from secagg.primitives.agreement import public_key
from secagg.primitives.masks import mask_sign, pairwise_seed
from secagg.primitives.signatures import verify
from secagg.protocol import ClientSession
from tests.protocol.network import (
    Cohort,
    aborted_by_client,
    changed,
    flipped,
    opened,
    refused_by_client,
)


def delivered(clients: int = 6, lost: dict[int, Phase] | None = None, ring_bits: int = 13) -> Cohort:
    return Cohort(clients, ring_bits=ring_bits).advance(Phase.MASKED_INPUT_COLLECTION, lost or {})


def delivery(cohort: Cohort) -> ShareDelivery:
    return opened(ShareDelivery, cohort.request(0))


def with_share(cohort: Cohort, place: int, **fields: bytes) -> bytes:
    shares = list(delivery(cohort).shares)
    shares[place] = replace(shares[place], **fields)
    ordered = tuple(sorted(shares, key=lambda share: share.peer))
    return changed(cohort, ShareDelivery, cohort.request(0), shares=ordered)


def with_u1(cohort: Cohort, finished: set[int]) -> bytes:
    """A delivery that is consistent with another U1."""
    names = {cohort.identities[i] for i in finished}
    return cohort.frame(
        ShareDelivery(
            cohort.view().bitmap(finished),
            tuple(share for share in delivery(cohort).shares if share.peer in names),
        )
    )


ABORTED: dict[str, tuple[Callable[[Cohort], bytes], AbortReason]] = {
    "without us": (lambda c: with_u1(c, {1, 2, 3, 4, 5}), AbortReason.NOT_FINISHED),
    "fewer neighbors than the threshold": (
        lambda c: with_u1(c, {0, 1, 2, 3}),
        AbortReason.TOO_FEW_NEIGHBORS,
    ),
    "a share is missing": (
        lambda c: changed(c, ShareDelivery, c.request(0), shares=delivery(c).shares[1:]),
        AbortReason.WRONG_SHARES,
    ),
    "no shares": (
        lambda c: changed(c, ShareDelivery, c.request(0), shares=()),
        AbortReason.WRONG_SHARES,
    ),
    "a share of one outside U1": (
        lambda c: changed(c, ShareDelivery, c.request(0), finished=b"\x1f"),
        AbortReason.WRONG_SHARES,
    ),
    "a share of a stranger": (
        lambda c: with_share(c, 4, peer=b"\xff" * 32),
        AbortReason.WRONG_SHARES,
    ),
    "a share of our own": (
        lambda c: changed(
            c,
            ShareDelivery,
            c.request(0),
            shares=(SealedShare(c.identities[0], bytes(96), bytes(64)), *delivery(c).shares),
        ),
        AbortReason.WRONG_SHARES,
    ),
    "a dealer that did not accept our roster": (
        lambda c: with_share(c, 2, acceptance=flipped(delivery(c).shares[2].acceptance, 200)),
        AbortReason.WRONG_SHARES,
    ),
    "no acceptance": (lambda c: with_share(c, 2, acceptance=b""), AbortReason.WRONG_SHARES),
    "the acceptance of another": (
        lambda c: with_share(c, 2, acceptance=delivery(c).shares[1].acceptance),
        AbortReason.WRONG_SHARES,
    ),
}
REFUSED: dict[str, tuple[Callable[[Cohort], bytes], RefusalReason]] = {
    "a bitmap that is too short": (
        lambda c: changed(c, ShareDelivery, c.request(0), finished=b""),
        RefusalReason.MALFORMED,
    ),
    "a bitmap that is too long": (
        lambda c: changed(c, ShareDelivery, c.request(0), finished=b"\x3f\x00"),
        RefusalReason.MALFORMED,
    ),
    "a spare bit": (
        lambda c: changed(c, ShareDelivery, c.request(0), finished=b"\x7f"),
        RefusalReason.MALFORMED,
    ),
    "a share that is too short": (
        lambda c: with_share(c, 0, ciphertext=bytes(95)),
        RefusalReason.MALFORMED,
    ),
    "a share twice": (
        lambda c: changed(
            c, ShareDelivery, c.request(0), shares=(*delivery(c).shares, delivery(c).shares[-1])
        ),
        RefusalReason.MALFORMED,
    ),
    "cut": (lambda c: c.request(0)[:-1], RefusalReason.MALFORMED),
}


@pytest.mark.parametrize("case", ABORTED)
def test_a_delivery_that_shows_a_lie_ends_the_clients_round(case: str) -> None:
    cohort = delivered()
    frame, reason = ABORTED[case]
    aborted_by_client(cohort, 0, frame(cohort), reason)
    with pytest.raises(LocalProtocolError, match="submit"):
        cohort.clients[0].submit(cohort.vector(0))
    assert cohort.total({0: Phase.MASKED_INPUT_COLLECTION}) == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_delivery_is_refused_and_the_right_one_may_follow(case: str) -> None:
    cohort = delivered()
    frame, reason = REFUSED[case]
    refused_by_client(cohort, 0, frame(cohort), reason)
    assert cohort.total() == [1] * 6


def test_exactly_the_threshold_of_neighbors_is_enough() -> None:
    cohort = delivered()
    assert cohort.view().roster.threshold == 4
    (wanted,) = cohort.clients[0].receive(with_u1(cohort, {0, 1, 2, 3, 4}))
    assert wanted == InputWanted(6, 13)


def masked_by_hand(cohort: Cohort, i: int, finished: set[int]) -> bytes:
    """The upload by the formula of the specification."""
    view, mine = cohort.view(), cohort.secrets(i)
    seeds, signs = [bytes(mine.self_seed)], [1]
    for j in sorted(finished - {i}):
        one, other = cohort.identities[i], cohort.identities[j]
        mask_key = public_key(cohort.secrets(j).mask)
        seeds.append(pairwise_seed(mine.mask, mask_key, view.roster_digest, one, other))
        signs.append(mask_sign(one, other))
    bits = cohort.parameters.ring_bits
    vector = [int(value) for value in cohort.vector(i)]
    return reference.pack(reference.mask_apply(vector, seeds, signs, bits), bits)


@pytest.mark.parametrize("ring_bits", [1, 13, 16, 20, 32, 33, 64])
@pytest.mark.parametrize("lost", [{}, {3: Phase.SHARE_KEYS}], ids=["all", "one not in U1"])
def test_the_upload_is_the_vector_with_the_masks_of_exactly_u1(
    ring_bits: int, lost: dict[int, Phase]
) -> None:
    cohort = delivered(lost=lost, ring_bits=ring_bits).ask_all()
    finished = set(range(6)) - set(lost)
    view = cohort.view()
    for i in finished:
        message = opened(MaskedInput, cohort.answer(i))
        assert bytes(message.packed) == masked_by_hand(cohort, i, finished)
        text = view.upload_text(view.bitmap(finished), hashlib.sha256(message.packed).digest())
        assert verify(cohort.identities[i], text, message.signature)
        assert message.complaints == ()


def word_out_of_range(plaintext: bytes, word: int) -> bytes:
    return plaintext[: 8 * word] + PRIME.to_bytes(8, "little") + plaintext[8 * word + 8 :]


@pytest.mark.parametrize("word", [None, 0, 4, 5, 9], ids=str)
def test_a_share_that_does_not_open_or_is_out_of_range_is_reported_and_changes_no_mask(
    word: int | None,
) -> None:
    cohort = Cohort(6, ring_bits=13).advance(Phase.SHARE_KEYS).ask_all()
    plaintext = cohort.share_plaintexts(2)[0]
    frame = cohort.dealt(2, {0: word_out_of_range(plaintext, word) if word is not None else plaintext})
    cohort.tell(2, frame)
    cohort.tell_all().close()
    if word is None:  # the server, or the dealer, spoils the ciphertext
        shares = delivery(cohort).shares
        cohort.requests[0] = with_share(cohort, 1, ciphertext=flipped(shares[1].ciphertext, 767))
    cohort.ask_all()
    message = opened(MaskedInput, cohort.answer(0))
    assert message.complaints == (cohort.identities[2],)
    assert bytes(message.packed) == masked_by_hand(cohort, 0, set(range(6)))


def test_a_share_sealed_for_another_holder_does_not_open() -> None:
    cohort = delivered()
    foreign = opened(ShareDelivery, cohort.request(1)).shares[1].ciphertext
    cohort.ask(0, with_share(cohort, 1, ciphertext=foreign))
    assert opened(MaskedInput, cohort.answer(0)).complaints == (cohort.identities[2],)


def test_the_same_delivery_before_the_input_asks_for_it_again() -> None:
    cohort = delivered()
    wanted: list[Effect] = [InputWanted(6, 13)]
    assert cohort.clients[0].receive(cohort.request(0)) == wanted
    assert cohort.clients[0].receive(cohort.request(0)) == wanted


def test_the_same_delivery_after_the_upload_gets_the_same_upload() -> None:
    cohort = delivered()
    cohort.ask(0)
    before = cohort.clients[0].snapshot()
    (again,) = cohort.clients[0].receive(cohort.request(0))
    assert isinstance(again, Send)
    assert bytes(again.frame) == cohort.answer(0)
    assert cohort.clients[0].snapshot() == before


@pytest.mark.parametrize("submitted", [True, False])
def test_another_u1_after_the_first_is_refused(submitted: bool) -> None:
    """The pairwise masks of two sets must never both be seen."""
    cohort = delivered()
    other = with_u1(cohort, {0, 1, 2, 3, 4})
    if submitted:
        cohort.ask(0)
    else:
        cohort.clients[0].receive(cohort.request(0))
    refused_by_client(cohort, 0, other, RefusalReason.EQUIVOCATION)


# --- submit


def waiting(
    phase: Phase = Phase.MASKED_INPUT_COLLECTION, ring_bits: int = 13
) -> tuple[Cohort, ClientSession]:
    """Client 0 has what it needs in this phase; nothing is submitted."""
    cohort = Cohort(6, ring_bits=ring_bits).advance(phase)
    cohort.clients[0].receive(cohort.request(0))
    return cohort, cohort.clients[0]


@pytest.mark.parametrize(
    "phase", [Phase.ADVERTISE_KEYS, Phase.SHARE_KEYS, Phase.MASKED_INPUT_COLLECTION], ids=lambda p: p.name
)
def test_a_vector_may_be_given_any_time_up_to_phase_2_once(phase: Phase) -> None:
    cohort, client = waiting(phase)
    effects = client.submit(cohort.vector(0))
    cohort.submitted.add(0)
    with pytest.raises(LocalProtocolError, match="one vector per round"):
        client.submit(cohort.vector(0))
    if phase is Phase.MASKED_INPUT_COLLECTION:
        cohort.take_client(0, effects)
    else:
        assert effects == []
    assert cohort.total() == [1] * 6


def test_a_second_vector_is_not_taken_after_the_upload() -> None:
    cohort = delivered().ask_all()
    before = cohort.clients[0].snapshot()
    with pytest.raises(LocalProtocolError, match="one vector per round"):
        cohort.clients[0].submit(cohort.vector(0))
    assert cohort.clients[0].snapshot() == before


BAD_VECTORS: dict[str, object] = {
    "too short": np.zeros(5, np.uint16),
    "too long": np.zeros(7, np.uint16),
    "two dimensions": np.zeros((6, 1), np.uint16),
    "no dimension": np.uint16(0),
    "2^b": np.array([0, 0, 2**13, 0, 0, 0], np.uint16),
    "2^64 - 1": np.array([0, 0, 0, 0, 0, 2**64 - 1], np.uint64),
    "negative": np.array([0, -1, 0, 0, 0, 0], np.int64),
    "floats": np.zeros(6),
    "not a number": np.full(6, np.nan),
    "truth values": np.zeros(6, bool),
    "objects": np.array([0] * 6, object),
}


@pytest.mark.parametrize("name", BAD_VECTORS)
def test_a_vector_that_does_not_fit_is_not_taken_and_a_right_one_may_follow(name: str) -> None:
    cohort, client = waiting()
    before = client.snapshot()
    with pytest.raises(LocalProtocolError, match="vector"):
        client.submit(BAD_VECTORS[name])  # type: ignore[arg-type]
    assert client.snapshot() == before
    cohort.take_client(0, client.submit(cohort.vector(0)))
    cohort.submitted.add(0)
    assert cohort.total() == [1] * 6


def test_a_vector_that_does_not_fit_is_a_parameter_error() -> None:
    _, client = waiting()
    for vector in BAD_VECTORS.values():
        with pytest.raises(ParameterError, match="vector"):
            client.submit(vector)  # type: ignore[arg-type]


@pytest.mark.parametrize("ring_bits", [1, 13, 16, 17, 32, 33, 63, 64])
def test_the_largest_element_of_the_ring_is_taken_and_one_more_is_not(ring_bits: int) -> None:
    cohort, client = waiting(ring_bits=ring_bits)
    if ring_bits < 64:
        with pytest.raises(LocalProtocolError, match="vector"):
            client.submit(np.full(6, 2**ring_bits, np.uint64))
    effects = client.submit(np.full(6, 2**ring_bits - 1, np.uint64))
    cohort.submitted.add(0)
    cohort.take_client(0, effects)
    total = cohort.total()
    wanted = [(2**ring_bits - 1 + (i > 0)) % 2**ring_bits for i in range(6)]
    assert total == wanted


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int64])
def test_any_integer_type_is_taken(dtype: type) -> None:
    cohort, client = waiting()
    cohort.take_client(0, client.submit(cohort.vector(0).astype(dtype)))
    cohort.submitted.add(0)
    assert cohort.total() == [1] * 6


class Unreliable:
    """A signer, perhaps a hardware token, that fails now and then."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self.fails = False

    @property
    def identity(self) -> Identity:
        return self.signer.identity

    def sign(self, text: bytes) -> bytes:
        if self.fails:
            raise OSError("the token does not answer")
        return self.signer.sign(text)


@pytest.mark.parametrize("early", [True, False])
def test_an_upload_that_the_signer_failed_to_sign_is_tried_again_with_the_same_masks(early: bool) -> None:
    cohort = Cohort(6, ring_bits=13).start()
    signer = Unreliable(cohort.signers[0])
    client = cohort.clients[0] = cohort.fresh_client(0, signer=signer)
    cohort.advance(Phase.MASKED_INPUT_COLLECTION)
    cohort.submitted.add(0)
    signer.fails = True
    if early:
        client.submit(cohort.vector(0))
        with pytest.raises(OSError, match="token"):
            client.receive(cohort.request(0))
        signer.fails = False
        cohort.take_client(0, client.receive(cohort.request(0)))
    else:
        client.receive(cohort.request(0))
        with pytest.raises(OSError, match="token"):
            client.submit(cohort.vector(0))
        signer.fails = False
        cohort.take_client(0, client.submit(cohort.vector(0)))
    assert bytes(opened(MaskedInput, cohort.answer(0)).packed) == masked_by_hand(cohort, 0, set(range(6)))
    assert cohort.total() == [1] * 6


def test_the_callers_vector_is_copied_and_left_as_it_is() -> None:
    cohort, client = waiting(Phase.ADVERTISE_KEYS)
    vector = cohort.vector(0)
    client.submit(vector)
    cohort.submitted.add(0)
    vector[:] = 7
    assert cohort.total() == [1] * 6
    assert (vector == 7).all()


def test_nothing_of_the_vector_or_the_keys_is_kept_after_the_upload() -> None:
    cohort, client = waiting()
    secrets = cohort.secrets(0)
    kept = client.snapshot()
    assert secrets.mask in kept
    assert secrets.self_seed in kept
    assert secrets.agreement not in kept
    cohort.take_client(0, client.submit(cohort.vector(0)))
    kept = client.snapshot()
    for secret in (secrets.agreement, secrets.mask, secrets.self_seed, secrets.share_seed):
        assert secret not in kept


class Counting:
    """A source that computes its entries, as a model is quantized when it is uploaded."""

    def __init__(self, length: int, *, fails: bool = False) -> None:
        self.length = length
        self._fails = fails

    def read(self, first: int, out: UIntArray) -> None:
        if self._fails:
            raise RuntimeError("the model is gone")
        out[:] = np.arange(first, first + out.size) % 5


@pytest.mark.parametrize("phase", [Phase.ADVERTISE_KEYS, Phase.MASKED_INPUT_COLLECTION])
def test_a_source_is_uploaded_as_the_vector_it_stands_for(phase: Phase) -> None:
    packed = []
    for threads in (None, 3):  # None: the vector itself
        cohort, client = waiting(phase)
        d = cohort.parameters.vector_length
        client._threads = threads or 1
        effects = client.submit(
            np.arange(d, dtype=np.uint64) % np.uint64(5) if threads is None else Counting(d)
        )
        if phase is Phase.ADVERTISE_KEYS:
            snapshot = client.snapshot()
            assert b"".join(i.to_bytes(2, "little") for i in range(min(d, 5))) in snapshot
            cohort.advance(Phase.MASKED_INPUT_COLLECTION)
            effects = client.receive(cohort.request(0))
        [answer] = [effect for effect in effects if isinstance(effect, Send)]
        packed.append(bytes(opened(MaskedInput, bytes(answer.frame)).packed))
    assert packed[0] == packed[1]


def test_a_source_of_another_length_is_refused() -> None:
    cohort, client = waiting()
    d = cohort.parameters.vector_length
    with pytest.raises(ParameterError, match=f"vector: must have {d} entries, has {d + 1}"):
        client.submit(Counting(d + 1))


@pytest.mark.parametrize("phase", [Phase.ADVERTISE_KEYS, Phase.MASKED_INPUT_COLLECTION])
def test_a_source_that_fails_changes_nothing(phase: Phase) -> None:
    cohort, client = waiting(phase)
    with pytest.raises(RuntimeError, match="the model is gone"):
        client.submit(Counting(cohort.parameters.vector_length, fails=True))
    client.submit(cohort.vector(0))
    with pytest.raises(LocalProtocolError, match="takes one vector"):
        client.submit(cohort.vector(0))


@pytest.mark.parametrize("phase", [Phase.ADVERTISE_KEYS, Phase.MASKED_INPUT_COLLECTION])
def test_entries_of_a_source_are_checked_as_those_of_a_vector(phase: Phase) -> None:
    cohort, client = waiting(phase, ring_bits=2)
    with pytest.raises(ParameterError, match=r"vector\[4\]: must be in 0\.\.2\^2 - 1"):
        client.submit(Counting(cohort.parameters.vector_length))


def test_a_source_given_early_is_read_at_once() -> None:
    cohort, client = waiting(Phase.ADVERTISE_KEYS)
    source = Counting(cohort.parameters.vector_length)
    client.submit(source)
    source._fails = True
    cohort.advance(Phase.MASKED_INPUT_COLLECTION)
    assert [effect for effect in client.receive(cohort.request(0)) if isinstance(effect, Send)]
