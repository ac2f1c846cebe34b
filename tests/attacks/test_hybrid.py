"""Attacks on the hybrid suite: by the server, by clients, and by who will have a quantum computer."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from secagg.effects import Aborted, AbortReason, RefusalReason, Refused
from secagg.errors import ParameterError
from secagg.kernels import lane_dtype, mask_apply, unpack_add
from secagg.messages import (
    Advertisement,
    MaskedInput,
    RosterAnnouncement,
    SealedContribution,
    ShareDelivery,
    SharedKeys,
)
from secagg.params import HYBRID, Identity, Phase, RoundParameters, Signer
from secagg.primitives.agreement import agree, public_key
from secagg.primitives.hybrid import (
    MaskKeys,
    mask_secret,
    open_contribution,
    opening_key,
    seal_contribution,
)
from secagg.primitives.kem import AVAILABLE, KemSecret
from secagg.primitives.masks import mask_sign, pairwise_seed, share_label
from secagg.primitives.sealing import unseal
from secagg.primitives.signatures import IdentityKey
from secagg.protocol import ClientSession, ServerSession
from secagg.protocol.client import advertise_keys, session
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.round import advertisement_digest, advertisement_text, parameters_digest
from secagg.transcript import RecordedServerSession, verify
from tests.protocol.network import (
    Cohort,
    aborted_by_client,
    changed,
    flipped,
    opened,
    refused_by_client,
    refused_by_server,
)
from tests.protocol.test_hybrid import collect, leave, with_bad


def cohort(**changes: Any) -> Cohort:
    settings = {"dropout": 0.2, "ring_bits": 11, "minimum_cohort": 8, "suite": HYBRID} | changes
    return Cohort(10, **settings)


# --- the server, between the clients


Change = Callable[[Cohort, list[SealedContribution]], Sequence[SealedContribution]]


def made_up(c: Cohort, sent: list[SealedContribution]) -> Sequence[SealedContribution]:
    """Seal zeros with what the server has: public keys, and secrets of its own."""
    view, one = c.view(), sent[0]
    theirs = MaskKeys.of(c.secrets(9).mask, parameters_digest(c.parameters)).public
    pair = one.peer, c.identities[9]
    made = seal_contribution(bytes(32), os.urandom(32), *theirs, view.roster_digest, *pair)
    return [SealedContribution(one.peer, *made), *sent[1:]]


def of_another(_c: Cohort, sent: list[SealedContribution]) -> Sequence[SealedContribution]:
    return [replace(sent[1], peer=sent[0].peer), *sent[1:]]


def other_ciphertext(_c: Cohort, sent: list[SealedContribution]) -> Sequence[SealedContribution]:
    return [replace(sent[0], kem=sent[1].kem), *sent[1:]]


@pytest.mark.parametrize("change", [made_up, of_another, other_ciphertext])
def test_a_server_that_changes_a_contribution_gets_no_vector(change: Change) -> None:
    """Were it sealed by ML-KEM alone, a server could choose it, and have half of every seed for later."""
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    sent = list(opened(ShareDelivery, c.request(9)).contributions)
    c.ask(9, changed(c, ShareDelivery, c.request(9), contributions=tuple(change(c, sent))))
    said = opened(MaskedInput, c.answer(9))
    assert (said.unopened, len(said.packed)) == ((c.identities[0],), 0)
    assert c.clients[9].phase is None


@pytest.mark.parametrize("change", ["none", "fewer", "more"])
def test_a_server_that_delivers_other_contributions_than_those_of_smaller_neighbors(change: str) -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    sent = tuple(opened(ShareDelivery, c.request(5)).contributions)
    further = opened(ShareDelivery, c.request(9)).contributions[6]
    given = {"none": (), "fewer": sent[1:], "more": (*sent, further)}[change]
    frame = changed(c, ShareDelivery, c.request(5), contributions=given)
    aborted_by_client(c, 5, frame, AbortReason.WRONG_SHARES)


def test_shares_without_their_ciphertexts_are_no_delivery() -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    shares = tuple(replace(one, kem=b"") for one in opened(ShareDelivery, c.request(5)).shares)
    frame = changed(c, ShareDelivery, c.request(5), shares=shares)
    aborted_by_client(c, 5, frame, AbortReason.WRONG_SHARES)


def test_shares_with_ciphertexts_are_no_delivery_in_the_other_suite() -> None:
    c = cohort(suite="x25519").advance(Phase.MASKED_INPUT_COLLECTION)
    delivery = opened(ShareDelivery, c.request(5))
    kem = tuple(replace(one, kem=bytes(1088)) for one in delivery.shares)
    aborted_by_client(c, 5, changed(c, ShareDelivery, c.request(5), shares=kem), AbortReason.WRONG_SHARES)
    extra = (SealedContribution(c.identities[0], bytes(1088), bytes(48)),)
    aborted_by_client(
        c, 6, changed(c, ShareDelivery, c.request(6), contributions=extra), AbortReason.WRONG_SHARES
    )


@pytest.mark.parametrize("field", ["share_kem_key", "mask_kem_key"])
def test_a_server_cannot_put_its_own_kem_keys_into_an_advertisement(field: str) -> None:
    c = cohort().advance(Phase.SHARE_KEYS)
    announcement = opened(RosterAnnouncement, c.request(0))
    forged = replace(announcement.neighbors[0], **{field: KemSecret(bytes(64)).public})
    neighbors = (forged, *announcement.neighbors[1:])
    frame = changed(c, RosterAnnouncement, c.request(0), neighbors=neighbors)
    refused_by_client(c, 0, frame, RefusalReason.WRONG_NEIGHBORS)
    entries = tuple(
        replace(entry, advertisement_digest=advertisement_digest(forged))
        if entry.identity == forged.identity
        else entry
        for entry in announcement.roster.entries
    )
    signed_for_others = c.frame(
        replace(announcement, neighbors=neighbors, roster=replace(announcement.roster, entries=entries))
    )
    refused_by_client(c, 0, signed_for_others, RefusalReason.BAD_SIGNATURE)


def advertising(c: Cohort, i: int, **changes: bytes) -> bytes:
    """The signed advertisement of client i with other keys."""
    unsigned = replace(opened(Advertisement, c.answer(i)), **changes)
    text = advertisement_text(parameters_digest(c.parameters), unsigned)
    return c.frame(replace(unsigned, signature=c.signers[i].sign(text)))


@pytest.mark.parametrize("name", ["share_kem_key", "mask_kem_key"])
@pytest.mark.parametrize("key", [b"\xff" * 1184, b""], ids=["not canonical", "missing"])
def test_kem_keys_that_are_none_are_refused_by_the_server_and_end_the_round_of_a_client(
    name: str, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = cohort().start()
    c.ask(0)
    frame = advertising(c, 0, **{name: key})
    refused_by_server(c, 0, frame, RefusalReason.BAD_KEY)
    if not key:
        return  # a server that let it pass could not even pass it on
    module = "secagg.protocol.server.advertise_keys.unusable_key"
    with monkeypatch.context() as patch:
        patch.setattr(module, lambda *_: None)  # a server that lets it pass
        assert c.tell(0, frame) == []
    for i in range(1, 10):
        c.ask(i)
        c.tell(i)
    c.close()
    aborted_by_client(c, 1, c.request(1), AbortReason.BAD_NEIGHBOR_KEY)


# --- clients, against the server


def test_contributions_are_those_for_the_larger_neighbors() -> None:
    c = cohort().advance(Phase.SHARE_KEYS).ask_all()
    sent = tuple(opened(SharedKeys, c.answer(5)).contributions)
    stranger = replace(sent[0], peer=c.identities[0])
    for given in ((), sent[1:], (stranger, *sent)):
        frame = changed(c, SharedKeys, c.answer(5), contributions=given)
        refused_by_server(c, 5, frame, RefusalReason.WRONG_NEIGHBORS)
    plain = cohort(suite="x25519").advance(Phase.SHARE_KEYS).ask_all()
    extra = (replace(sent[0], peer=plain.identities[8]),)
    frame = changed(plain, SharedKeys, plain.answer(9), contributions=extra)
    refused_by_server(plain, 9, frame, RefusalReason.WRONG_NEIGHBORS)


def test_shares_come_with_ciphertexts_in_this_suite_only() -> None:
    c = cohort().advance(Phase.SHARE_KEYS).ask_all()
    shares = tuple(replace(one, kem=b"") for one in opened(SharedKeys, c.answer(5)).shares)
    refused_by_server(c, 5, changed(c, SharedKeys, c.answer(5), shares=shares), RefusalReason.MALFORMED)
    mixed = (shares[0], *opened(SharedKeys, c.answer(5)).shares[1:])
    refused_by_server(c, 5, changed(c, SharedKeys, c.answer(5), shares=mixed), RefusalReason.MALFORMED)
    plain = cohort(suite="x25519").advance(Phase.SHARE_KEYS).ask_all()
    with_kem = tuple(replace(one, kem=bytes(1088)) for one in opened(SharedKeys, plain.answer(5)).shares)
    frame = changed(plain, SharedKeys, plain.answer(5), shares=with_kem)
    (refused,) = plain.server.receive(plain.identities[5], frame)
    assert isinstance(refused, Refused)  # it is too long already, or not of the suite


def test_who_leaves_says_nothing_else_and_for_itself() -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    right = leave(c, 5, 2)
    wrong = {
        changed(c, MaskedInput, right, packed=b"\0"): RefusalReason.MALFORMED,
        changed(c, MaskedInput, right, complaints=(c.identities[3],)): RefusalReason.MALFORMED,
        changed(c, MaskedInput, right, unopened=(c.identities[3],)): RefusalReason.BAD_SIGNATURE,
        leave(c, 5, 6): RefusalReason.WRONG_NEIGHBORS,  # larger: nothing came from there
        leave(c, 5, 2, 6): RefusalReason.WRONG_NEIGHBORS,
        changed(c, MaskedInput, right, unopened=(bytes(32),)): RefusalReason.WRONG_NEIGHBORS,
        changed(c, MaskedInput, right, signature=c.signers[6].sign(b"")): RefusalReason.BAD_SIGNATURE,
    }
    for frame, reason in wrong.items():
        refused_by_server(c, 5, frame, reason)
    assert c.tell(5, right) == []
    plain = cohort(suite="x25519").advance(Phase.MASKED_INPUT_COLLECTION)
    refused_by_server(plain, 5, leave(plain, 5, 2), RefusalReason.WRONG_NEIGHBORS)


def test_a_client_whose_kem_key_is_of_another_root_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contributions to it could not be opened, whoever were to blame."""
    c = cohort()
    original, liar = advertise_keys.advertise, c.identities[4]

    def lying(parameters: RoundParameters, signer: Signer, secrets: Secrets) -> Advertisement:
        own = original(parameters, signer, secrets)
        if signer.identity != liar:
            return own
        own = replace(own, mask_kem_key=KemSecret(bytes(64)).public)
        return replace(own, signature=signer.sign(advertisement_text(parameters_digest(parameters), own)))

    monkeypatch.setattr(session, "advertise", lying)
    c.advance(Phase.MASKED_INPUT_COLLECTION)
    for i in range(10):
        if i != 4:
            c.ask(i)
            c.tell(i)
    c.close()
    outcome = c.finish()
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert outcome.guilty == (liar,)


