"""Links to folders, of which data sets on clusters are often built: those to follow, and those that never end."""

import os
from collections.abc import Iterator
from pathlib import Path

from glioflow.data.formats.junk import is_junk
from glioflow.errors import UserError


def walk(
    path: Path, root: Path | None = None, *, refused: list[Path] | None = None, closed: list[Path] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder as `os.walk` does, and also the links to folders that `is_followed` accepts, each folder once.

    Args:
        path: The folder.
        root: The cohort's folder, if `path` is below it.
        refused: Where links that are not followed are added.
        closed: Where folders that cannot be read are added.

    Raises:
        UserError: If a folder cannot be read, and `closed` is not given: its cases would be missing in silence.
    """

    def note(error: OSError) -> None:
        if isinstance(error, NotADirectoryError | FileNotFoundError):
            return  # a file, or nothing: there is no folder to list
        if closed is None:
            raise unreadable(error)
        closed.append(Path(error.filename))

    known = set[str]()
    for folder, folders, names in os.walk(path, onerror=note, followlinks=True):
        for name in sorted(folders):
            link = Path(folder) / name
            if is_junk(name) or not link.is_symlink():
                continue
            target = os.path.realpath(link)
            if target in known or not is_followed(link, root or path):
                folders.remove(name)
                if refused is not None:
                    refused.append(link)
            known.add(target)
        yield folder, folders, names


def is_followed(folder: Path, root: Path) -> bool:
    """Return whether a folder below `root` is listed: each but a link to a folder around it or listed without it.

    The folders around it are those on its path, with their links resolved. Hidden folders, where tools for versions of
    data keep files, are listed through links alone.
    """
    if not folder.is_symlink():
        return True
    target = Path(os.path.realpath(folder))
    for around in (Path(os.path.realpath(root / each)) for each in folder.relative_to(root).parents):
        inside = target.relative_to(around).parts if target.is_relative_to(around) else None
        if around.is_relative_to(target) or (inside is not None and not any(map(is_junk, inside))):
            return False
    return True


def is_broken(path: Path) -> bool:
    """Return whether a path is a link to nothing, such as to a disk that is not mounted."""
    return path.is_symlink() and not os.path.exists(path)


def unreadable(error: OSError) -> UserError:
    """Return the error for a folder that cannot be read."""
    hint = "ask for the permission to read it, or give a folder without it"
    return UserError("the folders of a cohort must be readable", error.strerror, hint=hint, file=Path(error.filename))
