"""How a version computes: the fastest way whose masks are those of fp32, and what is left where one does not work."""

import sys

import numpy as np
import pytest
import torch

from bundles import changed, describe
from glioflow.bundle.prediction import Predictor
from glioflow.evaluation.inference import resolve_precision, slices_at_once
from glioflow.models import ARCHITECTURES, build_network
from glioflow.serving.engine import compiled_network as compiled
from glioflow.serving.engine.batching import BatchedPredictor
from glioflow.serving.engine.compiled_network import Compiled
from glioflow.serving.engine.selection import choose_engine

CPU = torch.device("cpu")


@pytest.fixture
def network(tiny):
    torch.manual_seed(0)
    return build_network(tiny.model, in_channels=3, num_outputs=1).eval()


def slices(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_a_compiled_network_says_what_the_network_says_at_every_size(network):
    fast = Compiled(network, "fp32").eval()
    for shape in ((3, 3, 32, 32), (1, 3, 32, 32), (2, 3, 50, 40)):
        images = slices(*shape)
        np.testing.assert_allclose(fast(images).numpy(), network(images).numpy(), atol=1e-3)


@torch.inference_mode()
def test_more_sizes_than_are_compiled_are_answered_all_the_same(network, monkeypatch):
    monkeypatch.setattr(compiled, "MAX_SIZES", 1)
    fast = Compiled(network, "fp32").eval()
    for side in (32, 48, 32):
        images = slices(1, 3, side, side)
        np.testing.assert_allclose(fast(images).numpy(), network(images).numpy(), atol=1e-3)


@torch.inference_mode()
def test_a_size_that_does_not_compile_is_answered_by_the_network(network, monkeypatch):
    fast = Compiled(network, "fp32").eval()
    fast(slices(1, 3, 32, 32))
    monkeypatch.setattr(compiled, "compile_network", lambda *_: 1 / 0)
    images = slices(1, 3, 48, 48)
    np.testing.assert_allclose(fast(images).numpy(), network(images).numpy(), atol=1e-5)
    with pytest.raises(ZeroDivisionError):  # at the first size of all it is the engine that is given up
        Compiled(network, "fp32")(images)


def test_a_cpu_computes_by_openvino_and_answers_as_fp32_does(tiny, network):
    plain, fast = Predictor(describe(tiny), network), BatchedPredictor(describe(tiny), network)
    plain.precision = "fp32"
    engine = choose_engine(fast)
    assert (engine.runtime, engine.device, engine.passed_over) == ("openvino", "cpu", {})
    assert engine.precision == resolve_precision("auto", CPU)
    assert engine.dice_to_fp32 >= 0.995
    image = slices(5, 32, 32, 3).numpy()
    np.testing.assert_allclose(fast.probabilities(image), plain.probabilities(image), atol=0.05)


def test_programs_for_the_sizes_of_the_training_images_are_there_before_the_first_study(tiny, network):
    unsized = changed(tiny, preprocess=[{"step": "unit"}])
    predictor = BatchedPredictor(describe(unsized, input_sizes=((48, 40), (40, 48))), network)
    choose_engine(predictor)
    assert set(predictor.network._programs) >= {(3, 48, 40), (3, 40, 48)}


def test_without_openvino_torch_computes_and_the_reason_is_said(tiny, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine = choose_engine(BatchedPredictor(describe(tiny), network))
    assert engine.runtime == "torch"
    assert list(engine.passed_over.values())[:1] == ["ModuleNotFoundError"]


def test_a_faster_way_whose_masks_differ_is_not_taken(tiny, network, monkeypatch):
    def wrong(network, size, precision):
        return lambda images: [np.full((len(images), 1, *size[1:]), 9, np.float32)]

    monkeypatch.setattr(compiled, "compile_network", wrong)
    predictor = BatchedPredictor(describe(tiny), network)
    engine = choose_engine(predictor)
    assert engine.runtime == "torch"
    assert "its masks differ from those of fp32" in engine.passed_over.values()
    image = slices(2, 32, 32, 3).numpy()
    assert predictor.probabilities(image).max() < 0.99


def test_openvino_cannot_report_its_use(network):
    Compiled(network, "fp32")(slices(1, 3, 32, 32))
    assert not any(module for name, module in sys.modules.items() if name.startswith("openvino_telemetry"))


def test_a_cpu_takes_few_large_slices_at_once_and_a_gpu_as_many_as_it_is_told():
    assert [slices_at_once(side, side, 16, CPU) for side in (64, 128, 256, 1024)] == [16, 16, 4, 1]
    assert slices_at_once(256, 256, 16, torch.device("cuda")) == 16


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name, architecture in ARCHITECTURES.items() if architecture.dims == 2))
def test_every_network_of_slices_compiles_and_says_the_same(tiny, name):
    torch.manual_seed(0)
    experiment = changed(tiny, model={"architecture": name})
    network = build_network(experiment.model, in_channels=3, num_outputs=1).eval()
    images = slices(2, 3, 64, 64)
    with torch.inference_mode():
        np.testing.assert_allclose(Compiled(network, "fp32")(images).numpy(), network(images).numpy(), atol=1e-2)
