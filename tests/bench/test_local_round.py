"""The benchmark runs at tiny size, so that it does not rot."""

from bench.local_round import run
from bench.machine import describe
from bench.report import tables


def test_a_tiny_round_is_measured_and_described() -> None:
    result = run(clients=8, length=10, dropout=0.125, adversary="active", repeats=1)
    assert result["dropouts"] == 1
    assert result["seconds_min"] > 0
    assert set(result["sides"]) == {"clients", "server"}
    assert abs(sum(result["profile"].values()) - 1) < 0.01
    assert result["profile"]["Ed25519 verification"] > 0
    text = tables({"machine": describe(), "rounds": [result]})
    assert "| 8 | 10 | 1 | active |" in text
    assert "kernel_variant" in text
