"""The verbs that judge models."""

from pathlib import Path

from glioflow.cli.app import app
from glioflow.cli.options import AsJson
from glioflow.cli.output import answer, patients_table, told


@app.command()
def evaluate(model: str, source: Path, as_json: AsJson = False) -> None:
    """Measure a bundle, run or registered model on a labeled cohort, beside baselines."""
    from glioflow.runs.evaluate import evaluate as run

    with told():
        done = run(model, source)
        answer(
            done,
            as_json,
            lambda: patients_table(done["per_patient"], {k: v for k, v in done.items() if k != "per_patient"}),
        )
