"""The model of a cross-validation: its folds' networks as one bundle, logged as an artifact of its run."""

import shutil
import uuid
from pathlib import Path

from glioflow.bundle import read_description
from glioflow.bundle.ensemble import save_ensemble
from glioflow.bundle.prediction import Predictor
from glioflow.clock import now
from glioflow.cluster.storage import home
from glioflow.data.prepared.remote import open_here, recorded_cohort
from glioflow.data.splits import Split
from glioflow.errors import UserError, option
from glioflow.evaluation import flatten_summary
from glioflow.evaluation.patients import person_of
from glioflow.runs.crossval.out_of_fold import finished_folds, read_out_of_fold
from glioflow.runs.scoring import score_cases
from glioflow.runs.train.test_patients import PER_PATIENT
from glioflow.tracking import BUNDLE, Tracking
from glioflow.tracking.trained import COHORT, ENSEMBLE_SPLIT, SPLIT, known_cases
from glioflow.version import __version__

# In the card of an ensemble.
_FITTED_ON = {
    "weights": "each network on its fold's training patients",
    "postprocess": "medians of the folds' choices, each on its validation patients",
}


def has_ensemble(tracking: Tracking, run_id: str) -> bool:
    """Say whether the ensemble of a cross-validation's folds exists."""
    return tracking.has_artifact(run_id, ENSEMBLE_SPLIT)


def make_ensemble(tracking: Tracking, run_id: str) -> None:
    """Log the ensemble of a finished cross-validation's folds as its run's bundle, unless it exists.

    Its scores on the test patients are logged as for a training.

    Raises:
        UserError: If the cross-validation is not finished, a fold's bundle is gone, or test patients were in the folds,
            so that nobody is left who could judge the ensemble.
    """
    if has_ensemble(tracking, run_id):
        return
    known = read_out_of_fold(run_id)
    seen = {str(row["id"]) for row in known.rows}
    test = Split.model_validate(tracking.read_json(run_id, SPLIT)).test
    if both := seen & set(test):
        rule = "the test patients must not be in the folds of an ensemble, which they are to judge"
        hint = f"cross-validate with {option('hold_out_test')}, or register a run of `glioflow train`"
        raise UserError(rule, f"{len(both)} of {len(test)} cases", hint=hint)
    split = Split(train=tuple(sorted(seen)), val=(), test=test)
    folds = finished_folds(tracking, known.experiment, run_id)
    if gone := sorted({row["fold"] for row in known.rows} - folds.keys()):
        rule, hint = "an ensemble needs the run of each fold", "restore it in MLflow, or cross-validate again"
        raise UserError(rule, f"none of fold {gone[0] + 1} of {known.folds}", hint=hint)
    folders = {folds[k]: tracking.download(f"runs:/{folds[k]}/{BUNDLE}") for k in sorted(folds)}
    fold = read_description(next(iter(folders.values()))).origin
    patients = known_cases(tracking, run_id)
    judging = {patients[case_id].patient if case_id in patients else case_id for case_id in test}
    people = {"train": len({person_of(row) for row in known.rows}), "val": 0, "test": len(judging)}
    origin = fold.model_copy(
        update={
            "split": split.digest,
            "test": split.test_digest,
            "num_patients": people,
            "fitted_on": _FITTED_ON,
            "created": now(),
            "version": __version__,
        }
    )
    metrics = {key: float(value) for key, value in tracking.run(run_id).data.metrics.items() if key.startswith("oof/")}
    out = home() / "making" / uuid.uuid4().hex
    try:
        save_ensemble(out, folders, origin=origin, metrics=metrics)
        _score_test_patients(tracking, run_id, Predictor.load(out), split)
        tracking.log_folder(run_id, out, folder=BUNDLE)
        # Written last: it marks the bundle as complete.
        tracking.log_json(run_id, ENSEMBLE_SPLIT, split.model_dump(mode="json"))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _score_test_patients(tracking: Tracking, run_id: str, predictor: Predictor, split: Split) -> None:
    """Log the scores on the test patients; nothing if there are none or the prepared cohort is gone."""
    path = recorded_cohort(Path(tracking.read_json(run_id, COHORT)["path"]))
    if not split.test or not path.exists():
        return
    cohort = open_here(path)
    scores = score_cases(predictor, cohort.cases(split.test), known=cohort.cases(split.train))
    tracking.log_metrics(run_id, flatten_summary(scores.summary(), "test"))
    tracking.log_json(run_id, PER_PATIENT, scores.answer(cohort.manifest.format)["per_patient"])
