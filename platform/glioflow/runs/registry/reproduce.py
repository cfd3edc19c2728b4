"""Repeat a run from its logged inputs, and report the differences."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from glioflow import bundle, cluster
from glioflow.errors import RunFailed, UserError
from glioflow.progress import Say, quiet
from glioflow.runs.launch import check_machine, check_resources, opening_of
from glioflow.runs.plan import plan_of
from glioflow.runs.progress import followed, shown
from glioflow.runs.recorded import check_finished, recorded_setting
from glioflow.runs.train.run import fit_on_train
from glioflow.runs.train.test_patients import score_test_patients
from glioflow.tracking import BUNDLE, PATIENCE_S, Tracking
from glioflow.tracking.lineage import ENVIRONMENT, environment
from glioflow.tracking.run import RESUMED_WITH, open_run

KINDS = ("train", "trial", "fold")
# Metrics of speed depend on the machine, not on the run.
_COMPARED = ("val/", "test/")
_HISTORIES = ("train/loss", "val/dice")
_CODE = ("glioflow.version", "glioflow.source", RESUMED_WITH, "mlflow.source.git.commit", "glioflow.dirty", "python")


class Difference(TypedDict):
    """One difference: in a metric, a weight file, the code or the installed packages."""

    what: str
    name: str
    before: object
    after: object


@dataclass(frozen=True)
class Reproduced:
    """Result of repeating a run.

    Attributes:
        run_id: Id of the new run.
        original: Id of the old run.
        compared: How many numbers were.
        differences: Numbers that differ, each with `what`, `name`, `before`, `after`; then, if any does, what differs
            in code and environment.
        environment: Differences in the environment, even where all numbers agree.
    """

    run_id: str
    original: str
    compared: int
    differences: list[Difference]
    environment: list[Difference]

    @property
    def identical(self) -> bool:
        """Whether all numbers and weights are exactly the same."""
        return not self.differences


def reproduce(run_id: str, data: str | Path | None = None, *, say: Say = quiet) -> Reproduced:
    """Rebuild the experiment of a finished training, trial or fold from its logged inputs, repeat it and compare.

    Args:
        run_id: Id of that run.
        data: The cohort; None takes the one that the run recorded.
        say: Called with each line of progress.

    Raises:
        UserError: If the run trained nothing, is not finished, or its cohort is gone or another one.
        RunFailed: If the training failed.
    """
    tracking = Tracking()
    before = tracking.run(run_id)
    kind = before.data.tags.get("glioflow.kind")
    if kind not in KINDS:
        raise UserError("only a run that trained one network can be reproduced", f"run {run_id} of kind {kind}", KINDS)
    check_finished(before, "reproduced")
    setting = recorded_setting(tracking, before, data)
    check_machine(setting.experiment)
    cluster.connect()
    if kind == "trial" and (folds := setting.experiment.search.folds) > 1:
        rule, hint = (
            "only a run that trained one network can be reproduced",
            "train its best.yaml, and reproduce that run",
        )
        raise UserError(rule, f"a trial that trained {folds}, on {folds} folds", hint=hint)
    check_resources(setting.experiment)
    name, tags = f"{before.info.run_name}-again", {"glioflow.reproduces": run_id}
    with open_run(tracking, opening_of(setting, "reproduction", name, tags=tags)) as run:
        again = run.run_id
        say(f"run {again} repeats run {run_id}")
        plan = plan_of(setting, again)
        with shown({"": plan.progress}, say), followed(plan.progress, plan.experiment.training.epochs, say):
            metrics = fit_on_train(plan, say=say)
        if kind != "trial":
            metrics = {**metrics, **score_test_patients(plan).metrics}
        run.log_metrics(metrics)
        run.close(patience_s=PATIENCE_S)  # the comparison reads it from MLflow
        weights = _weights(tracking, run_id), bundle.read_description(plan.bundle).files[bundle.WEIGHTS]
        compared, differences = _compare_numbers(tracking, run_id, again)
        if weights[0] is not None and weights[0] != weights[1]:
            differences.append(_difference("weights", bundle.WEIGHTS, *weights))
        around = _compare_environment(tracking, run_id, again)
        run.set_tags({"glioflow.identical": str(not differences).lower()})
    return Reproduced(again, run_id, compared, [*differences, *(around if differences else [])], around)


def _weights(tracking: Tracking, run_id: str) -> str | None:
    """Return the digest of a run's weights; None if its bundle was removed."""
    if not tracking.has_artifact(run_id, BUNDLE):
        return None
    folder = tracking.download(f"runs:/{run_id}/{BUNDLE}/{bundle.MODEL}").parent
    return bundle.read_description(folder).files[bundle.WEIGHTS]


def _compare_numbers(tracking: Tracking, before: str, after: str) -> tuple[int, list[Difference]]:
    """Return the count of numbers that both runs have, and those that are not exactly equal."""
    was, now_ = _numbers(tracking, before), _numbers(tracking, after)
    names = sorted(was.keys() & now_.keys())
    if not names:
        raise RunFailed(f"runs {before} and {after} have no metric in common; the second one may have been interrupted")
    return len(names), [_difference("metric", name, was[name], now_[name]) for name in names if was[name] != now_[name]]


def _numbers(tracking: Tracking, run_id: str) -> dict[str, float]:
    last = {k: v for k, v in tracking.run(run_id).data.metrics.items() if k.startswith(_COMPARED)}
    steps = {f"{k} of epoch {s}": v for k in _HISTORIES for s, v in tracking.metric_steps(run_id, k).items()}
    return {**last, **steps}


def _compare_environment(tracking: Tracking, before: str, after: str) -> list[Difference]:
    was, now_ = tracking.run(before).data.tags, tracking.run(after).data.tags
    differences = [
        _difference("code", key, was.get(key), now_.get(key)) for key in _CODE if was.get(key) != now_.get(key)
    ]
    old, new = _packages(_recorded_environment(tracking, before)), _packages(environment())
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)) if old else []
    return differences + [_difference("environment", name, old.get(name), new.get(name)) for name in names]


def _recorded_environment(tracking: Tracking, run_id: str) -> str:
    """Return the installed packages; children of a search or cross-validation share their parent's list."""
    holder: str | None = run_id
    while holder:
        if tracking.has_artifact(holder, ENVIRONMENT):
            return tracking.download(f"runs:/{holder}/{ENVIRONMENT}").read_text()
        holder = tracking.run(holder).data.tags.get("mlflow.parentRunId")
    return ""


def _packages(text: str) -> dict[str, str]:
    """Return versions by package, and the machine named in the first line."""
    machine, *lines = text.splitlines() or [""]
    packages = {name: version for name, _, version in (line.partition("==") for line in lines)}
    return {"machine": machine.removeprefix("# "), **packages} if lines else {}


def _difference(what: str, name: str, before: object, after: object) -> Difference:
    return {"what": what, "name": name, "before": before, "after": after}
