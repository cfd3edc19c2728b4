"""The verb that looks for leaks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson, Data, ExperimentFile, Overrides
from glioflow.cli.output import answer, print_line, progress, table, told


@app.command()
def audit(
    experiment: ExperimentFile,
    data: Data = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table (CSV); default is the cohort's.")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="Follow-up besides it (CSV).")] = None,
    seen: Annotated[list[Path] | None, typer.Option(help="Another cohort that was learned from; repeatable.")] = None,
    train: Annotated[bool, typer.Option(help="Measure the leakage gap by training under both splits.")] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look for leaks and measure what they would do; exit code 2 where the experiment leaks."""
    from glioflow import cluster
    from glioflow.config import load_experiment
    from glioflow.runs.analysis.audit import audit_experiment

    with told(), progress("audit") as say, cluster.ending():
        settings = load_experiment(experiment, overrides or ())
        done = audit_experiment(
            settings, data, clinical=clinical, outcomes=outcomes, seen=seen or (), train=train, say=say
        )
    said = done.answer()
    answer(said, as_json, lambda: _show(said))
    if done.leaks:
        raise SystemExit(2)


def _show(said: dict[str, Any]) -> None:
    if said["leaks"]:
        table("leaks", ["rule", "where"], [[leak["rule"], leak["value"]] for leak in said["leaks"]])
    if said["scores"]:
        keys = ("dice", "dice_pooled", "dice_per_slice", "dice_tumor_slices")
        rows = [
            [who, f"by {kind}", *(said["scores"][kind][who][key] for key in keys)]
            for who in said["scores"]["patient"]
            for kind in ("patient", "slice")
        ]
        table("the same experiment under two splits", ["", "split", *keys], rows)
    if example := said["death01_example"]:
        table("the published death01 score, rebuilt", ["", ""], [[key, value] for key, value in example.items()])
    for note in said["notes"]:
        print_line(note)
    print_line(f"the report is audit.html of run {said['run_id']}")
