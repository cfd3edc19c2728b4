"""The model card, with the facts needed before using a version, as Markdown and HTML, from its description."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from glioflow.bundle import Description, Origin
from glioflow.bundle.prediction import NOT_FOR_CLINICAL_USE as NOTICE
from glioflow.evaluation import bootstrap_interval
from glioflow.evaluation.patients import Row, metric_of, patient_means
from glioflow.reports.numbers import interval, short
from glioflow.reports.page import Section, render, render_page

CARD, CARD_HTML = "card.md", "card.html"
# Keys of subgroup metrics: `test/by/institution/CS/dice_mean` and so on.
_BY = "test/by/"
_SHOWN = {
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "voxel sensitivity",
    "precision": "voxel precision",
    "hd95": "HD95",
    "nsd": "surface Dice",
    "slice_sensitivity": "tumor slices found",
    "false_positive_slice_rate": "tumor-free slices with a false positive",
}
_DATA_LICENSES = {
    "lgg": (
        "For the LGG segmentation cohort (Buda et al. 2019): Kaggle's mateuszbuda/lgg-mri-segmentation, CC BY-NC-SA "
        "4.0, images from TCIA's TCGA-LGG. A cohort of your own or a synthetic one has its own terms."
    ),
    "brats": (
        "For BraTS: the data use agreement of the challenge's year. A cohort of your own or a synthetic one has its "
        "own terms."
    ),
}


def subgroup_metrics(rows: Iterable[Row]) -> dict[str, float | None]:
    """Return Dice of test patients by institution and by size of the tumor, as metrics for a description.

    Args:
        rows: Per case `institution`, `dice` and `volume_reference_px` or `_mm3`.

    Returns:
        `test/by/GROUPING/GROUP/` with `dice_mean`, `dice_ci95_low`, `dice_ci95_high` over patients, `num_patients` and
        `num_cases`. Sizes are the terciles of these cases.
    """
    cases = [row for row in rows if row.get("dice") is not None]
    groups: dict[str, list[Row]] = {}
    for row in cases:
        groups.setdefault(f"institution/{row.get('institution') or 'unknown'}", []).append(row)
    sized = sorted((row for row in cases if _volume(row) is not None), key=lambda row: _volume(row) or 0.0)
    for index, row in enumerate(sized):
        size = ("small", "medium", "large")[index * 3 // len(sized)]
        groups.setdefault(f"tumor size/{size}", []).append(row)
    metrics: dict[str, float | None] = {}
    for group, members in groups.items():
        scores = [*patient_means(members, "dice").values()]
        low, high = bootstrap_interval(scores)
        summary = {"dice_mean": fmean(scores), "dice_ci95_low": low, "dice_ci95_high": high}
        summary |= {"num_patients": len(scores), "num_cases": len(members)}
        metrics |= {f"{_BY}{group}/{key}": float(value) for key, value in summary.items()}
    return metrics


def card(description: Description, *, title: str, survival: str | None = None, lineage: Mapping[str, str] = {}) -> str:
    """Return the card as Markdown.

    Args:
        description: Description of the bundle.
        title: Title, such as the name and number of the version.
        survival: Task of its survival stage, or None.
        lineage: Further facts about its origin, by name.
    """
    sections = _sections(description, survival, lineage)
    return render(Path(__file__).with_name("card.md.jinja"), title=title, notice=NOTICE, sections=sections)


def card_html(
    description: Description, *, title: str, survival: str | None = None, lineage: Mapping[str, str] = {}
) -> str:
    """Return the card as one HTML file; arguments as for `card`."""
    metrics = description.metrics
    facts = {
        "mean Dice, test patients": short(metrics.get("test/dice_mean")),
        "95 % interval": _interval(metrics, "test/dice"),
        "test patients": str(description.origin.num_patients.get("test", 0)),
        "parameters": f"{description.num_parameters:,}",
    }
    return render_page(title, NOTICE, facts, _sections(description, survival, lineage))


def _sections(description: Description, survival: str | None, lineage: Mapping[str, str]) -> list[Section]:
    return [
        _intended_use(description, survival),
        _model(description, survival),
        _data(description.origin),
        *_scores(description.metrics),
        _limits(description.origin, survival),
        Section(
            "Lineage",
            rows=[["experiment", description.origin.experiment], *map(list, _lineage(description, lineage).items())],
        ),
        _licenses(description),
    ]


def _intended_use(description: Description, survival: str | None) -> Section:
    return Section(
        "Intended use",
        f"Outlines brain tumors in MRI studies with the channels {', '.join(description.channels)}, measures the "
        f"outline{f' and estimates {survival}' if survival else ''}, for research on cohorts like the one it was "
        f"trained on. {NOTICE} Not for diagnosis, treatment or triage, and not for patients whose images were made "
        "otherwise than those of the training cohort.",
    )


def _model(description: Description, survival: str | None) -> Section:
    encoder = description.model.encoder
    network = description.model.architecture + (f" with encoder {encoder}" if encoder else "")
    if description.folds:
        network = f"{len(description.folds)} of {network}, one a fold, whose probabilities are averaged"
    return Section(
        "Model",
        rows=[
            ["network", network],
            ["parameters", f"{description.num_parameters:,}"],
            ["task", f"{description.target.kind}: {', '.join(description.target.names)}"],
            ["preprocessing", ", ".join(step.step for step in description.preprocess)],
            ["survival stage", survival or "none"],
        ],
    )


def _data(origin: Origin) -> Section:
    return Section(
        "Data and split",
        "Patients, never slices, were dealt to the parts; no patient is in two of them.",
        rows=[
            ["format of the cohort", origin.cohort_format],
            ["patients", ", ".join(f"{part} {count}" for part, count in origin.num_patients.items())],
            ["fingerprint of the sources", origin.source_fingerprint],
            ["fingerprint as prepared", origin.fingerprint],
            ["split", origin.split],
            ["test patients", origin.test],
            *[[f"{what} chosen on", part] for what, part in origin.fitted_on.items()],
        ],
    )


def _scores(metrics: Mapping[str, float | None]) -> list[Section]:
    head = ["metric", "test mean", "95 % interval", "test median", "validation mean", "out-of-fold mean", "both empty"]
    return [
        Section(
            "Metrics",
            "Per patient on the whole volume, in the images' own geometry, then averaged; intervals by bootstrap over "
            "patients. Both empty: test patients with a case without tumor and without prediction, which counts as "
            "right. Out-of-fold: each patient by the one network of a cross-validation that never saw them.",
            head=head,
            rows=_metric_rows(metrics),
        ),
        Section(
            "Subgroups",
            "Dice of test patients. An interval of few patients says little.",
            head=["group", "mean Dice", "95 % interval", "patients"],
            rows=_subgroup_rows(metrics),
        ),
    ]


def _limits(origin: Origin, survival: str | None) -> Section:
    return Section(
        "Limits",
        "One cohort's scanners, protocols and readers; scores elsewhere may be lower. A reference is one reader's "
        "outline: two experts agree on LGG to a Dice of about 0.84. Probabilities may be over-confident. "
        f"{_few(origin.num_patients.get('test', 0))}"
        f"{'Its survival estimate is exploratory. ' if survival else ''}".strip(),
    )


def _licenses(description: Description) -> Section:
    return Section(
        "Licenses",
        "Code and weights as trained: Apache-2.0, where the data's terms allow. "
        f"{_DATA_LICENSES.get(description.origin.cohort_format, 'Data: the terms of the training cohort.')}"
        f"{_weights_license(description.model.weights)}",
    )


def _metric_rows(metrics: Mapping[str, float | None]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for key, name in _SHOWN.items():
        test, val, oof = (metrics.get(f"{part}/{key}_mean") for part in ("test", "val", "oof"))
        if any(mean is not None for mean in (test, val, oof)):
            median = short(metrics.get(f"test/{key}_median"))
            ruled = short(metrics.get(f"test/{key}_num_empty_both", 0.0))
            rows.append([name, short(test), _interval(metrics, f"test/{key}"), median, short(val), short(oof), ruled])
    return rows


def _subgroup_rows(metrics: Mapping[str, float | None]) -> list[Sequence[object]]:
    groups = [key.removesuffix("/dice_mean") for key in metrics if key.startswith(_BY) and key.endswith("/dice_mean")]
    return [
        [
            group.removeprefix(_BY).replace("/", ": "),
            short(metrics[f"{group}/dice_mean"]),
            _interval(metrics, f"{group}/dice"),
            short(metrics.get(f"{group}/num_patients", metrics.get(f"{group}/num_cases"))),
        ]
        for group in groups
    ]


def _lineage(description: Description, lineage: Mapping[str, str]) -> dict[str, str]:
    origin = description.origin
    return {"made": origin.created, "GlioFlow": origin.version, **{key: str(value) for key, value in lineage.items()}}


def _few(num_patients: int) -> str:
    return f"Only {num_patients} test patients: the intervals are wide. " if num_patients < 30 else ""


def _weights_license(weights: object) -> str:
    return f" Started from {weights}: that checkpoint's license applies too." if weights else ""


def _volume(row: Row) -> float | None:
    return metric_of(row, "volume_reference_mm3" if "volume_reference_mm3" in row else "volume_reference_px")


def _interval(metrics: Mapping[str, float | None], key: str) -> str:
    low, high = metrics.get(f"{key}_ci95_low"), metrics.get(f"{key}_ci95_high")
    return interval(low, high)
