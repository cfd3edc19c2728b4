"""Listing of the files below a cohort's folder, in a fixed order; stops early in folders that are not a cohort."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from glioflow.data.formats.junk import is_junk, is_packed
from glioflow.data.formats.links import is_broken, walk
from glioflow.errors import TooLarge

# Number of files and folders examined to recognize a format.
MOST_LOOKED_AT = 20_000
# Number of shares of it; if there are fewer folders, one share for each.
_SHARES = 20
# Largest number of other files in a cohort: a whole disk has more.
MOST_OTHERS = 1_000_000
_HINT = "give the folder of the cohort itself"


def files_below(path: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield the wanted files below `path`, without hidden ones; follows links to folders as `links.walk` does.

    Raises:
        TooLarge: If there are more than `MOST_OTHERS` other files and folders.
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
    """Return the files below `path` for recognizing its format, and the last one if there are more.

    Each folder is examined up to its share, so that one with many other files, such as BIDS's `derivatives`,
    does not hide its neighbors.
    """
    looked = list(_walk(path, depth=1))
    folders = [each for each, is_folder in looked if is_folder]
    is_cut = len(looked) > MOST_LOOKED_AT
    del looked[MOST_LOOKED_AT:]
    share = (MOST_LOOKED_AT - len(looked)) // max(1, min(len(folders), _SHARES))
    for folder in folders:
        most = min(share, MOST_LOOKED_AT - len(looked))
        inside = list(itertools.islice(_walk(folder, root=path), most + 1))
        looked += inside[:most]
        is_cut |= len(inside) > most
        if is_cut and len(looked) == MOST_LOOKED_AT:
            break
    return [each for each, is_folder in looked if not is_folder], looked[-1][0] if is_cut else None


def too_many(path: Path, last: Path) -> TooLarge:
    """Return the error for a folder in which the examined part contains no cohort."""
    rule = f"a cohort's files must be among the first {MOST_LOOKED_AT} files and folders in {path}"
    return TooLarge(rule, f"none of a known format, up to {last}", hint=_HINT)


def is_whole_disk(path: Path) -> bool:
    """Return whether a folder is the root of the file system, which no walk through it ends soon."""
    there = path.resolve()
    return there == there.parent


def whole_disk(path: Path) -> TooLarge:
    """Return the error for the root of the file system."""
    return TooLarge(f"a cohort must have a folder of its own, and {path} is the root of all files", path, hint=_HINT)


def find_beside(path: Path, *, most: int = 100_000) -> Mapping[str, list[str]]:
    """Return what is not read among the first `most` files and folders below `path`, relative to it, by the reason.

    What is inside a folder that other programs made is not looked at.
    """
    junk, packed, broken, links, looked = list[Path](), list[Path](), list[Path](), list[Path](), 0
    for folder, folders, names in walk(path, refused=links, closed=[]):
        looked += len(folders) + len(names)
        if looked > most:
            break
        for each in (Path(folder) / name for name in sorted((*folders, *names))):
            if is_junk(each.name):
                junk.append(each)
            elif each.name in names and is_packed(each.name):
                packed.append(each)
            elif is_broken(each):
                broken.append(each)
        folders[:] = sorted(name for name in folders if not is_junk(name))
    found = {
        "left out, since other programs made them": junk,
        "left out, since they are packed: unpack them if they hold cases": packed,
        "left out, since they are links to folders that are read anyway, or that they are in": links,
        "links to nothing: mount or restore what they lead to": broken,
    }
    return {why: [each.relative_to(path).as_posix() for each in files] for why, files in found.items()}


def _walk(path: Path, depth: int | None = None, root: Path | None = None) -> Iterator[tuple[Path, bool]]:
    """Yield the entries below `path`, up to the given depth, and whether each is a folder."""
    for folder, folders, names in itertools.islice(walk(path, root), depth):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        yield from ((Path(folder) / name, True) for name in folders)
        yield from ((Path(folder) / name, False) for name in sorted(names) if not is_junk(name))
