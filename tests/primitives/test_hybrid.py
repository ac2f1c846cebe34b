"""The hybrid suite's keys: of both secrets, of this roster and pair, and of nothing else."""

from __future__ import annotations

import os
import pickle

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from secagg.primitives.agreement import agree, public_key
from secagg.primitives.hybrid import (
    MaskKeys,
    contribution,
    mask_secret,
    open_contribution,
    opening_key,
    seal_contribution,
    sealing_key,
)
from secagg.primitives.kem import KemSecret, encapsulate
from secagg.primitives.labels import encode

ROSTER, OTHER_ROSTER, PARAMETERS = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
U, V = bytes([10]) * 32, bytes([20]) * 32  # identities
ROOT_U, ROOT_V = bytes([30]) * 32, bytes([40]) * 32
keys_u, keys_v = (MaskKeys.of(root, PARAMETERS) for root in (ROOT_U, ROOT_V))
VALUE = contribution(ROOT_U, ROSTER, U, V)


def derived(ikm: bytes, salt: bytes, *info: bytes | str) -> bytes:
    purpose, *parts = info
    assert isinstance(purpose, str)
    text = b"secagg/v1/" + purpose.encode() + b"\0"
    for part in parts:
        assert isinstance(part, bytes)
        text += len(part).to_bytes(4, "big") + part
    return HKDF(SHA256(), 32, salt, text).derive(ikm)


def test_both_mask_keys_follow_from_the_root_as_the_specification_says() -> None:
    assert keys_u.agreement == derived(ROOT_U, PARAMETERS, "mask-key") == mask_secret(ROOT_U, PARAMETERS)
    seed = derived(ROOT_U, PARAMETERS, "mask-kem-d") + derived(ROOT_U, PARAMETERS, "mask-kem-z")
    assert keys_u.public == (public_key(keys_u.agreement), KemSecret(seed).public)
    assert derived(ROOT_U, ROSTER, "contribution", U, V) == VALUE


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_roots_rounds_rosters_and_pairs_have_their_own_keys(root: bytes, other: bytes) -> None:
    if root == other:
        return
    assert mask_secret(root, PARAMETERS) != mask_secret(other, PARAMETERS)
    assert mask_secret(root, PARAMETERS) != mask_secret(root, ROSTER)
    values = {
        contribution(root, ROSTER, U, V),
        contribution(root, ROSTER, V, U),
        contribution(root, OTHER_ROSTER, U, V),
        contribution(other, ROSTER, U, V),
        mask_secret(root, PARAMETERS),
        root,
    }
    assert len(values) == 6


def test_the_holder_opens_what_the_dealer_seals_by_both_secrets() -> None:
    dealer, holder, kem = bytes([50]) * 32, bytes([60]) * 32, KemSecret(bytes([70]) * 64)
    agreed = agree(dealer, public_key(holder))
    key, ciphertext = sealing_key(agreed, kem.public, ROSTER, U, V)
    assert opening_key(agree(holder, public_key(dealer)), kem, ciphertext, ROSTER, U, V) == key
    assert key == derived(agreed + kem.decapsulate(ciphertext), ROSTER, "share-key", U, V, ciphertext)
    another = encapsulate(kem.public)[0]
    for wrong in (
        opening_key(bytes(32), kem, ciphertext, ROSTER, U, V),
        opening_key(agreed, KemSecret(bytes([71]) * 64), ciphertext, ROSTER, U, V),
        opening_key(agreed, kem, another, ROSTER, U, V),
        opening_key(agreed, kem, ciphertext, OTHER_ROSTER, U, V),
        opening_key(agreed, kem, ciphertext, ROSTER, V, U),
    ):
        assert wrong != key


def sealed() -> tuple[bytes, bytes]:
    return seal_contribution(VALUE, keys_u.agreement, *keys_v.public, ROSTER, U, V)


def test_the_receiver_of_a_contribution_opens_it() -> None:
    ciphertext, text = sealed()
    assert (len(ciphertext), len(text)) == (1088, 48)
    assert open_contribution(keys_v, keys_u.public[0], ciphertext, text, ROSTER, U, V) == VALUE
    ikm = agree(keys_v.agreement, keys_u.public[0]) + keys_v.kem.decapsulate(ciphertext)
    key = derived(ikm, ROSTER, "contribution-key", U, V, ciphertext)
    label = encode("contribution", ROSTER, U, V)
    assert ChaCha20Poly1305(key).decrypt(bytes(12), text, label) == VALUE


def test_what_is_not_of_this_pair_and_roster_does_not_open() -> None:
    ciphertext, text = sealed()
    other, public = MaskKeys.of(bytes([41]) * 32, PARAMETERS), keys_u.public[0]
    flipped = bytes([text[0] ^ 1]) + text[1:]
    for arguments in (
        (other, public, ciphertext, text, ROSTER, U, V),
        (keys_v, other.public[0], ciphertext, text, ROSTER, U, V),
        (keys_v, public, sealed()[0], text, ROSTER, U, V),
        (keys_v, public, ciphertext, flipped, ROSTER, U, V),
        (keys_v, public, ciphertext, text, OTHER_ROSTER, U, V),
        (keys_v, public, ciphertext, text, ROSTER, V, U),
        (keys_v, public, bytes(1088), bytes(48), ROSTER, U, V),
    ):
        assert open_contribution(*arguments) is None


def test_nobody_makes_a_contribution_up_who_has_public_keys_only() -> None:
    """A server could, if it were sealed by ML-KEM alone: it would know the seeds once X25519 is broken."""
    stranger = os.urandom(32)
    ciphertext, text = seal_contribution(bytes(32), stranger, *keys_v.public, ROSTER, U, V)
    assert open_contribution(keys_v, keys_u.public[0], ciphertext, text, ROSTER, U, V) is None


def test_mask_keys_do_not_show_and_are_not_pickled() -> None:
    assert repr(keys_u) == "MaskKeys()"
    with pytest.raises(TypeError):
        pickle.dumps(keys_u)
