"""Scores of a trained bundle on the test patients, on whom nothing was trained or chosen, and their report."""

from dataclasses import dataclass, field

from glioflow import cluster
from glioflow.bundle.prediction import Predictor
from glioflow.data.prepared.remote import open_here
from glioflow.errors import RunFailed
from glioflow.evaluation import flatten_summary
from glioflow.evaluation.patients import CaseScores
from glioflow.reports.evaluation_page import evaluation_page
from glioflow.runs.case_pictures import case_drawings
from glioflow.runs.plan import Plan
from glioflow.runs.progress import TRAINED, ProgressFile
from glioflow.runs.scoring import score_cases
from glioflow.runs.train.failures import cause_of
from glioflow.runs.train.trained_bundle import fetch_bundle

# Scores of each test patient, which the cards of its versions summarize by subgroup.
PER_PATIENT = "test_patients.json"


@dataclass(frozen=True)
class TestScores:
    """Scores of a bundle on the test patients: metrics of the run, files of its report by name, a row per case."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    report: dict[str, bytes] = field(default_factory=dict)
    rows: list[CaseScores] = field(default_factory=list)


def score_test_patients(plan: Plan) -> TestScores:
    """Measure the bundle on the test patients, in a task on the cluster; nothing where there are none."""
    if not plan.split.test:
        return TestScores()
    import ray

    training = plan.experiment.training
    task = ray.remote(num_cpus=training.cpus_per_worker, num_gpus=min(1, training.gpus))(_score_in_task)
    try:
        scores: TestScores = ray.get(task.remote(plan.model_dump_json()))
    except ray.exceptions.RayTaskError as error:
        raise RunFailed(cause_of(error)) from error
    return scores


def _score_in_task(plan_json: str) -> TestScores:
    cluster.silence()
    plan = Plan.model_validate_json(plan_json)
    predictor, cohort = Predictor.load(fetch_bundle(plan)), open_here(plan.prepared)
    scored = score_cases(
        predictor,
        cohort.cases(plan.split.test),
        known=cohort.cases(plan.split.train),
        say=ProgressFile(plan.progress).section("test", TRAINED, 1),
    )
    answer = scored.answer(cohort.manifest.format)
    cases = case_drawings(answer["per_patient"], lambda case_id: (predictor, cohort.case(case_id)))
    about = f"{answer['num_patients']} test patients, which trained and chose nothing"
    page = evaluation_page(answer, title=f"Test of {plan.experiment.name}", about=about, cases=cases)
    files = {"index.html": page.encode(), **{f"{drawing.name}.png": drawing.png for drawing in cases}}
    return TestScores(flatten_summary(scored.summary(), "test"), files, answer["per_patient"])
