"""MLflow on a real SQLite store: what is written reads back, for runs and for the registry."""

import http.server
import json
import shutil
import socket
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import PIL.Image
import pytest

from bundles import describe
from glioflow import atomic, bundle
from glioflow.errors import RunFailed, UserError
from glioflow.models import build_network
from glioflow.tracking import CHAMPION, RunWriter, Tracking, flatten
from glioflow.tracking.addresses import answers
from glioflow.tracking.datasets import Dataset
from servers import postgres


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "bundle"
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    bundle.save(folder, describe(tiny), network.state_dict())
    return folder


def run(tracking, experiment="tiny", **tags):
    run_id = tracking.start(experiment, "a run", tags=tags)
    tracking.finish(run_id)
    return run_id


def test_a_search_reads_back_as_a_parent_with_its_children(tracking):
    parent = tracking.start("tiny", "search", tags={"kind": "search"})
    other = tracking.start("tiny", "another search", tags={"kind": "search"})
    trials = [tracking.start("tiny", f"trial {k}", tags={"n": str(k)}, parent=parent) for k in range(3)]
    tracking.start("tiny", "elsewhere", tags={}, parent=other)
    again = Tracking()
    assert {child.info.run_id for child in again.children("tiny", parent)} == set(trials)
    assert again.find("tiny", kind="search", n="1") is None
    assert again.find("tiny", n="1").info.run_id == trials[1]
    assert [found.info.run_id for found in again.find_all("tiny", kind="search")] == [other, parent]


def test_a_run_ends_as_it_was_finished_and_can_go_on(tracking):
    run_id = tracking.start("tiny", "x", tags={})
    tracking.finish(run_id, "FAILED")
    assert tracking.run(run_id).info.status == "FAILED"
    tracking.reopen(run_id)
    assert tracking.run(run_id).info.status == "RUNNING"


def test_parameters_and_metrics_read_back_and_numbers_that_are_none_are_left_out(tracking):
    run_id = tracking.start("tiny", "x", tags={})
    for _ in range(2):  # a resumed run logs the same ones again
        tracking.log_params(run_id, {"model": {"encoder": None, "options": {}}, "n": 3, "text": "x" * 9000})
    tracking.log_metrics(run_id, {"a": 1.5, "b": None, "c": float("nan"), "d": float("inf")}, step=2)
    data = tracking.run(run_id).data
    assert data.params == {"model.encoder": "null", "model.options": "{}", "n": "3", "text": "x" * 6000}
    assert data.metrics == {"a": 1.5}


def test_more_parameters_than_one_call_takes_are_all_logged(tracking):
    run_id = tracking.start("tiny", "x", tags={})
    tracking.log_params(run_id, {f"p{k}": k for k in range(230)})
    assert len(tracking.run(run_id).data.params) == 230


def test_artifacts_read_back_from_another_working_folder(tracking, tmp_path, monkeypatch):
    run_id = run(tracking)
    tracking.log_json(run_id, "said.json", {"x": [1, 2]})
    tracking.log_bytes(run_id, "report/picture.png", b"png")
    monkeypatch.chdir(tmp_path)
    again = Tracking()
    assert again.read_json(run_id, "said.json") == {"x": [1, 2]}
    assert again.download(f"runs:/{run_id}/report/picture.png").read_bytes() == b"png"
    assert again.has_artifact(run_id, "said.json")
    assert not again.has_artifact(run_id, "picture.png")
    with pytest.raises(UserError, match=r"other\.json"):
        again.read_json(run_id, "other.json")


@pytest.mark.parametrize("known_by", ["a list of all runs", "reading the run"])
def test_artifacts_of_runs_that_are_known_are_found_without_asking_the_store_again(tracking, monkeypatch, known_by):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    run_id = run(tracking)
    tracking.log_json(run_id, "said.json", {"x": 1})
    tracking.log_bytes(run_id, "report/picture.png", b"png")
    again = Tracking()
    known = again.every_run() if known_by == "a list of all runs" else [again.run(run_id)]
    assert [each.info.run_id for each in known] == [run_id]
    monkeypatch.setattr(SqlAlchemyStore, "get_run", lambda *_: pytest.fail("the store was asked"))
    assert again.has_artifact(run_id, "said.json")
    assert not again.has_artifact(run_id, "picture.png")
    assert again.artifact_size(run_id, "report") == 3
    assert again.read_json(run_id, "said.json") == {"x": 1}
    assert again.download(f"runs:/{run_id}/report").joinpath("picture.png").read_bytes() == b"png"


