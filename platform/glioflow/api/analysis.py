"""What comes after the mask: shape features, their association with genomic clusters, survival."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glioflow.api.inputs import Overrides, read_experiment, run_of
from glioflow.api.results import Result
from glioflow.config import Experiment
from glioflow.data.case import check_spacing_mm
from glioflow.data.formats.mask_file import read_mask, scheme_of
from glioflow.data.formats.study import read_study
from glioflow.data.preprocessing.brain_mask import locate_brain
from glioflow.errors import UserError, option
from glioflow.features import MaskFeatures, RegionFeatures, measure_mask, measure_regions
from glioflow.features.association import FEATURES, Association, Auc
from glioflow.features.radiomics import measure_radiomics
from glioflow.json_values import JsonObject
from glioflow.label_schemes import scheme_named
from glioflow.progress import Say, occasionally, print_progress
from glioflow.reports.numbers import interval, short
from glioflow.reports.tables import Table
from glioflow.runs.analysis.associate import associate_cohort
from glioflow.runs.analysis.survival import fit_survival as fit_stage
from glioflow.survival.evaluated import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What a spacing may be; other numbers overflow, or are of another unit.
_FINEST_MM, _COARSEST_MM = 1e-3, 1e3


@dataclass(frozen=True)
class FeaturesResult(Result):
    """Shape features of a mask.

    Attributes:
        features: Features of the whole tumor, and of each slice.
        regions: Features of each region, if the mask has the labels of BraTS; otherwise None.
        radiomics: Features of pyradiomics by name; None if they were not requested.
        warnings: Why there are no regions, a sentence.
    """

    features: MaskFeatures
    regions: RegionFeatures | None = None
    radiomics: dict[str, float] | None = None
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        return {key: value for key, value in super().to_json().items() if value not in (None, [])}

    def tables(self) -> list[Table]:
        """Return the features of the whole tumor."""
        rows = [*self.features.volume.items(), *(self.radiomics or {}).items()]
        return [Table("", ["feature", "value"], rows)]

    def notes(self) -> list[str]:
        """Return the warnings."""
        return self.warnings


class AssociationResult(Association, Result):
    """Shape features tested against genomic clusters, next to the published numbers.

    Attributes:
        masks: Description of the masks that were measured.
        run_id: The run that it is logged as.
    """

    masks: str
    run_id: str

    def to_json(self) -> JsonObject:
        """Return the values as `--json` prints them on the command line."""
        return self.model_dump(mode="json")

    def tables(self) -> list[Table]:
        """Return the tests, and the areas under the curve of one class against the rest."""
        keys = ["feature", "cluster", "num_patients", "p_value", "p_bonferroni", "published_p"]
        title = f"Fisher's exact test, {self.num_hypotheses} hypotheses; published on 110 patients"
        tests = Table(title, keys, [[getattr(test, key) for key in keys] for test in self.tests])
        head = ["score", "class", "patients", "area (95 %)", "published"]
        areas = [_auc_row(auc) for auc in self.aucs]
        return [tests, *([Table("one class against the rest", head, areas)] if areas else [])]


def _auc_row(auc: Auc) -> list[object]:
    limits = "" if auc.low is None or auc.high is None else f" ({auc.low:.3f} to {auc.high:.3f})"
    beside = [f"{v:.2f} {k}: {'agrees' if auc.agrees[k] else 'differs'}" for k, v in auc.published.items()]
    patients = f"{auc.num_positive} of {auc.num_patients}"
    return [auc.score, f"{auc.cluster} {auc.label}", patients, f"{auc.auc:.3f}{limits}", ", ".join(beside)]


@dataclass(frozen=True)
class SurvivalResult(Result):
    """A survival stage, evaluated on patients it was not fitted on.

    Attributes:
        run_id: Its run, which `register` takes as `survival`.
        task: The predicted outcome.
        masks: Description of the masks that were measured.
        model: The model's name.
        primary: Whether the model is the one that was fixed in advance; otherwise it is exploratory.
        num_patients: Number of patients with an outcome.
        num_events: Number of those who died.
        metrics: By name.
        baselines: Metrics of each baseline.
        differences: Model minus baseline, by name.
        beats_baselines: Whether the intervals of the differences exclude 0.
        p_value: P-value of the permutation test; None if there was none.
        warnings: A sentence each.
    """

    run_id: str
    task: str
    masks: str
    model: str
    primary: bool
    num_patients: int
    num_events: int
    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, Interval]]
    differences: dict[str, Interval]
    beats_baselines: bool
    p_value: float | None
    warnings: list[str]

    def tables(self) -> list[Table]:
        """Return the metrics next to those of the baselines, and the differences."""
        rows: list[list[object]] = [
            [name, _with_interval(value), *(_value(other.get(name)) for other in self.baselines.values())]
            for name, value in self.metrics.items()
        ]
        kind = "the model fixed beforehand" if self.primary else "exploratory"
        title = f"{self.task}, {self.model} ({kind}): {self.num_events} events, {self.num_patients} patients"
        differences = [[name, _with_interval(value)] for name, value in self.differences.items()]
        return [
            Table(title, ["", "model", *self.baselines], rows),
            Table("model minus baseline", ["", ""], differences),
        ]

    def notes(self) -> list[str]:
        """Return the test, the verdict and the warnings, one of which says which baselines are not beaten."""
        test = [] if self.p_value is None else [f"permutation test: p = {self.p_value:.3g}"]
        return [*test, *(["beats its baselines"] if self.beats_baselines else []), *self.warnings]


def _value(estimate: Interval | None) -> float | None:
    return None if estimate is None else estimate.value


def _with_interval(estimate: Interval) -> str:
    low, high = estimate.low, estimate.high
    return short(estimate.value) + ("" if low is None or high is None else f" ({interval(low, high)})")


def measure_features(
    mask: str | Path,
    *,
    spacing: Sequence[float] | None = None,
    image: str | Path | None = None,
    radiomics: bool = False,
    scheme: str | None = None,
) -> FeaturesResult:
    """Measure the shape features of a mask, and where it is in the brain.

    Args:
        mask: The mask's file, or the folder of one LGG case.
        spacing: (z, y, x) in millimeters; None takes the file's.
        image: Images of the study, to locate the brain; None takes those in the folder `mask`.
        radiomics: Whether to add pyradiomics' shape features, if it is installed.
        scheme: Label scheme of the mask, such as `brats-2021`; None takes the one that the file names indicate.

    Raises:
        UserError: If a file cannot be read, `spacing` is not three positive numbers, `image` has another shape, or the
            labels are not those of `scheme`.
    """
    spacing_mm = None if spacing is None else _check_spacing(spacing)
    if scheme is not None:
        scheme_named(scheme)
    volume, stored_mm = read_mask(Path(mask))
    if spacing_mm is None:
        check_spacing_mm(stored_mm, Path(mask))
        spacing_mm = stored_mm
    brain = _brain(Path(image or mask), volume.shape, asked=image is not None)
    measured = measure_mask(volume > 0, spacing_mm=spacing_mm, brain=brain)
    regions, warnings = None, []
    if scheme is not None or volume.max(initial=0) > 1:  # labels of several regions, as in BraTS
        try:
            named = scheme_of(Path(mask), volume, scheme)
            regions = measure_regions(volume, spacing_mm=spacing_mm, brain=brain, regions=named.regions)
        except UserError as error:  # labels of another kind of cohort: the shape of the whole still holds
            if scheme is not None:
                raise
            warnings.append(f"no regions: {error}")
    added = measure_radiomics(volume > 0, spacing_mm=spacing_mm) if radiomics else None
    return FeaturesResult(measured, regions, added, warnings)


def _check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    if len(spacing) != 3 or not all(_FINEST_MM <= step <= _COARSEST_MM for step in spacing):
        rule = f"{option('spacing')} must be three numbers z,y,x from {_FINEST_MM:g} to {_COARSEST_MM:g} in millimeters"
        raise UserError(rule, tuple(spacing))
    z, y, x = spacing
    return z, y, x


def _brain(study: Path, shape: tuple[int, ...], *, asked: bool) -> "NDArray[np.bool_] | None":
    """Find the brain in the image of a mask; None if there is no image."""
    if not asked and not study.is_dir():
        return None
    case = read_study([study])
    if not asked and case.mask is None:  # a folder of masks alone
        return None
    if case.shape != shape:
        raise UserError(f"{option('image')} must have the shape of the mask, {shape}", case.shape)
    return locate_brain(case.image)


def associate(
    cohort: str | Path,
    clinical: str | Path,
    *,
    masks: object = "manual",
    features: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    say: Say = print_progress,
) -> AssociationResult:
    """Test shape features against genomic clusters, next to the published numbers.

    Args:
        cohort: Its folder, or a prepared cohort's URI.
        clinical: Clinical table (CSV) with the clusters.
        masks: `manual`, or a cross-validation, its run id or result, whose out-of-fold masks are used.
        features: Names of shape features; None takes `asd`, `mf` and `bevr`.
        clusters: Columns of the table; None takes the published ones that it has.
        say: Called with the part of the cases that are measured, and now and then with a line.

    Raises:
        UserError: If cohort, table, run or names do not fit each other.
    """
    done = associate_cohort(
        cohort,
        Path(clinical),
        masks=run_of(masks),
        feature_names=features or FEATURES,
        clusters=clusters or None,
        say=occasionally(say),
    )
    return AssociationResult(**vars(done.association), masks=done.masks, run_id=done.run_id)


def fit_survival(
    cohort: str | Path | None = None,
    *,
    clinical: str | Path,
    outcomes: str | Path | None = None,
    masks: object = "none",
    experiment: Experiment | str | Path | None = None,
    overrides: Overrides = (),
    say: Say = print_progress,
) -> SurvivalResult:
    """Fit the survival stage and evaluate it on patients it was not fitted on.

    Args:
        cohort: Its folder or URI; needed with the masks `manual`.
        clinical: Clinical table (CSV).
        outcomes: Second table, with the follow-up.
        masks: `manual`, `none`, or a cross-validation, its run id or result, whose out-of-fold masks are used.
        experiment: The experiment, or its file, whose `survival` section is used; None takes the default.
        overrides: `section.key=value` texts, or values by dotted key.
        say: As for `associate`.

    Raises:
        UserError: If the tables, the run or the cohort do not fit, or there are too few patients or events.
    """
    settings = read_experiment(Experiment() if experiment is None else experiment, overrides)
    done = fit_stage(
        settings.survival,
        Path(clinical),
        outcomes=None if outcomes is None else Path(outcomes),
        masks=run_of(masks),
        cohort=cohort,
        say=occasionally(say),
    )
    fitted = vars(done.evaluation)
    taken = {key: fitted[key] for key in SurvivalResult.__dataclass_fields__ if key in fitted and key != "warnings"}
    warnings = list(done.evaluation.warnings)
    if cohort is not None and masks == "none":
        warnings.append(
            f"COHORT was not measured; to measure its masks, give {option('masks', 'manual')} or a "
            "cross-validation's run id"
        )
    return SurvivalResult(run_id=done.run_id, masks=done.masks, **taken, warnings=warnings)
