"""How much a gateway holds at once: what counts is what files become, however small they were sent."""

import asyncio
import gzip
import io
import threading
from functools import partial

import nibabel
import numpy as np
import pydicom
import pytest
from fastapi import UploadFile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from data.dicom_series import write_series
from glioflow.abandonment import check_wanted, current_study
from glioflow.serving.http.opened_studies import OpenedStudies
from glioflow.serving.http.refusals import Busy
from glioflow.serving.http.room import Room
from glioflow.serving.http.uploads import read_saved, save_study
from glioflow.serving.settings import Limits, ServeSettings
from serving.in_process import Here, client, served

SIDE = 16
VALUES = SIDE**3
NOISE = np.random.default_rng(0).integers(0, 900, (SIDE,) * 3).astype(np.int16)
VOLUME = gzip.compress(nibabel.Nifti1Image(NOISE, np.eye(4)).to_bytes())


def test_four_of_the_largest_studies_are_held_at_once_the_next_waits_and_one_more_is_refused():
    held = [0]

    async def ask(studies, go):
        file = UploadFile(io.BytesIO(VOLUME), filename="p_flair.nii.gz")
        async with studies.opened([file], partial(read_saved, limits=studies.limits)) as case:
            held.append(held[-1] + 1)
            await go.wait()
            held.append(held[-1] - 1)
            return case.image.size

    async def run():
        studies, go = OpenedStudies(ServeSettings(limits=Limits(values=VALUES, queued=1))), asyncio.Event()
        asked = [asyncio.create_task(ask(studies, go)) for _ in range(6)]
        (refused,), others = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert isinstance(refused.exception(), Busy)
        go.set()
        assert await asyncio.gather(*others) == [VALUES] * 5

    asyncio.run(asyncio.wait_for(run(), 60))
    assert max(held) <= 4


def test_a_large_one_gets_its_turn_before_small_ones_that_came_later_and_who_leaves_holds_up_nobody():
    order = []

    async def ask(room, name, size, go):
        async with room.taken(size):
            order.append(name)
            await go.wait()

    async def run():
        room, first, rest = Room(10), asyncio.Event(), asyncio.Event()
        rest.set()
        holder = asyncio.create_task(ask(room, "first", 6, first))
        await asyncio.sleep(0)
        others = [asyncio.create_task(ask(room, *each, rest)) for each in (("leaves", 9), ("large", 12), ("small", 1))]
        while room.waiting < 3:
            await asyncio.sleep(0)
        others[0].cancel()
        await asyncio.wait([others[0]])
        assert order == ["first"]
        await ask(room, "nothing", 0, rest)
        first.set()
        await asyncio.gather(holder, *others[1:])
        assert (room.waiting, room._used) == (0, 0)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert order == ["first", "nothing", "large", "small"]


def test_a_study_that_cannot_be_read_leaves_its_room_to_others():
    async def run():
        studies = OpenedStudies(ServeSettings(limits=Limits(values=VALUES)))
        for _ in range(5):
            broken = [UploadFile(io.BytesIO(VOLUME[:-20]), filename="p_flair.nii.gz")]
            with pytest.raises(ValueError, match="cannot be read"):
                async with studies.opened(broken, partial(read_saved, limits=studies.limits)):
                    pass
        assert studies._room._used == 0

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("compressed", [False, True])
def test_dicom_counts_by_its_header_where_its_pixels_are_compressed(tmp_path, compressed):
    series = write_series(tmp_path / "series", np.zeros((3, 256, 256), np.uint16))
    for path in series.iterdir() if compressed else ():
        ds, stream = pydicom.dcmread(path), io.BytesIO()
        Image.fromarray(ds.pixel_array).save(stream, "JPEG2000", no_jp2=True, irreversible=False)
        ds.PixelData = encapsulate([stream.getvalue()])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.save_as(path, enforce_file_format=True)
        assert path.stat().st_size < 5000
    (tmp_path / "study").mkdir()
    uploads = [(path.name, path.open("rb")) for path in series.iterdir()]
    _, values = save_study(uploads, tmp_path / "study", Limits())
    assert values == pytest.approx(3 * 256 * 256, rel=0.02)


def test_a_study_that_takes_too_long_to_read_is_overload_and_its_reading_ends(tiny, tmp_path, monkeypatch):
    began, ended, read_header = [], [], pydicom.dcmread

    def read_slowly(file, **options):
        began.append(file)
        assert current_study().wait(60), "the deadline comes"
        header = read_header(file, **options)
        ended.append(file)
        return header

    folder = write_series(tmp_path / "series", NOISE.astype(np.uint16))
    monkeypatch.setattr(pydicom, "dcmread", read_slowly)
    api = client(Here(served(tiny)), ServeSettings(limits=Limits(timeout_s=2)))
    reply = api.post("/v1/predict", files=[("files", (path.name, path.read_bytes())) for path in folder.iterdir()])
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert reply.json()["error"]["rule"] == "the study was not read within 2 s; try again"
    assert (len(began), len(ended)) == (1, 0)


def test_reading_ends_when_the_caller_leaves_and_keeps_its_files_until_then():
    reads, ended = threading.Event(), []

    def read(files, folder):
        reads.set()
        try:
            while True:
                check_wanted()
        finally:
            ended.append(files[0].read_bytes())

    async def ask(studies):
        async with studies.opened([UploadFile(io.BytesIO(VOLUME), filename="p_flair.nii.gz")], read):
            raise AssertionError

    async def run():
        studies = OpenedStudies(ServeSettings())
        asked = asyncio.create_task(ask(studies))
        assert await asyncio.to_thread(reads.wait, 30)
        asked.cancel()
        await asyncio.wait([asked])
        assert (asked.cancelled(), ended, studies._room._used) == (True, [VOLUME], 0)

    asyncio.run(asyncio.wait_for(run(), 60))
