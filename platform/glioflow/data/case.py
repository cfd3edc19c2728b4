"""The record of a case, the same for every cohort format. Independent of file formats."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.errors import UserError, nearest_choice

# Of one study, for everybody who reads one: files, volumes, folders, uploads.
MAX_FILES, MAX_SLICES = 5000, 1000
# Spacing of MRI of a head; thick slices have 10 mm.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.05, 30


@dataclass(frozen=True)
class Grid:
    """The geometry of a case's arrays in their files and in the patient, so that a mask can be written back exactly.

    The arrays are (S, H, W), S nearest to superior-inferior and increasing upward. They are the file's array after
    `np.transpose(file_array, axes)` and reversal of every axis whose `flips` is set.

    Attributes:
        axes: Axes of the file's array that are S, H and W.
        flips: Whether each of S, H and W is reversed after that.
        affine: (4, 4) from the *file array's* voxel indices to RAS millimeters; None if the format has none.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)
    affine: NDArray[np.float64] | None = None

    def to_file(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return (S, H, W) `volume` in the file's own axis order and direction."""
        return np.transpose(self._flip(volume), np.argsort(self.axes))

    def from_file(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the file's array as (S, H, W); the inverse of `to_file`."""
        return self._flip(np.transpose(volume, self.axes))

    def _flip(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(np.flip(volume, tuple(axis for axis, flip in enumerate(self.flips) if flip)))


@dataclass(frozen=True)
class Case:
    """One patient's images, as stored.

    Attributes:
        id: Name of the case in its cohort, e.g. `TCGA_CS_4941_19960909`.
        patient: The person; two cases of one person share it. Splits assign whole patients.
        image: (S, H, W, C) in the stored type.
        mask: (S, H, W) uint8 labels as the cohort numbers them (LGG: 0 and 1), or None.
        channels: Names of the C channels, e.g. `("pre", "flair", "post")`.
        slice_numbers: Number of each of the S slices in the names of the files, ascending.
        spacing_mm: Distance between neighbors along S, H, W in millimeters; None where the format does not state it.
        institution: Where the images came from, if known.
        grid: Maps the arrays back to the geometry of the files.
        warnings: Warnings about this case, one sentence each.
        files: The files it was read from, for all channels in order; empty if there were none.
        chosen: Series or file that the user named, by channel.
        missing: Channels that the case lacks, and that hold 0 because its cohort asks for it.
    """

    id: str
    patient: str
    image: NDArray[np.generic]
    mask: NDArray[np.uint8] | None
    channels: tuple[str, ...]
    slice_numbers: tuple[int, ...]
    spacing_mm: tuple[float, float, float] | None = None
    institution: str | None = None
    grid: Grid = field(default_factory=Grid)
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    chosen: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, H, W) of the original geometry."""
        s, h, w = self.image.shape[:3]
        return s, h, w

    def position_mm(self, position: float) -> float | None:
        """Return the distance of a slice position, from 0, to the first slice; None if the spacing is unknown."""
        return None if self.spacing_mm is None else position * self.spacing_mm[0]


def check_spacing_mm(spacing_mm: tuple[float, float, float] | None, file: Path | None = None) -> None:
    """Refuse a spacing that no scan of a head has, such as meters taken for millimeters; None is unknown.

    Raises:
        UserError: With the spacing.
    """
    if spacing_mm is not None and not all(LEAST_SPACING_MM <= step <= MOST_SPACING_MM for step in spacing_mm):
        rule = f"the spacing of a study must be between {LEAST_SPACING_MM} and {MOST_SPACING_MM} mm"
        spacing = " x ".join(f"{step:g}" for step in spacing_mm)
        raise UserError(rule, spacing, hint="check the unit and the affine in the files' headers", file=file)


def unknown_case(case_id: str, holder: object, ids: Iterable[str]) -> UserError:
    """Return the error for a case that is missing in `holder`, for example a cohort's path."""
    known = list(ids)
    nearest = nearest_choice(case_id, known)
    return UserError(f"{holder} has no case {case_id!r}", case_id, known[:8] if nearest is None else [nearest])
