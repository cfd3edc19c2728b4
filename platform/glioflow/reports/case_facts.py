"""Facts about one case for the description of a cohort, small enough to collect over all cases."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.checks.channel_checks import copies_of_flair
from glioflow.data.formats.record import CaseFiles, Cohort

NUM_BINS = 64


@dataclass(frozen=True)
class CaseFacts:
    """Numbers of one case.

    Attributes:
        id: Id of the case.
        patient: The person.
        institution: Where it came from, if known.
        shape: (S, H, W).
        spacing_mm: Spacing along S, H, W in millimeters; None if unknown.
        channels: Names of the channels.
        copies: Channels that are copies of FLAIR.
        areas_px: Tumor pixels of every slice; None without a mask.
        label_px: Voxels of every label.
        eight_bit: Whether intensities are stored values 0..255; otherwise they are shares of each channel's 99.5th
            percentile.
        inside: (C, NUM_BINS) counts of intensities in the tumor; background (zero) is left out.
        outside: The same counts outside the tumor.
    """

    id: str
    patient: str
    institution: str | None
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    channels: tuple[str, ...]
    copies: tuple[str, ...]
    areas_px: tuple[int, ...] | None
    label_px: dict[int, int]
    eight_bit: bool
    inside: NDArray[np.int64]
    outside: NDArray[np.int64]

    @property
    def volume_px(self) -> int:
        """Labeled voxels."""
        return sum(self.areas_px or ())

    @property
    def volume_ml(self) -> float | None:
        """Labeled milliliters; None if the spacing is unknown."""
        return None if self.spacing_mm is None else self.volume_px * float(np.prod(self.spacing_mm)) / 1000


def edges_of(eight_bit: bool) -> NDArray[np.float64]:
    """Return the NUM_BINS + 1 edges of the intensity histograms."""
    return np.linspace(0, 256 if eight_bit else 1.25, NUM_BINS + 1)


def read_facts(cohort: Cohort, files: CaseFiles) -> CaseFacts:
    """Read one case and count; raises `UserError` as the reader."""
    case = cohort.read_files(files)
    tumor = None if case.mask is None else case.mask > 0
    inside, outside = _histograms(case, np.zeros(case.shape, bool) if tumor is None else tumor)
    values, counts = np.unique(case.mask[tumor], return_counts=True) if case.mask is not None else ((), ())
    return CaseFacts(
        id=case.id,
        patient=case.patient,
        institution=case.institution,
        shape=case.shape,
        spacing_mm=case.spacing_mm,
        channels=case.channels,
        copies=copies_of_flair(case.image, case.channels),
        areas_px=None if tumor is None else tuple(int(area) for area in tumor.sum(axis=(1, 2))),
        label_px={int(value): int(count) for value, count in zip(values, counts, strict=True)},
        eight_bit=case.image.dtype == np.uint8,
        inside=inside,
        outside=outside,
    )


def _histograms(case: Case, tumor: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    eight_bit = case.image.dtype == np.uint8
    count = partial(np.histogram, bins=NUM_BINS, range=tuple(edges_of(eight_bit)[[0, -1]]))
    inside, outside = [], []
    for k in range(case.image.shape[-1]):
        channel = case.image[..., k]
        lit = channel != 0
        top = 1.0 if eight_bit or not lit.any() else float(np.percentile(channel[lit], 99.5)) or 1.0
        inside.append(count(channel[lit & tumor] / top)[0])
        outside.append(count(channel[lit & ~tumor] / top)[0])
    return np.array(inside), np.array(outside)
