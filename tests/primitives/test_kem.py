import copy
import hashlib
import importlib.util
import pickle
import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import ParameterError
from secagg.primitives import kem
from secagg.primitives.kem import KemSecret, encapsulate, is_usable, require_kem

needs_kem = pytest.mark.skipif(not kem.AVAILABLE, reason="needs ML-KEM of cryptography >= 48")
SEED = bytes(range(64))
seeds = st.binary(min_size=64, max_size=64)
CURE = (
    r"^ML-KEM-768: needs cryptography >= 48, and its OpenSSL; install it, or do without: post_quantum=False "
)


@needs_kem
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_both_sides_have_the_same_secret(seed: bytes) -> None:
    key = KemSecret(seed)
    ciphertext, secret = encapsulate(key.public)
    assert (len(key.public), len(ciphertext), len(secret)) == (1184, 1088, 32)
    assert (kem.KEY_BYTES, kem.CIPHERTEXT_BYTES, kem.SEED_BYTES) == (1184, 1088, 64)
    assert key.decapsulate(ciphertext) == secret
    assert KemSecret(bytearray(seed)).decapsulate(ciphertext) == secret


@needs_kem
def test_every_encapsulation_is_fresh() -> None:
    key = KemSecret(SEED)
    (one, first), (other, second) = encapsulate(key.public), encapsulate(key.public)
    assert one != other
    assert first != second


@needs_kem
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_the_seed_is_d_and_z_of_fips_203(seed: bytes) -> None:
    """The end of the public key hangs on d and on k = 3; what a wrong ciphertext gives hangs on z."""
    key = KemSecret(seed)
    assert key.public[-32:] == hashlib.sha3_512(seed[:32] + b"\x03").digest()[:32]
    wrong = bytes(1088)
    assert key.decapsulate(wrong) == hashlib.shake_256(seed[32:] + wrong).digest(32)


@needs_kem
def test_a_changed_ciphertext_gives_another_secret_and_no_error() -> None:
    key = KemSecret(SEED)
    ciphertext, secret = encapsulate(key.public)
    for at in (0, 500, 1087):
        changed = bytearray(ciphertext)
        changed[at] ^= 1
        other = key.decapsulate(bytes(changed))
        assert len(other) == 32
        assert other != secret
        assert other == key.decapsulate(bytes(changed))


@needs_kem
def test_a_ciphertext_for_another_key_gives_another_secret() -> None:
    ciphertext, secret = encapsulate(KemSecret(SEED).public)
    assert KemSecret(SEED[::-1]).decapsulate(ciphertext) != secret


@needs_kem
@pytest.mark.parametrize("size", [0, 1, 1087, 1089])
def test_ciphertexts_of_another_size_are_errors(size: int) -> None:
    with pytest.raises(ValueError, match="ciphertext"):
        KemSecret(SEED).decapsulate(bytes(size))


@needs_kem
@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_seeds_of_another_size_are_errors(size: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        KemSecret(bytes(size))


@needs_kem
def test_keys_of_another_size_are_unusable() -> None:
    public = KemSecret(SEED).public
    assert is_usable(public)
    for wrong in (b"", public[:-1], public + b"\0", public * 2, bytes(1088)):
        assert not is_usable(wrong)


@needs_kem
@pytest.mark.parametrize("place", [0, 1, 400, 767])
def test_keys_with_an_entry_that_is_not_below_the_modulus_are_unusable(place: int) -> None:
    """Entries are 12 bits, two in three bytes, below 3329."""
    public = KemSecret(SEED).public
    for entry, usable in ((0, True), (3328, True), (3329, False), (4095, False)):
        at, whole = place // 2 * 3, int.from_bytes(public[place // 2 * 3 :][:3], "little")
        shift = 12 * (place % 2)
        changed = (whole & ~(0xFFF << shift) | entry << shift).to_bytes(3, "little")
        assert is_usable(public[:at] + changed + public[at + 3 :]) is usable


@needs_kem
def test_a_secret_is_neither_pickled_nor_copied() -> None:
    key = KemSecret(SEED)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a KemSecret is not pickled"):
            attempt(key)


@needs_kem
def test_a_repr_shows_nothing() -> None:
    key = KemSecret(SEED)
    assert repr(key) == str(key) == "KemSecret()"
    assert not hasattr(key, "__dict__")


def test_a_machine_without_the_kem_is_told_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kem, "AVAILABLE", False)
    with pytest.raises(ParameterError, match=CURE):
        require_kem()
    with pytest.raises(ParameterError, match=CURE):
        KemSecret(SEED)
    with pytest.raises(ParameterError, match=CURE):
        is_usable(bytes(1184))


def loaded_again() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kem_again", kem.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_older_cryptography_has_no_kem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mlkem", None)
    module = loaded_again()
    assert not module.AVAILABLE
    with pytest.raises(ParameterError, match=CURE):
        module.KemSecret(SEED)


@needs_kem
def test_a_cryptography_whose_openssl_lacks_the_kem_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.backends.openssl.backend import backend

    monkeypatch.setattr(type(backend), "mlkem_supported", lambda _self: False)
    module = loaded_again()
    for attempt in (module.KemSecret, module.is_usable):
        with pytest.raises(ParameterError, match=CURE):
            attempt(SEED)
