import hashlib

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.primitives.agreement import agree, public_key
from secagg.primitives.masks import mask_sign, pairwise_seed, sealing_keys, seed_commitment, share_label

strings = st.binary(min_size=32, max_size=32)
ROSTER = bytes(range(32))
SMALL, LARGE = b"\x01" * 32, b"\x02" * 32
FOUR = b"\x00\x00\x00\x20"  # the length of 32 bytes


def derived(shared: bytes, purpose: bytes, one: bytes, other: bytes) -> bytes:
    info = b"secagg/v1/" + purpose + b"\x00" + FOUR + one + FOUR + other
    return HKDF(SHA256(), 32, ROSTER, info).derive(shared)


@settings(max_examples=40)
@given(one=strings, other=strings, u=strings, v=strings)
def test_both_ends_have_the_same_pairwise_seed(one: bytes, other: bytes, u: bytes, v: bytes) -> None:
    mine = pairwise_seed(one, public_key(other), ROSTER, u, v)
    theirs = pairwise_seed(other, public_key(one), ROSTER, v, u)
    assert mine == theirs
    assert mine == derived(agree(one, public_key(other)), b"pairwise-mask", min(u, v), max(u, v))


@settings(max_examples=40)
@given(one=strings, other=strings)
def test_both_ends_have_the_same_sealing_key_for_each_direction(one: bytes, other: bytes) -> None:
    dealt, answered = sealing_keys(one, public_key(other), ROSTER, LARGE, SMALL)
    back, held = sealing_keys(other, public_key(one), ROSTER, SMALL, LARGE)
    assert answered == back
    assert dealt == held == derived(agree(one, public_key(other)), b"share-key", LARGE, SMALL)
    assert back == derived(agree(one, public_key(other)), b"share-key", SMALL, LARGE)
    assert back != dealt


def test_seeds_and_keys_are_bound_to_the_roster() -> None:
    public = public_key(LARGE)
    other_roster = bytes(32)
    assert pairwise_seed(SMALL, public, ROSTER, SMALL, LARGE) != pairwise_seed(
        SMALL, public, other_roster, SMALL, LARGE
    )
    keys = sealing_keys(SMALL, public, ROSTER, SMALL, LARGE)
    assert not {*keys} & {*sealing_keys(SMALL, public, other_roster, SMALL, LARGE)}


def test_share_labels_by_hand() -> None:
    expected = b"secagg/v1/share\x00" + FOUR + ROSTER + FOUR + LARGE + FOUR + SMALL
    assert share_label(ROSTER, LARGE, SMALL) == expected


def test_seed_commitments_by_hand() -> None:
    text = b"secagg/v1/self-seed\x00" + FOUR + ROSTER + FOUR + LARGE + FOUR + SMALL
    assert seed_commitment(ROSTER, LARGE, SMALL) == hashlib.sha256(text).digest()


@given(one=strings, other=strings)
def test_the_signs_of_a_pair_are_opposite(one: bytes, other: bytes) -> None:
    if one != other:
        assert {mask_sign(one, other), mask_sign(other, one)} == {1, -1}
        assert mask_sign(min(one, other), max(one, other)) == 1