def test_complaints_about_contributions_are_settled_by_the_root_alone() -> None:
    """Two clients that lie about an honest one make it look bad to nobody."""
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    for liar in (8, 9):
        assert c.tell(liar, leave(c, liar, 0, 1)) == []
    outcome = collect(c).finish()
    assert not isinstance(outcome, Aborted)
    assert {one.client for one in outcome.blamed} == {c.identities[8], c.identities[9]}
    assert all(one.guilty for one in outcome.blamed)


def test_a_departure_because_of_what_was_changed_on_its_way_is_not_taken() -> None:
    """Else a bit that turned, or a server that delivers other bytes than it keeps, made it the liar."""
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    sent = list(opened(ShareDelivery, c.request(9)).contributions)
    c.ask(9, changed(c, ShareDelivery, c.request(9), contributions=tuple(other_ciphertext(c, sent))))
    refused_by_server(c, 9, c.answer(9), RefusalReason.BAD_SIGNATURE)
    for i in range(9):
        c.ask(i)
        c.tell(i)
    c.close()
    outcome = c.finish()
    assert not isinstance(outcome, Aborted)
    assert outcome.blamed == ()
    assert outcome.total.tolist() == c.sum_over(range(9))


@pytest.mark.parametrize("signers", [0, 7])
def test_accusations_are_counted_whatever_ends_the_round_after_them(signers: int) -> None:
    """A liar that makes others leave, and does not sign then, does not get away with it."""
    c = with_bad(0, 1, 2, 3, c=cohort(dropout=0.3))
    collect(c).close()
    assert c.server.phase is Phase.CONSISTENCY_CHECK
    for i in (4, 5, 6, 7, 8, 9)[:signers]:
        c.ask(i)
        c.tell(i)
    c.close()
    outcome = c.finish() if c.outcome is None else c.outcome
    assert isinstance(outcome, Aborted)
    assert outcome.guilty == (c.identities[0],)


