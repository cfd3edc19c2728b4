"""A home at an object store: what nodes share of it, who holds its leases, and what it needs besides."""

import multiprocessing
import os
import shutil
import socket
import time

import pytest

from glioflow import atomic
from glioflow.cluster import lease, remote_home, same_home
from glioflow.cluster.storage import home, tracking_uri
from glioflow.errors import UserError
from glioflow.runs.train.checkpoints import withdraw_sent
from glioflow.tracking.spool import drop_copy, spool_of, spools_of

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def _home_at_a_store(node):
    """Put the home of every test here into a bucket."""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_one_node_shares_another_one_fetches(node):
    write(home() / "runs/r/bundle/model.json", "{}")
    write(home() / "runs/r/bundle/weights", "w")
    write(home() / "runs/r/.half-written", "x")
    remote_home.share(home() / "runs/r")
    node("node-2")
    assert not home().exists()
    assert remote_home.list_shared(home() / "runs") == ["r"]
    remote_home.fetch(home() / "runs/r")
    found = {path.relative_to(home()).as_posix() for path in home().rglob("*") if path.is_file()}
    assert found == {"runs/r/bundle/model.json", "runs/r/bundle/weights"}


def test_what_is_fetched_replaces_what_this_node_had_and_leaves_the_rest(node):
    path = home() / "runs/r/checkpoint/checkpoint.pt"
    write(path, "epoch 1")
    write(home() / "runs/r/own", "stays")
    node("node-2")
    write(home() / "runs/r/checkpoint/checkpoint.pt", "epoch 2")
    remote_home.share(home() / "runs/r")
    node("node-1")
    remote_home.fetch(home() / "runs/r")
    assert path.read_text() == "epoch 2"
    assert (home() / "runs/r/own").read_text() == "stays"


def test_what_is_withdrawn_is_gone_for_others(node):
    write(home() / "runs/r/a", "a")
    write(home() / "runs/r/b/c", "c")
    remote_home.share(home() / "runs/r")
    remote_home.withdraw(home() / "runs/r/b")
    assert remote_home.list_shared(home() / "runs/r") == ["a"]
    remote_home.withdraw(home() / "runs/r/a")
    node("node-2")
    remote_home.fetch(home() / "runs/r")
    assert not (home() / "runs").exists()


