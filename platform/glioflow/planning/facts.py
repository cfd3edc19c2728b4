"""The inputs of a plan: facts about a cohort and about the machine."""

import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.checks.channel_checks import blank_channels, copies_of_flair
from glioflow.data.formats.file_roles import INCOMPLETE
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.errors import UserError
from glioflow.evaluation.boxes import bounding_box
from glioflow.label_schemes import LabelScheme
from glioflow.memory import free_memory
from glioflow.progress import Say, counted, quiet
from glioflow.survival import SurvivalSettings
from glioflow.survival.clinical_csv import patient_key
from glioflow.survival.clinical_table import read_clinical
from glioflow.survival.outcome import choose_task, take_outcome

# Fewest persons for a split: one to test on, one to choose on, the others to train on.
FEWEST_PATIENTS = 3
# Number of cases whose pixels are read, evenly spread over the cohort; names and tables are read of all.
READ = 48


@dataclass(frozen=True)
class LabelFacts:
    """One label of the masks.

    Attributes:
        name: Name in the cohort.
        share: Share of the cases read that contain it, in [0, 1].
        median_px: Median number of its voxels in the cases that contain it; 0 if none does.
    """

    name: str
    share: float
    median_px: int


@dataclass(frozen=True)
class CohortFacts:
    """The facts about a cohort that decide a plan; medians are over the cases that were read.

    Attributes:
        source: Path of the cohort.
        format: Its format.
        cases: Number of all cases.
        patients: Number of persons with a mask, estimated from the cases read if not all are.
        institutions: Number of known institutions.
        read: Number of cases whose pixels were read.
        channels: Names of the channels, the same in every case.
        shape: Median (S, H, W).
        spacing_mm: Median spacing along S, H, W; None where no case states it.
        head: Median size of the smallest box (S, H, W) that contains every nonzero voxel.
        values: Least and greatest value of the cases that were read.
        whole_numbers: Whether they hold whole numbers only.
        background: Median share of voxels that are 0 in every channel, in [0, 1].
        intensities: For each channel, medians over the cases of the 0.5 %, 50 % and 99.5 % quantiles of nonzero values.
        missing: For each channel, how many of the cases read lack the sequence: the channel is empty or a copy of
            FLAIR.
        labels: Facts about each label that the cohort declares or that occurs.
        tumor_slices: Share of slices with tumor, in [0, 1].
        in_one_piece: Median share of a tumor that lies in its largest component, in [0, 1].
        outcomes: Patients with an outcome that a survival stage can be fitted on; 0 if there are too few.
        slices: Estimated number of slices of the whole cohort.
        regions: Regions of the labels that the cohort declares; None if it declares none.
    """

    source: str
    format: str
    cases: int
    patients: int
    institutions: int
    read: int
    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    head: tuple[int, int, int]
    values: tuple[float, float]
    whole_numbers: bool
    background: float
    intensities: dict[str, tuple[float, float, float]]
    missing: dict[str, int]
    labels: dict[int, LabelFacts]
    tumor_slices: float
    in_one_piece: float
    outcomes: int
    slices: int
    regions: LabelScheme | None = None


@dataclass(frozen=True)
class Machine:
    """The machine that the plan is for.

    Attributes:
        cores: CPU cores.
        gpus: Name of each GPU.
        gpu_memory_gb: Memory of the smallest of them, in 10^9 bytes; 0 without.
        memory_gb: Free main memory, in 10^9 bytes.
        what: Its name in a plan.
    """

    cores: int
    gpus: tuple[str, ...] = ()
    gpu_memory_gb: float = 0.0
    memory_gb: float = 16.0
    what: str = "this machine"


@dataclass(frozen=True)
class _CaseFacts:
    """One case that was read; `labels` are voxels by value, None without a mask; `quantiles` are (3, C)."""

    id: str
    channels: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    head: tuple[int, int, int]
    low: float
    high: float
    whole: bool
    background: float
    quantiles: NDArray[np.float64]
    missing: tuple[str, ...]
    labels: dict[int, int] | None
    tumor_slices: int
    piece: float


