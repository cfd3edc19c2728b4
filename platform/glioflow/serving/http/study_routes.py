"""Routes for a viewer: read a study, measure a drawn mask, and convert a drawn mask to a file.

They are stateless: each request carries the parts of a study that it needs. Masks are runs over the (S, H, W) array
of `/v1/predict`, so that a drawing keeps its position in every orientation of the files.
"""

import asyncio
import hashlib
import json
import math
import re
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Query, UploadFile
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.bundle.answer import FeaturesJson, locate_features
from glioflow.bundle.encoded_mask import encode_file, encode_runs
from glioflow.data.case import Case, Grid
from glioflow.data.formats.writing import ENDINGS, native_format
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.data.sequences import shown_channel
from glioflow.errors import TooLarge, UserError
from glioflow.features import measure_mask
from glioflow.json_values import JsonObject
from glioflow.serving.http.answers import check_format
from glioflow.serving.http.opened_studies import OpenedStudies
from glioflow.serving.http.uploads import read_labeled, read_saved
from glioflow.serving.settings import Limits

MAX_IMAGE_BYTES = 512 << 20
_MANY_LABELS = range(256)
_MAX_RUNS = 1 << 22
_TYPES = {"u1": "uint8", "u2": "uint16", "i2": "int16"}


class Runs(BaseModel):
    """A mask as runs: [start, length, ...] over the C-ordered array of `shape`, by label as text."""

    model_config = ConfigDict(extra="ignore")
    shape: tuple[int, int, int]
    data: dict[str, list[int]]


class DrawnMask(Runs):
    """A mask to measure, with the known facts about its study."""

    spacing_mm: tuple[float, float, float] | None = None
    slices: list[int] | None = Field(default=None, max_length=1 << 16)
    brain: list[int] | None = None


