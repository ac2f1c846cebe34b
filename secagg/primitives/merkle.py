"""Merkle trees, padded to a power of two by zeros (PROTOCOL.md, part 2, section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.primitives.labels import ONESHOT

NODE_BYTES = 32
_PADDING = bytes(NODE_BYTES)
_HEAD = ONESHOT.encode("share-node")
_LENGTH = NODE_BYTES.to_bytes(4, "big")


def depth(leaves: int) -> int:
    """Levels above the leaves: ceil(log2(leaves))."""
    return (leaves - 1).bit_length()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"".join((_HEAD, _LENGTH, left, _LENGTH, right))).digest()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels, the padded leaves first, the root alone last."""
    level = [*leaves, *[_PADDING] * ((1 << depth(len(leaves))) - len(leaves))]
    out = [level]
    while len(level) > 1:
        level = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
        out.append(level)
    return out


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of at least one leaf of 32 bytes."""
    return levels(leaves)[-1][0]


def siblings(tree: Sequence[Sequence[bytes]]) -> NDArray[np.uint8]:
    """Nodes beside the way from every leaf, padded ones too, to the root, from the bottom up.

    tree     of `levels`
    returns  (leaves, 32 * depth)
    """
    leaves = len(tree[0])
    heights = np.arange(len(tree) - 1)
    first = 2 * leaves - (2 * leaves >> heights)  # of a level among all nodes
    nodes = np.frombuffer(b"".join(node for level in tree for node in level), np.uint8)
    beside = first + (np.arange(leaves)[:, None] >> heights ^ 1)
    return nodes.reshape(-1, NODE_BYTES)[beside].reshape(leaves, -1)


def climb(leaf: bytes, index: int, beside: bytes) -> bytes:
    """Return the root that a leaf and its siblings give."""
    node = leaf
    for at in range(0, len(beside), NODE_BYTES):
        other = beside[at : at + NODE_BYTES]
        node = _node(other, node) if index & 1 else _node(node, other)
        index >>= 1
    return node
