"""Public data sets with names that no other format accepts, read by the table `layouts`."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from glioflow.data.case import Case
from glioflow.data.formats import brats
from glioflow.data.formats.file_roles import INCOMPLETE, declared_in, note_left_out, note_unread_masks, roles_for
from glioflow.data.formats.junk import note_unread
from glioflow.data.formats.layouts import LAYOUTS, Layout
from glioflow.data.formats.missing import filled, note_filled
from glioflow.data.formats.nifti import assemble
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.tree import files_below
from glioflow.data.formats.volume_names import is_volume
from glioflow.errors import UserError, unknown_name
from glioflow.label_schemes import SCHEMES
from glioflow.quantities import count

ANY = "any"
_KEYS = ("scheme", "labels", "mask_source", "resample_to", "skip_incomplete", "fill_missing")


def detect(path: Path, files: Sequence[Path] = ()) -> bool:
    """Return whether an image of a known data set is among the files, by its name."""
    return layout_of(files) is not None


def layout_of(files: Iterable[Path]) -> Layout | None:
    """Return the first layout in the table that matches an image among the files; None if none does."""
    named = [_name(file) for file in files]
    return next((layout for layout in LAYOUTS if any(_what(layout, name) in layout.channels for name in named)), None)


def person_of(file: Path) -> str | None:
    """Return the person of an image of a known data set, by its path; None for any other image."""
    name = _name(file)
    match = next((each.file.search(name) for each in LAYOUTS if _what(each, name) in each.channels), None)
    return _case_and_person(match.groupdict())[1] if match else None


def _case_and_person(parts: Mapping[str, str | None]) -> tuple[str, str]:
    """Return the case and the person that the groups of a path mean; see `layouts.Layout`."""
    case = parts.get("case") or f"{parts.get('person') or parts.get('grade')}_{parts.get('visit')}"
    return case, parts.get("person") or case


def open(path: Path, *, skip_incomplete: bool = False, masks: bool = True) -> Cohort:
    """List the cases of a data set, all visits of a person as one patient.

    Raises:
        UserError: If a case lacks a sequence or has one twice, or the user must choose the masks or labels.
    """
    files = list(files_below(path, lambda file: is_volume(file.name)))
    layout = layout_of(files)
    roles = roles_for("published", path, *_KEYS)
    if layout is None:
        raise UserError("the folder must hold a known data set", [each.key for each in LAYOUTS], file=path)
    unread = [file for file in files if _what(layout, _name(file)) not in (*layout.channels, *layout.masks)]
    _check_alone(layout, unread, path)
    kind = roles.mask_source or next(iter(layout.masks.values()), ANY)
    if kind not in (*layout.masks.values(), ANY):
        raise unknown_name("mask_source", kind, [*layout.masks.values(), ANY])
    skips = skip_incomplete or roles.skip_incomplete
    fills = roles.fill_missing and not skips
    lacking: list[str] | None = [] if skips or fills else None
    cases, sources, others = _group(files, layout, kind if masks else None, lacking, fill=fills)
    if masks and others and not sources:
        rule = f"no case has masks of the kind {kind}, and others are only used if cohort.yaml says so"
        found = ", ".join(f"{name} ({count(number, 'case')})" for name, number in sorted(others.items()))
        hint = f"write `mask_source: {min(others)}` into a file cohort.yaml beside the cases"
        raise UserError(rule, found, hint=hint, file=path)
    scheme = roles.scheme or layout.scheme
    labels = roles.labels or (dict(SCHEMES[scheme].labels) if scheme else {})
    if sources and not labels:
        rule = f"cohort.yaml must say what the labels of {layout.key} mean, since its sources disagree or do not say"
        hint = "write `labels: {1: ..., 2: ...}` or `scheme: NAME` into a file cohort.yaml beside the cases"
        raise UserError(rule, hint=hint, file=path)
    notes = [
        *(_note_masks(sources, others, len(cases)) if masks else ()),
        *(note_filled if fills else note_left_out)(lacking or []),
        *note_unread(unread),
        *(() if sources or others else note_unread_masks(unread)),
    ]
    inputs = tuple(declared_in(path))
    reader: Callable[..., Case] = partial(read, layout=layout.key, labels=tuple(labels), resample_to=roles.resample_to)
    reader = filled(reader, [*layout.channels.values()]) if fills else reader
    return Cohort("published", path, cases, labels, reader, inputs=inputs, layout=layout.key, notes=tuple(notes))


def _check_alone(layout: Layout, others: Sequence[Path], path: Path) -> None:
    """Refuse a folder in which other files are of another data set; raises `UserError`."""
    beside = layout_of(others)
    is_other = beside is not None and beside.key.partition(",")[0] != layout.key.partition(",")[0]
    if is_other or brats.detect(path, others):
        name = beside.key if beside is not None and is_other else "BraTS"
        raise UserError("a cohort must hold one data set", f"{layout.key} and {name}", hint=brats.APART, file=path)


def open_files(files: Sequence[Path], *, masks: bool = True) -> tuple[CaseFiles, ...]:
    """Group the files of a known data set into cases; see `open`."""
    layout = layout_of(files)
    return () if layout is None else _group(files, layout, next(iter(layout.masks.values()), ANY) if masks else None)[0]


def read(
    case: CaseFiles, *, layout: str = "", labels: Sequence[int] | None = None, resample_to: str | None = None
) -> Case:
    """Read the sequences of a case, (S, H, W, C) in the order of the layout, and its mask if it has one.

    Args:
        case: The files of the case.
        layout: Key in the table; empty finds it by the names.
        labels: Values that the mask may hold besides 0; None uses those of the layout.
        resample_to: Channel onto whose grid the others are resampled; None accepts only images on one grid.

    Raises:
        UserError: If a file is damaged, the grids differ, or the mask holds another label.
    """
    known = next((each for each in LAYOUTS if each.key == layout), None) or layout_of(case.files)
    assert known is not None
    named = {_what(known, _name(file)): file for file in case.files}
    images = {known.channels[what]: file for what, file in named.items() if what in known.channels}
    masks = [file for what, file in named.items() if what in known.masks]
    allowed = labels if labels is not None else SCHEMES[known.scheme or "tumor"].labels
    return assemble(case, images, masks, allowed, resample_to=resample_to)


def _note_masks(taken: Counter[str], others: Counter[str], cases: int) -> Iterable[str]:
    """Say which masks are used and which others there are, each with its number of cases."""

    def shown(kinds: Counter[str]) -> str:
        return ", ".join(f"{name} ({count(number, 'case')})" for name, number in sorted(kinds.items())) or "none"

    more = f"; not used: {shown(others)}, which mask_source in cohort.yaml chooses" if others else ""
    if taken or others:
        yield f"masks: {shown(taken)}, of {count(cases, 'case')}{more}"


def _group(
    files: Iterable[Path], layout: Layout, kind: str | None, lacking: list[str] | None = None, *, fill: bool = False
) -> tuple[tuple[CaseFiles, ...], Counter[str], Counter[str]]:
    """Return the cases, and the number of masks of each kind, used and not; incomplete cases are added to `lacking`.

    If `kind` is None, no case has a mask. Incomplete cases are kept with `fill`, and refused if `lacking` is None.
    """
    files_of: dict[str, dict[str, Path]] = {}
    facts: dict[str, tuple[str, str, str | None]] = {}
    for file in files:
        match = layout.file.search(_name(file))
        what = match["what"].lower() if match else ""
        if match is None or what not in (*layout.channels, *layout.masks):
            continue
        parts = match.groupdict()
        case, person = _case_and_person(parts)
        key = case.lower()  # names that differ only in case are one case, spelled like its images
        if (other := files_of.setdefault(key, {}).get(what)) is not None:
            raise UserError(f"the {what} of a case must be in one file", f"{other} too", file=file)
        files_of[key][what] = file
        if what in layout.channels or key not in facts:
            facts[key] = (case, person, parts.get("institution"))
    cases, sources, others = [], Counter[str](), Counter[str]()
    for key, members in files_of.items():
        case, person, institution = facts[key]
        images = [what for what in layout.channels if what in members]
        if not images:
            continue  # a mask of a visit whose images were not downloaded
        if missing := [channel for what, channel in layout.channels.items() if what not in members]:
            if lacking is None:
                rule = f"case {case} has no {' and no '.join(missing)}"
                raise UserError(rule, file=members[images[0]].parent, hint=INCOMPLETE)
            lacking.append(f"{case} (no {', '.join(missing)})")
            if not fill:
                continue
        kinds = [what for what in layout.masks if what in members and kind in (layout.masks[what], ANY)]
        mask = next(iter(kinds), None)
        if mask is not None:
            sources[layout.masks[mask]] += 1
        others.update(layout.masks[what] for what in layout.masks if what in members and what != mask)
        taken = [members[what] for what in (*images, *([mask] if mask else []))]
        cases.append(CaseFiles(case, person, tuple(taken), institution))
    return tuple(sorted(cases, key=lambda case: case.id)), sources, others


def _name(file: Path) -> str:
    """Return the whole path, since the folder above the given one may be a person or a visit."""
    return file.absolute().as_posix()


def _what(layout: Layout, name: str) -> str:
    match = layout.file.search(name)
    return match["what"].lower() if match else ""
