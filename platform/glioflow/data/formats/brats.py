"""The layout of BraTS cohorts since 2017: names of cases, modalities, masks and labels. Reads no file itself.

Up to 2021 `BraTS20_Training_001_flair.nii[.gz]`, labels 1, 2, 4; from 2023 `BraTS-GLI-00001-000-t2f.nii.gz`, 1, 2, 3.
After treatment (2024, visits from 100: `BraTS-GLI-00005-100`) label 4 is the resection cavity. The children's sets of
2023 and 2024 share names but not labels, so `cohort.yaml` must name the scheme (`scheme: brats-2024-ped`).
UCSF-PDGM has the layout and labels of BraTS to 2021: `UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c.nii.gz`, the mask in
`_tumor_segmentation`, a follow-up as `UCSF-PDGM-0429_FU003d`.
Validation cases have no mask, and case 355 of 2020 has its mask under another data set's name, `W39_..._Segm.nii`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from glioflow.data.case import Case
from glioflow.data.formats import persons
from glioflow.data.formats.file_roles import (
    BRAIN_NAME,
    INCOMPLETE,
    MASK_NAME,
    case_name,
    declared_in,
    note_left_out,
    note_unread_masks,
    roles_for,
)
from glioflow.data.formats.junk import note_unread
from glioflow.data.formats.missing import filled, note_filled
from glioflow.data.formats.nifti import assemble
from glioflow.data.formats.record import PERSONS, CaseFiles, Cohort, find_table, with_persons
from glioflow.data.formats.volume_names import is_nifti, nifti_files, stem
from glioflow.data.sequences import BRATS_FILES, SEQUENCES
from glioflow.errors import UserError
from glioflow.label_schemes import SCHEMES, differ, one_scheme

CHANNELS = ("flair", "t1", "t1ce", "t2")
APART = "give the folder of each, or list the cases of both in a csv"
# Label schemes by the name of a case; any other name is taken for one of a cohort to 2021.
_SCHEMES = (
    (re.compile(r"^BraTS-GLI-\d+-[1-9]\d\d(?!\d)", re.IGNORECASE), ("brats-2024-gli",)),
    (re.compile(r"^BraTS-PEDs?-", re.IGNORECASE), ("brats-2023-ped", "brats-2024-ped")),
    (re.compile(r"^BraTS-MEN-RT-", re.IGNORECASE), ("brats-men-rt",)),
    (re.compile(r"^BraTS-[A-Z]+-\d+", re.IGNORECASE), ("brats-2023",)),
)
_OLD = ("brats-2021",)
_NAMED = re.compile(r"^(?:BraTS(?:20|2021)_|Brats1[789]_|UCSF-PDGM-)", re.IGNORECASE)

_OTHER_NAMES = {sequence.brats: sequence.others for sequence in SEQUENCES}
_ENDINGS = {**BRATS_FILES, "seg": "seg", "tumor_segmentation": "seg"}
_FILE = re.compile(rf"^(?P<case>.+)[_-](?P<ending>{'|'.join(sorted(_ENDINGS, key=len, reverse=True))})$", re.IGNORECASE)
_STRAY_MASK = re.compile(r"_segm$", re.IGNORECASE)
_FROM_2023 = re.compile(r"^(?P<patient>BraTS-[A-Z]+-\d+)(?:-\d+)?$", re.IGNORECASE)
_WITH_CENTER = re.compile(r"^(?P<patient>BraTS1[789]_(?P<institution>[A-Z]+)\w*)_\d+$", re.IGNORECASE)
_WITH_FOLLOW_UP = re.compile(r"^(?P<patient>UCSF-PDGM-\d+)(?:_FU\w+)?$", re.IGNORECASE)
_TABLES, _OF_VALIDATION = ("survival_info.csv", "survival_data.csv"), ("survival_evaluation.csv",)


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether a case among the files has at least three of the four modalities under BraTS names.

    It is none of BraTS if it has the fourth under another name, such as `T1w` in BIDS, or masks under other names, or
    if folders tell cases of one name apart that BraTS did not name.
    """
    volumes = [file for file in files if is_nifti(file.name)]
    names = {(file.parent, stem(file).lower()) for file in volumes}
    groups = _groups(volumes)
    if _has_other_masks(volumes, groups) or _are_told_apart_by_folders(groups):
        return False
    for (folder, case), members in groups.items():
        missing = set(CHANNELS) - members.keys()
        others = (f"{case}_{name}".lower() for channel in missing for name in _OTHER_NAMES[channel])
        if len(missing) <= 1 and not any((folder, other) in names for other in others):
            return True
    return False


