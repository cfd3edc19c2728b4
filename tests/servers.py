"""Real servers of other people for tests, on loopback: PostgreSQL, an S3, the tracking server."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL of our own on loopback and give the URI of an empty database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (make system-packages)")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="glioflow-postgres-", ignore_cleanup_errors=True) as folder:
        as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses root
            as_user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, *(pwd.getpwnam("postgres").pw_name,) * 2)
        data = f"{folder}/data"
        bin_ = found[-1].parent
        subprocess.run([*as_user, bin_ / "initdb", "-D", data, "-A", "trust", "-U", "mlflow"], check=True, cwd=folder)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        control = [*as_user, bin_ / "pg_ctl", "-D", data, "-l", f"{folder}/log", "-w"]
        subprocess.run([*control, "-o", options, "start"], check=True, cwd=folder)
        try:
            yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "fast", "stop"], check=True, cwd=folder)


@contextmanager
def reached_bucket(name: str) -> Iterator[str]:
    """Start an S3 on loopback that this process's clients reach, and give the URI of an empty bucket."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer

    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket=name)
        # Or this server would be asked for at the address of the one before.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield f"s3://{name}"
    s3.stop()


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """Start an S3 on loopback and give what a server needs to use a bucket of it."""
    import boto3
    from moto.server import ThreadedMotoServer

    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    url, keys = f"http://{host}:{port}", {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="mlflow")
    try:
        yield {**keys, "MLFLOW_S3_ENDPOINT_URL": url, "MLFLOW_ARTIFACTS": "s3://mlflow/here"}
        assert client.list_objects_v2(Bucket="mlflow")["KeyCount"] > 0
    finally:
        s3.stop()


@contextmanager
def mlflow_server(home: Path, settings: dict[str, str], *, port: int | None = None) -> Iterator[str]:
    """Start the tracking server by its own script and give its address."""
    port = port or free_port()
    program = str(Path(sys.executable).parent / "mlflow")
    env = {**os.environ, "MLFLOW_HOME": str(home), "MLFLOW_PORT": str(port), "MLFLOW_BIN": program, **settings}
    process = subprocess.Popen([str(ROOT / "mlflow" / "start.sh")], env=env, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if requests.get(f"{url}/health", timeout=2).ok:
                    break
            except requests.RequestException:
                pass
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@contextmanager
def counting_calls(server: str, away: threading.Event | None = None) -> Iterator[tuple[str, list[str]]]:
    """Forward calls to a server and give the address that does so and the calls, as `METHOD /path`.

    While `away` is set, all but `/health` is answered as by a server whose database is away.
    """
    calls: list[str] = []

    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            calls.append(f"{self.command} {self.path.partition('?')[0]}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            kept = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "transfer-encoding")}
            if away is not None and away.is_set() and self.path != "/health":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            answer = requests.request(self.command, server + self.path, data=body, headers=kept, timeout=60)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *words: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Forward, f"do_{method}", Forward.forward)
    forwarder = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    thread = threading.Thread(target=forwarder.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{forwarder.server_port}", calls
    finally:
        forwarder.shutdown()
        forwarder.server_close()
        thread.join()
