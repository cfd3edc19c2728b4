"""A model judged on a cohort, two models on the same patients, and the folds of a cross-validation put together."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bundles import ORIGIN, Bright, changed, describe
from glioflow import bundle
from glioflow.bundle.measurement import measure
from glioflow.bundle.prediction import Predictor
from glioflow.cli import app
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.splits import Split
from glioflow.errors import UserError
from glioflow.evaluation import VolumeInterval, dice_per_case
from glioflow.models import build_network
from glioflow.runs.analysis import evaluate as evaluate_module
from glioflow.runs.analysis.compare import compare
from glioflow.runs.analysis.evaluate import Subject, evaluate, open_subject, unseen_by
from glioflow.runs.case_pictures import pick_cases
from glioflow.runs.crossval import fold as fold_module
from glioflow.runs.crossval import run as crossval_module
from glioflow.runs.crossval.fold import JUDGED, fold_split
from glioflow.runs.crossval.out_of_fold import OUT_OF_FOLD
from glioflow.runs.crossval.run import VOLUME_INTERVAL, crossval
from glioflow.runs.launch import Setting, opening_of
from glioflow.runs.registry.register import register
from glioflow.runs.scoring import CohortScores, join, near_box, score_cases
from glioflow.runs.train.selection import choose_and_measure
from glioflow.tracking import BUNDLE
from glioflow.tracking.run import begin_run, open_run
from glioflow.tracking.trained import KnownCase, Trained
from prepared_copies import changeable_copy


@pytest.fixture(scope="session")
def easy(prepared, tmp_path_factory):
    """Return the tiny cohort with its tumors painted into FLAIR, and two pixels beside the truth into `pre`."""
    path = changeable_copy(prepared.path, tmp_path_factory.mktemp("easy") / "cohort")
    rng = np.random.default_rng(0)
    for record in prepared.records:
        file = path / record.folder / "image.npy"
        image, tumor = np.load(file), np.load(file.with_name("mask.npy")) > 0
        image[:] = rng.uniform(0, 0.4, image.shape)
        image[..., 1] += 0.55 * tumor
        image[..., 0] += 0.55 * np.roll(tumor, 2, axis=2)
        np.save(file, image)
    return PreparedCohort(path)


@pytest.fixture
def models(tmp_path, tiny, monkeypatch):
    """Return a function that makes a bundle's folder which loads as a network that calls bright voxels tumor."""
    made = {}

    def make(name, network, **values):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.json").touch()
        made[folder] = Predictor(describe(values.pop("experiment", tiny), **values), network)
        return str(folder)

    monkeypatch.setattr(Predictor, "load", lambda folder, **_: made[folder])
    return make


@pytest.fixture
def ids(easy):
    return [record.id for record in easy.records]


def test_an_evaluation_says_what_measuring_says_beside_its_baselines(models, easy, tiny):
    answer = evaluate(models("bright", Bright(), flair_threshold=1.0), easy.path)
    rows = measure(Predictor(describe(tiny), Bright()), easy.cases(r.id for r in easy.records))
    assert [(row["id"], row["dice"]) for row in answer["per_patient"]] == [(row["id"], row["dice"]) for row in rows]
    assert answer["dice_mean"] == pytest.approx(np.mean([row["dice"] for row in rows]))
    assert set(answer["baselines"]) == {"all_empty", "flair_threshold", "nearest_slice", "human"}
    assert answer["baselines"]["all_empty"]["dice_mean"] == 0
    assert answer["baselines"]["human"] == {"dice_mean": 0.84, "dice_std": 0.02}
    assert answer["num_parameters"] == 1
    assert 0 <= answer["expected_calibration_error"] <= answer["expected_calibration_error_near_tumor"] <= 1
    assert sum(folder["num_cases"] for folder in answer["per_institution"].values()) == len(rows)
    json.dumps(answer)


