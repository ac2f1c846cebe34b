from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.audit import (
    AuditError,
    Chain,
    Countersignature,
    CutError,
    Entry,
    ForkError,
    MalformedError,
    Receipt,
    ReceiptError,
    SignedHead,
    Start,
    check_growth,
    check_receipt,
    dump_countersignature,
    dump_receipt,
    is_fork,
    load_countersignature,
    load_receipt,
    read_log,
    receipt_in,
)
from secagg.audit.chain import next_head
from secagg.messages import encode
from tests.audit.helpers import (
    BEGAN_MS,
    CONTENTS,
    LOG_ID,
    NEXT,
    OTHER,
    PARTIES,
    SERVER,
    WITNESSES,
    Writer,
    aborted,
    completed,
    round_id,
    written,
)

RECEIPT = written().receipts[2]
FILE = dump_receipt(RECEIPT)


def test_a_participant_proves_from_its_receipt_alone_that_its_round_is_in_the_chain() -> None:
    kept = load_receipt(FILE)
    content = check_receipt(kept, server=SERVER.identity, party=PARTIES[0], round_id=round_id(1))
    assert content == completed(1)


def test_every_entry_has_a_receipt() -> None:
    for receipt in written().receipts:
        check_receipt(load_receipt(dump_receipt(receipt)), server=SERVER.identity)


@pytest.mark.parametrize(
    ("demand", "what"),
    [
        ({"party": PARTIES[4]}, "is not among the survivors"),
        ({"round_id": round_id(2)}, "is not of the round"),
        ({"server": OTHER.identity}, "its head is not signed by"),
    ],
)
def test_a_receipt_proves_nothing_else(demand: dict[str, bytes], what: str) -> None:
    with pytest.raises(ReceiptError, match=what):
        check_receipt(RECEIPT, **({"server": SERVER.identity} | demand))  # type: ignore[arg-type]


def test_an_aborted_round_has_no_survivors_and_a_withdrawal_is_no_round() -> None:
    for receipt in (written().receipts[3], written().receipts[4]):
        with pytest.raises(ReceiptError, match="is not among the survivors"):
            check_receipt(receipt, server=SERVER.identity, party=PARTIES[0])
    with pytest.raises(ReceiptError, match="is not of the round"):
        check_receipt(written().receipts[4], server=SERVER.identity, round_id=round_id(1))


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_any_one_changed_byte_of_a_receipt_is_found(at: int, change: int) -> None:
    with pytest.raises(AuditError):
        check_receipt(
            load_receipt(FILE[:at] + bytes([FILE[at] ^ change]) + FILE[at + 1 :]), server=SERVER.identity
        )


@given(st.binary(max_size=300))
def test_any_bytes_are_no_receipt(data: bytes) -> None:
    for kept in (data, FILE[:23] + data):
        with pytest.raises(MalformedError):
            load_receipt(kept)


def signed_receipt(entry: Entry, previous: bytes, **changes: object) -> Receipt:
    """Anything, rightly signed: what a lying server can make."""
    head = next_head(previous, encode(entry))
    signed = replace(SignedHead(LOG_ID, entry.index, head, entry.time, bytes(64)), **changes)  # type: ignore[arg-type]
    return Receipt(
        entry, previous, SignedHead.sign(signed.log_id, signed.index, signed.head, signed.time, SERVER)
    )


def test_a_receipt_of_a_lying_server_that_contradicts_itself_is_refused() -> None:
    entry, previous = RECEIPT.entry, RECEIPT.previous
    start = written().receipts[0]
    wrong = {
        "the signed head is of entry 9": signed_receipt(entry, previous, index=9),
        "the signed head is of entry 2": signed_receipt(entry, previous, time=4),
        "the entry is not the one": signed_receipt(entry, previous, head=bytes(32)),
        "begins with its start": signed_receipt(entry, bytes(32)),
        "begins with its start, and": signed_receipt(replace(entry, index=0), bytes(32)),
        "begins with its start, and nowhere": signed_receipt(start.entry, previous),
        "the start is that of another log": signed_receipt(start.entry, bytes(32), log_id=bytes(32)),
    }
    for what, receipt in wrong.items():
        with pytest.raises(ReceiptError, match=what):
            check_receipt(receipt, server=SERVER.identity)
    with pytest.raises(MalformedError):
        check_receipt(signed_receipt(replace(entry, content=b"x"), previous), server=SERVER.identity)


# --- receipts and logs


def test_a_receipt_is_in_the_log_however_long_it_becomes() -> None:
    writer = written()
    receipts = list(writer.receipts)
    writer.change_key(NEXT)
    receipts.append(writer.append(completed(9)))
    log = writer.log()
    assert [type(receipt_in(one, log)) for one in receipts][:3] == [
        Start,
        type(CONTENTS[0]),
        type(CONTENTS[1]),
    ]


def test_a_server_that_forked_is_proved_to_have() -> None:
    honest = written(CONTENTS[:3])
    lying = honest.copy()
    receipt = honest.append(completed(7))
    lying.append(completed(8))
    for more in (0, 1, 2):
        log = lying.log()
        with pytest.raises(ForkError, match="is not what it was") as caught:
            receipt_in(receipt, log)
        assert (caught.value.seen, caught.value.shown) == (receipt.signed, log.signed)
        assert caught.value.seen.signed_by(SERVER.identity)
        assert caught.value.shown.signed_by(SERVER.identity)
        assert caught.value.exit_status == 1
        if more == 0:  # two heads of one place convince without a log
            assert is_fork(receipt.signed, log.signed, server=SERVER.identity)
        lying.append(aborted(20 + more))


