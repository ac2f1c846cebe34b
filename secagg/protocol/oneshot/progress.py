"""The standing of a server session of the one-upload protocol."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.params import Identity
from secagg.params_oneshot import EpochPhase, OneShotPhase


@dataclass(frozen=True, slots=True)
class OneShotProgress:
    """All that a caller needs to decide about close_phase()."""

    phase: EpochPhase | OneShotPhase | None  # None: over, or not begun
    expected: int  # parties asked that may still count
    received: int  # right messages of this phase
    needed: int  # below this many it cannot go on
    ready: bool  # closing now lets it go on
    missing: frozenset[Identity]  # asked, not given up, without a right message

    @property
    def complete(self) -> bool:
        """Return whether nobody is waited for."""
        return not self.missing
