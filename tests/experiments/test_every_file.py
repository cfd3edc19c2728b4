"""Every experiment file of the repository: prepare, train, bundle, predict, the original geometry back."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from shrunk import FILES, ROOT, shrunk, title

from glioflow.bundle.measurement import measure
from glioflow.bundle.prediction import Predictor
from glioflow.config import Experiment, load_experiment
from glioflow.data.case import Case
from glioflow.data.formats.detect import open_cohort
from glioflow.data.formats.mask_file import read_mask
from glioflow.data.formats.writing import native_format, write_mask
from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.data.prepared.preparation import find_or_prepare
from glioflow.data.splits import make_split
from glioflow.errors import UserError
from glioflow.evaluation import dice_per_case
from glioflow.runs.plan import Plan
from glioflow.runs.train.training import train_plan
from glioflow.runs.train.worker import Worker

CohortOf = Callable[[Experiment], Path]


@pytest.fixture(scope="session")
def prepare(cohort_of: CohortOf, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Experiment], PreparedCohort]:
    """Return a function that prepares an experiment's tiny cohort, once for all that share the steps."""
    home = tmp_path_factory.mktemp("prepared")
    return lambda experiment: find_or_prepare(cohort_of(experiment), experiment.preprocess, home=home)


def plan_of(experiment: Experiment, cohort: PreparedCohort, folder: Path) -> Plan:
    return Plan(
        experiment=experiment,
        prepared=cohort.path,
        split=make_split(cohort.records, experiment.split),
        run_id="none",
        tracking_uri="none",
        folder=folder,
        created="2026-01-01T00:00:00+00:00",
    )


@pytest.mark.parametrize("path", FILES, ids=title)
def test_one_step_gives_a_bundle_that_answers_in_the_original_geometry(
    path: Path, prepare: Callable[[Experiment], PreparedCohort], cohort_of: CohortOf, tmp_path: Path
) -> None:
    experiment = shrunk(path)
    cohort = prepare(experiment)
    plan = plan_of(experiment, cohort, tmp_path / "run")
    metrics = train_plan(plan, Worker(lambda *_: None))
    assert metrics is not None
    predictor = Predictor.load(plan.bundle, device="cpu")
    if not experiment.training.final:
        again = [row["dice"] for row in measure(predictor, cohort.cases(plan.split.val))]
        assert metrics["val/dice_mean"] == pytest.approx(np.mean(again), rel=0.05, abs=1e-3)  # half precision
    (test,) = plan.split.test
    case = open_cohort(cohort_of(experiment)).read(test)
    answer = predictor.predict(case).segmentation
    assert answer.labels.shape == case.shape
    assert answer.probability.shape == (*case.shape, len(experiment.target.names))
    assert np.isfinite(answer.probability).all()
    assert set(np.unique(answer.labels)) <= {0, *answerable(experiment)}
    written = write_mask(answer.labels, case, tmp_path / "answer", native_format(case))
    assert np.array_equal(read_back(written, case), answer.labels)
    (row,) = measure(predictor, cohort.cases([test]))
    found, true = (experiment.target.split(each) for each in (answer.labels, cohort.case(test).reference()))
    dice = np.mean([dice_per_case(found[name], true[name]) for name in true])
    assert row["dice"] == pytest.approx(dice, rel=0.05, abs=1e-3)  # prepared in half precision


def read_back(written: Path, case: Case) -> NDArray[np.uint8]:
    if written.is_file():
        mask, spacing = read_mask(written)
        assert spacing == pytest.approx(case.spacing_mm, rel=1e-4)
        return mask
    slices = [tifffile.imread(written / f"{case.id}_{number}_mask.tif") for number in case.slice_numbers]
    return (np.stack(slices) > 0).astype(np.uint8)


def answerable(experiment: Experiment) -> set[int]:
    target = experiment.target
    return {"binary": {1}, "multiclass": set(target.labels), "regions": set(target.decode.values())}[target.kind]


