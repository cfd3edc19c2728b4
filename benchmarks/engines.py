"""Ways to compute one network on this CPU, in turn: eager, channels_last, bf16, torch.compile, ONNX Runtime, OpenVINO.

Run by serving.py: python benchmarks/engines.py BUNDLE IMAGE.npy [--rounds 3] [--seconds 2]; prints a JSON object. What
is not installed, or not for this CPU, says so. Dice and volume are of the masks beside those of eager fp32.
"""

import argparse
import io
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glioflow import bundle
from glioflow.evaluation.inference import keep_freed_memory
from glioflow.serving.engine.compiled_network import Compiled


def measure_engines(folder: Path, image: Path, rounds: int, seconds: float) -> dict[str, dict[str, float | str]]:
    """Return slices a second of ways to compute the slices at once, in turn, and their masks beside fp32's."""
    keep_freed_memory()
    network = bundle.load(folder).network
    batch = torch.from_numpy(np.load(image)).permute(0, 3, 1, 2).contiguous()
    ways = engines(network, bundle.load(folder).network.to(memory_format=torch.channels_last), batch)
    said: dict[str, dict[str, float | str]] = {}
    speeds: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        exact = network(batch).numpy() > 0
        for name, make in ways.items():
            try:
                run = ways[name] = make()
                mask = np.asarray(run()) > 0
                run()
            except Exception as error:  # no compiler, no such library, no such instructions
                said[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"}
                continue
            both, volume = int((mask & exact).sum()), int(mask.sum())
            said[name] = {
                "dice": 2 * both / max(1, volume + int(exact.sum())),
                "volume": volume / max(1, int(exact.sum())) - 1,
            }
        for _ in range(rounds):
            for name in (each for each in said if "dice" in said[each]):
                count, began = 0, time.perf_counter()
                while time.perf_counter() - began < seconds:
                    ways[name]()
                    count += len(batch)
                speeds[name].append(count / (time.perf_counter() - began))
    for name, found in speeds.items():
        said[name]["slices_per_s"] = statistics.median(found)
    return said


def engines(network: Any, swapped: Any, batch: Any) -> dict[str, Callable[[], Any]]:
    """Return what makes each way ready; the ready one gives logits."""
    last = batch.contiguous(memory_format=torch.channels_last)

    def eager(module: Any, images: Any, half: bool = False) -> Callable[[], Any]:
        def run() -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                return module(images).float()

        return run

    def exported() -> bytes:
        buffer = io.BytesIO()
        torch.onnx.export(network, (batch,), buffer, dynamo=False, input_names=["x"])
        return buffer.getvalue()

    def onnx() -> Callable[[], Any]:
        import onnxruntime

        session = onnxruntime.InferenceSession(exported(), providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": batch.numpy()})[0]

    def openvino(precision: Any) -> Callable[[], Any]:
        compiled = Compiled(network, precision)
        return lambda: compiled(batch).numpy()

    return {
        "eager fp32": lambda: eager(network, batch),
        "channels_last fp32": lambda: eager(swapped, last),
        "eager bf16": lambda: eager(network, batch, half=True),
        "channels_last bf16": lambda: eager(swapped, last, half=True),
        "torch.compile, channels_last bf16": lambda: eager(torch.compile(swapped), last, half=True),
        "ONNX Runtime fp32": onnx,
        "OpenVINO fp32": lambda: openvino("fp32"),
        "OpenVINO bf16": lambda: openvino("bf16"),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path, help="(S, h, w, C) float32, prepared")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    asked = parser.parse_args()
    print(json.dumps(measure_engines(asked.bundle, asked.image, asked.rounds, asked.seconds)))


if __name__ == "__main__":
    main()
