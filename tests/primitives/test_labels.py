import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.primitives.labels import context_digest, digest, encode

purposes = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
parts = st.lists(st.binary(max_size=40), max_size=5)


def test_encoding_by_hand() -> None:
    assert encode("roster") == b"secagg/v1/roster\x00"
    assert encode("share", b"") == b"secagg/v1/share\x00\x00\x00\x00\x00"
    assert encode("place", b"ab", b"\x00" * 258) == (
        b"secagg/v1/place\x00" + b"\x00\x00\x00\x02ab" + b"\x00\x00\x01\x02" + b"\x00" * 258
    )


def test_digest_is_sha_256_of_the_encoding() -> None:
    assert digest("roster", b"x", b"yz") == (
        hashlib.sha256(b"secagg/v1/roster\x00\x00\x00\x00\x01x\x00\x00\x00\x02yz").digest()
    )


def test_context_digest_has_the_purpose_context() -> None:
    assert context_digest(b"model", b"") == (
        hashlib.sha256(b"secagg/v1/context\x00\x00\x00\x00\x05model\x00\x00\x00\x00").digest()
    )


@given(one=st.tuples(purposes, parts), other=st.tuples(purposes, parts))
def test_different_inputs_have_different_encodings(
    one: tuple[str, list[bytes]], other: tuple[str, list[bytes]]
) -> None:
    assert (encode(one[0], *one[1]) == encode(other[0], *other[1])) is (one == other)


@given(pieces=st.lists(st.binary(max_size=10), min_size=2, max_size=5), cut=st.integers(0, 10))
def test_moving_a_boundary_between_parts_shows(pieces: list[bytes], cut: int) -> None:
    joined = pieces[0] + pieces[1]
    moved = [joined[:cut], joined[cut:], *pieces[2:]]
    assert (digest("context", *moved) == digest("context", *pieces)) is (moved == pieces)


def test_parts_may_be_views() -> None:
    assert encode("upload", memoryview(b"xyz")[1:]) == encode("upload", b"yz")


def test_purposes_are_ascii() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode("größe")
