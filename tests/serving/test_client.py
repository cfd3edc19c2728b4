"""The client against a real HTTP server that misbehaves on purpose."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from glioflow.api import client as module
from glioflow.api.client import Client
from glioflow.errors import RunFailed, UserError


@pytest.fixture
def endpoint(monkeypatch):
    """Start a server that gives the answers put into `replies` one after the other, and remembers what it was sent."""
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)
    heard, replies, retry_after = [], [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.path, dict(self.headers), body))
            status, content = replies.pop(0)
            self.send_response(status)
            if retry_after:
                self.send_header("Retry-After", retry_after.pop(0))
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        def do_GET(self):
            self.headers["Content-Length"] = "0"
            self.do_POST()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url, server.heard, server.replies = f"http://127.0.0.1:{server.server_port}/", heard, replies
    server.retry_after = retry_after
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def study(tmp_path):
    for name in ("a_1.tif", "a_2.tif"):
        (tmp_path / name).write_bytes(name.encode())
    return sorted(tmp_path.glob("*.tif"))


ERROR = {"error": {"rule": "a rule", "value": "a value", "choices": ["x"]}}


def test_a_token_of_any_letters_is_sent_as_its_bytes(endpoint, study):
    endpoint.replies.append((200, {"tumor": {}}))
    Client(endpoint.url, token=" Σεσάμ ").predict(study, mask="none")
    assert endpoint.heard[0][1]["Authorization"].encode("latin-1").decode() == "Bearer Σεσάμ"


def test_a_study_is_sent_whole_with_its_clinical_values_and_token(endpoint, study):
    endpoint.replies.append((200, {"tumor": {}}))
    assert Client(endpoint.url, token="secret").predict(study, clinical={"age_years": 45}, mask="none") == {"tumor": {}}
    path, headers, body = endpoint.heard[0]
    assert path == "/v1/predict?mask=none"
    assert headers["Authorization"] == "Bearer secret"
    assert all(
        text in body for text in (b"a_1.tif", b"a_2.tif", b'{"age_years": 45}', b'name="files"', b'name="clinical"')
    )


def test_every_series_of_a_dicom_study_and_the_choice_among_them_are_sent(endpoint, tmp_path):
    from data.dicom_series import write_series
    from glioflow.api.model import ServedModel
    from glioflow.data.formats.study import read_study

    for number, text in enumerate(("AX T1", "AX T1 POST", "AX FLAIR", "AX T2", "COR T2"), start=1):
        write_series(tmp_path / str(number), np.full((3, 4, 5), number, np.uint16), description=text, number=number)
    case = read_study([tmp_path], channels={"t2": "COR T2"})
    endpoint.replies += [(200, {"input": {"channels": ["t2"]}}), (200, {})]
    with pytest.raises(KeyError):  # this endpoint's answer has no mask
        ServedModel(Client(endpoint.url)).predict(case)
    body = endpoint.heard[-1][2]
    assert body.count(b'name="files"') == 4 * 3
    assert [text in body for text in (b"AX T1", b"AX T1 POST", b"AX FLAIR", b"AX T2", b"COR T2")] == [True] * 3 + [
        False,
        True,
    ]
    assert b'name="channel"\r\n\r\nt2=COR T2' in body


def test_overload_is_tried_again_with_the_whole_study(endpoint, study):
    endpoint.replies += [(503, ERROR), (503, b"busy"), (200, {"ok": 1})]
    assert Client(endpoint.url).predict(study) == {"ok": 1}
    assert len({len(body) for _, _, body in endpoint.heard}) == 1
    assert len(endpoint.heard) == 3


def test_an_endpoint_says_how_long_to_wait(endpoint, study, monkeypatch):
    waited = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waited.append)
    endpoint.replies += [(503, ERROR), (503, ERROR), (200, {"ok": 1})]
    endpoint.retry_after += ["3", "Sat, 21 Nov 2026 07:00:00 GMT"]
    assert Client(endpoint.url).predict(study) == {"ok": 1}
    assert waited == [3, 0.02]  # a date in the past says nothing


def test_an_endpoint_may_not_ask_for_an_endless_wait(endpoint, study, monkeypatch):
    waited = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waited.append)
    endpoint.replies += [(503, ERROR), (200, {"ok": 1})]
    endpoint.retry_after.append("86400")
    assert Client(endpoint.url).predict(study) == {"ok": 1}
    assert waited == [module._MAX_WAIT_S]


def test_lasting_overload_is_a_failed_run(endpoint, study):
    endpoint.replies += [(503, ERROR)] * 9
    with pytest.raises(RunFailed, match="does not answer \\(overloaded\\)"):
        Client(endpoint.url).predict(study)
    assert len(endpoint.heard) == 5


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_refusal_is_the_users_mistake_in_the_endpoints_words_and_not_tried_again(endpoint, study, status):
    endpoint.replies.append((status, ERROR))
    with pytest.raises(UserError, match="a rule; got a value; choose x"):
        Client(endpoint.url).predict(study)
    assert len(endpoint.heard) == 1


@pytest.mark.parametrize("reply", [(500, ERROR), (500, b"oops"), (422, b"oops"), (404, {"detail": "x"})], ids=str)
def test_what_is_not_our_refusal_is_a_failed_run(endpoint, study, reply):
    endpoint.replies.append(reply)
    with pytest.raises(RunFailed):
        Client(endpoint.url).predict(study)


def test_an_answer_that_is_no_json_is_no_traceback(endpoint, study):
    endpoint.replies.append((200, b"<html>"))
    with pytest.raises(UserError, match="the http:// URL of a GlioFlow endpoint"):
        Client(endpoint.url).predict(study)


def test_the_card_is_asked_for_at_its_route(endpoint):
    endpoint.replies.append((200, {"model": {"name": "glioma"}}))
    assert Client(endpoint.url).model() == {"model": {"name": "glioma"}}
    assert endpoint.heard[0][0] == "/v1/model"


def test_nobody_there_is_a_failed_run_and_an_impossible_address_a_mistake(study, monkeypatch):
    monkeypatch.setattr(module, "_BACKOFF_S", 0.01)
    with pytest.raises(RunFailed, match="does not answer \\(ConnectionError\\)"):
        Client("http://127.0.0.1:9").predict(study)
    with pytest.raises(UserError, match="the http:// URL of a GlioFlow endpoint"):
        Client("http://").predict(study)


def test_what_ended_a_gateway_is_sent_once_more_and_no_oftener(endpoint, study):
    endpoint.replies.extend([(502, {}), (200, {"tumor": {}})])
    assert Client(endpoint.url).predict(study) == {"tumor": {}}
    endpoint.replies.extend([(502, {}), (503, {}), (502, {}), (200, {})])
    with pytest.raises(RunFailed):
        Client(endpoint.url).predict(study)
    assert endpoint.replies == [(200, {})]