def _has_other_masks(volumes: Iterable[Path], groups: Mapping[tuple[Path, str], Mapping[str, Sequence[Path]]]) -> bool:
    """Return whether no case has a mask of BraTS, and one has a mask under another name, such as `<case>_mask`."""
    if any("seg" in members and len(members) > 1 for members in groups.values()):
        return False
    named = (file for file in volumes if MASK_NAME.search(file.name) and not BRAIN_NAME.search(file.name))
    return any(groups.get((file.parent, case_name(file.name)), {}).keys() & set(CHANNELS) for file in named)


def _are_told_apart_by_folders(groups: Mapping[tuple[Path, str], Mapping[str, Sequence[Path]]]) -> bool:
    """Return whether a name that BraTS did not give is that of cases in several folders, such as sites or visits."""
    own = [name for (_, name), members in groups.items() if {*CHANNELS} <= members.keys() and not is_named(name)]
    return len(set(own)) < len(own)


def open(path: Path, *, skip_incomplete: bool = False, masks: bool = True) -> Cohort:
    """List the cases below `path`, each in a folder (also below `HGG` and `LGG`), or all in one.

    Raises:
        UserError: If a case lacks a modality or has one twice, or the names belong to two label schemes, or fit two.
    """
    roles = roles_for("brats", path, "scheme", "resample_to", "skip_incomplete", "fill_missing", *PERSONS)
    skips = skip_incomplete or roles.skip_incomplete
    fills = roles.fill_missing and not skips
    files = list(nifti_files(path))
    cases, lacking = _list_cases(files, skip_incomplete=skips, fill=fills)
    cases = with_persons(cases, roles, path)
    unread = {*files} - {*_in_groups(files)}
    beside = note_unread(unread)
    if not any(_split(case.files)[1] for case in cases):
        beside = (*beside, *note_unread_masks(unread))
    if not masks:
        cases = tuple(replace(case, files=tuple(_split(case.files)[0].values())) for case in cases)
    table, several = find_table(path, cases, _TABLES)
    if table is None and not several:
        table, several = find_table(path, cases, _OF_VALIDATION)
    scheme = roles.scheme
    labels = dict(SCHEMES[scheme].labels) if scheme else labels_in(cases, path)
    reader: Callable[..., Case] = partial(read, labels=tuple(labels), resample_to=roles.resample_to)
    declares = scheme or fills or roles.resample_to or roles.declares_persons
    inputs = tuple(declared_in(path) if declares else ())
    layout = " and ".join(sorted({_set_of(case.id) for case in cases}))
    doubts = _compare_scheme(scheme, cases, path) if scheme else ()
    notes = (*(note_filled if fills else note_left_out)(lacking), *beside, *doubts, *several)
    reader = filled(reader, CHANNELS) if fills else reader
    cohort = Cohort("brats", path, cases, labels, reader, table, inputs=inputs, layout=layout, notes=notes)
    return replace(cohort, roles=roles.of_persons)


def open_files(files: Iterable[Path]) -> tuple[CaseFiles, ...]:
    """Group NIfTI files into cases by their names; see `open`."""
    cases, _ = _list_cases(files, skip_incomplete=False)
    return cases


