"""A study on its way from the page to the endpoint and back. Knows nothing of how it is shown."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

from glioflow.api.answer import Answer
from glioflow.api.client import Client
from glioflow.bundle.encoded_mask import MaskFormat, decode_mask, encode_file
from glioflow.cluster.scratch import study_folder
from glioflow.data.formats import brats, lgg
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.data.formats.writing import native_format
from glioflow.data.synthetic.cohort import synthesize_brats, synthesize_lgg
from glioflow.errors import RunFailed
from glioflow.serving.http.uploads import read_uploads
from glioflow.serving.settings import Limits

File = tuple[str, bytes]
_SEED = 7
_NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Answered:
    """An answer that the page shows, and its mask as a file in the input's format; the study's files are gone."""

    answer: Answer
    mask: File


@dataclass(frozen=True)
class Example:
    """A generated patient, with a title."""

    title: str
    files: tuple[File, ...]


def ask(client: Client, files: Sequence[File], clinical: Mapping[str, Any]) -> Answered:
    """Have one study answered.

    Args:
        client: Of the endpoint.
        files: As they were uploaded: name and content of each.
        clinical: Clinical values by name; may be empty.

    Raises:
        UserError: If the endpoint refuses the study.
        RunFailed: If it does not answer, or answers about something else.
    """
    with study_folder() as folder:
        json = client.predict(_write(files, Path(folder)), clinical=clinical, mask="rle")
        unpacked = Path(folder) / "unpacked"
        unpacked.mkdir()
        case = read_uploads([(name, io.BytesIO(content)) for name, content in files], unpacked, Limits())
        shape = tuple(json["mask"]["shape"])
        if shape != case.shape:
            raise RunFailed(f"the endpoint answered with a mask of {shape} for a study of {case.shape}")
        answer = Answer(case, decode_mask(json["mask"]), json)
        return Answered(answer, _mask_file(answer))


def has_examples(channels: Sequence[str]) -> bool:
    """Return whether examples can be generated for a model that takes these channels."""
    return tuple(channels) in (lgg.CHANNELS, brats.CHANNELS)


@cache
def examples(channels: tuple[str, ...]) -> tuple[Example, ...]:
    """Generate examples for a model that takes these channels, the same ones every time; see `has_examples`."""
    with study_folder() as folder:
        path = Path(folder) / "cohort"
        if channels == brats.CHANNELS:
            synthesize_brats(path, patients=_NUM_EXAMPLES, seed=_SEED, size=120, slices=80)
        else:
            synthesize_lgg(path, patients=_NUM_EXAMPLES, seed=_SEED, size=192, slices=(20, 28))
        generated = []
        for number, case in enumerate(open_cohort(path).cases, start=1):
            # The names are made as the real cohort's are, and nobody shall take them for those.
            name = f"synthetic_{number}"
            images = [file for file in case.files if not is_mask_name(file.name)]
            files = tuple((file.name.replace(case.id, name), file.read_bytes()) for file in images)
            kind = "four volumes" if channels == brats.CHANNELS else f"{len(files)} slices"
            generated.append(Example(f"Synthetic patient {number}, {kind}", files))
        return tuple(generated)


def _write(files: Sequence[File], folder: Path) -> list[Path]:
    # Each in a folder of its own: two files of one name are the endpoint's to refuse.
    paths = []
    for number, (name, content) in enumerate(files):
        path = folder / str(number) / (PurePosixPath(name.replace("\\", "/")).name or "file")
        path.parent.mkdir()
        path.write_bytes(content)
        paths.append(path)
    return paths


def _mask_file(answer: Answer) -> File:
    case = answer.case
    format = cast(MaskFormat, native_format(case))
    content = encode_file(answer.mask, case, format, answer.labels or None)
    many = format == "tiff" and case.shape[0] > 1
    ending = {"tiff": "_masks.zip" if many else "_mask.tif", "nifti": "_mask.nii.gz", "dicom-seg": "_mask.dcm"}
    return f"{case.id}{ending.get(format, '_mask.png')}", content
