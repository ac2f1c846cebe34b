"""How long a server waits for its nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from secagg.params import Phase, require
from secagg.params_oneshot import EpochPhase, OneShotPhase

AnyPhase: TypeAlias = Phase | EpochPhase | OneShotPhase
_KIND_OF = {  # by class, too: phases are numbers
    (type(phase), phase): kind
    for phase, kind in (
        (Phase.ADVERTISE_KEYS, "first_s"),
        (EpochPhase.KEYS, "first_s"),
        (Phase.MASKED_INPUT_COLLECTION, "input_s"),
        (OneShotPhase.UPLOAD, "input_s"),
    )
}


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

    def of(self, phase: AnyPhase) -> float:
        """Return the time for the answers of a phase."""
        return float(getattr(self, _KIND_OF.get((type(phase), phase), "phase_s")))
