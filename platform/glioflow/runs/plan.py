"""One training as a thing that travels to a worker: what to train, on what, and where its files go."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from glioflow import atomic, bundle, cluster
from glioflow.bundle.measurement import measure
from glioflow.bundle.prediction import Predictor
from glioflow.clock import now
from glioflow.config import Experiment
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.remote import open_here
from glioflow.data.preprocessing.pipeline import renamed_tissues
from glioflow.data.splits import Split
from glioflow.evaluation import flatten_summary, summarize
from glioflow.features import measure_mask
from glioflow.runs.launch import Setting
from glioflow.runs.progress import PROGRESS, ProgressFile
from glioflow.runs.train.checkpoints import Behind
from glioflow.runs.train.overlays import Watch
from glioflow.runs.train.selection import choose_for, training_statistics
from glioflow.tracking.spool import run_folder, spool_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from glioflow.training.checkpoints import Checkpoint
    from glioflow.training.loop import Fitted, Report

FITTED_ON = {"weights": "train", "early_stopping": "val", "postprocess": "val", "flair_threshold_baseline": "train"}
FINAL_FITTED_ON = {"weights": "train and val", "flair_threshold_baseline": "train and val"}


# Of a run's work, the part that is done when its last epoch ends; the test patients are left.
TRAINED = 0.9


class Fold(BaseModel):
    """One of the folds that a trial goes through, one after another.

    Attributes:
        number: From 0.
        before: `val/dice_mean` of the bundles of the folds before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    number: int
    before: tuple[float, ...] = ()


