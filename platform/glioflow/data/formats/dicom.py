"""DICOM series on disk: the files of a volume, its position in the patient, and its sequence.

A cohort has one folder for each case, with DICOM files of any name below it; a case has one series for each channel.
"""

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioflow.data.case import Case
from glioflow.data.channel_choice import NONE_CHOSEN, choose_channels
from glioflow.data.formats.dicom_files import (
    dicom_files,
    is_dicom,
    is_segmentation,
    load,
    load_owner,
    load_series,
    steps_for_headers,
    without_mri,
)
from glioflow.data.formats.dicom_headers import (
    check_one_visit,
    check_plane,
    count_voxels,
    patient_id,
    stated_frame,
    stated_study,
)
from glioflow.data.formats.dicom_masks import LPS_TO_RAS, OUTLINES, read_outlines, read_segmentation
from glioflow.data.formats.dicom_pixels import check_pixels
from glioflow.data.formats.dicom_series import check_positions, drop_copies, series_of, split_acquisitions, whole_series
from glioflow.data.formats.dicom_stack import check_frames, check_stack, is_multiframe
from glioflow.data.formats.file_roles import declared_in, roles_for
from glioflow.data.formats.missing import settle_incomplete
from glioflow.data.formats.nifti import check_gray
from glioflow.data.formats.nifti_header import MAX_VOXELS
from glioflow.data.formats.record import PERSONS, CaseFiles, Cohort, reason, with_persons
from glioflow.data.formats.resampling import on_one_grid
from glioflow.data.formats.segments import note_names, numbered_labels
from glioflow.data.formats.volume import Volume, orient, spacing_of
from glioflow.data.formats.volume_files import MAX_CHANNELS
from glioflow.data.sequences import SEQUENCE_BY_NAME, name_series, weighting
from glioflow.errors import TooLarge, UserError

