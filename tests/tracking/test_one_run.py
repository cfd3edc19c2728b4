"""One contract for runs of every kind: lineage on record, a status whatever ends them, delivery after an outage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from glioflow import __version__
from glioflow.cluster.lease import this_process
from glioflow.errors import DiskFull, RunFailed, UserError
from glioflow.tracking import Tracking
from glioflow.tracking.datasets import prepared_dataset
from glioflow.tracking.lease import LEASE, LEASED_BY, LEASED_TO, expired, lease_tags
from glioflow.tracking.lineage import source_digest, source_state, who
from glioflow.tracking.run import (
    REASON,
    RESUMED_WITH,
    Kind,
    Opening,
    begin_run,
    close_children,
    close_expired,
    open_run,
    resume_run,
    send_left,
    spool_of,
)
from glioflow.tracking.writer import PATIENCE_S
from servers import free_port, mlflow_server

PACKAGE = Path(__file__).parents[2] / "platform" / "glioflow"
KINDS = get_args(Kind)
PARENTS = {"trial": "search", "fold": "crossval"}
every_kind = pytest.mark.parametrize("kind", KINDS)
ENDINGS = {
    "an exception": (ValueError("a bad value"), "FAILED", "ValueError: a bad value"),
    "a failed run": (RunFailed("the loss is not a number"), "FAILED", "the loss is not a number"),
    "Ctrl-C": (KeyboardInterrupt(), "KILLED", None),
    "SIGTERM in a worker of Ray": (SystemExit(1), "KILLED", None),
}


@pytest.fixture
def opening(prepared: Any) -> Callable[..., Opening]:
    """Return a function that gives what a run of a kind is opened with."""

    def make(kind: Kind, parent: str | None = None) -> Opening:
        data = (prepared_dataset(prepared, "training", cases=8),)
        return Opening(kind, "contract", f"a {kind}", parent, {"own": "x"}, {"a": {"b": 1}}, {"x.txt": "x"}, data)

    return make


def open_kind(tracking: Tracking, opening: Callable[..., Opening], kind: Kind, **options: Any) -> Any:
    """Open a run of a kind below a parent, where it has one, as its verb does."""
    parent = begin_run(tracking, opening(PARENTS[kind])) if kind in PARENTS else None
    return open_run(tracking, opening(kind, parent), keep=kind != "decision", **options)


def test_the_command_that_a_run_shows_has_no_password(tracking: Tracking, opening: Any, monkeypatch: Any) -> None:
    words = ["evaluate", "http://me:hush@door:8000", "--data", "sftp://me:hush@store/cohort", "--name", "m@champion"]
    monkeypatch.setattr(sys, "argv", ["glioflow", *words])
    run_id = begin_run(tracking, opening("evaluation"))
    shown = "evaluate http://door:8000 --data sftp://store/cohort --name m@champion"
    assert tracking.run(run_id).data.tags["command"] == shown


@every_kind
def test_a_run_has_its_lineage_and_ends_finished(
    tracking: Tracking, opening: Callable[..., Opening], prepared: Any, kind: Kind
) -> None:
    with open_kind(tracking, opening, kind) as run:
        run.log_metrics({"val/dice": 0.5})
        run.log_json("rows.json", [1])
        assert tracking.run(run.run_id).info.status == "RUNNING"
    logged = tracking.run(run.run_id)
    tags, manifest = logged.data.tags, prepared.manifest
    assert logged.info.status == "FINISHED"
    assert logged.info.end_time >= logged.info.start_time
    assert {"glioflow.kind": kind, "own": "x", "mlflow.user": who(), **source_state().tags}.items() <= tags.items()
    assert (tags["glioflow.version"], tags["glioflow.source"]) == (__version__, source_digest())
    assert tags["glioflow.cohort"] == manifest.fingerprint
    assert tags["glioflow.cohort_source"] == manifest.source_fingerprint
    assert "python" in tags
    (data,) = logged.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == (manifest.source, manifest.fingerprint)
    assert logged.data.params == {"a.b": "1"}
    assert logged.data.metrics == {"val/dice": 0.5}
    assert tracking.read_json(run.run_id, "rows.json") == [1]
    whole = kind not in PARENTS
    assert ("command" in tags, tracking.has_artifact(run.run_id, "environment.txt")) == (whole, whole)
    if not whole:
        assert tracking.run(tags["mlflow.parentRunId"]).data.tags["glioflow.kind"] == PARENTS[kind]
    assert not spool_of(run.run_id).parent.exists()


@every_kind
@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_ends_a_run_closes_it(
    tracking: Tracking, opening: Callable[..., Opening], kind: Kind, ending: str
) -> None:
    error, status, reason = ENDINGS[ending]
    with pytest.raises(type(error)), open_kind(tracking, opening, kind) as run:  # noqa: PT012
        run.log_metrics({"val/dice": 0.5})
        raise error
    logged = tracking.run(run.run_id)
    assert (logged.info.status, logged.data.tags.get(REASON)) == (status, reason)
    assert logged.info.end_time is not None
    assert logged.data.metrics == {"val/dice": 0.5}


@every_kind
def test_a_run_that_is_interrupted_while_it_opens_is_closed(
    tracking: Tracking, opening: Callable[..., Opening], kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = opening(kind)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tracking, "log_dataset", interrupt)
    with pytest.raises(KeyboardInterrupt), open_run(tracking, begin):
        pytest.fail("the block was entered")
    (logged,) = tracking.every_run()
    assert logged.info.status == "KILLED"


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    """Let nobody handle SIGTERM, as in a process that has just begun."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_closes_a_run_as_killed(
    tracking: Tracking, opening: Callable[..., Opening], default_sigterm: None
) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tracking, opening("survival")) as run:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert tracking.run(run.run_id).info.status == "KILLED"


