"""From a request's bytes to files in a folder of its own: harmless names, limited sizes, zips unpacked with care."""

import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from glioflow.data.case import Case
from glioflow.data.formats.dicom import is_dicom
from glioflow.data.formats.file_roles import guess_role, is_mask_name
from glioflow.data.formats.itk import count_values, is_itk
from glioflow.data.formats.nifti_header import num_values, read_header
from glioflow.data.formats.nifti_names import is_nifti, is_volume
from glioflow.data.formats.png import is_png, read_png_header
from glioflow.data.formats.slices import check_one_folder, is_slice
from glioflow.data.formats.study import open_study, read_study
from glioflow.data.formats.tiff import read_layout
from glioflow.data.formats.volume_files import read_mask_of
from glioflow.data.sequences import parse_choices
from glioflow.errors import OutOfRoom, TooLarge, UserError, is_out_of_room
from glioflow.serving.settings import Limits

_BLOCK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may ask for gigabytes of working memory
_NAME_BYTES = 200
_ENTRY_BYTES = 1024  # of a zip's directory, for each file: far more than name and attributes take


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
        raise UserError("a request must have at least one file in its field 'files'")
    written: list[Path] = []
    left, unpacked_left = limits.upload_bytes, limits.unpacked_bytes
    for name, file in uploads:
        if name.lower().endswith(".zip"):
            left -= file.seek(0, 2)
            if left < 0:
                raise TooLarge(f"the files of a study must have at most {limits.upload_bytes} bytes together")
            unpacked = _unpack(file, folder, limits, unpacked_left)
            unpacked_left -= sum(path.stat().st_size for path in unpacked)
            written += unpacked
        else:
            path = _store(file, folder, PurePosixPath(name.replace("\\", "/")).name, left)
            left -= path.stat().st_size
            written.append(path)
        if len(written) > limits.files:
            raise TooLarge(f"a study must have at most {limits.files} files", len(written))
    return written


def read_uploads(
    uploads: Sequence[tuple[str, BinaryIO]],
    folder: Path,
    limits: Limits,
    *,
    with_masks: bool = False,
    channels: Iterable[str] = (),
) -> Case:
    """Write uploads into `folder` and read them as one study.

    Args:
        uploads: File name and open file of each.
        folder: Empty, and thrown away afterwards.
        limits: Of the endpoint.
        with_masks: Read the masks beside the images; otherwise they are left out, with a warning.
        channels: `NAME=SERIES` texts that say which DICOM series or NIfTI file a channel is.

    Raises:
        TooLarge: If a limit is passed; what headers state is checked before anything is decoded.
        UserError: If they are no readable study.
    """
    try:
        files, left_out = _save_images(uploads, folder, limits, with_masks=with_masks)
    except Exception as error:
        raise _told(error, folder) from None
    case = _read(files, folder, limits, channels, masks=with_masks)
    if left_out:
        case = replace(case, warnings=(*case.warnings, f"{left_out} masks among the files were not looked at"))
    return case


def _read(
    files: Sequence[Path], folder: Path, limits: Limits, channels: Iterable[str] = (), *, masks: bool = True
) -> Case:
    try:
        check_sizes(files, limits)
        case = read_study(files, channels=parse_choices(channels), masks=masks)
        if case.shape[0] > limits.slices:
            raise TooLarge(f"a study must have at most {limits.slices} slices", case.shape[0])
        if case.image.size > limits.values:
            raise TooLarge(f"a study must have at most {limits.values} values", case.image.size)
        return case
    except Exception as error:
        raise _told(error, folder) from None


