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
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

from fedcore.codec.mean import Arrays, Mean, MeanResult
from fedcore.integrations.exchange import Answering, SecureMean, Train, answer_packed, packed, with_model
from secagg.embedding import AnyRound, Ask

NODE, ASK = "X-Secagg-Node", "X-Secagg-Ask"  # a name, 32 hexadecimal digits; the number of what is answered
_POLL_S, _RETRY_S, _AWAY_S, _MOST, _CHUNK = 20.0, 1.0, 60.0, 10_000, 1 << 16


@dataclass(slots=True)
class _Seat:
    """A node that asks for work: what it is asked now, until its reply is there."""

    seen: float = 0.0
    number: int = 0
    request: bytes | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class HttpServer:
    """The server's end: `app` is what aiohttp serves, `average` a round over the nodes that are here."""

    def __init__(self, secure: SecureMean, *, token: str = "", largest_reply: int = 2**30) -> None:
        self._secure, self._token = secure, f"Bearer {token}".strip()
        self._seats: dict[str, _Seat] = {}
        self._replies: asyncio.Queue[tuple[int, str, bytes]] = asyncio.Queue()
        self._number, self._closed, self._came = 0, False, asyncio.Event()
        self.app = web.Application(client_max_size=largest_reply)
        self.app.router.add_post("/work", self._on_work)

    async def _on_work(self, request: web.Request) -> web.Response:
        """Take a node's reply, and give it its next request: 204, nothing yet; 410, never again."""
        node, said = request.headers.get(NODE, ""), request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode("utf-8", "surrogateescape"), self._token.encode()):
            return web.Response(status=401)
        if len(node) != 32 or not node.isalnum() or (node not in self._seats and len(self._here()) >= _MOST):
            return web.Response(status=400, text=f"{NODE}: must be 32 hexadecimal digits, of {_MOST} at most")
        seat = self._seats.setdefault(node, _Seat())
        seat.seen = time.monotonic()
        self._came.set()
        waited = seat.request is not None and request.headers.get(ASK) == str(seat.number)
        if waited and (reply := await request.read()) and seat.request is not None:  # once, and in time
            seat.request = None
            seat.asked.clear()
            self._replies.put_nowait((seat.number, node, reply))
        try:
            async with asyncio.timeout(_POLL_S):
                await seat.asked.wait()
        except TimeoutError:
            return web.Response(status=204)
        if self._closed:
            return web.Response(status=410)
        return web.Response(body=seat.request, headers={ASK: str(seat.number)})

    def _here(self) -> list[str]:
        """Return the nodes that asked lately; others are forgotten."""
        since = time.monotonic() - _AWAY_S
        self._seats = {node: seat for node, seat in self._seats.items() if seat.seen > since}
        return list(self._seats)

    async def average(
        self, model: Arrays, *, nodes: int, config: Mapping[str, Any] | None = None
    ) -> tuple[AnyRound[str], MeanResult]:
        """Wait for so many nodes, and run a round over all who are here. Raises as `SecureMean.run`."""
        while len(self._here()) < nodes:
            self._came.clear()
            await self._came.wait()
        told = config or {}
        return await self._secure.run_async(
            model, self._here(), lambda ask: self._carry(ask, model, told), told
        )

    async def _carry(self, ask: Ask[str], model: Arrays, config: Mapping[str, Any]) -> None:
        self._number += 1
        along = packed(model, config) if ask.wants_vector else b""
        seats = {node: self._seats.setdefault(node, _Seat()) for node in ask.frames}
        for node, seat in seats.items():
            seat.number, seat.request = self._number, with_model(ask.frames[node], along)
            seat.asked.set()
        while not ask.over:
            try:
                async with asyncio.timeout(min(ask.left_s, 1.0)):
                    number, node, reply = await self._replies.get()
            except TimeoutError:
                continue
            if number == self._number:
                ask.take(node, reply)
        for seat in seats.values():
            seat.request = None
            seat.asked.clear()

    def close(self) -> None:
        """Tell every node that asks that there is no more work."""
        self._closed = True
        for seat in self._seats.values():
            seat.asked.set()


async def join(
    url: str, participant: Answering, mean: Mean, train: Train, *, token: str = "", most_bytes: int = 2**32
) -> None:
    """Take part in every round of a server, until it says that there are no more.

    train  called in a thread; most_bytes: of a request. Raises ConnectionError: the server answers otherwise
    """
    headers, reply = {NODE: secrets.token_hex(16), "Authorization": f"Bearer {token}".strip()}, b""
    timeout = ClientTimeout(total=None, sock_connect=30)
    async with ClientSession(timeout=timeout, auto_decompress=False) as session:
        while True:
            try:
                async with session.post(f"{url}/work", data=reply, headers=headers) as response:
                    if response.status == 410:
                        return
                    if response.status not in {200, 204}:
                        raise ConnectionError(f"{url}: answered {response.status}")
                    body, number = await _read(response, most_bytes), response.headers.get(ASK, "")
            except (ClientError, TimeoutError):  # it may come back; our reply is sent again
                await asyncio.sleep(_RETRY_S)
                continue
            reply = await asyncio.to_thread(answer_packed, participant, mean, train, body) if body else b""
            headers[ASK] = number


async def _read(response: ClientResponse, most_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > most_bytes:
            raise ConnectionError(f"request: has more than {most_bytes} bytes")
    return bytes(body)
