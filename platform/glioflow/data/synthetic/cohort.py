"""Invented cohorts, written in the layouts of real ones. Draws neither anatomy nor tables itself."""

import csv
import io
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypedDict

import nibabel
import numpy as np
import tifffile
from numpy.typing import NDArray

from glioflow.atomic import check_new_folder, new_folder, write_text
from glioflow.data.synthetic import clinical
from glioflow.data.synthetic.phantom import BRIGHTNESS, draw_phantom, render, smooth_noise
from glioflow.errors import UserError, argument

NamedPatient = tuple[str, clinical.Patient]
MapCases = Callable[[Callable[[NamedPatient], int], Iterable[NamedPatient]], Iterable[int]]


class Synthesized(TypedDict):
    """A written cohort: its folder, number of patients, and total number of slices."""

    path: str
    patients: int
    slices: int


def synthesize_lgg(
    out: Path,
    *,
    patients: int,
    seed: int,
    size: int = 256,
    slices: tuple[int, int] = (20, 60),
    map_cases: MapCases = map,
) -> Synthesized:
    """Write a cohort such as `kaggle_3m`: case folders of 8-bit TIFF slices and masks, `data.csv` and `outcomes.csv`.

    Args:
        out: Folder to make; it appears complete or not at all.
        patients: Number of patients, one case each.
        seed: The same seed, size and slices give the same bytes, for any number of processes.
        size: Side of a slice in pixels.
        slices: Smallest and largest number of slices of a case.
        map_cases: `map`, or a function like it that distributes the calls over processes.

    Raises:
        UserError: If `out` exists and is not empty, or a number is out of its range.
    """
    check_new_folder(out, argument("out"))
    check_numbers(patients, size, slices)
    rng = np.random.default_rng([seed, 0])
    names = clinical.lgg_names(rng, patients)
    people = clinical.invent_patients(rng, patients, mean_age=46, median_days=1900)
    data, outcomes = clinical.lgg_tables(rng, names, people)
    with new_folder(out) as folder:
        write = partial(_write_lgg_case, folder, seed, size, slices)
        total = sum(map_cases(write, list(zip(names, people, strict=True))))
        _write_table(folder / "data.csv", clinical.LGG_COLUMNS, data)
        _write_table(folder / "outcomes.csv", clinical.OUTCOME_COLUMNS, outcomes)
    return {"path": str(out), "patients": patients, "slices": total}


def synthesize_brats(
    out: Path,
    *,
    patients: int,
    seed: int,
    size: int = 240,
    slices: int = 155,
    map_cases: MapCases = map,
) -> Synthesized:
    """Write a cohort such as BraTS 2020's training data: four modalities and labels 0, 1, 2, 4 as NIfTI, two tables.

    Args:
        out: Folder to make; it appears complete or not at all.
        patients: Number of patients, one case each.
        seed: As in `synthesize_lgg`.
        size: Side of an axial slice in voxels; the head keeps its size in millimeters.
        slices: Slices of every case.
        map_cases: As in `synthesize_lgg`.

    Raises:
        UserError: As `synthesize_lgg`.
    """
    check_new_folder(out, argument("out"))
    check_numbers(patients, size, (slices, slices))
    rng = np.random.default_rng([seed, 0])
    names = [f"BraTS20_Training_{number:03}" for number in range(1, patients + 1)]
    people = clinical.invent_patients(rng, patients, mean_age=61, median_days=370)
    survival, mapping = clinical.brats_tables(rng, names, people)
    with new_folder(out) as folder:
        write = partial(_write_brats_case, folder, seed, (slices, size, size))
        total = sum(map_cases(write, list(zip(names, people, strict=True))))
        _write_table(folder / "survival_info.csv", clinical.SURVIVAL_COLUMNS, survival)
        _write_table(folder / "name_mapping.csv", clinical.MAPPING_COLUMNS, mapping)
    return {"path": str(out), "patients": patients, "slices": total}


def _write_lgg_case(root: Path, seed: int, size: int, slices: tuple[int, int], case: NamedPatient) -> int:
    name, patient = case
    rng = np.random.default_rng([seed, 1 + patient.index])
    shape = (int(rng.integers(slices[0], slices[1] + 1)), size, size)
    phantom = draw_phantom(rng, shape, patient.tumor, head=True)
    texture = smooth_noise(rng, shape, (min(shape[0], 16), 48, 48))
    gains = rng.uniform(70, 135, 3)
    planes = [
        np.clip(render(rng, phantom, sequence, texture) * gain, 0, 255).astype(np.uint8)
        for sequence, gain in zip(("t1", "flair", "t1ce"), gains, strict=True)
    ]
    for position, channel in ((0, "pre"), (2, "post")):
        if channel in patient.missing:
            planes[position] = planes[1]
    image, mask = np.stack(planes, axis=-1), np.where(phantom.tumor > 0, 255, 0).astype(np.uint8)
    folder = root / name
    folder.mkdir()
    for number in range(shape[0]):
        for suffix, pixels in (("", image[number]), ("_mask", mask[number])):
            kind = "minisblack" if suffix else "rgb"
            path = folder / f"{name}_{number + 1}{suffix}.tif"
            tifffile.imwrite(path, pixels, photometric=kind, metadata=None, software="")
    return shape[0]


def _write_brats_case(root: Path, seed: int, shape: tuple[int, int, int], case: NamedPatient) -> int:
    name, patient = case
    rng = np.random.default_rng([seed, 1 + patient.index])
    phantom = draw_phantom(rng, shape, patient.tumor, head=False)
    texture = smooth_noise(rng, shape, (min(shape[0], 32), 48, 48))
    brain = phantom.tissue > 0
    folder = root / name
    folder.mkdir()
    for sequence in BRIGHTNESS:
        volume = render(rng, phantom, sequence, texture) * rng.uniform(300, 1500)
        _write_nifti(folder / f"{name}_{sequence}.nii.gz", np.where(brain, volume + 1, 0).astype(np.int16))
    # In the real cohort, this mask kept its name from another data set.
    mask = "W39_1998.09.19_Segm.nii" if name == "BraTS20_Training_355" else f"{name}_seg.nii.gz"
    _write_nifti(folder / mask, phantom.tumor)
    return shape[0]


def _write_nifti(path: Path, volume: NDArray[np.generic]) -> None:
    """Write (S, H, W) as BraTS does: file axes left, posterior, superior; 240 x 240 x 155 mm for any size."""
    step = np.array([240 / volume.shape[2], 240 / volume.shape[1], 155 / volume.shape[0]])
    affine = np.diag([-step[0], -step[1], step[2], 1.0])
    affine[1, 3] = 239
    image = nibabel.Nifti1Image(np.transpose(volume, (2, 1, 0)), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def _write_table(path: Path, columns: Iterable[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def check_numbers(patients: int, size: int, slices: tuple[int, int]) -> None:
    """Refuse a number of patients, a side of a slice in pixels, or fewest and most slices out of their ranges."""
    for name, value, low, high in (
        ("patients", patients, 1, 9000),
        ("size", size, 32, 1024),
        ("slices", slices[0], 4, 1000),
        ("slices", slices[1], slices[0], 1000),
    ):
        if not low <= value <= high:
            raise UserError(f"{name} must be from {low} to {high}", value)
