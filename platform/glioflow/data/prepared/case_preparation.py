"""Preparation of one case: its preprocessed arrays and its record, written into a folder of the prepared cohort."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from glioflow import atomic
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.prepared.arrays import write_array
from glioflow.data.prepared.manifest import CaseRecord, digest_file, digest_image, fingerprint_of
from glioflow.data.prepared.prints import hash_slices, sign
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.data.preprocessing.pipeline import Step, preprocess, rename_labels
from glioflow.errors import UserError, mentions

# Where the cases lie in the folder of a prepared cohort.
CASES = "cases"


@dataclass(frozen=True)
class Job:
    """One case to prepare, as sent to a worker.

    `channels` is the required order of its channels; `several` is whether the cohort has more cases.
    """

    cohort: Cohort
    case: CaseFiles
    out: Path
    steps: tuple[Step, ...]
    digest: str
    reading: str = ""
    channels: tuple[str, ...] = ()
    several: bool = True


def prepare_case(job: Job) -> CaseRecord:
    """Prepare a case unless its folder is complete already, and return its record; raises `UserError`."""
    import cv2

    cv2.setNumThreads(1)
    reading = " ".join((job.reading, *job.channels)) if job.channels else job.reading
    name = f"{job.case.id}-{fingerprint_of({job.case.id: job.digest}, job.steps, reading)[:12]}"
    folder = job.out / CASES / name
    if not folder.is_dir():
        try:
            with atomic.new_folder(folder) as working:
                _write_case(job, f"{CASES}/{name}", working)
        except UserError as error:
            raise (_of_case(error, job.case.id) if job.several else error) from None
    return CaseRecord.model_validate_json((folder / "case.json").read_bytes())


def _of_case(error: UserError, case_id: str) -> UserError:
    """Return an error that names the case, which its reader need not do."""
    named = error.file is not None or mentions(str(error), case_id)
    return error if named else error.replace(rule=f"case {case_id}: {error.rule}")


def _write_case(job: Job, folder: str, working: Path) -> None:
    case = job.cohort.read_files(job.case)
    if job.channels:
        where = [case.channels.index(name) for name in job.channels]
        case = replace(case, image=np.ascontiguousarray(case.image[..., where]), channels=job.channels)
    volume = preprocess(case, job.steps)
    if not np.isfinite(volume.image).all():
        raise UserError("a preprocessed image must hold finite numbers", f"NaN or infinity in {case.id}")
    if (highest := float(np.abs(volume.image).max(initial=0))) > float(np.finfo(np.float16).max):
        rule = "a preprocessed image must fit half precision, values up to 65504"
        hint = "add the step 'percentile' or 'zscore' to the preprocessing"
        raise UserError(rule, f"{highest:g} in {case.id}", hint=hint)
    stored = volume.image.astype(np.float16)
    write_array(working / "image.npy", stored)
    np.savez(working / "prints.npz", signatures=sign(hash_slices(stored)[0]))
    if (brain := locate_brain(case.image)) is not None:
        np.savez_compressed(working / "brain.npz", brain=brain)
    areas = None
    reference = None if case.mask is None else rename_labels(case.mask, job.steps)
    if volume.mask is not None:
        write_array(working / "mask.npy", volume.mask)
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
        digest=digest_image(case.image),
        contents={file.name: digest_file(file) for file in sorted(working.iterdir())},
    )
    (working / "case.json").write_text(record.model_dump_json(indent=1))
