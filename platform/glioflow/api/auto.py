"""From a cohort to the best model that a budget allows, and an honest report about it, with nothing to configure."""

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glioflow import cluster
from glioflow.api import auto_stages as stages
from glioflow.api.auto_state import AutoState, Outcome, begin_state, read_state
from glioflow.api.results import Result
from glioflow.bundle.starter import check_not_reserved
from glioflow.cluster.lease import holding
from glioflow.cluster.remote_home import check_home
from glioflow.cluster.storage import data_folder
from glioflow.config.search import MOST_HOURS, NAME, name_after
from glioflow.data.formats.detect import detect_format
from glioflow.errors import UserError, not_found, option
from glioflow.progress import Say, print_progress
from glioflow.reports.evaluation_page import BASELINES
from glioflow.reports.numbers import duration, interval, number
from glioflow.reports.tables import Table
from glioflow.tracking import Tracking

Stage = Callable[[stages.Work], Outcome]
# Starting Ray, timing one training and the shortest trainings take longer than this on any machine.
LEAST_HOURS = 0.05
# The timed training and the search have longer names, which must be valid too.
MOST_LETTERS = 75
# In order; what a stage came to lies under its name in the state's file.
STAGES: Mapping[str, Stage] = {
    "check": stages.check_cohort,
    "plan": stages.plan_experiment,
    "measure": stages.measure,
    "search": stages.search_space,
    "settle": stages.settle,
    "crossval": stages.cross_validate,
    "train": stages.train_final,
    "survival": stages.fit_survival_stage,
    "register": stages.register_model,
    "promote": stages.put_before_gate,
    "report": stages.write_report,
}


@dataclass(frozen=True)
class AutoResult(Result):
    """The result of an `auto`.

    Attributes:
        name: Name of the experiment and the registered model, which `resume` takes too.
        version: Version of the registered model.
        decision: The gate's.
        dice_mean: By cross-validation, over all patients but the test patients.
        dice_median: By cross-validation.
        dice_ci95: 95 % bootstrap interval of the mean.
        baselines: Mean and median Dice of the baselines that a network has to beat.
        test_dice: Mean Dice of the registered model on the test patients.
        experiment: File of the experiment that was cross-validated and trained.
        report: The report, one HTML file.
        hours: The budget.
        spent_hours: How much of it was spent.
        stages: Result of each stage.
    """

    name: str
    version: int
    decision: str
    dice_mean: float
    dice_median: float
    dice_ci95: tuple[float, float]
    baselines: dict[str, dict[str, float]] = field(repr=False)
    test_dice: float | None
    experiment: Path
    report: Path
    hours: float
    spent_hours: float
    stages: dict[str, Outcome] = field(repr=False)

    def tables(self) -> list[Table]:
        """Return what was reached, and what each stage took."""
        reached = [
            ["mean Dice by cross-validation", number(self.dice_mean)],
            ["95 % interval", interval(*self.dice_ci95)],
            ["median Dice", number(self.dice_median)],
            *(
                [f"mean Dice of {BASELINES.get(name, name)}", number(each["dice_mean"])]
                for name, each in self.baselines.items()
            ),
            ["mean Dice on the test patients", number(self.test_dice)],
            ["gate", self.decision],
        ]
        took = [[name, duration(outcome["seconds"])] for name, outcome in self.stages.items()]
        return [Table(f"{self.name} version {self.version}", ["", ""], reached), Table("time", ["", ""], took)]

    def notes(self) -> list[str]:
        """Return how to continue."""
        return [how_to_serve(self.name, self.decision), f"report: {self.report}"]


def how_to_serve(name: str, decision: str) -> str:
    """Return the commands that use a model about which the gate has decided."""
    if decision == "promoted":
        return f"serve it with `glioflow serve --name {name}`, or `glioflow predict {name} STUDY --out DIR`"
    return f"not served, since the gate decided {decision}; try it with `glioflow predict {name}@challenger STUDY`"


