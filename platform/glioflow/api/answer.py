"""A model's answer about one study: the mask, what was measured in it, and how to save and show it."""

import base64
import gzip
import tempfile
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.api.arguments import checked
from glioflow.atomic import check_folder, write_bytes
from glioflow.bundle.answer import AnswerJson, ModelId, SurvivalJson, Uncertainty
from glioflow.bundle.tumor import Tumor
from glioflow.data.case import Case
from glioflow.data.formats.writing import encode_nifti, encode_png, encode_tiff, native_format, write_slices
from glioflow.errors import UserError
from glioflow.quantities import count
from glioflow.reports.overlay import encode_overlay
from glioflow.reports.tables import Table, tables_to_html

SUFFIXES = (".nii.gz", ".nii", ".png", ".tif", ".dcm")
_SHOWN = ("volume_mm3", "volume_px", "asd", "mf", "bevr")


@dataclass(frozen=True, repr=False)
class Answer:
    """A model's answer about one study.

    Attributes:
        case: The study.
        mask: (S, H, W) uint8 labels in the study's own geometry; 0 means no tumor.
        json: The whole answer as the endpoint and `predict` give it.
        probability: (S, H, W) float32, of any tumor, in [0, 1]; None from an endpoint, which does not send it.
    """

    case: Case
    mask: NDArray[np.uint8]
    json: AnswerJson
    probability: NDArray[np.float32] | None = None
    _files: tempfile.TemporaryDirectory[str] | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """Name of the study."""
        return self.json["study"]["id"]

    @property
    def model(self) -> ModelId:
        """Which model answered."""
        return self.json["model"]

    @property
    def tumor(self) -> Tumor:
        """Whether there is a tumor, where, and how large."""
        return self.json["tumor"]

    @property
    def labels(self) -> dict[int, str]:
        """Name of each label that the model can give."""
        return {int(value): name for value, name in self.json["mask"].get("names", {}).items()}

    @property
    def features(self) -> dict[str, float | None]:
        """Shape features of the whole tumor, such as `volume_px`; None where undefined (see `json`)."""
        return self.json["features"]["volume"]

    @property
    def slice_features(self) -> list[dict[str, float | int | None]]:
        """Shape features of every slice with tumor, with its index under `slice`."""
        return self.json["features"]["slices"]

    @property
    def survival(self) -> SurvivalJson | None:
        """The survival stage's answer; None if the model has no such stage."""
        return self.json["survival"]

    @property
    def uncertainty(self) -> Uncertainty:
        """How sure the model is of its mask."""
        return self.json["uncertainty"]

    @property
    def warnings(self) -> list[str]:
        """What a reader should know about the study, a sentence each."""
        return self.json["study"]["warnings"]

    def to_json(self) -> AnswerJson:
        """Return the whole answer as the endpoint and `predict` give it."""
        return self.json

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the mask, whole or not at all, in the format that the path ends with.

        Args:
            path: `.nii.gz` or `.nii` (labels, in the study's axes and affine), `.png` or `.tif` (0 and 255, of a lone
                slice), `.dcm` (a DICOM segmentation, of a study read from DICOM), or without a suffix a new folder of
                `<study>_<n>_mask.tif`, one file a slice.

        Returns:
            The path.

        Raises:
            UserError: If the suffix is unknown, or the format cannot hold this study's mask.
        """
        path = Path(path)
        check_folder(path.absolute().parent, "the path of a mask")
        suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), path.suffix)
        if not suffix:
            return write_slices(self.mask, self.case, path)
        if suffix not in SUFFIXES and suffix != ".tiff":
            raise UserError(f"a mask cannot be saved with the suffix {suffix}", suffix, (*SUFFIXES, "a folder"))
        write_bytes(path, self._encode(suffix))
        return path

    def _encode(self, suffix: str) -> bytes:
        if suffix in (".png", ".tif", ".tiff"):
            if self.case.shape[0] > 1:
                choices = [".nii.gz", *([".dcm"] if native_format(self.case) == "dicom-seg" else []), "a folder"]
                count = self.case.shape[0]
                raise UserError(
                    f"a mask saved as {suffix} must have one slice, and this one has {count}", choices=choices
                )
            return encode_png(self.mask) if suffix == ".png" else encode_tiff(self.mask[0])
        if suffix == ".dcm":
            if native_format(self.case) != "dicom-seg":
                others = [".nii.gz", ".png", ".tif"] if self.case.shape[0] == 1 else [".nii.gz", "a folder"]
                raise UserError("a mask saved as .dcm needs a study read from DICOM", self.case.id, others)
            from glioflow.data.formats.dicom_seg import encode_dicom_seg

            return encode_dicom_seg(self.mask, self.case, self.labels or {1: "tumor"})
        packed = encode_nifti(self.mask, self.case)
        return packed if suffix == ".nii.gz" else gzip.decompress(packed)

    def overlay(self) -> bytes:
        """Return the slice with the most tumor as a PNG, with the mask as an overlay."""
        return base64.b64decode(encode_overlay(self.mask, self.case)["data"])

    def __repr__(self) -> str:
        slices, volume = len(self.tumor["slices"]), self.tumor["volume"]
        size = f"tumor in {count(slices, 'slice')}, {volume['value']:.4g} {volume['unit']}" if slices else "no tumor"
        return f"<Answer about {self.id}: {size}>"

    def _repr_html_(self) -> str:
        picture = encode_overlay(self.mask, self.case)
        tumor = self.tumor
        rows: list[list[object]] = [
            [
                "tumor",
                f"in {len(tumor['slices'])} of {self.case.shape[0]} slices" if tumor["detected"] else "none found",
            ],
            ["highest probability", tumor["probability"]],
        ]
        rows += [[name, self.features[name]] for name in _SHOWN if self.features.get(name) is not None]
        if self.survival is not None:
            rows.append(["risk score", self.survival["risk_score"]])
        version = "" if self.model["version"] is None else f" version {self.model['version']}"
        table = Table(f"{self.id}, answered by {self.model['name']}{version}", ["", ""], rows)
        caption = f"slice {picture['slice']}"
        return (
            '<div style="display:flex;gap:1.5em;flex-wrap:wrap;align-items:flex-start"><figure style="margin:0">'
            f'<img alt="{escape(caption)}" style="width:256px;image-rendering:pixelated" '
            f'src="data:image/png;base64,{picture["data"]}"><figcaption>{escape(caption)}</figcaption></figure>'
            f"{tables_to_html([table], [*self.warnings, self.json['notice']])}</div>"
        )
