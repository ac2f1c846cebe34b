"""The phases of a client as types: the fields are all that a phase may know, and all that is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from secagg.messages import Advertisement, SurvivorSet, UnmaskingRequest
from secagg.params import Identity, Phase, RoundParameters
from secagg.protocol.client.advertise_keys import Secrets
from secagg.protocol.client.vault import Vault
from secagg.protocol.round import RoundView


@dataclass(slots=True)
class Idle:
    """Waits for RoundParameters."""


@dataclass(slots=True)
class AdvertiseKeys:
    """Has advertised its keys; waits for the roster."""

    parameters: RoundParameters
    own: Advertisement
    secrets: Secrets


@dataclass(slots=True)
class ShareKeys:
    """Has shared its keys; waits for U1 and the shares of its neighbors."""

    view: RoundView
    neighbors: dict[Identity, Advertisement]
    secrets: Secrets
    opening: dict[Identity, bytearray] = field(repr=False)  # keys of what the neighbors seal for us

    def wipe_opening(self) -> None:
        """Overwrite the keys: everything that they open has been opened."""
        _zero_all(self.opening)
        self.secrets.wipe("kem")


@dataclass(slots=True)
class MaskedInputCollection:
    """Holds the neighbors' shares; waits for the caller's vector."""

    view: RoundView
    neighbors: dict[Identity, Advertisement]
    secrets: Secrets
    finished: frozenset[int]
    vault: Vault  # opened shares; a dealer of U1 that is not in it: complaint
    contributions: dict[Identity, bytearray] = field(
        default_factory=dict, repr=False
    )  # hybrid; of the smaller

    def wipe_contributions(self) -> None:
        """Overwrite them: the masks are made."""
        _zero_all(self.contributions)


@dataclass(slots=True)
class Uploaded:
    """Has uploaded; waits for S to sign (active), then for the unmasking request.

    asked  a right message about an S that the caller has not consented to yet, if there is one
    """

    view: RoundView
    neighbors: tuple[Identity, ...]
    finished: frozenset[int]
    vault: Vault
    signed: bytes | None = None  # the S that it signed
    asked: SurvivorSet | UnmaskingRequest | None = None


@dataclass(slots=True)
class Over:
    """Has answered, for these survivors, or has given the round up: none."""

    survivors: frozenset[Identity] = frozenset()


ClientPhase = Idle | AdvertiseKeys | ShareKeys | MaskedInputCollection | Uploaded | Over


def wipe(phase: ClientPhase) -> None:
    """Overwrite every secret that a phase holds."""
    if isinstance(phase, AdvertiseKeys | ShareKeys | MaskedInputCollection):
        phase.secrets.wipe()
    if isinstance(phase, ShareKeys):
        phase.wipe_opening()
    if isinstance(phase, MaskedInputCollection):
        phase.wipe_contributions()
    if isinstance(phase, MaskedInputCollection | Uploaded):
        phase.vault.wipe()


def _zero_all(secrets: dict[Identity, bytearray]) -> None:
    for secret in secrets.values():
        secret[:] = bytes(len(secret))
    secrets.clear()


def answered_phase(phase: ClientPhase) -> Phase | None:
    """Return the paper's phase that the newest frame belongs to; None before the first, after giving up."""
    match phase:
        case AdvertiseKeys():
            return Phase.ADVERTISE_KEYS
        case ShareKeys() | MaskedInputCollection():
            return Phase.SHARE_KEYS
        case Uploaded(signed=signed):
            return Phase.MASKED_INPUT_COLLECTION if signed is None else Phase.CONSISTENCY_CHECK
        case Over(survivors=survivors):
            return Phase.UNMASKING if survivors else None
        case Idle():
            return None


def public_phase(phase: ClientPhase) -> Phase | None:
    """Return the paper's phase that the client takes part in; None before the round and after it."""
    match phase:
        case AdvertiseKeys():
            return Phase.ADVERTISE_KEYS
        case ShareKeys():
            return Phase.SHARE_KEYS
        case MaskedInputCollection():
            return Phase.MASKED_INPUT_COLLECTION
        case Uploaded(view=view, signed=signed):
            return Phase.CONSISTENCY_CHECK if view.active and signed is None else Phase.UNMASKING
        case Idle() | Over():
            return None
