"""Which files are volumes, and their names without endings: NIfTI, MetaImage, NRRD, and nnU-Net's pictures."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from glioflow.data.formats.itk import is_itk
from glioflow.data.formats.tree import files_below
from glioflow.data.sequences import is_channel_name

_CORRECTED = "_bias"


def nifti_files(path: Path) -> Iterable[Path]:
    """Yield the NIfTI files below `path`; see `files_below`."""
    return files_below(path, lambda file: is_nifti(file.name))


def volume_files(path: Path) -> Iterable[Path]:
    """Yield the files of volumes below `path`: NIfTI and masks of Slicer, or else MetaImage and NRRD."""
    volumes = list(files_below(path, lambda file: is_volume(file.name)))
    with_nifti = any(is_nifti(file.name) for file in volumes)
    yield from (file for file in volumes if not with_nifti or is_nifti(file.name) or is_slicers(file.name))


def is_volume(name: str) -> bool:
    """Return whether a file is NIfTI, MetaImage or NRRD, by its name."""
    return is_nifti(name) or is_itk(name)


def is_slicers(name: str) -> bool:
    """Return whether a file is a segmentation of 3D Slicer, by its name."""
    return name.lower().endswith(".seg.nrrd")


def is_nifti(name: str) -> bool:
    """Return whether a file is NIfTI, by its name."""
    return name.lower().endswith((".nii", ".nii.gz"))


def stem(path: Path) -> str:
    """Return the name without `.nii`, `.nii.gz`, `.mha`, `.nrrd`, `.seg.nrrd`, `.tif` or `.png`."""
    return re.sub(r"\.(?:nii(?:\.gz)?|mha|(?:seg\.)?nrrd|tiff?|png)$", "", path.name, flags=re.IGNORECASE)


def without_copies(files: Sequence[Path]) -> list[Path]:
    """Return the files of a case without those that repeat a sequence with its bias field corrected.

    UCSF-PDGM has them, such as `FLAIR_bias.nii.gz` beside `FLAIR.nii.gz`.
    """
    names = {(file.parent, stem(file).lower()) for file in files}

    def is_copy(file: Path) -> bool:
        name = stem(file).lower()
        twin = name.removesuffix(_CORRECTED)
        return twin != name and (file.parent, twin) in names and is_channel_name(re.split("[_-]", twin)[-1])

    return [file for file in files if not is_copy(file)]
