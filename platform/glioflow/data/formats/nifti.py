"""Volumes in NIfTI, MetaImage and NRRD files, and cohorts of such images and masks, including nnU-Net's layout.

A cohort is `imagesTr/<case>_0000.nii.gz` with `labelsTr/<case>.nii.gz` and `dataset.json`; or a folder per case, whose
files are named after their channels; or BIDS, `sub-<person>[/ses-<visit>]/anat/`; or one folder of `<case>.nii.gz` with
`<case>_mask.nii.gz` (or `_seg`, `_label`). `cohort.yaml` may declare the roles of files (see `file_roles`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from glioflow.data.case import Case
from glioflow.data.channel_choice import NONE_CHOSEN, check_once, rename_chosen
from glioflow.data.formats import nnunet
from glioflow.data.formats.dataset_json import (
    description_files,
    ignored_in,
    labels_in,
    note_regions,
    read_description,
    regions_in,
    stacked_names,
)
from glioflow.data.formats.file_roles import DECLARED, NO_ROLES, FileRoles, declared_in, roles_for
from glioflow.data.formats.itk import is_itk, segment_names
from glioflow.data.formats.junk import note_unread
from glioflow.data.formats.missing import settle_incomplete
from glioflow.data.formats.nifti_names import NUMBERED, channel_name, name_cases
from glioflow.data.formats.nnunet import is_picture
from glioflow.data.formats.record import PERSONS, CaseFiles, Cohort, find_table, with_persons
from glioflow.data.formats.resampling import OTHER_GRIDS, resample, settle_grids
from glioflow.data.formats.segments import compare_numbers, segments_of_slicer
from glioflow.data.formats.volume import Volume, paste, same_grid
from glioflow.data.formats.volume_files import MAX_CHANNELS, read_labels, read_stack, read_volume
from glioflow.data.formats.volume_names import is_slicers, is_volume, stem, without_copies
from glioflow.data.sequences import Series, is_channel_name
from glioflow.errors import UserError
from glioflow.label_schemes import scheme_named

_KEYS = (
    "images",
    "masks",
    "brain_masks",
    "labels",
    "scheme",
    "resample_to",
    "skip_incomplete",
    "fill_missing",
    *PERSONS,
)
# Largest number of values in an image with an unknown name that may be a label map.
_MOST_LABELS = 12


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether a volume is among the files, by its name, or the folder holds pictures as in nnU-Net."""
    return any(is_volume(file.name) for file in files) or nnunet.has_pictures(path)


def open(path: Path, *, skip_incomplete: bool = False, masks: bool = True) -> Cohort:
    """List the cases of a folder of NIfTI files; `skip_incomplete` skips those that lack a channel most cases have.

    Raises:
        UserError: If a mask has no image, masks of Slicer number their segments differently, or `dataset.json` or
            `cohort.yaml` cannot be read.
    """
    path = nnunet.dataset_in(path)
    roles = roles_for("nifti", path, *_KEYS).below(path)
    files = nnunet.list_files(path)
    cases = name_cases(files, path, roles)
    if not cases:
        raise UserError("a NIfTI cohort must hold .nii or .nii.gz files", file=path)
    if not roles.images:
        cases = tuple(replace(case, files=tuple(without_copies(case.files))) for case in cases)
    cases = with_persons(cases, roles, path)
    if not masks:
        cases = tuple(replace(case, files=tuple(roles.only("image", case.files))) for case in cases)
    if roles.scheme:
        roles = roles.model_copy(update={"labels": dict(scheme_named(roles.scheme).labels)})
    description = read_description(files[0])
    labels, regions = roles.labels or labels_in(description), None if roles.labels else regions_in(description)
    inputs = (*description_files(files[0]), *declared_in(path), *nnunet.spacing_files(files))
    clinical, several = find_table(path, cases, ["participants.tsv"])  # BIDS
    reader: Callable[..., Case] = partial(read, roles=roles)
    named = partial(_names_of, roles=roles, description=description)
    cases, reader, incomplete = settle_incomplete(cases, reader, named, roles=roles, skip_incomplete=skip_incomplete)
    unread = note_unread(set(files) - set(without_copies(files))) if not roles.images else ()
    segments = segments_of_slicer(file for case in cases for file in roles.only("mask", case.files))
    notes = (*incomplete, *unread, *compare_numbers(segments), *(() if roles.labels else note_regions(description)))
    notes = (*notes, *several)
    cohort = Cohort("nifti", path, cases, labels, reader, clinical, roles=roles, inputs=inputs, regions=regions)
    return replace(cohort, layout=_layout(files, path), notes=notes)


