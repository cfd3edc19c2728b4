"""Files in the folder of a cohort that are not part of it: leftovers of other programs, and archives."""

from collections.abc import Iterable
from pathlib import Path

_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_MOST_NAMED = 4
_PACKED = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")


def is_junk(name: str) -> bool:
    """Return whether a file or folder does not belong to a cohort, by its name, such as the hidden `._a.nii`."""
    return name.startswith(".") or name.lower() in _NAMES


def is_packed(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.lower().endswith(_PACKED)


def note_unread(files: Iterable[Path], read: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the sentence that counts the volumes that no case has, if there are any, with a few of their names."""
    known = {*read}
    unread = sorted(file.name for file in files if file not in known)
    if not unread:
        return ()
    more = f" and {len(unread) - _MOST_NAMED} more" if len(unread) > _MOST_NAMED else ""
    return (f"volumes that are not read, since no case has them: {', '.join(unread[:_MOST_NAMED])}{more}",)
