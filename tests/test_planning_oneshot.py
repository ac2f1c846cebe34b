from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from typer.testing import CliRunner

from secagg import InfeasibleParameters, OneShotPhase, ParameterError, ThreatModel, aggregate, plan
from secagg.cli import app
from secagg.costs_oneshot import OneShotCosts
from secagg.params import Adversary
from secagg.planning_oneshot import OneShotPlan, compare, load_of, plan_oneshot

BOTH = pytest.mark.parametrize("adversary", ["passive", "active"])


def planned(clients: int = 10, decryptors: int = 8, length: int = 100, **changes: object) -> OneShotPlan:
    given = {"clients": clients, "decryptors": decryptors, "vector_length": length, "value_bits": 10}
    return plan_oneshot(**{**given, **changes})  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("post_quantum", [False, True])
@pytest.mark.parametrize(("clients", "length"), [(3, 1), (5, 20), (9, 3000)])
def test_the_bytes_are_those_of_a_round_in_which_everybody_speaks(
    clients: int, length: int, adversary: Adversary, *, post_quantum: bool
) -> None:
    one = planned(clients, 8, length, adversary=adversary, post_quantum=post_quantum)
    result = aggregate(
        [np.full(length, 2**10 - 1, np.uint32)] * clients,
        ring_bits=one.ring_bits,
        protocol="one-shot",
        committee=8,
        post_quantum=post_quantum,
        threat_model=ThreatModel(adversary=adversary),
    )
    assert set(result.total.tolist()) == {clients * (2**10 - 1)}  # the ring is wide enough
    up, down = dict(result.traffic.up), dict(result.traffic.down)
    assert up.pop(OneShotPhase.UPLOAD) == clients * one.client_up
    said = sum(up.values())
    assert 8 * (one.decryptor_up - 8) <= said <= 8 * one.decryptor_up
    heard = sum(down.values())  # Dealings come in fewer frames than one each
    assert 8 * (one.decryptor_down - 80 * clients - 200) <= heard <= 8 * one.decryptor_down


def test_the_numbers_of_a_large_federation() -> None:
    one = planned(1000, 64, 10**6, value_bits=8)
    numbers = one.numbers
    assert (numbers.members, numbers.privacy_threshold, numbers.packing, numbers.quorum) == (64, 28, 8, 50)
    assert (one.ring_bits, one.upload_bits) == (18, 26)
    kem = 64 * 1088
    assert one.client_up - kem <= 26 / 8 * (10**6 + 16) + 110_000
    assert planned(1000, 64, 10**6, value_bits=8, post_quantum=False).client_up == one.client_up - kem
    assert one.lattice_bits == (115, 246)
    assert planned(1000, 64, 2032, value_bits=8).lattice_bits is None  # a one-time pad
    assert planned(10**6, 64, 10**6, value_bits=8).lattice_bits == (115, 115)


def test_risks_of_samples_are_as_small_as_was_asked_for_and_others_are_none() -> None:
    assert [risk.log2 for risk in planned().risks] == [-np.inf, -np.inf]
    sampled = planned(100, 1000, committee_size=256, dropout=0.05)
    assert [risk.log2 for risk in sampled.risks] == [-80.0, -20.0]


def test_what_the_numbers_leave_open_is_said() -> None:
    assert planned(10, 4).notes == (
        "fewer than the 1 members that may lie are corrected: 0",
        "1 silent members beside 1 dropouts stop a round",
    )
    assert planned(10, 16).notes == ()
    assert planned(10, 4, adversary="passive").notes == ()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"clients": 1}, ParameterError, r"clients: must be an integer in 2..2\^20, is 1"),
        ({"value_bits": 38}, InfeasibleParameters, "ring_bits: must be in 1..40, is 42"),
        ({"clients": 2**20, "value_bits": 12}, InfeasibleParameters, "leave room for the noise"),
        ({"decryptors": 2}, InfeasibleParameters, "wait for more candidates"),
        ({"corrupt": 0.7}, InfeasibleParameters, "lower dropout or corrupt"),
        ({"colluding": 9}, InfeasibleParameters, "effective minimum: must be at most maximum_uploads = 10"),
    ],
)
def test_what_cannot_be_planned_says_what_to_relax(
    changes: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        planned(**changes)  # type: ignore[arg-type]


def seconds(call: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) / times


@pytest.mark.parametrize("post_quantum", [False, True])
def test_seconds_are_sums_of_what_was_measured(*, post_quantum: bool) -> None:
    one = planned(10, 8, 5000, post_quantum=post_quantum)
    assert one.client_s is one.decryptor_s is one.server_s is None
    load = load_of(one)
    costs = OneShotCosts.measured(seconds, load)
    assert (costs.encapsulate > 0) == (costs.decapsulate > 0) == post_quantum
    timed = planned(10, 8, 5000, post_quantum=post_quantum, costs=costs)
    assert timed.client_s == costs.client_seconds(load)
    assert timed.decryptor_s == costs.decryptor_seconds(load)
    assert timed.server_s == costs.server_seconds(load)
    twice = planned(20, 8, 5000, post_quantum=post_quantum, costs=costs)
    assert twice.client_s == pytest.approx(timed.client_s, rel=0.1)  # a bit more of ring and noise
    assert twice.decryptor_s is not None
    assert timed.decryptor_s is not None
    assert twice.decryptor_s > 1.5 * timed.decryptor_s


def test_protocols_are_compared_and_one_is_recommended() -> None:
    demands = {"clients": 1000, "vector_length": 10**5, "value_bits": 8}
    pairwise = plan(**demands)  # type: ignore[arg-type]
    found = compare(pairwise, plan_oneshot(decryptors=64, **demands))  # type: ignore[arg-type]
    assert found.recommended == "one-shot"
    rows = {name: (a, b) for name, a, b in found.rows}
    assert rows["answers of a client"] == ("5", "1")
    assert rows["post-quantum"] == ("no", "yes")
    assert "7 of 64 decryptors" in rows["drop-outs survived"][1]
    demands["clients"] = 8
    few = compare(plan(**demands), plan_oneshot(decryptors=8, **demands))  # type: ignore[arg-type]
    assert few.recommended == "pairwise"
    assert compare(None, planned()).recommended == "one-shot"
    alone = compare(pairwise, None)
    assert alone.recommended == "pairwise"
    assert all(b == "cannot be planned" for _, _, b in alone.rows)
    with pytest.raises(ParameterError, match="one of both plans must be there"):
        compare(None, None)


def test_the_command_compares() -> None:
    arguments = ["plan", "--clients", "30", "--length", "5000", "--value-bits", "8", "--decryptors", "8"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "one upload" in done.output
    done = CliRunner().invoke(app, [*arguments, "--no-post-quantum", "--json"])
    compared = json.loads(done.output)[-1]
    assert compared["recommended"] in {"pairwise", "one-shot"}
    assert compared["compared"]["post-quantum"] == {"pairwise": "no", "one-shot": "masks only"}
    done = CliRunner().invoke(app, [*arguments[:-1], "3", "--json"])
    assert json.loads(done.output)[-1]["recommended"] == "pairwise"


def test_why_a_protocol_cannot_be_planned_is_said() -> None:
    call = ["plan", "--clients", "100", "--length", "1000", "--value-bits", "8", "--decryptors", "3"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "the one-upload protocol cannot be planned for these demands: " in said
    assert "of 3 members stay" in said
