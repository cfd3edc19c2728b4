"""The page as a person meets it, without a browser: what it says in each state, and what it hands out."""

import base64
import csv
import io
import json
import re
import socket
import subprocess
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_endpoint import endpoint
from streamlit.testing.v1 import AppTest

from bundles import Bright, changed, describe
from glioflow.api.answer import Answer
from glioflow.api.client import Client
from glioflow.bundle.answer import answer_to_json
from glioflow.bundle.encoded_mask import encode_mask
from glioflow.bundle.prediction import Predictor
from glioflow.data.formats.brats import CHANNELS
from glioflow.data.formats.study import read_study
from glioflow.data.synthetic.cohort import synthesize_brats
from glioflow.errors import RunFailed
from glioflow.page import launcher as page_server
from glioflow.page.answer_view import facts_html
from glioflow.page.study import Answered, ask, examples, has_examples
from glioflow.page.survival_view import curve_spec, statement_html
from glioflow.page.tables import downloads, feature_rows, interval_text, volume_text, windowed
from glioflow.page.viewer import viewer_data
from glioflow.serving.settings import TOKEN
from glioflow.survival.settings import SurvivalSettings
from glioflow.survival.stage import fit_stage

SCRIPT = Path(page_server.__file__).with_name("app.py")


@pytest.fixture(scope="module")
def stage():
    import pandas as pd

    rng = np.random.default_rng(0)
    index = pd.Index([f"TCGA_CS_{k:04d}" for k in range(40)], name="patient")
    table = pd.DataFrame({"age_years": rng.normal(50, 12, 40), "bevr": rng.normal(0.4, 0.08, 40)}, index=index)
    return fit_stage(table.assign(death01=(rng.random(40) < 0.4).astype(float)), SurvivalSettings())


@pytest.fixture(scope="module")
def url(tiny, stage):
    with endpoint(describe(tiny, metrics={"test/dice_mean": 0.8}), Bright(), stage) as address:
        yield address


@pytest.fixture
def page(url, monkeypatch):
    """Open the page against the endpoint."""
    monkeypatch.setenv(page_server.ENDPOINT, url)
    return AppTest.from_file(str(SCRIPT), default_timeout=60)


@pytest.fixture
def study(lgg):
    """Return name and content of the slices of one case."""
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if "_mask" not in path.name]


def words(page):
    """Return all that the page says, its own HTML without the tags."""
    kinds = (page.error, page.warning, page.caption, page.markdown, page.info, page.code)
    said = [each.value for kind in kinds for each in kind]
    said += [re.sub(r"<[^>]+>", " ", each.proto.body) for each in page.get("html")]
    return " ".join(said)


def analyze(page, files):
    page.run()
    page.file_uploader(key="files").set_value([(name, content, "") for name, content in files])
    page.run()
    return page.button(key="analyze").click().run()


def answered_by(network, tiny, case):
    predictor = Predictor(describe(tiny), network)
    prediction = predictor.predict(case)
    labels = prediction.segmentation.labels
    answer = {**answer_to_json(case, prediction, {"name": "m", "version": 1}), "mask": encode_mask(labels, case, "rle")}
    return Answered(Answer(case, labels, answer), ("mask.tif", b"mask"))


def test_without_an_endpoint_it_says_so_and_how_to_start_one(monkeypatch):
    monkeypatch.setenv(page_server.ENDPOINT, "http://127.0.0.1:9")
    page = AppTest.from_file(str(SCRIPT), default_timeout=60).run()
    assert not page.exception
    assert "endpoint" in page.error[0].value
    assert "glioflow serve" in [code.value for code in page.code]
    assert page.button(key="analyze").disabled
    assert "not for clinical use" in words(page)


def test_before_any_study_it_says_what_to_do_and_what_it_is_not_for(page):
    page.run()
    assert not page.exception
    assert page.button(key="analyze").disabled
    for text in ("not for clinical use", "No study yet", "pre, flair, post", "demo, version 3"):
        assert text in words(page)


