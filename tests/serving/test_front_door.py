"""What a request passes in Serve's proxy: slow and large bodies hold nobody up, and no caller lifts a limit."""

import asyncio
import json
import re

import pytest

from glioflow.serving.http.front_door import LIMITS, FrontDoor, _is_harmless, middlewares
from glioflow.serving.http.request_guard import answer_error
from glioflow.serving.settings import Limits


class Behind:
    """What stands behind the door: notes what it was asked and answers 200; knows its routes as Serve's proxy does."""

    def __init__(self, routes=None, status=200):
        self.headers, self.body, self.asked = {}, b"", 0
        self.routes, self.status = routes or {"/": "glioflow"}, status

    async def __call__(self, scope, receive, send):
        if scope["path"] == "/-/routes":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": json.dumps(self.routes).encode()})
        self.asked += 1
        self.headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def ask(door, parts=(), *, headers=(), method="POST", path="/v1/predict"):
    """Send a body in parts, the last of which never comes if it is None; return the status."""
    answers, left = [], list(parts)

    async def receive():
        if not left:
            return {"type": "http.request", "body": b"", "more_body": False}
        part = left.pop(0)
        if part is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": method, "path": path}
    scope["headers"] = [(key.encode(), value.encode()) for key, value in headers]
    asyncio.run(asyncio.wait_for(door(scope, receive, send), 20))
    return answers[0]["status"]


