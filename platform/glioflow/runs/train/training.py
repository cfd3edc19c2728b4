"""A worker's execution of a plan: train the network, choose thresholds and clean-up, write the bundle."""

from typing import TYPE_CHECKING

from glioflow import atomic, bundle
from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.remote import open_here
from glioflow.data.preprocessing.pipeline import renamed_tissues
from glioflow.data.splits import Split
from glioflow.evaluation import flatten_summary, summarize
from glioflow.features import measure_mask
from glioflow.runs.plan import Plan
from glioflow.runs.progress import TRAINED, ProgressFile
from glioflow.runs.train.overlays import Watch
from glioflow.runs.train.selection import choose_and_measure, training_statistics
from glioflow.runs.train.worker import Worker, fit_network

if TYPE_CHECKING:
    from torch import nn

    from glioflow.training.loop import Fitted

FITTED_ON = {"weights": "train", "early_stopping": "val", "postprocess": "val", "flair_threshold_baseline": "train"}
FINAL_FITTED_ON = {"weights": "train and val", "flair_threshold_baseline": "train and val"}


def train_plan(plan: Plan, worker: Worker) -> dict[str, float | None] | None:
    """Train, choose threshold and clean-up on the validation patients, and write the bundle.

    Args:
        plan: What to train.
        worker: The worker that trains, and its listeners.

    Returns:
        Validation metrics of the bundle on rank 0 (none of a final training), None on the others.
    """
    cohort = open_here(plan.prepared)
    train, val = _dealt(plan, cohort)
    training, is_first = plan.experiment.training, worker.rank == 0
    drawable = [epoch for epoch in range(training.epochs) if training.validates_in_full(epoch)]
    watch = Watch(plan.folder, val, epochs=drawable) if plan.watched and is_first else None
    progress = ProgressFile(plan.progress) if is_first else None
    network, fitted = fit_network(plan.experiment, train, val, worker, watch=watch, progress=progress)
    if progress is None:
        return None
    progress.note("choosing threshold and clean-up", TRAINED)
    return _finish(plan, cohort, Predictor(_describe(plan, cohort, network), network), fitted)


def _dealt(plan: Plan, cohort: PreparedCohort) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """Return the training cases and the validation cases; a final training has no validation cases."""
    split = plan.split
    if plan.experiment.training.final:
        return cohort.cases([*split.train, *split.val]), []
    return cohort.cases(split.train), cohort.cases(split.val)


def _describe(plan: Plan, cohort: PreparedCohort, network: "nn.Module") -> bundle.Description:
    """Return the bundle's description, without what is chosen on validation patients."""
    experiment, manifest = plan.experiment, cohort.manifest
    return bundle.describe(
        experiment,
        postprocess=experiment.postprocess,
        channels=cohort.source_channels,
        network_channels=cohort.channels,
        origin=bundle.Origin(
            experiment=experiment.name,
            cohort_format=manifest.format,
            fingerprint=manifest.fingerprint,
            source_fingerprint=manifest.source_fingerprint,
            split=plan.split.digest,
            test=plan.split.test_digest,
            num_patients=_num_patients(cohort, plan.split),
            fitted_on=FINAL_FITTED_ON if experiment.training.final else FITTED_ON,
            created=plan.created,
            labels=renamed_tissues(manifest.labels, manifest.steps),
        ),
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def _finish(plan: Plan, cohort: PreparedCohort, predictor: Predictor, fitted: "Fitted") -> dict[str, float | None]:
    """Write the bundle of the kept weights; threshold and clean-up are chosen on the validation patients."""
    network, (train, val) = predictor.network, _dealt(plan, cohort)
    network.load_state_dict(fitted.weights)
    settings, rows = choose_and_measure(predictor, val)
    chosen = {"postprocess": settings, **dict(training_statistics(cohort, train))}
    predictor = Predictor(predictor.description.model_copy(update=chosen), network)
    summary: dict[str, float | None] = {}
    if rows:
        summary = {**flatten_summary(summarize(rows), "val"), "val/best_epoch": float(fitted.epoch)}
    if plan.fold is not None and "c_index" in plan.experiment.search.objectives:
        features = {case.record.id: predicted_features(predictor, case) for case in val}
        atomic.write_json(plan.features, features)
    bundle.save(plan.bundle, predictor.description.model_copy(update={"metrics": summary}), fitted.weights)
    return summary


def predicted_features(predictor: Predictor, case: PreparedCase) -> dict[str, float | None]:
    """Return the shape features of the mask that a network gives a case, as the survival stage takes them."""
    labels = predictor.segment(case.image, case.record.moves).labels
    return measure_mask(labels > 0, spacing_mm=case.record.spacing_mm).volume


def _num_patients(cohort: PreparedCohort, split: Split) -> dict[str, int]:
    return {
        part: len({cohort.case(case_id).record.patient for case_id in getattr(split, part)})
        for part in ("train", "val", "test")
    }