def test_an_experiment_that_was_deleted_is_used_again(tracking):
    run_id = run(tracking)
    tracking.client.delete_experiment(tracking.run(run_id).info.experiment_id)
    assert run(tracking)


def test_a_run_that_does_not_exist_is_a_users_mistake(tracking):
    with pytest.raises(UserError, match="no run has the id 0000"):
        tracking.run("0" * 32)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nosuch://x"])
def test_a_store_that_is_not_there_is_named_at_once(uri):
    began = time.monotonic()
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI must name a reachable store") as error:
        Tracking(uri, patience_s=0)
    assert uri in str(error.value)
    assert time.monotonic() - began < 10


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///somewhere/mlruns", "folders of files and Databricks are not supported"),
        ("mlruns", "folders of files and Databricks are not supported"),
        ("databricks", "folders of files and Databricks are not supported"),
        ("databricks-uc://profile", "folders of files and Databricks are not supported"),
        ("s3://bucket/mlflow", "no MLflow server or database"),
        ("postgresql+psycopg://me:secret@127.0.0.1:PORT/mlflow", "nobody answers there"),
        ("mssql://me:secret@127.0.0.1:PORT/mlflow", "its driver is not installed"),
        ("postgresql+psycopg://me:secret@nowhere.invalid/mlflow", "nobody answers there"),
        ("mysql+nosuch://me:secret@127.0.0.1:PORT/mlflow", "it is not the address of a database"),
        ("postgresql://me:secret@127.0.0.1:port/mlflow", "it is not the address of a database"),
        ("http://me:secret@127.0.0.1:PORT", "nobody answers there"),
    ],
)
def test_an_address_that_is_no_store_is_one_line_with_what_to_do_and_no_password(uri, expected, caplog, capfd):
    uri = uri.replace("PORT", str(closed_port()))
    began = time.monotonic()
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI must name a reachable store") as error:
        Tracking(uri)
    assert expected in str(error.value)
    assert "or unset it to use the home's own store" in str(error.value)
    assert "secret" not in str(error.value)
    assert time.monotonic() - began < 10
    assert (caplog.text, capfd.readouterr().err) == ("", "")


@pytest.mark.slow
def test_a_database_that_refuses_is_one_line_at_once():
    with postgres() as uri:
        with pytest.raises(UserError, match=r'database "nosuch" does not exist'):
            Tracking(uri.removesuffix("postgres") + "nosuch")
        Tracking(uri)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no database, but more than the hundred bytes of the header of one" * 9)
    with pytest.raises(UserError, match=r"notes\.txt.*file is not a database"):
        Tracking(f"sqlite:///{tmp_path / 'notes.txt'}")


def test_nested_values_get_dotted_names():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": {}}) == {"a.b": 1, "a.c.d": 2, "e": {}}


# The one writer of a run


def history(tracking, run_id, key="val/dice"):
    return [(m.step, m.value) for m in sorted(tracking.client.get_metric_history(run_id, key), key=lambda m: m.step)]


def test_epochs_are_written_as_they_come(tracking, tmp_path):
    run_id = tracking.start("tiny", "x", tags={})
    writer = RunWriter(tracking.uri, run_id, tmp_path / "spool.jsonl")
    for epoch in range(3):
        writer.write({"val/dice": epoch / 10}, step=epoch)
        assert history(tracking, run_id)[-1] == (epoch, epoch / 10)
    writer.close()
    assert not (tmp_path / "spool.jsonl").exists()


