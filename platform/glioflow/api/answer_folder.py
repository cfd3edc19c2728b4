"""A folder of answers, one subfolder a study, as `glioflow predict` writes it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from glioflow import atomic
from glioflow.api.answer import Answer
from glioflow.api.model import load
from glioflow.bundle.answer import FeaturesJson, SurvivalJson, Uncertainty
from glioflow.bundle.prediction import Tumor
from glioflow.data.formats.record import Cohort
from glioflow.data.formats.study import open_source, open_study
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.errors import UserError
from glioflow.progress import Say


class WrittenAnswer(TypedDict):
    """An answer on disk: where its mask and its JSON lie, and the chief parts of it."""

    id: str
    mask: str
    answer: str
    tumor: Tumor
    uncertainty: Uncertainty
    features: FeaturesJson
    survival: SurvivalJson | None


def predict_studies(model: str, studies: Sequence[Path], out: Path, *, say: Say) -> list[WrittenAnswer]:
    """Segment each study and write `<id>/answer.json` and its mask, in the input's geometry and format family.

    Args:
        model: As `load` takes it.
        studies: Case folders or files, zips, or folders of many cases.
        out: Folder for the answers.
        say: Called for each study, with the part of them that is done.

    Returns:
        One entry a study.

    Raises:
        UserError: If a study or the model cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise UserError("--out must name a folder, not a file", out)
    loaded = load(model)
    waiting = [study for path in studies for study in _list_studies(path)]
    written = []
    for number, study in enumerate(waiting, start=1):
        answer = loaded.predict(study if isinstance(study, Path) else study[0].read(study[1]))
        say(f"{answer.id}: {_sentence(answer)}", number / len(waiting))
        written.append(_write(answer, out / answer.case.id))
    return written


def _list_studies(path: Path) -> list[Path | tuple[Cohort, str]]:
    if path.suffix.lower() == ".zip":
        return [path]
    cohort = open_source(path)
    if len(cohort.cases) == 1:
        cohort = open_study([path])  # gives a lone study a harmless name
    return [(cohort, case.id) for case in cohort.cases]


def _write(answer: Answer, folder: Path) -> WrittenAnswer:
    case = answer.case
    mask = write_mask(answer.mask, case, folder, native_format(case), labels=answer.labels or None)
    atomic.write_text(folder / "answer.json", json.dumps(answer.json, indent=1) + "\n")
    return {
        "id": case.id,
        "mask": str(mask),
        "answer": str(folder / "answer.json"),
        "tumor": answer.tumor,
        "uncertainty": answer.uncertainty,
        "features": answer.json["features"],
        "survival": answer.survival,
    }


def _sentence(answer: Answer) -> str:
    return f"tumor in {len(answer.tumor['slices'])} slices" if answer.tumor["detected"] else "no tumor"
