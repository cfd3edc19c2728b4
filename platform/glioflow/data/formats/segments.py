"""Named segments of 3D Slicer's masks (`.seg.nrrd`) and of DICOM, which other programs number file by file."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from glioflow.data.formats.itk import segment_names
from glioflow.data.formats.volume_names import is_slicers
from glioflow.errors import UserError
from glioflow.quantities import count

# Name of each segment of a file, by its number.
Segments = Mapping[int, str]
_ALIKE = "export all masks from Slicer with one color table, so that their numbers agree, or rename the segments"


def segments_of_slicer(files: Iterable[Path]) -> dict[Path, Segments]:
    """Return the segments of each of the files that is a mask of Slicer."""
    return {file: segment_names(file) for file in files if is_slicers(file.name)}


def compare_numbers(segments: Mapping[Path, Segments]) -> tuple[str, ...]:
    """Compare the masks of a cohort, whose readers take their numbers; return a note if a number has several names.

    Raises:
        UserError: If a segment has one number in some masks and another in others.
    """
    known: dict[str, tuple[set[int], Path]] = {}
    for file, named in segments.items():
        numbers: dict[str, set[int]] = {}
        for number, name in named.items():
            numbers.setdefault(name.casefold(), set()).add(number)
        for name, here in numbers.items():
            there, first = known.setdefault(name, (here, file))
            if not here & there:
                value = f"{_shown(segments[first], first)}, and {_shown(named, file)}"
                raise UserError(f"the segment {name} must have one number in all masks", value, file=file, hint=_ALIKE)
    return note_names(segments)


def note_names(segments: Mapping[Path, Segments]) -> tuple[str, ...]:
    """Return the sentence that lists the names of each number that has several, if there are any."""
    names: dict[int, Counter[str]] = {}
    for named in segments.values():
        for number, name in named.items():
            names.setdefault(number, Counter())[name.casefold()] += 1
    several = [
        f"{number} is " + ", ".join(f"{name} ({count(times, 'mask')})" for name, times in found.most_common())
        for number, found in sorted(names.items())
        if len(found) > 1
    ]
    return (f"segments with several names, read as one label: {'; '.join(several)}",) if several else ()


def numbered_labels(segments: Mapping[Path, Segments]) -> dict[int, str]:
    """Return the segments of all files by number; if all have only the first segment or none, it is the tumor.

    Raises:
        UserError: If a number means different segments in different files.
    """
    named: dict[int, tuple[str, Path]] = {}
    differing: UserError | None = None
    for file, names in segments.items():
        for number, name in names.items():
            known, where = named.setdefault(number, (name, file))
            if known.casefold() != name.casefold():
                rule = f"segment {number} must mean the same in all segmentations"
                differing = UserError(rule, f"{name!r}, and {known!r} in {where.name}", file=file)
    if differing is not None and named.keys() != {1}:
        raise differing
    return {number: name for number, (name, _) in sorted(named.items())} if len(named) > 1 else {1: "tumor"}


def _shown(named: Segments, file: Path) -> str:
    """Return the segments of a file with its folder, since Slicer gives all masks one name."""
    return (
        f"{', '.join(f'{number} {name}' for number, name in sorted(named.items()))} in {file.parent.name}/{file.name}"
    )