def read_labeled(
    uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits, labels: Collection[int]
) -> Case:
    """Write uploads into `folder` and read them as one study with its mask, which may hold these labels.

    Raises:
        UserError: As `read_uploads`, or if the mask of volumes lies on another grid, or there are several.
    """
    try:
        files = save_uploads(uploads, folder, limits)
    except Exception as error:
        raise _told(error, folder) from None
    volumes = [file for file in files if is_volume(file.name)]
    masks = [file for file in volumes if guess_role(file, folder) == "mask"]
    if not masks:
        return _read(files, folder, limits)
    if not (images := [file for file in files if guess_role(file, folder) == "image"]):
        raise _only_masks(masks)
    case = _read(images, folder, limits)
    try:
        check_sizes(masks, limits)
        if len(masks) > 1:
            raise UserError("a corrected study must have one mask", f"{len(masks)} masks")
        return replace(case, mask=read_mask_of(case, masks[0], labels))
    except Exception as error:
        raise _told(error, folder) from None


def list_uploads(uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> str:
    """Write uploads into `folder`, and return the name that they have as one study; raises as `read_uploads`."""
    try:
        return open_study(_save_images(uploads, folder, limits)[0], masks=False).cases[0].id
    except Exception as error:
        raise _told(error, folder) from None


def _save_images(
    uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits, *, with_masks: bool = False
) -> tuple[list[Path], int]:
    """Write uploads, and return the files that are read, and how many masks are left out."""
    files = save_uploads(uploads, folder, limits)
    images = files if with_masks else [file for file in files if not is_mask_name(file.name)]
    if files and not images:
        raise _only_masks(files)
    return images, len(files) - len(images)


def _only_masks(files: Sequence[Path]) -> UserError:
    hint = "send the images, too, or rename them: tumor, seg and mask are names of masks"
    return UserError("a study must have an image", ", ".join(file.name for file in files[:4]), hint=hint)


def _told(error: Exception, folder: Path) -> Exception:
    """Return what a caller is told: their mistake without the folder's path, or that the endpoint has no room."""
    if is_out_of_room(error):
        return OutOfRoom()
    if isinstance(error, UserError):
        return _without_folder(error, folder)
    # A damaged header can break a reader anywhere; the bytes are the caller's.
    return UserError("the files of a study must be readable", f"a failure: {type(error).__name__}")


def _without_folder(error: UserError, folder: Path) -> UserError:
    """Return the error without the folder's path: where files lie on the server is nobody's business."""

    def hide(text: str) -> str:
        return text.replace(f"{folder}/", "").replace(str(folder), "the study")

    return error.replace(
        rule=hide(error.rule),
        value=None if error.value is None else hide(error.value),
        choices=None if error.choices is None else [hide(choice) for choice in error.choices],
        hint=None if error.hint is None else hide(error.hint),
        file=None if error.file is None else Path(error.file.name),
    )


def check_sizes(files: Sequence[Path], limits: Limits) -> None:
    """Refuse a study whose headers state more than the limits, before a pixel of it is decoded.

    Raises:
        TooLarge: If they do. Damaged headers pass: the readers report them.
    """
    slices = [file for file in files if is_slice(file.name)]
    if len(slices) > limits.slices:
        raise TooLarge(f"a study must have at most {limits.slices} slices", len(slices))
    values = num_bytes = 0
    for file in files:
        count, size = _stated(file)
        values, num_bytes = values + count, num_bytes + size
        if values > limits.values:
            raise TooLarge(f"a study must have at most {limits.values} values")
        if num_bytes > limits.unpacked_bytes:
            raise TooLarge(f"a study must unpack to at most {limits.unpacked_bytes} bytes")


def _stated(file: Path) -> tuple[int, int]:
    """Return how many values and bytes a file's header states; (0, 0) where it cannot be read."""
    try:
        if is_slice(file.name):
            pages = (read_png_header(file),) if is_png(file) else read_layout(file)
            return sum(page.num_values for page in pages), sum(page.num_bytes for page in pages)
        if is_nifti(file.name):
            header = read_header(file)
            return num_values(header), num_values(header) * int(header.get_data_dtype().itemsize)
        if is_itk(file.name):
            return count_values(file)
    except TooLarge:
        raise
    except (UserError, OSError, EOFError, zlib.error):  # the readers report it
        return 0, 0
    return 0, 0


def _unpack(file: BinaryIO, folder: Path, limits: Limits, left: int) -> list[Path]:
    _check_directory(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if _wanted(entry)]
            if len(entries) > limits.files:
                raise TooLarge(f"a study must have at most {limits.files} files", len(entries))
            if sum(entry.file_size for entry in entries) > left:
                raise TooLarge(f"the zips of a study must unpack to at most {limits.unpacked_bytes} bytes together")
            written = []
            for entry in _checked_pictures(archive, entries):
                if entry.compress_type not in _METHODS:
                    raise UserError("the files of a .zip must be stored or deflated", f"method {entry.compress_type}")
                with archive.open(entry) as source:
                    path = _store(source, folder, PurePosixPath(entry.filename).name, left)
                left -= path.stat().st_size
                written.append(path)
            return written
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, UserError) or is_out_of_room(error):
            raise
        raise UserError("a .zip file must be a readable, unencrypted archive", str(error)[:100]) from None


