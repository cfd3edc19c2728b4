"""Who may ask, under which name, and on which way: tokens, hosts, and a hospital's proxy."""

import os

import pytest
from in_process import Here, client, served
from page_endpoint import endpoint
from requests.utils import should_bypass_proxies

from bundles import Bright, describe
from glioflow.api.client import Client
from glioflow.cluster.environment import bypass_proxies, own_names, worker_environment
from glioflow.errors import UserError
from glioflow.serving.settings import TOKEN, ServeSettings, check_names, digest_of


@pytest.fixture
def here(tiny):
    return Here(served(tiny))


@pytest.mark.parametrize("token", ["", " ", "\n"])
def test_an_empty_token_is_a_mistake_and_no_open_door(monkeypatch, token):
    with pytest.raises(UserError, match="must not be empty"):
        digest_of(token)
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(UserError, match="must not be empty"):
        digest_of(None)
    monkeypatch.delenv(TOKEN)
    monkeypatch.setenv(f"{TOKEN}_FILE", "")
    with pytest.raises(UserError, match="TOKEN_FILE must name a file, and is empty; unset it to let everyone in"):
        digest_of(None)
    assert digest_of("secret") is not None
    monkeypatch.delenv(f"{TOKEN}_FILE")
    assert digest_of(None) is None


def test_white_space_around_a_token_counts_on_neither_side(here, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret \n")
    assert digest_of(None) == digest_of(" secret") == digest_of("secret")
    api = client(here, ServeSettings(token_sha256=digest_of(None)))
    assert api.get("/v1/model", headers=Client("http://x", token=" secret\n").headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("10.1.2.3", 200),
        ("endpoint:8000", 200),
        ("glioflow.ns.svc.cluster.local", 200),
        ("rebound.example.org", 421),
        ("127.0.0.1.example.org:8000", 421),
    ],
)
def test_a_strangers_name_is_refused_and_probes_are_not(here, host, status):
    api = client(here, ServeSettings(hosts=()))
    response = api.get("/v1/model", headers={"host": host})
    assert response.status_code == status
    if status == 421:
        assert "--allow-host" in response.json()["error"]["rule"]
    assert api.get("/readyz", headers={"host": host}).status_code == 200


def test_a_name_may_be_allowed_and_a_token_or_a_configuration_without_names_allows_all(here):
    for settings in (ServeSettings(hosts=("glioflow.example.org",)), ServeSettings(hosts=("*",))):
        assert client(here, settings).get("/v1/model", headers={"host": "glioflow.example.org"}).status_code == 200
    deployed_before = client(here)
    assert deployed_before.get("/v1/model", headers={"host": "glioflow.example.org"}).status_code == 200
    guarded = client(here, ServeSettings(token_sha256=digest_of("t")))
    headers = {"host": "glioflow.example.org", "authorization": "Bearer t"}
    assert guarded.get("/v1/model", headers=headers).status_code == 200


def test_a_name_is_allowed_as_browsers_send_it():
    assert check_names(["Glioflow.Example.ORG", "endpoint.", "*"]) == ("glioflow.example.org", "endpoint", "*")
    for wrong in ("http://x", "a/b", "x:8000", "größe.org", " ", "-x"):
        with pytest.raises(UserError, match="allow_hosts must be the name of a host"):
            check_names([wrong])


def test_a_hospitals_proxy_is_not_asked_for_what_is_on_this_machine(tiny, monkeypatch):
    with endpoint(describe(tiny), Bright()) as url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert Client(url, num_tries=1).model()["model"]["name"] == "demo"


def test_every_process_leaves_its_nodes_out_of_the_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "intranet.example.org")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "GRPC_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    bypass_proxies()
    assert os.environ["NO_PROXY"] == "intranet.example.org", "without a proxy nothing changes"
    monkeypatch.setenv("GRPC_PROXY", "http://proxy.example.org:3128")
    bypass_proxies(["10.9.8.7"])
    for names in (os.environ["NO_PROXY"], os.environ["no_proxy"], worker_environment()["NO_PROXY"]):
        assert {"localhost", "127.0.0.1", "10.9.8.7"} | own_names() <= set(names.split(","))
    assert "intranet.example.org" in os.environ["NO_PROXY"]


def test_hosts_that_the_user_excepts_under_either_name_stay_excepted(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "mlflow.example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    bypass_proxies(address for address in ["10.9.8.7"])
    for host in ("mlflow.example.org", "10.9.8.7", "localhost"):
        assert should_bypass_proxies(f"http://{host}:5000", no_proxy=None), host
        assert host in os.environ["no_proxy"].split(","), "of the two names, gRPC and requests read this one first"
    assert not should_bypass_proxies("http://elsewhere.example.org", no_proxy=None)


def test_a_star_still_excepts_every_host(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "*")
    bypass_proxies(["10.9.8.7"])
    assert should_bypass_proxies("http://elsewhere.example.org", no_proxy=None)
