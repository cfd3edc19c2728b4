"""Checks of every request before its body is read (id, token, length), and its log entry."""

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import re
import sys
import time
import uuid
import warnings
from logging.handlers import RotatingFileHandler
from typing import Any, TypedDict

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glioflow.cluster.storage import home
from glioflow.errors import ErrorRecord, OutOfRoom, is_out_of_room
from glioflow.serving.http.metrics import Metrics
from glioflow.serving.settings import ServeSettings

LOGGER = "glioflow.serving"
# Probes and documentation, which contain no personal data.
PROBES = ("/healthz", "/readyz")
OPEN = (*PROBES, "/docs", "/openapi.json", "/page")
DOCS_FILES = "/docs/files"
# A caller's id could name a patient: only hexadecimal ones are accepted, and none that is a number or a date.
ID = re.compile(r"^(?=.*[a-f])[0-9a-f-]{8,64}$")
OVERHEAD = 1 << 20  # bytes of a multipart body besides its files


class Guard:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        """Guard `app`."""
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if ID.match(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began, status, failure = time.perf_counter(), 0, {}

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is None:
                await self.app(scope, limited(receive, self.settings.limits.upload_bytes + OVERHEAD), send_on)
            else:
                await answer_error(send_on, *refusal)
        except Exception as error:  # an internal error: its text could name a file, so only its type is kept
            failure = {"failure": type(error).__name__}
            if full := is_out_of_room(error) or isinstance(error, OutOfRoom):
                self.metrics.out_of_room.labels(self.metrics.gateway).inc()
                log("out_of_room", id=request_id)
            if not status and full:
                await answer_error(send_on, 503, "the endpoint has no room for the request; try again later", None)
            elif not status:
                await answer_error(send_on, 500, "the endpoint failed", None)
        finally:
            seconds = time.perf_counter() - began
            route = _route_of(scope)
            self.metrics.answered(route, status, seconds)
            facts = scope["state"].get("facts", {})
            log(
                "request", id=request_id, method=scope["method"][:10], route=route, status=status,
                ms=round(seconds * 1000, 1), **facts, **failure,
            )  # fmt: skip

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str | None] | None:
        is_open = scope["path"] in OPEN or scope["path"].startswith((f"{DOCS_FILES}/", "/page/"))
        if scope["path"] not in PROBES and not knows_host(headers.get("host", ""), self.settings.hosts):
            rule = "this endpoint does not answer to this host name"
            return 421, f"{rule}; ask it by its address, or start it with --allow-host NAME", None
        if not is_open and not self._knows_token(headers.get("authorization", "")):
            return 401, "this endpoint needs the header 'Authorization: Bearer TOKEN'", None
        if scope["method"] in ("POST", "PUT", "PATCH"):
            length, limit = headers.get("content-length", ""), self.settings.limits.upload_bytes
            if length and not re.fullmatch(r"\d{1,18}", length):
                return 400, "the header Content-Length must be a number of bytes", length[:20]
            if length and int(length) > limit + OVERHEAD:
                return 413, f"a request must have at most {limit} bytes", length
        return None

    def _knows_token(self, header: str) -> bool:
        wanted = self.settings.token_sha256
        scheme, _, token = header.partition(" ")
        given = hashlib.sha256(token.strip(" \t").encode("latin-1")).hexdigest()
        return wanted is None or (scheme.lower() == "bearer" and hmac.compare_digest(given, wanted))


def knows_host(header: str, allowed: tuple[str, ...] | None) -> bool:
    """Say whether a host name is allowed, or cannot come from a foreign name server (DNS rebinding)."""
    if allowed is None:
        return True
    name = re.sub(r":\d*$", "", header).strip("[]").lower().rstrip(".")
    own = "." not in name or name.endswith((".localhost", ".svc", ".svc.cluster.local")) or _is_address(name)
    return own or bool({name, "*"} & set(allowed))


def limited(receive: Receive, most: int) -> Receive:
    """Return a `receive` that refuses bodies above a number of bytes, whatever their headers state."""
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, f"a request must have at most {most - OVERHEAD} bytes")
        return message

    return receive_some


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class ErrorBody(TypedDict):
    """The body of every answer that is not a success."""

    error: ErrorRecord


def error_body(rule: str, value: str | None = None, choices: list[str] | None = None) -> ErrorBody:
    """Return the body of an error answer."""
    return {"error": {"rule": rule, "value": value, "choices": choices}}


async def answer_error(send: Send, status: int, rule: str, value: str | None) -> None:
    """Answer without reading the body."""
    body = json.dumps(error_body(rule, value)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"retry-after", b"1")] if status in (502, 503) else []
    headers += [(b"connection", b"close")] if status in (408, 413, 503) else []  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def quiet_libraries() -> None:
    """Keep the readers' libraries from logging header values and files, which may include names of patients."""
    from cv2.utils import logging as cv2_logging

    cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)  # else it names a file that it cannot decode
    warnings.simplefilter("ignore")
    for name in ("pydicom", "highdicom", "tifffile", "nibabel", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def start_log(part: str) -> None:
    """Write this process's log, a JSON object a line, to `serving/log/PART-PID.jsonl` under the home."""
    logger = logging.getLogger(LOGGER)
    if logger.handlers:
        return
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler: logging.Handler
    try:
        folder = home() / "serving" / "log"
        folder.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(folder / f"{part}-{os.getpid()}.jsonl", maxBytes=10 * 2**20, backupCount=2)
    except OSError:  # the home is not writable
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)


def log(event: str, **facts: Any) -> None:
    """Write one line, which must not name a file, study or person."""
    level = logging.WARNING if event in ("refused", "stepped_back", "out_of_room") else logging.INFO
    line = {"time": round(time.time(), 3), "event": event, **facts}
    logging.getLogger(LOGGER).log(level, json.dumps(line, default=str))


def _route_of(scope: Scope) -> str:
    """Return the path of the route, so that nothing that a caller wrote into the URL is kept."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else scope["path"] if scope["path"] in OPEN else "other"
