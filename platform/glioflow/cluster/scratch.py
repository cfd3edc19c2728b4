"""Temporary folders for users' files: one parent per process, removed by a later one if it was killed."""

import contextlib
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from glioflow.cluster.processes import began, lives


def study_folder(prefix: str = "study-") -> "tempfile.TemporaryDirectory[str]":
    """Return a new folder for one study's files, readable only by this user and removed after the block."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=_process_folder(tempfile.gettempdir(), os.getpid()))


def clean_up() -> None:
    """Remove folders that ended processes of this user left behind."""
    for folder in _common(Path(tempfile.gettempdir())).glob("*-*"):
        pid, _, since = folder.name.partition("-")
        with contextlib.suppress(ValueError):  # another program's folder
            if not lives(int(pid), float(since)):
                shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=4)
def _own_name(parent: str, pid: int) -> str:
    """Clean up once, and return the name of this process's folder: asking the system for it takes milliseconds."""
    with contextlib.suppress(OSError):
        clean_up()
    return f"{pid}-{began(pid) or 0.0:.2f}"


def _process_folder(parent: str, pid: int) -> Path:
    """Return this process's folder; create it again if the machine cleaned up old files."""
    folder = _common(Path(parent)) / _own_name(parent, pid)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _common(parent: Path) -> Path:
    folder = parent / f"glioflow-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder
