import dataclasses
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import LocalProtocolError, ParameterError
from secagg.params import GraphParameters, Phase, Policy, RoundParameters, ThreatModel, require, to_ppm

PARAMETERS = RoundParameters(round_id=bytes(16), vector_length=10, ring_bits=20, context=bytes(32))
POLICY = Policy(known=None, minimum_cohort=3)


def test_phases_are_numbered_and_named_as_in_the_papers() -> None:
    assert [(phase.value, phase.name) for phase in Phase] == [
        (0, "ADVERTISE_KEYS"),
        (1, "SHARE_KEYS"),
        (2, "MASKED_INPUT_COLLECTION"),
        (3, "CONSISTENCY_CHECK"),
        (4, "UNMASKING"),
    ]


def test_require_names_field_rule_and_value() -> None:
    require(True, "size", "at least 1", 1)
    with pytest.raises(ParameterError, match=r"^size: must be at least 1, is 0$") as caught:
        require(False, "size", "at least 1", 0)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LocalProtocolError)


@given(ppm=st.integers(0, 10**6 - 1))
def test_rates_are_whole_parts_per_million(ppm: int) -> None:
    assert to_ppm(ppm / 10**6) == ppm
    model = ThreatModel(corrupt=ppm / 10**6, dropout=ppm / 10**6)
    assert (model.corrupt_ppm, model.dropout_ppm) == (ppm, ppm)


@pytest.mark.parametrize(
    ("rate", "ppm"),
    [
        (1 / 3, 333_334),
        (1 / 7, 142_858),
        (2 / 7, 285_715),
        (3 / 7, 428_572),
        (0.1, 100_000),
        (0.7, 700_000),
        (0.1 + 0.2, 300_000),
        (1e-9, 1),
        (0, 0),
    ],
)
def test_rates_are_rounded_up(rate: float, ppm: int) -> None:
    assert to_ppm(rate) == ppm
    assert to_ppm(ppm / 10**6) == ppm


@given(clients=st.integers(2, 10**6), marked=st.integers(0, 10**6))
def test_a_share_of_the_cohort_never_means_fewer_clients_than_it_is(clients: int, marked: int) -> None:
    marked %= clients
    ppm = to_ppm(marked / clients)
    assert marked <= Fraction(ppm * clients, 10**6) < marked + Fraction(clients, 10**6)


def test_the_defaults_are_those_of_the_specification() -> None:
    assert ThreatModel() == ThreatModel(
        corrupt=0.1,
        dropout=0.1,
        adversary="active",
        security_bits=40,
        correctness_bits=20,
        grinding_bits=40,
    )
    assert PARAMETERS.threat_model == ThreatModel()
    assert (PARAMETERS.minimum_cohort, PARAMETERS.minimum_survivors) == (4, 3)
    assert dataclasses.astuple(POLICY) == (None, 3, 3, 0.1, 40, 40, 1, 2**27, 1, 64, "active", None, False)


def test_active_is_the_name_of_the_adversary() -> None:
    assert ThreatModel(adversary="active").active
    assert not ThreatModel(adversary="passive").active


@pytest.mark.parametrize("name", ["corrupt", "dropout"])
@pytest.mark.parametrize("rate", [-0.1, -1e-5, 1.0, 0.9999999, 5.0])
def test_rates_outside_zero_to_one_are_refused(name: str, rate: float) -> None:
    given_: dict[str, Any] = {name: rate}
    with pytest.raises(ParameterError, match=rf"{name}: must be in \[0, 1\), is {rate}"):
        ThreatModel(**given_)


@pytest.mark.parametrize("name", ["corrupt", "dropout"])
@pytest.mark.parametrize("rate", [math.nan, math.inf, -math.inf])
def test_rates_that_are_not_finite_are_refused(name: str, rate: float) -> None:
    given_: dict[str, Any] = {name: rate}
    with pytest.raises(ParameterError, match=rf"{name}: must be in \[0, 1\), is {rate}"):
        ThreatModel(**given_)


@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.999999])
def test_rates_up_to_just_below_one_are_taken(rate: float) -> None:
    assert ThreatModel(corrupt=rate, dropout=rate).corrupt_ppm == round(rate * 10**6)


