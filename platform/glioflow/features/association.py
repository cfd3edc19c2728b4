"""Association of shape features with genomic clusters: Buda's analysis, on any cohort and clinical table."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from glioflow.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
_RECORD = ConfigDict(extra="forbid", frozen=True)

FEATURES = ("asd", "mf", "bevr")
CLUSTERS = ("RNASeqCluster", "MethylationCluster", "CNCluster", "miRNACluster", "COCCluster")
# Low values indicate the class, so the score is their reciprocal, which inverts the AUC.
RECIPROCAL = {"bevr"}

# Buda, Saha, Mazurowski 2019, on 110 patients.
PUBLISHED_P = {
    ("bevr", "RNASeqCluster"): "< .0002",
    ("mf", "RNASeqCluster"): "< .005",
    ("asd", "RNASeqCluster"): "< .02",
    **{("bevr", cluster): "< .02" for cluster in CLUSTERS[1:]},
}
PUBLISHED_AUC = {("bevr", "RNASeqCluster", "2"): {"automatic masks": 0.80, "manual masks": 0.78}}

_MAX_CLASSES = 12
_FEWEST = 3  # patients in and outside the class, below which resampling is meaningless


class Test(BaseModel):
    """Fisher's exact test of one feature, cut at its median, against one clustering.

    Attributes:
        feature: Name of the shape feature.
        cluster: Column of the clinical table.
        num_patients: Patients with both.
        table: Patients at or below (first row) and above the median, by class.
        classes: The columns of `table`.
        p_value: P-value without correction.
        p_bonferroni: P-value times the number of hypotheses, at most 1.
        significant: Whether `p_bonferroni` is below the level.
        published_p: Published p-value, on another number of patients and therefore not comparable.
    """

    model_config = _RECORD
    feature: str
    cluster: str
    num_patients: int
    table: list[list[int]]
    classes: list[str]
    p_value: float
    p_bonferroni: float
    significant: bool
    published_p: str | None


class Auc(BaseModel):
    """How well one feature separates one class from all others.

    Attributes:
        score: Ranked value, `bevr` or `1/bevr`.
        cluster: Column of the clinical table.
        label: The class that is compared with the rest.
        num_patients: Patients with both.
        num_positive: Number of these in the class.
        auc: Area under the ROC curve.
        low: Lower end of its 95 % bootstrap interval over patients; None with fewer than three in the class or outside.
        high: Upper end.
        published: Published areas by kind of mask.
        agrees: By kind of mask, whether the published area is inside our interval.
    """

    model_config = _RECORD
    score: str
    cluster: str
    label: str
    num_patients: int
    num_positive: int
    auc: float
    low: float | None
    high: float | None
    published: dict[str, float]
    agrees: dict[str, bool]


class Association(BaseModel):
    """All tests and areas of one cohort.

    Attributes:
        tests: A test per feature and clustering.
        aucs: An area per feature, clustering and class.
        num_hypotheses: Factor of the p-values.
        level: Significance level after correction.
    """

    model_config = _RECORD
    tests: list[Test]
    aucs: list[Auc]
    num_hypotheses: int
    level: float


def associate(
    features: "pd.DataFrame",
    clinical: "pd.DataFrame",
    *,
    feature_names: Sequence[str] = FEATURES,
    clusters: Sequence[str] | None = None,
    num_hypotheses: int | None = None,
    level: float = 0.05,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> Association:
    """Test shape features against clusterings.

    Args:
        features: Shape features by patient (index), e.g. of `MaskFeatures.volume`.
        clinical: Clinical table by patient (index).
        feature_names: Columns of `features`.
        clusters: Columns of `clinical`; None uses the published ones that it has.
        num_hypotheses: Hypotheses for Bonferroni; None counts the tests made here (the publication counted ten).
        level: Significance level after correction.
        num_bootstrap: Resamplings of patients behind each interval.
        seed: Seed of the Monte Carlo tests and the bootstrap.

    Raises:
        UserError: If a column is missing, no patient is in both tables, or a clustering has too few or many classes.

    Source: Buda, Saha, Mazurowski 2019.
    """
    chosen = [name for name in CLUSTERS if name in clinical] if clusters is None else list(clusters)
    _check(features, feature_names, "shape feature")
    _check(clinical, chosen, "cluster")
    if not chosen:
        raise UserError(
            "the clinical table must have a column of clusters",
            f"columns {', '.join(map(str, clinical.columns))}",
            CLUSTERS,
        )
    both = features[list(feature_names)].merge(
        clinical[chosen], how="inner", left_index=True, right_index=True, suffixes=("_shape", "")
    )
    if both.empty:
        raise UserError("features and clinical table must share at least one patient", list(features.index[:4]))
    number = num_hypotheses or len(feature_names) * len(chosen)
    rng = np.random.default_rng(seed)
    tests, aucs = [], []
    for cluster in chosen:
        for feature in feature_names:
            known = both[[feature, cluster]].dropna()
            values = known[feature].to_numpy(dtype=np.float64)
            labels = np.array([_label(value) for value in known[cluster]])
            classes = sorted(set(labels))
            if not 2 <= len(classes) <= _MAX_CLASSES:
                rule = f"a clustering must have 2 to {_MAX_CLASSES} classes among the patients with features"
                raise UserError(rule, f"{len(classes)} in {cluster}")
            tests.append(_test(feature, cluster, values, labels, classes, number=number, level=level, rng=rng))
            aucs += [
                _auc(feature, cluster, label, values, labels == label, num_bootstrap=num_bootstrap, rng=rng)
                for label in classes
            ]
    return Association(tests=tests, aucs=aucs, num_hypotheses=number, level=level)


def fisher_exact_p(table: NDArray[np.int_], *, seed: int | np.random.Generator = 0) -> float:
    """Return the p-value of Fisher's exact test of an r x c table: exact for 2 x 2, else by 100,000 random tables."""
    from scipy.stats import MonteCarloMethod, fisher_exact

    table = table[table.any(axis=1)][:, table.any(axis=0)]  # a class without patients makes SciPy fail
    if min(table.shape) < 2:
        return 1.0
    if table.shape == (2, 2):
        return float(fisher_exact(table).pvalue)
    method = MonteCarloMethod(n_resamples=99_999, rng=np.random.default_rng(seed))
    return float(np.squeeze(fisher_exact(table, method=method).pvalue))  # an array of one value for some tables


