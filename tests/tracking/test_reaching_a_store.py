"""Whether a store answers: with its database, through its own certificate authority, and all pages of it."""

import contextlib
import datetime
import http.server
import shutil
import socket
import sqlite3
import ssl
import threading

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from glioflow.errors import UserError
from glioflow.tracking import Tracking, addresses
from glioflow.tracking import runs as module
from glioflow.tracking.addresses import answers, check_address
from glioflow.tracking.outage import StoreAway, outlasting
from glioflow.tracking.runs import Runs


class Answering(http.server.BaseHTTPRequestHandler):
    status, text = 200, "{}"

    def do_GET(self):
        self.send_response(200 if self.path == "/health" else self.status)
        self.send_header("Content-Length", str(len(self.text)))
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """Give a server on loopback that answers with `Answering.status`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    yield server
    server.shutdown()
    server.server_close()


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"{server.server_port}"


@pytest.mark.parametrize(("status", "there"), [(200, True), (401, True), (404, True), (500, False), (503, False)])
def test_a_healthy_server_whose_database_is_away_does_not_answer(server, monkeypatch, status, there):
    monkeypatch.setattr(Answering, "status", status)
    uri = f"http://127.0.0.1:{serve(server)}"
    assert answers(uri, patience_s=0) is there
    if not there:
        with pytest.raises(UserError, match=f"it answers with {status}; its database may be away"):
            check_address(uri, patience_s=0)


PAGE = "<!DOCTYPE html><html><body>Welcome</body></html>"


@pytest.mark.parametrize(
    ("status", "text", "told"),
    [
        (200, PAGE, "must name an MLflow server; got .* answers with 200 and a web page; give the address"),
        (200, "[1]", "must name an MLflow server; got .* answers with 200 and \\[1\\]; "),
        (404, PAGE, "must name an MLflow server; got .* answers with 404 and a web page; "),
        (401, PAGE, "accepts the login; .* 401 and a web page; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS"),
        (403, "Invalid Host header", "accepts the login; .* 403 and Invalid Host header; set MLFLOW_TRACKING_USERNAME"),
        (429, "", "must name a reachable store; .*: it answers with 429, since it gets too many requests"),
    ],
)
def test_what_answers_as_no_mlflow_does_or_refuses_the_login_is_told_at_once(server, monkeypatch, status, text, told):
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "text", text)
    uri = f"http://me:hush@127.0.0.1:{serve(server)}"
    with pytest.raises(UserError, match=told) as caught:
        Runs(uri)
    assert "hush" not in str(caught.value)


def out_of_date(path):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffff12345678'")


def rotten(path):
    content = bytearray(path.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(out_of_date, "schema .found version ffff12345678.*install the version of MLflow"), (rotten, "from a copy")],
)
@pytest.mark.usefixtures("tracking")
def test_a_database_that_mlflow_cannot_read_is_one_line(home, tmp_path, spoil, told):
    spoiled = tmp_path / "spoiled.db"  # MLflow keeps what it opened, by address
    spoil(shutil.copyfile(home / "mlflow.db", spoiled))
    with pytest.raises(UserError, match=f"must name a store that MLflow can read; got sqlite:///.*{told}"):
        Runs(f"sqlite:///{spoiled}")


def test_a_database_that_cannot_be_written_is_read_and_gets_no_new_run_or_version(tracking, home, monkeypatch):
    monkeypatch.setattr(addresses.os, "access", lambda path, *_: path != home / "mlflow.db")  # root may write anywhere
    assert Tracking().every_run() == []
    for write in (
        lambda: tracking.start("some", "run", tags={}),
        lambda: tracking.register("glioma", "f" * 32, home, tags={}),
        lambda: tracking.set_alias("glioma", "champion", 1),
    ):
        with pytest.raises(UserError, match=r"must be writable for a new run or version; got .*mlflow\.db"):
            write()


def test_a_database_that_takes_the_connection_and_says_nothing_is_waited_for_once():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        with pytest.raises(UserError, match="connection timeout expired"):
            check_address(f"postgresql+psycopg://127.0.0.1:{mute.getsockname()[1]}/db", patience_s=0)
        mute.setblocking(False)
        for _ in ("is anybody there", "the driver"):
            mute.accept()
        with pytest.raises(BlockingIOError):
            mute.accept()


def test_a_call_outlasts_a_store_that_is_away_and_its_own_mistakes_are_told(server, monkeypatch):
    monkeypatch.setattr(Answering, "status", 503)
    uri = f"http://127.0.0.1:{serve(server)}"
    threading.Timer(2, lambda: monkeypatch.setattr(Answering, "status", 200)).start()
    assert outlasting(uri, lambda: requests.get(f"{uri}/x", timeout=5).raise_for_status(), patience_s=60) is None
    with pytest.raises(ZeroDivisionError):
        outlasting(uri, lambda: 1 / 0, patience_s=60)
    monkeypatch.setattr(Answering, "status", 503)
    with pytest.raises(StoreAway, match="is away"):
        outlasting(uri, lambda: 1 / 0, patience_s=0)


@pytest.fixture
def certificate(tmp_path):
    """Write a key and a certificate for `localhost` that it signed itself; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_server_of_a_private_certificate_authority_is_reached_as_mlflow_reaches_it(server, certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    uri = f"https://localhost:{serve(server)}"
    with pytest.raises(UserError, match="not trusted; name its authority's file in MLFLOW_TRACKING_SERVER_CERT_PATH"):
        check_address(uri, patience_s=0)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    assert answers(uri, patience_s=0)


def test_more_runs_experiments_and_versions_than_a_page_holds_are_all_there(tracking, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    parent = tracking.start("many", "search", tags={"kind": "search"})
    children = [tracking.start("many", f"trial {k}", tags={"kind": "trial"}, parent=parent) for k in range(5)]
    others = [tracking.start(f"other {k}", "run", tags={}) for k in range(5)]
    assert {run.info.run_id for run in tracking.children("many", parent)} == {*children}
    assert {run.info.run_id for run in tracking.find_all("many", kind="trial")} == {*children}
    assert {run.info.run_id for run in tracking.every_run()} == {parent, *children, *others}
    assert tracking.find("many", kind="trial").info.run_id == children[-1]
    for k in range(5):
        tracking.client.create_registered_model(f"model-{k}")
        tracking.client.create_model_version(f"model-{k}", "s", parent, tags={"glioflow.bundle": "d"})
    assert tracking.names() == [f"model-{k}" for k in range(5)]


def test_an_address_is_printed_without_its_password(tracking):
    tracking.uri = "postgresql://me:hush@db/mlflow"
    with pytest.raises(UserError) as caught:
        tracking.run("0" * 32)
    assert "postgresql://db/mlflow" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_store_that_another_process_has_locked_is_named_at_once(tmp_path):
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE held (x)")
        holder.execute("BEGIN EXCLUSIVE")
        rule = "reachable store.*another process has locked it; end the process that holds it, or wait for it"
        with pytest.raises(UserError, match=rule):
            check_address(f"sqlite:///{path}", patience_s=0)
    check_address(f"sqlite:///{path}", patience_s=0)