@pytest.mark.parametrize("name", ["security_bits", "correctness_bits", "grinding_bits"])
def test_bits_lie_in_0_to_256(name: str) -> None:
    for right in (0, 256):
        assert getattr(ThreatModel(**{name: right}), name) == right  # type: ignore[arg-type]
    for wrong in (-1, 257):
        with pytest.raises(ParameterError, match=rf"{name}: must be in 0\.\.256, is {wrong}"):
            ThreatModel(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [ThreatModel(), POLICY], ids=["ThreatModel", "Policy"])
def test_there_are_two_adversaries(value: ThreatModel | Policy) -> None:
    assert dataclasses.replace(value, adversary="passive").adversary == "passive"
    for wrong in ("", "Active", "lazy"):
        change: dict[str, Any] = {"adversary": wrong}
        with pytest.raises(ParameterError, match="adversary: must be 'passive' or 'active'"):
            dataclasses.replace(value, **change)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("round_id", b"", "round_id: must be 16 bytes, is 0"),
        ("round_id", bytes(17), "round_id: must be 16 bytes, is 17"),
        ("context", bytes(31), "context: must be 32 bytes, is 31"),
        ("context", bytes(33), "context: must be 32 bytes, is 33"),
        ("ring_bits", 0, r"ring_bits: must be in 1\.\.64, is 0"),
        ("ring_bits", 65, r"ring_bits: must be in 1\.\.64, is 65"),
        ("vector_length", 0, r"vector_length: must be in 1\.\.17179869184, is 0"),
        ("vector_length", -3, r"vector_length: must be in 1\.\.17179869184, is -3"),
        ("minimum_cohort", 0, r"minimum_cohort: must be in 1\.\.2\^32 - 1, is 0"),
        ("minimum_cohort", 2**32, r"minimum_cohort: must be in 1\.\.2\^32 - 1, is 4294967296"),
        ("minimum_survivors", 0, r"minimum_survivors: must be in 1\.\.2\^32 - 1, is 0"),
        ("minimum_survivors", 2**32, r"minimum_survivors: must be in 1\.\.2\^32 - 1, is 4294967296"),
    ],
)
def test_round_parameters_out_of_range_are_refused(name: str, wrong: object, message: str) -> None:
    change: dict[str, Any] = {name: wrong}
    with pytest.raises(ParameterError, match=f"^{message}$"):
        dataclasses.replace(PARAMETERS, **change)


@pytest.mark.parametrize(("ring_bits", "lane"), [(1, 2), (16, 2), (17, 4), (32, 4), (33, 8), (64, 8)])
def test_a_vector_fits_the_keystream_of_one_seed(ring_bits: int, lane: int) -> None:
    longest = 2**36 // lane
    made = dataclasses.replace(PARAMETERS, ring_bits=ring_bits, vector_length=longest)
    assert made.vector_length == longest
    with pytest.raises(ParameterError, match=rf"vector_length: must be in 1\.\.{longest}, is {longest + 1}"):
        dataclasses.replace(PARAMETERS, ring_bits=ring_bits, vector_length=longest + 1)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("minimum_cohort", 2, "minimum_cohort: must be at least 3, is 2"),
        ("minimum_survivors", 1, "minimum_survivors: must be at least 2, is 1"),
        ("minimum_corrupt", -0.1, r"minimum_corrupt: must be in \[0, 1\), is -0.1"),
        ("minimum_corrupt", 1.0, r"minimum_corrupt: must be in \[0, 1\), is 1.0"),
        ("minimum_corrupt", math.nan, r"minimum_corrupt: must be in \[0, 1\), is nan"),
    ],
)
def test_policies_that_protect_nothing_are_refused(name: str, wrong: float, message: str) -> None:
    change: dict[str, Any] = {name: wrong}
    with pytest.raises(ParameterError, match=f"^{message}$"):
        dataclasses.replace(POLICY, **change)


@pytest.mark.parametrize("kind", [ThreatModel, RoundParameters, Policy, GraphParameters])
def test_values_are_given_by_keyword_and_frozen(kind: type) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        kind(1, 2)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_equal_values_are_one_key() -> None:
    assert len({ThreatModel(), ThreatModel(corrupt=0.1)}) == 1
    assert len({PARAMETERS, dataclasses.replace(PARAMETERS, vector_length=11)}) == 2
