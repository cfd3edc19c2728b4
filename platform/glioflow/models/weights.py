"""Pretrained encoder weights: their source, reading, and expected input."""

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glioflow.errors import UserError, one_line
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
    except RuntimeError as error:
        rule = f"the weights of training.start do not fit the network: {one_line(error, most=300)}"
        raise UserError(rule, source) from None


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


def load_into_encoder(encoder: "nn.Module", state: dict[str, "Tensor"], *, name: str, in_channels: int) -> None:
    """Load a three-channel state dict into the encoder `name`, its first convolution adapted to `in_channels`.

    An encoder of timm (`tu-NAME`) loaded it during construction, but silently accepts any file: here
    its names are checked.

    Raises:
        UserError: If the tensors are not those of this encoder.
    """
    if name.startswith("tu-"):
        return _check_timm_names(encoder, state, name=name)
    from segmentation_models_pytorch.encoders import get_encoder

    colored = get_encoder(name, in_channels=3, depth=len(encoder.out_channels) - 1, weights=None)
    try:
        colored.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UserError(f"the weights file does not fit encoder {name}: {one_line(error, most=300)}") from error
    colored.set_in_channels(in_channels, pretrained=True)
    encoder.load_state_dict(colored.state_dict())


def _check_timm_names(encoder: "nn.Module", state: dict[str, "Tensor"], *, name: str) -> None:
    # timm's feature networks use `layer1_0` for `layer1.0` when they flatten a sequence.
    held = {key.replace("_", ".") for key in state}
    missing = [key for key in encoder.model.state_dict() if key.replace("_", ".") not in held]
    if missing:
        raise UserError(f"the weights file does not fit encoder {name}: it lacks {', '.join(missing[:4])}")


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
