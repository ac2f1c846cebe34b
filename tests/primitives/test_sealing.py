import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from secagg.primitives.sealing import hkdf, seal, unseal

keys = st.binary(min_size=32, max_size=32)
texts = st.binary(max_size=120)


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "okm"),
    [  # RFC 5869, A.1, A.2 and A.3; the first 32 bytes of each, as a longer output starts with them
        (
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
        ),
        (b"\x0b" * 22, b"", b"", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"),
    ],
)
def test_rfc_5869_vectors(ikm: bytes, salt: bytes, info: bytes, okm: str) -> None:
    assert hkdf(ikm, salt, info).hex() == okm


@given(key=keys, plaintext=texts, associated=texts)
def test_what_was_sealed_opens(key: bytes, plaintext: bytes, associated: bytes) -> None:
    ciphertext = seal(key, plaintext, associated)
    assert len(ciphertext) == len(plaintext) + 16
    assert unseal(key, ciphertext, associated) == plaintext


@given(key=keys, plaintext=texts, associated=texts)
def test_the_nonce_is_zero(key: bytes, plaintext: bytes, associated: bytes) -> None:
    assert seal(key, plaintext, associated) == ChaCha20Poly1305(key).encrypt(bytes(12), plaintext, associated)


@given(key=keys, plaintext=texts, associated=texts, data=st.data())
def test_a_changed_bit_anywhere_does_not_open(
    key: bytes, plaintext: bytes, associated: bytes, data: st.DataObject
) -> None:
    ciphertext = seal(key, plaintext, associated)
    whole = bytearray(key + ciphertext + associated)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    end = 32 + len(ciphertext)
    assert unseal(bytes(whole[:32]), bytes(whole[32:end]), bytes(whole[end:])) is None


def test_every_changed_byte_of_a_ciphertext_does_not_open() -> None:
    key, plaintext = bytes(range(32)), bytes(80)
    ciphertext = seal(key, plaintext, b"label")
    for place in range(len(ciphertext)):
        changed = bytearray(ciphertext)
        changed[place] ^= 0x10
        assert unseal(key, bytes(changed), b"label") is None


def test_shortened_and_lengthened_ciphertexts_do_not_open() -> None:
    key = bytes(range(32))
    ciphertext = seal(key, bytes(80), b"label")
    for size in range(len(ciphertext)):
        assert unseal(key, ciphertext[:size], b"label") is None
    assert unseal(key, ciphertext + b"\x00", b"label") is None
