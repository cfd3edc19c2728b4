import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from glioflow.data.prepared.cohort import PreparedCohort
from glioflow.runs.train import selection
from glioflow.runs.train.selection import training_statistics


@pytest.fixture
def cohort(prepared, tmp_path):
    shutil.copytree(prepared.path, tmp_path / "cohort", ignore=shutil.ignore_patterns("statistics"))
    return PreparedCohort(tmp_path / "cohort")


def test_statistics_of_the_training_cases_are_computed_once_and_read_by_the_next_trial(cohort, monkeypatch):
    cases = cohort.cases([record.id for record in cohort.records][:5])
    first = training_statistics(cohort, cases)
    assert first.flair_threshold is not None
    assert set(first.input_statistics) == set(cohort.channels)
    computed = []
    monkeypatch.setattr(selection, "_fit_flair", lambda cases: computed.append(len(cases)))
    assert training_statistics(cohort, cases) == first
    assert computed == []
    training_statistics(cohort, cases[:4])
    assert computed == [4]


def test_trials_that_end_together_compute_the_statistics_once(cohort, monkeypatch):
    cases, computed, fit_flair = cohort.cases([record.id for record in cohort.records][:5]), [], selection._fit_flair
    monkeypatch.setattr(selection, "_fit_flair", lambda cases: computed.append(len(cases)) or fit_flair(cases))
    with ThreadPoolExecutor(4) as trials:
        statistics = list(trials.map(lambda _: training_statistics(cohort, cases), range(4)))
    assert computed == [5]
    assert all(each == statistics[0] for each in statistics)


def test_statistics_that_were_torn_or_cannot_be_kept_are_computed(cohort):
    cases = cohort.cases([record.id for record in cohort.records][:3])
    first = training_statistics(cohort, cases)
    (kept,) = (cohort.path / "statistics").glob("*.json")
    kept.write_text(kept.read_text()[:20])
    assert training_statistics(cohort, cases) == first
    for file in (cohort.path / "statistics").iterdir():
        file.unlink()
    (cohort.path / "statistics").rmdir()
    (cohort.path / "statistics").write_text("a file where a folder would be")
    assert training_statistics(cohort, cases) == first