_MRI = "MR"
_IMAGE = (_MRI, "CT", "PT")
_MASK = "SEG"
# Largest distance of a slice from its position in an even stack, as a share of the distance between slices.
_JITTER = 0.0101
_MOST_NAMED = 8
_KEYS = ("outlines", "resample_to", "skip_incomplete", "fill_missing", *PERSONS)
_IF_MASK = "remove the series, or store it as a segmentation (SEG)"
# The files of a series, with their headers.
_Members = list[tuple[Path, Any]]


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether any of the files is DICOM, by its first bytes."""
    return any(is_dicom(file) for file in files)


def open(path: Path, *, skip_incomplete: bool = False, masks: bool = True) -> Cohort:
    """List the cases below `path`: all files with one StudyInstanceUID, in any folders, are one case.

    Without `masks`, segmentations are not among the files of a case. With `skip_incomplete`, a case that lacks a
    sequence that most cases have is left out; this takes the headers of all files.

    Raises:
        UserError: If a file's header cannot be read.
    """
    studies: dict[Path, str] = {}
    patients: dict[Path, str] = {}
    groups: dict[str, list[Path]] = {}
    for file in dicom_files(path):
        # All files of a folder belong to one study, so that one header is enough.
        if file.parent not in studies:
            header = load_owner(file)
            top = file.relative_to(path).parts[0] if file.parent != path else ""
            patients[file.parent] = patient_id(header)
            studies[file.parent] = stated_study(header) or f"{patients[file.parent]} in {top}"
        if masks or not is_segmentation(file):
            groups.setdefault(studies[file.parent], []).append(file)
    left_out = without_mri(groups)
    if not groups or len(left_out) == len(groups):
        raise UserError("a DICOM cohort must hold images", next(iter(left_out.values()), "none"), file=path)
    notes = sorted(f"{groups[study][0].parent.relative_to(path)} ({why})" for study, why in left_out.items())
    groups = {study: files for study, files in groups.items() if study not in left_out}
    cases: dict[str, CaseFiles] = {}
    folders = [Path(os.path.commonpath([file.parent for file in files])) for files in groups.values()]
    # Above the patients, TCIA has the folders of the manifest and of the collection.
    persons = [patients[files[0].parent] for files in groups.values()]
    above = Path(os.path.commonpath(folders)) if len(set(persons)) > 1 else path
    for folder, files in zip(folders, groups.values(), strict=True):
        name = folder.relative_to(above).parts[0] if folder != above else folder.resolve().name
        others = (f"{name}_{number}" for number in itertools.count(len(cases) + 1))
        free = next(each for each in itertools.chain([name], others) if each not in cases)
        case = _case_of(files, free, patients[files[0].parent])
        # Without a PatientID, all studies in a folder are of one person.
        cases[free] = replace(case, patient=name) if case.patient == free else case
    roles = roles_for("dicom", path, *_KEYS)
    listed = with_persons((cases[name] for name in sorted(cases)), roles, path)
    outlines = roles.outlines if masks else ()
    reader: Callable[..., Case] = read
    if outlines or roles.resample_to:
        reader = partial(read, outlines=outlines, resample_to=roles.resample_to)
    listed, reader, incomplete = settle_incomplete(
        listed, reader, _sequences_of, roles=roles, skip_incomplete=skip_incomplete
    )
    segments = _segments_of(listed)
    labels = dict(enumerate(outlines, start=1)) or numbered_labels(segments)
    read_anew = not all(persons)  # all cases without a PatientID were one person
    more = ", and others" if len(notes) > _MOST_NAMED else ""
    left_out_shown = (f"{len(notes)} left out without MRI: {', '.join(notes[:_MOST_NAMED])}{more}",) if notes else ()
    shown = (*left_out_shown, *incomplete, *note_names(segments))
    declares = outlines or roles.resample_to or roles.declares_persons or roles.fill_missing
    inputs = tuple(declared_in(path) if declares else ())
    kept = Cohort("dicom", path, listed, labels, reader, inputs=inputs, notes=shown, read_anew=read_anew)
    return replace(kept, roles=roles.of_persons)


def labels_of(cases: Iterable[CaseFiles]) -> dict[int, str]:
    """Return the segments of all SEG objects by number; see `numbered_labels`."""
    return numbered_labels(_segments_of(cases))


def _segments_of(cases: Iterable[CaseFiles]) -> dict[Path, dict[int, str]]:
    """Return the names of the segments of each SEG object."""
    files = (file for case in cases for file in case.files if is_segmentation(file))
    return {
        file: {
            int(segment.SegmentNumber): str(segment.get("SegmentLabel", "")).strip()
            for segment in load(file, pixels=False).get("SegmentSequence", ())
        }
        for file in files
    }


def open_files(files: Sequence[Path], *, name: str | None = None) -> CaseFiles:
    """Return the files as one case, named `name` or by its PatientID, which is the patient in any case."""
    return _case_of(files, name, patient_id(load_owner(files[0])))


def _case_of(files: Sequence[Path], name: str | None, person: str) -> CaseFiles:
    patient = person or name or "study"
    parts = patient.split("-")
    institution = parts[1] if parts[0] == "TCGA" and len(parts) == 3 else None
    return CaseFiles(name or patient, patient, tuple(files), institution)


def read(
    case: CaseFiles,
    *,
    chosen: Mapping[str, str] = NONE_CHOSEN,
    outlines: Sequence[str] = (),
    resample_to: str | None = None,
) -> Case:
    """Read every image series as a channel, its slices by position, its values rescaled; a SEG object is the mask.

    Args:
        case: The files of the case.
        chosen: Series (its description, number or UID) of a channel, if the header does not identify it.
        outlines: Names of outlines in RTSTRUCT files that form the mask, as labels 1, 2 and so on.
        resample_to: Channel onto whose grid the others are resampled; None accepts only series on one grid.

    Raises:
        UserError: If a file is damaged, slices are missing or doubled, the series are not on one grid, or two may be
            one sequence.
    """
    images, masks, drawn = _series_in(case)
    gray = _gray(images)
    ordered, of_others = _only_mri(gray, chosen.values())
    names, left_out = choose_channels([series_of(members[0][1]) for members in ordered], chosen)
    channels = {name: members for name, members in zip(names, ordered, strict=True) if name is not None}
    check_positions(channels.values())
    _check_size(case, channels, masks)
    frames = {stated_frame(header) for members in channels.values() for _, header in members} - {""}
    volumes = {name: _read_series([file for file, _ in members]) for name, members in channels.items()}
    for name, volume in volumes.items():
        check_gray(name, channels[name][0][0], volume, hint=_IF_MASK)
    volumes, first_name, resampled = on_one_grid(volumes, resample_to, frames, case.id)
    first = volumes[first_name]
    mask = _read_mask(masks, drawn, outlines, first, frames)
    kinds = {name: members[0][1].Modality for name, members in channels.items()}
    return Case(
        id=case.id,
        patient=case.patient,
        image=np.stack([volume.data for volume in volumes.values()], axis=-1),
        mask=mask,
        channels=tuple(channels),
        slice_numbers=tuple(range(1, first.data.shape[0] + 1)),
        spacing_mm=first.spacing_mm,
        institution=case.institution,
        grid=first.grid,
        warnings=(
            *_left_out(left_out, of_others, num_colored=len(images) - len(gray)),
            *(["outlines (RTSTRUCT) are only read where cohort.yaml names them"] if drawn and not outlines else []),
            *(f"{name} is {kind} and no MRI" for name, kind in kinds.items() if kind != _MRI),
            *resampled,
        ),
        # A segmentation refers to the series of the first file, on whose grid the study is.
        files=tuple(
            file for name in sorted(channels, key=lambda name: name != first_name) for file, _ in channels[name]
        ),
        chosen=tuple(chosen.items()),
    )


def _left_out(
    unused: Sequence[tuple[str, str | None]], of_others: Sequence[tuple[str, str]], *, num_colored: int
) -> list[str]:
    """Return warnings about the series of a study that are no channels.

    Args:
        unused: MR series, each with the channel for which another was chosen; None if it is no known sequence.
        of_others: Series of other modalities, each with its modality.
        num_colored: Number of series in color, which are screenshots.
    """
    unknown = whole_series([text for text, name in unused if name is None])
    return [
        *(f"the series {text!r} is not T1, T2 or FLAIR and was left out" for text in unknown),
        *(f"the series {text!r} was left out, since another was chosen as {name}" for text, name in unused if name),
        *(f"the series {text!r} is {kind} beside MRI and was left out" for text, kind in of_others),
        *([f"{num_colored} series in color left out"] if num_colored else []),
    ]


def _read_mask(
    masks: Sequence[_Members], drawn: Sequence[Path], outlines: Sequence[str], grid: Volume, frames: Collection[str]
) -> NDArray[np.uint8] | None:
    """Read the mask from a case's SEG object or, if the user named some, its outlines; None if it has neither.

    Raises:
        UserError: If it has both, or one cannot be read onto the image's grid.
    """
    if masks and outlines:
        rule = "the mask of a study must be a segmentation (SEG), or outlines that cohort.yaml names, and not both"
        raise UserError(rule, ", ".join(outlines), file=masks[0][0][0], hint="remove one of them")
    if masks:
        return read_segmentation(masks[0][0][0], grid, partial(load, pixels=True))
    if outlines and drawn:
        return read_outlines(drawn, outlines, grid, frames, partial(load, pixels=False))
    return None


def _series_in(case: CaseFiles) -> tuple[list[_Members], list[_Members], list[Path]]:
    """Return the series of images and those of masks among a case's files, and the files with outlines.

    Raises:
        UserError: If they belong to several persons or days, have no image, or have several segmentations.
    """
    steps = steps_for_headers()
    headers = [(file, load(file, pixels=False, steps=steps)) for file in case.files]
    check_one_visit([header for _, header in headers])
    drawn = [file for file, header in headers if header.get("Modality") == OUTLINES]
    series: dict[str, _Members] = {}
    for file, header in headers:
        if header.get("Modality") in (*_IMAGE, _MASK):
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
    images = [
        part
        for members in series.values()
        if members[0][1].Modality != _MASK
        for part in split_acquisitions(drop_copies(members))
    ]
    masks = [members for members in series.values() if members[0][1].Modality == _MASK]
    if not images:
        shown = ", ".join(sorted({str(header.get("Modality", "unknown")) for _, header in headers}))
        raise UserError("a DICOM study must have a series of images", f"{shown} alone in {case.id}")
    if len(masks) > 1:
        rule, hint = "a DICOM study must have at most one segmentation", "leave the others out of its folder"
        raise UserError(rule, f"{len(masks)} in {case.id}", hint=hint)
    return images, masks, drawn


def _gray(images: Sequence[_Members]) -> list[_Members]:
    """Return the series of gray images by their numbers; all if none is gray, which reading refuses."""
    gray = [members for members in images if int(members[0][1].get("SamplesPerPixel") or 1) == 1]
    return sorted(gray or images, key=lambda members: int(members[0][1].get("SeriesNumber") or 0))


def _sequences_of(case: CaseFiles) -> list[str] | None:
    """Return the sequences that a case has a series of, by their headers; None if the case cannot be read.

    A T1 that may be before or after contrast is neither: alone, it leaves the case without one of both.
    """
    try:
        images, _, _ = _series_in(case)
    except UserError:
        return None  # which reading the case reports
    ordered, _ = _only_mri(_gray(images), ())
    series = [series_of(members[0][1]) for members in ordered]
    try:
        names = name_series(series)
    except UserError:
        names = [weighting(each) for each in series]
        if names.count("t1") > 1:
            return None
    return [name for name in dict.fromkeys(names) if SEQUENCE_BY_NAME.get(name) == name]


def _only_mri(ordered: Sequence[_Members], chosen: Collection[str]) -> tuple[list[_Members], list[tuple[str, str]]]:
    """Return the series of MRI and those that the user chose, and description and kind of the others, such as a CT.

    Without MRI, all series are returned.
    """
    kinds = [str(members[0][1].Modality) for members in ordered]
    if _MRI not in kinds:
        return list(ordered), []
    taken = [
        kind == _MRI or any(map(series_of(members[0][1]).is_called, chosen))
        for members, kind in zip(ordered, kinds, strict=True)
    ]
    others = [series for series, is_taken in zip(zip(ordered, kinds, strict=True), taken, strict=True) if not is_taken]
    left_out = [(str(members[0][1].get("SeriesDescription", "")), kind) for members, kind in others]
    return list(itertools.compress(ordered, taken)), left_out


def _check_size(case: CaseFiles, channels: Mapping[str, _Members], masks: Sequence[_Members]) -> None:
    """Refuse a study of too many voxels or series before any pixel is decoded."""
    read = [pair for members in (*channels.values(), *masks) for pair in members]
    if sum(count_voxels(header, file) for file, header in read) > MAX_VOXELS:
        raise TooLarge(f"a study must have at most {MAX_VOXELS} voxels", f"more in {case.id}")
    if len(channels) > MAX_CHANNELS:
        rule = f"a DICOM study must have at most {MAX_CHANNELS} series to read"
        raise UserError(rule, f"{len(channels)} in {case.id}", hint="leave out those that are not needed")


def _read_series(files: Sequence[Path]) -> Volume:
    """Read one series, single slices or one multi-frame file, as (S, H, W)."""
    import highdicom

    datasets = load_series(files)
    for dataset, file in zip(datasets, files, strict=True):
        check_plane(dataset, file)
        check_pixels(dataset, file)
    if is_multiframe(datasets):
        check_frames(datasets[0], files[0])
    options: Mapping[str, Any] = {
        "dtype": np.float32,
        "apply_presentation_lut": False,
        # Two neighbors may each be off by a hundredth of their distance, in opposite directions.
        "rtol": 2 * _JITTER,
        "perpendicular_tol": 2 * _JITTER,
    }
    try:
        if is_multiframe(datasets):
            volume = highdicom.Image.from_dataset(datasets[0]).get_volume(**options)
        else:
            volume = highdicom.get_volume_from_series(datasets, **options)
        data, affine = np.asarray(volume.array), LPS_TO_RAS @ np.asarray(volume.affine, np.float64)
    except Exception as error:  # a hostile header can fail anywhere inside the library
        rule = "a DICOM series must be a complete stack of parallel, evenly spaced slices"
        raise UserError(rule, reason(error), file=files[0].parent) from error
    check_stack(datasets, files[0].parent)
    if not np.isfinite(data).all():
        raise UserError("an image must hold finite numbers", "NaN or infinity", file=files[0])
    grid = orient(affine, files[0])
    return Volume(grid.from_file(data), grid, spacing_of(grid))
