"""Search, training and cross-validation as Ray jobs, on a cluster of its own with token authentication."""

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.tracking import Tracking
from servers import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
HEAD = "ray start --head --disable-usage-stats"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Start a head node on loopback and give the environment of a client that knows its token."""
    temp = tempfile.mkdtemp(prefix="gf", dir="/tmp")  # socket paths are short
    dashboard, gcs = free_port(), free_port()
    drop = ("RAY_ADDRESS", "GLIOFLOW_HOME", "GLIOFLOW_DATA", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    drop += ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",)  # of a local cluster in the tests' own process
    env = {key: value for key, value in os.environ.items() if key not in drop}
    env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_JOB_STOP_WAIT_TIME_S": "60",  # after Ray's three seconds a job is killed before it closed its runs
        "PATH": f"{BIN}:{env['PATH']}",
    }
    head = subprocess.Popen(
        [
            *(*HEAD.split(), "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"),
            *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--temp-dir={temp}"),
            f"--dashboard-agent-listen-port={free_port()}",
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = {**env, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    try:
        deadline = time.monotonic() + 90
        while subprocess.run(
            [str(BIN / "ray"), "job", "list"], env=client, capture_output=True, check=False
        ).returncode:
            assert head.poll() is None, "the head node ended"
            assert time.monotonic() < deadline, "the head node did not come up"
            time.sleep(1)
        yield client
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(temp, ignore_errors=True)


def ray_job(client: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ray"), "job", *words],
        cwd=ROOT,
        env=client,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def submit(
    client: dict[str, str], variables: dict[str, str], *words: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    runtime = json.dumps({"env_vars": {"PYTHONPATH": "platform", **variables}})
    environment = ("--working-dir", ".", "--runtime-env-json", runtime)
    return ray_job(client, "submit", *environment, *options, "--", "python", "-m", "glioflow", *words)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "kaggle_3m"
    synthesize_lgg(folder, patients=8, seed=0, size=48, slices=(5, 7))
    return folder


def until(condition: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_a_search_runs_as_a_ray_job(cluster: dict[str, str], tmp_path: Path, readme_block: str) -> None:
    synthesize_lgg(tmp_path / "data" / "kaggle_3m", patients=8, seed=0, size=48, slices=(5, 7))
    ids = sorted(path.name for path in (tmp_path / "data" / "kaggle_3m").iterdir() if path.is_dir())
    split = {"train": ids[:4], "val": ids[4:6], "test": ids[6:]}
    (tmp_path / "data" / "lgg_split_65.json").write_text(json.dumps(split))
    home = tmp_path / "home"
    overrides = ("training.epochs=2", "training.steps_per_epoch=2", "training.batch_size=4", "search.name=job")
    space = "search.space={loss.name: {kind: choice, values: [dice_bce, focal_tversky]}}"
    small = ("search.trials=2", "search.grace_epochs=1", "search.preprocess={}", "search.first=[]", space)
    words = [word for text in (*overrides, *small) for word in ("-o", text)]
    started, _, block = readme_block.partition("\n")
    assert started == HEAD, "which the cluster is started by, with ports of its own"
    for text, mine in (
        ("http://127.0.0.1:8265", cluster["RAY_ADDRESS"]),
        ("/shared/glioflow", str(home)),
        ("/shared/data", str(tmp_path / "data")),
    ):
        assert text in block
        block = block.replace(text, mine)
    script = f"{block.rstrip()} {shlex.join([*words, '--json'])}"
    env = {key: value for key, value in cluster.items() if key not in ("RAY_AUTH_MODE", "RAY_ADDRESS")}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "succeeded" in done.stdout
    tracking = Tracking(f"sqlite:///{home / 'mlflow.db'}")
    parent = tracking.find("lgg-search", search="job", kind="search")
    assert parent is not None
    trials = tracking.children("lgg-search", parent.info.run_id)
    assert len(trials) == 2
    assert {run.info.status for run in trials} <= {"FINISHED", "KILLED"}
    assert all(run.data.tags.get("glioflow.source") for run in trials)


# Small beyond what any experiment file has.
SMALL = [
    word
    for setting in (
        "model.architecture=buda-unet",
        "model.encoder=null",
        "model.options={features: [4, 8, 8, 8, 8]}",
        "training.steps_per_epoch=2",
        "training.batch_size=4",
    )
    for word in ("-o", setting)
]


def test_a_training_runs_as_a_ray_job(cluster: dict[str, str], cohort: Path, tmp_path: Path) -> None:
    words = ("train", "experiments/demo.yaml", "--data", str(cohort), *SMALL, "-o", "training.epochs=2", "--json")
    done = submit(cluster, {"GLIOFLOW_HOME": str(tmp_path / "home")}, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    (answer,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run_id"')]
    run = Tracking(f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}").run(answer["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/dice_mean"] == pytest.approx(answer["metrics"]["test/dice_mean"])


def test_a_cross_validation_that_is_stopped_as_a_job_leaves_nothing_running_and_goes_on_as_another(
    cluster: dict[str, str], cohort: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    variables = {"GLIOFLOW_HOME": str(home)}
    words = ("crossval", "experiments/demo.yaml", "--data", str(cohort), "--folds", "3", *SMALL)
    words += ("-o", "training.epochs=20", "--json")
    submitted = submit(cluster, variables, *words, options=("--no-wait", "--submission-id", "crossed"))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    until(lambda: "RUNNING" in ray_job(cluster, "status", "crossed").stdout, "the job did not begin")
    until(lambda: any(home.glob("runs/*/bundle")), "no fold was trained")
    tracking = Tracking(f"sqlite:///{home / 'mlflow.db'}")

    def in_state(*states: str) -> set[str]:
        return {run.info.run_id for run in tracking.find_all("demo") if run.info.status in states}

    until(lambda: bool(in_state("FINISHED")), "no fold ended")
    (parent,) = {run.data.tags.get("mlflow.parentRunId", "") for run in tracking.find_all("demo")} - {""}
    assert ray_job(cluster, "stop", "crossed").returncode == 0
    assert "was stopped" in ray_job(cluster, "status", "crossed").stdout
    output = ray_job(cluster, "logs", "crossed").stdout
    assert "3 folds over 8 patients" in output, output
    assert f"continue with --resume {parent}" in output
    assert not in_state("RUNNING")
    finished = in_state("FINISHED")

    done = submit(cluster, variables, *words, "--resume", parent)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    (answer,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run_id"')]
    assert (answer["run_id"], answer["folds"], len(answer["per_patient"])) == (parent, 3, 8)
    ended = in_state("FINISHED")
    assert finished | {parent} <= ended
    assert len(ended) == 4, "a finished fold was run again"


def test_a_plan_is_made_on_a_node_of_the_cluster(cluster: dict[str, str], cohort: Path, tmp_path: Path) -> None:
    done = submit(cluster, {"GLIOFLOW_HOME": str(tmp_path / "home")}, "plan", str(cohort), "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "all cores of a node of the Ray cluster" in done.stdout


def test_a_job_without_a_home_that_outlives_it_is_refused_with_the_rule(cluster: dict[str, str]) -> None:
    done = submit(cluster, {}, "search", "experiments/demo.yaml", "--data", ".")
    assert done.returncode != 0
    assert "inside a Ray job GLIOFLOW_HOME must name a folder that every node reaches" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout
