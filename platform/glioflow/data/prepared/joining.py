"""Addition of corrected studies to a prepared cohort: new masks and new cases; unchanged files are linked."""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glioflow import atomic
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort, is_prepared
from glioflow.data.prepared.index import write_index
from glioflow.data.prepared.manifest import CaseRecord, WholeManifest, fingerprint_of
from glioflow.data.prepared.prints import Signatures

# Files of a case that depend on its mask; all others depend on its images.
_OF_MASK = ("mask.npy", "reference.npz")
# Limits for two readings of one image: differing bits per byte of a signature, and difference of intensities.
_FEW_BITS, _ROUNDING = 0.2, 1e-3


@dataclass(frozen=True)
class Addition:
    """A corrected study to be added to a prepared cohort.

    Attributes:
        case: The study under the cohort's preprocessing, with its mask.
        digest: Digest of its files.
        patient: The person, as named in the cohort.
        replaces: The case of the cohort whose mask it replaces; None for a study that is new to the cohort.
    """

    case: PreparedCase
    digest: str
    patient: str
    replaces: str | None = None

    @property
    def id(self) -> str:
        """Id of the case with this mask in the new cohort."""
        return self.replaces or self.case.record.id


def same_mask(case: PreparedCase, other: PreparedCase) -> bool:
    """Return whether two cases have the same mask in the original geometry; False if one has none."""
    labeled = None not in (case.record.volume_px, other.record.volume_px)
    return labeled and np.array_equal(case.reference(), other.reference())


def find_same_images(case: PreparedCase, others: Iterable[tuple[PreparedCase, Signatures]]) -> PreparedCase | None:
    """Return the first of the other cases with the same images, whatever the type, names and rounding of its files.

    Only cases with nearly the same signatures are read.
    """
    signatures, shapes = case.signatures(), (case.record.shape, case.record.prepared_shape)
    for other, theirs in others:
        if (other.record.shape, other.record.prepared_shape) != shapes or theirs.shape != signatures.shape:
            continue
        if np.bitwise_count(theirs ^ signatures).sum() <= _FEW_BITS * signatures.size and _alike(case, other):
            return other
    return None


def _alike(case: PreparedCase, other: PreparedCase) -> bool:
    """Return whether two images differ by no more than the rounding of file types."""
    if case.image.shape != other.image.shape:
        return False
    one = np.asarray(case.image, np.float32)
    return float(np.abs(one - other.image).mean()) <= _ROUNDING * float(np.abs(one).mean())


def join_corrections(base: PreparedCohort, additions: Sequence[Addition], *, home: Path) -> PreparedCohort:
    """Return the cohort with corrected studies, made in `home` under a fingerprint of both if it is new.

    Args:
        base: The cohort; it is not changed.
        additions: At least one, each for a different case.
        home: Folder of prepared cohorts.
    """
    manifest, digests = base.manifest, {addition.id: addition.digest for addition in additions}
    fingerprint = fingerprint_of({"": manifest.fingerprint, **digests}, manifest.steps)
    folder = home / fingerprint
    if is_prepared(folder):
        return PreparedCohort(folder)
    with atomic.new_folder(folder) as working:
        replaced = {addition.replaces: addition for addition in additions if addition.replaces is not None}
        records = [
            _with_mask(base.case(record.id), replaced[record.id], working)
            if record.id in replaced
            else _linked(base.case(record.id), working)
            for record in base.records
        ]
        records += [_added(addition, working) for addition in additions if addition.replaces is None]
        if base.clinical is not None:
            shutil.copyfile(base.clinical, working / base.clinical.name)
        whole = WholeManifest(
            **{
                **manifest.model_dump(),
                "fingerprint": fingerprint,
                "source_fingerprint": fingerprint_of({"": manifest.source_fingerprint, **digests}, ()),
                "corrects": manifest.judged_by,
            },
            cases=tuple(sorted(records, key=lambda record: record.id)),
        )
        atomic.write_text(working / "manifest.json", whole.model_dump_json(indent=1))
        write_index(working, whole, whole.cases)
    return PreparedCohort(folder)


def _linked(case: PreparedCase, working: Path) -> CaseRecord:
    shutil.copytree(case.folder, working / case.record.folder, copy_function=_link)
    return case.record


def _with_mask(case: PreparedCase, addition: Addition, working: Path) -> CaseRecord:
    """Write a case of the cohort with the mask of a correction; keep its images, spacing and slice numbers."""
    corrected = addition.case.record
    folder = f"cases/{case.record.id}-{addition.digest[:12]}"
    shutil.copytree(case.folder, working / folder, copy_function=_link)
    for name in _OF_MASK:
        (working / folder / name).unlink(missing_ok=True)
        _link(addition.case.folder / name, working / folder / name)
    sizes = case.record.sizes | {name: corrected.sizes[name] for name in _OF_MASK}
    known = {name: digest for name, digest in case.record.contents.items() if name not in _OF_MASK}
    contents = known | {name: corrected.contents[name] for name in _OF_MASK if name in corrected.contents}
    masked = {"areas_px": corrected.areas_px, "volume_px": corrected.volume_px}
    return _recorded(case.record, working, folder=folder, sizes=sizes, contents=contents, **masked)


def _added(addition: Addition, working: Path) -> CaseRecord:
    record = _linked(addition.case, working)
    return _recorded(record, working, patient=addition.patient)


def _recorded(record: CaseRecord, working: Path, **changes: Any) -> CaseRecord:
    """Return a record with changes, and write it to the case's file."""
    changed = record.model_copy(update=changes)
    path = working / changed.folder / "case.json"
    path.unlink()  # a link to the file of another cohort
    path.write_text(changed.model_dump_json(indent=1))
    return changed


def _link(source: str | Path, target: str | Path) -> None:
    """Hard-link a file; copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
