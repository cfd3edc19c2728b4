"""Prepared cohorts: preprocessing done once per case, kept as memory-mapped arrays under a fingerprint.

Layout: `manifest.json`, `clinical.csv` (a copy, if the source has one) and, per case, `cases/<id>-<digest>/` with
`image.npy` (S, h, w, C) float16, `mask.npy` (S, h, w) uint8, `reference.npz` (the mask in the original geometry, its
labels renamed as the steps do), `brain.npz` (where the brain is, in the original geometry) and `case.json`.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from glioflow import atomic
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.prepared.manifest import VERSION, CaseRecord, Manifest, digest_cases, fingerprint_of, read_manifest
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.data.preprocessing.geometry import restore
from glioflow.data.preprocessing.pipeline import Step, preprocess, rename_labels
from glioflow.errors import UserError

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class PreparedCase:
    """One case of a prepared cohort; its arrays are mapped on first use, so that processes share the pages."""

    def __init__(self, record: CaseRecord, folder: Path) -> None:
        self.record = record
        self.folder = folder

    @cached_property
    def image(self) -> NDArray[np.float16]:
        """(S, h, w, C), mapped."""
        return _mapped(self.folder / "image.npy")

    @cached_property
    def mask(self) -> NDArray[np.uint8] | None:
        """(S, h, w) labels in the network's geometry, mapped; None without a mask."""
        path = self.folder / "mask.npy"
        return _mapped(path) if path.exists() else None

    def reference(self) -> NDArray[np.uint8]:
        """Read the mask in the original geometry, (S, H, W): the truth that metrics are measured against."""
        path = self.folder / "reference.npz"
        if not path.exists():
            raise UserError("a measurement needs a labeled case", f"{self.record.id} without a mask")
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["mask"], dtype=np.uint8)

    def brain(self) -> NDArray[np.bool_] | None:
        """Read where the brain is, (S, H, W) in the original geometry; None where none was found when it was made."""
        path = self.folder / "brain.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["brain"], dtype=bool)

    def restore(self, volume: NDArray[np.generic]) -> NDArray[np.generic]:
        """Take (S, h, w[, K]) from the network's geometry to the original one."""
        return restore(volume, self.record.moves)


def _mapped(path: Path) -> NDArray[Any]:
    # As a plain array over the mapping: a memmap's own indexing costs more than a slice's copy.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


class PreparedCohort:
    """A prepared cohort on disk, opened and verified."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)
        self._cases = {record.id: PreparedCase(record, path / record.folder) for record in self.manifest.cases}
        for record in self.manifest.cases:
            for name, size in record.sizes.items():
                file = path / record.folder / name
                if not file.is_file() or file.stat().st_size != size:
                    raise UserError("a prepared cohort holds every file of its manifest, whole", f"{file} is not")

    @property
    def records(self) -> tuple[CaseRecord, ...]:
        """All cases, sorted by id."""
        return self.manifest.cases

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, the same in every case."""
        return self.manifest.cases[0].channels

    @property
    def source_channels(self) -> tuple[str, ...]:
        """Names of the channels that a study must have, the same in every case."""
        return self.manifest.cases[0].source_channels

    @property
    def clinical(self) -> Path | None:
        """The clinical table that lay beside the source's cases."""
        path = self.path / "clinical.csv"
        return path if path.exists() else None

    @property
    def num_slices(self) -> int:
        """Original slices over all cases."""
        return sum(record.shape[0] for record in self.records)

    def case(self, case_id: str) -> PreparedCase:
        """Return one case; raises `UserError` for an unknown id."""
        if case_id not in self._cases:
            raise UserError(f"no case {case_id!r} in {self.path}", choices=list(self._cases)[:8])
        return self._cases[case_id]

    def cases(self, ids: Iterable[str]) -> list[PreparedCase]:
        """Return the cases of `ids`, in that order."""
        return [self.case(case_id) for case_id in ids]


def is_prepared(path: Path) -> bool:
    """Say whether `path` is a prepared cohort."""
    return (path / "manifest.json").is_file()


def find_or_prepare(source: Path, steps: Sequence[Step], *, home: Path, map_cases: Map = map) -> PreparedCohort:
    """Open the prepared form of `source`, making it under `home` first where it is not there yet.

    Args:
        source: A raw cohort, or a prepared one (then its steps must be `steps`).
        steps: The experiment's preprocessing.
        home: Where prepared cohorts live, one folder per fingerprint.
        map_cases: Runs a function over items, in order; Ray's tasks on a cluster.

    Raises:
        UserError: As the readers and steps do, or if a prepared cohort was made with other steps.
    """
    if is_prepared(source):
        prepared = PreparedCohort(source)
        if prepared.manifest.steps != tuple(steps):
            raise UserError(
                "a prepared cohort is used with the preprocessing it was made with", _difference(prepared, steps)
            )
        return prepared
    cohort = open_cohort(source)
    digests = digest_cases(cohort, steps)
    return prepare(cohort, home / fingerprint_of(digests, steps), steps, map_cases=map_cases, digests=digests)


