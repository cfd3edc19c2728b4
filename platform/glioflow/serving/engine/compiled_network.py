"""A 2D network whose forward pass OpenVINO computes, with the same weights."""

# mypy: disallow-subclassing-any=False

import sys
import warnings
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MAX_SIZES = 4
_HINTS = {"bf16": "bf16", "fp32": "f32"}
Program = Callable[[NDArray[np.float32]], Any]


class Compiled(nn.Module):
    """Images (B, C, H, W) on the CPU to logits (B, K, H, W), computed by OpenVINO.

    Each new slice size is compiled at its first use, which takes seconds. Sizes beyond `MAX_SIZES`, and
    later sizes that cannot be compiled, are computed by the network itself.
    """

    def __init__(self, network: nn.Module, precision: Literal["bf16", "fp32"]) -> None:
        """Wrap a 2D network on the CPU, in eval mode.

        Args:
            network: (B, C, H, W) to (B, K, H, W).
            precision: Precision of the arithmetic; inputs and logits are float32.
        """
        super().__init__()
        self.network, self._precision = network, precision
        self._programs: dict[tuple[int, ...], Program | None] = {}
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        program = self._program(tuple(images.shape[1:]))
        if program is None:
            return cast(Tensor, self.network(images))
        slices = np.ascontiguousarray(images.permute(0, 2, 3, 1).float().numpy())
        return torch.from_numpy(program(slices)[0])

    def _program(self, size: tuple[int, ...]) -> Program | None:
        if size not in self._programs and len(self._programs) < MAX_SIZES:
            try:
                self._programs[size] = compile_network(self.network, size, self._precision)
            except Exception:
                if not self._programs:
                    raise
                self._programs[size] = None
        return self._programs.get(size)


def compile_network(network: nn.Module, size: tuple[int, ...], precision: Literal["bf16", "fp32"]) -> Program:
    """Return a network's OpenVINO program for slices (C, H, W), from (B, H, W, C) to [(B, K, H, W)]."""
    # OpenVINO sends telemetry over the internet, even at import, if this package is installed.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    frontend = FrontEndManager().load_by_framework("pytorch")
    with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns about the fixed size, which is intended
        decoder = TorchScriptPythonDecoder(network, example_input=(torch.zeros(2, *size),))
    model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *size])
    layout = PrePostProcessor(model)
    layout.input().tensor().set_layout(openvino.Layout("NHWC"))
    layout.input().model().set_layout(openvino.Layout("NCHW"))
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return cast(Program, openvino.Core().compile_model(layout.build(), "CPU", options))
