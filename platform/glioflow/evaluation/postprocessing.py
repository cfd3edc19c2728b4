"""Post-processing of probabilities to masks: threshold and clean-up, and their choice on validation patients."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from glioflow.evaluation.boxes import bounding_box
from glioflow.evaluation.lesions import component_sizes, label_components
from glioflow.evaluation.metrics import BoolVolume, dice_per_case

Parts = Mapping[str, NDArray[Any]]
Case = tuple[Parts, Mapping[str, BoolVolume]]

THRESHOLDS = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9)
MIN_SIZES_PX = (0, 10, 20, 50, 100, 200, 500)
MIN_TOTALS_PX = (0, 50, 100, 200, 500, 1000)


class PostprocessSettings(BaseModel):
    """How probabilities in the original geometry become masks.

    Attributes:
        temperature: Logits are divided by it first; above 1 makes probabilities less certain.
        threshold: A voxel is tumor if its probability is above it.
        largest_component: Keep only the largest 26-connected component of all parts together.
        min_size_px: Remove components of all parts together that have fewer voxels.
        min_total_px: A part with fewer voxels in the whole case is emptied (they stay in the parts around it; of
            exclusive classes they get their next likeliest one):
            `{"ET": 500}` is the rule for small enhancing tumor.
        choose: Choose all of the above on the validation patients; False keeps the values given here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(default=1.0, ge=0.05, le=20)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    largest_component: bool = False
    min_size_px: int = Field(default=0, ge=0)
    min_total_px: dict[str, int] = Field(default_factory=dict)
    choose: bool = True


def apply_postprocessing(
    parts: Parts, settings: PostprocessSettings, *, already_decided: bool = False
) -> dict[str, BoolVolume]:
    """Turn each part's probability into its mask.

    Args:
        parts: By name, (S, H, W): probabilities in [0, 1], or masks if `already_decided`.
        settings: Threshold and clean-up.
        already_decided: Whether the parts are masks, from argmax over classes; the threshold is not used.

    Returns:
        By name, (S, H, W).
    """
    masks = {name: part.astype(bool) if already_decided else part > settings.threshold for name, part in parts.items()}
    masks = {
        name: mask & (np.count_nonzero(mask) >= settings.min_total_px.get(name, 0)) for name, mask in masks.items()
    }
    if not settings.largest_component and settings.min_size_px <= 1:
        return masks
    labels, _ = label_components(np.logical_or.reduce(list(masks.values())))
    sizes = component_sizes(labels)
    kept = sizes >= max(settings.min_size_px, 1)
    if settings.largest_component:
        kept &= np.arange(len(sizes)) == sizes.argmax()
    return {name: mask & kept[labels] for name, mask in masks.items()}


def choose_postprocessing(
    probabilities: Iterable[Parts],
    references: Iterable[Mapping[str, BoolVolume]],
    *,
    settings: PostprocessSettings = PostprocessSettings(),  # noqa: B008 - frozen
) -> PostprocessSettings:
    """Choose threshold and clean-up by mean Dice over patients who were not used for training.

    They are chosen one after another: threshold, largest component, size of the smallest component and, with several
    parts, the smallest total of the innermost one. A value replaces a simpler one only if it is strictly better, since
    the choice is based on few patients. Patients are processed one by one; only the box is kept in which
    some threshold finds anything or there is tumor: outside it, no value makes a difference.

    Args:
        probabilities: For each patient: by name, (S, H, W), outermost part first.
        references: The true masks of each patient under the same names.
        settings: Initial values; returned unchanged if `choose` is False or there is no patient.

    Returns:
        The chosen settings.
    """
    if not settings.choose:
        return settings
    lowest = min(*THRESHOLDS, settings.threshold)
    pairs = zip(probabilities, references, strict=True)
    cases = [_cut(parts, masks, lowest) for parts, masks in pairs]
    if not cases:
        return settings
    names = list(cases[0][1])
    steps: list[tuple[str, Sequence[Any]]] = [
        ("threshold", THRESHOLDS),
        ("largest_component", (False, True)),
        ("min_size_px", MIN_SIZES_PX),
    ]
    if len(names) > 1:
        steps.append(("min_total_px", [{names[-1]: least} if least else {} for least in MIN_TOTALS_PX]))
    best, best_dice = settings, _mean_dice(cases, settings)
    for field, values in steps:
        start = best
        for value in values:
            candidate = start.model_copy(update={field: value})
            if candidate != start and (dice := _mean_dice(cases, candidate)) > best_dice:
                best, best_dice = candidate, dice
    return best


def _cut(parts: Parts, references: Mapping[str, BoolVolume], lowest: float) -> Case:
    """Return copies cropped to the smallest box with all tumor and all voxels at or above the `lowest` threshold."""
    there = np.logical_or.reduce([*(part > lowest for part in parts.values()), *references.values()])
    box = tuple(slice(extent.start, max(extent.stop, extent.start + 1)) for extent in bounding_box(there))
    cut = [{name: np.array(volume[box]) for name, volume in volumes.items()} for volumes in (parts, references)]
    return cut[0], cut[1]


def _mean_dice(cases: Sequence[Case], settings: PostprocessSettings) -> float:
    scores = []
    for probability, reference in cases:
        masks = apply_postprocessing(probability, settings)
        scores.append(np.mean([dice_per_case(masks[name], reference[name]) for name in reference]))
    return float(np.mean(scores))
