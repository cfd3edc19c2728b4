"""The report about a model on a cohort, from the answer's plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from glioflow.quantities import count
from glioflow.reports import evaluation_figures as draw
from glioflow.reports.figures import distribution_of_dice
from glioflow.reports.numbers import interval, number, percent
from glioflow.reports.page import Drawing, Section, render_page

Answer = Mapping[str, Any]
BASELINES = {
    "all_empty": "an empty mask",
    "flair_threshold": "a threshold on FLAIR, chosen on training patients",
    "nearest_slice": "a copy of the most similar slice of another patient",
    "human": "two experts against each other on the LGG cohort (Buda 2019)",
}
# Metrics in the order of the table, with their headings.
METRICS = {
    "dice": "Dice",
    "iou": "IoU",
    "mean_iou": "IoU, mean over parts and background",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "hd95": "HD95",
    "nsd": "surface Dice",
    "hd95_mm": "HD95, mm",
    "hd95_inplane_px": "HD95 in the slices with tumor in both, px",
    "nsd_1mm": "surface Dice at 1 mm",
    "nsd_inplane_1px": "surface Dice in the slices at 1 px",
    "volume_error_relative": "volume error, relative",
    "lesion_sensitivity_any_voxel": "lesions found (any voxel)",
    "lesion_precision_any_voxel": "lesions that are real (any voxel)",
    "dice_tumor_slices": "Dice, slices with tumor",
    "iou_tumor_slices": "IoU, slices with tumor",
    "iou_tumor_free_slices": "IoU, slices without tumor",
    "slice_sensitivity": "tumor slices found",
    "false_positive_slice_rate": "false-positive slices",
    "uncertainty": "uncertainty, nats",
    "ensemble_probability_std": "ensemble: standard deviation of probabilities",
    "ensemble_mask_disagreement": "ensemble: 1 less the Dice of two members",
    "ensemble_volume_variation": "ensemble: variation of the volume",
}
# Patients with a case whose prediction and reference are both empty, which counts as correct.
BOTH_EMPTY = "both empty"
BESIDE = ("", "mean Dice", "median Dice", BOTH_EMPTY)
CURVES = {"everywhere": "all voxels", "near_tumor": "near the tumor"}
# Headings of the table of cases, by key.
COLUMNS = {
    **{"id": "id", "patient": "patient", "institution": "institution", "fold": "fold"},
    **{key: METRICS[key] for key in ("dice", "iou", "hd95", "nsd", "sensitivity", "precision", "uncertainty")},
    **{"ensemble_mask_disagreement": "disagreement", "part": "part of the split"},
}


def evaluation_page(answer: Answer, *, title: str, about: str, cases: Sequence[Drawing] = ()) -> str:
    """Return the report of an evaluation or a cross-validation as one HTML file.

    Args:
        answer: As `runs.evaluate.evaluation_answer` makes it, perhaps with `warnings`.
        title: Title of the page.
        about: One line: whose patients, how predicted.
        cases: Pictures of single cases, two in a row.
    """
    rows = answer["per_patient"]
    sections = [
        Section("Read this first", " ".join(f"{text}." for text in answer.get("warnings") or ())),
        _dice(answer, rows),
        Section("Beside its baselines", head=BESIDE, rows=beside_baselines(answer)),
        _metrics(answer),
        _tumor_or_not(answer),
        _belief(answer, rows),
        _institutions(answer, rows),
        _folds(answer),
        Section("Worst, median and best", "Truth in blue, prediction in red." if cases else "", cases),
        _patients(rows),
    ]
    return render_page(title, about, _facts(answer), sections)


def _facts(answer: Answer) -> dict[str, str]:
    low, high = answer["dice_ci95"]
    facts = {
        "patients": str(answer["num_patients"]),
        "cases": str(answer.get("num_cases", len(answer["per_patient"]))),
        "mean Dice": number(answer["dice_mean"]),
        "median Dice": number(answer["dice_median"]),
        "95 % interval of the mean": f"{low:.3f} to {high:.3f}",
        "false-positive slices": percent(answer.get("false_positive_slice_rate_pooled")),
        "calibration error": number(answer.get("expected_calibration_error_near_tumor")),
    }
    for key, name in (("hd95_mm", "median HD95, mm"), ("hd95_inplane_px", "median HD95 in slices, px")):
        if answer.get(f"{key}_median") is not None:
            facts[name] = number(answer[f"{key}_median"], 1)
    return facts


def _dice(answer: Answer, rows: Sequence[Answer]) -> Section:
    figure = distribution_of_dice({row["id"]: row["dice"] for row in rows}, title="Dice of each case")
    empty = answer.get("dice_num_empty_both", 0)
    text = "One Dice for each case's whole volume, in the original geometry; a patient's is the mean over their cases."
    if empty:
        text += f" For {count(empty, 'patient')} a part of a case is empty in prediction and reference: it counts as 1."
    return Section("Dice", text, (Drawing("dice", figure, "Every case, in order.", wide=True),))


def beside_baselines(answer: Answer) -> list[tuple[str, str, str, str]]:
    """Return table rows: name, mean and median Dice, and patients decided by the rule for two empty masks.

    Of the model and all that it has to beat.
    """
    ruled = str(answer.get("dice_num_empty_both", 0))
    rows = [("this model", number(answer["dice_mean"]), number(answer["dice_median"]), ruled)]
    for name, scores in answer["baselines"].items():
        mean = number(scores["dice_mean"]) + (f" ± {scores['dice_std']:.2f}" if "dice_std" in scores else "")
        ruled = "-" if name == "human" else f"{scores.get('num_empty_both', 0):.0f}"
        rows.append((BASELINES.get(name, name), mean, number(scores.get("dice_median")), ruled))
    return rows


def _metrics(answer: Answer) -> Section:
    parts = [
        key[5:-5] for key in answer if key.startswith("dice_") and f"hd95_{key[5:]}" in answer and key.endswith("_mean")
    ]
    rows = []
    for part in ["", *(f"_{part}" for part in parts if part)]:
        for key, name in METRICS.items():
            if f"{key}{part}_mean" in answer and key not in ("hd95", "nsd"):  # listed with their units
                rows.append((f"{part[1:]} {name}".strip(), *_spread(answer, f"{key}{part}")))
    return Section(
        "All metrics",
        "By patient. Undefined: a ratio over nothing; those patients are left out of that line and counted. Both "
        "empty: patients with a case without tumor and without prediction, which counts as right.",
        head=("metric", "mean", "95 % interval", "median", "undefined", BOTH_EMPTY),
        rows=rows,
    )


def _spread(answer: Answer, key: str) -> tuple[str, str, str, str, str]:
    ends = answer.get(f"{key}_ci95")
    shown = "-" if ends is None else interval(*ends)
    undefined, ruled = (str(answer.get(f"{key}_num_{kind}", 0)) for kind in ("undefined", "empty_both"))
    return number(answer[f"{key}_mean"]), shown, number(answer[f"{key}_median"]), undefined, ruled


def _tumor_or_not(answer: Answer) -> Section:
    def line(name: str, *keys: str) -> tuple[str, ...]:
        return (name, *(number(answer.get(key)) for key in keys))

    rows = [
        line("study", "study_sensitivity", "study_false_positive_rate", "study_auroc"),
        line(
            "slice, all together", "slice_sensitivity_pooled", "false_positive_slice_rate_pooled", "slice_auroc_pooled"
        ),
        line("slice, mean of patients", "slice_sensitivity_mean", "false_positive_slice_rate_mean", "slice_auroc_mean"),
    ]
    counts = f"{answer['num_tumor_slices']:,} of {answer['num_slices']:,} slices have tumor"
    return Section(
        "Is there a tumor, yes or no",
        f"{counts}; {answer['num_false_positive_slices']:,} of the others have a false prediction. An "
        "AUROC needs both kinds.",
        head=("by", "sensitivity", "false-positive rate", "AUROC"),
        rows=rows,
    )


def _belief(answer: Answer, rows: Sequence[Answer]) -> Section:
    drawings = []
    curves = {CURVES[name]: curve for name, curve in answer["calibration"].items() if curve}
    if curves:
        figure = draw.reliability(curves, title="What a probability means")
        drawings.append(Drawing("reliability", figure, "On the dashed line, 0.7 means 7 of 10 voxels.", wide=True))
    unsure = [row["uncertainty"] for row in rows]
    dots = draw.against(
        unsure, [row["dice"] for row in rows], title="Does it know?", xlabel="uncertainty, nats", ylabel="Dice"
    )
    drawings.append(Drawing("uncertainty", dots, "Mean entropy of each case's doubtful voxels, against its Dice."))
    if all("ensemble_mask_disagreement" in row for row in rows):
        apart = [row["ensemble_mask_disagreement"] for row in rows]
        dots = draw.against(
            apart, [row["dice"] for row in rows], title="Do its members agree?", xlabel="disagreement", ylabel="Dice"
        )
        drawings.append(
            Drawing("disagreement", dots, "1 less the Dice between two members, against the ensemble's Dice.")
        )
    unit = next((unit for unit in ("mm3", "px") if all(f"volume_reference_{unit}" in row for row in rows)), None)
    if unit is not None:
        true, predicted = ([row[f"volume_{kind}_{unit}"] for row in rows] for kind in ("reference", "prediction"))
        figure = draw.volumes(true, predicted, unit="mm³" if unit == "mm3" else "voxels")
        drawings.append(Drawing("volumes", figure, "Tumor volume of each case; dashed: equal."))
    overall, near = (number(answer.get(f"expected_calibration_error{where}"), 4) for where in ("", "_near_tumor"))
    text = f"Expected calibration error {overall} over all voxels, {near} in the boxes around true and predicted tumor."
    return Section("Can it be believed?", f"{text} {_interval_text(answer)}", drawings)


def _interval_text(answer: Answer) -> str:
    interval = answer.get("volume_interval")
    if interval is None:
        return "This model has no conformal interval for the volume."
    name, patients = f"A {interval['level']:.0%} conformal interval for the volume", interval["num_patients"]
    if not interval["available"]:
        return f"{name} is not available: {patients} patients are too few."
    text = f"{name} (CV+) rests on {patients} out-of-fold patients."
    if interval.get("coverage") is not None:
        text += f" It held {interval['coverage']:.0%} of {interval['num_asked']} patients that it had not seen."
    return text


def _institutions(answer: Answer, rows: Sequence[Answer]) -> Section:
    institutions = answer["per_institution"]
    if not institutions:
        return Section("By institution")
    groups = {name: [row["dice"] for row in rows if row["institution"] == name] for name in institutions}
    table = [
        (
            name,
            str(v.get("num_patients", v["num_cases"])),
            number(v["dice_mean"]),
            "{:.3f} to {:.3f}".format(*v["dice_ci95"]),
            number(v["dice_median"]),
            str(v.get("dice_num_empty_both", 0)),
        )
        for name, v in institutions.items()
    ]
    figure = draw.by_group(groups, title="Dice by institution")
    return Section(
        "By institution",
        "",
        (Drawing("institutions", figure, "A dot for each case; red: the median."),),
        head=("institution", "patients", "mean Dice", "95 % interval", "median Dice", BOTH_EMPTY),
        rows=table,
    )


def _folds(answer: Answer) -> Section:
    keys = ("dice_mean", "dice_median", "run_id")
    shown = [
        [fold["fold"], fold["num_patients"], *(number(fold[key]) for key in keys)]
        for fold in answer.get("per_fold", ())
    ]
    return Section("By fold", head=("fold", "patients", "mean Dice", "median Dice", "run"), rows=shown)


def _patients(rows: Sequence[Answer]) -> Section:
    columns = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    ordered = sorted(rows, key=lambda row: float(row["dice"]))
    shown = [[number(row.get(name)) for name in columns] for row in ordered]
    return Section("All cases", head=[COLUMNS[name] for name in columns], rows=shown)
