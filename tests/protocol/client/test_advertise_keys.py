from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from secagg.effects import RefusalReason, Refused, Send
from secagg.errors import LocalProtocolError, ParameterError
from secagg.messages import (
    Advertisement,
    RoundParametersMessage,
    SurvivorSet,
    encode_frame,
    parameters_to_wire,
)
from secagg.params import Phase, Policy, RoundParameters, ThreatModel
from secagg.primitives.agreement import public_key
from secagg.primitives.labels import context_digest
from secagg.primitives.signatures import verify
from secagg.protocol import ClientSession
from secagg.protocol.round import advertisement_text, parameters_digest
from tests.protocol.network import CONTEXT, Cohort, CounterEntropy, flipped, opened, refused_by_client

POLICY = Policy(
    known=None,
    minimum_cohort=5,
    minimum_survivors=4,
    minimum_corrupt=0.1,
    minimum_security_bits=40,
    minimum_grinding_bits=40,
    maximum_vector_length=1000,
)
ACCEPTABLE = RoundParameters(
    round_id=bytes(range(16)),
    vector_length=1000,
    ring_bits=16,
    context=CONTEXT,
    minimum_cohort=5,
    minimum_survivors=4,
)


def session(policy: Policy = POLICY, **changes: object) -> ClientSession:
    return Cohort(5).fresh_client(0, policy=policy, **changes)


def announced(parameters: RoundParameters, **wire: Any) -> bytes:
    message = replace(parameters_to_wire(parameters), **wire)
    return bytes(encode_frame(parameters.round_id, message))


def reason_of(client: ClientSession, frame: bytes) -> RefusalReason:
    effects = client.receive(frame)
    assert len(effects) == 1
    (effect,) = effects
    assert isinstance(effect, Refused)
    assert effect.sender is None
    assert client.phase is None
    assert client.parameters is None
    return effect.reason


def model(**changes: object) -> RoundParameters:
    return replace(ACCEPTABLE, threat_model=replace(ACCEPTABLE.threat_model, **changes))  # type: ignore[arg-type]


def test_a_round_exactly_as_strong_as_the_policy_is_taken() -> None:
    (effect,) = session().receive(announced(ACCEPTABLE))
    assert isinstance(effect, Send)
    assert effect.to is None


AGAINST_POLICY: dict[str, RoundParameters] = {
    "minimum_cohort": replace(ACCEPTABLE, minimum_cohort=4),
    "minimum_survivors": replace(ACCEPTABLE, minimum_survivors=3),
    "corrupt": model(corrupt=0.099999),
    "security_bits": model(security_bits=39),
    "grinding_bits": model(grinding_bits=39),
    "adversary": model(adversary="passive"),
    "vector_length": replace(ACCEPTABLE, vector_length=1001),
}


@pytest.mark.parametrize("field", AGAINST_POLICY)
def test_a_round_weaker_than_the_policy_in_one_field_is_refused_and_a_right_one_may_follow(
    field: str,
) -> None:
    client = session()
    assert reason_of(client, announced(AGAINST_POLICY[field])) is RefusalReason.POLICY
    assert isinstance(client.receive(announced(ACCEPTABLE))[0], Send)


def test_rates_compare_in_parts_per_million_rounded_up() -> None:
    client = session(replace(POLICY, minimum_corrupt=0.1 + 2e-16))
    assert isinstance(client.receive(announced(ACCEPTABLE))[0], Send)
    client = session(replace(POLICY, minimum_corrupt=0.1 + 4e-7))
    assert reason_of(client, announced(ACCEPTABLE)) is RefusalReason.POLICY


def test_a_passive_policy_takes_an_active_round() -> None:
    client = session(replace(POLICY, adversary="passive"))
    assert isinstance(client.receive(announced(ACCEPTABLE))[0], Send)


def test_grinding_does_not_matter_in_a_passive_round() -> None:
    client = session(replace(POLICY, adversary="passive"))
    parameters = model(adversary="passive", grinding_bits=0)
    assert isinstance(client.receive(announced(parameters))[0], Send)


@pytest.mark.parametrize("known_context", [context_digest(b"another"), bytes(32)])
def test_another_context_is_refused(known_context: bytes) -> None:
    client = session(context=known_context)
    assert reason_of(client, announced(ACCEPTABLE)) is RefusalReason.CONTEXT_MISMATCH


def test_a_round_id_in_which_a_roster_was_accepted_is_refused() -> None:
    client = session(seen={ACCEPTABLE.round_id})
    assert reason_of(client, announced(ACCEPTABLE)) is RefusalReason.ROUND_REUSED
    fresh = replace(ACCEPTABLE, round_id=bytes(16))
    assert isinstance(client.receive(announced(fresh))[0], Send)


