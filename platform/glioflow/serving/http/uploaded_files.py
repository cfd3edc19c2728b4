"""Writing a request's uploads to its own folder: safe names, limited sizes, careful unpacking of zips."""

import itertools
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from glioflow.abandonment import check_wanted
from glioflow.data.formats.dicom_files import is_dicom
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.data.formats.nifti_names import check_one_owner
from glioflow.data.formats.slices import check_one_folder, is_slice
from glioflow.data.formats.volume_names import is_volume
from glioflow.data.sequences import is_channel_name
from glioflow.errors import TooLarge, UserError, is_out_of_room
from glioflow.serving.settings import Limits

_BLOCK = 1 << 20
NO_FILE = "a request must have at least one file in its field 'files'"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may need gigabytes of memory
_ENCRYPTED = 1  # of an entry's flags
_NAME_BYTES = 250  # a file system takes 255; fewer would cut names of one study at unequal places
_ENTRY_BYTES = 1024  # of a zip's directory per file: far more than name and attributes need


def save_uploads(uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> list[Path]:
    """Write uploaded files into `folder`, unpacking zips.

    Args:
        uploads: File name and open file of each.
        folder: Empty folder, deleted afterwards.
        limits: Limits of the endpoint.

    Returns:
        The files, by name.

    Raises:
        TooLarge: If a limit is exceeded.
        UserError: If there is no file, a zip is damaged, two files have one name and are not DICOM, or images are in
            folders, or zips, of several persons.
    """
    if not uploads:
        raise UserError(NO_FILE)
    written: list[Path] = []
    names: list[PurePosixPath] = []
    left, unpacked_left = limits.upload_bytes, limits.unpacked_bytes
    given = [PurePosixPath(name.replace("\\", "/")) for name, _ in uploads]
    apart = _named_by_folder(given)
    for name, (_, file) in zip(given, uploads, strict=True):
        if name.suffix.lower() == ".zip":
            left -= file.seek(0, 2)
            if left < 0:
                raise TooLarge(f"the files of a study must have at most {limits.upload_bytes} bytes together")
            unpacked = _unpack(file, folder, limits, unpacked_left)
            unpacked_left -= sum(path.stat().st_size for path in unpacked.values())
            written += unpacked.values()
            names += (name.with_suffix("") / PurePosixPath(entry.filename) for entry in unpacked)
        else:
            path = _store(file, _place(name, apart, folder), name.name, left)
            left -= path.stat().st_size
            written.append(path)
            names.append(name)
        if len(written) > limits.files:
            raise TooLarge(f"a study must have at most {limits.files} files", len(written))
    if len(uploads) > 1:
        _check_one_person(names, of_slices=not any(map(is_dicom, written)))
    return written


def _check_one_person(names: Sequence[PurePosixPath], *, of_slices: bool = False) -> None:
    """Refuse images in the folders of several persons; pictures count only if they are the images, `of_slices`."""
    images = [name for name in names if not is_mask_name(name.name)]
    check_one_owner(name for name in images if is_volume(name.name))
    if of_slices:
        check_one_folder(name.parent for name in images if is_slice(name.name))


def _unpack(file: BinaryIO, folder: Path, limits: Limits, left: int) -> dict[zipfile.ZipInfo, Path]:
    _check_directory(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if _wanted(entry)]
            if len(entries) > limits.files:
                raise TooLarge(f"a study must have at most {limits.files} files", len(entries))
            if sum(entry.file_size for entry in entries) > left:
                raise TooLarge(f"the zips of a study must unpack to at most {limits.unpacked_bytes} bytes together")
            written = {}
            names = [PurePosixPath(entry.filename) for entry in entries]
            _check_one_person(names)
            apart = _named_by_folder(names)
            for entry in _checked_pictures(archive, entries):
                if entry.flag_bits & _ENCRYPTED:
                    raise UserError("a .zip must not be encrypted", hint="pack its files again, without a password")
                if entry.compress_type not in _METHODS:
                    raise UserError("the files of a .zip must be stored or deflated", f"method {entry.compress_type}")
                name = PurePosixPath(entry.filename)
                with archive.open(entry) as source:
                    path = _store(source, _place(name, apart, folder), name.name, left)
                left -= path.stat().st_size
                written[entry] = path
            return written
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, UserError) or is_out_of_room(error):
            raise
        raise UserError("a .zip file must be a readable archive", str(error)[:100]) from None


