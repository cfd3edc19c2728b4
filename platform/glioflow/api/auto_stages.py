"""The stages of `auto`: each calls the verb of its name and returns, for the state's file, what came of it."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioflow import cluster
from glioflow.api.auto_runs import describe_trial, seconds_of, step_seconds
from glioflow.api.auto_state import AutoState, Outcome, fingerprint_at, search_of
from glioflow.api.cohorts import check
from glioflow.api.experiments import crossval, search, train
from glioflow.api.planning import plan
from glioflow.api.registry import RegisteredVersion, promote, register
from glioflow.atomic import write_text
from glioflow.bundle import read_description
from glioflow.cluster.remote_home import list_shared
from glioflow.cluster.storage import home
from glioflow.config import Experiment, load_experiment, override
from glioflow.data.formats.detect import open_cohort
from glioflow.errors import RunFailed, UserError, option
from glioflow.planning.budget import Costs, Shares, fold_patients, is_ensemble, least_seconds, share_out
from glioflow.planning.rules import plan_length
from glioflow.progress import Say
from glioflow.quantities import count
from glioflow.reports.auto_page import auto_page
from glioflow.reports.numbers import duration
from glioflow.reports.page import Drawing
from glioflow.runs.analysis.survival import fit_survival
from glioflow.runs.crossval.ensemble import make_ensemble
from glioflow.runs.launch import to_yaml
from glioflow.tracking import Tracking

PLAN, BEST, FINAL, REPORT = "plan.yaml", "best.yaml", "final.yaml", "report.html"
# Steps of the training that is timed.
_TIMED = 30
# More trainings side by side than these gain a search and a cross-validation little.
_MOST_SLOTS = 8


@dataclass(frozen=True)
class Work:
    """What a stage works on."""

    state: AutoState
    say: Say

    @property
    def folder(self) -> Path:
        """Where the files of this `auto` lie."""
        return self.state.folder

    def outcome(self, stage: str) -> Outcome:
        """Return what an earlier stage came to."""
        return self.state.stages[stage]

    def experiment(self, file: str) -> Experiment:
        """Read one of its experiments."""
        return load_experiment(self.folder / file)

    @property
    def costs(self) -> Costs:
        """What trainings take, as measured."""
        return Costs(**self.outcome("measure")["costs"])


def check_cohort(work: Work) -> Outcome:
    """Refuse a cohort with errors."""
    checked = check(work.state.cohort, say=work.say)
    errors = [problem for problem in checked.problems if problem.severity == "error"]
    if errors:
        first = errors[0]
        hint = f"`glioflow data check {work.state.cohort}` lists {count(len(errors), 'error')}"
        where = "" if first.file in first.rule else f"{first.file}: "
        raise UserError(f"{where}{first.rule}", first.value, hint=hint)
    found = {"patients": checked.patients, "slices": checked.slices, "warnings": len(checked.problems)}
    return {**found, "fingerprint": fingerprint_at(Path(work.state.cohort))}


def plan_experiment(work: Work) -> Outcome:
    """Plan the experiment; trainings are booked so that several run side by side."""
    minutes = 60 * work.state.hours / 6
    made = plan(work.state.cohort, name=work.state.name, minutes=minutes, say=work.say)
    cluster.connect()
    total, training = cluster.resources(), made.experiment.training
    cpus = max(1, int(total["CPU"] / total["nodes"]) // _MOST_SLOTS)
    booked = override(made.experiment, {} if training.gpus else {"training.cpus_per_worker": cpus})
    slots = cluster.slots(cpus=booked.training.cpus_per_worker, gpus=booked.training.gpus)
    write_text(work.folder / PLAN, to_yaml(booked))
    write_text(work.folder / "plan-with-reasons.yaml", made.text)
    return {"choices": made.to_json()["choices"], "slots": max(1, slots)}


def measure(work: Work) -> Outcome:
    """Time a short training, and share the budget out."""
    experiment = work.experiment(PLAN)
    short = override(
        experiment,
        {"name": f"{experiment.name}-timed", "training.epochs": 1, "training.steps_per_epoch": _TIMED},
    )
    # It may have been timed before the budget was refused as too short.
    run_id = _finished(work, short, "train") or train(short, work.state.cohort, say=work.say).run_id
    tracking = Tracking()  # what it downloads is there as long as it is
    run = tracking.run(run_id)
    step_s = step_seconds(run, experiment)
    costs = Costs(step_s, max(1.0, seconds_of(run) - _TIMED * step_s))
    slots = work.outcome("plan")["slots"]
    patients = read_description(tracking.find_bundle(run_id)[0]).origin.num_patients
    folds, hold_out = fold_patients(patients, experiment.split.folds)
    # Where validation patients are too few to choose an epoch on, they are too few to choose a network on.
    search = experiment.chooses_on_validation
    shares = share_out(costs, work.state.left_s, folds=folds, slots=slots, search=search, hold_out=hold_out)
    if shares is None:
        least = math.ceil((work.state.spent_s + least_seconds(costs, slots=slots)) / 36) / 100
        raise UserError(
            f"{option('hours')} must be at least {least:g} for this cohort on this machine",
            work.state.hours,
            hint=f"continue with {option('resume', work.state.name)} and {option('hours', least)}, or more",
        )
    text = f"{shares.epochs * shares.steps_per_epoch} steps a training, {shares.folds} folds"
    work.say(f"{step_s:.2g} s a step: {text}, {duration(shares.search_s)} of search")
    measured = {"costs": vars(costs), "shares": vars(shares), "spent_s": work.state.spent_s}
    return {**measured, "folds": folds, "hold_out_test": hold_out}


def search_space(work: Work) -> Outcome:
    """Search around the plan for as long as the budget's share is."""
    shares = Shares(**work.outcome("measure")["shares"])
    planned = lengthened(work.experiment(PLAN), shares)
    name = search_of(work.state.name)
    begun = name in list_shared(home() / "searches")
    training_s = work.costs.training_s(shares.epochs, shares.steps_per_epoch)
    # The trial that begins last ends within the share, too.
    left_s = shares.search_s - training_s - (work.state.spent_s - work.outcome("measure")["spent_s"])
    if not begun and (not shares.search_s or left_s <= 0):
        write_text(work.folder / BEST, to_yaml(planned))
        few = not planned.chooses_on_validation
        why = "the validation patients are too few to choose on" if few else "the budget is too small for a search"
        return {"skipped": why}
    done = search(
        override(planned, {"search.name": name}),
        work.state.cohort,
        trials=shares.trials,
        budget=max(1.0, left_s) / 3600,
        resume=name if begun else None,
        say=work.say,
    )
    write_text(work.folder / BEST, to_yaml(done.experiment))
    tracking = Tracking()
    trials = [describe_trial(run, planned) for run in reversed(tracking.children(planned.name, done.run_id))]
    chosen = {key: done.best[key] for key in ("run_id", "params")}
    step_s = step_seconds(tracking.run(done.best["run_id"]), done.experiment)
    return {"run_id": done.run_id, "best": chosen, "best_step_s": step_s, "trials": trials, "cost": done.cost}


