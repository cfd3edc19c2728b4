"""The endpoint's routes as a caller meets them, without Ray: answers, refusals, limits, what is logged and counted."""

import asyncio
import base64
import io
import json
import logging
import re
import zipfile

import cv2
import numpy as np
import pytest
from in_process import Here, client, served

from bundles import Bright, changed
from data.dicom_series import write_series
from glioflow.data.checks.drift import fit_input_statistics
from glioflow.errors import DOOR, ENDPOINT, UserError
from glioflow.serving.http.refusals import Busy
from glioflow.serving.http.request_guard import LOGGER
from glioflow.serving.settings import Limits, ServeSettings, digest_of

TOKEN = "a-secret-token"


@pytest.fixture
def here(tiny):
    return Here(served(tiny))


@pytest.fixture
def api(here):
    return client(here)


@pytest.fixture
def slices(lgg):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if "_mask" not in path.name]


@pytest.fixture
def logged(home):
    """Return a function that gives the lines that were logged since the test began."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    keeper = Keep()
    logging.getLogger(LOGGER).addHandler(keeper)
    yield lambda: lines
    logging.getLogger(LOGGER).removeHandler(keeper)


def send(api, files, route="/v1/predict", **options):
    return api.post(route, files=[("files", file) for file in files], **options)


def zipped(files, folder=""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            archive.writestr(f"{folder}{name}", content)
    return ("study.zip", buffer.getvalue())


def refusal(response, status):
    assert response.status_code == status, response.text
    answer = response.json()
    assert set(answer) == {"error"}
    assert set(answer["error"]) >= {"rule", "value", "choices"}
    assert isinstance(answer["error"]["rule"], str)
    return answer["error"]


def test_an_answer_has_everything_under_its_names(api, slices):
    answer = send(api, slices).json()
    assert {"model", "study", "tumor", "mask", "features", "survival", "uncertainty", "timing_ms", "notice"} <= set(
        answer
    )
    assert answer["model"] == {"name": "glioma", "version": 1, "run_id": "r"}
    assert set(answer["study"]) == {"id", "slices", "spacing_mm", "warnings"}
    assert set(answer["mask"]) == {"format", "encoding", "shape", "labels", "names", "regions", "data"}
    assert answer["mask"]["format"] == "rle"
    assert {"read", "preprocess", "segment", "features", "survival", "encode", "total"} == set(answer["timing_ms"])
    assert 0 <= answer["uncertainty"]["expected_dice"] <= 1
    assert "overlay" not in answer


def test_the_overlay_shows_the_slice_with_the_most_tumor(tiny, slices):
    api = client(Here(served(tiny, network=Bright(above=0.4))))
    answer = send(api, slices, params={"overlay": "true", "mask": "rle"}).json()
    from glioflow.bundle.encoded_mask import decode_runs

    areas = (decode_runs(answer["mask"]["data"], tuple(answer["mask"]["shape"])) > 0).sum(axis=(1, 2))
    assert areas.max() > 0
    assert answer["overlay"]["slice"] == answer["study"]["slices"][int(areas.argmax())]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(answer["overlay"]["data"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == tuple(answer["mask"]["shape"][1:])
    assert (np.ptp(picture.astype(int), axis=-1) > 20).sum() == areas.max(), "the mask, and nothing else, is in color"


def test_slices_are_told_by_file_number_position_and_millimeters(tiny, slices):
    import nibabel

    half = [(f"a_{7 + k}.tif", content) for k, (_, content) in enumerate(slices)]
    api = client(Here(served(tiny, network=Bright(above=0.4))))
    answer = send(api, half, params={"overlay": "true"}).json()
    numbers, tumor, volume = answer["study"]["slices"], answer["tumor"], answer["features"]["volume"]
    assert numbers[0] == 7
    assert tumor["slices"] == [numbers[position] for position in tumor["positions"]]
    assert tumor["positions_mm"] is None
    assert answer["overlay"]["slice"] == numbers[answer["overlay"]["position"]] == volume["largest_number"]
    assert volume["largest_position"] == volume["largest_slice"] == answer["overlay"]["position"]
    assert "spacing" in answer["features"]["undefined"]["centroid_position_mm"]
    assert [row["number"] for row in answer["features"]["slices"]] == tumor["slices"]
    assert [row["position"] for row in answer["features"]["slices"]] == tumor["positions"]

    images = [np.zeros((16, 16, 5), np.uint8) for _ in range(3)]
    images[1][4:8, 4:8, 2:4] = 255
    files = [
        (f"p_{name}.nii", nibabel.Nifti1Image(image, np.diag([1.0, 1, 4, 1])).to_bytes())
        for name, image in zip(("t1", "flair", "t1gd"), images, strict=True)
    ]
    answer = send(api, files).json()
    assert answer["tumor"]["positions"] == [2, 3]
    assert answer["tumor"]["positions_mm"] == [8, 12]
    assert answer["features"]["volume"]["centroid_position_mm"] == 10
    region = answer["tumor"]["regions"]["tumor"]
    assert (region["volume_px"], region["volume_mm3"]) == (32, 128)


def test_an_overlay_without_a_tumor_is_a_gray_picture(tiny, slices):
    answer = send(client(Here(served(tiny, network=Bright(above=2)))), slices, params={"overlay": "1"}).json()
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(answer["overlay"]["data"]), np.uint8), cv2.IMREAD_COLOR)
    assert np.ptp(picture, axis=-1).max() == 0


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/predict", {}, 405),
        ("POST", "/v1/model", {}, 405),
        ("POST", "/v1/predict", {}, 422),
        ("POST", "/v1/predict", {"data": {"files": "text"}}, 422),
        ("POST", "/v1/predict", {"json": {"files": []}}, 422),
        ("POST", "/v1/predict", {"files": [("files", ("a.tif", b"no tiff"))]}, 422),
        ("POST", "/v1/predict", {"files": [("files", ("a.zip", b"no zip"))]}, 422),
        ("POST", "/v1/predict", {"files": [("files", ("", b""))]}, 422),
        ("POST", "/v1/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
    ],
)
def test_every_refusal_has_one_form(api, method, path, options, status):
    refusal(api.request(method, path, **options), status)


@pytest.mark.parametrize("form", [{"data": {"files": "slice_1.tif"}}, {"files": {"file": ("slice_1.tif", b"x")}}, {}])
def test_a_form_without_its_files_is_told_how_to_send_them(api, form):
    error = api.post("/v1/predict", **form).json()["error"]
    assert error["rule"] == "a request must have at least one file in its field 'files'"
    assert error["hint"] == "send each as multipart/form-data, with curl as -F files=@NAME"


def test_options_are_refused_with_their_choices(api, slices):
    assert "dicom-seg" in refusal(send(api, slices, params={"mask": "gif"}), 422)["choices"]
    assert "one slice" in refusal(send(api, slices, params={"mask": "png"}), 422)["rule"]
    assert "overlay" in refusal(send(api, slices, params={"overlay": "perhaps"}), 422)["rule"]
    for clinical in ("[1]", "{", "5", '{"age": NaN}', "[" * 100_000):
        assert (
            "'clinical' must be a JSON object" in refusal(send(api, slices, data={"clinical": clinical}), 422)["rule"]
        )
    assert "/v1/predict" in refusal(api.get("/nothing"), 404)["choices"]


LIMITS = [
    ({"upload_bytes": 1000}, "bytes"),
    ({"slices": 3}, "3 slices"),
    ({"values": 10_000}, "10000 values"),
    ({"files": 2}, "2 files"),
]


@pytest.mark.parametrize(("limits", "expected"), LIMITS, ids=lambda value: str(value))
def test_too_much_is_413(here, slices, limits, expected):
    api = client(here, ServeSettings(limits=Limits(**limits)))
    assert expected in refusal(send(api, slices), 413)["rule"]


def test_a_body_too_long_is_refused_before_it_is_read(here):
    api = client(here, ServeSettings(limits=Limits(upload_bytes=10)))

    assert "at most 10 bytes" in refusal(api.post("/v1/predict", content=b"x" * (2 << 20)), 413)["rule"]
    form = {"content-type": "multipart/form-data; boundary=b"}
    assert (
        "at most 10 bytes"
        in refusal(api.post("/v1/predict", content=(b"x" * (1 << 16) for _ in range(100)), headers=form), 413)["rule"]
    )
    refusal(api.post("/v1/predict", content=b"", headers={"content-length": "many"}), 400)


def test_a_request_need_not_say_how_long_it_is(api, slices):
    request = api.build_request("POST", "/v1/predict", files=[("files", file) for file in slices])
    body = request.read()
    kind = {"content-type": request.headers["content-type"]}
    sent = api.post("/v1/predict", content=(body[k : k + 1000] for k in range(0, len(body), 1000)), headers=kind)
    assert sent.status_code == 200


def test_more_than_a_thousand_files_are_taken_and_more_than_the_limit_are_413(here, slices):
    notes = [(f"note_{number}.txt", b"x") for number in range(1100)]
    answer = send(client(here), [*slices, *notes]).json()
    assert len(answer["study"]["slices"]) == len(slices)
    assert any("left out: note_0.txt" in warning and "1095 more" in warning for warning in answer["study"]["warnings"])
    assert "1000 files" in refusal(send(client(here, ServeSettings(limits=Limits(files=1000))), notes), 413)["rule"]


def test_a_volume_that_states_too_much_is_refused_before_it_is_decoded(here, tmp_path, monkeypatch):
    import gzip

    import nibabel

    from glioflow.data.formats import nifti

    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    image.header.set_data_shape((500, 500, 500))
    limits = Limits(values=2**26)
    bomb = gzip.compress(image.header.binaryblock + b"\0" * 4 + b"\0" * 1000)
    monkeypatch.setattr(nifti, "read_volume", lambda path: pytest.fail("it was decoded"))
    error = refusal(send(client(here, ServeSettings(limits=limits)), [("a_flair.nii.gz", bomb)]), 413)
    assert "at most 67108864 values" in error["rule"]


def test_without_the_token_nothing_but_probes_and_docs_is_answered(here, slices):
    api = client(here, ServeSettings(token_sha256=digest_of(TOKEN)))
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert api.get(path).status_code == 200
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Basic x"}):
        for path in ("/v1/model", "/metrics", "/nothing"):
            refusal(api.get(path, headers=header), 401)
        refusal(send(api, slices, headers=header), 401)
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert api.get("/v1/model", headers=right).status_code == 200
    assert send(api, slices, headers=right).status_code == 200


def test_a_deployed_file_takes_its_token_from_the_file_that_holds_it(tmp_path, monkeypatch):
    from glioflow.serving import gateway

    monkeypatch.setenv("GLIOFLOW_SERVE_TOKEN", "")
    monkeypatch.delenv("GLIOFLOW_SERVE_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("GLIOFLOW_SERVE_TOKEN_FILE", str(tmp_path / "token"))
    assert gateway.app._bound_deployment.init_args[1].token_sha256 == digest_of(TOKEN)


def test_a_request_has_one_id_in_answer_header_and_log(api, slices, logged):
    response = send(api, slices, headers={"X-Request-ID": "0123-abcd-4567"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "0123-abcd-4567"
    lines = [json.loads(line) for line in logged()]
    assert [line["id"] for line in lines] == ["0123-abcd-4567"]
    assert {"time", "event", "method", "route", "status", "ms", "slices", "version"} <= set(lines[0])
    for given in ("John Doe 1950", "12345678", "1950-01-31"):
        other = api.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"]
        assert given not in other
        assert given not in "".join(logged())


def test_nothing_of_a_person_or_file_is_logged_or_counted(api, slices, tmp_path, logged):
    volume = np.full((3, 16, 16), 100, np.uint16)
    write_series(tmp_path / "s", volume, patient="DOE-JOHN-1950")
    files = [(path.name, path.read_bytes()) for path in (tmp_path / "s").iterdir()]
    send(api, files)
    named = [(f"JohnDoe{name[-6:]}", content) for name, content in slices]
    assert send(api, named).status_code == 200
    assert send(api, [("JohnDoe.tif", b"broken")]).status_code == 422
    api.get("/JohnDoe")
    api.get("/v1/model/JohnDoe?JohnDoe=1")
    kept = "\n".join(logged()) + api.get("/metrics").text
    assert len(logged()) >= 5
    for word in ("John", "DOE", "1950", ".tif", "IM0"):
        assert word not in kept


def test_a_field_says_which_of_two_series_a_channel_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(DOOR, ENDPOINT)  # as in the gateway's process
    files = []
    for number, text in enumerate(("AX FLAIR", "COR FLAIR"), start=1):
        folder = write_series(tmp_path / text, np.full((3, 16, 16), 100, np.uint16), description=text, number=number)
        files += [("files", (f"{number}-{path.name}", path.read_bytes())) for path in sorted(folder.iterdir())]
    experiment = changed(tiny, preprocess=[{"step": "percentile"}, {"step": "resize", "size": 32}])
    model = Here(served(experiment, network=Bright(channel=0), channels=("flair",), network_channels=("flair",)))
    refused = client(model).post("/v1/predict", files=files)
    assert refused.status_code == 422
    assert refused.json()["error"]["hint"] == "say which with channel flair=SERIES"
    assert client(model).post("/v1/predict", files=files, data={"channel": "flair=COR FLAIR"}).status_code == 200


def test_metrics_tell_stages_batches_status_and_version(api, slices):
    send(api, slices)
    api.get("/JohnDoe")
    text = api.get("/metrics").text
    for line in (
        'glioflow_requests_total{gateway="g",route="/v1/predict",status="200"} 1.0',
        'glioflow_requests_total{gateway="g",route="other",status="404"} 1.0',
        'glioflow_stage_seconds_count{gateway="g",stage="segment"} 1.0',
        'glioflow_batch_requests_count{gateway="g"} 1.0',
        'glioflow_queue_studies_count{gateway="g"} 1.0',
        'glioflow_predictions_in_flight{gateway="g"} 0.0',
        'glioflow_model_info{gateway="g",name="glioma",version="1"} 1.0',
        'glioflow_versions_refused{gateway="g"} 0.0',
    ):
        assert line in text


def test_drift_is_measured_where_the_bundle_knows_its_training_images(tiny, slices):
    images = (np.random.default_rng(k).uniform(0, 0.2, (2, 32, 32, 3)) for k in range(4))
    known = fit_input_statistics(images, ("pre", "flair", "post"))
    api = client(Here(served(tiny, input_statistics=known)))
    send(api, slices)
    text = api.get("/metrics").text
    assert 'glioflow_input_drift_deviations_count{channel="flair",gateway="g"} 1.0' in text
    assert api.get("/v1/model").json()["input"]["statistics"]["flair"]["mean"][0] == pytest.approx(0.1, abs=0.01)


def test_the_card_says_what_is_served_and_how(api):
    answer = api.get("/v1/model").json()
    assert answer["model"]["version"] == 1
    assert answer["input"]["channels"] == ["pre", "flair", "post"]
    assert answer["fingerprint"] == "f"
    assert answer["serving"]["engine"]["precision"] == "fp32"
    assert answer["serving"]["refused"] == {}


class Stub:
    """A model that does what it is told."""

    def __init__(self, do):
        self.do = do

    async def predict(self, case, clinical):
        return await self.do()

    async def card(self):
        return await self.do()


def test_overload_says_when_to_come_back(slices):
    async def busy():
        raise Busy

    response = send(client(Stub(busy)), slices)
    refusal(response, 503)
    assert int(response.headers["Retry-After"]) >= 1
    refusal(client(Stub(busy)).get("/readyz"), 503)


def test_an_answer_that_takes_too_long_is_overload(slices):
    async def slow():
        await asyncio.sleep(5)

    api = client(Stub(slow), ServeSettings(limits=Limits(timeout_s=0.05)))
    assert "0.05 s" in refusal(send(api, slices), 503)["rule"]


def test_our_own_failure_says_nothing_of_its_cause(slices, logged):
    async def broken():
        raise RuntimeError("/secret/path of John Doe")

    response = send(client(Stub(broken)), slices)
    assert refusal(response, 500)["rule"] == "the endpoint failed"
    assert "John" not in "".join(logged())
    assert "RuntimeError" in logged()[0]
    assert response.headers["x-request-id"] in logged()[0]


def test_a_whole_case_folder_zipped_is_answered_without_its_masks(api, lgg):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    answer = send(api, [zipped(files, f"{folder.name}/")]).json()
    assert answer["study"]["id"] == folder.name
    assert f"{len(files) // 2} masks among the files were not looked at" in answer["study"]["warnings"]
    broken = [(name, b"broken" if "_mask" in name else content) for name, content in files]
    assert send(api, [zipped(broken)]).status_code == 200


def test_one_multi_frame_dicom_file_is_a_study(tiny, tmp_path):
    import highdicom
    import pydicom
    from pydicom.uid import generate_uid

    write_series(tmp_path / "s", np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.uint16))
    sources = sorted((pydicom.dcmread(path) for path in (tmp_path / "s").iterdir()), key=lambda d: d.InstanceNumber)
    try:
        whole = highdicom.legacy.LegacyConvertedEnhancedMRImage(sources, generate_uid(), 1, generate_uid(), 1)
    except Exception as error:
        pytest.skip(f"highdicom cannot make one here: {error}")
    buffer = io.BytesIO()
    whole.save_as(buffer, enforce_file_format=True)
    experiment = changed(tiny, preprocess=[{"step": "percentile"}, {"step": "resize", "size": 32}])
    model = Here(served(experiment, network=Bright(channel=0), channels=("flair",), network_channels=("flair",)))
    response = send(client(model), [("one.dcm", buffer.getvalue())], params={"mask": "dicom-seg"})
    assert response.status_code == 200, response.text
    assert response.json()["mask"]["shape"] == [4, 16, 16]


def test_a_nifti_study_goes_to_a_model_that_calls_its_sequences_otherwise(tiny):
    import nibabel

    model = Here(served(tiny))
    files = []
    for value, name in ((200, "t2"), (30, "t1gd"), (20, "t1"), (250, "flair")):
        image = nibabel.Nifti1Image(np.full((16, 16, 5), value, np.uint8), np.eye(4))
        files.append((f"p1_{name}.nii", image.to_bytes()))
    answer = send(client(model), files).json()
    assert answer["tumor"]["slices"] == [1, 2, 3, 4, 5], "FLAIR, and nothing else, was bright"
    assert "the model does not use t2" in answer["study"]["warnings"]
    assert "flair" in refusal(send(client(model), files[:3]), 422)["rule"]


def test_the_mistakes_of_a_model_are_the_users(tiny, slices):
    class Refusing(Bright):
        def forward(self, images):
            raise UserError("a rule of the model", "a value", ["x"])

    error = refusal(send(client(Here(served(tiny, network=Refusing()))), slices), 422)
    assert (error["rule"], error["value"], error["choices"]) == ("a rule of the model", "a value", ["x"])


def test_the_document_names_every_route(api):
    paths = api.get("/openapi.json").json()["paths"]
    assert {"/v1/predict", "/v1/feedback", "/v1/model", "/healthz", "/readyz", "/metrics"} <= set(paths)


def test_the_documentation_needs_no_network_and_no_token(here):
    api = client(here, ServeSettings(token_sha256=digest_of(TOKEN)))
    files = re.findall(r'(?:src|href)="([^"]+)"', api.get("/docs").text)
    assert len(files) == 3
    for file in files:
        assert file.startswith("/docs/")
        assert api.get(file).status_code == 200
    for path in (
        "/docs/files/../../v1/model",
        "/docs/files/%2e%2e/core.py",
        "/docs/files/%00",
        "/docs/files/" + 999 * "a",
    ):
        assert api.get(path).status_code in (401, 404), path