def test_an_ensemble_says_how_far_its_members_disagree_and_one_model_says_nothing_of_it(models, easy, tmp_path):
    one, same, other = (models(name, Bright(above=above)) for name, above in (("a", 0.5), ("b", 0.5), ("c", 0.7)))
    alone = evaluate(one, easy.path)
    assert not [key for key in (*alone, *alone["per_patient"][0]) if "ensemble" in key]
    keys = ("probability_std", "mask_disagreement", "volume_variation")
    agreed = evaluate(f"{one},{same}", easy.path)
    assert [agreed[f"ensemble_{key}_mean"] for key in keys] == [0, 0, 0]
    assert agreed["dice_mean"] == alone["dice_mean"]
    assert agreed["num_parameters"] == 2
    apart = evaluate(f"{one},{other}", easy.path, report=tmp_path)
    assert all(0 < row[f"ensemble_{key}"] < 1 for row in apart["per_patient"] for key in keys)
    assert "1 less the Dice between two members" in (tmp_path / "index.html").read_text()


def test_slices_are_judged_all_together_and_by_patient(models, easy):
    answer = evaluate(models("bright", Bright()), easy.path)
    assert answer["num_slices"] == sum(record.shape[0] for record in easy.records)
    assert 0 < answer["slice_auroc_pooled"] <= 1
    assert answer["study_auroc"] is None, "every synthetic patient has a tumor"
    assert answer["study_sensitivity"] == 1
    assert all(row["uncertainty"] >= 0 for row in answer["per_patient"])


def test_the_nearest_slice_is_never_the_patients_own(easy):
    cases = easy.cases(record.id for record in easy.records)
    dice = score_cases(Predictor(describe_tiny(), Bright()), cases[:3], known=cases).baselines["nearest_slice"]
    assert len(dice) == 3
    assert max(dice.values()) < 1, "a copy of the own slice would be perfect"


def describe_tiny(**values):
    from bundles import TINY
    from glioflow.config import Experiment

    return describe(Experiment.model_validate(TINY), **values)


def test_where_everybody_known_is_the_same_patient_nothing_is_copied(easy):
    case = easy.cases([easy.records[0].id])
    assert "nearest_slice" not in score_cases(Predictor(describe_tiny(), Bright()), case, known=case).baselines


def test_folds_put_together_are_one_evaluation(easy):
    predictor = Predictor(describe_tiny(flair_threshold=1.0), Bright())
    cases = easy.cases(r.id for r in easy.records)
    whole = score_cases(predictor, cases)
    parts = join(score_cases(predictor, some) for some in (cases[:3], cases[3:4], cases[4:]))
    assert near(parts.summary()) == near(whole.summary())
    assert parts.beside("lgg") == whole.beside("lgg")
    assert CohortScores.model_validate_json(parts.model_dump_json()) == parts


def near(value):
    """Return a nested value with its numbers rounded."""
    if isinstance(value, dict):
        return {key: near(inner) for key, inner in value.items()}
    return [near(inner) for inner in value] if isinstance(value, list) else value and round(value, 9)


def test_near_the_tumor_is_a_box_with_a_margin_inside_the_volume():
    mask = np.zeros((5, 20, 20), bool)
    mask[0, 8:10, 19] = True
    assert near_box(mask) == (slice(0, 3), slice(6, 12), slice(17, 22))
    assert mask[near_box(np.zeros_like(mask))].size == 0


def test_a_run_is_told_from_its_split_and_only_unseen_patients_are_asked_for(tracking, easy, tiny, tmp_path, ids):
    split = Split(train=tuple(ids[:4]), val=tuple(ids[4:6]), test=tuple(ids[6:]))
    run_id = begin_run(tracking, opening_of(Setting(tiny, easy, split, tracking), "train", "tiny"))
    origin = ORIGIN.model_copy(update={"split": split.digest})
    network = build_network(tiny.model, in_channels=3, num_outputs=1)
    bundle.save(tmp_path / "bundle", describe(tiny, origin=origin), network.state_dict())
    tracking.log_folder(run_id, tmp_path / "bundle", folder=BUNDLE)

    answer = evaluate(run_id, easy.path)
    assert [row["part"] for row in answer["per_patient"]] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert answer["warnings"] == [f"6 of 8 cases trained {run_id} or chose its settings: its numbers flatter it"]
    logged = tracking.run(answer["run_id"])
    assert logged.data.tags["glioflow.kind"] == "evaluation"
    assert {"glioflow.source", "glioflow.version", "command"} <= logged.data.tags.keys()
    assert logged.data.metrics["eval/dice_mean"] == pytest.approx(answer["dice_mean"])
    assert logged.inputs.dataset_inputs[0].dataset.digest == easy.manifest.fingerprint[:36]
    assert "6 of 8 cases trained" in tracking.download(answer["report"]).read_text()
    unseen = evaluate(f"runs:/{run_id}/bundle", easy.path, unseen=True)
    assert [row["id"] for row in unseen["per_patient"]] == ids[6:]
    assert unseen["warnings"] == []