def settle(work: Work) -> Outcome:
    """Give the winner the length that what is left of the budget allows, at the speed that it showed.

    If the winner chooses nothing on validation patients, it learns from them too: of five patients, a fold would learn
    from two.
    """
    shares, search = Shares(**work.outcome("measure")["shares"]), work.outcome("search")
    experiment, slots, costs = work.experiment(BEST), work.outcome("plan")["slots"], work.costs
    if "best_step_s" in search:
        costs = costs.with_step(search["best_step_s"])
    folds, hold_out = work.outcome("measure")["folds"], work.outcome("measure")["hold_out_test"]
    left = share_out(costs, work.state.left_s, folds=folds, slots=slots, search=False, hold_out=hold_out)
    if left is None:  # the search took longer than it should have
        left = Shares(shares.epochs, shares.steps_per_epoch, folds=min(shares.folds, 3))
        work.say("too little of the budget is left, so the work will end after the deadline")
    settled = {
        "training.epochs": left.epochs,
        "training.steps_per_epoch": left.steps_per_epoch,
        "training.final": not experiment.chooses_on_validation,
    }
    write_text(work.folder / FINAL, to_yaml(override(experiment, settled)))
    return {"shares": vars(left)}


def cross_validate(work: Work) -> Outcome:
    """Cross-validate the winner on all but the test patients, unless the others are too few to spare them."""
    experiment, hold_out = work.experiment(FINAL), work.outcome("measure")["hold_out_test"]
    done = crossval(
        experiment,
        work.state.cohort,
        folds=work.outcome("settle")["shares"]["folds"],
        hold_out_test=hold_out,
        resume=_unfinished(work, experiment, "crossval"),
        say=work.say,
    )
    values = done.to_json()
    values["hold_out_test"] = hold_out
    kept = (
        "hold_out_test",
        "run_id",
        "folds",
        "dice_mean",
        "dice_median",
        "dice_ci95",
        "baselines",
        "num_patients",
        "per_fold",
    )
    return {key: values[key] for key in (*kept, "dice_num_empty_both", "volume_interval") if key in values}


