"""The time of each stage that sees a whole cohort, against the number of its cases: nothing may grow faster than they.

Run: python benchmarks/scale.py [--million] [--cases 1000 10000 100000] [--report FILE]

Cohorts of synthetic records, two cases a patient and four slices a case, without images; signatures of slices and
judgements are drawn at random. Up to 10,000 cases there are raw files too, a tiny NIfTI image and a mask each. For each
stage the CPU seconds at each size and the exponent of growth, fitted to their
logarithms: 1 is linear, 2 quadratic. A constant part makes it smaller. It is a little above 1 for what is sorted, and
where the records of all cases no longer fit the processor's caches. Writes what it found to scale.md beside this file,
and draws it in pictures/scale.png.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from machine import first_lines
from matplotlib import pyplot

from glioflow.audit import find_image_leaks, find_split_leaks
from glioflow.data.batches.sampling import PatchBatches, SliceBatches
from glioflow.data.batches.settings import SamplingSettings
from glioflow.data.checks.cohort_checks import check
from glioflow.data.formats.detect import open_cohort
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.prepared.digests import digest_cases
from glioflow.data.prepared.index import Entry, write_index
from glioflow.data.prepared.manifest import VERSION, CaseRecord, WholeManifest
from glioflow.data.prepared.prints import BITS
from glioflow.data.preprocessing.geometry import Resize
from glioflow.data.splits import Split, SplitSettings, make_split
from glioflow.data.targets import TargetSettings
from glioflow.evaluation import Reliability
from glioflow.runs.scoring import CohortScores, join

matplotlib.use("agg")
CASES, SLICES, DRAWS = (1_000, 10_000, 100_000), 4, 1_000
# Each stage is measured so often, by the shortest; once where it takes long.
REPEATS, LONG_S = 3, 1.0
# Cases whose arrays are mapped, and the most cases for which folders are made (ten million files take an hour).
OPENED, MOST_FOLDERS = 1_000, 100_000
# The most cases with raw files.
MOST_FILES = 10_000
INSTITUTIONS = ("CS", "DU", "FG", "HT")


def record(number: int, rng: np.random.Generator) -> CaseRecord:
    """Return the record of a synthetic case; two neighbors are one patient."""
    areas = tuple(int(area) for area in rng.integers(0, 400, SLICES))
    return CaseRecord(
        id=f"case-{number:07}",
        patient=f"patient-{number // 2:07}",
        institution=INSTITUTIONS[number // 2 % len(INSTITUTIONS)],
        folder=f"cases/case-{number:07}-0",
        shape=(SLICES, 240, 240),
        spacing_mm=None,
        source_channels=("pre", "flair", "post"),
        channels=("pre", "flair", "post"),
        slice_numbers=tuple(range(1, SLICES + 1)),
        moves=(Resize(before=(SLICES, 240, 240), after=(SLICES, 128, 128)),),
        areas_px=areas,
        volume_px=sum(areas),
        sizes={},
    )


class Signed:
    """A case with slices of random signatures; two cases are as alike as their images, which are random too."""

    def __init__(self, entry: Entry) -> None:
        self.record = entry

    def signatures(self) -> np.ndarray:
        """Return random signatures, the same each time."""
        return self._rng().integers(0, 256, (SLICES, BITS // 8), dtype=np.uint8)

    @property
    def image(self) -> np.ndarray:
        """Random slices, (S, h, w, C)."""
        return self._rng().random((SLICES, 48, 48, 3)).astype(np.float16)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(int(self.record.id[-7:]))


COUNTED = Reliability(counts=(5,) * 15, probability_sums=(1.0,) * 15, tumor_counts=(1,) * 15)


def judged(number: int) -> CohortScores:
    """Return the judgement of one case."""
    row = {"id": f"case-{number:07}", "patient": f"patient-{number // 2:07}", "dice": 0.5}
    return CohortScores(
        rows=(row,),
        everywhere=COUNTED,
        near_tumor=COUNTED,
        slice_scores=(0.5,) * SLICES,
        slice_truths=(True, False) * (SLICES // 2),
        baselines={"all_empty": {row["id"]: 0.0}},
    )


def write(folder: Path, manifest: WholeManifest) -> None:
    """Write the manifest as preparation does."""
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=1))


def weighted(make: type[Any], cases: Sequence[PreparedCase], settings: SamplingSettings) -> Any:
    """Return batches that have weighed their samples."""
    batches = make(cases, TargetSettings(), settings, batch_size=16, seed=0)
    batches._cumulated  # noqa: B018  # computed when it is first asked for
    return batches


def draw(batches: SliceBatches | PatchBatches) -> None:
    """Draw samples."""
    for step in range(DRAWS):
        batches.draw(step)


def write_some_arrays(cohort: PreparedCohort, folder: Path, rng: np.random.Generator) -> list[str]:
    """Make the folder of every case, and small arrays in those of some; return the ids of these."""
    ids = [entry.id for entry in cohort.entries()]
    for case_id in ids:
        (folder / "cases" / f"{case_id}-0").mkdir(parents=True)
    chosen = [ids[k] for k in rng.choice(len(ids), min(OPENED, len(ids)), replace=False)]
    for case_id in chosen:
        for name in ("image", "mask"):
            np.save(folder / "cases" / f"{case_id}-0" / f"{name}.npy", np.zeros((SLICES, 8, 8), np.uint8))
    return chosen


def map_arrays(folder: Path, ids: Sequence[str]) -> None:
    """Open a cohort and map both arrays of some cases, as a training draws from them for the first time."""
    for case in PreparedCohort(folder, verify=False).cases(ids):
        case.image[0], case.mask[0]


def measure(number: int, folder: Path) -> dict[str, float]:
    """Return the seconds of each stage for so many cases."""
    rng, seconds = np.random.default_rng(0), {}

    def timed(stage: str, work: Callable[[], Any], *, once: bool = False) -> Any:
        for _ in range(1 if once else REPEATS):
            began = time.process_time()
            done = work()
            took = time.process_time() - began
            seconds[stage] = min(took, seconds.get(stage, took))
            if took > LONG_S:
                break
        print(f"{number:>9,} cases: {stage}, {seconds[stage]:.3g} s", flush=True)
        return done

    facts: dict[str, Any] = {
        "version": VERSION,
        "fingerprint": f"{number:032x}",
        "source_fingerprint": "0",
        "steps": (),
    }
    facts |= {"format": "lgg", "source": "synthetic", "labels": {1: "tumor"}}
    manifest = WholeManifest(**facts, cases=tuple(record(k, rng) for k in range(number)))
    timed("write the manifest", partial(write, folder, manifest))
    timed("write its index", partial(write_index, folder, manifest, manifest.cases))
    (folder / "index.sqlite").unlink()
    del manifest
    timed("open a cohort of an earlier version, once", partial(PreparedCohort, folder, verify=False), once=True)
    timed("open a cohort, every record read", partial(PreparedCohort, folder))
    cohort = timed("open a cohort, as a worker does", partial(PreparedCohort, folder, verify=False))
    entries = cohort.entries()
    split: Split = timed("split", partial(make_split, entries, SplitSettings()))
    timed("look for patients in two parts", partial(find_split_leaks, split, entries))
    cases = timed("find the training cases", partial(cohort.cases, split.train), once=True)
    for kind, make, patch in (("slices", SliceBatches, None), ("patches", PatchBatches, (4, 64, 64))):
        settings = SamplingSettings(method="tumor", patch=patch, tumor_patches=0.0, augmentation="none")
        weigh = partial(weighted, make, cases, settings)
        batches = timed(f"weights of {kind}", weigh)
        timed(f"{DRAWS:,} draws of 16 {kind}", partial(draw, batches))
    del cases, batches
    signed: Any = [Signed(entry) for entry in entries]
    timed("the gate's look for copies", partial(find_image_leaks, split, signed))
    del signed
    if number <= MOST_FOLDERS:
        opened = write_some_arrays(cohort, folder, rng)
        timed(f"map the arrays of {OPENED:,} cases", partial(map_arrays, folder, opened))
    joined: CohortScores = timed("join judgements", partial(join, [judged(k) for k in range(number)]))
    timed("sum judgements up by patient, with intervals", joined.summary)
    rows = joined.answer("lgg")["per_patient"]
    timed("the table of the cases as MLflow gets it", partial(json.dumps, rows, indent=1))
    del joined, rows
    if number <= MOST_FILES:
        raw = folder / "raw"
        write_files(raw, number)
        found = timed("list raw files as cases", partial(open_cohort, raw))
        timed("digests of raw files", partial(digest_cases, found, ()), once=True)
        timed("check raw files", partial(check, raw), once=True)
    return seconds


def write_files(folder: Path, number: int) -> None:
    """Write raw cases of random voxels, a NIfTI image and its mask each."""
    import nibabel

    folder.mkdir()
    for case in range(number):
        image = np.random.default_rng(case).integers(1, 200, (6, 6, 3)).astype(np.uint8)
        for name, volume in (("", image), ("_mask", (image > 150).astype(np.uint8))):
            content = nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()
            (folder / f"patient{case // 2:07}_{case % 2}{name}.nii").write_bytes(content)


def exponent(numbers: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the slope of the logarithm of the time over that of the number, by least squares."""
    x, y = np.log(numbers), np.log(np.maximum(seconds, 1e-7))
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else math.nan


