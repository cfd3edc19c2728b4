"""The survival stage as a run: join mask features with a clinical table, fit, evaluate, log."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioflow.cluster.storage import prepared_home
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCohort, is_prepared
from glioflow.data.prepared.remote import local_folder
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.errors import UserError, option
from glioflow.evaluation.patients import CaseScores, person_of
from glioflow.features import measure_mask
from glioflow.progress import Say, counted, quiet
from glioflow.reports.survival_figure import risk_groups_figure
from glioflow.runs.crossval.out_of_fold import OUT_OF_FOLD
from glioflow.survival import (
    SurvivalEvaluation,
    SurvivalSettings,
    SurvivalStage,
    read_clinical,
)
from glioflow.survival.patient_features import join_features
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import Dataset, Use, cohort_dataset, datasets_of, table_dataset
from glioflow.tracking.run import Opening, Run, open_run

EXPERIMENT = "survival"
STAGE = "survival.json"
# Tag of a run that measured out-of-fold masks: the id of the cross-validation's run.
MASKS_OF = "glioflow.masks_of"
_RUN_ID = re.compile(r"\b[0-9a-f]{32}\b")
Features = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class SurvivalFitted:
    """Result of a fit; a model that can only be evaluated has no stage."""

    run_id: str
    masks: str
    stage: SurvivalStage | None
    evaluation: SurvivalEvaluation


@dataclass(frozen=True)
class Shapes:
    """Shape features of tumors.

    Attributes:
        features: Features of each case, by their key in `MaskFeatures.volume`.
        persons: The patient of each case.
        masks: Description of the masks that were measured.
        run_id: The cross-validation whose out-of-fold masks they are; None for other masks.
        datasets: Their cohort.
    """

    features: Features
    persons: dict[str, str]
    masks: str
    datasets: tuple[Dataset, ...]
    run_id: str | None = None

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a run that measured these features."""
        return {"glioflow.masks": self.masks} | ({MASKS_OF: self.run_id} if self.run_id else {})


def fit_survival(
    settings: SurvivalSettings,
    clinical: Path,
    *,
    outcomes: Path | None = None,
    masks: str = "none",
    cohort: str | Path | None = None,
    say: Say = quiet,
) -> SurvivalFitted:
    """Fit and judge the survival stage and log both as a run.

    Args:
        settings: Settings of the stage.
        clinical: The clinical table.
        outcomes: A table of follow-up besides it.
        masks: Id of a cross-validation run whose out-of-fold masks give the shape features; `manual` for the cohort's
            own masks; `none` for clinical columns alone.
        cohort: Needed for `manual`: raw, prepared, or a prepared one's URI.
        say: Called after each case that is measured.

    Raises:
        UserError: If the tables, the run or the cohort do not fit, or there are too few patients or events.
    """
    table = read_clinical(clinical, outcomes=outcomes)  # first: what follows loads MLflow and the statistics
    from glioflow.survival.evaluation import evaluate_stage
    from glioflow.survival.stage_fitting import fit_stage

    tracking = Tracking()
    shapes = Shapes({}, {}, "none", ()) if masks == "none" else measure_shapes(tracking, masks, cohort, "training", say)
    if masks == "none":
        settings = settings.model_copy(update={"shape_features": ()})
    else:
        table = join_features(table, shapes.features, shapes.persons)
    evaluation = evaluate_stage(table, settings)
    stage = fit_stage(table, settings, evaluation=evaluation) if settings.storable else None
    tables = [table_dataset(path, "training") for path in (clinical, outcomes) if path is not None]
    opening = Opening(
        kind="survival",
        experiment=EXPERIMENT,
        name=f"survival-{evaluation.task}",
        tags={**shapes.tags, "glioflow.task": evaluation.task},
        params={"survival": settings.model_dump(mode="json"), "masks": shapes.masks, "clinical": clinical.name},
        datasets=(*shapes.datasets, *tables),
    )
    with open_run(tracking, opening) as run:
        _log(run, stage, evaluation)
    return SurvivalFitted(run.run_id, shapes.masks, stage, evaluation)


