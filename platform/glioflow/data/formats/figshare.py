"""Figshare's 3,064 slices of T1 after contrast (Cheng 2017), of which 1,426 are gliomas: one MATLAB 7.3 file each.

A file, such as `brainTumorDataPublic_1-766/1.mat`, is HDF5 with the group `cjdata`: `label` (1 meningioma, 2 glioma,
3 pituitary tumor), `PID` (codes of letters), `image`, `tumorMask` and `tumorBorder`, transposed as in MATLAB.
Sources: the readme beside the files, and public loaders.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.formats.file_roles import roles_for
from glioflow.data.formats.record import CaseFiles, Cohort, reason
from glioflow.data.formats.tiff import MAX_SIDE_PX
from glioflow.data.formats.tree import files_below
from glioflow.errors import TooLarge, UserError

CHANNELS, LABELS = ("t1ce",), {1: "tumor"}
GLIOMA = 2
_TUMORS = {1: "meningioma", GLIOMA: "glioma", 3: "pituitary tumor"}
_NAME = re.compile(r"\d+\.mat", re.IGNORECASE)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_AFTER_MATLABS_HEADER = 512
# Eighteen ids differ from others only in a letter, as MR040240 and MR040240B: probably another scan of that person.
_LETTER = re.compile(r"(?P<person>MR\d+)[A-Z]")
_MOST_LETTERS = 64


def is_slice(path: Path) -> bool:
    """Return whether a file is a numbered MATLAB 7.3 file, by its name and its first bytes."""
    if not _NAME.fullmatch(path.name) or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_AFTER_MATLABS_HEADER + len(_HDF5))
    return _HDF5 in (head[: len(_HDF5)], head[_AFTER_MATLABS_HEADER:])


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether the first numbered MATLAB file is one of version 7.3."""
    first = next((file for file in files if _NAME.fullmatch(file.name)), None)
    return first is not None and is_slice(first)


def open(path: Path, *, masks: bool = True) -> Cohort:
    """List the slices of gliomas, each as a case of its person.

    Raises:
        UserError: If a file is damaged or holds no slice of this set, or none is a glioma.
    """
    roles_for("figshare", path)
    files = list(files_below(path, lambda file: bool(_NAME.fullmatch(file.name))))
    return open_files(files, path, masks=masks, gliomas=True)


def open_files(files: Sequence[Path], path: Path, *, masks: bool = True, gliomas: bool = False) -> Cohort:
    """List the files, or the `gliomas` among them; see `open`."""
    known = [(file, *_read_facts(file)) for file in files]
    taken = [(file, person) for file, label, person in known if label == GLIOMA or not gliomas]
    if not taken:
        raise UserError("the slices must hold a glioma (label 2)", "other tumors alone", file=path)
    cases = sorted((CaseFiles(file.stem, person, (file,)) for file, person in taken), key=lambda case: case.id)
    others = Counter(_TUMORS[label] for _, label, _ in known if gliomas and label != GLIOMA)
    left_out = ", ".join(f"{number} of {name}" for name, number in sorted(others.items()))
    notes = (
        *([f"slices left out, since they show no glioma: {left_out}"] if left_out else []),
        "the slices are axial, coronal or sagittal, and state neither which nor their spacing",
    )
    layout = "Figshare's slices"
    return Cohort("figshare", path, tuple(cases), dict(LABELS), partial(read, masks=masks), layout=layout, notes=notes)


def read(case: CaseFiles, *, masks: bool = True) -> Case:
    """Read a slice, (1, H, W, 1), and its mask, 0 and 1.

    Raises:
        UserError: If the file is damaged, or image and mask are not of one size.
    """
    (file,) = case.files
    label, image, mask = _read_fields(file, "label", "image", "tumorMask")
    if image.ndim != 2 or image.dtype.kind not in "iuf" or mask.shape != image.shape:
        shown = f"shapes {image.shape} and {mask.shape}, type {image.dtype}"
        raise UserError("a slice must be an image with a mask of its size", shown, file=file)
    if not np.isfinite(image).all():
        raise UserError("an image must hold finite numbers", "NaN or infinity", file=file)
    if not np.isin(mask, (0, 1)).all():
        raise UserError("a mask must hold 0 and 1", np.unique(mask)[:8].tolist(), file=file)
    tumor = _TUMORS[_label_in(label, file)]
    return Case(
        id=case.id,
        patient=case.patient,
        image=np.ascontiguousarray(image.T)[None, ..., None],
        mask=np.ascontiguousarray(mask.T, np.uint8)[None] if masks else None,
        channels=CHANNELS,
        slice_numbers=(1,),
        warnings=() if tumor == _TUMORS[GLIOMA] else (f"the slice is labeled as {tumor}, not as glioma",),
        files=case.files,
    )


def _read_facts(file: Path) -> tuple[int, str]:
    """Return the label and the person of a slice."""
    label, codes = _read_fields(file, "label", "PID")
    letters = [int(code) for code in codes.ravel()[: _MOST_LETTERS + 1]] if codes.dtype.kind in "iu" else []
    name = "".join(map(chr, letters)).strip("\0 ") if all(code < 128 for code in letters) else ""
    if not (name.isprintable() and 0 < len(name) <= _MOST_LETTERS):
        raise UserError("cjdata/PID must name the patient of a slice", name or "none", file=file)
    return _label_in(label, file), match["person"] if (match := _LETTER.fullmatch(name)) else name


def _label_in(values: NDArray[Any], file: Path) -> int:
    label = values.ravel()[0] if values.size == 1 else None
    if label not in _TUMORS:
        raise UserError("cjdata/label of a slice must be 1, 2 or 3", values.ravel()[:8].tolist(), file=file)
    return int(label)


def _read_fields(file: Path, *names: str) -> list[NDArray[Any]]:
    """Return fields of `cjdata`, as stored; raises `UserError` if the file is damaged or lacks one."""
    import h5py

    try:
        with h5py.File(file, "r", locking=False) as opened:  # a read-only share allows no lock
            return [_read_field(opened, name, file) for name in names]
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the library
        raise UserError("the MATLAB file cannot be read", reason(error), file=file) from error


def _read_field(opened: Any, name: str, file: Path) -> NDArray[Any]:
    """Read one field; refuses links and data in other files, which HDF5 would follow anywhere on the disk."""
    import h5py

    group: Any = opened.get("cjdata") if isinstance(opened.get("cjdata", getlink=True), h5py.HardLink) else None
    link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
    field = group[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(field, h5py.Dataset) or field.external or field.is_virtual:
        rule = f"a MATLAB file of Figshare's slices must hold cjdata/{name}"
        raise UserError(rule, ", ".join(list(opened)[:4]) or "nothing", file=file)
    if max(field.shape, default=0) > MAX_SIDE_PX:
        raise TooLarge(f"an image must have at most {MAX_SIDE_PX} pixels on each side", field.shape, file=file)
    return np.asarray(field[()])
