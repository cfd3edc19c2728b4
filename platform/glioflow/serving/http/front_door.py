"""Middleware in Serve's proxy that reads headers and the whole body of every request before a gateway is occupied.

Serve's proxy calls `middlewares`, named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH. A body is received here, on
disk beyond a megabyte, so that slow uploads do not occupy a gateway and memory does not grow with the upload.
"""

import asyncio
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glioflow.cluster import silence
from glioflow.serving.http.request_guard import ID, OVERHEAD, answer_error
from glioflow.serving.http.room import Room
from glioflow.serving.settings import APP, Limits

LIMITS = "GLIOFLOW_SERVE_LIMITS"  # JSON, for the proxies of a cluster that starts with this environment
_BLOCK = 1 << 20
_GRACE_S = 10  # before the minimum rate applies
_TOO_MANY_BYTES = (503, "the endpoint takes in too many bytes at once; try again", None)
# Headers of Serve, which reads some with `_` for `-`, too. A caller could lift the time limit by the first two; it
# routes by the others, logs them unchanged, and keeps a request for each model id that was ever sent.
_TAKEN_OFF = (
    *(b"x-request-timeout-seconds", b"x-request-disconnect-disabled"),
    *(b"serve-multiplexed-model-id", b"x-session-id"),
)
_ID_HEADER = b"x-request-id"
# Routes of Serve's proxy: its health, and the application of each path prefix; and how long the latter is cached.
_OF_SERVE, _ROUTES, _KNOWN_S = "/-/", "/-/routes", 5


def middlewares() -> list[Middleware]:
    """Return the middleware that Serve puts before its proxy."""
    silence()  # this process's gRPC to the gateways must bypass the network's proxy
    given = os.environ.get(LIMITS)
    return [Middleware(FrontDoor, limits=Limits.model_validate_json(given) if given else Limits())]


@dataclass
class _Share:
    """The part of a proxy's pending bytes that one request uses."""

    size: int


