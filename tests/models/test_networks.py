"""Every registered network keeps the one contract."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from glioflow.errors import UserError
from glioflow.models import ARCHITECTURES, LOSSES, ModelSettings, build_network
from glioflow.models.registry import ENCODERS

SMALL = {"fcn32": {"head_channels": 16}, "swinunetr": {"feature_size": 12}}
ODD_SIZE = {2: (50, 70), 3: (20, 17, 33)}


def build(name, *, in_channels=3, num_outputs=2, **settings):
    if name == "swinunetr":
        pytest.importorskip("einops")
    options = SMALL.get(name, {})
    torch.manual_seed(0)
    return build_network(
        ModelSettings(architecture=name, options=options, **settings), in_channels=in_channels, num_outputs=num_outputs
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_channels_and_any_size_give_logits_of_that_size(name):
    network = build(name, in_channels=4, num_outputs=3).eval()
    size = ODD_SIZE[ARCHITECTURES[name].dims]
    image = torch.rand(1, 4, *size)
    with torch.inference_mode():
        logits = network(image)
        for layer in network.modules():  # the last layers, which give three outputs
            if getattr(layer, "out_channels", None) == 3:
                for weights in layer.parameters(recurse=False):
                    weights.mul_(1000)
        larger = network(image)
    assert logits.shape == (1, 3, *size)
    assert larger.abs().max() > 100 * logits.abs().max(), "an activation was applied"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "swinunetr" else [])
        for name, entry in ARCHITECTURES.items()
        if entry.dims == 3
    ],
)
def test_a_patch_smaller_than_a_network_needs_trains_it_too(name):
    network = build(name, in_channels=1, num_outputs=1).train()
    logits = network(torch.rand(2, 1, 16, 8, 16))
    logits.sum().backward()
    assert logits.shape == (2, 1, 16, 8, 16)


@pytest.mark.parametrize("name", ["buda-unet", "resunet", "attention-unet", "unet3d"])
@pytest.mark.parametrize("levels", [3, 6])
def test_more_or_fewer_levels_take_any_size_too(name, levels):
    settings = ModelSettings(architecture=name, options={"features": [4] * levels})
    network = build_network(settings, in_channels=1, num_outputs=1).eval()
    size = (40, 24, 33)[: ARCHITECTURES[name].dims]
    assert network(torch.rand(1, 1, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("name", ["unet", "fcn32", "resunet", "buda-unet", "buda-unet-nobn", "unet3d"])
def test_a_gradient_reaches_every_weight(name):
    network = build(name, in_channels=1, num_outputs=1).train()
    network(torch.rand(2, 1, *(32,) * ARCHITECTURES[name].dims)).square().sum().backward()
    without = [key for key, weight in network.named_parameters() if weight.grad is None]
    assert not without


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "efficientnet-b0", "tu-resnet18"])
def test_unet_takes_encoders_of_smp_and_timm(encoder):
    network = build("unet", encoder=encoder, in_channels=2).eval()
    assert network(torch.rand(1, 2, 64, 64)).shape == (1, 2, 64, 64)


def test_a_padded_size_answers_as_the_image_continued_at_its_edge():
    network = build("buda-unet", in_channels=1).eval()
    image = torch.rand(1, 1, 60, 64)
    continued = torch.cat([image, image[:, :, -1:].expand(-1, -1, 4, -1)], dim=2)
    torch.testing.assert_close(network(image), network(continued)[:, :, :60])


def test_buda_unet_has_the_published_size():
    # The well-known port's 7.76 M parameters; without batch norm its convolutions have biases instead.
    assert sum(p.numel() for p in build("buda-unet", num_outputs=1).parameters()) == 7_763_041
    convolutions = [m for m in build("buda-unet-nobn").modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(convolution.bias is not None for convolution in convolutions)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in build("buda-unet-nobn").modules())


def test_names_are_listed_without_torch_and_networks_of_this_package_built_without_other_libraries():
    code = """
import sys, glioflow.models as m
assert m.ARCHITECTURES and m.LOSSES and 'torch' not in sys.modules
m.build_network(m.ModelSettings(architecture="buda-unet"), in_channels=3, num_outputs=1)
m.build_loss(m.LossSettings(), task="binary")
loaded = {"segmentation_models_pytorch", "monai", "timm", "torchvision", "torch._dynamo"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_encoder_names_are_those_of_the_library():
    import segmentation_models_pytorch as smp

    assert set(ENCODERS) == set(smp.encoders.encoders)


def test_options_are_keywords_of_the_libraries():
    import inspect

    import segmentation_models_pytorch as smp

    from glioflow.models.architectures import _SMP

    for name, class_name in _SMP.items():
        keywords = inspect.signature(getattr(smp, class_name)).parameters
        assert set(ARCHITECTURES[name].options) <= set(keywords), name


def test_every_name_has_a_builder():
    from glioflow.models import architectures, loss_builders

    assert set(architectures.BUILDERS) == set(ARCHITECTURES)
    assert set(loss_builders.BUILDERS) == set(LOSSES)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"architecture": "unett"},
            r"unknown architecture 'unett'; did you mean unet\? Choose one of: attention-unet.*unetplusplus",
        ),
        (
            {"encoder": "resnet19"},
            r"unknown encoder 'resnet19'; did you mean resnet\d+\? Choose one of: .*resnet18.*tu-NAME",
        ),
        ({"architecture": "unet3d", "options": {"width": 3}}, r"unknown option of unet3d 'width'.*features"),
        ({"architecture": "dpt", "encoder": "resnet18"}, "vision transformer of timm"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_an_unknown_name_lists_the_choices(settings, expected):
    with pytest.raises(ValidationError, match=expected):
        ModelSettings(**settings)


def test_a_combination_that_cannot_be_built_says_so():
    with pytest.raises(UserError, match=r"unet on encoder tu-nothing.* cannot be built"):
        build("unet", encoder="tu-nothing")


def test_encoder_settings_resolve_to_nothing_where_the_network_has_no_exchangeable_encoder():
    settings = ModelSettings(architecture="buda-unet", encoder="resnet18", weights="imagenet", freeze="encoder")
    resolved = settings.resolved
    assert (resolved.encoder, resolved.weights, resolved.freeze) == (None, None, "none")
    assert (settings.encoder, settings.weights, settings.freeze) == ("resnet18", "imagenet", "encoder")


def test_a_default_encoder_is_the_architectures_own_and_is_not_passed_on_to_another():
    settings = ModelSettings()
    assert settings.resolved.encoder == "resnet18"
    other = ModelSettings.model_validate({**settings.model_dump(mode="json"), "architecture": "fcn32"})
    assert other.resolved.encoder == "vgg16"


def test_channels_last_survives_scaling():
    network = build("unet", encoder="mobilenet_v2", in_channels=3)
    network.input_factor, network.input_offset = torch.full((1, 3, 1, 1), 2.0), torch.full((1, 3, 1, 1), -1.0)
    seen = []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.to(memory_format=torch.channels_last).eval()(torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
