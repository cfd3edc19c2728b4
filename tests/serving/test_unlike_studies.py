"""A study that the model was not trained on is answered with a warning, or refused with what to do."""

import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from in_process import Here, client, served

from bundles import Bright, changed, describe
from glioflow import bundle
from glioflow.data.checks.channel_looks import fit_channel_looks
from glioflow.data.checks.drift import fit_input_statistics
from glioflow.data.formats.detect import open_cohort
from glioflow.data.preprocessing.pipeline import preprocess
from glioflow.data.synthetic.cohort import synthesize_lgg
from glioflow.errors import UserError

CHANNELS = ("pre", "flair", "post")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("unlike") / "kaggle_3m"
    synthesize_lgg(path, patients=9, seed=0, size=48, slices=(9, 12))
    cohort = open_cohort(path)
    return [cohort.read(case.id) for case in cohort.cases]


@pytest.fixture(scope="module")
def experiment(tiny):
    return changed(tiny, preprocess=[{"step": "percentile"}, {"step": "resize", "size": 32}])


def endpoint(experiment, cases):
    images = [preprocess(case, experiment.preprocess).image for case in cases]
    settings = {
        "input_statistics": fit_input_statistics(images, CHANNELS),
        "channel_looks": fit_channel_looks(images, CHANNELS),
    }
    return client(Here(served(experiment, network=Bright(), **settings)))


def volumes(image):
    """Return (S, H, W, C) as the NIfTI files of a study."""
    files = []
    for k, name in enumerate(CHANNELS):
        data = np.ascontiguousarray(np.transpose(image[..., k], (2, 1, 0)))
        volume = nibabel.Nifti1Image(data, np.diag([1.0, 1, 3, 1]))
        files.append(("files", (f"p1_{name}.nii.gz", gzip.compress(volume.to_bytes()))))
    return files


def ask(api, image):
    return api.post("/v1/predict", files=volumes(image))


def unlike(response):
    assert response.status_code == 200, response.text
    return [
        warning for warning in response.json()["study"]["warnings"] if "unlike those of the training cohort" in warning
    ]


def test_a_study_like_those_of_the_training_has_no_warning_of_its_intensities(cohort, experiment):
    api = endpoint(experiment, cohort[:-1])
    assert not unlike(ask(api, cohort[-1].image))


@pytest.mark.parametrize("steps", ["unit", "percentile", "zscore"])
def test_inverted_intensities_are_refused_or_warned_about(cohort, tiny, steps):
    experiment = changed(tiny, preprocess=[{"step": steps}, {"step": "resize", "size": 32}])
    api = endpoint(experiment, cohort[:-1])
    response = ask(api, cohort[-1].image.max() - cohort[-1].image)
    if response.status_code == 200:
        assert unlike(response)
    else:
        assert response.status_code == 422
        assert "standard deviations of the training cohort's" in response.json()["error"]["rule"]
        assert "inverted" in response.json()["error"]["hint"]


def clipped(response):
    assert response.status_code == 200, response.text
    return [warning for warning in response.json()["study"]["warnings"] if "clipped" in warning]


def test_clipped_intensities_are_warned_about_and_those_of_a_usual_window_are_not(cohort, experiment):
    api, image = endpoint(experiment, cohort[:-1]), cohort[-1].image
    assert not clipped(ask(api, image))
    assert not clipped(ask(api, np.minimum(image, np.percentile(image, 99.5, axis=(0, 1, 2)).astype(image.dtype))))
    inside = [np.percentile(plane[plane > plane.min()], 60) for plane in np.moveaxis(image, -1, 0)]
    low = np.minimum(image, np.array(inside).astype(image.dtype))
    for one in (low, low.astype(np.float32) * np.float32(0.37)):
        warnings = clipped(ask(api, one))
        assert [warning.split()[0] for warning in warnings] == list(CHANNELS)
    only = image.copy()
    only[..., 1] = low[..., 1]
    assert [warning.split()[0] for warning in clipped(ask(api, only))] == ["flair"]


