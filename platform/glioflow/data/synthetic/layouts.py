"""Tiny imitations of public data sets: names, folders and data types as published, with invented contents."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from glioflow.atomic import check_new_folder, new_folder
from glioflow.data.formats.brats import CHANNELS
from glioflow.data.formats.detect import open_cohort
from glioflow.data.synthetic.cohort import check_numbers
from glioflow.data.synthetic.matlab_slices import write_matlab_slice
from glioflow.data.synthetic.phantom import TumorPlan, draw_phantom, render, smooth_noise
from glioflow.errors import argument, unknown_name

SLICES = 12
# Numbers of the labels of a drawn tumor (1 core, 2 edema, 4 enhancing) in a scheme; every second part of the
# core has the number after it.
_NUMBERS: Mapping[str, tuple[Mapping[int, int], int]] = {
    "tumor": ({1: 1, 2: 1, 4: 1}, 1),
    "brats-2013": ({1: 3, 2: 2, 4: 4}, 1),
    "brats-2021": ({1: 1, 2: 2, 4: 4}, 1),
    "brats-2023": ({1: 1, 2: 2, 4: 3}, 1),
    "brats-2024-gli": ({1: 1, 2: 2, 4: 3}, 4),
    "brats-2024-ped": ({1: 2, 2: 4, 4: 1}, 3),
    "decathlon": ({1: 2, 2: 1, 4: 3}, 2),
}


@dataclass(frozen=True)
class Example:
    """A data set to draw.

    Attributes:
        cases: Values of the fields in its paths, for each case.
        image: Path of an image, with the fields and `{what}`.
        names: Names of the files of each sequence.
        masks: Paths of each kind of mask.
        scheme: Numbering of its labels.
        files: Further files, such as `dataset.json`, with their text.
        stacked: Whether the sequences are the fourth axis of one file.
        slices: Slices of a case in its files: all, or the one with most tumor.
    """

    cases: tuple[Mapping[str, str], ...]
    image: str
    names: Mapping[str, str]
    masks: tuple[str, ...]
    scheme: str
    files: Mapping[str, str] = field(default_factory=dict)
    stacked: bool = False
    slices: int = SLICES


def _names(text: str) -> dict[str, str]:
    return dict(zip(CHANNELS, text.split(), strict=True))


def _cases(*names: str) -> tuple[Mapping[str, str], ...]:
    return tuple({"case": name} for name in names)


def _modern(*cases: str, scheme: str) -> Example:
    path = "{case}/{case}-{what}.nii.gz"
    return Example(_cases(*cases), path, _names("t2f t1n t1c t2w"), ("{case}/{case}-seg.nii.gz",), scheme)


_TASK01 = (
    '{"name": "BRATS", "tensorImageSize": "4D", "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}, '
    '"labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}}'
)

EXAMPLES: Mapping[str, Example] = {
    "brats-2013": Example(
        _cases("brats_2013_pat0001_1", "brats_tcia_pat153_0109"),
        "HGG/{case}/VSD.Brain.XX.O.{what}.54512/VSD.Brain.XX.O.{what}.54512.mha",
        _names("MR_Flair MR_T1 MR_T1c MR_T2"),
        ("HGG/{case}/VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517.mha",),
        "brats-2013",
    ),
    "brats-2013-smir": Example(
        _cases("HG_0001", "LG_0001"),
        "BRATS-2/Image_Data/{person}/{visit}/VSD.Brain.XX.O.{what}/VSD.Brain.XX.O.{what}.684.mha",
        _names("MR_Flair MR_T1 MR_T1c MR_T2"),
        ("BRATS-2/Image_Data/{person}/{visit}/VSD.Brain_3more.XX.XX.OT/VSD.Brain_3more.XX.XX.OT.6560.mha",),
        "brats-2013",
    ),
    "brats-2018": Example(
        _cases("Brats18_TCIA01_131_1", "Brats18_CBICA_AAM_1"),
        "HGG/{case}/{case}_{what}.nii.gz",
        _names("flair t1 t1ce t2"),
        ("HGG/{case}/{case}_seg.nii.gz",),
        "brats-2021",
    ),
    "brats-2023-gli": _modern("BraTS-GLI-00000-000", "BraTS-GLI-00005-000", scheme="brats-2023"),
    "brats-2023-ssa": _modern("BraTS-SSA-00002-000", "BraTS-SSA-00007-000", scheme="brats-2023"),
    "brats-2023-men": _modern("BraTS-MEN-00004-000", "BraTS-MEN-00008-000", scheme="brats-2023"),
    "brats-2023-met": _modern("BraTS-MET-00002-000", "BraTS-MET-00003-000", scheme="brats-2023"),
    "brats-2024-gli": _modern("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", scheme="brats-2024-gli"),
    "brats-2024-ped": _modern("BraTS-PED-00002-000", "BraTS-PED-00003-000", scheme="brats-2024-ped"),
    "brats-men-rt": Example(
        _cases("BraTS-MEN-RT-0004-1", "BraTS-MEN-RT-0060-1"),
        "{case}/{case}_{what}.nii.gz",
        {"t1ce": "t1c"},
        ("{case}/{case}_gtv.nii.gz",),
        "tumor",
    ),
    "decathlon": Example(
        _cases("BRATS_001", "BRATS_002"),
        "imagesTr/{case}.nii.gz",
        _names("FLAIR T1w t1gd T2w"),
        ("labelsTr/{case}.nii.gz",),
        "decathlon",
        {"dataset.json": _TASK01},
        stacked=True,
    ),
    "ucsf-pdgm": Example(
        _cases("UCSF-PDGM-0004", "UCSF-PDGM-0005"),
        "{case}_nifti/{case}_{what}.nii.gz",
        _names("FLAIR T1 T1c T2"),
        ("{case}_nifti/{case}_tumor_segmentation.nii.gz",),
        "brats-2021",
    ),
    "upenn-gbm": Example(
        _cases("UPENN-GBM-00002_11", "UPENN-GBM-00002_21", "UPENN-GBM-00003_11"),
        "images_structural/{case}/{case}_{what}.nii.gz",
        _names("FLAIR T1 T1GD T2"),
        ("images_segm/{case}_segm.nii.gz", "automated_segm/{case}_automated_approx_segm.nii.gz"),
        "brats-2021",
    ),
    "brats-tcga": Example(
        _cases("TCGA-02-0006_1996.08.23", "TCGA-08-0350_1998.12.15"),
        "{person}/{case}_{what}.nii.gz",
        _names("flair t1 t1Gd t2"),
        ("{person}/{case}_GlistrBoost_ManuallyCorrected.nii.gz", "{person}/{case}_GlistrBoost.nii.gz"),
        "brats-2021",
    ),
    "rembrandt": Example(
        _cases("900-00-5299_2005.03.22", "HF1318_1994.04.23"),
        "{case}/{case}_{what}.nii.gz",
        _names("flair_LPS_rSRI t1_LPS_rSRI t1ce_LPS_rSRI t2_LPS_rSRI"),
        ("{case}/{case}_GlistrBoost_out.nii.gz",),
        "brats-2021",
    ),
    "ucsf-alptdg": Example(
        _cases("100001_time1", "100001_time2"),
        "{person}/{case}_{what}.nii.gz",
        _names("flair t1 t1ce t2"),
        ("{person}/{case}_seg.nii.gz",),
        "brats-2024-gli",
    ),
    "ucsd-ptgbm": Example(
        _cases("UCSD-PTGBM-0002_01", "UCSD-PTGBM-0002_02"),
        "{case}/{case}_{what}.nii.gz",
        _names("FLAIR T1pre T1post T2"),
        ("{case}/{case}_BraTS_tumor_seg.nii.gz", "{case}/{case}_total_cellular_tumor_seg.nii.gz"),
        "brats-2024-gli",
    ),
    "mu-glioma-post": Example(
        _cases("PatientID_0003_Timepoint_1", "PatientID_0003_Timepoint_2"),
        "MU-Glioma-Post/{person}/{visit}/{case}_{what}.nii.gz",
        _names("brain_t2f brain_t1n brain_t1c brain_t2w"),
        ("MU-Glioma-Post/{person}/{visit}/{case}_tumorMask.nii.gz",),
        "brats-2024-gli",
    ),
    "rhuh-gbm": Example(
        _cases("RHUH-0001_0", "RHUH-0001_1"),
        "{person}/{visit}/{case}_{what}.nii.gz",
        _names("flair t1 t1ce t2"),
        ("{person}/{visit}/{case}_segmentations.nii.gz",),
        "brats-2023",
    ),
    "lumiere": Example(
        _cases("Patient-001_week-000-1", "Patient-001_week-044"),
        "Imaging/{person}/{visit}/DeepBraTumIA-segmentation/atlas/skull_strip/{what}_skull_strip.nii.gz",
        _names("flair t1 ct1 t2"),
        ("Imaging/{person}/{visit}/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",),
        "brats-2023",
    ),
    "egd": Example(
        _cases("EGD-0001", "EGD-0002"),
        "{case}/{what}.nii.gz",
        _names("FLAIR T1 T1GD T2"),
        ("{case}/MASK.nii.gz",),
        "tumor",
    ),
    "utsw-glioma": Example(
        _cases("BT0001", "BT0002"),
        "UTSW-Glioma/{case}/brain_{what}.nii.gz",
        _names("flair t1 t1ce t2"),
        ("UTSW-Glioma/{case}/tumorseg_FeTS.nii.gz", "UTSW-Glioma/{case}/rtumorseg_manual_correction.nii.gz"),
        "brats-2021",
    ),
    "figshare": Example(
        ({"case": "1", "person": "100360"}, {"case": "2", "person": "MR040240"}, {"case": "3", "person": "MR040240B"}),
        "brainTumorDataPublic_1-766/{case}.mat",
        {"t1ce": "image"},
        (),
        "tumor",
        {"README.txt": "This brain tumor dataset contains 3064 T1-weighted contrast-inhanced images"},
        slices=1,
    ),
}


def synthesize_layout(
    name: str, out: Path, *, patients: int | None = None, seed: int = 0, size: int = 32
) -> tuple[int, int]:
    """Write a tiny imitation of a public data set.

    Args:
        name: Key in `EXAMPLES`.
        out: Folder to make; it appears complete or not at all.
        patients: Number of persons; None uses the two or three cases with known names.
        seed: The same seed gives the same voxels.
        size: Side of a slice in pixels; a case has `SLICES` slices.

    Returns:
        The numbers of its persons and of its slices.

    Raises:
        UserError: If there is no such data set, `out` exists and is not empty, or a number is out of its range.
    """
    if name not in EXAMPLES:
        raise unknown_name("data set to synthesize", name, EXAMPLES)
    check_numbers(2 if patients is None else patients, max(size, 32), (SLICES, SLICES))  # a tiny copy may be smaller
    check_new_folder(out, argument("out"))
    example = EXAMPLES[name]
    cases = example.cases if patients is None else _numbered(example.cases[0]["case"], patients)
    with new_folder(out) as folder:
        for index, fields in enumerate(cases):
            _write_case(folder, example, _more(fields), np.random.default_rng([seed, index]), (SLICES, size, size))
        for path, text in example.files.items():
            (folder / path).write_text(text, encoding="utf-8")
    made = open_cohort(out, masks=False).cases
    return len({case.patient for case in made}), len(made) * example.slices


def _numbered(case: str, patients: int) -> tuple[Mapping[str, str], ...]:
    """Return cases of `count` persons, named like `case` with other numbers in place of its person's longest number."""
    pattern = re.compile(r"(?<!Brats)(?<!Brats1)\d+")  # not the year after these names
    person = _more({"case": case})["person"]
    numbers = list(pattern.finditer(person)) or list(pattern.finditer(case))
    longest = max(numbers, key=lambda match: (len(match[0]), match.start()))
    before, after, width = case[: longest.start()], case[longest.end() :], len(longest[0])
    return tuple({"case": f"{before}{number:0{width}d}{after}"} for number in range(1, patients + 1))