def train_final(work: Work) -> Outcome:
    """Train the model that is registered, unless that is the ensemble of the folds."""
    folds, hold_out = work.outcome("crossval")["folds"], work.outcome("crossval")["hold_out_test"]
    if is_ensemble(folds, hold_out=hold_out):
        run_id, tracking = work.outcome("crossval")["run_id"], Tracking()
        make_ensemble(tracking, run_id)
        metrics = tracking.run(run_id).data.metrics
        return {"run_id": run_id, "metrics": _test_dice(metrics), "ensemble_of": folds}
    experiment = work.experiment(FINAL)
    done = train(experiment, work.state.cohort, resume=_unfinished(work, experiment, "train"), say=work.say)
    return {"run_id": done.run_id, "metrics": _test_dice(done.metrics)}


def _test_dice(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {key: value for key, value in metrics.items() if key.startswith("test/dice")}


def fit_survival_stage(work: Work) -> Outcome:
    """Fit the survival stage on the out-of-fold masks, where there are outcomes."""
    clinical = open_cohort(Path(work.state.cohort)).clinical
    if clinical is None:
        return {"skipped": "the cohort has no clinical table"}
    try:
        done = fit_survival(work.experiment(FINAL).survival, clinical, masks=work.outcome("crossval")["run_id"])
    except UserError as error:
        return {"skipped": str(error)}
    return {"run_id": done.run_id, "task": done.evaluation.task, "beats_baselines": done.evaluation.beats_baselines}


def register_model(work: Work) -> Outcome:
    """Register the final model, its survival stage and its volume interval inside."""
    run_id, name = work.outcome("train")["run_id"], work.state.name
    before = [each.version for each in Tracking().versions(name) if each.run_id == run_id]
    if before:  # registered before an interruption
        return {"name": name, "version": before[0]}
    made = register(
        run_id,
        name=name,
        survival=work.outcome("survival").get("run_id"),
        crossval=work.outcome("crossval")["run_id"] if "volume_interval" in work.outcome("crossval") else None,
    )
    return {"name": made.name, "version": made.version}


def put_before_gate(work: Work) -> Outcome:
    """Let the gate decide."""
    version = RegisteredVersion(work.state.name, work.outcome("register")["version"])
    champion = Tracking().champion(version.name)
    if champion is not None and champion.version == version.version:  # decided before an interruption
        return {"decision": "promoted", "reasons": []}
    verdict = promote(version)
    return {"decision": verdict.decision, "reasons": [reason.model_dump(mode="json") for reason in verdict.reasons]}


def write_report(work: Work) -> Outcome:
    """Write the report about all of it."""
    tracking, run_id, drawings = Tracking(), work.outcome("crossval")["run_id"], list[Drawing]()
    for name in ("worst", "median", "best"):
        with suppress(UserError, RunFailed, OSError):
            png = tracking.download(f"runs:/{run_id}/report/{name}.png").read_bytes()
            drawings.append(Drawing(name, png, f"The {name} patient of the cross-validation."))
    stages = {**work.state.stages, "report": {"seconds": 0.0}}
    page = auto_page(work.state.name, stages, hours=work.state.hours, spent_s=work.state.spent_s, cases=drawings)
    write_text(work.folder / REPORT, page)
    return {"path": str(work.folder / REPORT)}


def lengthened(experiment: Experiment, shares: Shares) -> Experiment:
    """Return the plan with the length that the budget allows, and a search that begins with it."""
    by_slices = experiment.training.sampling.patch is None
    choices = plan_length(shares.epochs, shares.steps_per_epoch, "", by_slices=by_slices)
    chosen = {choice.key: choice.value for choice in choices}
    first = [{**point, **{key: chosen[key] for key in point if key in chosen}} for point in experiment.search.first]
    return override(experiment, {**chosen, "search.first": first})


def _finished(work: Work, experiment: Experiment, kind: str) -> str | None:
    """Return the run of this kind that an earlier attempt finished; None where there is none."""
    newest = _own_run(work, experiment, kind)
    return None if newest is None or newest.info.status != "FINISHED" else str(newest.info.run_id)


def _unfinished(work: Work, experiment: Experiment, kind: str) -> str | None:
    """Return the run of this kind that an interruption left."""
    newest = _own_run(work, experiment, kind)
    return None if newest is None or newest.info.status == "FINISHED" else str(newest.info.run_id)


def _own_run(work: Work, experiment: Experiment, kind: str) -> Any | None:
    """Return the newest run of this kind, as MLflow has it; one from before this `auto` began is not its own."""
    newest = Tracking().find(experiment.name, **{"glioflow.kind": kind})
    return None if newest is None or newest.info.start_time < work.state.since_ms else newest
