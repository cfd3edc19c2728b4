"""What workers get of the driver's environment, and that nothing secret of it stands where others read."""

import os
import stat
import subprocess
import sys

import pytest

from glioflow.cluster import secrets, silence
from glioflow.cluster.environment import SECRETS_FILE, worker_environment
from glioflow.errors import UserError

SECRET = {
    "MLFLOW_TRACKING_PASSWORD": "hush-1",
    "MLFLOW_TRACKING_TOKEN": "hush-2",
    "AWS_SECRET_ACCESS_KEY": "hush-3",
    "AWS_SESSION_TOKEN": "hush-4",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "hush-8",
    "MLFLOW_CRYPTO_KEK_PASSPHRASE": "hush-9",
    "MLFLOW_S3_UPLOAD_EXTRA_ARGS": '{"SSECustomerKey": "hush-10"}',
    "MLFLOW_TRACKING_URI": "postgresql+psycopg://me:hush-5@db/mlflow",
    "HTTPS_PROXY": "http://me:hush-6@proxy:3128",
}
PUBLIC = {
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "/certificates/ca.pem",
    "REQUESTS_CA_BUNDLE": "/certificates/ca.pem",
    "AWS_CA_BUNDLE": "/certificates/ca.pem",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ENDPOINT_URL": "https://s3.hospital.example",
    "MLFLOW_S3_ENDPOINT_URL": "https://s3.hospital.example",
    "MLFLOW_S3_IGNORE_TLS": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "600",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "AWS_MAX_ATTEMPTS": "9",
}


@pytest.fixture
def driver(monkeypatch):
    """Give this process the environment of a driver."""
    for name, value in (SECRET | PUBLIC).items():
        monkeypatch.setenv(name, value)


def test_workers_reach_a_store_as_their_driver_does(driver, monkeypatch):
    variables = {**worker_environment(), **secrets.hand_over()}
    for name in SECRET | PUBLIC:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    silence()
    assert {name: os.environ[name] for name in SECRET | PUBLIC} == SECRET | PUBLIC


def test_what_is_secret_lies_in_one_file_that_its_user_alone_reads(driver, home):
    variables = {**worker_environment(), **secrets.hand_over()}
    assert "hush" not in str(variables)
    assert secrets.hand_over() == {SECRETS_FILE: variables[SECRETS_FILE]}, "each driver leaves a file behind"
    (file,) = (home / "secrets").rglob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_renewed_secret_replaces_the_one_before(driver, home, monkeypatch):
    before = secrets.hand_over()
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush-7")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIA2")
    assert secrets.hand_over() == before
    (file,) = (home / "secrets").rglob("*.json")
    assert "hush-7" in file.read_text()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://another.example")
    assert secrets.hand_over() != before, "another store's secrets are others"


def test_a_secret_in_a_file_is_left_to_the_nodes(home, monkeypatch):
    for name in SECRET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD_FILE", "/run/secrets/mlflow")
    assert secrets.hand_over() == {}
    assert "MLFLOW_TRACKING_PASSWORD_FILE" not in worker_environment()


def test_without_secrets_there_is_no_file(home, monkeypatch):
    for name in SECRET:
        monkeypatch.delenv(name, raising=False)
    assert secrets.hand_over() == {}
    assert not home.exists()


@pytest.mark.ray
def test_no_secret_stands_in_rays_logs(home):
    script = """
import os
from pathlib import Path
from glioflow import cluster
cluster.connect(num_cpus=1)
import ray
assert list(cluster.map_parallel(lambda name: os.environ.get(name), ["AWS_SESSION_TOKEN"])) == ["hush-4"]
logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
texts = {path: path.read_text(errors="replace") for path in logs.rglob("*") if path.is_file()}
assert any("eu-central-1" in text for text in texts.values()), "Ray logs no variables any more"
assert not [path for path, text in texts.items() if "hush-" in text]
cluster.disconnect()
"""
    environment = {**os.environ, **SECRET, **PUBLIC}
    for name in ("HTTPS_PROXY", "MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        del environment[name]
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)


def test_each_user_of_a_shared_home_has_a_folder(driver, home, monkeypatch):
    secrets.hand_over()
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    secrets.hand_over()
    files = list((home / "secrets").rglob("*.json"))
    assert len({file.parent for file in files}) == 2
    assert {stat.S_IMODE(file.parent.stat().st_mode) for file in files} == {0o700}
    assert stat.S_IMODE((home / "secrets").stat().st_mode) & 0o055 == 0o055, "the way to it is open to all"


def test_a_home_that_cannot_take_what_is_secret_is_one_line(driver, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", "/dev/null/home")
    with pytest.raises(UserError, match="'secrets' in GLIOFLOW_HOME must name a folder, not a file; got /dev/null"):
        secrets.hand_over()
