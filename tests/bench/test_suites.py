"""Every benchmark runs once at tiny size, so that none rots; the tables are those of the JSON files."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import SUITES, run
from bench.harness import TINY, Effort, figure, measure
from bench.machine import RESULTS
from bench.plots import draw
from bench.report import TABLES, tables
from bench.suites.cohort import Cohort, Workload
from bench.suites.replay import server_bytes
from bench.suites.unit_costs import load_of, measured
from secagg import GraphParameters, Phase


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    run(TINY, list(SUITES), out)
    return out


def of(folder: Path, suite: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / f"{suite}.json").read_text(encoding="utf-8"))
    return report


def test_every_suite_says_where_its_figures_come_from(folder: Path) -> None:
    for name in SUITES:
        report = of(folder, name)
        assert report["command"] == f"python -m bench --tiny --only {name}"
        assert {"cpu", "kernel_variant", "compiler", "python", "packages", "commit"} <= set(report["machine"])


def test_kernels_are_measured_beside_the_limits_and_the_alternatives(folder: Path) -> None:
    rows = of(folder, "kernels")["rows"]
    names = {row["name"] for row in rows}
    assert {"memcpy", "add", "ChaCha20 + numpy add", "AES-128-CTR + numpy add"} <= names
    assert all(row["low_ns"] <= row["median_ns"] <= row["high_ns"] and row["median_ns"] > 0 for row in rows)


def test_primitives_are_measured_with_both_libraries(folder: Path) -> None:
    report = of(folder, "primitives")
    both = {row["operation"] for row in report["rows"] if row["library"].startswith("PyNaCl")}
    assert {"X25519 agreement", "X25519 key pair", "Ed25519 signature", "Ed25519 verification"} <= both
    assert all(row["share_python_us"] > row["share_us"] for row in report["shamir"])


def test_phases_hold_seconds_and_bytes_of_both_sides(folder: Path) -> None:
    report = of(folder, "phases")
    assert {(row["adversary"], row["graph"]) for row in report["rows"]} == {
        ("active", "complete"),
        ("active", "chosen"),
        ("passive", "complete"),
        ("passive", "chosen"),
    }
    for row in report["rows"]:
        phases = set(row["server_phases_ms"])
        assert set(row["client_phases_ms"]) == phases == set(row["up_bytes"]) == set(row["down_bytes"])
        assert ("CONSISTENCY_CHECK" in phases) == (row["adversary"] == "active")
        assert (row["degree"] == row["clients"] - 1) == (row["graph"] == "complete")
    assert all(row["server_bytes"] > 0 for row in report["memory"])


def test_peers_that_are_not_installed_are_named(folder: Path) -> None:
    report = of(folder, "peers")
    assert len(report["peers"]) + len(report["skipped"]) == 4
    assert all("bench-peers" in why for why in report["skipped"].values())
    assert report["ours"][0]["name"] == "secagg, passive, complete graph"


def test_training_is_measured_without_its_peers_too(folder: Path) -> None:
    report = of(folder, "training")
    simulation = report["simulation"]
    assert (
        (report["library"] is None) == ("Flower strategies" in report["skipped"]) == (not report["agreement"])
    )
    for kind, ours in (("open", "fedcore, secure"), ("private", "fedcore, Skellam, secure")):
        rows = {row["name"]: row for row in simulation[kind]["rows"]}
        assert rows[ours]["seconds"] > 0
        assert ("times" in rows[ours]) == ("pfl-research, PyTorch" in rows)
    assert all("bench-peers" in why for why in (report["skipped"] | simulation["skipped"]).values())


def test_contributions_are_measured_in_every_form_and_type(folder: Path) -> None:
    rows = of(folder, "contribution")["rows"]
    assert {(row["learner"], row["model"]) for row in rows} == {
        ("float32", "float32"),
        ("float32", "float64"),
        ("float64", "float64"),
    }
    assert all(row["bytes_per_value"] > 1 for row in rows)


def test_the_one_upload_protocol_is_measured_by_party(folder: Path) -> None:
    report = of(folder, "oneshot")
    assert [row["post_quantum"] for row in report["uploads"]] == [False, True]
    assert all(row["client_ms"] > 0 < row["decryptor_us_a_dealing"] for row in report["uploads"])
    assert [row["uploads"] for row in report["rounds"]] == [6, 6, 5]


def test_both_suites_are_measured_side_by_side(folder: Path) -> None:
    rows = of(folder, "hybrid")["rows"]
    assert [(row["suite"], row["dropout"]) for row in rows] == [
        ("x25519", 0.0),
        ("x25519-mlkem768", 0.0),
        ("x25519", 0.1),
        ("x25519-mlkem768", 0.1),
    ]
    assert all(row["client_ms"] > 0 < row["server_s"] for row in rows)
    assert rows[1]["up_bytes"] > 2 * rows[0]["up_bytes"]


def test_rounds_inside_other_stacks_are_measured_beside_their_sessions(folder: Path) -> None:
    report = of(folder, "embedding")
    assert all(one["memory_s"] > 0 < one["bare_s"] for one in report["calls"])
    assert len(report["http"][0]["trips"]) == 5


def test_the_service_is_measured_from_end_to_end(folder: Path) -> None:
    found = of(folder, "service")["figures"]
    assert set(found) == {"uploads", "recovery", "connected", "strangers", "full_table", "beside", "rounds"}
    assert found["uploads"]["megabytes_a_second"] > 0
    assert 0 < found["recovery"]["recovery_seconds"] < found["recovery"]["recovery_with_start_seconds"]
    assert found["connected"]["parties"] > found["connected"]["uploads"]


def test_plots_and_tables_are_made_of_the_results(folder: Path) -> None:
    draw(folder)
    assert {path.stem for path in folder.glob("*.png")} == {"kernels", "phases", "peers", "scaling"}
    for path in folder.glob("*.png"):
        path.unlink()
    text = tables(folder)
    assert text.count("\n## ") == 10
    assert "| client | 500 | 0% | 1 | 154 | 694 | 1 | 849 |" in text


def test_the_tables_are_those_of_the_committed_results_beside_them() -> None:
    folders = [path for path in RESULTS.iterdir() if path.is_dir()]
    assert folders
    for folder in folders:
        assert (folder / TABLES).read_text(encoding="utf-8") == tables(folder) + "\n"


@pytest.mark.parametrize("complete", [False, True])
def test_a_cohort_of_stand_ins_ends_in_the_exact_sum(complete: bool) -> None:
    work = Workload(clients=70, length=50, dropout=0.2, complete=complete, sample=2)
    cohort = Cohort(work)
    total = cohort.run()
    assert total.tolist() == [int(value) * 56 % 2**18 for value in cohort.vector]
    assert set(cohort.account.client) == set(Phase)
    assert all(len(seconds) == 2 for seconds in cohort.account.client.values())


def test_a_wrong_sum_is_noticed() -> None:
    cohort = Cohort(Workload(clients=70, length=50, sample=1))
    stand_in = next(name for name in cohort.signers if name not in cohort.real and name not in cohort.dropped)
    masked = cohort._masked
    cohort._masked = lambda me: masked(me) + (me == stand_in)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the sum is wrong"):
        cohort.run()


@pytest.mark.process
@pytest.mark.exhaustive
def test_the_memory_of_a_server_grows_with_the_vector() -> None:
    small, large = (server_bytes(Workload(clients=70, length=d, sample=1)) for d in (1000, 4_000_000))
    assert large - small > 8_000_000


def test_the_sum_of_the_primitives_grows_with_the_work() -> None:
    costs = measured(TINY)
    graph = GraphParameters(degree=30, threshold=8)
    small, large = (load_of(Workload(clients=70, length=d), graph) for d in (1000, 10_000_000))
    assert 0 < costs.client_seconds(small) < costs.client_seconds(large)
    assert 0 < costs.server_seconds(small) < costs.server_seconds(large)


def test_a_figure_is_the_median_between_its_quartiles() -> None:
    taken = figure([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (taken.low, taken.median, taken.high, taken.repeats) == (2.0, 3.0, 4.0, 5)
    assert figure([7.0]).nanoseconds()["median_ns"] == 7e9


def test_measuring_stops_at_the_limit_of_repeats() -> None:
    calls = []
    taken = measure(lambda: calls.append(1), Effort(seconds=60.0, repeats=4))
    assert taken.repeats == 4
    assert len(calls) == 5  # the first one warms up
