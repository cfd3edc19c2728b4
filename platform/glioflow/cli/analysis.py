"""The verbs about what comes after the mask: shape features, genomic clusters, survival."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glioflow.cli.app import ANALYSIS, verb, verb_group
from glioflow.cli.options import AsJson, Overrides
from glioflow.cli.output import answer, console, one_line_errors, print_line, table
from glioflow.errors import UserError
from glioflow.reports.numbers import interval, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

survival_app = verb_group("survival", ANALYSIS, "Fit the survival stage.")


@verb(ANALYSIS)
def features(
    mask: Annotated[Path, typer.Argument(help="A mask's file, or the folder of one LGG case.")],
    spacing: Annotated[str | None, typer.Option(help="Spacing z,y,x in millimeters; by default the file's.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="The segmented study, to locate the brain; by default what lies in MASK.")
    ] = None,
    radiomics: Annotated[
        bool, typer.Option("--radiomics", help="Add pyradiomics' shape features, if it is installed.")
    ] = False,
    scheme: Annotated[
        str | None, typer.Option(help="Label scheme of the mask, e.g. brats-2021; by default the names say it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the shape features of a mask, and where in the brain it lies."""
    from glioflow.data.formats.mask_file import read_mask, scheme_of
    from glioflow.features import measure_mask, measure_regions
    from glioflow.features.radiomics import measure_radiomics

    with one_line_errors():
        volume, known = read_mask(mask)
        spacing_mm = _spacing(spacing) or known
        brain = _brain(image or mask, volume.shape, asked=image is not None)
        measured = measure_mask(volume > 0, spacing_mm=spacing_mm, brain=brain)
        payload: dict[str, Any] = {"features": measured.model_dump(mode="json")}
        if volume.max(initial=0) > 1:  # labels of several regions, as in BraTS
            try:
                named = scheme_of(mask, volume, scheme)
                regions = measure_regions(volume, spacing_mm=spacing_mm, brain=brain, regions=named.regions)
                payload["regions"] = regions.model_dump(mode="json")
            except UserError as error:  # labels of another kind of cohort: the shape of the whole still holds
                console().print(f"no regions: {error}")
        if radiomics:
            payload["radiomics"] = measure_radiomics(volume > 0, spacing_mm=spacing_mm)
        rows = [*measured.volume.items(), *payload.get("radiomics", {}).items()]
        answer(payload, as_json, lambda: table("", ["feature", "value"], rows))


