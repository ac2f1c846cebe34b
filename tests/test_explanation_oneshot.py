from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from secagg import ParameterError
from secagg.cli import app
from secagg.explanation_oneshot import explain_oneshot
from secagg.planning_oneshot import OneShotPlan, plan_oneshot
from tests.test_explanation import ROOT, names_in


def planned(decryptors: int = 16, **changes: Any) -> OneShotPlan:
    given = {"clients": 100, "vector_length": 5000, "value_bits": 8, "decryptors": decryptors}
    return plan_oneshot(**{**given, **changes})


PLANS = {
    "active": planned(),
    "small": planned(8, vector_length=100),
    "passive": planned(adversary="passive"),
    "sampled": planned(400, committee_size=200, clients=10_000),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("colluding", [None, 0, 7, 8])
@pytest.mark.parametrize("options", [{}, {"keep_inputs": True, "encrypted": False, "edges": True}], ids=str)
def test_every_statement_names_a_test_that_exists(
    name: str, colluding: int | None, options: dict[str, bool]
) -> None:
    statements = explain_oneshot(PLANS[name], colluding=colluding, **options)
    assert len({statement.party for statement in statements}) >= 8
    for statement in statements:
        file, test = statement.test.split("::")
        assert test in names_in(ROOT / file), statement


def of(name: str, party: str, **options: Any) -> str:
    statements = explain_oneshot(PLANS[name], **options)
    return " ".join(one.learns for one in statements if one.party.startswith(party))


def test_a_passive_plan_promises_nothing_against_a_server_that_lies() -> None:
    assert "POSSIBLY EVERYTHING, with 12 colluding decryptors" in of("passive", "server that lies")
    assert "POSSIBLY" not in of("active", "server that lies")
    assert "only one gets the 12 signatures" in of("active", "server that lies")


@pytest.mark.parametrize(
    ("name", "colluding", "said"),
    [
        ("active", 0, "the sum over at least 3 uploads"),
        ("active", 6, "their shares fit any secret"),
        ("active", 7, "POSSIBLY SINGLE VECTORS: they are more than the 6 of the plan, and know 1 equations"),
        ("active", 8, "EVERY SINGLE VECTOR of the epoch, now or from records"),
        ("small", 4, "EVERY SINGLE VECTOR"),
        ("passive", 12, "their shares fit any secret"),
        ("passive", 16, "EVERY SINGLE VECTOR"),
    ],
)
def test_what_decryptors_learn_that_collude(name: str, colluding: int, said: str) -> None:
    assert said in of(name, f"server and {colluding} colluding", colluding=colluding)


def test_whether_a_mask_rests_on_the_lattice_is_said() -> None:
    assert "masked by a one-time pad" in of("small", "server")
    assert "noise to it if ring LWE holds" in of("active", "server")


def test_links_and_records_and_edges_are_told_apart() -> None:
    assert "ALL that a curious server learns" in of("active", "network", encrypted=False)
    assert "ALL" not in of("active", "network")
    assert "all that a curious server learns" in of("active", "reader", keep_inputs=True)
    assert "a digest of the sum" in of("active", "reader")
    assert of("active", "edge") == ""
    assert "shift the sum" in of("active", "edge", edges=True)


def test_more_than_the_committee_do_not_collude() -> None:
    with pytest.raises(ParameterError, match=r"colluding: must be in 0\.\.16, is 17"):
        explain_oneshot(PLANS["active"], colluding=17)


def test_the_command_explains_both_protocols() -> None:
    call = ["explain", "--clients", "100", "--decryptors", "16"]
    done = CliRunner().invoke(app, [*call, "--colluding", "8"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "16 decryptors, threshold 6" in said
    assert "EVERY SINGLE" in said
