"""Studies to answers on disk: by a bundle here, or by an endpoint."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glioflow import atomic
from glioflow.bundle.study_checks import conform
from glioflow.data.case import Case
from glioflow.data.formats.record import Cohort
from glioflow.data.formats.study import open_source, open_study
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.errors import UserError
from glioflow.runs.model_loading import as_one, open_members
from glioflow.serving.client import Client
from glioflow.serving.http.answers import encode_mask, from_runs, legend_of, to_json
from glioflow.serving.settings import TOKEN

Say = Callable[..., None]


def predict_studies(model: str, studies: Sequence[Path], out: Path, *, say: Say) -> list[dict[str, Any]]:
    """Segment each study and write `<id>/answer.json` and its mask, in the input's geometry and format family.

    Args:
        model: A bundle, a registered model, a run, several of them (an ensemble) by commas, or an `http://` endpoint.
        studies: Case folders or files, or folders of many cases.
        out: Folder for the answers.
        say: Told of each study.

    Returns:
        Per study: `id`, `mask`, `answer`, `tumor`, `uncertainty`, `features`, `survival`.

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
        labels = from_runs(answer["mask"]["data"], tuple(answer["mask"]["shape"]))
        folder = out / case.id
        written = write_mask(labels, case, folder, native_format(case), labels=_names(answer["mask"]))
        atomic.write_text(folder / "answer.json", json.dumps(answer, indent=1) + "\n")
        say(f"{case.id}: {_sentence(answer)}", number / len(found))
        keys = ("tumor", "uncertainty", "features", "survival")
        done.append(
            {"id": case.id, "mask": str(written), "answer": str(folder / "answer.json"), **{k: answer[k] for k in keys}}
        )
    return done


def _open(path: Path) -> Cohort:
    cohort = open_source(path)
    return open_study([path]) if len(cohort.cases) == 1 else cohort  # which gives a lone study a harmless name


def _names(mask: dict[str, Any]) -> dict[int, str] | None:
    return {int(value): name for value, name in mask.get("names", {}).items()} or None  # an older endpoint says none


def _sentence(answer: dict[str, Any]) -> str:
    tumor = answer["tumor"]
    return f"tumor in {len(tumor['slices'])} slices" if tumor["detected"] else "no tumor"


def _local(model: str) -> Callable[[Case, Sequence[Path]], dict[str, Any]]:
    members = open_members(model)
    predictor, version = as_one(members), members[0].version
    said: dict[str, Any] = {"name": predictor.description.origin.experiment, "version": None, "run_id": None}
    if len(members) > 1:
        said["name"] = model
    elif version is not None:
        said = {"name": version.name, "version": version.version, "run_id": version.run_id}

    def ask(case: Case, files: Sequence[Path]) -> dict[str, Any]:
        case = conform(case, predictor.description)
        prediction = predictor.predict(case)
        labels, legend = prediction.segmentation.labels, legend_of(predictor.description)
        return {**to_json(case, prediction, said), "mask": encode_mask(labels, case, "rle", legend)}

    return ask


def _remote(url: str) -> Callable[[Case, Sequence[Path]], dict[str, Any]]:
    client = Client(url, token=os.environ.get(TOKEN))

    def ask(case: Case, files: Sequence[Path]) -> dict[str, Any]:
        return client.predict(files, mask="rle")

    return ask
