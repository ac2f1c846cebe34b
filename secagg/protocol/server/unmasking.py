"""Phase 4, server: ask for one kind of share per client, rebuild the secrets, remove the masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

from secagg.effects import AbortReason, Aggregate, Frame, RefusalReason, Traffic
from secagg.messages import (
    Message,
    SurvivorSignature,
    UnmaskingRequest,
    UnmaskingResponse,
    UploadProof,
    encode,
    encode_frame,
)
from secagg.messages.wire import Encoded
from secagg.params import Identity, Phase
from secagg.protocol.round import listed, refuse
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.masked import Coverage, Masked
from secagg.protocol.server.phase import Result
from secagg.protocol.server.recovery import recover_secrets
from secagg.protocol.server.removal import remove_masks


@dataclass(slots=True)
class Unmasking:
    """Collects shares; leads to the result.

    signatures  survivor signatures by roster index (active); answers: shares by holder, then dealer
    """

    phase: ClassVar = Phase.UNMASKING
    masked: Masked
    signatures: dict[int, bytes]
    answers: dict[int, dict[int, bytes]] = field(default_factory=dict, repr=False)
    _coverage: Coverage = field(init=False, repr=False)
    _proofs: dict[int, Encoded] = field(init=False, repr=False)
    _quorum: tuple[Encoded, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        view = self.masked.view
        self._coverage = Coverage(self.masked.needed_dealers(), view.roster.threshold)
        for shares in self.answers.values():
            self._coverage.add(shares)
        self._proofs = {
            i: Encoded(encode(UploadProof(view.identities[i], upload.packed_digest, upload.signature)))
            for i, upload in self.masked.uploads.items()
        }
        quorum = sorted(self.signatures.items())[: view.quorum] if view.active else []
        self._quorum = tuple(Encoded(encode(SurvivorSignature(i, signature))) for i, signature in quorum)

    @property
    def asked(self) -> frozenset[Identity]:
        members = self.signatures if self.masked.view.active else self.masked.uploads
        return self.masked.view.named(members)

    @property
    def answered(self) -> frozenset[Identity]:
        return self.masked.view.named(self.answers)

    @property
    def needed(self) -> int:
        return self.masked.view.roster.threshold

    @property
    def ready(self) -> bool:
        return not self._coverage.lacking

    def request(self, client: Identity) -> Frame:
        holder = self.masked.view.index[client]
        proofs = tuple(self._proofs[i] for i in self.masked.neighbors[holder] if i in self._proofs)
        message = UnmaskingRequest(
            self.masked.survivors_bitmap(), cast("Any", proofs), cast("Any", self._quorum)
        )
        return encode_frame(self.masked.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: Message) -> None:
        if not isinstance(message, UnmaskingResponse):
            raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in Unmasking")
        view = self.masked.view
        holder = view.index[sender]
        dealers = self.masked.dealers_of(holder)
        for name, shares, wanted in (
            ("self_seed_shares", message.self_seed_shares, [i for i in dealers if i in self.masked.uploads]),
            (
                "mask_key_shares",
                message.mask_key_shares,
                [i for i in dealers if i not in self.masked.uploads],
            ),
        ):
            if [share.dealer for share in shares] != [view.identities[i] for i in wanted]:
                raise refuse(
                    RefusalReason.WRONG_NEIGHBORS, f"UnmaskingResponse.{name}: not exactly those asked for"
                )
        self.answers[holder] = {
            view.index[Identity(share.dealer)]: share.share
            for share in (*message.self_seed_shares, *message.mask_key_shares)
        }
        self._coverage.add(self.answers[holder])

    def close(self) -> Result:
        view = self.masked.view
        if not self.ready:
            silent = self.asked - self.answered
            raise Suspicions.of_complaints(self.masked.uploads).ended(
                view,
                AbortReason.TOO_FEW_ANSWERS,
                f"the secrets of {self._coverage.lacking} clients have fewer than {view.roster.threshold} "
                f"shares; missing: {listed(silent)}",
                silent,
            )
        secrets, blamed = recover_secrets(self.masked, self.answers)
        remove_masks(self.masked, secrets)
        survivors = tuple(view.identities[i] for i in sorted(self.masked.uploads))
        return Result(Aggregate(self.masked.total, survivors, blamed, Traffic()))