@every_kind
def test_a_full_disk_ends_a_run_as_failed_with_what_mlflow_took(
    tracking: Tracking, opening: Callable[..., Opening], home: Path, disk: Callable[[int], Path], kind: Kind
) -> None:
    full = disk(1)
    home.joinpath("runs").symlink_to(full)
    if kind == "decision":
        pytest.skip("it keeps nothing on the disk")
    with pytest.raises(DiskFull), open_kind(tracking, opening, kind) as run:  # noqa: PT012
        full.joinpath("filler").write_bytes(b"x" * 1_040_000)
        with pytest.raises(OSError, match="No space left"):
            full.joinpath("more").write_bytes(b"x" * 100_000)
        run.log_metrics({"val/dice": 0.5})
        run.log_bytes("report.bin", b"x" * 100_000)
    logged = tracking.run(run.run_id)
    assert (logged.info.status, logged.data.metrics) == ("FAILED", {"val/dice": 0.5})
    assert "no space left in" in logged.data.tags[REASON]


@dataclass
class Outage:
    """Takes the database away: nothing can be opened there until it is over."""

    database: Path

    def begin(self) -> None:
        shutil.move(self.database, self.database.with_name("aside.db"))
        self.database.mkdir()

    def end(self) -> None:
        self.database.rmdir()
        shutil.move(self.database.with_name("aside.db"), self.database)


@pytest.fixture
def outage(home: Path) -> Outage:
    """Return what takes the test's MLflow away."""
    return Outage(home / "mlflow.db")


def let_age(run_id: str) -> None:
    """Make a run's spool older than any process waits that may have written it."""
    old = time.time() - PATIENCE_S - 1
    os.utime(spool_of(run_id), (old, old))


@every_kind
def test_what_a_run_could_not_send_arrives_when_mlflow_is_back(
    tracking: Tracking, opening: Callable[..., Opening], outage: Outage, kind: Kind
) -> None:
    if kind == "decision":
        pytest.skip("it must not arrive later")
    opened = open_kind(tracking, opening, kind, patience_s=0)
    with pytest.raises(RunFailed, match=r"wait in .*spool\.jsonl"), opened as run:  # noqa: PT012
        run.log_metrics({"val/dice": 0.25}, step=3)
        outage.begin()
        run.log_metrics({"val/dice": 0.5}, step=4)
        run.set_tags({"late": "x"})
        run.log_text("report/index.html", "<p>seen</p>")
        ended = time.time()
    outage.end()
    assert tracking.run(run.run_id).info.status == "RUNNING"
    send_left(tracking)
    assert spool_of(run.run_id).exists(), "a process may still be waiting to send it"
    let_age(run.run_id)
    with open_run(tracking, opening("audit")):
        pass  # the next run of anybody's in this home sends it
    logged = tracking.run(run.run_id)
    assert (logged.info.status, logged.data.metrics, logged.data.tags["late"]) == ("FINISHED", {"val/dice": 0.5}, "x")
    assert abs(logged.info.end_time / 1000 - ended) < 2, "when it ended, not when that was delivered"
    assert tracking.download(f"runs:/{run.run_id}/report/index.html").read_text() == "<p>seen</p>"
    assert not spool_of(run.run_id).exists()


def test_a_decision_that_mlflow_did_not_take_does_not_appear_later(
    tracking: Tracking, opening: Callable[..., Opening], outage: Outage
) -> None:
    with pytest.raises(Exception, match="database"):  # noqa: PT012
        with open_kind(tracking, opening, "decision") as run:
            outage.begin()
            run.log_json("verdict.json", {"decision": "promoted"})
    outage.end()
    assert tracking.run(run.run_id).info.status != "FINISHED"
    assert not spool_of(run.run_id).exists()


