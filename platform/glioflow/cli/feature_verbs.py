"""The verbs about what comes after the mask: shape features and survival."""

from pathlib import Path
from typing import Annotated

import typer

from glioflow.cli.app import app, survival_app
from glioflow.cli.options import AsJson, Overrides
from glioflow.cli.output import answer, table, told
from glioflow.errors import UserError


@app.command()
def features(
    mask: Path,
    spacing: Annotated[str | None, typer.Option(help="z,y,x in millimeters.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the shape features of a mask: a file, or the folder of one LGG case."""
    from glioflow.data.masks import read_mask
    from glioflow.features import measure_mask

    with told():
        volume, known = read_mask(mask)
        measured = measure_mask(volume > 0, spacing_mm=_spacing(spacing) or known)
        rows = [[key, value] for key, value in measured.volume.items()]
        answer({"features": measured.model_dump(mode="json")}, as_json, lambda: table("", ["feature", "value"], rows))


@survival_app.command("fit")
def survival_fit(
    cohort: Annotated[Path | None, typer.Argument(help="Needed for --masks manual.")] = None,
    clinical: Annotated[Path, typer.Option(help="Clinical table (CSV).")] = ...,  # type: ignore[assignment]
    outcomes: Annotated[Path | None, typer.Option(help="Follow-up besides it (CSV).")] = None,
    masks: Annotated[str, typer.Option(help="A crossval run's id (its out-of-fold masks), manual, or none.")] = "none",
    experiment: Annotated[Path | None, typer.Option(help="Experiment whose survival section is used.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fit and honestly evaluate the survival stage."""
    from glioflow.config import Experiment, load_experiment
    from glioflow.config.experiment import override_texts
    from glioflow.runs.survival import fit_survival

    with told():
        base = (
            load_experiment(experiment, overrides or ())
            if experiment
            else override_texts(Experiment(), overrides or ())
        )
        done = fit_survival(base.survival, clinical, outcomes=outcomes, masks=masks, cohort=cohort)
        said = done.evaluation.model_dump(mode="json")
        keys = ("task", "metrics", "baselines", "beats_baselines")
        answer({"run_id": done.run_id, **{key: said[key] for key in keys}}, as_json)


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError("--spacing is three numbers z,y,x in millimeters", text) from None
    if min(z, y, x) <= 0:
        raise UserError("--spacing is three positive numbers", text)
    return z, y, x
