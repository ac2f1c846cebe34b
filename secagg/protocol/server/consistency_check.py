"""Phase 3, server: collect signatures under the one set S."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.messages import Message, SurvivorSet, SurvivorSignature, encode_frame
from secagg.params import Identity, Phase
from secagg.primitives.signatures import verify
from secagg.protocol.round import RoundEnded, listed, refuse
from secagg.protocol.server.masked import Masked
from secagg.protocol.server.unmasking import Unmasking


@dataclass(slots=True)
class ConsistencyCheck:
    """Collects survivor signatures (active rounds only); leads to Unmasking."""

    phase: ClassVar = Phase.CONSISTENCY_CHECK
    masked: Masked
    signatures: dict[int, bytes] = field(default_factory=dict)

    @property
    def asked(self) -> frozenset[Identity]:
        return self.masked.view.named(self.masked.survivors)

    @property
    def answered(self) -> frozenset[Identity]:
        return self.masked.view.named(self.signatures)

    @property
    def needed(self) -> int:
        return self.masked.view.quorum

    @property
    def ready(self) -> bool:
        return len(self.signatures) >= self.needed

    def request(self, client: Identity) -> Frame:
        message = SurvivorSet(self.masked.survivors_bitmap())
        return encode_frame(self.masked.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: Message) -> None:
        if not isinstance(message, SurvivorSignature):
            raise refuse(RefusalReason.WRONG_PHASE, f"{type(message).__name__} in ConsistencyCheck")
        view = self.masked.view
        index = view.index[sender]
        if message.index != index:
            raise refuse(
                RefusalReason.SENDER_MISMATCH,
                f"SurvivorSignature.index: must be the sender's, {index}, is {message.index}",
            )
        text = view.survivors_text(self.masked.finished_bitmap(), self.masked.survivors_bitmap())
        if not verify(sender, text, message.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "SurvivorSignature.signature")
        self.signatures[index] = message.signature

    def close(self) -> Unmasking:
        if not self.ready:
            silent = self.asked - self.answered
            raise RoundEnded(
                AbortReason.NO_QUORUM,
                f"{self.needed} signatures are needed, {len(self.signatures)} came; "
                f"missing: {listed(silent)}",
                silent,
            )
        return Unmasking(self.masked, dict(self.signatures))
