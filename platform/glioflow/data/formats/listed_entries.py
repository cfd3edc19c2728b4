"""One case of a list, and its name and person where the list does not say them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glioflow.data.formats import brats, published
from glioflow.data.formats.nifti_names import owner_of
from glioflow.data.formats.persons import person_in, person_of
from glioflow.data.formats.record import CaseFiles
from glioflow.data.formats.volume_names import stem
from glioflow.errors import UserError

PATIENT = (
    *("patient", "person", "subject", "patient_id", "participant_id", "subject_id", "person_id", "patientid"),
    *("subjectid", "pid"),
)


@dataclass(frozen=True)
class Entry:
    """One case of a list: its images by channel, or one file with `stacked` channels, and its mask."""

    case: CaseFiles
    channels: tuple[str, ...]
    has_mask: bool
    stacked: bool = False


def path_in(value: str, file: Path, where: str) -> Path:
    """Return the path of a file that a list names; raises `UserError` if it does not exist."""
    path = file.parent / value
    if "\\" in value and not path.is_file():  # as Windows writes it
        path = file.parent / value.replace("\\", "/")
    if not value or not path.is_file():
        raise UserError(f"{where} must be a file, relative to the list's folder", value or "nothing", file=file)
    return path


def case_of(images: Sequence[Path]) -> str:
    """Return the name of a case: the part before a sequence, the name of its only file, or its folder's name."""
    owner, folder = owner_of(stem(images[0])), images[0].parent.name
    return owner or (stem(images[0]) if owner is None and len(images) == 1 else folder)


def person_of_case(case: str, image: Path) -> str:
    """Return the person of a case by its name, in the style of BraTS, BIDS, a known data set or visits."""
    if brats.is_named(case):
        return brats.person_of(case)[0]
    return person_in(case) or published.person_of(image) or person_of(case)
