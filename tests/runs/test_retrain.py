"""Corrections join the cohort of a champion: whose they are, where they go, and that nobody who judges trains."""

import json
from dataclasses import replace

import numpy as np
import pytest

import glioflow as gf
from bundles import describe
from glioflow import bundle
from glioflow.config import load_recorded, override
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.index import Entry
from glioflow.data.prepared.joining import Addition, join_corrections
from glioflow.data.prepared.preparation import prepare_in
from glioflow.data.preprocessing.pipeline import LabelMap
from glioflow.data.splits import Split, make_split
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import UserError
from glioflow.models import build_network
from glioflow.runs.launch import Setting, opening_of, to_yaml
from glioflow.runs.retrain import run as retrain_module
from glioflow.runs.retrain.placement import Correction, place_corrections
from glioflow.runs.retrain.recognition import recognize
from glioflow.runs.retrain.run import RETRAINS, AcceptedCorrections, retrain
from glioflow.serving.http.feedback import Correction as Sent
from glioflow.serving.http.feedback import Feedback
from glioflow.tracking import CHAMPION, Tracking, Version
from glioflow.tracking.run import begin_run

TUMOR = {1: "tumor"}


# Where corrections go, by ids alone

ENTRIES = [Entry(f"{name}_1", name, None, 5, None) for name in ("ann", "bob", "cid", "dee")]
SPLIT = Split(train=("ann_1", "bob_1"), val=("cid_1",), test=("dee_1",))


def key_of(name):
    return f"key of {name}"


def correction(name, person="eve", study=None, **facts):
    return Correction(name, key_of(person), digest=name, study=study or name, **facts)


def placed(*corrections, learned=("train",), entries=ENTRIES):
    return place_corrections(corrections, entries, SPLIT, learned=learned, key_of=key_of)


def test_a_corrected_case_of_the_cohort_keeps_its_id_its_part_and_its_person():
    done = placed(correction("c1", "ann", study="ann_1"))
    assert [(each.case, each.patient, each.part, each.replaces_mask) for each in done.used] == [
        ("ann_1", "ann", "train", True)
    ]
    assert done.split == SPLIT


def test_a_new_study_joins_the_training_side_only():
    done = placed(correction("c1"), correction("c2", "ann"))
    assert [(each.case, each.patient, each.part) for each in done.used] == [
        ("c1", "key of eve", "train"),
        ("c2", "ann", "train"),
    ]
    assert set(done.split.train) == {"ann_1", "bob_1", "c1", "c2"}
    assert (done.split.val, done.split.test) == (SPLIT.val, SPLIT.test)


@pytest.mark.parametrize("person", ["cid", "dee"])
@pytest.mark.parametrize("own", [True, False], ids=["its case", "another study"])
@pytest.mark.parametrize("named", ["the person", "the case"])
def test_whoever_judges_never_trains(person, own, named):
    done = placed(
        correction("c1", f"{person}_1" if named == "the case" else person, study=f"{person}_1" if own else None)
    )
    assert done.used == []
    assert done.split == SPLIT
    assert "never train" in done.unused[0].why


def test_a_person_who_judges_is_known_by_images_whatever_name_was_typed():
    twin, other = correction("c1", "somebody", study="dee_1"), correction("c2", "somebody")
    assert placed(other, twin).used == []
    again = correction("c3", "yet another", study="c2")
    assert placed(other, twin, again).used == []


@pytest.mark.parametrize("name", ["TCGA_CS_4941", "TCGA-CS-4941", "TCGA_CS_4941_19960909"])
def test_a_person_who_judges_is_known_by_each_spelling_of_their_name(name):
    judge = Entry("TCGA_CS_4941_19960909", "TCGA_CS_4941", None, 5, None)
    split = Split(train=("ann_1",), val=("cid_1",), test=(judge.id,))
    done = place_corrections([correction("c1", name)], [*ENTRIES, judge], split, learned=("train",), key_of=key_of)
    assert done.used == []
    assert "never train" in done.unused[0].why


def test_validation_patients_of_a_final_training_learn_from_corrections_too():
    done = placed(correction("c1", "cid", study="cid_1"), correction("c2", "cid"), learned=("train", "val"))
    assert [(each.case, each.part) for each in done.used] == [("cid_1", "val"), ("c2", "val")]
    assert set(done.split.val) == {"cid_1", "c2"}


def test_corrections_of_one_person_under_the_names_of_two_patients_are_left_out():
    done = placed(correction("c1", "ann", study="bob_1"), correction("c2", "ann"), correction("c3"))
    assert [each.id for each in done.used] == ["c3"]
    assert all("several patients of the cohort: ann, bob" in each.why for each in done.unused)


