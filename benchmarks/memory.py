"""Training steps on the CPU with and without keeping the memory of freed tensors (`keep_freed_memory`).

Run: python benchmarks/memory.py [--rounds 3]

A plain PyTorch loop of U-Net/MobileNetV2, batches of 16, bf16 and channels_last, on all cores, in a thread, as a trial
of a search is. Each measurement is a process of its own, the two in turn. Writes what it found to memory.md beside this
file.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from threading import Thread

from machine import first_lines

SIZES, BATCH = (64, 128, 256), 16


def measure(found: dict[str, float]) -> None:
    """Put slices a second by size, and the highest memory, into `found`."""
    import segmentation_models_pytorch as smp
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    for size in SIZES:
        network = smp.Unet("mobilenet_v2", encoder_weights=None).train().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters())
        images = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
        target = (torch.rand(BATCH, 1, size, size) > 0.5).float()
        seconds = []
        for _ in range(8):
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(images)
            torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
        found[str(size)] = BATCH / statistics.median(seconds[2:])
    found["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def child(kept: bool) -> None:
    """Measure in this process and print a JSON object."""
    from glioflow.evaluation.inference import keep_freed_memory

    if kept:
        assert keep_freed_memory()
    found: dict[str, float] = {}
    thread = Thread(target=measure, args=(found,))
    thread.start()
    thread.join()
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=["kept", "given back"])
    said = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    if said.child:
        return child(said.child == "kept")
    load, began = os.getloadavg()[0], time.monotonic()
    values: dict[str, dict[str, list[float]]] = {"given back": defaultdict(list), "kept": defaultdict(list)}
    for _ in range(said.rounds):
        for way, lists in values.items():
            done = subprocess.run(
                [sys.executable, __file__, "--child", way], check=True, capture_output=True, text=True
            )
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                lists[name].append(value)
    lines = [f"| freed memory is | {' | '.join(f'{size} px, slices/s' for size in SIZES)} | highest, GiB |"]
    lines.append("|" + "---|" * (len(SIZES) + 2))
    for way, lists in values.items():
        middle = [statistics.median(lists[str(size)]) for size in SIZES]
        lines.append(f"| {way} | {' | '.join(f'{v:.1f}' for v in middle)} | {statistics.median(lists['gib']):.2f} |")
    text = "\n".join([*first_lines("Memory", (time.monotonic() - began) / 60, load), *lines, ""])
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
