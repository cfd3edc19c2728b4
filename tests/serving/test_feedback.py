"""Corrected masks: token, quota, a pseudonym, quarantine, and then a labeled case for the next training."""

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from in_process import Here, client, served

from glioflow.data.formats.detect import open_cohort
from glioflow.errors import UserError
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.settings import ServeSettings, digest_of

TOKEN = {"Authorization": "Bearer t"}


@pytest.fixture
def case_files(lgg):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    return [("files", (path.name, path.read_bytes())) for path in sorted(folder.iterdir())]


@pytest.fixture
def api(tiny):
    return client(Here(served(tiny)), ServeSettings(token_sha256=digest_of("t"), feedback_per_day=3))


def post(api, files, patient="John Doe, 1950", **options):
    return api.post("/v1/feedback", files=files, data={"patient": patient}, headers=TOKEN, **options)


def test_without_a_token_set_nobody_may_send(tiny, case_files):
    response = client(Here(served(tiny))).post("/v1/feedback", files=case_files, data={"patient": "x"})
    assert response.status_code == 401
    error = response.json()["error"]
    assert error["code"] == "takes-none"
    assert "start it with --token" in error["hint"]


def test_an_accepted_mask_is_a_labeled_case_that_readers_read(api, case_files, lgg, home):
    response = post(api, case_files)
    assert response.status_code == 202, response.text
    assert response.json()["state"] == "quarantine"
    feedback = Feedback()
    assert not feedback.accepted.exists(), "nothing is learned from before somebody accepts it"
    target = feedback.accept(response.json()["id"])
    cohort = open_cohort(target.parent)
    case = cohort.read(cohort.cases[0].id)
    original = open_cohort(lgg)
    truth = original.read(original.cases[0].id)
    np.testing.assert_array_equal(case.mask, truth.mask)
    np.testing.assert_array_equal(case.image, truth.image)
    assert feedback.entries() == []


def test_one_person_has_one_key_and_nobody_can_read_it(api, case_files, home):
    ids = [post(api, case_files, patient).json()["id"] for patient in ("John Doé", " John Doe\u0301 ", "Jane Roe")]
    feedback = Feedback()
    for entry in ids:
        feedback.accept(entry)
    cases = open_cohort(feedback.accepted / "lgg").cases
    assert len(cases) == 3
    assert len({case.patient for case in cases}) == 2
    everything = " ".join(str(path) for path in home.rglob("*")) + " ".join(
        path.read_text(errors="ignore") for path in home.rglob("*") if path.is_file()
    )
    for word in ("John", "Jane", "TCGA"):
        assert word not in everything
    assert (feedback.folder / "patient.key").stat().st_mode & 0o077 == 0


def test_the_quota_of_a_day_is_kept(api, case_files):
    assert [post(api, case_files).status_code for _ in range(4)] == [202, 202, 202, 429]


def test_a_study_without_a_mask_and_a_mask_of_another_size_are_refused(api, case_files):
    images = [file for file in case_files if "_mask" not in file[1][0]]
    assert "a mask beside every image" in post(api, images).json()["error"]["rule"]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((8, 8), np.uint8))
    wrong = [("files", (name, buffer.getvalue() if "_mask" in name else content)) for _, (name, content) in case_files]
    assert post(api, wrong).status_code == 422
    assert Feedback().entries() == []


def test_volumes_come_back_on_their_own_grid(tmp_path, home):
    import nibabel

    from glioflow.data.formats.study import read_study

    affine = np.diag([-1.0, -2.0, 3.0, 1.0])
    volume = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "doe_flair.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 0).astype(np.uint8), affine), tmp_path / "doe_mask.nii.gz")
    case = read_study([tmp_path / "doe_flair.nii.gz", tmp_path / "doe_mask.nii.gz"])
    feedback = Feedback()
    target = feedback.accept(feedback.take(case, "doe"))
    cohort = open_cohort(target.parent)
    again = cohort.read(cohort.cases[0].id)
    np.testing.assert_array_equal(again.mask, case.mask)
    np.testing.assert_allclose(again.image, case.image)
    np.testing.assert_allclose(again.grid.affine, affine)
    assert again.channels == ("flair",)


def test_what_is_not_there_is_named_with_what_is(api, case_files, home):
    entry = post(api, case_files).json()["id"]
    feedback = Feedback()
    for wrong in ("000000000000", "../../etc", ""):
        with pytest.raises(UserError) as caught:
            feedback.accept(wrong)
        assert caught.value.choices == [entry]
    feedback.reject(entry)
    assert feedback.entries() == []


