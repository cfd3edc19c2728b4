"""Where the brain is in an image, and the step that removes skull and scalp. Moves no voxel."""

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
        """Mask the image, not the labels; raises `UserError` where the mask file is missing or of another shape."""
        brain = approximate_brain(volume.image, self.opening_px) if self.file is None else self._read(volume)
        return replace(volume, image=volume.image * brain[..., None])

    def path(self, files: tuple[Path, ...], case_id: str) -> Path | None:
        """Return the mask file of a case; None for the approximation."""
        return files[0].parent / self.file.replace("{case}", case_id) if self.file and files else None

    def _read(self, volume: Volume) -> NDArray[np.bool_]:
        path = self.path(volume.case.files, volume.case.id) if volume.case else None
        if path is None:
            rule = "the step 'brain_mask' needs the files of the case, beside which the mask lies"
            raise UserError(rule, "a case without files")
        if not path.is_file():
            raise UserError(f"{path} does not exist", path, hint="put the brain mask beside the files of its case")
        brain = read_mask(path)[0] > 0
        for move in volume.moves:
            if brain.shape != move.before:
                break
            brain = np.asarray(move.apply(brain), bool)
        if brain.shape != volume.image.shape[:3]:
            rule = f"the brain mask must have the shape of its case, {volume.image.shape[:3]}"
            raise UserError(rule, brain.shape, file=path)
        return brain


def approximate_brain(image: NDArray[np.float32], opening_px: int) -> NDArray[np.bool_]:
    """Find the brain by brightness and shape: good enough to remove most of the scalp, but no anatomy.

    It keeps too much rather than too little at the base of the skull and near the apex, where scalp and brain touch.

    Args:
        image: (S, H, W, C), background darkest.
        opening_px: As in `BrainMask`.

    Returns:
        (S, H, W); everything where no brain is found.
    """
    import cv2
    from scipy import ndimage

    gray = image.mean(axis=-1)
    gray = gray - gray.min(initial=np.inf)
    head = gray > 0.15 * np.percentile(gray, 99) if gray.size else gray > 0
    if not head.any():
        return np.ones(gray.shape, bool)
    # The skull is dark in every sequence; half the median of each slice is a limit that bias fields do not disturb.
    bright = np.stack(
        [
            inside & (plane > 0.5 * np.median(plane[inside])) if inside.any() else inside
            for plane, inside in zip(gray, head, strict=True)
        ]
    )
    reach = max(1, round(opening_px * gray.shape[2] / 256))
    deep = np.stack([_depth(plane) > 2 * reach for plane in head])
    core = deep & np.stack([cv2.erode(plane.astype(np.uint8), _disk(reach)) > 0 for plane in bright])
    pieces, count = ndimage.label(core)
    if count == 0:
        return np.ones(gray.shape, bool)
    largest = (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.uint8)
    grown = [cv2.morphologyEx(cv2.dilate(plane, _disk(reach)), cv2.MORPH_CLOSE, _disk(2 * reach)) for plane in largest]
    return np.stack([_fill_holes(plane) for plane in grown])


def locate_brain(image: NDArray[np.generic]) -> NDArray[np.bool_] | None:
    """Find the brain on a grid of about 64 columns: coarse, but cheap enough to locate the tumor of every study.

    Args:
        image: (S, H, W, C) as stored, background darkest.

    Returns:
        (S, H, W); None where no brain is found.
    """
    step = max(1, round(image.shape[2] / _COARSE_COLUMNS))
    small = np.asarray(image[:, step // 2 :: step, step // 2 :: step], np.float32)
    brain = approximate_brain(small, BrainMask().opening_px) if small.size else np.ones((1, 1, 1), bool)
    if brain.all():
        return None
    rows, columns = (
        np.minimum(np.arange(n) // step, m - 1) for n, m in zip(image.shape[1:3], brain.shape[1:], strict=True)
    )
    return np.asarray(brain[:, rows][:, :, columns])


def _depth(head: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Return how far inside the head each pixel of a slice lies, in pixels; the scalp is outermost."""
    import cv2

    filled = _fill_holes(head)
    if filled.all():
        return np.full(head.shape, np.inf)
    return np.asarray(cv2.distanceTransform(filled.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _fill_holes(plane: NDArray[np.generic]) -> NDArray[np.bool_]:
    import cv2

    outside = np.ascontiguousarray(np.pad(plane, 1), np.uint8)  # which is filled in place, in rows alone
    cv2.floodFill(outside, None, (0, 0), 2)
    return np.asarray(outside[1:-1, 1:-1] != 2)


def _disk(reach: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)), np.uint8)
