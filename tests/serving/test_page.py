"""The page without a browser: its files, what it asks the endpoint for, and the way there through `glioflow page`."""

import io
import itertools
import json
import re
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from base64 import b64decode
from pathlib import Path

import nibabel
import numpy as np
import pytest
from fastapi.testclient import TestClient
from in_process import Here, client, served
from page_endpoint import endpoint

from bundles import Bright, describe
from data.dicom_series import write_series
from glioflow.bundle.encoded_mask import decode_runs
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.page.examples import examples
from glioflow.page.files import STATIC, table_of_names
from glioflow.serving.http import routes
from glioflow.serving.http.feedback import Feedback
from glioflow.serving.page_server import make_page
from glioflow.serving.settings import TOKEN, ServeSettings, bearer, digest_of
from glioflow.serving.versions.loaded import Served

T = {"Authorization": "Bearer t"}


@pytest.fixture(scope="module")
def api(tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIOFLOW_HOME", str(tmp_path_factory.mktemp("viewer-home")))
        here = Here(served(tiny, network=Bright(above=0.45)))
        settings = ServeSettings(token_sha256=digest_of("t"), feedback_per_day=9)
        yield client(here, settings, headers=T)


@pytest.fixture(scope="module")
def feedback(api, tmp_path_factory):
    """Return what the module's endpoint has taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIOFLOW_HOME", str(next(tmp_path_factory.getbasetemp().glob("viewer-home*"))))
        return Feedback()


@pytest.fixture(scope="module")
def case(lgg):
    cohort = open_cohort(lgg)
    return cohort.read(cohort.cases[0].id)


@pytest.fixture(scope="module")
def files(case):
    return [("files", (path.name, path.read_bytes())) for path in case.files if not is_mask_name(path.name)]


def head_and_channels(content):
    (length,) = struct.unpack("<I", content[:4])
    head = json.loads(content[4 : 4 + length])
    assert (4 + length) % 8 == 0, "a typed array of a browser begins at a multiple of its item's size"
    values = np.frombuffer(content[4 + length :], np.dtype(head["dtype"]).newbyteorder("<"))
    return head, values.reshape(len(head["channels"]), *head["shape"])


# ---- the files of the page ----


def test_the_page_needs_no_token_and_lets_nothing_in_from_outside(api):
    page = api.get("/page/", headers={"Authorization": ""})
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert api.get("/page/main.js").headers["content-type"].startswith("text/javascript")
    for name in ("../__init__.py", "..%2f__init__.py", "nothing.js", "static/main.js", "a" * 999 + ".js"):
        assert api.get(f"/page/{name}").status_code == 404


def test_every_address_in_the_pages_files_is_its_own_and_relative():
    for file in STATIC.iterdir():
        text = file.read_text()
        addresses = re.findall(r"""(?:src|href|from|import|fetch\(|url\()\s*=?\s*\(?["'`]([^"'`]+)["'`]""", text)
        assert all(not re.match(r"(https?:)?/", address) for address in addresses), (file.name, addresses)
        for module in re.findall(r"""from ["']\./([^"']+)["']""", text):
            assert (STATIC / module).is_file(), f"{file.name} imports {module}"
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(|webgl", text, re.IGNORECASE), file.name


def test_below_a_prefix_the_page_finds_its_files_and_the_endpoint(api):
    assert api.get("/page", follow_redirects=False).headers["location"] == "page/"
    assert '"../v1/"' in (STATIC / "api.js").read_text()


def test_files_are_told_by_the_endpoints_own_table(api):
    table = api.get("/page/names.json").json()
    assert table == json.loads(json.dumps(table_of_names()))
    for name in ("x_mask.tif", "x-seg.nii.gz", "x_flair.nii.gz", "x_brain_mask.nii"):
        found = any(re.search(table[kind], name, re.IGNORECASE) for kind in ("mask", "brain"))
        assert found == is_mask_name(name)
    assert table["sequences"]["t1ce"] == "post"


def test_examples_are_invented_the_same_each_time(api):
    with zipfile.ZipFile(io.BytesIO(api.get("/page/example-lgg-1.zip").content)) as archive:
        assert all(name.startswith("synthetic_1_") for name in archive.namelist())
        assert archive.namelist() == [name for name, _ in examples("lgg")[0]]
    assert examples("lgg") == examples.__wrapped__("lgg")
    assert api.get("/page/example-lgg-9.zip").status_code == 404


# ---- a study as the endpoint reads it ----


def test_the_browser_gets_the_very_pixels(api, files, case):
    head, channels = head_and_channels(api.post("/v1/study", files=files).content)
    np.testing.assert_array_equal(np.moveaxis(channels, 0, -1), case.image)
    assert head["channels"] == list(case.channels)
    assert head["channels"][head["shown"]] == "flair"
    assert (head["spacing_mm"], head["affine"], head["native"]) == (None, None, "tiff")
    assert head["reference"] is None


def test_masks_beside_the_images_are_its_reference(api, case):
    everything = [("files", (path.name, path.read_bytes())) for path in case.files[0].parent.iterdir()]
    head, channels = head_and_channels(api.post("/v1/study?image=false", files=everything).content)
    np.testing.assert_array_equal(decode_runs(head["reference"], head["shape"]), case.mask)
    assert channels.size == 0


def test_a_study_that_cannot_be_read_is_a_rule(api):
    answer = api.post("/v1/study", files=[("files", ("a_1.tif", b"no image"))])
    assert answer.status_code == 422
    assert answer.json()["error"]["file"] == "a_1.tif"


ORIENTATIONS = [
    (axes, flips) for axes in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


def test_a_drawing_lies_where_it_was_drawn_in_all_48_orientations(api):
    """Drawn at a place in millimeters, the voxel of the file at that place has the label, and no other one."""
    assert len(ORIENTATIONS) == 48
    rng = np.random.default_rng(0)
    for axes, flips in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (own, sign) in enumerate(zip(axes, flips, strict=True)):
            affine[own, axis] = sign * (1.0, 2.0, 3.0)[own]
        affine[:3, 3] = (5, -7, 11)
        image = nibabel.Nifti1Image(rng.integers(1, 99, (6, 7, 8)).astype(np.int16), affine)
        sent = [("files", ("p_flair.nii.gz", gzipped(image)))]
        head, channels = head_and_channels(api.post("/v1/study", files=sent).content)
        s, h, w = (int(rng.integers(0, size)) for size in head["shape"])
        point = (np.array(head["affine"]) @ (s, h, w, 1))[:3]
        start = int(np.ravel_multi_index((s, h, w), head["shape"]))
        drawn = json.dumps({"shape": head["shape"], "data": {"1": [start, 1]}})
        answer = api.post("/v1/mask?format=nifti", files=sent, data={"mask": drawn})
        mask = nibabel.Nifti1Image.from_bytes(zlib.decompress(answer.content, 31))
        np.testing.assert_allclose(mask.affine, image.affine)
        data = np.asarray(mask.dataobj)
        index = np.argwhere(data)
        assert len(index) == 1
        np.testing.assert_allclose((affine @ (*index[0], 1))[:3], point)
        assert channels[0, s, h, w] == image.get_fdata()[tuple(index[0])]


def gzipped(image):
    import gzip

    return gzip.compress(image.to_bytes(), 1)


# ---- a prediction for a viewer ----


def test_the_probability_of_every_voxel_comes_where_it_is_wanted(api, files, case):
    assert "probability" not in api.post("/v1/predict", files=files).json()
    answer = api.post("/v1/predict?probability=true", files=files).json()
    data = np.frombuffer(zlib.decompress(b64decode(answer["probability"]["data"])), np.uint8)
    probability = data.reshape(answer["probability"]["shape"])
    mask = decode_runs(answer["mask"]["data"], answer["mask"]["shape"])
    assert probability.shape == case.shape
    assert probability[mask > 0].min() >= 127 > probability[mask == 0].max() - 2
    assert probability.max() == round(255 * answer["tumor"]["probability"])


def test_either_version_may_be_asked_and_a_missing_challenger_is_a_rule(tiny, files):
    here = Here(served(tiny, 1, Bright(above=0.45)))
    endpoint_of = client(here)
    refused = endpoint_of.post("/v1/predict?version=challenger", files=files)
    assert refused.status_code == 422
    assert "no challenger is loaded" in refused.json()["error"]["rule"]
    other = served(tiny, 2, Bright(above=0.3))
    here.versions.challenger = Served(other.id, other.predictor, other.engine)
    asked = {
        which: endpoint_of.post(f"/v1/predict?version={which}", files=files).json()
        for which in ("champion", "challenger")
    }
    assert [asked[which]["model"]["version"] for which in asked] == [1, 2]
    assert asked["challenger"]["tumor"]["volume"]["value"] > asked["champion"]["tumor"]["volume"]["value"]


# ---- what is drawn ----


def drawing_of(answer):
    return {"shape": answer["mask"]["shape"], "data": answer["mask"]["data"]}


def test_a_drawn_mask_is_measured_as_answers_are(api, files):
    answer = api.post("/v1/predict", files=files).json()
    head, _ = head_and_channels(api.post("/v1/study", files=files).content)
    body = {**drawing_of(answer), "slices": head["slices"], "spacing_mm": head["spacing_mm"], "brain": head["brain"]}
    measured = api.post("/v1/features", json=body).json()["features"]
    expected = answer["features"]
    assert measured["slices"] == [{**row, "probability_std": None} for row in expected["slices"]] or measured["slices"]
    assert {k: v for k, v in measured["volume"].items() if k != "probability_std"} == {
        k: v for k, v in expected["volume"].items() if k != "probability_std"
    }


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"shape": [2, 3, 4], "data": {"1": [20, 9]}}, "inside its mask"),
        ({"shape": [2, 3, 4], "data": {"1": [-1, 2]}}, "inside its mask"),
        ({"shape": [2, 3, 4], "data": {"300": [0, 1]}}, "1 to 255"),
        ({"shape": [2, 3, 4], "data": {"²": [0, 1]}}, "1 to 255"),
        ({"shape": [2, 3, 4], "data": {"00010000": [0, 1]}}, "1 to 255"),
        ({"shape": [2, 3, 4], "data": {"1": [0, 24, 0, 24]}}, "must not overlap"),
        ({"shape": [2, 3, 4], "data": {"1": [5, 9], "2": [6, 2]}}, "must not overlap"),
        ({"shape": [2, 3, 4], "data": {"1": [5]}}, "pairs of a start and a length"),
        ({"shape": [0, 3, 4], "data": {}}, "positive"),
        ({"shape": [9**6, 9**6, 9**6], "data": {}}, "at most"),
        ({"shape": [1001, 1, 1], "data": {"1": [0, 1001]}}, "at most 1000 slices"),
        ({"shape": [2, 3, 4], "data": {}, "spacing_mm": [1, 0, 1]}, "positive"),
        ({"shape": [2, 3, 4], "data": {}, "slices": [1]}, "each slice"),
        ({"shape": [2, 3], "data": {}}, "shape"),
    ],
)
def test_an_impossible_drawing_is_a_rule(api, body, rule):
    answer = api.post("/v1/features", json=body)
    assert answer.status_code in (413, 422)
    assert rule in answer.json()["error"]["rule"]


def test_a_drawing_in_json_is_taken_up_to_the_limit_of_all_text(api, monkeypatch):
    monkeypatch.setattr(routes, "_MAX_TEXT_BYTES", 1000)
    drawn = {"shape": [2, 3, 4], "data": {"1": [0, 3]}}
    assert api.post("/v1/features", json=drawn).status_code == 200
    for content in (json.dumps({**drawn, "note": "x" * 1000}), "[" + "[]," * 400):
        answer = api.post("/v1/features", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert "JSON must have at most 1000 bytes" in answer.json()["error"]["rule"]


def test_a_drawing_is_saved_in_the_studys_own_format(api, files, case):
    drawn = json.dumps(drawing_of(api.post("/v1/predict", files=files).json()))
    answer = api.post("/v1/mask", files=files, data={"mask": drawn})
    assert f'filename="{case.id}_masks.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == case.shape[0]
    for text in ("{", "[]", '{"shape": [1, 1, 1], "data": {}}', '{"shape": [1, 1, 1]}'):
        assert api.post("/v1/mask", files=files, data={"mask": text}).status_code == 422
    assert "files" in api.post("/v1/mask?format=rle", files=files, data={"mask": drawn}).json()["error"]["rule"]


def test_a_mask_of_many_runs_is_taken_up_to_a_limit_of_all_text(api, files, monkeypatch):
    drawn = json.dumps(drawing_of(api.post("/v1/predict", files=files).json()))
    many = drawn + " " * (3 << 20)  # as runs of a ragged mask, which take several megabytes
    assert api.post("/v1/mask", files=files, data={"mask": many}).status_code == 200
    monkeypatch.setattr(routes, "_MAX_TEXT_BYTES", 2 << 20)
    halves = {"mask": drawn, "channel": [" " * (3 << 19), " " * (1 << 20)]}
    for fields in ({"mask": many}, halves):
        answer = api.post("/v1/mask", files=files, data=fields)
        assert answer.status_code == 413
        assert "text fields of a request must have at most 2097152 bytes" in answer.json()["error"]["rule"]


def test_a_drawing_on_dicom_is_saved_as_dicom_seg(api, tmp_path):
    import pydicom

    write_series(tmp_path, np.random.default_rng(0).integers(0, 900, (3, 8, 8)).astype(np.uint16))
    sent = [("files", (path.name, path.read_bytes())) for path in sorted(tmp_path.iterdir())]
    head, _ = head_and_channels(api.post("/v1/study", files=sent).content)
    assert head["native"] == "dicom-seg"
    drawn = {"shape": head["shape"], "data": {"1": [70, 4]}, "names": {"1": "tumor", "²": "none"}}
    answer = api.post("/v1/mask", files=sent, data={"mask": json.dumps(drawn)})
    segmentation = pydicom.dcmread(io.BytesIO(answer.content))
    assert [each.SegmentLabel for each in segmentation.SegmentSequence] == ["tumor"]
    assert int(segmentation.pixel_array.sum()) == 4


# ---- corrections ----


def test_a_correction_is_kept_with_who_and_what_and_shown_as_it_will_train(api, files, case, feedback, caplog):
    drawn = np.zeros(case.shape, np.uint8)
    drawn[1, 3:9, 4:8] = 1
    runs = {"1": [value for row in range(3, 9) for value in (int(np.ravel_multi_index((1, row, 4), case.shape)), 4)]}
    fields = {"patient": "Jane Roe", "reader": " Dr. Ada Reader ", "version": "1"}
    response = api.post(
        "/v1/feedback", files=files, data={**fields, "mask": json.dumps({"shape": case.shape, "data": runs})}
    )
    assert response.status_code == 202, response.text
    kept = response.json()["mask"]
    np.testing.assert_array_equal(decode_runs(kept["data"], kept["shape"]), drawn)
    entry = next(each for each in feedback.entries() if each["id"] == response.json()["id"])
    assert (entry["reader"], entry["version"], entry["labeled_px"]) == ("Dr. Ada Reader", 1, 24)
    assert entry["received"] > 0
    logs = caplog.text
    assert entry["id"] in logs
    assert "Ada" not in logs
    assert "Jane" not in logs
    cohort = open_cohort(feedback.accept(entry["id"]).parent)
    np.testing.assert_array_equal(cohort.read(cohort.cases[0].id).mask, drawn)


def test_who_opened_a_study_before_another_correction_came_is_told(api, files, case):
    mask = json.dumps({"shape": case.shape, "data": {"1": [0, 5]}})

    def send(patient, **more):
        return api.post("/v1/feedback", files=files, data={"patient": patient, "mask": mask, **more})

    assert send("two readers", opened_s=60).status_code == 202
    reported = send("two readers", opened_s=60)
    assert reported.status_code == 409
    assert reported.json()["error"]["code"] == "corrected-meanwhile"
    assert send("somebody else", opened_s=60).status_code == 202
    assert send("two readers", opened_s=0).status_code == 202, "opened after it came"
    assert send("two readers", opened_s=60, again="true").status_code == 202


def test_a_correction_whose_answer_was_lost_is_kept_once_when_it_is_sent_again(api, files, case, feedback):
    def send(reader, pixels):
        mask = json.dumps({"shape": case.shape, "data": {"1": [0, pixels]}})
        fields = {"patient": "lost answer", "reader": reader, "mask": mask, "opened_s": 60}
        return api.post("/v1/feedback", files=files, data=fields)

    before = len(feedback.entries())
    first = send("Dr. Ada", 5)
    again = send(" Dr. Ada ", 5)
    assert (first.status_code, again.status_code) == (202, 202), "one's own correction is nobody else's"
    assert again.json()["id"] == first.json()["id"]
    assert send("Dr. Ada", 6).status_code == 409
    assert send("Dr. Bob", 5).status_code == 409
    assert len(feedback.entries()) == before + 1


def test_the_card_says_whether_corrections_are_taken(api, tiny):
    assert api.get("/v1/model").json()["feedback"] is True
    assert client(Here(served(tiny))).get("/v1/model").json()["feedback"] is False


# ---- `glioflow page` ----


# A header holds bytes: libraries send other letters than ASCII in different ways, and the last byte of "à" is a blank.
SESAME = "öffne dich, Σεσάμ, voilà"


@pytest.fixture(scope="module")
def guarded(tiny):
    with endpoint(describe(tiny), Bright(above=0.45), token=SESAME) as url:
        yield url


def test_the_page_passes_questions_on_with_its_own_token_and_never_shows_it(guarded, files, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    page = TestClient(make_page(guarded))
    assert page.get("/v1/model").status_code == 401
    monkeypatch.setenv(TOKEN, SESAME)
    assert page.get("/").url.path == "/page/"
    assert page.get("/healthz").text == "ok"
    assert page.get("/v1/model").json()["model"]["name"] == "demo"
    answer = page.post("/v1/predict?mask=none", files=files)
    assert answer.json()["tumor"]["detected"]
    assert SESAME not in str(answer.headers) + answer.text
    head, channels = head_and_channels(page.post("/v1/study", files=files).content)
    assert channels.shape[0] == len(head["channels"])


def test_a_correction_needs_the_token_of_the_person_who_sends_it(guarded, files, monkeypatch):
    monkeypatch.setenv(TOKEN, SESAME)
    page = TestClient(make_page(guarded))
    assert page.post("/v1/feedback", files=files, data={"patient": "x"}).status_code == 401
    sent = page.post(
        "/v1/feedback", files=files, data={"patient": "x"}, headers={"Authorization": bearer(SESAME).encode("latin-1")}
    )
    assert "a mask beside every image" in sent.json()["error"]["rule"], "the endpoint has looked at what was sent"


@pytest.mark.parametrize("way", ["%2e%2e/metrics", "x/%2e%2e/feedback", "%2e/feedback", "feedback/", "feedback%3Fx"])
def test_no_way_around_leads_the_pages_token_to_other_routes_or_to_feedback(monkeypatch, way):
    asked = []
    monkeypatch.setenv(TOKEN, SESAME)
    monkeypatch.setattr("glioflow.serving.page_server._ask", lambda *asking: asked.append(asking))
    assert TestClient(make_page("http://127.0.0.1:9")).post(f"/v1/{way}").status_code == 404
    assert not asked


def test_a_study_of_more_than_a_block_reaches_the_endpoint_whole(guarded, monkeypatch):
    monkeypatch.setenv(TOKEN, SESAME)
    values = np.random.default_rng(0).integers(0, 999, (96, 96, 96)).astype(np.int16)
    sent = [("files", ("p_flair.nii.gz", gzipped(nibabel.Nifti1Image(values, np.eye(4)))))]
    _, channels = head_and_channels(TestClient(make_page(guarded)).post("/v1/study", files=sent).content)
    assert np.sort(channels, axis=None).tolist() == np.sort(values, axis=None).tolist()


def test_an_endpoint_that_is_away_is_said_with_its_address():
    answer = TestClient(make_page("http://127.0.0.1:9")).get("/v1/model")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "away"
    assert "http://127.0.0.1:9" in answer.json()["error"]["rule"]


def test_pages_of_strangers_cannot_ask_through_a_persons_browser(guarded):
    page = TestClient(make_page(guarded, hosts=()), base_url="http://127.0.0.1")
    assert page.get("/page/").status_code == 200
    assert page.get("/page/", headers={"Host": "evil.example.org"}).status_code == 421
    assert page.get("/v1/model", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_taken_port_is_said_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "glioflow", "page", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: port ")
    assert done.stderr.count("\n") == 1


def test_the_pages_files_are_small_enough_to_read():
    long = {file.name: count for file in Path(STATIC).glob("*.js") if (count := file.read_text().count("\n")) > 400}
    assert not long
