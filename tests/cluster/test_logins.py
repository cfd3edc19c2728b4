"""Addresses are printed without names and passwords, and one with a password is secret, however it is written."""

import pytest

from glioflow.cluster.environment import worker_environment
from glioflow.cluster.logins import has_password, without_password

WITH_PASSWORD = {
    "postgresql://me:hush@db/mlflow": "postgresql://db/mlflow",
    "postgresql://me:hu/sh?@db/mlflow": "postgresql://db/mlflow",  # SQLAlchemy takes both
    "postgresql://me:hu@sh@db/mlflow": "postgresql://db/mlflow",
    "postgresql://db/mlflow?user=me&password=hush": "postgresql://db/mlflow?user=me&password=",
    "postgresql://db/mlflow?sslpassword=hush&sslmode=require": "postgresql://db/mlflow?sslpassword=&sslmode=require",
    "http://me:hush@server:5000": "http://server:5000",
    "HTTPS://me:hush@server/mlflow": "HTTPS://server/mlflow",
    "me:hush@proxy:3128": "proxy:3128",
    "https://account.blob.core.windows.net/c?sv=2024&sig=hush%3D": "https://account.blob.core.windows.net/c?sv=2024&sig=",
    "https://b.s3.aws/w?X-Amz-Signature=hush&X-Amz-Expires=9": "https://b.s3.aws/w?X-Amz-Signature=&X-Amz-Expires=9",
    "https://mirror/weights?access_token=hush#part": "https://mirror/weights?access_token=#part",
}
WITHOUT = {
    "postgresql://me@db/mlflow": "postgresql://db/mlflow",
    "http://server:5000/a@b": "http://server:5000/a@b",
    "s3://bucket/a@b": "s3://bucket/a@b",
    "sqlite:////home/me:x@y/mlflow.db": "sqlite:////home/me:x@y/mlflow.db",
    'FATAL: no user "x@y"': 'FATAL: no user "x@y"',
    "https://mirror/weights?signed=no&design=2": "https://mirror/weights?signed=no&design=2",
    "/shared/glioflow": "/shared/glioflow",
    "": "",
}


@pytest.mark.parametrize(("address", "shown"), (WITH_PASSWORD | WITHOUT).items())
def test_an_address_is_shown_without_name_and_password(address, shown):
    assert without_password(address) == shown
    assert without_password(f"could not reach {address}") == f"could not reach {shown}" or "://" not in address


@pytest.mark.parametrize("address", WITH_PASSWORD)
def test_no_address_with_a_password_is_among_the_variables_that_ray_logs(address, monkeypatch):
    assert has_password(address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert "MLFLOW_TRACKING_URI" not in worker_environment()


@pytest.mark.parametrize("address", [*WITHOUT, "abfs://container@account.dfs.core.windows.net/glioflow"])
def test_an_address_without_a_password_is_none_of_the_secrets(address):
    assert not has_password(address)
