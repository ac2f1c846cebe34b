"""Attackers: the share of the sites that is said, made by what fedcore.adversaries.sites names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SettingError
from fedcore.settings import to_json
from secagg import ParameterError
from tests.fedcore.experiments.small import run, small


def test_attackers_replace_their_share_of_the_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[tuple[str, float]] = []

    def scaled(site: Any, factor: float) -> Any:
        replaced.append((site.name, factor))
        return site

    monkeypatch.setattr("fedcore.experiments.attack.ATTACKS", {"scale": scaled})
    attack = {"kind": "scale", "share": 0.25, "options": {"factor": 3.0}}
    run(tmp_path, attack=attack, plan={"rounds": 1}, seeds=[0, 1])
    assert len(replaced) == 6
    assert len(set(replaced[:3])) == 3
    assert {factor for _name, factor in replaced} == {3.0}
    assert set(replaced[:3]) != set(replaced[3:])
    with pytest.raises(SettingError, match=r"attack\.kind: must be one of scale, is 'flip'"):
        run(tmp_path / "other", attack={"kind": "flip", "share": 0.25})
    table = small(attack=attack).points[0].attack
    assert table is not None
    assert to_json(table) == attack


def test_an_option_that_the_attack_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_site: Any, **options: Any) -> Any:
        raise ParameterError(f"{min(options)}: is too large")

    monkeypatch.setattr("fedcore.experiments.attack.ATTACKS", {"scale": refuse})
    with pytest.raises(SettingError, match=r"^attack\.options\.factor: is too large$"):
        run(tmp_path, attack={"kind": "scale", "share": 0.25, "options": {"factor": 3.0}})


def test_real_attackers_cost_accuracy_and_a_median_of_groups_wins_it_back(tmp_path: Path) -> None:
    attack = {"kind": "sign_flip", "share": 0.08, "options": {"scale": 30.0}}
    plan = {"rounds": 5, "clip": 0.5}
    (honest,) = run(tmp_path / "honest", plan=plan)
    (mean,) = run(tmp_path / "mean", plan=plan, attack=attack)
    median = {"name": "FedMedian", "groups": 3}
    (robust,) = run(tmp_path / "median", plan=plan, attack=attack, strategy=median)
    assert mean.failure == robust.failure == ""
    assert honest.metrics["accuracy"] > mean.metrics["accuracy"] + 0.3
    assert robust.metrics["accuracy"] > honest.metrics["accuracy"] - 0.03


def test_an_option_that_no_attack_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^attack\.options\."):
        run(tmp_path, attack={"kind": "label_flip", "share": 0.1, "options": {"no_such": 1}})