def _checked_pictures(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Return the entries; pictures beside DICOM belong to a viewer, and of those with one name only one is returned.

    Raises:
        UserError: If the pictures are the images, and are in several folders.
    """
    pictures = {entry: PurePosixPath(entry.filename) for entry in entries if is_slice(entry.filename)}
    others = [entry for entry in entries if entry not in pictures]
    if pictures and any(_is_packed_dicom(archive, entry) for entry in others):
        return [*others, *{path.name: entry for entry, path in pictures.items()}.values()]
    _check_one_person([*pictures.values()], of_slices=True)
    return entries


def _named_by_folder(names: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    """Return the volumes that share a name and stand in the folder of a sequence, as `FLAIR/image.nii.gz` does."""
    volumes = [name for name in names if is_volume(name.name)]
    counts = Counter(name.name for name in volumes)
    return {name for name in volumes if counts[name.name] > 1 and is_channel_name(name.parent.name)}


def _place(name: PurePosixPath, apart: Collection[PurePosixPath], folder: Path) -> Path:
    """Return the folder for a file: that of its sequence for the files of one name, else the study's."""
    own = folder / name.parent.name if name in apart else folder
    own.mkdir(exist_ok=True)
    return own


def _is_packed_dicom(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        return False
    return archive.open(entry).read(132)[128:] == b"DICM"


def _check_directory(file: BinaryIO, limits: Limits) -> None:
    """Refuse a zip whose directory, which zipfile reads completely, would need more memory than a study's."""
    end = file.seek(0, 2)
    file.seek(max(0, end - (1 << 16) - 22))
    tail = file.read()
    if b"PK\x06\x07" in tail:
        raise TooLarge("a .zip must be below 4 GiB", "a zip64 archive")
    # Any of these marks may be the one that zipfile uses.
    sizes = (int.from_bytes(tail[m.start() + 12 : m.start() + 16], "little") for m in re.finditer(b"PK\x05\x06", tail))
    if max(sizes, default=0) > (limits.files + 1) * _ENTRY_BYTES:
        raise TooLarge(f"a study must have at most {limits.files} files")


def _wanted(entry: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(entry.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return not entry.is_dir() and not hidden and name.suffix.lower() != ".csv"


def _store(source: IO[bytes], folder: Path, name: str, left: int) -> Path:
    """Write a file under a safe name; DICOM files of two series may share a name."""
    safe = re.sub(r"[^\w.()-]+", "_", name)  # keep a leading dot: such files are left out
    while len(safe.encode()) > _NAME_BYTES:
        safe = safe[1:]
    if not safe.strip("."):
        raise UserError("a file must have a name", repr(name))
    path = folder / safe
    if path.exists():
        number = len(os.listdir(folder))
        path = next(each for k in itertools.count(number) if not (each := folder / f"{k}_{safe}").exists())
    _copy(source, path, left)
    if path.name != safe and not is_dicom(path) and (is_slice(safe) or is_volume(safe)):
        raise UserError("the files of a study that are not DICOM must have different names", safe)
    return path


def _copy(source: IO[bytes], path: Path, left: int) -> None:
    written = 0
    check_wanted()
    with path.open("wb") as out:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > left:
                rule = f"an upload must stay below the endpoint's limit of bytes, which leaves {left} for this file"
                raise TooLarge(rule, file=path)
            out.write(block)
