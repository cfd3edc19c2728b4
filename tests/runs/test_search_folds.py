"""Searches judged on several folds: who is in them, what trials report on the way, what masks say of survival."""

from statistics import fmean

import pytest

from glioflow.config import override
from glioflow.data.splits import make_split
from glioflow.errors import UserError
from glioflow.progress import quiet
from glioflow.runs.launch import Setting
from glioflow.runs.plan import Fold, Plan
from glioflow.runs.search import trial as trials
from glioflow.runs.search.survival_objective import c_index, find_tables
from glioflow.runs.search.trial_folds import deal_folds, sum_up
from glioflow.runs.train.worker import Worker

SPACE = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}
FEW = {"survival": {"min_patients": 4, "shape_features": ["asd"], "repeats": 2}}


@pytest.fixture
def setting(tiny, prepared):
    """Return a setting of 8 patients, 2 of whom test, with a search on 3 folds."""
    search = {"space": SPACE, "folds": 3, "objectives": ["dice", "c_index"]}
    experiment = override(tiny, {"search": search, **FEW})
    return Setting(experiment, prepared, make_split(prepared.records, experiment.split), None)


@pytest.fixture
def plan(setting, tmp_path):
    settings = {
        "prepared": setting.cohort.path,
        "run_id": "r",
        "tracking_uri": "",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Plan(experiment=setting.experiment, split=setting.split, folder=tmp_path, **settings)


def test_every_patient_but_those_who_test_validates_once(setting):
    folds = deal_folds(setting)
    validated = [case_id for fold in folds for case_id in fold.val]
    assert sorted(validated) == sorted([*setting.split.train, *setting.split.val])
    for fold in folds:
        assert not {*fold.train, *fold.val} & {*setting.split.test}
        assert fold.test_digest == setting.split.test_digest
    assert deal_folds(setting) == folds


def test_a_trial_stands_at_the_mean_of_its_folds_and_counts_steps_on(plan):
    third = plan.model_copy(update={"fold": Fold(number=2, before=(0.5, 0.7))})
    step, logged = third.logged(1, {"val/dice": 0.9, "train/loss": 0.1})
    assert step == 5
    assert logged == {"val/dice": pytest.approx(0.7), "val_fold_2/dice": 0.9, "train/loss": 0.1}
    assert plan.logged(1, {"val/dice": 0.9}) == (1, {"val/dice": 0.9})


def test_a_trial_ends_with_the_mean_over_folds_and_each_of_them():
    folds = [{"val/dice_mean": 0.4, "val/hd95_mean": None}, {"val/dice_mean": 0.8, "val/hd95_mean": 3.0}]
    total = sum_up(folds)
    assert total["val/dice_mean"] == pytest.approx(0.6)
    assert total["val/hd95_mean"] is None
    assert (total["val_fold_0/dice_mean"], total["val_fold_1/hd95_mean"]) == (0.4, 3.0)


def test_a_resumed_trial_trains_only_the_folds_that_it_had_not_finished(setting, plan, monkeypatch):
    from ray import tune

    begun, reports = [], []

    def fit(run, fold_plan):
        begun.append((fold_plan.fold.number, fold_plan.fold.before))
        if fold_plan.fold.number == 1 and len(begun) == 2:
            raise SystemExit
        trials.train_plan(fold_plan, Worker(lambda *_: None))

    monkeypatch.setattr(trials, "_train_here", fit)
    monkeypatch.setattr(tune, "report", reports.append)
    folds = deal_folds(setting)
    with pytest.raises(SystemExit):
        trials._train_folds(None, plan, folds)
    plans = trials._train_folds(None, plan, folds)
    assert [number for number, _ in begun] == [0, 1, 1, 2]
    reached = [trials.bundle.read_description(each.bundle).metrics["val/dice_mean"] for each in plans]
    assert begun[-1][1] == (reached[0], reached[1])
    assert [report["epoch"] for report in reports] == [2, 4]
    assert reports[-1]["val_dice"] == pytest.approx(fmean(reached[:2]))
    tables = find_tables(setting, folds, say=quiet)
    assert 0 <= c_index(tables, [each.features for each in plans], plan.experiment) <= 1


def test_too_few_outcomes_are_refused_before_any_trial_with_the_numbers(setting):
    strict = Setting(override(setting.experiment, {"survival.min_patients": 8}), *list(vars(setting).values())[1:])
    with pytest.raises(UserError, match=r"objective c_index.*at least 8 patients .*got 5"):
        find_tables(strict, deal_folds(strict), say=quiet)


def test_a_missing_table_is_refused_with_where_it_was_looked_for(setting):
    lost = override(setting.experiment, {"search.outcomes": "nowhere.csv"})
    with pytest.raises(UserError, match=r"search\.outcomes must name a file; got nowhere\.csv"):
        find_tables(Setting(lost, setting.cohort, setting.split, None), deal_folds(setting), say=quiet)
