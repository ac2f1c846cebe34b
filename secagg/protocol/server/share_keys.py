"""Phase 1, server: announce the roster, collect sealed shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.messages import (
    Advertisement,
    Encoded,
    RosterAnnouncement,
    Rows,
    SharedKeys,
    column,
    encode,
    encode_frame,
    joined,
)
from secagg.params import Identity, Phase
from secagg.primitives.graph import Indices
from secagg.primitives.signatures import verify
from secagg.protocol.round import RoundEnded, RoundView, refuse
from secagg.protocol.server.masked_input_collection import MaskedInputCollection
from secagg.protocol.server.phase import HYBRID_ITEM_BYTES, ITEM_BYTES, SMALL_BYTES


@dataclass(slots=True)
class ShareKeys:
    """Collects the sealed shares of the roster; leads to MaskedInputCollection."""

    phase: ClassVar = Phase.SHARE_KEYS
    wants: ClassVar[type] = SharedKeys
    view: RoundView
    advertisements: tuple[Advertisement, ...]  # by roster index
    inbox: dict[Identity, SharedKeys] = field(default_factory=dict)
    _neighbors: Indices = field(init=False, repr=False)
    _roster: Encoded = field(init=False, repr=False)
    _rows: Rows[Advertisement] = field(init=False, repr=False)
    _reach: Indices = field(init=False, repr=False)  # neighbors in the inbox, by roster index
    _asked: frozenset[Identity] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._asked = frozenset(self.view.identities)
        self._neighbors = self.view.graph.neighbors()
        self._roster = Encoded(encode(self.view.roster))
        encoded = [encode(advertisement) for advertisement in self.advertisements]
        self._rows = Rows(Advertisement, joined(encoded, len(encoded[0])))
        self._reach = np.zeros(self.view.clients, np.int32)
        for identity in self.inbox:
            self._reach[self._neighbors[self.view.index[identity]]] += 1

    @property
    def largest(self) -> int:
        item = HYBRID_ITEM_BYTES if self.view.hybrid else ITEM_BYTES
        return SMALL_BYTES + item * self.view.roster.degree

    @property
    def asked(self) -> frozenset[Identity]:
        return self._asked

    @property
    def answered(self) -> frozenset[Identity]:
        return frozenset(self.inbox)

    @property
    def needed(self) -> int:
        return self.view.effective_minimum

    @property
    def ready(self) -> bool:
        """Enough have shared keys, and enough of them have a threshold of neighbors that did, too."""
        shared = [self.view.index[identity] for identity in self.inbox]
        return int((self._reach[shared] >= self.view.roster.threshold).sum()) >= self.needed

    def request(self, client: Identity) -> Frame:
        neighbors = Rows(Advertisement, self._rows.array[self._neighbors[self.view.index[client]]])
        message = RosterAnnouncement(cast("Any", self._roster), neighbors)
        return encode_frame(self.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: SharedKeys) -> None:
        neighbors = self._neighbors[self.view.index[sender]]
        if not np.array_equal(column(message.shares, "peer", 32), self.view.names[neighbors]):
            raise refuse(RefusalReason.WRONG_NEIGHBORS, "SharedKeys.shares: not exactly the neighbors")
        for name, items in (("shares", message.shares), ("contributions", message.contributions)):
            if items and not isinstance(items, Rows):
                raise refuse(RefusalReason.MALFORMED, f"SharedKeys.{name}: items of several forms")
        if column(message.shares, "acceptance", 0).size:
            raise refuse(RefusalReason.MALFORMED, "SealedShare.acceptance: is empty upward")
        if bool(column(message.shares, "kem", 0).size) != self.view.hybrid:
            suite = self.view.parameters.suite
            raise refuse(RefusalReason.MALFORMED, f"SealedShare.kem: not as in suite {suite}")
        larger = neighbors[neighbors > self.view.index[sender]] if self.view.hybrid else neighbors[:0]
        if not np.array_equal(column(message.contributions, "peer", 32), self.view.names[larger]):
            raise refuse(
                RefusalReason.WRONG_NEIGHBORS, "SharedKeys.contributions: not exactly the larger neighbors"
            )
        if not verify(sender, self.view.acceptance_text(), message.acceptance):
            raise refuse(RefusalReason.BAD_SIGNATURE, "SharedKeys.acceptance")
        self.inbox[sender] = message
        self._reach[neighbors] += 1

    def close(self) -> MaskedInputCollection:
        if len(self.inbox) < self.needed:
            raise RoundEnded(
                AbortReason.TOO_FEW_SURVIVORS,
                f"{self.needed} survivors are needed, {len(self.inbox)} shared keys",
            )
        mask_keys = tuple(advertisement.mask_key for advertisement in self.advertisements)
        kem_keys = tuple(one.mask_kem_key for one in self.advertisements) if self.view.hybrid else ()
        return MaskedInputCollection.begin(self.view, mask_keys, dict(self.inbox), kem_keys)
