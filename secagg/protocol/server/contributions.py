"""What clients add to the seeds of pairs in the hybrid suite: relayed in phase 2, opened for the dropouts.

See PROTOCOL.md, 3.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import map_in_threads
from secagg.messages import Octets, Rows, SealedContribution, SharedKeys
from secagg.params import Identity
from secagg.primitives.graph import Indices
from secagg.primitives.hybrid import MaskKeys, contribution, open_contribution
from secagg.protocol.round import RoundView, parameters_digest
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.masked import Masked, Pair, Upload


class Contributions:
    """The sealed contributions of U1, by roster index.

    neighbors, positions  of the graph, (n, k)
    finished              U1, by roster index
    """

    __slots__ = ("_base", "_finished", "_items", "_neighbors", "_positions", "_view")

    def __init__(
        self,
        view: RoundView,
        neighbors: Indices,
        positions: Indices,
        finished: NDArray[np.bool_],
        shared: Mapping[Identity, SharedKeys],
    ) -> None:
        self._view, self._finished = view, finished
        self._neighbors, self._positions = neighbors, positions
        self._base = np.zeros(view.clients, np.int64)  # of a sender's items, less the neighbors before it
        arrays: list[Octets] = []
        count = 0
        for identity, message in shared.items():
            sender = view.index[identity]
            self._base[sender] = count - int((neighbors[sender] < sender).sum())
            if message.contributions:  # ShareKeys took none of several sizes
                arrays.append(cast("Rows[SealedContribution]", message.contributions).array)
                count += len(arrays[-1])
        self._items = Rows(SealedContribution, np.concatenate(arrays))

    def sent(self, sender: int) -> Rows[SealedContribution]:
        """Return what a client has sent: for its larger neighbors, ascending; a view."""
        smaller = int((self._neighbors[sender] < sender).sum())
        first, count = int(self._base[sender]) + smaller, len(self._neighbors[sender]) - smaller
        return self._items[first : first + count]

    def senders(self, receiver: int) -> Indices:
        """Return who has sent a client something: the smaller neighbors in U1, ascending."""
        around = self._neighbors[receiver]
        smaller: Indices = around[self._finished[around] & (around < receiver)]
        return smaller

    def to(self, receiver: int) -> Rows[SealedContribution]:
        """Return what a client gets, by sender, ascending."""
        senders = self.senders(receiver)
        places = self._positions[receiver, np.isin(self._neighbors[receiver], senders)]
        rows = self._base[senders] + places
        return Rows.build(
            SealedContribution,
            len(rows),
            peer=self._view.names[senders],
            kem=self._items.column("kem")[rows],
            ciphertext=self._items.column("ciphertext")[rows],
        )

    def in_question(
        self, uploads: Mapping[int, Upload], departures: Mapping[int, frozenset[int]]
    ) -> dict[Pair, SealedContribution]:
        """Return what must be opened, by sender and receiver: to dropouts, from S and from those accused."""
        return {
            (sender, receiver): one
            for receiver in np.flatnonzero(self._finished).tolist()
            if receiver not in uploads
            for sender, one in zip(self.senders(receiver).tolist(), self.to(receiver), strict=True)
            if sender in uploads or sender in departures.get(receiver, ())
        }


def open_contributions(
    masked: Masked, roots: Mapping[int, bytes], suspicions: Suspicions, threads: int
) -> tuple[dict[Pair, bytes], frozenset[int]]:
    """Return what was added to the seeds of dropouts and survivors, by dropout and survivor.

    roots    of the dropouts, checked
    returns  also the survivors of whom something does not open: their masks cannot be removed

    Whose contribution does not open is guilty, as is who left because of one that does.
    """
    view, digest = masked.view, masked.view.roster_digest
    hashed = parameters_digest(view.parameters)
    keys = {dropout: MaskKeys.of(root, hashed) for dropout, root in roots.items()}
    wanted = [pair for pair in masked.contributions if pair[1] in keys]

    def opened(pair: Pair) -> bytes | None:
        sender, receiver = (view.identities[i] for i in pair)
        sealed, mask_key = masked.contributions[pair], masked.mask_keys[pair[0]]
        return open_contribution(
            keys[pair[1]], mask_key, sealed.kem, sealed.ciphertext, digest, sender, receiver
        )

    added: dict[Pair, bytes] = {}
    closed: set[int] = set()
    values = map_in_threads(opened, wanted, threads=threads)
    for (sender, dropout), value in zip(wanted, values, strict=True):
        if value is None or sender in masked.departures.get(dropout, ()):
            suspicions.proved(sender, dropout, guilty=sender if value is None else dropout)
        if masked.in_survivors[sender] and value is None:
            closed.add(sender)
        elif value is not None:
            added[dropout, sender] = value
    for dropout, root in roots.items():
        around = masked.neighbors[dropout]
        for other in around[masked.in_survivors[around] & (around > dropout)].tolist():
            names = view.identities[dropout], view.identities[other]
            added[dropout, other] = contribution(root, digest, *names)
    return added, frozenset(closed)
