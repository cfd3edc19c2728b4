"""From a request's bytes to files in a folder of its own: harmless names, limited sizes, zips unpacked with care."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from glioflow.data.case import Case
from glioflow.data.study import read_study
from glioflow.errors import UserError
from glioflow.serving.settings import Limits

_BLOCK = 1 << 20


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
        UserError: If there is no file, a zip is damaged, or two files have one name.
    """
    if not uploads:
        raise UserError("a request has at least one file in its field 'files'", "none")
    written: list[Path] = []
    left = limits.upload_bytes
    for name, file in uploads:
        if name.lower().endswith(".zip"):
            written += _unpack(file, folder, limits)
        else:
            path = _place(folder, PurePosixPath(name.replace("\\", "/")).name)
            left -= _copy(file, path, left)
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
        hidden = [None if text is None else text.replace(f"{folder}/", "") for text in (error.rule, error.value)]
        raise type(error)(hidden[0] or "", hidden[1], error.choices) from None


def _unpack(file: BinaryIO, folder: Path, limits: Limits) -> list[Path]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if _wanted(entry)]
            if len(entries) > limits.files:
                raise TooLarge(f"a study has at most {limits.files} files", len(entries))
            if sum(entry.file_size for entry in entries) > limits.unpacked_bytes:
                raise TooLarge(f"a zip unpacks to at most {limits.unpacked_bytes} bytes", "more")
            left, written = limits.unpacked_bytes, []
            for entry in entries:
                path = _place(folder, PurePosixPath(entry.filename).name)
                with archive.open(entry) as source:
                    left -= _copy(source, path, left)
                written.append(path)
            return written
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("a .zip file is a readable, unencrypted archive", str(error)[:100]) from None


def _wanted(entry: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(entry.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return not entry.is_dir() and not hidden and name.suffix.lower() != ".csv"


def _place(folder: Path, name: str) -> Path:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")[-120:]
    if not safe:
        raise UserError("a file has a name", repr(name))
    if (folder / safe).exists():
        raise UserError("the files of a study have different names", safe)
    return folder / safe


def _copy(source: IO[bytes], path: Path, left: int) -> int:
    written = 0
    with path.open("wb") as out:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > left:
                raise TooLarge(
                    "an upload stays below the endpoint's limit of bytes", f"more than {left} left for {path.name}"
                )
            out.write(block)
    return written
