"""DICOM files: which they are, and reading them one by one, with bounds of what their headers hold."""

import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glioflow.data.formats.counted_file import CountedFile, Steps
from glioflow.data.formats.dicom_headers import fill_gaps
from glioflow.data.formats.dicom_series import split_acquisitions
from glioflow.data.formats.dicom_stack import settle_headers
from glioflow.data.formats.record import reason
from glioflow.data.formats.tree import files_below
from glioflow.errors import UserError, causes_of

# The SOP classes of segmentations, binary and as a label map; the meta information of a file begins with its class.
_SEGMENTATIONS = (b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.66.7")


# The beginnings of the transfer syntaxes of compressed pixels.
_COMPRESSED = (b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")
_DIRECTORY = b"1.2.840.10008.1.3.10"
_CLASS = b"\x02\x00\x02\x00UI"  # the tag of MediaStorageSOPClassUID, and its type
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# The storage classes of what is no image: presentation states, documents (SR, PDF), registrations, plans and doses.
_NO_IMAGES = re.compile(r"(?:9|11|66(?!\.[47]$)|88|104|481)(?:\.|$)")
# CT and PET, single slices or not.
_NO_MRI = re.compile(r"(?:2|128|130)(?:\.|$)")


# pydicom makes an object of about 500 bytes of every element and item, which may take 8 bytes in the file. It reads a
# file in one to three steps for each; a study of 5000 files of 400 elements takes fewer than the limit.
_MOST_READS = 2**22
# Largest size of the sequences of stated length in one file, which become items once they are looked at; those of a
# thousand frames take half of it. Contours are large and few, and read only if a cohort asks for them.
_MOST_SEQUENCE_BYTES = 2**23
_OF_CONTOURS = 0x3006


_RULE = "the header of a DICOM file must not hold more than that of an image can"


def steps_for_headers() -> Steps:
    """Return the reading steps that the headers of one study may take."""
    return Steps(_MOST_READS, _RULE)


class _NeverAtOnce(CountedFile):
    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # pydicom does so to inflate it, to any size, before a single element is known
            hint = "convert it to an uncompressed transfer syntax"
            raise UserError("the deflated transfer syntax of DICOM is not supported", file=self.path, hint=hint)
        return super().read(size)


def dicom_files(path: Path) -> Iterable[Path]:
    """Yield the DICOM files below `path`; see `files_below`."""
    return files_below(path, is_dicom)


def is_dicom(path: Path) -> bool:
    """Return whether a file has the prefix DICM after its preamble, and is not a DICOMDIR, which lists other files.

    A DICOMDIR has its class or, if it is damaged, its name. Does not read pipes and devices, which may never end.
    """
    if _is_directory(path):
        return False
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size < 132:
            return False
        with path.open("rb") as file:
            head = file.read(1024)
        return head[128:132] == b"DICM" and _DIRECTORY not in head
    except OSError:
        return False


def _is_directory(path: Path) -> bool:
    return re.match(r"DICOMDIR\b", path.name, re.IGNORECASE) is not None


def lacks_preamble(path: Path) -> bool:
    """Return whether a file looks like DICOM without the preamble and DICM, by its first elements."""
    if _is_directory(path) or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(8)
    # The group of file meta information or of identification, a low element, and a short length or a type of value.
    is_short = head[4:6].isalpha() or int.from_bytes(head[4:8], "little") < 256
    return len(head) == 8 and head[:2] in (b"\x02\0", b"\x08\0") and head[2] <= 0x18 and head[3] == 0 and is_short


def is_compressed(path: Path) -> bool:
    """Return whether the pixels of a DICOM file are compressed, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(1024)
    return any(syntax in head for syntax in _COMPRESSED)


def is_segmentation(path: Path) -> bool:
    """Return whether a DICOM file is a segmentation (SEG), by its first bytes."""
    with path.open("rb") as file:
        head = file.read(1024)
    return any(uid in head for uid in _SEGMENTATIONS)


def without_mri(studies: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Return the studies to leave out of a cohort, and why: those without an image, or of CT or PET beside MRI."""
    kinds = {study: _kinds_in(files) for study, files in studies.items()}
    with_mri = any("" in found for found in kinds.values())
    left_out = {study: "documents alone" for study, found in kinds.items() if found == {"document"}}
    others = (study for study, found in kinds.items() if with_mri and "" not in found and study not in left_out)
    return left_out | dict.fromkeys(others, "CT or PET alone")


def _kinds_in(files: Iterable[Path]) -> set[str]:
    """Return the kinds of the files up to the first that may be MRI: usually the first of all."""
    kinds = set[str]()
    for file in files:
        kinds.add(kind := _kind_of(file))
        if not kind:
            break
    return kinds


def _kind_of(path: Path) -> str:
    """Return `document`, `other` for CT and PET, or empty for MRI and unknown classes, by a file's first bytes."""
    with path.open("rb") as file:
        head = file.read(1024)
    start = head.find(_CLASS) + len(_CLASS)
    length = int.from_bytes(head[start : start + 2], "little") if _CLASS in head else 0
    kind = head[start + 2 : start + 2 + length].decode("latin-1").strip("\0 ").removeprefix(_STORAGE)
    if _NO_IMAGES.match(kind):
        return "document"
    return "other" if _NO_MRI.match(kind) else ""


def first_series(files: Sequence[Path]) -> list[Path]:
    """Return the files that belong to the same series and acquisition as the first."""
    headers = [(file, load(file, pixels=False)) for file in files]
    own = [pair for pair in headers if pair[1].get("SeriesInstanceUID") == headers[0][1].get("SeriesInstanceUID")]
    parts = [[file for file, _ in part] for part in split_acquisitions(own)]
    return next(part for part in parts if files[0] in part)


def load_series(files: Iterable[Path]) -> list[Any]:
    """Read all data sets of one series with their pixels; raises `UserError` if one is damaged."""
    datasets = [load(file, pixels=True) for file in files]
    settle_headers(datasets)
    return datasets


def load(path: Path, *, pixels: bool, steps: Steps | None = None) -> Any:
    """Read the data set of a file, with or without its pixels.

    Args:
        path: The file.
        pixels: Whether to read its pixels, too.
        steps: What the other files of its study left of `steps_for_headers`; None is all of them.

    Raises:
        UserError: If it is damaged, or its header holds more than that of an image can.
    """
    import pydicom

    with _reading(path, steps) as file:
        dataset = pydicom.dcmread(file, stop_before_pixels=not pixels)
        if (size := _size_of_sequences(dataset)) > _MOST_SEQUENCE_BYTES:
            raise UserError(_RULE, f"sequences of {size} bytes", file=path)
        fill_gaps(dataset, path.name)
        return dataset


def load_owner(path: Path) -> Any:
    """Read only the person and the study of a file, for listing thousands of them; raises `UserError` as `load`."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    tags = [Tag("SpecificCharacterSet"), Tag("PatientID"), Tag("StudyInstanceUID")]
    with _reading(path) as file:
        return read_partial(file, stop_when=lambda tag, *_: tag > tags[-1], specific_tags=tags)


@contextmanager
def _reading(path: Path, steps: Steps | None = None) -> Iterator[Any]:
    try:
        with _NeverAtOnce(path, steps or steps_for_headers()) as file:
            yield file
    except Exception as error:  # a damaged file can fail anywhere inside the decoder
        if (ours := next((each for each in causes_of(error) if isinstance(each, UserError)), None)) is not None:
            raise ours from None
        raise UserError("the DICOM file cannot be read", reason(error), file=path) from error


def _size_of_sequences(dataset: Any) -> int:
    """Return the bytes of the sequences that pydicom has not made into items yet."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR
    from pydicom.dataelem import RawDataElement

    size = 0
    for element in dataset.elements():
        if not isinstance(element, RawDataElement):
            size += sum(map(_size_of_sequences, element.value)) if element.VR == "SQ" else 0
        elif element.tag.group != _OF_CONTOURS:
            kind = element.VR or (dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "")
            size += len(element.value or b"") if kind == "SQ" else 0
    return size
