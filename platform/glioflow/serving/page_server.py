"""The server of `glioflow page`: the page on its own port, which forwards requests to an endpoint with its token.

The token gives everyone who reaches the page access to the endpoint. Sending feedback requires the sender's own token.
"""

import asyncio
import re
import tempfile
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from glioflow.cluster.environment import own_names
from glioflow.errors import UserError, option
from glioflow.page.files import HEADERS, add_page
from glioflow.serving.http.request_guard import OVERHEAD, answer_error, error_body, knows_host
from glioflow.serving.ports import check_port
from glioflow.serving.settings import Limits, bearer, own_token

DEFAULT_ENDPOINT = "http://127.0.0.1:8000"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PASSED_ON = ("content-type", "accept", "authorization", "x-request-id")
_PASSED_BACK = ("content-type", "content-disposition", "retry-after", "x-request-id")
# Forwarded routes; a path with dots could reach another route, which must not get the page's token.
_ROUTE = re.compile(r"[\w-]+(/[\w-]+)*", re.ASCII)
_BLOCK = 1 << 20
_CONNECT_S, _ANSWER_S = 5, 300


def make_page(endpoint: str, *, hosts: tuple[str, ...] | None = None) -> FastAPI:
    """Return the application: the page, and the endpoint's `/v1/`.

    Args:
        endpoint: URL of the endpoint.
        hosts: Allowed host names of the page; None allows every name. See `ServeSettings.hosts`.
    """
    app = FastAPI(title="GlioFlow page", docs_url=None, redoc_url=None, openapi_url=None)
    add_page(app)

    @app.get("/")
    async def enter() -> Response:
        return RedirectResponse("page/", headers=HEADERS)

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok"

    @app.api_route("/v1/{route:path}", methods=["GET", "POST"])
    async def pass_on(request: Request, route: str) -> Response:
        if not _ROUTE.fullmatch(route):
            return JSONResponse(error_body("no such route", route[:80]), 404)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        token = own_token()
        if token and "authorization" not in headers and route != "feedback":
            headers["authorization"] = bearer(token)
        query = f"?{request.url.query}" if request.url.query else ""
        with tempfile.SpooledTemporaryFile(max_size=_BLOCK, prefix="glioflow-page-") as body:
            async for block in request.stream():
                if body.tell() + len(block) > Limits().upload_bytes + OVERHEAD:
                    return JSONResponse(error_body("the files of a study are too large for this page"), 413)
                await asyncio.to_thread(body.write, block)
            url = f"{endpoint.rstrip('/')}/v1/{route}{query}"
            return await asyncio.to_thread(_ask, request.method, url, headers, body)

    app.add_middleware(_SameSite, hosts=hosts)
    return app


class _SameSite:
    """ASGI middleware that refuses requests from foreign pages in a user's browser."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
            if not knows_host(headers.get("host", ""), self.hosts):
                rule = "this page does not answer to this host name"
                return await answer_error(send, 421, f"{rule}; start it with --allow-host NAME", None)
            if headers.get("sec-fetch-site") == "cross-site" and scope["path"].startswith("/v1/"):
                return await answer_error(send, 403, "only the page itself may ask through this address", None)
        await self.app(scope, receive, send)


def _ask(method: str, url: str, headers: dict[str, str], body: IO[bytes]) -> Response:
    """Send a request to the endpoint and return its answer, or an error about the connection."""
    import requests

    size = body.tell()
    body.seek(0)
    session = requests.Session()
    session.trust_env = urlsplit(url).hostname not in own_names()
    try:
        content = body if size > _BLOCK else body.read() or None
        answer = session.request(
            method, url, headers=headers, data=content, stream=True, timeout=(_CONNECT_S, _ANSWER_S),
            allow_redirects=False,
        )  # fmt: skip
    except requests.ReadTimeout:
        return JSONResponse(error_body("the endpoint is busy: no answer came in time"), 503)
    except requests.RequestException as error:
        address = url.partition("/v1/")[0]
        detail: dict[str, Any] = {**error_body(f"the endpoint at {address} does not answer")["error"], "code": "away"}
        return JSONResponse({"error": {**detail, "value": type(error).__name__}}, 502)
    back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    return StreamingResponse(answer.iter_content(_BLOCK), answer.status_code, headers=back)


def page_forever(
    *, host: str, port: int, endpoint: str, say: Callable[[str], None], allowed: tuple[str, ...] = ()
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        endpoint: URL of the endpoint it asks.
        say: Called with the page's address.
        allowed: Further allowed host names.

    Raises:
        UserError: If the port is taken, or `endpoint` is not a URL.
    """
    import uvicorn

    if not _is_url(endpoint):
        hint = f"give one such as {DEFAULT_ENDPOINT}"
        raise UserError(f"{option('endpoint')} must be a URL of `glioflow serve`", endpoint, hint=hint)
    check_port(host, port)
    hosts = allowed if allowed or host in _LOOPBACK else None
    say(f"page at http://{host}:{port}, asking {endpoint}; Ctrl-C ends it")
    uvicorn.run(make_page(endpoint, hosts=hosts), host=host, port=port, log_level="warning", access_log=False)


def _is_url(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, or an unclosed bracket
        return False
