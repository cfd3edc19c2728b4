"""Training, cross-validation and search."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from glioflow import cluster
from glioflow.api.inputs import Overrides, check_number, read_experiment, run_of
from glioflow.api.results import Result, Summarized, metrics_table, patients_tables
from glioflow.config import Experiment, data_source
from glioflow.evaluation.patients import CaseScores
from glioflow.json_values import JsonObject
from glioflow.progress import Say, print_progress
from glioflow.reports.tables import Table

if TYPE_CHECKING:
    from glioflow.runs.search.board import Board
    from glioflow.runs.search.conclusion import BestTrial
    from glioflow.runs.search.report import Finalist


@dataclass(frozen=True)
class TrainingResult(Result):
    """A finished training.

    Attributes:
        run_id: Its MLflow run.
        model_uri: URI of its bundle in MLflow.
        metrics: By name; `val/` are of the validation patients, `test/` of the test patients.
    """

    run_id: str
    model_uri: str
    metrics: dict[str, float | None]

    def tables(self) -> list[Table]:
        """Return the chief metrics, validation beside test."""
        return [metrics_table(self.run_id, self.metrics)]


@dataclass(frozen=True)
class CrossvalResult(Summarized):
    """A finished cross-validation: every patient was predicted by a model that never saw it.

    Attributes:
        run_id: Its MLflow run.
        folds: Number of folds.
        dice_mean: Mean over all patients.
        dice_median: Median over all patients.
        dice_ci95: 95 % bootstrap interval of the mean.
        baselines: Mean and median Dice of the baselines that a network has to beat.
        per_patient: Metrics of each patient, sorted by id.
        summary: Every further number, by its JSON key.
    """

    run_id: str
    folds: int
    dice_mean: float
    dice_median: float
    dice_ci95: tuple[float, float]
    baselines: dict[str, dict[str, float]]
    per_patient: list[CaseScores] = field(repr=False)
    summary: dict[str, object] = field(repr=False)

    def tables(self) -> list[Table]:
        """Return each patient's metrics, and the summary."""
        chief = {key: getattr(self, key) for key in ("dice_mean", "dice_median", "dice_ci95", "baselines")}
        chief |= {key: self.summary[key] for key in ("num_patients", "dice_num_empty_both") if key in self.summary}
        return patients_tables(self.per_patient, chief)


@dataclass(frozen=True)
class SearchResult(Result):
    """A finished search.

    Attributes:
        name: Name of the search, for `resume`.
        run_id: Its MLflow run, the parent of the trials' runs.
        num_trials: Number of trials that began.
        best: `run_id`, `params` and `metrics` of the best finished trial.
        experiment: The experiment with the best parameters, ready for `train`.
        front: The best trials, if there are several objectives.
        cost: Hours by kind.
        objectives: Objectives of the search.
    """

    name: str
    run_id: str
    num_trials: int
    best: "BestTrial"
    experiment: Experiment
    front: "list[Finalist]"
    cost: dict[str, float]
    objectives: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        values = super().to_json()
        return {key: values[key] for key in ("name", "run_id", "num_trials", "best", "front", "cost")}

    def tables(self) -> list[Table]:
        """Return the best parameters and their metrics, the Pareto front, and the cost."""
        shown = [
            Table(f"best of {self.num_trials} trials", ["key", "value"], list(self.best["params"].items())),
            metrics_table(self.best["run_id"], self.best["metrics"]),
        ]
        if self.front:
            head = ["trial", *self.objectives, "latency_ms"]
            shown.append(Table("Pareto front", head, [[entry.get(key) for key in head] for entry in self.front]))
        cost = [[key.removeprefix("cost/"), value] for key, value in self.cost.items()]
        return [*shown, Table("cost in hours", ["", ""], cost)]

    def notes(self) -> list[str]:
        """Return where the best configuration is."""
        return ["the best configuration is the parent run's artifact best.yaml, ready for `glioflow train`"]