@pytest.fixture
def behind():
    return Behind()


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_a_body_comes_through_whole(behind, size):
    body = bytes(range(256)) * (size // 256 + 1)
    parts = [body[k : k + 70_000] for k in range(0, len(body), 70_000)]
    assert ask(FrontDoor(behind, Limits()), parts, headers=[("content-length", str(len(body)))]) == 200
    assert behind.body == body


def test_headers_that_lift_limits_or_name_somebody_are_taken_off(behind):
    sent = [
        ("X-Request-Timeout-Seconds", "99999"),
        ("x-request-disconnect-disabled", "?1"),
        ("X-Request-ID", "John Doe 1950"),
        *((name, "John Doe 1950") for name in ("serve_multiplexed_model_id", "Serve-Multiplexed-Model-Id")),
        *((name, "John Doe 1950") for name in ("X-Session-ID", "x_session_id")),
        ("accept", "*/*"),
    ]
    for method in ("GET", "POST"):
        assert ask(FrontDoor(behind, Limits()), headers=sent, method=method) == 200
        assert behind.headers == {"accept": "*/*"}
    ask(FrontDoor(behind, Limits()), headers=[("x-request-id", "0123-abcd-4567")])
    assert behind.headers == {"x-request-id": "0123-abcd-4567"}


def test_every_header_that_serve_takes_from_a_caller_is_known():
    from ray.serve._private import constants, http_util, proxy

    read = {
        constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
        constants.SERVE_MULTIPLEXED_MODEL_ID,
        constants.SERVE_SESSION_ID,
    }
    assert not any(_is_harmless(name.encode(), b"John Doe") for name in (*read, constants.SERVE_HTTP_REQUEST_ID_HEADER))
    names = {name for name in vars(constants) if re.search("SERVE_.*(HEADER|MODEL_ID|SESSION_ID)$", name)}
    used = {name for name in names for module in (http_util, proxy) if name in vars(module)}
    assert {getattr(constants, name) for name in used} == {*read, constants.SERVE_HTTP_REQUEST_ID_HEADER}


def test_a_body_that_does_not_arrive_in_time_takes_no_place_behind_the_door(behind):
    door = FrontDoor(behind, Limits(body_s=0.05))
    assert ask(door, [b"x", None]) == 408
    assert (behind.asked, door.pending) == (0, 0)


def test_a_body_that_comes_too_slowly_is_refused(behind, monkeypatch):
    monkeypatch.setattr("glioflow.serving.http.front_door._GRACE_S", 0.05)
    assert ask(FrontDoor(behind, Limits(least_bytes_per_s=10**6)), [b"x" * 1000, None]) == 408
    assert ask(FrontDoor(behind, Limits(least_bytes_per_s=10**6)), [b"x" * 1000]) == 200


@pytest.mark.parametrize("headers", [[("content-length", "3000000")], [("content-length", "5")], []])
def test_a_body_over_the_limit_is_413_whatever_its_header_says(behind, headers):
    door = FrontDoor(behind, Limits(upload_bytes=1000))
    assert ask(door, [b"x" * 100_000] * 30, headers=headers) == 413
    assert behind.asked == 0


def test_more_bytes_at_once_than_the_proxy_takes_are_503(behind):
    door = FrontDoor(behind, Limits(pending_bytes=1000))
    assert ask(door, [b"x" * 900], headers=[("content-length", "900")]) == 200
    door.pending = 500
    assert ask(door, [b"x" * 900], headers=[("content-length", "900")]) == 503
    assert door.pending == 500


def test_bodies_that_do_not_state_their_length_count_among_the_bytes_at_once(behind):
    door = FrontDoor(behind, Limits(pending_bytes=1000))
    counted = []

    class Watching(Behind):
        async def __call__(self, scope, receive, send):
            counted.append(door.pending)
            await super().__call__(scope, receive, send)

    door.app = Watching()
    assert ask(door, [b"x" * 300, b"x" * 300]) == 200
    assert (counted[-1], door.pending) == (600, 0)
    door.pending = 500
    assert ask(door, [b"x" * 300, b"x" * 300]) == 503
    assert door.pending == 500


def test_large_bodies_wait_on_disk_until_serve_has_room_for_them_and_small_ones_do_not_wait():
    inside, most, done, small = 0, 0, 0, asyncio.Event()

    async def slow(scope, receive, send):
        nonlocal inside, most, done
        if scope["path"] == "/-/routes":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": b"{}"})
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        if size < 1000:
            small.set()
        else:
            inside += 1
            most = max(most, inside)
            await small.wait()  # nothing large ends before what is small came through
            inside -= 1
        done += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def all_at_once():
        door = FrontDoor(slow, Limits(passed_bytes=5_000_000))

        async def post(size):
            parts = [b"x" * size]

            async def receive():
                return {"type": "http.request", "body": parts.pop(), "more_body": False}

            async def send(_):
                pass

            await door({"type": "http", "method": "POST", "path": "/v1/predict", "headers": []}, receive, send)

        large = [asyncio.create_task(post(2_000_000)) for _ in range(7)]
        while inside < 2:
            await asyncio.sleep(0.01)
        await post(10)
        await asyncio.gather(*large, post(9_000_000))

    asyncio.run(asyncio.wait_for(all_at_once(), 20))
    assert (most, done) == (2, 9)


OTHERS = {"/": "glioflow", "/chat": "somebody", "/chat/scans": "glioflow"}


@pytest.mark.parametrize(
    ("path", "ours"),
    [("/v1/predict", True), ("/chats", True), ("/chat/scans/1", True), ("/chat", False), ("/chat/a", False)],
)
def test_requests_and_answers_of_other_applications_pass_untouched(path, ours):
    others = Behind(OTHERS, status=503)
    sent = [("x-request-timeout-seconds", "99999")]
    assert ask(FrontDoor(others, Limits()), headers=sent, method="GET", path=path) == (502 if ours else 503)
    assert others.headers == ({} if ours else dict(sent))
    large = FrontDoor(Behind(OTHERS), Limits(upload_bytes=1000))
    assert ask(large, [b"x" * 100_000] * 30, path=path) == (413 if ours else 200)


def test_what_serves_proxy_says_of_itself_passes_untouched():
    assert ask(FrontDoor(Behind(status=503), Limits()), method="GET", path="/-/healthz") == 503


def test_an_application_alone_under_another_name_is_ours():
    assert ask(FrontDoor(Behind({"/": "tumors"}, status=503), Limits()), method="GET") == 502


def test_a_full_disk_is_no_fault_of_the_caller(behind, monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr("glioflow.serving.http.front_door.tempfile.TemporaryFile", lambda **_: Full())
    door = FrontDoor(behind, Limits())
    assert ask(door, [b"x" * 2_000_000]) == 503
    assert door.pending == 0
    assert ask(door, [b"x"]) == 200, "what is small needs no disk"


def test_a_slow_disk_holds_no_other_request_up(behind, monkeypatch):
    """Files are written and read by threads: the proxy's one loop goes on, with probes among others."""
    import tempfile
    import threading

    make, loop_thread, seen = tempfile.TemporaryFile, threading.get_ident(), set()

    class Watched:
        def __init__(self, **options):
            self.file = make(**options)

        def __getattr__(self, name):
            if name in ("write", "read", "seek"):
                seen.add(threading.get_ident())
            return getattr(self.file, name)

    monkeypatch.setattr("glioflow.serving.http.front_door.tempfile.TemporaryFile", Watched)
    assert ask(FrontDoor(behind, Limits()), [b"x" * 700_000] * 5) == 200
    assert behind.body == b"x" * 3_500_000
    assert seen
    assert loop_thread not in seen


def test_serve_gets_the_limits_of_the_settings(monkeypatch):
    monkeypatch.setenv(LIMITS, Limits(upload_bytes=77).model_dump_json())
    (given,) = middlewares()
    assert given.kwargs["limits"].upload_bytes == 77
    monkeypatch.delenv(LIMITS)
    assert middlewares()[0].kwargs["limits"] == Limits()


def test_a_gateway_that_was_lost_is_told_in_json():
    async def lost(scope, receive, send):
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Internal Server Error"})

    async def ours(scope, receive, send):
        await answer_error(send, 500, "a rule", None)

    def answer_of(app):
        answers = []

        async def send(message):
            answers.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        asyncio.run(FrontDoor(app, Limits())(scope, None, send))
        return answers[0]["status"], json.loads(b"".join(each.get("body", b"") for each in answers[1:]))["error"][
            "rule"
        ]

    assert answer_of(lost) == (502, "the endpoint lost this request; try again")
    assert answer_of(ours) == (500, "a rule")


def test_serves_own_proxy_puts_the_door_before_everything():
    """What Serve's proxy does when it starts and for each request, with its own functions and without a cluster."""
    import os
    import subprocess
    import sys

    from glioflow import cluster

    script = """
import asyncio
from ray.serve._private.http_util import _apply_middlewares, configure_http_middlewares
from ray.serve.config import HTTPOptions

seen = {}

async def proxy(scope, receive, send):
    seen.update({key.decode(): value.decode() for key, value in scope["headers"]})
    message = await receive()
    seen["body"] = message["body"].decode()
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Internal Server Error"})

async def receive():
    return {"type": "http.request", "body": b"a study", "more_body": False}

answers = []
async def send(message):
    answers.append(message)

app = _apply_middlewares(proxy, configure_http_middlewares(HTTPOptions()).middlewares)
sent = [(b"x-request-timeout-seconds", b"9"), (b"x-request-id", b"John Doe"), (b"accept", b"*/*")]
asyncio.run(app({"type": "http", "method": "POST", "path": "/", "headers": sent}, receive, send))
assert seen["body"] == "a study" and seen["accept"] == "*/*"
assert "x-request-timeout-seconds" not in seen and "John" not in seen["x-request-id"], seen
assert answers[0]["status"] == 502, answers
"""
    environment = {**os.environ, **cluster.DEFAULTS}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
