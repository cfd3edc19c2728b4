"""The JSON form of a mask: runs of labels, or a file in base64, with the meaning of each label."""

import base64
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle.format import Description
from glioflow.cluster.scratch import study_folder
from glioflow.data.case import Case
from glioflow.data.formats.writing import write_mask
from glioflow.data.targets import TargetSettings
from glioflow.label_schemes import SCHEMES

MaskFormat = Literal["rle", "png", "tiff", "nifti", "dicom-seg", "none"]


@dataclass(frozen=True)
class Legend:
    """The meaning of the labels in a model's masks.

    Attributes:
        names: Name of each label.
        regions: The labels of each output of the model, by the output's name in metrics.
    """

    names: dict[int, str]
    regions: dict[str, list[int]]


class EncodedMask(TypedDict):
    """A mask in JSON.

    Keys:
        format: See `encode_mask`.
        encoding: `runs` or `base64`; `none` without data.
        shape: [S, H, W].
        labels: The labels that occur in the mask.
        names: Name of each label that the model can predict, by the label as text.
        regions: See `Legend`.
        data: Runs by label as text, a file in base64, or None.
    """

    format: MaskFormat
    encoding: Literal["runs", "base64", "none"]
    shape: list[int]
    labels: list[int]
    names: dict[str, str]
    regions: dict[str, list[int]]
    data: dict[str, list[int]] | str | None


def legend_of(description: Description) -> Legend:
    """Return the legend of a model's masks: tissues for BraTS labels, else the names of the outputs."""
    return legend_of_target(description.target, description.origin.cohort_format, description.origin.labels)


def legend_of_target(
    target: TargetSettings, cohort_format: str, tissues: Mapping[int, str] = MappingProxyType({})
) -> Legend:
    """Return the legend of the masks of a model with this task.

    Args:
        target: The task.
        cohort_format: Format of the training cohort.
        tissues: Meaning of the labels in the bundle; empty in bundles of earlier versions.
    """
    if target.kind == "binary":
        return Legend({1: "tumor"}, {"tumor": [1]})
    tissues = tissues or _tissues(target, cohort_format)
    if target.kind == "multiclass":
        named = dict(zip(target.names, target.labels, strict=True))
        return Legend({v: tissues.get(v, name) for name, v in named.items()}, {n: [v] for n, v in named.items()})
    names, regions, order = {}, {}, list(target.names)
    for position, name in enumerate(order):
        value, values = target.decode[name], set(target.regions[name])
        inner = [each for each in order[position + 1 :] if set(target.regions[each]) <= values]
        rest = values.difference(*(target.regions[each] for each in inner))
        names[value] = tissues.get(value, name) if rest == {value} else name
        regions[name] = sorted(target.decode[each] for each in (name, *inner))
    return Legend(names, regions)


def _tissues(target: TargetSettings, cohort_format: str) -> Mapping[int, str]:
    """Return the tissues of a BraTS cohort's labels; the numbers distinguish the two schemes of that time."""
    if cohort_format != "brats":
        return {}
    known = (SCHEMES["brats-2021"], SCHEMES["brats-2023"])
    return next((scheme.labels for scheme in known if scheme.labels.keys() == target.mapped_labels), {})


def encode_mask(labels: NDArray[np.uint8], case: Case, format: MaskFormat, legend: Legend | None = None) -> EncodedMask:
    """Return the JSON form of a mask.

    Args:
        labels: (S, H, W), in the case's geometry.
        case: The segmented case.
        format: `rle` maps each label to [start, length, start, length, ...] over the C-ordered (S, H, W) array. The
            other formats are files in base64: one PNG of {0, 255}, a zip of TIFF slices, NIfTI in the input's geometry,
            DICOM-SEG with a segment for each name. `none` omits the data.
        legend: Meaning of the labels; None names them by number.
    """
    present = [int(value) for value in np.unique(labels[labels > 0])]
    if legend is None:
        only_tumor = set(present) <= {1}
        legend = Legend({1: "tumor"} if only_tumor else {value: f"label {value}" for value in present}, {})
    encoded: EncodedMask = {
        "format": format,
        "encoding": "base64",
        "shape": list(labels.shape),
        "labels": present,
        "names": {str(value): name for value, name in legend.names.items()},
        "regions": legend.regions,
        "data": None,
    }
    if format == "none":
        encoded["encoding"] = "none"
    elif format == "rle":
        encoded |= {"encoding": "runs", "data": {str(value): encode_runs(labels == value) for value in present}}
    else:
        encoded["data"] = base64.b64encode(encode_file(labels, case, format, legend.names)).decode()
    return encoded


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return [start, length, ...] of the runs of True in the flattened mask."""
    inside = np.flatnonzero(mask)
    if not inside.size:
        return []
    breaks = np.flatnonzero(np.diff(inside) != 1) + 1
    starts, ends = inside[[0, *breaks]], inside[[*(breaks - 1), -1]] + 1
    return [int(value) for value in np.stack([starts, ends - starts], axis=1).ravel()]


def decode_runs(data: Mapping[str, Sequence[int]], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return the labels, of shape `shape`, from the runs of `encode_runs`."""
    labels = np.zeros(int(np.prod(shape)), dtype=np.uint8)
    for label, pairs in data.items():
        for start, length in zip(pairs[::2], pairs[1::2], strict=True):
            labels[start : start + length] = int(label)
    return labels.reshape(shape)


def decode_mask(mask: EncodedMask) -> NDArray[np.uint8]:
    """Return the labels (S, H, W) of a mask that was encoded as `rle`."""
    assert isinstance(mask["data"], dict)
    return decode_runs(mask["data"], mask["shape"])


def encode_file(
    labels: NDArray[np.uint8], case: Case, format: MaskFormat, names: dict[int, str] | None = None
) -> bytes:
    """Return a mask as the content of one file, a zip for several TIFF slices; raises as `write_mask` does."""
    with study_folder() as folder:
        written = write_mask(labels, case, Path(folder), format, labels=names)
        if written.is_file():
            return written.read_bytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(written.iterdir()):
                archive.write(path, path.name)
        return buffer.getvalue()
