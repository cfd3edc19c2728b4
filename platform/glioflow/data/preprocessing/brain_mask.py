"""The brain mask of an image, and the step that removes skull and scalp. Moves no voxel."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from glioflow.data.formats.mask_file import read_mask
from glioflow.data.preprocessing.working_image import StepSettings, Volume
from glioflow.errors import UserError

_COARSE_COLUMNS = 64


class BrainMask(StepSettings):
    """Set everything outside the brain to zero.

    Attributes:
        file: Name of a mask file in the folder of the case's files, `{case}` standing for the case's id; null
            approximates the brain: the largest component of what is neither dark nor thin.
        opening_px: For the approximation: half the thickness of what counts as thin, in pixels of a 256-pixel slice.
    """

    step: Literal["brain_mask"] = "brain_mask"
    file: str | None = None
    opening_px: int = Field(default=5, ge=1, le=32)

    def apply(self, volume: Volume) -> Volume:
        """Mask the image, not the labels; raises `UserError` if the mask file is missing or has another shape."""
        from glioflow.data.preprocessing.brain_shape import approximate_brain

        brain = approximate_brain(volume.image, self.opening_px) if self.file is None else self._read(volume)
        return replace(volume, image=volume.image * brain[..., None])

    def path(self, files: tuple[Path, ...], case_id: str) -> Path | None:
        """Return the mask file of a case, which may be beside any of its files; None for the approximation."""
        if not (self.file and files):
            return None
        name = self.file.replace("{case}", case_id)
        paths = [folder / name for folder in dict.fromkeys(file.parent for file in files)]
        return next((path for path in paths if path.is_file()), paths[0])

    def check_file(self, files: tuple[Path, ...], case_id: str) -> None:
        """Refuse a case without its mask file, if the step names one; raises `UserError`."""
        path = self.path(files, case_id)
        if path is not None and not path.is_file():
            raise UserError(f"{path} does not exist", path, hint="put the brain mask beside the files of its case")

    def _read(self, volume: Volume) -> NDArray[np.bool_]:
        path = self.path(volume.case.files, volume.case.id) if volume.case else None
        if path is None or volume.case is None:
            rule = "the step 'brain_mask' needs the files of the case, beside which the mask lies"
            raise UserError(rule, "a case without files")
        self.check_file(volume.case.files, volume.case.id)
        brain = read_mask(path)[0] > 0
        for move in volume.moves:
            if brain.shape != move.before:
                break
            brain = np.asarray(move.apply(brain), bool)
        if brain.shape != volume.image.shape[:3]:
            rule = f"the brain mask must have the shape of its case, {volume.image.shape[:3]}"
            raise UserError(rule, brain.shape, file=path)
        return brain


def locate_brain(image: NDArray[np.generic]) -> NDArray[np.bool_] | None:
    """Find the brain on a grid of about 64 columns: coarse, but cheap enough to locate the tumor of every study.

    Args:
        image: (S, H, W, C) as stored, background darkest.

    Returns:
        (S, H, W); None if no brain is found.
    """
    from glioflow.data.preprocessing.brain_shape import approximate_brain

    step = max(1, round(image.shape[2] / _COARSE_COLUMNS))
    small = np.asarray(image[:, step // 2 :: step, step // 2 :: step], np.float32)
    brain = approximate_brain(small, BrainMask().opening_px) if small.size else np.ones((1, 1, 1), bool)
    if brain.all():
        return None
    rows, columns = (
        np.minimum(np.arange(n) // step, m - 1) for n, m in zip(image.shape[1:3], brain.shape[1:], strict=True)
    )
    return np.asarray(brain[:, rows][:, :, columns])
