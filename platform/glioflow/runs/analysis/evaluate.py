"""Evaluate a model on a labeled cohort: scores per patient, summaries and baselines."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from glioflow import atomic
from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.cohort import PreparedCase, PreparedCohort
from glioflow.data.preprocessing.pipeline import renamed_tissues
from glioflow.errors import UserError, option
from glioflow.evaluation import VolumeInterval, flatten_summary
from glioflow.evaluation.patients import CaseScores, Row, metric_of, patient_means
from glioflow.progress import Say, quiet
from glioflow.quantities import count
from glioflow.reports.evaluation_page import evaluation_page
from glioflow.runs.case_pictures import case_drawings
from glioflow.runs.launch import open_cohort_for
from glioflow.runs.model_loading import as_one, open_members
from glioflow.runs.scoring import EvaluationAnswer, score_cases
from glioflow.runs.source import list_cohort, try_steps
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import prepared_dataset
from glioflow.tracking.run import Opening, open_run
from glioflow.tracking.trained import Trained, read_trained


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        name: Name, as the user gave it.
        predictor: Computes its masks.
        trained: Records of the cases that trained it, one for each member of an ensemble; None if no run recorded them.
        run_ids: The runs that made it; empty if it or one of its members is a bundle's bare folder.
    """

    name: str
    predictor: Predictor
    trained: tuple[Trained, ...] | None
    run_ids: tuple[str, ...] = ()

    def part_of(self, case: PreparedCase) -> str | None:
        """Return the case's part of the model's split: `train`, `val` or `test`, in this order if several apply."""
        parts = {each.part_of(case.record) for each in self.trained or ()}
        return next((part for part in ("train", "val", "test") if part in parts), None)

    def saw(self, case: PreparedCase) -> bool:
        """Say whether the case is known to have been used to train the model or to choose its settings."""
        return self.part_of(case) in ("train", "val")

    def warnings(self, cohort: PreparedCohort, cases: Sequence[PreparedCase]) -> list[str]:
        """Return warnings about what makes the model's numbers on these cases misleading."""
        return [*self._other_tissues(cohort), *self._flattered(cohort, cases)]

    def _other_tissues(self, cohort: PreparedCohort) -> list[str]:
        """Name the labels that meant another tissue in the model's training; a binary target is one tissue."""
        description, manifest = self.predictor.description, cohort.manifest
        if description.target.kind == "binary":
            return []
        here, there = renamed_tissues(manifest.labels, manifest.steps), description.origin.labels
        shared = sorted(here.keys() & there.keys())
        other = [f"{k} ({there[k]}, here {here[k]})" for k in shared if here[k].lower() != there[k].lower()]
        return [f"labels meant other tissues where {self.name} was trained: {', '.join(other)}"] if other else []

    def _flattered(self, cohort: PreparedCohort, cases: Sequence[PreparedCase]) -> list[str]:
        seen = sum(self.saw(case) for case in cases)
        if seen:
            rule = f"{seen} of {len(cases)} cases trained {self.name} or chose its settings: its numbers flatter it"
            return [rule, *self.renamed(cases)]
        same = cohort.manifest.source_fingerprint == self.predictor.description.origin.source_fingerprint
        if self.trained is not None:
            return []
        if same:
            return [f"{self.name} was trained on patients of this very cohort, and nothing here says on which"]
        return [f"nothing here says on whom {self.name} was trained: it may have seen patients of this cohort"]

    def renamed(self, cases: Sequence[PreparedCase]) -> list[str]:
        """Name the cases that count as seen by id although their images differ from those the model saw."""
        others = [
            case.record.id
            for case in cases
            if self.saw(case) and any(each.differs(case.record) for each in self.trained or ())
        ]
        shown = ", ".join(others[:4])
        rule = f"named like a case that {self.name} saw, with other images: counted as seen"
        return [f"{count(len(others), 'case')} {rule} ({shown})"] if others else []


def open_subject(model: str) -> Subject:
    """Load a bundle's folder, a run or a registered model; several, separated by commas, form an ensemble.

    Raises:
        UserError: If nothing of that name exists.
    """
    members = open_members(model)
    trained_by = [
        None if each.run_id is None else read_trained(Tracking(), each.run_id, each.predictor.description.origin.split)
        for each in members
    ]
    known = tuple(trained for trained in trained_by if trained is not None)
    runs = tuple(each.run_id for each in members if each.run_id is not None)
    complete = len(runs) == len(members)
    return Subject(model, as_one(members), known if len(known) == len(members) else None, runs if complete else ())


def check_exists(source: str | Path) -> None:
    """Refuse a missing cohort before any model is loaded; raises `UserError`."""
    if "://" not in str(source) and not os.path.exists(source):
        raise UserError(
            f"{source} does not exist", source, hint="give the folder of a cohort, or the URI of a prepared one"
        )


def labeled_cases(
    subject: Subject, source: str | Path, *, say: Say = quiet
) -> tuple[PreparedCohort, list[PreparedCase]]:
    """Open a cohort with a model's preprocessing and return its labeled cases.

    Raises:
        UserError: If it has other channels or labels, before any case is prepared, or no case has a mask.
    """
    description = subject.predictor.description
    listed = list_cohort(source, description.preprocess, description.target)
    channels = try_steps(listed, [description.preprocess])[0].channels
    if channels != description.network_channels:
        rule = f"the cohort must have the model's channels, {list(description.network_channels)}"
        hint = f"prepare the raw cohort with the preprocessing of {subject.name}, or give it raw"
        raise UserError(rule, list(channels), hint=hint)
    cohort = open_cohort_for(description.preprocess, listed, description.target, say=say)
    cases = cohort.cases(record.id for record in cohort.records if record.areas_px is not None)
    if not cases:
        hint = "give a labeled cohort; `glioflow data check` lists which files count as masks"
        raise UserError("the cohort must have cases with masks", source, hint=hint)
    return cohort, cases


