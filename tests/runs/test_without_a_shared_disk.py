"""What travels between nodes that share an object store and no disk: cohorts, checkpoints, spools, searches."""

from pathlib import Path

import numpy as np
import optuna
import pytest

from glioflow.api.auto_state import begin_state, read_state
from glioflow.cluster import remote_home
from glioflow.cluster.storage import home
from glioflow.config.search import SearchSettings
from glioflow.data.prepared import preparation
from glioflow.data.prepared.remote import open_here
from glioflow.errors import StoreFailed, UserError
from glioflow.runs.launch import open_cohort_for
from glioflow.runs.registry import cleanup
from glioflow.runs.search.searcher import METRIC, NUMBER, Searcher
from glioflow.runs.search.trial import _keep, drop_checkpoint
from glioflow.runs.search.tuner import SearchFolder
from glioflow.tracking.cohort_uses import note_use
from glioflow.tracking.run import send_waiting, spool_of
from glioflow.tracking.spool import run_folder
from glioflow.tracking.writer import RunWriter
from servers import free_port


def prepare(tiny, source: Path):
    return open_cohort_for(tiny.preprocess, source, tiny.target)


def test_a_cohort_that_one_node_prepared_is_read_by_another_and_prepared_by_none_again(node, tiny, lgg, monkeypatch):
    made = prepare(tiny, lgg)
    name, image = made.path.name, np.array(made.case(made.records[0].id).image)
    node("node-2")
    there = open_here(home() / "prepared" / name)
    assert there.path != made.path
    np.testing.assert_array_equal(there.case(there.records[0].id).image, image)
    node("node-3")
    monkeypatch.setattr(preparation, "prepare_case", lambda job: pytest.fail("it was prepared again"))
    assert prepare(tiny, lgg).path == home() / "prepared" / name


def test_a_prepared_cohort_that_lies_on_the_drivers_node_alone_is_read_by_others(node, tiny, prepared):
    taken = prepare(tiny, prepared.path)
    assert taken.path.is_relative_to(home())
    node("node-2")
    assert open_here(home() / "prepared" / taken.path.name).records == prepared.records


def test_a_cohort_that_no_node_has_is_refused_with_its_address(node, s3_bucket):
    with pytest.raises(UserError, match=f"no prepared cohort at {s3_bucket}"):
        open_here(home() / "prepared" / "f" / "0")


def test_a_node_that_joins_without_the_shared_home_is_named_and_is_no_fault_of_the_trial(
    tiny, lgg, tmp_path, monkeypatch
):
    path = prepare(tiny, lgg).path
    monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "home of this node"))
    with pytest.raises(StoreFailed, match=f"does not see the prepared cohort .*{path.name}.*home of this node"):
        open_here(home() / "prepared" / path.name)


