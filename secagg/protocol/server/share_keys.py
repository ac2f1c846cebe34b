"""Phase 1, server: announce the roster, collect sealed shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.messages import Advertisement, Message, RosterAnnouncement, SharedKeys, encode, encode_frame
from secagg.messages.wire import Encoded
from secagg.params import Identity, Phase
from secagg.primitives.signatures import verify
from secagg.protocol.round import RoundEnded, RoundView, refuse
from secagg.protocol.server.masked_input_collection import MaskedInputCollection


@dataclass(slots=True)
class ShareKeys:
    """Collects the sealed shares of the roster; leads to MaskedInputCollection."""

    phase: ClassVar = Phase.SHARE_KEYS
    view: RoundView
    advertisements: tuple[Advertisement, ...]  # by roster index
    inbox: dict[Identity, SharedKeys] = field(default_factory=dict)
    _neighbors: list[tuple[int, ...]] = field(init=False, repr=False)
    _roster: Encoded = field(init=False, repr=False)
    _encoded: list[Encoded] = field(init=False, repr=False)
    _reach: Counter[int] = field(init=False, repr=False)  # neighbors in the inbox, by roster index

    def __post_init__(self) -> None:
        self._neighbors = self.view.graph.neighbors()
        self._roster = Encoded(encode(self.view.roster))
        self._encoded = [Encoded(encode(advertisement)) for advertisement in self.advertisements]
        self._reach = Counter()
        for identity in self.inbox:
            self._reach.update(self._neighbors[self.view.index[identity]])

    @property
    def asked(self) -> frozenset[Identity]:
        return frozenset(self.view.identities)

    @property
    def answered(self) -> frozenset[Identity]:
        return frozenset(self.inbox)

    @property
    def needed(self) -> int:
        return self.view.effective_minimum

    @property
    def ready(self) -> bool:
        """Enough have shared keys, and enough of them have a threshold of neighbors that did, too."""
        threshold = self.view.roster.threshold
        able = sum(self._reach[self.view.index[identity]] >= threshold for identity in self.inbox)
        return able >= self.needed

    def request(self, client: Identity) -> Frame:
        neighbors = tuple(self._encoded[i] for i in self._neighbors[self.view.index[client]])
        message = RosterAnnouncement(cast("Any", self._roster), cast("Any", neighbors))
        return encode_frame(self.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: Message) -> None:
        if not isinstance(message, SharedKeys):
            raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in ShareKeys")
        wanted = [self.view.identities[i] for i in self._neighbors[self.view.index[sender]]]
        if [share.peer for share in message.shares] != wanted:
            raise refuse(RefusalReason.WRONG_NEIGHBORS, "SharedKeys.shares: not exactly the neighbors")
        if any(share.acceptance for share in message.shares):
            raise refuse(RefusalReason.MALFORMED, "SealedShare.acceptance: is empty upward")
        if not verify(sender, self.view.acceptance_text(), message.acceptance):
            raise refuse(RefusalReason.BAD_SIGNATURE, "SharedKeys.acceptance")
        self.inbox[sender] = message
        self._reach.update(self._neighbors[self.view.index[sender]])

    def close(self) -> MaskedInputCollection:
        if len(self.inbox) < self.needed:
            raise RoundEnded(
                AbortReason.TOO_FEW_SURVIVORS,
                f"{self.needed} survivors are needed, {len(self.inbox)} shared keys",
            )
        mask_keys = tuple(advertisement.mask_key for advertisement in self.advertisements)
        return MaskedInputCollection.begin(self.view, mask_keys, dict(self.inbox))