def evaluate(
    model: str, source: str | Path, *, unseen: bool = False, report: Path | None = None, say: Say = quiet
) -> EvaluationAnswer:
    """Measure a model on the labeled patients of a cohort; one that MLflow has is logged there, with its report.

    Args:
        model: A bundle's folder, a run, or a registered model.
        source: The cohort, raw or prepared with the model's own preprocessing.
        unseen: Leave out the patients that trained the model or chose its settings.
        report: Folder for the report, `index.html` that needs nothing beside it; None writes none.
        say: Called after each case.

    Returns:
        `per_patient`, `dice_mean`, `dice_median`, `dice_ci95`, `baselines`, `num_parameters`, `calibration`,
        `per_institution`, `warnings` and the other summaries; `report` where it lies; `run_id` where it is logged.

    Raises:
        UserError: If the model or the cohort cannot be read, or no case has a mask.
    """
    check_exists(source)
    subject = open_subject(model)
    cohort, cases = labeled_cases(subject, source, say=say)
    known = [case for case in cases if subject.part_of(case) == "train"] or cases
    notes = subject.renamed(cases) if unseen else []
    if unseen:
        cases = unseen_by([subject], cases)
    scores = score_cases(subject.predictor, cases, known=known, say=say)
    answer = scores.answer(cohort.manifest.format)
    warnings = [*subject.warnings(cohort, cases), *notes]
    if ruled := answer.get("dice_num_empty_both"):
        rule = "have a part that is empty in prediction and reference: there Dice counts as 1"
        warnings.append(f"{ruled} of {answer['num_patients']} patients {rule}")
    answer["num_parameters"], answer["warnings"] = subject.predictor.description.num_parameters, warnings
    for row in answer["per_patient"]:
        row["part"] = subject.part_of(cohort.case(row["id"]))
    if (interval := subject.predictor.description.volume_interval) is not None:
        answer["volume_interval"] = _cover(interval, answer["per_patient"], subject, cohort)
    if report is not None or subject.run_ids:
        drawings = case_drawings(answer["per_patient"], lambda case_id: (subject.predictor, cohort.case(case_id)))
        title, about = f"Evaluation of {short_name(model)}", f"{answer['num_patients']} patients of {Path(source).name}"
        page = evaluation_page(answer, title=title, about=about, cases=drawings)
        if subject.run_ids:
            answer["run_id"] = _log(subject, cohort, answer, page)
            answer["report"] = f"runs:/{answer['run_id']}/report/index.html"
        if report is not None:
            atomic.write_text(report / "index.html", page)
            answer["report"] = str(report / "index.html")
    return answer


def short_name(model: str) -> str:
    """Return a short name of a model, or of each member of an ensemble."""
    names = (name.strip() for name in model.split(","))
    return ", ".join(n.split(":/")[1].removesuffix("/bundle") if ":/" in n else Path(n).name for n in names)


def _log(subject: Subject, cohort: PreparedCohort, answer: EvaluationAnswer, page: str) -> str:
    """Log an evaluation as a separate run in the model's experiment, and return its id."""
    opening = Opening(
        kind="evaluation",
        experiment=subject.predictor.description.origin.experiment,
        name=f"evaluate-{short_name(subject.name)}"[:200],
        tags={"glioflow.model": subject.name},
        datasets=(prepared_dataset(cohort, "testing", cases=len(answer["per_patient"])),),
    )
    apart = ("per_patient", "warnings")
    with open_run(Tracking(), opening) as run:
        run.log_metrics(flatten_summary({k: v for k, v in answer.items() if k not in apart}, "eval"))
        run.log_json("per_patient.json", answer["per_patient"])
        run.log_text("report/index.html", page)
    return run.run_id


def unseen_by(subjects: Sequence[Subject], cases: Sequence[PreparedCase]) -> list[PreparedCase]:
    """Return the cases that none of the models has seen.

    Raises:
        UserError: If a model's split is not on record, or no case is left.
    """
    for subject in subjects:
        if subject.trained is None:
            hint = f"leave out {option('unseen')}, or name the model by its run or version"
            raise UserError(f"{option('unseen')} needs a model whose run recorded its split", subject.name, hint=hint)
    left = [case for case in cases if not any(subject.saw(case) for subject in subjects)]
    if not left:
        hint = f"give a cohort with other patients, or leave out {option('unseen')}"
        raise UserError(
            f"{option('unseen')} leaves none of the {len(cases)} cases: all trained a model or chose its settings",
            hint=hint,
        )
    return left


def _cover(
    interval: VolumeInterval, rows: Sequence[CaseScores], subject: Subject, cohort: PreparedCohort
) -> dict[str, object]:
    """Add each patient's interval to its row and return its coverage of the unseen patients."""
    origin = subject.predictor.description.origin
    foreign = cohort.manifest.source_fingerprint != origin.source_fingerprint
    held: list[Row] = []
    for row in rows:
        predicted, true = (metric_of(row, f"volume_{kind}_{interval.unit}") for kind in ("prediction", "reference"))
        bounds = None if predicted is None else interval.interval([predicted])
        row["volume_interval"] = None if bounds is None else list(bounds)
        unseen = (foreign and row["part"] is None) or (interval.held_out == origin.test and row["part"] == "test")
        if bounds is not None and unseen:
            held.append({**row, "held": true is not None and bounds[0] <= true <= bounds[1]})
    shares = [*patient_means(held, "held").values()]
    return {**interval.described(), "num_asked": len(shares), "coverage": fmean(shares) if shares else None}
