"""A worker that Ray ended for memory is described in one line, wherever its error arrives."""

import json
import os
import re
import subprocess
import sys

import pytest
from ray.exceptions import OutOfMemoryError
from ray.train import WorkerGroupError

from glioflow.cluster import memory_shortage

# As Ray 2.60 writes it, without its table of processes and its advice.
TEXT = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: f249ea4f) was \
10.05GB used / 23.54GB limit (0.426897)
OOM kill reason: Memory usage 10325319680B exceeded threshold of 252765136B (1.0% of 25276514304B limit)
Considered workers: [
Selected to kill: (Task: job ID=01000000, lease ID=00, task name=RayTrainWorker.execute, required resources={CPU: 1}, \
pid=8116, actual memory used=0.25GB, worker ID=f89d1903)
]
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/"""
LINE = (
    "out of memory: Ray ended process 8116 (RayTrainWorker.execute), which used 0.25 GiB, when 10.05 of the node's "
    "23.54 GiB were in use; lower training.batch_size"
)


def test_the_line_says_which_process_used_how_much_of_how_much_and_what_to_lower():
    assert memory_shortage(OutOfMemoryError(TEXT), lower="training.batch_size") == LINE


def test_it_is_found_in_what_ray_train_raises():
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    failure = WorkerHealthCheckFailedError("a worker failed", failure=OutOfMemoryError(TEXT))
    assert memory_shortage(WorkerGroupError("a message", {0: failure}), lower="training.batch_size") == LINE


def test_a_text_without_numbers_is_still_a_shortage_of_memory():
    line = memory_shortage(OutOfMemoryError("the words are others now"), lower="x")
    assert line == "out of memory: Ray ended a worker process, before its node had none left; lower x"


def test_another_failure_is_none():
    assert memory_shortage(RuntimeError(TEXT)) is None


SCRIPT = """
import json, os, time
from glioflow import cluster
from glioflow.errors import RunFailed

def eat(item):
    kept = bytearray(300_000_000)
    time.sleep(300)

with cluster.ending():
    cluster.connect(num_cpus=1)
    try:
        list(cluster.map_parallel(eat, [1]))
    except RunFailed as error:
        print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_a_worker_that_ray_really_ends_is_described_with_its_numbers():
    environment = {**os.environ, "RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [json.loads(each) for each in done.stdout.splitlines() if each.startswith('"')]  # Ray prints others
    number = r"\d+\.\d+"
    ended = rf"out of memory: Ray ended process \d+ \(_answer\), which used {number} GiB"
    expected = rf"{ended}, when {number} of the node's {number} GiB were in use; lower "
    assert re.match(expected, line), line
