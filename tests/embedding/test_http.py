"""The adapter for plain HTTP, over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, web

from fedcore.integrations import http
from fedcore.integrations.http import HttpServer, join
from secagg.embedding import AnyRound, Committee, Patience, Registry, conformance
from secagg.params import Phase
from tests.embedding.cohort import Cohort
from tests.embedding.models import CONFIG, MEAN, MODEL, Nodes, expected, secure, train


@asynccontextmanager
async def served(server: HttpServer) -> AsyncIterator[str]:
    runner = web.AppRunner(server.app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        await runner.cleanup()


def over_http(nodes: Nodes, registry: Registry, committee: Committee | None) -> AnyRound[Any]:
    """A node that crashes is a process that ends: its task, here. It is lost when its time is up."""

    async def run() -> AnyRound[Any]:
        patience = Patience(first_s=20, input_s=20, phase_s=20, grace_s=0.3)
        server = HttpServer(secure(registry, patience=patience, committee=committee))
        async with served(server) as url:
            tasks = [asyncio.create_task(join(url, node, MEAN, train(i))) for i, node in enumerate(nodes)]
            last: AnyRound[Any] | None = None
            for last in server._secure.rounds(MODEL, await here(server, len(nodes)), CONFIG):
                asks = iter(last)
                while (ask := await asyncio.to_thread(next, asks, None)) is not None:
                    await server._carry(ask, MODEL, CONFIG)
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert last is not None
            return last

    return asyncio.run(run())


async def here(server: HttpServer, nodes: int) -> list[str]:
    while len(server._here()) < nodes:
        await asyncio.sleep(0.01)
    return server._here()


@pytest.mark.parametrize("case", conformance.CASES, ids=str)
def test_http_passes(case: conformance.Case) -> None:
    conformance.check(case, over_http)


def test_a_mean_over_http_is_that_of_its_nodes() -> None:
    cohort = Cohort()

    async def run() -> None:
        server = HttpServer(secure(cohort.registry), token="s3cret")
        async with served(server) as url:
            tasks = [
                asyncio.create_task(join(url, cohort.participant(i), MEAN, train(i), token="s3cret"))
                for i in range(5)
            ]
            model = dict(MODEL)
            for _ in range(2):  # the mean of the first is the model of the second
                one, result = await server.average(model, nodes=5, config=CONFIG)
                change, loss, weight = expected(range(5))
                np.testing.assert_allclose(result.arrays["b"], model["b"] + change, atol=1e-4)
                assert result.metrics["loss"] == pytest.approx(loss, abs=1e-3)
                assert (result.weight, len(one.survivors)) == (weight, 5)
                model = result.arrays
            server.close()
            await asyncio.gather(*tasks)  # they were told, and end

    asyncio.run(run())


def test_strangers_are_not_let_in_and_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_POLL_S", 0.01)
    monkeypatch.setattr(http, "_MOST", 1)

    async def run() -> None:
        server = HttpServer(secure(Cohort().registry), token="s3cret")
        async with served(server) as url, ClientSession() as session:
            right = {"Authorization": "Bearer s3cret"}
            for headers, status in (
                ({}, 401),
                ({"Authorization": "Bearer other", http.NODE: "a" * 32}, 401),
                (right, 400),
                ({**right, http.NODE: "../" * 10 + "ab"}, 400),
                ({**right, http.NODE: "a" * 32}, 204),
                ({**right, http.NODE: "b" * 32}, 400),  # one too many
                ({**right, http.NODE: "a" * 32}, 204),
            ):
                async with session.post(f"{url}/work", headers=headers) as response:
                    assert response.status == status, headers
            server.close()
            async with session.post(f"{url}/work", headers={**right, http.NODE: "a" * 32}) as response:
                assert response.status == 410

    asyncio.run(run())


def test_a_server_that_answers_otherwise_ends_a_node_with_an_error() -> None:
    async def run() -> None:
        server = HttpServer(secure(Cohort().registry), token="s3cret")
        async with served(server) as url:
            with pytest.raises(ConnectionError, match="answered 401"):
                await join(url, Cohort().participant(0), MEAN, train(0), token="wrong")

    asyncio.run(run())


async def _post(session: ClientSession, url: str, ask: str = "", data: bytes = b"") -> tuple[int, bytes, str]:
    headers = {http.NODE: "a" * 32, http.ASK: ask, "Authorization": "Bearer"}
    async with session.post(f"{url}/work", headers=headers, data=data) as response:
        return response.status, await response.read(), response.headers.get(http.ASK, "")


def test_a_reply_that_comes_again_is_not_taken_for_that_of_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "_POLL_S", 0.01)

    async def run() -> None:
        server = HttpServer(secure(Cohort().registry))
        async with served(server) as url, ClientSession() as session:
            assert (await _post(session, url, data=b"nobody asked"))[0] == 204
            seat = server._seats["a" * 32]
            for number in (7, 8):
                seat.number, seat.request = number, b"request"
                seat.asked.set()
                for _ in range(2):  # a connection that broke does not lose a request
                    assert await _post(session, url) == (200, b"request", str(number))
                for ask in ("6", "7", "7", "9", "8", "8"):
                    await _post(session, url, ask, ask.encode())
            replies = [server._replies.get_nowait() for _ in range(server._replies.qsize())]
            assert replies == [(7, "a" * 32, b"7"), (8, "a" * 32, b"8")]

    asyncio.run(run())


def test_who_is_late_in_one_round_is_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, model = Cohort(), dict(MODEL)

    async def run() -> None:
        patience = Patience(first_s=20, input_s=20, phase_s=20, grace_s=0.2)
        server = HttpServer(secure(cohort.registry, patience=patience))
        slow, last = cohort.participant(4), asyncio.Event()
        real, loop = slow.answer, asyncio.get_running_loop()

        def answer(*arguments: Any, **others: Any) -> bytes:
            reply = real(*arguments, **others)
            if conformance.phase_of(arguments[0]) is Phase.UNMASKING and not last.is_set():
                asyncio.run_coroutine_threadsafe(last.wait(), loop).result()
            return reply

        monkeypatch.setattr(slow, "answer", answer)
        async with served(server) as url:
            nodes = [*(cohort.participant(i) for i in range(4)), slow]
            tasks = [asyncio.create_task(join(url, one, MEAN, train(i))) for i, one in enumerate(nodes)]
            one, result = await server.average(model, nodes=5)
            assert len(one.losses) == 1
            last.set()
            two, _ = await server.average(result.arrays, nodes=5)
            assert not two.losses
            server.close()
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_node_reads_no_more_than_it_allows() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/work", endless)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            with pytest.raises(ConnectionError, match="more than 1048576 bytes"):
                await join(
                    f"http://{host}:{port}", Cohort().participant(0), MEAN, train(0), most_bytes=1 << 20
                )
        finally:
            await runner.cleanup()

    asyncio.run(run())
