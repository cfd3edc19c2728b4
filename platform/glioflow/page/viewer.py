"""The slice viewer: packs a study for the browser, which scrolls, cuts and colors it without asking again."""

import base64
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioflow.data.sequences import shown_channel
from glioflow.json_values import JsonObject
from glioflow.page.study import Answered
from glioflow.page.tables import windowed
from glioflow.reports.overlay import color_of

MAX_VALUES = 48 * 2**20
_MIN_SLICES = 8  # fewer make no picture from the side


def viewer_data(answered: Answered) -> JsonObject:
    """Return what `static/viewer.js` shows.

    Returns:
        `shape` [S, H, W] and `spacing` along it, or null; `planes`; `oriented`, whether rows run toward posterior and
        columns toward the patient's left; `numbers` of the slices; `channels` with the `first` to show; `classes` with
        value, name and color; `image` (C, S, H, W) and `labels` (S, H, W), uint8, as base64 of zlib's format; `shrink`,
        how many pixels a side were thrown together for a study too large for a browser.
    """
    answer = answered.answer
    case, names = answer.case, answer.labels
    shrink = max(1, math.ceil(math.sqrt(case.image.size / MAX_VALUES)))
    image = np.stack([windowed(case.image[:, ::shrink, ::shrink, k]) for k in range(len(case.channels))])
    labels = answer.mask[:, ::shrink, ::shrink]
    spacing = case.spacing_mm
    return {
        "key": f"{case.id}-{zlib.crc32(labels.tobytes()):08x}",
        "name": case.id,
        "shape": list(labels.shape),
        "spacing": None if spacing is None else [spacing[0], spacing[1] * shrink, spacing[2] * shrink],
        "planes": ["axial", "coronal", "sagittal"] if case.shape[0] >= _MIN_SLICES else ["axial"],
        "oriented": case.grid.affine is not None,
        "numbers": list(case.slice_numbers),
        "channels": list(case.channels),
        "first": shown_channel(case.channels),
        "classes": [
            {"value": value, "name": names.get(value, f"label {value}"), "color": color_of(value)}
            for value in sorted({*names, *answer.json["mask"]["labels"]})
        ],
        "image": _packed(image),
        "labels": _packed(labels),
        "shrink": shrink,
    }


def show_viewer(data: JsonObject) -> None:
    """Mount the viewer in the running page."""
    import streamlit as st

    static = Path(__file__).parent / "static"
    parts = {kind: (static / f"viewer.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")}
    st.components.v2.component("glioflow_viewer", **parts)(data=data, key="viewer")


def _packed(volume: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(volume.tobytes(), 1)).decode()