def _more(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a case with its person and visit: the parts before and after the first underscore."""
    case = fields["case"]
    end = "_Timepoint" if "_Timepoint" in case else "_"
    person, _, _ = case.partition(end)
    return {"person": person, "visit": case.removeprefix(f"{person}_"), **fields}


def _write_case(
    root: Path, example: Example, fields: Mapping[str, str], rng: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    phantom = draw_phantom(rng, shape, TumorPlan(0.3, 0.2), head=False)
    texture = smooth_noise(rng, shape, (shape[0], 16, 16))
    images = {
        sequence: np.where(phantom.tissue > 0, render(rng, phantom, sequence, texture) * 500 + 1, 0).astype(np.int16)
        for sequence in example.names
    }
    numbers, beside = _NUMBERS[example.scheme]
    table = np.zeros(256, np.uint8)
    table[list(numbers)] = list(numbers.values())
    mask = table[phantom.tumor]
    mask[(phantom.tumor == 1) & (np.arange(shape[2]) % 2 == 0)] = beside
    if example.image.endswith(".mat"):
        (volume,) = images.values()
        fullest = int(mask.any(axis=2).sum(axis=1).argmax())
        write_matlab_slice(root / example.image.format(**fields), fields["person"], volume[fullest], mask[fullest])
    elif example.stacked:
        _write(root / example.image.format(**fields), np.stack([images[name] for name in example.names], -1))
    else:
        for sequence, what in example.names.items():
            _write(root / example.image.format(what=what, **fields), images[sequence])
    for path in example.masks:
        _write(root / path.format(**fields), mask)


def _write(path: Path, volume: NDArray[np.generic]) -> None:
    """Write (S, H, W[, C]) with file axes left, posterior, superior, at 4 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.ascontiguousarray(np.moveaxis(volume, (0, 1, 2), (2, 1, 0)))
    if path.suffix == ".mha":
        import SimpleITK

        image = SimpleITK.GetImageFromArray(volume)
        image.SetSpacing((4.0, 4.0, 4.0))
        SimpleITK.WriteImage(image, str(path), True)
        return
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)