def _names_of(case: CaseFiles, *, roles: FileRoles, description: Mapping[str, object]) -> list[str]:
    """Return the channels of a case by the names of its files."""
    return [name for name, _ in _channels(case, roles.only("image", case.files), description)]


def _layout(files: Sequence[Path], path: Path) -> str:
    """Return the kind of folder, if its names identify it."""
    if description_files(files[0]):
        return "nnU-Net or the Decathlon (dataset.json)"
    return "BIDS" if any(part.startswith("sub-") for part in files[0].relative_to(path).parts[:-1]) else ""


def read(case: CaseFiles, *, roles: FileRoles = NO_ROLES, chosen: Mapping[str, str] = NONE_CHOSEN) -> Case:
    """Read the images of one case as channels, and its mask if it has one.

    Args:
        case: The files of the case.
        roles: Declarations of the cohort about its files.
        chosen: Image (the channel in its name, or its file's name) of a channel, if several fit.

    Raises:
        UserError: If a file is damaged, the grids differ, or the mask holds an undeclared label.
    """
    masks, images = roles.only("mask", case.files), roles.only("image", case.files)
    if not images or len(masks) > 1:
        rule = f"case {case.id} must have {'one mask' if images else 'an image'}"
        shown = ", ".join(file.name for file in (masks if images else case.files))
        kinds = "masks: [NAME]" if images else "images and masks"
        raise UserError(rule, shown, hint=f"say which with {kinds} in a file {DECLARED} beside the cases")
    description = read_description(case.files[0])
    labels = roles.labels or labels_in(description)
    if masks and not roles.labels and (ignored := ignored_in(description)) is not None:
        _check_annotated(masks[0], ignored)
    names, colored = stacked_names(description), is_picture(images[0].name)  # colors are channels
    if len(images) == 1 and len(names) > 1 and (colored or not NUMBERED.match(stem(images[0]))):
        stack = read_stack(images[0], names)
        channels = zip(rename_chosen([Series(name) for name in names], chosen), stack, strict=True)
        read = join(case, {name: (images[0], one) for name, one in channels if name is not None}, masks, labels)
        return replace(read, chosen=tuple(chosen.items()))
    named = [Series(name, number=stem(file), uid=file.name) for name, file in _channels(case, images, description)]
    files = zip(rename_chosen(named, chosen), images, strict=True)
    by_name = {name: file for name, file in files if name is not None}
    guessed = [name for name, file in by_name.items() if not (NUMBERED.match(stem(file)) or roles.declares(file))]
    read = assemble(case, by_name, masks, labels, resample_to=roles.resample_to, guessed=guessed)
    return replace(read, chosen=tuple(chosen.items()))


def _check_annotated(mask: Path, ignored: int) -> None:
    """Refuse a mask with voxels of nnU-Net's label `ignore`, which training would take for a tissue."""
    if (read_volume(mask).data == ignored).any():
        rule = "GlioFlow does not train with nnU-Net's label ignore: every voxel of a mask must be annotated"
        raise UserError(rule, f"the label {ignored}", file=mask, hint="annotate these voxels, or leave the case out")


def assemble(
    case: CaseFiles,
    images: Mapping[str, Path],
    masks: Collection[Path],
    labels: Collection[int],
    *,
    resample_to: str | None = None,
    guessed: Collection[str] = (),
) -> Case:
    """Read images by channel, and at most one mask, into a case on one grid.

    Args:
        case: The case.
        images: File of each channel.
        masks: No file or one file.
        labels: Labels that the mask may hold besides 0.
        resample_to: Channel onto whose grid the others are resampled; None accepts only images on one grid.
        guessed: Channels whose files were not declared images: they may be masks.

    Raises:
        UserError: If a file is damaged, the grids differ, or the mask holds another label.
    """
    if not 1 <= len(images) <= MAX_CHANNELS:
        raise UserError(f"a case must have 1 to {MAX_CHANNELS} images", f"{len(images)} in {case.id}")
    volumes = {name: (file, read_volume(file)) for name, file in images.items()}
    for name in guessed:
        if not is_channel_name(name):
            check_gray(name, *volumes[name], hint=f"say which file is what in a file {DECLARED} beside the cases")
    return join(case, volumes, masks, labels, resample_to)