def add_study_routes(api: FastAPI, studies: OpenedStudies) -> None:
    """Add the routes to an application."""
    limits = studies.limits

    @api.post("/v1/study", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
    async def read(
        files: Annotated[list[UploadFile], File(description="A study; a mask beside its images is its reference")],
        channel: Annotated[list[str] | None, Form(description="NAME=SERIES, as for a prediction")] = None,
        image: Annotated[bool, Query(description="Whether the image is wanted, or only what the files are")] = True,
    ) -> Response:
        """Read a study: a JSON header after its length (uint32, little-endian), padded to 8 bytes, then each channel.

        The channels are C-ordered (S, H, W) arrays of the header's `dtype`, little-endian, one after the other.
        """
        async with studies.opened(files, partial(_read, limits=limits, channels=channel or [])) as case:
            content = await asyncio.to_thread(encode_study, case, image=image)
        return Response(content, media_type="application/octet-stream")

    one_at_a_time = asyncio.Lock()  # the largest mask takes two gigabytes

    @api.post("/v1/features")
    async def measure(mask: DrawnMask) -> dict[str, Any]:
        """Measure a drawn mask in the same way as the masks of answers."""
        async with one_at_a_time:
            return {"features": await asyncio.to_thread(_measure, mask, limits)}

    @api.post("/v1/mask", response_class=Response, responses={200: {"content": {"application/octet-stream": {}}}})
    async def write(
        files: Annotated[list[UploadFile], File(description="The study")],
        mask: Annotated[str, Form(description="JSON of `shape`, `data` (runs by label) and maybe `names`")],
        channel: Annotated[list[str] | None, Form(description="NAME=SERIES, as for a prediction")] = None,
        format: Annotated[
            str | None, Query(description="nifti, tiff, png or dicom-seg; by default the study's")
        ] = None,
    ) -> Response:
        """Return a drawn mask as a file in the geometry of its study."""
        async with studies.opened(files, partial(read_saved, limits=limits, channels=channel or [])) as case:
            kind = check_format(format or native_format(case), case)
            if kind not in ENDINGS:
                raise UserError("format must be one for mask files", kind, list(ENDINGS))
            labels = drawn_on(case, mask, limits)
            content = await asyncio.to_thread(encode_file, labels, case, kind, _names_in(mask))
        many = kind == "tiff" and case.shape[0] > 1
        name = f"{case.id}{'_masks.zip' if many else ENDINGS[kind]}"
        return Response(
            content,
            media_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


def drawn_on(case: Case, text: str, limits: Limits) -> NDArray[np.uint8]:
    """Return the mask (S, H, W) in the JSON of a form; raises `UserError` unless it has the case's grid."""
    labels = decode_drawing(_parse(text), limits)
    if labels.shape != case.shape:
        rule = "a mask that was drawn must have the shape of its study"
        raise UserError(rule, list(labels.shape), [str(list(case.shape))])
    return labels


def decode_drawing(mask: Runs, limits: Limits) -> NDArray[np.uint8]:
    """Return the labels of a mask that a caller sent.

    Raises:
        UserError: If a run is not a pair or exceeds the array, runs overlap, or a label is invalid.
        TooLarge: If it has more voxels than a study may have values, or more slices.
    """
    if min(mask.shape) < 1:
        raise UserError("the shape of a mask must be three positive numbers", list(mask.shape))
    size = math.prod(mask.shape)
    if size > limits.values or sum(map(len, mask.data.values())) > _MAX_RUNS:
        raise TooLarge(f"a mask must have at most {limits.values} voxels and {_MAX_RUNS} numbers in its runs")
    if mask.shape[0] > limits.slices:
        raise TooLarge(f"a mask must have at most {limits.slices} slices", mask.shape[0])
    labels = np.zeros(size, np.uint8)
    for name, numbers in mask.data.items():
        if not _is_label(name):
            raise UserError("a label must be a number from 1 to 255", name[:20])
        if len(numbers) % 2:
            raise UserError("the runs of a label must be pairs of a start and a length", f"{len(numbers)} numbers")
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            if start < 0 or length < 1 or start + length > size:
                raise UserError("a run must lie inside its mask", [start, length])
            if labels[start : start + length].any():
                raise UserError("the runs of a mask must not overlap", [start, length])
            labels[start : start + length] = int(name)
    return labels.reshape(mask.shape)


def encode_study(case: Case, *, image: bool) -> bytes:
    """Return a case in the format of `/v1/study`."""
    channels, first = list(case.channels), shown_channel(case.channels)
    dtype = _stored_as(case.image.dtype)
    one = math.prod(case.shape) * dtype.itemsize
    order = [first, *(k for k in range(len(channels)) if k != first)][: max(1, MAX_IMAGE_BYTES // one)]
    kept = sorted(order) if image else []
    planes = [np.ascontiguousarray(case.image[..., k], dtype) for k in kept]
    brain = locate_brain(case.image) if image else None
    head: JsonObject = {
        "id": case.id,
        "patient": case.patient,
        "shape": list(case.shape),
        "spacing_mm": None if case.spacing_mm is None else list(case.spacing_mm),
        "affine": _to_ras(case.grid, case.shape),
        "slices": list(case.slice_numbers),
        "channels": [channels[k] for k in kept],
        "left_out": [name for k, name in enumerate(channels) if image and k not in kept],
        "shown": kept.index(first) if image else 0,
        "dtype": dtype.name,
        "native": native_format(case),
        "files": _sources(case),
        "warnings": list(case.warnings),
        "digest": _digest(case, planes),
        "reference": None if case.mask is None else _runs_of(case.mask),
        "brain": None if brain is None else encode_runs(brain),
    }
    text = json.dumps(head).encode()
    text += b" " * (-(len(text) + 4) % 8)
    return b"".join([struct.pack("<I", len(text)), text, *(plane.tobytes() for plane in planes)])


def _read(files: Sequence[Path], folder: Path, limits: Limits, channels: list[str]) -> Case:
    if channels:
        return read_saved(files, folder, limits, channels=channels)
    return read_labeled(files, folder, limits, _MANY_LABELS)


def _stored_as(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """Return the data type for sending an image: the stored one, else 32-bit floats."""
    return np.dtype(_TYPES.get(dtype.str[1:], "float32")).newbyteorder("<")


def _to_ras(grid: Grid, shape: tuple[int, int, int]) -> list[list[float]] | None:
    """Return the matrix from (S, H, W) indices to RAS millimeters; None if unknown."""
    if grid.affine is None:
        return None
    to_file = np.zeros((4, 4))
    to_file[3, 3] = 1
    for own, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        to_file[axis, own] = -1 if flip else 1
        to_file[axis, 3] = shape[own] - 1 if flip else 0
    return [[float(value) for value in row] for row in grid.affine @ to_file]


def _sources(case: Case) -> list[dict[str, str | None]]:
    """Return the channel of each file; none for a file with several channels."""
    single = len(case.files) == len(case.channels) and case.grid.affine is not None
    names = case.channels if single else [None] * len(case.files)
    return [{"name": file.name, "channel": channel} for file, channel in zip(case.files, names, strict=False)]


def _digest(case: Case, planes: list[NDArray[np.generic]]) -> str:
    digest = hashlib.sha256(f"{case.id} {case.shape}".encode())
    for plane in planes:
        digest.update(plane.data)
    return digest.hexdigest()[:32]


def _runs_of(mask: NDArray[np.uint8]) -> dict[str, list[int]]:
    return {str(int(value)): encode_runs(mask == value) for value in np.unique(mask[mask > 0])}


def _measure(mask: DrawnMask, limits: Limits) -> FeaturesJson:
    labels = decode_drawing(mask, limits)
    numbers = mask.slices or list(range(1, labels.shape[0] + 1))
    spacing = mask.spacing_mm
    if len(numbers) != labels.shape[0]:
        raise UserError("slices must have a number for each slice of the mask", len(numbers), [str(labels.shape[0])])
    if spacing is not None and not all(math.isfinite(each) and each > 0 for each in spacing):
        raise UserError("spacing_mm must be three positive numbers", list(spacing))
    runs = {} if mask.brain is None else {"1": mask.brain}
    brain = decode_drawing(Runs(shape=mask.shape, data=runs), limits) > 0 if runs else None
    features = measure_mask(labels > 0, spacing_mm=spacing, brain=brain)
    image = np.broadcast_to(np.uint8(0), (*labels.shape, 1))
    return locate_features(features, Case("drawn", "drawn", image, None, ("image",), tuple(numbers), spacing))


def _parse(text: str) -> Runs:
    try:
        return Runs.model_validate_json(text)
    except ValueError:
        raise UserError("the field 'mask' must be JSON with shape and data, runs by label", text[:80]) from None


def _names_in(text: str) -> dict[int, str] | None:
    """Return the label names sent with a form's mask, for DICOM segments; None without them."""
    names = json.loads(text).get("names")
    if not isinstance(names, dict) or not names:
        return None
    return {int(value): str(name)[:64] for value, name in names.items() if _is_label(value)}


def _is_label(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}", text) is not None and 0 < int(text) < 256
