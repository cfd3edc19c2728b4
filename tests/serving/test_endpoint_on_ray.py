"""The endpoint on Ray Serve: swaps under load, a version refused, a replica killed, too many callers at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
import torch
import yaml

from bundles import describe
from glioflow import bundle, cluster, progress
from glioflow.api.client import Client, EndpointBusy
from glioflow.config import Experiment
from glioflow.errors import RunFailed
from glioflow.models import build_network
from glioflow.serving.ports import free_port
from glioflow.serving.server import serving
from glioflow.serving.settings import Limits, ServeSettings, Trial, digest_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def register(tracking, tiny: Experiment, folder: Path, number: int, *, broken: bool = False) -> None:
    torch.manual_seed(number)
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    with torch.no_grad():  # version 1 never finds anything, version 2 always, so that an answer tells who gave it
        list(network.parameters())[-1].fill_(50.0 if number == 2 else -50.0)
    bundle.save(folder, describe(tiny), network.state_dict())
    made = tracking.register("tiny", tracking.start("x", "x", tags={}), folder, tags={})
    if broken:
        path = Path(str(made.source).removeprefix("file://"))
        weights = next(path.rglob("weights.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-10] + b"0123456789")


@pytest.fixture
def registered(tracking, tiny, tmp_path):
    for number in (1, 2, 3):
        register(tracking, tiny, tmp_path / f"b{number}", number, broken=number == 3)
    tracking.set_alias("tiny", "champion", 1)
    return tracking


@pytest.fixture
def slices(lgg):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    return [path for path in sorted(folder.iterdir()) if "_mask" not in path.name]


class Load:
    """Callers that ask without a pause; what is lost is noted and asked again as the client does."""

    def __init__(self, url, slices, callers=3):
        self.answers, self.lost, self.errors, self._stop = [], [], [], threading.Event()
        once, patient = Client(url, num_tries=1), Client(url)

        def ask():
            while not self._stop.is_set():
                try:
                    try:
                        answer = once.predict(slices)
                    except RunFailed as error:
                        self.lost.append((time.monotonic(), str(error)))
                        answer = patient.predict(slices)
                except Exception as error:
                    self.errors.append(repr(error))
                else:
                    found = {
                        "everywhere": len(answer["tumor"]["slices"]) == len(slices),
                        "mask": answer["mask"]["data"],
                    }
                    self.answers.append((answer["model"]["version"], found, answer["features"]["volume"]["volume_px"]))

        self._threads = [threading.Thread(target=ask) for _ in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for_answers(self, number, count=15, patience_s=90):
        """Wait until that many answers, one after the other, are of this version."""
        begin, deadline = len(self.answers), time.monotonic() + patience_s
        while len(result := self.answers[max(begin, len(self.answers) - count) :]) < count or {
            v for v, *_ in result
        } != {number}:
            assert time.monotonic() < deadline, (result, self.errors[-3:], self.lost[-3:])
            time.sleep(0.1)

    def check(self):
        """Every answer, whole, is the one of the version that it names: version 2 finds tumor everywhere, 1 nowhere."""
        assert self.errors == []
        assert self.answers
        for number, found, volume in self.answers:
            everywhere = number == 2
            assert found["everywhere"] is everywhere
            assert list(found["mask"]) == (["1"] if everywhere else [])
            assert (volume > 0) is everywhere


def predictor_pids():
    """Return the processes of the predictor's replicas, below this one."""
    below = psutil.Process().children(recursive=True)
    return {process.pid for process in below if "predictor" in " ".join(_words(process))}


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_until(true, patience_s=60):
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def answered(client, slices):
    try:
        return client.predict(slices)["model"]["version"] == 1
    except EndpointBusy:
        return False


