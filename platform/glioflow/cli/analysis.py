"""The verbs about what comes after the mask: shape features, genomic clusters, survival."""

from pathlib import Path
from typing import Annotated

import typer

import glioflow as gf
from glioflow.cli.app import ANALYSIS, verb, verb_group
from glioflow.cli.options import AsJson, Overrides
from glioflow.cli.output import one_line_errors, print_result, progress
from glioflow.errors import UserError

survival_app = verb_group("survival", ANALYSIS, "Fit the survival stage.")


@verb(ANALYSIS)
def features(
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="A mask's file, or the folder of one LGG case.")],
    spacing: Annotated[str | None, typer.Option(help="Spacing z,y,x in millimeters; by default the file's.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="Images of the study, to locate the brain; by default those in MASK.")
    ] = None,
    radiomics: Annotated[
        bool, typer.Option("--radiomics", help="Add pyradiomics' shape features, if it is installed.")
    ] = False,
    scheme: Annotated[
        str | None, typer.Option(help="Label scheme of the mask, e.g. brats-2021; by default from the file names.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the shape features of a mask, and where it is in the brain."""
    with one_line_errors(), progress("features"):
        spacing_mm = None if spacing is None else _parse_spacing(spacing)
        print_result(
            gf.measure_features(mask, spacing=spacing_mm, image=image, radiomics=radiomics, scheme=scheme), as_json
        )


def _parse_spacing(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError("--spacing must be three numbers z,y,x in millimeters", text) from None


@verb(ANALYSIS)
def associate(
    cohort: Annotated[
        str,
        typer.Argument(
            metavar="COHORT", help="Folder of a cohort, or a prepared cohort's URI such as s3://bucket/cohort."
        ),
    ],
    clinical: Annotated[Path, typer.Option(help="Clinical table (CSV) with the clusters.")],
    masks: Annotated[
        str, typer.Option(help="manual, or the run id of a cross-validation, for its out-of-fold masks.")
    ] = "manual",
    feature: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Shape feature; repeatable. By default asd, mf and bevr.")
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of a cluster in the table; repeatable. By default all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test shape features against genomic clusters, next to the published numbers."""
    with one_line_errors(), progress("associate") as say:
        done = gf.associate(cohort, clinical, masks=masks, features=feature, clusters=cluster, say=say)
        print_result(done, as_json)


@survival_app.command("fit")
def survival_fit(
    cohort: Annotated[
        str | None, typer.Argument(metavar="COHORT", help="Folder or URI of a cohort; needed with --masks manual.")
    ] = None,
    *,
    clinical: Annotated[Path, typer.Option(help="Clinical table (CSV).")],
    outcomes: Annotated[Path | None, typer.Option(help="Second table, with the follow-up (CSV).")] = None,
    masks: Annotated[
        str, typer.Option(help="manual, none, or the run id of a cross-validation, for its out-of-fold masks.")
    ] = "none",
    experiment: Annotated[Path | None, typer.Option(help="Experiment file whose survival section is used.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fit the survival stage and evaluate it on patients it was not fitted on."""
    with one_line_errors(), progress("survival") as say:
        fitted = gf.fit_survival(
            cohort,
            clinical=clinical,
            outcomes=outcomes,
            masks=masks,
            experiment=experiment,
            overrides=overrides or (),
            say=say,
        )
        print_result(fitted, as_json)
