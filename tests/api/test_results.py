"""The API's functions return what the command line prints, as records that show themselves."""

import dataclasses
import json
import shutil

import pytest

import glioflow as gf
from commands import answer_of
from glioflow import cluster


def command(*words):
    return answer_of(*words)[1]


def test_a_synthetic_cohort_is_checked_described_and_prepared(tmp_path, quiet):
    made = gf.synthesize("lgg", tmp_path / "lgg", patients=3, size=48, say=quiet)
    checked = gf.check(made.path, say=quiet)
    assert (checked.patients, checked.slices, checked.ok) == (3, made.slices, True)
    described = gf.describe(made.path, tmp_path / "report", say=quiet)
    assert described.report.is_file()
    assert described.to_json()["report"] == str(described.report)
    prepared = gf.prepare(made.path, tmp_path / "prepared", say=quiet)
    assert (prepared.patients, prepared.slices) == (3, made.slices)
    again = command("data", "prepare", made.path, str(tmp_path / "prepared"))
    assert {**again, "seconds": 0} == {**prepared.to_json(), "seconds": 0}


def test_overrides_are_texts_or_values_by_key(lgg, tmp_path, quiet):
    texts = gf.prepare(lgg, tmp_path / "a", overrides=['preprocess=[{"step": "unit"}]'], say=quiet)
    values = gf.prepare(lgg, tmp_path / "b", overrides={"preprocess": [{"step": "unit"}]}, say=quiet)
    default = gf.prepare(lgg, tmp_path / "c", say=quiet)
    assert texts.fingerprint == values.fingerprint != default.fingerprint
    with pytest.raises(gf.UserError, match="preproces"):
        gf.prepare(lgg, tmp_path / "d", overrides={"preproces": []}, say=quiet)


def test_progress_is_told_as_a_part_of_the_whole(lgg):
    parts = []
    gf.check(lgg, say=lambda text, part=None: parts.append(part))
    assert parts == sorted(parts)
    assert parts[-1] == 1


def test_a_broken_cohort_shows_its_problems_escaped(lgg, tmp_path, quiet):
    shutil.copytree(lgg, tmp_path / "lgg")
    broken = next((tmp_path / "lgg").glob("*/*_1.tif"))
    broken.rename(broken.with_name("<b>_1.tif"))
    checked = gf.check(tmp_path / "lgg", say=quiet)
    assert not checked.ok
    assert checked.to_json() == json.loads(json.dumps(checked.to_json()))
    assert "<table>" in checked._repr_html_()
    assert "<b>_1" not in checked._repr_html_()


def test_an_evaluation_has_the_command_lines_values_and_shows_its_tables(model_folder, lgg):
    done = gf.evaluate(model_folder, lgg)
    assert command("evaluate", str(model_folder), str(lgg)) == json.loads(json.dumps(done.to_json()))
    assert done.dice_mean == pytest.approx(sum(row["dice"] for row in done.per_patient) / len(done.per_patient))
    assert done.baselines["all_empty"]["dice_mean"] == 0
    html = done._repr_html_()
    assert all(row["id"] in html for row in done.per_patient)
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.dice_mean = 1


def test_a_comparison_of_a_model_with_its_copy_differs_by_nothing(model_folder, lgg, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    done = gf.compare(model_folder, copy, lgg)
    assert done.difference == 0
    assert command("compare", str(model_folder), str(copy), str(lgg)) == json.loads(json.dumps(done.to_json()))
    assert "<table>" in done._repr_html_()


def test_features_are_measured_with_the_spacing_of_the_file_or_a_given_one(lgg):
    case = next(path for path in sorted(lgg.iterdir()) if path.is_dir())
    known, given = gf.measure_features(case), gf.measure_features(case, spacing=(2, 1, 1))
    assert known.features.volume["volume_mm3"] is None
    assert given.features.volume["volume_mm3"] == 2 * known.features.volume["volume_px"]
    assert set(known.to_json()) == {"features"}
    with pytest.raises(gf.UserError, match="three numbers"):
        gf.measure_features(case, spacing=(1, 1))


@pytest.mark.usefixtures("tracking")
def test_an_empty_home_lists_nothing_and_says_so(quiet):
    for listed, key in (
        (gf.list_models(), "models"),
        (gf.list_searches(), "searches"),
        (gf.list_feedback(), "feedback"),
    ):
        assert listed.to_json() == {key: []}
        assert listed.notes()
    assert gf.collect_garbage(dry_run=True, say=quiet).to_json() == {"removed": [], "bytes": 0, "dry_run": True}


@pytest.mark.usefixtures("tracking")
def test_mistakes_are_user_errors(lgg, tmp_path, quiet):
    mistakes = {
        "nowhere.yaml": lambda: gf.train("nowhere.yaml", lgg, say=quiet),
        "training.epoch": lambda: gf.crossval(gf.Experiment(), lgg, overrides={"training.epoch": 1}, say=quiet),
        "search.space": lambda: gf.search(gf.Experiment(), lgg, say=quiet),
        "0000": lambda: gf.register("0" * 32),
        "'glioma'": lambda: gf.promote("glioma"),
        "nobody": lambda: gf.rollback("nobody"),
        "glioma": lambda: gf.export("glioma", tmp_path / "out"),
        "no model 'glioma'": lambda: gf.list_models("glioma"),
        "f" * 32: lambda: gf.reproduce("f" * 32, say=quiet),
        "nowhere.csv": lambda: gf.fit_survival(clinical="nowhere.csv"),
        "nowhere.yml": lambda: gf.audit_experiment("nowhere.yml", lgg, say=quiet),
        "s3://": lambda: gf.check("s3://bucket/cohort", say=quiet),
        "gf.Experiment; got None": lambda: gf.train(None, lgg, say=quiet),
        "model_validate": lambda: gf.train({"name": "x"}, lgg, say=quiet),
        "a run must be its id": lambda: gf.register(3),
        "a model must be its name": lambda: gf.load(None),
        r"at least one model; got \[\]": lambda: gf.load([]),
        "at least 3 folds; got 2": lambda: gf.crossval(gf.Experiment(), lgg, folds=2, say=quiet),
        "a registered model must be its name": lambda: gf.rollback(3),
        "of type int": lambda: gf.promote(3),
        "trials must be at least 1; got 0": lambda: gf.search(gf.Experiment(), lgg, trials=0, say=quiet),
        "trials must be a whole number; got 'x'": lambda: gf.search(gf.Experiment(), lgg, trials="x", say=quiet),
        "keep must be at least 1; got 0": lambda: gf.collect_garbage(keep=0),
        "shadow must be at least 0 and at most 1; got 2": lambda: gf.serve(shadow=2),
        "port must be at least 1 and at most 65535; got 0": lambda: gf.serve_page(port=0),
        "^out must name a folder": lambda: gf.export("glioma", __file__ + "/x"),
        "^out cannot be written to": lambda: gf.plan(lgg, out="/proc/none/my.yaml", say=quiet),
        "lgq": lambda: gf.synthesize("lgq", tmp_path / "out", say=quiet),
    }
    for word, call in mistakes.items():
        with pytest.raises(gf.UserError, match=word):
            call()


@pytest.mark.usefixtures("ray")
def test_a_cluster_that_was_connected_before_stays():
    with cluster.ending():
        assert list(cluster.map_parallel(abs, range(-3, 0))) == [3, 2, 1]
    assert cluster.is_connected()
