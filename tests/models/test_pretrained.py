"""Pretrained encoders: where weights come from, what they expect of their input, and what stays frozen."""

import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from glioflow.errors import UserError
from glioflow.models import ModelSettings, build_network

ENCODER = "mobilenet_v2"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return get_encoder(ENCODER, weights=None).state_dict()


@pytest.fixture
def weights(state, tmp_path):
    torch.save(state, tmp_path / "encoder.pth")
    return str(tmp_path / "encoder.pth")


def build(in_channels=3, load_weights=True, **settings):
    values = ModelSettings(**{"encoder": ENCODER, **settings})
    return build_network(values, in_channels=in_channels, num_outputs=1, load_weights=load_weights)


def test_a_file_fills_the_encoder(weights, state):
    loaded = build(weights=weights).body.encoder.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_safetensors_uris_and_the_data_folder_are_read_alike(state, weights, tmp_path, monkeypatch):
    save_file(state, tmp_path / "encoder.safetensors")
    monkeypatch.setenv("GLIOFLOW_DATA", str(tmp_path))
    for source in (str(tmp_path / "encoder.safetensors"), Path(weights).as_uri(), "encoder.pth"):
        first = build(weights=source).body.encoder.features[0][0].weight
        assert torch.equal(first, state["features.0.0.weight"]), source


def test_one_channel_gets_the_sum_of_the_color_filters(weights, state):
    first = build(in_channels=1, weights=weights).body.encoder.features[0][0].weight
    torch.testing.assert_close(first, state["features.0.0.weight"].sum(1, keepdim=True))


def test_a_gray_image_means_the_same_to_one_channel_as_to_three(weights):
    torch.manual_seed(0)
    gray = torch.rand(1, 1, 64, 64)
    three, one = (build(in_channels=n, weights=weights, input_scaling="symmetric").eval() for n in (3, 1))
    colored = three.body.encoder(gray.expand(-1, 3, -1, -1) * 2 - 1)[-1]
    torch.testing.assert_close(one.body.encoder(gray * 2 - 1)[-1], colored, rtol=1e-3, atol=1e-5)


def test_the_input_is_scaled_as_the_weights_expect(weights):
    network = build(weights=weights)
    seen = []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 32, 32)
    network.eval()(image)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], (image - mean.reshape(1, 3, 1, 1)) / deviation.reshape(1, 3, 1, 1))


def test_input_scaling_can_be_said(weights):
    assert build(weights=weights, input_scaling="none").input_factor is None
    assert build(weights=weights, input_scaling="symmetric").input_factor.unique().item() == 2


def test_without_weights_the_input_is_taken_as_it_comes():
    assert build().input_factor is None


def test_a_saved_network_brings_its_scaling_and_fetches_nothing(weights):
    trained = build(weights=weights, input_scaling="auto").eval()
    os.remove(weights)
    restored = build(weights=weights, load_weights=False).eval()
    restored.load_state_dict(trained.state_dict())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(restored(image), trained(image))


def test_missing_weights_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIOFLOW_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"the weights file gone\.pth does not exist") as error:
        build(weights="gone.pth")
    assert f"{tmp_path / 'gone.pth'} and {tmp_path / 'data' / 'gone.pth'}" in str(error.value)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_of_another_encoder_are_refused(weights, encoder):
    with pytest.raises(
        UserError,
        match=f"does not fit encoder {encoder}: .* are missing, such as .*; got {weights}; give a file of this encoder",
    ):
        build(weights=weights, encoder=encoder)


def test_a_file_that_runs_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="state dict of tensors"):
        build(weights=str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_timm_encoders_load_a_file_too(tmp_path):
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "timm.pth")
    network = build(encoder="tu-resnet18", weights=str(tmp_path / "timm.pth"))
    saved = torch.load(tmp_path / "timm.pth", weights_only=True)
    assert torch.equal(network.body.encoder.model.state_dict()["layer4.1.conv2.weight"], saved["layer4.1.conv2.weight"])


def test_a_frozen_encoder_does_not_move_even_its_batch_norm(weights):
    network = build(weights=weights, freeze="encoder").train()
    before = {key: value.clone() for key, value in network.body.encoder.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.rand(4, 3, 64, 64)).mean().backward()
    optimizer.step()
    after = network.body.encoder.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_frozen_batch_norm_keeps_statistics_scale_and_shift_while_convolutions_learn(weights):
    network = build(weights=weights, freeze="batchnorm").train()
    before = {key: value.clone() for key, value in network.body.encoder.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.rand(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    moved = {key for key, value in network.body.encoder.state_dict().items() if not torch.equal(before[key], value)}
    assert "features.0.0.weight" in moved
    assert not any("running" in key or key.startswith("features.0.1") for key in moved)


def test_an_encoder_can_be_unfrozen_between_epochs(weights):
    network = build(weights=weights, freeze="encoder").train()
    network.freeze("none")
    assert all(weight.requires_grad for weight in network.parameters())
    assert network.body.encoder.features[0][1].training


def test_freezing_random_numbers_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        build(freeze="encoder")
    assert "freezes random weights" in caplog.text


@pytest.mark.real
@pytest.mark.skipif("GLIOFLOW_DATA" not in os.environ, reason="needs the shared data folder")
def test_the_shared_imagenet_weights_load_and_are_known_to_be_symmetric():
    if not (Path(os.environ["GLIOFLOW_DATA"]) / "mobilenet_v2_imagenet.pth").is_file():
        pytest.skip("no mobilenet_v2_imagenet.pth there")
    network = build(weights="mobilenet_v2_imagenet.pth")
    assert network.input_factor.unique().item() == 2
    assert network.input_offset.unique().item() == -1
