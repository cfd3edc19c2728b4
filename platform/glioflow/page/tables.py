"""An answer as tables and files: features with their units, everything in one zip."""

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from glioflow.bundle.answer import FeaturesJson
from glioflow.bundle.prediction import Tumor, TumorVolume
from glioflow.json_values import JsonObject
from glioflow.page.study import Answered, File

UNITS = {"px": "px", "mm": "mm", "mm2": "mm²", "mm3": "mm³", "fraction": "fraction", "slice": "slice"}
_SPOKEN = {
    "asd": "Angular standard deviation (ASD)",
    "mf": "Margin fluctuation (MF)",
    "bevr": "Bounding ellipsoid volume ratio (BEVR)",
    "side": "Side of the brain",
    "largest_slice": "Largest slice",
    "num_slices_with_tumor": "Slices with tumor",
    "num_components": "Separate parts",
}


class FeatureRow(TypedDict):
    """A feature as a table shows it."""

    Feature: str
    Value: float | None
    Unit: str
    Note: str


def feature_rows(features: FeaturesJson, numbers: Sequence[int]) -> list[FeatureRow]:
    """Return the volume's features as rows of `Feature`, `Value`, `Unit` and `Note`, why a value is missing.

    Slices have their numbers in the study, as in the viewer; the corners of the bounding box and what counts slices in
    another way are left to the csv.
    """
    undefined = features["undefined"]
    rows: list[FeatureRow] = []
    for name, value in features["volume"].items():
        if name.startswith("box_") or "_position" in name or name.endswith("_number"):
            continue
        words, unit = _spoken(name)
        if value is not None and name in ("largest_slice", "centroid_slice"):
            value = float(np.interp(value, np.arange(len(numbers)), numbers))
        number = None if value is None else float(f"{value:.4g}") if abs(value) < 1e4 else round(value)
        rows.append({"Feature": words, "Value": number, "Unit": unit, "Note": undefined.get(name, "")})
    return sorted(rows, key=lambda row: row["Value"] is None)


def slice_rows(features: FeaturesJson, numbers: Sequence[int]) -> list[JsonObject]:
    """Return the features of each slice with tumor, the slice under its number in the study."""
    left_out = ("number", "position", "position_mm")
    shown = [{name: value for name, value in row.items() if name not in left_out} for row in features["slices"]]
    return [{**row, "slice": numbers[int(row["slice"] or 0)]} for row in shown]


def features_csv(features: FeaturesJson) -> bytes:
    """Return the volume's features as a csv of `feature`, `value`, `unit`, under their own names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["feature", "value", "unit"])
    writer.writerows([name, value, _spoken(name)[1]] for name, value in features["volume"].items())
    return text.getvalue().encode()


def volume_text(features: FeaturesJson) -> tuple[str, str]:
    """Return the tumor's volume and what to add to it: cm³ where the spacing is known."""
    volume = features["volume"]
    if volume["volume_mm3"] is not None:
        return f"{volume['volume_mm3'] / 1000:.1f} cm³", f"{volume['volume_px']:,.0f} voxels".replace(",", " ")
    return f"{volume['volume_px']:,.0f} px".replace(",", " "), "the spacing of this study is unknown"


def interval_text(volume: TumorVolume) -> str:
    """Return the tumor volume's interval in words, in the unit of `volume_text`; empty where there is none."""
    if volume["interval"] is None or volume["level"] is None:
        return ""
    low, high = volume["interval"]
    if volume["unit"] == "mm3":
        return f"{volume['level']:.0%} interval {low / 1000:.1f} to {high / 1000:.1f} cm³"
    return f"{volume['level']:.0%} interval {low:,.0f} to {high:,.0f} px".replace(",", " ")


def region_rows(tumor: Tumor) -> list[FeatureRow]:
    """Return the volume of each region of the tumor as rows, where the model tells several."""
    if len(tumor["regions"]) < 2:
        return []
    return [
        {
            "Feature": f"Volume of {name}",
            "Value": each["volume_px"] if each["volume_mm3"] is None else round(each["volume_mm3"]),
            "Unit": "px" if each["volume_mm3"] is None else "mm³",
            "Note": "",
        }
        for name, each in tumor["regions"].items()
    ]


def windowed(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return an image of any type and shape as gray values, the darkest and brightest half percent of it cut off."""
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    values = image.astype(np.float32, copy=False)
    lit = values[values != 0]
    low, high = np.percentile(lit[:: max(1, lit.size // 10**6)], [0.5, 99.5]) if lit.size else (0.0, 1.0)
    low = min(float(low), 0.0) if values.min() >= 0 else float(low)
    return np.asarray(np.clip((values - low) / max(float(high) - low, 1e-9), 0, 1) * 255, np.uint8)


def downloads(answered: Answered) -> dict[str, File]:
    """Return every file that can be saved, by what it is; the last one holds all the others."""
    answer = answered.answer
    name = answer.case.id
    files = {
        "Mask": answered.mask,
        "Overlay": (f"{name}_overlay.png", answer.overlay()),
        "Features": (f"{name}_features.csv", features_csv(answer.json["features"])),
        "Answer": (f"{name}_answer.json", json.dumps(answer.json, indent=1).encode()),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.values():
            archive.writestr(path, content)
    return {**files, "Everything": (f"{name}_glioflow.zip", buffer.getvalue())}


def _spoken(name: str) -> tuple[str, str]:
    """Return a feature's name in words, and its unit."""
    stem, _, last = name.rpartition("_")
    if name in _SPOKEN:
        return _SPOKEN[name], "slice" if name == "largest_slice" else ""
    unit = UNITS.get(last, "") if stem else ""
    words = (stem if unit else name).replace("_", " ")
    words = words.removeprefix("num ").replace(" std", " standard deviation")
    return words[:1].upper() + words[1:], unit
