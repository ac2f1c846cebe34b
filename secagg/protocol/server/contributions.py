"""What clients add to the seeds of pairs in the hybrid suite: relayed in phase 2, opened for the dropouts.

See PROTOCOL.md, 3.7.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from secagg.effects import AbortReason
from secagg.messages import Rows, SealedContribution, SharedKeys, encode, joined
from secagg.params import Identity
from secagg.primitives.graph import Indices
from secagg.primitives.hybrid import MaskKeys, contribution, open_contribution
from secagg.protocol.round import RoundView, listed, parameters_digest
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.masked import Masked, Pair

_ITEM_BYTES = len(encode(SealedContribution(bytes(32), bytes(1088), bytes(48))))


class Contributions:
    """The sealed contributions of U1, by roster index.

    neighbors, positions  of the graph, (n, k)
    """

    __slots__ = ("_base", "_neighbors", "_positions", "_rows", "_view")

    def __init__(
        self, view: RoundView, neighbors: Indices, positions: Indices, shared: Mapping[Identity, SharedKeys]
    ) -> None:
        self._view, self._neighbors, self._positions = view, neighbors, positions
        self._base = np.zeros(view.clients, np.int64)  # of a sender's row, less the neighbors before it
        encoded: list[bytes] = []
        for identity, message in shared.items():
            sender = view.index[identity]
            self._base[sender] = len(encoded) - int((neighbors[sender] < sender).sum())
            encoded += map(encode, message.contributions)
        self._rows = joined(encoded, _ITEM_BYTES)

    def to(self, receiver: int, present: Indices) -> Rows[SealedContribution]:
        """Return what a client gets from these neighbors, ascending; only smaller ones have sent it any."""
        around = self._neighbors[receiver]
        wanted = np.isin(around, present) & (around < receiver)
        rows = self._rows[self._base[around[wanted]] + self._positions[receiver, wanted]]
        items = Rows(SealedContribution, rows)
        return Rows.build(
            SealedContribution,
            len(rows),
            peer=self._view.names[around[wanted]],
            kem=items.column("kem"),
            ciphertext=items.column("ciphertext"),
        )

    def between(self, senders: Collection[int], receivers: Collection[int]) -> dict[Pair, SealedContribution]:
        """Return what these senders have for these receivers, by sender and receiver."""
        some = np.array(sorted(senders), np.int32)
        return {
            (self._view.index[Identity(one.peer)], receiver): one
            for receiver in receivers
            for one in self.to(receiver, some)
        }


def open_contributions(
    masked: Masked, roots: Mapping[int, bytes], suspicions: Suspicions
) -> dict[Pair, bytes]:
    """Return what was added to the seeds of dropouts and survivors, by dropout and survivor.

    roots    of the dropouts, checked
    raises   RoundEnded: a survivor's contribution does not open, so its mask cannot be removed

    Whose contribution does not open is guilty, as is who left because of one that does.
    """
    view, digest = masked.view, masked.view.roster_digest
    hashed = parameters_digest(view.parameters)
    added: dict[Pair, bytes] = {}
    closed: set[int] = set()
    for dropout, root in roots.items():
        keys = MaskKeys.of(root, hashed)
        me, accused = view.identities[dropout], masked.departures.get(dropout, frozenset())
        around = masked.neighbors[dropout]
        for other in around[masked.in_survivors[around]].tolist():
            if dropout < other:
                added[dropout, other] = contribution(root, digest, me, view.identities[other])
        for (sender, receiver), sealed in masked.contributions.items():
            if receiver != dropout:
                continue
            theirs = view.identities[sender], masked.mask_keys[sender]
            value = open_contribution(keys, theirs[1], sealed.kem, sealed.ciphertext, digest, theirs[0], me)
            if sender in accused or value is None:
                suspicions.proved(sender, dropout, guilty=sender if value is None else dropout)
            if not masked.in_survivors[sender]:
                continue
            if value is None:
                closed.add(sender)
            else:
                added[dropout, sender] = value
    if closed:
        raise suspicions.ended(
            view,
            AbortReason.BAD_CONTRIBUTION,
            f"the masks of {listed(view.named(closed))} cannot be removed",
        )
    return added