class FrontDoor:
    """ASGI middleware around Serve's proxy; requests for other applications of a shared cluster pass unchanged."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Guard `app`."""
        self.app, self.limits, self.pending = app, limits, 0
        # Serve's proxy and gateway read a whole body at once.
        self._room = Room(limits.passed_bytes)
        self._routes: Mapping[str, str] = {}
        self._asked = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on once its body is complete, or refuse it."""
        if scope["type"] != "http" or not await self._is_ours(scope):
            return await self.app(scope, receive, send)
        send = in_json(send)
        scope = {**scope, "headers": [pair for pair in scope["headers"] if _is_harmless(*pair)]}
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return await self.app(scope, receive, send)
        stated = next((value for key, value in scope["headers"] if key.lower() == b"content-length"), b"")
        length = int(stated) if re.fullmatch(rb"\d{1,18}", stated) else 0
        reserved = min(length, self.limits.upload_bytes + OVERHEAD)
        if self.pending + reserved > self.limits.pending_bytes:
            return await answer_error(send, *_TOO_MANY_BYTES)
        self.pending += reserved
        share, body = _Share(reserved), _Body()
        try:
            refusal = await self._take_in(body, receive, length, share)
            if refusal is not None:
                return await answer_error(send, *refusal)
            async with self._room.taken(share.size if share.size > _BLOCK else 0):
                await self.app(scope, _replayed(body, receive), send)
        finally:
            self.pending -= share.size
            body.close()

    async def _is_ours(self, scope: Scope) -> bool:
        """Say whether Serve routes a request to this application; all, if Serve lists none of that name."""
        path = scope["path"][len(scope.get("root_path", "")) :]
        if path.startswith(_OF_SERVE):
            return False
        if time.monotonic() - self._asked > _KNOWN_S:
            self._routes, self._asked = await _read_routes(self.app, scope), time.monotonic()
        if APP not in self._routes.values():
            return True
        prefixes = [each for each in self._routes if path == each or path.startswith(f"{each.rstrip('/')}/")]
        return self._routes.get(max(prefixes, key=len, default=""), APP) == APP

    async def _take_in(
        self, body: "_Body", receive: Receive, stated: int, share: _Share
    ) -> tuple[int, str, None] | None:
        """Write a body to a file; return the reason of a refusal, None if it is complete or its caller left."""
        most, began, taken = self.limits.upload_bytes + OVERHEAD, time.monotonic(), 0
        too_much = (413, f"a request must have at most {self.limits.upload_bytes} bytes", None)
        if stated > most:
            return too_much
        more = True
        while more:
            left = self._deadline(began, taken) - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                rule = f"a request must arrive within {self.limits.body_s:g} s"
                return 408, f"{rule}, and at {self.limits.least_bytes_per_s} bytes a second or more", None
            if message["type"] == "http.disconnect":
                return 408, "the request ended before its body did", None
            block, more = message.get("body", b""), message.get("more_body", False)
            taken += len(block)
            if taken > most:
                return too_much
            if (more_bytes := taken - share.size) > 0:  # more than its header states, if anything
                if self.pending + more_bytes > self.limits.pending_bytes:
                    return _TOO_MANY_BYTES
                self.pending, share.size = self.pending + more_bytes, taken
            try:
                await body.add(block)
            except OSError:
                return 503, "the endpoint has no room for the request; try again later", None
        return None

    def _deadline(self, began: float, taken: int) -> float:
        """Return the deadline of the next part, by the minimum rate and the maximum time."""
        return began + min(self.limits.body_s, _GRACE_S + taken / self.limits.least_bytes_per_s)


async def _read_routes(app: ASGIApp, scope: Scope) -> Mapping[str, str]:
    """Return the application's name by prefix, from Serve's proxy; empty if it does not answer."""
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    root = scope.get("root_path", "")
    await app({**scope, "method": "GET", "path": f"{root}{_ROUTES}", "query_string": b"", "headers": []}, receive, send)
    try:
        routes = json.loads(b"".join(each.get("body", b"") for each in answers))
    except ValueError:  # not JSON: the proxy is not ready
        return {}
    return routes if isinstance(routes, dict) else {}


def in_json(send: Send) -> Send:
    """Return a `send` that replaces the plain text of Serve's proxy about a lost gateway by JSON."""
    lost = False

    async def send_on(message: Message) -> None:
        nonlocal lost
        if message["type"] == "http.response.start":
            kinds = [value for key, value in message.get("headers", ()) if key.lower() == b"content-type"]
            lost = message["status"] >= 500 and not any(kind.startswith(b"application/json") for kind in kinds)
            if lost:
                return await answer_error(send, 502, "the endpoint lost this request; try again", None)
        if not lost:
            await send(message)

    return send_on


def _is_harmless(name: bytes, value: bytes) -> bool:
    key = name.lower().replace(b"_", b"-")
    return key not in _TAKEN_OFF and not (key == _ID_HEADER and not ID.match(value.decode("latin-1")))


class _Body:
    """A request's body: one block in memory, and the rest in an unnamed file that threads write and read."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._file: IO[bytes] | None = None
        self._is_read = False

    async def add(self, part: bytes) -> None:
        """Add the next part; raises `OSError` if the disk is full."""
        self._block += part
        if len(self._block) > _BLOCK:
            await asyncio.to_thread(self._spill)

    async def next_block(self) -> tuple[bytes, bool]:
        """Return the next block, and whether more follow; the first call ends the writing."""
        if self._file is None:
            block, self._block = bytes(self._block), bytearray()
            return block, False
        return await asyncio.to_thread(self._read, self._file)

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="glioflow-body-")
        self._file.write(self._block)
        self._block.clear()

    def _read(self, file: IO[bytes]) -> tuple[bytes, bool]:
        if not self._is_read:
            self._spill()
            file.seek(0)
            self._is_read = True
        block = file.read(_BLOCK)
        return block, len(block) == _BLOCK


def _replayed(body: _Body, receive: Receive) -> Receive:
    """Return a `receive` that yields a body in blocks and then waits for the caller to leave."""
    ended = False

    async def receive_block() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        block, more = await body.next_block()
        ended = not more
        return {"type": "http.request", "body": block, "more_body": more}

    return receive_block
