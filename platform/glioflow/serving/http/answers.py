"""From a prediction to the endpoint's JSON: masks in the format asked for, numbers that JSON knows."""

import base64
import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle import Description
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE, Prediction
from glioflow.data.case import Case
from glioflow.data.formats import brats
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.errors import UserError
from glioflow.evaluation.calibration import CERTAIN, mean_entropy

MaskFormat = Literal["rle", "png", "tiff", "nifti", "dicom-seg", "none"]


@dataclass(frozen=True)
class Legend:
    """What the labels of a model's masks mean.

    Attributes:
        names: Of each label.
        regions: Of each output of the model, under the name that its metrics have: the labels that make it.
    """

    names: dict[int, str]
    regions: dict[str, list[int]]


def legend_of(description: Description) -> Legend:
    """Return what the masks of a model mean: tissues where the labels are BraTS', else the outputs' own names."""
    target = description.target
    if target.kind == "binary":
        return Legend({1: "tumor"}, {"tumor": [1]})
    tissues = brats.LABELS_TO_2021 | brats.LABELS_FROM_2023 if description.origin.cohort_format == "brats" else {}
    if target.kind == "multiclass":
        named = dict(zip(target.names, target.labels, strict=True))
        return Legend({v: tissues.get(v, name) for name, v in named.items()}, {n: [v] for n, v in named.items()})
    names, regions, order = {}, {}, list(target.names)
    for name, inner in zip(order, [*order[1:], None], strict=True):
        value = target.decode[name]
        rest = set(target.regions[name]) - set(target.regions[inner] if inner else ())
        names[value] = tissues.get(value, name) if rest == {value} else name
        regions[name] = sorted(target.decode[each] for each in order[order.index(name) :])
    return Legend(names, regions)


def check_format(name: str | None, case: Case) -> MaskFormat:
    """Return the mask format of a request, by default `rle`; `png` is for one slice, `dicom-seg` for DICOM.

    Raises:
        UserError: If it is unknown, or does not go with the study.
    """
    if name is None:
        return "rle"
    if name not in get_args(MaskFormat):
        raise UserError("unknown mask format", repr(name), get_args(MaskFormat))
    if name == "png" and case.shape[0] > 1:
        raise UserError(
            "a png holds one slice; ask for another mask format", f"{case.shape[0]} slices", ["rle", "tiff"]
        )
    if name == "dicom-seg" and native_format(case) != "dicom-seg":
        raise UserError("dicom-seg needs a study read from DICOM", native_format(case), ["rle", "tiff", "nifti"])
    return name  # type: ignore[return-value]


def to_json(case: Case, prediction: Prediction, model: dict[str, Any]) -> dict[str, Any]:
    """Return the answer about a study, its mask apart (see `encode_mask`)."""
    said = prediction.survival
    return {
        "model": model,
        "study": {
            "id": case.id,
            "slices": list(case.slice_numbers),
            "spacing_mm": case.spacing_mm,
            "warnings": list(prediction.warnings),
        },
        "tumor": prediction.tumor,
        "uncertainty": uncertainty(prediction),
        "features": prediction.features.model_dump(mode="json"),
        "survival": None if said is None else said.model_dump(mode="json"),
        "timing_ms": prediction.timing_ms,
        "notice": NOT_FOR_CLINICAL_USE,
    }


def uncertainty(prediction: Prediction) -> dict[str, Any]:
    """Return how sure the model is of its mask, by its own probabilities.

    Returns:
        `expected_dice`: Dice in [0, 1] that the probabilities promise where they are calibrated, None without any
        tumor; `mean_entropy`: in nats, see `glioflow.evaluation.calibration.mean_entropy`; `uncertain_px`: voxels
        with a probability of tumor from 0.1 to 0.9; of an ensemble `ensemble`, see `Spread` there.
    """
    probability, mask = prediction.segmentation.tumor_probability, prediction.segmentation.labels > 0
    volume = int(np.count_nonzero(mask))
    size = float(probability.sum(axis=(1, 2)).sum(dtype=np.float64)) + volume
    promised = 2 * float(np.sum(probability[mask], dtype=np.float64)) / size if volume else None
    spread = prediction.segmentation.spread
    doubtful = probability[probability > CERTAIN]  # the background is most of a study
    return {
        "expected_dice": promised,
        "mean_entropy": mean_entropy(doubtful),
        "uncertain_px": int(np.count_nonzero((doubtful >= 0.1) & (doubtful <= 0.9))),
        **({} if spread is None else {"ensemble": spread.model_dump()}),
    }


def encode_mask(
    labels: NDArray[np.uint8], case: Case, mask: MaskFormat, legend: Legend | None = None
) -> dict[str, Any]:
    """Return a mask as JSON holds it: `labels` are those found, `names` and `regions` say what all of them mean.

    `rle`: `data` maps each label to [start, length, start, length, ...] over the C-ordered (S, H, W) array. The other
    formats are files in base64: one PNG of {0, 255}, a zip of TIFF slices, NIfTI in the input's geometry, DICOM-SEG
    with a segment for each name.
    """
    found = [int(value) for value in np.unique(labels[labels > 0])]
    if legend is None:
        legend = Legend({1: "tumor"} if set(found) <= {1} else {value: f"label {value}" for value in found}, {})
    head = {
        "format": mask,
        "encoding": "base64",
        "shape": list(labels.shape),
        "labels": found,
        "names": {str(value): name for value, name in legend.names.items()},
        "regions": legend.regions,
        "data": None,
    }
    if mask == "none":
        return {**head, "encoding": "none"}
    if mask == "rle":
        return {**head, "encoding": "runs", "data": {str(value): runs(labels == value) for value in found}}
    return {**head, "data": base64.b64encode(_file(labels, case, mask, legend.names)).decode()}


def runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return [start, length, ...] of the runs of True in the flattened mask."""
    inside = np.flatnonzero(mask)
    if not inside.size:
        return []
    breaks = np.flatnonzero(np.diff(inside) != 1) + 1
    starts, ends = inside[[0, *breaks]], inside[[*(breaks - 1), -1]] + 1
    return [int(value) for value in np.stack([starts, ends - starts], axis=1).ravel()]


def from_runs(data: dict[str, list[int]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the labels that `runs` came from."""
    out = np.zeros(int(np.prod(shape)), dtype=np.uint8)
    for label, pairs in data.items():
        for start, length in zip(pairs[::2], pairs[1::2], strict=True):
            out[start : start + length] = int(label)
    return out.reshape(shape)


def _file(labels: NDArray[np.uint8], case: Case, mask: MaskFormat, names: dict[int, str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        written = write_mask(labels, case, Path(folder), mask, labels=names)
        if written.is_file():
            return written.read_bytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(written.iterdir()):
                archive.write(path, path.name)
        return buffer.getvalue()