def test_the_bundle_says_from_which_distance_on_a_study_is_refused(cohort, experiment):
    inverted = cohort[-1].image.max() - cohort[-1].image
    for limit, status in ((5.0, 422), (None, 200)):
        api = endpoint(changed(experiment, entry={"max_drift": limit}), cohort[:-1])
        assert ask(api, inverted).status_code == status


def test_a_few_slices_are_warned_about_and_not_refused(cohort, experiment):
    api = endpoint(changed(experiment, entry={"max_drift": 1.0}), cohort[:-1])
    assert unlike(ask(api, (cohort[-1].image.max() - cohort[-1].image)[:3]))


@pytest.mark.parametrize("scale", [1 / 255, 16])
def test_a_range_that_the_preprocessing_cannot_take_is_refused_with_the_one_it_takes(tiny, cohort, scale):
    api = client(Here(served(tiny)))
    image = cohort[0].image.astype(np.float32) * np.float32(scale)
    error = ask(api, image).json()["error"]
    assert "0..255" in error["rule"]
    assert error["value"] == f"0 to {image.max():g}"
    assert "rescale every sequence to 0..255" in error["hint"]


def test_a_model_that_was_trained_on_images_in_0_to_1_takes_them_as_it_did(tiny, cohort, tmp_path):
    scaled = [replace(case, image=case.image / np.float32(255)) for case in cohort]
    for name, images in (("as stored", cohort), ("scaled before", scaled)):
        known = fit_input_statistics([case.image / np.float32(255) for case in images], CHANNELS)
        bundle.save(tmp_path / name, describe(tiny, input_statistics=known), {})
    steps = bundle.read_description(tmp_path / "scaled before").preprocess
    assert preprocess(scaled[0], steps[:1]).image.max() == pytest.approx(scaled[0].image.max() / 255)
    assert [step.model_dump() for step in steps] == [step.model_dump() for step in tiny.preprocess], "one cohort"
    with pytest.raises(UserError, match=r"0\.\.255"):
        preprocess(scaled[0], bundle.read_description(tmp_path / "as stored").preprocess)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_whoever_read_them(experiment, cohort, value):
    from glioflow.api.model import LoadedModel

    image = cohort[0].image.astype(np.float32)
    image[4, 10:30, 10:30] = value
    assert ask(client(Here(served(experiment))), image).status_code == 422
    model = LoadedModel({"name": "a", "version": None, "run_id": None}, served(experiment).predictor)
    with pytest.raises(UserError, match="finite"):
        model.predict(image)


def test_numbers_that_preprocessing_makes_infinite_are_refused(experiment):
    from glioflow.bundle.study_checks import check_prepared

    with pytest.raises(UserError, match="small enough to compute with"):
        check_prepared(np.full((1, 4, 4, 3), np.inf, np.float32), {}, served(experiment).predictor.description)


def test_the_golden_study_is_no_patient(experiment, cohort):
    from glioflow.promotion.golden import golden_answer

    images = [preprocess(case, experiment.preprocess).image for case in cohort]
    strict = changed(experiment, entry={"max_drift": 0.01})
    predictor = served(strict, input_statistics=fit_input_statistics(images, CHANNELS)).predictor
    assert "refused" not in golden_answer(predictor)


def swapped(response):
    assert response.status_code == 200, response.text
    return [warning for warning in response.json()["study"]["warnings"] if "under each other's names" in warning]


def test_sequences_under_each_others_names_are_warned_about_though_each_looks_usual(cohort, experiment):
    api, case = endpoint(experiment, cohort[:-1]), cohort[-1]
    assert not swapped(ask(api, case.image))
    for order in ([1, 0, 2], [2, 1, 0], [1, 2, 0]):
        assert swapped(ask(api, case.image[..., order])), order


def test_bundles_that_do_not_know_how_channels_look_answer_without_that_warning(cohort, experiment):
    api = client(Here(served(experiment, network=Bright())))
    assert not swapped(ask(api, cohort[-1].image[..., [1, 0, 2]]))