def _test(
    feature: str,
    cluster: str,
    values: Array,
    labels: NDArray[np.str_],
    classes: list[str],
    *,
    number: int,
    level: float,
    rng: np.random.Generator,
) -> Test:
    above = values > np.median(values)
    table = np.array([[int((labels[side] == label).sum()) for label in classes] for side in (~above, above)])
    p_value = fisher_exact_p(table[table.sum(axis=1) > 0], seed=rng)
    return Test(
        feature=feature,
        cluster=cluster,
        num_patients=len(values),
        table=table.tolist(),
        classes=classes,
        p_value=p_value,
        p_bonferroni=min(1.0, p_value * number),
        significant=p_value * number < level,
        published_p=PUBLISHED_P.get((feature, cluster)),
    )


def _auc(
    feature: str,
    cluster: str,
    label: str,
    values: Array,
    positive: NDArray[np.bool_],
    *,
    num_bootstrap: int,
    rng: np.random.Generator,
) -> Auc:
    scores = 1 / values if feature in RECIPROCAL else values
    ordered = (scores[positive][:, None] > scores[~positive]) + 0.5 * (scores[positive][:, None] == scores[~positive])
    sizes = ordered.shape
    # Drawing within class and rest keeps both in every resampling, even for a small class.
    drawn = [rng.multinomial(n, np.full(n, 1 / n), size=num_bootstrap) for n in sizes]
    areas = ((drawn[0] @ ordered) * drawn[1]).sum(axis=1) / (sizes[0] * sizes[1])
    known = min(sizes) >= _FEWEST
    low, high = (float(end) for end in np.quantile(areas, [0.025, 0.975])) if known else (None, None)
    published = PUBLISHED_AUC.get((feature, cluster, label), {})
    return Auc(
        score=f"1/{feature}" if feature in RECIPROCAL else feature,
        cluster=cluster,
        label=label,
        num_patients=len(values),
        num_positive=int(positive.sum()),
        auc=float(ordered.mean()),
        low=low,
        high=high,
        published=published,
        agrees={
            masks: low is not None and high is not None and low <= area <= high for masks, area in published.items()
        },
    )


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check(table: "pd.DataFrame", names: Iterable[str], kind: str) -> None:
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(f"every {kind} must be a column of its table", ", ".join(missing), choices=list(table))
    if table.index.has_duplicates:
        raise UserError("a patient must have one row", table.index[table.index.duplicated()][0])
