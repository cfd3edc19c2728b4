"""A local Ray as a verb of the command line starts it: its environment, its folder, and what it prints where."""

import json
import os
import subprocess
import sys

import pytest

from glioflow.cluster.environment import DEFAULTS

pytestmark = pytest.mark.ray  # in a process of its own
SCRIPT = """
import json, os, sys, threading
import psutil
from glioflow import cluster
from glioflow.cli.output import answer, one_line_errors

heard = threading.Event()

class Hearing:
    def write(self, text):
        if "a line of Ray's own" in text:
            heard.set()
        return sys.__stderr__.write(text)
    def __getattr__(self, name):
        return getattr(sys.__stderr__, name)

sys.stderr = Hearing()
with one_line_errors(), cluster.ending():
    cluster.connect(num_cpus=1)
    import ray
    from ray._private.utils import publish_error_to_driver

    gcs = ray._private.worker.global_worker.gcs_client
    for _ in range(120):  # what is published before this process listens is lost
        publish_error_to_driver("test", "a line of Ray's own", gcs_client=gcs)
        if heard.wait(0.5):
            break
    assert heard.is_set(), "Ray printed nothing"
    variables = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    socket = ray.nodes()[0]["ObjectStoreSocketName"]
    below = {process.pid for process in psutil.Process().children(recursive=True)}
    ports = [each.laddr.ip for each in psutil.net_connections("inet") if each.pid in below and each.status == "LISTEN"]
    said = {"driver": dict(os.environ), "worker": variables, "socket": socket, "listening": sorted(set(ports))}
    answer({**said, "node": ray.nodes()[0]["NodeManagerAddress"]}, as_json=True)
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Start a cluster with a variable that the user set, and a folder whose path is too long for a socket."""
    folder = tmp_path_factory.mktemp("long") / ("x" * 60)
    folder.mkdir()
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7", "TMPDIR": str(folder)}
    return start(environment)


def start(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    removed = {*DEFAULTS, "RAY_TMPDIR", "RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}
    inherited = {name: value for name, value in os.environ.items() if name not in removed}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_what_ray_prints_goes_to_stderr_and_stdout_holds_the_answer_alone(started):
    assert len(started.stdout.splitlines()) == 1
    json.loads(started.stdout)
    assert "a line of Ray's own" in started.stderr


def test_a_value_that_the_user_set_holds_in_the_driver_and_on_the_workers(started):
    answer = json.loads(started.stdout)
    assert answer["driver"]["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    for name in DEFAULTS:
        assert answer["worker"].get(name) == answer["driver"][name], name


def test_no_port_of_a_local_cluster_is_open_to_other_machines(started):
    """Where the node's address is loopback, Ray's metrics listen there too, whenever they begin to."""
    answer = json.loads(started.stdout)
    assert answer["node"] == "127.0.0.1"
    assert answer["listening"]
    assert {address.removeprefix("::ffff:") for address in answer["listening"]} <= {"127.0.0.1", "::1"}


def test_a_folder_whose_path_is_too_long_for_a_socket_gives_way_to_a_short_one_in_one_line(started):
    socket = json.loads(started.stdout)["socket"]
    assert len(socket) <= 107
    (line,) = [line for line in started.stderr.splitlines() if "too long a path for Ray's sockets" in line]
    assert line.endswith("Ray uses /tmp instead")
    assert socket.startswith("/tmp/ray/")
