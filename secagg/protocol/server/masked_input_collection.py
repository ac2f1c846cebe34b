"""Phase 2, server: deliver U1 and the sealed shares, add the masked vectors as they come."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.kernels import UIntArray, lane_dtype, packed_bytes, spare_bits_clear, unpack_add
from secagg.messages import MaskedInput, Message, SealedShare, ShareDelivery, SharedKeys, encode_frame
from secagg.params import Identity, Phase
from secagg.primitives.signatures import verify
from secagg.protocol.round import RoundEnded, RoundView, listed, refuse, short
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.consistency_check import ConsistencyCheck
from secagg.protocol.server.masked import Masked, Upload
from secagg.protocol.server.unmasking import Unmasking


@dataclass(slots=True)
class MaskedInputCollection:
    """Collects masked vectors of U1; leads to ConsistencyCheck, or to Unmasking when passive."""

    phase: ClassVar = Phase.MASKED_INPUT_COLLECTION
    view: RoundView
    mask_keys: tuple[bytes, ...]  # by roster index
    shared: dict[Identity, SharedKeys]
    total: UIntArray = field(repr=False)  # the running masked sum, the one buffer changed in place
    uploads: dict[int, Upload] = field(default_factory=dict)
    _neighbors: list[tuple[int, ...]] = field(init=False, repr=False)
    _finished: frozenset[int] = field(init=False, repr=False)
    _sealed: dict[tuple[Identity, Identity], bytes] = field(init=False, repr=False)
    _present: Counter[int] = field(init=False, repr=False)  # neighbors in S, by dealer
    _able: Counter[int] = field(init=False, repr=False)  # of these, those without a complaint about it

    def __post_init__(self) -> None:
        self._neighbors = self.view.graph.neighbors()
        self._finished = frozenset(self.view.index[identity] for identity in self.shared)
        self._sealed = {
            (Identity(share.peer), dealer): share.ciphertext
            for dealer, message in self.shared.items()
            for share in message.shares
        }
        self._present, self._able = Counter(), Counter()
        for index in self.uploads:
            self._count(index)

    @classmethod
    def begin(
        cls, view: RoundView, mask_keys: tuple[bytes, ...], shared: dict[Identity, SharedKeys]
    ) -> MaskedInputCollection:
        """Start with an empty sum."""
        parameters = view.parameters
        total = np.zeros(parameters.vector_length, lane_dtype(parameters.ring_bits))
        return cls(view, mask_keys, shared, total)

    @property
    def asked(self) -> frozenset[Identity]:
        return frozenset(self.shared)

    @property
    def answered(self) -> frozenset[Identity]:
        return self.view.named(self.uploads)

    @property
    def needed(self) -> int:
        return self.view.effective_minimum

    @property
    def ready(self) -> bool:
        try:
            self._check_survivors()
        except RoundEnded:
            return False
        return True

    def request(self, client: Identity) -> Frame:
        holder = self.view.index[client]
        dealers = [self.view.identities[i] for i in self._neighbors[holder] if i in self._finished]
        shares = tuple(
            SealedShare(dealer, self._sealed[client, dealer], self.shared[dealer].acceptance)
            for dealer in dealers
        )
        message = ShareDelivery(self.view.bitmap(self._finished), shares)
        return encode_frame(self.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: Message) -> bytes:
        if not isinstance(message, MaskedInput):
            raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in MaskedInputCollection")
        parameters, index = self.view.parameters, self.view.index[sender]
        size = packed_bytes(parameters.vector_length, parameters.ring_bits)
        if len(message.packed) != size:
            raise refuse(
                RefusalReason.WRONG_LENGTH,
                f"MaskedInput.packed: must have {size} bytes for {parameters.vector_length} entries "
                f"of {parameters.ring_bits} bits, has {len(message.packed)}",
            )
        if not spare_bits_clear(message.packed, parameters.vector_length, parameters.ring_bits):
            raise refuse(RefusalReason.OUT_OF_RANGE, "MaskedInput.packed: spare bits are set")
        dealers = {self.view.identities[i]: i for i in self._neighbors[index] if i in self._finished}
        if strangers := [c for c in message.complaints if c not in dealers]:
            raise refuse(
                RefusalReason.WRONG_NEIGHBORS,
                f"MaskedInput.complaints: {short(strangers[0])} is no neighbor in U1",
            )
        digest = hashlib.sha256(message.packed).digest()
        text = self.view.upload_text(self.view.bitmap(self._finished), digest)
        if not verify(sender, text, message.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "MaskedInput.signature")
        unpack_add(self.total, message.packed, parameters.ring_bits)
        complaints = frozenset(dealers[Identity(c)] for c in message.complaints)
        self.uploads[index] = Upload(digest, complaints, message.signature)
        self._count(index)
        return digest

    def close(self) -> ConsistencyCheck | Unmasking:
        self._check_survivors()
        masked = Masked(
            self.view,
            self.mask_keys,
            {self.view.index[dealer]: message.seed_commitment for dealer, message in self.shared.items()},
            self._finished,
            self.uploads,
            self.total,
        )
        return ConsistencyCheck(masked) if self.view.active else Unmasking(masked, {})

    def _check_survivors(self) -> None:
        """Raise RoundEnded when no sum over those who uploaded may or can be opened."""
        view, survivors = self.view, self.uploads.keys()
        if len(survivors) < view.effective_minimum:
            raise RoundEnded(
                AbortReason.TOO_FEW_SURVIVORS,
                f"{view.effective_minimum} survivors are needed, {len(survivors)} uploaded",
            )
        threshold = view.roster.threshold
        closed = [
            dealer
            for dealer in sorted(self._finished)
            if (self._present[dealer] or dealer in survivors) and self._able[dealer] < threshold
        ]
        if closed:
            names = listed(view.named(closed))
            detail = f"fewer than {threshold} neighbors can answer for {names}"
            if all(self._able[dealer] == self._present[dealer] for dealer in closed):
                raise RoundEnded(AbortReason.TOO_FEW_SURVIVORS, detail)
            raise Suspicions.of_complaints(self.uploads).ended(view, AbortReason.COMPLAINTS, detail)
        if view.active and not view.leaves_no_gap(survivors):
            raise RoundEnded(AbortReason.SURVIVOR_GAP, "a stretch of the circle has too few survivors")

    def _count(self, index: int) -> None:
        complaints = self.uploads[index].complaints
        for dealer in self._neighbors[index]:
            if dealer in self._finished:
                self._present[dealer] += 1
                self._able[dealer] += dealer not in complaints
