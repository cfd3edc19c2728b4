"""The leakage audit as one page: the leaks, and two splits of one experiment side by side."""

from collections.abc import Mapping, Sequence

from glioflow.reports.figures import PREDICTION, TRUTH, new_figure, to_png
from glioflow.reports.numbers import number
from glioflow.reports.page import Drawing, Section, render_page

Scores = Mapping[str, float]
Gap = Mapping[str, Mapping[str, Scores]]

WORDS = {
    "network": "trained network",
    "nearest_slice": "copy of the nearest training slice",
    "flair_threshold": "threshold on FLAIR",
    "all_empty": "nothing found",
}
_COLUMNS = {
    "dice": "Dice by patient",
    "dice_pooled": "Dice, voxels pooled",
    "dice_per_slice": "Dice by slice (empty = 1)",
    "dice_tumor_slices": "Dice, tumor slices",
    "num_patients": "patients",
    "num_slices": "slices",
    "num_empty_both": "of these, empty in both",
}


def audit_page(
    name: str,
    leaks: Sequence[Mapping[str, str]],
    gap: Gap,
    example: Mapping[str, float] | None,
    notes: Sequence[str],
) -> str:
    """Return the report of an audit as HTML.

    Args:
        name: Name of the experiment.
        leaks: `rule` and `value` of each.
        gap: By kind of split (`slice`, `patient`), then by who predicted (keys of `WORDS`), the scores by name; empty
            where nothing was trained.
        example: Accuracies of the death01 example by name, or None.
        notes: What was left out, a sentence each.
    """
    facts = {"leaks found": str(len(leaks))}
    if gap:
        facts |= {f"Dice, split by {kind}": f"{gap[kind]['network']['dice']:.3f}" for kind in ("patient", "slice")}
    sections = [
        Section(
            "Leaks",
            "" if leaks else "No patient, no image and no outcome was found on both sides of the split.",
            head=("rule", "where"),
            rows=[(leak["rule"], leak["value"]) for leak in leaks],
        )
    ]
    if gap:
        sections.append(_gap_section(gap))
    if example is not None:
        sections.append(_example_section(example))
    if notes:
        sections.append(Section("Left out", " ".join(f"{note.capitalize()}." for note in notes)))
    return render_page(
        f"Leakage audit of {name}", "How much a careless split would have added to the score.", facts, sections
    )


def gap_figure(gap: Gap) -> bytes:
    """Draw each Dice by patient as a line from the honest to the leaking split; PNG."""
    figure, (axes,) = new_figure(1, width=7.0, height=0.55 * len(WORDS) + 1.1)
    shown = [who for who in WORDS if who in gap["patient"]]
    for position, who in enumerate(shown):
        honest, leaking = (gap[kind][who]["dice"] for kind in ("patient", "slice"))
        axes.plot([honest, leaking], [position, position], color="#cbd5e0", lw=3, zorder=1)
        axes.scatter(honest, position, color=TRUTH, s=46, zorder=2, label="split by patient" if not position else None)
        axes.scatter(
            leaking, position, color=PREDICTION, s=46, zorder=2, label="split by slice" if not position else None
        )
    axes.set(yticks=range(len(shown)), yticklabels=[WORDS[who] for who in shown], xlim=(-0.02, 1), xlabel="Dice")
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return to_png(figure)


def _gap_section(gap: Gap) -> Section:
    rows = [
        (WORDS.get(who, who), f"by {kind}", *(number(gap[kind][who][key]) for key in _COLUMNS))
        for who in WORDS
        for kind in ("patient", "slice")
        if who in gap[kind]
    ]
    return Section(
        "The same experiment under two splits",
        "With a split by slice, neighbors of the test slices are in training: the points it adds are not skill. All "
        "scores are at the network's resolution, before any clean-up. The split by slice exists only in this audit.",
        drawings=[Drawing("gap", gap_figure(gap), "Dice by patient of each under both splits.", wide=True)],
        head=("who", "split", *_COLUMNS.values()),
        rows=rows,
    )


def _example_section(example: Mapping[str, float]) -> Section:
    rows = [
        ("outcome inside the imputer, image rows split at random", f"{example['leaking_accuracy']:.1%}"),
        ("split by patient, outcome never imputed, one vote a patient", f"{example['patient_accuracy']:.1%}"),
        ("the majority class for everyone", f"{example['majority_accuracy']:.1%}"),
    ]
    text = (
        f"How a published accuracy of 100 % for death01 arises: {example['num_rows']:.0f} image rows of "
        f"{example['num_patients']:.0f} patients, one model, scored twice. An example, never a result."
    )
    return Section("The published 100 %, rebuilt", text, head=("how it is scored", "accuracy"), rows=rows)