def test_cases_are_seen_by_their_images_or_their_person_and_equal_names_are_told(easy, ids):
    split = Split(train=("renamed", "earlier", ids[2]), val=("v",), test=(ids[3],))
    first, second, third, fourth = (easy.case(each) for each in ids[:4])
    known = {
        "renamed": KnownCase(patient="somebody", digest=first.record.digest),
        "earlier": KnownCase(patient=second.record.patient, digest="other images"),
        ids[2]: KnownCase(patient="nobody", digest="other images"),
    }
    subject = Subject("model", None, (Trained(split, known),))
    assert [subject.part_of(case) for case in (first, second, third, fourth)] == ["train", "train", "train", "test"]
    assert [case.record.id for case in unseen_by([subject], [first, second, third, fourth])] == [ids[3]]
    (reported,) = subject.renamed([first, second, third, fourth])
    assert reported.startswith("1 case named like a case that model saw, with other images")
    assert ids[2] in reported


def test_a_folder_without_a_run_cannot_say_whom_it_has_seen(models, easy):
    origin = ORIGIN.model_copy(update={"source_fingerprint": easy.manifest.source_fingerprint})
    model = models("bright", Bright(), origin=origin)
    assert "trained on patients of this very cohort" in evaluate(model, easy.path)["warnings"][0]
    with pytest.raises(UserError, match="run recorded its split"):
        evaluate(model, easy.path, unseen=True)
    assert "may have seen patients of this cohort" in evaluate(models("other", Bright()), easy.path)["warnings"][0]


def test_an_evaluation_says_how_often_the_volume_interval_held(models, easy):
    interval = VolumeInterval(residuals=(5.0,) * 20, folds=(0,) * 20, level=0.9)
    held = evaluate(models("wide", Bright(), volume_interval=interval), easy.path)
    assert held["volume_interval"] == {
        **{"level": 0.9, "unit": "px", "num_patients": 20, "available": True},
        **{"num_asked": 8, "coverage": 1.0},
    }
    narrow = interval.model_copy(update={"residuals": (0.0,) * 20})
    missed = evaluate(models("narrow", Bright(above=0.9), volume_interval=narrow), easy.path)
    assert missed["volume_interval"]["coverage"] < 0.5
    few = interval.model_copy(update={"residuals": (5.0,), "folds": (0,)})
    answer = evaluate(models("few", Bright(), volume_interval=few), easy.path)
    assert (answer["volume_interval"]["available"], answer["volume_interval"]["coverage"]) == (False, None)
    assert answer["per_patient"][0]["volume_interval"] is None


def test_the_interval_is_not_tried_on_the_patients_that_made_it(models, easy):
    interval = VolumeInterval(residuals=(5.0,) * 20, folds=(0,) * 20, level=0.9)
    origin = ORIGIN.model_copy(update={"source_fingerprint": easy.manifest.source_fingerprint})
    answer = evaluate(models("own", Bright(), volume_interval=interval, origin=origin), easy.path)
    assert (answer["volume_interval"]["num_asked"], answer["volume_interval"]["coverage"]) == (0, None)


def test_the_interval_is_not_tried_on_patients_that_trained_whatever_their_cohort_is_called(
    models, easy, ids, monkeypatch
):
    interval = VolumeInterval(residuals=(5.0,) * 20, folds=(0,) * 20, level=0.9)
    split = Split(train=tuple(ids[:5]), val=(ids[5],), test=())
    subject = replace(open_subject(models("m", Bright(), volume_interval=interval)), trained=(Trained(split, {}),))
    monkeypatch.setattr(evaluate_module, "open_subject", lambda _: subject)
    assert evaluate("m", easy.path)["volume_interval"]["num_asked"] == 2


def test_all_cases_of_the_test_patients_are_held_out(in_process, tracking, easy, ids, monkeypatch):
    quick, *_ = in_process
    split = Split(train=tuple(ids[:6]), val=(), test=(ids[7],))  # it says nothing of one case
    entries = [
        entry if entry.id != ids[6] else entry._replace(patient=easy.case(ids[7]).record.patient)
        for entry in easy.entries()
    ]
    monkeypatch.setattr(type(easy), "entries", lambda _: entries)
    monkeypatch.setattr(crossval_module, "open_setting", lambda *_, **__: Setting(quick, easy, split, tracking))
    done = crossval(quick, None, folds=3, hold_out_test=True)
    assert [row["id"] for row in done.per_patient] == ids[:6]