def test_what_a_root_proves_stands_though_another_secret_fails() -> None:
    """One that is caught anyway shields nobody."""
    c = cohort(dropout=0.3).advance(Phase.SHARE_KEYS).ask_all()
    wrong = c.dealt(3, {holder: bytes(80) for holder in range(10) if holder != 3})
    frames = {2: c.answer(2), 3: wrong}
    message = opened(SharedKeys, frames[2])
    bad = tuple(
        replace(one, ciphertext=flipped(one.ciphertext, 1)) if one.peer == c.identities[5] else one
        for one in message.contributions
    )
    c.answers[2] = changed(c, SharedKeys, frames[2], contributions=bad)
    c.answers[3] = frames[3]
    c.tell_all().close()
    outcome = collect(c).finish()
    assert isinstance(outcome, Aborted)
    assert outcome.reason is AbortReason.UNRECOVERABLE_SECRET
    assert {c.identities[2], c.identities[3]} <= {*outcome.guilty}


def test_without_ml_kem_nothing_of_a_hybrid_round_is_taken_up_and_its_record_is_not_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    c, file = cohort(), io.BytesIO()
    signer = IdentityKey.from_seed(bytes(32))
    c.server = RecordedServerSession(c.parameters, admitted=c.identities, file=file, signer=signer)
    c.advance(Phase.MASKED_INPUT_COLLECTION)
    server, client = c.server.snapshot(), c.clients[0].snapshot()
    c.finish()
    monkeypatch.setattr("secagg.primitives.kem.AVAILABLE", False)
    with pytest.raises(ParameterError, match="ML-KEM-768"):
        ServerSession.restore(server)
    with pytest.raises(ParameterError, match="ML-KEM-768"):
        ClientSession.restore(client, signer=c.signers[0], policy=c.policy)
    file.seek(0)
    (finding, *_) = verify(file).findings
    assert "ML-KEM-768: needs cryptography" in finding.what


