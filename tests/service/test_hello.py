from dataclasses import replace
from typing import Any

import msgspec
import pytest

from secagg import IdentityKey, ParameterError
from secagg.service import HelloError
from secagg.service.hello import Hello, check_hello, check_place, make_hello, read_hello

KEY, STRANGER = (IdentityKey.from_seed(bytes([i]) * 32) for i in (1, 2))
ENROLLED = frozenset([KEY.identity])
CERTIFICATE, NONCE = b"c" * 32, b"n" * 32


def checked(content: bytes) -> Hello:
    hello = read_hello(content)
    check_hello(hello, CERTIFICATE, NONCE, ENROLLED)
    return hello


def test_an_enrolled_party_proves_itself_and_says_what_it_resumes() -> None:
    hello = checked(make_hello(KEY, CERTIFICATE, NONCE, place="trial/first", resume=b"r" * 16))
    assert (hello.identity, hello.place, hello.resume) == (KEY.identity, "trial/first", b"r" * 16)
    assert checked(make_hello(KEY, CERTIFICATE, NONCE)).resume == b""


def test_a_stranger_is_refused() -> None:
    with pytest.raises(HelloError, match="not enrolled"):
        checked(make_hello(STRANGER, CERTIFICATE, NONCE))


def test_a_stranger_hears_the_same_whomever_it_claims_to_be_and_whatever_runs_here() -> None:
    words = set()
    for claimed in (KEY, STRANGER):
        for enrolled in (ENROLLED, None):
            with pytest.raises(HelloError) as caught:
                check_hello(Hello(claimed.identity, "a/b", b"", bytes(64)), CERTIFICATE, NONCE, enrolled)
            words.add(str(caught.value))
    (said,) = words
    assert KEY.identity.hex()[:6] not in said


@pytest.mark.parametrize(
    "changed", [{"place": "trial/second"}, {"resume": b"x" * 16}, {"identity": STRANGER.identity}]
)
def test_a_hello_of_which_anything_was_changed_is_refused(changed: dict[str, Any]) -> None:
    hello = read_hello(make_hello(KEY, CERTIFICATE, NONCE, place="trial/first", resume=b"r" * 16))
    with pytest.raises(HelloError, match="its signature"):
        check_hello(replace(hello, **changed), CERTIFICATE, NONCE, ENROLLED)


@pytest.mark.parametrize(("certificate", "nonce"), [(b"x" * 32, NONCE), (CERTIFICATE, b"x" * 32)])
def test_a_hello_to_another_server_or_of_another_time_is_refused(certificate: bytes, nonce: bytes) -> None:
    with pytest.raises(HelloError, match="its signature"):
        checked(make_hello(KEY, certificate, nonce))


@pytest.mark.parametrize(
    "content", [b"", bytes(96), b"\xff" * 100, msgspec.msgpack.encode([b"", "a/b", b"", b""])]
)
def test_a_hello_of_another_shape_is_refused(content: bytes) -> None:
    with pytest.raises(HelloError, match="hello: "):
        checked(content)


@pytest.mark.parametrize("place", ["trial", "a/b/c", "/b", "a/", "a b/c", "ä/b", "a/" + "b" * 65, "../x"])
def test_what_is_no_place_is_refused_on_both_sides(place: str) -> None:
    with pytest.raises(ParameterError, match="FEDERATION/RUN"):
        check_place(place)
    with pytest.raises(HelloError, match="no run is called so"):
        checked(make_hello(KEY, CERTIFICATE, NONCE, place=place))