class Plan(BaseModel):
    """What a worker needs to know.

    Attributes:
        experiment: All settings.
        prepared: Folder of the prepared cohort, reachable from every node.
        split: Who trains, validates and tests.
        run_id: MLflow run that the training writes to.
        tracking_uri: Of MLflow.
        folder: Where this training's files go, reachable from every node.
        created: UTC, ISO 8601.
        watched: Whether a few validation cases are drawn over the epochs, into `folder`.
        fold: Of a trial on several folds; its bundle lies below `folder` then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    experiment: Experiment
    prepared: Path
    split: Split
    run_id: str
    tracking_uri: str
    folder: Path
    created: str
    watched: bool = False
    fold: Fold | None = None

    @property
    def part(self) -> str:
        """Name of the folder in which a fold keeps what is its own; empty without folds."""
        return "" if self.fold is None else f"fold-{self.fold.number}"

    @property
    def bundle(self) -> Path:
        """Where the bundle is written."""
        return self.folder / self.part / "bundle"

    @property
    def features(self) -> Path:
        """Where a fold's shape features by validation case are written, for a search that needs them."""
        return self.folder / self.part / "features.json"

    @property
    def progress(self) -> Path:
        """Where the worker notes how far it has come."""
        return self.folder / self.part / PROGRESS

    @property
    def spool(self) -> Path:
        """What waits here while MLflow is away."""
        return spool_of(self.run_id)

    def logged(self, epoch: int, metrics: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """Return step and metrics of an epoch as its run has them.

        Of a fold, steps go on from those before, `val/dice` is the mean with what those reached, and its own value is
        `val_fold_<number>/dice`.
        """
        if self.fold is None:
            return epoch, dict(metrics)
        number, own = self.fold.number, metrics.get("val/dice")
        step = number * self.experiment.training.epochs + epoch
        if own is None:  # an epoch without a full validation
            return step, dict(metrics)
        mean = (sum(self.fold.before) + own) / (number + 1)
        return step, {**metrics, "val/dice": mean, f"val_fold_{number}/dice": own}


def plan_of(setting: Setting, run_id: str, *, watched: bool = False) -> Plan:
    """Return the plan of a training on a whole setting, which writes to the run `run_id`."""
    return Plan(
        experiment=setting.experiment,
        prepared=setting.cohort.path,
        split=setting.split,
        run_id=run_id,
        tracking_uri=setting.tracking.uri,
        folder=run_folder(run_id),
        created=now(),
        watched=watched,
    )


def train_plan(
    plan: Plan,
    report: "Report",
    *,
    rank: int = 0,
    world_size: int = 1,
    resume: Path | None = None,
    keep: "Callable[[Checkpoint], None] | None" = None,
    behind: Behind | None = None,
) -> dict[str, float | None] | None:
    """Train, choose threshold and clean-up on the validation patients, and write the bundle.

    Args:
        plan: What.
        report: Told after each epoch, on every worker.
        rank: This worker's number.
        world_size: Of how many.
        resume: Folder of a checkpoint to go on from.
        keep: Given checkpoints within an epoch, on every worker; None where nobody wants them.
        behind: Draws, and waits for what it does of an epoch at the end of the next one; None draws at once.

    Returns:
        Validation metrics of the bundle on rank 0 (none of a final training), None on the others.
    """
    cohort = open_here(plan.prepared)
    train, val = _dealt(plan, cohort)
    training = plan.experiment.training
    drawable = [epoch for epoch in range(training.epochs) if training.validates_in_full(epoch)]
    watch = Watch(plan.folder, val, epochs=drawable) if plan.watched and rank == 0 else None
    progress = ProgressFile(plan.progress) if rank == 0 else None
    network, fitted = fit_network(
        plan.experiment,
        train,
        val,
        report,
        rank=rank,
        world_size=world_size,
        resume=resume,
        keep=keep,
        behind=behind,
        watch=watch,
        progress=progress,
    )
    if progress is None:
        return None
    progress.note("choosing threshold and clean-up", TRAINED)
    return _finish(plan, cohort, Predictor(_describe(plan, cohort, network), network), fitted)


def _dealt(plan: Plan, cohort: PreparedCohort) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """Return who is learned from and who is chosen by: nobody, where the training is final."""
    split = plan.split
    if plan.experiment.training.final:
        return cohort.cases([*split.train, *split.val]), []
    return cohort.cases(split.train), cohort.cases(split.val)


def fit_network(
    experiment: Experiment,
    train: Sequence[PreparedCase],
    val: Sequence[PreparedCase],
    report: "Report",
    *,
    rank: int = 0,
    world_size: int = 1,
    resume: Path | None = None,
    keep: "Callable[[Checkpoint], None] | None" = None,
    behind: Behind | None = None,
    watch: Watch | None = None,
    progress: ProgressFile | None = None,
) -> tuple["nn.Module", "Fitted"]:
    """Build the experiment's network and train it.

    Args:
        experiment: All settings.
        train: Labeled cases to learn from.
        val: Labeled cases that choose the epoch.
        report: As for `train_plan`, and so are the others.
        rank: This worker's number.
        world_size: Of how many.
        resume: Folder of a checkpoint to go on from.
        keep: Given checkpoints within an epoch.
        behind: Draws while the training goes on.
        watch: Draws a few validation cases.
        progress: Is told of every step and every validation case.

    Returns:
        The network as it ended, on its device, and what is kept of the training.
    """
    from glioflow.training import fitting

    settings = experiment.resolved
    notes = None if progress is None else _Notes(progress, settings.training.epochs, len(val))

    def show(case: PreparedCase, predicted: "NDArray[np.bool_]") -> None:
        if watch is not None:
            watch.see(case, predicted)
        if notes is not None:
            notes.case()

    def validate(network: "nn.Module") -> dict[str, float]:
        return fitting.validate(
            network,
            val,
            target=settings.target,
            inference=settings.inference,
            postprocess=settings.postprocess,
            precision=settings.training.precision,
            rank=rank,
            world_size=world_size,
            show=show if watch or notes else None,
        )

    def glance(network: "nn.Module") -> dict[str, float]:
        return fitting.validate_at_network_size(
            network,
            val,
            target=settings.target,
            inference=settings.inference,
            threshold=settings.postprocess.threshold,
            precision=settings.training.precision,
            rank=rank,
            world_size=world_size,
        )

    def report_drawn(epoch: int, metrics: dict[str, float], write_checkpoint: "Checkpoint") -> None:
        if behind is not None:
            behind.wait()
        if watch is not None and behind is not None:
            behind.begin(watch.drawing(epoch))
        elif watch is not None:
            watch.drawing(epoch)()
        report(epoch, metrics, write_checkpoint)

    return fitting.build_and_fit(
        settings.model,
        settings.loss,
        settings.target,
        settings.training,
        train,
        validate,
        report_drawn,
        num_threads=settings.training.cpus_per_worker,
        gpu_share=min(1.0, settings.training.gpus or 1.0),
        rank=rank,
        world_size=world_size,
        resume=resume,
        on_step=None if notes is None else notes.step,
        glance=glance,
        keep=keep,
        announced=None if keep is None else cluster.node_ends(),
    )


class _Notes:
    """Notes the progress of a training, step by step and validation case by validation case."""

    def __init__(self, progress: ProgressFile, epochs: int, num_cases: int) -> None:
        self.progress, self.epochs, self.num_cases = progress, epochs, num_cases
        self.epoch = self.cases = 0

    def step(self, taken: int, per_epoch: int) -> None:
        done, step = divmod(taken - 1, per_epoch)
        self.epoch, self.cases = done + 1, 0
        text = f"epoch {self.epoch} of {self.epochs}, step {step + 1} of {per_epoch}"
        self.progress.note(text, TRAINED * taken / (per_epoch * self.epochs))

    def case(self) -> None:
        self.cases += 1
        text = f"epoch {self.epoch} of {self.epochs}, validation case {self.cases} of {self.num_cases}"
        self.progress.note(text, TRAINED * self.epoch / self.epochs)


def _describe(plan: Plan, cohort: PreparedCohort, network: "nn.Module") -> bundle.Description:
    """Return what the bundle will say, but for what is chosen on validation patients."""
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
    chosen = {"postprocess": choose_for(predictor, val), **dict(training_statistics(cohort, train))}
    predictor = Predictor(predictor.description.model_copy(update=chosen), network)
    summary: dict[str, float | None] = {}
    if val:
        summary = {**flatten_summary(summarize(measure(predictor, val)), "val"), "val/best_epoch": float(fitted.epoch)}
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