# --- whoever breaks X25519, or ML-KEM, later


def x25519(c: Cohort, i: int) -> bytes:
    """The mask private key of client i: what follows from its public key once X25519 is broken."""
    mask = bytes(c.secrets(i).mask)
    return mask_secret(mask, parameters_digest(c.parameters)) if c.parameters.hybrid else mask


def residue(c: Cohort, me: int, added: Callable[[int], bytes]) -> bool:
    """Whether an upload is open to who has all X25519 keys and self-mask seeds, with these contributions."""
    view, d = c.view(), c.parameters.vector_length
    dtype = lane_dtype(c.parameters.ring_bits)
    total = np.zeros(d, dtype)
    unpack_add(total, opened(MaskedInput, c.answer(me)).packed, c.parameters.ring_bits)
    seeds, signs = [bytes(c.secrets(me).self_seed)], [-1]
    mine = x25519(c, me)
    for i in range(10):
        if i == me:
            continue
        theirs = public_key(x25519(c, i))
        names = c.identities[me], c.identities[i]
        seeds.append(pairwise_seed(mine, theirs, view.roster_digest, *names, added(i)))
        signs.append(-mask_sign(*names))
    mask_apply(total, b"".join(seeds), np.array(signs, np.int8))
    left = total & dtype.type(2**c.parameters.ring_bits - 1)
    return np.array_equal(left, c.vector(me))


STRANGER = KemSecret(bytes(64)) if AVAILABLE else None


