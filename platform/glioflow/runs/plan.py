"""The plan of one training, sent to a worker: experiment, cohort and folders."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from glioflow.clock import now
from glioflow.config import Experiment
from glioflow.data.splits import Split
from glioflow.runs.launch import Setting
from glioflow.runs.progress import PROGRESS
from glioflow.tracking.spool import run_folder, spool_of


class Fold(BaseModel):
    """One of the folds that a trial goes through, one after another.

    Attributes:
        number: Number of the fold, from 0.
        before: `val/dice_mean` of the bundles of the folds before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    number: int
    before: tuple[float, ...] = ()


class Plan(BaseModel):
    """Everything a worker needs to know.

    Attributes:
        experiment: All settings.
        prepared: Folder of the prepared cohort, reachable from every node.
        split: The split into training, validation and test cases.
        run_id: MLflow run that the training writes to.
        tracking_uri: Address of MLflow.
        folder: Folder of this training's files, reachable from every node.
        created: UTC, ISO 8601.
        watched: Whether a few validation cases are drawn over the epochs, into `folder`.
        fold: Fold of a trial on several folds; its bundle is below `folder` then.
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
        """Name of a fold's own folder; empty without folds."""
        return "" if self.fold is None else f"fold-{self.fold.number}"

    @property
    def bundle(self) -> Path:
        """Where the bundle is written."""
        return self.folder / self.part / "bundle"

    @property
    def features(self) -> Path:
        """Where a fold writes shape features by validation case, for a search that needs them."""
        return self.folder / self.part / "features.json"

    @property
    def progress(self) -> Path:
        """Where the worker writes its progress."""
        return self.folder / self.part / PROGRESS

    @property
    def spool(self) -> Path:
        """Records waiting here while MLflow is unreachable."""
        return spool_of(self.run_id)

    def logged(self, epoch: int, metrics: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """Return the step and metrics of an epoch as logged in its run.

        For a fold, steps continue from earlier folds, `val/dice` is the mean with theirs, and its own value is
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
    """Return the plan of a training on a setting, which writes to the run `run_id`."""
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