def test_a_study_is_answered_with_verdict_features_survival_and_card(page, study):
    analyze(page, study)
    assert not page.exception
    assert not page.error
    said = words(page)
    for text in ("Found", f"of {len(study)} slices", "px", "Probability of death", "95 % interval", "Dice", "Time:"):
        assert text in said, text
    assert "No better than its baselines" in said
    table = page.dataframe[0].value
    assert {"Feature", "Value", "Unit"} == set(table.columns)
    assert table.loc[table.Feature == "Volume", "Unit"].tolist() == ["px"]


def test_a_bad_file_is_the_endpoints_rule_and_the_next_study_is_answered(page, study):
    analyze(page, [("broken_1.tif", b"no image")])
    assert not page.exception
    assert "refused" in page.error[0].value
    assert "TIFF" in page.error[0].value
    analyze(page, study)
    assert not page.error
    assert "Found" in words(page)


@pytest.mark.parametrize(
    "files",
    [[("a.zip", b"PK")], [("a_1.tif", b""), ("a_1.tif", b"")], [("x.exe", b"MZ")], [("a.nii", b"?"), ("b.tif", b"?")]],
    ids=["zip", "same name", "program", "mixed"],
)
def test_no_upload_makes_a_traceback(page, files):
    analyze(page, files)
    assert not page.exception
    assert page.error


def test_a_refusal_is_shown_as_text_and_not_as_markup(page):
    analyze(page, [("![x](http://example.org/a.png)<b>_1.xyz", b"?")])
    assert not re.search(r"(?<!\\)[!\[<]", page.error[0].value.partition("**")[2].partition("**")[2])


def test_clinical_values_reach_the_survival_stage(page, study):
    analyze(page, study)
    assert "Imputed: age_years" in words(page)
    page.number_input(key="age_years").set_value(61)
    page.button(key="analyze").click().run()
    assert "Computed from: bevr, age_years" in words(page).replace("age_years, bevr", "bevr, age_years")
    assert "Imputed" not in words(page)


def test_one_click_answers_an_example(page):
    page.run()
    page.button(key="try").click().run()
    assert not page.exception
    assert "study synthetic_1" in words(page)
    assert "no real patient" in words(page)


def test_an_answer_stays_when_the_endpoint_goes_away(page, study, monkeypatch):
    analyze(page, study)
    monkeypatch.setenv(page_server.ENDPOINT, "http://127.0.0.1:9")
    page.run()
    assert not page.exception
    assert "The endpoint does not answer" in words(page)
    assert "Found" in words(page)


def test_an_answer_goes_when_other_files_are_chosen(page, study):
    analyze(page, study)
    assert "Found" in words(page)
    other = [(f"other_{number}.tif", content) for number, (_, content) in enumerate(study)]
    for files in (other, []):
        page.file_uploader(key="files").set_value([(name, content, "") for name, content in files])
        page.run()
        assert not page.exception
        assert "Found" not in words(page)


def test_an_answer_given_with_other_clinical_values_says_so(page, study):
    analyze(page, study)
    assert "other clinical values" not in words(page)
    page.number_input(key="age_years").set_value(61).run()
    assert "other clinical values" in words(page)
    page.button(key="analyze").click().run()
    assert "other clinical values" not in words(page)


def test_a_busy_endpoint_is_not_called_away(monkeypatch):
    import http.server
    import threading

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(page_server.ENDPOINT, f"http://127.0.0.1:{server.server_port}")
        page = AppTest.from_file(str(SCRIPT), default_timeout=60).run()
        server.shutdown()
    assert "busy" in words(page)
    assert "glioflow serve" not in words(page)


def test_the_verdict_has_the_interval_of_the_volume_and_the_expected_dice(page, study):
    analyze(page, study)
    assert "Expected Dice" in words(page)
    known = {"value": 5e3, "unit": "mm3", "interval": [4e3, 7e3], "level": 0.9}
    assert interval_text(known) == "90% interval 4.0 to 7.0 cm³"
    assert interval_text({**known, "unit": "px"}) == "90% interval 4 000 to 7 000 px"
    assert interval_text({**known, "interval": None}) == ""