def contributions_to(c: Cohort, i: int, kem: KemSecret | None) -> dict[int, bytes | None]:
    """What client i was sent, opened with its X25519 mask key and this decapsulation key."""
    keys = MaskKeys(x25519(c, i), cast("KemSecret", kem))
    return {
        c.index[Identity(one.peer)]: open_contribution(
            keys,
            public_key(x25519(c, c.index[Identity(one.peer)])),
            one.kem,
            one.ciphertext,
            c.view().roster_digest,
            one.peer,
            c.identities[i],
        )
        for one in opened(ShareDelivery, c.request(i)).contributions
    }


def test_who_breaks_x25519_later_opens_no_recorded_upload() -> None:
    """It has every X25519 key, all self-mask seeds, and every frame; of ML-KEM only what is public."""
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    hashed = parameters_digest(c.parameters)
    known = [contributions_to(c, i, MaskKeys.of(c.secrets(i).mask, hashed).kem) for i in range(10)]
    guessed = [contributions_to(c, i, STRANGER) for i in range(10)]
    assert [len(one) for one in known] == list(range(10))
    assert all(value is not None for one in known for value in one.values())
    assert not any(value is not None for one in guessed for value in one.values())
    c.ask_all().tell_all().close()

    def added(me: int, values: list[dict[int, bytes | None]]) -> Callable[[int], bytes]:
        return lambda i: values[max(i, me)][min(i, me)] or b""

    for me in (0, 5, 9):
        assert residue(c, me, added(me, known))  # the arithmetic is right
        assert not residue(c, me, added(me, guessed))
        assert not residue(c, me, lambda _: bytes(32))


def test_who_breaks_ml_kem_later_opens_no_recorded_contribution() -> None:
    """Decapsulation keys are known, X25519 holds."""
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    hashed, digest, me = parameters_digest(c.parameters), c.view().roster_digest, c.identities[9]
    keys = MaskKeys(os.urandom(32), MaskKeys.of(c.secrets(9).mask, hashed).kem)
    for one in opened(ShareDelivery, c.request(9)).contributions:
        theirs = public_key(x25519(c, c.index[Identity(one.peer)]))
        assert open_contribution(keys, theirs, one.kem, one.ciphertext, digest, one.peer, me) is None


def test_in_the_other_suite_every_recorded_upload_opens() -> None:
    c = cohort(suite="x25519").advance(Phase.CONSISTENCY_CHECK)
    assert all(residue(c, me, lambda _: b"") for me in range(10))


@pytest.mark.parametrize("broken", ["neither is secret", "X25519", "ML-KEM"])
def test_who_breaks_one_of_the_two_later_opens_no_recorded_share(broken: str) -> None:
    c = cohort().advance(Phase.MASKED_INPUT_COLLECTION)
    digest, me = c.view().roster_digest, c.identities[5]
    for share in opened(ShareDelivery, c.request(5)).shares:
        dealer = c.index[Identity(share.peer)]
        agreed = agree(c.secrets(dealer).agreement, public_key(c.secrets(5).agreement))
        secret = KemSecret(c.secrets(5).kem)
        if broken == "X25519":
            secret = cast("KemSecret", STRANGER)
        if broken == "ML-KEM":
            agreed = os.urandom(32)
        key = opening_key(agreed, secret, share.kem, digest, share.peer, me)
        plaintext = unseal(key, share.ciphertext, share_label(digest, share.peer, me))
        assert (plaintext is not None) == (broken == "neither is secret")


def test_the_root_does_not_open_shares() -> None:
    """It is rebuilt of everybody who drops out; what is sealed for it stays closed."""
    c = cohort().start()
    c.ask(5)
    own, secrets = opened(Advertisement, c.answer(5)), c.secrets(5)
    keys = MaskKeys.of(secrets.mask, parameters_digest(c.parameters))
    assert keys.public == (own.mask_key, own.mask_kem_key)
    assert own.share_kem_key not in {own.mask_kem_key, KemSecret(bytes(secrets.mask) * 2).public}
    assert own.share_kem_key == KemSecret(secrets.kem).public


def test_entropy_that_is_too_short_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"entropy: must be 64 bytes as asked, is 32"):
        advertise_keys.Secrets.draw(lambda _size: bytes(32), hybrid=True)