def test_two_names_of_a_new_person_are_one_patient():
    done = placed(correction("c1", "eve"), correction("c2", "eva", study="c1"), correction("c3", "eva"))
    assert [each.id for each in done.used] == ["c2", "c3"]
    assert len({each.patient for each in done.used}) == 1
    assert "c2 is a later correction" in done.unused[0].why


def test_the_last_correction_of_a_study_counts_and_a_known_mask_is_not_new():
    done = placed(correction("c1", "ann", study="ann_1"), correction("c2", "ann", study="ann_1", known=True))
    assert done.used == []
    assert [each.why.split()[0] for each in done.unused] == ["c2", "the"]


def test_a_case_that_had_no_mask_trains_once_it_has_one():
    entries = [*ENTRIES, Entry("fay_1", "fay", None, None, None)]
    done = placed(correction("c1", "fay", study="fay_1"), entries=entries)
    assert [(each.case, each.part, each.replaces_mask) for each in done.used] == [("fay_1", "train", True)]
    assert "fay_1" in done.split.train


# What their arrays become


@pytest.fixture
def feedback(home):
    return Feedback()


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    path = tmp_path_factory.mktemp("others") / "kaggle_3m"
    synthesize_lgg(path, patients=2, seed=9, size=48, slices=(5, 5))
    return open_cohort(path)


def corrected(case, mask=None):
    grown = case.mask.copy()
    grown[1, :4, :4] = 1
    return replace(case, mask=grown if mask is None else mask)


def sent(feedback, case, patient, **facts):
    return feedback.accept(feedback.take(case, patient, **facts)).name


def recognized(feedback, base, home):
    accepted = [(cohort, case) for cohort in feedback.accepted_cohorts() for case in cohort.cases]
    return recognize(accepted, base, names=TUMOR, home=home / "prepared")


def test_a_correction_of_a_cohorts_own_case_is_recognized_by_its_images(feedback, lgg, prepared, home):
    raw = open_cohort(lgg)
    name = sent(feedback, corrected(raw.read(raw.cases[3].id)), "whatever was typed")
    found = recognized(feedback, prepared, home)
    assert [(each.id, each.study, each.known) for each in found.corrections] == [(name, raw.cases[3].id, False)]


def test_an_image_that_a_file_has_rounded_is_recognized_and_another_one_is_not(feedback, lgg, others, prepared, home):
    raw = open_cohort(lgg)
    case, other = raw.read(raw.cases[2].id), others.read(others.cases[0].id)
    for each in (case, other):
        shift = np.random.default_rng(0).normal(0, 0.01, each.image.shape)
        sent(feedback, replace(each, image=(each.image + shift).clip(0, 255).astype(np.float32)), "x")
    assert [each.study == case.id for each in recognized(feedback, prepared, home).corrections] == [True, False]


def test_volumes_are_recognized_whatever_the_order_of_their_channels_and_the_type_of_their_files(
    feedback, lgg, prepared, home
):
    raw = open_cohort(lgg)
    case = raw.read(raw.cases[2].id)
    turned = replace(case, image=case.image[..., ::-1], channels=case.channels[::-1])  # this is no LGG slice any more
    sent(feedback, corrected(turned), case.patient)
    assert [cohort.format for cohort in feedback.accepted_cohorts()] == ["nifti"]
    found = recognized(feedback, prepared, home)
    assert [each.study for each in found.corrections] == [case.id]
    np.testing.assert_array_equal(next(iter(found.cases.values())).reference(), corrected(case).mask)


def test_corrections_for_another_model_are_left_out_with_the_reason(feedback, lgg, prepared, home):
    raw = open_cohort(lgg)
    case = raw.read(raw.cases[0].id)
    sent(feedback, replace(case, image=case.image[..., :2], channels=("pre", "flair")), "two channels")
    sent(feedback, case, "two labels", labels={1: "core", 2: "edema"})
    found = recognized(feedback, prepared, home)
    assert found.corrections == []
    assert sorted(each.why.split(";")[0] for each in found.unused) == [
        "a correction must have the channels of the cohort: pre, flair, post",
        "its labels mean 1 core, 2 edema, not 1 tumor",
    ]