def test_a_token_comes_from_the_environment_and_without_it_the_page_says_what_is_missing(tiny, study, monkeypatch):
    with endpoint(describe(tiny), Bright(), token="open sesame") as guarded:
        monkeypatch.setenv(page_server.ENDPOINT, guarded)
        page = AppTest.from_file(str(SCRIPT), default_timeout=60).run()
        assert not page.exception
        assert TOKEN in words(page)
        monkeypatch.setenv(TOKEN, "open sesame")
        assert "Found" in words(analyze(page, study))
        assert "open sesame" not in words(page)


def test_an_answer_about_another_study_is_not_shown(study):
    class Wrong:
        def predict(self, files, **_):
            return {"mask": {"shape": [1, 2, 3], "data": {}}}

    with pytest.raises(RunFailed, match=r"a mask of \(1, 2, 3\)"):
        ask(Wrong(), study, {})


def test_what_is_saved_is_whole_and_the_mask_is_in_the_inputs_format(url, study, lgg):
    answered = ask(Client(url), study, {})
    files = downloads(answered)
    name, content = files["Mask"]
    assert name.endswith("_masks.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == len(study)
    rows = {row["feature"]: row for row in csv.DictReader(io.StringIO(files["Features"][1].decode()))}
    assert float(rows["volume_px"]["value"]) == np.count_nonzero(answered.answer.mask)
    assert rows["volume_px"]["unit"] == "px"
    assert json.loads(files["Answer"][1]) == answered.answer.json
    assert files["Overlay"][1].startswith(b"\x89PNG")
    with zipfile.ZipFile(io.BytesIO(files["Everything"][1])) as archive:
        assert {*archive.namelist()} == {path for path, _ in list(files.values())[:-1]}


def test_volumes_come_back_as_nifti_on_their_own_grid_with_the_models_classes(tiny, tmp_path):
    import nibabel

    synthesize_brats(tmp_path / "b", patients=1, seed=0, size=40, slices=20)
    files = sorted(path for path in (tmp_path / "b").rglob("*.nii.gz") if "_seg" not in path.name)
    said = describe(changed(tiny, preprocess=[{"step": "zscore"}]), channels=CHANNELS, network_channels=CHANNELS)
    with endpoint(said, Bright(channel=0)) as url:
        answered = ask(Client(url), [(path.name, path.read_bytes()) for path in files], {})
    (tmp_path / answered.mask[0]).write_bytes(answered.mask[1])
    mask, image = nibabel.load(tmp_path / answered.mask[0]), nibabel.load(files[0])
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine)
    data = viewer_data(answered)
    assert data["planes"] == ["axial", "coronal", "sagittal"]
    assert data["oriented"]
    assert data["spacing"] == pytest.approx([155 / 20, 6, 6])
    assert [each["name"] for each in data["classes"]] == ["tumor"]
    assert volume_text(answered.answer.json["features"])[0].endswith("cm³")


def test_the_viewer_is_sent_the_very_pixels_and_mask(tiny, study, tmp_path):
    for name, content in study:
        (tmp_path / name).write_bytes(content)
    case = read_study(sorted(tmp_path.iterdir()))
    answered = answered_by(Bright(), tiny, case)
    data = json.loads(json.dumps(viewer_data(answered)))
    shape = tuple(data["shape"])
    image, labels = (np.frombuffer(zlib.decompress(base64.b64decode(data[k])), np.uint8) for k in ("image", "labels"))
    np.testing.assert_array_equal(np.moveaxis(image.reshape(3, *shape), 0, -1), case.image)
    np.testing.assert_array_equal(labels.reshape(shape), answered.answer.mask)
    assert (data["planes"], data["spacing"], data["oriented"]) == (["axial"], None, False)


