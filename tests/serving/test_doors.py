"""The endpoint, the Python API and `glioflow predict` give one answer, or one refusal, about each study."""

import io
import json
import shutil
import zipfile

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from bundles import Bright, changed, describe
from data.dicom_series import write_series
from glioflow.api import answer_folder
from glioflow.api.model import LoadedModel
from glioflow.bundle.encoded_mask import decode_mask
from glioflow.data.formats.brats import CHANNELS
from glioflow.errors import UserError
from glioflow.serving.engine.batching import BatchedPredictor
from glioflow.serving.versions.loaded import Served
from serving.in_process import ENGINE, Here, client, version

LGG, BRATS = ("pre", "flair", "post"), CHANNELS


def slices(number=9, kind=np.uint8, factor=1, size=32):
    """Return slices with a bright ball, (S, H, W, 3)."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (number, size, size)), indexing="ij"))
    ball = (grid**2).sum(axis=0)
    volume = np.where(ball < 0.2, 220, np.where(ball < 0.8, 90, 0))
    return (np.stack([volume * 0.6, volume, volume * 0.8], axis=-1).astype(np.uint8).astype(kind)) * kind(factor)


def as_tiffs(folder, volume, name="p_{}.tif", first=1, **options):
    for k, plane in enumerate(volume, start=first):
        tifffile.imwrite(folder / name.format(k), plane, photometric="rgb", **options)


def as_volumes(folder, name, channels=BRATS, names=None, shape=(24, 24, 12)):
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    ball = (grid**2).sum(axis=0)
    for k, channel in enumerate(channels):
        volume = np.where(ball < 0.2, 900 + k, np.where(ball < 0.8, 400 + 10 * k - 99 * ball, 0)).astype(np.int16)
        image = nibabel.Nifti1Image(volume, np.diag([-1.0, -1.0, 2.0, 1.0]))
        nibabel.save(image, folder / name.format((names or {}).get(channel, channel)))


def beside(folder):
    as_tiffs(folder, slices())
    for name in ("README.txt", "Thumbs.db", "p.json", "AUTORUN.INF", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    Image.fromarray(slices()[4]).save(folder / "preview.jpg")


def with_masks(folder):
    as_tiffs(folder, slices())
    for k in range(1, 10):
        tifffile.imwrite(folder / f"p_{k}_mask.tif", np.zeros((32, 32), np.uint8))


def transparent(folder):
    opaque = np.full((*slices().shape[:3], 1), 255, np.uint8)
    as_tiffs(folder, np.concatenate([slices(), opaque], axis=-1), extrasamples=["unassalpha"])


BIDS = {"t1": "T1w", "t1ce": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}
# Each writes a study; a text is part of the refusal or of a warning, None is a plain answer.
STUDIES = {
    "slices": (LGG, lambda f: as_tiffs(f, slices()), None),
    "no ASCII": (LGG, lambda f: as_tiffs(f, slices(), "Пациент ä {}.tif"), None),
    "long names": (LGG, lambda f: as_tiffs(f, slices(12), "Ж" * 120 + "_{}.tif"), None),
    "numbers below zero": (LGG, lambda f: as_tiffs(f, slices(), "p_{}.tif", first=-4), None),
    "pngs": (LGG, lambda f: [Image.fromarray(p).save(f / f"p_{k}.png") for k, p in enumerate(slices())], None),
    "a stack": (LGG, lambda f: tifffile.imwrite(f / "stack.tif", slices(), photometric="rgb"), None),
    "opacity": (LGG, transparent, None),
    "8 bits in 16": (LGG, lambda f: as_tiffs(f, slices(kind=np.uint16, factor=257)), "divided by 257"),
    "16 bits up to 255": (LGG, lambda f: as_tiffs(f, slices(kind=np.uint16)), None),
    "12 bits": (LGG, lambda f: as_tiffs(f, slices(kind=np.uint16, factor=16)), "must be in 0..255"),
    "scaled to 0..1": (LGG, lambda f: as_tiffs(f, slices() / np.float32(255)), "must be in 0..255"),
    "masks": (LGG, with_masks, "9 masks among the files were not looked at"),
    "notes and previews": (LGG, beside, "left out: AUTORUN.INF, README.txt, Thumbs.db, p.json, preview.jpg"),
    "no image in a file": (LGG, lambda f: (f / "p_1.tif").write_bytes(b"II*\0\0\0\0\0"), "a file without an image"),
    "1100 slices": (LGG, lambda f: tifffile.imwrite(f / "p.tif", slices(1100, size=8), photometric="rgb"), "slices"),
    "a high volume": (BRATS, lambda f: as_volumes(f, "p_{}.nii.gz", shape=(8, 8, 1100)), "most 1000 slices"),
    "two sizes": (LGG, lambda f: (as_tiffs(f, slices()), as_tiffs(f, slices(size=24), first=20)), "same size"),
    "BraTS": (BRATS, lambda f: as_volumes(f, "BraTS-GLI-00001-000_{}.nii.gz"), None),
    "BIDS": (BRATS, lambda f: as_volumes(f, "sub-01_ses-2_{}.nii.gz", names=BIDS), None),
    "names of sequences": (BRATS, lambda f: as_volumes(f, "{}.nii.gz"), None),
    "an archive": (LGG, lambda f: (f / "p.tar.gz").write_bytes(b"x"), "got p.tar.gz; unpack p.tar.gz"),
    "a picture": (LGG, lambda f: (f / "p.jpg").write_bytes(b"x"), "JPEG changes intensities"),
    "HDF5 of BraTS": (LGG, lambda f: (f / "volume_1_slice_2.h5").write_bytes(b"x"), "download BraTS as NIfTI"),
    "no preamble": (LGG, lambda f: (f / "IM1").write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100"), "dcmconv IN OUT"),
    "three of four": (BRATS, lambda f: as_volumes(f, "p_{}.nii.gz", CHANNELS[:3]), "one with flair, t1, t1ce"),
    "DICOM": (("flair",), lambda f: write_series(f, slices(6)[..., 1] + np.arange(32, dtype=np.uint16)), None),
}  # fmt: skip


@pytest.fixture
def ask(tiny, tmp_path, monkeypatch):
    """Return a function that asks a model with these channels about a folder, through each door."""

    def asked(channels, folder):
        steps = {"preprocess": [{"step": "unit" if channels == LGG else "zscore"}]}
        description = describe(changed(tiny, **steps), channels=channels, network_channels=channels)
        network = Bright(channel=channels.index("flair"), above=0.5)
        model = LoadedModel({"name": "m", "version": None, "run_id": None}, BatchedPredictor(description, network))
        served = Served(version(1), BatchedPredictor(description, network), ENGINE)
        endpoint, files = client(Here(served)), sorted(folder.iterdir())
        packed = tmp_path / "study.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in files:
                archive.write(file, file.name)
        monkeypatch.setattr(answer_folder, "load", lambda name: model)
        return {
            "loose files": sent(endpoint, [(file.name, file.read_bytes()) for file in files]),
            "a zip": sent(endpoint, [("study.zip", packed.read_bytes())]),
            "the API with files": told(lambda: model.predict(files).json),
            "the API with a folder": told(lambda: model.predict(folder).json),
            "the API with a zip": told(lambda: model.predict(packed).json),
            "predict": told(lambda: predicted(folder, tmp_path / "out")),
        }

    return asked


def predicted(folder, out):
    (study,) = answer_folder.predict_studies("m", [folder], out, say=lambda *_: None).studies
    return json.loads((out / study["id"] / "answer.json").read_text())


def sent(endpoint, files):
    reply = endpoint.post("/v1/predict", files=[("files", (name, io.BytesIO(data))) for name, data in files]).json()
    if "error" in reply:
        return str(UserError.from_record(reply["error"]))
    return essence(reply)


def told(answer):
    try:
        return essence(answer())
    except UserError as error:
        return str(error)


def essence(answer):
    mask = decode_mask(answer["mask"])
    return mask.shape, int((mask > 0).sum()), tuple(answer["study"]["warnings"]), tuple(answer["study"]["slices"])


@pytest.mark.parametrize("name", STUDIES)
def test_each_door_gives_the_same_answer_or_the_same_refusal(ask, tmp_path, name):
    channels, write, expected = STUDIES[name]
    folder = tmp_path / "p"
    folder.mkdir()
    write(folder)
    answers = ask(channels, folder)
    plain = {door: str(answer).replace(f"{folder}/", "").replace(f"{folder}: ", "") for door, answer in answers.items()}
    assert len(set(plain.values())) == 1, plain
    said = plain["a zip"]
    assert said.startswith("((") == (
        expected is None or "among" in expected or "left out" in expected or "257" in expected
    )
    assert expected is None or expected in said
    shutil.rmtree(folder)
