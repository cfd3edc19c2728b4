"""Test patients who are in another cohort, also under another name: found by tables of names, and by their images."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.audit.leaks import Leak, find_shared_patients, is_person
from glioflow.data.formats import brats
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCohort, is_prepared
from glioflow.data.prepared.prints import Hashes, hash_slices, mirror
from glioflow.data.sequences import sequence_of
from glioflow.data.splits import Split, Splittable

# Correlation of two slices from which on they count as one, and how many slices of a case must have a twin. No two of
# 65 LGG patients have one slice above 0.91. Of 13 of them, padded copies kept 84 % of their slices and more above 0.95,
# those of half the size 64 % and more, and those saved as JPEG 86 % and more (FLAIR, kaggle_3m, 2026-11-27).
MIN_LIKENESS, MIN_SLICES = 0.95, 3
# Sequences by which two cohorts are compared, the first that both have.
_COMPARED = ("flair", "post", "t2", "pre")
# How far from the background, as a part of the range, a pixel counts as head, and which part of a row or column
# must: noise in the air is not a part of the head.
_HEAD, _FILLED = 0.1, 0.04

Pictures = tuple[str, NDArray[np.generic], Sequence[str]]  # a case's name, its image (S, H, W, C) and its channels


def find_in_other_cohorts(
    split: Split, cohort: PreparedCohort, seen: Sequence[Path], aliases: Mapping[str, str]
) -> list[Leak]:
    """Return every test patient who is in another cohort, by name or by image.

    Args:
        split: The split to check.
        cohort: Its cohort.
        seen: Folders of the other cohorts, raw or prepared.
        aliases: Other names of patients, see `read_aliases`.

    Raises:
        UserError: If one of them cannot be read.
    """
    if not seen:
        return []
    entries, leaks = cohort.entries(), list[Leak]()
    known = {entry.id for entry in entries}
    tested = cohort.cases([case for case in split.test if case in known])
    ours = [(case.record.id, np.asarray(case.image), cohort.channels) for case in tested]
    for path in seen:
        leaks += find_shared_patients(split, entries, cases_of(path), name=path.name, aliases=aliases)
        leaks += find_shared_images(ours, _pictures_of(path), name=path.name)
    return leaks


def find_shared_images(ours: Sequence[Pictures], others: Iterable[Pictures], *, name: str) -> list[Leak]:
    """Return every case that has several slices in common with a case of another cohort, mirrored ones too.

    Slices are compared on a common grid: one sequence, cut to the head and shrunk to 32 x 32, without their coarse
    structure. So other scalings, paddings and gains do not hide a copy. Images that were registered to another template
    or changed in a way that is not linear are not found.

    Args:
        ours: The cases that are tested.
        others: Cases of a cohort that something was learned from; they are read one at a time.
        name: Name of the other cohort.
    """
    known: dict[str, list[tuple[str, Hashes]]] = {}
    for each in _COMPARED:
        hashed = ((case, _hashes(image, channels, each)) for case, image, channels in ours)
        known[each] = [(case, hashes) for case, hashes in hashed if len(hashes)]
    leaks = []
    for other, image, channels in others:
        there = {sequence_of(channel) for channel in channels}
        sequence = next((each for each in _COMPARED if each in there and known[each]), None)
        hashes = _hashes(image, channels, sequence or "")
        for case, mine in known.get(sequence or "", ()) if len(hashes) else ():
            alike = np.maximum(mine @ hashes.T, mine @ mirror(hashes).T).max(axis=1)
            if (count := int((alike >= MIN_LIKENESS).sum())) >= MIN_SLICES:
                value = f"{case} is {other} of {name}: {count} slices, likeness {alike.max():.3f}"
                leaks.append(Leak(rule="a test patient's image is in another cohort", value=value))
    return leaks


def _hashes(image: NDArray[np.generic], channels: Sequence[str], sequence: str) -> Hashes:
    """Return the hashes of the slices of one sequence, cut to the head; none where it is missing."""
    indices = [k for k, channel in enumerate(channels) if sequence_of(channel) == sequence]
    if not indices:
        return np.zeros((0, 1), np.float32)
    volume = np.asarray(image[..., indices[0]], np.float32)
    background = float(np.median(volume[:, [0, 0, -1, -1], [0, -1, 0, -1]]))
    distance = np.abs(volume - background)
    head = distance > _HEAD * float(np.percentile(distance, 99))
    planes = []
    for plane, inside in zip(volume, head, strict=True):
        rows, columns = (np.flatnonzero(inside.mean(axis=axis) > _FILLED) for axis in (1, 0))
        if len(rows) > 8 and len(columns) > 8:
            planes.append(plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, None])
    return np.concatenate([hash_slices(plane[None])[0] for plane in planes]) if planes else np.zeros((0, 1), np.float32)


def cases_of(path: Path) -> Sequence[Splittable]:
    """Return the cases of a cohort, raw or prepared; raises `UserError` if there is none."""
    return PreparedCohort(path).entries() if is_prepared(path) else open_cohort(path).cases  # type: ignore[return-value]


def _pictures_of(path: Path) -> Iterator[tuple[str, NDArray[np.generic], Sequence[str]]]:
    """Yield the name, image and channels of each case of a cohort, one at a time."""
    if is_prepared(path):
        prepared = PreparedCohort(path)
        for case in prepared.cases([entry.id for entry in prepared.entries()]):
            yield case.record.id, np.asarray(case.image), prepared.channels
        return
    cohort = open_cohort(path)
    for files in cohort.cases:
        read = cohort.read_files(files)
        yield read.id, read.image, read.channels


def read_aliases(folders: Sequence[Path]) -> dict[str, str]:
    """Return one name for each of BraTS's, from the tables that BraTS lays beside its cases.

    These are `name_mapping*.csv` and `BraTS21-17_Mapping.csv`: in a row are the names of one person in several years,
    and in other sets, such as TCGA's. Patients of 2018 have their case's name without its last number.
    """
    aliases: dict[str, str] = {}
    tables = {file for folder in folders for file in folder.glob("*.csv") if "mapping" in file.name.lower()}
    for file in sorted(tables):
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as rows:
            for row in csv.DictReader(rows):
                values = [value.strip() for value in row.values() if isinstance(value, str) and value.strip()]
                names = [value for value in values if value.upper().startswith("BRATS")]
                # Another table may know the same person under another name.
                before = {aliases[each] for each in names if each in aliases}
                persons = [value for value in (*values, *sorted(before)) if is_person(value)]
                if not persons and len(names) < 2:
                    continue
                person = (persons or names)[0]
                if before - {person}:
                    aliases = {each: person if value in before else value for each, value in aliases.items()}
                aliases |= {each: person for name in names for each in (name, brats.person_of(name)[0])}
    return aliases
