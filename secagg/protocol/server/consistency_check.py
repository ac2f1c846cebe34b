"""Phase 3, server: collect signatures under the one set S."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from secagg.effects import AbortReason, Frame, RefusalReason
from secagg.messages import SurvivorSet, SurvivorSignature, encode_frame
from secagg.params import Identity, Phase
from secagg.primitives.signatures import verify
from secagg.protocol.round import listed, refuse
from secagg.protocol.server.blame import Suspicions
from secagg.protocol.server.masked import Coverage, Masked
from secagg.protocol.server.phase import SMALL_BYTES
from secagg.protocol.server.unmasking import Unmasking


@dataclass(slots=True)
class ConsistencyCheck:
    """Collects survivor signatures (active rounds only); leads to Unmasking."""

    phase: ClassVar = Phase.CONSISTENCY_CHECK
    wants: ClassVar[type] = SurvivorSignature
    masked: Masked
    signatures: dict[int, bytes] = field(default_factory=dict)
    _text: bytes = field(init=False, repr=False)
    _coverage: Coverage = field(init=False, repr=False)  # by those who signed: only they are asked
    _asked: frozenset[Identity] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        view = self.masked.view
        self._asked = view.named(self.masked.survivors)
        self._coverage = Coverage(view.clients, self.masked.needed_dealers(), view.roster.threshold)
        self._text = view.survivors_text(self.masked.finished_bitmap, self.masked.survivors_bitmap)
        for holder in self.signatures:
            self._coverage.add(self.masked.dealers_of(holder))

    @property
    def largest(self) -> int:
        return SMALL_BYTES

    @property
    def asked(self) -> frozenset[Identity]:
        return self._asked

    @property
    def answered(self) -> frozenset[Identity]:
        return self.masked.view.named(self.signatures)

    @property
    def needed(self) -> int:
        return self.masked.view.quorum

    @property
    def ready(self) -> bool:
        return len(self.signatures) >= self.needed and not self._coverage.lacking

    def request(self, client: Identity) -> Frame:
        message = SurvivorSet(self.masked.survivors_bitmap)
        return encode_frame(self.masked.view.parameters.round_id, message)

    def accept(self, sender: Identity, message: SurvivorSignature) -> None:
        view = self.masked.view
        index = view.index[sender]
        if message.index != index:
            raise refuse(
                RefusalReason.SENDER_MISMATCH,
                f"SurvivorSignature.index: must be the sender's, {index}, is {message.index}",
            )
        if not verify(sender, self._text, message.signature):
            raise refuse(RefusalReason.BAD_SIGNATURE, "SurvivorSignature.signature")
        self.signatures[index] = message.signature
        self._coverage.add(self.masked.dealers_of(index))

    def close(self) -> Unmasking:
        silent = self.asked - self.answered
        suspicions = Suspicions.of_complaints(self.masked.uploads, self.masked.departures)
        if len(self.signatures) < self.needed:
            raise suspicions.ended(
                self.masked.view,
                AbortReason.NO_QUORUM,
                f"{self.needed} signatures are needed, {len(self.signatures)} came; "
                f"missing: {listed(silent)}",
                silent,
            )
        if self._coverage.lacking:
            raise suspicions.ended(
                self.masked.view,
                AbortReason.TOO_FEW_ANSWERS,
                f"the secrets of {self._coverage.lacking} clients have fewer than "
                f"{self.masked.view.roster.threshold} holders among those who signed; "
                f"missing: {listed(silent)}",
                silent,
            )
        return Unmasking(self.masked, dict(self.signatures))
