"""Pictures of a model's worst, median and best case for its report, in the original geometry."""

from collections.abc import Callable, Sequence

import numpy as np

from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.cohort import PreparedCase
from glioflow.data.sequences import shown_channel
from glioflow.evaluation.patients import CaseScores
from glioflow.reports.figures import overlay
from glioflow.reports.films import film
from glioflow.reports.page import Drawing


def pick_cases(rows: Sequence[CaseScores]) -> dict[str, CaseScores]:
    """Return the rows of lowest, middle and highest Dice as `worst`, `median`, `best`; fewer for under three rows."""
    ordered = sorted(rows, key=lambda row: (row["dice"], row["id"]))
    chosen = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}
    return chosen if len(ordered) > 2 else dict(list(chosen.items())[-len(ordered) :])


def case_drawings(rows: Sequence[CaseScores], look: Callable[[str], tuple[Predictor, PreparedCase]]) -> list[Drawing]:
    """Draw the worst, median and best case, each as a still picture and an animation.

    Args:
        rows: One per case, with `id` and `dice`.
        look: Returns the model that was evaluated on a case, and the case.
    """
    drawings = []
    for name, row in pick_cases(rows).items():
        drawings += draw_case(*look(row["id"]), title=f"{name}: {row['id']}, Dice {row['dice']:.3f}", name=name)
    return drawings


def draw_case(predictor: Predictor, case: PreparedCase, *, title: str, name: str) -> list[Drawing]:
    """Draw one case: the slice with the most true tumor (predicted, if there is none), and all slices in turn."""
    prepared = np.asarray(case.image[..., shown_channel(case.record.channels)], np.float32)
    # Restoring pads a crop with 0, so 0 must be the darkest value.
    image = np.asarray(case.restore(prepared - prepared.min()))
    predicted = predictor.segment(case.image, case.record.moves).labels > 0
    truth = np.logical_or.reduce(list(predictor.description.target.split(case.reference()).values()))
    index = int((truth if truth.any() else predicted).sum(axis=(1, 2)).argmax())
    still = overlay(image[index], truth[index], predicted[index], title=title)
    return [
        Drawing(
            name,
            still,
            f"Slice {index + 1} of {len(image)}: the one with most {'true' if truth.any() else 'predicted'} tumor.",
        ),
        Drawing(
            f"{name}-film",
            film(image, truth, predicted),
            f"{name.capitalize()}, slice by slice; below, where tumor is and where it is seen.",
        ),
    ]
