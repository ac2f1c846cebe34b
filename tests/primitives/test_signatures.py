import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import ParameterError
from secagg.primitives.signatures import IdentityKey, check_identity, verify
from tests.primitives.helpers import P, square_root

D = -121665 * pow(121666, -1, P) % P
SIGN = 1 << 255
ORDER = 2**252 + 27742317777372353535851937790883648493

# RFC 8032, 7.1: seed, public key, message, signature of TEST 1, 2 and 3.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac"
            "c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e"
            "458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290"
            "ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign * SIGN).to_bytes(32, "little")


def y_of_order_8() -> list[int]:
    """Double a point (x, y) to (.., 0): x^2 = -y^2, so by the curve d y^4 + 2 y^2 - 1 = 0."""
    outer = square_root(1 + D)
    assert outer is not None
    roots = [square_root((side * outer - 1) * pow(D, -1, P)) for side in (1, -1)]
    return [value for y in roots if y is not None for value in (y, P - y)]


SMALL_ORDER = {
    "order 1": encoded(1),
    "order 2": encoded(P - 1),
    "order 4": encoded(0),
    "order 4, other sign": encoded(0, 1),
    **{
        f"order 8, y {i}, sign {sign}": encoded(y, sign)
        for i, y in enumerate(y_of_order_8())
        for sign in (0, 1)
    },
}


def test_there_are_eight_points_of_small_order() -> None:
    assert len(set(SMALL_ORDER.values())) == 8


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_rfc_8032_vectors(seed: str, public: str, message: str, signature: str) -> None:
    key = IdentityKey.from_seed(bytes.fromhex(seed))
    assert key.identity.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert verify(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))
    assert check_identity(key.identity) == key.identity


@settings(max_examples=50)
@given(seed=st.binary(min_size=32, max_size=32), text=st.binary(max_size=100), data=st.data())
def test_a_changed_bit_anywhere_does_not_verify(seed: bytes, text: bytes, data: st.DataObject) -> None:
    key = IdentityKey.from_seed(seed)
    signature = key.sign(text)
    assert verify(key.identity, text, signature)
    whole = key.identity + signature + text
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    assert not verify(bytes(changed[:32]), bytes(changed[96:]), bytes(changed[32:96]))


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_signatures_of_another_size_do_not_verify(size: int) -> None:
    key = IdentityKey.from_seed(bytes(32))
    signature = (key.sign(b"text") * 2)[:size]
    assert not verify(key.identity, b"text", signature)
    # the bytes around the split are a right signature: only the size tells
    assert not verify(key.identity, b"ext", key.sign(b"text") + b"t")


def test_a_signature_with_a_large_scalar_does_not_verify() -> None:
    key = IdentityKey.from_seed(bytes(32))
    signature = key.sign(b"text")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(key.identity, b"text", signature[:32] + scalar.to_bytes(32, "little"))


@pytest.mark.parametrize("name", SMALL_ORDER)
def test_small_order_keys_sign_nothing(name: str) -> None:
    key = SMALL_ORDER[name]
    for commitment in SMALL_ORDER.values():
        for text in (b"", b"a", b"b", b"c"):
            assert not verify(key, text, commitment + bytes(32))


def test_a_small_order_commitment_does_not_verify() -> None:
    # With S = 0 and R of small order, h A = -R is needed; libsodium refuses R before it looks.
    key = IdentityKey.from_seed(bytes(32))
    for commitment in SMALL_ORDER.values():
        assert not verify(key.identity, b"text", commitment + bytes(32))


@pytest.mark.parametrize("name", SMALL_ORDER)
def test_identities_of_small_order_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="is of small order"):
        check_identity(SMALL_ORDER[name])


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", range(P, 2**255))
def test_identities_that_are_not_canonical_are_refused(y: int, sign: int) -> None:
    with pytest.raises(ParameterError, match="is not canonical"):
        check_identity(encoded(y, sign))


@pytest.mark.parametrize("y", [1, P - 1])
def test_a_negative_zero_is_refused(y: int) -> None:
    with pytest.raises(ParameterError, match=r"small order|not on the curve|not canonical"):
        check_identity(encoded(y, 1))


def test_identities_off_the_curve_are_refused() -> None:
    off = [y for y in range(2, 40) if square_root((y * y - 1) * pow(D * y * y + 1, -1, P) % P) is None]
    assert len(off) > 10
    for y in off:
        for sign in (0, 1):
            with pytest.raises(ParameterError, match="is not on the curve"):
                check_identity(encoded(y, sign))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_identities_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(ParameterError, match=f"identity: must be 32 bytes, is {size}"):
        check_identity(bytes(size))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_seeds_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(ParameterError, match=f"seed: must be 32 bytes, is {size}"):
        IdentityKey.from_seed(bytes(size))


def test_generate_takes_exactly_32_bytes_of_entropy() -> None:
    asked = []

    def entropy(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    key = IdentityKey.generate(entropy)
    assert asked == [32]
    assert key == IdentityKey.from_seed(bytes(range(32)))
    assert key.seed == bytes(range(32))


def test_the_secret_shows_in_no_repr() -> None:
    seed = bytes(range(50, 82))
    key = IdentityKey.from_seed(seed)
    assert repr(key) == f"IdentityKey(identity={key.identity!r})"
    assert seed.hex() not in repr(key)


def test_an_identity_key_is_not_pickled() -> None:
    key = IdentityKey.from_seed(bytes(32))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="an IdentityKey is not pickled"):
            pickle.dumps(key, protocol)
    with pytest.raises(TypeError, match="an IdentityKey is not pickled"):
        copy.copy(key)