def test_a_study_too_large_for_a_browser_is_shown_smaller_and_says_so(tiny, study, tmp_path, monkeypatch):
    for name, content in study:
        (tmp_path / name).write_bytes(content)
    answered = answered_by(Bright(), tiny, read_study(sorted(tmp_path.iterdir())))
    monkeypatch.setattr("glioflow.page.viewer.MAX_VALUES", answered.answer.case.image.size // 3)
    data = viewer_data(answered)
    assert data["shrink"] == 2
    assert data["shape"] == [answered.answer.case.shape[0], 24, 24]
    assert len(zlib.decompress(base64.b64decode(data["image"]))) == 3 * np.prod(data["shape"])


def test_slices_are_counted_as_in_the_viewer_and_what_has_no_value_says_why(tiny, lgg):
    case = read_study([sorted(path for path in lgg.iterdir() if path.is_dir())[0]])
    features = answered_by(Bright(), tiny, case).answer.json["features"]
    case = replace(case, slice_numbers=tuple(range(7, 7 + case.shape[0])))
    rows = {row["Feature"]: row for row in feature_rows(features, case.slice_numbers)}
    assert rows["Largest slice"]["Value"] == features["volume"]["largest_slice"] + 7
    assert "spacing" in next(row["Note"] for row in rows.values() if row["Unit"] == "mm³")
    empty = answered_by(Bright(above=2), tiny, case)
    assert any(row["Note"] == "the mask is empty" for row in feature_rows(empty.answer.json["features"], [1]))


def test_gray_values_keep_bytes_and_stretch_everything_else():
    image = np.arange(200, dtype=np.uint8)
    assert windowed(image) is image
    stretched = windowed(np.concatenate([np.zeros(50), np.linspace(1, 3000, 1000)]).astype(np.int16))
    assert stretched[0] == 0
    assert stretched[-1] == 255
    assert (windowed(np.zeros((2, 2), np.float32)) == 0).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"probability": 0.29, "interval": (0.21, 0.5), "horizon_days": None},
            ["death at any time", "29 %", "21 to 50 %"],
        ),
        ({"probability": 0.4, "interval": None, "horizon_days": 730.0}, ["within 730 days", "40 %"]),
        ({"predicted_days": 412.3, "interval": (90.0, 800.0), "category": "10 to 15 months"}, ["412 days", "10 to 15"]),
    ],
)
def test_each_kind_of_survival_answer_is_a_sentence_with_its_interval(values, said):
    nothing = dict.fromkeys(("probability", "interval", "horizon_days", "predicted_days", "category"))
    html = statement_html({"task": "death01", **nothing, **values})
    assert all(text in html for text in said)


def test_a_survival_curve_is_drawn_with_its_interval():
    spec = curve_spec({"days": [0, 10], "survival": [1, 0.5], "low": [1, 0.2], "high": [1, 0.7]})
    assert spec["data"]["values"][1] == {"days": 10, "survival": 0.5, "low": 0.2, "high": 0.7}
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["area", "line"]


def test_what_comes_from_outside_is_no_markup():
    assert "<script>" not in facts_html([("t", "<script>", "&", "")])


def test_examples_are_invented_the_same_each_time_for_both_kinds_of_model():
    first, again = examples(("pre", "flair", "post")), examples.__wrapped__(("pre", "flair", "post"))
    assert first == again
    assert len(first) == 3
    assert all(name.startswith("synthetic_") for each in first for name, _ in each.files)
    assert has_examples(CHANNELS)
    assert not has_examples(("t2",))


def test_streamlit_is_told_to_stay_here_and_quiet():
    said = dict(option.removeprefix("--").split("=", 1) for option in page_server.options(host="127.0.0.1", port=8501))
    assert said["server.address"] == "127.0.0.1"
    assert said["browser.gatherUsageStats"] == "false"
    assert said["server.headless"] == "true"
    assert said["client.showErrorDetails"] == "none"


def test_a_taken_port_is_said_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "glioflow", "page", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: port ")
    assert done.stderr.count("\n") == 1


def test_a_lone_slice_is_a_study_too(url, study):
    answered = ask(Client(url), study[2:3], {})
    assert answered.mask[0].endswith("_mask.tif")
    assert viewer_data(replace(answered))["planes"] == ["axial"]