def _list_cases(
    files: Iterable[Path], *, skip_incomplete: bool, fill: bool = False
) -> tuple[tuple[CaseFiles, ...], list[str]]:
    """Return the cases, and the names of those that lack a modality and are skipped, or kept with `fill`."""
    cases, lacking = [], []
    seen: dict[str, Path] = {}
    for (folder, name), members in sorted(_groups(files).items()):
        missing = [channel for channel in CHANNELS if channel not in members]
        if len(missing) == len(CHANNELS):
            continue  # a mask that another program wrote, such as `<case>_pred_seg`
        if missing:
            if not (skip_incomplete or fill):
                rule = f"case {name} has no {' and no '.join(missing)}; a BraTS case must have {', '.join(CHANNELS)}"
                raise UserError(rule, file=folder, hint=INCOMPLETE)
            lacking.append(f"{name} (no {', '.join(missing)})")
            if skip_incomplete:
                continue
        if name in seen:
            shown, hint = f"{seen[name]} and {folder}", "give the folder above one of them, or remove one"
            raise UserError(f"the case {name} must be in one folder", shown, hint=hint)
        seen[name] = folder
        if twice := next((key for key, same in members.items() if len(same) > 1), None):
            rule = f"the modality {twice} of a case must be in one file"
            raise UserError(rule, f"{members[twice][0].name} too", file=members[twice][1])
        ordered = [members[key][0] for key in (*CHANNELS, "seg") if key in members]
        person, institution = person_of(name)
        person = person if is_named(name) else persons.person_of(name)
        cases.append(CaseFiles(name, person, tuple(ordered), institution))
    if not cases:
        raise UserError("a BraTS cohort must hold files such as <case>_flair.nii.gz")
    return tuple(sorted(cases, key=lambda case: case.id)), lacking


def read(case: CaseFiles, *, labels: Collection[int] | None = None, resample_to: str | None = None) -> Case:
    """Read the four modalities, (S, H, W, 4) in the order of `CHANNELS`, and the mask.

    Args:
        case: The files of the case.
        labels: Values that the mask may hold besides 0; None infers them from the name of the case.
        resample_to: Modality onto whose grid the others are resampled; None accepts only images on one grid.

    Raises:
        UserError: If a file is damaged, the grids differ, or the mask holds a label outside the scheme.
    """
    images, masks = _split(case.files)
    allowed = (labels or labels_of([case.id], case.id)) if masks else ()
    return assemble(case, images, masks, allowed, resample_to=resample_to)


def _in_groups(files: Iterable[Path]) -> Iterable[Path]:
    cases = (group for group in _groups(files).values() if group.keys() & set(CHANNELS))
    return (file for group in cases for same in group.values() for file in same)


def _split(files: Sequence[Path]) -> tuple[dict[str, Path], list[Path]]:
    """Return the images of a case by channel, and its mask if it has one, by their names, or else by their order."""
    groups = list(_groups(files).values())
    if len(groups) == 1 and sum(map(len, groups[0].values())) == len(files):
        named = {key: same[0] for key, same in groups[0].items()}
        return {key: named[key] for key in CHANNELS if key in named}, [named["seg"]] if "seg" in named else []
    return dict(zip(CHANNELS, files, strict=False)), list(files[len(CHANNELS) :])


def labels_in(cases: Sequence[CaseFiles], origin: object) -> dict[int, str]:
    """Return the labels of several cases by their names; none if no case has a mask and the names are ambiguous."""
    labeled = [case.id for case in cases if _split(case.files)[1]]
    if labeled:
        return labels_of(labeled, origin)
    fitting = schemes_of(cases[0].id)
    return dict(SCHEMES[fitting[0]].labels) if len(fitting) == 1 else {}


