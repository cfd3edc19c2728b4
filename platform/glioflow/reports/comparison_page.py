"""The report about two models on the same patients, from the answer's plain values."""

from glioflow.reports import evaluation_figures as draw
from glioflow.reports.evaluation_page import BOTH_EMPTY, METRICS, Answer
from glioflow.reports.numbers import number
from glioflow.reports.page import Drawing, Section, render_page


def comparison_page(answer: Answer, *, about: str) -> str:
    """Return the report of a paired comparison, as `runs.compare.compare` answers it, as one HTML file."""
    a, b = answer["models"]["a"], answer["models"]["b"]
    low, high = answer["ci95"]
    facts = {
        "mean Dice of A": number(a["dice_mean"]),
        "mean Dice of B": number(b["dice_mean"]),
        "difference, A minus B": f"{answer['difference']:+.3f}",
        "95 % interval, paired bootstrap": f"{low:+.3f} to {high:+.3f}",
        "p, Wilcoxon signed-rank": _p(answer["p_value"]),
        "patients": str(answer["num_patients"]),
    }
    return render_page("Two models on the same patients", about, facts, _sections(answer))


def _sections(answer: Answer) -> list[Section]:
    a, b, rows = answer["models"]["a"], answer["models"]["b"], answer["per_patient"]
    paired = draw.paired([row["dice_a"] for row in rows], [row["dice_b"] for row in rows], names=("A", "B"))
    keys = {k: v for k, v in answer["metrics"].items() if not k.startswith(("hd95", "volume"))}
    forest = draw.intervals(
        {METRICS.get(name, name): (v["difference"], *v["ci95"]) for name, v in keys.items()},
        title="Metrics between 0 and 1",
        xlabel="A minus B, with 95 % interval",
    )
    metrics = [
        (
            METRICS.get(name, name),
            *(number(model.get(f"{name}_mean")) for model in (a, b)),
            *_difference(v),
            ", ".join(str(model.get(f"{name}_num_empty_both", 0)) for model in (a, b)),
        )
        for name, v in answer["metrics"].items()
    ]
    institutions = [(name, *_difference(v)) for name, v in answer["per_institution"].items()]
    models = [
        (name, model["name"], model["experiment"], model["architecture"], _count(model["num_parameters"]))
        for name, model in (("A", a), ("B", b))
    ]
    ordered = sorted(rows, key=lambda row: float(row["difference"]))
    patients = [
        (r["id"], r["institution"] or "", *map(number, (r["dice_a"], r["dice_b"], r["difference"]))) for r in ordered
    ]
    head = ("A minus B", "95 % interval", "p", "patients")
    return [
        Section("Read this first", " ".join(f"{text}." for text in answer.get("warnings") or ())),
        Section("The models", head=("", "model", "experiment", "network", "parameters"), rows=models),
        Section(
            "Patient by patient",
            drawings=(Drawing("paired", paired, "Each patient under both models; blue where A is better.", wide=True),),
        ),
        Section(
            "Every metric",
            "Means over patients; undefined ones are left out in pairs.",
            (Drawing("metrics", forest, "Blue: A is higher. Red: B is.", wide=True),),
            head=("metric", "A", "B", *head, f"{BOTH_EMPTY}: A, B"),
            rows=metrics,
        ),
        Section(
            "By institution",
            "Institutions with fewer than five patients are pooled.",
            head=("institution", *head),
            rows=institutions,
        ),
        Section("All patients", head=("id", "institution", "A", "B", "A minus B"), rows=patients),
    ]


def _difference(value: Answer) -> tuple[str, str, str, str]:
    low, high = value["ci95"]
    return f"{value['difference']:+.3f}", f"{low:+.3f} to {high:+.3f}", _p(value["p_value"]), str(value["num_patients"])


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