def test_half_of_a_folder_that_is_being_removed_is_not_taken_for_whole(node, monkeypatch):
    folder = home() / "prepared/f"
    write(folder / "manifest.json", "{}")
    write(folder / "image.npy", "i")
    remote_home.share(folder)
    store = remote_home._open()[0]
    remove = store.rm

    def broken(keys):
        if not any(key.endswith("manifest.json") for key in keys):
            raise KeyboardInterrupt
        remove(keys)

    with monkeypatch.context() as patched:
        patched.setattr(store, "rm", broken)
        with pytest.raises(KeyboardInterrupt):
            remote_home.remove(folder)
    assert remote_home.list_shared(folder) == ["image.npy"]

    def stopped(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            remote_home.remove(folder)
    assert [path.name for path in folder.iterdir()] == ["image.npy"]
    remote_home.remove(folder)
    assert not folder.exists()


@pytest.mark.parametrize("waits", [False, True])
def test_what_mlflow_did_not_take_of_a_training_that_ended_stays_for_other_nodes(node, waits):
    train, spool = home() / "train/r/state.json", spool_of("r")
    for path in (train, spool):
        atomic.write_text(path, "{}")
    remote_home.share(train)
    remote_home.share(spool)
    if not waits:  # as the writer does once MLflow has all
        drop_copy(spool)
        spool.unlink()
    withdraw_sent("r")
    node("node-2")
    assert len(spools_of("r")) == waits
    assert bool(remote_home.list_shared(home() / "train")) == waits


def test_a_home_that_is_a_folder_copies_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "folder"))
    write(home() / "runs/r/a", "a")
    before = sorted(tmp_path.rglob("*"))
    remote_home.share(home() / "runs")
    remote_home.fetch(home() / "runs")
    remote_home.withdraw(home() / "runs")
    assert remote_home.list_shared(home() / "runs") == ["r"]
    assert remote_home.ray_storage(home() / "train") == {"storage_path": str(tmp_path / "folder/train")}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_home_at_an_object_store_needs_a_tracking_server(monkeypatch):
    remote_home.check_home()
    for named in ("", "sqlite:////shared/mlflow.db", "postgresql://me:secret@db/mlflow"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
        with pytest.raises(UserError, match="MLFLOW_TRACKING_URI must name a server") as refused:
            tracking_uri()
        assert "secret" not in str(refused.value)


def test_a_bucket_that_does_not_exist_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", "s3://no-such-bucket/home")
    with pytest.raises(UserError, match=r"GLIOFLOW_HOME cannot be written to .*bucket does not exist"):
        remote_home.check_home()


@pytest.mark.parametrize(("uri", "why"), [("nowhere://x/home", "Protocol not known"), ("gs://b/home", "gcsfs")])
def test_a_store_that_cannot_be_opened_here_is_refused_whatever_is_asked_of_it(monkeypatch, uri, why):
    monkeypatch.setenv("GLIOFLOW_HOME", uri)
    for ask in (remote_home.check_home, lambda: remote_home.list_shared(home()), lambda: remote_home.fetch(home())):
        with pytest.raises(UserError, match=f"fsspec cannot open the store of GLIOFLOW_HOME here .*{why}.*got {uri}"):
            ask()


def test_an_object_store_that_is_away_fails_as_a_disk_does(monkeypatch):
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(OSError, match="object store of GLIOFLOW_HOME"):
        remote_home.write_shared(home() / "a", b"")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def hold(answers, wait) -> None:
    try:
        with lease.holding(home() / "searches/s", "search s"):
            answers.put("held")
            wait.wait(60)
    except UserError as error:
        answers.put(str(error))


def started(cache, answers, wait):
    """Start a process that takes the lease on a node of its own, whose cache is another."""
    before = os.environ["GLIOFLOW_CACHE"]
    os.environ["GLIOFLOW_CACHE"] = str(cache)
    process = SPAWN.Process(target=hold, args=(answers, wait))
    process.start()
    os.environ["GLIOFLOW_CACHE"] = before
    return process


def test_of_drivers_on_several_nodes_that_come_at_once_one_holds_the_lease(tmp_path):
    answers, wait = SPAWN.Queue(), SPAWN.Event()
    processes = [started(tmp_path / f"node-{k}", answers, wait) for k in range(2)]
    heard = [answers.get(timeout=60) for _ in processes]
    wait.set()
    for process in processes:
        process.join()
    assert heard.count("held") == 1
    assert sum("search s is run by" in each for each in heard) == 1
    assert lease.holder_of(home() / "searches/s") is None
    assert remote_home.list_shared(home() / "searches") == []


def test_a_killed_driver_is_replaced_at_once_on_its_own_machine(tmp_path):
    answers, wait = SPAWN.Queue(), SPAWN.Event()
    process = started(tmp_path / "node-2", answers, wait)
    assert answers.get(timeout=60) == "held"
    with pytest.raises(UserError, match=f"process {process.pid} on {socket.gethostname()} since"):
        lease.holding(home() / "searches/s", "search s").__enter__()
    process.kill()
    process.join()
    with lease.holding(home() / "searches/s", "search s"):
        assert lease.holder_of(home() / "searches/s").pid == os.getpid()


def test_a_driver_elsewhere_is_replaced_once_it_renews_no_more_by_the_stores_clock(monkeypatch):
    folder = home() / "searches/s"
    text = '{"host": "node-7", "pid": 1, "started": 1.0, "since": "2026-11-27T10:00:00+00:00"}'
    remote_home.write_shared(folder / "lease-000003.json", text.encode())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert lease.holder_of(folder).host == "node-7"
    monkeypatch.setattr(lease, "STALE_S", -1.0)
    with lease.holding(folder, "search s"):
        assert remote_home.list_shared(folder) == ["lease-000004.json"]


def test_a_driver_that_was_replaced_does_not_renew_its_lease():
    folder = home() / "searches/s"
    with lease.holding(folder, "search s"):
        files = lease.lease_files(folder)
        files._made["lease-000000.json"] = files.read("lease-000000.json").encode()
        files.renew("lease-000000.json")
        remote_home.write_shared(folder / "lease-000001.json", b"{}")
        with pytest.raises(FileNotFoundError):
            files.renew("lease-000000.json")
        remote_home.withdraw(folder / "lease-000001.json")
        remote_home.write_shared(folder / "lease-000000.json", b"of another process")
        with pytest.raises(FileNotFoundError):
            files.renew("lease-000000.json")


def test_ray_opens_the_store_anew_and_carries_no_secret(monkeypatch):
    import pickle

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame")
    words = remote_home.ray_storage(home() / "train")
    sent = pickle.dumps(words)
    assert b"open-sesame" not in sent
    there = pickle.loads(sent)
    with there["storage_filesystem"].open_output_stream(f"{there['storage_path']}/x") as file:
        file.write(b"x")
    assert remote_home.list_shared(home() / "train") == ["x"]
    shutil.rmtree(home(), ignore_errors=True)


def test_each_node_proves_that_it_reads_what_the_driver_wrote(node, tmp_path, monkeypatch):
    def ask(function, item, *, within_s):
        node("node-2")
        answers = {"10.0.0.1 (ab)": function(item)}
        node("node-1")
        return answers

    monkeypatch.setattr(same_home, "on_each_node", ask)
    same_home.check_same_home()
    assert remote_home.list_shared(home()) == []
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "folder"))
    same_home.check_same_home()
    assert [*home().iterdir()] == []


def test_a_node_that_does_not_see_the_drivers_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "folder"))
    monkeypatch.setattr(same_home, "on_each_node", lambda function, item, within_s: {"10.0.0.2 (cd)": "no such file"})
    with pytest.raises(UserError, match=r"1 of 1 do not; got node 10.0.0.2 \(cd\): no such file; mount one folder"):
        same_home.check_same_home()
