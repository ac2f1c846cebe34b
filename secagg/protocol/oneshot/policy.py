"""A committee and a round against the demands of a client or a decryptor (PROTOCOL.md, part 2, section 2)."""

from __future__ import annotations

from secagg.effects import Breach, RefusalReason
from secagg.params import to_ppm
from secagg.params_oneshot import CommitteeParameters, OneShotParameters, OneShotPolicy
from secagg.primitives import kem
from secagg.protocol.round import breach_sentence, refuse

# What a reader believes of a committee is for it to say: a certificate is checked all the same.
ANY_COMMITTEE = OneShotPolicy(
    known=None,
    decryptors=None,
    minimum_candidates=3,
    minimum_committee=3,
    minimum_corrupt=0.0,
    minimum_security_bits=0,
    minimum_grinding_bits=0,
    require_post_quantum=False,
    adversary="passive",
)


def check_committee_policy(parameters: CommitteeParameters, policy: OneShotPolicy) -> None:
    """Raise RemoteProtocolError(POLICY) for a committee that the policy does not allow."""
    model = parameters.threat_model
    lowest = [
        ("minimum_candidates", parameters.minimum_candidates, policy.minimum_candidates),
        ("minimum_committee", parameters.minimum_committee, policy.minimum_committee),
        ("corrupt_ppm", model.corrupt_ppm, to_ppm(policy.minimum_corrupt)),
        ("security_bits", model.security_bits, policy.minimum_security_bits),
    ]
    if model.active:
        lowest.append(("grinding_bits", model.grinding_bits, policy.minimum_grinding_bits))
    found = [Breach(name, minimum, value) for name, value, minimum in lowest if value < minimum]
    if policy.adversary == "active" and not model.active:
        found.append(Breach("adversary", "active", "passive"))
    if policy.require_post_quantum and not parameters.post_quantum:
        found.append(Breach("post_quantum", "set", "not"))
    _refuse(found)
    if parameters.post_quantum and not kem.AVAILABLE:
        raise refuse(RefusalReason.POLICY, "post_quantum: there is no ML-KEM-768 here (cryptography >= 48)")


def check_round_policy(parameters: OneShotParameters, policy: OneShotPolicy) -> None:
    """Raise RemoteProtocolError(POLICY) for a round that the policy does not allow."""
    lowest = [
        ("minimum_survivors", parameters.minimum_survivors, policy.minimum_survivors),
        ("minimum_per_context", parameters.minimum_per_context, policy.minimum_per_context),
        ("colluding", parameters.colluding, policy.minimum_colluding),
    ]
    highest = [
        ("vector_length", parameters.vector_length, policy.maximum_vector_length),
        ("ring_bits", parameters.ring_bits, policy.maximum_ring_bits),
        ("maximum_uploads", parameters.maximum_uploads, policy.maximum_uploads),
    ]
    found = [Breach(name, minimum, value) for name, value, minimum in lowest if value < minimum]
    found += [Breach(name, maximum, value) for name, value, maximum in highest if value > maximum]
    _refuse(found)


def _refuse(found: list[Breach]) -> None:
    if found:
        raise refuse(RefusalReason.POLICY, "; ".join(map(breach_sentence, found)), tuple(found))
