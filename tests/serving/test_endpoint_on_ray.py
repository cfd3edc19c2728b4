"""The endpoint on Ray Serve under load: swaps, a version that is refused, a replica that is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests
import torch

from bundles import describe
from glioflow import bundle, cluster
from glioflow.config import Experiment
from glioflow.models import build_network
from glioflow.serving.client import Client
from glioflow.serving.server import free_port, serving
from glioflow.serving.settings import ServeSettings, Trial, digest_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def register(tracking, tiny: Experiment, folder: Path, number: int, *, broken: bool = False) -> None:
    torch.manual_seed(number)
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    with torch.no_grad():  # version 1 never finds anything, version 2 always, so that an answer tells who gave it
        list(network.parameters())[-1].fill_(50.0 if number == 2 else -50.0)
    bundle.save(folder, describe(tiny), network.state_dict())
    made = tracking.register("tiny", tracking.start("x", "x", tags={}), folder, tags={})
    if broken:
        place = Path(str(made.source).removeprefix("file://"))
        weights = next(place.rglob("weights.safetensors"))
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
    """Callers that ask without a pause; a caller tries again as the client does."""

    def __init__(self, url, slices, callers=3, **options):
        self.answers, self.errors, self._stop = [], [], threading.Event()
        client = Client(url, **options)

        def ask():
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    said = client.predict(slices, mask="none")
                except Exception as error:
                    self.errors.append(repr(error))
                else:
                    found = said["tumor"]["detected"]
                    self.answers.append((said["model"]["version"], found, time.monotonic() - began))

        self._threads = [threading.Thread(target=ask) for _ in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for_version(self, number, patience_s=60):
        deadline = time.monotonic() + patience_s
        while not self.answers or self.answers[-1][0] != number:
            assert time.monotonic() < deadline, (self.answers[-3:], self.errors[-3:])
            time.sleep(0.2)

    def check(self):
        assert self.errors == []
        assert all(found == (number == 2) for number, found, _ in self.answers), "an answer of half of each version"


def predictor_pids():
    """Return the processes of the predictor's replicas, below this one."""
    below = psutil.Process().children(recursive=True)
    return [process.pid for process in below if "predictor" in " ".join(_words(process))]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_champions_move_and_replicas_die_under_load_and_every_answer_is_right(registered, slices):
    said = []
    with (
        cluster.ending(),
        serving("tiny", host="127.0.0.1", port=free_port(), say=said.append, watch_s=0.5) as served,
        Load(served["url"], slices) as load,
    ):
        load.wait_for_version(1)
        registered.set_alias("tiny", "champion", 2)
        load.wait_for_version(2)
        registered.set_alias("tiny", "champion", 3)  # its weights are damaged
        deadline = time.monotonic() + 60
        while not any("REFUSED tiny/3" in line for line in said):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        assert load.answers[-1][0] == 2
        load.check()
        card = requests.get(f"{served['url']}/v1/model", timeout=10).json()
        assert list(card["serving"]["refused"]) == ["tiny/3"]
        assert "/" not in card["serving"]["refused"]["tiny/3"]

        pids = predictor_pids()
        assert pids, "no predictor was found"
        os.kill(pids[0], signal.SIGKILL)
        count = len(load.answers)
        deadline = time.monotonic() + 120
        while len(load.answers) < count + 30:
            assert time.monotonic() < deadline, load.errors[-3:]
            time.sleep(0.2)
        assert load.answers[-1][0] == 2, "the new replica answers with the version before the refused one"
        registered.set_alias("tiny", "champion", 1)
        load.wait_for_version(1)
    lost = len(load.errors)
    assert lost == 0, f"{lost} requests were lost beyond what the client tries again: {load.errors[:3]}"
    assert all(found == (number == 2) for number, found, _ in load.answers)


def test_token_shadow_and_queue_hold_on_ray_too(registered, slices):
    registered.set_alias("tiny", "challenger", 2)
    settings = ServeSettings(token_sha256=digest_of("secret"), trial=Trial(shadow=1.0, window=5))
    with (
        cluster.ending(),
        serving("tiny", host="127.0.0.1", port=free_port(), settings=settings, watch_s=0.5) as served,
    ):
        url = served["url"]
        assert requests.get(f"{url}/v1/model", timeout=10).status_code == 401
        assert requests.get(f"{url}/readyz", timeout=10).status_code == 200
        client = Client(url, token="secret")
        deadline = time.monotonic() + 60
        while not client.model()["serving"].get("stepped_back"):
            assert time.monotonic() < deadline
            assert client.predict(slices)["model"]["version"] == 1
        assert "mean Dice 0.000" in client.model()["serving"]["stepped_back"]
        deadline = time.monotonic() + 30
        while (run := registered.find("shadow", challenger="tiny/2")) is None or not registered.metric_history(
            run.info.run_id, "dice"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        header = {"Authorization": "Bearer secret"}
        text = requests.get(f"{url}/metrics", headers=header, timeout=10).text
        assert 'version="1"' in text
