"""What people read of a training that failed on a worker."""

from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.train import WorkerGroupError

from glioflow.errors import RunFailed
from glioflow.runs.train.run import _cause


def failed_with(error: Exception) -> WorkerGroupError:
    """Return what Ray Train raises where its first worker failed so."""
    return WorkerGroupError("[Rank 0]\nTraceback: File x\nlast: line", {0: RayTaskError("train", "a traceback", error)})


def test_our_own_error_is_read_as_it_was_raised():
    assert _cause(failed_with(RunFailed("the training loss is not finite"))) == "the training loss is not finite"


def test_another_error_is_read_in_its_last_line():
    assert _cause(failed_with(KeyError("x"))) == "last: line"


def test_a_worker_that_was_ended_for_memory_is_read_with_what_to_lower():
    line = _cause(WorkerGroupError("a message", {0: OutOfMemoryError("low on memory")}))
    assert line.startswith("out of memory: Ray ended a worker process")
    assert "lower training.batch_size" in line
