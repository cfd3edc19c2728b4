"""A full endpoint still answers probes, refuses further studies at once, and does not compute for callers who left."""

import asyncio
import threading

import httpx2
import numpy as np
import pytest
import tifffile
from in_process import Here, client, served
from PIL import Image

from bundles import Bright
from glioflow.abandonment import Abandoned
from glioflow.data.case import Case
from glioflow.serving.engine.admission import Admission, Full
from glioflow.serving.engine.batching import Batcher


class Gate(Bright):
    """A network that waits in its forward pass until it may go on, and counts what it computed."""

    def __init__(self):
        super().__init__(above=0.3)
        self.go, self.entered, self.passes = threading.Event(), threading.Event(), 0

    def forward(self, images):
        self.passes += 1
        self.entered.set()
        assert self.go.wait(30)
        return super().forward(images)


@pytest.fixture
def gate():
    network = Gate()
    yield network
    network.go.set()


@pytest.fixture
def slices(lgg):
    folder = sorted(path for path in lgg.iterdir() if path.is_dir())[0]
    return [("files", (path.name, path.read_bytes())) for path in sorted(folder.iterdir()) if "_mask" not in path.name]


async def entered(gate):
    assert await asyncio.to_thread(gate.entered.wait, 30)


def asgi(here):
    app = client(here).app
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1")


def test_probes_and_card_are_answered_while_all_places_are_taken(tiny, slices, gate):
    async def check():
        here = Here(served(tiny, network=gate), at_once=2, waiting=1)
        async with asgi(here) as api:
            studies = [asyncio.create_task(api.post("/v1/predict", files=slices)) for _ in range(3)]
            await entered(gate)
            while here.admission.inside < 3:
                await asyncio.sleep(0.01)
            for path in ("/healthz", "/readyz", "/v1/model"):
                assert (await asyncio.wait_for(api.get(path), 5)).status_code == 200, path
            gate.go.set()
            assert [response.status_code for response in await asyncio.gather(*studies)] == [200] * 3

    asyncio.run(check())


def test_a_study_too_many_is_refused_at_once(gate):
    async def check():
        admission = Admission(1, 1)
        taken = [asyncio.create_task(admission.run(lambda: gate.go.wait(30))) for _ in range(2)]
        await asyncio.sleep(0)
        assert isinstance(await admission.run(lambda: gate.go.wait(30)), Full)
        gate.go.set()
        await asyncio.gather(*taken)
        assert await admission.run(lambda: 5) == 5, "there is room again"

    asyncio.run(check())


def test_large_studies_are_computed_one_after_the_other_and_small_ones_together(gate):
    async def check():
        admission, begun = Admission(4, 10, values=100), []

        def study(name):
            begun.append(name)
            return gate.go.wait(30)

        async def settle(count):
            while len(begun) < count:
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(admission.run(lambda n=n: study(n), values=n)) for n in (60, 30, 500, 10)]
        await settle(2)
        assert begun == [60, 30], "the next does not fit, and nobody overtakes it"
        tasks[2].cancel()
        await settle(3)
        assert begun == [60, 30, 10]
        gate.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await admission.run(lambda: study(700), values=700), "a larger one is computed alone"
        assert admission.inside <= 1

    asyncio.run(check())


def test_a_study_that_nobody_waits_for_is_not_begun(gate):
    async def check():
        admission, begun = Admission(1, 5), []
        first = asyncio.create_task(admission.run(lambda: gate.go.wait(30)))
        second = asyncio.create_task(admission.run(lambda: begun.append(1)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.go.set()
        assert await first
        assert await admission.run(lambda: "next") == "next"
        assert not begun

    asyncio.run(check())


def test_a_study_that_nobody_waits_for_leaves_the_network(gate):
    """Of a long study one pass is under way when its caller leaves; the others are never computed."""
    batcher, sizes, entered = Batcher(4), [], threading.Event()

    def run(block):
        sizes.append(len(block))
        entered.set()
        assert gate.go.wait(30)
        return block.astype(np.float32)

    ended = []

    def study():
        try:
            batcher("network", run, np.zeros((60, 2, 2, 1), np.float32))
        except Abandoned:
            ended.append("abandoned")
            raise

    async def check():
        admission = Admission(2, 5)
        task = asyncio.create_task(admission.run(study))
        assert await asyncio.to_thread(entered.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.go.set()
        await admission.run(lambda: batcher("network", lambda block: block, np.zeros((1, 2, 2, 1), np.float32)))
        while batcher.queued or not ended:
            await asyncio.sleep(0.01)

    asyncio.run(check())
    assert ended == ["abandoned"]
    assert len(sizes) < 5


def test_a_study_that_ends_predictors_is_tried_on_one_other_at_most():
    from types import SimpleNamespace

    from ray.exceptions import ActorDiedError

    from glioflow.serving.gateway import _Remote
    from glioflow.serving.http.refusals import Broken

    tried = []

    class Ends:
        def remote(self, *given):
            tried.append(given)
            return self.end()

        async def end(self):
            raise ActorDiedError

    with pytest.raises(Broken):
        asyncio.run(_Remote(SimpleNamespace(predict=Ends())).predict(None, {}))
    assert len(tried) == 2


def test_a_study_counts_by_what_its_preprocessing_makes_of_it(tiny):
    here = Here(served(tiny))  # whose step `resize` makes slices of 32 x 32
    small, large = (np.zeros((5, side, side, 3), np.uint8) for side in (4, 64))
    for image, values in ((small, 5 * 32 * 32 * 3), (large, large.size)):
        case = Case("p", "p", image, None, ("pre", "flair", "post"), (1, 2, 3, 4, 5))
        assert here.answering.values_of(case) == values


def test_what_headers_hold_and_files_are_called_stays_out_of_the_logs_of_libraries(tmp_path):
    import subprocess
    import sys

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    image.save(tmp_path / "JohnDoe_1.tif", compression="tiff_lzw")
    content = bytearray((tmp_path / "JohnDoe_1.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "JohnDoe_1.tif") as file:
        at = file.pages[0].dataoffsets[0] + 4
    content[at : at + 8] = b"\xff" * 8  # codes that no earlier one has defined
    (tmp_path / "JohnDoe_1.tif").write_bytes(content)
    script = """
import contextlib, logging, sys, warnings
from pathlib import Path
from glioflow.serving.http.request_guard import quiet_libraries
if {quiet}:
    quiet_libraries()
import pydicom
dataset = pydicom.Dataset()
dataset.PatientBirthDate = "Jane Roe 1950"
dataset.RescaleSlope = "nan"
from glioflow.data.formats.slices import read_image
with contextlib.suppress(ValueError):
    read_image(Path(sys.argv[1]) / "JohnDoe_1.tif")
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", script.format(quiet=quiet), tmp_path], capture_output=True, text=True
        ).stderr
        for quiet in (False, True)
    ]
    assert "Jane" in answers[0]
    assert "JohnDoe" in answers[0]
    assert answers[1] == ""
