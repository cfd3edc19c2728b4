"""A finished cross-validation as its run recorded it: the models, and every patient's out-of-fold metrics."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from glioflow.data.targets import TargetSettings
from glioflow.errors import UserError
from glioflow.evaluation.patients import CaseScores
from glioflow.tracking import BUNDLE, Tracking
from glioflow.tracking.datasets import Dataset, datasets_of

OUT_OF_FOLD = "out_of_fold.json"


@dataclass(frozen=True)
class OutOfFold:
    """A finished cross-validation.

    Attributes:
        run_id: Id of the parent run.
        experiment: Name of the experiment.
        architecture: Architecture of the networks.
        num_parameters: Number of parameters of each; None if no fold's bundle is left.
        parts: Names of the target's parts.
        folds: Number of folds.
        rows: Row of each case, as `score_cases` gives it with `features`, and `fold`, from 0.
        datasets: The cohort.
    """

    run_id: str
    experiment: str
    architecture: str
    num_parameters: int | None
    parts: tuple[str, ...]
    folds: int
    rows: Sequence[CaseScores]
    datasets: tuple[Dataset, ...] = ()


def find_crossval(model: str) -> str | None:
    """Return the run id if `model` (`RUN_ID` or `runs:/RUN_ID`) is a cross-validation's run, else None.

    Raises:
        UserError: If there is no run of this id.
    """
    match = re.fullmatch(r"(?:runs:/)?([0-9a-f]{32})", model)
    if match is None or Tracking().run(match[1]).data.tags.get("glioflow.kind") != "crossval":
        return None
    return match[1]


def read_out_of_fold(run_id: str) -> OutOfFold:
    """Read what a cross-validation recorded.

    Raises:
        UserError: If it has not finished.
    """
    tracking = Tracking()
    run = tracking.run(run_id)
    if run.info.status != "FINISHED":
        hint = f"finish it with `glioflow crossval --resume {run_id}`"
        raise UserError("a cross-validation must be finished first", f"{run_id}, {run.info.status}", hint=hint)
    experiment = yaml.safe_load(tracking.download(f"runs:/{run_id}/experiment.yaml").read_text())
    rows: list[CaseScores] = tracking.read_json(run_id, OUT_OF_FOLD)
    return OutOfFold(
        run_id=run_id,
        experiment=experiment["name"],
        architecture=experiment["model"]["architecture"],
        num_parameters=_num_parameters(tracking, experiment["name"], run_id),
        parts=TargetSettings.model_validate(experiment["target"]).names,
        folds=len({row["fold"] for row in rows}),
        rows=rows,
        datasets=datasets_of(run, "testing"),
    )


def finished_folds(tracking: Tracking, experiment: str, run_id: str) -> dict[int, str]:
    """Return the run of each finished fold of a cross-validation by its number, from 0."""
    finished: dict[int, str] = {}
    for child in tracking.children(experiment, run_id):  # newest first
        if child.info.status == "FINISHED":
            finished.setdefault(int(child.data.tags["glioflow.fold"]), child.info.run_id)
    return finished


def _num_parameters(tracking: Tracking, experiment: str, run_id: str) -> int | None:
    for fold in tracking.children(experiment, run_id):
        try:
            return int(tracking.read_json(fold.info.run_id, f"{BUNDLE}/model.json")["num_parameters"])
        except UserError:  # the fold failed before it had a bundle, or the bundle was removed
            continue
    return None