def auto(
    cohort: str | Path,
    *,
    hours: float | None = None,
    name: str | None = None,
    resume: str | None = None,
    say: Say = print_progress,
) -> AutoResult:
    """Check, plan, search, cross-validate, train, register, put through the gate and report, within a budget.

    Args:
        cohort: Folder of a cohort with masks, as it was downloaded.
        hours: The budget. From 0.33 (20 minutes) on it is exceeded by at most 10 %, unless the machine gets slower
            meanwhile; up to a fifth may stay unused. None takes that of the resumed one.
        name: Name of the experiment and the model; None takes that of the folder.
        resume: Name of an interrupted `auto` to continue.
        say: Called with each line of progress, and with the part of the budget that is spent, in [0, 1].

    Raises:
        UserError: If the cohort has errors, the budget is too short for it, or a name is taken or unknown.
        RunFailed: If a stage fails; what was done is kept for `resume`.
    """
    if hours is None and resume is None:
        raise UserError("auto needs a budget of hours", hint=f"give {option('hours')}, such as {option('hours', 1)}")
    if hours is not None and not (hours > 0 and math.isfinite(hours)):
        raise UserError(f"{option('hours')} must be a finite number above 0", hours)
    if hours is not None and hours < LEAST_HOURS:
        raise UserError(
            f"{option('hours')} must be at least {LEAST_HOURS:g} (3 minutes)",
            hours,
            hint=f"give {option('hours', 1)}, say",
        )
    if hours is not None and hours > MOST_HOURS:
        raise UserError(f"{option('hours')} must be at most {MOST_HOURS:.0f}", hours)
    if resume is not None and name not in (None, resume):
        raise UserError(f"{option('name')} must be left out with {option('resume')}", name)
    check_home()
    folder = _folder_of(cohort)
    state = _state(folder, hours, name, resume)
    Tracking()  # which refuses a store that is away, before the first stage
    with holding(state.folder, f"auto {state.name}"), cluster.ending():
        try:
            go_through(state, say)
        except BaseException as error:
            say_how_to_go_on(state, error, say)
            raise
        finally:
            state.keep()
    return _result(state)


def _folder_of(cohort: str | Path) -> Path:
    """Return the folder of a cohort: as given, or under GLIOFLOW_DATA."""
    path, data = Path(cohort), data_folder()
    if not path.exists() and data is not None and (data / path).exists():
        path = data / path
    if not path.exists():
        raise not_found(cohort, hint="give the folder of a cohort with masks")
    return path.absolute()


def _state(folder: Path, hours: float | None, name: str | None, resume: str | None) -> AutoState:
    if resume is not None:
        return read_state(_valid(option("resume"), resume), folder, hours)
    assert hours is not None
    state = begin_state(_valid(option("name"), name or name_after(folder, otherwise="auto")), folder, hours)
    detect_format(folder)  # nothing is kept of an auto on a folder of other things
    return state


def _valid(option: str, name: str) -> str:
    if re.fullmatch(NAME, name) is None:
        raise UserError(
            f"{option} must begin with a letter or digit and hold only letters, digits, '.', '_' and '-'", name
        )
    if len(name) > MOST_LETTERS:
        raise UserError(f"{option} must have at most {MOST_LETTERS} characters", len(name))
    check_not_reserved(name)
    return name


def go_through(state: AutoState, say: Say, *, every: Mapping[str, Stage] = STAGES) -> None:
    """Run those of `every` stage that did not end yet, and write each down as it ends."""
    for stage, run in every.items():
        if stage in state.stages:
            continue
        report = _below(stage, state, say)
        report("begins")
        outcome = run(stages.Work(state, report))
        # Earlier processes may have begun the stage.
        state.note(stage, outcome, max(0.0, state.spent_s - sum(done["seconds"] for done in state.stages.values())))


def say_how_to_go_on(state: AutoState, error: BaseException, say: Say) -> None:
    """Say how to continue after an error, unless its hint does, which may name another budget."""
    if option("resume", state.name) in str(error):
        return
    first = "once this is corrected, " if isinstance(error, UserError) else ""
    say(f"{first}continue with `glioflow auto {shlex.quote(state.cohort)} --resume {state.name}`")


def _below(stage: str, state: AutoState, say: Say) -> Say:
    """Return who hears of a stage: lines say what is left of the budget, whose spent part moves the bar."""

    def report(text: str, part: float | None = None) -> None:
        state.keep_now_and_then()
        if f"continue with {option('resume')}" in text:  # of the run inside; `auto` says how it goes on itself
            return
        left = f"{duration(state.left_s)} left" if state.left_s > 0 else f"{duration(-state.left_s)} over the budget"
        say(f"{stage}: {text} [{left}]" if text else "", min(1.0, state.spent_s / (3600 * state.hours)))

    return report


def _result(state: AutoState) -> AutoResult:
    done, scores = state.stages, state.stages["crossval"]
    low, high = scores["dice_ci95"]
    return AutoResult(
        name=state.name,
        version=done["register"]["version"],
        decision=done["promote"]["decision"],
        dice_mean=scores["dice_mean"],
        dice_median=scores["dice_median"],
        dice_ci95=(low, high),
        baselines=scores["baselines"],
        test_dice=done["train"]["metrics"].get("test/dice_mean"),
        experiment=state.folder / stages.FINAL,
        report=state.folder / stages.REPORT,
        hours=state.hours,
        spent_hours=round(state.spent_s / 3600, 4),
        stages=done,
    )