def test_a_fork_is_proved_also_when_the_key_was_changed_in_one_branch() -> None:
    honest = written(CONTENTS[:3])
    lying = honest.copy()
    receipt = honest.append(completed(7))
    lying.change_key(NEXT)
    lying.append(completed(8))
    with pytest.raises(ForkError):
        receipt_in(receipt, lying.log())


def test_a_log_that_was_only_cut_is_older_or_shortened() -> None:
    honest = written(CONTENTS[:3])
    before = honest.log()
    receipt = honest.append(completed(7))
    with pytest.raises(CutError, match="ends with entry 3, the server signed entry 4 before") as caught:
        receipt_in(receipt, before)
    assert caught.value.shown == before.signed


def test_a_log_that_went_on_elsewhere_is_a_fork_although_it_is_shorter() -> None:
    honest = written(CONTENTS[:3])
    lying = honest.copy()
    for i in range(30, 33):
        honest.append(aborted(i))
    lying.time += 60_000
    lying.append(completed(8))
    log = lying.log()
    with pytest.raises(ForkError, match="goes on without an entry"):
        receipt_in(honest.receipts[-1], log)
    assert is_fork(honest.receipts[-1].signed, log.signed, server=SERVER.identity)


def test_a_receipt_of_another_log_or_server_proves_nothing() -> None:
    log = written().log()
    with pytest.raises(AuditError, match="is of the log"):
        receipt_in(Writer(log_id=bytes(32)).append(completed(1)), log)
    with pytest.raises(ReceiptError, match="not signed by a server of this log"):
        receipt_in(Writer(signer=OTHER).append(completed(1)), log)


def test_a_forged_receipt_does_not_accuse_an_honest_server() -> None:
    log = written().log()
    entry = Entry(2, BEGAN_MS, 2, encode(completed(99)))
    head = next_head(RECEIPT.previous, encode(entry))
    signed = SignedHead.sign(LOG_ID, 2, head, BEGAN_MS, OTHER)
    with pytest.raises(ReceiptError):
        receipt_in(Receipt(entry, RECEIPT.previous, signed), log)
    with pytest.raises(ReceiptError):
        receipt_in(Receipt(entry, RECEIPT.previous, replace(signed, signature=RECEIPT.signed.signature)), log)
    with pytest.raises(AuditError, match="not signed by a server of this log"):
        check_growth(signed, log)


# --- growth


def test_a_log_that_only_grows_is_accepted_from_every_head_before() -> None:
    log = written().log()
    for receipt in written().receipts:
        check_growth(receipt.signed, log)


@given(st.integers(1, 5), st.integers(0, 4))
def test_whatever_is_changed_before_a_head_that_was_seen_is_found(at: int, more: int) -> None:
    honest = written()
    lying = written(CONTENTS[: at - 1])
    lying.append(aborted(77))
    for i in range(len(CONTENTS) - at + more):
        lying.append(aborted(100 + i))
    with pytest.raises(ForkError):
        check_growth(honest.receipts[-1].signed, lying.log())
    check_growth(honest.receipts[at - 1].signed, lying.log())  # up to there it is the same


def test_a_removed_entry_is_found() -> None:
    lying = written((*CONTENTS[:2], *CONTENTS[3:], aborted(50), aborted(51)))
    with pytest.raises(ForkError):
        check_growth(written().receipts[-1].signed, lying.log())


def test_a_reordered_log_is_found() -> None:
    lying = written((CONTENTS[0], CONTENTS[2], CONTENTS[1], *CONTENTS[3:]))
    with pytest.raises(ForkError):
        check_growth(written().receipts[-1].signed, lying.log())
    check_growth(written().receipts[1].signed, lying.log())


def test_heads_of_one_log_are_no_fork() -> None:
    heads = [receipt.signed for receipt in written().receipts]
    assert not any(is_fork(one, other, server=SERVER.identity) for one in heads for other in heads)


def test_what_the_server_did_not_sign_is_no_evidence() -> None:
    one = written().receipts[3].signed
    assert not is_fork(one, replace(one, head=bytes(32)), server=SERVER.identity)
    other = SignedHead.sign(LOG_ID, 3, bytes(32), one.time, SERVER)
    assert is_fork(one, other, server=SERVER.identity)
    assert not is_fork(one, other, server=OTHER.identity)
    elsewhere = SignedHead.sign(bytes(32), 3, bytes(32), one.time, SERVER)
    assert not is_fork(one, elsewhere, server=SERVER.identity)


# --- witnesses, and values that travel


def test_a_witness_that_was_shown_one_branch_does_not_stand_in_the_other() -> None:
    honest = written(CONTENTS[:3])
    lying = honest.copy()
    honest.append(completed(7))
    honest.witness(WITNESSES[0])
    lying.append(completed(8))
    lying.countersignatures = honest.countersignatures
    with pytest.raises(AuditError, match="countersignature 0: is not that of"):
        read_log(io.BytesIO(lying.file()), witnesses=[WITNESSES[0].identity])


def test_a_countersignature_travels_in_a_file() -> None:
    one = Countersignature.sign(RECEIPT.signed, WITNESSES[0])
    assert load_countersignature(dump_countersignature(one)) == one
    for data in (b"", FILE, dump_countersignature(one)[:-1], dump_countersignature(one) + b"\0"):
        with pytest.raises(MalformedError, match="countersignature: "):
            load_countersignature(data)


def test_errors_and_values_survive_copying_and_pickling() -> None:
    error = ForkError("log: x", RECEIPT.signed, RECEIPT.signed)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(again), again.seen, again.shown) == (str(error), error.seen, error.shown)
    assert pickle.loads(pickle.dumps(RECEIPT)) == RECEIPT
    assert pickle.loads(pickle.dumps(Chain())) == Chain()