def test_what_a_store_missed_is_kept_on_disk_and_delivered_in_order_by_the_next_process(tracking, tmp_path, home):
    run_id = tracking.start("tiny", "x", tags={})
    spool, copy = tmp_path / "run" / "spool.jsonl", tmp_path / "copy"
    database, away = home / "mlflow.db", home / "away.db"
    picture, folder = tmp_path / "epoch-002.png", tmp_path / "made"
    PIL.Image.new("RGB", (40, 30), "red").save(picture)
    atomic.write_text(folder / "model.json", "{}")
    RunWriter(tracking.uri, run_id, spool).write({"val/dice": 0.0}, step=0)
    shutil.move(database, away)
    database.mkdir()  # nothing can be opened there
    away_writer = RunWriter(tracking.uri, run_id, spool)
    for epoch in (1, 2):
        away_writer.write({"val/dice": epoch / 10}, step=epoch)
    away_writer.log_picture(picture, key="validation/a+b", step=1)
    away_writer.log_bytes("report/index.html", b"<p>seen</p>")
    away_writer.log_json("rows.json", [1])
    away_writer.log_folder(folder, folder="bundle")
    away_writer.finish()
    with pytest.raises(RunFailed, match=r"wait in .*spool\.jsonl"):
        away_writer.close()
    lines = [json.loads(line) for line in spool.read_text().splitlines()]
    assert len(lines) == 7
    with spool.open("a") as file:
        file.write('{"record":"met')  # the process died here
    database.rmdir()
    shutil.move(away, database)
    time.sleep(0.02)
    shutil.copytree(spool.parent, copy)
    for _ in range(2):  # a process that died before it could clear its spool has sent all of it, and sends it again
        shutil.copytree(copy, spool.parent, dirs_exist_ok=True)
        writer = RunWriter(tracking.uri, run_id, spool)
        writer.write({"val/dice": 0.3}, step=3)
        writer.close()
        assert list(spool.parent.iterdir()) == []
    reported = {m.step: m for m in tracking.client.get_metric_history(run_id, "val/dice")}
    assert [(step, reported[step].value) for step in sorted(reported)] == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    when = [line["when_ms"] for line in lines if line["record"] == "metrics"]
    assert [reported[1].timestamp, reported[2].timestamp] == when  # when it happened, not when it was delivered
    assert [entry.step for entry in tracking.client.get_metric_history(run_id, "val/dice")].count(1) == 1
    pictures = [Path(entry.path).name for entry in tracking.client.list_artifacts(run_id, "images")]
    assert len(pictures) == 2, "the picture and a small one"
    assert all(name.startswith("validation~a-b+step+1+timestamp+") for name in pictures)
    run = tracking.run(run_id)
    assert run.data.tags["mlflow.loggedImages"] == "True"
    assert (run.info.status, run.info.end_time) == ("FINISHED", lines[-1]["when_ms"])
    assert tracking.download(f"runs:/{run_id}/report/index.html").read_text() == "<p>seen</p>"
    assert tracking.read_json(run_id, "rows.json") == [1]
    assert tracking.read_json(run_id, "bundle/model.json") == {}


def test_a_spool_of_an_earlier_version_is_read_and_delivered(tracking, tmp_path):
    run_id = tracking.start("tiny", "x", tags={})
    spool, files = tmp_path / "run" / "spool.jsonl", tmp_path / "run" / "spool.files"
    atomic.write_text(files / "rows.json", "[1]")
    atomic.write_text(tmp_path / "made" / "model.json", "{}")
    PIL.Image.new("RGB", (40, 30), "red").save(tmp_path / "epoch-001.png")
    old = [
        ["log_metrics", {"metrics": {"val/dice": 0.1, "val/hd95_mean": None}, "step": 1, "when_ms": 1000}],
        ["log_picture", {"path": str(tmp_path / "epoch-001.png"), "key": "overlays/a", "step": 0, "when_ms": 1000}],
        ["log_file", {"path": str(files / "rows.json"), "name": "rows.json"}],
        ["log_folder", {"path": str(tmp_path / "made"), "folder": "bundle"}],
        ["finish", {"status": "FINISHED", "when_ms": 2000}],
    ]
    spool.write_text("".join(json.dumps(line) + "\n" for line in old) + '["log_met')
    RunWriter(tracking.uri, run_id, spool).close()
    assert list(spool.parent.iterdir()) == []
    run = tracking.run(run_id)
    assert (run.info.status, run.info.end_time) == ("FINISHED", 2000)
    assert history(tracking, run_id) == [(1, 0.1)]
    assert tracking.read_json(run_id, "rows.json") == [1]
    assert tracking.read_json(run_id, "bundle/model.json") == {}
    assert len(tracking.client.list_artifacts(run_id, "images")) == 2


def test_a_server_that_is_away_costs_a_training_no_minutes(tmp_path):
    writer = RunWriter("http://127.0.0.1:9", "0" * 32, tmp_path / "spool.jsonl")
    began = time.monotonic()
    for epoch in range(3):
        writer.write({"val/dice": 0.5}, step=epoch)
    assert time.monotonic() - began < 5
    assert len((tmp_path / "spool.jsonl").read_text().splitlines()) == 3


def test_a_server_that_comes_up_late_is_waited_for():
    class Late(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)  # it speaks, that is enough
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Late, bind_and_activate=False)
    server.server_bind()  # the port is ours, but nobody listens yet
    uri = f"http://127.0.0.1:{server.server_port}"
    assert not answers(uri, patience_s=0)
    threading.Timer(1, lambda: (server.server_activate(), server.serve_forever())).start()
    try:
        assert answers(uri, patience_s=20)
    finally:
        server.shutdown()
        server.server_close()


