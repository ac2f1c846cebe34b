"""Find suspects, the guilty and the likely guilty: dealers and holders that contradict (PROTOCOL.md, 3.6).

What somebody honest is contradicted by are colluders among its neighbors. So whoever can be honest only
with more colluding neighbors than there are, but for a negligible probability, is guilty; and it is likely
to be where that many are improbable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from secagg.effects import AbortReason, Blame, BlameReason
from secagg.params import Identity
from secagg.protocol.round import RoundEnded, RoundView
from secagg.protocol.server.masked import Pair, Upload


@dataclass(slots=True)
class Suspicions:
    """Contradictions, counted in distinct pairs of roster indices."""

    complaints: set[Pair] = field(default_factory=set)  # about shares and contributions
    wrong_shares: set[Pair] = field(default_factory=set)
    # By dealer of a secret that did not come out: wrong answers among those of the field if it is honest.
    unopened: dict[int, int] = field(default_factory=dict)
    liars: set[int] = field(default_factory=set)  # proved, whoever colludes

    @classmethod
    def of_complaints(
        cls, uploads: Mapping[int, Upload], departures: Mapping[int, frozenset[int]] | None = None
    ) -> Suspicions:
        """Begin with the complaints that came with the uploads, and from those who left, by roster index."""
        complaints = {holder: upload.complaints for holder, upload in uploads.items()}
        complaints.update(departures or {})
        return cls({(dealer, holder) for holder, dealers in complaints.items() for dealer in dealers})

    def proved(self, sender: int, receiver: int, *, guilty: int) -> None:
        """Keep who of these two lied about a contribution; that speaks against the other no more."""
        self.complaints.discard((sender, receiver))
        self.liars.add(guilty)

    def not_opened(self, dealer: int, answers: int, agreeing: int, threshold: int) -> None:
        """Keep that no secret of a dealer came out of so many shares of the field.

        agreeing  the most of them that lie on one polynomial of degree below the threshold, if any do

        Of an honest dealer some (answers - threshold) // 2 wrong ones would have been corrected, and
        threshold - 1 right ones lie on a wrong polynomial at most.
        """
        wrong = max((answers - threshold) // 2 + 1, agreeing - threshold + 1)
        self.unopened[dealer] = wrong if answers >= threshold else 0

    def blame(self, view: RoundView) -> tuple[Blame, ...]:
        """Both sides of a pair are suspects; what takes more than t1 colluders around one makes guilty."""
        wrong = {i for pair in self.wrong_shares for i in pair}
        out = []
        for i, needed in sorted(self._against().items()):
            reason = BlameReason.WRONG_SHARE if i in wrong else BlameReason.COMPLAINT
            if i in self.unopened:
                reason = BlameReason.WRONG_SECRET
            if i in self.liars:
                reason = BlameReason.BAD_CONTRIBUTION
            guilty = i in self.liars or needed > view.suspicion_limit
            out.append(Blame(view.identities[i], guilty, reason))
        return tuple(out)

    def likely(self, view: RoundView) -> frozenset[Identity]:
        """Those who are not guilty, and honest with probability 2^-correctness_bits at most."""
        limits = view.likely_limit, view.suspicion_limit
        against = {i: needed for i, needed in self._against().items() if i not in self.liars}
        return view.named([i for i, needed in against.items() if limits[0] < needed <= limits[1]])

    def _against(self) -> dict[int, int]:
        """Colluders that it takes around each suspect if it is honest."""
        pairs = self.complaints | self.wrong_shares
        against_dealer = Counter(dealer for dealer, _ in pairs)
        against_dealer.update(self.unopened)  # other holders than those who contradict it
        against_holder = Counter(holder for _, holder in pairs)
        return against_dealer | against_holder | Counter(self.liars)

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
            self.likely(view),
        )