WIRE: dict[str, tuple[dict[str, object], RefusalReason]] = {
    "version 2": ({"version": 2}, RefusalReason.UNSUPPORTED_VERSION),
    "version 0": ({"version": 0}, RefusalReason.UNSUPPORTED_VERSION),
    "another round id": ({"round_id": bytes(16)}, RefusalReason.WRONG_ROUND),
    "round id too short": ({"round_id": bytes(15)}, RefusalReason.MALFORMED),
    "no entries": ({"vector_length": 0}, RefusalReason.MALFORMED),
    "more entries than keystream": ({"vector_length": 2**35 + 1}, RefusalReason.MALFORMED),
    "ring of 0 bits": ({"ring_bits": 0}, RefusalReason.MALFORMED),
    "ring of 65 bits": ({"ring_bits": 65}, RefusalReason.MALFORMED),
    "no cohort": ({"minimum_cohort": 0}, RefusalReason.MALFORMED),
    "no survivors": ({"minimum_survivors": 0}, RefusalReason.MALFORMED),
    "context too short": ({"context": bytes(31)}, RefusalReason.MALFORMED),
}
MODEL: dict[str, dict[str, int]] = {
    "corrupt of one": {"corrupt_ppm": 1_000_000},
    "dropout of one": {"dropout_ppm": 1_000_000},
    "no adversary": {"adversary": 0},
    "third adversary": {"adversary": 3},
    "too many security bits": {"security_bits": 257},
    "too many correctness bits": {"correctness_bits": 257},
    "too many grinding bits": {"grinding_bits": 257},
}


@pytest.mark.parametrize("case", WIRE)
def test_parameters_out_of_range_are_refused(case: str) -> None:
    fields, reason = WIRE[case]
    assert reason_of(session(), announced(ACCEPTABLE, **fields)) is reason


@pytest.mark.parametrize("case", MODEL)
def test_a_threat_model_out_of_range_is_refused(case: str) -> None:
    wire = replace(parameters_to_wire(ACCEPTABLE).threat_model, **MODEL[case])
    assert reason_of(session(), announced(ACCEPTABLE, threat_model=wire)) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    "spoil", [lambda f: f[:-1], lambda f: f + b"\0", lambda _: b"", lambda f: flipped(f, 3)]
)
def test_bytes_that_are_no_frame_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    client = session()
    assert reason_of(client, spoil(announced(ACCEPTABLE))) is RefusalReason.MALFORMED
    assert isinstance(client.receive(announced(ACCEPTABLE))[0], Send)


def test_an_unknown_version_of_frames_is_refused_by_name() -> None:
    frame = b"\x08\x02" + announced(ACCEPTABLE)[2:]
    assert reason_of(session(), frame) is RefusalReason.UNSUPPORTED_VERSION


def test_the_first_message_must_be_the_parameters() -> None:
    frame = bytes(encode_frame(ACCEPTABLE.round_id, SurvivorSet(b"\x1f")))
    assert reason_of(session(), frame) is RefusalReason.WRONG_PHASE


def test_an_own_kind_of_message_from_the_server_is_refused() -> None:
    cohort = Cohort(5).start()
    cohort.ask(0)
    refused_by_client(cohort, 0, cohort.answer(0), RefusalReason.WRONG_PHASE)


def test_a_client_draws_four_times_32_bytes_and_only_once() -> None:
    entropy = CounterEntropy("mine")
    client = session(entropy=entropy)
    assert reason_of(client, announced(AGAINST_POLICY["corrupt"])) is RefusalReason.POLICY
    assert entropy.drawn == 0
    first = client.receive(announced(ACCEPTABLE))
    assert entropy.drawn == 128
    assert client.receive(announced(ACCEPTABLE)) == first
    assert entropy.drawn == 128


def test_the_first_two_draws_are_the_advertised_keys_signed_for_this_round() -> None:
    cohort = Cohort(5).start()
    cohort.ask(0)
    message = opened(Advertisement, cohort.answer(0))
    draws = CounterEntropy(f"{cohort.seed}/0")
    assert message.agreement_key == public_key(draws(32))
    assert message.mask_key == public_key(draws(32))
    assert message.identity == cohort.identities[0]
    text = advertisement_text(parameters_digest(cohort.parameters), message)
    assert verify(message.identity, text, message.signature)


def test_other_parameters_after_the_first_are_an_offence() -> None:
    cohort = Cohort(5).start()
    cohort.ask(0)
    wire = opened(RoundParametersMessage, cohort.request(0))
    refused_by_client(cohort, 0, cohort.frame(replace(wire, minimum_survivors=4)), RefusalReason.EQUIVOCATION)
    assert cohort.ask(0)


def test_a_frame_of_another_round_is_refused() -> None:
    cohort = Cohort(5).start()
    cohort.ask(0)
    other = announced(replace(cohort.parameters, round_id=bytes(16)))
    refused_by_client(cohort, 0, other, RefusalReason.WRONG_ROUND)


def test_entropy_of_another_size_is_the_callers_error() -> None:
    with pytest.raises(ParameterError, match="entropy"):
        session(entropy=lambda _size: bytes(31)).receive(announced(ACCEPTABLE))


def test_a_context_of_another_size_is_the_callers_error() -> None:
    with pytest.raises(ParameterError, match="context"):
        session(context=bytes(31))


def test_before_the_round_there_is_nothing_to_keep_and_nothing_to_submit() -> None:
    cohort = Cohort(5)
    with pytest.raises(LocalProtocolError, match="no round"):
        cohort.clients[0].snapshot()
    with pytest.raises(LocalProtocolError, match="submit"):
        cohort.clients[0].submit(cohort.vector(0))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_policy_out_of_range_is_the_callers_error(rate: float) -> None:
    with pytest.raises(ParameterError, match="minimum_corrupt"):
        replace(POLICY, minimum_corrupt=rate)
    with pytest.raises(ParameterError, match="corrupt"):
        ThreatModel(corrupt=rate)


def test_the_phase_of_a_client_is_none_before_the_round() -> None:
    cohort = Cohort(5).start()
    assert cohort.clients[0].phase is None
    cohort.ask(0)
    assert cohort.clients[0].phase is Phase.ADVERTISE_KEYS