# Registry


def test_versions_count_up_and_carry_tags_aliases_and_their_run(tracking, made):
    assert tracking.versions("glioma") == []
    assert tracking.champion("glioma") is None
    runs = [run(tracking) for _ in range(2)]
    first, second = (tracking.register("glioma", run_id, made, tags={"k": "v"}) for run_id in runs)
    assert (first.version, second.version) == (1, 2)
    tracking.set_alias("glioma", CHAMPION, 1)
    versions = tracking.versions("glioma")
    tags = {"k": "v", "glioflow.bundle": bundle.digest_of(made)}
    assert [(v.version, v.aliases, v.run_id) for v in versions] == [(2, (), runs[1]), (1, (CHAMPION,), runs[0])]
    assert all(tags.items() <= v.tags.items() for v in versions)
    tracking.set_alias("glioma", CHAMPION, 2)
    assert tracking.champion("glioma").version == 2
    assert tracking.names() == ["glioma"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a'b", "a/b", "x" * 99, ".x", "a@b"])
def test_a_name_that_would_not_work_everywhere_is_refused(tracking, made, name):
    with pytest.raises(UserError, match="a model's name must begin with a letter or digit"):
        tracking.register(name, run(tracking), made, tags={})
    with pytest.raises(UserError, match=r"is registered|must be given by its name"):
        tracking.versions(name)


def test_a_model_is_found_however_it_is_named(tracking, made):
    run_id = run(tracking)
    tracking.log_folder(run_id, made, folder="bundle")
    tracking.register("glioma", run_id, made, tags={})
    tracking.register("glioma", run_id, made, tags={})
    tracking.set_alias("glioma", CHAMPION, 2)
    tracking.set_alias("glioma", "challenger", 1)
    for name, version in {
        str(made): None,
        run_id: None,
        f"runs:/{run_id}": None,
        f"runs:/{run_id}/bundle": None,
        "glioma": 2,
        "glioma@champion": 2,
        "glioma@challenger": 1,
        "models:/glioma@challenger": 1,
        "models:/glioma/1": 1,
        "glioma/1": 1,
    }.items():
        folder, found = tracking.find_bundle(name)
        assert (None if found is None else found.version) == version, name
        assert bundle.digest_of(folder) == bundle.digest_of(made)
        bundle.load(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gliom", "no model 'gliom' is registered; did you mean glioma?"),
        ("glioma", "model 'glioma' has no champion; `glioflow promote glioma` makes one the champion; choose glioma/1"),
        ("glioma@other", "model 'glioma' has no alias 'other'; choose glioma/1"),
        ("models:/glioma/7", "model 'glioma' has no version 7; choose glioma/1"),
        ("some/where/bundle", "there is no bundle's folder some/where/bundle"),
        (
            "http://host:8000",
            "http://host:8000 is an address, where no model can be opened; give a bundle's folder, a run",
        ),
        ("/", "the folder / holds no bundle; give the folder with model.json"),
        ("glioma@", "a model must be a bundle's folder, a run id, NAME@alias or models:/NAME/3; got glioma@"),
        ("0" * 32, "no run has the id 0000"),
    ],
)
def test_a_model_that_is_nowhere_says_how_it_was_understood(tracking, made, name, expected):
    tracking.register("glioma", run(tracking), made, tags={})
    with pytest.raises(UserError) as error:
        tracking.find_bundle(name)
    assert expected in str(error.value)


def test_where_no_model_is_registered_the_error_says_how_to_register_one(tracking):
    with pytest.raises(UserError) as error:
        tracking.find_bundle("nope")
    hint = "`glioflow register RUN_ID --name NAME` registers one, and `starter` ships with GlioFlow"
    assert str(error.value) == f"no model 'nope' is registered; {hint}"


def test_a_run_without_a_bundle_says_so(tracking):
    with pytest.raises(UserError, match="bundle"):
        tracking.find_bundle(run(tracking))


def test_a_fetched_bundle_is_whole(tracking, made, tmp_path):
    version = tracking.register("glioma", run(tracking), made, tags={})
    tracking.fetch_bundle(version, tmp_path / "place")
    bundle.load(tmp_path / "place")