def test_a_store_that_is_away_while_a_node_fetches_a_cohort_is_no_fault_of_the_trial(node, tiny, lgg, monkeypatch):
    import fsspec

    name = prepare(tiny, lgg).path.name
    node("node-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StoreFailed, match=f"{name}.*could not be read"):
        open_here(home() / "prepared" / name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_checkpoint_of_one_node_is_gone_on_from_at_another(node):
    folder = run_folder("r") / "checkpoint"
    for epoch in ("1", "2"):
        _keep(lambda into, epoch=epoch: (into / "checkpoint.pt").write_text(epoch), folder)
    node("node-2")
    folder = run_folder("r") / "checkpoint"
    remote_home.fetch(folder)
    assert (folder / "checkpoint.pt").read_text() == "2"
    drop_checkpoint(folder)
    node("node-3")
    remote_home.fetch(run_folder("r"))
    assert not run_folder("r").exists()


def test_what_a_lost_node_could_not_send_is_sent_by_the_driver(tracking, request):
    run_id = tracking.start("e", "r", tags={})
    node = request.getfixturevalue("node")
    writer = RunWriter(f"http://127.0.0.1:{free_port()}", run_id, spool_of(run_id))
    writer.write({"val/dice": 0.5}, step=3)
    writer.log_text("note.txt", "hello")
    made = run_folder(run_id) / "bundle" / "weights"
    made.parent.mkdir()
    made.write_text("w")
    writer.log_folder(made.parent, folder="bundle")
    node("node-2")
    send_waiting(tracking.uri, run_id)
    assert tracking.metric_steps(run_id, "val/dice") == {3: 0.5}
    assert tracking.download(f"runs:/{run_id}/note.txt").read_text() == "hello"
    assert (tracking.download(f"runs:/{run_id}/bundle") / "weights").read_text() == "w"
    node("node-3")
    remote_home.fetch(run_folder(run_id) / "spools")
    assert not run_folder(run_id).exists(), "what was sent waits for nobody"


def settings(**changes):
    space = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}
    return SearchSettings.model_validate({"space": space, "sampler": "random", "trials": 4, **changes})


def test_a_search_goes_on_at_another_node_where_its_driver_was_killed(node):
    folder = SearchFolder("s", home() / "searches" / "s")
    folder.note_run("0123")
    first = Searcher(settings(), name="s", storage=folder.storage)
    points = [first.suggest(f"t{k}") for k in range(2)]
    ended = {METRIC: 0.5, "epoch": 2, "finished": True}
    first.on_trial_complete("t0", ended)
    node("node-2")
    again = SearchFolder("s", home() / "searches" / "s")
    assert again.exists
    assert again.has_begun
    assert again.run_id == "0123"
    again.fetch()
    second = Searcher(settings(), name="s", storage=again.storage)
    assert second.reached() == (1, 0.5)
    assert second.plan(4) == 3
    assert second.suggest("t0") == points[1], "the trial that was open comes first"
    assert second.suggest("t1")[NUMBER] == 2


def test_a_search_that_was_removed_from_the_store_is_not_gone_on_with(node):
    folder = SearchFolder("s", home() / "searches" / "s")
    folder.note_run("0123")
    Searcher(settings(), name="s", storage=folder.storage).suggest("t0")
    remote_home.withdraw(folder.path)
    assert not folder.exists
    folder.fetch()
    assert Searcher(settings(), name="s", storage=folder.storage).plan(4) == 4
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_gc_clears_the_store_and_its_own_node_of_what_no_run_needs(tracking, tiny, prepared, monkeypatch, request):
    ended, at_work = (tracking.start("e", "r", tags={"glioflow.kind": "reproduction"}) for _ in range(2))
    tracking.finish(ended, "FAILED")
    node = request.getfixturevalue("node")
    monkeypatch.setattr(cleanup, "Tracking", lambda: tracking)
    cohort = prepare(tiny, prepared.path).path
    tune = home() / "searches" / "s" / "tune-1"
    for folder in (run_folder(ended), run_folder(at_work), tune):
        (folder / "kept").mkdir(parents=True)
        (folder / "kept" / "file").write_bytes(b"x" * 1000)
        remote_home.share(folder)
    note_use(tracking.uri, cohort.name)
    node("node-2")
    remote_home.fetch(run_folder(ended))
    unneeded = {remote_home.address_of(folder): 1000 for folder in (home() / "searches/s/tune-1", run_folder(ended))}
    assert {each.path: each.bytes for each in cleanup.collect()} == unneeded
    assert not run_folder(ended).exists()
    assert remote_home.list_shared(home() / "runs") == [at_work]
    assert remote_home.list_shared(home() / "prepared") == [cohort.name], "it was noted an hour ago at most"
    assert [each.path for each in cleanup.collect(age_s=-1)] == [
        remote_home.address_of(home() / "prepared" / cohort.name)
    ]
    assert remote_home.list_shared(home() / "prepared") == []


def test_an_auto_goes_on_at_another_node_with_the_files_of_its_stages(node, tmp_path):
    state = begin_state("a", tmp_path, 1.0)
    with pytest.raises(UserError, match=r"resume must name an earlier auto.*in s3://"):
        read_state("a", tmp_path, None)
    (state.folder).mkdir(parents=True)
    (state.folder / "best.yaml").write_text("name: a")
    state.note("search", {"run_id": "0123"}, 60.0)
    node("node-2")
    with pytest.raises(UserError, match="an auto named a exists already"):
        begin_state("a", tmp_path, 1.0)
    with pytest.raises(UserError, match="got b; choose a"):
        read_state("b", tmp_path, None)
    again = read_state("a", tmp_path, None)
    assert again.stages["search"]["run_id"] == "0123"
    assert (again.folder / "best.yaml").read_text() == "name: a"
