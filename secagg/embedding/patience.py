"""How long a server waits for its nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secagg.params import Phase, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The time that nodes have to answer, in seconds of the server's clock.

    first_s  for the first request: hosts and nodes may still be starting
    input_s  for the vector: holds the training
    phase_s  for every other request
    grace_s  once enough have answered for the round to go on, at most so long for the rest; None: all of it
    """

    first_s: float = 120.0
    input_s: float = 3600.0
    phase_s: float = 60.0
    grace_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("first_s", "input_s", "phase_s", "grace_s"):
            seconds = getattr(self, name)
            if seconds is not None:
                require(math.isfinite(seconds) and seconds > 0, name, "positive and finite", seconds)

    def of(self, phase: Phase) -> float:
        """Return the time for the answers of a phase."""
        return {Phase.ADVERTISE_KEYS: self.first_s, Phase.MASKED_INPUT_COLLECTION: self.input_s}.get(
            phase, self.phase_s
        )