def train(
    experiment: Experiment | str | Path,
    data: str | Path | None = None,
    *,
    overrides: Overrides = (),
    resume: str | TrainingResult | None = None,
    say: Say = print_progress,
) -> TrainingResult:
    """Train one experiment, measure it on its test patients, and log it as one MLflow run.

    Args:
        experiment: The experiment, or its file.
        data: A cohort's folder, raw or prepared, or a prepared cohort's URI; None takes the experiment's `data.source`.
        overrides: `section.key=value` texts, or values by dotted key.
        resume: Id of an interrupted run to continue.
        say: Called with each line of progress, and with the part of the work that is done, in [0, 1].

    Raises:
        UserError: If anything given is wrong; no run is left behind then.
        RunFailed: If the training fails; its run can be resumed.
    """
    settings = _checked(experiment, data, overrides, resume)
    from glioflow.runs.train import run as train_run

    with cluster.ending():
        trained = train_run.train(settings, data, resume=None if resume is None else run_of(resume), say=say)
    return TrainingResult(**vars(trained))


def crossval(
    experiment: Experiment | str | Path,
    data: str | Path | None = None,
    *,
    folds: int | None = None,
    hold_out_test: bool = False,
    overrides: Overrides = (),
    resume: str | CrossvalResult | None = None,
    say: Say = print_progress,
) -> CrossvalResult:
    """Cross-validate by patient, folds in parallel; every patient is predicted by a model that never saw it.

    Args:
        experiment: The experiment, or its file.
        data: As for `train`.
        folds: At least 3; None takes `split.folds`, or what the resumed run has.
        hold_out_test: Leave the split's test patients out of all folds.
        overrides: As for `train`.
        resume: Id of an interrupted cross-validation to continue; finished folds are kept.
        say: As for `train`.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If a fold fails; the results of the others are kept for `resume`.
    """
    settings = _checked(experiment, data, overrides, resume)
    from glioflow.runs.crossval import run as crossval_run

    with cluster.ending():
        done = crossval_run.crossval(
            settings,
            data,
            folds=folds,
            hold_out_test=hold_out_test,
            resume=None if resume is None else run_of(resume),
            say=say,
        )
    summary, named = done.summary, [each.name for each in fields(CrossvalResult)]
    low, high = summary["dice_ci95"]
    return CrossvalResult(
        run_id=done.run_id,
        folds=done.folds,
        dice_mean=summary["dice_mean"],
        dice_median=summary["dice_median"],
        dice_ci95=(low, high),
        baselines=summary["baselines"],
        per_patient=done.per_patient,
        summary={key: value for key, value in summary.items() if key not in named},
    )


def search(
    experiment: Experiment | str | Path,
    data: str | Path | None = None,
    *,
    trials: int | None = None,
    budget: float | None = None,
    overrides: Overrides = (),
    resume: str | None = None,
    say: Say = print_progress,
    show: "Callable[[Board], None] | None" = None,
) -> SearchResult:
    """Search the experiment's space with Ray Tune and Optuna; every trial is a run below the search's.

    Args:
        experiment: The experiment, or its file; it has a `search.space`.
        data: As for `train`.
        trials: Number of configurations; None takes `search.trials`.
        budget: Hours after which no new trial begins; None takes `search.budget_hours`.
        overrides: As for `train`.
        resume: Name of an interrupted search to continue.
        say: As for `train`.
        show: Called with the table of trials whenever it changes.

    Raises:
        UserError: If anything given is wrong.
        RunFailed: If no trial succeeds or none can continue; finished work is kept for `resume`.
    """
    check_number("trials", trials, 1)
    settings = _checked(experiment, data, overrides, resume)
    if trials is not None:
        read_experiment(settings, {"search.trials": trials})  # its bounds are those of the key
    if budget is not None:
        settings = read_experiment(settings, {"search.budget_hours": budget})
    from glioflow.runs.search import run as search_run

    with cluster.ending():
        searched = search_run.search(settings, data, trials=trials, resume=resume, say=say, show=show)
    return SearchResult(**vars(searched), objectives=tuple(settings.search.objectives))


def _checked(
    experiment: Experiment | str | Path, data: str | Path | None, overrides: Overrides, resume: object
) -> Experiment:
    """Return the experiment; its cohort is looked for before Ray is imported, which takes seconds."""
    settings = read_experiment(experiment, overrides)
    if resume is None:  # else what is resumed is checked first
        data_source(data, settings.data.source)
    return settings
