"""Phase 0, client: draw all randomness, advertise the keys."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NoReturn

from secagg.messages import Advertisement
from secagg.params import Entropy, RoundParameters, Signer, require
from secagg.primitives.agreement import public_key
from secagg.primitives.hybrid import MaskKeys
from secagg.primitives.kem import SEED_BYTES, KemSecret
from secagg.protocol.round import advertisement_text, parameters_digest


@dataclass(slots=True)
class Secrets:
    """All that a client draws, in this order. Wiped field by field as soon as they are no longer needed.

    mask   private key; in the hybrid suite the root that both mask keys follow from
    kem    in the hybrid suite the seed of the key under which neighbors seal shares for us; else nothing
    """

    agreement: bytearray = field(repr=False)
    mask: bytearray = field(repr=False)
    self_seed: bytearray = field(repr=False)
    share_seed: bytearray = field(repr=False)
    kem: bytearray = field(repr=False)

    @classmethod
    def draw(cls, entropy: Entropy, *, hybrid: bool = False) -> Secrets:
        """Draw four times 32 bytes, and 64 in the hybrid suite."""
        sizes = [32, 32, 32, 32, SEED_BYTES if hybrid else 0]
        drawn = [bytearray(entropy(size) if size else b"") for size in sizes]
        for value, size in zip(drawn, sizes, strict=True):
            require(len(value) == size, "entropy", f"{size} bytes as asked", len(value))
        return cls(*drawn)

    def mask_keys(self, parameters: RoundParameters) -> MaskKeys:
        """Return what follows from the root, in the hybrid suite."""
        return MaskKeys.of(self.mask, parameters_digest(parameters))

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
    if parameters.hybrid:
        mask_key, mask_kem_key = secrets.mask_keys(parameters).public
        kem_keys = KemSecret(secrets.kem).public, mask_kem_key
    else:
        mask_key, kem_keys = public_key(secrets.mask), (b"", b"")
    unsigned = Advertisement(signer.identity, public_key(secrets.agreement), mask_key, bytes(64), *kem_keys)
    signature = signer.sign(advertisement_text(parameters_digest(parameters), unsigned))
    return replace(unsigned, signature=signature)
