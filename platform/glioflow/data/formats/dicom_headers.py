"""Completion of DICOM headers: tags that de-identification or an old scanner omitted and that no image needs."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glioflow.errors import UserError

_IMAGE_CLASS = "1.2.840.10008.5.1.4.1.1.4"  # MR Image Storage
# Tags that a segmentation must copy from the images; each may be empty in a header.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "SliceThickness",
)
_PLANE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}


def fill_gaps(dataset: Any, name: str) -> None:
    """Add missing tags to an image's header: empty names and dates, unique identifiers, constants of gray images.

    Args:
        dataset: Changed in place; one without rows is not an image and does not change.
        name: Name of the file, from which missing identifiers are made.
    """
    if not dataset.get("Rows"):
        return
    study = _uid(dataset, "StudyInstanceUID", "study")
    series = _uid(dataset, "SeriesInstanceUID", study, dataset.get("SeriesNumber"), dataset.get("SeriesDescription"))
    _uid(dataset, "SOPInstanceUID", series, name)
    _uid(dataset, "FrameOfReferenceUID", study)
    meta = getattr(dataset, "file_meta", None)
    stated = None if meta is None else meta.get("MediaStorageSOPClassUID")
    defaults = {
        "SOPClassUID": str(stated or _IMAGE_CLASS),
        "Modality": "MR",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    for keyword, value in defaults.items():
        if not dataset.get(keyword):
            setattr(dataset, keyword, value)
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, None)


def patient_id(header: Any) -> str:
    """Return the PatientID; empty if it is missing or empty."""
    return str(header.get("PatientID") or "").strip()


def check_one_visit(headers: Iterable[Any]) -> None:
    """Refuse a study with files of several persons, or images of several days; raises `UserError`.

    Persons differ by PatientID, or by PatientName where a file has no ID: scanners spell one person's name differently.
    """
    ids, days, names, names_alone = set[str](), set[str](), set[str](), set[str]()
    for header in headers:
        ids |= {patient_id(header)} - {""}
        (names if patient_id(header) else names_alone).update({_plain(header.get("PatientName"))} - {""})
        if header.get("Rows") and header.get("Modality") != "SEG":
            days |= {str(header.get("StudyDate") or "").strip()} - {""}
    strange = len(names_alone) > 1 or (names and not names_alone <= names)
    if len(ids) > 1 or strange:
        shown = f"{len(ids)} different PatientIDs" if len(ids) > 1 else "different PatientNames"
        raise UserError("the files of a study must be of one person", shown, hint="send one study at a time")
    if len(days) > 1:
        shown = f"{len(days)} different StudyDates"
        raise UserError("the files of a study must be from one day", shown, hint="send one examination at a time")


def _plain(name: Any) -> str:
    """Return a person's name without the marks between its parts, which not every scanner writes."""
    return re.sub(r"[\W_]+", " ", str(name or "")).strip().casefold()


def stated_frame(dataset: Any) -> str:
    """Return the frame of reference that an image states; empty if it states none or `fill_gaps` made it."""
    stated = str(dataset.get("FrameOfReferenceUID") or "")
    return "" if stated == _made("FrameOfReferenceUID", dataset.get("StudyInstanceUID")) else stated


def stated_study(dataset: Any) -> str:
    """Return the UID of the study that an image states; empty if it states none or `fill_gaps` made it."""
    stated = str(dataset.get("StudyInstanceUID") or "")
    return "" if stated == _made("StudyInstanceUID", "study") else stated


def check_plane(dataset: Any, file: Any) -> None:
    """Refuse a slice whose header does not state its position; raises `UserError` with the tag."""
    if dataset.get("NumberOfFrames") and "SharedFunctionalGroupsSequence" in dataset:
        return
    for keyword, count in _PLANE.items():
        value = dataset.get(keyword)
        if value is None or not hasattr(value, "__len__") or len(value) != count:
            hint = "export the series with its geometry, or convert it to NIfTI"
            raise UserError(f"a DICOM slice must state its {keyword}", file=file, hint=hint)


def count_voxels(header: Any, file: Path) -> int:
    """Return the number of voxels in a header; raises `UserError` if it is not of a gray image with a stated size."""
    try:
        count = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError("a DICOM image must state its rows and columns", file=file) from error
    if header.Modality != "SEG" and int(header.get("SamplesPerPixel") or 1) != 1:
        raise UserError("a DICOM image must be gray", f"{header.SamplesPerPixel} samples per pixel", file=file)
    shown = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    shown += ", shown inverse" if str(header.get("PresentationLUTShape", "")).strip() == "INVERSE" else ""
    if header.Modality != "SEG" and shown != "MONOCHROME2":
        hint = "store it with bright values for bright tissue, as MONOCHROME2"
        raise UserError("a DICOM image must be MONOCHROME2", shown, file=file, hint=hint)
    return count


def _uid(dataset: Any, keyword: str, *sources: Any) -> str:
    if not dataset.get(keyword):
        setattr(dataset, keyword, _made(keyword, *sources))
    return str(dataset.get(keyword))


def _made(keyword: str, *sources: Any) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=[keyword, *map(str, sources)]))