def write_epochs(uri: str, folder: str, number: int) -> str:
    """Start a run and write 25 epochs to it, from a process of its own."""
    tracking = Tracking(uri)
    run_id = tracking.start("tiny", f"writer {number}", tags={})
    writer = RunWriter(uri, run_id, Path(folder) / f"{number}.jsonl")
    for epoch in range(25):
        writer.write({f"val/dice_{k}": epoch + k / 10 for k in range(10)}, step=epoch)
    writer.close()
    tracking.finish(run_id)
    return run_id


@pytest.mark.slow
def test_four_processes_that_write_to_one_sqlite_at_once_lose_nothing(tracking, tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(write_epochs, [tracking.uri] * 4, [str(tmp_path)] * 4, range(4)))
    for run_id in runs:
        assert tracking.run(run_id).info.status == "FINISHED"
        for k in (0, 9):
            assert history(tracking, run_id, f"val/dice_{k}") == [(epoch, epoch + k / 10) for epoch in range(25)]
    assert list(tmp_path.glob("*.jsonl")) == []


def test_an_epoch_is_logged_with_what_the_process_uses(tracking, tmp_path):
    run_id = tracking.start("tiny", "x", tags={})
    writer = RunWriter(tracking.uri, run_id, tmp_path / "spool.jsonl")
    writer.write({"val/dice": 0.5}, step=0)
    metrics = tracking.run(run_id).data.metrics
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    assert 10 < metrics["system/process_memory_megabytes"] < 100_000


def test_a_data_set_is_found_with_the_runs_that_used_it(tracking):
    run_id = tracking.start("tiny", "x", tags={})
    tracking.log_dataset(run_id, Dataset("kaggle_3m", "f" * 32, "/some/where", "training", {"cases": 8}))
    (used,) = tracking.run(run_id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("kaggle_3m", "f" * 32)
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]
    query = "dataset.digest = '" + "f" * 32 + "'"
    found = tracking.client.search_runs([tracking.experiment("tiny")], query)
    assert [run.info.run_id for run in found] == [run_id]


# A registry that others use too


@pytest.fixture
def others(tracking):
    """Register what others register, under names of theirs."""
    for name in ("Team A classifier", "sales", "it's"):
        tracking.client.create_registered_model(name)
        run_id = run(tracking, "theirs")
        tracking.client.create_model_version(name, f"runs:/{run_id}/model", run_id, await_creation_for=0)
        tracking.client.set_registered_model_alias(name, "champion", "1")


@pytest.mark.usefixtures("others")
def test_other_peoples_models_are_left_out(tracking, made):
    own = tracking.register("glioma", run(tracking), made, tags={})
    assert tracking.names() == ["glioma"]
    assert [version.version for version in tracking.versions("glioma")] == [own.version]
    assert tracking.versions("sales") == []
    for name in ("Team A classifier", "sales", "it's"):
        assert tracking.champion(name) is None
        with pytest.raises(UserError, match="is registered") as error:
            tracking.version(name)
        assert error.value.choices == ["glioma"]


@pytest.mark.usefixtures("others")
def test_no_version_is_added_to_a_model_of_others(tracking, made):
    with pytest.raises(UserError, match="a model 'sales' that GlioFlow did not register; choose another name"):
        tracking.register("sales", run(tracking), made, tags={})
    assert len(tracking.client.search_model_versions("name = 'sales'")) == 1


@pytest.mark.usefixtures("others")
def test_a_version_that_others_add_to_our_model_is_left_out(tracking, made):
    tracking.register("glioma", run(tracking), made, tags={})
    theirs = run(tracking)
    tracking.client.create_model_version("glioma", f"runs:/{theirs}/model", theirs, await_creation_for=0)
    assert [version.version for version in tracking.versions("glioma")] == [1]
    with pytest.raises(UserError, match="has no version 2"):
        tracking.version("glioma", number=2)


def test_a_copy_of_our_version_that_others_register_without_a_run_is_left_out(tracking, made):
    version = tracking.register("glioma", run(tracking), made, tags={})
    tracking.client.create_registered_model("copy")
    tracking.client.create_model_version("copy", version.source, tags=version.tags, await_creation_for=0)
    tracking.set_alias("copy", CHAMPION, 1)
    assert tracking.names() == ["glioma"]
    assert tracking.champion("copy") is None


def test_all_models_are_listed_however_many_there_are(tracking, made, monkeypatch):
    for name in ("a", "b", "c"):
        tracking.register(name, run(tracking), made, tags={})
    search = tracking.client.search_model_versions
    monkeypatch.setattr(
        tracking.client,
        "search_model_versions",
        lambda *args, max_results, **more: search(*args, max_results=1, **more),
    )
    assert tracking.names() == ["a", "b", "c"]
