"""Phase 4, server: ask for one kind of share per client, rebuild the secrets, remove the masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from secagg.effects import AbortReason, Aggregate, Frame, RefusalReason, Traffic
from secagg.messages import (
    Encoded,
    Octets,
    Rows,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
    column,
    encode_frame,
    encode_list,
    joined,
)
from secagg.params import Identity, Phase
from secagg.primitives.graph import Indices
from secagg.primitives.shamir import SHARE_BYTES
from secagg.protocol.round import RoundEnded, listed, refuse
from secagg.protocol.server.answers import Answers
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.masked import Coverage, Masked, Upload
from secagg.protocol.server.phase import ITEM_BYTES, SMALL_BYTES, Result
from secagg.protocol.server.recovery import Recovered, recover_secrets
from secagg.protocol.server.removal import remove_masks

_NO_UPLOAD = Upload(bytes(32), frozenset(), bytes(64))  # stands in the array where there is none


@dataclass(slots=True)
class Unmasking:
    """Collects shares; leads to the result.

    signatures  survivor signatures by roster index (active)
    """

    phase: ClassVar = Phase.UNMASKING
    wants: ClassVar[type] = UnmaskingResponse
    masked: Masked
    signatures: dict[int, bytes]
    threads: int = 1  # for agreements and masks; the session sets it
    answers: Answers = field(init=False, repr=False)
    _coverage: Coverage = field(init=False, repr=False)
    _proofs: Rows[UploadProof] = field(init=False, repr=False)  # by roster index; of S
    _quorum: Encoded = field(init=False, repr=False)
    _asked: frozenset[Identity] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        masked, view = self.masked, self.masked.view
        self._asked = view.named(self.signatures if view.active else masked.uploads)
        self.answers = Answers(masked.neighbors, masked.positions)
        self._coverage = Coverage(view.clients, masked.needed_dealers(), view.roster.threshold)
        uploads = [masked.uploads.get(i, _NO_UPLOAD) for i in range(view.clients)]
        self._proofs = Rows.build(
            UploadProof,
            view.clients,
            identity=view.names,
            packed_digest=joined([upload.packed_digest for upload in uploads], 32),
            signature=joined([upload.signature for upload in uploads], 64),
        )
        quorum = sorted(self.signatures.items())[: view.quorum] if view.active else []
        self._quorum = encode_list(
            UnmaskingRequest, "signatures", [SurvivorSignature(i, signature) for i, signature in quorum]
        )

    @property
    def largest(self) -> int:
        return SMALL_BYTES + ITEM_BYTES * self.masked.view.roster.degree

    @property
    def asked(self) -> frozenset[Identity]:
        return self._asked

    @property
    def answered(self) -> frozenset[Identity]:
        return self.masked.view.named(self.answers.holders)

    @property
    def needed(self) -> int:
        return self.masked.view.roster.threshold

    @property
    def ready(self) -> bool:
        return not self._coverage.lacking

    def request(self, client: Identity) -> Frame:
        around = self.masked.neighbors[self.masked.view.index[client]]
        proofs = Rows(UploadProof, self._proofs.array[around[self.masked.in_survivors[around]]])
        message = UnmaskingRequest(self.masked.survivors_bitmap, proofs, cast("Any", self._quorum))
        return encode_frame(self.masked.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: UnmaskingResponse) -> None:
        view = self.masked.view
        holder = view.index[sender]
        dealers = self.masked.dealers_of(holder)
        alive = self.masked.in_survivors[dealers]
        for name, shares, wanted in (
            ("self_seed_shares", message.self_seed_shares, dealers[alive]),
            ("mask_key_shares", message.mask_key_shares, dealers[~alive]),
        ):
            if not np.array_equal(column(shares, "dealer", 32), view.names[wanted]):
                raise refuse(
                    RefusalReason.WRONG_NEIGHBORS, f"UnmaskingResponse.{name}: not exactly those asked for"
                )
        self.take(holder, dealers[alive], column(message.self_seed_shares, "share", SHARE_BYTES))
        self.take(holder, dealers[~alive], column(message.mask_key_shares, "share", SHARE_BYTES))

    def take(self, holder: int, dealers: Indices, shares: Octets) -> None:
        """Keep revealed shares (m, 40) of dealers (m,); every dealer once."""
        self.answers.add(holder, dealers, shares)
        self._coverage.add(dealers)

    def close(self) -> Result:
        recovered = self.recover()
        total = remove_masks(self.masked, recovered, self.threads)
        self.answers.wipe()  # last: until then the phase can be closed again
        survivors = tuple(self.masked.view.identities[i] for i in sorted(self.masked.uploads))
        return Result(Aggregate(total, survivors, recovered.blamed, Traffic()))

    def recover(self) -> Recovered:
        """Rebuild the secrets, and say whom the shares speak against. Raises RoundEnded."""
        view = self.masked.view
        if not self.ready:
            silent = self.asked - self.answered
            raise Suspicions.of_complaints(self.masked.uploads, self.masked.departures).ended(
                view,
                AbortReason.TOO_FEW_ANSWERS,
                f"the secrets of {self._coverage.lacking} clients have fewer than {view.roster.threshold} "
                f"shares; missing: {listed(silent)}",
                silent,
            )
        try:
            return recover_secrets(self.masked, self.answers, self.threads)
        except RoundEnded:
            self.answers.wipe()
            raise
