"""Temporary folders for people's files: a process has one place, which the next one removes if it was killed."""

import contextlib
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path


def study_folder(prefix: str = "study-") -> "tempfile.TemporaryDirectory[str]":
    """Return a new folder for the files of one study, which only this user can read and which goes with its block."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=_process_folder(tempfile.gettempdir(), os.getpid()))


def clean_up() -> None:
    """Remove what processes of this user left behind that are no more."""
    for folder in _common(Path(tempfile.gettempdir())).glob("*-*"):
        if folder.name != _name_of(int(folder.name.partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=4)
def _process_folder(place: str, pid: int) -> Path:
    with contextlib.suppress(OSError, ValueError):
        clean_up()
    folder = _common(Path(place)) / _name_of(pid)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _common(place: Path) -> Path:
    folder = place / f"glioflow-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def _name_of(pid: int) -> str:
    """Return a process's name for its folder; a later process of the same number has another."""
    import psutil

    try:
        return f"{pid}-{int(psutil.Process(pid).create_time() * 100)}"
    except psutil.NoSuchProcess:
        return ""
