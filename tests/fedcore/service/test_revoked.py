"""A registry that changes while a run goes on: who is revoked has no more part in it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedcore.service import serve
from secagg import IdentityKey
from secagg.service import Registry
from secagg.store.sql import Database


class Served:
    """What the watch needs of a run."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def enrol(self, registry: Registry) -> None:
        self.registry = registry


def written(path: Path, *numbers: int) -> Registry:
    registry = Registry.of(
        (f"site-{i}", IdentityKey.from_seed(bytes([i + 1]) * 32).identity) for i in numbers
    )
    beside = path.with_suffix(".new")
    beside.write_text(registry.dump())
    beside.replace(path)
    return registry


def test_who_is_revoked_while_a_run_goes_on_has_no_more_part_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_REGISTRY_S", 0.01)
    path, said = tmp_path / "registry.toml", list[str]()
    first = written(path, 0, 1, 2, 3)
    served = Served(first)
    options = SimpleNamespace(registry=first, registry_file=path)
    recorder = SimpleNamespace(write=lambda _event, text: said.append(text))
    left_out: list[frozenset[bytes]] = []
    aggregator = SimpleNamespace(leave_out=left_out.append)

    async def until(names: set[str], warnings: int) -> None:
        async with asyncio.timeout(30):
            while set(served.registry.names.values()) != names or len(said) < warnings:
                await asyncio.sleep(0.01)

    async def run() -> None:
        with Database("sqlite://") as store:
            arguments: Any = (options, store, served, recorder, aggregator)
            watching = asyncio.create_task(serve._watch_registry(*arguments))
            everybody = {f"site-{i}" for i in range(4)}
            written(path, 0, 1, 3)
            await until(everybody - {"site-2"}, 1)
            assert said[-1].startswith("site-2: not in ")
            path.write_text("nonsense")
            await until(everybody - {"site-2"}, 2)
            assert said[-1].startswith("goes on with the registry of before: ")
            path.unlink()
            await until(everybody - {"site-2"}, 3)
            written(path, 0, 1, 7)  # who is new agreed to another run
            await until({"site-0", "site-1"}, 4)
            assert [len(one) for one in left_out] == [1, 2]
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


def test_without_a_file_the_registry_stays_as_it_is() -> None:
    options = SimpleNamespace(registry_file=None)
    nothing = cast("Any", None)
    asyncio.run(serve._watch_registry(cast("Any", options), nothing, nothing, nothing, nothing))
