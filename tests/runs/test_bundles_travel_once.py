"""A trained bundle between nodes that share an object store: it goes to MLflow once, and to the home only in need."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bundles import describe
from glioflow import bundle, cluster
from glioflow.cluster import remote_home
from glioflow.cluster.storage import home
from glioflow.config import Experiment, override
from glioflow.data.splits import Split
from glioflow.models import build_network
from glioflow.runs.plan import Plan
from glioflow.runs.train.trained_bundle import fetch_bundle, fetch_description, send_bundle
from glioflow.tracking import BUNDLE, RunWriter, Tracking
from glioflow.tracking.run import send_waiting
from glioflow.tracking.spool import run_folder
from servers import free_port, mlflow_server, reached_bucket

AWAY = f"http://127.0.0.1:{free_port()}"


def uploads(bucket: str) -> list[str]:
    """Return the keys of all weights that were ever uploaded to a bucket with versions, as often as they were."""
    import boto3

    pages = boto3.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket)
    keys = [str(each["Key"]) for page in pages for each in page.get("Versions", [])]
    return sorted(key for key in keys if key.endswith(bundle.WEIGHTS))


def keep_versions(bucket: str) -> None:
    import boto3

    boto3.client("s3").put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


@pytest.fixture
def train_at(tracking: Any, node: Callable[[str], None], tiny: Experiment, s3_bucket: str) -> Callable[..., Plan]:
    """Return a function that goes to a node, writes a bundle there as a training's worker does, and sends it."""
    keep_versions(s3_bucket.removeprefix("s3://"))
    run_id = tracking.start("e", "r", tags={})

    def train(name: str, *, uri: str = tracking.uri) -> Plan:
        node(name)
        plan = plan_here(uri)
        network = build_network(tiny.model, in_channels=3, num_outputs=1)
        bundle.save(plan.bundle, describe(tiny), network.state_dict())
        send_bundle(plan, RunWriter(uri, run_id, plan.spool))
        return plan

    def plan_here(uri: str) -> Plan:
        return Plan(
            experiment=tiny,
            prepared=home() / "prepared",
            split=Split(train=("a",), val=("b",), test=("c",)),
            run_id=run_id,
            tracking_uri=uri,
            folder=run_folder(run_id),
            created="2026-01-01T00:00:00+00:00",
        )

    return train


def at(node: Callable[[str], None], name: str, plan: Plan) -> Plan:
    """Go to a node and return the plan as it reads there."""
    node(name)
    return plan.model_copy(update={"folder": run_folder(plan.run_id)})


def test_a_bundle_reaches_another_node_through_mlflow_and_its_weights_are_in_no_home(train_at, node, s3_bucket):
    made = train_at("node-1")
    there = at(node, "node-2", made)
    assert fetch_description(there) == bundle.read_description(made.bundle)
    assert not (there.bundle / bundle.WEIGHTS).exists(), "a description needs no weights"
    assert bundle.check_files(fetch_bundle(there)) == bundle.read_description(made.bundle)
    assert uploads(s3_bucket.removeprefix("s3://")) == []


def test_a_bundle_that_mlflow_did_not_take_reaches_other_nodes_through_the_home(train_at, node, tracking):
    made = train_at("node-1", uri=AWAY)
    there = at(node, "node-2", made)
    assert bundle.check_files(fetch_bundle(there)) == bundle.read_description(made.bundle)
    send_waiting(tracking.uri, made.run_id)
    assert tracking.has_whole_bundle(made.run_id, there.bundle), "the driver sends what a worker could not"


def test_a_node_with_an_older_attempt_takes_the_bundle_that_was_sent_last(train_at, node):
    first = train_at("node-1")
    second = train_at("node-2")
    sent = bundle.read_description(second.bundle)
    there = at(node, "node-1", first)
    assert bundle.read_description(there.bundle) != sent
    assert bundle.check_files(fetch_bundle(there)) == sent


def test_a_whole_bundle_in_the_home_of_an_earlier_version_needs_no_mlflow(train_at, node):
    made = train_at("node-1")
    remote_home.share(made.bundle)
    there = at(node, "node-2", made).model_copy(update={"tracking_uri": AWAY})
    assert bundle.check_files(fetch_bundle(there)) == bundle.read_description(made.bundle)


@pytest.fixture
def shared_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Put the home and the artifacts of a tracking server into one bucket, and return its name."""
    with ExitStack() as stack:
        stack.enter_context(reached_bucket("travel"))
        keep_versions("travel")
        settings = {"MLFLOW_ARTIFACTS": "s3://travel/mlflow"}
        monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.enter_context(mlflow_server(tmp_path / "server", settings)))
        monkeypatch.setenv("GLIOFLOW_HOME", "s3://travel/home")
        monkeypatch.setenv("GLIOFLOW_CACHE", str(tmp_path / "cache"))
        yield "travel"
        cluster.disconnect()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_weights_of_trainings_and_trials_on_ray_train_are_uploaded_once(
    shared_nothing: str, tiny: Experiment, lgg: Path
) -> None:
    from glioflow.runs.search.run import search
    from glioflow.runs.train.run import train

    run_id = train(tiny, lgg).run_id
    tracking = Tracking()
    experiment_id = tracking.run(run_id).info.experiment_id

    def of_run(run_id: str) -> str:
        return f"mlflow/{experiment_id}/{run_id}/artifacts/{BUNDLE}/{bundle.WEIGHTS}"

    assert uploads(shared_nothing) == [of_run(run_id)]
    assert tracking.has_whole_bundle(run_id, run_folder(run_id) / BUNDLE)

    space = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}
    settings = {"space": space, "sampler": "random", "scheduler": "none", "trials": 1, "name": "s"}
    parent = search(override(tiny, {"training.num_workers": 2, "search": settings}), lgg).run_id
    (trial,) = tracking.children(tiny.name, parent)
    assert uploads(shared_nothing) == sorted(map(of_run, [run_id, trial.info.run_id]))
    assert bundle.check_files(tracking.find_bundle(trial.info.run_id)[0])
