"""Uploaded single slices, TIFF or PNG: one study, ordered by the numbers in the names."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from glioflow.abandonment import check_wanted
from glioflow.data.case import Case
from glioflow.data.formats import lgg, lgg_pixels, png, tiff
from glioflow.data.formats.file_roles import roles_for
from glioflow.data.formats.png import is_png
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.errors import TooLarge, UserError

MAX_VALUES = 2**28
_ONE_PERSON, _ONE_AT_A_TIME = "the slices of a study must be of one person", "send one study at a time"
# `a_3.tif`, `a_-3.tif` (a slice below the first), `a3.tif` and `a (3).tif`; eight digits are a date.
_NAME = re.compile(
    r"^(?P<case>.*?)[_ ]*(?:\((?=\d+\)))?(?P<number>(?:^|(?<=[_ ]))\d{7}|(?:(?<=[_ ])-)?\d{1,6})?(?:(?<=\d)\))?"
    r"(?P<mask>_mask)?\.(?:tiff?|png)$",
    re.IGNORECASE | re.DOTALL,
)


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether `path` itself holds TIFF or PNG images."""
    return any(is_slice(file.name) for file in path.iterdir())


def open(path: Path) -> Cohort:
    """Return the images in `path` as a cohort of one case."""
    roles_for("slices", path)
    files = [file for file in sorted(path.iterdir()) if is_slice(file.name)]
    return Cohort("slices", path, (open_files(files, name=path.name),), dict(lgg.LABELS), read)


def open_files(files: Sequence[Path], *, name: str | None = None) -> CaseFiles:
    """Return the files as one case, slices by number, each followed by its mask.

    Args:
        files: Images, and masks with the same names and `_mask`.
        name: Name of the case; None uses the part of the files' names before the number.

    Raises:
        UserError: If several slices have no number or the same one, they belong to several cases or folders, or only
            some have a mask.
    """
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    stems = set()
    for file in sorted(files):
        match = _NAME.match(file.name)
        if not match:
            raise UserError(f"{file.name} is not a .tif or .png file", file.name)
        stems.add(match["case"].strip("_- ").casefold())
        group = masks if match["mask"] else images
        number = int(match["number"] or 1)
        if number in group:
            rule = "the names of a study's slices must end in different numbers"
            raise UserError(rule, f"number {number} in {group[number].name} too", file=file)
        group[number] = file
    if not images or (masks and masks.keys() != images.keys()):
        names = [file.name for number, file in (images | masks).items() if number not in images or number not in masks]
        raise UserError("either every slice must have a mask or none", f"{len(images)} slices, unpaired {names[:3]}")
    if len(stems) > 1:
        raise UserError(_ONE_PERSON, f"{len(stems)} case names", hint=_ONE_AT_A_TIME)
    check_one_folder(file.parent for file in images.values())
    case_id = name or _NAME.match(min(images.values()).name)["case"].strip() or "study"  # type: ignore[index]
    ordered = [file for number in sorted(images) for file in (images[number], masks.get(number)) if file is not None]
    patient, institution = lgg.patient_of(case_id)
    return CaseFiles(case_id, patient, tuple(ordered), institution)


def check_one_folder(folders: Iterable[PurePath]) -> None:
    """Refuse slices in several folders, each of which is a whole study; raises `UserError`."""
    if len(different := set(folders)) > 1:
        raise UserError(_ONE_PERSON, f"slices in {len(different)} folders", hint=_ONE_AT_A_TIME)


def read(case: CaseFiles) -> Case:
    """Read the slices, (S, H, W, 3), or (S, H, W, 1) if they are gray and thus treated as FLAIR.

    A single TIFF may hold several images: they are the slices, numbered from 1.

    Raises:
        UserError: If an image is damaged, not gray or RGB, or differs in size from the others, or there are too
            many.
    """
    masks = [file for file in case.files if _NAME.match(file.name)["mask"]]  # type: ignore[index]
    images = [file for file in case.files if file not in masks]
    numbers = [int(_NAME.match(file.name)["number"] or 1) for file in images]  # type: ignore[index]
    stacked = len(images) == 1 and not masks and not is_png(images[0])
    planes = read_stack(images[0]) if stacked else _read_slices(images)
    if len(planes) > len(images):
        numbers = list(range(1, len(planes) + 1))
    widened = all(map(lgg_pixels.holds_8_bits, planes))
    if widened:
        planes = [lgg_pixels.to_8_bits(plane) for plane in planes]
    gray = planes[0].shape[2] == 1
    shape = planes[0].shape[:2]
    return Case(
        id=case.id,
        patient=case.patient,
        image=np.stack(planes),
        mask=np.stack([_binary(file, shape) for file in masks]) if masks else None,
        channels=("flair",) if gray else lgg.CHANNELS,
        slice_numbers=tuple(numbers),
        institution=case.institution,
        warnings=(
            *(["the slices are gray: taken for FLAIR"] if gray else []),
            *(["the slices hold 8 bits in 16: their values were divided by 257"] if widened else []),
        ),
        files=case.files,
    )


def _read_slices(images: Sequence[Path]) -> list[NDArray[np.generic]]:
    planes: list[NDArray[np.generic]] = []
    for file in images:
        check_wanted()
        plane = read_image(file)
        if planes and plane.shape != planes[0].shape:
            raise UserError(
                "all slices of a study must have the same size", f"{plane.shape}, not {planes[0].shape}", file=file
            )
        if plane.size * len(images) > MAX_VALUES:
            raise TooLarge(f"a study must have at most {MAX_VALUES} values", f"{len(images)} slices of {plane.shape}")
        planes.append(plane)
    return planes


def read_stack(path: Path) -> list[NDArray[np.generic]]:
    """Read all images of a TIFF, each (H, W, C); raises as `read`."""
    layout = tiff.read_layout(path)
    tiff.check_alike(layout, path)
    if sum(page.num_values for page in layout) > MAX_VALUES:
        raise TooLarge(f"a study must have at most {MAX_VALUES} values", f"{len(layout)} slices", file=path)
    return [_checked(pixels, path) for pixels in tiff.read_pages(path)]


def is_slice(name: str) -> bool:
    """Return whether a file is a TIFF or PNG, by its name."""
    return name.lower().endswith((".tif", ".tiff", ".png")) and not name.startswith(".")


def read_image(path: Path) -> NDArray[np.generic]:
    """Read one image, (H, W, C), with one or three channels; an opacity channel is removed."""
    return _checked(png.read_png(path) if is_png(path) else lgg_pixels.read_tiff(path), path)


def _checked(pixels: NDArray[np.generic], path: Path) -> NDArray[np.generic]:
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    numbers = pixels.dtype.kind in "uif" and pixels.dtype.itemsize <= 4
    if not numbers or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        rule = "a slice must be an image of 8 to 32 bits, gray or with three channels"
        raise UserError(rule, f"shape {pixels.shape} and type {pixels.dtype}", file=path)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UserError("an image must hold finite numbers", "NaN or infinity", file=path)
    return pixels[..., :3]


def _binary(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return lgg_pixels.to_binary(png.read_png(path) if is_png(path) else lgg_pixels.read_tiff(path), shape, path)
