"""FLARE itself, in its simulator: run by `make test-hosts` in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.collab import CollabRecipe
from nvflare.recipe import PocEnv, SimEnv

from secagg.embedding import Registry, conformance, write_key
from tests.embedding.hosts.flare_job import Server, Site
from tests.embedding.models import MODEL, expected

pytestmark = pytest.mark.host


def run(home: Path, environment: Callable[[list[str]], Any]) -> dict[str, str]:
    """One job: every case of the suite, and a run over sites with folders of their own."""
    sites = [f"site-{i + 1}" for i in range(5)]
    keys = {}
    for site in sites:
        (home / site).mkdir()
        keys[site] = write_key(home / site / "party.key").identity
    text = Registry.of(keys.items()).dump()
    for site in sites:
        (home / site / "registry.toml").write_text(text, encoding="utf-8")
    (home / "registry.toml").write_text(text, encoding="utf-8")
    out = home / "found.json"
    recipe = CollabRecipe(
        job_name="secagg", server=Server(str(out), str(home / "registry.toml")), client=Site(), min_clients=5
    )
    recipe.set_per_site_config({site: {"secagg_folder": str(home / site)} for site in sites})
    job = recipe.execute(environment(sites))
    if job is not None:
        job.get_result()
    assert out.exists(), "the job wrote nothing"
    return dict(json.loads(Path(out).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In FLARE's simulator."""
    home = tmp_path_factory.mktemp("flare")
    return run(
        home, lambda sites: SimEnv(clients=sites, num_threads=5, workspace_root=str(home / "simulator"))
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", conformance.CASES, ids=str)
def test_flare_passes(case: conformance.Case, found: dict[str, str]) -> None:
    assert str(case) not in found, found[str(case)]


def test_a_job_of_flare_is_a_run_of_means(found: dict[str, str]) -> None:
    is_a_run_of_means(found["run"])


def is_a_run_of_means(text: str) -> None:
    change, _, _ = expected(range(5))
    for name, array in json.loads(text).items():
        np.testing.assert_allclose(np.array(array), MODEL[name] + 2 * change, atol=1e-3)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # FLARE waits for no process
def test_all_of_it_holds_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In FLARE's POC mode: a server and five sites, each a process."""
    monkeypatch.setenv("NVFLARE_POC_WORKSPACE", str(tmp_path / "poc"))
    environment: list[Any] = []

    def poc(sites: list[str]) -> Any:
        environment.append(PocEnv(num_clients=len(sites), clients=sites))
        return environment[0]

    try:
        told = run(tmp_path, poc)
    finally:
        for one in environment:
            one.stop(clean_up=True)
    is_a_run_of_means(told.pop("run"))
    assert told == {}