def test_the_joined_cohort_has_the_new_masks_and_cases_and_all_else_as_it_was(feedback, lgg, others, prepared, home):
    raw = open_cohort(lgg)
    own, new = raw.read(raw.cases[3].id), others.read(others.cases[0].id)
    sent(feedback, corrected(own), own.patient)
    name = sent(feedback, corrected(new), new.patient)
    found = recognized(feedback, prepared, home)
    study = {each.id: each.study for each in found.corrections}
    additions = [
        Addition(case, "d" * 32, "its patient", study[case_id] if study[case_id] != case_id else None)
        for case_id, case in found.cases.items()
    ]
    joined = join_corrections(prepared, additions, home=home / "prepared")
    assert {entry.id for entry in joined.entries()} == {*prepared.records.ids(), name}
    np.testing.assert_array_equal(joined.case(own.id).reference(), corrected(own).mask)
    np.testing.assert_array_equal(joined.case(name).reference(), corrected(new).mask)
    assert joined.case(name).record.patient == "its patient"
    for record in prepared.records:
        before, now = prepared.case(record.id), joined.case(record.id)
        np.testing.assert_array_equal(now.image, before.image)
        if record.id != own.id:
            assert now.record == before.record
            np.testing.assert_array_equal(now.mask, before.mask)
    assert (joined.case(own.id).mask != prepared.case(own.id).mask).any()
    assert prepared.case(own.id).reference().sum() == own.mask.sum(), "the cohort itself stays as it is"
    again = join_corrections(prepared, additions, home=home / "prepared")
    assert again.path == joined.path
    assert PreparedCohort(joined.path).manifest.judged_by == prepared.manifest.source_fingerprint


def test_a_correction_that_is_in_the_cohort_already_is_known(feedback, lgg, others, prepared, home):
    raw = open_cohort(lgg)
    sent(feedback, raw.read(raw.cases[1].id), "nothing was changed")
    sent(feedback, corrected(others.read(others.cases[0].id)), "new")
    first = recognized(feedback, prepared, home)
    assert sorted(each.known for each in first.corrections) == [False, True]
    new = next(each for each in first.corrections if not each.known)
    joined = join_corrections(prepared, [Addition(first.cases[new.id], new.digest, new.key)], home=home / "prepared")
    assert all(each.known for each in recognized(feedback, joined, home).corrections)


def test_two_corrections_of_one_new_study_are_of_the_first_ones_study(feedback, others, prepared, home):
    case = others.read(others.cases[0].id)
    first, second = sent(feedback, case, "eve"), sent(feedback, corrected(case), "eva")
    found = recognized(feedback, prepared, home)
    assert {each.study for each in found.corrections} in ({first}, {second})
    assert [each.known for each in found.corrections] == [False, False]


def test_of_two_cases_of_one_name_only_one_is_used(feedback, lgg, prepared, home):
    raw = open_cohort(lgg)
    case, other = raw.read(raw.cases[0].id), raw.read(raw.cases[1].id)
    first = feedback.accept(feedback.take(case, "x"))
    second = feedback.accept(feedback.take(replace(other, image=other.image.astype(np.float32)), "x"))
    for path in second.iterdir():  # as earlier versions named it
        path.rename(path.with_name(path.name.replace(second.name, first.name)))
    second.rename(second.with_name(first.name))
    found = recognized(feedback, prepared, home)
    assert [each.study for each in found.corrections] == [case.id]
    assert [each.why.split(";")[0] for each in found.unused] == ["another accepted case has its name"]


def test_renamed_labels_are_not_renamed_again(feedback, lgg, tiny, home):
    raw = open_cohort(lgg)
    steps = [*tiny.preprocess, LabelMap(map={1: 2, 2: 1})]
    base = prepare_in(raw, steps, home=home / "prepared")
    sent(feedback, corrected(raw.read(raw.cases[0].id)), "anybody")
    case = next(iter(recognized(feedback, base, home).cases.values()))
    assert np.unique(case.reference()).tolist() == [0, 1], "a model's mask holds the labels as its target has them"


def test_who_corrected_and_when_is_kept_with_an_accepted_mask_and_not_among_the_cases(feedback, lgg, home):
    raw = open_cohort(lgg)
    entry = feedback.take(raw.read(raw.cases[0].id), "x", correction=Sent(reader="Dr. Who", version=3))
    path = feedback.accept(entry)
    record = json.loads((feedback.folder / "corrections" / f"{path.name}.json").read_text())
    assert (record["reader"], record["version"], record["id"]) == ("Dr. Who", 3, entry)
    assert feedback.accepted_at(path.name) >= record["received"]
    assert not list(feedback.accepted.rglob("*.json"))


# The whole verb


