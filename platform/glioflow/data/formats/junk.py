"""Files in the folder of a cohort that are not part of it: leftovers of other programs, and archives."""

import os
from collections.abc import Iterable
from pathlib import Path

_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_PACKED = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")


def is_junk(name: str) -> bool:
    """Return whether a file or folder does not belong to a cohort, by its name, such as the hidden `._a.nii`."""
    return name.startswith(".") or name.lower() in _NAMES


def find_junk(path: Path) -> Iterable[str]:
    """Yield the leftovers below `path`, relative to it, without the contents of such folders."""
    for folder, folders, names in os.walk(path):
        for name in sorted((*folders, *names)):
            if is_junk(name):
                yield (Path(folder) / name).relative_to(path).as_posix()
        folders[:] = sorted(name for name in folders if not is_junk(name))


def is_packed(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.lower().endswith(_PACKED)


def packed_files(path: Path) -> list[str]:
    """Return the archives below `path`, relative to it."""
    return [
        (Path(folder) / name).relative_to(path).as_posix()
        for folder, _, names in os.walk(path)
        for name in sorted(names)
        if is_packed(name) and not is_junk(name)
    ]
