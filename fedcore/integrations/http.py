"""Secure means over plain HTTP (aiohttp): nodes ask the server for work, so that only the server listens.

A node calls POST /work with its last reply and gets its next request; in between the server lets it wait. TLS
is the deployment's (an `ssl_context` for aiohttp, or a proxy), and so is who may call at all (`token`, or the
proxy). Who a node is in the sum its frames say, signed; the name of its own making keeps requests apart.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from fedcore.codec.mean import Arrays, Mean, MeanResult
from fedcore.integrations.exchange import Answering, SecureMean, Train, answer_packed, packed, with_model
from secagg.embedding import Ask, Round

NODE, ASK = "X-Secagg-Node", "X-Secagg-Ask"  # a name, 32 hexadecimal digits; the number of what is answered
_POLL_S, _RETRY_S, _AWAY_S, _MOST = 20.0, 1.0, 60.0, 10_000
_OVER = object()


class HttpServer:
    """The server's end: `app` is what aiohttp serves, `average` a round over the nodes that are here."""

    def __init__(self, secure: SecureMean, *, token: str = "", largest_reply: int = 2**30) -> None:
        self._secure, self._token = secure, f"Bearer {token}".strip()
        self._seen: dict[str, float] = {}  # when a node asked last
        self._work: dict[str, asyncio.Queue[tuple[int, bytes]]] = {}
        self._replies: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._ask, self._closed, self._came = 0, False, asyncio.Event()
        self.app = web.Application(client_max_size=largest_reply)
        self.app.router.add_post("/work", self._on_work)

    async def _on_work(self, request: web.Request) -> web.Response:
        """Take a node's reply, and give it its next request: 204, nothing yet; 410, never again."""
        node, said = request.headers.get(NODE, ""), request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode(), self._token.encode()):
            return web.Response(status=401)
        if len(node) != 32 or not node.isalnum() or (node not in self._work and len(self._work) >= _MOST):
            return web.Response(status=400, text=f"{NODE}: must be 32 hexadecimal digits, of {_MOST} at most")
        reply = await request.read()
        if reply and request.headers.get(ASK) == str(self._ask):  # what is late is of an earlier one
            await self._replies.put((node, reply))
        waiting = self._work.setdefault(node, asyncio.Queue())
        self._seen[node] = time.monotonic()
        self._came.set()
        try:
            async with asyncio.timeout(_POLL_S):
                number, body = (0, b"") if self._closed else await waiting.get()
        except TimeoutError:
            return web.Response(status=204)
        if self._closed:
            return web.Response(status=410)
        return web.Response(body=body, headers={ASK: str(number)})

    def _here(self) -> list[str]:
        return [node for node, seen in self._seen.items() if seen > time.monotonic() - _AWAY_S]

    async def average(
        self, model: Arrays, *, nodes: int, config: Mapping[str, Any] | None = None
    ) -> tuple[Round[str], MeanResult]:
        """Wait for so many nodes, and run a round over all who are here. Raises as `SecureMean.run`."""
        while len(self._here()) < nodes:
            self._came.clear()
            await self._came.wait()
        for last in self._secure.rounds(model, self._here(), config):
            asks = iter(last)
            while isinstance(ask := await asyncio.to_thread(next, asks, _OVER), Ask):
                await self._carry(ask, model, config or {})
        return last, self._secure.mean.decode(last.parameters, model, last.result)

    async def _carry(self, ask: Ask[str], model: Arrays, config: Mapping[str, Any]) -> None:
        self._ask += 1
        along = packed(model, config) if ask.wants_vector else b""
        for node, frame in ask.frames.items():
            self._work[node].put_nowait((self._ask, with_model(frame, along)))
        while not ask.over:
            try:
                async with asyncio.timeout(min(ask.left_s, 1.0)):
                    node, reply = await self._replies.get()
            except TimeoutError:
                continue
            if node in ask.frames:
                ask.take(node, reply)

    def close(self) -> None:
        """Tell every node that asks that there is no more work."""
        self._closed = True
        for waiting in self._work.values():
            waiting.put_nowait((0, b""))


async def join(
    url: str, participant: Answering, mean: Mean, train: Train, *, token: str = "", most_bytes: int = 2**32
) -> None:
    """Take part in every round of a server, until it says that there are no more.

    train  called in a thread; most_bytes: of a request. Raises ConnectionError: the server answers otherwise
    """
    headers, reply = {NODE: secrets.token_hex(16), "Authorization": f"Bearer {token}".strip()}, b""
    async with ClientSession(timeout=ClientTimeout(total=None, sock_connect=30)) as session:
        while True:
            try:
                async with session.post(f"{url}/work", data=reply, headers=headers) as response:
                    if response.status == 410:
                        return
                    if response.status not in {200, 204} or (response.content_length or 0) > most_bytes:
                        raise ConnectionError(f"{url}: answered {response.status}, {response.content_length}")
                    body, number = await response.read(), response.headers.get(ASK, "")
            except (ClientError, TimeoutError):  # it may come back; our reply is sent again
                await asyncio.sleep(_RETRY_S)
                continue
            reply = await asyncio.to_thread(answer_packed, participant, mean, train, body) if body else b""
            headers[ASK] = number
