"""What many tests stand on: a tiny cohort, a home of its own for each test, an MLflow store that costs no migration."""

import functools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import readme
from bundles import TINY
from glioflow import cluster
from glioflow.cluster import silence
from glioflow.config import Experiment, load_experiment


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the fixture `ray`."""
    for item in items:
        if "ray" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")
        if item.get_closest_marker("ray") and not re.search(r"\bray\b", item.path.read_text()):
            raise pytest.UsageError(f"write the word `ray` into {item.path}: make test-on-ray collects no other file")


@pytest.fixture(autouse=True)
def _ray_starts_only_where_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if not any(request.node.get_closest_marker(name) for name in ("ray", "slow")):
        assert not cluster.is_connected(), "mark this test `ray`: it starts Ray"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a GLIOFLOW_HOME of its own, and nobody's cluster or tracking server."""
    silence()
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "home"
    monkeypatch.setenv("GLIOFLOW_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def lgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a synthetic LGG cohort of 8 patients, 5 to 7 slices of 48 x 48 each; read only."""
    from glioflow.data.synthetic.cohort import synthesize_lgg

    path = tmp_path_factory.mktemp("lgg") / "kaggle_3m"
    synthesize_lgg(path, patients=8, seed=0, size=48, slices=(5, 7))
    return path


@pytest.fixture(scope="session")
def tiny() -> Experiment:
    """Return an experiment that trains in a second."""
    return Experiment.model_validate(TINY)


@pytest.fixture(scope="session")
def prepared(lgg: Path, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the prepared form of `lgg` under the preprocessing of `tiny`; read only."""
    from glioflow.data.formats.detect import open_cohort
    from glioflow.data.prepared.preparation import prepare

    return prepare(open_cohort(lgg), tmp_path_factory.mktemp("prepared") / "cohort", tiny.preprocess)


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow.store.db import utils

    from glioflow.tracking import Tracking

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Tracking(f"sqlite:///{path}")
    # MLflow reads all its migrations anew for each store that it opens, to name the newest.
    utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)
    return path


@pytest.fixture
def tracking(home: Path, _empty_store: Path) -> Any:
    """Return MLflow on a SQLite database of this test's own, where the code under test finds it too."""
    from glioflow.tracking import Tracking

    home.mkdir(parents=True)
    shutil.copyfile(_empty_store, home / "mlflow.db")
    return Tracking()


@pytest.fixture
def experiment_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an experiment's YAML text to a file."""

    def write(text: str, name: str = "some.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def from_yaml(experiment_file: Callable[..., Path]) -> Callable[..., Experiment]:
    """Return a function that reads an experiment from YAML text and overrides."""
    return lambda text, *overrides: load_experiment(experiment_file(text), overrides)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Give the tests of a module one local cluster of two CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster.connect(num_cpus=2)
        yield
        cluster.disconnect()


@pytest.fixture
def readme_block(request: pytest.FixtureRequest) -> str:
    """Return the commands that README or a page of `docs/` says this test runs."""
    return readme.commands()[request.node.nodeid.partition("[")[0]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a disk of so many MiB and, called again, makes it of another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted: list[bool] = []

    def resize(size: int) -> Path:
        how = f"remount,size={size}m" if mounted else f"size={size}m"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "glioflow", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(True)
        return folder

    yield resize
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def s3_bucket() -> Iterator[str]:
    """Start an S3 on loopback and return the URI of a bucket."""
    from servers import reached_bucket

    with reached_bucket("home-bucket") as uri:
        yield uri


@pytest.fixture
def node(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function by which this process goes to a node that shares the home in a bucket with others, no disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("GLIOFLOW_HOME", f"{s3_bucket}/{tmp_path.name}")

    def go(name: str) -> None:
        monkeypatch.setenv("GLIOFLOW_CACHE", str(tmp_path / name))

    go("node-1")
    return go
