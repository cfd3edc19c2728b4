"""From a request's bytes to files in a folder of its own: harmless names, limited sizes, zips unpacked with care."""

import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from glioflow.data.case import Case
from glioflow.data.dicom import is_dicom
from glioflow.data.study import read_study
from glioflow.errors import UserError
from glioflow.serving.settings import Limits

_BLOCK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may ask for gigabytes of working memory
_ENTRY_BYTES = 1024  # of a zip's directory, for each file: far more than name and attributes take


class TooLarge(UserError):  # noqa: N818 - what it is
    """More than the endpoint's limits allow."""


def save_uploads(uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> list[Path]:
    """Write uploaded files into `folder`, a zip as its contents.

    Args:
        uploads: File name and open file of each.
        folder: Empty, and thrown away afterwards.
        limits: Of the endpoint.

    Returns:
        The files, by name.

    Raises:
        TooLarge: If a limit is passed.
        UserError: If there is no file, a zip is damaged, or two files have one name and are not DICOM.
    """
    if not uploads:
        raise UserError("a request has at least one file in its field 'files'", "none")
    written: list[Path] = []
    left, unpacked_left = limits.upload_bytes, limits.unpacked_bytes
    for name, file in uploads:
        if name.lower().endswith(".zip"):
            left -= file.seek(0, 2)
            if left < 0:
                raise TooLarge(f"the files of a study have at most {limits.upload_bytes} bytes together", "more")
            found = _unpack(file, folder, limits, unpacked_left)
            unpacked_left -= sum(path.stat().st_size for path in found)
            written += found
        else:
            path = _store(file, folder, PurePosixPath(name.replace("\\", "/")).name, left)
            left -= path.stat().st_size
            written.append(path)
        if len(written) > limits.files:
            raise TooLarge(f"a study has at most {limits.files} files", len(written))
    return written


def read_uploads(uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> Case:
    """Write uploads into `folder` and read them as one study.

    Raises:
        TooLarge: If a limit is passed.
        UserError: If they are no readable study.
    """
    try:
        return read_study(save_uploads(uploads, folder, limits))
    except UserError as error:
        # Where the files lie on the server is nobody's business.
        def hide(text: str) -> str:
            return text.replace(f"{folder}/", "").replace(str(folder), "the study")

        value = None if error.value is None else hide(error.value)
        choices = None if error.choices is None else [hide(choice) for choice in error.choices]
        raise type(error)(hide(error.rule), value, choices) from None


def _unpack(file: BinaryIO, folder: Path, limits: Limits, left: int) -> list[Path]:
    _check_directory(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if _wanted(entry)]
            if len(entries) > limits.files:
                raise TooLarge(f"a study has at most {limits.files} files", len(entries))
            if sum(entry.file_size for entry in entries) > left:
                raise TooLarge(f"the zips of a study unpack to at most {limits.unpacked_bytes} bytes together", "more")
            written = []
            for entry in entries:
                if entry.compress_type not in _METHODS:
                    raise UserError("the files of a .zip are stored or deflated", f"method {entry.compress_type}")
                with archive.open(entry) as source:
                    path = _store(source, folder, PurePosixPath(entry.filename).name, left)
                left -= path.stat().st_size
                written.append(path)
            return written
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError("a .zip file is a readable, unencrypted archive", str(error)[:100]) from None


def _check_directory(file: BinaryIO, limits: Limits) -> None:
    """Refuse a zip whose directory alone, which zipfile reads whole, would take more memory than a study's."""
    end = file.seek(0, 2)
    file.seek(max(0, end - (1 << 16) - 22))
    tail = file.read()
    if b"PK\x06\x07" in tail:
        raise TooLarge("a .zip is below 4 GiB", "a zip64 archive")
    # Whichever of these marks zipfile takes for the true one.
    sizes = (int.from_bytes(tail[m.start() + 12 : m.start() + 16], "little") for m in re.finditer(b"PK\x05\x06", tail))
    if max(sizes, default=0) > (limits.files + 1) * _ENTRY_BYTES:
        raise TooLarge(f"a study has at most {limits.files} files", "more")


def _wanted(entry: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(entry.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return not entry.is_dir() and not hidden and name.suffix.lower() != ".csv"


def _store(source: IO[bytes], folder: Path, name: str, left: int) -> Path:
    """Write a file under a harmless name; DICOM files may share theirs, as those of two series do."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")[-120:]
    if not safe:
        raise UserError("a file has a name", repr(name))
    path, number = folder / safe, len(os.listdir(folder))
    while path.exists():
        path, number = folder / f"{number}_{safe}", number + 1
    _copy(source, path, left)
    if path.name != safe and not is_dicom(path):
        raise UserError("the files of a study that are not DICOM have different names", safe)
    return path


def _copy(source: IO[bytes], path: Path, left: int) -> None:
    written = 0
    with path.open("wb") as out:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > left:
                raise TooLarge(
                    "an upload stays below the endpoint's limit of bytes", f"more than {left} left for {path.name}"
                )
            out.write(block)