@verb(ANALYSIS)
def associate(
    cohort: Annotated[
        str, typer.Argument(help="Folder of a cohort, or a prepared cohort's URI such as s3://bucket/cohort.")
    ],
    clinical: Annotated[Path, typer.Option(help="Clinical table (CSV) with the clusters.")],
    masks: Annotated[
        str, typer.Option(help="manual, or the run id of a cross-validation, whose out-of-fold masks are used.")
    ] = "manual",
    feature: Annotated[
        list[str] | None, typer.Option(help="Shape feature; may be given several times. By default asd, mf and bevr.")
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(help="Cluster's column in the table; may be given several times. By default all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test shape features against genomic clusters, published numbers beside ours."""
    from glioflow.features.association import FEATURES
    from glioflow.runs.analysis.associate import associate_cohort

    with one_line_errors():
        done = associate_cohort(cohort, clinical, masks=masks, feature_names=feature or FEATURES, clusters=cluster)
        association = done.association.model_dump(mode="json")
        payload = {**association, "masks": done.masks, "run_id": done.run_id}
        answer(payload, as_json, lambda: _show_association(association))


def _show_association(association: dict[str, Any]) -> None:
    keys = ["feature", "cluster", "num_patients", "p_value", "p_bonferroni", "published_p"]
    rows = [[test[key] for key in keys] for test in association["tests"]]
    table(f"Fisher's exact test, {association['num_hypotheses']} hypotheses; published on 110 patients", keys, rows)
    rows = []
    for auc in association["aucs"]:
        interval = "" if auc["low"] is None else f" ({auc['low']:.3f} to {auc['high']:.3f})"
        beside = [f"{v:.2f} {k}: {'agrees' if auc['agrees'][k] else 'differs'}" for k, v in auc["published"].items()]
        patients = f"{auc['num_positive']} of {auc['num_patients']}"
        rows.append(
            [
                auc["score"],
                f"{auc['cluster']} {auc['label']}",
                patients,
                f"{auc['auc']:.3f}{interval}",
                ", ".join(beside),
            ]
        )
    table("one class against the rest", ["score", "class", "patients", "area (95 %)", "published"], rows)


@survival_app.command("fit")
def survival_fit(
    cohort: Annotated[str | None, typer.Argument(help="Folder or URI of a cohort; needed with --masks manual.")] = None,
    *,
    clinical: Annotated[Path, typer.Option(help="Clinical table (CSV).")],
    outcomes: Annotated[Path | None, typer.Option(help="A further table with the follow-up (CSV).")] = None,
    masks: Annotated[
        str, typer.Option(help="manual, none, or the run id of a cross-validation, whose out-of-fold masks are used.")
    ] = "none",
    experiment: Annotated[Path | None, typer.Option(help="Experiment file whose survival section is used.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fit the survival stage and evaluate it on patients that it was not fitted on."""
    from glioflow.config import Experiment, load_experiment
    from glioflow.config.experiment import override_texts
    from glioflow.runs.analysis.survival import fit_survival

    with one_line_errors():
        base = (
            load_experiment(experiment, overrides or ())
            if experiment
            else override_texts(Experiment(), overrides or ())
        )
        done = fit_survival(base.survival, clinical, outcomes=outcomes, masks=masks, cohort=cohort)
        evaluation = done.evaluation.model_dump(mode="json")
        evaluation["masks"] = done.masks
        if cohort is not None and masks == "none":
            evaluation["warnings"].append(
                "COHORT was not measured; to measure its masks, give --masks manual or a cross-validation's run id"
            )
        keys = (
            "task",
            "masks",
            "model",
            "primary",
            "num_patients",
            "num_events",
            "metrics",
            "baselines",
            "differences",
        )
        payload = {
            "run_id": done.run_id,
            **{key: evaluation[key] for key in (*keys, "beats_baselines", "p_value", "warnings")},
        }
        answer(payload, as_json, lambda: _show_survival(payload))


def _show_survival(result: dict[str, Any]) -> None:
    baselines = result["baselines"]
    rows = [
        [metric, _interval(value), *(other.get(metric, {}).get("value") for other in baselines.values())]
        for metric, value in result["metrics"].items()
    ]
    kind = "the model fixed beforehand" if result["primary"] else "exploratory"
    counts = f"{result['num_events']} events, {result['num_patients']} patients"
    title = f"{result['task']}, {result['model']} ({kind}): {counts}"
    table(title, ["", "model", *baselines], rows)
    table("model minus baseline", ["", ""], [[name, _interval(value)] for name, value in result["differences"].items()])
    if result["p_value"] is not None:
        print_line(f"permutation test: p = {result['p_value']:.3g}")
    print_line("beats its baselines" if result["beats_baselines"] else "does not clearly beat its baselines")
    for warning in result["warnings"]:
        print_line(warning)


def _interval(estimate: dict[str, float | None] | None) -> str:
    if estimate is None:
        return "-"
    low, high = estimate["low"], estimate["high"]
    return short(estimate["value"]) + ("" if low is None or high is None else f" ({interval(low, high)})")


def _brain(study: Path, shape: tuple[int, ...], *, asked: bool) -> "NDArray[np.bool_] | None":
    """Find the brain in the image that a mask is of; None where the mask lies alone."""
    from glioflow.data.formats.study import read_study
    from glioflow.data.preprocessing.brain_mask import locate_brain

    if not asked and not study.is_dir():
        return None
    case = read_study([study])
    if not asked and case.mask is None:  # a folder of masks alone
        return None
    if case.shape != shape:
        raise UserError(f"--image must have the shape of the mask, {shape}", case.shape)
    return locate_brain(case.image)


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError("--spacing must be three numbers z,y,x in millimeters", text) from None
    if not all(0 < step < math.inf for step in (z, y, x)):
        raise UserError("--spacing must be three positive numbers z,y,x in millimeters", text)
    return z, y, x