def _compare_scheme(scheme: str, cases: Sequence[CaseFiles], path: Path) -> tuple[str, ...]:
    """Return a sentence if the names of all cases imply other tissues than the declared scheme.

    Raises:
        UserError: If the names of some cases do, and those of others do not: no scheme is right for all of them.
    """
    implied = {schemes_of(case.id) for case in cases if is_named(case.id) and _split(case.files)[1]}
    others = {names for names in implied if all(differ(scheme, name) for name in names)}
    shown = "; ".join(sorted(" or ".join(names) for names in others))
    if others and others != implied:
        rule = f"the scheme {scheme} must fit the names of all cases"
        hint = f"{APART}; if all masks were renumbered, write `labels: {{1: ..., 2: ...}}` in place of the scheme"
        raise UserError(rule, f"names of {shown} too", hint=hint, file=path)
    return (
        (f"the labels are taken for those of {scheme}, and the names of cases are those of {shown}",) if others else ()
    )


def labels_of(case_ids: Iterable[str], origin: object) -> dict[int, str]:
    """Return the labels that the names of cases imply.

    Raises:
        UserError: If they imply several schemes in which one number means different tissues.
    """
    fitting = {schemes_of(case_id) for case_id in case_ids}
    if fitting == {("brats-2023",), ("brats-2024-gli",)}:  # before and after treatment: 1 to 3 are the same tissues
        fitting = {("brats-2024-gli",)}
    if len(fitting) > 1:
        rule = "the cases must be of one generation of BraTS, since the labels differ"
        shown = "; ".join(sorted(" or ".join(names) for names in fitting))
        raise UserError(rule, shown, hint=APART, file=Path(str(origin)))
    return dict(one_scheme(fitting.pop(), origin).labels)


def person_of(case_id: str) -> tuple[str, str | None]:
    """Return the person of a case of BraTS, and the institution if the name contains it."""
    match = _FROM_2023.match(case_id) or _WITH_CENTER.match(case_id) or _WITH_FOLLOW_UP.match(case_id)
    parts = match.groupdict() if match else {}
    return parts.get("patient", case_id), parts.get("institution")


def _set_of(case_id: str) -> str:
    """Return the data set that the name of a case belongs to."""
    if modern := re.match(r"BraTS-[A-Z]+", case_id, re.IGNORECASE):
        return f"{modern[0]}{', after treatment' if schemes_of(case_id) == ('brats-2024-gli',) else ''}"
    old = re.match(r"(?:BraTS2021|BraTS20|Brats1[789]|UCSF-PDGM)(?=[_-])", case_id, re.IGNORECASE)
    return old[0] if old else "names of BraTS to 2021"


def schemes_of(case_id: str) -> tuple[str, ...]:
    """Return the label schemes that the name of a case fits."""
    return next((names for pattern, names in _SCHEMES if pattern.match(case_id)), _OLD)


def is_named(name: str) -> bool:
    """Return whether a name is that of a BraTS or UCSF-PDGM case, for `schemes_of`."""
    return bool(_NAMED.match(name)) or schemes_of(name) != _OLD


def is_case(files: Sequence[Path]) -> bool:
    """Return whether the files are the modalities of BraTS cases, by their names."""
    return any(set(CHANNELS) <= members.keys() for members in _groups(files).values())


def _groups(files: Iterable[Path]) -> dict[tuple[Path, str], dict[str, list[Path]]]:
    """Return the files of each case, by folder and case name, keyed by channel or `seg`, one of each when complete."""
    groups: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    strays = []
    for file in files:
        # Copies at Kaggle have files unpacked into a folder named after them, `x_flair.nii.gz/00001_flair.nii`.
        named = file.parent if is_nifti(file.parent.name) else file
        match = _FILE.match(stem(named))
        if not match:
            strays += [file] if _STRAY_MASK.search(stem(file)) else []
            continue
        members = groups.setdefault((named.parent, match["case"]), {})
        members.setdefault(_ENDINGS[match["ending"].lower()], []).append(file)
    owners: dict[Path, list[dict[str, list[Path]]]] = {}
    for (folder, _), members in groups.items():
        owners.setdefault(folder, []).append(members)
    for file in strays:
        if len(beside := owners.get(file.parent, [])) == 1:
            beside[0].setdefault("seg", [file])
    return groups