def test_the_command_line_lists_accepts_and_rejects(api, case_files, home, capsys, monkeypatch):
    from glioflow.cli import main

    first, second = (post(api, case_files).json()["id"] for _ in range(2))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["glioflow", "feedback", *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return json.loads(capsys.readouterr().out)

    assert {entry["id"] for entry in run("list")["feedback"]} == {first, second}
    assert "accepted" in run("accept", first)["path"]
    assert run("reject", second) == {"rejected": second}
    assert run("list") == {"feedback": []}


LABELS = {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}


BRATS = {each: each for each in ("flair", "t1", "t1ce", "t2")}
BIDS = {"t2": "T2w", "t1": "T1w", "t1ce": "ce-gadolinium_T1w", "flair": "FLAIR"}


def volumes(tmp_path, *, name="doe", values=(0, 1, 2, 4), mask="seg", channels=BRATS):
    import nibabel

    rng = np.random.default_rng(0)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    files = []
    for channel in channels.values():
        image = nibabel.Nifti1Image(rng.normal(size=(7, 6, 5)).astype(np.float32), affine)
        files.append(("files", (f"{name}_{channel}.nii", image.to_bytes())))
    labels = np.resize(np.array(values, np.uint8), (7, 6, 5))
    return [*files, ("files", (f"{name}_{mask}.nii", nibabel.Nifti1Image(labels, affine).to_bytes()))], labels


@pytest.fixture
def brats_api(tiny):
    from bundles import ORIGIN, changed

    regions = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    experiment = changed(
        tiny,
        target={"kind": "regions", "regions": regions, "decode": {"WT": 2, "TC": 1, "ET": 4}},
        preprocess=[{"step": "zscore"}],
    )
    settings = {"channels": ("flair", "t1", "t1ce", "t2"), "network_channels": ("flair", "t1", "t1ce", "t2")}
    origin = ORIGIN.model_copy(update={"cohort_format": "brats"})
    return client(Here(served(experiment, origin=origin, **settings)), ServeSettings(token_sha256=digest_of("t")))


@pytest.mark.parametrize("mask", ["seg", "mask"])
def test_a_corrected_mask_of_several_labels_is_read_back_with_all_of_them(brats_api, tmp_path, mask):
    files, labels = volumes(tmp_path, mask=mask)
    response = post(brats_api, files)
    assert response.status_code == 202, response.text
    feedback = Feedback()
    target = feedback.accept(response.json()["id"])
    cohort = open_cohort(target.parent)
    case = cohort.read(cohort.cases[0].id)
    assert cohort.labels == LABELS
    np.testing.assert_array_equal(case.grid.to_file(case.mask), labels)
    assert set(case.channels) == {"flair", "t1", "t1ce", "t2"}


def test_a_correction_is_kept_under_the_models_names_since_no_training_takes_others(brats_api, tmp_path):
    import nibabel

    files, _ = volumes(tmp_path, name="sub-01", channels={**BIDS, "dwi": "dwi"})
    response = post(brats_api, files)
    assert response.status_code == 202, response.text
    target = Feedback().accept(response.json()["id"])
    case = open_cohort(target.parent).read(target.name)
    assert set(case.channels) == set(BRATS)
    for channel, (_, (_, content)) in zip(BIDS, files, strict=False):
        sent = nibabel.Nifti1Image.from_bytes(content).get_fdata(dtype=np.float32)
        np.testing.assert_array_equal(case.grid.to_file(case.image[..., case.channels.index(channel)]), sent)


def test_a_label_that_the_model_does_not_know_is_refused(brats_api, tmp_path):
    error = post(brats_api, volumes(tmp_path, values=(0, 1, 3))[0])
    assert error.status_code == 422
    assert "[0, 1, 2, 4]" in error.json()["error"]["rule"]
    assert Feedback().entries() == []


def test_a_study_without_one_of_the_models_sequences_is_refused_since_no_training_could_use_it(brats_api, tmp_path):
    error = post(brats_api, volumes(tmp_path)[0][1:])
    assert error.status_code == 422
    assert "must have the model's channels, flair, t1, t1ce, t2" in error.json()["error"]["rule"]
    assert Feedback().entries() == []


def test_one_person_accepted_twice_is_one_patient_in_volumes_too(brats_api, tmp_path):
    feedback = Feedback()
    for patient in ("John Doe", "John Doe", "Jane Roe"):
        target = feedback.accept(post(brats_api, volumes(tmp_path)[0], patient).json()["id"])
    cases = open_cohort(target.parent).cases
    assert (len(cases), len({case.patient for case in cases})) == (3, 2)


def test_an_accepted_case_replaces_none_after_another_was_taken_away(api, case_files):
    import shutil

    feedback = Feedback()
    first, second = (feedback.accept(post(api, case_files).json()["id"]) for _ in range(2))
    shutil.rmtree(first)
    third = feedback.accept(post(api, case_files).json()["id"])
    assert third not in (first, second)
    assert len(open_cohort(second.parent).cases) == 2


def test_accepted_cases_of_one_person_have_unlike_names_whatever_kind_of_files_they_are(api, lgg):
    case, feedback = open_cohort(lgg).read(open_cohort(lgg).cases[0].id), Feedback()
    targets = [
        feedback.accept(feedback.take(each, "a")) for each in (case, replace(case, image=case.image.astype(np.float32)))
    ]
    assert targets[0].parent != targets[1].parent
    assert targets[0].name != targets[1].name


def test_labels_of_two_meanings_are_two_cohorts(api, lgg):
    case = open_cohort(lgg).read(open_cohort(lgg).cases[0].id)
    feedback = Feedback()
    meanings = ({1: "edema", 2: "core"}, {1: "core", 2: "edema"}, {1: "edema", 2: "core"})
    places = [feedback.accept(feedback.take(case, "a", labels)).parent for labels in meanings]
    assert places[0] == places[2] != places[1]
    assert [open_cohort(folder).labels for folder in places[:2]] == [*meanings[:2]]


def test_gateways_that_make_the_key_of_patients_at_once_make_one(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / str(number)))
            assert len(set(pool.map(lambda _: Feedback().key_of("Anna"), range(8)))) == 1


def test_the_quota_holds_for_many_posts_at_once_and_after_a_rejection(tiny, case_files):
    from concurrent.futures import ThreadPoolExecutor

    api = client(Here(served(tiny)), ServeSettings(token_sha256=digest_of("t"), feedback_per_day=5))
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: post(api, case_files), range(24)))
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * 19
    assert "Retry-After" in next(answer for answer in answers if answer.status_code == 429).headers
    feedback = Feedback()
    for entry in feedback.entries():
        feedback.reject(entry["id"])
    assert post(api, case_files).status_code == 429
