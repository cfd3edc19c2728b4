"""A search on a cluster that has no workers yet, whose autoscaler is Ray's own with nodes on this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bundles import TINY
from glioflow.cluster.autoscaled import AUTOSCALED_NODES
from servers import free_port, mlflow_server

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def head() -> Iterator[tuple[dict[str, str], Path]]:
    """Start a head without CPUs that may grow by two nodes of one CPU; give a driver's environment and Ray's folder."""
    for program in ("unshare", "setpriv"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (make system-packages)")
    folder = Path(tempfile.mkdtemp(prefix="ga", dir="/tmp"))  # socket paths are short
    gcs = free_port()
    node = {"node_config": {}, "min_workers": 0}
    growing = {
        "cluster_name": "growing",
        "max_workers": 2,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": f"127.0.0.1:{gcs}",
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
        },
        "auth": {},
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1,
        "file_mounts": {},
        "docker": {},
        # Of nodes that are machines.
        **{f"{each}_commands": [] for each in ("initialization", "setup", "head_setup", "worker_setup")},
        **{f"{each}_start_ray_commands": [] for each in ("head", "worker")},
        "cluster_synced_files": [],
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {**node, "resources": {"CPU": 0}, "max_workers": 0},
            "worker": {**node, "resources": {"CPU": 1}, "max_workers": 2},
        },
    }
    (folder / "growing.yaml").write_text(yaml.safe_dump(growing))
    drop = ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in drop}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123" * 16}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2] / "platform")}
    command = [
        # Whatever becomes of this process, the nodes end with it.
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("ray", "start", "--head", "--block", "--num-cpus=0", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *(f"--port={gcs}", f"--dashboard-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"),
        *("--object-store-memory=100000000", f"--temp-dir={folder}", f"--autoscaling-config={folder}/growing.yaml"),
    ]
    more = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "600"}
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env={**environment, **more}, stdout=log, stderr=subprocess.STDOUT)
    driver = {**environment, "RAY_ADDRESS": f"127.0.0.1:{gcs}"}
    try:
        deadline = time.monotonic() + 120
        while subprocess.run([BIN / "ray", "status"], env=driver, capture_output=True, check=False).returncode:
            if process.poll() is not None and b"Operation not permitted" in (folder / "head.log").read_bytes():
                pytest.skip("namespaces are not permitted here")
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline, (folder / "head.log").read_text()
            time.sleep(1)
        yield driver, folder
    finally:
        process.kill()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_search_waits_for_nodes_that_are_not_there_yet_and_asks_for_all_it_can_use(head, lgg, tmp_path):
    environment, rays_folder = head
    space = {"training.learning_rate": {"kind": "float", "low": 0.001, "high": 0.01}}
    search = {"name": "grown", "space": space, "trials": 3, "grace_epochs": 1}
    experiment = {**TINY, "training": {**TINY["training"], "epochs": 1}, "search": search}
    (tmp_path / "grown.yaml").write_text(yaml.safe_dump(experiment))
    command = [BIN / "glioflow", "search", tmp_path / "grown.yaml", "--data", lgg, "--json"]
    with mlflow_server(tmp_path / "mlflow", {}) as url:
        environment |= {"MLFLOW_TRACKING_URI": url, "GLIOFLOW_HOME": str(tmp_path / "home")}
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert refused.returncode == 2, refused.stderr
        assert "training needs 1 CPUs" in refused.stderr
        assert f"list the nodes that an autoscaler may add in {AUTOSCALED_NODES}" in refused.stderr
        environment |= {AUTOSCALED_NODES: "2 of CPU 1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "waiting for 1 CPU;" in done.stderr
    assert json.loads(done.stdout)["num_trials"] == 3
    (log,) = rays_folder.glob("session_2*/logs/monitor.log")
    assert "Queue 2 new nodes for launch" in log.read_text()
