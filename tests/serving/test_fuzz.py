"""Thousands of damaged uploads: never an error of ours, never memory without end, and good studies answered after."""

import io
import json
import logging
import os
import warnings
import zipfile

import numpy as np
import psutil
import pytest
import schemathesis
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import Here, client, served

from data.dicom_series import write_series
from glioflow.serving.settings import Limits, ServeSettings, digest_of

LIMITS = Limits(upload_bytes=1 << 20, unpacked_bytes=8 << 20, values=1 << 20, files=40, slices=40)
MAX_GROWTH_BYTES = 300 << 20
KINDS = ("tiff", "tiff-deflate", "png", "nifti", "nifti-gz", "dicom", "zip", "json")
FEW, MANY = 12, 700


@pytest.fixture(scope="module")
def api(tiny, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("GLIOFLOW_HOME", str(tmp_path_factory.mktemp("fuzz")))
    yield client(Here(served(tiny)), ServeSettings(limits=LIMITS, token_sha256=digest_of("t"), feedback_per_day=9))
    patch.undo()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Return a good file of each kind."""
    import gzip

    import cv2
    import nibabel

    image = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    tiffs = {}
    for name, how in (("tiff", None), ("tiff-deflate", "deflate")):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, image, photometric="rgb", compression=how)
        tiffs[name] = ("a_1.tif", buffer.getvalue())
    volume = nibabel.Nifti1Image(image.reshape(24, 24, 3), np.eye(4)).to_bytes()
    folder = tmp_path_factory.mktemp("dicom")
    write_series(folder, image[..., :1].reshape(1, 24, 24).astype(np.uint16))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3):
            archive.writestr(f"case/a_{k}.tif", tiffs["tiff"][1])
    return {
        **tiffs,
        "png": ("a_1.png", cv2.imencode(".png", image)[1].tobytes()),
        "nifti": ("a_flair.nii", volume),
        "nifti-gz": ("a_flair.nii.gz", gzip.compress(volume)),
        "dicom": ("IM1", next(folder.iterdir()).read_bytes()),
        "zip": ("study.zip", packed.getvalue()),
        "json": ("clinical", json.dumps({"age_years": 45, "gender": "1", "x": [1, None, 1e300]}).encode()),
    }


@st.composite
def damage(draw):
    """Draw a function from good bytes to damaged ones; headers, which decide most, are hit more often."""
    edits = draw(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.binary(min_size=1, max_size=8)), max_size=8))
    cut, doubled = draw(st.none() | st.floats(0, 1)), draw(st.booleans())

    def apply(good):
        content = bytearray(good)
        for share, in_header, patch in edits:
            at = int(share * (min(400, len(content) - 1) if in_header else len(content) - 1))
            content[at : at + len(patch)] = patch
        if cut is not None:
            content = content[: int(cut * len(content))]
        return bytes(content + content[:100] if doubled else content)

    return apply


def check(api, seeds, kind, damaged):
    name, good = seeds[kind]
    header, bad = {"Authorization": "Bearer t"}, damaged(good)
    if kind == "json":
        files, data = [("files", seeds["tiff"])], {"clinical": bad.decode("latin-1")}
    else:
        files, data = [("files", (name, bad))], {}
    for route, more in (("/v1/predict", {}), ("/v1/feedback", {"patient": "x"})):
        response = api.post(route, files=files, data={**data, **more}, headers=header, params={"overlay": "true"})
        assert response.status_code < 500, (response.status_code, response.text)
        if response.status_code >= 400:
            assert {"rule", "value", "choices"} <= set(response.json()["error"])
            assert "/tmp" not in response.text
            assert "Traceback" not in response.text


def fuzz(api, seeds, kind, examples):
    memory = psutil.Process(os.getpid()).memory_info

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damage())
    def run(damaged):
        check(api, seeds, kind, damaged)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what decoders say of damaged files
        check(api, seeds, kind, lambda good: good)
        before = memory().rss
        logging.disable(logging.CRITICAL)
        run()
        logging.disable(logging.NOTSET)
        assert memory().rss - before < MAX_GROWTH_BYTES
    name, good = seeds["tiff"]
    answer = api.post("/v1/predict", files=[("files", (name, good))], headers={"Authorization": "Bearer t"})
    assert answer.status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_upload_is_never_our_error(api, seeds, kind):
    fuzz(api, seeds, kind, FEW)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_damaged_uploads_are_never_our_error(api, seeds, kind):
    fuzz(api, seeds, kind, MANY)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_the_document_allows_and_forbids_is_never_our_error(api):
    schema = schemathesis.openapi.from_asgi("/openapi.json", api.app)

    statuses = []
    for operation in schema.get_all_operations():
        case_strategy = operation.ok().as_strategy()

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=case_strategy)
        def one(case):
            response = case.call(headers={"Authorization": "Bearer t"})
            statuses.append(response.status_code)
            assert response.status_code < 500

        one()
    assert len(statuses) > 100
