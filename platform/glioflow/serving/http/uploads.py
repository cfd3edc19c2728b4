"""From uploaded files to a study: sizes are checked before decoding; no error reveals a path."""

import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from glioflow.abandonment import check_wanted
from glioflow.data.case import Case
from glioflow.data.channel_choice import parse_choices
from glioflow.data.formats.dicom_files import is_compressed, is_dicom, load
from glioflow.data.formats.dicom_headers import count_voxels
from glioflow.data.formats.figshare import is_slice as is_matlab
from glioflow.data.formats.file_roles import guess_role, is_mask_name
from glioflow.data.formats.itk import count_values, is_itk
from glioflow.data.formats.nifti_header import num_values, read_header
from glioflow.data.formats.png import is_png, read_png_header
from glioflow.data.formats.slices import is_slice
from glioflow.data.formats.study import only_masks, open_study, read_study
from glioflow.data.formats.tiff import read_layout
from glioflow.data.formats.volume_files import read_mask_of
from glioflow.data.formats.volume_names import is_nifti, is_volume
from glioflow.errors import OutOfRoom, TooLarge, UserError, is_out_of_room
from glioflow.serving.http.uploaded_files import save_uploads
from glioflow.serving.settings import Limits


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
        folder: Empty folder, deleted afterwards.
        limits: Limits of the endpoint.
        with_masks: Read the masks beside the images; otherwise they are skipped, with a warning.
        channels: `NAME=SERIES` texts that say which DICOM series or NIfTI file a channel is.

    Raises:
        TooLarge: If a limit is exceeded; sizes in headers are checked before decoding.
        UserError: If they are not a readable study.
    """
    files, _ = save_study(uploads, folder, limits)
    return read_saved(files, folder, limits, with_masks=with_masks, channels=channels)


def save_study(uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> tuple[list[Path], int]:
    """Write uploads into `folder`; return the files, and about how many values they hold once they are decoded.

    Raises:
        UserError: As `read_uploads`.
    """
    try:
        files = save_uploads(uploads, folder, limits)
        _check_kinds(files)
        return files, min(limits.values, sum(map(_held, files)))
    except Exception as error:
        raise _shown_error(error, folder) from None


def read_saved(
    files: Sequence[Path], folder: Path, limits: Limits, *, with_masks: bool = False, channels: Iterable[str] = ()
) -> Case:
    """Read the files of `save_study` as one study; see `read_uploads`."""
    return _read(files, folder, limits, channels, masks=with_masks)


def _read(
    files: Sequence[Path], folder: Path, limits: Limits, channels: Iterable[str] = (), *, masks: bool = True
) -> Case:
    try:
        check_sizes([file for file in files if masks or not is_mask_name(file.name)], limits)
        case = read_study(files, channels=parse_choices(channels), masks=masks)
        if case.shape[0] > limits.slices:
            raise TooLarge(f"a study must have at most {limits.slices} slices", case.shape[0])
        if case.image.size > limits.values:
            raise TooLarge(f"a study must have at most {limits.values} values", case.image.size)
        return case
    except Exception as error:
        raise _shown_error(error, folder) from None


def read_labeled(files: Sequence[Path], folder: Path, limits: Limits, labels: Collection[int]) -> Case:
    """Read the files of `save_study` as one study with its mask, which may hold these labels.

    Raises:
        UserError: As `read_uploads`, or if the mask of volumes has another grid, or there are several.
    """
    volumes = [file for file in files if is_volume(file.name)]
    masks = [file for file in volumes if guess_role(file, folder) == "mask"]
    if not masks:
        return _read(files, folder, limits)
    if not (images := [file for file in files if guess_role(file, folder) == "image"]):
        raise only_masks(masks)
    case = _read(images, folder, limits)
    try:
        check_sizes(masks, limits)
        if len(masks) > 1:
            raise UserError("a corrected study must have one mask", f"{len(masks)} masks")
        return replace(case, mask=read_mask_of(case, masks[0], labels))
    except Exception as error:
        raise _shown_error(error, folder) from None


def list_uploads(uploads: Sequence[tuple[str, BinaryIO]], folder: Path, limits: Limits) -> str:
    """Write uploads into `folder`, and return their name as one study; raises as `read_uploads`."""
    try:
        files, _ = save_study(uploads, folder, limits)
        return open_study(files, masks=False).cases[0].id
    except Exception as error:
        raise _shown_error(error, folder) from None


def _check_kinds(files: Sequence[Path]) -> None:
    if any(is_matlab(file) for file in files):  # HDF5's library does not promise to withstand hostile files
        raise UserError("an endpoint does not read MATLAB files", hint="predict them on the command line")


def _shown_error(error: Exception, folder: Path) -> Exception:
    """Return the error for a caller: their mistake without the folder's path, or that the endpoint is full."""
    if is_out_of_room(error):
        return OutOfRoom()
    if isinstance(error, UserError):
        return _without_folder(error, folder)
    # A damaged header can break a reader anywhere, so this is the caller's mistake.
    return UserError("the files of a study must be readable", f"a failure: {type(error).__name__}")


def _without_folder(error: UserError, folder: Path) -> UserError:
    """Return the error without the folder's path, which must not be revealed."""

    def hide(text: str) -> str:
        return text.replace(f"{folder}/", "").replace(str(folder), "the study")

    return error.replace(
        rule=hide(error.rule),
        value=None if error.value is None else hide(error.value),
        choices=None if error.choices is None else [hide(choice) for choice in error.choices],
        hint=None if error.hint is None else hide(error.hint),
        file=None if error.file is None or error.file == folder else Path(error.file.name),
    )


def check_sizes(files: Sequence[Path], limits: Limits) -> None:
    """Refuse a study whose headers exceed the limits, before decoding.

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
    """Return the number of values and bytes in a file's header; (0, 0) if unreadable."""
    check_wanted()
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


def _held(file: Path) -> int:
    """Return about how many values a file holds; those of uncompressed DICOM have two bytes."""
    if is_slice(file.name) or is_volume(file.name) or not is_dicom(file):
        return _stated(file)[0]
    if not is_compressed(file):
        return file.stat().st_size // 2
    try:
        return count_voxels(load(file, pixels=False), file)
    except UserError:  # the reader reports it
        return 0
