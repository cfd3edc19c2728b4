"""Atomic writes: a file or folder under its name is always complete."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glioflow.errors import DiskFull, UserError, is_disk_full, nearest_existing

_LITTLE_BYTES = 2**16


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Create a folder if it does not exist, and raise `DiskFull` with its name if a block finds no space in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except DiskFull:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DiskFull(folder) from error


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that is not writable, before computing anything for it.

    Args:
        folder: The folder, which need not exist.
        name: Its name for the user, such as `--out`.

    Raises:
        UserError: If it, or a folder above it, is a file, a broken link or not writable.
    """
    path = folder.absolute()
    there = nearest_existing(path)
    missing = [each for each in (path, *path.parents) if there in each.parents]
    if links := [each for each in missing if os.path.islink(each)]:
        raise UserError(f"{name} must name a folder, not a broken link", links[0], hint="give another path")
    if any(len(os.fsencode(each.name)) > os.pathconf(there, "PC_NAME_MAX") for each in missing):
        raise UserError(f"{name} has a name that is too long for this disk", folder, hint="give another path")
    if not there.is_dir():
        raise UserError(f"{name} must name a folder, not a file", there, hint="give another path")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        if is_disk_full(error):
            return
        raise UserError(f"{name} cannot be written to ({error.strerror})", there, hint="give another path") from None


def check_new_folder(folder: Path, name: str) -> None:
    """Refuse a folder that is to be made, before anything is computed for it, unless it is new or empty.

    Raises:
        UserError: As `check_folder`, of it and of the folder above it, or if something lies in it.
    """
    check_folder(folder, name)
    check_folder(folder.absolute().parent, name)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not a new or empty folder", folder, hint="choose another folder")


def has_space(folder: Path) -> bool:
    """Return whether a little more can be written on the disk that holds `folder`, an absolute path."""
    try:
        with tempfile.TemporaryFile(dir=nearest_existing(folder)) as file:
            file.write(bytes(_LITTLE_BYTES))
    except OSError as error:
        return not is_disk_full(error)
    return True


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` (creating its folder), replacing an existing file atomically.

    Args:
        path: The file.
        data: All of it.
        mode: Permissions of the file.

    Raises:
        DiskFull: If there is no space for it.
    """
    with writing_into(path.parent):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN is refused, since JSON has no such number."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a working folder beside `path` that becomes `path` if the block succeeds, and is removed if it fails.

    If `path` exists by then (another process was faster), it is kept and the working folder is removed.

    Raises:
        DiskFull: If the block finds no space.
    """
    with writing_into(path.parent):
        working = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield working
            os.chmod(working, 0o755)
            try:
                os.rename(working, path)
            except OSError:
                if not path.is_dir():
                    raise
        finally:
            shutil.rmtree(working, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`."""
    return json.loads(path.read_text())
