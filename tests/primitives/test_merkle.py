import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.primitives.merkle import climb, depth, levels, root, siblings


def node(left: bytes, right: bytes) -> bytes:
    length = b"\x00\x00\x00\x20"
    return hashlib.sha256(b"secagg/v2/share-node\x00" + length + left + length + right).digest()


def beside(tree: list[list[bytes]], index: int) -> bytes:
    return bytes(siblings(tree)[index])


A, B, C, D, E = (bytes([letter]) * 32 for letter in b"abcde")
ZERO = bytes(32)

leaves_of_any_number = st.integers(1, 40).flatmap(
    lambda count: st.lists(
        st.binary(min_size=32, max_size=32), min_size=count, max_size=count, unique=True
    ).filter(lambda leaves: ZERO not in leaves)
)


def test_roots_by_hand() -> None:
    assert root([A]) == A
    assert root([A, B]) == node(A, B)
    assert root([A, B, C]) == node(node(A, B), node(C, ZERO))
    assert root([A, B, C, D]) == node(node(A, B), node(C, D))
    padding = node(ZERO, ZERO)
    assert root([A, B, C, D, E]) == node(node(node(A, B), node(C, D)), node(node(E, ZERO), padding))


def test_a_root_does_not_tell_how_many_leaves_there_are() -> None:
    """Their number is agreed: that of the members. A leaf says in its hash at which place it stands."""
    assert root([node(A, B), node(C, D)]) == root([A, B, C, D])
    assert root([A, B, C]) == root([A, B, C, ZERO])


@pytest.mark.parametrize(
    ("leaves", "levels_above"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (255, 8), (256, 8)]
)
def test_the_depth_is_the_logarithm_rounded_up(leaves: int, levels_above: int) -> None:
    assert depth(leaves) == levels_above
    tree = levels([bytes([i % 256]) * 32 for i in range(leaves)])
    assert [len(level) for level in tree] == [2**k for k in range(levels_above, -1, -1)]
    assert len(beside(tree, leaves - 1)) == 32 * levels_above


def test_siblings_by_hand() -> None:
    tree = levels([A, B, C])
    assert beside(tree, 0) == B + node(C, ZERO)
    assert beside(tree, 1) == A + node(C, ZERO)
    assert beside(tree, 2) == ZERO + node(A, B)
    assert climb(C, 2, ZERO + node(A, B)) == root([A, B, C])
    assert climb(A, 0, b"") == A


@settings(max_examples=60)
@given(leaves=leaves_of_any_number)
def test_every_leaf_climbs_to_the_root(leaves: list[bytes]) -> None:
    tree = levels(leaves)
    assert tree[-1] == [root(leaves)]
    for i, leaf in enumerate(leaves):
        assert climb(leaf, i, beside(tree, i)) == root(leaves)


@settings(max_examples=60)
@given(leaves=leaves_of_any_number, data=st.data())
def test_no_other_leaf_sibling_or_index_climbs_to_it(leaves: list[bytes], data: st.DataObject) -> None:
    tree = levels(leaves)
    i = data.draw(st.integers(0, len(leaves) - 1))
    others = beside(tree, i)
    mask = data.draw(st.integers(1, 255))
    other = bytearray(leaves[i])
    other[data.draw(st.integers(0, 31))] ^= mask
    assert climb(bytes(other), i, others) != root(leaves)
    if others:
        changed = bytearray(others)
        changed[data.draw(st.integers(0, len(others) - 1))] ^= mask
        assert climb(leaves[i], i, bytes(changed)) != root(leaves)
    for index in range(2 ** depth(len(leaves))):
        assert (climb(leaves[i], index, others) == root(leaves)) is (index == i)


@settings(max_examples=60)
@given(leaves=leaves_of_any_number, data=st.data())
def test_any_changed_leaf_changes_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(leaves) - 1))
    j = data.draw(st.integers(0, len(leaves) - 1))
    swapped = list(leaves)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    assert (root(swapped) == root(leaves)) is (i == j)
    changed = list(leaves)
    changed[i] = bytes(31) + b"\x01" if leaves[i] != bytes(31) + b"\x01" else bytes(31) + b"\x02"
    assert root(changed) != root(leaves)
    assert root([*leaves, A if leaves[-1] != A else B]) != root(leaves)