@pytest.mark.parametrize("ending", ["an exception", "Ctrl-C"])
def test_an_end_during_an_outage_is_delivered_by_whoever_resumes_the_run(
    tracking: Tracking, opening: Callable[..., Opening], outage: Outage, ending: str
) -> None:
    error, *_ = ENDINGS[ending]
    with pytest.raises(type(error)), open_run(tracking, opening("train")) as run:  # noqa: PT012
        outage.begin()
        raise error
    outage.end()
    assert tracking.run(run.run_id).info.status == "RUNNING"
    with resume_run(tracking, run.run_id) as again:
        assert tracking.run(run.run_id).info.status == "RUNNING", "the old end closes no run that goes on"
        again.log_metrics({"val/dice": 0.5})
        assert tracking.run(run.run_id).info.status == "RUNNING", "the old end closes no run that goes on"
    assert tracking.run(run.run_id).info.status == "FINISHED"


def test_a_run_that_continues_with_other_code_says_so_and_names_all_code_that_its_numbers_are_of(
    tracking: Tracking, opening: Callable[..., Opening], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tracking, opening("train")) as run:
        raise KeyboardInterrupt
    with resume_run(tracking, run.run_id):
        pass
    assert RESUMED_WITH not in tracking.run(run.run_id).data.tags
    assert "began with" not in capsys.readouterr().err
    before = {"glioflow.version": "0.1.0", "glioflow.source": "f" * 32}
    tracking.set_tags(run.run_id, before)
    now = f"{__version__} (source {source_digest()[:8]})"
    for _ in range(2):
        with resume_run(tracking, run.run_id):
            pass
        tags = tracking.run(run.run_id).data.tags
        assert (tags["glioflow.version"], tags[RESUMED_WITH]) == ("0.1.0", now), "each code once"
    said = f"run {run.run_id} began with GlioFlow 0.1.0 (source ffffffff) and continues with {now}"
    assert capsys.readouterr().err.count(said) == 1
    tracking.set_tags(run.run_id, {RESUMED_WITH: "0.1.5 (source eeeeeeee)"})
    with resume_run(tracking, run.run_id):
        pass
    assert tracking.run(run.run_id).data.tags[RESUMED_WITH] == f"0.1.5 (source eeeeeeee), {now}"


def test_a_failure_heard_of_late_does_not_replace_the_end_that_a_run_has(
    tracking: Tracking, opening: Callable[..., Opening]
) -> None:
    with pytest.raises(RunFailed), open_run(tracking, opening("trial", "0" * 32)) as run:  # noqa: PT012
        tracking.finish(run.run_id, "KILLED")  # the search's driver stopped it
        raise RunFailed("the workers ended")
    logged = tracking.run(run.run_id)
    assert (logged.info.status, REASON in logged.data.tags) == ("KILLED", False)


def test_the_children_of_a_killed_process_are_closed_by_their_parents_process(
    tracking: Tracking, opening: Callable[..., Opening]
) -> None:
    with open_run(tracking, opening("crossval")) as parent:
        child = begin_run(tracking, replace(opening("fold"), parent=parent.run_id))
        close_children(tracking, "contract", parent.run_id)
        assert tracking.run(child).info.status == "KILLED"


