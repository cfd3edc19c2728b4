"""Seconds of a training step on one CPU core by the decoder of a U-Net: the usual one, the plan's thin one, Linknet's.

Run: python benchmarks/decoders.py

Each step takes 16 slices of 128 x 128 and three channels, forward and backward, with MobileNetV2 as encoder; the
fastest of four steps counts, and the median of three rounds, interleaved. No accuracy is measured here.
"""

import os
import statistics
import time

from machine import first_lines

from glioflow.config import Experiment, override
from glioflow.planning.rules import THIN_DECODER
from glioflow.planning.speed import measure_step

BASE = Experiment.model_validate(
    {
        "preprocess": [{"step": "unit"}, {"step": "resize", "size": 128}],
        "model": {"architecture": "unet", "encoder": "mobilenet_v2"},
        "training": {"batch_size": 16, "cpus_per_worker": 1},
    }
)
KINDS = {
    "U-Net": {},
    "U-Net, thin decoder": {"model.options": {"decoder_channels": THIN_DECODER}},
    "Linknet": {"model.architecture": "linknet"},
}


def main() -> None:
    """Measure, and print a table."""
    load, began, seconds = os.getloadavg()[0], time.perf_counter(), {name: list[float]() for name in KINDS}
    for _ in range(3):
        for name, changes in KINDS.items():
            seconds[name].append(measure_step(override(BASE, changes), ("pre", "flair", "post"), steps=4).seconds)
    usual = statistics.median(seconds["U-Net"])
    print("\n".join(first_lines("A step by its decoder", (time.perf_counter() - began) / 60, load)))
    print("| decoder | seconds of a step | of the usual one |\n|---|---|---|")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"| {name} | {median:.2f} | {median / usual:.0%} |")


if __name__ == "__main__":
    main()