def _checked_pictures(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Return the entries; of pictures beside DICOM, which are a viewer's, those of one name once.

    Raises:
        UserError: If the pictures are the images, and lie in several folders.
    """
    pictures = {entry: PurePosixPath(entry.filename) for entry in entries if is_slice(entry.filename)}
    others = [entry for entry in entries if entry not in pictures]
    if pictures and any(_is_packed_dicom(archive, entry) for entry in others):
        return [*others, *{path.name: entry for entry, path in pictures.items()}.values()]
    check_one_folder(path.parent for path in pictures.values() if not is_mask_name(path.name))
    return entries


def _is_packed_dicom(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    return entry.compress_type in _METHODS and archive.open(entry).read(132)[128:] == b"DICM"


def _check_directory(file: BinaryIO, limits: Limits) -> None:
    """Refuse a zip whose directory alone, which zipfile reads whole, would take more memory than a study's."""
    end = file.seek(0, 2)
    file.seek(max(0, end - (1 << 16) - 22))
    tail = file.read()
    if b"PK\x06\x07" in tail:
        raise TooLarge("a .zip must be below 4 GiB", "a zip64 archive")
    # Whichever of these marks zipfile takes for the true one.
    sizes = (int.from_bytes(tail[m.start() + 12 : m.start() + 16], "little") for m in re.finditer(b"PK\x05\x06", tail))
    if max(sizes, default=0) > (limits.files + 1) * _ENTRY_BYTES:
        raise TooLarge(f"a study must have at most {limits.files} files")


def _wanted(entry: zipfile.ZipInfo) -> bool:
    name = PurePosixPath(entry.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return not entry.is_dir() and not hidden and name.suffix.lower() != ".csv"


def _store(source: IO[bytes], folder: Path, name: str, left: int) -> Path:
    """Write a file under a harmless name; DICOM files may share theirs, as those of two series do."""
    safe = re.sub(r"[^\w.()-]+", "_", name)  # a dot in front stays: such files are left out
    while len(safe.encode()) > _NAME_BYTES:
        safe = safe[1:]
    if not safe.strip("."):
        raise UserError("a file must have a name", repr(name))
    path, number = folder / safe, len(os.listdir(folder))
    while path.exists():
        path, number = folder / f"{number}_{safe}", number + 1
    _copy(source, path, left)
    if path.name != safe and not is_dicom(path) and (is_slice(safe) or is_volume(safe)):
        raise UserError("the files of a study that are not DICOM must have different names", safe)
    return path


def _copy(source: IO[bytes], path: Path, left: int) -> None:
    written = 0
    with path.open("wb") as out:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > left:
                rule = f"an upload must stay below the endpoint's limit of bytes, which leaves {left} for this file"
                raise TooLarge(rule, file=path)
            out.write(block)