_KILLED_AT_WORK = """
import os, signal
from glioflow.tracking import Tracking, lease
from glioflow.tracking.run import Opening, begin_run, open_run
lease.LEASE_S = 1.0
tracking = Tracking()
with open_run(tracking, Opening("crossval", "contract", "killed")) as run:
    run.log_metrics({"val/dice": 0.5})
    begin_run(tracking, Opening("fold", "contract", "its fold", parent=run.run_id))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_process_was_killed_is_closed_when_the_next_one_begins(
    tracking: Tracking, opening: Callable[..., Opening]
) -> None:
    begun = time.time()
    done = subprocess.run([sys.executable, "-c", _KILLED_AT_WORK], check=False)
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: list(expired(tracking.open_runs("contract"))))
    with open_run(tracking, opening("train")) as alive:
        left = {run.info.run_name: run for run in tracking.every_run()}
        assert left.pop("a train").info.status == "RUNNING"
    assert {run.info.status for run in left.values()} == {"KILLED"}
    assert left.keys() == {"killed", "its fold"}
    killed = left["killed"]
    assert killed.data.tags[REASON] == "its process ended without closing it"
    assert killed.data.metrics == {"val/dice": 0.5}
    assert begun - 1 < killed.info.end_time / 1000 <= time.time(), "when it was last heard of"
    with resume_run(tracking, killed.info.run_id):
        close_expired(tracking, tracking.every_run())
        assert tracking.run(killed.info.run_id).info.status == "RUNNING", "who goes on has a lease again"
    assert tracking.run(alive.run_id).info.status == "FINISHED"


def test_a_run_keeps_its_lease_while_its_process_lives(
    tracking: Tracking, opening: Callable[..., Opening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glioflow.tracking.lease.LEASE_S", 1.5)
    with open_run(tracking, opening("shadow")) as run:
        first = tracking.run(run.run_id).data.tags[LEASE]
        wait_for(lambda: tracking.run(run.run_id).data.tags[LEASE] != first)


@pytest.mark.parametrize("kind", ["train", "crossval", "search"])
def test_a_run_whose_driver_lives_is_left_open_after_a_long_outage_or_by_a_clock_that_is_fast(
    tracking: Tracking, opening: Callable[..., Opening], kind: Kind
) -> None:
    with open_run(tracking, opening(kind)) as run:
        tracking.set_tags(run.run_id, {LEASE: "1"})
        close_expired(tracking, tracking.every_run())
        assert tracking.run(run.run_id).info.status == "RUNNING"
        assert REASON not in tracking.run(run.run_id).data.tags


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_verb_opens_or_reopens_a_run_by_itself() -> None:
    direct = re.compile(r"\.(create_run|set_terminated|start_run)\(|tracking\.start\(|\.reopen\(")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "tracking" and direct.search(path.read_text())
    }
    assert found == {"runs/search/trial.py"}, "a trial goes on in the run that an earlier process of it opened"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_of_every_kind_survive_an_outage_of_a_server(
    opening: Callable[..., Opening], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, runs = free_port(), {}
    outage = mlflow_server(tmp_path / "server", {}, port=port)
    server = outage.__enter__()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    tracking, opened = Tracking(), []
    for kind in KINDS:
        if kind != "decision":
            opened.append((kind, entered := open_kind(tracking, opening, kind, patience_s=0)))
            runs[kind] = entered.__enter__()
    outage.__exit__(None, None, None)
    for kind, entered in opened:
        runs[kind].log_metrics({"val/dice": 0.5})
        with pytest.raises(RunFailed, match=r"wait in .*spool\.jsonl"):
            entered.__exit__(None, None, None)
        let_age(runs[kind].run_id)
    with mlflow_server(tmp_path / "server", {}, port=port):
        send_left(Tracking())
        for kind, run in runs.items():
            logged = Tracking().run(run.run_id)
            assert (logged.info.status, logged.data.metrics) == ("FINISHED", {"val/dice": 0.5}), kind


def test_a_run_that_another_home_runs_is_not_gone_on_with_until_its_lease_ends(
    tracking, opening, monkeypatch, tmp_path
):
    with open_run(tracking, opening("train")) as run:
        monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "other"))
        with pytest.raises(UserError, match=rf"run {run.run_id} is being run from the home {tmp_path}/home "):
            resume_run(tracking, run.run_id).__enter__()
        tracking.set_tags(run.run_id, {LEASE: "0"})
        with resume_run(tracking, run.run_id):
            pass


def test_a_run_of_another_home_is_gone_on_with_at_once_where_its_driver_ended_on_this_machine(
    tracking, opening, monkeypatch, tmp_path
):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    driver = replace(this_process(), pid=ended.pid)
    ended.wait()
    elsewhere = replace(driver, machine="another")
    with open_run(tracking, opening("train")) as run:
        monkeypatch.setenv("GLIOFLOW_HOME", str(tmp_path / "other"))
        tracking.set_tags(run.run_id, {LEASED_TO: json.dumps(asdict(elsewhere))})
        with pytest.raises(UserError, match="is being run from the home"):
            resume_run(tracking, run.run_id).__enter__()
        tracking.set_tags(run.run_id, {LEASED_TO: json.dumps(asdict(driver))})
        with resume_run(tracking, run.run_id):
            pass


def test_a_home_has_one_name_by_whatever_path_it_is_reached_and_whoever_names_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, link = tmp_path / "home", tmp_path / "link"
    home.mkdir()
    link.symlink_to(home)
    monkeypatch.setenv("GLIOFLOW_HOME", str(home))

    def somebody_is_faster() -> uuid.UUID:
        (home / "id").write_text("theirs")
        return uuid.UUID(int=1)

    with monkeypatch.context() as patch:
        patch.setattr("glioflow.tracking.lease.uuid.uuid4", somebody_is_faster)
        named = lease_tags()[LEASED_BY]
    assert named.endswith("(theirs)")
    monkeypatch.setenv("GLIOFLOW_HOME", str(link))
    assert lease_tags()[LEASED_BY] == named
