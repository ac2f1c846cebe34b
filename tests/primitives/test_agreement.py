import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.primitives.agreement import SMALL_ORDER, agree, is_usable, public_key
from tests.primitives.helpers import P, square_root

A = 486662
secrets_ = st.binary(min_size=32, max_size=32)


def key_of(u: int) -> bytes:
    return u.to_bytes(32, "little")


def test_rfc_7748_vectors() -> None:
    # 5.2, the first vector
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert agree(scalar, u).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    # 6.1, Diffie-Hellman
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert public_key(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert public_key(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert agree(alice, public_key(bob)).hex() == agree(bob, public_key(alice)).hex() == shared


@settings(max_examples=40)
@given(mine=secrets_, theirs=secrets_)
def test_keys_agree_with_another_library(mine: bytes, theirs: bytes) -> None:
    other = X25519PrivateKey.from_private_bytes(theirs)
    assert public_key(theirs) == other.public_key().public_bytes_raw()
    shared = other.exchange(X25519PublicKey.from_public_bytes(public_key(mine)))
    assert agree(mine, public_key(theirs)) == agree(theirs, public_key(mine)) == shared


@settings(max_examples=40)
@given(secret=secrets_)
def test_honest_keys_are_usable(secret: bytes) -> None:
    assert is_usable(public_key(secret))


def halves_of(c: int) -> set[int]:
    """Every u whose double is c, for c = 1 or -1.

    (u^2 - 1)^2 = 4 c u (u^2 + A u + 1) is a quadratic in v = u + 1/u: v^2 - 4 c v = 4 + 4 c A.
    """
    found = set()
    outer = square_root(8 + 4 * c * A)
    for v in () if outer is None else (2 * c + outer, 2 * c - outer):
        inner = square_root(v * v - 4)
        found |= set() if inner is None else {(v + side * inner) * pow(2, -1, P) % P for side in (1, -1)}
    return found


def test_the_list_of_small_orders_is_complete() -> None:
    # Infinity is the double of 0 and of the roots of u^2 + A u + 1, of which there are none.
    assert square_root(A * A - 4) is None
    # 0 is the double of 1 and -1. Curve and twist have cofactors 8 and 4, so one more halving is all.
    assert {0, 1, P - 1} | halves_of(1) | halves_of(-1) == SMALL_ORDER


@pytest.mark.parametrize("u", sorted(SMALL_ORDER))
def test_small_order_keys_are_not_usable_and_the_library_refuses_them(u: int) -> None:
    assert not is_usable(key_of(u))
    for secret in (bytes(32), bytes(range(32)), b"\xff" * 32):
        with pytest.raises(RuntimeError):
            agree(secret, key_of(u))


@pytest.mark.parametrize("u", [2, 8, 9, 10, P - 2, P - 9])
def test_other_small_numbers_are_usable(u: int) -> None:
    assert is_usable(key_of(u))
    assert len(agree(bytes(range(32)), key_of(u))) == 32


@pytest.mark.parametrize("u", [*range(P, 2**255), 2**255 + 9, 2**255, 2**256 - 1])
def test_keys_that_are_not_canonical_are_not_usable(u: int) -> None:
    assert not is_usable(key_of(u))