def prepare(
    cohort: Cohort,
    out: Path,
    steps: Sequence[Step],
    *,
    map_cases: Map = map,
    progress: Callable[[int, int], None] | None = None,
    digests: dict[str, str] | None = None,
) -> PreparedCohort:
    """Preprocess a cohort case by case into `out`; what is already there is skipped, so an interruption costs little.

    Args:
        cohort: As opened.
        out: The prepared cohort's folder; it counts as prepared once its manifest is written.
        steps: Preprocessing, in order.
        map_cases: Runs a function over items, in order.
        progress: Told (cases done, cases in all).
        digests: Digest of each case's files by id, where known already.

    Raises:
        UserError: As the reader and the steps do; or if `out` holds a cohort of other sources or settings.
    """
    digests = digests or digest_cases(cohort, steps)
    fingerprint = fingerprint_of(digests, steps)
    if is_prepared(out):
        prepared = PreparedCohort(out)
        if prepared.manifest.fingerprint != fingerprint:
            raise UserError("this folder holds a prepared cohort of other sources or settings; choose another", out)
        return prepared
    if out.exists() and not out.is_dir():
        raise UserError("a prepared cohort is a folder", out)
    if out.resolve() == cohort.path.resolve():
        raise UserError("a prepared cohort lies outside of its source", out)
    alone = replace(cohort, cases=())  # a job carries its own files, not the whole cohort's
    # Large ones first, so that no worker is left alone with one at the end.
    ordered = sorted(cohort.cases, key=_bytes_of, reverse=True)
    jobs = [_Job(alone, case, out, tuple(steps), digests[case.id]) for case in ordered]
    records: list[CaseRecord] = []
    fresh = not out.exists()
    try:
        for record in map_cases(_prepare_case, jobs):
            records.append(record)
            if progress:
                progress(len(records), len(jobs))
        _same_channels(sorted(records, key=lambda record: record.id))
    except UserError:
        if fresh:  # what an earlier, interrupted call had made stays
            shutil.rmtree(out, ignore_errors=True)
        raise
    if cohort.clinical is not None:
        atomic.write_bytes(out / "clinical.csv", cohort.clinical.read_bytes())
    manifest = Manifest(
        version=VERSION,
        fingerprint=fingerprint,
        source_fingerprint=fingerprint_of(digests, ()),
        format=cohort.format,
        source=cohort.path.name,
        labels=cohort.labels,
        steps=tuple(steps),
        cases=tuple(sorted(records, key=lambda record: record.id)),
    )
    atomic.write_text(out / "manifest.json", manifest.model_dump_json(indent=1))
    return PreparedCohort(out)


def _bytes_of(case: CaseFiles) -> int:
    return sum(path.stat().st_size for path in case.files)


@dataclass(frozen=True)
class _Job:
    cohort: Cohort
    case: CaseFiles
    out: Path
    steps: tuple[Step, ...]
    digest: str


def _prepare_case(job: _Job) -> CaseRecord:
    import cv2

    cv2.setNumThreads(1)
    name = f"{job.case.id}-{fingerprint_of({job.case.id: job.digest}, job.steps)[:12]}"
    folder = job.out / "cases" / name
    if not folder.is_dir():
        with atomic.new_folder(folder) as working:
            _write_case(job, f"cases/{name}", working)
    return CaseRecord.model_validate_json((folder / "case.json").read_bytes())


def _write_case(job: _Job, folder: str, working: Path) -> None:
    case = job.cohort.read_files(job.case)
    volume = preprocess(case, job.steps)
    if not np.isfinite(volume.image).all():
        raise UserError("preprocessed images are finite numbers", f"NaN or infinity in {case.id}")
    if np.abs(volume.image).max(initial=0) > np.finfo(np.float16).max:
        raise UserError(
            "preprocessed images fit half precision: add a rescaling step", f"|values| over 65504 in {case.id}"
        )
    np.save(working / "image.npy", volume.image.astype(np.float16))
    if (brain := locate_brain(case.image)) is not None:
        np.savez_compressed(working / "brain.npz", brain=brain)
    areas = None
    reference = None if case.mask is None else rename_labels(case.mask, job.steps)
    if volume.mask is not None:
        np.save(working / "mask.npy", volume.mask)
        np.savez_compressed(working / "reference.npz", mask=np.asarray(reference))
        areas = tuple(int(area) for area in np.count_nonzero(volume.mask, axis=(1, 2)))
    record = CaseRecord(
        id=case.id,
        patient=case.patient,
        institution=case.institution,
        folder=folder,
        shape=case.shape,
        spacing_mm=case.spacing_mm,
        source_channels=case.channels,
        channels=volume.channels,
        slice_numbers=case.slice_numbers,
        moves=volume.moves,
        areas_px=areas,
        volume_px=None if reference is None else int(np.count_nonzero(reference)),
        sizes={file.name: file.stat().st_size for file in sorted(working.iterdir())},
    )
    (working / "case.json").write_text(record.model_dump_json(indent=1))


def _same_channels(records: Sequence[CaseRecord]) -> None:
    for record in records:
        if (record.channels, record.source_channels) != (records[0].channels, records[0].source_channels):
            raise UserError(
                "all cases of a cohort have the same channels",
                f"{records[0].id}: {list(records[0].source_channels)}, {record.id}: {list(record.source_channels)}",
            )


def _difference(prepared: PreparedCohort, steps: Sequence[Step]) -> str:
    dump = TypeAdapter(tuple[Step, ...]).dump_json
    return f"{dump(prepared.manifest.steps).decode()} where the experiment has {dump(tuple(steps)).decode()}"
