"""The exploratory report on a cohort, with the figures usual in publications, as HTML and PNG files."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from glioflow import atomic
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.study import open_source
from glioflow.data.preprocessing.brain_mask import BrainMask
from glioflow.data.preprocessing.geometry_steps import CropBrain, PadSquare, ResizePlane
from glioflow.data.preprocessing.intensity_steps import Clahe, Percentile, ZScore
from glioflow.data.preprocessing.pipeline import Step
from glioflow.errors import UserError
from glioflow.reports import case_pictures as examples
from glioflow.reports import cohort_figures as draw
from glioflow.reports.case_facts import CaseFacts, edges_of, read_facts
from glioflow.reports.page import Drawing, Section, render_page
from glioflow.survival.clinical_columns import MISSING
from glioflow.survival.clinical_csv import patient_key, patients_of, read_rows

# Shown if no experiment names its own.
TOUR: tuple[Step, ...] = (
    Percentile(low=1, high=99.5), BrainMask(), CropBrain(), Clahe(), PadSquare(), ResizePlane(size=128), ZScore(),
)  # fmt: skip
MapCases = Callable[[Callable[[CaseFiles], CaseFacts], Iterable[CaseFiles]], Iterable[CaseFacts]]


@dataclass(frozen=True)
class Described:
    """The written report, and the counts at its beginning."""

    report: Path
    patients: int
    slices: int
    positive_slices: int


def describe(
    source: Path,
    out: Path,
    *,
    steps: Sequence[Step] | None = None,
    map_cases: MapCases = map,
) -> Described:
    """Read a whole cohort and write a self-contained `index.html`, and its figures as PNG.

    Args:
        source: A cohort or a single study.
        out: Folder to write into; files of an earlier report are replaced.
        steps: Preprocessing that example slices are taken through; None shows a tour of steps.
        map_cases: `map`, or one like it that spreads the cases over processes.

    Raises:
        UserError: If a case cannot be read; `check` lists all problems.
    """
    cohort = open_source(source)
    facts = list(map_cases(partial(read_facts, cohort), cohort.cases))
    slices = sum(fact.shape[0] for fact in facts)
    positive = sum(area > 0 for fact in facts for area in fact.areas_px or ())
    sections = [
        _counts(cohort, facts, slices, positive),
        _tumors(cohort, facts),
        _channels(facts),
        _table(cohort),
        *_examples(cohort, facts, tuple(TOUR if steps is None else steps)),
    ]
    patients = len({fact.patient for fact in facts})
    numbers = {
        "patients": f"{patients:,}",
        "slices": f"{slices:,}",
        "slices with tumor": f"{positive:,}",
        "slices without": f"{slices - positive:,}",
        "labeled voxels": f"{_share(facts):.2%}",
        f"channels: {', '.join(facts[0].channels)}": str(len(facts[0].channels)),
    }
    page = render_page(source.resolve().name, f"{_title(cohort)}, as found on disk", numbers, sections)
    for section in sections:
        for drawing in section.drawings:
            atomic.write_bytes(out / f"{drawing.name}.png", drawing.png)
    atomic.write_text(out / "index.html", page)
    return Described(out / "index.html", patients, slices, positive)


def _title(cohort: Cohort) -> str:
    kind = {"lgg": "LGG slices (TIFF)", "brats": "BraTS volumes (NIfTI)", "nifti": "NIfTI volumes", "dicom": "DICOM"}
    return f"{kind.get(cohort.format, cohort.format)}, {len(cohort.cases)} cases"


def _share(facts: Sequence[CaseFacts]) -> float:
    return sum(fact.volume_px for fact in facts) / max(1, sum(int(np.prod(fact.shape)) for fact in facts))


def _counts(cohort: Cohort, facts: Sequence[CaseFacts], slices: int, positive: int) -> Section:
    parts = {"with tumor": positive, "without tumor": slices - positive}
    drawings = [
        Drawing(
            "balance", draw.balance(parts, title="Slices"), "A slice counts as soon as one pixel is labeled.", True
        ),
    ]
    numbers = [fact.shape[0] for fact in facts]
    if len(set(numbers)) > 1:
        caption = f"From {min(numbers)} to {max(numbers)} slices."
        drawings.append(Drawing("slices", _hist(numbers, "Slices per case", "slices", "cases"), caption))
    institutions = Counter(fact.institution for fact in facts if fact.institution)
    if institutions:
        picture = draw.bars(dict(institutions.most_common()), title="Cases by institution", xlabel="cases")
        drawings.append(Drawing("institutions", picture, "The institution is part of the case's name."))
    shapes = Counter(f"{fact.shape[1]} x {fact.shape[2]}" for fact in facts)
    spacings = Counter(
        "unknown" if fact.spacing_mm is None else " x ".join(f"{mm:g}" for mm in fact.spacing_mm) for fact in facts
    )
    rows = [["slice size in pixels", _listed(shapes)], ["spacing in mm (S x H x W)", _listed(spacings)]]
    unlabeled = sum(fact.areas_px is None for fact in facts)
    if unlabeled:
        rows.append(["cases without a mask", str(unlabeled)])
    text = f"{slices - positive:,} slices without tumor to {positive:,} with tumor."
    return Section("Cases and slices", text, drawings, ["", "cases"], rows)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(6))


def _tumors(cohort: Cohort, facts: Sequence[CaseFacts]) -> Section:
    areas = [area for fact in facts for area in fact.areas_px or () if area]
    if not areas:
        return Section("Tumor size")
    known = [fact.volume_ml for fact in facts if fact.volume_ml]
    volumes, unit = (known, "milliliters") if known else ([fact.volume_px for fact in facts], "voxels")
    drawings = [
        Drawing("areas", _hist(areas, "Tumor area in a slice", "pixels", "slices", log=True), "Slices with tumor only.")
    ]
    if len(volumes) > 2:
        picture = _hist(volumes, "Tumor volume of a case", unit, "cases", log=True)
        drawings.insert(0, Drawing("volumes", picture, "The axis is logarithmic."))
    labels: Counter[int] = Counter()
    for fact in facts:
        labels.update(fact.label_px)
    with_label = {value: sum(value in fact.label_px for fact in facts) for value in cohort.labels}
    rows = [
        [
            value,
            name,
            f"{labels[value]:,}",
            f"{labels[value] / sum(labels.values()):.1%}",
            f"{with_label[value]} of {len(facts)}",
        ]
        for value, name in cohort.labels.items()
    ]
    return Section(
        "Tumor size", "", drawings, ["label", "name", "voxels", "of all labeled", "cases that have it"], rows
    )


def _hist(values: Sequence[float], title: str, xlabel: str, ylabel: str, *, log: bool = False) -> bytes:
    return draw.histogram(values, title=title, xlabel=xlabel, ylabel=ylabel, log=log)


def _channels(facts: Sequence[CaseFacts]) -> Section:
    names, eight_bit = facts[0].channels, facts[0].eight_bit
    alike = [fact for fact in facts if fact.channels == names and fact.eight_bit == eight_bit]
    counts = {
        name: (sum(fact.inside[k] for fact in alike), sum(fact.outside[k] for fact in alike))
        for k, name in enumerate(names)
    }
    xlabel = "stored value" if eight_bit else "share of the 99.5th percentile"
    picture = draw.intensities(edges_of(eight_bit), counts, title="Intensities by channel", xlabel=xlabel)
    drawing = Drawing("intensities", picture, "Background, stored as zero, is left out.", wide=True)
    copies = [[fact.id, ", ".join(fact.copies)] for fact in facts if fact.copies]
    text = "No channel is a copy of FLAIR."
    if copies:
        missing = Counter(name for fact in facts for name in fact.copies)
        text = "A channel that equals FLAIR stands for a missing sequence: " + ", ".join(
            f"{name} in {count} of {len(facts)} cases" for name, count in missing.most_common()
        )
    return Section("Channels", text, [drawing], ["case", "copies of FLAIR"], copies)


def _table(cohort: Cohort) -> Section:
    if cohort.clinical is None:
        return Section("Clinical table")
    try:
        head, rows = read_rows(cohort.clinical)
        keys = patients_of(cohort.clinical)
    except UserError as error:
        return Section("Clinical table", f"{cohort.clinical.name} cannot be used for survival: {error.rule}.")
    gaps = {
        name: 100 * sum(row[k].strip().lower() in MISSING for row in rows) / max(1, len(rows))
        for k, name in enumerate(head)
        if name
    }
    names = {case.id: {patient_key(case.patient), patient_key(case.id)} for case in cohort.cases}
    known = set().union(*names.values())
    having = {case.patient for case in cohort.cases if names[case.id] & set(keys)}
    without = len({case.patient for case in cohort.cases} - having)
    text = f"{len(rows)} rows in {cohort.clinical.name}; {sum(key not in known for key in keys)} match no case, "
    picture = draw.bars(gaps, title="Missing values", xlabel="percent of rows", limit=100)
    drawing = Drawing("missing", picture, "Empty cells, NA and similar values.", wide=True)
    return Section("Clinical table", f"{text}{without} patients have no row.", [drawing])


def _examples(cohort: Cohort, facts: Sequence[CaseFacts], steps: tuple[Step, ...]) -> list[Section]:
    order = sorted(facts, key=lambda fact: (fact.volume_px, fact.id))
    cases = [cohort.read(order[int(share * (len(order) - 1))].id) for share in (0.85, 0.5, 0.15)[: len(order)]]
    # The largest of those that show every class.
    shown = max(order, key=lambda fact: (len(fact.label_px), fact.volume_px))
    first = next((case for case in cases if case.id == shown.id), None) or cohort.read(shown.id)
    grid = [examples.through_steps(case, steps) for case in cases]
    picture = draw.pictures(grid, size=1.55)
    names = ", ".join(step.step for step in steps)
    text = f"The slice with the most tumor of a large, a medium and a small tumor, before and after: {names}."
    if any(isinstance(step, BrainMask) and step.file is None for step in steps):
        text += " This brain_mask is a morphological approximation that knows no anatomy; some scalp may remain."
    rows = [
        Section(
            "Through preprocessing",
            text,
            [Drawing("preprocessing", picture, "; ".join(case.id for case in cases), wide=True)],
        )
    ]
    drawings = [Drawing("channels", draw.pictures([examples.channels(first)]), "The channels side by side.", wide=True)]
    if first.mask is not None and len(cohort.labels) > 1:
        picture = draw.pictures([examples.classes(first, cohort.labels)], size=2.3)
        drawings.append(Drawing("classes", picture, "Each class alone, in the slice where it is largest.", wide=True))
    if first.spacing_mm is not None and first.shape[0] > 1:
        picture = draw.pictures([examples.planes(first)], size=2.7)
        drawings.append(Drawing("planes", picture, "The three planes through the middle of the tumor.", wide=True))
    caption = "Slices from bottom to top, the mask outlined; numbers as in the files."
    drawings.append(Drawing("montage", draw.pictures(examples.montage(first), size=1.25), caption, wide=True))
    rows.append(Section("One case", first.id, drawings))
    return rows
