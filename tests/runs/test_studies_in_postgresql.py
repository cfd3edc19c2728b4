"""Studies in a PostgreSQL database, which the setting GLIOFLOW_STUDIES_URI names for the driver."""

import pickle

import pytest

from glioflow.cluster import remote_home
from glioflow.cluster.environment import worker_environment
from glioflow.cluster.storage import home
from glioflow.config.search import SearchSettings
from glioflow.errors import UserError
from glioflow.runs.search.searcher import METRIC, NUMBER, Searcher
from glioflow.runs.search.study_store import STUDIES, check_studies
from glioflow.runs.search.tuner import SearchFolder
from servers import free_port, postgres

SPACE = {"training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}}
SETTINGS = SearchSettings.model_validate({"space": SPACE, "sampler": "random", "trials": 4})


def folder_of(name: str, run_id: str) -> SearchFolder:
    folder = SearchFolder(name, home() / "searches" / name)
    folder.note_run(run_id)
    return folder


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "http://me:secret@host", "mysql://me:secret@host/db"])
def test_what_is_no_postgresql_is_refused_without_its_password(monkeypatch, uri):
    monkeypatch.setenv(STUDIES, uri)
    with pytest.raises(UserError, match=f"{STUDIES} must name a PostgreSQL database") as refused:
        check_studies()
    assert "secret" not in str(refused.value)


def test_a_database_that_does_not_answer_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv(STUDIES, f"postgresql://me:secret@127.0.0.1:{free_port()}/studies")
    with pytest.raises(UserError, match=r"must name a reachable database.*127\.0\.0\.1.*refused") as refused:
        check_studies()
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("uri", ["postgresql://me:secret@host:port/studies", "postgresql://me:secret@[::1/studies"])
def test_what_is_no_address_is_refused_in_one_line(monkeypatch, uri):
    monkeypatch.setenv(STUDIES, uri)
    with pytest.raises(UserError, match=f"{STUDIES} must name a PostgreSQL database") as refused:
        check_studies()
    assert "secret" not in str(refused.value)


def test_a_search_whose_run_nobody_noted_goes_on_in_its_file(monkeypatch):
    folder = SearchFolder("old", home() / "searches" / "old")
    folder.path.mkdir(parents=True)
    monkeypatch.setenv(STUDIES, "postgresql://host/studies")
    folder.check_study()  # it is new
    (folder.path / "optuna.db").touch()  # as version 0.1 left it
    with pytest.raises(UserError, match="which is in a file of its own"):
        folder.check_study()


def test_a_search_goes_on_only_where_its_study_is(monkeypatch):
    in_a_file = folder_of("s", "0123")
    monkeypatch.setenv(STUDIES, "postgresql://me:secret@host/studies")
    with pytest.raises(UserError, match=f"which is in a file of its own.*unset {STUDIES}") as refused:
        in_a_file.check_study()
    assert "secret" not in str(refused.value)
    in_the_database = folder_of("t", "4567")
    in_the_database.check_study()
    assert STUDIES not in worker_environment()
    for other in (None, "postgresql://host/others"):
        monkeypatch.delenv(STUDIES) if other is None else monkeypatch.setenv(STUDIES, other)
        with pytest.raises(
            UserError, match=r"which is in postgresql\+psycopg://host/studies.*set GLIOFLOW_STUDIES_URI"
        ):
            in_the_database.check_study()
    assert not any("secret" in path.read_text() for path in home().rglob("*") if path.is_file())


@pytest.mark.slow
def test_searches_share_a_database_that_is_not_mlflows_and_go_on_at_any_node(node, monkeypatch):
    import sqlalchemy

    with postgres() as uri:
        engine = sqlalchemy.create_engine(uri)
        with engine.begin() as connection:
            for made in ("SCHEMA mlflow", "TABLE mlflow.alembic_version (version_num text)", "SCHEMA optuna"):
                connection.execute(sqlalchemy.text(f"CREATE {made}"))
        address = uri.replace("postgresql+psycopg", "postgresql").replace("mlflow@", "mlflow:secret@")
        for schema, rule in (("mlflow", "of its own, not one with the tables"), ("absent", "a schema that exists")):
            monkeypatch.setenv(STUDIES, f"{address}?options=-csearch_path%3D{schema}")
            with pytest.raises(UserError, match=rule):
                check_studies()
        monkeypatch.setenv(STUDIES, f"{address}?options=-csearch_path%3Doptuna")
        check_studies()

        folder = folder_of("s", "0123")
        assert not folder.has_study
        first = Searcher(SETTINGS, name=folder.study, storage=folder.storage)
        points = [first.suggest(f"t{k}") for k in range(2)]
        first.on_trial_complete("t0", {METRIC: 0.5, "epoch": 2, "finished": True})
        assert b"secret" not in pickle.dumps(first)
        assert pickle.loads(pickle.dumps(first)).reached() == (1, 0.5)
        assert remote_home.list_shared(folder.path) == ["run_id", "studies"]

        node("node-2")
        check_studies()
        again = SearchFolder("s", home() / "searches" / "s")
        again.fetch()
        again.check_study()
        assert again.has_study
        second = Searcher(SETTINGS, name=again.study, storage=again.storage)
        assert second.plan(4) == 3
        assert second.suggest("t0") == points[1], "the trial that was open comes first"
        assert second.suggest("t1")[NUMBER] == 2
        assert not folder_of("s", "another home's").has_study
        engine.dispose()
