"""Phase 2, server: deliver U1 and the sealed shares, add the masked vectors as they come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.kernels import UIntArray, lane_dtype, packed_bytes, spare_bits_clear, unpack_add
from secagg.messages import (
    MaskedInput,
    Octets,
    Rows,
    SealedContribution,
    SealedShare,
    ShareDelivery,
    SharedKeys,
    encode_frame,
    joined,
)
from secagg.params import Identity, Phase
from secagg.primitives.graph import Indices
from secagg.primitives.signatures import verify
from secagg.protocol.round import RoundView, listed, refuse, short
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.consistency_check import ConsistencyCheck
from secagg.protocol.server.contributions import Contributions
from secagg.protocol.server.masked import Masked, Pair, Upload
from secagg.protocol.server.phase import ITEM_BYTES, SMALL_BYTES
from secagg.protocol.server.unmasking import Unmasking

_SPLIT = "so many more than declared are gone that the sum over the others may fall apart"


@dataclass(slots=True)
class MaskedInputCollection:
    """Collects masked vectors of U1; leads to ConsistencyCheck, or to Unmasking when passive."""

    phase: ClassVar = Phase.MASKED_INPUT_COLLECTION
    wants: ClassVar[type] = MaskedInput
    view: RoundView
    mask_keys: tuple[bytes, ...]  # by roster index
    shared: dict[Identity, SharedKeys]
    total: UIntArray = field(repr=False)  # the running masked sum, the one buffer changed in place
    uploads: dict[int, Upload] = field(default_factory=dict)
    kem_keys: tuple[bytes, ...] = ()  # hybrid; by roster index
    departures: dict[int, frozenset[int]] = field(default_factory=dict)  # hybrid: who left, because of whom
    _neighbors: Indices = field(init=False, repr=False)
    _positions: Indices = field(init=False, repr=False)
    _finished: NDArray[np.bool_] = field(init=False, repr=False)  # U1, by roster index
    _finished_bitmap: bytes = field(init=False, repr=False)
    _sealed: Octets = field(init=False, repr=False)  # of U1 in order: (n1, k, 96)
    _kem: Octets = field(init=False, repr=False)  # hybrid: (n1, k, 1088); else (n1, k, 0)
    _acceptances: Octets = field(init=False, repr=False)  # of U1 in order: (n1, 64)
    _row: Indices = field(init=False, repr=False)  # where a dealer of U1 stands in these two
    _present: Indices = field(init=False, repr=False)  # neighbors in S, by dealer
    _able: Indices = field(init=False, repr=False)  # of these, those without a complaint about it
    _asked: frozenset[Identity] = field(init=False, repr=False)
    _contributions: Contributions | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        view = self.view
        self._asked = frozenset(self.shared)
        self._neighbors, self._positions = view.graph.neighbors(), view.graph.positions()
        members = [view.index[identity] for identity in self.shared]
        self._finished = np.zeros(view.clients, bool)
        self._finished[members] = True
        self._finished_bitmap = view.bitmap(members)
        stacked = np.stack(
            [cast("Rows[SealedShare]", message.shares).array for message in self.shared.values()]
        )
        for rows, (dealer, message) in zip(stacked, list(self.shared.items()), strict=True):
            # One copy of the shares, here and in the messages.
            self.shared[dealer] = replace(message, shares=Rows(SealedShare, rows))
        first = Rows(SealedShare, stacked[0])
        self._sealed, self._kem = (stacked[:, :, first.place(name)] for name in ("ciphertext", "kem"))
        self._contributions = None
        if view.hybrid:
            self._contributions = Contributions(
                view, self._neighbors, self._positions, self._finished, self.shared
            )
            for dealer, message in list(self.shared.items()):
                sent = self._contributions.sent(view.index[dealer])
                self.shared[dealer] = replace(message, contributions=sent)
        self._acceptances = joined([message.acceptance for message in self.shared.values()], 64)
        self._row = np.zeros(view.clients, np.int32)
        self._row[members] = np.arange(len(members))
        self._present, self._able = (np.zeros(view.clients, np.int32) for _ in range(2))
        for index in self.uploads:
            self._count(index)

    @classmethod
    def begin(
        cls,
        view: RoundView,
        mask_keys: tuple[bytes, ...],
        shared: dict[Identity, SharedKeys],
        kem_keys: tuple[bytes, ...] = (),
    ) -> MaskedInputCollection:
        """Start with an empty sum."""
        parameters = view.parameters
        total = np.zeros(parameters.vector_length, lane_dtype(parameters.ring_bits))
        return cls(view, mask_keys, shared, total, kem_keys=kem_keys)

    @property
    def finished(self) -> frozenset[int]:
        """U1, by roster index."""
        return frozenset(np.flatnonzero(self._finished).tolist())

    @property
    def largest(self) -> int:
        parameters = self.view.parameters
        size = packed_bytes(parameters.vector_length, parameters.ring_bits)
        return size + SMALL_BYTES + ITEM_BYTES * self.view.roster.degree

    @property
    def asked(self) -> frozenset[Identity]:
        return self._asked

    @property
    def answered(self) -> frozenset[Identity]:
        return self.view.named({*self.uploads, *self.departures})

    @property
    def left(self) -> frozenset[Identity]:
        """Those who left the round."""
        return self.view.named(self.departures)

    @property
    def needed(self) -> int:
        return self.view.effective_minimum

    @property
    def ready(self) -> bool:
        return self._obstacle() is None

    def request(self, client: Identity) -> Frame:
        holder = self.view.index[client]
        here = self._finished[self._neighbors[holder]]
        dealers, positions = self._neighbors[holder][here], self._positions[holder][here]
        rows = self._row[dealers]
        shares = Rows.build(
            SealedShare,
            len(dealers),
            peer=self.view.names[dealers],
            ciphertext=self._sealed[rows, positions],
            acceptance=self._acceptances[rows],
            kem=self._kem[rows, positions],
        )
        contributions = () if self._contributions is None else self._contributions.to(holder)
        message = ShareDelivery(self._finished_bitmap, shares, contributions)
        return encode_frame(self.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: MaskedInput) -> bytes | None:
        if message.unopened:
            self._depart(sender, message)
            return None
        parameters = self.view.parameters
        size = packed_bytes(parameters.vector_length, parameters.ring_bits)
        if len(message.packed) != size:
            raise refuse(
                RefusalReason.WRONG_LENGTH,
                f"MaskedInput.packed: must have {size} bytes for {parameters.vector_length} entries "
                f"of {parameters.ring_bits} bits, has {len(message.packed)}",
            )
        if not spare_bits_clear(message.packed, parameters.vector_length, parameters.ring_bits):
            raise refuse(RefusalReason.OUT_OF_RANGE, "MaskedInput.packed: spare bits are set")
        digest = hashlib.sha256(message.packed).digest()
        upload = self.checked(sender, digest, message.complaints, message.signature)
        unpack_add(self.total, message.packed, parameters.ring_bits)
        self.take(sender, upload)
        return upload.packed_digest

    def _depart(self, sender: Identity, message: MaskedInput) -> None:
        """Take a client's word that contributions do not open; it is not in S. Raises RemoteProtocolError."""
        if len(message.packed) or message.complaints:
            raise refuse(RefusalReason.MALFORMED, "MaskedInput.unopened: who leaves says nothing else")
        index = self.view.index[sender]
        senders = self._named("unopened", index, message.unopened)
        if self._contributions is None or max(senders) > index:
            raise refuse(RefusalReason.WRONG_NEIGHBORS, "MaskedInput.unopened: nothing came from there")
        relayed = [one for one in self._contributions.to(index) if one.peer in message.unopened]
        text = self.view.departure_text(self._finished_bitmap, relayed)
        if not verify(sender, text, message.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "MaskedInput.signature")
        self.departures[index] = senders

    def checked(
        self, sender: Identity, packed_digest: bytes, complaints: Sequence[bytes], signature: bytes
    ) -> Upload:
        """Check what an upload says beside its vector. Raises RemoteProtocolError."""
        dealers = self._named("complaints", self.view.index[sender], complaints)
        if not verify(sender, self.view.upload_text(self._finished_bitmap, packed_digest), signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "MaskedInput.signature")
        return Upload(packed_digest, dealers, signature)

    def take(self, sender: Identity, upload: Upload) -> None:
        """Count an upload that was checked; its vector is added already, or is not known (a transcript)."""
        index = self.view.index[sender]
        self.uploads[index] = upload
        self._count(index)

    def _named(self, what: str, index: int, names: Sequence[bytes]) -> frozenset[int]:
        """Roster indices of those named. Raises when one is not a neighbor in U1."""
        if not names:
            return frozenset()
        around = self._neighbors[index]
        allowed = {self.view.identities[i]: i for i in around[self._finished[around]].tolist()}
        if strangers := [name for name in names if name not in allowed]:
            raise refuse(
                RefusalReason.WRONG_NEIGHBORS,
                f"MaskedInput.{what}: {short(strangers[0])} is no neighbor in U1",
            )
        return frozenset(allowed[Identity(name)] for name in names)

    def close(self) -> ConsistencyCheck | Unmasking:
        if (obstacle := self._obstacle()) is not None:
            raise Suspicions.of_complaints(self.uploads, self.departures).ended(self.view, *obstacle)
        contributions: dict[Pair, SealedContribution] = {}
        if self._contributions is not None:
            contributions = self._contributions.in_question(self.uploads, self.departures)
        masked = Masked(
            self.view,
            self.mask_keys,
            {self.view.index[dealer]: message.seed_commitment for dealer, message in self.shared.items()},
            self.finished,
            self.uploads,
            self.total,
            self.kem_keys,
            contributions,
            self.departures,
        )
        return ConsistencyCheck(masked) if self.view.active else Unmasking(masked, {})

    def _obstacle(self) -> tuple[AbortReason, str] | None:
        """Return why no sum over those who uploaded may or can be opened, if so."""
        view, survivors = self.view, self.uploads.keys()
        if len(survivors) < view.effective_minimum:
            return (
                AbortReason.TOO_FEW_SURVIVORS,
                f"{view.effective_minimum} survivors are needed, {len(survivors)} uploaded",
            )
        threshold = view.roster.threshold
        wanted = self._finished & (self._present > 0)
        wanted[list(survivors)] = True
        closed = np.flatnonzero(wanted & (self._able < threshold))
        if closed.size:
            detail = f"fewer than {threshold} neighbors can answer for {listed(view.named(closed.tolist()))}"
            complained = (self._able[closed] != self._present[closed]).any()
            return AbortReason.COMPLAINTS if complained else AbortReason.TOO_FEW_SURVIVORS, detail
        if not view.leaves_no_gap(survivors):
            what = "a stretch of the circle has too few survivors" if view.active else _SPLIT
            return AbortReason.SURVIVOR_GAP, what
        return None

    def _count(self, index: int) -> None:
        self._present[self._neighbors[index]] += 1
        self._able[self._neighbors[index]] += 1
        self._able[list(self.uploads[index].complaints)] -= 1
