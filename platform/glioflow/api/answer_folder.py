"""A folder of answers, one subfolder a study, as `glioflow predict` writes it."""

import contextlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from glioflow import atomic
from glioflow.api.answer import Answer
from glioflow.api.inputs import check_beside
from glioflow.api.model import Model, load
from glioflow.api.results import Result
from glioflow.api.studies import OpenedStudy, name_of_zip, read_any_study
from glioflow.bundle.answer import FeaturesJson, SurvivalJson, Uncertainty
from glioflow.bundle.tumor import Tumor
from glioflow.data.channel_choice import parse_choices
from glioflow.data.formats import lgg
from glioflow.data.formats.file_roles import is_mask_name
from glioflow.data.formats.record import CaseFiles, Cohort
from glioflow.data.formats.study import open_source, open_study
from glioflow.data.formats.writing import ENDINGS, native_format, write_mask
from glioflow.errors import GlioflowError, UserError, not_found, option
from glioflow.progress import Say, print_progress
from glioflow.reports.numbers import number, ranges
from glioflow.reports.tables import Table

ANSWER = "answer.json"


class WrittenAnswer(TypedDict):
    """An answer on disk: the paths of its mask and its JSON, and its main parts."""

    id: str
    mask: str
    answer: str
    tumor: Tumor
    uncertainty: Uncertainty
    features: FeaturesJson
    survival: SurvivalJson | None


class FailedStudy(TypedDict):
    """A study without an answer: its path, or the name that its answer would have, and why."""

    study: str
    error: str


@dataclass(frozen=True)
class PredictedStudies(Result):
    """The result for each study: the answers on disk, and the studies that have none."""

    studies: list[WrittenAnswer] = field(default_factory=list)
    failed: list[FailedStudy] = field(default_factory=list)

    def tables(self) -> list[Table]:
        """Return what each answer says about the tumor."""
        return [
            Table("", ["study", "tumor in slices", "volume", "expected Dice"], [_row(each) for each in self.studies])
        ]

    def notes(self) -> list[str]:
        """Return where the answers are, and why studies have none."""
        folders = sorted({str(Path(each["answer"]).parent.parent) for each in self.studies})
        written = [f"masks and answers are in {folder}, a folder for each study" for folder in folders]
        return [*written, *(f"{each['study']}: {each['error']}" for each in self.failed)]


def _row(written: WrittenAnswer) -> list[object]:
    tumor = written["tumor"]
    volume = tumor["volume"]
    size = f"{number(volume['value'])} {volume['unit']}" if tumor["detected"] else "-"
    return [written["id"], ranges(tumor["slices"]), size, number(written["uncertainty"]["expected_dice"])]


@dataclass(frozen=True)
class _Waiting:
    """A study before it is read; a zip has no files until then."""

    path: Path
    name: str
    cohort: Cohort | None = None
    case: CaseFiles | None = None
    alone: bool = False

    @property
    def label(self) -> str:
        return str(self.path) if self.case is None else self.name


def predict_studies(
    model: Any,
    studies: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    channels: Iterable[str] = (),
    say: Say = print_progress,
) -> PredictedStudies:
    """Segment each study and write `<id>/answer.json` and its mask, in the input's geometry and format family.

    Studies of the same name are told apart by the folders that they lie in. Of several studies, one that fails does not
    stop the others.

    Args:
        model: As `load` takes it.
        studies: Case folders or files, zips, or folders of many cases.
        out: Folder for the answers.
        overwrite: Whether to replace existing answers.
        channels: `NAME=SERIES` texts that say which DICOM series or NIfTI file a channel is.
        say: Called for each study, with the part of them that is done.

    Raises:
        UserError: If a path does not exist, an answer exists, or the model or the only study cannot be read.
    """
    out = Path(out)
    for path in studies:
        check_beside(out, option("out"), path, of="study")
    chosen = parse_choices(channels)
    done = PredictedStudies()
    waiting = _named(_list_all([Path(study) for study in studies], done))
    for study in waiting:
        _check_free(out / study.name, study, overwrite=overwrite)
    if not waiting:
        return done
    alone = len(waiting) + len(done.failed) == 1
    read_first = _read(waiting[0], chosen) if alone else None  # which costs less than to load a model in vain
    loaded = load(model)
    for count, study in enumerate(waiting, start=1):
        try:
            answer = _predict(loaded, study, read_first or _read(study, chosen))
            done.studies.append(_write(answer, out / answer.case.id))
        except Exception as error:
            if isinstance(error, GlioflowError) and not isinstance(error, UserError):
                raise  # an endpoint that is away, or a full disk
            if alone:
                raise
            done.failed.append(_failed(study.label, error))
            say(f"{study.label} failed: {done.failed[-1]['error']}", count / len(waiting))
            continue
        say(f"{answer.case.id}: {_sentence(answer)}", count / len(waiting))
    return done


def _list_all(paths: Sequence[Path], done: PredictedStudies) -> list[_Waiting]:
    """List every study once; a path that holds none fails, unless it is the only one."""
    if missing := [path for path in paths if not path.exists()]:
        raise not_found(missing[0], hint="give the path of a study or a cohort")
    studies_by_files: dict[tuple[Path, ...], _Waiting] = {}
    for path in paths:
        try:
            for study in _list_studies(path):
                files = (path,) if study.case is None else study.case.files
                studies_by_files.setdefault(tuple(file.resolve() for file in files), study)
        except UserError as error:
            if len(paths) == 1:
                raise
            done.failed.append(_failed(str(path), error))
    return list(studies_by_files.values())


