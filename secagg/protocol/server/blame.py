"""Who is suspected, and who is guilty: contradictions between dealers and holders (PROTOCOL.md, 3.6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from secagg.effects import AbortReason, Blame, BlameReason
from secagg.params import Identity
from secagg.protocol.round import RoundEnded, RoundView
from secagg.protocol.server.masked import Upload

Pair = tuple[int, int]  # dealer, holder


@dataclass(slots=True)
class Suspicions:
    """Contradictions, counted in distinct pairs of roster indices."""

    complaints: set[Pair] = field(default_factory=set)
    wrong_shares: set[Pair] = field(default_factory=set)
    wrong_secrets: set[int] = field(default_factory=set)  # dealers guilty by their own polynomial

    @classmethod
    def of_complaints(cls, uploads: Mapping[int, Upload]) -> Suspicions:
        """Begin with what came with the uploads."""
        return cls({(dealer, holder) for holder, upload in uploads.items() for dealer in upload.complaints})

    def blame(self, view: RoundView) -> tuple[Blame, ...]:
        """Both sides of a pair are suspects; more than t1 pairs, or a wrong secret, make guilty."""
        pairs = self.complaints | self.wrong_shares
        against_dealer = Counter(dealer for dealer, _ in pairs)
        against_holder = Counter(holder for _, holder in pairs)
        wrong = {i for pair in self.wrong_shares for i in pair}
        out = []
        for i in sorted({*against_dealer, *against_holder, *self.wrong_secrets}):
            guilty = max(against_dealer[i], against_holder[i]) > view.suspicion_limit
            reason = BlameReason.WRONG_SHARE if i in wrong else BlameReason.COMPLAINT
            if i in self.wrong_secrets:
                guilty, reason = True, BlameReason.WRONG_SECRET
            out.append(Blame(view.identities[i], guilty, reason))
        return tuple(out)

    def ended(
        self, view: RoundView, reason: AbortReason, detail: str, suspects: Collection[Identity] = ()
    ) -> RoundEnded:
        """Make the end of a round, with everybody who is suspected."""
        blamed = self.blame(view)
        return RoundEnded(
            reason,
            detail,
            {*suspects, *(entry.client for entry in blamed)},
            {entry.client for entry in blamed if entry.guilty},
        )
