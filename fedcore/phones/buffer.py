"""Buffered asynchronous aggregation (FedBuff: Nguyen et al., AISTATS 2022), its numbers and its weights."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.settings import at_least, positive, require, settle


@dataclass(frozen=True, slots=True, kw_only=True)
class FedBuff:
    """A buffer of updates about the last few models.

    goal          uploads of a buffer: then it is summed, and the model moves (the paper's K)
    versions      models that an update may be about when it comes: the newest and those before it; older ones
                  are not taken. A buffer that waits for the committee meanwhile makes it older
    staleness     exponent: an update about the s-th model before the newest weighs (1 + s)^-staleness of its
                  own weight, inside the quantized update, so that the server does not learn the weights
    smallest      fewest updates about one model in a sum: what is about another is left out whole
    server_rate   of the mean update
    raises        SettingError
    """

    goal: int = 10
    versions: int = 4
    staleness: float = 0.5
    smallest: int = 3
    server_rate: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        at_least(self, 3, "goal", "smallest")
        require(self.smallest <= self.goal, "smallest", f"at most goal = {self.goal}", self.smallest)
        require(1 <= self.versions <= 16, "versions", "in 1..16", self.versions)
        at_least(self, 0, "staleness")
        positive(self, "server_rate")

    def fade(self, behind: int) -> float:
        """Return the factor of the weight of an update about the model so many before the newest."""
        return float((1 + behind) ** -self.staleness)
