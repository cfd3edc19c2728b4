"""The leakage audit of an experiment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glioflow import cluster
from glioflow.api.inputs import Overrides, read_experiment
from glioflow.api.results import Result
from glioflow.config import Experiment
from glioflow.json_values import JsonObject
from glioflow.progress import Say, print_progress
from glioflow.reports.tables import Table
from glioflow.runs.analysis.audit import SplitDice
from glioflow.runs.analysis.audit import audit_experiment as run_audit


@dataclass(frozen=True)
class AuditResult(Result):
    """The leaks of an experiment, and how much leaks would have added to its score.

    Attributes:
        run_id: The run that holds the report, `audit.html`.
        leaks: `rule` and `value` of each.
        slice_split_dice: Mean Dice with slices of one patient on both sides; None if nothing was trained.
        patient_split_dice: Mean Dice of the same experiment, split by patient.
        baselines: The same for baselines that need no training, by name.
        scores: Every score, by kind of split, then by predictor.
        death01_example: Accuracies of the reproduced published score, by name; None if it was not reproduced.
        remarks: What was left out, and why; `notes` in JSON.
    """

    run_id: str
    leaks: list[dict[str, str]]
    slice_split_dice: float | None
    patient_split_dice: float | None
    baselines: dict[str, SplitDice] = field(repr=False)
    scores: dict[str, dict[str, dict[str, float]]] = field(repr=False)
    death01_example: dict[str, float] | None = field(repr=False)
    remarks: list[str] = field(repr=False)

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        return {"notes" if key == "remarks" else key: value for key, value in super().to_json().items()}

    def tables(self) -> list[Table]:
        """Return the leaks, the scores under both splits, and the reproduced example, if there are any."""
        keys = ("dice", "dice_pooled", "dice_per_slice", "num_empty_both", "dice_tumor_slices")
        rows: list[list[object]] = [
            [who, f"by {kind}", *(self.scores[kind][who][key] for key in keys)]
            for who in self.scores.get("patient", {})
            for kind in ("patient", "slice")
        ]
        example = list((self.death01_example or {}).items())
        tables = [
            Table("leaks", ["rule", "where"], [[leak["rule"], leak["value"]] for leak in self.leaks]),
            Table("the same experiment under two splits", ["", "split", *keys], rows),
            Table("the published death01 score, rebuilt", ["", ""], example),
        ]
        return [table for table in tables if table.rows]

    def notes(self) -> list[str]:
        """Return what was left out, and where the report is."""
        return [*self.remarks, f"the report is audit.html of run {self.run_id}"]


def audit_experiment(
    experiment: Experiment | str | Path,
    data: str | Path | None = None,
    *,
    clinical: str | Path | None = None,
    outcomes: str | Path | None = None,
    seen: Sequence[str | Path] = (),
    train: bool = True,
    overrides: Overrides = (),
    say: Say = print_progress,
) -> AuditResult:
    """Look for leaks in an experiment, and measure their effect.

    Args:
        experiment: The experiment, or its file.
        data: As for `train`.
        clinical: Clinical table (CSV); None takes the cohort's.
        outcomes: Second table, with the follow-up.
        seen: Other cohorts that the model learned from.
        train: Whether to measure the effect, by training under both splits.
        overrides: As for `train`.
        say: As for `train`.

    Raises:
        UserError: If anything given is wrong; an experiment that leaks is not a mistake here.
        RunFailed: If a training fails.
    """
    with cluster.ending():
        done = run_audit(
            read_experiment(experiment, overrides),
            data,
            clinical=None if clinical is None else Path(clinical),
            outcomes=None if outcomes is None else Path(outcomes),
            seen=[Path(each) for each in seen],
            train=train,
            say=say,
        )
    answer = done.answer()
    return AuditResult(
        run_id=answer["run_id"],
        leaks=answer["leaks"],
        slice_split_dice=answer["slice_split_dice"],
        patient_split_dice=answer["patient_split_dice"],
        baselines=answer["baselines"],
        scores=answer["scores"],
        death01_example=answer["death01_example"],
        remarks=answer["notes"],
    )
