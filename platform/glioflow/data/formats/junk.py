"""What operating systems, archives and notebooks leave among the files of a cohort, and which never is a part of it."""

import os
from collections.abc import Iterable
from pathlib import Path

_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_junk(name: str) -> bool:
    """Return whether a file or folder is none of a cohort's, by its name; hidden ones, such as `._a.nii`, are not."""
    return name.startswith(".") or name.lower() in _NAMES


def find_junk(path: Path) -> Iterable[str]:
    """Yield the names of what lies around below `path`, relative to it; what is inside such a folder is not listed."""
    for folder, folders, names in os.walk(path):
        for name in sorted((*folders, *names)):
            if is_junk(name):
                yield (Path(folder) / name).relative_to(path).as_posix()
        folders[:] = sorted(name for name in folders if not is_junk(name))