def test_champions_move_and_a_replica_dies_under_load_and_every_answer_is_right(registered, slices):
    lines, callers = [], 3

    def hear(text, part=None):
        lines.append(text)

    settings = ServeSettings(replicas=2, max_replicas=2, cpus=0.5, watch_s=0.5)
    with (
        cluster.ending(),
        serving("tiny", host="127.0.0.1", port=free_port(), settings=settings, say=hear) as served,
        Load(served["url"], slices, callers) as load,
    ):
        load.wait_for_answers(1)
        registered.set_alias("tiny", "champion", 2)
        load.wait_for_answers(2)
        registered.set_alias("tiny", "champion", 3)  # its weights are damaged
        wait_until(lambda: any("REFUSED tiny/3" in line for line in lines))
        load.wait_for_answers(2)
        card = requests.get(f"{served['url']}/v1/model", timeout=10).json()
        assert list(card["serving"]["refused"]) == ["tiny/3"]
        assert "/" not in card["serving"]["refused"]["tiny/3"]
        assert load.lost == [], "no swap loses a request"

        pids, killed = predictor_pids(), time.monotonic()
        os.kill(min(pids), signal.SIGKILL)
        load.wait_for_answers(2)
        wait_until(lambda: len(predictor_pids() - {min(pids)}) == 2)
        load.wait_for_answers(2, count=40)  # the new replica too, which never saw version 2 as champion
        registered.set_alias("tiny", "champion", 1)
        load.wait_for_answers(1)
    load.check()
    print(f"{len(load.answers)} answers, lost {load.lost}")
    assert len(load.lost) <= callers, "only what the killed replica had was lost"
    assert all(0 <= when - killed < 10 for when, _ in load.lost), "and only then"


@pytest.mark.parametrize("how", ["serve deploy", "serve.run"])
def test_a_graph_deployed_before_any_champion_waits_follows_and_loses_nothing(registered, slices, tmp_path, how):
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    from glioflow.serving.gateway import build

    port = free_port()
    registered.client.delete_registered_model_alias("tiny", "champion")
    with cluster.ending():
        cluster.connect()
        if how == "serve deploy":
            written = yaml.safe_load((Path(__file__).parents[2] / "deploy/serve.yaml").read_text())
            written["http_options"]["port"] = port
            (tmp_path / "serve.yaml").write_text(yaml.safe_dump(written))
            address = f"http://{ray._private.worker.get_dashboard_url()}"
            command = [Path(sys.executable).parent / "serve", "deploy", "-a", address, tmp_path / "serve.yaml"]
            subprocess.run(command, check=True, env={**os.environ, "RAY_AUTH_MODE": "token"}, timeout=60)
        else:
            serve.start(http_options=HTTPOptions(port=port))
            serve.run(build(ServeSettings(watch_s=0.5)), name="by-hand")
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: serve.status().applications and all_run(serve.status()), 120)
        for answer in (requests.get(f"{url}/v1/model", timeout=10), post(url, slices[0])):
            assert (answer.status_code, answer.json()["error"]["rule"]) == (503, "no model has a champion yet")
        assert not _is_ready(url)
        if how == "serve deploy":  # an application from code is replaced by the first champion, good or bad
            registered.set_alias("tiny", "champion", 3)  # its weights are damaged
            wait_until(lambda: "tiny/3: " in post(url, slices[0]).json()["error"]["rule"], 120)
            assert not _is_ready(url)
        registered.set_alias("tiny", "champion", 1)
        wait_until(lambda: _is_ready(url), 120)
        with Load(url, slices) as load:
            load.wait_for_answers(1)
            registered.set_alias("tiny", "champion", 2)
            load.wait_for_answers(2)
            registered.set_alias("tiny", "champion", 1)
            load.wait_for_answers(1)
        serve.shutdown()
    load.check()
    print(f"{len(load.answers)} answers, lost {load.lost}")
    assert load.lost == []


def all_run(status):
    return all(each.status == "RUNNING" for each in status.applications.values())


def post(url, file):
    return requests.post(f"{url}/v1/predict", files={"files": (file.name, file.read_bytes())}, timeout=60)


