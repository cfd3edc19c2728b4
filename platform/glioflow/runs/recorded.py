"""The logged inputs of a run, for runs that repeat or continue it."""

from pathlib import Path
from typing import Any

from glioflow.config import load_recorded, override
from glioflow.data.prepared.remote import recorded_cohort
from glioflow.data.splits import Split
from glioflow.errors import UserError, option
from glioflow.runs.launch import Setting, open_cohort_for
from glioflow.tracking import Tracking


def check_finished(run: Any, verb: str) -> None:
    """Refuse a run that is not finished for what needs a whole one, such as `registered`; raises `UserError`."""
    run_id, status = run.info.run_id, run.info.status
    if status != "FINISHED":
        is_training = run.data.tags.get("glioflow.kind") == "train"
        hint = f"finish it with {option('resume', run_id)} first" if is_training else "give the id of a finished run"
        raise UserError(f"only a finished run can be {verb}", f"run {run_id}, {status}", hint=hint)


def is_scored(run: Any) -> bool:
    """Return whether a run has the scores of its test patients, if it is of a kind that scores some after training."""
    return run.data.tags.get("glioflow.kind") not in ("train", "fold") or any(
        key.startswith("test/") for key in run.data.metrics
    )


def recorded_setting(tracking: Tracking, run: Any, data: str | Path | None) -> Setting:
    """Return experiment, cohort and split of a run that trained.

    Args:
        tracking: Tracking that has the run.
        run: The run as MLflow returns it.
        data: Present folder of its cohort; None takes the recorded path.

    Raises:
        UserError: If the cohort is not there, or another one.
    """
    run_id, tags = run.info.run_id, run.data.tags
    experiment = load_recorded(tracking.download(f"runs:/{run_id}/experiment.yaml"))
    size = run.data.metrics.get("train/batch_size")  # a cross-validation's run has none
    if experiment.training.batch_size == "auto" and size is not None:  # another device might choose another batch size
        experiment = override(experiment, {"training.batch_size": int(size)})
    # A trial uses its search's split and cohort unless it has its own.
    holder = run_id if tracking.has_artifact(run_id, "split.json") else tags["mlflow.parentRunId"]
    split = Split.model_validate(tracking.read_json(holder, "split.json"))
    source = data or recorded_cohort(Path(tracking.read_json(holder, "cohort.json")["path"]))
    if isinstance(source, Path) and not source.exists():
        raise UserError(
            f"the recorded cohort {source} does not exist", source, hint=f"give it with {option('data', 'DIR')}"
        )
    cohort = open_cohort_for(experiment.preprocess, source, experiment.target)
    if cohort.manifest.fingerprint != tags["glioflow.cohort"]:
        rule = f"the cohort must be the one that the run recorded (fingerprint {tags['glioflow.cohort']})"
        raise UserError(
            rule, f"{source} with {cohort.manifest.fingerprint}", hint=f"give that one with {option('data', 'DIR')}"
        )
    return Setting(experiment, cohort, split, tracking)