def _log(run: Run, stage: SurvivalStage | None, evaluation: SurvivalEvaluation) -> None:
    metrics = {f"survival/{name}": value.value for name, value in evaluation.metrics.items()}
    run.log_metrics({**metrics, "survival/beats_baselines": float(evaluation.beats_baselines)})
    if stage is not None:
        run.log_json(STAGE, stage.to_json())
    run.log_json("evaluation.json", evaluation.model_dump(mode="json"))
    if (groups := evaluation.risk_groups) is not None:
        title = f"{evaluation.task}: {evaluation.num_patients} patients, risk predicted out of fold"
        figure = risk_groups_figure(groups.days, groups.survival, log_rank_p=groups.log_rank_p, title=title)
        run.log_bytes("risk_groups.png", figure)


def measure_shapes(
    tracking: Tracking, masks: str, cohort: str | Path | None, used_for: Use, say: Say = quiet
) -> Shapes:
    """Return the shape features of the masks of a cohort or of a cross-validation's run.

    Args:
        tracking: Tracking that has the run.
        masks: Id of a cross-validation run, or `manual`.
        cohort: Needed for `manual`: raw, prepared, or a prepared one's URI.
        used_for: Purpose of the cohort in the run.
        say: Called after each case that is measured.

    Raises:
        UserError: If there is no such run, or it has no out-of-fold masks, or the cohort is missing.
    """
    if masks == "manual":
        if cohort is None:
            raise UserError(f"{option('masks', 'manual')} needs the cohort whose masks it measures", hint="give COHORT")
        path = local_folder(cohort, prepared_home())
        return Shapes(*_manual_features(path, say), "manual", (cohort_dataset(path, used_for),))
    if not re.fullmatch("[0-9a-f]{32}", masks):
        words = ["manual"] if used_for == "testing" else ["manual", "none"]
        rule = f"{option('masks')} must be {' or '.join(words)}, or the run id of a cross-validation"
        raise UserError(rule, masks, words)
    crossval = tracking.run(masks)
    if not tracking.has_artifact(masks, OUT_OF_FOLD):
        rule = f"{option('masks')} must be the run id of a cross-validation, 'manual' or 'none'"
        kind, status = crossval.data.tags.get("glioflow.kind", "unknown"), crossval.info.status
        hint = "finish it with `glioflow crossval --resume`" if kind == "crossval" else "run `glioflow crossval` first"
        raise UserError(rule, f"run {masks} of kind {kind}, {status}", hint=hint)
    rows: list[CaseScores] = tracking.read_json(masks, OUT_OF_FOLD)
    features = {row["id"]: row["features"] for row in rows}
    persons = {row["id"]: person_of(row) for row in rows}
    return Shapes(features, persons, f"out-of-fold masks of run {masks}", datasets_of(crossval, used_for), masks)


def _manual_features(path: Path, say: Say) -> tuple[Features, dict[str, str]]:
    features: Features = {}
    persons = {}
    if is_prepared(path):
        prepared = PreparedCohort(path)
        for case in counted(prepared.cases(record.id for record in prepared.records), "case", say):
            if case.record.areas_px is not None:
                measured = measure_mask(case.reference() > 0, spacing_mm=case.record.spacing_mm, brain=case.brain())
                features[case.record.id] = measured.volume
                persons[case.record.id] = case.record.patient
    else:
        cohort = open_cohort(path)
        for entry in counted(cohort.cases, "case", say):
            read = cohort.read_files(entry)
            if read.mask is not None:
                brain = locate_brain(read.image)
                features[read.id] = measure_mask(read.mask > 0, spacing_mm=read.spacing_mm, brain=brain).volume
                persons[read.id] = read.patient
    if not features:
        hint = f"give a labeled cohort, or {option('masks')} with a cross-validation's run id"
        raise UserError(f"{option('masks', 'manual')} needs a cohort with masks", path, hint=hint)
    return features, persons


def masks_of(run: Any) -> str | None:
    """Return the run id of the cross-validation whose out-of-fold masks a run measured, or None."""
    tags = run.data.tags
    if MASKS_OF in tags:
        return str(tags[MASKS_OF])
    in_words = _RUN_ID.search(tags.get("glioflow.masks", ""))  # the only tag of earlier versions
    return None if in_words is None else in_words[0]


def read_stage(run_id: str) -> SurvivalStage:
    """Return the stage that a run logged; raises `UserError` if it has none."""
    tracking = Tracking()
    tracking.run(run_id)
    return SurvivalStage.from_json(tracking.read_json(run_id, STAGE))