def look_at_machine() -> Machine:
    """Return the cores, the free memory and the GPUs of this machine."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = torch.cuda.device_count()
    about = [torch.cuda.get_device_properties(k) for k in range(count)]
    return Machine(
        cores,
        memory_gb=free_memory() / 1e9,
        gpus=tuple(each.name for each in about),
        gpu_memory_gb=min((each.total_memory for each in about), default=0) / 1e9,
    )


def measure_cohort(cohort: Cohort, *, say: Say = quiet) -> CohortFacts:
    """Read some cases of a cohort and return the facts that decide a plan.

    Args:
        cohort: Its cases, masks among them.
        say: Called with progress.

    Raises:
        UserError: If it has masks of too few persons or only empty ones, channels differ, or a file cannot be read.
    """
    some = cohort.cases[:: max(1, -(-len(cohort.cases) // READ))]
    seen = [_look(case) for case in _cases(cohort, some, say)]
    labeled = [(each, each.labels) for each in seen if each.labels is not None]
    unread = len(cohort.cases) - len(seen)
    part = f"{unread} of {len(cohort.cases)} cases were not read"
    without = f"{part}: leave out the cases without a mask" if unread else None
    if not labeled:
        rule = f"a plan needs masks to learn from, and no case {'that was read ' if unread else ''}has one"
        raise UserError(rule, file=cohort.path, hint=without)
    first = seen[0]
    for each in seen:
        if each.channels != first.channels:
            values = f"{', '.join(first.channels)} in {first.id} and {', '.join(each.channels)} in {each.id}"
            raise UserError("the cases must have the same channels", values, file=cohort.path, hint=INCOMPLETE)
    spacings = [each.spacing for each in seen if each.spacing is not None]
    label_values = sorted({value for _, labels in labeled for value in labels} | set(cohort.labels))
    if not any(labels for _, labels in labeled):
        checked = f"empty masks in the {len(labeled)} cases that were read"
        raise UserError("a plan needs tumors to learn from, and no mask holds one", checked, file=cohort.path)
    patients = _count_labeled_patients(cohort, some, {each.id for each, _ in labeled})
    if patients < FEWEST_PATIENTS:
        rule = f"a plan needs masks of at least {FEWEST_PATIENTS} persons: one tests, one chooses, the others train"
        raise UserError(rule, f"about {patients}" if unread else patients, file=cohort.path, hint=without)
    sizes = {value: [labels[value] for _, labels in labeled if value in labels] for value in label_values}
    return CohortFacts(
        source=str(cohort.path),
        format=cohort.format,
        cases=len(cohort.cases),
        patients=patients,
        institutions=len({case.institution for case in cohort.cases} - {None}),
        read=len(seen),
        channels=first.channels,
        shape=_medians([each.shape for each in seen]),
        spacing_mm=_median_spacing(spacings) if spacings else None,
        head=_medians([each.head for each in seen]),
        values=(min(each.low for each in seen), max(each.high for each in seen)),
        whole_numbers=all(each.whole for each in seen),
        background=float(np.median([each.background for each in seen])),
        intensities=_intensities(seen),
        missing={name: sum(name in each.missing for each in seen) for name in first.channels},
        labels={
            value: LabelFacts(
                cohort.labels.get(value, f"label {value}"), len(px) / len(labeled), int(np.median(px or [0]))
            )
            for value, px in sizes.items()
        },
        tumor_slices=sum(each.tumor_slices for each, _ in labeled) / sum(each.shape[0] for each, _ in labeled),
        in_one_piece=float(np.median([each.piece for each, labels in labeled if labels] or [0.0])),
        outcomes=_count_outcomes(cohort),
        slices=round(len(cohort.cases) * float(np.mean([each.shape[0] for each in seen]))),
        regions=cohort.regions,
    )


def _count_labeled_patients(cohort: Cohort, some: Sequence[CaseFiles], labeled: Container[str]) -> int:
    """Return how many persons have a mask, estimated from `labeled` of `some` cases."""
    everyone, looked_at = ({case.patient for case in cases} for cases in (cohort.cases, some))
    with_mask = {case.patient for case in some if case.id in labeled}
    return max(1, round(len(everyone) * len(with_mask) / len(looked_at)))


def _count_outcomes(cohort: Cohort) -> int:
    """Return how many patients have an outcome for a survival stage; 0 if none can be fitted."""
    if cohort.clinical is None:
        return 0
    try:
        table = read_clinical(cohort.clinical)
        names = {patient_key(name) for case in cohort.cases for name in (case.patient, case.id)}
        own = table.loc[table.index.isin(names)]
        return len(take_outcome(own, choose_task(own, SurvivalSettings()))[0])
    except UserError:
        return 0


def _cases(cohort: Cohort, some: tuple[CaseFiles, ...], say: Say) -> Iterator[Case]:
    for files in counted(some, "case", say):
        yield cohort.read_files(files)


def _look(case: Case) -> _CaseFacts:
    """Return the facts of one case."""
    from scipy import ndimage

    image, low, high = case.image, float(case.image.min()), float(case.image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("the values of an image must be finite", f"{low} to {high} in {case.id}")
    anything: NDArray[np.bool_] = np.any(np.not_equal(image, 0), axis=-1)
    labels: dict[int, int] | None = None
    piece, tumor_slices = 0.0, 0
    if case.mask is not None:
        numbers, counts = np.unique(case.mask, return_counts=True)
        labels = {int(value): int(count) for value, count in zip(numbers, counts, strict=True) if value}
        tumor_slices = int((case.mask > 0).any(axis=(1, 2)).sum())
        if labels:
            parts, _ = ndimage.label(case.mask > 0)
            piece = float(np.bincount(parts.ravel())[1:].max() / sum(labels.values()))
    return _CaseFacts(
        id=case.id,
        channels=case.channels,
        shape=case.shape,
        spacing=case.spacing_mm,
        head=_extent(anything),
        low=low,
        high=high,
        whole=image.dtype.kind in "ui" or np.array_equal(image, np.round(image)),
        background=float(1 - anything.mean()),
        quantiles=np.stack([_quantiles(image[..., k]) for k in range(image.shape[-1])], axis=1),
        missing=(*blank_channels(image, case.channels), *copies_of_flair(image, case.channels)),
        labels=labels,
        tumor_slices=tumor_slices,
        piece=piece,
    )


def _quantiles(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the 0.5 %, 50 % and 99.5 % quantiles of what is not 0, of every eighth voxel; NaN where all is."""
    some = values.ravel()[::8]
    some = some[some != 0]
    return np.quantile(some, (0.005, 0.5, 0.995)) if some.size else np.full(3, np.nan)


def _intensities(seen: list[_CaseFacts]) -> dict[str, tuple[float, float, float]]:
    """Return the median quantiles of each channel, over the cases that have it; zeros if none has."""
    by_channel = {}
    for k, name in enumerate(seen[0].channels):
        own = np.array([each.quantiles[:, k] for each in seen if np.isfinite(each.quantiles[:, k]).all()])
        low, middle, high = np.median(own, axis=0) if len(own) else np.zeros(3)
        by_channel[name] = (round(float(low), 4), round(float(middle), 4), round(float(high), 4))
    return by_channel


def _extent(anything: NDArray[np.bool_]) -> tuple[int, int, int]:
    s, h, w = (each.stop - each.start for each in bounding_box(anything)) if anything.any() else anything.shape
    return s, h, w


def _median_spacing(spacings: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    s, h, w = (round(float(value), 3) for value in np.median(spacings, axis=0))
    return s, h, w


def _medians(sizes: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    s, h, w = (int(value) for value in np.median(sizes, axis=0))
    return s, h, w
