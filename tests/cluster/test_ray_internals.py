"""What GlioFlow uses of Ray beneath its public interface is still needed: each test fails once Ray offers it in public.

Then the function that it names goes from `cluster/ray_internals.py`. See also `tests/runs/test_memory_guard.py`.
"""

import inspect
from dataclasses import fields

import ray.exceptions
import ray.util.state.common
from ray.experimental import internal_kv
from ray.train.torch import TorchTrainer


def public(module):
    return {name for name, value in vars(module).items() if inspect.isroutine(value) and not name.startswith("_")}


def test_rays_store_of_values_is_internal():
    assert not {name for name in public(internal_kv) if "put" in name or "set" in name}
    assert not {name for name in public(ray) if "kv" in name}


def test_no_public_call_names_the_nodes_that_drain():
    known = {each.name for each in fields(ray.util.state.common.NodeState)}
    assert not {name for name in known | public(ray) if "drain" in name or "preempt" in name}


def test_rays_mark_of_an_announced_end_cannot_be_set():
    assert ray.exceptions.RayActorError.preempted.fset is None


def test_the_numbers_of_a_shortage_of_memory_stand_in_the_text_of_an_error_alone():
    assert set(vars(ray.exceptions.OutOfMemoryError("1.0GB used"))) == {"message"}


def test_the_loss_of_a_node_stands_in_the_text_of_an_error_alone():
    arguments = inspect.signature(ray.exceptions.RayActorError).parameters
    assert list(arguments) == ["actor_id", "error_msg", "actor_init_failed", "preempted"]


def test_no_public_method_ends_a_training_that_waits():
    assert hasattr(TorchTrainer, "_register_sigint_handler")
    assert not {name for name in public(TorchTrainer) if "abort" in name or "interrupt" in name or "stop" in name}
