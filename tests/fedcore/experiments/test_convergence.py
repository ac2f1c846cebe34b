"""Studies of convergence, tiny: what is varied, what is counted, what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcore.errors import SettingError
from fedcore.experiments.convergence import Study, plot_study, run_study
from fedcore.experiments.results import read_rounds
from fedcore.history import read_history

TINY = Study(
    clients=(6, 4), alpha=(10.0, 1.0), dropout=(0.0, 0.25), bits=(8,), target=0.8, rounds=2, rate=0.1
)


def test_one_setting_is_varied_at_a_time() -> None:
    base = {"clients": 6, "alpha": 10.0, "dropout": 0.0, "bits": 8}
    assert TINY.settings() == [
        ("base", base),
        ("clients", base | {"clients": 4}),
        ("alpha", base | {"alpha": 1.0}),
        ("dropout", base | {"dropout": 0.25}),
    ]


def test_rounds_and_bytes_are_counted_until_the_target_is_reached(tmp_path: Path) -> None:
    results = run_study(TINY, tmp_path)
    assert [one.varied for one in results] == ["base", "clients", "alpha", "dropout"]
    for i, one in enumerate(results):
        (folder,) = tmp_path.glob(f"{i:03d}-*")
        lines = read_rounds(folder, 0, 0, "secure")
        assert one.rounds == len(lines)
        assert one.client_bytes == pytest.approx(sum(x["bytes_up"] / x["survivors"] for x in lines))
        assert one.reached == (lines[-1]["accuracy"] >= 0.8)
        assert all(line["accuracy"] < 0.8 for line in lines[:-1])
    assert results[0].reached == 1
    written = list(read_history(tmp_path / "convergence.jsonl"))
    assert [event["event"] for event in written] == ["study", *["reached"] * 4]
    assert [event["rounds"] for event in written[1:]] == [one.rounds for one in results]
    plot_study(TINY, results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_target_out_of_reach_takes_all_rounds(tmp_path: Path) -> None:
    (one,) = run_study(
        Study(clients=(4,), alpha=(1.0,), dropout=(0.0,), bits=(8,), target=1.0, rounds=2), tmp_path
    )
    assert (one.reached, one.rounds) == (0, 2)


def test_what_no_experiment_could_have_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"plan\.bits: must be in 1\.\.40, is 99"):
        run_study(Study(bits=(8, 99)), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingError, match="target: must be in"):
        Study(target=1.5)
