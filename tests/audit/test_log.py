from __future__ import annotations

import io
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secagg.audit import BrokenLogError, Countersignature, MalformedError, SignedHead, read_log, write_log
from secagg.audit.chain import next_head
from secagg.audit.log import LENGTH_BYTES, MAGIC
from secagg.messages import encode
from tests.audit.helpers import (
    CONTENTS,
    LOG_ID,
    NEXT,
    OTHER,
    SERVER,
    WITNESSES,
    Writer,
    check,
    completed,
    findings,
    written,
)


def whole() -> Writer:
    """A log with everything in it: a change of key, and two witnesses."""
    writer = written()
    writer.witness(WITNESSES[0])
    writer.change_key(NEXT)
    writer.append(completed(9))
    for key in WITNESSES:
        writer.witness(key)
    return writer


FILE = whole().file()


def frames(data: bytes) -> list[bytes]:
    at, out = len(MAGIC), []
    while at < len(data):
        length = int.from_bytes(data[at : at + LENGTH_BYTES], "big")
        out.append(data[at + LENGTH_BYTES : at + LENGTH_BYTES + length])
        at += LENGTH_BYTES + length
    return out


def joined(parts: list[bytes]) -> bytes:
    return MAGIC + b"".join(len(part).to_bytes(LENGTH_BYTES, "big") + part for part in parts)


def test_a_log_says_what_is_in_it() -> None:
    report = check(FILE, server=SERVER.identity, witnesses=[key.identity for key in WITNESSES])
    assert report.findings == ()
    assert report.ok
    assert (report.log_id, report.entries, report.rounds) == (LOG_ID, 9, 4)
    assert report.signers == (SERVER.identity, NEXT.identity)
    assert report.signed == whole().receipts[-1].signed
    assert report.witnessed == {key.identity: 8 for key in WITNESSES}


def test_a_log_that_was_read_is_the_one_that_was_written() -> None:
    writer, log = whole(), read_log(io.BytesIO(FILE))
    assert list(log.entries) == [receipt.entry for receipt in writer.receipts]
    assert [log.head(i) for i in range(9)] == [receipt.signed.head for receipt in writer.receipts]
    assert set(log.countersignatures) == set(writer.countersignatures)


def test_the_first_identity_and_the_newest_are_both_the_servers() -> None:
    assert findings(FILE, server=NEXT.identity) == []
    assert findings(FILE, server=OTHER.identity) == ["the log is not signed by the server asked for"]


def test_a_witness_that_signed_nothing_is_missed() -> None:
    (what,) = findings(FILE, witnesses=[OTHER.identity])
    assert what == f"the witness {OTHER.identity.hex()} has countersigned nothing"


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_any_one_changed_byte_is_found(at: int, change: int) -> None:
    assert findings(FILE[:at] + bytes([FILE[at] ^ change]) + FILE[at + 1 :])


def test_every_flipped_bit_of_low_and_high_order_is_found() -> None:
    for at in range(len(FILE)):
        for change in (0x01, 0x80):
            assert findings(FILE[:at] + bytes([FILE[at] ^ change]) + FILE[at + 1 :]), at


def test_any_one_removed_byte_is_found() -> None:
    for at in range(len(FILE)):
        assert findings(FILE[:at] + FILE[at + 1 :]), at


@given(st.integers(0, len(FILE)), st.binary(min_size=1, max_size=20))
def test_inserted_bytes_are_found(at: int, what: bytes) -> None:
    changed = FILE[:at] + what + FILE[at:]
    assert changed != FILE
    assert findings(changed)


def test_any_two_neighbors_that_change_places_are_found() -> None:
    for at in range(len(FILE) - 1):
        one, other = FILE[at : at + 1], FILE[at + 1 : at + 2]
        if one != other:
            assert findings(FILE[:at] + other + one + FILE[at + 2 :]), at


def test_a_file_that_is_cut_anywhere_is_found() -> None:
    for at in range(len(FILE)):
        assert findings(FILE[:at]), at


