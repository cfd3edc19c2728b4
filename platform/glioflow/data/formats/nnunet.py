"""The layout of nnU-Net: folders `imagesTr` and `labelsTr`, and TIFF and PNG files in place of volumes.

A TIFF, `<case>_0000.tif`, holds all slices of a channel, and `<case>.json` beside it the spacing along its axes. A
PNG is one slice; one in color holds three channels. Source: nnU-Net's `documentation/dataset_format.md` and its readers
(version 2).
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.formats import png, tiff
from glioflow.data.formats.dataset_json import read_description
from glioflow.data.formats.junk import is_junk
from glioflow.data.formats.volume_names import is_volume, volume_files
from glioflow.errors import TooLarge, UserError
from glioflow.text_files import read_text

_PICTURE = re.compile(r"\.(?:tiff?|png)$", re.IGNORECASE)
_CHANNEL = re.compile(r"_\d{4}$")


def is_picture(name: str) -> bool:
    """Return whether a file is a TIFF or PNG, by its name."""
    return bool(_PICTURE.search(name)) and not is_junk(name)


def has_pictures(path: Path) -> bool:
    """Return whether a folder holds numbered TIFF or PNG channels, by `dataset.json` or the files themselves.

    These are stacks of slices, `<case>_0000.tif` and `<case>_0001.tif`; single slices may have such numbers, too.
    """
    folder = path / "imagesTr"
    folder = folder if folder.is_dir() else path
    files = list(folder.iterdir())
    numbered = sorted(file for file in files if is_picture(file.name) and _CHANNEL.search(file.stem))
    if not numbered or any(is_volume(file.name) for file in files):  # beside volumes, pictures are previews
        return False
    description = read_description(folder / "any")
    if isinstance(description.get("channel_names") or description.get("modality"), dict):
        return True
    pair = [numbered[0].with_name(f"{_CHANNEL.sub('', numbered[0].stem)}_000{k}{numbered[0].suffix}") for k in (0, 1)]
    try:
        return all(file.is_file() and not png.is_png(file) and len(tiff.read_layout(file)) > 1 for file in pair)
    except UserError:
        return False


def dataset_in(path: Path) -> Path:
    """Return the only nnU-Net data set in `path`, or `path` if there is none; raises `UserError` for several."""
    sets = [] if (path / "imagesTr").is_dir() else sorted(file.parent for file in path.glob("*/imagesTr"))
    if len(sets) > 1:
        names = [folder.name for folder in sets]
        raise UserError("the folder of one data set must be given", path, names, hint="give one of the folders in it")
    return sets[0] if sets else path


def list_files(path: Path) -> list[Path]:
    """Return the images and masks of a cohort: those in `imagesTr` and `labelsTr` (not `imagesTs`), or else all."""
    parts = [path / name for name in ("imagesTr", "labelsTr")] if (path / "imagesTr").is_dir() else [path]
    list_each = _pictures if has_pictures(path) else volume_files
    return [file for part in parts for file in list_each(part)]


def _pictures(folder: Path) -> Iterable[Path]:
    return sorted(file for file in folder.iterdir() if is_picture(file.name)) if folder.is_dir() else ()


def read_picture(path: Path, *, most_voxels: int) -> tuple[NDArray[np.generic], tuple[float, float, float] | None]:
    """Read a picture.

    Args:
        path: The file.
        most_voxels: Largest number of voxels.

    Returns:
        The slices, (S, H, W, C) with one channel or three colors, and the spacing along S, H, W in mm; None if no
        json file beside it states it.

    Raises:
        UserError: If the file or its json file is damaged, or the images differ in size.
        TooLarge: If it states more voxels.
    """
    if png.is_png(path):
        pages = [png.read_png(path)]
    else:
        layout = tiff.read_layout(path)
        tiff.check_alike(layout, path)
        if sum(page.num_values for page in layout) > most_voxels:
            raise TooLarge(f"an image must have at most {most_voxels} voxels", f"{len(layout)} slices", file=path)
        pages = tiff.read_pages(path)
    volume = np.stack([page[..., None] if page.ndim == 2 else page[..., :3] for page in pages])
    if volume.ndim != 4 or volume.shape[3] not in (1, 3):
        raise UserError("an image must be gray or in color", f"shape {volume.shape[1:]}", file=path)
    return volume, _spacing(path)


def spacing_files(files: Iterable[Path]) -> list[Path]:
    """Return the json files beside pictures that state their spacing, each once."""
    beside = (_spacing_file(file) for file in files if is_picture(file.name))
    return [file for file in dict.fromkeys(beside) if file.is_file()]


def _spacing_file(path: Path) -> Path:
    """Return the path `<case>.json`, without a channel number."""
    return path.with_name(f"{_CHANNEL.sub('', path.stem)}.json")


def _spacing(path: Path) -> tuple[float, float, float] | None:
    """Return the `spacing` in the json file beside a picture."""
    file = _spacing_file(path)
    if not file.is_file():
        return None
    rule = 'the json beside a TIFF must hold {"spacing": [slices, rows, columns]} in mm'
    try:
        s, h, w = (float(each) for each in json.loads(read_text(file))["spacing"])
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(rule, "something else", file=file) from None
    if not all(0 < each < np.inf for each in (s, h, w)):
        raise UserError(rule, f"{s:g}, {h:g}, {w:g}", file=file)
    return s, h, w