def _list_studies(path: Path) -> list[_Waiting]:
    if path.suffix.lower() == ".zip":
        try:
            return [_Waiting(path, name_of_zip(path))]
        except UserError as error:
            raise error.replace(rule=f"{path}: {error.rule}") from None
    try:
        cohort = open_source(path, masks=False)
    except UserError as error:  # a cohort asks for more than a study
        with contextlib.suppress(UserError):
            return [_lone(path)]
        raise error
    return (
        [_lone(path)]
        if len(cohort.cases) == 1
        else [_Waiting(cohort.path / case.id, case.id, cohort, case) for case in cohort.cases]
    )


def _lone(path: Path) -> _Waiting:
    """Return the only study at a path, under a harmless name."""
    cohort = open_study([path], masks=False)
    return _Waiting(path, cohort.cases[0].id, cohort, cohort.cases[0], alone=True)


def _named(studies: list[_Waiting]) -> list[_Waiting]:
    """Put before the names that several studies have the folders in which they lie, as many as tell them apart."""
    named, depth = studies, 0
    while True:
        # Some disks take `Scan` and `scan` for one folder.
        counts = Counter(study.name.casefold() for study in named)
        twice = {name for name, times in counts.items() if times > 1}
        if not twice:
            return named
        depth += 1
        if depth > max(len(study.path.absolute().parts) for study in studies):
            alike = [str(study.path) for study in named if study.name.casefold() == min(twice)]
            rule = "studies must have names that differ by more than case and the file's type"
            raise UserError(rule, " and ".join(alike), hint=f"rename them, or give each another {option('out')}")
        named = [_with_folders(study, depth) if study.name.casefold() in twice else study for study in named]


def _with_folders(study: _Waiting, depth: int) -> _Waiting:
    path = study.path.absolute()
    own = path.name.split(".")[0]
    case_id = study.name if study.case is None else study.case.id
    above = (*path.parts[1:-1], *([] if own == case_id else [own]))
    return replace(study, name=re.sub(r"[^A-Za-z0-9._-]+", "_", "_".join((*above[-depth:], case_id))).strip("._"))


def _check_free(folder: Path, study: _Waiting, *, overwrite: bool) -> None:
    """Refuse a folder that holds an answer, unless it is to be replaced, and always one that holds a study."""
    atomic.check_folder(folder, option("out"))
    # Without the working files that a killed process leaves.
    there = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    own = {file.resolve() for file in (study.case.files if study.case else (study.path,))}
    foreign = not (folder / ANSWER).is_file() and any(not is_mask_name(file.name) for file in there)
    if foreign or any(file.resolve() in own for file in there):
        rule = f"{folder} must be new or hold an earlier answer, but it holds other files"
        raise UserError(rule, hint=f"give another {option('out')}")
    if there and not overwrite:
        rule = f"{folder} already holds an answer"
        raise UserError(rule, hint=f"give {option('overwrite', True)} to replace it, or another {option('out')}")


def _read(study: _Waiting, chosen: Mapping[str, str]) -> OpenedStudy:
    if study.cohort is None or study.case is None or study.alone:
        return read_any_study(study.path, chosen=chosen)
    if study.cohort.format == "lgg":  # its slices may be of any kind that a lone study may have
        return read_any_study([*lgg.split_masks(study.case.files)[0].values()], chosen=chosen)
    return OpenedStudy(study.cohort.with_channels(chosen).read_files(study.case))


def _predict(model: Model, study: _Waiting, opened: OpenedStudy) -> Answer:
    answer = model.predict(replace(opened.case, id=study.name))
    return replace(answer, _files=opened.folder)  # which stays until the answer is written


def _failed(study: str, error: Exception) -> FailedStudy:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {"study": study, "error": " ".join(text.split())}


def _write(answer: Answer, folder: Path) -> WrittenAnswer:
    """Write the mask, then the JSON, which says that the answer is whole; both replace what an earlier answer left."""
    case = answer.case
    (folder / ANSWER).unlink(missing_ok=True)
    _remove_masks(folder, case.id)
    mask = write_mask(answer.mask, case, folder, native_format(case), labels=answer.labels or None)
    atomic.write_text(folder / ANSWER, json.dumps(answer.json, indent=1) + "\n")
    return {
        "id": case.id,
        "mask": str(mask),
        "answer": str(folder / ANSWER),
        "tumor": answer.tumor,
        "uncertainty": answer.uncertainty,
        "features": answer.json["features"],
        "survival": answer.survival,
    }


def _remove_masks(folder: Path, case_id: str) -> None:
    """Remove the mask of an earlier answer in any format, and no other file."""
    shutil.rmtree(folder / case_id, ignore_errors=True)  # the slices of a mask
    endings = "|".join(map(re.escape, ENDINGS.values()))
    for file in folder.glob("*_mask.*"):
        if re.fullmatch(rf"{re.escape(case_id)}(_\d+)?({endings})", file.name):
            file.unlink()


def _sentence(answer: Answer) -> str:
    return f"tumor in {len(answer.tumor['slices'])} slices" if answer.tumor["detected"] else "no tumor"