@pytest.mark.parametrize("name", ["seeds/buda-unet", "brats-3d"])
def test_a_killed_training_goes_on_to_the_same_bits(
    name: str, prepare: Callable[[Experiment], PreparedCohort], tmp_path: Path
) -> None:
    import torch

    (path,) = (path for path in FILES if title(path) == f"{name}.yaml")
    experiment = shrunk(path, epochs=3, steps_per_epoch=2, ema=0.9, accumulate=2, deterministic=True, keep="last")
    cohort = prepare(experiment)

    def train(folder: Path, *, kill: Path | None = None, resume: Path | None = None) -> bytes:
        def report(epoch: int, metrics: dict[str, float], write_checkpoint: Callable[[Path], None]) -> None:
            if kill is not None and epoch == 0:
                kill.mkdir()
                write_checkpoint(kill)
                raise KeyboardInterrupt

        plan = plan_of(experiment, cohort, folder)
        train_plan(plan, Worker(report, resume=resume))
        return (plan.bundle / "weights.safetensors").read_bytes()

    try:
        whole = train(tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", kill=tmp_path / "checkpoint")
        assert train(tmp_path / "killed", resume=tmp_path / "checkpoint") == whole
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("name", "rule", "smaller"),
    [
        (
            "brats2020-unet2d",
            r"\[250, 74, 45\] need 369 labeled .*-o split\.counts",
            "split.counts=[2, 1, 1]",
        ),
        ("buda-unet", "22 folds need at least 22 labeled patients; got 4 patients", "split.folds=4"),
    ],
)
def test_a_published_split_is_refused_on_few_patients_and_can_be_overridden(name: str, rule: str, smaller: str) -> None:
    path = ROOT / "experiments" / "seeds" / f"{name}.yaml"
    records = [Dealt(str(number)) for number in range(4)]
    with pytest.raises(UserError, match=rule):
        make_split(records, load_experiment(path).split)
    split = make_split(records, load_experiment(path, [smaller]).split)
    assert (len(split.train), len(split.val), len(split.test)) == (2, 1, 1)


class Dealt:
    """A labeled case as a split sees it."""

    institution, volume_px = None, 5

    def __init__(self, name: str, patient: str | None = None) -> None:
        self.id, self.patient = name, patient or name


@pytest.mark.parametrize("path", FILES, ids=title)
def test_every_experiment_is_called_as_its_file_and_described(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    assert len(experiment.description) > 60


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "seeds"], ids=title)
def test_every_published_system_splits_by_patient_and_chooses_nothing_on_those_who_judge_it(path: Path) -> None:
    split = load_experiment(path).split
    cohort = [Dealt(f"{patient}-{scan}", str(patient)) for patient in range(400) for scan in range(2)]
    parts = make_split(cohort, split)
    people = [{case_id.split("-")[0] for case_id in part} for part in (parts.train, parts.val, parts.test)]
    assert all(people)
    assert sum(map(len, people)) == len(set.union(*people))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", FILES, ids=title)
def test_the_whole_of_each_runs_to_the_end(
    path: Path, ray: None, cohort_of: CohortOf, tracking: Any, tmp_path: Path
) -> None:
    from glioflow.runs.analysis.evaluate import evaluate
    from glioflow.runs.train.run import train

    experiment = shrunk(path, epochs=2, steps_per_epoch=2)
    source = cohort_of(experiment)
    trained = train(experiment, source)
    assert tracking.run(trained.run_id).info.status == "FINISHED"
    validated = set() if experiment.training.final else {"val/dice_mean"}
    assert {"test/dice_mean", *validated} <= set(trained.metrics)
    judged = evaluate(trained.model_uri, source)
    assert len(judged["per_patient"]) == 4
    folder, _ = tracking.find_bundle(trained.model_uri)
    shutil.copytree(folder, tmp_path / "bundle")  # a bundle is a folder that can be taken anywhere
    cohort = open_cohort(source)
    case = cohort.read(cohort.cases[0].id)
    assert Predictor.load(tmp_path / "bundle").predict(case).segmentation.labels.shape == case.shape
