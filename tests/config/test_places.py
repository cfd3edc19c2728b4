"""Where things live, and what is said where they are not."""

from pathlib import Path

import pytest

from glioflow.cluster.storage import tracking_uri
from glioflow.config import data_source, home
from glioflow.errors import UserError


def test_state_lives_in_the_working_folder_unless_a_home_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("GLIOFLOW_HOME", "somewhere")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / "somewhere"
    monkeypatch.delenv("GLIOFLOW_HOME")
    assert home() == tmp_path / ".glioflow"
    assert not any(tmp_path.iterdir())


def test_inside_a_ray_job_the_home_must_be_named(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    home()
    monkeypatch.delenv("GLIOFLOW_HOME")
    with pytest.raises(UserError, match="inside a Ray job GLIOFLOW_HOME must name a folder that every node reaches"):
        home()


def test_mlflow_is_sqlite_under_the_home_unless_it_is_named(monkeypatch, home):
    assert tracking_uri() == f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri() == "http://there:5000"


def test_a_cohort_is_found_here_then_under_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("data/cohort", "cohort"):
        Path(folder).mkdir(parents=True)
    monkeypatch.setenv("GLIOFLOW_DATA", "data")
    assert data_source(None, "cohort") == tmp_path / "cohort"
    Path("cohort").rmdir()
    assert data_source(None, "cohort") == tmp_path / "data" / "cohort"
    assert data_source("data", "cohort") == tmp_path / "data"


def test_a_cohort_that_is_nowhere_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLIOFLOW_DATA", raising=False)
    with pytest.raises(UserError, match="or set GLIOFLOW_DATA") as error:
        data_source(None, "cohort")
    assert str(tmp_path / "cohort") in str(error.value)
    monkeypatch.setenv("GLIOFLOW_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError) as error:
        data_source(None, "cohort")
    assert f"{tmp_path / 'cohort'} or {tmp_path / 'data' / 'cohort'}" in str(error.value)


def test_a_cohort_that_nobody_named_is_asked_for():
    with pytest.raises(UserError, match=r"data=DIR, or as data\.source"):
        data_source(None, None)
    with pytest.raises(UserError, match="nowhere does not exist; give data the folder of a cohort"):
        data_source("nowhere", "cohort")
