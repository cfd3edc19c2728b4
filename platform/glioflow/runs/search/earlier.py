"""Results of finished trials, of a search and of earlier searches, from which a new search begins."""

import json
from collections.abc import Iterable
from typing import Any

from glioflow.config import Experiment
from glioflow.config.search import PREPROCESS, Point
from glioflow.config.search_points import known_part
from glioflow.runs.launch import Setting

# Tag of a search: digest of its space.
SPACE = "glioflow.space"


def earlier_points(setting: Setting, count: int, *, besides: str) -> list[Point]:
    """Return the best configurations of earlier searches of the experiment on the same cohort, best first.

    Args:
        setting: Setting of the search.
        count: How many at most.
        besides: Run of the search itself.

    Returns:
        Of each the part that is a point of the present space; none without any.
    """
    tracking, experiment = setting.tracking, setting.experiment
    if not count:
        return []
    same = {"kind": "search", "glioflow.cohort": setting.cohort.manifest.fingerprint}
    reached: list[tuple[float, Point]] = []
    for parent in tracking.find_all(experiment.name, **same):
        if parent.info.run_id == besides:
            continue
        same_space = parent.data.tags.get(SPACE) == experiment.search.space_digest
        for run in finished_trials(tracking.children(experiment.name, parent.info.run_id)):
            point = point_of(run, experiment)
            if not same_space:
                point.pop(PREPROCESS, None)  # the same name may mean other steps there
            if point := known_part(experiment.search, point):
                reached.append((float(run.data.metrics["val/dice_mean"]), point))
    reached.sort(key=lambda each: -each[0])
    return [point for _, point in reached[:count]]


def finished_trials(runs: Iterable[Any]) -> list[Any]:
    """Return those of a search's trials that went to their end."""
    return [run for run in runs if run.info.status == "FINISHED" and "val/dice_mean" in run.data.metrics]


def point_of(run: Any, experiment: Experiment) -> Point:
    """Return the values that a trial had for the keys that the experiment searches."""
    tags = run.data.tags
    return {key: json.loads(tags[f"param.{key}"]) for key in experiment.search.space if f"param.{key}" in tags}
