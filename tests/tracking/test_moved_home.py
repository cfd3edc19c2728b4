"""A home that was moved, copied or mounted elsewhere has everything that it had."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from bundles import changed, describe
from glioflow import bundle
from glioflow.cli import app
from glioflow.data.prepared.remote import recorded_cohort
from glioflow.models import build_network
from glioflow.promotion.record import Verdict, record
from glioflow.tracking import RunWriter, Tracking
from glioflow.tracking.trained import COHORT, known_cases

NAME = "an experiment"


@pytest.fixture
def run_id(tracking, tiny, home, tmp_path):
    """Return a run of a home that has a registered version and a decision about it."""
    folder = tmp_path / "bundle"
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    bundle.save(folder, describe(changed(tiny, name="tiny")), network.state_dict())
    run_id = tracking.start(NAME, "a run", tags={})
    tracking.log_json(run_id, "rows.json", [1])
    tracking.register("glioma", run_id, folder, tags={})
    verdict = {"reasons": (), "name": "glioma", "previous": None, "test": "t", "who": "me", "when": "now"}
    record(tracking, Verdict(decision="promoted", version=1, times_test_used=0, **verdict))
    return run_id


def begin_anew():
    """Forget what MLflow keeps for the length of a process."""
    utils._artifact_repos_cache.clear()


def has_everything(run_id):
    begin_anew()
    tracking = Tracking()
    assert tracking.read_json(run_id, "rows.json") == [1]
    assert bundle.load(tracking.bundle_of(tracking.version("glioma", number=1))).description.origin.experiment == "tiny"
    tracking.log_json(run_id, "more.json", [2])
    assert Tracking().read_json(run_id, "more.json") == [2]
    return Path(tracking.run(run_id).info.artifact_uri.removeprefix("file://"))


@pytest.mark.parametrize("name", ["elsewhere", "with a space", "umlaut-ä"])
def test_a_moved_home_has_all_it_had(run_id, home, monkeypatch, capsys, name):
    moved = home.rename(home.parent / name)
    monkeypatch.setenv("GLIOFLOW_HOME", str(moved))
    has_everything(run_id)
    assert not home.exists(), "nothing is written to the former place"
    with pytest.raises(SystemExit) as end:
        app(["models", "--json"])
    out, err = capsys.readouterr()
    assert end.value.code == 0
    assert [(m["name"], len(m["decisions"])) for m in json.loads(out.splitlines()[-1])["models"]] == [("glioma", 1)]
    assert err.count(f"the home was at {home} and is at {moved}") == 1


def test_the_former_place_of_a_home_is_named_as_its_user_knows_it(run_id, home, monkeypatch, capsys):
    for name in ("with a space", "umlaut-ä", "100 %"):
        before, home = home, home.rename(home.parent / name)
        monkeypatch.setenv("GLIOFLOW_HOME", str(home))
        has_everything(run_id)
        assert f"the home was at {before} and is at {home}" in capsys.readouterr().err


def test_a_copy_of_a_home_keeps_its_files_to_itself(run_id, home, monkeypatch):
    copy = Path(shutil.copytree(home, home.parent / "copy"))
    monkeypatch.setenv("GLIOFLOW_HOME", str(copy))
    folder = has_everything(run_id)
    assert folder.is_relative_to(copy)
    assert not list(home.rglob("more.json"))


def test_what_another_home_recorded_here_is_left_as_it_is(run_id, home, monkeypatch):
    other = home.parent / "other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Tracking().uri)
    monkeypatch.setenv("GLIOFLOW_HOME", str(other))
    theirs = Tracking().start("theirs", "a run", tags={})
    Tracking().log_json(theirs, "rows.json", [3])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("GLIOFLOW_HOME", str(home))
    assert Tracking().read_json(theirs, "rows.json") == [3]


def test_a_prepared_cohort_that_a_run_recorded_is_found_in_the_moved_home(home):
    (home / "prepared" / "f1").mkdir(parents=True)
    assert recorded_cohort(Path("/gone/prepared/f1")) == home / "prepared" / "f1"
    assert recorded_cohort(Path("/gone/prepared/f2")) == Path("/gone/prepared/f2")
    assert recorded_cohort(home) == home


def test_the_persons_of_a_run_of_an_earlier_version_are_known_in_the_moved_home(prepared, tracking, home, monkeypatch):
    kept = home / "prepared" / prepared.manifest.fingerprint
    shutil.copytree(prepared.path, kept)
    earlier = tracking.start(NAME, "a run that recorded only where its cohort is", tags={})
    tracking.log_json(earlier, COHORT, {"path": str(kept)})
    before = known_cases(tracking, earlier)
    assert {case.patient for case in before.values()} == {entry.patient for entry in prepared.entries()}
    monkeypatch.setenv("GLIOFLOW_HOME", str(home.rename(home.parent / "elsewhere")))
    begin_anew()
    assert known_cases(Tracking(), earlier) == before


def test_what_waited_for_mlflow_is_sent_from_the_moved_home(run_id, home, monkeypatch):
    spool = home / "runs" / run_id / "spool.jsonl"
    RunWriter("http://127.0.0.1:9", run_id, spool).log_json("later.json", [4])
    moved = home.rename(home.parent / "elsewhere")
    monkeypatch.setenv("GLIOFLOW_HOME", str(moved))
    begin_anew()
    RunWriter(Tracking().uri, run_id, moved / "runs" / run_id / "spool.jsonl").close()
    assert Tracking().read_json(run_id, "later.json") == [4]


def test_an_empty_store_says_where_it_was_looked_for(tracking, capsys):
    with pytest.raises(SystemExit):
        app(["models"])
    assert f"no model is registered at {tracking.uri}" in capsys.readouterr().err.replace("\n", "")


def test_a_home_that_is_reached_by_a_link_too_was_not_moved(run_id, home, monkeypatch, capsys):
    link = home.parent / "link"
    link.symlink_to(home)
    monkeypatch.setenv("GLIOFLOW_HOME", str(link))
    assert has_everything(run_id).is_relative_to(home)
    assert "the home was at" not in capsys.readouterr().err
    other = home.rename(home.parent / "moved")
    monkeypatch.setenv("GLIOFLOW_HOME", str(other))
    assert has_everything(run_id).is_relative_to(other)
