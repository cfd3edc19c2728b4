"""What a worker books and sees of a cluster: GPUs by `auto`, parts of a GPU, none where none is booked."""

import os
import sys
from subprocess import run

import pytest

from bundles import changed
from glioflow.cluster.autoscaled import AUTOSCALED_NODES, nodes_to_come
from glioflow.cluster.connection import fit_on_node
from glioflow.errors import UserError
from glioflow.runs.launch import with_gpus
from glioflow.runs.resuming import _changed_keys

NODE = {"CPU": 64.0, "GPU": 8.0}


@pytest.mark.parametrize(("gpus", "fit"), [(0.6, 8), (0.5, 16), (0.34, 16), (1, 8), (2, 4), (3, 2), (0, 64)])
def test_parts_of_a_gpu_are_counted_on_each_gpu(gpus, fit):
    assert fit_on_node(NODE, cpus=1, gpus=gpus) == fit


def test_cpus_limit_what_fits_too():
    assert fit_on_node(NODE, cpus=16, gpus=0.25) == 4
    assert fit_on_node({"CPU": 4.0}, cpus=1, gpus=1) == 0


@pytest.mark.parametrize(("have", "booked"), [(8.0, 1.0), (0.0, 0.0)])
def test_a_training_books_one_gpu_where_the_cluster_has_any(tiny, monkeypatch, have, booked):
    monkeypatch.setattr("glioflow.cluster.resources", lambda: {"CPU": 8.0, "GPU": have, "nodes": 1.0})
    assert tiny.training.gpus_per_worker == "auto"
    assert with_gpus(tiny).training.resources_per_worker.get("GPU", 0.0) == booked
    settings = changed(tiny, training={"gpus_per_worker": 0})
    assert with_gpus(settings) is settings


def test_a_run_goes_on_where_there_are_other_gpus(tiny):
    on_cpu, on_gpu = (changed(tiny, training={"gpus_per_worker": each}) for each in (0, 1))
    assert _changed_keys(on_cpu, on_gpu, ()) == []


def test_a_run_resumes_with_other_words_about_it(tiny):
    assert _changed_keys(tiny, tiny.model_copy(update={"description": "Now in better English."}), ()) == []
    reseeded = tiny.model_copy(update={"training": tiny.training.model_copy(update={"seed": 9})})
    assert _changed_keys(tiny, reseeded, ()) == ["training.seed is 9, was 0"]


def test_nodes_that_an_autoscaler_may_add_count_until_they_are_there(monkeypatch):
    monkeypatch.setenv(AUTOSCALED_NODES, "2 of CPU 8 GPU 1, 1 of CPU 16")
    head, gpu, cpu = {"memory": 1e9}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 0.0}
    assert nodes_to_come([head]) == [gpu, gpu, cpu]
    assert nodes_to_come([head, {**gpu, "memory": 1e9}, {"CPU": 4.0}]) == [gpu, cpu]
    assert nodes_to_come([head, gpu, gpu, gpu, cpu]) == []


@pytest.mark.parametrize("text", ["4", "4 of GPU 1", "4 of CPU 8; 2 of CPU 16", "-1 of CPU 8", "4 of CPU 8,"])
def test_a_list_of_nodes_that_cannot_be_read_is_refused(monkeypatch, text):
    monkeypatch.setenv(AUTOSCALED_NODES, text)
    with pytest.raises(UserError, match="write it like this: 4 of CPU 8 GPU 1, 2 of CPU 16"):
        nodes_to_come([])


def test_an_endpoint_for_which_no_node_is_there_yet_may_name_those_of_an_autoscaler(monkeypatch):
    from glioflow.serving.server import _check_room
    from glioflow.serving.settings import ServeSettings

    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    with pytest.raises(UserError, match=f"a cluster of 0; lower .*, or list the nodes .* in {AUTOSCALED_NODES}"):
        _check_room(ServeSettings(), {"CPU": 0.0, "GPU": 0.0})


@pytest.mark.ray
def test_a_worker_has_the_share_of_its_node_that_it_books():
    script = """
from glioflow import cluster
assert cluster.share_of_node(cpus=1, gpus=0) == 1
cluster.connect(num_cpus=4)
assert list(cluster.map_parallel(lambda cpus: cluster.share_of_node(cpus=cpus, gpus=0), [1, 2, 4])) == [0.25, 0.5, 1]
cluster.disconnect()
"""
    run([sys.executable, "-c", script], check=True, timeout=300)


@pytest.mark.ray
def test_who_booked_no_gpu_sees_none():
    script = """
import os
from glioflow import cluster
cluster.connect(num_cpus=1)
import ray
assert list(cluster.map_parallel(lambda name: os.environ.get(name), ["CUDA_VISIBLE_DEVICES"])) == [""]
cluster.disconnect()
"""
    environment = {name: value for name, value in os.environ.items() if "ACCEL" not in name and "RAY" not in name}
    run([sys.executable, "-c", script], env={**environment, "CUDA_VISIBLE_DEVICES": "0,1"}, check=True, timeout=300)
