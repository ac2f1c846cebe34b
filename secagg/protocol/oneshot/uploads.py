"""Uploads as server and edges take them, and the total that grows with them (part 2, section 4)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.effects import RefusalReason, UploadTaken
from secagg.kernels import pack, ring_mask, spare_bits_clear, unpack_add
from secagg.messages import Octets, encoded_rows, joined
from secagg.messages.oneshot import Dealing, Upload
from secagg.params import Buffer, Identity
from secagg.primitives.merkle import siblings
from secagg.primitives.signatures import verify
from secagg.protocol.oneshot.dealing import UploadTrees, signed_fault
from secagg.protocol.oneshot.view import OneShotView
from secagg.protocol.round import refuse


class PackedStore(Protocol):
    """Packed vectors by upload digest, until the sum is out: who is not in it is subtracted again.

    What `put` and `get` raise passes through the server, which has changed nothing then.
    """

    def put(self, digest: bytes, packed: Buffer) -> None:
        """Keep a vector; durably, where its sender is told that it may vanish."""

    def get(self, digest: bytes) -> Buffer:
        """Return a vector that was put."""

    def clear(self) -> None:
        """Forget all: the round is over. Must not raise, or its result is lost."""


class MemoryPacked:
    """A PackedStore in memory."""

    def __init__(self) -> None:
        self._packed: dict[bytes, Buffer] = {}

    def put(self, digest: bytes, packed: Buffer) -> None:
        """Keep a vector: a copy, the frame is the caller's."""
        self._packed[digest] = bytes(packed)

    def get(self, digest: bytes) -> Buffer:
        """Return a vector."""
        return self._packed[digest]

    def clear(self) -> None:
        """Forget all."""
        self._packed.clear()


@dataclass(frozen=True, slots=True)
class TakenUpload:
    """An upload without its vector.

    dealing  the one for everybody: `sealed` and `path` (the leaves) as in an Upload, as edges send it on
    edge     that brought it; None: its client itself
    """

    dealing: Dealing = field(repr=False)
    trees: UploadTrees = field(repr=False)
    edge: Identity | None = None

    @property
    def identity(self) -> Identity:
        """The client."""
        return Identity(self.dealing.identity)

    @property
    def digest(self) -> bytes:
        """Upload digest."""
        return self.trees.digest

    def for_members(self, view: OneShotView) -> Octets:
        """Return the encoded Dealing of every member, (members, size)."""
        members, whole, trees = len(view.committee.members), self.dealing, self.trees
        leaves = joined(trees.leaves[0][:members], 32)
        return encoded_rows(
            Dealing,
            members,
            identity=whole.identity,
            context=whole.context,
            packed_digest=whole.packed_digest,
            ephemeral_key=whole.ephemeral_key,
            tests=bytes(whole.tests),
            signature=whole.signature,
            sealed=np.frombuffer(whole.sealed, np.uint8).reshape(members, view.sealed_bytes),
            path=np.hstack([leaves, siblings(trees.leaves)[:members]]),
            sealed_path=siblings(trees.sealed_leaves)[:members],
        )


def check_upload(
    view: OneShotView, sender: Identity, upload: Upload, known: Collection[Identity] | None
) -> TakenUpload:
    """Check an upload as server and edge do. Raises RemoteProtocolError."""
    if upload.identity != sender:
        raise refuse(RefusalReason.SENDER_MISMATCH, "Upload.identity: not the sender's")
    if known is not None and sender not in known:
        raise refuse(RefusalReason.UNKNOWN_IDENTITY, "Upload.identity: not enrolled")
    _check_size("Upload.packed", upload.packed, view.packed_size)
    _check_size("Upload.leaves", upload.leaves, 32 * len(view.committee.members))
    if not spare_bits_clear(upload.packed, view.parameters.entries, view.parameters.upload_bits):
        raise refuse(RefusalReason.MALFORMED, "Upload.packed: spare bits are set")
    trees = UploadTrees.of(view, upload)
    dealing = Dealing(
        upload.identity,
        upload.context,
        trees.part.packed,
        upload.ephemeral_key,
        bytes(upload.tests),
        upload.signature,
        bytes(upload.sealed),
        bytes(upload.leaves),
        b"",
    )
    _check_signed(view, dealing, trees)
    return TakenUpload(dealing, trees)


def check_forwarded(view: OneShotView, edge: Identity | None, dealing: Dealing) -> TakenUpload:
    """Check what an edge says of an upload that is in its total. Raises RemoteProtocolError."""
    _check_size("Dealing.path", dealing.path, 32 * len(view.committee.members))
    _check_size("Dealing.sealed_path", dealing.sealed_path, 0)
    _check_size("Dealing.sealed", dealing.sealed, len(view.committee.members) * view.sealed_bytes)
    trees = UploadTrees.build(
        view,
        Identity(dealing.identity),
        dealing.context,
        dealing.packed_digest,
        dealing.ephemeral_key,
        bytes(dealing.path),
        bytes(dealing.tests),
        bytes(dealing.sealed),
    )
    _check_signed(view, dealing, trees)
    own = replace(  # the frame is the caller's
        dealing,
        tests=bytes(dealing.tests),
        sealed=bytes(dealing.sealed),
        path=bytes(dealing.path),
        sealed_path=b"",
    )
    return TakenUpload(own, trees, edge)


def taken_again(former: TakenUpload, again: TakenUpload) -> UploadTaken:
    """Acknowledge an upload once more. Raises RemoteProtocolError when it is another one of its client."""
    if former.digest != again.digest:
        raise refuse(RefusalReason.EQUIVOCATION, "Upload: another one of this client was taken before")
    return UploadTaken(former.identity, former.digest, again=True)


def _check_signed(view: OneShotView, dealing: Dealing, trees: UploadTrees) -> None:
    _check_size("sealed", dealing.sealed, len(view.committee.members) * view.sealed_bytes)
    _check_size("tests", dealing.tests, view.tests_bytes)
    if fault := signed_fault(view, dealing.context, dealing.ephemeral_key, bytes(dealing.tests)):
        raise refuse(RefusalReason.MALFORMED, fault)
    if not verify(dealing.identity, trees.part.text(view), dealing.signature):
        raise refuse(RefusalReason.BAD_SIGNATURE, "signature")


def _check_size(name: str, field_: Buffer, size: int) -> None:
    if (got := memoryview(field_).nbytes) != size:
        raise refuse(RefusalReason.WRONG_LENGTH, f"{name}: must have {size} bytes, has {got}")


class Total:
    """The sum of packed vectors modulo 2^upload_bits."""

    def __init__(self, view: OneShotView) -> None:
        self._bits = view.parameters.upload_bits
        self.lanes: NDArray[np.uint64] = np.zeros(view.parameters.entries, np.uint64)

    def add(self, packed: Buffer) -> None:
        """Add a vector, or a total."""
        unpack_add(self.lanes, packed, self._bits)

    def subtract(self, packed: Buffer) -> None:
        """Take a vector, or a total, out again."""
        other = np.zeros(self.lanes.size, np.uint64)
        unpack_add(other, packed, self._bits)
        self.lanes -= other

    def packed(self) -> bytes:
        """Pack the total."""
        return bytes(pack(self.lanes & np.uint64(ring_mask(self._bits)), self._bits))