def test_the_better_of_two_models_is_found_by_patient_and_institution(models, easy):
    good, bad = models("good", Bright()), models("bad", Bright(channel=0))
    answer = compare(good, bad, easy.path)
    assert answer["difference"] == pytest.approx(
        answer["models"]["a"]["dice_mean"] - answer["models"]["b"]["dice_mean"]
    )
    assert answer["difference"] > 0.1
    assert answer["ci95"][0] <= answer["difference"] <= answer["ci95"][1]
    assert compare(bad, good, easy.path)["difference"] == pytest.approx(-answer["difference"])
    assert sum(group["num_patients"] for group in answer["per_institution"].values()) == answer["num_patients"] == 8
    assert {"iou", "hd95", "nsd", "false_positive_slice_rate"} <= set(answer["metrics"])
    for expected in ("mean", "num_empty_both"):
        assert {f"{metric}_{expected}" for metric in answer["metrics"]} <= answer["models"]["a"].keys()
    assert [row["difference"] for row in answer["per_patient"]] == [
        pytest.approx(row["dice_a"] - row["dice_b"]) for row in answer["per_patient"]
    ]


def test_a_model_does_not_differ_from_its_copy(models, easy):
    answer = compare(models("one", Bright()), models("two", Bright()), easy.path)
    assert (answer["difference"], answer["ci95"], answer["p_value"]) == (0, (0, 0), 1)


def test_a_model_is_not_compared_with_itself_however_it_is_named(models, easy, tmp_path):
    one = tmp_path / models("one", Bright())
    (tmp_path / "link").symlink_to(one)
    for other in (one, tmp_path / "link", f"{one}/../{one.name}"):
        with pytest.raises(UserError, match="a model cannot be compared with itself"):
            compare(str(one), str(other), easy.path)


@pytest.fixture
def folded(tracking, easy, tiny):
    """Return a function that records a finished cross-validation of a network and returns its run id."""
    cases = easy.cases(record.id for record in easy.records)

    def record(network, *, folds=4, shift=0, experiment=tiny, drop=0, status="FINISHED"):
        rows = score_cases(Predictor(describe(tiny), network), cases[drop:]).rows
        split = Split(train=tuple(record.id for record in easy.records), val=())
        run_id = begin_run(tracking, opening_of(Setting(experiment, easy, split, tracking), "crossval", "folds"))
        tracking.log_json(run_id, OUT_OF_FOLD, [{**row, "fold": (k + shift) % folds} for k, row in enumerate(rows)])
        tracking.finish(run_id, status)
        return run_id

    return record


def test_two_cross_validations_are_compared_on_their_out_of_fold_patients(folded, models, easy, tracking, tmp_path):
    good, bad = folded(Bright()), folded(Bright(channel=0))
    comparison = compare(good, f"runs:/{bad}", report=tmp_path)
    measured = compare(models("good", Bright()), models("bad", Bright(channel=0)), easy.path)
    for key in ("difference", "ci95", "p_value", "num_patients", "per_institution", "metrics", "per_patient"):
        assert comparison[key] == measured[key], key
    assert "false_positive_slice_rate" in comparison["metrics"]
    assert comparison["warnings"] == []
    assert "run_id" not in measured, "MLflow has neither of the two"
    logged = tracking.run(comparison["run_id"])
    tags, metrics = logged.data.tags, logged.data.metrics
    assert (logged.info.status, tags["glioflow.kind"]) == ("FINISHED", "compare")
    assert (tags["glioflow.model_a"], tags["glioflow.cohort"]) == (good, easy.manifest.fingerprint)
    assert metrics["compare/dice/difference"] == pytest.approx(comparison["difference"])
    assert metrics["compare/dice/ci95_low"] == pytest.approx(comparison["ci95"][0])
    assert "8 cases, each" in tracking.download(f"runs:/{comparison['run_id']}/report/index.html").read_text()
    assert "8 cases, each predicted by models that never saw it" in (tmp_path / "index.html").read_text()


