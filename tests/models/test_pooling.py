import pytest
import torch
from torch import nn

from glioflow.models import ModelSettings, build_network
from glioflow.models.pooling import MatrixPool2d, replace_pooling


@pytest.mark.parametrize("size", [1, 2, 3, (5, 7), (None, 3)])
def test_matrix_pooling_computes_adaptive_average_pooling(size):
    images = torch.rand(2, 3, 13, 20, dtype=torch.float64)
    pair = size if isinstance(size, tuple) else (size, size)
    assert torch.allclose(MatrixPool2d(pair)(images), nn.AdaptiveAvgPool2d(size)(images))


@pytest.mark.parametrize("name", ["pspnet", "upernet"])
def test_a_network_computes_the_same_with_matrix_pooling(name):
    torch.manual_seed(0)
    network = build_network(ModelSettings(architecture=name, encoder="resnet18"), in_channels=3, num_outputs=1).eval()
    images = torch.rand(1, 3, 64, 64)
    before, keys = network(images), list(network.state_dict())
    replace_pooling(network)
    assert not any(isinstance(module, nn.AdaptiveAvgPool2d) for module in network.modules())
    assert any(isinstance(module, MatrixPool2d) for module in network.modules())
    assert torch.allclose(network(images), before, atol=1e-5)
    assert list(network.state_dict()) == keys
