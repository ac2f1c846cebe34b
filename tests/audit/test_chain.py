from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from secagg.audit import Chain, Countersignature, KeyChange, RegistryChange, Start
from secagg.audit.chain import NO_HEAD, next_head
from secagg.errors import ParameterError
from secagg.messages import encode
from tests.audit.helpers import (
    BEGAN_MS,
    CONTENTS,
    LOG_ID,
    NEXT,
    OTHER,
    SERVER,
    WITNESSES,
    Writer,
    completed,
    written,
)


def labelled(purpose: str, *parts: bytes) -> bytes:
    """`encode` of the specification, once more."""
    return b"secagg/v1/" + purpose.encode() + b"\0" + b"".join(len(p).to_bytes(4, "big") + p for p in parts)


def test_heads_are_what_the_specification_says() -> None:
    writer = written()
    head = bytes(32)
    for receipt in writer.receipts:
        assert receipt.previous == head
        address = hashlib.sha256(labelled("audit-entry", encode(receipt.entry))).digest()
        head = hashlib.sha256(labelled("audit-head", head, address)).digest()
        signed = receipt.signed
        assert signed.head == head
        index, time = (number.to_bytes(8, "big") for number in (receipt.entry.index, receipt.entry.time))
        text = labelled("audit-signed-head", LOG_ID, index, head, time)
        assert signed.signature == SERVER.sign(text)
    assert writer.chain.head == head


def test_the_heads_of_a_log_are_these() -> None:
    """Known answer: nothing of the encoding may change unseen."""
    writer = written()
    assert [receipt.signed.head.hex()[:16] for receipt in writer.receipts] == KNOWN_HEADS
    assert writer.receipts[-1].signed.signature.hex()[:32] == KNOWN_SIGNATURE


KNOWN_HEADS = [
    "a6350b7957389b03",
    "be1a919a8a817a1f",
    "4354a80e14469cf3",
    "63272c888fd4ff74",
    "0a0b10b5cc172332",
    "7266cdfb32d1e71d",
    "8d094cdf8fe4dc1a",
]
KNOWN_SIGNATURE = "cefa8a70638775114dd81634629ead3f"


def test_a_log_begins_with_its_start_and_nowhere_else() -> None:
    with pytest.raises(ParameterError, match="begins with its start"):
        Chain().extend(completed(1), BEGAN_MS, SERVER)
    with pytest.raises(ParameterError, match="begins with its start"):
        Writer().append(Start(1, LOG_ID, SERVER.identity))


def test_only_the_server_extends_its_log() -> None:
    writer = Writer()
    with pytest.raises(ParameterError, match="signer: must be"):
        writer.chain.extend(completed(1), BEGAN_MS, OTHER)


def test_a_clock_that_goes_back_stands_still() -> None:
    writer = written()
    newest = writer.receipts[-1].entry.time
    writer.time = 5
    assert writer.append(completed(9)).entry.time == newest


def test_versions_of_a_registry_rise() -> None:
    writer = written()
    for version in (0, 1, 2):
        with pytest.raises(ParameterError, match="version: must be above 2"):
            writer.append(RegistryChange.of("hearts", version, b""))
    writer.append(RegistryChange.of("lungs", 0, b""))  # of each federation by itself
    writer.append(RegistryChange.of("hearts", 7, b""))


def test_a_new_key_signs_what_follows_and_the_old_one_its_entry() -> None:
    writer = written()
    change = writer.change_key(NEXT)
    after = writer.append(completed(9))
    assert change.signed.signed_by(SERVER.identity)
    assert not change.signed.signed_by(NEXT.identity)
    assert after.signed.signed_by(NEXT.identity)
    with pytest.raises(ParameterError, match="signer: must be"):
        writer.chain.extend(completed(10), BEGAN_MS, SERVER)
    assert writer.chain.signers == (SERVER.identity, NEXT.identity)


def test_a_key_that_signed_before_does_not_come_back() -> None:
    writer = written()
    writer.change_key(NEXT)
    with pytest.raises(ParameterError, match="signed this log before"):
        writer.chain.hand_over(NEXT, SERVER)


@pytest.mark.parametrize("name", ["handover", "acceptance"])
def test_both_keys_agree_to_a_change(name: str) -> None:
    writer = written()
    right = writer.chain.hand_over(SERVER, NEXT)
    for wrong in (bytes(64), OTHER.sign(b""), right.acceptance if name == "handover" else right.handover):
        with pytest.raises(ParameterError, match="did not sign it"):
            writer.append(replace(right, **{name: wrong}))


def test_a_change_of_key_is_for_one_place_only() -> None:
    writer = written()
    change: KeyChange = writer.chain.hand_over(SERVER, NEXT)
    writer.append(completed(9))
    with pytest.raises(ParameterError, match="did not sign it"):
        writer.append(change)


def test_a_countersignature_is_over_one_head() -> None:
    writer = written()
    one = Countersignature.sign(writer.receipts[2].signed, WITNESSES[0])
    assert one.over(writer.receipts[2].signed)
    for signed in (writer.receipts[1].signed, replace(writer.receipts[2].signed, head=NO_HEAD)):
        assert not one.over(signed)
    assert not replace(one, witness=WITNESSES[1].identity).over(writer.receipts[2].signed)
    assert not replace(one, witness=b"").over(writer.receipts[2].signed)


def test_a_server_that_is_its_own_witness_gains_nothing_from_a_signed_head() -> None:
    """The two texts differ: a head's signature is no countersignature."""
    signed = written().receipts[-1].signed
    assert not Countersignature(signed.index, SERVER.identity, signed.signature).over(signed)


def test_what_cannot_be_read_moves_the_chain_on() -> None:
    chain = written().chain
    step = chain.follow(b"\xff")
    assert step.content is None
    assert step.wrong
    assert step.chain.index == chain.index + 1
    assert step.chain.head == next_head(chain.head, b"\xff")


def test_entries_out_of_place_or_time_are_told() -> None:
    writer = written(CONTENTS[:2])
    before, data = writer.receipts[1].entry, encode(replace(writer.receipts[1].entry, index=9, time=3))
    assert [text.partition(":")[0] for text in writer.chain.follow(data).wrong][:2] == [
        "Entry.index",
        "Entry.time",
    ]
    assert writer.chain.follow(data).chain.time == writer.chain.time > before.time