def test_what_makes_two_cross_validations_unlike_is_refused_or_said(folded, tiny, models, easy):
    one = folded(Bright())
    assert compare(one, folded(Bright(), folds=3))["warnings"] == ["A has 4 folds and B 3: they train on other numbers"]
    assert "8 of 8 cases lie in different folds" in compare(one, folded(Bright(), shift=1))["warnings"][0]
    regions = changed(tiny, target={"kind": "regions", "regions": {"WT": [1]}, "decode": {"WT": 1}})
    for other, rule in (
        (folded(Bright(), drop=1), "same patients.*8 and 7 cases, 1 only in one"),
        (folded(Bright(), experiment=regions), "one task.*tumor.*WT"),
        (folded(Bright(), status="FAILED"), "must be finished first.*FAILED; finish it with"),
        (models("single", Bright()), "never saw it.*a cross-validation, with .*single, a model"),
        ("0" * 32, "no run has the id 0000"),
    ):
        with pytest.raises(UserError, match=rule):
            compare(one, other)
    with pytest.raises(UserError, match="is a cross-validation without a model of its own"):
        evaluate(one, easy.path)
    with pytest.raises(UserError, match="leave out the cohort"):
        compare(one, one, easy.path)
    with pytest.raises(UserError, match="cannot be compared with itself"):
        compare(one, f"runs:/{one}")
    with pytest.raises(UserError, match="needs a labeled cohort"):
        compare(models("a", Bright()), models("b", Bright()))


def test_models_of_two_tasks_are_not_compared(models, easy, tiny):
    regions = {"kind": "regions", "regions": {"WT": [1]}, "decode": {"WT": 1}}
    other = models("regions", Bright(), experiment=changed(tiny, target=regions))
    with pytest.raises(UserError, match=r"compared on one task.*tumor.*WT"):
        compare(models("binary", Bright()), other, easy.path)


def test_a_cohort_prepared_for_another_model_is_refused_with_both_settings(models, easy, tiny):
    other = models("other", Bright(), experiment=changed(tiny, preprocess=[{"step": "resize", "size": 16}]))
    with pytest.raises(UserError, match="used only with the preprocessing it was made with"):
        compare(models("one", Bright()), other, easy.path)


def test_the_command_line_answers_in_json_and_writes_reports(models, easy, tmp_path, capsys):
    good, bad = models("good", Bright()), models("bad", Bright(channel=0))
    for words in (("evaluate", good), ("compare", good, bad)):
        out = tmp_path / words[0]
        app([*words, str(easy.path), "--report", str(out), "--json"], standalone_mode=False)
        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        page = (out / "index.html").read_text()
        assert answer["report"] == str(out / "index.html")
        assert easy.records[0].id in page
        assert page.count('<img src="data:image/png;base64,') >= 2
        assert not [word for word in ("http://", "https://", "<script", "<link") if word in page]


def test_the_temperature_is_chosen_with_the_threshold_and_can_be_left_alone(easy, tiny):
    cases = easy.cases(record.id for record in easy.records[:3])
    chosen, _ = choose_and_measure(Predictor(describe(tiny), Bright(channel=0)), cases)
    assert chosen.temperature > 2, "a network that is always sure and often wrong"
    fixed = changed(tiny, postprocess={"choose": False})
    kept, _ = choose_and_measure(Predictor(describe(fixed), Bright()), cases)
    assert kept.temperature == 1


