"""Shape features against genomic clusters as a run: table, figure and page, logged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glioflow.features.association import FEATURES, Association, associate
from glioflow.progress import Say, quiet
from glioflow.reports.association_figure import association_figure, association_page
from glioflow.runs.analysis.survival import measure_shapes
from glioflow.survival import features_of_patients, read_clinical
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import table_dataset
from glioflow.tracking.run import Opening, open_run

EXPERIMENT = "association"


@dataclass(frozen=True)
class Associated:
    """Result of an analysis; its run has `association.json`, `.png` and `.html`."""

    run_id: str
    masks: str
    association: Association


def associate_cohort(
    cohort: str | Path,
    clinical: Path,
    *,
    masks: str = "manual",
    feature_names: Sequence[str] = FEATURES,
    clusters: Sequence[str] | None = None,
    say: Say = quiet,
) -> Associated:
    """Measure a cohort's masks, test the shapes against its clusterings, and log the result.

    Args:
        cohort: Raw, prepared, or a prepared one's URI; not read where the masks are a run's.
        clinical: Clinical table with the clusterings.
        masks: `manual`, or the id of a cross-validation run whose out-of-fold masks are taken.
        feature_names: Keys of `MaskFeatures.volume`.
        clusters: Columns of the table; None takes the published ones that it has.
        say: Called after each case that is measured.

    Raises:
        UserError: If cohort, table, run or names do not fit each other.
    """
    table = read_clinical(clinical)  # first: the store takes seconds to load
    tracking = Tracking()
    shapes = measure_shapes(tracking, masks, cohort, "testing", say)
    features = features_of_patients(table, shapes.features, shapes.persons)
    association = associate(features, table, feature_names=feature_names, clusters=clusters)
    answer = association.model_dump(mode="json")
    figure = association_figure(answer["tests"], answer["aucs"])
    page = association_page(
        answer["tests"],
        answer["aucs"],
        masks="manual masks" if shapes.masks == "manual" else shapes.masks,
        num_hypotheses=association.num_hypotheses,
        level=association.level,
        figure=figure,
    )
    areas = {f"auc/{one.score.replace('/', '_per_')}/{one.cluster}/{one.label}": one.auc for one in association.aucs}
    p_values = {f"p_bonferroni/{one.feature}/{one.cluster}": one.p_bonferroni for one in association.tests}
    opening = Opening(
        kind="association",
        experiment=EXPERIMENT,
        name=f"association-{Path(cohort).name}",
        tags=shapes.tags,
        params={"masks": shapes.masks, "clinical": clinical.name, "features": list(feature_names)},
        datasets=(*shapes.datasets, table_dataset(clinical, "testing")),
    )
    with open_run(tracking, opening) as run:
        run.log_metrics(areas | p_values)
        run.log_json("association.json", answer)
        run.log_bytes("association.png", figure)
        run.log_text("association.html", page)
    return Associated(run.run_id, shapes.masks, association)
