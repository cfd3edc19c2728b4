"""A study in whatever form a caller has it, as a case; and a case as files, for an endpoint."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from glioflow.api.inputs import wrong_type
from glioflow.cluster.scratch import study_folder
from glioflow.data.case import Case
from glioflow.data.channel_choice import NONE_CHOSEN
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.data.formats.study import read_study
from glioflow.data.formats.writing import write_image
from glioflow.errors import UserError
from glioflow.serving.http.uploads import list_uploads, read_uploads
from glioflow.serving.settings import Limits


@dataclass(frozen=True)
class OpenedStudy:
    """A study, and the folder that its files lie in where a zip was unpacked."""

    case: Case
    folder: tempfile.TemporaryDirectory[str] | None = None


def read_any_study(
    study: Any,
    *,
    channels: Sequence[str] = (),
    spacing_mm: tuple[float, float, float] | None = None,
    chosen: Mapping[str, str] = NONE_CHOSEN,
) -> OpenedStudy:
    """Read a study; see `Model.predict` for the forms that it may have.

    Args:
        study: The study, in any of these forms.
        channels: Names of an array's channels.
        spacing_mm: Spacing of an array's voxels along S, H, W in millimeters; None if unknown.
        chosen: Series or file of a channel, if several would fit.

    Raises:
        UserError: If it cannot be read.
    """
    if isinstance(study, Case):
        return OpenedStudy(study)
    if isinstance(study, np.ndarray):
        return OpenedStudy(case_of_array(study, channels=channels, spacing_mm=spacing_mm))
    paths = _paths_of(study)
    if not any(path.suffix.lower() == ".zip" for path in paths):
        return OpenedStudy(read_study(paths, channels=chosen, masks=False))
    folder = study_folder()
    with _opened(paths) as uploads:
        texts = [f"{name}={series}" for name, series in chosen.items()]
        return OpenedStudy(read_uploads(uploads, Path(folder.name), Limits(), channels=texts), folder)


def _paths_of(study: Any) -> list[Path]:
    """Return the paths of one file or folder, or of several files, such as those that `Path.glob` gives."""
    if isinstance(study, str | os.PathLike):
        return [Path(study)]
    paths = list(study) if isinstance(study, Iterable) else [study]
    if not all(isinstance(path, str | os.PathLike) for path in paths):
        raise wrong_type("a study must be a path, a list of paths, an array or a Case", study)
    return [Path(path) for path in paths]


def name_of_zip(path: Path) -> str:
    """Return the name of the study in a zip, which is that of its answers; no image is read.

    Raises:
        UserError: If it holds no study.
    """
    with study_folder() as folder, _opened([path]) as uploads:
        return list_uploads(uploads, Path(folder), Limits())


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[tuple[str, BinaryIO]]]:
    if wrong := [path for path in paths if not path.is_file()]:
        raise UserError(f"{wrong[0]} is not a file", wrong[0], hint="give the path of an image file")
    with ExitStack() as stack:
        yield [(path.name, stack.enter_context(path.open("rb"))) for path in paths]


def case_of_array(
    image: NDArray[np.generic],
    *,
    channels: Sequence[str],
    spacing_mm: tuple[float, float, float] | None,
    id: str = "array",
) -> Case:
    """Return an array as a case.

    Args:
        image: (S, H, W, C), or (H, W, C) of a lone slice.
        channels: Name of each of the C channels.
        spacing_mm: Distance of neighbors along S, H, W in millimeters; None is unknown.
        id: Id of the case.

    Raises:
        UserError: If the array has another shape, or holds anything but finite numbers.
    """
    volume = image[None] if image.ndim == 3 else image
    if volume.ndim != 4 or 0 in volume.shape or volume.shape[3] != len(channels):
        last, names = len(channels), ", ".join(channels)
        rule = f"an array must have the shape (S, H, W, {last}) or (H, W, {last}) for {names}"
        raise UserError(rule, image.shape, hint="give the names of other channels as channels=[...]")
    if volume.dtype.kind not in "uif":
        raise UserError("an array must hold real numbers", image.dtype)
    if infinite := np.count_nonzero(~np.isfinite(volume)):
        raise UserError("the values of an array must be finite", f"{infinite:,} of {volume.size:,} that are not")
    if spacing_mm is not None and not (len(spacing_mm) == 3 and all(0 < step < np.inf for step in spacing_mm)):
        raise UserError("spacing_mm must be three positive numbers along S, H, W", spacing_mm)
    numbers = tuple(range(1, volume.shape[0] + 1))
    return Case(id, id, volume, None, tuple(channels), numbers, spacing_mm)


def image_files(case: Case, folder: Path) -> list[Path]:
    """Return the image files of a case without its masks; those of an array are written into `folder`.

    Raises:
        UserError: If an array cannot be written as files.
    """
    if case.files:
        return [file for file in case.files if not is_mask_name(file.name)]
    return write_image(case, folder)
