"""Phase 0, client: check the parameters against the policy, draw all randomness, advertise two keys."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from secagg.effects import RefusalReason
from secagg.messages import Advertisement
from secagg.params import Entropy, Policy, RoundParameters, Signer, require, to_ppm
from secagg.primitives.agreement import public_key
from secagg.protocol.round import advertisement_text, parameters_digest, refuse


@dataclass(slots=True)
class Secrets:
    """All that a client draws, in this order. Fields are emptied as soon as they are no longer needed."""

    agreement: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)
    share_seed: bytes = field(repr=False)

    @classmethod
    def draw(cls, entropy: Entropy) -> Secrets:
        """Draw four times 32 bytes."""
        drawn = [bytes(entropy(32)) for _ in range(4)]
        for value in drawn:
            require(len(value) == 32, "entropy", "32 bytes as asked", len(value))
        return cls(*drawn)

    def wipe(self, *names: str) -> None:
        """Forget these secrets."""
        for name in names:
            setattr(self, name, b"")


def check_policy(parameters: RoundParameters, policy: Policy, context: bytes, seen: Container[bytes]) -> None:
    """Raise RemoteProtocolError when the client would not take part in such a round."""
    if parameters.context != context:
        raise refuse(RefusalReason.CONTEXT_MISMATCH, "RoundParameters.context is not that of our task")
    if parameters.round_id in seen:
        raise refuse(RefusalReason.ROUND_REUSED, f"round {parameters.round_id.hex()} was accepted before")
    model = parameters.threat_model
    lowest: list[tuple[str, int | float, int | float]] = [
        ("minimum_cohort", parameters.minimum_cohort, policy.minimum_cohort),
        ("minimum_survivors", parameters.minimum_survivors, policy.minimum_survivors),
        ("corrupt_ppm", model.corrupt_ppm, to_ppm(policy.minimum_corrupt)),
        ("security_bits", model.security_bits, policy.minimum_security_bits),
        ("adversary (1 passive, 2 active)", 1 + model.active, 1 + (policy.adversary == "active")),
    ]
    if model.active:
        lowest.append(("grinding_bits", model.grinding_bits, policy.minimum_grinding_bits))
    for name, value, minimum in lowest:
        if value < minimum:
            raise refuse(RefusalReason.POLICY, f"{name}: must be at least {minimum}, is {value}")
    if parameters.vector_length > policy.maximum_vector_length:
        raise refuse(
            RefusalReason.POLICY,
            f"vector_length: must be at most {policy.maximum_vector_length}, is {parameters.vector_length}",
        )


def advertise(parameters: RoundParameters, signer: Signer, secrets: Secrets) -> Advertisement:
    """Make the client's advertisement."""
    unsigned = Advertisement(
        signer.identity, public_key(secrets.agreement), public_key(secrets.mask), bytes(64)
    )
    signature = signer.sign(advertisement_text(parameters_digest(parameters), unsigned))
    return Advertisement(unsigned.identity, unsigned.agreement_key, unsigned.mask_key, signature)
