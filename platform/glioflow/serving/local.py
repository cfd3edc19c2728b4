"""Studies to answers on disk: by a bundle here, or by an endpoint."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from glioflow import atomic
from glioflow.api.client import Client
from glioflow.bundle.answer import AnswerJson, FeaturesJson, ModelId, SurvivalJson, Uncertainty, answer_to_json
from glioflow.bundle.encoded_mask import EncodedMask, decode_mask, encode_mask, legend_of
from glioflow.bundle.prediction import Tumor
from glioflow.bundle.study_checks import conform
from glioflow.data.case import Case
from glioflow.data.formats.record import Cohort
from glioflow.data.formats.study import open_source, open_study
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.errors import UserError
from glioflow.runs.model_loading import as_one, open_members
from glioflow.serving.settings import TOKEN

Say = Callable[..., None]


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
        model: A bundle, a registered model, a run, several of them (an ensemble) by commas, or an `http://` endpoint.
        studies: Case folders or files, or folders of many cases.
        out: Folder for the answers.
        say: Told of each study.

    Returns:
        One entry a study.

    Raises:
        UserError: If a study or the model cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise UserError("--out is a folder", out)
    ask = _remote(model) if model.startswith(("http://", "https://")) else _local(model)
    done = []
    found = [(cohort, entry) for path in studies for cohort in [_open(path)] for entry in cohort.cases]
    for number, (cohort, entry) in enumerate(found, start=1):
        case = cohort.read(entry.id)
        answer = ask(case, [file for file in entry.files if "_mask" not in file.name and "_seg" not in file.name])
        labels = decode_mask(answer["mask"])
        folder = out / case.id
        written = write_mask(labels, case, folder, native_format(case), labels=_names(answer["mask"]))
        atomic.write_text(folder / "answer.json", json.dumps(answer, indent=1) + "\n")
        say(f"{case.id}: {_sentence(answer)}", number / len(found))
        done.append(
            WrittenAnswer(
                id=case.id,
                mask=str(written),
                answer=str(folder / "answer.json"),
                tumor=answer["tumor"],
                uncertainty=answer["uncertainty"],
                features=answer["features"],
                survival=answer["survival"],
            )
        )
    return done


def _open(path: Path) -> Cohort:
    cohort = open_source(path)
    return open_study([path]) if len(cohort.cases) == 1 else cohort  # which gives a lone study a harmless name


def _names(mask: EncodedMask) -> dict[int, str] | None:
    return {int(value): name for value, name in mask.get("names", {}).items()} or None  # an older endpoint says none


def _sentence(answer: AnswerJson) -> str:
    tumor = answer["tumor"]
    return f"tumor in {len(tumor['slices'])} slices" if tumor["detected"] else "no tumor"


def _local(model: str) -> Callable[[Case, Sequence[Path]], AnswerJson]:
    members = open_members(model)
    predictor, version = as_one(members), members[0].version
    said: ModelId = {"name": predictor.description.origin.experiment, "version": None, "run_id": None}
    if len(members) > 1:
        said["name"] = model
    elif version is not None:
        said = {"name": version.name, "version": version.version, "run_id": version.run_id}

    def ask(case: Case, files: Sequence[Path]) -> AnswerJson:
        case = conform(case, predictor.description)
        prediction = predictor.predict(case)
        labels, legend = prediction.segmentation.labels, legend_of(predictor.description)
        return {**answer_to_json(case, prediction, said), "mask": encode_mask(labels, case, "rle", legend)}

    return ask


def _remote(url: str) -> Callable[[Case, Sequence[Path]], AnswerJson]:
    client = Client(url, token=os.environ.get(TOKEN))

    def ask(case: Case, files: Sequence[Path]) -> AnswerJson:
        return client.predict(files, mask="rle")

    return ask
