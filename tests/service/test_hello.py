import pytest

from secagg import IdentityKey
from secagg.service import HelloError, Registry
from secagg.service.hello import check_hello, make_hello

KEY, STRANGER = (IdentityKey.from_seed(bytes([i]) * 32) for i in (1, 2))
REGISTRY = Registry.of([("a", KEY.identity)])
CERTIFICATE, NONCE = b"c" * 32, b"n" * 32


def test_an_enrolled_party_proves_itself_and_says_what_it_resumes() -> None:
    hello = check_hello(make_hello(KEY, CERTIFICATE, NONCE, b"r" * 16), CERTIFICATE, NONCE, REGISTRY)
    assert (hello.identity, hello.resume) == (KEY.identity, b"r" * 16)
    assert check_hello(make_hello(KEY, CERTIFICATE, NONCE), CERTIFICATE, NONCE, REGISTRY).resume == b""


def test_a_stranger_is_refused() -> None:
    with pytest.raises(HelloError, match="not enrolled"):
        check_hello(make_hello(STRANGER, CERTIFICATE, NONCE), CERTIFICATE, NONCE, REGISTRY)


def test_a_stranger_hears_neither_a_party_s_name_nor_who_is_enrolled() -> None:
    """Whoever claims an identity hears the same, whether or not it is somebody's here."""
    registry = Registry.of([("hospital-of-the-secret-trial", KEY.identity)])
    words = set()
    for claimed in (KEY, STRANGER):
        with pytest.raises(HelloError) as caught:
            check_hello(claimed.identity + bytes(64), CERTIFICATE, NONCE, registry)
        words.add(str(caught.value))
    (said,) = words
    assert "hospital" not in said
    assert KEY.identity.hex()[:6] not in said


@pytest.mark.parametrize(("certificate", "nonce"), [(b"x" * 32, NONCE), (CERTIFICATE, b"x" * 32)])
def test_a_hello_to_another_server_or_of_another_time_is_refused(certificate: bytes, nonce: bytes) -> None:
    with pytest.raises(HelloError, match="its signature"):
        check_hello(make_hello(KEY, certificate, nonce), CERTIFICATE, NONCE, REGISTRY)


@pytest.mark.parametrize("size", [0, 95, 97, 111, 113])
def test_a_hello_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(HelloError, match=f"has {size}"):
        check_hello(bytes(size), CERTIFICATE, NONCE, REGISTRY)
