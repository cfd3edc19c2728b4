"""The verbs that judge models."""

from typing import Annotated

import typer

from glioflow.cli.app import app
from glioflow.cli.options import AsJson
from glioflow.cli.output import answer, patients_table, told


@app.command()
def evaluate(
    model: str,
    source: Annotated[str, typer.Argument(help="Labeled cohort, raw or prepared, or a prepared one's URI.")],
    as_json: AsJson = False,
) -> None:
    """Measure a bundle, run or registered model on a labeled cohort, beside baselines."""
    from glioflow.config.places import prepared_home
    from glioflow.data.remote import local_folder
    from glioflow.runs.evaluate import evaluate as run

    with told():
        done = run(model, local_folder(source, prepared_home()))
        answer(
            done,
            as_json,
            lambda: patients_table(done["per_patient"], {k: v for k, v in done.items() if k != "per_patient"}),
        )