def test_without_an_accepted_correction_nothing_begins(tracking, monkeypatch):
    champion = Version("m", 1, "0" * 32, ("champion",), {}, "")
    monkeypatch.setattr(type(tracking), "version", lambda *_, **__: champion)
    with pytest.raises(UserError, match="no correction was accepted; accept one with `glioflow feedback accept ID`"):
        retrain("m", AcceptedCorrections([], key_of))


def test_a_champion_that_no_training_made_is_not_retrained(tracking, monkeypatch, lgg):
    run_id = tracking.start("x", "x", tags={"glioflow.kind": "survival"})
    monkeypatch.setattr(type(tracking), "version", lambda *_, **__: Version("m", 1, run_id, ("champion",), {}, ""))
    cohort = open_cohort(lgg)
    with pytest.raises(UserError, match="only a champion from a training can be retrained; got survival"):
        retrain("m", AcceptedCorrections([(cohort, cohort.cases[0])], key_of))


@pytest.fixture
def champion(tracking, tiny, prepared, tmp_path):
    """Return a function that makes the bundle of a run of some kind the champion of `m`."""

    def make(kind):
        setting = Setting(tiny, prepared, make_split(prepared.records, tiny.split), tracking)
        run_id = begin_run(tracking, opening_of(setting, kind, kind))
        weights = build_network(tiny.model, in_channels=3, num_outputs=1).state_dict()
        bundle.save(tmp_path / "bundle", describe(tiny), weights)
        made = tracking.register("m", run_id, tmp_path / "bundle", tags={})
        tracking.set_alias("m", CHAMPION, made.version)

    return make


@pytest.mark.parametrize("kind", ["train", "crossval"])
def test_corrections_that_change_nothing_train_nothing(champion, feedback, lgg, kind):
    champion(kind)
    raw = open_cohort(lgg)
    sent(feedback, raw.read(raw.cases[0].id), raw.cases[0].patient)
    with pytest.raises(UserError, match="no accepted correction is new to m version 1"):
        gf.retrain("m")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"overrides": ["target.kind=multiclass", "target.labels=[1]"]}, "must keep target"),
        ({"overrides": ["preprocess=[{step: unit}]"]}, "must keep preprocess"),
        ({"overrides": ["training.batch_size=3", "training.num_workers=2"]}, "must be a multiple"),
        ({"resume": "0" * 32}, "0" * 32),
    ],
    ids=str,
)
def test_what_a_retraining_cannot_do_is_said_before_it_begins(champion, feedback, lgg, options, rule):
    champion("train")
    raw = open_cohort(lgg)
    sent(feedback, corrected(raw.read(raw.cases[0].id)), raw.cases[0].patient)
    with pytest.raises(UserError, match=rule):
        gf.retrain("m", **options)


def test_an_ensemble_has_no_weights_to_begin_with(champion, feedback, lgg):
    champion("crossval")
    raw = open_cohort(lgg)
    sent(feedback, corrected(raw.read(raw.cases[0].id)), raw.cases[0].patient)
    with pytest.raises(UserError, match="warm needs a champion of one network"):
        gf.retrain("m", warm=True)


class Begins(Exception):  # noqa: N818 - what it is
    """Raised in place of a start of Ray, with the experiment that was to be trained."""


@pytest.fixture
def begins(monkeypatch):
    def connect_for(experiment, tracking):
        raise Begins(experiment)

    monkeypatch.setattr(retrain_module, "connect_for", connect_for)


@pytest.mark.parametrize("warm", [False, True])
def test_only_a_warm_retraining_begins_with_weights_of_a_champion(
    champion, feedback, lgg, tracking, begins, home, warm
):
    champion("train")
    run_id, before = tracking.version("m").run_id, home / "starts" / "0.safetensors"
    tracking.set_tags(run_id, {RETRAINS: "0" * 32})
    experiment = load_recorded(tracking.download(f"runs:/{run_id}/experiment.yaml"))
    tracking.log_text(run_id, "experiment.yaml", to_yaml(override(experiment, {"training.start": str(before)})))
    raw = open_cohort(lgg)
    sent(feedback, corrected(raw.read(raw.cases[0].id)), raw.cases[0].patient)
    with pytest.raises(Begins) as begun:
        gf.retrain("m", warm=warm)
    start = begun.value.args[0].training.start
    assert start != str(before)
    assert (start is not None) == warm


