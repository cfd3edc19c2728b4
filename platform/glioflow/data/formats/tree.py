"""The files below a cohort's folder, in a fixed order: whose folder it is not is noticed before all of it is walked."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from glioflow.data.formats.junk import is_junk
from glioflow.errors import TooLarge

# How many files and folders are looked at to recognize a format.
MOST_LOOKED_AT = 20_000
# How many others may lie among the files of a cohort: in a home or a whole disk there are more.
MOST_OTHERS = 200_000
_HINT = "give the folder of the cohort itself"


def files_below(path: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the files below `path` that are wanted, without hidden ones; links to folders are not followed.

    Raises:
        TooLarge: If more than `MOST_OTHERS` other files and folders lie among them.
    """
    others = 0
    for each, is_folder in _walk(path):
        if not is_folder and wanted(each):
            yield each
            continue
        others += 1
        if others > MOST_OTHERS:
            rule = f"a cohort's folder must hold at most {MOST_OTHERS} other files and folders"
            raise TooLarge(rule, f"more in {path}, up to {each}", hint=_HINT)


def first_files(path: Path) -> tuple[list[Path], Path | None]:
    """Return the files below `path` by which its format is recognized, and the last one where there are more."""
    found = list(itertools.islice(_walk(path), MOST_LOOKED_AT + 1))
    last = found[MOST_LOOKED_AT - 1][0] if len(found) > MOST_LOOKED_AT else None
    return [each for each, is_folder in found[:MOST_LOOKED_AT] if not is_folder], last


def too_many(path: Path, last: Path) -> TooLarge:
    """Return the error for a folder in which nothing of a cohort was found as far as it was looked at."""
    rule = f"a cohort's files must be among the first {MOST_LOOKED_AT} files and folders in {path}"
    return TooLarge(rule, f"none of a known format, up to {last}", hint=_HINT)


def _walk(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield what lies below `path`, and whether it is a folder."""
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        yield from ((Path(folder) / name, True) for name in folders)
        yield from ((Path(folder) / name, False) for name in sorted(names) if not is_junk(name))