@given(st.lists(st.integers(0, 12), max_size=14))
@example([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
def test_parts_removed_repeated_or_reordered_are_found(order: list[int]) -> None:
    parts = frames(FILE)
    assert len(parts) == 14
    changed = [parts[i] for i in order]
    assert findings(joined(changed)) or changed == parts


def test_a_server_that_signs_again_what_it_changed_is_not_found_in_the_file_alone() -> None:
    """The limit: for that there are receipts, older files and witnesses (test_receipts.py)."""
    assert findings(written(CONTENTS[:3]).file()) == []


@given(st.binary(max_size=400))
def test_any_bytes_have_a_report(data: bytes) -> None:
    assert check(data).findings
    assert check(MAGIC + data).findings
    with pytest.raises(BrokenLogError):
        read_log(io.BytesIO(MAGIC + data))


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_frames_have_a_report(parts: list[bytes]) -> None:
    assert check(joined(parts)).findings
    assert check(joined([*frames(FILE)[:2], *parts])).findings


def test_a_length_without_content_takes_no_memory() -> None:
    hostile = [
        MAGIC + (2**63).to_bytes(8, "big"),
        MAGIC + (2**25).to_bytes(8, "big") + b"x",
        joined(frames(FILE)[:10]) + (2**40).to_bytes(8, "big") + bytes(100),
        MAGIC + bytes(8) * 100_000,  # empty entries
        joined([b"\xff"] * 200_000),
    ]
    tracemalloc.start()
    for data in hostile:
        assert 0 < len(check(data).findings) < 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_many_countersignatures_are_announced_and_none_comes() -> None:
    parts = frames(FILE)
    tail = parts.index(b"") + 1
    writer = whole()
    write_log(file := io.BytesIO(), parts[: tail - 1], writer.receipts[-1].signed, [])
    data = file.getvalue()
    assert check(data).ok
    signed = encode(writer.receipts[-1].signed)
    many = b"\x0a" + bytes([len(signed) | 0x80, 1])[:2] + signed + b"\x10\xff\xff\xff\xff\x0f"
    assert any("countersignature 0 of 4294967295" in one for one in findings(joined([*parts[:tail], many])))


def test_a_report_has_everything_that_is_wrong_at_once() -> None:
    parts = frames(FILE)
    parts[2], parts[5] = parts[5], parts[2]
    told = findings(joined(parts), server=OTHER.identity)
    assert {one.partition(":")[0] for one in told} >= {"entry 2", "entry 5"}
    assert "the log is not signed by the server asked for" in told
    assert "the entries are not those that were signed" in told


def test_a_file_full_of_nonsense_is_given_up() -> None:
    told = findings(joined([b"\xff"] * 500))
    assert len(told) < 105
    assert "too much is wrong to go on" in told


def test_a_round_twice_in_the_log_is_found() -> None:
    writer = written()
    writer.append(completed(1))
    (what,) = findings(writer.file())
    assert what.startswith("entry 7: the round")
    assert what.endswith("is entry 2 already")


def test_times_that_fall_and_places_that_jump_are_found() -> None:
    writer = written()
    entry = replace(writer.receipts[-1].entry, index=9, time=1)
    head = next_head(writer.chain.head, encode(entry))
    signed = SignedHead.sign(LOG_ID, 7, head, writer.chain.time, SERVER)
    file = io.BytesIO()
    write_log(file, [*(encode(one.entry) for one in writer.receipts), encode(entry)], signed)
    told = findings(file.getvalue())
    assert "entry 7: Entry.index: must be 7, is 9" in told
    assert any(one.startswith("entry 7: Entry.time: must be at least") for one in told)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"log_id": bytes(32)}, "the signed head is of another log"),
        ({"index": 5}, "the signed head is of entry 5, the last is 6"),
        ({"head": bytes(32)}, "the entries are not those that were signed"),
        ({"time": 1}, "the signed head is of 1 ms"),
    ],
)
def test_a_head_signed_for_something_else_is_found(change: dict[str, object], what: str) -> None:
    writer = written()
    signed = replace(writer.receipts[-1].signed, **change)  # type: ignore[arg-type]
    signed = SignedHead.sign(signed.log_id, signed.index, signed.head, signed.time, SERVER)
    file = io.BytesIO()
    write_log(file, [encode(one.entry) for one in writer.receipts], signed)
    (told,) = findings(file.getvalue())
    assert told.startswith(what)


def test_the_old_key_does_not_sign_after_it_was_changed() -> None:
    writer = whole()
    last = writer.receipts[-1].signed
    signed = SignedHead.sign(LOG_ID, last.index, last.head, last.time, SERVER)
    file = io.BytesIO()
    write_log(file, [encode(one.entry) for one in writer.receipts], signed)
    assert findings(file.getvalue()) == ["the signature of the head is not the server's"]


def test_a_countersignature_of_another_head_or_witness_is_found() -> None:
    writer = whole()
    right = writer.countersignatures[0]
    for wrong in (
        replace(right, index=right.index - 1),
        replace(right, index=99),
        replace(right, witness=OTHER.identity),
        Countersignature.sign(replace(writer.receipts[3].signed, log_id=bytes(32)), WITNESSES[0]),
    ):
        writer.countersignatures = [wrong]
        (told,) = findings(writer.file())
        assert told == f"countersignature 0: is not that of {wrong.witness.hex()} here"


def test_a_file_that_is_too_large_to_be_read_whole_can_be_verified() -> None:
    with pytest.raises(MalformedError, match="log: must have up to 100 bytes to be read whole"):
        read_log(io.BytesIO(FILE), limit_bytes=100)
    assert check(FILE).ok


def test_a_broken_log_says_what_is_wrong_first_and_has_the_rest() -> None:
    parts = frames(FILE)
    del parts[3]
    with pytest.raises(BrokenLogError, match=r"log: entry 3: .* more\)") as caught:
        read_log(io.BytesIO(joined(parts)))
    assert len(caught.value.report.findings) > 2
    assert caught.value.exit_status == 1
