"""Check a round against a client's demands, decided by the client alone (PROTOCOL.md, 5)."""

from __future__ import annotations

from collections.abc import Container

from secagg.effects import Breach, RefusalReason
from secagg.params import HYBRID, Policy, RoundParameters, to_ppm
from secagg.primitives import kem
from secagg.protocol.round import breach_sentence, refuse


def breaches(parameters: RoundParameters, policy: Policy) -> tuple[Breach, ...]:
    """Return the demands that a round does not meet."""
    model = parameters.threat_model
    lowest: list[tuple[str, int, int]] = [
        ("minimum_cohort", parameters.minimum_cohort, policy.minimum_cohort),
        ("minimum_survivors", parameters.minimum_survivors, policy.minimum_survivors),
        ("corrupt_ppm", model.corrupt_ppm, to_ppm(policy.minimum_corrupt)),
        ("security_bits", model.security_bits, policy.minimum_security_bits),
        ("vector_length", parameters.vector_length, policy.minimum_vector_length),
        ("ring_bits", parameters.ring_bits, policy.minimum_ring_bits),
    ]
    if model.active:
        lowest.append(("grinding_bits", model.grinding_bits, policy.minimum_grinding_bits))
    highest: list[tuple[str, int, int]] = [
        ("vector_length", parameters.vector_length, policy.maximum_vector_length),
        ("ring_bits", parameters.ring_bits, policy.maximum_ring_bits),
    ]
    found = [Breach(name, minimum, value) for name, value, minimum in lowest if value < minimum]
    found += [Breach(name, maximum, value) for name, value, maximum in highest if value > maximum]
    if policy.adversary == "active" and not model.active:
        found.append(Breach("adversary", "active", "passive"))
    if policy.require_post_quantum and not parameters.hybrid:
        found.append(Breach("suite", HYBRID, parameters.suite))
    if policy.contexts is not None and parameters.context not in policy.contexts:
        found.append(Breach("context", "one of the policy's", parameters.context.hex()))
    return tuple(found)


def check_policy(
    parameters: RoundParameters, policy: Policy, context: bytes | None, seen: Container[bytes]
) -> None:
    """Raise RemoteProtocolError when the client would not take part in such a round."""
    if context is not None and parameters.context != context:
        raise refuse(RefusalReason.CONTEXT_MISMATCH, "RoundParameters.context is not that of our task")
    check_unseen(parameters, seen)
    if found := breaches(parameters, policy):
        raise refuse(RefusalReason.POLICY, "; ".join(map(breach_sentence, found)), found)
    if parameters.hybrid and not kem.AVAILABLE:
        missing = Breach("suite", "x25519", parameters.suite)
        raise refuse(
            RefusalReason.POLICY, "suite: there is no ML-KEM-768 here (cryptography >= 48)", (missing,)
        )


def check_unseen(parameters: RoundParameters, seen: Container[bytes]) -> None:
    """Raise RemoteProtocolError when a roster was accepted in this round before."""
    if parameters.round_id in seen:
        raise refuse(RefusalReason.ROUND_REUSED, f"round {parameters.round_id.hex()} was accepted before")
