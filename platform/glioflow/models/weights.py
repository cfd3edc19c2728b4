"""Pretrained encoder weights: their source, reading, and expected input."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glioflow.errors import UserError
from glioflow.models.settings import ModelSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

Scaling = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of the three channels in unit range, which the weights' own training subtracted and divided by."""

SCALINGS: dict[str, Scaling] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
# A .pth file does not state its input scaling, so known files are identified by SHA-256.
KNOWN_FILES = {
    # Google Coral's MobileNetV2 (Apache 2.0), converted to torchvision's layout: x / 127.5 - 1.
    "ed121db31cfe8e41bff0a24858562b81b0d6d970d8bd901c1234ebfcaf610691": "symmetric",
}


def read_weights(source: str, *, key: str = "model.weights") -> tuple[dict[str, "Tensor"], str]:
    """Read a state dict from a .pth or .safetensors file, without unpickling anything but tensors.

    Args:
        source: A path (a relative one is looked for in the working directory and under $GLIOFLOW_DATA), or a URI that
            fsspec opens.
        key: Key of the experiment, for errors.

    Returns:
        Tensors by name, and the SHA-256 of the file.

    Raises:
        UserError: If there is no such file (with the searched locations), or no state dict in it.
    """
    import torch
    from safetensors.torch import load

    content, rule = _read_bytes(source, key), f"{key} must be a state dict of tensors (.pth or .safetensors)"
    try:
        if source.endswith(".safetensors"):
            state = load(content)
        else:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(rule, source) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(rule, source)
    return state, hashlib.sha256(content).hexdigest()


def digest_weights(source: str | None) -> str | None:
    """Return the SHA-256 of a weights file on this machine; None for another source."""
    if source in (None, "imagenet") or "://" in source:
        return None
    try:
        with find_weights(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UserError):
        return None


def _read_bytes(source: str, key: str) -> bytes:
    if "://" in source:
        import fsspec

        try:
            with fsspec.open(source, "rb") as file:
                return bytes(file.read())
        except Exception as error:  # any error of a store's library, such as botocore without credentials
            raise UserError(f"{key} cannot be read", f"{source}: {error}", hint="check the address") from error
    return find_weights(source, key=key).read_bytes()


def load_whole(network: "nn.Module", source: str) -> None:
    """Load the weights of a whole network, such as those of a bundle; raises `UserError` if they do not fit it."""
    state, _ = read_weights(source, key="training.start")
    try:
        network.load_state_dict(state)
    except RuntimeError:
        rule = f"the weights of training.start do not fit the network of the experiment: {misfit(network, state)}"
        made_for = _made_for(source)
        hint = "set the section model to that of the experiment which made them" if made_for is None else made_for
        raise UserError(rule, source, hint=hint) from None


def misfit(network: "nn.Module", state: Mapping[str, "Tensor"]) -> str:
    """Return in words why tensors are not those of a network: what is missing, of another shape, or of another."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in state]
    foreign = [name for name in state if name not in expected]
    shapes = {name: (tuple(state[name].shape), tuple(held.shape)) for name, held in expected.items() if name in state}
    unlike = [f"{name} is {given}, not {held}" for name, (given, held) in shapes.items() if given != held]
    found = []
    if missing:
        found.append(f"{len(missing)} of its {len(expected)} tensors are missing, such as {missing[0]}")
    if unlike:
        found.append(f"{len(unlike)} have another shape: {unlike[0]}")
    if foreign and not found:
        found.append(f"{len(foreign)} belong to another network, such as {foreign[0]}")
    return ", and ".join(found) or "their values cannot be copied"


def _made_for(source: str) -> str | None:
    """Return what to do about the weights of a bundle, whose `model.json` beside them says what they were made for."""
    try:
        model = json.loads(find_weights(source).with_name("model.json").read_bytes())["model"]
        named = [f"model.{key}={model[key]}" for key in ("architecture", "encoder") if model[key]]
    except (OSError, ValueError, LookupError, TypeError, UserError):
        return None
    return f"they were made for {' and '.join(named)}; set the section model to that of {source}"


def find_weights(source: str, *, key: str = "model.weights") -> Path:
    """Return the file of weights that a path names, here or under $GLIOFLOW_DATA.

    Raises:
        UserError: If there is none, with the searched locations.
    """
    paths = [Path(source)]
    if not paths[0].is_absolute() and "GLIOFLOW_DATA" in os.environ:
        paths.append(Path(os.environ["GLIOFLOW_DATA"]) / source)
    for path in paths:
        if path.is_file():
            return path
    listed = " and ".join(str(path.absolute()) for path in paths)
    also = "" if "GLIOFLOW_DATA" in os.environ else "; GLIOFLOW_DATA, the other folder to look in, is not set"
    rule = f"the weights file {source} does not exist; looked for {listed}{also}"
    named = "imagenet, " if key == "model.weights" else ""
    raise UserError(rule, source, hint=f"set {key} to {named}a path, a URI or null")


def load_into_encoder(
    encoder: "nn.Module", state: dict[str, "Tensor"], *, name: str, in_channels: int, source: str | None = None
) -> None:
    """Load a three-channel state dict into the encoder `name`, its first convolution adapted to `in_channels`.

    An encoder of timm (`tu-NAME`) loaded it during construction, but silently accepts any file: here
    its names are checked.

    Args:
        encoder: The encoder of a network.
        state: Tensors by name.
        name: Name of the encoder.
        in_channels: Its number of input channels.
        source: The file of the tensors, for errors.

    Raises:
        UserError: If the tensors are not those of this encoder.
    """
    if name.startswith("tu-"):
        return _check_timm_names(encoder, state, name=name, source=source)
    from segmentation_models_pytorch.encoders import get_encoder

    colored = get_encoder(name, in_channels=3, depth=len(encoder.out_channels) - 1, weights=None)
    try:
        colored.load_state_dict(dict(state))
    except RuntimeError as error:
        raise _other_encoder(name, misfit(colored, state), source) from error
    colored.set_in_channels(in_channels, pretrained=True)
    encoder.load_state_dict(colored.state_dict())


def _check_timm_names(encoder: "nn.Module", state: dict[str, "Tensor"], *, name: str, source: str | None) -> None:
    # timm's feature networks use `layer1_0` for `layer1.0` when they flatten a sequence.
    held = {key.replace("_", ".") for key in state}
    missing = [key for key in encoder.model.state_dict() if key.replace("_", ".") not in held]
    if missing:
        raise _other_encoder(name, f"{len(missing)} of its tensors are missing, such as {missing[0]}", source)


def _other_encoder(name: str, why: str, source: str | None) -> UserError:
    hint = "give a file of this encoder as model.weights, or set model.encoder to the one that the file was made for"
    return UserError(f"the weights file does not fit encoder {name}: {why}", source, hint=hint)


def scaling_of(settings: ModelSettings, *, digest: str | None) -> Scaling | None:
    """Return the input scaling that the encoder's weights expect; None if there is none.

    Args:
        settings: The network's; `input_scaling` takes precedence unless it is `auto`.
        digest: SHA-256 of the weights file; None for `imagenet`.
    """
    kind = settings.input_scaling
    if kind == "none":
        return None
    if kind != "auto":
        return SCALINGS[kind]
    if digest is not None:
        return SCALINGS[KNOWN_FILES.get(digest, "imagenet")]
    from segmentation_models_pytorch.encoders import get_preprocessing_params

    parameters: dict[str, Any] = get_preprocessing_params(str(settings.encoder), "imagenet")
    top = max(parameters["input_range"])
    return tuple(m / top for m in parameters["mean"]), tuple(s / top for s in parameters["std"])