def join(
    case: CaseFiles,
    channels: Mapping[str, tuple[Path, Volume]],
    masks: Collection[Path],
    labels: Collection[int],
    resample_to: str | None = None,
) -> Case:
    """Join the volumes of channels, each with its file, and at most one mask; see `assemble`."""
    check_once({name: file.name for name, (file, _) in channels.items()})
    notes: tuple[str, ...] = ()
    if resample_to is not None:
        settled, notes = settle_grids({name: volume for name, (_, volume) in channels.items()}, resample_to, case.id)
        channels = {name: (file, settled[name]) for name, (file, _) in channels.items()}
    volumes = list(channels.values())
    first_file, first = volumes[0]
    mask = None
    for file in masks:
        labeled = read_labels(file, labels)
        if isinstance(labels, Mapping) and is_slicers(file.name):
            _check_segments(file, labels)
        if is_itk(file.name) and not same_grid(labeled, first):
            labeled = paste(labeled, first) or labeled
        if resample_to is not None and not same_grid(labeled, first):
            labeled, notes = resample(labeled, first, labels=True), (*notes, f"resampled, too: the mask {file.name}")
        volumes.append((file, labeled))
        mask = np.asarray(labeled.data, np.uint8)
    for file, volume in volumes:
        if not same_grid(volume, first):
            other = f"another grid than that of {first_file.name}"
            raise UserError("all images of a case must lie on one grid", other, file=file, hint=OTHER_GRIDS)
    image = np.stack([volume.data for _, volume in channels.values()], axis=-1)
    known = "its spacing but no" if first.measured else "neither spacing nor"
    return Case(
        id=case.id,
        patient=case.patient,
        image=image,
        mask=mask,
        channels=tuple(channels),
        slice_numbers=tuple(range(1, image.shape[0] + 1)),
        spacing_mm=first.spacing_mm if first.measured else None,
        institution=case.institution,
        grid=first.grid,
        warnings=(
            *(() if first.oriented else (f"{first_file.name} states {known} orientation: its axes are guessed",)),
            *notes,
        ),
        files=tuple(dict.fromkeys(file for file, _ in channels.values())),
    )


def _check_segments(file: Path, labels: Mapping[int, str]) -> None:
    """Refuse a mask of Slicer in which a segment has the name of another label: Slicer numbers them file by file."""
    numbers = {name.casefold(): label for label, name in labels.items()}
    for label, name in segment_names(file).items():
        if numbers.get(name.casefold(), label) != label:
            rule = f"the segment {name} must have the label {numbers[name.casefold()]}, as in the labels of the cohort"
            raise UserError(rule, label, file=file, hint="renumber the labels of this mask, or rename its segments")


def check_gray(name: str, file: Path, volume: Volume, *, hint: str) -> None:
    """Refuse a label map as a channel; raises `UserError`."""
    if labels := _labels_in(volume):
        rule = f"an image must hold gray values, and {name} holds labels: is it a mask?"
        raise UserError(rule, labels, file=file, hint=hint)


def _labels_in(volume: Volume) -> list[int]:
    """Return the values of a volume if they are few and include 0, like labels; else none."""
    for part in (volume.data.ravel()[:: max(1, volume.data.size // 4096)], volume.data):
        values = np.unique(part)
        if len(values) > _MOST_LABELS:
            return []
    labels = len(values) > 1 and values[0] == 0 and (values == np.rint(values)).all()
    return [int(value) for value in values] if labels else []


def _channels(case: CaseFiles, images: list[Path], description: Mapping[str, object]) -> list[tuple[str, Path]]:
    """Name each image: numbered files by `dataset.json`, others by the part of their name after the case's."""
    known = description.get("channel_names") or description.get("modality")
    names = []
    for file in images:
        match = NUMBERED.match(stem(file))
        if match:
            number = str(int(match["channel"]))
            name = str(known[number]) if isinstance(known, dict) and number in known else f"channel{number}"
        else:
            name = channel_name(stem(file), case.id, file.parent.name)
        names.append(name.lower())
    folders = [file.parent.name.lower() for file in images]
    if len(set(names)) != len(names) and len(set(folders)) == len(folders) and all(map(is_channel_name, folders)):
        names = folders  # `FLAIR/image.nii.gz` and `T1/image.nii.gz`
    if len(set(names)) != len(names):
        raise UserError("the images of a case must have different channel names", ", ".join(names))
    return list(zip(names, images, strict=True))
