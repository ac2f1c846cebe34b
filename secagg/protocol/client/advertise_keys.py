"""Phase 0, client: draw all randomness, advertise two keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from secagg.messages import Advertisement
from secagg.params import Entropy, RoundParameters, Signer, require
from secagg.primitives.agreement import public_key
from secagg.protocol.round import advertisement_text, parameters_digest


@dataclass(slots=True)
class Secrets:
    """All that a client draws, in this order. Wiped field by field as soon as they are no longer needed."""

    agreement: bytearray = field(repr=False)
    mask: bytearray = field(repr=False)
    self_seed: bytearray = field(repr=False)
    share_seed: bytearray = field(repr=False)

    @classmethod
    def draw(cls, entropy: Entropy) -> Secrets:
        """Draw four times 32 bytes."""
        drawn = [bytearray(entropy(32)) for _ in range(4)]
        for value in drawn:
            require(len(value) == 32, "entropy", "32 bytes as asked", len(value))
        return cls(*drawn)

    def wipe(self, *names: str) -> None:
        """Overwrite these secrets, or all, and forget them."""
        for name in names or self.__slots__:
            secret = getattr(self, name)
            secret[:] = bytes(len(secret))
            setattr(self, name, bytearray())

    def __reduce__(self) -> NoReturn:
        raise TypeError("Secrets are not pickled")


def advertise(parameters: RoundParameters, signer: Signer, secrets: Secrets) -> Advertisement:
    """Make the client's advertisement."""
    unsigned = Advertisement(
        signer.identity, public_key(secrets.agreement), public_key(secrets.mask), bytes(64)
    )
    signature = signer.sign(advertisement_text(parameters_digest(parameters), unsigned))
    return Advertisement(unsigned.identity, unsigned.agreement_key, unsigned.mask_key, signature)