def plot(numbers: Sequence[int], found: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw the seconds of each stage against the number of cases, beside a line that grows as they do."""
    stages = list(found[0])
    figure, axes = pyplot.subplots(math.ceil(len(stages) / 5), 5, figsize=(15, 11), sharex=True, layout="constrained")
    for stage, plane in zip_longest(stages, axes.flat):
        if stage is None:
            plane.set_visible(False)
            continue
        seconds = [each[stage] for each in found if stage in each]
        known = numbers[: len(seconds)]
        plane.loglog(numbers, [seconds[0] * number / numbers[0] for number in numbers], "--", color="0.7")
        plane.loglog(known, seconds, "o-")
        plane.set_title(f"{stage}\nn^{exponent(known, seconds):.2f}", fontsize=8)
    figure.supxlabel("cases")
    figure.supylabel("CPU seconds (dashed: in proportion to the cases)")
    figure.savefig(file, dpi=70)
    pyplot.close(figure)


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, nargs="+", default=CASES)
    parser.add_argument("--million", action="store_true", help="a million cases too; takes about 7 GB of memory")
    parser.add_argument("--report", type=Path, default=Path(__file__).with_suffix(".md"))
    said = parser.parse_args()
    load, began = os.getloadavg()[0], time.monotonic()
    numbers = [*said.cases, *([1_000_000] if said.million else [])]
    found = []
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(number, Path(folder)))
    lines = [
        f"| CPU seconds for | {' | '.join(f'{n:,} cases' for n in numbers)} | exponent |",
        "|---" * (len(numbers) + 2) + "|",
    ]
    for stage in found[0]:
        values = [each[stage] for each in found if stage in each]
        shown = [f"{value:.3g}" for value in values] + [""] * (len(found) - len(values))
        lines.append(f"| {stage} | {' | '.join(shown)} | {exponent(numbers[: len(values)], values):.2f} |")
    drawn = said.report.parent / "pictures" / f"{said.report.stem}.png"
    drawn.parent.mkdir(exist_ok=True)
    picture = f"![seconds of each stage against the number of cases](pictures/{drawn.name})"
    text = "\n".join([*first_lines("Scale", (time.monotonic() - began) / 60, load), *lines, "", picture, ""])
    said.report.write_text(text)
    plot(numbers, found, drawn)
    print(text)


if __name__ == "__main__":
    main()