def _is_ready(url):
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_token_shadow_and_queue_hold_on_ray_too(registered, slices):
    registered.set_alias("tiny", "challenger", 2)
    settings = ServeSettings(
        token_sha256=digest_of("secret"), trial=Trial(shadow=1.0, window=5), limits=Limits(queued=1), threads=1
    )
    with cluster.ending(), serving("tiny", host="127.0.0.1", port=free_port(), settings=settings) as served:
        url, header = served["url"], {"Authorization": "Bearer secret"}
        assert requests.get(f"{url}/v1/model", timeout=10).status_code == 401
        assert requests.get(f"{url}/readyz", timeout=10).status_code == 200
        client = Client(url, token="secret")
        stepped_back = lambda: client.model()["serving"].get("stepped_back")  # noqa: E731
        wait_until(lambda: client.predict(slices)["model"]["version"] == 1 and stepped_back())
        assert "mean Dice 0.000" in stepped_back()
        wait_until(
            lambda: (
                (run := registered.find("shadow", challenger="tiny/2")) is not None
                and registered.metric_history(run.info.run_id, "dice")
            )
        )

        def ask(_):
            files = [("files", (path.name, path.read_bytes())) for path in slices]
            answer = requests.post(f"{url}/v1/predict", files=files, headers=header, timeout=60)
            if answer.status_code != 200:  # whoever comes again is answered, on a busy machine not the first time
                wait_until(lambda: answered(client, slices), patience_s=240)
            return answer

        with ThreadPoolExecutor(40) as pool:
            replies = list(pool.map(ask, range(80)))
        statuses = [reply.status_code for reply in replies]
        print({status: statuses.count(status) for status in set(statuses)})
        assert set(statuses) == {200, 503}
        turned_away = [reply for reply in replies if reply.status_code == 503]
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in turned_away)
        assert all("busy" in reply.json()["error"]["rule"] for reply in turned_away)
        text = requests.get(f"{url}/metrics", headers=header, timeout=10).text
        assert 'version="1"' in text


def test_a_deployment_keeps_other_applications_and_the_target_capacity_and_sends_rays_token(home):
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

    from glioflow.serving.versions.loaded import Wanted
    from glioflow.serving.versions.registry_watcher import deploy
    from glioflow.serving.versions.serve_config import read_details

    other = {
        "name": "other",
        "route_prefix": "/other",
        "import_path": "glioflow.serving.gateway:build",
        "args": {"watch_s": 1000.0},
        "runtime_env": {"env_vars": {"SECRET": "of the other application"}},
    }
    with cluster.ending():
        cluster.connect(num_cpus=1)
        serve.start(http_options=HTTPOptions(port=free_port()))
        dashboard = f"http://{ray._private.worker.get_dashboard_url()}/api/serve/applications/"
        assert requests.get(dashboard, timeout=30).status_code == 401, "the API is open to everybody"
        token = os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray" / "auth_token").read_text().strip()
        everything = {"applications": [other], "target_capacity": 50.0}
        assert requests.put(dashboard, json=everything, headers={"Authorization": f"Bearer {token}"}, timeout=60).ok
        deploy(Wanted(name="tiny"), ServeSettings(watch_s=1000.0))
        details = read_details()
        assert details["target_capacity"] == 50.0
        assert details["applications"]["other"]["deployed_app_config"] == other
        (predictor,) = details["applications"]["glioflow"]["deployed_app_config"]["deployments"]
        assert predictor["user_config"]["name"] == "tiny"
        serve.shutdown()


def test_a_hospitals_proxy_and_headers_of_callers_change_nothing(registered, slices, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "GRPC_PROXY", "http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "intranet.example.org")
    monkeypatch.setattr(progress, "WAIT_S", 0.2)
    lines = []

    def hear(text, part=None):
        lines.append(text)

    with cluster.ending(), serving("tiny", host="127.0.0.1", port=free_port(), say=hear) as served:
        assert lines[0].startswith("waiting for the endpoint to answer with tiny version 1 ("), lines
        waits = len(lines)
        assert Client(served["url"]).predict(slices)["model"]["version"] == 1
        assert len(lines) == waits, "once it answers, nothing is waited for"
        files = [("files", (path.name, path.read_bytes())) for path in slices]
        lifted = {"X-Request-Timeout-Seconds": "0.001", "X-Request-ID": "John Doe 1950"}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"{served['url']}/v1/predict", files=files, headers=lifted, timeout=60)
        assert answer.status_code == 200, answer.text
        assert "John" not in str(answer.headers)
