"""A loaded model answers about a study in whatever form it comes, and as the command line and the endpoint do."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import tifffile

import glioflow as gf
from bundles import describe
from commands import answer_of
from data.dicom_series import write_series
from glioflow import bundle
from glioflow.api.client import Client
from glioflow.api.model import LoadedModel, ServedModel
from glioflow.bundle.prediction import Predictor
from glioflow.data.formats.study import read_study
from glioflow.models import build_network
from serving.page_endpoint import endpoint


@pytest.fixture(scope="module")
def model(model_folder: Path) -> gf.Model:
    return gf.load(model_folder)


@pytest.fixture(scope="module")
def url(tiny: Any, model_folder: Path) -> Any:
    loaded = bundle.load(model_folder)
    with endpoint(describe(tiny), loaded.network) as address:
        yield address


def measured(answer: Any) -> dict[str, Any]:
    """Return what an answer says of a study, without the time it took and who gave it."""
    json_ = dict(answer if isinstance(answer, dict) else answer.to_json())
    return {key: json.loads(json.dumps(json_[key])) for key in ("study", "tumor", "uncertainty", "features", "mask")}


def test_an_answer_holds_the_mask_in_the_studys_geometry_and_what_was_measured_in_it(model, study, images):
    answer = model.predict(study)
    assert answer.id == study.name
    assert answer.mask.shape == (len(images), 48, 48)
    assert answer.mask.dtype == np.uint8
    assert answer.features["volume_px"] == np.count_nonzero(answer.mask) > 0
    assert answer.survival is None
    assert answer.tumor["detected"]
    assert answer.probability.shape == answer.mask.shape
    assert answer.labels == {1: "tumor"}
    assert study.name in repr(answer)


def test_every_form_of_a_study_gets_the_same_answer(model, study, images, tmp_path):
    whole = model.predict(study)
    packed = tmp_path / "study.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in study.iterdir():
            archive.write(path, path.name)
    array = np.stack([tifffile.imread(path) for path in images])
    forms = {"files": images, "case": read_study([study]), "zip": packed, "array": array, "text": str(study)}
    forms["as they are found"] = study.glob("*.tif")
    for name, form in forms.items():
        np.testing.assert_array_equal(model.predict(form).mask, whole.mask, err_msg=name)
    assert "masks among the files were not looked at" in " ".join(model.predict(packed).warnings)


def test_a_lone_slice_is_an_array_of_height_width_and_channels(model, images):
    plane = tifffile.imread(images[2])
    assert model.predict(plane).mask.shape == (1, 48, 48)
    np.testing.assert_array_equal(model.predict(plane).mask, model.predict(images[2]).mask)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"clinical": 45}, r"clinical must be values by column name, such as \{'age_years': 45\}; got 45 of type int$"),
        ({"clinical": pandas.Series({"age_years": 45})}, r"got age_years 45 .*Series; dict\(row\) makes them"),
        ({"spacing_mm": 3}, "spacing_mm must be a list, each a number; got 3"),
        ({"spacing_mm": ("1", "1", "1")}, "spacing_mm must be a list, each a number"),
        ({"channels": "flair"}, "channels must be a list, each a text; got 'flair'"),
    ],
)
def test_what_goes_with_a_study_is_refused_with_the_argument_and_what_it_must_be(model, given, expected):
    with pytest.raises(gf.UserError, match=expected):
        model.predict(np.zeros((1, 48, 48, 3), np.uint8), **given)


@pytest.mark.parametrize(
    ("path", "expected"), [(None, "path must be a path; got None$"), ("", "path must not be empty")]
)
def test_a_mask_is_not_saved_at_what_is_no_path(model, study, path, expected):
    with pytest.raises(gf.UserError, match=expected):
        model.predict(study).save(path)


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"channels": ["flair"]}, "gf.predict_studies takes channels"), ({"spacing_mm": (2.0, 1.0, 1.0)}, "leave it out")],
)
def test_what_describes_an_array_is_refused_for_files_which_describe_themselves(model, study, options, hint):
    with pytest.raises(gf.UserError, match=rf"{next(iter(options))} is only for an array; got a study .*; {hint}"):
        model.predict(study, **options)


def test_an_arrays_spacing_gives_volumes_in_millimeters(model, images):
    array = np.stack([tifffile.imread(path) for path in images])
    answer = model.predict(array, spacing_mm=(2.0, 1.0, 1.0))
    assert answer.features["volume_mm3"] == 2 * answer.features["volume_px"]


@pytest.mark.parametrize(
    ("array", "rule"),
    [
        (np.zeros((4, 4), np.uint8), r"\(S, H, W, 3\)"),
        (np.zeros((2, 4, 4, 2), np.uint8), "pre, flair, post"),
        (np.full((2, 4, 4, 3), np.nan), "finite"),
        (np.zeros((2, 4, 4, 3), np.complex64), "real numbers"),
    ],
    ids=["a plane", "two channels", "nan", "complex"],
)
def test_an_array_that_is_no_study_is_refused_with_the_shape_that_is(model, array, rule):
    with pytest.raises(gf.UserError, match=rule):
        model.predict(array)


def test_the_command_line_the_endpoint_and_the_api_answer_alike(model_folder, model, url, study, tmp_path):
    here, there = model.predict(study), gf.load(url).predict(study)
    _, done = answer_of("predict", str(model_folder), str(study), "--out", str(tmp_path / "out"))
    (written,) = done["studies"]
    on_disk = json.loads(Path(written["answer"]).read_text())
    assert measured(here) == measured(there) == measured(on_disk)
    np.testing.assert_array_equal(here.mask, there.mask)
    assert there.model == {"name": "demo", "version": 3, "run_id": "r"}


def test_an_endpoint_is_sent_arrays_as_files(url, model, images):
    array = np.stack([tifffile.imread(path) for path in images])
    for spacing in (None, (3.0, 1.0, 1.0)):
        there = gf.load(url).predict(array, spacing_mm=spacing)
        np.testing.assert_array_equal(there.mask, model.predict(array, spacing_mm=spacing).mask)
    with pytest.raises(gf.UserError, match="spacing_mm"):
        gf.load(url).predict(array.astype(np.float32))


def test_several_models_are_an_ensemble_by_commas_or_as_a_list(model_folder, model, study, tmp_path):
    twin = shutil.copytree(model_folder, tmp_path / "model")
    alone, both = model.predict(study), gf.load([model_folder, twin]).predict(study)
    np.testing.assert_array_equal(both.mask, alone.mask)
    assert both.uncertainty["ensemble"]["mask_disagreement"] == 0
    assert gf.load(f"{model_folder}, {twin}").predict(study).model["name"].count("/model") == 2


def test_a_bundle_is_loaded_from_its_zip(model_folder, model, study, tmp_path):
    from glioflow.runs.registry.export import export

    path = export(str(model_folder), tmp_path / "model.zip")
    np.testing.assert_array_equal(gf.load(path).predict(study).mask, model.predict(study).mask)
    (tmp_path / "torn.zip").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(gf.UserError, match=r"torn\.zip"):
        gf.load(tmp_path / "torn.zip")
    with pytest.raises(gf.UserError, match=r"nowhere\.zip"):
        gf.load("nowhere.zip")


def test_a_bundle_whose_path_has_a_comma_is_one_model(model_folder, model, study, tmp_path):
    shutil.copytree(model_folder, tmp_path / "first, second" / "bundle")
    again = gf.load(tmp_path / "first, second" / "bundle")
    np.testing.assert_array_equal(again.predict(study).mask, model.predict(study).mask)


def test_a_mask_is_saved_by_its_suffix(model, study, images, tmp_path):
    import cv2
    import nibabel

    answer, slice_ = model.predict(study), model.predict(images[2])
    for name in ("mask.nii.gz", "mask.nii"):
        volume = nibabel.load(answer.save(tmp_path / name)).get_fdata()
        np.testing.assert_array_equal(np.transpose(volume, (2, 1, 0)), answer.mask)
    folder = answer.save(tmp_path / "masks")
    assert len(list(folder.glob("*_mask.tif"))) == len(images)
    np.testing.assert_array_equal(tifffile.imread(slice_.save(tmp_path / "one.tif")) > 0, slice_.mask[0] > 0)
    picture = cv2.imread(str(slice_.save(tmp_path / "one.png")), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture > 0, slice_.mask[0] > 0)


@pytest.mark.parametrize(("name", "rule"), [("m.png", "one slice"), ("m.mha", "suffix"), ("m.dcm", "DICOM.*a folder")])
def test_what_cannot_hold_a_mask_is_refused_with_the_choices_and_nothing_is_written(model, study, tmp_path, name, rule):
    with pytest.raises(gf.UserError, match=rule) as refused:
        model.predict(study).save(tmp_path / name)
    assert refused.value.choices
    assert list(tmp_path.glob("m*")) == []


def test_a_dicom_study_keeps_its_geometry_and_is_saved_as_a_segmentation_even_from_a_zip(tiny, tmp_path):
    import highdicom

    network = build_network(tiny.model, in_channels=1, num_outputs=1)
    description = describe(tiny, channels=("flair",), network_channels=("flair",))
    bundle.save(tmp_path / "model", description, network.state_dict())
    write_series(tmp_path / "study", np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.uint16))
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in (tmp_path / "study").iterdir():
            archive.write(path, path.name)
    answer = gf.load(tmp_path / "model").predict(tmp_path / "study.zip")
    saved = highdicom.seg.segread(answer.save(tmp_path / "mask.dcm"))
    assert (saved.get_volume(combine_segments=True).array > 0).sum() == np.count_nonzero(answer.mask)


def test_a_notebook_shows_the_overlay_and_the_table_and_escapes_what_it_shows(model, images):
    from dataclasses import replace

    case = replace(read_study(images), id="<script>")
    html = model.predict(case)._repr_html_()
    assert "data:image/png;base64," in html
    assert "volume_px" in html
    assert "not for clinical use" in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "http" not in html


def test_a_notebook_shows_what_a_model_takes_answers_and_scored_and_escapes_what_it_shows(model, url):
    metrics = {"test/dice_mean": 0.8125, "test/dice_ci95_low": 0.75, "test/dice_ci95_high": 0.875}
    predictor = Predictor(model.description.model_copy(update={"metrics": metrics}), model.predictor.network)
    html = LoadedModel({"name": "<script>", "version": 3, "run_id": None}, predictor)._repr_html_()
    for text in ("&lt;script&gt; version 3", "pre, flair, post", "1 tumor", "0.812 [0.750 to 0.875]", "unet"):
        assert text in html
    assert "<script>" not in html
    assert "not for clinical use" in html
    assert "not scored on test patients" not in html
    assert "not scored on test patients" in model._repr_html_()
    assert "pre, flair, post" in gf.load(url)._repr_html_(), "an endpoint's model shows its card"
    assert "does not answer" in ServedModel(Client("http://127.0.0.1:9", num_tries=1))._repr_html_()


def test_a_study_that_is_not_there_is_named(model):
    with pytest.raises(gf.UserError, match="TCGA_nowhere"):
        model.predict("TCGA_nowhere")


@pytest.mark.parametrize("study", [3, None, [3], b"study"])
def test_what_is_no_study_is_refused_by_its_type(model, study):
    with pytest.raises(gf.UserError, match="a study must be a path, a list of paths, an array or a Case"):
        model.predict(study)


def test_a_device_that_is_not_there_is_refused_with_those_that_are(model_folder):
    with pytest.raises(gf.UserError, match=r"no device 'cuda:9'.*cpu"):
        gf.load(str(model_folder), device="cuda:9")


def test_a_model_that_is_not_there_is_named(tracking):
    with pytest.raises(gf.UserError, match="glioma"):
        gf.load("glioma@champion")