@pytest.mark.parametrize("before", [1.0, 3.0])
def test_what_is_chosen_is_measured_without_running_the_network_again(easy, tiny, before):
    cases = easy.cases(record.id for record in easy.records[:3])
    warm = describe(changed(tiny, postprocess={"temperature": before}))
    network, runs = Bright(channel=0), []
    handle = network.register_forward_hook(lambda *_: runs.append(1))
    settings, rows = choose_and_measure(Predictor(warm, network), cases)
    handle.remove()
    batches = len(runs)
    again = measure(Predictor(warm.model_copy(update={"postprocess": settings}), network), cases)
    assert batches == sum(-(-len(case.image) // 16) for case in cases)
    assert [list(row) for row in rows] == [list(row) for row in again]
    assert [row["dice"] for row in rows] == pytest.approx([row["dice"] for row in again], rel=1e-3)


def test_the_bundles_temperature_is_what_probabilities_have(easy, tiny):
    case = easy.case(easy.records[0].id)
    warm = changed(tiny, postprocess={"temperature": 4.0})
    cool, hot = (Predictor(describe(one), Bright()).segment(case.image, ()) for one in (tiny, warm))
    assert hot.tumor_probability[hot.tumor_probability > 0.5].mean() < cool.tumor_probability[cool.labels > 0].mean()
    assert dice_per_case(hot.labels > 0, cool.labels > 0) == 1, "a half stays a half"


@pytest.fixture
def in_process(monkeypatch, tiny, easy, tracking):
    """Let a cross-validation run here, without a cluster, with folds whose training can be made to fail."""
    calls, failing = [], set()
    train_plan = fold_module.train_plan

    def train(plan, worker):
        calls.append(plan.split.test)
        if len(calls) in failing:
            raise RuntimeError("the power went")
        return train_plan(plan, worker)

    split = Split(train=tuple(r.id for r in easy.records), val=())
    model = {"architecture": "buda-unet", "options": {"features": [4, 8]}}
    quick = changed(tiny, model=model, training={**tiny.training.model_dump(mode="json"), "epochs": 1})
    monkeypatch.setattr(crossval_module, "open_setting", lambda *_, **__: Setting(quick, easy, split, tracking))
    monkeypatch.setattr(fold_module, "train_plan", train)
    monkeypatch.setattr(crossval_module.cluster, "map_parallel", lambda function, items, **_: map(function, items))
    return quick, calls, failing


def test_a_cross_validation_goes_on_where_it_stopped_and_predicts_everybody_once(in_process, tracking, ids, easy):
    quick, calls, failing = in_process
    failing.add(2)
    reports = []
    with pytest.raises(RuntimeError, match="the power went"):
        crossval(quick, None, folds=3, say=lambda text, part=None: reports.append(text))
    run_id = reports[-1].split('"')[1]
    assert tracking.run(run_id).info.status == "FAILED"

    done = crossval(quick, None, resume=run_id)
    assert len(calls) == 2 + 2, "the first fold is not repeated"
    assert done.run_id == run_id
    assert [row["id"] for row in done.per_patient] == ids
    assert {row["fold"] for row in done.per_patient} == {0, 1, 2}
    assert done.summary["volume_interval"] == {"level": 0.9, "unit": "px", "num_patients": 8, "available": False}
    assert "nearest_slice" in done.summary["baselines"]
    folds = [run.info.run_id for run in tracking.children("tiny", run_id) if run.info.status == "FINISHED"]
    assert [tracking.has_artifact(fold, JUDGED) for fold in folds] == [True] * 3
    run = tracking.run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["oof/dice_mean"] == pytest.approx(done.summary["dice_mean"])
    assert len(tracking.read_json(run_id, OUT_OF_FOLD)) == 8
    assert "asd" in tracking.read_json(run_id, OUT_OF_FOLD)[0]["features"]
    assert len(tracking.read_json(run_id, VOLUME_INTERVAL)["residuals"]) == 8
    summary = done.summary
    assert summary["dice_mean"] == pytest.approx(np.mean([row["dice"] for row in done.per_patient]))
    assert summary["dice_median"] == pytest.approx(np.median([row["dice"] for row in done.per_patient]))
    assert summary["dice_ci95"][0] <= summary["dice_mean"] <= summary["dice_ci95"][1]
    assert {fold["run_id"] for fold in summary["per_fold"]} == set(folds)
    assert sum(fold["num_cases"] * fold["dice_mean"] for fold in summary["per_fold"]) / 8 == pytest.approx(
        summary["dice_mean"]
    )
    page = tracking.download(summary["report"]).read_text()
    assert "3-fold cross-validation of tiny" in page
    for name, row in pick_cases(done.per_patient).items():
        assert page.index(f"{name.capitalize()}, slice by slice"), name
        film, still = (tracking.download(f"runs:/{run_id}/report/{name}{kind}.png") for kind in ("-film", ""))
        assert Image.open(film).n_frames == easy.case(row["id"]).record.shape[0]
        assert base64.b64encode(still.read_bytes()).decode() in page
    with pytest.raises(UserError, match="unfinished cross-validation"):
        crossval(quick, None, resume=run_id)


def test_the_folds_become_one_model_whose_test_patients_none_of_them_saw(in_process, tracking, easy, ids, monkeypatch):
    quick, *_ = in_process
    split = Split(train=tuple(ids[:4]), val=(ids[4],), test=tuple(ids[6:]))  # of one case the split says nothing
    monkeypatch.setattr(crossval_module, "open_setting", lambda *_, **__: Setting(quick, easy, split, tracking))
    opening = opening_of(Setting(quick, easy, split, tracking), "crossval", "of all patients")
    with open_run(tracking, opening) as of_all:
        of_all.log_json(OUT_OF_FOLD, [{"id": case_id, "fold": 0} for case_id in ids])
    with pytest.raises(UserError, match=r"must not be in the folds of an ensemble.*got 2 of 2 cases.*hold_out_test"):
        register(of_all.run_id)
    done = crossval(quick, None, folds=3, hold_out_test=True)
    with pytest.raises(UserError, match="glioflow register"):
        evaluate(done.run_id, easy.path)

    fold = done.summary["per_fold"][1]["run_id"]
    tracking.client.delete_run(fold)
    with pytest.raises(UserError, match="an ensemble needs the run of each fold; got none of fold 2 of 3"):
        register(done.run_id)
    tracking.client.restore_run(fold)
    made = register(done.run_id)
    folder = tracking.bundle_of(made)
    description = bundle.read_description(folder)
    folds = sorted(done.summary["per_fold"], key=lambda fold: fold["fold"])
    assert [fold.run_id for fold in description.folds] == [fold["run_id"] for fold in folds]
    members = [Predictor.load(tracking.find_bundle(fold["run_id"])[0]) for fold in folds]
    assert description.num_parameters == 3 * members[0].description.num_parameters
    assert description.origin.num_patients == {"train": 6, "val": 0, "test": 2}
    assert description.metrics["oof/dice_mean"] == pytest.approx(done.summary["dice_mean"])
    assert len(description.volume_interval.residuals) == 6
    image = easy.case(ids[7]).image
    averaged = np.mean([member.probabilities(image) for member in members], axis=0)
    np.testing.assert_allclose(Predictor.load(folder).probabilities(image), averaged, atol=1e-5)
    assert "3 of buda-unet" in tracking.document(made, "card.md")

    judged = evaluate(f"models:/{made.name}/{made.version}", easy.path, unseen=True)
    assert [row["id"] for row in judged["per_patient"]] == ids[6:]
    assert description.metrics["test/dice_mean"] == pytest.approx(judged["dice_mean"])
    assert judged["warnings"] == []
    assert evaluate(done.run_id, easy.path, unseen=True)["dice_mean"] == judged["dice_mean"]
    register(done.run_id)  # again: the ensemble is there


def test_a_cross_validation_goes_on_as_it_began(in_process, tracking):
    quick, _, failing = in_process
    failing.add(1)
    reports = []
    with pytest.raises(RuntimeError):
        crossval(quick, None, folds=3, say=lambda text, part=None: reports.append(text))
    run_id = reports[-1].split('"')[1]
    with pytest.raises(UserError, match=r"began with other glioflow\.folds; give its experiment, cohort and folds"):
        crossval(quick, None, folds=4, resume=run_id)
    with pytest.raises(UserError, match="no run has the id 0000"):
        crossval(quick, None, resume="0" * 32)
    assert not tracking.find_all("tiny", **{"glioflow.kind": "fold", "glioflow.fold": "3"})


def test_the_fold_that_tests_a_patient_neither_trains_nor_chooses_on_it():
    parts = [["a", "b"], ["c"], ["d", "e"], ["f"]]
    for k in range(4):
        split = fold_split(parts, k)
        assert set(split.test) == set(parts[k])
        assert not set(split.test) & {*split.train, *split.val}
        assert {*split.train, *split.val, *split.test} == set("abcdef")


def test_parts_of_one_name_that_are_other_voxels_are_not_compared():
    from glioflow.runs.analysis.compare import _check_references

    def row(core):
        counts = {"num_true_positive": 5, "num_false_negative": 1, "num_true_positive_core": core}
        return {"id": "a", **counts, "num_false_negative_core": 0}

    _check_references([row(2)], [row(2)], "models", "")
    with pytest.raises(UserError, match=r"two models must be compared against the same reference masks; got 1 case"):
        _check_references([row(2)], [row(3)], "models", "")