def test_a_training_whose_bundle_was_half_sent_goes_on(champion, tracking, tiny, prepared, begins):
    champion("train")
    setting = Setting(tiny, prepared, make_split(prepared.records, tiny.split), tracking)
    run_id = begin_run(tracking, opening_of(setting, "train", "x", tags={RETRAINS: tracking.version("m").run_id}))
    tracking.log_text(run_id, "corrections.json", "[]")
    tracking.log_text(run_id, "bundle/model.json", "{}")
    tracking.finish(run_id, "KILLED")
    with pytest.raises(Begins):
        gf.retrain("m", resume=run_id)


def test_an_ensemble_becomes_an_ensemble_again_and_this_is_said_before_it_begins(champion, feedback, lgg, begins):
    champion("crossval")
    raw = open_cohort(lgg)
    sent(feedback, corrected(raw.read(raw.cases[0].id)), raw.cases[0].patient)
    lines: list[str] = []
    with pytest.raises(Begins):
        gf.retrain("m", say=lambda text, part=None: lines.append(text))
    assert "the champion is an ensemble of 5 folds: 5 networks are trained, and become an ensemble again" in lines


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_ensemble_learns_from_corrections_in_each_fold_but_one_and_never_from_the_test_patients(
    lgg, others, tiny, feedback, home
):
    made = gf.crossval(tiny, lgg, folds=3, hold_out_test=True)
    gf.register(made, name="glioma")
    tracking = Tracking()
    tracking.set_alias("glioma", CHAMPION, 1)
    raw, split = open_cohort(lgg), Split(**tracking.read_json(made.run_id, "split.json"))
    own, judge = raw.read(split.val[0]), raw.read(split.test[0])
    ids = [
        sent(feedback, corrected(own), own.patient),
        sent(feedback, corrected(judge), judge.patient),
        sent(feedback, corrected(others.read(others.cases[0].id)), "Jane Doe"),
    ]
    done = gf.retrain("glioma")
    assert (done.version, done.networks) == (2, 3)
    assert "an ensemble of 3 folds as the champion" in done.tables()[-1].title
    assert {(each.id, each.case) for each in done.used} == {(ids[0], own.id), (ids[2], ids[2])}
    made = next(version for version in tracking.versions("glioma") if version.version == 2)
    folds = bundle.read_description(tracking.bundle_of(made)).folds
    trained = [Split(**tracking.read_json(fold.run_id, "split.json")) for fold in folds]
    assert len(trained) == 3
    for case_id in (own.id, ids[2]):
        assert sum(case_id in fold.train for fold in trained) == 1, "of three folds one trains, one chooses, one tests"
    for fold in trained:
        assert not {*split.test} & {*fold.train, *fold.val, *fold.test}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_champion_learns_from_corrections_and_comes_before_the_gate(lgg, others, tiny, feedback, home):
    run = gf.train(tiny, lgg)
    gf.register(run, name="glioma")
    gf.promote("glioma")
    tracking = Tracking()
    tracking.set_alias("glioma", CHAMPION, 1)  # two steps of training pass no gate
    raw, split = open_cohort(lgg), Split(**tracking.read_json(run.run_id, "split.json"))
    own, judge = raw.read(split.train[0]), raw.read(split.test[0])
    ids = [
        sent(feedback, corrected(own), own.patient, correction=Sent(reader="Dr. Who", version=1)),
        sent(feedback, corrected(judge), judge.patient),
        sent(feedback, corrected(others.read(others.cases[0].id)), "Jane Doe"),
    ]
    lines: list[str] = []
    done = gf.retrain("glioma", warm=True, say=lambda text, part=None: lines.append(text))
    assert (done.version, done.previous) == (2, 1)
    assert {(each.id, each.case) for each in done.used} == {(ids[0], own.id), (ids[2], ids[2])}
    assert [each.id for each in done.unused] == [ids[1]]
    after = Split(**tracking.read_json(done.run_id, "split.json"))
    assert (after.val, after.test) == (split.val, split.test)
    assert set(after.train) == {*split.train, ids[2]}
    logged, tags = tracking.read_json(done.run_id, "corrections.json"), tracking.run(done.run_id).data.tags
    assert {each["id"] for each in logged} == {ids[0], ids[2]}
    assert tags["glioflow.retrains"] == run.run_id
    for secret in ("Who", "Jane"):
        assert secret not in json.dumps([logged, tags, lines])
    used = next(reason for reason in done.reasons if reason.rule.startswith("times that these test patients"))
    assert used.value == 1, "the gate counts on, though the cohort is another one"
    assert any("the same test patients" in reason.note for reason in done.reasons)
    if done.decision == "rejected":  # what was interrupted after its training is not trained again
        again = gf.retrain("glioma", resume=done.run_id)
        assert (again.run_id, again.version, again.used) == (done.run_id, 2, done.used)
