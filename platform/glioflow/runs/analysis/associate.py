"""Shape features against genomic clusters as a run: table, figure and page, logged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glioflow.features.association import FEATURES, Association, associate
from glioflow.reports.association_figure import association_figure, association_page
from glioflow.runs.analysis.survival import shape_features
from glioflow.survival import patient_key, read_clinical
from glioflow.tracking import Tracking

EXPERIMENT = "association"


@dataclass(frozen=True)
class Associated:
    """What an analysis ended with; the run holds `association.json`, `.png` and `.html`."""

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
) -> Associated:
    """Measure a cohort's masks, test the shapes against its clusterings, and log the result.

    Args:
        cohort: Raw, prepared, or a prepared one's URI; not read where the masks are a run's.
        clinical: Clinical table with the clusterings.
        masks: `manual`, or the id of a cross-validation run whose out-of-fold masks are taken.
        feature_names: Keys of `MaskFeatures.volume`.
        clusters: Columns of the table; None takes the published ones that it has.

    Raises:
        UserError: If cohort, table, run or names do not fit each other.
    """
    import pandas as pd

    tracking = Tracking()
    measured, basis = shape_features(tracking, masks, cohort)
    features = pd.DataFrame.from_dict({patient_key(case): values for case, values in measured.items()}, orient="index")
    found = associate(features.astype(float), read_clinical(clinical), feature_names=feature_names, clusters=clusters)
    said = found.model_dump(mode="json")
    figure = association_figure(said["tests"], said["aucs"])
    page = association_page(
        said["tests"],
        said["aucs"],
        masks=f"{basis} masks" if basis == "manual" else basis,
        num_hypotheses=found.num_hypotheses,
        level=found.level,
        figure=figure,
    )
    tags = {"glioflow.kind": "association", "glioflow.masks": basis}
    run_id = tracking.start(EXPERIMENT, f"association-{Path(cohort).name}", tags=tags)
    tracking.log_params(run_id, {"masks": basis, "clinical": clinical.name, "features": list(feature_names)})
    areas = {f"auc/{one.score.replace('/', '_per_')}/{one.cluster}/{one.label}": one.auc for one in found.aucs}
    p_values = {f"p_bonferroni/{one.feature}/{one.cluster}": one.p_bonferroni for one in found.tests}
    tracking.log_metrics(run_id, areas | p_values)
    tracking.log_json(run_id, "association.json", said)
    tracking.log_bytes(run_id, "association.png", figure)
    tracking.log_text(run_id, "association.html", page)
    tracking.finish(run_id)
    return Associated(run_id, basis, found)
