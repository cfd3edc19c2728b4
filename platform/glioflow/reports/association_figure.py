"""Shape features against genomic clusters as a figure and a page: tests, areas, and what was published beside them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glioflow.reports.figures import INK, PREDICTION, TRUTH, new_figure, to_png
from glioflow.reports.page import Drawing, Section, render_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]


def association_figure(tests: Rows, aucs: Rows) -> bytes:
    """Draw the corrected p-values as a grid, and the areas of one clustering with their intervals.

    Args:
        tests: With `feature`, `cluster`, `p_bonferroni`, `significant`.
        aucs: With `score`, `cluster`, `label`, `auc`, `low`, `high`, `published` (area by kind of mask). Drawn are
            those of the clustering with a published area, else of the first.

    Returns:
        PNG.
    """
    chosen = next((one["cluster"] for one in aucs if one["published"]), aucs[0]["cluster"])
    shown = [one for one in aucs if one["cluster"] == chosen]
    figure, (grid, forest) = new_figure(2, width=10.5, height=max(3.2, 1.2 + 0.24 * len(shown)))
    _draw_grid(grid, tests)
    _draw_forest(forest, shown, str(chosen))
    return to_png(figure)


def association_page(tests: Rows, aucs: Rows, *, masks: str, num_hypotheses: int, level: float, figure: bytes) -> str:
    """Return the whole analysis as one HTML page.

    Args:
        tests: As in `association_figure`, all fields of `features.association.Test`.
        aucs: All fields of `features.association.Auc`.
        masks: Description of the masks that were measured.
        num_hypotheses: Behind the correction.
        level: Level of significance.
        figure: The PNG of `association_figure`.
    """
    patients = sorted({int(one["num_patients"]) for one in tests})
    facts = {
        "patients": f"{patients[0]} to {patients[-1]}" if len(patients) > 1 else str(patients[0]),
        "hypotheses": str(num_hypotheses),
        f"significant at {level:g} after correction": str(sum(bool(one["significant"]) for one in tests)),
    }
    note = (
        "Each feature is cut at its median; Fisher's exact test of the table, Bonferroni. Published p-values come from "
        "110 patients: they are shown for reference, not for comparison, because a p-value depends on the number of "
        "patients."
    )
    agreed = "An area agrees only if the published value is inside our interval."
    head = ("feature", "clustering", "patients", "p", "p corrected", "significant", "published p")
    sections = [
        Section("At a glance", drawings=[Drawing("association", figure, "Corrected p-values; areas.", wide=True)]),
        Section("Tests", note, head=head, rows=[_test_row(one) for one in tests]),
        Section(
            "Areas under the ROC curve, one class against the rest",
            agreed,
            head=("score", "clustering", "class", "patients", "of the class", "area (95 %)", "published", "agrees"),
            rows=[_auc_row(one) for one in aucs],
        ),
    ]
    return render_page("Shape features and genomic clusters", f"Measured on {masks}.", facts, sections)


def _test_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    significant = "yes" if one["significant"] else "no"
    p = (f"{one['p_value']:.4f}", f"{one['p_bonferroni']:.4f}")
    return one["feature"], one["cluster"], one["num_patients"], *p, significant, one["published_p"] or ""


def _auc_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    area = f"{one['auc']:.3f}" if one["low"] is None else f"{one['auc']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
    published = ", ".join(f"{value:.2f} {masks}" for masks, value in one["published"].items())
    agrees = ", ".join("yes" if value else "no" for value in one["agrees"].values())
    return one["score"], one["cluster"], one["label"], one["num_patients"], one["num_positive"], area, published, agrees


def _draw_grid(axes: "Axes", tests: Rows) -> None:
    features = list(dict.fromkeys(one["feature"] for one in tests))
    clusters = list(dict.fromkeys(one["cluster"] for one in tests))
    values = np.full((len(clusters), len(features)), np.nan)
    for one in tests:
        values[clusters.index(one["cluster"]), features.index(one["feature"])] = one["p_bonferroni"]
    strength = -np.log10(np.clip(values, 1e-4, 1))
    axes.imshow(strength, cmap="Blues", vmin=0, vmax=4, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if strength[row, column] > 2.2 else INK
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=color, fontsize=9)
    axes.set(xticks=range(len(features)), xticklabels=features, yticks=range(len(clusters)), yticklabels=clusters)
    axes.set_title("Fisher's exact test, p after Bonferroni", fontsize=10)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _draw_forest(axes: "Axes", aucs: Rows, cluster: str) -> None:
    for position, one in enumerate(aucs):
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [position, position], color=TRUTH, lw=1.6)
        axes.scatter(
            one["auc"], position, color=TRUTH, s=26, zorder=3, label=None if position else "ours, 95 % interval"
        )
        for number, (masks, area) in enumerate(one["published"].items()):
            marker = "D" if number == 0 else "s"
            beside = position - 0.25 + 0.5 * number
            axes.scatter(area, beside, color=PREDICTION, s=16, marker=marker, zorder=4, label=f"published, {masks}")
    axes.axvline(0.5, color="#a0aec0", lw=1, ls="--")
    names = [f"{one['score']}, class {one['label']} (n={one['num_positive']})" for one in aucs]
    axes.set(yticks=range(len(aucs)), yticklabels=names, xlim=(0, 1), xlabel="area under the ROC curve")
    axes.set_ylim(len(aucs) - 0.5, -0.5)
    axes.set_title(f"{cluster}: one class against the rest", fontsize=10)
    axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=3)
