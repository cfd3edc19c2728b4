"""What people read of a training that failed on a worker, and how long one waits for its workers."""

import os

import pytest
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.train import WorkerGroupError

from glioflow.cluster.lease import holding
from glioflow.errors import RunFailed, UserError
from glioflow.runs.train.failures import cause_of
from glioflow.runs.train.run import send_rest
from glioflow.runs.train.waiting import waiting_for_workers
from glioflow.tracking.run import spool_of
from glioflow.tracking.spool import Tags, append_to_spool, run_folder


def failed_with(error: Exception) -> WorkerGroupError:
    """Return what Ray Train raises where its first worker failed so."""
    return WorkerGroupError("[Rank 0]\nTraceback: File x\nlast: line", {0: RayTaskError("train", "a traceback", error)})


def test_our_own_error_is_read_as_it_was_raised():
    assert cause_of(failed_with(RunFailed("the training loss is not finite"))) == "the training loss is not finite"


def test_another_error_is_read_in_its_last_line():
    assert cause_of(failed_with(KeyError("x"))) == "last: line"


def test_a_worker_that_was_ended_for_memory_is_read_with_what_to_lower():
    line = cause_of(WorkerGroupError("a message", {0: OutOfMemoryError("low on memory")}))
    assert line.startswith("out of memory: Ray ended a worker process")
    assert "lower training.batch_size" in line


@pytest.mark.parametrize(("elastic", "waits"), [(False, "900"), (True, "20")])
def test_a_busy_cluster_is_waited_for_unless_the_user_said_how_long(monkeypatch, elastic, waits):
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.delenv(name, raising=False)
    with waiting_for_workers(elastic=elastic):
        assert os.environ[name] == waits
    assert name not in os.environ
    monkeypatch.setenv(name, "5")
    with waiting_for_workers(elastic=elastic):
        assert os.environ[name] == "5"


def test_what_waits_of_a_run_whose_process_lives_is_left_to_that_process(tracking):
    run_id = tracking.start("tiny", "train", tags={})
    append_to_spool(spool_of(run_id), Tags(tags={"own": "x"}))
    with holding(run_folder(run_id), "run r"), pytest.raises(UserError, match="is run by"):
        send_rest(tracking, run_id)
    assert spool_of(run_id).exists()
    assert send_rest(tracking, run_id) is None, "it has not ended"
    assert tracking.run(run_id).data.tags["own"] == "x"
