from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.audit import (
    Chain,
    Content,
    Entry,
    EntryKind,
    MalformedError,
    RegistryChange,
    Round,
    Start,
    Withdrawal,
    check_content,
    content_of,
    kind_of,
    survivors_of,
)
from secagg.audit.entries import ENTRY_BYTES, NAME_BYTES, REASON_BYTES, TIME_LIMIT, decode_entry
from secagg.errors import ParameterError
from secagg.messages import encode
from tests.audit.helpers import CONTENTS, LOG_ID, NEXT, PARTIES, SERVER, Writer, aborted, completed

EVERY: tuple[Content, ...] = (
    Start(1, LOG_ID, SERVER.identity),
    *CONTENTS,
    Writer().chain.hand_over(SERVER, NEXT),
)


@pytest.mark.parametrize("content", EVERY, ids=lambda one: type(one).__name__)
def test_what_is_encoded_is_decoded(content: Content) -> None:
    check_content(content)
    entry = Entry(3, 17, kind_of(content), encode(content))
    assert decode_entry(encode(entry)) == entry
    assert content_of(entry) == content


def test_every_kind_has_its_number() -> None:
    names = {kind_of(one): type(one).__name__ for one in EVERY}
    assert [names[kind] for kind in EntryKind] == [
        *("Start", "Round", "RegistryChange", "Withdrawal", "KeyChange")
    ]
    assert list(map(int, EntryKind)) == [1, 2, 3, 4, 5]


def test_an_entry_is_these_bytes() -> None:
    """Known answer: a file written today is read by a program of tomorrow."""
    entry = Entry(1, 2, kind_of(EVERY[4]), encode(Withdrawal.of("f", b"\7" * 32)))
    assert encode(entry).hex() == "080110021804" + "2225" + "0a0166" + "1220" + "07" * 32


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (replace(completed(1), place=b"hearts"), "Round.place: must be FEDERATION/RUN"),
        (replace(completed(1), place=b"a/b/c"), "Round.place: must be FEDERATION/RUN"),
        (replace(completed(1), place=b"/b"), "Round.place: must be FEDERATION/RUN"),
        (replace(completed(1), place=b"a/\x1b[2J"), "Round.place: must be printable UTF-8"),
        (replace(completed(1), place=b"a/\xff"), "Round.place: must be printable UTF-8"),
        (replace(completed(1), place=b"a/" + b"b" * NAME_BYTES), "Round.place: must have"),
        (replace(completed(1), place=b""), "Round.place: missing"),
        (completed(1, place="a/\ud800"), "Round.place: must be printable UTF-8"),
        (replace(completed(1), round_id=b"short"), "Round.round_id: must have"),
        (replace(completed(1), outcome=0), "Round.outcome: must be in 1..2"),
        (replace(completed(1), outcome=3), "Round.outcome: must be in 1..2"),
        (replace(completed(1), total_digest=b""), "Round.total_digest"),
        (replace(completed(1), survivors=()), "Round.total_digest"),
        (replace(completed(1), reason=b"why"), "Round.reason: an aborted round, and no other"),
        (replace(completed(1), survivors=(PARTIES[0],) * 2), "Round.survivors: not strictly ascending"),
        (replace(completed(1), transcript=b"x"), "Round.transcript: must have"),
        (replace(aborted(1), reason=b""), "Round.reason: an aborted round, and no other"),
        (replace(aborted(1), reason=b"x" * (REASON_BYTES + 1)), "Round.reason: must have"),
        (replace(aborted(1), total_digest=bytes(32)), "Round.total_digest"),
        (Withdrawal(b"a\n", PARTIES[0]), "Withdrawal.federation: must be printable"),
        (Withdrawal(b"a", b"x"), "Withdrawal.identity: must have"),
        (RegistryChange(b"\x7f", 1, bytes(32)), "RegistryChange.federation: must be printable"),
        (RegistryChange(b"a", 2**32, bytes(32)), "RegistryChange.version: must be in"),
        (RegistryChange(b"a", -1, bytes(32)), "RegistryChange: a number is below 0"),
        (Start(2, LOG_ID, SERVER.identity), "Start.version: must be 1, is 2: a newer program"),
    ],
)
def test_what_may_not_be_in_a_log_is_refused_by_name(content: Content, what: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_content(content)
    assert str(caught.value).startswith(what)


def test_an_unknown_kind_is_malformed() -> None:
    for kind in (0, 6, 200):
        with pytest.raises(MalformedError, match=r"Entry.kind: must be in 1\.\.5"):
            content_of(Entry(0, 0, kind, b""))


def test_an_entry_has_a_largest_size_and_a_latest_time() -> None:
    with pytest.raises(MalformedError, match="entry: must have up to"):
        decode_entry(bytes(ENTRY_BYTES + 1))
    with pytest.raises(ParameterError, match="time: must be below"):
        Chain().extend(EVERY[0], TIME_LIMIT, SERVER)


@given(st.text(max_size=1200))
def test_any_reason_of_an_abort_can_be_recorded(reason: str) -> None:
    check_content(Round.aborted("a/b", bytes(16), reason=reason))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_entry_or_malformed(data: bytes) -> None:
    try:
        entry = decode_entry(data)
        content_of(entry)
    except MalformedError:
        return
    assert encode(entry) == data


@given(st.sampled_from(list(EntryKind)), st.binary(max_size=300))
def test_any_bytes_are_content_or_malformed(kind: EntryKind, data: bytes) -> None:
    try:
        content = content_of(Entry(0, 0, kind, data))
    except MalformedError:
        return
    assert encode(content) == data


def test_survivors_are_sorted_and_only_those_of_rounds() -> None:
    made = Round.completed("a/b", bytes(16), total_digest=bytes(32), survivors=reversed(PARTIES))
    assert survivors_of(made) == set(PARTIES)
    assert list(made.survivors) == sorted(PARTIES)
    assert survivors_of(CONTENTS[0]) == set()
