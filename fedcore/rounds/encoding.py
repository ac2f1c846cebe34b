"""Encoding of answers as ring elements: everything that site and server must do alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedcore.codec.codec import Codec
from fedcore.codec.shaping import Shaping
from fedcore.data.schema import Schema
from fedcore.privacy.noise import Noise
from fedcore.rounds.instructions import Asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """The form of a site's vector in one round.

    dimension  values per site, before shaping and without what follows them
    asks       what a training round asks for
    schema     that every site must have; None: none. classes: of the label
    """

    dimension: int
    codec: Codec
    shaping: Shaping = field(default_factory=Shaping)
    noise: Noise | None = None
    asks: Asks = field(default_factory=Asks)
    schema: Schema | None = None
    classes: tuple[str, ...] = ()

    @property
    def hidden(self) -> int:
        """Values that follow the vector where noise hides them, too: the quantile's."""
        return int(bool(self.asks.quantile) and self.noise is not None)

    @property
    def precise(self) -> tuple[str, ...]:
        """Names of the precise values."""
        within = bool(self.asks.quantile) and self.noise is None
        return ("steps",) * self.asks.normalized + ("within",) * within

    @property
    def sent(self) -> int:
        """Values that are rounded: the shaped ones and the hidden ones."""
        return self.shaping.length(self.dimension) + self.hidden

    @property
    def length(self) -> int:
        """Entries of a site's encoded vector."""
        return self.codec.length(self.sent)

    @property
    def quantile(self) -> float:
        """Share of the norm that a hidden answer weighs; 0: none is hidden."""
        return self.asks.quantile if self.hidden else 0.0
